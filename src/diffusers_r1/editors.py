"""How each editor class wants to be called: a table of facts, and the functions that read it.

A new editor that takes `image` and `prompt` works without a row, one picture at a time. It gets a row when it reads
lists as batches, needs an argument that it does not default to, or has sizes of its own.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS
from PIL import Image


Size = tuple[int, int]  # width, height in pixels, as PIL has it


def whole_blocks(editor: DiffusionPipeline, size: Size) -> Size:
    """`size`, each side rounded down to whole latent blocks and to at least one."""
    block = getattr(editor, "vae_scale_factor", 8)
    if "height" in accepted_arguments(editor):
        block *= 2  # transformer editors pack 2x2 latents into a token
    return tuple(max(block, side // block * block) for side in size)


def kontext_size(editor: DiffusionPipeline, size: Size) -> Size:
    """Of the sizes that FLUX.1 Kontext was trained on, the one nearest in aspect ratio."""
    aspect = size[0] / size[1]
    return min(PREFERRED_KONTEXT_RESOLUTIONS, key=lambda preferred: abs(preferred[0] / preferred[1] - aspect))


def one_megapixel(editor: DiffusionPipeline, size: Size) -> Size:
    """About 1024x1024 pixels in the source's aspect ratio, in multiples of 32: what Qwen-Image-Edit works at."""
    scale = math.sqrt(1024 * 1024 / (size[0] * size[1]))
    return tuple(max(32, round(side * scale / 32) * 32) for side in size)


@dataclass(frozen=True)
class Traits:
    """What has to be known to call an editor class.

    Args:
        batched (`bool`): Whether lists of pictures and prompts are read as pairs. Otherwise one call per picture.
        always (`Mapping`): Arguments given unless the caller gives them.
        size (callable): `(editor, source size) -> size` that the editor is given and returns.
    """

    batched: bool = False
    always: Mapping[str, Any] = field(default_factory=dict)
    size: Callable[[DiffusionPipeline, Size], Size] = whole_blocks


# true_cfg_scale is ignored by Qwen-Image editors unless there is a negative prompt, hence the blank one.
TRAITS: dict[str, Traits] = {
    "StableDiffusionInstructPix2PixPipeline": Traits(batched=True),
    "FluxKontextPipeline": Traits(batched=True, always={"_auto_resize": False}, size=kontext_size),
    "QwenImageEditPipeline": Traits(always={"negative_prompt": " "}, size=one_megapixel),
    "QwenImageEditPlusPipeline": Traits(always={"negative_prompt": " "}, size=one_megapixel),
}

GIVEN_BY_THE_PLAN = ("image", "prompt", "generator", "output_type", "return_dict", "num_images_per_prompt")


def traits_of(editor: DiffusionPipeline) -> Traits:
    """The row of the editor's class or of its nearest base class that has one; the defaults where none has."""
    return next((TRAITS[base.__name__] for base in type(editor).__mro__ if base.__name__ in TRAITS), Traits())


def accepted_arguments(editor: DiffusionPipeline) -> list[str]:
    """The names of the arguments that the editor takes; `**kwargs`, which it would ignore, does not count."""
    parameters = inspect.signature(type(editor).__call__).parameters.values()
    return [p.name for p in parameters if p.name != "self" and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]


def check_editor(editor: DiffusionPipeline, arguments: Mapping[str, Any]) -> None:
    """Refuse what cannot work, before any model runs.

    Raises:
        TypeError: If the editor does not take a picture and a prompt, or does not take one of `arguments`.
    """
    name, accepted = type(editor).__name__, accepted_arguments(editor)
    lacking = [argument for argument in ("image", "prompt") if argument not in accepted]
    if lacking:
        raise TypeError(f"{name} cannot be an editor: it takes no `{'` and no `'.join(lacking)}`.")
    for argument in arguments:
        if argument in GIVEN_BY_THE_PLAN:
            raise TypeError(f"`{argument}` is not for the caller to give to the editor: plan and pipeline do.")
        if argument not in accepted:
            offered = sorted(set(accepted) - set(GIVEN_BY_THE_PLAN))
            raise TypeError(f"{name} takes no `{argument}`. It takes: {', '.join(offered)}.")


def working_size(editor: DiffusionPipeline, size: Size, arguments: Mapping[str, Any]) -> Size:
    """The size at which the editor works on a picture of `size`, in every turn: the caller's, or the class's rule."""
    width, height = traits_of(editor).size(editor, size)
    return arguments.get("width") or width, arguments.get("height") or height


def call_editor(
    editor: DiffusionPipeline,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    generators: Sequence[Any] | None = None,
    **arguments: Any,
) -> list[Image.Image]:
    """Carry out one prompt on each picture, in as few calls as the editor's class allows.

    Args:
        editor ([`~diffusers.DiffusionPipeline`]): Any that takes `image` and `prompt`.
        images (`Sequence` of `PIL.Image.Image`): RGB, each at its `working_size`.
        prompts (`Sequence` of `str`): One per picture.
        generators (`Sequence` of `torch.Generator`, *optional*): One per picture; may all be the same object, which the
            pictures then draw from in order.
        arguments: The editor's own, see `check_editor`.

    Returns:
        `list` of `PIL.Image.Image`, one per picture.
    """
    traits, accepted = traits_of(editor), accepted_arguments(editor)
    results: list[Image.Image] = []
    for rows in _groups([image.size for image in images], traits.batched):
        width, height = images[rows[0]].size
        sized = {"width": width, "height": height, "max_area": width * height}
        given = {
            **{name: value for name, value in sized.items() if name in accepted},
            **traits.always,
            **arguments,
            "image": [images[row] for row in rows],
            "prompt": [prompts[row] for row in rows],
            "output_type": "pil",
        }
        if generators is not None:
            chosen = [generators[row] for row in rows]
            given["generator"] = chosen[0] if all(generator is chosen[0] for generator in chosen) else chosen
        if len(rows) == 1:
            given["image"], given["prompt"] = images[rows[0]], prompts[rows[0]]
        elif "negative_prompt" in given and isinstance(given["negative_prompt"], str):
            given["negative_prompt"] = [given["negative_prompt"]] * len(rows)
        results += editor(**given).images
    return results


def _groups(sizes: list[Size], batched: bool) -> list[list[int]]:
    """Neighbouring rows of one size, as far as the editor takes a batch at all."""
    groups: list[list[int]] = []
    for row, size in enumerate(sizes):
        if batched and groups and sizes[groups[-1][0]] == size:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
