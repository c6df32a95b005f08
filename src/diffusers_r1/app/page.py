"""The page: a picture and an instruction in, a plan to read and change, then the edited picture."""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from ..images import MAX_UPLOAD_PIXELS, load_picture, to_png
from ..judging import Critic
from ..pipelines.nested.remote import is_remote
from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline
from ..plan import EditPlan
from ..scenes import TEST_SEEDS, sample_task
from . import parts, rows
from .api import add_api
from .jobs import Job, Progress, Refused, Stopped
from .results import Result, forget, keep, remember
from .service import LOOKS, Edited, EditService, Looked, plain_words
from .uploads import MAX_CHARACTERS, MAX_WAITING


TITLE = "ImageEdit-R1"
MAX_FILE_SIZE = 32 * 2**20  # bytes of an upload
KEPT = 24 * 3600  # seconds that an upload stays on the disk

PHOTOS = Path(__file__).parent / "photos"
ASKED_OF_PHOTOS = {
    "coffee.jpg": "make the cup blue and the saucer too, take the spoon away, and put a croissant beside it",
    "chelsea.jpg": "give the cat green eyes, no, blue ones, and blur the background, but leave her fur alone",
    "rocket.jpg": 'turn the night into a sunny noon, and write "Bon voyage" across the sky',
}

INTRODUCTION = (
    "Say in one sentence everything that should change. Read the plan, change it, and only then are pixels touched."
)
NOT_FOR_PHOTOS = (
    "These models were made for {pictures} of {width} x {height} pixels, like those below, not for photos."
    " For photos, load others: diffusers-r1 app --planner NAME --editor NAME."
)
ASK_OF_A_PHOTO = "Make the coat match the car, brighten the sky, and remove the person behind it"
NEW_SEED = "() => Math.floor(Math.random() * 2 ** 31)"
THEME = gr.themes.Default(
    primary_hue="indigo",
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
).set(button_primary_background_fill="*primary_600", button_primary_background_fill_dark="*primary_600")


