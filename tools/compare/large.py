"""Times colpali-engine's ColPali and transformers' Idefics2 at their published shapes with random bf16 weights, for
comparison with `colibri bench embed-page|prefill|decode --random ColPali-v1.3|Idefics2-8B:N`.

    python tools/compare/large.py colpali [bf16|f32]
    python tools/compare/large.py idefics2 TEXT_LAYERS [bf16|f32]

Pixels and ids are random, as many as a page of US Letter gives; the processor's work is left out, which flatters the
peer. 8.4 billion weights in bf16 take 17 GB, so that Idefics2 can be cut to fewer text layers, on both sides alike.
Versions: tools/golden/requirements.txt.
"""

import resource
import sys
import time

import torch

what = sys.argv[1]
dtype = torch.float32 if sys.argv[-1] == "f32" else torch.bfloat16
torch.set_num_threads(2)
torch.manual_seed(0)
VISION = dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, patch_size=14)


def made(cls, config):
    """Memory for every parameter once, in the wanted type, filled with small noise."""
    config._attn_implementation = "sdpa"
    torch.set_default_dtype(dtype)
    with torch.device("meta"):
        model = cls(config)
    buffers = {}
    for module in model.modules():
        # What is not stored: rotary frequencies are made anew by a module of the same kind on the CPU.
        if hasattr(module, "inv_freq"):
            buffers[module] = type(module)(config=config.text_config).inv_freq
    model.to_empty(device="cpu")
    noise = (torch.rand(1 << 20) - 0.5) * 0.1
    for parameter in model.parameters():
        flat = parameter.data.view(-1)
        for start in range(0, flat.numel(), noise.numel()):
            flat[start : start + noise.numel()] = noise[: flat.numel() - start]
    for module in model.modules():
        if module in buffers:
            module.inv_freq = buffers[module].float()
            module.original_inv_freq = module.inv_freq
        else:
            for name, buffer in list(module.named_buffers(recurse=False)):
                if "position_ids" in name:
                    setattr(module, name, torch.arange(buffer.numel()).reshape(buffer.shape))
    return model.eval()


def peak() -> str:
    return f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"


def best(runs: int, work) -> float:
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def colpali() -> None:
    from colpali_engine.models import ColPali
    from transformers import PaliGemmaConfig

    config = PaliGemmaConfig(
        vision_config=dict(VISION, model_type="siglip_vision_model", image_size=448, vision_use_head=False),
        text_config=dict(
            model_type="gemma", hidden_size=2048, intermediate_size=16384, num_hidden_layers=18, num_attention_heads=8,
            num_key_value_heads=1, head_dim=256, vocab_size=257216,
        ),
        image_token_index=257152, projection_dim=2048, hidden_size=2048,
    )  # fmt: skip
    model = made(ColPali, config)
    ids = torch.tensor([[257152] * 1024 + [2, 2, 50721, 573, 2416, 235265, 108]])
    inputs = {
        "input_ids": ids, "attention_mask": torch.ones_like(ids),
        "pixel_values": (torch.rand(1, 3, 448, 448) * 2 - 1).to(dtype),
    }  # fmt: skip
    with torch.inference_mode():
        page = best(3, lambda: model(**inputs))
        query = torch.arange(100, 133)[None]
        question = best(5, lambda: model(input_ids=query, attention_mask=torch.ones_like(query)))
    print(f"ColPali {dtype}: page {page:.3f} s ({ids.shape[1]} rows), question {question * 1e3:.0f} ms, {peak()}")


def idefics2(layers: int) -> None:
    from transformers import Idefics2Config, Idefics2ForConditionalGeneration

    config = Idefics2Config(
        vision_config=dict(VISION, image_size=980),
        text_config=dict(
            model_type="mistral", hidden_size=4096, intermediate_size=14336, num_hidden_layers=layers,
            num_attention_heads=32, num_key_value_heads=8, vocab_size=32003, max_position_embeddings=32768,
            rms_norm_eps=1e-5, pad_token_id=0,
        ),
    )  # fmt: skip
    model = made(Idefics2ForConditionalGeneration, config)
    height, width = 980, 756
    tokens = 5 * 64 + 24
    embedded = (torch.rand(1, tokens, 4096) - 0.5).to(dtype)
    mask = torch.ones(1, tokens, dtype=torch.long)
    # One frame; the others take as long.
    pixels = (torch.rand(1, 1, 3, height, width) * 2 - 1).to(dtype)
    seen = torch.ones(1, 1, height, width, dtype=torch.bool)
    with torch.inference_mode():
        looking = best(1, lambda: model.model.get_image_features(pixels, seen))

        def read():
            return model(inputs_embeds=embedded, attention_mask=mask, use_cache=True, logits_to_keep=1)

        reading = best(2, read)
        cache = read().past_key_values
        steps = 8
        started = time.perf_counter()
        for step in range(steps):
            model(input_ids=torch.tensor([[300 + step]]), past_key_values=cache, use_cache=True)
        writing = (time.perf_counter() - started) / steps
    print(
        f"Idefics2 {dtype}, {layers} text layers: a frame {looking:.2f} s, prefill of {tokens} tokens "
        f"{reading:.3f} s ({tokens / reading:.1f} tokens/s), decode {1 / writing:.2f} tokens/s, {peak()}"
    )


if what == "colpali":
    colpali()
else:
    idefics2(int(sys.argv[2]))
