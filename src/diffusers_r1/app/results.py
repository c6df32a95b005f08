"""A finished edit as files, which the page shows, offers for download and brings back from the history."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..images import to_png, write_picture
from ..plan import EditPlan
from .service import Edited, Order


HISTORY = 20  # results that a visitor can go back to
LONGEST_SHOWN = (
    1600  # pixels of the longer side of what a browser is sent to look at; the download is the picture itself
)


@dataclass(frozen=True)
class Result:
    """An edit that was done: its plan, and where its files lie.

    Args:
        order ([`Order`]): What was carried out.
        picture (`Path`): What is downloaded, a PNG of the source's size, with what belongs to the photo.
        before, after (`Path`): PNG pictures of one size to look at.
        turns (`tuple` of `Path` and `str`): The picture after each turn, to look at, and what the editor was asked.
        plan_file (`Path`): The plan as JSON.
    """

    order: Order
    picture: Path
    before: Path
    after: Path
    turns: tuple[tuple[Path, str], ...]
    plan_file: Path

    @property
    def plan(self) -> EditPlan:
        return self.order.plan


def keep(root: Path, edited: Edited) -> Result:
    """Write an edit, with its source's metadata and all that led to it, to a new folder in `root`."""
    folder = Path(tempfile.mkdtemp(dir=root))

    def show(name: str, image: Image.Image) -> Path:
        path = folder / name
        path.write_bytes(to_png(_small(image)))
        return path

    turns = tuple((show(f"turn-{number}.png", turn.image), turn.prompt) for number, turn in enumerate(edited.turns, 1))
    before, after = show("before.png", edited.before), show("after.png", edited.after)
    write_picture(folder / "edited.png", edited.after, edited.metadata)
    (folder / "plan.json").write_text(edited.order.plan.to_json() + "\n", encoding="utf-8")
    return Result(edited.order, folder / "edited.png", before, after, turns, folder / "plan.json")


def remember(history: Sequence[Result], result: Result, most: int = HISTORY) -> list[Result]:
    """The history with the result in front; what is more than `most` is deleted."""
    forget(history[most - 1 :])
    return [result, *history[: most - 1]]


def forget(history: Sequence[Result]) -> None:
    """Delete the files of results."""
    for result in history:
        shutil.rmtree(result.plan_file.parent, ignore_errors=True)


def _small(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((LONGEST_SHOWN, LONGEST_SHOWN), Image.Resampling.LANCZOS)
    return small
