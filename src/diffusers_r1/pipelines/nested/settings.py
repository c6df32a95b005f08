"""Of the settings that a pipeline in a pipeline is loaded with, which go to the inner and which to the outer one."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.quantizers import PipelineQuantizationConfig

from ...names import has_variant
from .parts import components_in


_OF_TRANSFORMERS = ("device_map", "max_memory", "offload_folder", "use_safetensors")


def dtype_in(settings: Mapping[str, Any]) -> Any:
    """The dtype that settings for loading name, by either of diffusers' names for it; `None` if they name none."""
    return settings.get("torch_dtype") if settings.get("dtype") is None else settings["dtype"]


def check_dtype(dtype: Any) -> None:
    """Refuse what diffusers takes for float32: a dtype by its name.

    Raises:
        TypeError
    """
    for one in dtype.values() if isinstance(dtype, dict) else [dtype]:
        if not isinstance(one, torch.dtype):
            raise TypeError(f"`dtype` is a `torch.dtype`, or a dict of them by component, not {one!r}.")


def check_dtype_names(dtypes: Iterable[str], own: Iterable[str], nested: Mapping[str, Iterable[str]]) -> None:
    """Refuse a dtype for a component that there is not.

    Args:
        dtypes: The names of components that one is given for.
        own, nested: The names of the outer pipeline's components and, by theirs, of the nested pipelines'.

    Raises:
        ValueError
    """
    inside = [(outer, name) for outer, names in nested.items() for name in names]
    known = {"default", *own, *(name for _, name in inside), *(".".join(both) for both in inside)}
    if unknown := [name for name in dtypes if name not in known]:
        raise ValueError(
            f"`dtype` names {unknown[0]!r}, which is no component; there are: {', '.join(sorted(known))}."
        )


def settings_of_nested(
    name: str, folder: Path, settings: dict[str, Any], shared: dict[str, str] | None = None
) -> dict[str, Any]:
    """What `from_pretrained` of the nested pipeline in `folder` is given, of what the outer one was given.

    Args:
        shared (`dict`, *optional*): Components of the outer pipeline that are components of this one: their names here.
    """
    components = components_in(folder)
    own_names = {**{part: part for part in components}, **{f"{name}.{part}": part for part in components}}
    own_names.update(shared or {})
    result = {key: value for key, value in settings.items() if key not in ("custom_pipeline", "custom_revision")}
    for key in ("dtype", "torch_dtype"):
        if isinstance(settings.get(key), dict):
            wanted = {own_names.get(part, part): dtype for part, dtype in settings[key].items()}
            if name in wanted:  # of all its components that have none of their own
                wanted["default"] = wanted.pop(name)
            result[key] = wanted
    if not has_variant(folder, settings.get("variant")):
        result.pop("variant", None)
    config: Any = settings.get("quantization_config")
    if _is_quantized(name, config):
        result["quantization_config"] = copy.copy(config)
        result["quantization_config"].components_to_quantize = None  # all of them
    else:
        result["quantization_config"] = _quantizing(config, own_names)
    return result


def settings_of_agent(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What `from_pretrained` of an agent's model, which transformers loads, is given of what the pipeline was given."""
    result = {key: settings[key] for key in _OF_TRANSFORMERS if settings.get(key) is not None}
    dtype = dtype_in(settings)
    result["dtype"] = dtype.get(name, dtype.get("default", torch.float32)) if isinstance(dtype, dict) else dtype
    config: Any = settings.get("quantization_config")
    if config is not None:
        result["quantization_config"] = config._resolve_quant_config(is_diffusers=False, module_name=name)
    return result


def settings_of_outer(
    folder: Path, nested: list[str], settings: dict[str, Any], shared: dict[str, str] | None = None
) -> dict[str, Any]:
    """The same settings without what only concerns the nested pipelines."""
    result = dict(settings)
    variant, own = settings.get("variant"), [p for p in folder.iterdir() if p.is_dir() and p.name not in nested]
    if any(has_variant(folder / name, variant) for name in nested) and not any(has_variant(p, variant) for p in own):
        del result["variant"]
    config: Any = settings.get("quantization_config")
    if config is not None:
        theirs = {*(shared or {}), *(name for name in nested if _is_quantized(name, config))}
        for name in nested:
            theirs.update(part for own in components_in(folder / name) for part in (own, f"{name}.{own}"))
        result["quantization_config"] = _quantizing(config, {p: p for p in _quantized(config) if p not in theirs})
    return result


def _is_quantized(name: str, config: PipelineQuantizationConfig | None) -> bool:
    """Whether a nested pipeline is to be quantized as a whole."""
    return name in (getattr(config, "components_to_quantize", None) or [])


def _quantized(config: PipelineQuantizationConfig | None) -> list[str]:
    """The components that a quantization config names; none where it means all."""
    return list(getattr(config, "quant_mapping", None) or getattr(config, "components_to_quantize", None) or [])


def _quantizing(
    config: PipelineQuantizationConfig | None, own_names: dict[str, str]
) -> PipelineQuantizationConfig | None:
    """A quantization config for those of its components that belong to a level, since diffusers warns of the others.

    Args:
        own_names (`dict`): What the config may call the level's components: their names there.

    Returns:
        The config as it is if it names no components, `None` if it names others only.
    """
    if config is None or not _quantized(config):
        return config
    names = {own_names[name]: name for name in _quantized(config) if name in own_names}
    if not names:
        return None
    config = copy.copy(config)
    if config.quant_mapping:
        config.quant_mapping = {own: config.quant_mapping[name] for own, name in names.items()}
    else:
        config.components_to_quantize = list(names)
    return config
