"""Whether `--memory` is kept: index, ask and search under budgets, planned beside what the kernel counted.

    python tools/compare/memory.py COLIBRI RETRIEVER GENERATOR FOLDER [BUDGET …] [-- OPTION …]

RETRIEVER and GENERATOR are what `--retriever` and `--generator` take (`builtin`, a folder), FOLDER holds documents, a
BUDGET is what `--memory` takes (0.4GB 0.6GB 1GB 2GB 4GB unless given). OPTIONs go to `index`, for example
`--include '*.png'`. One line a run: what was planned, the greatest resident size of the program alone by the kernel's
own count (`ru_maxrss`), and of the whole process tree as sampled every 5 ms. Standard library only; Linux.
"""

import os
import re
import subprocess
import sys
import tempfile
import time

QUESTION = "How many passages does the Wikipedia collection contain after splitting articles into blocks?"
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def resident(process):
    """Resident bytes of a process and everything below it. A process that was just begun and still has its parent's
    memory (between `fork` and `exec`) is not counted: the two have it together."""
    total, below, begun_by = 0, [process], None
    while below:
        one = below.pop()
        try:
            with open(f"/proc/{one}/cmdline") as file:
                words = file.read()
            if words == begun_by:
                continue
            begun_by = begun_by or words
            with open(f"/proc/{one}/statm") as file:
                total += int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            for thread in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{thread}/children") as file:
                    below += file.read().split()
        except (OSError, ValueError, IndexError):
            pass  # it has just ended
    return total


def run(command):
    """Plans told, exit code, last words, peak of the program, peak of the tree, seconds."""
    with tempfile.TemporaryFile() as told:
        started, tree = time.time(), 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=told, stdin=subprocess.DEVNULL)
        while True:
            tree = max(tree, resident(process.pid))
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if done:
                break
            time.sleep(0.005)
        told.seek(0)
        lines = told.read().decode(errors="replace").splitlines()
    plans = []
    for line in lines:
        plan = re.search(r"(retriever|generator) .* in (\w+), .* = ([\d.]+) (KiB|MiB|GiB)$", line)
        if plan:
            plans.append((plan[1], plan[2], float(plan[3]) * UNITS[plan[4]]))
    return plans, os.waitstatus_to_exitcode(status), lines, usage.ru_maxrss * 1024, tree, time.time() - started


def main(arguments):
    options = []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, options = arguments[:at], arguments[at + 1 :]
    colibri, retriever, generator, folder, *budgets = arguments
    os.environ["HF_HUB_OFFLINE"] = "1"
    print("budget | command | planned | program, kernel's count | tree, sampled | of plan | of budget | s")
    for budget in budgets or ["0.4GB", "0.6GB", "1GB", "2GB", "4GB"]:
        allowed = float(budget.removesuffix("GB")) * 1e9
        with tempfile.TemporaryDirectory() as index:
            models = ["--retriever", retriever, "--generator", generator]
            common = [*models, "--index", index + "/index", "--memory", budget, "--verbose"]
            for name, command in [
                ("index", ["index", folder, *options]),
                ("ask", ["ask", QUESTION, "--max-tokens", "50"]),
                ("search", ["search", QUESTION]),
            ]:
                plans, code, lines, program, tree, seconds = run([colibri, *command, *common])
                if code != 0 and not plans:
                    print(f"{budget} | {name} | refused: {' '.join(lines[-4:])} | | | | | {seconds:.1f}")
                    continue
                planned = max((plan[2] for plan in plans), default=0)
                how = ", ".join(f"{role} {precision} {total / 1e6:.0f} MB" for role, precision, total in plans)
                peak = max(program, tree)
                share = f"{peak / planned:.0%}" if planned else "-"
                print(
                    f"{budget} | {name} | {how} | {program / 1e6:.0f} MB | {tree / 1e6:.0f} MB | {share}"
                    f" | {peak / allowed:.0%} | {seconds:.0f}" + ("" if code == 0 else f" | exit {code}"),
                    flush=True,
                )


if __name__ == "__main__":
    main(sys.argv[1:])