def make_page(
    pipeline: ImageEditR1Pipeline,
    examples: Sequence[tuple[Image.Image, str]] | None = None,
    notice: str = "",
    max_pixels: int = MAX_UPLOAD_PIXELS,
    max_waiting: int = MAX_WAITING,
    mcp: bool = False,
    critic: Critic | None = None,
) -> gr.Blocks:
    """The page of a pipeline, and its API: `/plan`, `/edit` and `/plan_and_edit`. See [`launch`].

    Args:
        pipeline ([`ImageEditR1Pipeline`]): With planner and editor, on its device. A model that is loaded here works on one
            request at a time; one behind an address, on many.
        examples (sequence of `PIL.Image.Image` and `str`, *optional*): Pictures and instructions to try. By default scenes
            where the models were made for these, and three photos otherwise.
        notice (`str`, *optional*): What everybody should read first. What the models were made for is said in any case.
        max_pixels (`int`, defaults to 2**25): The largest width x height of a picture; a larger one is refused.
        max_waiting (`int`, defaults to 20): How many requests may wait for their turn; one more is refused.
        mcp (`bool`, defaults to `False`): Whether the API's calls are to be tools for MCP clients; give it to [`launch`] too.
        critic ([`~judging.Critic`], *optional*): Who "Look again" asks. By default the exact critic of scenes where the models
            were made for these, or a planner behind an address; where there is neither, there is no such button.

    Returns:
        `gradio.Blocks`
    """
    service = EditService(pipeline, max_pixels, max_waiting, critic)
    known = service.made_for
    if known:
        width, height = known["size"]
        notice = f"{NOT_FOR_PHOTOS.format(**known, width=width, height=height)} {notice}".strip()
    if examples is None:
        examples = scenes_examples() if known else photo_examples()
    samples = _as_files(examples, service.folder)

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, KEPT)) as page:
        # 1. What is seen
        gr.HTML(_header(notice), elem_id="introduction", apply_default_css=False)
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=5, min_width=320, elem_id="ask"):
                picture = gr.Image(
                    label="Picture" if known else "Photo",
                    type="filepath",
                    sources=["upload", "clipboard"],
                    height=230,
                    elem_id="picture",
                )
                samples_view = parts.strip(
                    "Pictures and instructions to try", "examples", [parts.strip_entry(*one) for one in samples]
                )
                instruction = gr.Textbox(
                    label="Instruction",
                    lines=2,
                    max_lines=6,
                    max_length=MAX_CHARACTERS,
                    placeholder=samples[0][1] if known and samples else ASK_OF_A_PHOTO,
                    elem_id="instruction",
                )
                with gr.Row(elem_id="buttons"):
                    plan_button = gr.Button("Plan", min_width=100, elem_id="plan")
                    both_button = gr.Button("Plan and edit", variant="primary", min_width=140, elem_id="plan-and-edit")
                costs = gr.HTML(_costs(service), elem_id="costs", apply_default_css=False)
                with gr.Accordion("Options", open=False, elem_id="options"), gr.Row():
                    turns = gr.Radio(
                        [("all at once", "single"), ("one after the other", "multi")],
                        value="single",
                        label="Sub-requests go to the editor",
                        elem_id="turns-choice",
                    )
                    with gr.Column(min_width=160):
                        seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed")
                        dice = gr.Button("Another seed", size="sm", elem_id="dice")
            with gr.Column(scale=7, min_width=320, elem_id="answer"):
                status = parts.status_line()
                result_view = parts.result_view()
                plan_view = parts.plan_list()
                with gr.Row(elem_id="carry-out"):
                    edit_button = gr.Button("Edit", variant="primary", min_width=140, elem_id="edit")
                    look_button = gr.Button(
                        "Look again", min_width=140, elem_id="look", visible=service.critic is not None
                    )
                history_view = parts.strip("History: click one to bring it back", "history")

        # 2. What is remembered of a visitor
        planned = gr.State()  # the EditPlan that the list came from
        shown = gr.State([])  # its rows, as they are on the screen
        history = gr.State([], delete_callback=forget)
        current = gr.State()  # the Result that is shown
        running: dict[str, Job] = {}  # by visitor

        # 3. What happens
        buttons = [plan_button, both_button, edit_button, look_button]

        def show_plan(plan: EditPlan) -> dict[Any, Any]:
            return {plan_view: parts.plan_value(plan), shown: rows.to_rows(plan), planned: plan}

        def show_result(result: Result) -> dict[Any, Any]:
            return {**show_plan(result.plan), result_view: parts.result_value(result), current: result}

        def show_new(result: Result, past: list[Result]) -> dict[Any, Any]:
            past = remember(past, result)
            entries = [parts.strip_entry(one.after, one.plan.instruction) for one in past]
            return {**show_result(result), history: past, history_view: entries}

        def resting(words: str, kind: str = "idle") -> dict[Any, Any]:
            free = dict.fromkeys(buttons, gr.Button(interactive=True))
            return {**free, status: parts.said(words, kind), costs: _costs(service)}

        async def followed(job: Job, visitor: str | None) -> AsyncGenerator[Any, None]:
            """A job's steps, as updates of the page but for the result; it can be stopped meanwhile."""
            running[str(visitor)] = job
            began = time.monotonic()
            async with aclosing(job.steps()) as steps:
                async for step in steps:
                    if isinstance(step, Progress):
                        # The seconds are news each time: a page that lost an update while it was built gets the next one.
                        step = {status: parts.status_value(step, time.monotonic() - began)}
                    yield step

        async def planning(upload, instruction, visitor) -> AsyncGenerator[dict, None]:
            began = time.monotonic()
            async for step in followed(service.plan(upload, instruction), visitor):
                if isinstance(step, EditPlan):
                    step = {**show_plan(step), **resting(f"Planned in {_seconds(time.monotonic() - began)}.")}
                yield step

        async def editing(upload, plan, turns, seed, past, visitor, let_in=False) -> AsyncGenerator[dict, None]:
            began = time.monotonic()
            async for step in followed(service.edit(upload, plan, turns, seed, let_in), visitor):
                if isinstance(step, Edited):
                    result = await asyncio.to_thread(keep, service.folder, step)
                    words = f"Edited in {_seconds(time.monotonic() - began)}."
                    if step.stopped:
                        words = f"Stopped after turn {len(step.turns)}. This is what was done."
                    step = {**show_new(result, past), **resting(words)}
                yield step

        async def told(updates: AsyncGenerator[dict, None], visitor: str | None) -> AsyncGenerator[dict, None]:
            """The updates, with the buttons off meanwhile; what is refused becomes words above the plan."""
            yield {
                **dict.fromkeys(buttons, gr.Button(interactive=False)),
                status: parts.status_value(Progress("Starting"), 0),
            }
            try:
                with plain_words():
                    async with aclosing(updates):
                        async for update in updates:
                            yield update
            except Refused as error:
                yield resting(str(error), "error")
            except Stopped:
                yield resting("Stopped. Nothing was changed.")
            finally:
                running.pop(str(visitor), None)

        async def on_plan(upload, instruction, request: gr.Request):
            async for update in told(planning(upload, instruction, request.session_hash), request.session_hash):
                yield update

        async def on_edit(upload, instruction, changed, shown, planned, turns, seed, past, request: gr.Request):
            async def updates() -> AsyncGenerator[dict, None]:
                plan = service.read_rows(changed["rows"], shown, planned, instruction)
                async for update in editing(upload, plan, turns, seed, past, request.session_hash):
                    yield update

            async for update in told(updates(), request.session_hash):
                yield update

        async def on_both(upload, instruction, turns, seed, past, request: gr.Request):
            async def updates() -> AsyncGenerator[dict, None]:
                plan = None
                async for step in followed(service.plan(upload, instruction, turns, seed), request.session_hash):
                    plan = step
                    yield show_plan(plan) if isinstance(plan, EditPlan) else step
                async for update in editing(upload, plan, turns, seed, past, request.session_hash, let_in=True):
                    yield update

            async for update in told(updates(), request.session_hash):
                yield update

        async def on_look(result: Result | None, past, request: gr.Request):
            async def updates() -> AsyncGenerator[dict, None]:
                if result is None:
                    raise Refused("There is no result yet to look at.")
                asked = result.turns[-1][1]
                async for step in followed(service.look(result.order, result.picture, asked), request.session_hash):
                    if isinstance(step, Looked):
                        better = step.edited and await asyncio.to_thread(keep, service.folder, step.edited)
                        step = {**(show_new(better, past) if better else {}), **resting(step.words)}
                    yield step

            async for update in told(updates(), request.session_hash):
                yield update

        async def on_upload(upload):
            words, kind = "", "idle"
            try:
                async with aclosing(service.check_picture(upload).steps()) as steps:
                    async for _ in steps:
                        pass
            except Refused as error:
                words, kind = str(error), "error"
            return parts.said(words, kind)

        def on_stop(request: gr.Request) -> None:
            if job := running.get(str(request.session_hash)):
                job.stop()

        def on_change(changed, shown):
            followed = rows.follow(rows.read(changed["rows"]), shown)
            return [{**changed, "rows": followed}, followed]

        def on_history(past: list[Result], chosen: gr.EventData) -> dict[Any, Any]:
            return show_result(past[chosen._data["index"]])

        def on_sample(chosen: gr.EventData) -> tuple[str, str]:
            path, words = samples[chosen._data["index"]]
            return str(path), words

        # Values arrive as they were sent: Gradio would open a picture on the way. Who waits for whom the service decides.
        private: dict[str, Any] = {
            "api_visibility": "private",
            "show_progress": "hidden",
            "concurrency_limit": None,
            "preprocess": False,
        }
        quick: dict[str, Any] = {**private, "queue": False}
        finished = [status, costs, *buttons, plan_view, shown, planned]
        edited = [*finished, result_view, current, history, history_view]
        picture.upload(on_upload, picture, status, **private)
        dice.click(None, None, seed, js=NEW_SEED, api_visibility="private")
        plan_button.click(on_plan, [picture, instruction], finished, **private)
        edit_button.click(
            on_edit, [picture, instruction, plan_view, shown, planned, turns, seed, history], edited, **private
        )
        look_button.click(on_look, [current, history], edited, **private)
        both_button.click(on_both, [picture, instruction, turns, seed, history], edited, **private)
        status.stop(on_stop, None, None, **quick)
        plan_view.input(on_change, [plan_view, shown], [plan_view, shown], trigger_mode="always_last", **quick)
        history_view.select(on_history, history, [plan_view, shown, planned, result_view, current], **quick)
        samples_view.select(on_sample, None, [picture, instruction], **quick)
        result_view.again(lambda result: str(result.picture), current, picture, **quick)
        add_api(service, picture, instruction, turns, seed, queue=not mcp)
    return page.queue(default_concurrency_limit=None)


