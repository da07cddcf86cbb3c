"""The tiny checkpoints: for each its sizes, the layout of its files, and what it is there to cover."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from paths import CHECKPOINTS, write_json
from tokenizer import END, IMAGE, specials, vocabulary_size, write_tokenizer
from weights import adapter_weights, linear, model_weights, normal, save

PAD = 2  # <|im_end|>, as in SmolVLM
TARGET_MODULES = (
    "(.*(model.text_model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(custom_text_proj).*$)"
)
DIM = 128  # rows of ColIdefics3 are always this long


@dataclass(frozen=True)
class Spec:
    """One checkpoint. `vision` and `text` hold effective values; `omitted` names what config.json leaves out."""

    name: str
    tags: str  # "single" or "text"
    layout: str  # "old" (4.46 style) or "new" (5.x style)
    dtype: str
    tile: int
    tiles_per_side: int
    scale_factor: int
    vision: dict
    text: dict
    rope: dict
    covers: str
    shards: int = 1
    tied: bool = False
    retriever: bool = False
    template_in: str = "chat_template.json"
    omitted: tuple[str, ...] = ()
    image_seq_len_file: bool = True
    seed_of: str | None = None  # share the weights of this checkpoint
    extra_text: dict = field(default_factory=dict)
    rms_norm_eps: float = 1e-5
    small: bool = False  # see model_weights
    model_type: str = "idefics3"  # or "smolvlm", SmolVLM2
    # The second end id is one that this case generates, so that it stops there.
    second_eos_from: str | None = None

    @property
    def side(self) -> int:
        return self.vision["image_size"] // self.vision["patch_size"]

    @property
    def image_seq_len(self) -> int:
        return self.side**2 // self.scale_factor**2

    @property
    def folder(self) -> Path:
        return CHECKPOINTS / self.name


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter in PEFT's layout over a ColIdefics3 base."""

    name: str
    base: str
    base_name_or_path: str
    rank: int
    alpha: int
    dtype: str
    seed: int
    covers: str
    # Keys that the older published adapter (colsmolvlm-alpha) does not have.
    omitted: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return CHECKPOINTS / self.name


def config_json(spec: Spec) -> dict:
    vocabulary = vocabulary_size(spec.tags)
    ids = specials(spec.tags)
    text = {
        "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
        # Left over from other models in the published files; generation_config.json is what counts.
        "eos_token_id": 2,
        "head_dim": spec.text["head_dim"], "hidden_act": "silu", "hidden_size": spec.text["hidden_size"],
        "intermediate_size": spec.text["intermediate_size"], "max_position_embeddings": 8192, "mlp_bias": False,
        "model_type": "llama", "num_attention_heads": spec.text["num_attention_heads"],
        "num_hidden_layers": spec.text["num_hidden_layers"],
        "num_key_value_heads": spec.text["num_key_value_heads"], "pad_token_id": PAD, "pretraining_tp": 1,
        "rms_norm_eps": spec.rms_norm_eps, "tie_word_embeddings": spec.tied, "use_cache": True, "vocab_size": vocabulary,
    }  # fmt: skip
    vision = {
        "attention_dropout": 0.0, "hidden_act": "gelu_pytorch_tanh", "hidden_size": spec.vision["hidden_size"],
        "image_size": spec.vision["image_size"], "intermediate_size": spec.vision["intermediate_size"],
        "layer_norm_eps": 1e-6, "model_type": "idefics3" if (spec.model_type, spec.layout) == ("idefics3", "old") else f"{spec.model_type}_vision",
        "num_attention_heads": spec.vision["num_attention_heads"], "num_channels": 3,
        "num_hidden_layers": spec.vision["num_hidden_layers"], "patch_size": spec.vision["patch_size"],
    }  # fmt: skip
    config = {
        "architectures": [
            "ColIdefics3" if spec.retriever else f"{class_prefix(spec.model_type)}ForConditionalGeneration"
        ],
        "image_token_id": ids[IMAGE],
        "model_type": spec.model_type,
        "scale_factor": spec.scale_factor,
        "text_config": text,
        "tie_word_embeddings": spec.tied,
        "use_cache": True,
        "vision_config": vision,
    }
    rope = dict(spec.rope)
    theta = rope.pop("rope_theta")
    if spec.layout == "old":
        text["architectures"] = ["VLlama3ForCausalLM"]
        text["rope_scaling"] = rope or None
        text["rope_theta"] = theta
        text["torch_dtype"] = spec.dtype
        text["use_resampler"] = False
        text["qk_layer_norms"] = False
        text["neftune_noise_alpha"] = 0.0
        vision["max_image_size"] = {"longest_edge": spec.tile}
        vision["size"] = {"longest_edge": spec.tile * spec.tiles_per_side}
        # Another left-over, of Idefics3-Llama3, and far outside this vocabulary.
        config["pad_token_id"] = 128002
        config["torch_dtype"] = spec.dtype
        config["transformers_version"] = "4.46.0"
        config["vocab_size"] = vocabulary
    else:
        text["rope_parameters"] = {"rope_theta": theta, "rope_type": "default", **rope}
        text["dtype"] = spec.dtype
        vision["dtype"] = spec.dtype
        config["dtype"] = spec.dtype
        config["transformers_version"] = "5.23.0"
    text.update(spec.extra_text)
    for path in spec.omitted:
        section, key = path.split(".")
        del {"text": text, "vision": vision, "top": config}[section][key]
    return config


