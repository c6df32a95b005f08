"""Judges: what a picture is worth. VIEScore asks a model that sees; scenes are exact; pixels are compared with a target."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from ..endpoints import ChatCompletion, Endpoint, EndpointError, map_concurrently
from ..scenes import sample_task, score
from .benchmarks import SCENES, Sample


if TYPE_CHECKING:
    from ..pipelines.selection import Selector

NAMES = ("viescore", "scenes", "pixels")


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


class Judge(Protocol):
    """A name for tables, all that its verdicts depend on, and how many pictures it may be shown at once.

    `metrics` names its figures, the main one first, and says of each whether more of it is better.
    """

    name: str
    settings: Mapping[str, Any]
    concurrency: int
    metrics: Mapping[str, bool]

    def applies_to(self, sample: Mapping[str, Any]) -> bool:
        """Whether a sample, as a line of the run's `samples.jsonl`, can be judged."""

    def __call__(self, sample: Sample, result: Image.Image) -> Verdict:
        """The verdict on `result`, RGB and of the source's size."""


def selector_of(judge: Judge) -> Selector:
    """A judge as the `selector` of [`ImageEditR1Pipeline`]: what scores best in the judge's main figure is kept.

    A candidate at which the judge fails, or whose answer cannot be read, has no score. Up to `judge.concurrency` candidates
    are judged at once.

    Args:
        judge ([`Judge`]): One that needs neither a target nor the true answer, such as [`VIEScore`].

    Returns:
        [`~pipelines.selection.Selector`]: It raises `EndpointError` if the judge's server fails at every candidate.

    Raises:
        ValueError: If the judge needs more than source, instruction and result.
    """
    if not judge.applies_to({"benchmark": "candidates", "target": None}):
        raise ValueError(
            f"The judge {judge.name} needs the truth, which nobody knows of a picture that is being made."
        )
    metric, more_is_better = next(iter(judge.metrics.items()))

    def select(source: Image.Image, instruction: str, candidates: list[Image.Image]) -> list[float | None]:
        def ask(number: int) -> Verdict:
            return judge(Sample("candidates", number, source, instruction), candidates[number])

        verdicts = dict(map_concurrently(ask, range(len(candidates)), judge.concurrency))
        errors = [verdict for verdict in verdicts.values() if isinstance(verdict, Exception)]
        other = [error for error in errors if not isinstance(error, EndpointError)]
        if other or len(errors) == len(candidates):
            raise (other or errors)[0]
        values = [getattr(verdicts[number], "values", None) for number in range(len(candidates))]
        sign = 1 if more_is_better else -1
        return [None if figures is None else sign * figures[metric] for figures in values]

    return select


# VIEScore
# --------

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
        except ValueError:
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
    metrics = {"overall": True, "semantics": True, "quality": True}

    def __init__(self, model: Endpoint | LocalModel, concurrency: int = 8, attempts: int = 3, max_tokens: int = 1024):
        if attempts < 1:
            raise ValueError(f"`attempts` is 1 or more; got {attempts}.")
        self.model, self.concurrency, self.attempts, self.max_tokens = model, concurrency, attempts, max_tokens
        words = hashlib.sha256("\0".join((SEMANTICS, QUALITY, AGAIN)).encode()).hexdigest()
        self.settings = {"model": model.model, "prompts": words, "attempts": attempts, "max_tokens": max_tokens}

    def applies_to(self, sample: Mapping[str, Any]) -> bool:
        return True

    def __call__(self, sample: Sample, result: Image.Image) -> Verdict:
        questions = {
            "semantics": ([sample.image, result], SEMANTICS.replace("{instruction}", sample.instruction)),
            "quality": ([result], QUALITY),
        }
        scores, answers = {}, []
        for name, (pictures, text) in questions.items():
            scores[name], said = self._ask(pictures, text)
            answers += said
            if scores[name] is None:  # nothing that the other question brings could be used
                break
        evidence = {
            "model": answers[-1].model,
            "prompts": self.settings["prompts"],
            "scores": scores,
            "raw": [answer.text for answer in answers],
            "failed_calls": sum(answer.failed_calls for answer in answers),
            "unreadable": sum(read_scores(answer.text) is None for answer in answers),
        }
        return Verdict(viescore(**scores) if None not in scores.values() else None, evidence)

    def _ask(self, pictures: list[Image.Image], text: str) -> tuple[tuple[float, float] | None, list[ChatCompletion]]:
        content = [*({"type": "image", "image": picture} for picture in pictures), {"type": "text", "text": text}]
        messages, answers = [{"role": "user", "content": content}], []
        for _ in range(self.attempts):
            answers += self.model.chat(messages, temperature=0, max_tokens=self.max_tokens)
            scores = read_scores(answers[-1].text)
            if scores is not None:
                return scores, answers
            # At temperature 0 the same question has the same answer: what is asked has to change.
            messages += [_says("assistant", answers[-1].text), _says("user", AGAIN)]
        return None, answers