def scenes_examples() -> list[tuple[Image.Image, str]]:
    """Pictures and instructions that the shipped bundle understands."""
    tasks = [
        sample_task(TEST_SEEDS + 16, "complex"),
        sample_task(TEST_SEEDS, "chained"),
        sample_task(TEST_SEEDS, "indirect"),
    ]
    return [(task.image, task.instruction) for task in tasks]


def photo_examples() -> list[tuple[Image.Image, str]]:
    """Photos that may be passed on, and what somebody might want of them; where they are from says `photos/NOTICE.md`."""
    return [(load_picture(PHOTOS / name), instruction) for name, instruction in ASKED_OF_PHOTOS.items()]


def launch(
    page: gr.Blocks,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    auth: tuple[str, str] | None = None,
    mcp: bool = False,
) -> str:
    """Serve the page from a thread of its own, and return its address.

    Args:
        page (`gradio.Blocks`): From [`make_page`].
        host (`str`, *optional*): The address to listen at; by default 127.0.0.1, which only this machine reaches, or
            what a Space says by `GRADIO_SERVER_NAME`.
        port (`int`, *optional*): By default, or of 0, the first free one from 7860 on.
        share (`bool`, defaults to `False`): Whether to have it reached from everywhere through Gradio's servers.
        auth (`tuple` of two `str`, *optional*): User and password, without which nobody gets in.
        mcp (`bool`, defaults to `False`): Whether to be an MCP server as well, at `gradio_api/mcp/` behind the address, with
            the API's calls as its tools.

    Raises:
        OSError: If the port is taken.
        ValueError: If MCP is wanted with a password, which Gradio asks MCP clients for none of.
    """
    if mcp and auth is not None:
        raise ValueError("MCP clients would get in without the password: an MCP server has none.")
    _, address, shared = page.launch(
        server_name=f"[{host}]" if host and ":" in host and host[0] != "[" else host,  # as it stands in an address
        server_port=port or None,
        share=share,
        auth=auth,
        mcp_server=mcp,
        max_file_size=MAX_FILE_SIZE,
        theme=THEME,
        css=parts.CSS,
        footer_links=["api"],
        enable_monitoring=False,
        ssr_mode=False,
        show_error=True,  # Gradio's own refusals, of a path for one, are of no use without their words
        quiet=True,
        prevent_thread_lock=True,
    )
    return shared or address


