"""A pipeline as a component, a modular one too: saved and loaded with the bundle, as far as diffusers can name it."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path, PurePosixPath
from typing import Any

import diffusers
from diffusers import DiffusionPipeline, ModularPipeline

from ... import schema
from ...names import MODULAR_INDEX, has_variant, is_weights
from ...records import write_whole
from .adapters import load_adapters
from .parts import components_in, is_modular


def check_class(pipeline: DiffusionPipeline | ModularPipeline, name: str) -> None:
    """Refuse what no file could name: a class that is not of diffusers, or blocks put together, or taken apart, by hand.

    Raises:
        ValueError
    """
    kind = type(pipeline)
    if getattr(diffusers, kind.__name__, None) is not kind:
        raise ValueError(
            f"The class of `{name}`, {kind.__name__}, is none of diffusers' own, so a bundle cannot name it: save that pipeline"
            " on its own, and give it when the bundle is loaded."
        )
    if isinstance(pipeline, ModularPipeline):
        _check_blocks(pipeline, name)


def _check_blocks(pipeline: ModularPipeline, name: str) -> None:
    blocks = pipeline.blocks
    known = getattr(diffusers, type(blocks).__name__, None)
    if known is not type(blocks) or list(known().sub_blocks) != list(blocks.sub_blocks):
        raise ValueError(
            f"The blocks of `{name}`, {type(blocks).__name__}, are none of diffusers' own, so a bundle cannot name them:"
            " save that pipeline on its own, and give it when the bundle is loaded."
        )


def save_modular_part(pipeline: ModularPipeline, folder: Path, place: Path, **settings: Any) -> None:
    """Save a modular pipeline with all its weights to a folder that will lie at `place` afterwards."""
    entries = {name: pipeline.config[name] for name in pipeline.component_names if name in pipeline.config}
    pipeline.register_to_config(**deepcopy(entries))  # into these diffusers writes where it saves
    try:
        pipeline.save_pretrained(str(folder), overwrite_modular_index=True, **settings)
    finally:
        pipeline.register_to_config(**entries)
    name_source(folder, str(folder), str(place))


def name_source(folder: Path, before: str, source: str, inside: str = "") -> None:
    """Have the index of the modular pipeline in a folder say that its components come from `source`, where it says `before`.

    Args:
        inside (`str`): The folder in `source` that the components' own folders are in; by default they are in it themselves.
    """
    path = folder / MODULAR_INDEX
    index = schema.read_file(path, dict[str, Any])
    for name in components_in(folder):
        loaded_by = index[name][-1]
        if loaded_by["pretrained_model_name_or_path"] == before:
            loaded_by.update(pretrained_model_name_or_path=source, subfolder=str(PurePosixPath(inside, name)))
    write_whole(path, json.dumps(index, indent=2, sort_keys=True) + "\n")


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
        kinds["subfolder"] = {name: name for name in names}
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