def class_prefix(model_type: str) -> str:
    return {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}[model_type]


def preprocessor_json(spec: Spec) -> dict:
    settings = {
        "do_convert_rgb": True, "do_image_splitting": True, "do_normalize": True, "do_pad": True,
        "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": f"{class_prefix(spec.model_type)}ImageProcessor", "image_std": [0.5, 0.5, 0.5],
        "max_image_size": {"longest_edge": spec.tile},
        "processor_class": processor_class(spec), "resample": 1, "rescale_factor": 0.00392156862745098,
        "size": {"longest_edge": spec.tile * spec.tiles_per_side},
    }  # fmt: skip
    if spec.model_type == "smolvlm":
        settings["video_sampling"] = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": spec.tile}}
    return settings


def processor_class(spec: Spec) -> str:
    return "ColIdefics3Processor" if spec.retriever else f"{class_prefix(spec.model_type)}Processor"


def write_processor(folder: Path, spec: Spec, template_in: str | None = None) -> None:
    write_json(folder / "preprocessor_config.json", preprocessor_json(spec))
    if spec.image_seq_len_file:
        write_json(
            folder / "processor_config.json",
            {"image_seq_len": spec.image_seq_len, "processor_class": processor_class(spec)},
        )
    write_tokenizer(folder, spec.tags, template_in or spec.template_in, processor_class=processor_class(spec))


def generation_json(spec: Spec, eos: int | list[int] | None = None) -> dict:
    eos = specials(spec.tags)[END] if eos is None else eos
    return {
        "_from_model_config": True, "bos_token_id": 0, "eos_token_id": eos, "pad_token_id": PAD,
        "transformers_version": "4.46.0" if spec.layout == "old" else "5.23.0",
    }  # fmt: skip


def write_checkpoint(spec: Spec, seed: int) -> None:
    shutil.rmtree(spec.folder, ignore_errors=True)
    text = {**spec.text, "vocab_size": vocabulary_size(spec.tags)}
    tensors = model_weights(seed, spec.vision, text, spec.scale_factor, spec.small)
    hidden = text["hidden_size"]
    if spec.retriever:
        tensors["linear.weight"] = linear(seed, "linear.weight", DIM, hidden, 1.0)
        tensors["linear.bias"] = normal(seed, "linear.bias", (DIM,), 0.1)
    elif not spec.tied:
        tensors["lm_head.weight"] = linear(seed, "lm_head.weight", text["vocab_size"], hidden, 2.0)
    save(spec.folder, tensors, spec.dtype, spec.shards)
    write_json(spec.folder / "config.json", config_json(spec))
    if not spec.retriever:
        write_json(spec.folder / "generation_config.json", generation_json(spec))
    write_processor(spec.folder, spec)


