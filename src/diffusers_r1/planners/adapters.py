"""LoRA adapters of a model: whether and where it has any, and how it answers without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import torch


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
    layers = adapter_layers(model).values()  # transformers' own switch refuses every PEFT but the newest
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