def _header(notice: str) -> str:
    said = f'<p class="notice">{html.escape(notice)}</p>' if notice else ""
    return f"<header><h1>{TITLE}</h1><p>{INTRODUCTION}</p>{said}</header>"


def _costs(service: EditService) -> str:
    """What the buttons cost: who is asked, and how long that takes of late."""

    def cost(component: Any, here: str, asked: str, seconds: float | None) -> str:
        where = f"asks {component.model} at {component.base_url} {asked}" if is_remote(component) else here
        return where + (f", about {_seconds(seconds)}" if seconds is not None else "")

    pipe = service.pipeline
    planning = cost(pipe.planner, "runs the planner on this machine", "two questions", service.usual_seconds("plan"))
    editing = cost(pipe.editor, "runs the editor on this machine", "for a picture", service.usual_seconds("turn"))
    words = f"Plan {planning}; no pixel is touched. Plan and edit then {editing} for each turn."
    if service.critic is not None:
        words += f" Look again has a critic look at the result, and edits at most {LOOKS} times more."
    return f"<p>{html.escape(words)}</p>"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _as_files(examples: Sequence[tuple[Image.Image, str]], folder: Path) -> list[tuple[Path, str]]:
    found = []
    for number, (image, instruction) in enumerate(examples, start=1):
        path = folder / f"example-{number}.png"
        path.write_bytes(to_png(image))
        found.append((path, instruction))
    return found
