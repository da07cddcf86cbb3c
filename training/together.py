"""Several processes that train one model: each draws and learns its own batches, their gradients are averaged before every step.

On a CPU a process of one thread for each core is a quarter faster than one process of as many threads: nothing waits for the slowest thread
of each of a step's thousands of products, nor for a process that draws beside them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import torch
from torch import distributed, nn


class Together:
    """`rank` of `size` processes, which all hold the same weights."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size, self.parent = rank, size, os.getppid()

    @torch.no_grad()
    def average(self, *modules: nn.Module) -> None:
        """Makes the gradients of all processes their mean. Where one has no gradient for a parameter, its share is nought."""
        if self.size == 1:
            return
        parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
        flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters])
        distributed.all_reduce(flat)
        flat /= self.size
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters])):
            parameter.grad = part.view_as(parameter)

    @torch.no_grad()
    def same(self, *modules: nn.Module) -> None:
        """Gives all processes the weights of the first."""
        if self.size > 1:
            for module in modules:
                for tensor in module.state_dict().values():
                    distributed.broadcast(tensor, 0)

    def agree(self, *numbers: float) -> list[float]:
        """What the first process says."""
        if self.size == 1:
            return list(numbers)
        if os.getppid() != self.parent:
            raise SystemExit("the process that started this one is gone")
        said = torch.tensor(numbers, dtype=torch.float64)
        distributed.broadcast(said, 0)
        return said.tolist()


def start(rank: int, size: int, port: int, work: Callable[[Together], None]) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    distributed.init_process_group("gloo", rank=rank, world_size=size)
    work(Together(rank, size))
    distributed.destroy_process_group()


def run(size: int, work: Callable[[Together], None]) -> None:
    """`work`, a function of a module (or a partial one), in so many processes of this machine."""
    if size == 1:
        return work(Together())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(start, (size, port, work), nprocs=size)
