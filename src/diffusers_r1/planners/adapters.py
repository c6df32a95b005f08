"""LoRA adapters of a planner: whether it has any, and how it answers without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def has_adapter(model: Any) -> bool:
    """Whether a model has LoRA adapters, of PEFT or loaded by `model.load_adapter`."""
    return hasattr(model, "disable_adapter") or getattr(model, "_hf_peft_config_loaded", False)


@contextmanager
def adapters_off(model: Any) -> Iterator[None]:
    """Run a model with LoRA adapters, of PEFT or loaded by `model.load_adapter`, as if it had none."""
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    # By PEFT's own layers: transformers' switch refuses every PEFT but the newest.
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
