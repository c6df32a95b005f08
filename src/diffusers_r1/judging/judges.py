"""Judges of edited pictures, as rewards ask them: source, result and row in, marks out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from inspect import signature
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from PIL import Image

from .. import schema
from ..plan import Edit
from ..records import append, read
from ..scenes import apply_edits, read_scene
from .checklist import Checklist, Question, checklist_marks
from .marks import PictureMarks
from .scenes import scenes_marks
from .viescore import VIEScore


class PictureJudge(Protocol):
    """What a reward asks of a judge. It may be shown `concurrency` pictures at once.

    What it raises, and `None`, mean that nothing is known of that picture.
    """

    concurrency: int

    def __call__(
        self, source: Image.Image, edited: Image.Image, row: Mapping[str, Any]
    ) -> PictureMarks | float | None:
        """Marks of `edited`, RGB and of the source's size. `row` has `instruction` and all other columns of its data set."""


class ScenesJudge:
    """The exact judge of scenes, see [`scenes_marks`]. The true outcome follows from the row's picture and true edits."""

    concurrency = 1

    def __call__(self, source: Image.Image, edited: Image.Image, row: Mapping[str, Any]) -> PictureMarks:
        before = read_scene(source)
        edits = [Edit(*edit) for edit in zip(row["actions"], row["subjects"], row["goals"])]
        return scenes_marks(edited, before, apply_edits(before, edits))


class ChecklistJudge:
    """Questions written once for each picture and instruction, and answered yes or no about each result.

    Args:
        checklist ([`~judging.checklist.Checklist`]): The model that writes and answers them.
        path (`str` or `Path`, *optional*): A JSONL file that keeps the questions, so that a run that is started again asks the
            same ones. Its folder is made if not there.
        concurrency (`int`, defaults to 8): How many pictures it is asked about at once.
    """

    def __init__(self, checklist: Checklist, path: str | Path | None = None, concurrency: int = 8):
        self.checklist, self.concurrency = checklist, concurrency
        self.path = None if path is None else Path(path)
        self._written: dict[str, tuple[Question, ...]] | None = None
        self._lock, self._locks = Lock(), {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_lock": None, "_locks": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=Lock())

    def __call__(self, source: Image.Image, edited: Image.Image, row: Mapping[str, Any]) -> PictureMarks | None:
        questions = self._questions(source, row["instruction"])
        if questions is None:
            return None
        return checklist_marks(questions, self.checklist.answers(source, edited, questions))

    def _questions(self, source: Image.Image, instruction: str) -> tuple[Question, ...] | None:
        row = repr((source.size, instruction, sorted(self.checklist.settings.items()))).encode() + source.tobytes()
        key = sha256(row).hexdigest()
        with self._lock:
            known, of_this_row = self._known(), self._locks.setdefault(key, Lock())
        with of_this_row:  # the results of one row come at once, and its questions are written once
            if key not in known:
                written = self.checklist.write(source, instruction)
                if written is None:
                    return None
                self._keep(key, instruction, written)
            return known[key]

    def _keep(self, key: str, instruction: str, written: tuple[Question, ...]) -> None:
        with self._lock:
            self._known()[key] = written
            if self.path is not None:
                said = [{"part": each.part.value, "text": each.text, "edit": each.edit} for each in written]
                append(self.path, {"key": key, "instruction": instruction, "questions": said})

    def _known(self) -> dict[str, tuple[Question, ...]]:
        if self._written is None:
            self._written = {}
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._written = {
                    row["key"]: tuple(schema.read(Question, each, str(self.path)) for each in row["questions"])
                    for row in read(self.path)
                }
        return self._written


class VIEScoreJudge:
    """The overall score of [`~judging.viescore.VIEScore`] as a reward, a tenth of it: 0.0 for a picture left as it was.

    Args:
        viescore ([`~judging.viescore.VIEScore`]): Asks the model that judges.
    """

    def __init__(self, viescore: VIEScore):
        self.viescore, self.concurrency = viescore, viescore.concurrency

    def __call__(self, source: Image.Image, edited: Image.Image, row: Mapping[str, Any]) -> PictureMarks | None:
        values = self.viescore(Request(source, row["instruction"]), edited).values
        if values is None:
            return None
        return PictureMarks(values["overall"] / 10, {name: value / 10 for name, value in values.items()})


@dataclass(frozen=True)
class Request:
    """A picture and what is asked for."""

    image: Image.Image
    instruction: str


class FunctionJudge:
    """A function of one's own as a judge: `function(source, edited, row)` gives marks, or a reward from 0.0 to 1.0, or `None`.

    Args:
        name (`str`): `"module:function"`, importable.

    Raises:
        ValueError: If there is no such module or function, or it does not take three values.
    """

    concurrency = 1

    def __init__(self, name: str):
        module, _, function = name.partition(":")
        self.name = name
        try:
            self._function: Callable[..., PictureMarks | float | None] = getattr(import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"{name} names no function of an importable module: {error}.") from None
        if not callable(self._function):
            raise ValueError(f"{name} names no function, but a {type(self._function).__name__}.")
        if not _takes_three(self._function):
            raise ValueError(f"{name} is not called with three values: the source, the result and the row.")

    def __call__(
        self, source: Image.Image, edited: Image.Image, row: Mapping[str, Any]
    ) -> PictureMarks | float | None:
        return self._function(source, edited, row)


def _takes_three(function: Callable[..., Any]) -> bool:
    try:
        signature(function).bind(None, None, None)
    except TypeError:
        return False
    except ValueError:  # some of those that are written in C say nothing of what they take
        return True
    return True
