"""The page's calls for programs and, as tools, for MCP clients: plain values in, plain values out, nothing remembered."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import gradio as gr
from gradio.data_classes import JsonData

from ..plan import Turns
from .jobs import Job, Progress, Refused, Stopped
from .results import Result, keep, remember
from .service import EditService


MOST_HANDED_OUT = 100  # results whose files are kept, since Gradio copies them in its own time

_TEXT = {"type": "string"}
PLAN_SCHEMA = {
    "type": "object",
    "properties": {
        "instruction": _TEXT,
        "edits": {
            "type": "array",
            "items": {"type": "object", "properties": {"action": _TEXT, "subject": _TEXT, "goal": _TEXT}},
        },
        "requests": {"type": "array", "items": _TEXT, "minItems": 1},
    },
    "required": ["requests"],
}


class PlanData(JsonData):
    """A plan on its way out; an MCP client reads it as text."""

    def __str__(self) -> str:
        return json.dumps(self.root, ensure_ascii=False)


def plan_json() -> gr.JSON:
    """A component for plans: clients are told what is in one, where Gradio says "any valid json" in a schema that is none.

    It is no class of its own, since Gradio writes a file beside the module of each class that is derived from a component.
    """
    component: Any = gr.JSON(label="plan", visible=False)
    component.api_info = lambda: PLAN_SCHEMA
    component.postprocess = lambda plan: None if plan is None else PlanData(plan)
    return component


def add_api(
    service: EditService,
    picture: gr.Image,
    instruction: gr.Textbox,
    turns: gr.Radio,
    seed: gr.Number,
    queue: bool = True,
) -> None:
    """Add `/plan`, `/edit` and `/plan_and_edit` to the page that is being made; the components say what is taken.

    Args:
        queue (`bool`, defaults to `True`): Whether programs are told how far it is. An MCP client gets pictures only without.
    """
    plan_data = plan_json()
    edited = gr.Image(label="picture", type="filepath", visible=False)
    turn_pictures = gr.Gallery(label="turns", type="filepath", visible=False)
    handed_out: list[Result] = []

    async def plan(image: Any, instruction: str, report=gr.Progress()) -> dict[str, Any]:  # noqa: B008
        """Plan an edit of a picture without touching a pixel: the instruction is taken apart into edits, and these are
        written out as ordered sub-requests.

        Args:
            image: The picture: an http(s) address or a data URL.
            instruction: Everything that should change, in one sentence.

        Returns:
            The plan: instruction, edits (action, subject, goal) and requests, which the editor will read in this order.
        """
        return (await _result(_checked(service.plan, image, instruction), report)).to_dict()

    async def edit(image: Any, plan: dict[str, Any], turns: Turns, seed: int, report=gr.Progress()) -> tuple:  # noqa: B008
        """Carry out a plan on a picture.

        Args:
            image: The picture: an http(s) address or a data URL.
            plan: What `plan` returned, changed or not. Only `requests`, a list of sub-requests in words, is needed.
            turns: "single" gives the editor all sub-requests at once, "multi" one after the other.
            seed: A whole number from 0. The same picture, plan and seed give the same result.

        Returns:
            The edited picture, and the picture after each turn of the editor.
        """
        return await hand_out(_checked(service.edit, image, _checked(service.read_plan, plan), turns, seed), report)

    async def plan_and_edit(image: Any, instruction: str, turns: Turns, seed: int, report=gr.Progress()) -> tuple:  # noqa: B008
        """Plan an edit of a picture and carry it out.

        Args:
            image: The picture: an http(s) address or a data URL.
            instruction: Everything that should change, in one sentence.
            turns: "single" gives the editor all sub-requests at once, "multi" one after the other.
            seed: A whole number from 0. The same picture, instruction and seed give the same result.

        Returns:
            The edited picture, the picture after each turn of the editor, and the plan.
        """
        planned = await _result(_checked(service.plan, image, instruction, turns, seed), report)
        job = _checked(service.edit, image, planned, turns, seed, let_in=True)
        return *await hand_out(job, report), planned.to_dict()

    async def hand_out(job: Job, report: gr.Progress) -> tuple[str, list]:
        result = await asyncio.to_thread(keep, service.folder, await _result(job, report))
        handed_out[:] = remember(handed_out, result, MOST_HANDED_OUT)
        return str(result.picture), [(str(path), prompt) for path, prompt in result.turns]

    # Values arrive as they were sent. Gradio would open a picture on the way, and its own refusals tell people nothing.
    call: dict[str, Any] = {"triggers": [], "preprocess": False, "concurrency_limit": None, "queue": queue}
    pictures = [edited, turn_pictures]
    gr.on(fn=plan, inputs=[picture, instruction], outputs=plan_data, api_name="plan", **call)
    gr.on(fn=edit, inputs=[picture, plan_data, turns, seed], outputs=pictures, api_name="edit", **call)
    gr.on(
        fn=plan_and_edit,
        inputs=[picture, instruction, turns, seed],
        outputs=[*pictures, plan_data],
        api_name="plan_and_edit",
        **call,
    )


def _checked(method: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return method(*args, **kwargs)
    except Refused as error:
        raise gr.Error(str(error), print_exception=False) from error


async def _result(job: Job, report: gr.Progress) -> Any:
    """A job's result; what is refused becomes the error that programs get."""
    result = None
    try:
        async with aclosing(job.steps()) as steps:
            async for step in steps:
                if isinstance(step, Progress):
                    report(step.share, desc=step.words)
                else:
                    result = step
    except Refused as error:
        raise gr.Error(str(error), print_exception=False) from error
    except Stopped as error:
        raise gr.Error("This was stopped.", print_exception=False) from error
    return result
