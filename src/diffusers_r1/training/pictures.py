"""Reward from the edited picture: what a plan's picture is worth to a judge, with no word about the plan itself."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, cast

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image

from ..editors import check_given
from ..endpoints import check_address, map_in_order
from ..judging import PictureJudge, PictureMarks
from ..names import PIPELINE_INDEX, is_address, only_configs, resolve
from ..pipelines.nested.loading import load_editor
from ..pipelines.nested.parts import is_modular, read_index
from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline
from ..plan import Edit, EditPlan
from ..planners.plans import sequence_plans
from ..prompts import Prompts, prompts_of
from ..remote_editor import RemoteEditor, check_remote_editor
from ..rewards import Completion, answer_text
from ..tags import read_decomposition
from .models import Start


logger = logging.getLogger(__name__)

FEW_RETRIES = 2  # of a picture: a step waits for its slowest
MOST_KEPT = 20_000  # marks of pictures that may be asked for again
NOTHING = PictureMarks(0.0)


@dataclass
class Renderer:
    """Carries out decompositions: the frozen sequencing agent puts them into words, the frozen editor makes the pictures.

    Models are loaded by `load`, or once they are needed. A pickled one holds names only.

    Args:
        editor (`str`): A bundle, a pipeline of diffusers (folder or Hub name), or an address, `"http://localhost:8000/v1"`.
        base ([`Start`] or `str`): The planner that training starts from, or its name, frozen: it puts plans into words,
            unless the bundle has a sequencer. It is asked in its own words.
        editor_model (`str`, *optional*): Of an address: the model's name there.
        prompts (`str`, *optional*): A folder whose `prompts.json` holds the words in place of the base's own.
        batch_size (`int`, defaults to 32): The most plans put into words, and pictures edited, in one call.
        max_new_tokens (`int`, defaults to 512): Of the sequencing agent's answer.
        dtype (`str`, defaults to `"float32"`): Of the weights.
        arguments (`dict`): The editor's own, such as `num_inference_steps`.

    Raises:
        OSError: If no pipeline has that name.
        ValueError: If an address comes without a model, or a model without an address; if a bundle has no editor.
    """

    editor: str
    base: Start | str
    editor_model: str | None = None
    prompts: str | None = None
    batch_size: int = 32
    max_new_tokens: int = 512
    dtype: str = "float32"
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if is_address(self.editor) != (self.editor_model is not None):
            raise ValueError("An editor behind an address has a model's name there, and no other editor has one.")
        if self.editor_model is not None:
            check_address(self.editor)
            check_remote_editor(self.arguments)
        else:
            check_editor_name(self.editor)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_loaded"}

    def load(self) -> None:
        """Loads the models. Raises what loading raises, and `TypeError` or `ValueError` if the editor cannot work with `arguments`."""
        check_given(self.pipeline.editor, {**self.pipeline.editor_defaults, **self.arguments})

    @property
    def pipeline(self) -> ImageEditR1Pipeline:
        """The pipeline whose editor makes the pictures; loaded if it is not yet."""
        return self._loaded[0]

    @cached_property
    def _loaded(self) -> tuple[ImageEditR1Pipeline, tuple[Any, Any], Prompts]:
        """The pipeline whose editor makes the pictures, the sequencing agent, and the words in which it is asked."""
        settings = {"dtype": getattr(torch, self.dtype)}
        start = self.base if isinstance(self.base, Start) else Start(self.base)
        base, processor, _ = start.load_sequencer(**settings)
        # In the words of training and of the bundle that comes of it, which show no examples.
        prompts = prompts_of(base, examples=()) if self.prompts is None else Prompts.load(self.prompts)
        if self.editor_model is not None:
            pipe = ImageEditR1Pipeline(
                None, None, RemoteEditor(self.editor, self.editor_model, max_retries=FEW_RETRIES)
            )
        else:
            pipe = load_around_editor(self.editor, **settings)
        if pipe.sequencer is None:
            pipe.register_modules(sequencer=base, sequencer_processor=processor)
        pipe.to(PartialState().device)
        pipe.set_progress_bar_config(disable=True)
        return pipe, (pipe.sequencer, pipe.sequencer_processor), prompts

    @torch.no_grad()
    def plans(
        self, sources: Sequence[Image.Image], instructions: Sequence[str], decompositions: Sequence[str]
    ) -> list[EditPlan | Exception]:
        """The plan of each well-formed decomposition, or why there is none."""
        _, sequencer, prompts = self._loaded

        def write(rows: list[int]) -> list[EditPlan]:
            shown, asked = [sources[row] for row in rows], [instructions[row] for row in rows]
            said = [decompositions[row] for row in rows]
            return sequence_plans(*sequencer, shown, asked, said, prompts, max_new_tokens=self.max_new_tokens)

        return _in_batches(write, len(sources), self.batch_size)

    def pictures(
        self, sources: Sequence[Image.Image], plans: Sequence[EditPlan], seeds: Sequence[int]
    ) -> list[Image.Image | Exception]:
        """The picture of each plan, RGB and of its source's size, or why there is none; `seeds` are those of the noise."""
        pipe = self._loaded[0]

        def edit(rows: list[int]) -> list[Image.Image]:
            made: Any = pipe(
                [sources[row] for row in rows],
                plan=[plans[row] for row in rows],
                generator=[torch.Generator().manual_seed(seeds[row]) for row in rows],
                max_batch=self.batch_size,
                **self.arguments,
            )
            return made.images

        endpoint = getattr(pipe.editor, "endpoint", None)
        if endpoint is not None:  # each picture is a request of its own, and fails alone
            return _in_batches(edit, len(sources), 1, endpoint.concurrency)
        return _in_batches(edit, len(sources), self.batch_size)


