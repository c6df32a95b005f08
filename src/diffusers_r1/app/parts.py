"""The parts of the page that Gradio has none for: each is a template, a file in `static`, and a value that is plain data."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from ..plan import EditPlan
from . import rows
from .jobs import Progress
from .results import Result


STATIC = files("diffusers_r1.app") / "static"
CSS = (STATIC / "page.css").read_text(encoding="utf-8")

HOW_TO_CHANGE = (
    "Change anything, then press Edit. The editor reads the sub-requests that are switched on, from top to bottom."
)
NO_PLAN = "Press Plan to see what the instruction becomes, or add a sub-request yourself."

PLAN = """
<section class="plan" aria-label="Plan"><h2>Plan</h2><p class="note"></p>
<div class="head" aria-hidden="true"><span></span><span>Action</span><span>Subject</span><span>Goal</span>
<span>Sub-request</span><span></span></div>
<ol></ol><button type="button" class="add">+ Add a sub-request</button>
<p class="said hidden-words" role="status"></p></section>"""
RESULT = """
<section class="result" aria-label="Result" hidden><h2>Result</h2>
<div class="pair"><img class="before"><img class="after"></div>
<label class="compare"><span>Before</span>
<input type="range" min="0" max="100" value="100" aria-label="How much of the edited picture is shown">
<span>After</span></label>
<p class="caption"></p><div class="turns" role="group" aria-label="After each turn"></div>
<p class="actions"><a download="edited.png" class="download-picture">Download picture</a>
<a download="plan.json" class="download-plan">Download plan</a>
<button type="button" class="again">Go on from this picture</button></p></section>"""
STATUS = """
<div class="status" data-kind="idle"><p class="words" role="status"></p><p class="alarm" role="alert"></p>
<progress max="1" aria-label="Progress" hidden></progress><button type="button" hidden>Stop</button></div>"""
STRIP = """<section class="strip" hidden><h2>{title}</h2><ul></ul></section>"""


def plan_list() -> gr.HTML:
    """A plan that can be changed, reordered, switched off and added to. Value: [`plan_value`]; event: `input`."""
    return _part(PLAN, "plan.js", plan_value(None), "plan-list")


def plan_value(plan: EditPlan | None) -> dict[str, Any]:
    if plan is None:
        return {"rows": [], "note": NO_PLAN, "warning": False}
    note = f"The planner's answer could not be used: {plan.reason}. " if plan.fallback else ""
    return {"rows": rows.to_rows(plan), "note": note + HOW_TO_CHANGE, "warning": plan.fallback}


def result_view() -> gr.HTML:
    """The picture before and after, and after each turn. Value: [`result_value`]; event: `again`."""
    return _part(RESULT, "result.js", None, "result")


def result_value(result: Result) -> dict[str, Any]:
    return {
        "before": _file(result.before),
        "after": _file(result.after),
        "turns": [{"image": _file(path), "prompt": prompt} for path, prompt in result.turns],
        "picture": _file(result.picture),
        "plan": _file(result.plan_file),
        "words": result.plan.instruction,
    }


def status_line() -> gr.HTML:
    """What is being done, or went wrong. Value: [`status_value`] and others; event: `stop`."""
    return _part(STATUS, "status.js", said(""), "status")


def status_value(progress: Progress, seconds: float) -> dict[str, Any]:
    """The status line's value while something is being done, and for how long it has been."""
    words = f"{progress.words} ({seconds:.0f} s)" if seconds >= 1 else progress.words
    return {"kind": "working", "words": words, "share": progress.share}


def said(words: str, kind: str = "idle") -> dict[str, Any]:
    """The status line's value when nothing is being done; of what went wrong the kind is `"error"`."""
    return {"kind": kind, "words": words}


def strip(title: str, elem_id: str, value: Sequence[dict[str, Any]] = ()) -> gr.HTML:
    """Pictures in a row. Value: a list of [`strip_entry`]; event: `select`, whose data has an `index`."""
    return _part(STRIP.format(title=title), "strip.js", list(value), elem_id)


def strip_entry(image: Path, words: str) -> dict[str, Any]:
    return {"image": _file(image), "words": words}


def _part(template: str, script: str, value: Any, elem_id: str) -> gr.HTML:
    return gr.HTML(
        value,
        html_template=template,
        js_on_load=(STATIC / script).read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id=elem_id,
    )


def _file(path: Path) -> dict[str, Any]:
    """What Gradio gives an address that the browser can ask for."""
    return FileData(path=str(path), orig_name=path.name).model_dump()
