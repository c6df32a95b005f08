"""A call that was checked: what the checks return, and what is carried out without another look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..plan import EditPlan, Turns


if TYPE_CHECKING:
    import torch
    from typing_extensions import TypeIs

    from ..editors import Upscaler
    from ..judging import Critic
    from .selection import Selector


def are_plans(given: list[str] | list[EditPlan]) -> TypeIs[list[EditPlan]]:
    """Whether plans are given, so that nothing is planned, rather than instructions."""
    return isinstance(given[0], EditPlan)


@dataclass(frozen=True)
class PlanCall:
    """What is to be planned. All lists have one entry for each picture.

    Args:
        images (`list` of `PIL.Image.Image`): RGB, upright.
        references (`list` of `list` of `PIL.Image.Image`): What stands beside each picture; mostly nothing.
        instructions (`list` of `str`): In the user's words.
        seed (`int`): Of the sampling, where there is any.
        settings (`Mapping`): Further ones of `planners.make_plans`.
    """

    images: list[Image.Image]
    references: list[list[Image.Image]]
    instructions: list[str]
    seed: int
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class EditCall:
    """What a call of the pipeline is about. All lists have one entry for each source picture.

    Args:
        images (`list` of `PIL.Image.Image`): RGB, upright.
        references (`list` of `list` of `PIL.Image.Image`): What stands beside each picture; mostly nothing.
        given (`list` of `str` or of [`EditPlan`]): The instructions, or the plans that are there already.
        each (`list` of `list` of `dict`): For each picture, the editor's arguments of each that is made of it, with opened
            masks and other pictures.
        generators (`list` of `list` of `torch.Generator`): For each picture, one for each that is made of it; empty
            without generators. May all be one object, which is then drawn from in order.
        turns, num_plans, num_images_per_plan, selector, output_type, callback_on_plan, max_new_tokens, generation,
            max_batch, max_pixels, upscale, reflect, critic: As in the pipeline's call.
    """

    images: list[Image.Image]
    references: list[list[Image.Image]]
    given: list[str] | list[EditPlan]
    each: list[list[dict[str, Any]]]
    generators: list[list[torch.Generator]]
    turns: Turns
    num_plans: int
    num_images_per_plan: int
    selector: Selector | None
    output_type: str
    callback_on_plan: Callable[[EditPlan], EditPlan | None] | None
    max_new_tokens: int
    generation: Mapping[str, Any]
    max_batch: int
    max_pixels: int | None
    upscale: Upscaler | None
    reflect: int
    critic: Critic | None

    @property
    def planned(self) -> bool:
        """Whether plans are given, so that nothing is planned."""
        return are_plans(self.given)

    @property
    def planning(self) -> PlanCall:
        """The instructions as a call of their own."""
        seed = self.generators[0][0].initial_seed() if self.generators else 0
        settings = {"max_new_tokens": self.max_new_tokens, "num_plans": self.num_plans, **self.generation}
        return PlanCall(self.images, self.references, [str(one) for one in self.given], seed, settings)

    @property
    def made_of_each(self) -> int:
        """How many pictures are made of each source."""
        return self.num_plans * self.num_images_per_plan

    def repeated(self, values: Sequence[Any]) -> list[Any]:
        """Each of `values`, one for each source, as often in a row as pictures are made of it."""
        return [value for value in values for _ in range(self.made_of_each)]
