"""Runs a checkpoint through transformers and keeps the output of every stage.

Stages in the order of the data: patch_embeddings, vision.block.{i}, vision.post_layernorm, connector, merged,
text.block.{i}, text.norm, then logits (generator) or rows (retriever). The leading axes are flattened, so a stage is a
matrix of rows; of a long one every `row_step`-th row is kept.
"""

from dataclasses import dataclass

import torch
from colpali_engine.models import ColIdefics3
from peft import PeftModel
from safetensors.torch import load_file
from transformers import Idefics3ForConditionalGeneration, SmolVLMForConditionalGeneration

from checkpoints import Adapter, Spec

# Reference and float64 run must agree far better than the 1e-4 that the tests allow, or the stage is ill-conditioned.
MAX_NOISE = 1e-5
# Primes, so that the kept rows walk through all columns of a 26-, 27- or 32-wide grid.
STAGE_BYTES = 12_000
STEPS = (1, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61)


def load_generator(spec: Spec, attention: str = "eager"):
    classes = {"idefics3": Idefics3ForConditionalGeneration, "smolvlm": SmolVLMForConditionalGeneration}
    model, report = classes[spec.model_type].from_pretrained(
        spec.folder, dtype=torch.float32, attn_implementation=attention, output_loading_info=True
    )
    check_report(report)
    check_config(spec, model.config)
    return model.eval()


def load_retriever(spec: Spec, adapter: Adapter | None, attention: str = "eager"):
    model, report = ColIdefics3.from_pretrained(
        spec.folder, dtype=torch.float32, attn_implementation=attention, output_loading_info=True
    )
    check_report(report)
    check_config(spec, model.config)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter.folder, autocast_adapter_dtype=False)
        model = model.float()
        loaded = [name for name, _ in model.named_parameters() if ".lora_A." in name]
        assert len(loaded) == 7 * spec.text["num_hidden_layers"], loaded
        assert all("text_model" in name for name in loaded), loaded
        check_adapter(model, adapter)
    return model.eval()


def check_adapter(model, adapter: Adapter) -> None:
    """Every tensor of the adapter's file is in the model: PEFT only warns about names that it does not know."""
    parameters = dict(model.named_parameters())
    for name, value in load_file(adapter.folder / "adapter_model.safetensors").items():
        stem, leaf = name.rsplit(".", 1)
        assert torch.equal(parameters[f"{stem}.default.{leaf}"], value.float()), name


def check_config(spec: Spec, config) -> None:
    """What transformers makes of config.json, with its defaults filled in, is what the checkpoint was made for."""
    for key, value in spec.text.items():
        assert getattr(config.text_config, key) == value, (spec.name, key, getattr(config.text_config, key), value)
    for key, value in spec.vision.items():
        assert getattr(config.vision_config, key) == value, (spec.name, key)
    for key, value in spec.rope.items():
        assert config.text_config.rope_parameters[key] == value, (spec.name, key)
    assert config.text_config.rms_norm_eps == spec.rms_norm_eps
    assert config.scale_factor == spec.scale_factor


def check_report(report: dict) -> None:
    for key, found in report.items():
        assert not found, f"loading the checkpoint left {key}: {found}"


@dataclass(frozen=True)
class Parts:
    """The modules whose outputs are stages."""

    vision: torch.nn.Module
    connector: torch.nn.Module
    text: torch.nn.Module
    # Further stages between the tower and the text.
    between: dict[str, torch.nn.Module]


def parts(model) -> Parts:
    """Finds them inside a generator, a retriever, or an adapted retriever."""
    while True:
        if hasattr(model, "text_model"):
            between = {}
            resampler = getattr(model.connector, "perceiver_resampler", None)
            if resampler is not None:
                between["modality_projection"] = model.connector.modality_projection
                between.update({f"perceiver.layer.{i}": layer for i, layer in enumerate(resampler.layers)})
            return Parts(model.vision_model, model.connector, model.text_model, between)
        if hasattr(model, "vision_tower") and hasattr(model, "language_model"):
            return Parts(model.vision_tower, model.multi_modal_projector, model.language_model, {})
        model = model.vlm if hasattr(model, "vlm") else model.model


def first(value):
    return value[0] if isinstance(value, (tuple, list)) else value


def run(model, inputs: dict) -> dict[str, torch.Tensor]:
    """One forward pass; returns every stage as (rows, width) in the precision of the model."""
    found = parts(model)
    kept: dict[str, torch.Tensor] = {}
    handles = []

    def keep(name: str):
        def hook(_module, _inputs, output):
            kept[name] = first(output).detach()

        return hook

    if "pixel_values" in inputs:
        vision = found.vision
        handles.append(vision.embeddings.register_forward_hook(keep("patch_embeddings")))
        for index, layer in enumerate(vision.encoder.layers):
            handles.append(layer.register_forward_hook(keep(f"vision.block.{index}")))
        handles.append(vision.post_layernorm.register_forward_hook(keep("vision.post_layernorm")))
        for name, module in found.between.items():
            handles.append(module.register_forward_hook(keep(name)))
        handles.append(found.connector.register_forward_hook(keep("connector")))

    def merged(_module, _args, kwargs):
        kept["merged"] = kwargs["inputs_embeds"].detach()

    handles.append(found.text.register_forward_pre_hook(merged, with_kwargs=True))
    for index, layer in enumerate(found.text.layers):
        handles.append(layer.register_forward_hook(keep(f"text.block.{index}")))
    handles.append(found.text.norm.register_forward_hook(keep("text.norm")))
    with torch.no_grad():
        output = model(**inputs, use_cache=False) if "use_cache" not in inputs else model(**inputs)
    for handle in handles:
        handle.remove()
    if isinstance(output, torch.Tensor):
        kept["rows"] = output
    elif hasattr(output, "embeddings"):
        kept["rows"] = output.embeddings
    else:
        kept["logits"] = output.logits[:, -1:]
    return {name: value.reshape(-1, value.shape[-1]) for name, value in kept.items()}


def noise(reference: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Greatest relative L2 distance over the stages."""
    worst = 0.0
    for name, value in reference.items():
        expected, found = value.double(), other[name].double()
        worst = max(worst, ((expected - found).norm() / expected.norm()).item())
    return worst


def in_double(model, inputs: dict) -> dict[str, torch.Tensor]:
    wide = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
    stages = run(model.double(), wide)
    model.float()
    return stages


def thin(stages: dict[str, torch.Tensor]) -> tuple[dict, list]:
    """Keeps about 12 kB of each stage, and never fewer than 48 rows. Returns tensors and manifest entries."""
    tensors, entries = {}, []
    for name, value in stages.items():
        limit = max(48, STAGE_BYTES // (4 * value.shape[1]))
        step = next(s for s in STEPS if value.shape[0] / s <= limit)
        tensors[name] = value[::step].contiguous().clone()
        entries.append({"name": name, "shape": list(value.shape), "row_step": step})
    return tensors, entries
