"""How many bytes of weights planner and editor need on the accelerator: computed, not measured.

Models are made on the meta device from their published configurations, so that nothing is downloaded and no byte is
allocated; parameters are counted. What a step needs beside the weights (activations, the key/value cache) is not in it.

    python benchmarks/memory_table.py

Each function names the repository whose configuration it writes out, as far as that differs from the defaults of the
classes. The parameters that come out are printed with the table, to be held against what the model cards say.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    QwenImageTransformer2DModel,
)
from peft import LoraConfig, get_peft_model
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
)


BF16 = 16
# bitsandbytes' NF4 with double quantization: a scale of 8 bits for 64 weights, and one of 32 for 256 scales.
NF4 = 4 + 8 / 64 + 32 / (64 * 256)


def qwen25_vl(size: str) -> Qwen2_5_VLForConditionalGeneration:
    """Qwen/Qwen2.5-VL-3B-Instruct and -7B-Instruct; the latter is Qwen-Image-Edit's text encoder too."""
    text = {
        "3B": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16},
        "7B": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
    }[size]
    text.update(num_key_value_heads={"3B": 2, "7B": 4}[size], vocab_size={"3B": 151936, "7B": 152064}[size])
    vision = {"hidden_size": 1280, "out_hidden_size": text["hidden_size"], "intermediate_size": 3420, "depth": 32}
    tied = size == "3B"
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied)
    return Qwen2_5_VLForConditionalGeneration(config)


def kontext() -> dict[str, Callable[[], torch.nn.Module]]:
    """black-forest-labs/FLUX.1-Kontext-dev"""
    t5 = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "vocab_size": 32128}
    clip = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    vae = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 16}
    return {
        "transformer": lambda: FluxTransformer2DModel(guidance_embeds=True),
        "text_encoder": lambda: CLIPTextModel(CLIPTextConfig(**clip)),
        "text_encoder_2": lambda: T5EncoderModel(T5Config(feed_forward_proj="gated-gelu", **t5)),
        "vae": lambda: AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, **vae
        ),
    }


def qwen_image_edit() -> dict[str, Callable[[], torch.nn.Module]]:
    """Qwen/Qwen-Image-Edit"""
    return {
        "transformer": QwenImageTransformer2DModel,
        "text_encoder": lambda: qwen25_vl("7B"),
        "vae": AutoencoderKLQwenImage,
    }


def flux2_klein() -> dict[str, Callable[[], torch.nn.Module]]:
    """black-forest-labs/FLUX.2-klein-4B"""
    qwen3 = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32}
    qwen3 |= {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True}
    return {
        "transformer": lambda: Flux2Transformer2DModel(
            num_layers=5, num_single_layers=20, num_attention_heads=24, joint_attention_dim=7680, guidance_embeds=False
        ),
        "text_encoder": lambda: Qwen3ForCausalLM(Qwen3Config(**qwen3)),
        "vae": AutoencoderKLFlux2,
    }


EDITORS = {"FLUX.1 Kontext": kontext, "Qwen-Image-Edit": qwen_image_edit, "FLUX.2 Klein 4B": flux2_klein}
PLANNERS = [(size, bits) for size in ("3B", "7B") for bits in (BF16, NF4)]


def parameters(model: torch.nn.Module) -> int:
    """How many there are; tied ones count once."""
    return sum(p.numel() for p in model.parameters())


def bytes_of(model: torch.nn.Module, bits: float = BF16) -> float:
    """Of a model's weights: linear layers at `bits`, all else and the output layer, which stays as it is, in bfloat16."""
    linear = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head")
    )
    return (linear * bits + (parameters(model) - linear) * BF16) / 8


def on_meta(build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    with torch.device("meta"):
        return build()


@cache
def planner_bytes(size: str, bits: float) -> float:
    return bytes_of(on_meta(lambda: qwen25_vl(size)), bits)


@cache
def editor_bytes(name: str) -> dict[str, float]:
    return {part: bytes_of(on_meta(build)) for part, build in EDITORS[name]().items()}


@cache
def adapter_bytes() -> float:
    """A LoRA adapter of rank 16 on all linear layers of the 7B model's language part, in float32."""
    targets = r".*language_model.*_proj"
    model = get_peft_model(on_meta(lambda: qwen25_vl("7B")), LoraConfig(r=16, target_modules=targets))
    return 4 * sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)


def rows() -> list[dict[str, object]]:
    """One for each planner and editor: bytes of weights that are on the accelerator at once.

    `resident`: all of them. `offload`: the largest model, since with model offload they take turns. `shared`: all of them
    where the editor's text encoder plans, and the largest of them; `None` where it cannot, or is another model.
    """
    found = []
    for size, bits in PLANNERS:
        for editor in EDITORS:
            planner, parts = planner_bytes(size, bits), editor_bytes(editor)
            row = {"planner": size, "bits": "bf16" if bits == BF16 else "4-bit", "editor": editor}
            row |= {"resident": planner + sum(parts.values()), "offload": max(planner, *parts.values())}
            row |= {"shared": None, "shared_offload": None}
            if (editor, size) == ("Qwen-Image-Edit", "7B"):
                parts = {**parts, "text_encoder": planner + adapter_bytes()}
                row |= {"shared": sum(parts.values()), "shared_offload": max(parts.values())}
            found.append(row)
    return found


def table() -> str:
    """The rows as a Markdown table, in GiB."""

    def gib(size: float | None) -> str:
        return "-" if size is None else f"{size / 2**30:.1f}"

    lines = [
        "| planner | editor (bf16) | resident | offload | shared | shared, offload |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in rows():
        sizes = " | ".join(gib(row[key]) for key in ("resident", "offload", "shared", "shared_offload"))
        lines.append(f"| {row['planner']} {row['bits']} | {row['editor']} | {sizes} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
    counted = {editor: {part: size / 2 for part, size in editor_bytes(editor).items()} for editor in EDITORS}
    print(json.dumps({"computed": True, "parameters": counted, "adapter_bytes": adapter_bytes(), "rows": rows()}))
