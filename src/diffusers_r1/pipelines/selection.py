"""Best of n: a selector looks at everything that was made of a picture, and one of it is kept."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from PIL import Image

from .pipeline_output import Candidate


Selector: TypeAlias = Callable[[Image.Image, str, list[Image.Image]], "int | Sequence[float | None]"]
"""`(source, instruction, candidates) -> scores or index`.

Pictures are RGB and of the source's size. Scores: one per candidate, more is better, `None` or NaN where there is none
to give; the first of the best is kept. Or the place of the one to keep, from 0.
"""


def select(selector: Selector, source: Image.Image, candidates: Sequence[Candidate]) -> tuple[int, list[Candidate]]:
    """The place of the candidate that a selector keeps, and the candidates with the scores it gave.

    Raises:
        ValueError: If the selector gives an index that is none, or scores for another number of candidates.
        TypeError: If it gives neither an index nor scores.
    """
    instruction = candidates[0].plan.instruction
    answer: Any = selector(source, instruction, [candidate.image for candidate in candidates])
    try:
        index = operator.index(answer)
    except TypeError:
        scores = _scores(answer)
    else:
        if not 0 <= index < len(candidates):
            raise ValueError(f"The selector chose candidate {index} of {len(candidates)}, counted from 0.")
        return index, list(candidates)
    if len(scores) != len(candidates):
        raise ValueError(f"The selector gave {len(scores)} scores for {len(candidates)} candidates.")
    known = [-math.inf if score is None else score for score in scores]
    best = max(range(len(known)), key=known.__getitem__)
    return best, [replace(candidate, score=score) for candidate, score in zip(candidates, scores)]


def _scores(answer: Any) -> list[float | None]:
    try:
        return [None if score is None or math.isnan(score) else float(score) for score in answer]
    except TypeError:
        raise TypeError(f"A `selector` gives an index, or a score for each picture, not {answer!r}.") from None
