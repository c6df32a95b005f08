"""ImageEdit-R1 (arXiv 2603.08059) as a Diffusers pipeline: one sentence, several edits, any editor."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .bundles.planners import load_planner
    from .pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline
    from .pipelines.pipeline_output import ImageEditR1PipelineOutput, Turn
    from .plan import Edit, EditPlan, Fault, FaultKind
    from .prompts import Prompts

__version__ = "0.2.0"

_HOMES = {
    "Edit": ".plan",
    "EditPlan": ".plan",
    "Fault": ".plan",
    "FaultKind": ".plan",
    "ImageEditR1Pipeline": ".pipelines.pipeline_imageedit_r1",
    "ImageEditR1PipelineOutput": ".pipelines.pipeline_output",
    "Prompts": ".prompts",
    "Turn": ".pipelines.pipeline_output",
    "load_planner": ".bundles.planners",
}

__all__ = [
    "Edit",
    "EditPlan",
    "Fault",
    "FaultKind",
    "ImageEditR1Pipeline",
    "ImageEditR1PipelineOutput",
    "Prompts",
    "Turn",
    "__version__",
    "load_planner",
]


def __getattr__(name: str) -> Any:
    # Torch and diffusers take seconds to import, so a name brings its module along only when somebody asks for it.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