def check_editor_name(name: str | None) -> None:
    """Refuse an editor that is not there, before hours of training.

    Raises:
        OSError: If no pipeline of that name can be found.
        ValueError: If it is a bundle that has none.
    """
    if name is not None and _index_of(name).get("editor") == [None, None]:
        raise ValueError(f"The bundle {name!r} has no editor.")


def load_around_editor(name: str, **settings: Any) -> ImageEditR1Pipeline:
    """A pipeline with the editor of that name, and its adapters, and no planner. Of a bundle, all that is not its planner.

    Args:
        settings: As in [`load_editor`].
    """
    if _index_of(name).get("_class_name", [""])[-1] == ImageEditR1Pipeline.__name__:
        return ImageEditR1Pipeline.from_pretrained(name, planner=None, processor=None, **settings)
    return ImageEditR1Pipeline(None, None, load_editor(name, **settings))


def _index_of(name: str) -> dict[str, Any]:
    """What the pipeline of that name says of itself; of a modular one, which says it elsewhere, nothing."""
    folder = resolve(name, only_configs)
    return {} if is_modular(folder) and not (folder / PIPELINE_INDEX).is_file() else read_index(folder)


def load_renderers(rewards: Sequence[Any]) -> None:
    """Load the models that make pictures for rewards, before the first step needs them."""
    for reward in rewards:
        if isinstance(reward, PictureReward):
            reward.renderer.load()