class LocalModel:
    """A judge that is loaded here, once it is asked, in the way of [`Endpoint`]; greedy, one question at a time.

    Args:
        name (`str`): An image-text-to-text model on the Hub or in a folder.
        device, dtype (*optional*): Where and how it is loaded; an accelerator if there is one, and float32.
    """

    def __init__(self, name: str, device: Any = None, dtype: Any = None):
        self.model, self.device, self.dtype = name, device, dtype
        self._one_at_a_time = Lock()

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        import torch
        from diffusers.utils.torch_utils import get_device
        from transformers import AutoModelForImageTextToText, AutoProcessor

        model = AutoModelForImageTextToText.from_pretrained(self.model, dtype=self.dtype or torch.float32)
        return model.eval().to(self.device or get_device()), AutoProcessor.from_pretrained(self.model)

    def chat(
        self, messages: Sequence[Mapping[str, Any]], temperature: float = 0, max_tokens: int = 512
    ) -> list[ChatCompletion]:
        """The model's answer, in a list of its own, see [`Endpoint.chat`]; greedy, whatever `temperature` is asked for."""
        import torch

        from ..planners.sampling import GREEDY

        with self._one_at_a_time, torch.no_grad():
            model, processor = self._loaded
            asked = processor.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            ).to(model.device)
            output = model.generate(**asked, **GREEDY, max_new_tokens=max_tokens)
        said = processor.batch_decode(output[:, asked["input_ids"].shape[1] :], skip_special_tokens=True)[0]
        version = getattr(model.config, "_commit_hash", None)
        return [ChatCompletion(said, f"{self.model}@{version}" if version else self.model)]


def _says(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


# Where the truth is known
# ------------------------


class ScenesExact:
    """The scenes world's own truth, cell by cell, with no model.

    `exact` is 1 where all nine cells and the background are right, else 0; `changed` the share that is right of what the
    instruction changes, `kept` of what it does not; all from 0 to 1. See [`~scenes.score`].
    """

    name = "scenes"
    settings: Mapping[str, Any] = {}
    concurrency = 1
    metrics = {"exact": True, "changed": True, "kept": True}

    def applies_to(self, sample: Mapping[str, Any]) -> bool:
        return sample["benchmark"] in SCENES

    def __call__(self, sample: Sample, result: Image.Image) -> Verdict:
        task = sample_task(sample.row, SCENES[sample.benchmark])
        before, after = ((*scene.cells, scene.background) for scene in (task.scene, task.target_scene))
        changes = np.array([one != other for one, other in zip(before, after)])
        right = np.array(score(result, task))
        changed, kept = float(right[changes].mean()), float(right[~changes].mean())
        return Verdict({"exact": float(right.all()), "changed": changed, "kept": kept})


class Pixels:
    """How near a result comes to a target picture, by torchmetrics, on values from 0 to 1.

    `l1` is the mean absolute and `l2` the mean squared difference (0 is equal), `ssim` the structural similarity and
    `clip_i` the cosine of the two pictures' CLIP embeddings (1 is equal). The result is scaled to the target's size.

    Args:
        clip_model (`str`, *optional*): A CLIP on the Hub or in a folder; without one there is no `clip_i`.
    """

    name = "pixels"
    concurrency = 1

    def __init__(self, clip_model: str | None = None):
        self.settings = {"clip_model": clip_model}
        self.metrics = {"l1": False, "l2": False, "ssim": True}
        self._clip = None
        if clip_model is not None:
            from transformers import CLIPModel, CLIPProcessor

            self.metrics["clip_i"] = True
            self._clip = CLIPModel.from_pretrained(clip_model).eval(), CLIPProcessor.from_pretrained(clip_model)

    def applies_to(self, sample: Mapping[str, Any]) -> bool:
        return sample["target"] is not None

    def __call__(self, sample: Sample, result: Image.Image) -> Verdict:
        from torchmetrics.functional import mean_absolute_error, mean_squared_error
        from torchmetrics.functional.image import structural_similarity_index_measure

        target = sample.target
        result = result.resize(target.size, Image.Resampling.BICUBIC)
        made, wanted = _tensor(result), _tensor(target)
        values = {
            "l1": mean_absolute_error(made, wanted).item(),
            "l2": mean_squared_error(made, wanted).item(),
            "ssim": structural_similarity_index_measure(made, wanted, data_range=1.0).item(),
        }
        if self._clip is not None:
            values["clip_i"] = self._clip_similarity(result, target)
        return Verdict(values)

    def _clip_similarity(self, one: Image.Image, other: Image.Image) -> float:
        import torch
        from torchmetrics.functional import pairwise_cosine_similarity

        # Not by torchmetrics' own `clip_score`, which cannot read what transformers 5 gives back.
        model, processor = self._clip
        with torch.no_grad():
            embedded = model.get_image_features(**processor(images=[one, other], return_tensors="pt")).pooler_output
        return pairwise_cosine_similarity(embedded[:1], embedded[1:]).item()


def _tensor(picture: Image.Image) -> Any:
    import torch

    pixels = np.asarray(picture, dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()  # torchmetrics takes views of it
