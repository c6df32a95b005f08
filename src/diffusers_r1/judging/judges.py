"""Judges of edited pictures, as rewards ask them: source, result and row in, marks out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

from PIL import Image

from ..plan import Edit
from ..scenes import apply_edits, read_scene
from .marks import PictureMarks
from .scenes import scenes_marks


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


class FunctionJudge:
    """A function of one's own as a judge: `function(source, edited, row)` gives marks, or a reward from 0.0 to 1.0, or `None`.

    Args:
        name (`str`): `"module:function"`, importable.

    Raises:
        ValueError: If there is no such module or function.
    """

    concurrency = 1

    def __init__(self, name: str):
        module, _, function = name.partition(":")
        self.name = name
        try:
            self._function: Callable[..., PictureMarks | float | None] = getattr(import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"{name} names no function of an importable module: {error}.") from None

    def __call__(
        self, source: Image.Image, edited: Image.Image, row: Mapping[str, Any]
    ) -> PictureMarks | float | None:
        return self._function(source, edited, row)
