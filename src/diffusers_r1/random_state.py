"""The global random state of torch: drawn from by transformers and by some editors, and by one of them at a time."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import ExitStack, contextmanager, nullcontext
from threading import RLock
from typing import Any

import torch


_ONE_AT_A_TIME = RLock()


def devices_of(*models: Any) -> set[torch.device]:
    """Where the weights of models lie; a model can be spread over several devices."""
    return {weight.device for model in models for weight in model.parameters()}


@contextmanager
def seeded(seed: int, devices: Set[torch.device] = frozenset()) -> Iterator[None]:
    """Draw from `seed` inside the block, and leave the global random state as it was.

    There is one state for all threads, so other threads that want to draw from a seed wait for the end of the block.

    Args:
        seed (`int`): 0 or more; it begins anew after the largest that a generator can have.
        devices (`set` of `torch.device`, *optional*): Where something is drawn beside the processor. No other device is
            touched: its random state belongs to somebody else, and asking for it would start the device.
    """
    with _ONE_AT_A_TIME:
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed := seed % 2**64)  # `torch.manual_seed` would seed every device
        try:
            with ExitStack() as stack:
                for device in devices:
                    if device.type not in ("cpu", "meta"):
                        stack.enter_context(_seeded_device(seed, device))
                yield
        finally:
            torch.set_rng_state(state)


@contextmanager
def _seeded_device(seed: int, device: torch.device) -> Iterator[None]:
    module = torch.get_device_module(device)
    # These functions are about the current device; MPS has only one.
    current = getattr(module, "device", lambda _: nullcontext())
    with current(device):
        state = module.get_rng_state()
        module.manual_seed(seed)
    try:
        yield
    finally:
        with current(device):
            module.set_rng_state(state)
