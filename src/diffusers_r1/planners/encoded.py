"""A picture that a batch of instructions holds several times is encoded once.

What was computed is handed to the model the way transformers offers it: as `mm_encoder_outputs` in place of pixels. A model
that does not take them, or whose pictures cannot be told apart here, encodes all of them itself.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import PreTrainedModel


def encoder_of(planner: PreTrainedModel) -> torch.nn.Module | None:
    """The module with `get_image_features` whose `forward` takes what that returns; `None` if there is none."""
    found = [
        module
        for module in planner.modules()
        if hasattr(module, "get_image_features")
        and "mm_encoder_outputs" in inspect.signature(module.forward).parameters
    ]
    return found[-1] if found else None  # the innermost: others only pass on to it


def with_pictures_encoded(planner: PreTrainedModel, inputs: dict[str, Any]) -> dict[str, Any]:
    """A model's inputs with `mm_encoder_outputs` in place of pixels, if some pictures of the batch are equal.

    Outputs of the model are the same and so are gradients, up to the order of additions.

    Args:
        planner ([`~transformers.PreTrainedModel`]): Any; of an unknown kind the inputs come back as they are.
        inputs (`dict`): As the planner's processor makes them, on the planner's device.
    """
    encoder: Any = encoder_of(planner) if inputs.get("pixel_values") is not None else None
    if encoder is None:
        return inputs
    parameters = inspect.signature(encoder.get_image_features).parameters
    given = {name: inputs[name] for name in parameters if inputs.get(name) is not None}
    pictures = _split(given)
    if pictures is None:
        return inputs
    first, which = first_of_equals(pictures)
    if len(first) == len(which):
        return inputs
    features = encoder.get_image_features(**_joined([pictures[index] for index in first], given), return_dict=True)
    if len(features.pooler_output) != len(first):
        return inputs
    features.pooler_output = _chosen(features.pooler_output, which)
    if getattr(features, "deepstack_features", None) is not None:
        features.deepstack_features = [_chosen(layer, which) for layer in features.deepstack_features]
    others = {name: value for name, value in inputs.items() if name not in given or name == GRID}
    return {**others, "mm_encoder_outputs": {"image": features}}


GRID = (
    "image_grid_thw"  # of Qwen-VL and its kin, whose pictures are patches one after the other; positions need it, too
)


def _split(given: dict[str, Any]) -> list[dict[str, torch.Tensor]] | None:
    """What `get_image_features` is given of each picture (or crop); `None` if that cannot be told."""
    pixels = given["pixel_values"]
    if GRID in given:
        patches = pixels.split(given[GRID].prod(-1).tolist())
        return [{"pixel_values": own, GRID: grid[None]} for own, grid in zip(patches, given[GRID])]
    if not all(isinstance(value, torch.Tensor) and len(value) == len(pixels) for value in given.values()):
        return None
    return [{name: value[index : index + 1] for name, value in given.items()} for index in range(len(pixels))]


def _joined(pictures: list[dict[str, torch.Tensor]], given: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([picture[name] for picture in pictures]) for name in given}


def first_of_equals(pictures: list[dict[str, torch.Tensor]]) -> tuple[list[int], list[int]]:
    """The indices of the different pictures, and for every picture which of them it equals."""
    # Sums only sort pictures out that cannot be equal. In float32: Apple's devices have no float64.
    sums = torch.stack([picture["pixel_values"].float().sum() for picture in pictures]).tolist()
    candidates: dict[tuple, list[int]] = {}
    first: list[int] = []
    which: list[int] = []
    for index, picture in enumerate(pictures):
        key = (sums[index], *(value.shape for value in picture.values()))
        twins = [order for order in candidates.get(key, []) if _equal(pictures[first[order]], picture)]
        if not twins:
            twins = [len(first)]
            candidates.setdefault(key, []).append(len(first))
            first.append(index)
        which.append(twins[0])
    return first, which


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def _chosen(features: Any, which: list[int]) -> Any:
    """The features of each picture in turn: rows of a tensor, or members of a list."""
    if isinstance(features, torch.Tensor):
        return features[torch.tensor(which, device=features.device)]
    return [features[index] for index in which]
