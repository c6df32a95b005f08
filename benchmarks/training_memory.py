"""How much memory the recipes for Qwen2.5-VL need: computed from the published configurations, not measured.

    python benchmarks/training_memory.py

Parameters are counted on models built without storage. A trained parameter takes 16 bytes in mixed precision (weight,
gradient and two moments of AdamW in float32) and a frozen one 2 (bfloat16). With `beta` above 0 full training keeps a
reference model, 2 bytes a parameter; LoRA switches its adapter off instead. Keys and values, in bfloat16, are those of all
completions that one device generates at once; activations are what gradient checkpointing keeps, one vector per token and
layer. Workspace, the largest layer's own activations and fragmentation come on top: plan for a fifth more.
"""

from __future__ import annotations

import torch
from report import print_table
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from diffusers_r1.training.models import vision_towers


# As published in the configurations of Qwen/Qwen2.5-VL-3B-Instruct and -7B-Instruct.
MODELS = {
    "3B": {
        "text": {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
        },
        "tied": True,
    },
    "7B": {
        "text": {
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
        "tied": False,
    },
}
VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
LORA_RANK = 64
COMPLETIONS = 8  # generated at once on one device
TRAINED_AT_ONCE = 2
TOKENS = 512 + 200 + 400_000 // 28**2  # completion, prompt, and a picture of 400k pixels at 28 x 28 a token
GB = 1e9


def build(name: str) -> Qwen2_5_VLForConditionalGeneration:
    text, tied = MODELS[name]["text"], MODELS[name]["tied"]
    config = Qwen2_5_VLConfig(
        text_config={**text, "tie_word_embeddings": tied},
        vision_config={**VISION, "out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=tied,
    )
    with torch.device("meta"):
        return Qwen2_5_VLForConditionalGeneration(config)


def lora_parameters(model: Qwen2_5_VLForConditionalGeneration) -> int:
    """Of adapters on every linear layer of the language model."""
    layers = model.model.language_model.layers
    linear = [module for module in layers.modules() if isinstance(module, torch.nn.Linear)]
    return sum(LORA_RANK * (module.in_features + module.out_features) for module in linear)


def main() -> None:
    rows = []
    for name in MODELS:
        model = build(name)
        text = model.config.text_config
        everything = sum(weight.numel() for weight in model.parameters())
        seen = sum(weight.numel() for tower in vision_towers(model).values() for weight in tower.parameters())
        head = text.hidden_size // text.num_attention_heads
        cache = 2 * 2 * text.num_hidden_layers * text.num_key_value_heads * head * TOKENS * COMPLETIONS
        kept = 2 * text.num_hidden_layers * text.hidden_size * TOKENS * TRAINED_AT_ONCE
        for how, trained, frozen, reference in (
            ("full, vision frozen", everything - seen, seen, 2 * everything),
            (f"LoRA r {LORA_RANK}", lora_parameters(model), everything, 0),
        ):
            parts = [16 * trained, 2 * frozen, reference, cache, kept]
            names = ["trained", "frozen", "reference", "keys and values", "activations"]
            rows.append(
                {
                    "planner": f"{name}, {how}",
                    "parameters": f"{everything / 1e9:.2f} B",
                    "trained": f"{trained / 1e6:.0f} M",
                    **{f"{part}, GB": f"{size / GB:.1f}" for part, size in zip(names, parts)},
                    "sum, GB": f"{sum(parts) / GB:.1f}",
                }
            )
    print_table(rows)


if __name__ == "__main__":
    main()