class PictureReward:
    """What the pictures of plans are worth, from 0.0 to 1.0: a plan is carried out, and a judge looks at what came of it.

    | answer | reward |
    |---|---|
    | not of the declared format | 0: it is not rendered |
    | of the declared format | what the judge says of its picture |
    | of the declared format, but editor or judge failed | `None`: nothing is known of it |

    Equal plans of a prompt have one picture, and all pictures of a prompt the same noise: what differs is the plan. Marks are
    kept for pictures that come again.

    Logged with each step: `picture/rendered` (how many pictures were made), `picture/editor_failed` and
    `picture/judge_failed` (how many could not be made, or not be judged), and the judge's parts, such as `picture/effect`,
    over the completions with a picture and marks. Beside each completion: `picture/parts`.

    Args:
        renderer ([`Renderer`]): Makes the pictures.
        judge ([`~judging.PictureJudge`]): Looks at up to `judge.concurrency` of them at once.
        seed (`int`, defaults to 0): Of the noise, together with the prompt.
    """

    def __init__(self, renderer: Renderer, judge: PictureJudge, seed: int = 0):
        self.__name__ = "picture"
        self.renderer, self.judge, self.seed = renderer, judge, seed
        self._kept: OrderedDict[tuple, PictureMarks] = OrderedDict()
        self._warned: set[tuple[str, str]] = set()

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Completion],
        log_extra: Callable[[str, list], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward for each of `completions`.

        Args:
            prompts (`list`): Not used.
            completions (`list`): Plain or conversational, see [`~rewards.answer_text`].
            log_extra, log_metric (`Callable`, *optional*): TRL's.
            columns: The rows' columns, a value for each completion: `image`, `instruction`, and what the judge reads.
        """
        texts = [answer_text(completion) for completion in completions]
        by_column = {name: values for name, values in columns.items() if isinstance(values, list)}
        rows = [{name: values[row] for name, values in by_column.items()} for row in range(len(texts))]
        found = [read_decomposition(text) for text in texts]
        well_formed = [row for row, each in enumerate(found) if not each.faults]
        marks: list[PictureMarks | None] = [NOTHING] * len(texts)
        for row, one in zip(well_formed, self._judged(rows, texts, well_formed, log_metric)):
            marks[row] = one
        if log_extra is not None:
            log_extra("picture/parts", [_in_words(one) for one in marks])
        if log_metric is not None:
            parts = [one.parts for row in well_formed if (one := marks[row]) is not None]
            for name in dict.fromkeys(name for one in parts for name in one):
                log_metric(f"picture/{name}", float(np.mean([one[name] for one in parts if name in one])))
        return [None if one is None else one.reward for one in marks]

    def of_instructions(self, rows: Sequence[Mapping[str, Any]]) -> list[PictureMarks | None]:
        """Marks of what the bare instructions come to, with no plan between; `rows` as a data set gives them."""
        plans = [EditPlan(row["instruction"], (), (row["instruction"],)) for row in rows]
        return self.marks_of(rows, plans, None)

    def _judged(
        self,
        rows: Sequence[Mapping[str, Any]],
        texts: Sequence[str],
        well_formed: Sequence[int],
        log_metric: Callable[[str, float], None] | None,
    ) -> list[PictureMarks | None]:
        prints = {row: (print_of(rows[row]), read_decomposition(texts[row]).edits) for row in well_formed}
        first: dict[tuple[bytes, tuple[Edit, ...]], int] = {}
        for row, plan in prints.items():
            first.setdefault(plan, row)
        chosen = list(first.values())
        shown, asked = ([rows[row][name] for row in chosen] for name in ("image", "instruction"))
        plans = self.renderer.plans(shown, asked, [texts[row] for row in chosen]) if chosen else []
        marks = dict(zip(first, self.marks_of([rows[row] for row in chosen], plans, log_metric)))
        return [marks[plan] for plan in prints.values()]

    def marks_of(
        self,
        rows: Sequence[Mapping[str, Any]],
        plans: Sequence[EditPlan | Exception],
        log_metric: Callable[[str, float], None] | None,
    ) -> list[PictureMarks | None]:
        """Marks of the picture of each plan; plans in the same words have one picture."""
        keys = picture_keys(rows, plans)
        new: dict[tuple, int] = {}
        for place, key in enumerate(keys):
            if key is not None and key not in self._kept:
                new.setdefault(key, place)
        at = list(new.values())
        sources = [rows[place]["image"] for place in at]
        seeds = [(int.from_bytes(print_of(rows[place])[:4], "big") + self.seed) % 2**32 for place in at]
        sound = cast("list[EditPlan]", [plans[place] for place in at])  # what has a key is a plan
        pictures = self.renderer.pictures(sources, sound, seeds) if at else []
        made = {place: picture for place, picture in enumerate(pictures) if isinstance(picture, Image.Image)}

        def look(place: int) -> PictureMarks | float | None:
            return self.judge(sources[place], made[place], rows[at[place]])

        said = [as_marks(each) for each in map_in_order(look, list(made), self.judge.concurrency)]
        fresh = {list(new)[place]: each for place, each in zip(made, said) if isinstance(each, PictureMarks)}
        failed = [each for each in (*plans, *pictures) if isinstance(each, Exception)]
        self.warn("editor", failed)
        self.warn("judge", [each for each in said if not isinstance(each, PictureMarks)])
        marks = [None if key is None else self._kept.get(key) or fresh.get(key) for key in keys]
        self._keep(fresh)
        if log_metric is not None:
            log_metric("picture/rendered", float(len(made)))
            log_metric("picture/editor_failed", float(len(failed)))
            log_metric("picture/judge_failed", float(len(made) - len(fresh)))
        return marks

    def _keep(self, fresh: Mapping[tuple, PictureMarks]) -> None:
        self._kept.update(fresh)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)

    def warn(self, who: str, failed: Sequence[Exception | None]) -> None:
        """Say each fault once: an outage would fill the log with one line."""
        said = Counter("no answer" if one is None else f"{type(one).__name__}: {one}" for one in failed)
        for fault, count in said.items():
            if (who, fault) not in self._warned:
                self._warned.add((who, fault))
                logger.warning("The %s failed %d times: %s. These pictures are left out.", who, count, fault)


def _in_batches(
    function: Callable[[list[int]], list[Any]], count: int, batch_size: int, concurrency: int = 1
) -> list[Any]:
    """What `function` makes of each row, some rows a call. Of a call that fails each row is tried alone, and then its error."""
    results: dict[int, Any] = {}
    waiting = [list(range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]
    while waiting:
        failed = []
        for rows, made in zip(waiting, map_in_order(function, waiting, concurrency)):
            if not isinstance(made, Exception):
                results |= dict(zip(rows, made, strict=True))
            elif len(rows) == 1:
                results[rows[0]] = made
            else:
                failed += [[row] for row in rows]
        waiting = failed
    return [results[row] for row in range(count)]


def picture_keys(
    rows: Sequence[Mapping[str, Any]], plans: Sequence[EditPlan | Exception]
) -> list[tuple[bytes, tuple[str, ...]] | None]:
    """What is equal where a row's plan comes to one picture: source, instruction and requests; `None` where there is no plan."""
    return [None if isinstance(plan, Exception) else (print_of(row), plan.requests) for row, plan in zip(rows, plans)]


def print_of(row: Mapping[str, Any]) -> bytes:
    """Tells a row's picture and instruction from all others."""
    picture = row["image"]
    return sha256(repr((picture.size, row["instruction"])).encode() + picture.tobytes()).digest()


def as_marks(said: Any) -> PictureMarks | Exception | None:
    if said is None or isinstance(said, PictureMarks | Exception):
        return said
    reward = float(said)
    return PictureMarks(reward) if 0 <= reward <= 1 else ValueError(f"a reward is from 0 to 1, not {reward}")


def _in_words(marks: PictureMarks | None) -> str:
    return "not judged" if marks is None else ", ".join(f"{name} {part:.2f}" for name, part in marks.parts.items())
