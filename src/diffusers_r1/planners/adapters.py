"""LoRA adapters of a model: whether and where it has any, and how it answers without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import torch

_RESTS = "_imageedit_r1_rests"  # what is set on a layer whose adapter is off but while its model plans


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


def let_rest(model: torch.nn.Module) -> None:
    """Switch a model's adapters off but while it plans, since an editor encodes with it."""
    for layer in adapter_layers(model).values():
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
