"""One call of the pipeline, opened and checked before any model runs: the same record and the same rules for every way in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from diffusers.utils import logging
from PIL import Image
from transformers import GenerationConfig, GenerationMixin

from ..belongings import belongings, not_made_for
from ..editors import Upscaler, check_composed, check_editor, check_values, share_out
from ..grammar import decomposition_grammar, sequence_grammar
from ..images import resized
from ..judging import Critic, ScenesCritic
from ..plan import EditPlan, Turns
from ..planners.adapters import has_adapter
from ..planners.conversation import SET_HERE
from ..planners.remote import RemotePlanner, request_fields
from ..remote_editor import seeds_of
from .checked import EditCall, PlanCall
from .checks import (
    check_count,
    check_either,
    check_functions,
    check_generation,
    check_plans,
    check_reflection,
    check_texts,
    check_turns,
    given_settings,
    open_pairs,
)
from .nested.remote import is_remote
from .selection import Selector


if TYPE_CHECKING:
    from .pipeline_imageedit_r1 import ImageEditR1Pipeline

logger = logging.get_logger(__name__)

Generators = torch.Generator | list[torch.Generator] | None

OUTPUT_TYPES = ("pil", "np", "pt")
SEEDS = 2**64  # that a generator can have
MAX_BATCH = 8  # pictures in one call of the editor: of 1024 x 1024 pixels, what a card of 80 GB holds

# Settings of the agents' answers: what `generate` takes, and what is of `make_plans`.
GENERATION = {
    *vars(GenerationConfig()),
    *signature(vars(GenerationMixin)["generate"]).parameters,
    "constrained",
    "retries",
}


def check_call(
    pipeline: ImageEditR1Pipeline,
    image: Any,
    instruction: str | Sequence[str] | None = None,
    plan: EditPlan | Sequence[EditPlan] | None = None,
    turns: Turns = "single",
    num_images_per_prompt: int = 1,
    num_plans: int = 1,
    num_images_per_plan: int = 1,
    selector: Selector | None = None,
    generator: Generators = None,
    output_type: str = "pil",
    max_batch: int = MAX_BATCH,
    callback_on_plan: Callable | None = None,
    max_new_tokens: int = 512,
    generation: Mapping[str, Any] | None = None,
    max_pixels: int | None = None,
    upscale: Upscaler | None = None,
    reflect: int = 0,
    critic: Critic | None = None,
    **editor_arguments: Any,
) -> EditCall:
    """Open the pictures, pair them with what goes with them, and refuse what cannot work.

    Takes what the pipeline's call takes.

    Raises:
        ValueError: If a number, a length or a choice does not fit.
        TypeError: If a value has the wrong type, or the editor does not take an argument.
    """
    check_either(instruction, plan)
    settings = {
        "turns": turns,
        "num_images_per_prompt": num_images_per_prompt,
        "num_plans": num_plans,
        "num_images_per_plan": num_images_per_plan,
        "selector": selector,
        "output_type": output_type,
        "max_batch": max_batch,
        "callback_on_plan": callback_on_plan,
        "max_new_tokens": max_new_tokens,
        "generation": generation,
        "max_pixels": max_pixels,
        "upscale": upscale,
        "reflect": reflect,
        "critic": critic,
    }
    check_settings(pipeline, planned=plan is not None, **settings, **editor_arguments)
    given = check_instructions(pipeline, instruction) if plan is None else check_plans(plan)
    images, references, given = open_pairs(image, given)
    arguments = {**pipeline.editor_defaults, **editor_arguments}
    check_editor(pipeline.editor, arguments, any(references), max_pixels)
    of_plan = int(num_images_per_prompt if selector is None else num_images_per_plan)
    made_of_each = int(num_plans) * of_plan
    each = share_out(pipeline.editor, arguments, len(images), made_of_each)
    check_values(pipeline.editor, *each)
    if isinstance(critic, ScenesCritic):
        for image in images:
            critic.check(image)
    warn_of_other_pictures(pipeline, images)
    return EditCall(
        images,
        references,
        given,
        [each[start : start + made_of_each] for start in range(0, len(each), made_of_each)],
        share_out_generators(generator, len(images), made_of_each, pipeline.editor),
        turns,
        int(num_plans),
        of_plan,
        selector,
        output_type,
        callback_on_plan,
        int(max_new_tokens),
        given_settings(generation),
        int(max_batch),
        max_pixels,
        upscale,
        int(reflect),
        critic,
    )


def check_planning(
    pipeline: ImageEditR1Pipeline,
    image: Any,
    instruction: str | Sequence[str],
    max_new_tokens: int = 512,
    num_plans: int = 1,
    generator: Generators = None,
    generation: Mapping[str, Any] | None = None,
) -> PlanCall:
    """Open the pictures and pair them with instructions; raises as `check_call` does."""
    check_count("num_plans", num_plans)
    check_generation_of(pipeline, max_new_tokens, generation, num_plans)
    images, references, instructions = open_pairs(image, check_instructions(pipeline, instruction))
    made_of_each = max(1, len(generator) // len(images)) if isinstance(generator, (list, tuple)) else 1
    drawn = share_out_generators(generator, len(images), made_of_each)
    warn_of_other_pictures(pipeline, images)
    settings = {"max_new_tokens": int(max_new_tokens), "num_plans": int(num_plans), **given_settings(generation)}
    return PlanCall(images, references, instructions, drawn[0][0].initial_seed() if drawn else 0, settings)


def check_settings(
    pipeline: Any,
    turns: Turns = "single",
    num_images_per_prompt: int = 1,
    num_plans: int = 1,
    num_images_per_plan: int = 1,
    selector: Selector | None = None,
    output_type: str = "pil",
    max_batch: int = MAX_BATCH,
    callback_on_plan: Callable | None = None,
    max_new_tokens: int = 512,
    generation: Mapping[str, Any] | None = None,
    max_pixels: int | None = None,
    upscale: Upscaler | None = None,
    reflect: int = 0,
    critic: Critic | None = None,
    planned: bool = False,
    **editor_arguments: Any,
) -> None:
    """Refuse what no picture and no instruction could make right; raises as `check_call` does."""
    if pipeline.editor is None:
        raise ValueError("This pipeline has no editor; set `pipe.editor`.")
    check_turns(turns)
    arguments = {**pipeline.editor_defaults, **editor_arguments}
    check_editor(pipeline.editor, arguments, False, max_pixels)
    if turns == "composed":
        check_composed(pipeline.editor, arguments)
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f'`output_type` must be "pil", "np" or "pt", not {output_type!r}.')
    numbers_of_pictures = {
        "num_images_per_prompt": num_images_per_prompt,
        "num_plans": num_plans,
        "num_images_per_plan": num_images_per_plan,
        "max_batch": max_batch,
    }
    for name, number in numbers_of_pictures.items():
        check_count(name, number)
    check_functions(selector=selector, callback_on_plan=callback_on_plan, upscale=upscale)
    if selector is not None and num_images_per_prompt != 1:
        raise ValueError("A `selector` keeps one picture; give `num_images_per_plan`, not `num_images_per_prompt`.")
    for name in ("num_plans", "num_images_per_plan"):
        if numbers_of_pictures[name] > 1 and selector is None:
            raise ValueError(f"`{name}` makes candidates, of which a `selector` keeps one; there is none.")
    if num_plans > 1 and planned:
        raise ValueError("`num_plans` is for instructions; a `plan` is there already.")
    check_reflection(reflect, critic)
    if planned:
        check_generation(max_new_tokens, generation)
    else:
        check_generation_of(pipeline, max_new_tokens, generation, num_plans)


def check_generation_of(pipeline: Any, max_new_tokens: Any, generation: Any, num_plans: int) -> None:
    """Refuse settings of the agents' answers that one of the agents has no use for; raises as `check_call` does."""
    check_generation(max_new_tokens, generation)
    generation = dict(generation or {})
    planner: Any = pipeline.planner
    for agent, form in ((planner, decomposition_grammar), (pipeline.sequencer, sequence_grammar)):
        if isinstance(agent, RemotePlanner):
            request_fields(generation)
        elif agent is not None:
            _check_names(generation)
            if generation.get("constrained"):
                form(int(max_new_tokens))  # which says how many tokens it needs
    if num_plans > 1 and isinstance(planner, torch.nn.Module):
        own: Any = planner.generation_config
        beams = generation.get("num_beams") or own.num_beams or 1
        if beams > 1:
            raise ValueError(f"`num_plans` samples plans, which goes without `num_beams`; there are {beams} beams.")


