"""What can be checked of a call without a pipeline, and without torch: the rules that every way in has in common.

All of them raise a `ValueError` for a number, a length or a choice that does not fit, and a `TypeError` for a wrong type.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any, get_args

from PIL import Image

from ..images import load_samples
from ..plan import EditPlan, Turns


def check_either(instruction: Any, plan: Any) -> None:
    """Refuse both and neither."""
    if (instruction is None) == (plan is None):
        raise ValueError("Give either `instruction`, which is planned, or `plan`, which is carried out as it is.")


def check_turns(turns: Any) -> None:
    """Refuse what is no way to carry out a plan."""
    if turns not in get_args(Turns):
        raise ValueError(f'`turns` must be "single", "multi", "auto" or "composed", not {turns!r}.')


def check_count(name: str, number: Any) -> None:
    """Refuse what is no whole number from 1 on."""
    if not isinstance(number, numbers.Integral) or isinstance(number, bool) or number < 1:
        raise ValueError(f"`{name}` must be 1 or more, not {number!r}.")


def check_generation(max_new_tokens: Any, generation: Any) -> None:
    """Refuse settings of the agents' answers that cannot be."""
    check_count("max_new_tokens", max_new_tokens)
    if generation is not None and not isinstance(generation, Mapping):
        raise TypeError(f'`generation` is a `dict` such as {{"do_sample": True}}, not {type(generation).__name__}.')
    for name in ("max_new_tokens", "num_plans"):
        if name in (generation or {}):
            raise TypeError(f"`{name}` is an argument of its own, not one of `generation`.")


def check_texts(instruction: Any) -> list[str]:
    """The instructions as a list, all of them text."""
    instructions = as_list("instruction", instruction)
    for one in instructions:
        if not isinstance(one, str):
            raise TypeError(f"An instruction is text, not {type(one).__name__}; a plan is an `EditPlan`.")
        if not one.strip():
            raise ValueError("An instruction is empty.")
        if not _is_text(one):
            raise ValueError("An instruction holds half of a surrogate pair, which is no text.")
    return instructions


def check_plans(plan: Any) -> list[EditPlan]:
    """The plans as a list."""
    plans = as_list("plan", plan)
    for one in plans:
        if not isinstance(one, EditPlan):
            raise TypeError(
                f"A plan is an `EditPlan`, not {type(one).__name__}; `EditPlan.from_dict` and `EditPlan.from_json` make"
                " one."
            )
    return plans


def open_pairs(image: Any, given: list) -> tuple[list[Image.Image], list[list[Image.Image]], list]:
    """Pictures, their references, and what goes with each, as lists of one length; one is for all where the other is many."""
    images, references = load_samples(image)
    if len(images) == 1:
        images, references = images * len(given), references * len(given)
    elif len(given) == 1:
        given = given * len(images)
    if len(given) != len(images):
        raise ValueError(f"{len(images)} pictures do not go with {len(given)} instructions or plans.")
    return images, references, given


def as_list(name: str, value: Any) -> list:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if not values:
        raise ValueError(f"`{name}` is an empty list.")
    return values


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
