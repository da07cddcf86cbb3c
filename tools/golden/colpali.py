"""ColPali: an adapter over a base in the published layout, a merged checkpoint, and transformers' own layout.

Questions go through one at a time with `token_type_ids` of zeros: without them transformers 5.23 makes `eager` attention
causal, which the checkpoints were not trained with.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from colpali_engine.models import ColPali
from colpali_engine.models import ColPaliProcessor as EngineProcessor
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, ColPaliForRetrieval
from transformers.models.colpali.processing_colpali import ColPaliProcessor as NativeProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

import sentencepiece
from cases import check_noise, write_case
from checkpoints import DIM
from paths import CASES, CHECKPOINTS, run_lengths, sha256, write_json
from stages import check_report, run, thin
from weights import linear, normal, save, text_weights, vision_weights

TARGET_MODULES = (
    "(.*(language_model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(custom_text_proj).*$)"
)
NEWEST, NATIVE = "0.3.11", "0.3.1"


@dataclass(frozen=True)
class Spec:
    name: str
    image: int
    patch: int
    vision: dict
    text: dict
    dtype: str
    shards: int
    layout: str  # "engine" (published base), "merged" (as transformers 5 saves it), "transformers" (`-hf`)
    seed: int

    @property
    def folder(self) -> Path:
        return CHECKPOINTS / self.name

    @property
    def tokens(self) -> int:
        return (self.image // self.patch) ** 2


SMALL = dict(
    image=44, patch=5,  # 8x8 patches, four pixels left over
    vision=dict(hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2),
    text=dict(hidden_size=40, intermediate_size=72, num_hidden_layers=2, num_attention_heads=2,
              num_key_value_heads=1, head_dim=24),
    seed=12,
)  # fmt: skip
SPECS = [
    Spec(
        "colpali-base", image=64, patch=2,
        vision=dict(hidden_size=24, intermediate_size=56, num_hidden_layers=2, num_attention_heads=2),
        text=dict(hidden_size=40, intermediate_size=88, num_hidden_layers=2, num_attention_heads=4,
                  num_key_value_heads=1, head_dim=16),
        dtype="bfloat16", shards=2, layout="engine", seed=11,
    ),
    Spec("colpali-merged", dtype="float32", shards=1, layout="merged", **SMALL),
    Spec("colpali-hf", dtype="bfloat16", shards=1, layout="transformers", **SMALL),
]  # fmt: skip
ADAPTER = "colpali"
RANK, ALPHA, ADAPTER_SEED = 4, 8, 73
PAGES = {"colpali-base": ("page-tall.png", "strip-wide.png"), "colpali-merged": ("slope.png",), "colpali-hf": ("slope.png",)}
QUERIES = {
    "colpali-base": ("How many rows are there in the second column?", "Où est la page 112?"),
    "colpali-merged": ("the tallest bar",),
    "colpali-hf": ("the tallest bar",),
}


def config_json(spec: Spec, image_token: int) -> dict:
    """The keys of the published base, which leave out what the classes give."""
    hidden = spec.text["hidden_size"]
    config = {
        "architectures": ["ColPali"], "bos_token_id": 2, "eos_token_id": 1, "hidden_size": hidden,
        "ignore_index": -100, "image_token_index": image_token, "model_type": "paligemma", "pad_token_id": 0,
        "projection_dim": hidden,
        "text_config": {**spec.text, "model_type": "gemma", "num_image_tokens": spec.tokens,
                        "torch_dtype": "float32", "vocab_size": image_token + 1},
        "torch_dtype": spec.dtype, "transformers_version": "4.42.4",
        "vision_config": {**spec.vision, "image_size": spec.image, "model_type": "siglip_vision_model",
                          "num_image_tokens": spec.tokens, "patch_size": spec.patch, "projection_dim": hidden,
                          "projector_hidden_act": "gelu_fast", "vision_use_head": False},
        "vocab_size": image_token + 1,
    }  # fmt: skip
    if spec.layout == "transformers":
        return {
            "architectures": ["ColPaliForRetrieval"], "dtype": spec.dtype, "embedding_dim": DIM,
            "model_type": "colpali", "transformers_version": "5.23.0", "vlm_config": config,
        }  # fmt: skip
    return config


def weights(spec: Spec, vocabulary: int) -> dict[str, torch.Tensor]:
    """Under the published names: `model.language_model.model.…`, `model.vision_tower.vision_model.…`."""
    text = {**spec.text, "vocab_size": vocabulary}
    vision = {**spec.vision, "image_size": spec.image, "patch_size": spec.patch}
    tower = "model.vision_tower.vision_model."
    out = vision_weights(spec.seed, vision, tower, False)
    hidden, width = text["hidden_size"], vision["hidden_size"]
    name = "model.multi_modal_projector.linear."
    out[name + "weight"] = linear(spec.seed, name + "weight", hidden, width, 1.0)
    out[name + "bias"] = normal(spec.seed, name + "bias", (hidden,), 0.1)
    for key, value in text_weights(spec.seed, text, "model.language_model.model.", False).items():
        # Gemma stores what its norms add to one, and multiplies embeddings by the root of their width.
        if "norm" in key:
            value = value - 1
        if "embed_tokens" in key:
            value = value / hidden**0.5
        out[key] = value
    out["custom_text_proj.weight"] = linear(spec.seed, "custom_text_proj.weight", DIM, hidden, 1.0)
    out["custom_text_proj.bias"] = normal(spec.seed, "custom_text_proj.bias", (DIM,), 0.1)
    return out


def in_layout(name: str, layout: str) -> str:
    if layout == "merged":
        name = name.replace("model.language_model.model", "model.model.language_model")
        name = name.replace("model.vision_tower.vision_model", "model.model.vision_tower")
        return name.replace("model.multi_modal_projector", "model.model.multi_modal_projector")
    if layout == "transformers":
        name = name.replace("model.language_model.model", "vlm.language_model.model")
        name = name.replace("model.vision_tower.vision_model", "vlm.vision_tower.vision_model")
        name = name.replace("model.multi_modal_projector", "vlm.multi_modal_projector")
        return name.replace("custom_text_proj", "embedding_proj_layer")
    return name


def write_processor(folder: Path, spec: Spec) -> int:
    write_json(
        folder / "preprocessor_config.json",
        {
            "do_convert_rgb": None, "do_normalize": True, "do_rescale": True, "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "SiglipImageProcessor",
            "image_seq_length": spec.tokens, "image_std": [0.5, 0.5, 0.5], "processor_class": "PaliGemmaProcessor",
            "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"height": spec.image, "width": spec.image},
        },
    )  # fmt: skip
    return sentencepiece.write_gemma(folder)


def write_checkpoint(spec: Spec) -> int:
    shutil.rmtree(spec.folder, ignore_errors=True)
    image_token = write_processor(spec.folder, spec)
    tensors = {in_layout(key, spec.layout): value for key, value in weights(spec, image_token + 1).items()}
    save(spec.folder, tensors, spec.dtype, spec.shards)
    write_json(spec.folder / "config.json", config_json(spec, image_token))
    return image_token


def adapter_weights(spec: Spec) -> dict[str, torch.Tensor]:
    """Names as the published adapters have them."""
    text = spec.text
    hidden, mlp = text["hidden_size"], text["intermediate_size"]
    queries, values = text["num_attention_heads"] * text["head_dim"], text["num_key_value_heads"] * text["head_dim"]
    shapes = {
        "self_attn.q_proj": (queries, hidden), "self_attn.k_proj": (values, hidden),
        "self_attn.v_proj": (values, hidden), "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (mlp, hidden), "mlp.up_proj": (mlp, hidden), "mlp.down_proj": (hidden, mlp),
    }  # fmt: skip
    modules = {
        f"model.language_model.model.layers.{index}.{name}": shape
        for index in range(text["num_hidden_layers"])
        for name, shape in shapes.items()
    }
    modules["custom_text_proj"] = (DIM, hidden)
    out = {}
    for module, (rows, cols) in modules.items():
        name = f"base_model.model.{module}"
        out[f"{name}.lora_A.weight"] = linear(ADAPTER_SEED, f"{name}.lora_A", RANK, cols, 0.7)
        out[f"{name}.lora_B.weight"] = linear(ADAPTER_SEED, f"{name}.lora_B", rows, RANK, 0.7)
    return out


def write_adapter(spec: Spec) -> Path:
    folder = CHECKPOINTS / ADAPTER
    shutil.rmtree(folder, ignore_errors=True)
    save(folder, adapter_weights(spec), "bfloat16", name="adapter_model.safetensors")
    # The keys of the published adapter.
    config = {
        "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": f"../{spec.name}", "bias": "none",
        "fan_in_fan_out": False, "inference_mode": False, "init_lora_weights": "gaussian", "layer_replication": None,
        "layers_pattern": None, "layers_to_transform": None, "loftq_config": {}, "lora_alpha": ALPHA,
        "lora_dropout": 0.1, "megatron_config": None, "megatron_core": "megatron.core", "modules_to_save": None,
        "peft_type": "LORA", "r": RANK, "rank_pattern": {}, "revision": None, "target_modules": TARGET_MODULES,
        "task_type": "FEATURE_EXTRACTION", "use_dora": False, "use_rslora": False,
    }  # fmt: skip
    write_json(folder / "adapter_config.json", config)
    write_processor(folder, spec)
    return folder


def load(spec: Spec, adapter: Path | None, attention: str):
    model_class = ColPaliForRetrieval if spec.layout == "transformers" else ColPali
    model, report = model_class.from_pretrained(
        spec.folder, dtype=torch.float32, attn_implementation=attention, output_loading_info=True
    )
    check_report(report)
    if adapter is not None:
        # PEFT wants the names of the modules as they are called today, and only warns about others.
        with tempfile.TemporaryDirectory() as scratch:
            renamed = {
                in_layout(key.removeprefix("base_model.model."), "merged"): value
                for key, value in load_file(adapter / "adapter_model.safetensors").items()
            }
            prefixed = {f"base_model.model.{key}": value for key, value in renamed.items()}
            save_file(prefixed, Path(scratch) / "adapter_model.safetensors", metadata={"format": "pt"})
            shutil.copy(adapter / "adapter_config.json", scratch)
            model = PeftModel.from_pretrained(model, scratch, autocast_adapter_dtype=False).float()
        parameters = dict(model.named_parameters())
        for key, value in renamed.items():
            stem, leaf = key.rsplit(".", 1)
            assert torch.equal(parameters[f"base_model.model.{stem}.default.{leaf}"], value.float()), key
        loaded = sum(".lora_A." in name for name in parameters)
        assert loaded == 7 * spec.text["num_hidden_layers"] + 1, loaded
    return model.eval()


class Processors:
    """The engine's and transformers' own, over Pillow's resampling."""

    def __init__(self, folder: Path, spec: Spec):
        images = SiglipImageProcessorPil.from_pretrained(folder)
        images.image_seq_length = spec.tokens
        self.engine = EngineProcessor(image_processor=images, tokenizer=AutoTokenizer.from_pretrained(folder))
        self.native = NativeProcessor(image_processor=images, tokenizer=AutoTokenizer.from_pretrained(folder))

    def page(self, version: str, image) -> dict:
        if version == NATIVE:
            return dict(self.native(images=[image]))
        return dict(self.engine.process_images([image]))

    def query(self, version: str, text: str) -> dict:
        if version == NATIVE:
            return dict(self.native(text=[text]))
        if version == NEWEST:
            return dict(self.engine.process_queries(texts=[text]))
        pads = self.engine.query_augmentation_token * 10
        return dict(self.engine.process_texts([f"Query: {text}{pads}\n"]))

    def versions(self, call) -> dict:
        out = {}
        for version in (NATIVE, "0.3.4", NEWEST):
            ids = call(version)["input_ids"][0].tolist()
            out[version] = {"num_tokens": len(ids), "ids": run_lengths(ids)}
        return out

    def square(self, image) -> torch.Tensor:
        out = self.engine.image_processor(image, do_rescale=False, do_normalize=False, return_tensors="np")
        pixels = out["pixel_values"][0]
        assert (pixels == pixels.astype("uint8")).all()
        return torch.from_numpy(pixels.astype("uint8").transpose(1, 2, 0)[None].copy())