def _check_names(generation: Mapping[str, Any]) -> None:
    """Refuse what a model that is loaded here is not asked with."""
    for name in generation:
        if name not in GENERATION:
            raise TypeError(f"`{name}` is no setting of the planner's `generate`.")
        if name in SET_HERE:
            raise TypeError(f"`{name}` is not for the caller to give to the planner: the conversation does.")
        if name == "generation_config":
            raise TypeError("`generation_config` is not taken whole; give its settings by name.")
    if generation.get("constrained") and generation.get("logits_processor"):
        raise TypeError("`constrained` brings a `logits_processor` of its own.")


def check_instructions(pipeline: ImageEditR1Pipeline, instruction: Any) -> list[str]:
    """The instructions as a list, all of which can be planned; raises as `check_call` does."""
    instructions = check_texts(instruction)
    check_agents(pipeline)
    return instructions


def check_agents(pipeline: Any) -> None:
    """Refuse a pipeline that cannot plan, or what has its agents; raises as `check_call` does."""
    if pipeline.planner is None:
        raise ValueError("This pipeline has no planner, so it needs a `plan` in place of an instruction.")
    if pipeline.processor is None and not is_remote(pipeline.planner):
        raise ValueError("This pipeline has a planner without its `processor`.")
    loaded_here = pipeline.sequencer is not None and not is_remote(pipeline.sequencer)
    if loaded_here and pipeline.sequencer_processor is None:
        raise ValueError("This pipeline has a sequencer without its `sequencer_processor`.")
    if belongings(pipeline.planner).get("sequence_without_adapter") and not has_adapter(pipeline.planner):
        raise ValueError("`sequence_without_adapter` is set, and the planner has no adapter to switch off.")


