"""What happens when somebody presses a button of the page or calls its API. Here everything is checked; nothing is drawn."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers.utils import logging
from gradio.utils import get_upload_folder
from PIL import Image

from ..editors import arguments_of
from ..endpoints import EndpointError
from ..images import Metadata
from ..pipelines.call import made_for
from ..pipelines.exclusive import Interruption
from ..pipelines.nested.remote import is_remote
from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline
from ..pipelines.pipeline_output import Turn
from ..plan import EditPlan, Turns
from ..records import Failure
from . import rows
from .jobs import Job, Line, Progress, Refused, Stopped
from .uploads import check_instruction, check_plan, check_seed, check_there, open_with_metadata


logger = logging.get_logger(__name__)

Upload = Mapping[str, Any] | None

PLANS_AT_ONCE = 24  # on their way to a planner behind an address
EDITS_AT_ONCE = 8  # to an editor; each holds its picture twice
OPENED_AT_ONCE = 2  # uploads that are looked at as they come: one of 33 megapixels takes some 300 MB for a moment

# What a server's failure means for the person who asked.
FAILURES = {
    Failure.REFUSED: "The server of the model has refused this: {error}",
    Failure.OUTAGE: "The server of the model is down or busy. Please try again in a minute.",
    Failure.HOPELESS: "The server of the model cannot be used. The log of this page's server says why.",
}


@dataclass(frozen=True)
class Edited:
    """An edit that was carried out.

    Args:
        before (`PIL.Image.Image`): The picture as it was opened.
        metadata (`Metadata`): What its file says besides.
        plan ([`EditPlan`]): What was carried out.
        turns (`list` of [`Turn`]): What the editor was asked and gave; only whole turns, at least one.
        after (`PIL.Image.Image`): The last turn's picture, in the size of `before`.
        stopped (`bool`): Whether somebody has stopped it before the last turn.
    """

    before: Image.Image
    metadata: Metadata
    plan: EditPlan
    turns: list[Turn]
    after: Image.Image
    stopped: bool = False


class EditService:
    """Takes what people send, asks the pipeline, and hands back what it made.

    What is loaded here is used by one request at a time; what is behind an address, by many. Every method, and every job,
    raises [`Refused`] with a message for the person who asked, and nothing else but [`Stopped`].

    Args:
        pipeline ([`ImageEditR1Pipeline`]): With planner and editor, on its device.
        max_pixels (`int`): The largest width x height of an uploaded picture.
        max_waiting (`int`): How many may wait for planner or editor; one more is sent away.
    """

    def __init__(self, pipeline: ImageEditR1Pipeline, max_pixels: int, max_waiting: int):
        self.pipeline = pipeline
        self.max_pixels = max_pixels
        here = Line(1, max_waiting)
        plans_here = not all(is_remote(one) for one in (pipeline.planner, pipeline.sequencer) if one is not None)
        self.planning = here if plans_here else Line(PLANS_AT_ONCE, max_waiting)
        self.editing = Line(EDITS_AT_ONCE, max_waiting) if is_remote(pipeline.editor) else here
        self.looking = Line(OPENED_AT_ONCE, max_waiting)
        self.seconds: dict[str, deque[float]] = {"plan": deque(maxlen=9), "turn": deque(maxlen=9)}
        self._folder = tempfile.TemporaryDirectory(prefix="diffusers-r1-")  # deleted with this object
        self.folder = Path(self._folder.name)

    @property
    def made_for(self) -> dict[str, Any]:
        """The pictures that planner or editor were made for, as their bundle says; empty where they take all."""
        return made_for(self.pipeline.editor) or made_for(self.pipeline.planner)

    def usual_seconds(self, what: str) -> float | None:
        """How long a `"plan"` or a `"turn"` of the editor has taken of late, waiting not counted; `None` before the first."""
        return median(self.seconds[what]) if self.seconds[what] else None

    def check_picture(self, upload: Upload) -> Job:
        """The job that refuses a picture which cannot be used, as soon as it is uploaded."""

        def work(job: Job) -> None:
            with plain_words():
                self._open(upload)

        return Job(self.looking, work)

    def plan(self, upload: Upload, instruction: Any, turns: Turns | None = None, seed: Any = 0) -> Job:
        """The job whose result is the [`EditPlan`] that an instruction becomes.

        Where an edit is to follow, `turns` and `seed` of that are refused here already, and so is a request for which there
        would be no room.
        """

        def work(job: Job) -> EditPlan:
            job.progress = Progress("Planning")
            with plain_words():
                picture, _ = self._open(upload)
                if turns is not None:
                    self.pipeline.check_inputs(picture, instruction, turns=turns)
                began = time.monotonic()
                plan: Any = self.pipeline.plan(picture, instruction)
                self.seconds["plan"].append(time.monotonic() - began)
                return plan

        with plain_words():
            check_there(upload)
            check_instruction(instruction)
            if turns is not None:
                check_seed(seed)
                self.editing.check_room()
        return Job(self.planning, work)

    def read_rows(
        self,
        changed: Any,
        shown: Sequence[rows.Row],
        planned: EditPlan | None,
        instruction: str | None,
    ) -> EditPlan:
        """The plan in the list, which somebody has changed or, where nothing was `planned`, written."""
        with plain_words():
            changed = rows.follow(rows.read(changed), shown)
            return check_plan(rows.to_plan(changed, planned, instruction or ""))

    def read_plan(self, plan: Any) -> EditPlan:
        """The plan that a program has sent."""
        with plain_words():
            return check_plan(EditPlan.from_dict(plan))

    def edit(self, upload: Upload, plan: EditPlan, turns: Turns, seed: Any, let_in: bool = False) -> Job:
        """The job whose result is the [`Edited`] picture; `let_in` where the plan was made for it just now.

        Stopped, it ends with the turns that are whole.
        """
        pipe = self.pipeline
        interruption = Interruption(pipe)

        def work(job: Job) -> Edited:
            job.progress = Progress("Editing", 0)
            with plain_words():
                picture, metadata = self._open(upload)
                arguments: dict[str, Any] = {"generator": torch.Generator().manual_seed(check_seed(seed))}
                if "callback_on_step_end" in arguments_of(pipe.editor):
                    arguments["callback_on_step_end"] = _Steps(job, interruption, plan, turns)
                call = pipe.check_inputs(picture, plan=plan, turns=turns, **arguments)
                began = time.monotonic()
                output: Any = pipe.run_checked(call, interruption)
                whole = [turn for turn in output.turns[0] if not turn.interrupted]
                if not whole:
                    raise Stopped
                self.seconds["turn"].append((time.monotonic() - began) / len(output.turns[0]))
                return Edited(picture, metadata, plan, whole, output.images[0], output.interrupted)

        with plain_words():
            check_seed(seed)
        return Job(self.editing, work, let_in, on_stop=interruption.stop)

    def _open(self, upload: Upload) -> tuple[Image.Image, Metadata]:
        picture, metadata = open_with_metadata(upload, Path(get_upload_folder()), self.max_pixels)
        known = self.made_for
        if known and list(picture.size) != list(known["size"]):
            width, height = known["size"]
            raise ValueError(
                f"This picture has {picture.width} x {picture.height} pixels. The models of this page were made for"
                f" {known['pictures']} of {width} x {height} pixels and cannot edit photos. For photos, load others:"
                " diffusers-r1 app --planner NAME --editor NAME."
            )
        return picture, metadata


class _Steps:
    """Says how far the editor is, turn by turn and step by step, as its `callback_on_step_end`."""

    def __init__(self, job: Job, interruption: Interruption, plan: EditPlan, turns: Turns):
        self.job, self.interruption = job, interruption
        self.turns = len(plan.requests) if turns == "multi" else 1
        self.turn = 0

    def __call__(self, editor: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self.turn += step == 0
        turn = "" if self.turns == 1 else f"turn {self.turn} of {self.turns}, "
        words = f"Editing: {turn}step {step + 1} of {editor.num_timesteps}"
        self.job.progress = Progress(words, (self.turn - 1 + (step + 1) / editor.num_timesteps) / self.turns)
        if self.interruption:
            self.interruption.stop()  # an editor forgets that it was told when its turn begins
        return tensors


@contextmanager
def plain_words() -> Iterator[None]:
    """Turns what goes wrong inside the block into a message for the person who asked, and logs what is not their fault."""
    try:
        yield
    except (Stopped, Refused):
        raise
    except (TypeError, ValueError) as error:
        raise Refused(str(error)) from error
    except EndpointError as error:
        logger.error(f"A server failed: {error}")
        raise Refused(FAILURES[error.kind].format(error=error)) from error
    except torch.OutOfMemoryError as error:
        logger.error(f"Out of memory: {error}")
        raise Refused("This machine has too little memory for it: try a smaller picture.") from error
    except Exception as error:
        logger.exception("A request failed.")
        raise Refused("This did not work, and it is not your fault. The log of the server says why.") from error
