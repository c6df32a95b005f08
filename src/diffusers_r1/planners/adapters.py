"""LoRA adapters of a model: whether and where it has any, how it answers without them, and how it was when it was saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import schema
from ..names import ADAPTER_INDEX, name_elsewhere
from ..records import write_whole


if TYPE_CHECKING:
    import torch

STATE_FILE = "adapter_state.json"  # beside an agent's adapter
_PEFT_PREFIX = "base_model.model."  # of the names of layers in PEFT's own wrapper
# Set on a layer: true where its adapter is off but while its model plans, false where a file says that it is not to be.
_RESTS = "_imageedit_r1_rests"


@dataclass(frozen=True)
class AdapterState:
    """How an agent's adapter was when it was saved.

    Args:
        on (`"planning"`, `"always"` or `"off"`): When it is used. While the model plans, which of a model that is no part of an
            editor is always; of a part of an editor also while that encodes; or never, since somebody has switched it off.
        scales (`dict`): By what its part is multiplied, by layer.
    """

    on: Literal["planning", "always", "off"]
    scales: dict[str, float]


def has_adapter(model: Any) -> bool:
    """Whether a model has LoRA adapters, of PEFT or loaded by `model.load_adapter`."""
    return hasattr(model, "disable_adapter") or getattr(model, "_hf_peft_config_loaded", False)


def adapter_layers(model: torch.nn.Module) -> dict[str, Any]:
    """The layers in a model that hold an adapter, each in place of the layer that it adapts, by name."""
    if not (hasattr(model, "peft_config") or getattr(model, "_hf_peft_config_loaded", False)):
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}


@contextmanager
def adapters_off(model: Any) -> Iterator[None]:
    """Run a model with LoRA adapters, of PEFT or loaded by `model.load_adapter`, as if it had none."""
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield
        return
    # transformers' own switch refuses every PEFT but the newest
    layers = [layer for layer in adapter_layers(model).values() if not layer.disable_adapters]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def check_adapter_name(model: Any) -> None:
    """Refuse an adapter that is called as a layer is: PEFT takes its name out of the names of weights wherever it stands.

    Raises:
        ValueError
    """
    layers = adapter_layers(model)
    taken = {part for place, layer in layers.items() for part in (*place.split("."), *layer.adapter_layer_names)}
    if named := sorted({name for layer in layers.values() for name in layer.active_adapters} & taken):
        raise ValueError(
            f"The adapter {named[0]!r} of a {type(model).__name__} is called as one of its layers is, and would not come back"
            " from a file: load or make it under another name."
        )


def save_adapter_state(model: Any, folder: Path, is_in_editor: bool = False) -> None:
    """Write how the adapter of a model is into the folder in which the adapter is saved; nothing of a model without one.

    A base that lies in a cache, or in this package, is named there as other machines know it.
    """
    layers = adapter_layers(model)
    if not layers:
        return
    is_off = all(layer.disable_adapters for layer in layers.values())
    rests = any(getattr(layer, _RESTS, False) for layer in layers.values())
    on = "planning" if rests else "off" if is_off else "always" if is_in_editor else "planning"
    scales = {
        place.removeprefix(_PEFT_PREFIX): float(layer.scaling[name])
        for place, layer in layers.items()
        for name in layer.active_adapters[:1]
        if name in getattr(layer, "scaling", {})
    }
    write_whole(folder / STATE_FILE, json.dumps(asdict(AdapterState(on, scales)), indent=2) + "\n")
    settings = schema.read_file(folder / ADAPTER_INDEX, dict[str, Any])
    if known := name_elsewhere(settings["base_model_name_or_path"] or ""):
        named = {**settings, **dict(zip(("base_model_name_or_path", "revision"), known))}
        write_whole(folder / ADAPTER_INDEX, json.dumps(named, indent=2) + "\n")


def restore_adapter_state(model: Any, folder: Path) -> None:
    """Make an adapter that was loaded from a folder as it was when it was saved; nothing where that is not known.

    Raises:
        ValueError: If the file is not what it should be; the message names it.
    """
    if not (folder / STATE_FILE).is_file():
        return
    state = schema.read_file(folder / STATE_FILE, AdapterState)
    for place, layer in adapter_layers(model).items():
        for name in layer.active_adapters:
            if place in state.scales:
                layer.scaling[name] = state.scales[place]
        if state.on != "planning":
            layer.enable_adapters(state.on == "always")
            setattr(layer, _RESTS, False)


def let_rest(model: torch.nn.Module) -> None:
    """Switch a model's adapters off but while it plans, since an editor encodes with it; not those that were saved otherwise."""
    for layer in adapter_layers(model).values():
        if getattr(layer, _RESTS, True):
            layer.enable_adapters(False)
            setattr(layer, _RESTS, True)


@contextmanager
def adapter_on(model: torch.nn.Module) -> Iterator[None]:
    """Run a model with its adapters that rest, if it has any, and leave it as it was. What the user switched off stays off."""
    resting = [
        layer for layer in adapter_layers(model).values() if layer.disable_adapters and getattr(layer, _RESTS, False)
    ]
    for layer in resting:
        layer.enable_adapters(True)
    try:
        yield
    finally:
        for layer in resting:
            layer.enable_adapters(False)
