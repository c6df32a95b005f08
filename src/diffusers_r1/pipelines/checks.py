"""What can be checked of a call without a pipeline, and without torch: the rules that every way in has in common.

All of them raise a `ValueError` for a number, a length or a choice that does not fit, and a `TypeError` for a wrong type.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from PIL import Image

from .. import schema
from ..images import load_samples
from ..plan import TURNS, EditPlan


NO_INSTRUCTION = "There is no instruction yet, its text is empty: say what to change in the picture."
NOT_OF_GENERATION = ("self", "inputs", "kwargs", "max_new_tokens", "max_length", "num_plans", "num_return_sequences")


def check_either(instruction: Any, plan: Any) -> None:
    """Refuse both and neither."""
    if (instruction is None) == (plan is None):
        raise ValueError("Give either `instruction`, which is planned, or `plan`, which is carried out as it is.")


def check_turns(turns: Any) -> None:
    """Refuse what is no way to carry out a plan."""
    if turns not in TURNS:
        raise ValueError(f"`turns` must be one of {', '.join(TURNS)}, not {turns!r}.")


def check_count(name: str, number: Any) -> None:
    """Refuse what is no whole number from 1 on."""
    if not isinstance(number, numbers.Integral) or isinstance(number, bool) or number < 1:
        raise ValueError(f"`{name}` must be 1 or more, not {number!r}.")


def check_reflection(reflect: Any, critic: Any) -> None:
    """Refuse second looks that cannot be, and a critic that nobody would ask."""
    if not isinstance(reflect, numbers.Integral) or isinstance(reflect, bool) or reflect < 0:
        raise ValueError(f"`reflect` is how often a picture is looked at again, 0 or more, not {reflect!r}.")
    check_functions(critic=critic)
    if reflect and critic is None:
        raise ValueError("`reflect` needs a `critic`, who says what is wrong with a picture.")
    if critic is not None and not reflect:
        raise ValueError("A `critic` is asked where a picture is looked at again: give `reflect`, 1 or more.")


def check_generation(max_new_tokens: Any, generation: Any) -> None:
    """Refuse settings of the agents' answers that cannot be, whoever answers."""
    check_count("max_new_tokens", max_new_tokens)
    if generation is not None and not isinstance(generation, Mapping):
        raise TypeError(f'`generation` is a `dict` such as {{"do_sample": True}}, not {type(generation).__name__}.')
    for name, value in (generation or {}).items():
        if name in NOT_OF_GENERATION:
            raise TypeError(
                f"`{name}` is not one of `generation`: `max_new_tokens` and `num_plans` are arguments of their own."
            )
        fits, said = _FITTING.get(name, (None, ""))
        if fits is not None and value is not None and not fits(value):
            raise ValueError(f"`{name}` must be {said}, not {value!r}.")


def given_settings(generation: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings of the agents' answers without those that are `None`, which are as left out."""
    return {name: value for name, value in (generation or {}).items() if value is not None}


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral)


def _are_functions(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(callable, value))


_FITTING: dict[str, tuple[Callable[[Any], bool], str]] = {
    "do_sample": (lambda value: isinstance(value, bool), "True or False"),
    "constrained": (lambda value: isinstance(value, bool), "True or False"),
    "temperature": (lambda value: _is_number(value) and 0 < value < float("inf"), "a number above 0"),
    "top_p": (lambda value: _is_number(value) and 0 < value <= 1, "a number above 0, at most 1"),
    "top_k": (lambda value: _is_whole(value) and value >= 0, "a whole number, 0 or more"),
    "retries": (lambda value: _is_whole(value) and value >= 0, "a whole number, 0 or more"),
    "num_beams": (lambda value: _is_whole(value) and value >= 1, "a whole number, 1 or more"),
    "repetition_penalty": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "logits_processor": (_are_functions, "a list of functions"),
    "stopping_criteria": (_are_functions, "a list of functions"),
    "streamer": (lambda value: hasattr(value, "put") and hasattr(value, "end"), "a streamer of transformers"),
    "suppress_tokens": (lambda value: not isinstance(value, (str, numbers.Number)), "a list of token numbers"),
    "synced_gpus": (lambda value: isinstance(value, bool), "True or False"),
}


def check_seed(seed: Any, name: str = "seed") -> None:
    """Refuse what seeds nothing."""
    if seed is not None and (not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or seed < 0):
        raise ValueError(f"`{name}` must be a whole number, 0 or more, not {seed!r}.")


def check_functions(**functions: Any) -> None:
    """Refuse what cannot be called; `None` is none."""
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"`{name}` is called; {type(function).__name__} cannot be.")


def check_texts(instruction: Any) -> list[str]:
    """The instructions as a list, all of them text."""
    instructions = as_list("instruction", instruction)
    for one in instructions:
        if not isinstance(one, str):
            raise TypeError(f"An instruction is text, not {type(one).__name__}; a plan is an `EditPlan`.")
        if not one.strip():
            raise ValueError(NO_INSTRUCTION)
        schema.check_text(one, "An instruction")
    return instructions


def check_plans(plan: Any) -> list[EditPlan]:
    """The plans as a list, with nothing in them but what their fields may hold."""
    plans = as_list("plan", plan)
    for one in plans:
        if not isinstance(one, EditPlan):
            raise TypeError(
                f"A plan is an `EditPlan`, not {type(one).__name__}; `EditPlan.from_dict` and `EditPlan.from_json` make"
                " one."
            )
    return [schema.read(EditPlan, asdict(one), "plan") for one in plans]


def changed_plan(callback_on_plan: Callable[[EditPlan], EditPlan | None], plan: EditPlan) -> EditPlan:
    """What a callback makes of a plan, checked as one that a caller gives; `None` leaves the plan as it is."""
    answer: Any = callback_on_plan(plan)
    if answer is None:
        return plan
    if not isinstance(answer, EditPlan):
        raise TypeError(f"`callback_on_plan` gives an `EditPlan` or None, not {type(answer).__name__}.")
    return check_plans(answer)[0]


def are_several(image: Any, given: Any) -> bool:
    """Whether pictures, or what goes with them, are a list or a batch, so that a list comes back."""
    return any(isinstance(value, (list, tuple)) for value in (image, given)) or getattr(image, "ndim", 0) == 4


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
