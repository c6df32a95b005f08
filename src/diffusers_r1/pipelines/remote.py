"""A pipeline of which both parts are behind addresses: the same plan and the same edit, on a machine without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..belongings import belongings
from ..images import load_picture
from ..plan import EditPlan, Turns
from ..planners.plans import make_plans
from ..planners.remote import RemotePlanner, request_fields
from ..prompts import Prompts
from ..remote_editor import MASK, RemoteEditor, check_remote_editor, remote_working_size
from .checks import check_count, check_either, check_generation, check_plans, check_texts, check_turns, open_pairs


@dataclass(frozen=True)
class RemoteOutput:
    """What a [`RemotePipeline`] returns.

    Args:
        images (`list` of `PIL.Image.Image`): The edited pictures, RGB, each in its source's size.
        plans (`list` of [`EditPlan`]): The plan that was carried out, one for each source.
    """

    images: list[Image.Image]
    plans: list[EditPlan]


class RemotePipeline:
    """Plans by one server and edits by another, or the same one. What `ImageEditR1Pipeline` does with these components.

    Args:
        planner ([`RemotePlanner`], *optional*): May be left out where plans are given.
        editor ([`RemoteEditor`], *optional*): May be left out where nothing is edited.
    """

    def __init__(self, planner: RemotePlanner | None = None, editor: RemoteEditor | None = None):
        self.planner, self.editor = planner, editor

    def check_planning(
        self, image: Any, instruction: Any, max_new_tokens: int = 512, generation: Mapping[str, Any] | None = None
    ) -> tuple[list[Image.Image], list[list[Image.Image]], list[str]]:
        """Pictures, their references and instructions, opened and paired.

        Raises:
            ValueError, TypeError: If something does not fit; nothing has been sent then.
        """
        check_generation(max_new_tokens, generation)
        request_fields(dict(generation or {}))
        if self.planner is None:
            raise ValueError("This pipeline has no planner, so it needs a `plan` in place of an instruction.")
        return open_pairs(image, check_texts(instruction))

    def plan(
        self, image: Any, instruction: str | list[str], seed: int = 0, max_new_tokens: int = 512, **generation: Any
    ) -> EditPlan | list[EditPlan]:
        """Decompose instructions and put their parts in order; as in `ImageEditR1Pipeline`, with a seed for a generator.

        Raises:
            EndpointError: If the server fails, or refuses.
        """
        images, references, instructions = self.check_planning(image, instruction, max_new_tokens, generation)
        prompts = Prompts.from_dict(belongings(self.planner).get("prompts", {}), "the planner's prompts")
        settings = {"max_new_tokens": max_new_tokens, **generation}
        plans = make_plans(
            self.planner, None, images, instructions, prompts, seed=seed, references=references, **settings
        )
        many = isinstance(image, (list, tuple)) or isinstance(instruction, (list, tuple))
        return plans if many else plans[0]

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
    ) -> tuple[list[Image.Image], list[list[Image.Image]], list]:
        """Pictures, their references, and instructions or plans, opened and paired; raises as `check_planning` does."""
        check_either(instruction, plan)
        if self.editor is None:
            raise ValueError("This pipeline has no editor; set `pipe.editor`.")
        check_turns(turns)
        if turns == "composed":
            raise ValueError('`turns="composed"` needs an editor that is loaded here.')
        check_count("num_images_per_prompt", num_images_per_prompt)
        check_remote_editor(editor_arguments)
        if editor_arguments.get(MASK) is not None:
            load_picture(editor_arguments[MASK])
        if plan is None:
            return self.check_planning(image, instruction, max_new_tokens)
        return open_pairs(image, check_plans(plan))

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
                `mask_image`, white where the picture may change.

        Raises:
            ValueError, TypeError: If the inputs do not fit together; nothing has been sent then.
            EndpointError: If a server fails, or refuses.
        """
        about = {"turns": turns, "num_images_per_prompt": num_images_per_prompt, "max_new_tokens": max_new_tokens}
        images, references, given = self.check_inputs(image, instruction, plan, **about, **editor_arguments)
        plans = given
        if plan is None:
            shown = [[picture, *beside] for picture, beside in zip(images, references)]
            plans = self.plan(shown, given, seed or 0, max_new_tokens)
        if callback_on_plan is not None:
            plans = [callback_on_plan(one) or one for one in plans]
        edited = []
        for picture, beside, one in zip(images, references, plans):
            for _ in range(num_images_per_prompt):
                drawn = None if seed is None else seed + len(edited)
                edited.append(self._edit(picture, beside, one.prompts(_told(turns)), drawn, editor_arguments))
        return RemoteOutput(edited, list(plans))

    def _edit(
        self,
        source: Image.Image,
        references: Sequence[Image.Image],
        prompts: Sequence[str],
        seed: int | None,
        arguments: dict[str, Any],
    ) -> Image.Image:
        size = remote_working_size(source.size)
        arguments = {**belongings(self.editor).get("defaults", {}), **arguments}
        mask = arguments.pop(MASK, None)
        current = source if source.size == size else source.resize(size, Image.Resampling.LANCZOS)
        for prompt in prompts:
            where = mask and load_picture(mask).convert("L").resize(size, Image.Resampling.NEAREST)
            answer = self.editor.edit(current, prompt, references, where, seed, **arguments)
            current = answer if answer.size == size else answer.resize(size, Image.Resampling.LANCZOS)
        return current if current.size == source.size else current.resize(source.size, Image.Resampling.LANCZOS)


def _told(turns: Turns) -> Turns:
    return "single" if turns == "auto" else turns
