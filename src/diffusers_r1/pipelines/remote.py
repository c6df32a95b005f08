"""A pipeline of which both parts are behind addresses: the same plan and the same edit, on a machine without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from PIL import Image

from ..belongings import belongings
from ..images import load_picture, resized
from ..plan import EditPlan, Turns
from ..planners.plans import make_plans, warn_of_fallbacks
from ..planners.remote import RemotePlanner, request_fields
from ..prompts import prompts_of
from ..remote_editor import MASK, RemoteEditor, check_remote_editor, remote_prompts, remote_working_size
from .checked import PlanCall, are_plans
from .checks import (
    are_several,
    changed_plan,
    check_count,
    check_either,
    check_functions,
    check_generation,
    check_plans,
    check_seed,
    check_texts,
    check_turns,
    given_settings,
    open_pairs,
)
from .turn import Turn


# What `ImageEditR1Pipeline` is asked by these names is no field of a request.
LOCAL_ONLY = (
    "num_plans", "num_images_per_plan", "selector", "max_batch", "generation", "max_pixels", "upscale", "reflect", "critic",
)  # fmt: skip


@dataclass(frozen=True)
class RemoteCall:
    """A call of a [`RemotePipeline`] that was checked. The lists have one entry for each source picture.

    Args:
        images (`list` of `PIL.Image.Image`): RGB, upright.
        references (`list` of `list` of `PIL.Image.Image`): What stands beside each picture; mostly nothing.
        given (`list` of `str` or of [`EditPlan`]): The instructions, or the plans that are there already.
        mask (`PIL.Image.Image`, *optional*): White where pictures may change; grey values.
        arguments (`dict`): Of the editor, its defaults among them, without a mask.
        turns, num_images_per_prompt, seed, callback_on_plan, max_new_tokens: As in the pipeline's call.
    """

    images: list[Image.Image]
    references: list[list[Image.Image]]
    given: list[str] | list[EditPlan]
    mask: Image.Image | None
    arguments: dict[str, Any]
    turns: Turns
    num_images_per_prompt: int
    seed: int | None
    callback_on_plan: Callable[[EditPlan], EditPlan | None] | None
    max_new_tokens: int


@dataclass(frozen=True)
class RemoteOutput:
    """What a [`RemotePipeline`] returns.

    Args:
        images (`list` of `PIL.Image.Image`): The edited pictures, RGB, each in its source's size.
        plans (`list` of [`EditPlan`]): The plan that was carried out, one for each source.
        turns (`list` of `list` of [`Turn`]): For each picture in `images`, what the editor was asked and gave.
        interrupted (`bool`): Whether the call was ended early. What was done is here; a picture without a turn is its source.
    """

    images: list[Image.Image]
    plans: list[EditPlan]
    turns: list[list[Turn]]
    interrupted: bool = False


class RemotePipeline:
    """Plans by one server and edits by another, or the same one. What `ImageEditR1Pipeline` does with these components.

    Args:
        planner ([`RemotePlanner`], *optional*): May be left out where plans are given.
        editor ([`RemoteEditor`], *optional*): May be left out where nothing is edited.
    """

    def __init__(self, planner: RemotePlanner | None = None, editor: RemoteEditor | None = None):
        self.planner, self.editor = planner, editor
        self._interrupts = 0

    def interrupt(self) -> None:
        """End all calls that are running. They hand back the turns that are done, marked as interrupted.

        A request that is under way in another thread ends its turn. Where `KeyboardInterrupt` follows in the thread of the
        call, as from Ctrl-C, its request is given up.
        """
        self._interrupts += 1

    def check_planning(
        self,
        image: Any,
        instruction: Any,
        max_new_tokens: int = 512,
        seed: int = 0,
        generation: Mapping[str, Any] | None = None,
    ) -> PlanCall:
        """Open the pictures and pair them with instructions: what `plan_checked` sends.

        Raises:
            ValueError, TypeError: If something does not fit; nothing has been sent then.
        """
        check_generation(max_new_tokens, generation)
        check_seed(seed)
        request_fields(dict(generation or {}))
        if self.planner is None:
            raise ValueError("This pipeline has no planner, so it needs a `plan` in place of an instruction.")
        settings = {"max_new_tokens": max_new_tokens, **given_settings(generation)}
        return PlanCall(*open_pairs(image, check_texts(instruction)), int(seed or 0), settings)

    def plan(
        self, image: Any, instruction: str | list[str], seed: int = 0, max_new_tokens: int = 512, **generation: Any
    ) -> EditPlan | list[EditPlan]:
        """Decompose instructions and put their parts in order; as in `ImageEditR1Pipeline`, with a seed for a generator.

        Raises:
            EndpointError: If the server fails, or refuses.
        """
        plans = self.plan_checked(self.check_planning(image, instruction, max_new_tokens, seed, generation))
        return plans if are_several(image, instruction) else plans[0]

    def plan_checked(self, call: PlanCall) -> list[EditPlan]:
        """Plan what `check_planning` has checked; raises as `plan` does."""
        plans = make_plans(
            cast(RemotePlanner, self.planner),
            None,
            call.images,
            call.instructions,
            prompts_of(self.planner),
            seed=call.seed,
            references=call.references,
            **call.settings,
        )
        warn_of_fallbacks(plans)
        return plans

    def check_inputs(
        self,
        image: Any,
        instruction: Any = None,
        plan: Any = None,
        turns: Turns = "single",
        num_images_per_prompt: int = 1,
        seed: int | None = None,
        callback_on_plan: Callable[[EditPlan], EditPlan | None] | None = None,
        max_new_tokens: int = 512,
        **editor_arguments: Any,
    ) -> RemoteCall:
        """Open the pictures, pair them with what goes with them: what `run_checked` sends; raises as `check_planning` does."""
        check_either(instruction, plan)
        if self.editor is None:
            raise ValueError("This pipeline has no editor; set `pipe.editor`.")
        check_turns(turns)
        if turns == "composed":
            raise ValueError('`turns="composed"` needs an editor that is loaded here.')
        for name in LOCAL_ONLY:
            if name in editor_arguments:
                raise ValueError(f"`{name}` is for `ImageEditR1Pipeline`, which takes the same planner and editor.")
        check_count("num_images_per_prompt", num_images_per_prompt)
        check_seed(seed)
        check_functions(callback_on_plan=callback_on_plan)
        editor_arguments = {**belongings(self.editor).get("defaults", {}), **editor_arguments}
        check_remote_editor(editor_arguments)
        check_generation(max_new_tokens, None)
        mask = editor_arguments.pop(MASK, None)
        if mask is not None:
            mask = load_picture(mask).convert("L")
        if plan is None:
            planning = self.check_planning(image, instruction, max_new_tokens)
            opened = planning.images, planning.references, planning.instructions
        else:
            opened = open_pairs(image, check_plans(plan))
        # Of numbers of numpy the largest of their kind has none after it.
        return RemoteCall(
            *opened,
            mask,
            editor_arguments,
            turns,
            int(num_images_per_prompt),
            None if seed is None else int(seed),
            callback_on_plan,
            int(max_new_tokens),
        )

    def __call__(
        self,
        image: Any,
        instruction: str | list[str] | None = None,
        plan: EditPlan | list[EditPlan] | None = None,
        turns: Turns = "single",
        num_images_per_prompt: int = 1,
        seed: int | None = None,
        callback_on_plan: Callable[[EditPlan], EditPlan | None] | None = None,
        max_new_tokens: int = 512,
        **editor_arguments: Any,
    ) -> RemoteOutput:
        """Edit pictures as instructions, or plans, say.

        Args:
            image, instruction, plan, callback_on_plan, max_new_tokens: As in `ImageEditR1Pipeline`.
            turns (`str`): `"single"`, `"multi"`, or `"auto"`, which is single: what a server reads is not known.
            num_images_per_prompt (`int`, defaults to 1): How many pictures are made of each plan.
            seed (`int`, *optional*): Of the noise; pictures after the first count on from it. A server may take none.
            editor_arguments: Fields of the request, such as `num_inference_steps=20` or `quality="high"`, and a mask,
                `mask_image`, white where the picture may change. Each goes with every picture; a list is sent as it is.

        Raises:
            ValueError, TypeError: If the inputs do not fit together; nothing has been sent then.
            EndpointError: If a server fails, or refuses.
        """
        return self.run_checked(
            self.check_inputs(
                image,
                instruction,
                plan,
                turns,
                num_images_per_prompt,
                seed,
                callback_on_plan,
                max_new_tokens,
                **editor_arguments,
            )
        )

    def run_checked(self, call: RemoteCall) -> RemoteOutput:
        """Carry out what `check_inputs` has opened and checked; raises as a call does."""
        before = self._interrupts
        if are_plans(call.given):
            plans = call.given
        else:
            settings = {"max_new_tokens": call.max_new_tokens}
            plans = self.plan_checked(PlanCall(call.images, call.references, call.given, call.seed or 0, settings))
        if call.callback_on_plan is not None:
            plans = [changed_plan(call.callback_on_plan, plan) for plan in plans]
        sources = [picture for picture in call.images for _ in range(call.num_images_per_prompt)]
        turns: list[list[Turn]] = [[] for _ in sources]
        coming = self._turns(call, plans)
        try:
            while self._interrupts == before and (one := next(coming, None)) is not None:
                number, turn = one
                turns[number].append(turn)
        except KeyboardInterrupt:
            if self._interrupts == before:  # nobody asked for what is done
                raise
        edited = [resized(done[-1].image if done else source, source.size) for source, done in zip(sources, turns)]
        return RemoteOutput(edited, list(plans), turns, self._interrupts != before)

    def _turns(self, call: RemoteCall, plans: Sequence[EditPlan]) -> Iterator[tuple[int, Turn]]:
        """Turn by turn, each from the picture before, with the place of the picture that it is of in the output."""
        editor = cast(RemoteEditor, self.editor)
        given = list(zip(call.images, call.references, plans))
        for number, (source, shown_too, plan) in enumerate(
            one for one in given for _ in range(call.num_images_per_prompt)
        ):
            size = remote_working_size(source.size, call.arguments)
            mask = call.mask and call.mask.resize(size, Image.Resampling.NEAREST)
            seed = None if call.seed is None else call.seed + number
            current = resized(source, size)
            prompts = remote_prompts(plan, call.turns)
            for prompt in prompts:
                answer = editor.edit(current, prompt, shown_too, mask, seed, **call.arguments)
                yield number, Turn(prompt, size, answer.size, answer, (prompt,) if len(prompts) > 1 else plan.requests)
                current = resized(answer, size)


def seed_for(pipe: Any, seed: int | None) -> dict[str, Any]:
    """The seed as a pipeline's call takes it: one without models takes the number."""
    if seed is None:
        return {}
    if isinstance(pipe, RemotePipeline):
        return {"seed": seed}
    import torch

    return {"generator": torch.Generator().manual_seed(seed)}