def write_adapter(adapter: Adapter, base: Spec) -> None:
    shutil.rmtree(adapter.folder, ignore_errors=True)
    save(
        adapter.folder,
        adapter_weights(adapter.seed, base.text, adapter.rank),
        adapter.dtype,
        name="adapter_model.safetensors",
    )
    # The keys, and their order, of the published colSmol-256M adapter.
    config = {
        "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": adapter.base_name_or_path,
        "bias": "none", "eva_config": None, "exclude_modules": None, "fan_in_fan_out": False,
        "inference_mode": True, "init_lora_weights": "gaussian", "layer_replication": None,
        "layers_pattern": None, "layers_to_transform": None, "loftq_config": {},
        "lora_alpha": adapter.alpha, "lora_bias": False, "lora_dropout": 0.1, "megatron_config": None,
        "megatron_core": "megatron.core", "modules_to_save": None, "peft_type": "LORA", "r": adapter.rank,
        "rank_pattern": {}, "revision": None, "target_modules": TARGET_MODULES,
        "task_type": "FEATURE_EXTRACTION", "use_dora": False, "use_rslora": False,
    }  # fmt: skip
    for key in adapter.omitted:
        del config[key]
    write_json(adapter.folder / "adapter_config.json", config)
    write_processor(adapter.folder, base)


SINGLE = dict(
    tags="single", layout="old", dtype="bfloat16", tile=64, tiles_per_side=2, scale_factor=4,
    vision=dict(hidden_size=32, intermediate_size=80, num_hidden_layers=2, num_attention_heads=2,
                image_size=64, patch_size=2),
    text=dict(hidden_size=48, intermediate_size=112, num_hidden_layers=3, num_attention_heads=6,
              num_key_value_heads=2, head_dim=8),
    rope=dict(rope_theta=100000),
)  # fmt: skip

