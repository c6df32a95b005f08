"""What a picture is paid for. Doing nothing is worth nothing: what was left alone counts only as far as something was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PictureMarks:
    """What a judge says of one edited picture.

    Args:
        reward (`float`): What it is worth, from 0.0 to 1.0.
        parts (`Mapping` of `str` to `float`): What the reward was made of, each from 0.0 to 1.0.
    """

    reward: float
    parts: Mapping[str, float] = field(default_factory=dict)


def paid(target: float, effect: float, preservation: float) -> float:
    """The reward of a picture of which three things are known: `(target + effect + preservation * effect) / 3`.

    A sum of all three would pay an untouched picture a third for what it left alone, and a planner that asks for nothing
    more than one that tries and misses. Two works state the same concern in their own ways: RePlan (arXiv 2512.16864) and
    FIRM (arXiv 2603.12247).

    Args:
        target (`float`): Of the edits, for how many what was meant is what was changed; 0.0 to 1.0.
        effect (`float`): For how many the outcome that was asked for is there; 0.0 to 1.0.
        preservation (`float`): How much of the rest is as it was; 0.0 to 1.0.

    Returns:
        `float`: from 0.0 to 1.0.

    Example:
        >>> paid(0.0, 0.0, 1.0), paid(1.0, 1.0, 1.0), paid(1.0, 0.5, 1.0)
        (0.0, 1.0, 0.6666666666666666)
    """
    return (target + effect + preservation * effect) / 3