def share_out_generators(
    generator: Generators, pictures: int, made_of_each: int, editor: Any = None
) -> list[list[torch.Generator]]:
    """For each picture, a generator for each that is made of it, as the editor is given it; raises as `check_call` does."""
    if generator is None:
        return []
    several = list(generator) if isinstance(generator, (list, tuple)) else [generator] * (pictures * made_of_each)
    for one in several:
        if not isinstance(one, torch.Generator):
            raise TypeError(f"A generator is a `torch.Generator`, not {type(one).__name__}.")
    if len(several) != pictures * made_of_each:
        raise ValueError(f"{len(several)} generators do not go with {pictures} pictures, {made_of_each} of each.")
    several = of_each_picture(editor, several)
    return [list(several[start : start + made_of_each]) for start in range(0, len(several), made_of_each)]


def of_each_picture(editor: Any, generators: Sequence[torch.Generator]) -> Sequence[torch.Generator]:
    """For an editor behind an address, which draws nothing and is told seeds, a generator for each picture.

    From one that several pictures have, seeds are counted on; that is done once for all of a call's, so that a picture keeps
    its seed in whatever batch, turn or look it comes next.
    """
    if not is_remote(editor):
        return generators
    return [torch.Generator().manual_seed(seed % SEEDS) for seed in seeds_of(generators)]


def after(generator: torch.Generator) -> torch.Generator:
    """The generator of the picture that comes next."""
    return torch.Generator().manual_seed((generator.initial_seed() + 1) % SEEDS)


def in_batches(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """`rows` in order, at most `size` at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


# What a bundle was made for
# --------------------------


def made_for(component: Any) -> dict[str, Any]:
    """What pictures a component was made for, `{"pictures": "what they show", "size": [width, height]}`; empty for all."""
    return belongings(component).get("made_for") or {}


def warn_of_other_pictures(pipeline: ImageEditR1Pipeline, images: Sequence[Image.Image]) -> None:
    """Say at once that a planner or an editor was not made for pictures like these, and say it once of a size."""
    sizes = [image.size for image in images]
    for name in ("planner", "editor"):
        if words := not_made_for(name, made_for(getattr(pipeline, name)), sizes):
            if words not in pipeline.warned:
                pipeline.warned.add(words)
                logger.warning(words)
            return


def as_planned_on(planner: Any, image: Image.Image) -> Image.Image:
    """The picture at the size at which a planner sees it."""
    return resized(image, within_size(planner, image.size))


def within_size(component: Any, size: tuple[int, int]) -> tuple[int, int]:
    """`size`, made smaller in its aspect ratio to as many pixels as the component was made for, where it says so."""
    known = made_for(component).get("size")
    if not known or size[0] * size[1] <= known[0] * known[1]:
        return size
    scale = (known[0] * known[1] / (size[0] * size[1])) ** 0.5
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
