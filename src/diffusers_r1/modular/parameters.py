"""What the blocks take and give, declared once for signatures, schemas and Mellon's nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

import torch
from diffusers import ModularPipeline, ModularPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline import PipelineState
from diffusers.modular_pipelines.modular_pipeline_utils import ComponentSpec, InputParam, OutputParam
from PIL import Image
from transformers import PreTrainedModel

from ..editors import Asked
from ..images import load_samples
from ..pipelines.call import share_out_generators
from ..pipelines.checks import as_list, check_plans, check_texts
from ..plan import EditPlan


PACKAGE = "diffusers-r1"

One = TypeVar("One")

IMAGE = InputParam(
    "image",
    Image.Image,
    required=True,
    description="The picture, its path or its URL; a list of a picture and others that stand beside it.",
    metadata={"mellon": "image"},
)
INSTRUCTION = InputParam(
    "instruction", str, description="What to do, in the user's words.", metadata={"mellon": "textbox"}
)
PLAN = InputParam(
    "plan", EditPlan, description="Carried out as it is, in place of an instruction: an EditPlan, or its dict."
)
MAX_NEW_TOKENS = InputParam(
    "max_new_tokens",
    int,
    default=512,
    description="The most tokens that each agent's answer may have.",
    metadata={"mellon": "number"},
)
GENERATOR = InputParam(
    "generator", torch.Generator, description="Of the editor's noise, and the seed of what is asked again."
)
TURNS = InputParam(
    "turns",
    str,
    default="single",
    description="How the plan is carried out: single (all at once), multi (one by one), auto, or composed.",
    metadata={"mellon": "textbox"},
)
MAX_PIXELS = InputParam(
    "max_pixels",
    int,
    description="The most pixels that the editor works at, in place of what its class was made for.",
    metadata={"mellon": "number"},
)
DECOMPOSITION = "decomposition"
PROMPTS = "prompts"
GIVES_DECOMPOSITION = OutputParam(
    DECOMPOSITION, str, description="The decomposition agent's answer.", metadata={"mellon": "text"}
)
GIVES_PLAN = OutputParam("plan", EditPlan, description="Edits, and the sub-requests in their order.")
GIVES_PROMPTS = OutputParam(PROMPTS, list[Asked], description="What the editor is asked, turn by turn.")
GIVES_PROMPT = OutputParam(
    "prompt", str, description="All sub-requests in one text, for an editor's blocks.", metadata={"mellon": "text"}
)
GIVES_IMAGES = OutputParam(
    "images",
    list[Image.Image],
    description="A list of the edited picture, in its source's size.",
    metadata={"mellon": "image"},
)
GIVES_TURN_IMAGES = OutputParam(
    "turn_images", list[Image.Image], description="The picture after each turn, as it came."
)

# The agents by their names in `ImageEditR1Pipeline`, and in blocks: an editor may have a `processor` of its own there.
EDITOR_DEFAULTS = "editor_defaults"
AGENTS = {
    "planner": "planner",
    "processor": "planner_processor",
    "sequencer": "sequencer",
    "sequencer_processor": "sequencer_processor",
}
OURS = {"image", "instruction", "plan", "max_new_tokens", "turns", "max_pixels", "prompt", PROMPTS, DECOMPOSITION}


class PlanningBlock(ModularPipelineBlocks):
    """A block of the agents. Whoever loads it from a repository is told of the package."""

    _requirements = {PACKAGE: f">={version(PACKAGE)}"}

    @property
    def expected_components(self) -> list[ComponentSpec]:
        """The two agents: the planner answers both questions where there is no sequencer."""
        return [
            ComponentSpec("planner", PreTrainedModel, "The decomposition agent."),
            ComponentSpec("planner_processor", description="Its processor; a tokenizer where it does not see."),
            ComponentSpec("sequencer", PreTrainedModel, "The sequencing agent; the planner if left out."),
            ComponentSpec("sequencer_processor", description="Its processor."),
        ]


@dataclass(frozen=True)
class Agents:
    """The agents of a modular pipeline, as `ImageEditR1Pipeline` has them."""

    planner: Any
    processor: Any
    sequencer: Any
    sequencer_processor: Any


def agents_of(components: ModularPipeline) -> Agents:
    return Agents(**{part: getattr(components, name) for part, name in AGENTS.items()})


def open_picture(state: PipelineState) -> tuple[Image.Image, list[Image.Image]]:
    """The picture to edit, RGB and upright, and what stands beside it.

    Raises:
        TypeError, ValueError: If it is none.
    """
    value = state.get("image")
    pictures, references = load_samples([value] if isinstance(value, (list, tuple)) else value)
    return _only("picture", pictures), references[0]


def instruction_in(state: PipelineState) -> str:
    """The instruction.

    Raises:
        TypeError, ValueError: If it is none that can be planned.
    """
    return _only("instruction", check_texts(state.get("instruction")))


def plan_in(state: PipelineState) -> EditPlan | None:
    """The plan that was given or made; `None` where there is none yet.

    Raises:
        TypeError, ValueError: If it is none, or one that was written as a `dict` holds what a plan does not.
    """
    plan = state.get("plan")
    if plan is None:
        return None
    plans = [EditPlan.from_dict(one) if isinstance(one, Mapping) else one for one in as_list("plan", plan)]
    return _only("plan", check_plans(plans))


def generator_in(state: PipelineState) -> torch.Generator | None:
    """The generator; `None` where none was given.

    Raises:
        TypeError, ValueError: If it is none, or there are several.
    """
    given: Any = state.get("generator")
    shares = share_out_generators(given, 1, 1)
    return shares[0][0] if shares else None


def _only(what: str, found: Sequence[One]) -> One:
    if len(found) != 1:
        raise ValueError(f"One {what} at a time, not {len(found)}.")
    return found[0]


def given_to_editor(components: ModularPipeline, state: PipelineState) -> dict[str, Any]:
    """What the editor is called with beside picture and prompt: its defaults, and what the caller has given.

    What is not given is in the state too, as the default that the blocks declare. Of an argument that is among the editor's
    defaults they declare that one, so that the class's own can be asked for; see [`EditTurnsBlock`].
    """
    given = dict(components.config.get(EDITOR_DEFAULTS) or {})
    for name, default in components.default_call_parameters.items():
        if name and name not in {*OURS, "generator"} and state.get(name) is not default:
            given[name] = state.get(name)
    return given
