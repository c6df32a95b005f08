"""The page: a picture and an instruction in, a plan to read and change, then the edited picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from ..images import to_png
from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline
from ..plan import EditPlan
from ..scenes import TEST_SEEDS, sample_task
from . import table
from .desk import Desk
from .runs import Run, forget, keep, remember
from .uploads import MAX_CHARACTERS, MAX_PIXELS, MAX_WAITING


TITLE = "ImageEdit-R1"
MAX_FILE_SIZE = 32 * 2**20  # bytes of an upload
KEPT = 24 * 3600  # seconds that an upload stays on the disk
ONE_AT_A_TIME = {"concurrency_id": "models", "concurrency_limit": 1}
# Values arrive as they were sent. Gradio would open a picture on the way, and its own refusals tell people nothing.
AS_SENT: dict[str, Any] = {"preprocess": False}

INTRODUCTION = f"""# {TITLE}
Say in one sentence everything that should change. A planner takes the sentence apart; you read its plan, change it, and
only then are pixels touched."""
SCENES_NOTICE = """**The model on this page edits 64x64 pictures of coloured shapes, like those to try below, and no photos.** It
comes with the package so that everything can be tried without a download."""
NO_PLAN = "Press **Plan** to see what the instruction becomes, or write a sub-request into the table."
HOW_TO_CHANGE = (
    "Change any cell before you press **Edit**: the editor reads the sub-requests, in their order. A row can be added or"
    " deleted from the menu of a cell."
)
CSS = """
.gradio-container { max-width: 1280px !important; margin: 0 auto; }
#picture img { width: 100%; height: 100%; object-fit: contain; }
"""
NEW_SEED = "() => Math.floor(Math.random() * 2 ** 31)"


def make_page(
    pipeline: ImageEditR1Pipeline,
    examples: Sequence[tuple[Image.Image, str]] = (),
    notice: str = "",
    max_pixels: int = MAX_PIXELS,
    max_waiting: int = MAX_WAITING,
) -> gr.Blocks:
    """The page of a pipeline, and its API: `/plan`, `/edit` and `/plan_and_edit`. See [`launch`].

    Args:
        pipeline ([`ImageEditR1Pipeline`]): With planner and editor, on its device. One request runs at a time.
        examples (sequence of `PIL.Image.Image` and `str`, *optional*): Pictures and instructions to try.
        notice (`str`, *optional*): Markdown that everybody should read first, such as what the models cannot do.
        max_pixels (`int`, defaults to 2**24): The largest width x height of a picture; a larger one is refused.
        max_waiting (`int`, defaults to 20): How many requests may wait for their turn; one more is refused.

    Returns:
        `gradio.Blocks`
    """
    desk = Desk(pipeline, max_pixels)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, KEPT)) as page:
        # 1. What is seen, from top to bottom
        gr.Markdown(f"{INTRODUCTION}\n\n{notice}", elem_id="introduction")
        with gr.Row():
            picture = gr.Image(
                label="Picture", type="filepath", sources=["upload", "clipboard"], height=420, elem_id="picture"
            )
            with gr.Column():
                instruction = gr.Textbox(
                    label="Instruction",
                    lines=4,
                    max_length=MAX_CHARACTERS,
                    placeholder="Make the coat match the car, brighten the sky, and remove the person behind it",
                    elem_id="instruction",
                )
                with gr.Row():
                    turns = gr.Radio(
                        [("all at once", "single"), ("one after the other", "multi")],
                        value="single",
                        label="Sub-requests go to the editor",
                        elem_id="turns-choice",
                    )
                    with gr.Column(min_width=160):
                        seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed")
                        dice = gr.Button("Another seed", size="sm", elem_id="dice")
                with gr.Row():
                    plan_button = gr.Button("Plan", elem_id="plan")
                    both_button = gr.Button("Plan and edit", variant="primary", elem_id="plan-and-edit")
                if examples:
                    gr.Examples(
                        _as_files(examples, desk.folder),
                        [picture, instruction],
                        example_labels=[text for _, text in examples],
                        label="Pictures and instructions to try",
                        elem_id="examples",
                    )

        plan_table = gr.Dataframe(
            [["", "", "", None, ""]],
            headers=list(table.COLUMNS),
            datatype=["str", "str", "str", "number", "str"],
            type="array",
            column_count=(len(table.COLUMNS), "fixed"),  # pyright: ignore[reportArgumentType] # `column_limits` does nothing yet
            column_widths=["12%", "22%", "18%", "8%", "40%"],
            wrap=True,
            interactive=True,
            label="Plan",
            elem_id="plan-table",
        )
        note = gr.Markdown(NO_PLAN, elem_id="note")
        edit_button = gr.Button("Edit", variant="primary", elem_id="edit")
        with gr.Row():
            slider = gr.ImageSlider(label="Before and after", format="png", interactive=False, elem_id="slider")
            with gr.Column():
                turn_gallery = gr.Gallery(
                    label="After each turn", format="png", columns=3, interactive=False, elem_id="turns"
                )
                with gr.Row():
                    picture_file = gr.DownloadButton("Download picture", interactive=False, elem_id="download-picture")
                    plan_file = gr.DownloadButton("Download plan", interactive=False, elem_id="download-plan")
                again_button = gr.Button("Go on from this picture", interactive=False, elem_id="again")
        history_gallery = gr.Gallery(
            label="History: click one to bring it back",
            format="png",
            columns=8,
            fit_columns=False,
            height=200,
            object_fit="contain",
            allow_preview=False,
            interactive=False,
            elem_id="history",
        )

        # 2. What is remembered of a visitor
        planned = gr.State()  # the EditPlan that the table came from
        shown_rows = gr.State([])
        history = gr.State([], delete_callback=forget)
        current = gr.State()  # the Run that is shown

        plan_view = [plan_table, shown_rows, planned, note]
        run_view = [*plan_view, slider, turn_gallery, picture_file, plan_file, again_button, current]

        # 3. What happens
        def show_plan(plan: EditPlan) -> list[Any]:
            rows = table.to_rows(plan)
            return [rows, rows, plan, _note(plan)]

        def show_run(run: Run) -> list[Any]:
            return [
                *show_plan(run.plan),
                (str(run.before), str(run.after)),
                [(str(path), prompt) for path, prompt in run.turns],
                gr.DownloadButton(value=str(run.after), interactive=True),
                gr.DownloadButton(value=str(run.plan_file), interactive=True),
                gr.Button(interactive=True),
                run,
            ]

        def add_to_history(history: list[Run], run: Run) -> tuple[list[Run], list]:
            history = remember(history, run)
            return history, [(str(run.after), run.plan.instruction) for run in history]

        def on_change(rows, shown):
            followed = table.follow(rows["data"], shown)
            written = [row[-1] for row in followed] != [row[-1] for row in rows["data"]]
            return [followed, followed] if written else [gr.skip(), gr.skip()]

        def on_plan(upload, instruction, report=gr.Progress()):  # noqa: B008
            return show_plan(desk.plan(upload, instruction, report))

        def on_edit(upload, instruction, rows, shown, planned, turns, seed, history, report=gr.Progress()):  # noqa: B008
            plan = desk.read_table(rows["data"], shown, planned, instruction)
            run = keep(desk.folder, *desk.edit(upload, plan, turns, seed, report))
            return [*show_run(run), *add_to_history(history, run)]

        def on_both(upload, instruction, turns, seed, history, report=gr.Progress()) -> Iterator[list[Any]]:  # noqa: B008
            plan = desk.plan(upload, instruction, report, turns, seed)
            waiting = [gr.skip()] * (len(run_view) - len(plan_view) + 2)
            yield [*show_plan(plan), *waiting]
            run = keep(desk.folder, *desk.edit(upload, plan, turns, seed, report))
            yield [*show_run(run), *add_to_history(history, run)]

        def on_history(history: list[Run], chosen: gr.SelectData) -> list[Any]:
            return show_run(history[chosen.index])

        private: dict[str, Any] = {"api_visibility": "private"}
        quick: dict[str, Any] = {**private, "queue": False, "show_progress": "hidden"}
        works: dict[str, Any] = {**private, **ONE_AT_A_TIME, **AS_SENT}
        finished = [*run_view, history, history_gallery]
        # In a queue of its own: the page does not show what goes wrong outside of queues.
        checks: dict[str, Any] = {"concurrency_id": "checks", "concurrency_limit": 4, "show_progress": "hidden"}
        picture.upload(desk.check_picture, picture, **private, **checks, **AS_SENT)
        dice.click(None, None, seed, js=NEW_SEED, **private)
        plan_button.click(on_plan, [picture, instruction], plan_view, show_progress_on=plan_table, **works)
        plan_table.input(
            on_change,
            [plan_table, shown_rows],
            [plan_table, shown_rows],
            trigger_mode="always_last",
            **quick,
            **AS_SENT,
        )
        edit_button.click(
            on_edit,
            [picture, instruction, plan_table, shown_rows, planned, turns, seed, history],
            finished,
            show_progress_on=slider,
            **works,
        )
        both_button.click(
            on_both,
            [picture, instruction, turns, seed, history],
            finished,
            show_progress_on=[plan_table, slider],
            **works,
        )
        history_gallery.select(on_history, history, run_view, **quick)
        again_button.click(lambda run: str(run.after), current, picture, **quick)
        _add_api(desk, picture, instruction, turns, seed)
    return page.queue(max_size=max_waiting)


def _add_api(desk: Desk, picture: gr.Image, instruction: gr.Textbox, turns: gr.Radio, seed: gr.Number) -> None:
    """The page's calls for programs: plain values in, plain values out, nothing remembered."""
    plan_json = gr.JSON(label="plan", visible=False)
    edited = gr.Image(label="picture", format="png", visible=False)
    turn_pictures = gr.Gallery(label="turns", format="png", visible=False)

    def plan(image, instruction, report=gr.Progress()) -> dict[str, Any]:  # noqa: B008
        """The plan that an instruction becomes, without editing."""
        return desk.plan(image, instruction, report).to_dict()

    def edit(image, plan, turns, seed, report=gr.Progress()) -> tuple[Image.Image, list]:  # noqa: B008
        """The picture after a plan was carried out, and after each turn; of the plan only `requests` is needed."""
        _, _, output = desk.edit(image, desk.read_plan(plan), turns, seed, report)
        edited: Any = output.images[0]
        return edited, [(turn.image, turn.prompt) for turn in output.turns[0]]

    def plan_and_edit(image, instruction, turns, seed, report=gr.Progress()) -> tuple:  # noqa: B008
        """The picture after an instruction was planned and carried out, after each turn, and the plan."""
        planned = desk.plan(image, instruction, report, turns, seed).to_dict()
        return *edit(image, planned, turns, seed, report), planned

    call: dict[str, Any] = {"triggers": [], **ONE_AT_A_TIME, **AS_SENT}
    gr.on(fn=plan, inputs=[picture, instruction], outputs=plan_json, api_name="plan", **call)
    pictures = [edited, turn_pictures]
    gr.on(fn=edit, inputs=[picture, plan_json, turns, seed], outputs=pictures, api_name="edit", **call)
    gr.on(
        fn=plan_and_edit,
        inputs=[picture, instruction, turns, seed],
        outputs=[*pictures, plan_json],
        api_name="plan_and_edit",
        **call,
    )


