"""What happens when somebody presses a button of the page or calls its API. Here everything is checked; nothing is drawn."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers.utils import logging
from gradio.utils import get_upload_folder
from PIL import Image

from ..editors import arguments_of, as_large_as
from ..endpoints import EndpointError
from ..images import Metadata, load_picture
from ..judging import Checklist, ChecklistCritic, Critic, ScenesCritic
from ..pipelines.call import made_for
from ..pipelines.checked import EditCall
from ..pipelines.exclusive import Interruption
from ..pipelines.nested.remote import is_remote
from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline
from ..pipelines.pipeline_output import Turn
from ..pipelines.reflection import last_whole
from ..plan import EditPlan, Turns
from ..planners.remote import RemotePlanner
from ..records import Failure
from ..scenes.world import SIZE
from . import rows
from .jobs import Job, Line, Progress, Refused, Stopped
from .uploads import check_instruction, check_plan, check_seed, check_there, open_with_metadata


logger = logging.get_logger(__name__)

Upload = Mapping[str, Any] | None

PLANS_AT_ONCE = 24  # on their way to a planner behind an address
EDITS_AT_ONCE = 8  # to an editor; each holds its picture twice
LOOKS = 2  # the most times that a picture is edited again
OPENED_AT_ONCE = 2  # uploads that are looked at as they come: one of 33 megapixels takes some 300 MB for a moment

# What a server's failure means for the person who asked.
FAILURES = {
    Failure.REFUSED: "The server of the model has refused this: {error}",
    Failure.OUTAGE: "The server of the model is down or busy. Please try again in a minute.",
    Failure.HOPELESS: "The server of the model cannot be used. The log of this page's server says why.",
}


NO_CRITIC = "Nobody is named who could look at the picture: start the page with --critic_url or --critic_model, a model that sees."


@dataclass(frozen=True)
class Order:
    """What somebody has asked for.

    Args:
        upload (`Mapping`): The file of the picture, as the page sends it.
        plan ([`EditPlan`]): What is carried out.
        turns (`str`), seed (`int`): As in the pipeline's call.
    """

    upload: Upload
    plan: EditPlan
    turns: Turns
    seed: Any


@dataclass(frozen=True)
class Edited:
    """An edit that was carried out.

    Args:
        before (`PIL.Image.Image`): The picture as it was opened.
        metadata (`Metadata`): What its file says besides.
        order ([`Order`]): What was carried out.
        turns (`list` of [`Turn`]): What the editor was asked and gave; only whole turns, at least one.
        after (`PIL.Image.Image`): The last turn's picture, in the size of `before`.
        stopped (`bool`): Whether somebody has stopped it before the last turn.
    """

    before: Image.Image
    metadata: Metadata
    order: Order
    turns: list[Turn]
    after: Image.Image
    stopped: bool = False


@dataclass(frozen=True)
class Looked:
    """A second look that was taken.

    Args:
        words (`str`): What the critic found, and what came of it.
        edited ([`Edited`], *optional*): The picture that is better, where there is one.
    """

    words: str
    edited: Edited | None = None


class EditService:
    """Takes what people send, asks the pipeline, and hands back what it made.

    What is loaded here is used by one request at a time; what is behind an address, by many. Every method, and every job,
    raises [`Refused`] with a message for the person who asked, and nothing else but [`Stopped`].

    Args:
        pipeline ([`ImageEditR1Pipeline`]): With planner and editor, on its device.
        max_pixels (`int`): The largest width x height of an uploaded picture.
        max_waiting (`int`): How many may wait for planner or editor; one more is sent away.
        critic ([`~judging.Critic`], *optional*): Who looks again; by default [`usual_critic`].
    """

    def __init__(self, pipeline: ImageEditR1Pipeline, max_pixels: int, max_waiting: int, critic: Critic | None = None):
        self.pipeline = pipeline
        self.critic = critic or usual_critic(pipeline)
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
        return pictures_of(self.pipeline)

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
            return rows.to_plan(changed, planned, instruction or "")

    def read_plan(self, plan: Any) -> EditPlan:
        """The plan that a program has sent."""
        with plain_words():
            return EditPlan.from_dict(plan)

    def edit(self, upload: Upload, plan: EditPlan, turns: Turns, seed: Any, let_in: bool = False) -> Job:
        """The job whose result is the [`Edited`] picture; `let_in` where the plan was made for it just now.

        Stopped, it ends with the turns that are whole.
        """
        pipe, order = self.pipeline, Order(upload, plan, turns, seed)
        interruption = Interruption(pipe)

        def work(job: Job) -> Edited:
            job.progress = Progress("Editing", 0)
            with plain_words():
                picture, metadata = self._open(upload)
                of = len(plan.requests) if turns == "multi" else 1
                call = self._call(order, picture, _Steps(job, interruption, "Editing", of))
                began = time.monotonic()
                output: Any = pipe.run_checked(call, interruption)
                whole = [turn for turn in output.turns[0] if not turn.interrupted]
                if not whole:
                    raise Stopped
                self.seconds["turn"].append((time.monotonic() - began) / len(output.turns[0]))
                carried_out = replace(order, plan=output.plans[0])  # which says what the editor did not read
                return Edited(picture, metadata, carried_out, whole, output.images[0], output.interrupted)

        with plain_words():
            check_seed(seed)
            check_plan(plan)
        return Job(self.editing, work, let_in, on_stop=interruption.stop)

    def look(self, order: Order, made: Path, asked: str) -> Job:
        """The job whose result says what the critic [`Looked`] at, and has a better picture where one was made.

        Args:
            order ([`Order`]): What was carried out before.
            made (`Path`): The picture that came of it, in the source's size.
            asked (`str`): What the editor was asked for it last.
        """
        pipe, critic = self.pipeline, self.critic
        if critic is None:
            raise Refused(NO_CRITIC)
        interruption = Interruption(pipe)

        def work(job: Job) -> Looked:
            job.progress = Progress("Looking at the result")
            with plain_words():
                picture, metadata = self._open(order.upload)
                before = load_picture(made)
                first = Turn(asked, picture.size, before.size, before)
                of = LOOKS * (len(order.plan.requests) + 1 if order.turns == "multi" else 1)
                steps = _Steps(job, interruption, "Editing again", of)
                call = self._call(order, picture, steps, reflect=LOOKS, critic=critic)
                story = pipe.reflect(
                    call.images,
                    [order.plan],
                    [[first]],
                    critic,
                    LOOKS,
                    order.turns,
                    call.generators[0],
                    each=call.each[0],
                    interruption=interruption,
                )[0]
                after = last_whole(picture, story)
                words = _found(order.plan, story, after is not before)
                if after is before:
                    return Looked(words)
                kept = [turn for turn in story if turn.kept]
                edited = Edited(picture, metadata, order, kept, as_large_as(picture, after, None), bool(interruption))
                return Looked(words, edited)

        return Job(self.editing, work, on_stop=interruption.stop)

    def _call(self, order: Order, picture: Image.Image, steps: _Steps, **looks: Any) -> EditCall:
        """An order, opened and checked."""
        arguments: dict[str, Any] = {"generator": torch.Generator().manual_seed(check_seed(order.seed)), **looks}
        if "callback_on_step_end" in arguments_of(self.pipeline.editor):
            arguments["callback_on_step_end"] = steps
        return self.pipeline.check_inputs(picture, plan=order.plan, turns=order.turns, **arguments)

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
    """Says how far the editor is, turn by turn and step by step, as its `callback_on_step_end`; `turns` are the most."""

    def __init__(self, job: Job, interruption: Interruption, doing: str, turns: int):
        self.job, self.interruption, self.doing, self.turns = job, interruption, doing, turns
        self.turn = 0

    def __call__(self, editor: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self.turn += step == 0
        turn = "" if self.turns == 1 else f"turn {self.turn} of {self.turns}, "
        words = f"{self.doing}: {turn}step {step + 1} of {editor.num_timesteps}"
        self.job.progress = Progress(words, (self.turn - 1 + (step + 1) / editor.num_timesteps) / self.turns)
        if self.interruption:
            self.interruption.stop()  # an editor forgets that it was told when its turn begins
        return tensors


def pictures_of(pipeline: ImageEditR1Pipeline) -> dict[str, Any]:
    """The pictures that planner or editor were made for, see [`~pipelines.call.made_for`]."""
    return made_for(pipeline.editor) or made_for(pipeline.planner)


def usual_critic(pipeline: ImageEditR1Pipeline) -> Critic | None:
    """Who looks again where nobody is named: of scenes the exact critic, of photos a planner behind an address, which sees;
    `None` where neither is there."""
    if pictures_of(pipeline).get("size") == [SIZE, SIZE]:
        return ScenesCritic()
    if isinstance(pipeline.planner, RemotePlanner):
        server = pipeline.planner.endpoint
        return ChecklistCritic(Checklist(server, concurrency=server.concurrency))
    return None


def _found(plan: EditPlan, story: Sequence[Turn], better: bool) -> str:
    """What the critic found, and what came of it, in words for the person who asked."""
    first = story[0].criticism
    if first is None:  # stopped before the critic was asked
        raise Stopped
    if not first.finds_fault:
        return "The critic finds all of it there." if not first.faults else "The critic could not tell what is there."
    faults = [f"missing: {plan.requests[place]}" for place in first.missing] + [f"spoilt: {it}" for it in first.spoilt]
    came = "Nothing better came of it."
    if better:
        last = [turn.criticism for turn in story if turn.kept and turn.criticism][-1]
        came = "It is better now, but not all of it is right." if last.faults else "That is mended."
    return f"The critic found {'; '.join(faults)}. {came}"


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
