"""LoRA files for tiny editors, made as a training script of diffusers makes them; random, and large enough to be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_models
import torch
from diffusers import DiffusionPipeline, FluxKontextPipeline, StableDiffusionInstructPix2PixPipeline
from peft import LoraConfig, PeftConfig
from peft.utils import get_peft_model_state_dict


LAYERS = ["to_q", "to_v", "q_proj", "v_proj"]
BUILDERS = {"pix2pix": tiny_models.tiny_pix2pix, "kontext": tiny_models.tiny_kontext}
# The models of an editor that a LoRA file is for, and the argument of `save_lora_weights` that has its layers.
TRAINED = {
    "pix2pix": {"unet": "unet_lora_layers", "text_encoder": "text_encoder_lora_layers"},
    "kontext": {"transformer": "transformer_lora_layers", "text_encoder": "text_encoder_lora_layers"},
}
# Arguments of a small, quick call.
SMALL = {
    "pix2pix": {"num_inference_steps": 2},
    "kontext": {"num_inference_steps": 2, "height": 64, "width": 64},
}
ADAPTERS = {"ink": 0.7, "oil": 0.4}  # name: weight


def lora_file(folder: Path, kind: str, seed: int) -> Path:
    """Write a LoRA file for the editor of a kind, and return its folder."""
    editor, given = BUILDERS[kind](), {}
    for name, argument in TRAINED[kind].items():
        model = getattr(editor, name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            settings = LoraConfig(r=2, lora_alpha=16, target_modules=LAYERS, init_lora_weights=False)
            model.add_adapter(settings)
        given[argument] = get_peft_model_state_dict(model)
    type(editor).save_lora_weights(folder, **given)
    return folder


def with_loras(folder: Path, kind: str) -> FluxKontextPipeline | StableDiffusionInstructPix2PixPipeline:
    """An editor with both adapters, active, each at its weight."""
    editor = BUILDERS[kind]()
    editor.set_progress_bar_config(disable=True)
    for seed, name in enumerate(ADAPTERS):
        place = folder / kind / name
        editor.load_lora_weights(place if place.is_dir() else lora_file(place, kind, seed), adapter_name=name)
    editor.set_adapters(list(ADAPTERS), list(ADAPTERS.values()))
    return editor


def layered(
    editor: StableDiffusionInstructPix2PixPipeline, name: str, kind: type[PeftConfig], seed: int = 0, **settings: Any
) -> StableDiffusionInstructPix2PixPipeline:
    """The editor with an adapter of a kind on its layers, called as one likes; random, and not of a file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for model in (editor.unet, editor.text_encoder):
            model.add_adapter(kind(target_modules=LAYERS, **settings), adapter_name=name)
            for key, weight in model.named_parameters():
                if f".{name}" in key:
                    torch.nn.init.normal_(weight, std=0.3)
    return editor


def adapters_of(editor: DiffusionPipeline) -> dict[str, dict[str, tuple[bool, bool, float]]]:
    """By model and adapter: whether it is among the active ones, whether these are on, and how strong it is."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found: dict[str, dict[str, tuple[bool, bool, float]]] = {}
    for part, model in editor.components.items():
        if not isinstance(model, torch.nn.Module):
            continue
        for layer in model.modules():
            if isinstance(layer, BaseTunerLayer):
                for name, scale in layer.scaling.items():
                    state = (name in layer.active_adapters, not layer.disable_adapters, round(scale, 6))
                    assert found.setdefault(part, {}).setdefault(name, state) == state
    return found
