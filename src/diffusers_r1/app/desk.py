"""What happens when somebody presses a button of the page or calls its API. Here everything is checked; nothing is drawn."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from diffusers.utils import logging
from gradio.utils import get_upload_folder
from PIL import Image

from ..editors import arguments_of
from ..images import Metadata
from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline
from ..pipelines.pipeline_output import ImageEditR1PipelineOutput
from ..plan import EditPlan, Turns
from . import table
from .uploads import check_instruction, check_plan, check_seed, open_with_metadata


logger = logging.get_logger(__name__)

Upload = Mapping[str, Any] | None
Report = Callable[..., Any]  # of `gr.Progress`: (share done, desc=what is being done)


class Desk:
    """Takes what people send, asks the pipeline, and hands back what it made.

    Every method raises `gr.Error`, and nothing else, with a message for the person who asked.

    Args:
        pipeline ([`ImageEditR1Pipeline`]): Used by one call at a time; the page's queue sees to that.
        max_pixels (`int`): The largest width x height of an uploaded picture.
    """

    def __init__(self, pipeline: ImageEditR1Pipeline, max_pixels: int):
        self.pipeline = pipeline
        self.max_pixels = max_pixels
        self._folder = tempfile.TemporaryDirectory(prefix="diffusers-r1-")  # deleted with this object
        self.folder = Path(self._folder.name)

    def _open(self, upload: Upload) -> tuple[Image.Image, Metadata]:
        return open_with_metadata(upload, Path(get_upload_folder()), self.max_pixels)

    def check_picture(self, upload: Upload) -> None:
        """Refuse a picture that cannot be used as soon as it is uploaded."""
        with plain_words():
            self._open(upload)

    def plan(
        self, upload: Upload, instruction: Any, report: Report, turns: Turns | None = None, seed: Any = 0
    ) -> EditPlan:
        """What an instruction becomes. Where an edit is to follow, `turns` and `seed` of that are refused here already."""
        with plain_words():
            picture, _ = self._open(upload)
            instruction = check_instruction(instruction)
            if turns is not None:
                check_seed(seed)
                self.pipeline.check_inputs(picture, instruction, turns=turns)
            report(None, desc="Planning")
            return self.pipeline.plan(picture, instruction)

    def read_table(
        self, rows: Sequence[table.Row], shown: Sequence[table.Row], planned: EditPlan | None, instruction: str | None
    ) -> EditPlan:
        """The plan in the table, which somebody has changed or, where nothing was `planned`, written."""
        with plain_words():
            return check_plan(table.to_plan(table.follow(rows, shown), planned, instruction or ""))

    def read_plan(self, plan: Any) -> EditPlan:
        """The plan that a program has sent."""
        with plain_words():
            return check_plan(EditPlan.from_dict(plan))

    def edit(
        self, upload: Upload, plan: EditPlan, turns: Turns, seed: Any, report: Report
    ) -> tuple[Image.Image, Metadata, ImageEditR1PipelineOutput]:
        """The picture as it was opened, its file's metadata, and what carrying out a plan made of it."""
        with plain_words():
            picture, metadata = self._open(upload)
            generator = torch.Generator().manual_seed(check_seed(seed))
            call = {"image": picture, "plan": plan, "turns": turns, "generator": generator}
            self.pipeline.check_inputs(**call)
            if "callback_on_step_end" in arguments_of(self.pipeline.editor):
                call["callback_on_step_end"] = _Steps(report, len(plan.prompts(turns)))
            report(0, desc="Editing")
            output: Any = self.pipeline(**call)
            return picture, metadata, output


class _Steps:
    """Reports how far the editor is, turn by turn and step by step, as its `callback_on_step_end`."""

    def __init__(self, report: Report, turns: int):
        self.report = report
        self.turns = turns
        self.turn = 0

    def __call__(self, editor: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self.turn += step == 0
        done = (self.turn - 1 + (step + 1) / editor.num_timesteps) / self.turns
        self.report(done, desc="Editing" if self.turns == 1 else f"Editing, turn {self.turn} of {self.turns}")
        return tensors


@contextmanager
def plain_words() -> Iterator[None]:
    """Turns what goes wrong inside the block into a message for the person who asked, and logs what is not their fault."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise gr.Error(str(error), print_exception=False) from error
    except torch.OutOfMemoryError as error:
        logger.error(f"Out of memory: {error}")
        raise gr.Error(
            "This machine has too little memory for it: try a smaller picture.", print_exception=False
        ) from error
    except Exception as error:
        logger.exception("A request failed.")
        raise gr.Error(
            "This did not work, and it is not your fault. The log of the server says why.", print_exception=False
        ) from error
