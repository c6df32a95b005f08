"""VIEScore: a model that sees scores what was done and how it looks, from 0 to 10 (arXiv 2312.14867)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from .models import ChatModel, ask


class Shown(Protocol):
    """What a judge is told of a picture beside the result."""

    @property
    def image(self) -> Image.Image:
        """The source."""
        ...

    @property
    def instruction(self) -> str:
        """What was asked for."""
        ...


@dataclass(frozen=True)
class Verdict:
    """What a judge says of a picture.

    Args:
        values (`dict` of `str` to `float`, *optional*): A figure for each of the judge's metrics; `None` where no answer
            of the judge could be read, which counts as failed and as no figure at all.
        evidence (`dict`): What the figures rest on: raw answers, the model and its version, how many calls failed.
    """

    values: dict[str, float] | None
    evidence: dict[str, Any] = field(default_factory=dict)


SEMANTICS = """\
You judge the work of an image editor. The first picture is the source. The second is what the editor made of it when it \
was asked:

{instruction}

Give two scores from 0 to 10.
First, how much of what was asked for has been done: 0 if none of it, 10 if all of it and exactly as asked.
Second, how much of what was not asked for has been left alone: 0 if nothing is as it was, 10 if everything is.
The two are independent: a result equal to the source gets 0 and 10.

Answer with one JSON object and nothing else, the reasoning in a sentence or two:
{"reasoning": "...", "score": [first, second]}"""

QUALITY = """\
You judge a picture that an image editor has made.

Give two scores from 0 to 10.
First, how natural it looks in light, shadow, perspective and proportion: 0 if it cannot be what it seems, 10 if nothing \
gives it away.
Second, how free it is of flaws such as smears, seams, distorted faces or hands, and broken objects or letters: 0 if they \
are everywhere, 10 if there are none.

Answer with one JSON object and nothing else, the reasoning in a sentence or two:
{"reasoning": "...", "score": [first, second]}"""

AGAIN = """\
Your answer cannot be read. Give it once more as one JSON object and nothing else, with two numbers from 0 to 10:
{"reasoning": "...", "score": [first, second]}"""


def viescore(semantics: Sequence[float], quality: Sequence[float]) -> dict[str, float]:
    """The scores of one picture, each from 0 to 10 (VIEScore, arXiv 2312.14867).

    Args:
        semantics (two `float`): Instruction followed; the rest left alone.
        quality (two `float`): Natural; free of flaws.

    Returns:
        `dict`: `overall`, the geometric mean of the other two; `semantics` and `quality`, each the lower of its two.

    Example:
        >>> viescore([9, 4], [10, 9])
        {'overall': 6.0, 'semantics': 4, 'quality': 9}
    """
    low, high = min(semantics), min(quality)
    return {"overall": math.sqrt(low * high), "semantics": low, "quality": high}


def read_scores(text: str) -> tuple[float, float] | None:
    """The two scores of a judge's answer, or `None` where it does not give two numbers from 0 to 10.

    The last JSON object with a `score` in it counts, whatever stands around it. Nothing is guessed.
    """
    decoder, found, start = json.JSONDecoder(), None, text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            found = value if "score" in value else found
        start = text.find("{", end)
    scores = found and found["score"]
    if not isinstance(scores, list) or len(scores) != 2:
        return None
    if not all(type(one) in (int, float) and 0 <= one <= 10 for one in scores):
        return None
    return float(scores[0]), float(scores[1])


class VIEScore:
    """A model that sees scores semantics (source, result and instruction) and quality (the result alone).

    It is asked at temperature 0. What it says that cannot be read is held up to it, at most `attempts` answers in all to
    each question; then the verdict has no figures.

    Args:
        model ([`Endpoint`] or [`LocalModel`]): The judge.
        concurrency (`int`, defaults to 8): How many pictures it is asked about at once.
        attempts (`int`, defaults to 3): 1 or more.
        max_tokens (`int`, defaults to 1024): Of an answer.
    """

    name = "viescore"
    metrics: Mapping[str, bool] = {"overall": True, "semantics": True, "quality": True}
    shares: Collection[str] = ()

    def __init__(self, model: ChatModel, concurrency: int = 8, attempts: int = 3, max_tokens: int = 1024):
        if attempts < 1:
            raise ValueError(f"`attempts` is 1 or more; got {attempts}.")
        self.model, self.concurrency, self.attempts, self.max_tokens = model, concurrency, attempts, max_tokens
        words = hashlib.sha256("\0".join((SEMANTICS, QUALITY, AGAIN)).encode()).hexdigest()
        self.settings: Mapping[str, Any] = {
            "model": model.model,
            "prompts": words,
            "attempts": attempts,
            "max_tokens": max_tokens,
        }

    def applies_to(self, sample: Mapping[str, Any]) -> bool:
        return True

    def __call__(self, sample: Shown, result: Image.Image) -> Verdict:
        questions = {
            "semantics": ([sample.image, result], SEMANTICS.replace("{instruction}", sample.instruction)),
            "quality": ([result], QUALITY),
        }
        scores, answers = {}, []
        for name, (pictures, text) in questions.items():
            scores[name], said = ask(self.model, pictures, text, read_scores, AGAIN, self.attempts, self.max_tokens)
            answers += said
            if scores[name] is None:  # nothing that the other question brings could be used
                break
        evidence = {
            "model": answers[-1].model,
            "prompts": self.settings["prompts"],
            "scores": scores,
            "raw": [answer.text for answer in answers],
            "finish_reasons": [answer.finish_reason for answer in answers],
            "refusals": [answer.refusal for answer in answers if answer.refusal],
            "failed_calls": sum(answer.failed_calls for answer in answers),
            "unreadable": sum(read_scores(answer.text) is None for answer in answers),
        }
        return Verdict(viescore(**scores) if None not in scores.values() else None, evidence)
