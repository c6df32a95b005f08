"""Planning in three blocks: decompose, sequence, write prompts. What they make can be looked at, and changed, in between."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

from diffusers import ModularPipeline, SequentialPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline import PipelineState
from diffusers.modular_pipelines.modular_pipeline_utils import ComponentSpec, InputParam, OutputParam

from ..belongings import belongings
from ..editors import asked_of
from ..pipelines.call import as_planned_on, check_agents, warn_of_other_pictures
from ..pipelines.checks import check_either, check_generation, check_plans, check_turns
from ..pipelines.exclusive import one_at_a_time
from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline
from ..planners.plans import decompose, make_plans, sequence_plans, warn_of_fallbacks
from ..prompts import prompts_of
from .editing import EditTurnsBlock
from .parameters import (
    DECOMPOSITION,
    GENERATOR,
    GIVES_DECOMPOSITION,
    GIVES_PLAN,
    GIVES_PROMPT,
    GIVES_PROMPTS,
    IMAGE,
    INSTRUCTION,
    MAX_NEW_TOKENS,
    PLAN,
    PROMPTS,
    TURNS,
    PlanningBlock,
    agents_of,
    generator_in,
    given_to_editor,
    instruction_in,
    open_picture,
    plan_in,
)


class DecomposeBlock(PlanningBlock):
    """Asks the decomposition agent what an instruction means. With a plan there is nothing to ask.

    It is the first block, so all that can be refused is refused here, before any model runs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.warned: set[str] = set()  # of what is said once and not with each picture

    @property
    def description(self) -> str:
        return "Decomposition agent: reads picture and instruction, and names actions, subjects and goals."

    @property
    def inputs(self) -> list[InputParam]:
        return [IMAGE, INSTRUCTION, PLAN, MAX_NEW_TOKENS, TURNS, GENERATOR]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [GIVES_DECOMPOSITION]

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        check(components, state, self.warned)
        answer = None
        if state.get("plan") is None:
            agents = agents_of(components)
            with planning(components):
                (answer,) = decompose(agents.planner, agents.processor, **asked_about(components, state))
        state.set(DECOMPOSITION, answer)
        return components, state


class SequenceBlock(PlanningBlock):
    """Asks the sequencing agent for ordered sub-requests. What cannot be used is asked again, both questions, once.

    It reads the picture anew, so that the decomposition may have been changed before.
    """

    @property
    def description(self) -> str:
        return "Sequencing agent: writes the edits out as ordered sub-requests."

    @property
    def inputs(self) -> list[InputParam]:
        said = InputParam(DECOMPOSITION, str, description=GIVES_DECOMPOSITION.description)
        return [IMAGE, INSTRUCTION, PLAN, said, MAX_NEW_TOKENS, GENERATOR]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [GIVES_PLAN]

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        plan = plan_in(state)
        if plan is None:
            agents = agents_of(components)
            planner, processor = agents.planner, agents.processor
            other = None if agents.sequencer is None else (agents.sequencer, agents.sequencer_processor)
            without_adapter = other is None and belongings(planner).get("sequence_without_adapter", False)
            asked = asked_about(components, state)
            said: Any = state.get(DECOMPOSITION)
            with planning(components):
                plans = sequence_plans(
                    *(other or (planner, processor)), decompositions=[said], without_adapter=without_adapter, **asked
                )
                (plan,) = make_plans(
                    planner, processor, sequencer=other, sequence_without_adapter=without_adapter, plans=plans, **asked
                )
            warn_of_fallbacks([plan])
        state.set("plan", plan)
        return components, state


class WritePromptsBlock(PlanningBlock):
    """Writes what the editor is asked, turn by turn, and says what of it its text encoder does not read."""

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return []

    @property
    def description(self) -> str:
        return (
            "Writes the editor's prompts: all sub-requests at once, one by one, or as many as its text encoder reads."
        )

    @property
    def inputs(self) -> list[InputParam]:
        return [PLAN, TURNS]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [GIVES_PROMPTS, GIVES_PROMPT]

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        (plan,) = check_plans(plan_in(state))
        turns: Any = state.get("turns")
        asked = asked_of(components, plan, turns, given_to_editor(components, state))
        ImageEditR1Pipeline.warn_of_unread([asked])
        state.set(PROMPTS, asked)
        state.set("prompt", plan.prompts("single")[0])
        return components, state


class ImageEditR1Blocks(SequentialPipelineBlocks):
    """The planning agents of ImageEdit-R1 (arXiv 2603.08059), to stand in front of an editor's blocks.

    Example:
        >>> ImageEditR1Blocks().output_names
        ['decomposition', 'plan', 'prompts', 'prompt']
    """

    block_classes = [DecomposeBlock, SequenceBlock, WritePromptsBlock]
    block_names = ["decompose", "sequence", "write_prompts"]

    @property
    def description(self) -> str:
        return "Plans an edit: decomposes an instruction, puts its parts in order, and writes the editor's prompts."


def check(components: ModularPipeline, state: PipelineState, warned: set[str]) -> None:
    """Refuse what cannot work, and say what may not.

    Args:
        warned (`set`): What has been said already; what is said now is added.

    Raises:
        TypeError, ValueError: As the pipeline's call does.
    """
    if state.get("plan") is None:  # one that is there goes before an instruction: a state is run again with both
        check_either(state.get("instruction"), None)
    check_turns(state.get("turns"))
    check_generation(state.get("max_new_tokens"), None)
    if state.get("plan") is None:
        instruction_in(state)
        check_agents(agents_of(components))
    else:
        plan_in(state)
    generator_in(state)
    for block in components.blocks.sub_blocks.values():
        if isinstance(block, EditTurnsBlock):
            _, _, picture, _ = block.check(components, state)
            parts: Any = SimpleNamespace(planner=components.planner, editor=components, warned=warned)
            warn_of_other_pictures(parts, [picture])


def planning(components: ModularPipeline) -> AbstractContextManager[None]:
    """Within the block the editor does not run that the planner is a part of, if it is."""
    shared = sum(part is components.planner for part in components.components.values()) > 1
    return one_at_a_time(components if shared else None, again=True)


def asked_about(components: ModularPipeline, state: PipelineState) -> dict[str, Any]:
    """What both agents are asked about, as [`make_plans`] takes it."""
    planner = components.planner
    picture, references = open_picture(state)
    generator = generator_in(state)
    return {
        "images": [as_planned_on(planner, picture)],
        "instructions": [instruction_in(state)],
        "prompts": prompts_of(planner),
        "device": components._execution_device,
        "references": [[as_planned_on(planner, one) for one in references]],
        "seed": 0 if generator is None else generator.initial_seed(),
        "max_new_tokens": state.get("max_new_tokens"),
    }
