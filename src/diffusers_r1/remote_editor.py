"""An editor behind an OpenAI-compatible address, as a component like any other: `/v1/images/edits` of OpenAI, vLLM-Omni and
others. Nothing is loaded here, and no torch is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Integral
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageChops

from .endpoints import EndpointError, RemoteModel, ask_in_order, check_field
from .images import size_to_send, to_send
from .plan import EditPlan, Turns


if TYPE_CHECKING:
    import torch


CONFIG_NAME = "remote_editor.json"
MASK = "mask_image"
LARGEST_SEED = 2**31
GIVEN_BY_THE_PLAN = (
    "image",
    "mask",
    "prompt",
    "model",
    "n",
    "seed",
    "generator",
    "output_type",
    "return_dict",
    "stream",
)


class RemoteEditor(RemoteModel):
    """An editing model that a server has loaded.

    Made, saved and loaded as a [`~endpoints.RemoteModel`]; `concurrency` pictures are asked for at once.

    Example:
        >>> editor = RemoteEditor("http://localhost:8000/v1", "Qwen/Qwen-Image-Edit-2511")  # doctest: +SKIP
        >>> editor.edit(photo, "make the coat red", num_inference_steps=20).save("red.png")  # doctest: +SKIP
    """

    config_name = CONFIG_NAME
    concurrent = True  # nothing of one call is seen by another

    def edit(
        self,
        image: Image.Image,
        prompt: str,
        references: Sequence[Image.Image] = (),
        mask: Image.Image | None = None,
        seed: int | None = None,
        **arguments: Any,
    ) -> Image.Image:
        """One picture edited.

        Args:
            image (`PIL.Image.Image`): RGB.
            prompt (`str`): What to change.
            references (sequence of `PIL.Image.Image`): Pictures that the editor sees beside it; large ones are sent smaller.
            mask (`PIL.Image.Image`, *optional*): Mode L, of the picture's size; white where it may change.
            seed (`int`, *optional*): Of the noise. A server that takes none makes its own.
            arguments: Further fields of the request, such as `num_inference_steps=20`, `guidance_scale=4.0` or
                `quality="high"`; `width` and `height` together become the `size`.

        Returns:
            `PIL.Image.Image`: RGB, of the size that the server chose.

        Raises:
            EndpointError: If the server fails for good, refuses, or sends no picture.
            TypeError, ValueError: As [`check_remote_editor`] does.
        """
        check_remote_editor(arguments)
        return self.endpoint.edit_images(
            [image, *map(to_send, references)],
            prompt,
            mask and _with_alpha(mask),
            seed=None if seed is None else seed % LARGEST_SEED,
            **_fields(arguments),
        )

    def edit_many(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        references: Sequence[Sequence[Image.Image]] | None = None,
        masks: Sequence[Image.Image] | None = None,
        seeds: Sequence[int | None] | None = None,
        each: Sequence[Mapping[str, Any]] | None = None,
        **arguments: Any,
    ) -> list[Image.Image | EndpointError]:
        """Many pictures edited, `concurrency` of them at once. Lists have an entry for each picture, as in `edit`.

        Args:
            each (sequence of `Mapping`, *optional*): For each picture, arguments of its own.
            arguments: The same for all.

        Returns:
            `list`: for each picture the result, or why there is none: one that fails takes no other along.
        """

        def edit_one(row: int) -> Image.Image:
            return self.edit(
                images[row],
                prompts[row],
                references[row] if references else (),
                masks[row] if masks else None,
                seeds[row] if seeds else None,
                **{**arguments, **(each[row] if each else {})},
            )

        return ask_in_order(edit_one, range(len(images)), self.endpoint.concurrency)


def check_remote_editor(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that no request can hold, before anything is sent. What a server makes of the others is its own.

    Raises:
        TypeError: If an argument is not the caller's to give, or no JSON.
        ValueError: If a number is not finite, a text holds half of a surrogate pair, or a side is no number of pixels.
    """
    for name, value in arguments.items():
        if name in GIVEN_BY_THE_PLAN:
            raise TypeError(f"`{name}` is not for the caller to give to the editor: plan and pipeline do.")
        if name != MASK:
            check_field(name, value)
    sides = {side: arguments[side] for side in ("width", "height") if arguments.get(side) is not None}
    if len(sides) == 1:
        raise TypeError("`width` and `height` go together.")
    for side, pixels in sides.items():
        if not isinstance(pixels, Integral) or isinstance(pixels, bool) or pixels < 1:
            raise ValueError(f"`{side}` must be 1 or more, not {pixels!r}.")


def remote_prompts(plan: EditPlan, turns: Turns) -> list[str]:
    """What a server is asked, one entry per turn. `"auto"` is single: what a server reads is not known.

    Raises:
        ValueError: For `"composed"`, which goes into the editor's own computation.
    """
    return plan.prompts("single" if turns == "auto" else turns)


def remote_working_size(size: tuple[int, int], arguments: Mapping[str, Any] = MappingProxyType({})) -> tuple[int, int]:
    """The size, width and height in pixels, at which a picture is sent: its own, or as much smaller as it has to be; or what
    the editor's arguments say."""
    if arguments.get("width") is not None:
        return int(arguments["width"]), int(arguments["height"])
    return size_to_send(size)


def seeds_of(generators: Sequence[torch.Generator]) -> list[int]:
    """What a server is told of each picture's generator: its seed. Of one that several have, those after the first count on."""
    counted: Counter[torch.Generator] = Counter()
    seeds = []
    for generator in generators:
        seeds.append(generator.initial_seed() + counted[generator])
        counted[generator] += 1
    return seeds


def _fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(arguments)
    width, height = fields.pop("width", None), fields.pop("height", None)
    return {"size": f"{width}x{height}", **fields} if width and height else fields


def _with_alpha(mask: Image.Image) -> Image.Image:
    """A mask that both kinds of servers read: OpenAI's changes what is transparent, others what is white."""
    white = mask.convert("L")
    return Image.merge("RGBA", (white, white, white, ImageChops.invert(white)))
