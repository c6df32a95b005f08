"""The evaluation's judges: VIEScore, which asks a model that sees; scenes are exact; pixels are compared with a target."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from ..endpoints import EndpointError, map_concurrently
from ..judging.models import LocalModel
from ..judging.viescore import Verdict, VIEScore, viescore
from ..scenes import sample_task, score
from .benchmarks import SCENES_OF_RUNS, Sample


if TYPE_CHECKING:
    from ..pipelines.selection import Selector

__all__ = ["Judge", "LocalModel", "Pixels", "ScenesExact", "VIEScore", "Verdict", "selector_of", "viescore"]

NAMES = ("viescore", "scenes", "pixels")
SMALLEST = 6  # pixels: the window of the structural similarity reaches 5 to each side, mirrored at the edge


class Judge(Protocol):
    """A name for tables, all that its verdicts depend on, and how many pictures it may be shown at once.

    `metrics` names its figures, the main one first, and says of each whether more of it is better; `shares` are those whose
    values are 0 and 1 only.
    """

    name: str
    settings: Mapping[str, Any]
    concurrency: int
    metrics: Mapping[str, bool]
    shares: Collection[str]

    def applies_to(self, sample: Mapping[str, Any]) -> bool:
        """Whether a sample, as a line of the run's `samples.jsonl`, can be judged."""
        ...

    def __call__(self, sample: Sample, result: Image.Image) -> Verdict:
        """The verdict on `result`, RGB and of the source's size."""
        ...


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


class ScenesExact:
    """The scenes world's own truth, cell by cell, with no model.

    `exact` is 1 where all nine cells and the background are right, else 0; `changed` the share that is right of what the
    instruction changes, `kept` of what it does not; all from 0 to 1. See [`~scenes.score`].
    """

    name = "scenes"
    settings: Mapping[str, Any] = {}
    concurrency = 1
    metrics: Mapping[str, bool] = {"exact": True, "changed": True, "kept": True}
    shares: Collection[str] = ("exact",)

    def applies_to(self, sample: Mapping[str, Any]) -> bool:
        return sample["benchmark"] in SCENES_OF_RUNS

    def __call__(self, sample: Sample, result: Image.Image) -> Verdict:
        task = sample_task(sample.row, SCENES_OF_RUNS[sample.benchmark])
        before, after = ((*scene.cells, scene.background) for scene in (task.scene, task.target_scene))
        changes = np.array([one != other for one, other in zip(before, after)])
        right = np.array(score(result, task))
        changed, kept = float(right[changes].mean()), float(right[~changes].mean())
        return Verdict({"exact": float(right.all()), "changed": changed, "kept": kept})


class Pixels:
    """How near a result comes to a target picture, by torchmetrics, on values from 0 to 1.

    `l1` is the mean absolute and `l2` the mean squared difference (0 is equal), `ssim` the structural similarity and
    `clip_i` the cosine of the two pictures' CLIP embeddings (1 is equal). The result is scaled to the target's size. Where that
    is smaller than the structural similarity's window there are no figures.

    Args:
        clip_model (`str`, *optional*): A CLIP on the Hub or in a folder; without one there is no `clip_i`.
    """

    name = "pixels"
    concurrency = 1
    shares: Collection[str] = ()

    def __init__(self, clip_model: str | None = None):
        self.settings: Mapping[str, Any] = {"clip_model": clip_model}
        self.metrics: Mapping[str, bool] = {"l1": False, "l2": False, "ssim": True}
        self._clip: tuple[Any, Any] | None = None
        if clip_model is not None:
            from transformers import CLIPModel, CLIPProcessor

            self.metrics = {**self.metrics, "clip_i": True}
            self._clip = CLIPModel.from_pretrained(clip_model).eval(), CLIPProcessor.from_pretrained(clip_model)

    def applies_to(self, sample: Mapping[str, Any]) -> bool:
        return sample["target"] is not None

    def __call__(self, sample: Sample, result: Image.Image) -> Verdict:
        from torchmetrics.functional import mean_absolute_error, mean_squared_error
        from torchmetrics.functional.image import structural_similarity_index_measure

        target: Any = sample.target  # what `applies_to` lets pass has one
        if min(target.size) < SMALLEST:
            width, height = target.size
            reason = f"a target of {width} x {height} pixels; each side has to have {SMALLEST}"
            return Verdict(None, {"reason": reason})
        result = result.resize(target.size, Image.Resampling.BICUBIC)
        made, wanted = _tensor(result), _tensor(target)
        similarity: Any = structural_similarity_index_measure(made, wanted, data_range=1.0)
        values = {
            "l1": mean_absolute_error(made, wanted).item(),
            "l2": mean_squared_error(made, wanted).item(),
            "ssim": similarity.item(),
        }
        if self._clip is not None:
            values["clip_i"] = _clip_similarity(*self._clip, result, target)
        return Verdict(values)


def _clip_similarity(model: Any, processor: Any, one: Image.Image, other: Image.Image) -> float:
    import torch
    from torchmetrics.functional import pairwise_cosine_similarity

    # Not by torchmetrics' own `clip_score`, which cannot read what transformers 5 gives back.
    with torch.no_grad():
        embedded = model.get_image_features(**processor(images=[one, other], return_tensors="pt")).pooler_output
    return pairwise_cosine_similarity(embedded[:1], embedded[1:]).item()


def _tensor(picture: Image.Image) -> Any:
    import torch

    pixels = np.asarray(picture, dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()  # torchmetrics takes views of it
