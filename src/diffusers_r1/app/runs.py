"""A finished edit as files, which the page shows, offers for download and brings back from the history."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..images import Metadata, to_png, write_picture
from ..pipelines.pipeline_output import ImageEditR1PipelineOutput
from ..plan import EditPlan


HISTORY = 20  # runs that a visitor can go back to


@dataclass(frozen=True)
class Run:
    """An edit that was done: its plan, and where its files lie.

    Args:
        plan ([`EditPlan`]): What was carried out.
        before, after (`Path`): PNG pictures of one size.
        turns (`tuple` of `Path` and `str`): The picture after each turn, as the editor gave it, and what it was asked.
        plan_file (`Path`): The plan as JSON.
    """

    plan: EditPlan
    before: Path
    after: Path
    turns: tuple[tuple[Path, str], ...]
    plan_file: Path


def keep(root: Path, before: Image.Image, metadata: Metadata, output: ImageEditR1PipelineOutput) -> Run:
    """Write the first picture of an output, with its source's metadata and all that led to it, to a new folder in `root`."""
    folder = Path(tempfile.mkdtemp(dir=root))
    plan = output.plans[0]
    turns = []
    for number, turn in enumerate(output.turns[0], start=1):
        (folder / f"turn-{number}.png").write_bytes(to_png(turn.image))
        turns.append((folder / f"turn-{number}.png", turn.prompt))
    (folder / "before.png").write_bytes(to_png(before))
    edited: Any = output.images[0]  # a PIL picture, since nothing else was asked for
    write_picture(folder / "edited.png", edited, metadata)
    (folder / "plan.json").write_text(plan.to_json() + "\n", encoding="utf-8")
    return Run(plan, folder / "before.png", folder / "edited.png", tuple(turns), folder / "plan.json")


def remember(history: Sequence[Run], run: Run) -> list[Run]:
    """The history with the run in front; what is more than `HISTORY` is deleted."""
    forget(history[HISTORY - 1 :])
    return [run, *history[: HISTORY - 1]]


def forget(history: Sequence[Run]) -> None:
    """Delete the files of runs."""
    for run in history:
        shutil.rmtree(run.plan_file.parent, ignore_errors=True)
