"""A modular pipeline as a component: saved and loaded with the bundle, as far as diffusers can name its blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
from diffusers import DiffusionPipeline, ModularPipeline

from ...names import has_variant, is_weights
from .adapters import load_adapters
from .parts import components_in, is_modular


def check_blocks(pipeline: ModularPipeline, name: str) -> None:
    """Refuse blocks that no file could name: those that were put together, or taken apart, by hand.

    Raises:
        ValueError
    """
    blocks = pipeline.blocks
    known = getattr(diffusers, type(blocks).__name__, None)
    if known is not type(blocks) or list(known().sub_blocks) != list(blocks.sub_blocks):
        raise ValueError(
            f"The blocks of `{name}`, {type(blocks).__name__}, are none of diffusers' own, so a bundle cannot name them:"
            " save that pipeline on its own, and give it when the bundle is loaded."
        )


def save_modular_part(pipeline: ModularPipeline, folder: Path, **settings: Any) -> None:
    """Save a modular pipeline with all its weights to a folder."""
    pipeline.save_pretrained(str(folder), overwrite_modular_index=True, **settings)


def load_nested(folder: Path, **settings: Any) -> DiffusionPipeline | ModularPipeline:
    """The pipeline in a folder, with its weights and its adapters.

    Args:
        settings: As in `DiffusionPipeline.from_pretrained`; of a modular pipeline `dtype`, `device_map`, `variant` and
            `use_safetensors` count.

    Raises:
        OSError: If a component's weights cannot be loaded.
        ValueError: If a modular pipeline is to be quantized, or there are no weights of the variant.
    """
    if not is_modular(folder):
        pipeline = DiffusionPipeline.from_pretrained(str(folder), **settings)
    else:
        if settings.get("quantization_config") is not None:
            raise ValueError(f"{folder} is a modular pipeline, which is not quantized while it is loaded.")
        pipeline, names = ModularPipeline.from_pretrained(str(folder)), components_in(folder)
        kinds = {key: settings[key] for key in ("dtype", "torch_dtype", "device_map") if settings.get(key) is not None}
        # The index says where it was saved, and as which variant; a folder may have been moved, and hold several.
        kinds.update(_files_of_components(folder, names, settings.get("variant"), settings.get("use_safetensors")))
        pipeline.load_components(names, pretrained_model_name_or_path=str(folder), **kinds)
        if lacking := sorted(set(names) & set(pipeline.null_component_names)):  # diffusers has only logged why
            raise OSError(f"{folder}: these components could not be loaded: {', '.join(lacking)}; the log says why.")
    load_adapters(pipeline, folder)
    return pipeline


def _files_of_components(
    folder: Path, names: list[str], variant: str | None, use_safetensors: bool | None
) -> dict[str, dict[str, Any]]:
    """Settings of a modular pipeline's `load_components` that say which files each component is loaded from."""
    if variant and not has_variant(folder, variant):
        raise ValueError(f"{folder} has no weights of the variant {variant!r}.")
    settings: dict[str, dict[str, Any]] = {
        "variant": {name: variant if has_variant(folder / name, variant) else None for name in names}
    }
    if use_safetensors is not None:
        # What has no weights, a tokenizer, would keep it among its own settings.
        models = [name for name in names if any(is_weights(file.name) for file in (folder / name).iterdir())]
        settings["use_safetensors"] = dict.fromkeys(models, use_safetensors)
    return settings
