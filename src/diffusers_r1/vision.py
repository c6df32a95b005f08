"""A picture that a batch holds several times is encoded once, in training (GRPO asks about each one G times) and planning."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel


def vision_tower(planner: PreTrainedModel) -> torch.nn.Module | None:
    """The module that encodes pictures, or `None` in a planner that does not see."""
    return next(
        (module for name, module in planner.named_modules() if name.endswith(("visual", "vision_tower"))), None
    )


@contextmanager
def encode_pictures_once(planner: PreTrainedModel) -> Iterator[None]:
    """Within the block, the vision tower of a Qwen2.5-VL planner encodes equal pictures of a batch once.

    Outputs are the same and so are gradients, up to the order of additions. Other planners are left as they are.
    """
    tower = vision_tower(planner)
    if tower is None or "grid_thw" not in inspect.signature(tower.forward).parameters:
        yield
        return
    encode, before = tower.forward, vars(tower).get("forward")

    def encode_once(hidden_states: torch.Tensor, grid_thw: torch.Tensor, **kwargs: Any) -> Any:
        first, which = _first_of_equals(hidden_states, grid_thw)
        if len(first) == len(which):
            return encode(hidden_states, grid_thw, **kwargs)
        patches = hidden_states.split(grid_thw.prod(-1).tolist())
        output = encode(torch.cat([patches[index] for index in first]), grid_thw[first], **kwargs)
        merged = (grid_thw[first].prod(-1) // tower.spatial_merge_size**2).tolist()
        output.pooler_output = _repeat(output.pooler_output, merged, which)
        output.last_hidden_state = _repeat(output.last_hidden_state, grid_thw[first].prod(-1).tolist(), which)
        return output

    tower.forward = encode_once
    try:
        yield
    finally:
        if before is None:
            del tower.forward
        else:  # a hook of accelerate's, or this very function
            tower.forward = before


def _first_of_equals(patches: torch.Tensor, grids: torch.Tensor) -> tuple[list[int], list[int]]:
    """The indices of the different pictures, and for every picture which of them it equals."""
    pieces = patches.split(grids.prod(-1).tolist())
    sums = torch.stack([piece.double().sum() for piece in pieces]).tolist()
    candidates: dict[tuple, list[int]] = {}
    first: list[int] = []
    which: list[int] = []
    for index, key in enumerate(zip(map(tuple, grids.tolist()), sums)):
        twins = [order for order in candidates.get(key, []) if torch.equal(pieces[first[order]], pieces[index])]
        if not twins:
            twins = [len(first)]
            candidates.setdefault(key, []).append(len(first))
            first.append(index)
        which.append(twins[0])
    return first, which


def _repeat(features: torch.Tensor, lengths: list[int], which: list[int]) -> torch.Tensor:
    parts = features.split(lengths)
    return torch.cat([parts[index] for index in which])