def one_case(kind, name, spec, adapter, version, model, twin, inputs, extra, square):
    inputs = {key: value for key, value in inputs.items() if key in ("input_ids", "attention_mask", "pixel_values")}
    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    stages = run(model, inputs)
    check_noise(model, twin, inputs, stages)
    ids = inputs["input_ids"][0]
    kept, entries = thin(stages)
    tiles = []
    if square is not None:
        tiles.append({"image": extra["images"][0], "frames": 1, "rows": 0, "cols": 0, "sha256": sha256(square.numpy().tobytes())})
    manifest = {
        "case": name, "kind": kind, "checkpoint": spec.name, "adapter": adapter, "seed": spec.seed, "processor": {},
        **extra, "prompt_version": version, "tiles": tiles, "num_tokens": len(ids), "ids": run_lengths(ids.tolist()),
        "stages": entries,
    }  # fmt: skip
    group = adapter or spec.name
    write_case(group, name, manifest, {"input_ids": ids.contiguous(), **kept})
    return stages["rows"]


def make(pictures: dict) -> None:
    for spec in SPECS:
        write_checkpoint(spec)
        adapter = write_adapter(spec) if spec.name == "colpali-base" else None
        model, twin = load(spec, adapter, "eager"), load(spec, adapter, "sdpa")
        processors = Processors(adapter or spec.folder, spec)
        group = adapter.name if adapter else spec.name
        shutil.rmtree(CASES / group, ignore_errors=True)
        version = NATIVE if spec.layout == "transformers" else NEWEST
        common = (spec, adapter.name if adapter else None, version, model, twin)
        rows = {}
        for page in PAGES[spec.name]:
            picture = pictures[page]
            extra = {"images": [page], "prompt_versions": processors.versions(lambda v: processors.page(v, picture))}
            rows[page] = one_case("page", "page-" + page.removesuffix(".png"), *common, processors.page(version, picture),
                                  extra, processors.square(picture))  # fmt: skip
        for index, query in enumerate(QUERIES[spec.name]):
            extra = {"query": query, "prompt_versions": processors.versions(lambda v: processors.query(v, query))}
            rows[query] = one_case("query", f"query-{index + 1}", *common, processors.query(version, query), extra, None)
        if adapter:
            pages, queries = PAGES[spec.name], QUERIES[spec.name]
            scores = processors.engine.score([rows[q] for q in queries], [rows[p] for p in pages], device="cpu")
            write_json(
                CASES / group / "batch.json",
                {
                    "case": "batch", "kind": "batch", "checkpoint": spec.name, "adapter": adapter.name,
                    "pages": ["page-" + page.removesuffix(".png") for page in pages],
                    "queries": [f"query-{index + 1}" for index in range(len(queries))],
                    "scores": [[round(float(value), 5) for value in line] for line in scores],
                },
            )  # fmt: skip