def _note(plan: EditPlan) -> str:
    if plan.fallback:
        return f"**The planner's answer could not be used** ({plan.reason}). {HOW_TO_CHANGE}"
    return HOW_TO_CHANGE


def _as_files(examples: Sequence[tuple[Image.Image, str]], folder: Path) -> list[list[str]]:
    rows = []
    for number, (image, instruction) in enumerate(examples, start=1):
        path = folder / f"example-{number}.png"
        path.write_bytes(to_png(image))
        rows.append([str(path), instruction])
    return rows


def scenes_examples() -> list[tuple[Image.Image, str]]:
    """Pictures and instructions that the shipped bundle understands."""
    tasks = [
        sample_task(TEST_SEEDS + 16, "complex"),
        sample_task(TEST_SEEDS, "chained"),
        sample_task(TEST_SEEDS, "pointed"),
    ]
    return [(task.image, task.instruction) for task in tasks]


def launch(
    page: gr.Blocks,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    auth: tuple[str, str] | None = None,
) -> str:
    """Serve the page from a thread of its own, and return its address.

    Args:
        page (`gradio.Blocks`): From [`make_page`].
        host (`str`, *optional*): The address to listen at; by default 127.0.0.1, which only this machine reaches, or
            what a Space says by `GRADIO_SERVER_NAME`.
        port (`int`, *optional*): By default the first free one from 7860 on.
        share (`bool`, defaults to `False`): Whether to have it reached from everywhere through Gradio's servers.
        auth (`tuple` of two `str`, *optional*): User and password, without which nobody gets in.

    Raises:
        OSError: If the port is taken.
    """
    _, address, shared = page.launch(
        server_name=host,
        server_port=port,
        share=share,
        auth=auth,
        max_file_size=MAX_FILE_SIZE,
        css=CSS,
        footer_links=["api"],
        enable_monitoring=False,
        ssr_mode=False,
        show_error=True,  # Gradio's own refusals, of a path for one, are of no use without their words
        quiet=True,
        prevent_thread_lock=True,
    )
    return shared or address