SPECS = [
    Spec(
        name="smolvlm-single",
        **SINGLE,
        covers="SmolVLM-256M in small: tags single tokens, 32x32 patches, scale 4, GQA 6/2, head_dim given, untied "
        "lm_head, bfloat16, one file, old config layout, eos an int, template in chat_template.json",
    ),
    Spec(
        name="smolvlm-text",
        tags="text", layout="new", dtype="float32", shards=2, scale_factor=3,
        # 27 patches of 3 leave two pixels over, as 27 of 14 leave six of 384.
        tile=83, tiles_per_side=2,
        vision=dict(hidden_size=24, intermediate_size=56, num_hidden_layers=2, num_attention_heads=2,
                    image_size=83, patch_size=3),
        text=dict(hidden_size=40, intermediate_size=88, num_hidden_layers=2, num_attention_heads=5,
                  num_key_value_heads=5, head_dim=8),
        rope=dict(rope_theta=273768.0),
        omitted=("text.head_dim",),
        template_in="tokenizer_config.json",
        second_eos_from="stops",
        covers="SmolVLM-Instruct 2.2B in small: tags as text, 27x27 patches with pixels left over, scale 3, MHA, "
        "head_dim omitted, untied, float32, two shards, 5.x config layout, eos a list, template in tokenizer_config.json",
    ),
    Spec(
        name="idefics3-llama3",
        tags="text", layout="old", dtype="float16", tile=52, tiles_per_side=1, scale_factor=2, tied=True,
        vision=dict(hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
                    image_size=52, patch_size=2),
        text=dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                  num_key_value_heads=2, head_dim=16),
        rope=dict(rope_theta=500000.0, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                  original_max_position_embeddings=1024),
        extra_text=dict(max_position_embeddings=8192),
        template_in="chat_template.jinja",
        image_seq_len_file=False,
        covers="Idefics3-8B in small: 26x26 patches, scale 2, llama3 rope_scaling, GQA 4/2, tied embeddings without "
        "lm_head.weight, float16, no processor_config.json, template in chat_template.jinja",
    ),
    Spec(
        name="smolvlm-defaults",
        tags="single", layout="new", dtype="bfloat16", tile=34, tiles_per_side=2, scale_factor=2,
        vision=dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=16,
                    image_size=34, patch_size=4),
        text=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=32,
                  num_key_value_heads=32, head_dim=4),
        rope=dict(rope_theta=10000.0),
        # Idefics3Config's own 1e-5 holds only where text_config is missing as a whole: a text_config without the key
        # is read by transformers 5.23 as a plain LlamaConfig, whose default is 1e-6.
        rms_norm_eps=1e-6,
        small=True,
        omitted=(
            "text.num_attention_heads", "text.num_key_value_heads", "text.rms_norm_eps", "text.rope_parameters",
            "text.hidden_act", "text.attention_bias", "text.mlp_bias", "text.attention_dropout",
            "text.tie_word_embeddings", "text.use_cache", "text.pretraining_tp", "vision.num_attention_heads",
            "vision.num_channels", "vision.hidden_act", "vision.layer_norm_eps", "vision.attention_dropout",
            "top.scale_factor", "top.tie_word_embeddings", "top.use_cache",
        ),
        covers="a config that leaves out what the class defaults give (32 and 16 heads, kv heads, rms_norm_eps 1e-6, "
        "rope_theta 10000, scale_factor 2, …), heads x head_dim (128) other than hidden (32), small 8x8 grid",
    ),
    Spec(
        name="smolvlm2",
        tags="single", layout="old", dtype="float32", tile=48, tiles_per_side=2, scale_factor=4,
        vision=dict(hidden_size=24, intermediate_size=56, num_hidden_layers=2, num_attention_heads=3,
                    image_size=48, patch_size=3),
        text=dict(hidden_size=42, intermediate_size=88, num_hidden_layers=2, num_attention_heads=6,
                  num_key_value_heads=2, head_dim=8),
        rope=dict(rope_theta=100000),
        model_type="smolvlm",
        covers="SmolVLM2 in small: model_type smolvlm, video_sampling, 16x16 patches, scale 4, GQA 6/2, heads x "
        "head_dim (48) other than hidden (42), untied, float32 as published",
    ),
    Spec(
        name="colsmol-single-base",
        **SINGLE,
        retriever=True,
        seed_of="smolvlm-single",
        covers="ColIdefics3 base with the weights of smolvlm-single: model.* and linear.*, no lm_head, bfloat16",
    ),
    Spec(
        name="colsmol-text-base",
        tags="text", layout="old", dtype="float32", shards=2, tile=38, tiles_per_side=3, scale_factor=3,
        vision=dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
                    image_size=38, patch_size=4),
        text=dict(hidden_size=40, intermediate_size=72, num_hidden_layers=2, num_attention_heads=5,
                  num_key_value_heads=5, head_dim=8),
        rope=dict(rope_theta=273768.0),
        retriever=True,
        small=True,
        image_seq_len_file=False,
        covers="ColIdefics3 base with tags as text, MHA, float32 in two shards, no processor_config.json "
        "(9 tokens a tile follow from the grid)",
    ),
]  # fmt: skip

ADAPTERS = [
    Adapter(
        name="colsmol-single",
        base="colsmol-single-base",
        base_name_or_path="colibri-golden/colsmol-single-base",
        rank=4,
        alpha=8,
        dtype="float32",
        seed=71,
        covers="LoRA over colsmol-single-base: r 4, alpha 8 (scale 2), float32 over a bfloat16 base, base by hub name",
    ),
    Adapter(
        name="colsmol-text",
        base="colsmol-text-base",
        base_name_or_path="../colsmol-text-base",
        rank=6,
        alpha=6,
        dtype="bfloat16",
        seed=72,
        omitted=("eva_config", "exclude_modules", "lora_bias"),
        covers="LoRA over colsmol-text-base: r 6, alpha 6 (scale 1), bfloat16 over a float32 base, base by relative "
        "path, the shorter adapter_config.json of colsmolvlm-alpha",
    ),
]


def spec_named(name: str) -> Spec:
    return next(spec for spec in SPECS if spec.name == name)
