"""How each editor class wants to be called: a table of facts, and the functions that read it.

A new editor that takes `image` and `prompt` works without a row, one picture at a time. It gets a row when it reads
lists in a way of its own, needs an argument that it does not default to, or has sizes of its own.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModularPipeline
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS
from PIL import Image

from .images import load_pictures


Editor = DiffusionPipeline | ModularPipeline
Size = tuple[int, int]  # width, height in pixels, as PIL has it


# Sizes
# -----


def whole_blocks(editor: Editor, size: Size) -> Size:
    """`size`, each side rounded down to whole latent blocks and to at least one."""
    block = getattr(editor, "vae_scale_factor", 8)
    if hasattr(editor, "transformer"):
        block *= 2  # it packs 2x2 latents into a token
    return tuple(max(block, side // block * block) for side in size)


def flux2_size(editor: Editor, size: Size) -> Size:
    """`size` in whole latent blocks, no side below 64 pixels or an eighth of the other, which FLUX.2 refuses."""
    shortest = max(64, math.ceil(max(size) / 8))
    block = 2 * editor.vae_scale_factor
    return tuple(max(side // block * block, math.ceil(shortest / block) * block) for side in size)


def kontext_size(editor: Editor, size: Size) -> Size:
    """Of the sizes that FLUX.1 Kontext was trained on, the one nearest in aspect ratio."""
    return _nearest_in_aspect(PREFERRED_KONTEXT_RESOLUTIONS, size)


def fibo_size(editor: Editor, size: Size) -> Size:
    """Of the sizes of about one megapixel that FIBO was trained on, the one nearest in aspect ratio."""
    from diffusers.pipelines.bria_fibo.pipeline_bria_fibo_edit import PREFERRED_RESOLUTION

    return _nearest_in_aspect(PREFERRED_RESOLUTION[1024 * 1024], size)


def joy_size(editor: Editor, size: Size) -> Size:
    """Of JoyImage's sizes of about one megapixel, the one nearest in aspect ratio; left to itself it crops to it."""
    height, width = editor.vae_image_processor.get_default_height_width(None, size[1], size[0])
    return width, height


def one_megapixel(editor: Editor, size: Size) -> Size:
    """About 1024x1024 pixels in the source's aspect ratio, in multiples of 32: what Qwen-Image-Edit works at."""
    scale = math.sqrt(1024 * 1024 / (size[0] * size[1]))
    return tuple(max(32, round(side * scale / 32) * 32) for side in size)


def longcat_size(editor: Editor, size: Size) -> Size:
    """About 1024x1024 pixels in the source's aspect ratio, in multiples of 16, rounded up."""
    from diffusers.pipelines.longcat_image.pipeline_longcat_image_edit import calculate_dimensions

    return calculate_dimensions(1024 * 1024, size[0] / size[1])


def _nearest_in_aspect(sizes: Sequence[Size], size: Size) -> Size:
    aspect = size[0] / size[1]
    return min(sizes, key=lambda preferred: abs(preferred[0] / preferred[1] - aspect))


# Prompts
# -------


def as_it_is(prompt: str, pictures: int) -> str:
    """The request as it is."""
    return prompt


def with_placeholders(prompt: str, pictures: int) -> str:
    """The request after a placeholder for each picture: `"<img><|image_1|></img> make it blue"`."""
    return " ".join([f"<img><|image_{number}|></img>" for number in range(1, pictures + 1)] + [prompt])


def as_edit_json(prompt: str, pictures: int) -> str:
    """The request as JSON: `{"edit_instruction": "make it blue"}`."""
    return json.dumps({"edit_instruction": prompt}, ensure_ascii=False)


# The table
# ---------

PAIRS = "a batch of pictures, each with its prompt"
REFERENCES = "several pictures for one result"
REFUSED = "not at all"


@dataclass(frozen=True)
class Traits:
    """What has to be known to call an editor class.

    Args:
        lists (`str`): How a list of pictures is read: `PAIRS`, `REFERENCES` or `REFUSED`. Only with `PAIRS` is a batch
            one call; otherwise there is one call per picture. Only with `REFERENCES` may a picture have others beside it.
        size (callable): `(editor, source size) -> size` that the editor is given and returns.
        always (`Mapping`): Arguments given unless the caller gives them.
        ignored (`tuple` of `str`): Arguments in the signature that change nothing.
        image (`str`): The argument that takes the picture.
        prompt (callable): `(request, number of pictures) -> prompt`.
        mask (`str`, *optional*): The argument that takes a mask.
        mask_needed (`bool`): Whether the editor does not run without one.
    """

    lists: str = REFUSED
    size: Callable[[Editor, Size], Size] = whole_blocks
    always: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    image: str = "image"
    prompt: Callable[[str, int], str] = as_it_is
    mask: str | None = None
    mask_needed: bool = False


# `_auto_resize` would snap a picture that already has the working size. QwenImageEditInpaintPipeline and
# JoyImageEditPipeline work at their own rule's size whatever `height` and `width` say.
TRAITS: dict[str, Traits] = {
    "StableDiffusionInstructPix2PixPipeline": Traits(PAIRS),
    "StableDiffusionXLInstructPix2PixPipeline": Traits(PAIRS),
    "FluxKontextPipeline": Traits(PAIRS, kontext_size, {"_auto_resize": False}),
    "FluxKontextInpaintPipeline": Traits(
        size=kontext_size, always={"_auto_resize": False}, mask="mask_image", mask_needed=True
    ),
    "Flux2Pipeline": Traits(REFERENCES, flux2_size),
    "Flux2KleinPipeline": Traits(REFERENCES, flux2_size),
    "QwenImageEditPipeline": Traits(size=one_megapixel),
    "QwenImageEditPlusPipeline": Traits(REFERENCES, one_megapixel),
    "QwenImageEditInpaintPipeline": Traits(
        size=one_megapixel, ignored=("height", "width"), mask="mask_image", mask_needed=True
    ),
    "QwenImage21Pipeline": Traits(REFERENCES, one_megapixel),
    "LongCatImageEditPipeline": Traits(size=longcat_size),
    "OmniGenPipeline": Traits(REFERENCES, image="input_images", prompt=with_placeholders),
    "BriaFiboEditPipeline": Traits(REFERENCES, fibo_size, prompt=as_edit_json, mask="mask"),
    "JoyImageEditPipeline": Traits(size=joy_size, ignored=("height", "width")),
    "FluxKontextModularPipeline": Traits(size=kontext_size, always={"_auto_resize": False}),
    "QwenImageEditModularPipeline": Traits(size=one_megapixel, mask="mask_image"),
    "QwenImageEditPlusModularPipeline": Traits(REFERENCES, one_megapixel),
}

GIVEN_BY_THE_PLAN = ("prompt", "generator", "output_type", "return_dict", "num_images_per_prompt")


def traits_of(editor: Editor) -> Traits:
    """The row of the editor's class or of its nearest base class that has one; the defaults where none has."""
    return next((TRAITS[base.__name__] for base in type(editor).__mro__ if base.__name__ in TRAITS), Traits())


def arguments_of(editor: Editor) -> dict[str, Any]:
    """The arguments that the editor takes, with their defaults; `**kwargs`, which it would ignore, does not count."""
    if isinstance(editor, ModularPipeline):
        found = {name: default for name, default in editor.default_call_parameters.items() if name}
    else:
        parameters = inspect.signature(type(editor).__call__).parameters.values()
        taken = [p for p in parameters if p.name != "self" and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        found = {p.name: p.default for p in taken}
    return {name: default for name, default in found.items() if name not in traits_of(editor).ignored}


def check_editor(editor: Editor, arguments: Mapping[str, Any], references: bool = False) -> None:
    """Refuse what cannot work, before any model runs.

    Args:
        references (`bool`): Whether pictures have others beside them.

    Raises:
        TypeError: If the editor does not take a picture and a prompt, or does not take one of `arguments`.
        ValueError: If it takes one picture only and is given several, or needs a mask and is given none.
    """
    name, traits, accepted = type(editor).__name__, traits_of(editor), arguments_of(editor)
    planned = (traits.image, *GIVEN_BY_THE_PLAN)
    lacking = [argument for argument in (traits.image, "prompt") if argument not in accepted]
    if lacking:
        raise TypeError(f"{name} cannot be an editor: it takes no `{'` and no `'.join(lacking)}`.")
    for argument in arguments:
        if argument in planned:
            raise TypeError(f"`{argument}` is not for the caller to give to the editor: plan and pipeline do.")
        if argument not in accepted:
            raise TypeError(
                f"{name} takes no `{argument}`. It takes: {', '.join(sorted(set(accepted) - {*planned}))}."
            )
    if references and traits.lists != REFERENCES:
        able = ", ".join(other for other, row in TRAITS.items() if row.lists == REFERENCES)
        raise ValueError(f"{name} takes one picture per result. Several are read by: {able}.")
    if traits.mask_needed and arguments.get(traits.mask) is None:
        raise ValueError(f"{name} needs a `{traits.mask}`: white where the picture may change, black where not.")


def open_masks(editor: Editor, arguments: Mapping[str, Any], pictures: int) -> list[Image.Image]:
    """The masks among an editor's arguments, one for all pictures or one for each; none if there is none.

    Args:
        pictures (`int`): How many pictures are edited.

    Returns:
        `list` of `PIL.Image.Image`, mode L: white where the picture may change.

    Raises:
        TypeError, ValueError: If a mask is no picture, or their number does not fit.
    """
    given = arguments.get(traits_of(editor).mask)
    if given is None:
        return []
    masks = [mask.convert("L") for mask in load_pictures(given)]
    if len(masks) not in (1, pictures):
        raise ValueError(f"{len(masks)} masks do not go with {pictures} pictures.")
    return masks


def working_size(editor: Editor, size: Size, arguments: Mapping[str, Any]) -> Size:
    """The size at which the editor works on a picture of `size`, in every turn: the caller's, or the class's rule."""
    rule = traits_of(editor).size
    width, height = rule(editor, size)
    # A rule that rounds need not keep what it gave. An editor that cannot be told a size would change it every turn.
    while "height" not in arguments_of(editor) and (width, height) != (settled := rule(editor, (width, height))):
        width, height = settled
    return arguments.get("width") or width, arguments.get("height") or height


def call_editor(
    editor: Editor,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    generators: Sequence[torch.Generator] | None = None,
    references: Sequence[Sequence[Image.Image]] | None = None,
    masks: Sequence[Image.Image] | None = None,
    **arguments: Any,
) -> list[Image.Image]:
    """Carry out one prompt on each picture, in as few calls as the editor's class allows.

    Args:
        editor ([`~diffusers.DiffusionPipeline`] or [`~diffusers.ModularPipeline`]): Any that takes `image` and `prompt`.
        images (`Sequence` of `PIL.Image.Image`): RGB, each at its `working_size`.
        prompts (`Sequence` of `str`): One per picture.
        generators (`Sequence` of `torch.Generator`, *optional*): One per picture; may all be the same object, which the
            pictures then draw from in order.
        references (`Sequence`, *optional*): For each picture, those that the editor sees beside it.
        masks (`Sequence` of `PIL.Image.Image`, *optional*): One per picture, of its size.
        arguments: The editor's own, see `check_editor`.

    Returns:
        `list` of `PIL.Image.Image`, one per picture.
    """
    traits, accepted = traits_of(editor), arguments_of(editor)
    results: list[Image.Image] = []
    for rows in _groups([image.size for image in images], traits.lists == PAIRS):
        width, height = images[rows[0]].size
        sized = {"width": width, "height": height, "max_area": width * height}
        pictures = [[images[row], *(references[row] if references else ())] for row in rows]
        asked = [traits.prompt(prompts[row], len(shown)) for row, shown in zip(rows, pictures)]
        given = {
            **{name: value for name, value in sized.items() if name in accepted},
            **{name: value for name, value in traits.always.items() if name in accepted},
            **arguments,
            traits.image: pictures[0] if traits.lists == REFERENCES else [shown[0] for shown in pictures],
            "prompt": asked,
            "output_type": "pil",
        }
        if masks:
            given[traits.mask] = masks[rows[0]]
        if _ignores_guidance(accepted, given):
            given["negative_prompt"] = " "
        if generators is not None:
            chosen = [generators[row] for row in rows]
            given["generator"] = chosen[0] if all(generator is chosen[0] for generator in chosen) else chosen
        if len(rows) == 1:
            given["prompt"] = asked[0]
            if traits.lists != REFERENCES:
                given[traits.image] = images[rows[0]]
        elif isinstance(given.get("negative_prompt"), str):
            given["negative_prompt"] = [given["negative_prompt"]] * len(rows)
        with _seeded_by(given.get("generator")):
            results += (
                editor(**given, output="images") if isinstance(editor, ModularPipeline) else editor(**given).images
            )
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


def _ignores_guidance(accepted: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether guidance is on, and off in fact: editors that take `true_cfg_scale` use it with a negative prompt only."""
    scale = given.get("true_cfg_scale", accepted.get("true_cfg_scale", 1.0))
    return scale > 1 and given.get("negative_prompt") is None and given.get("negative_prompt_embeds") is None


@contextmanager
def _seeded_by(generator: torch.Generator | list[torch.Generator] | None) -> Iterator[None]:
    """Let the generator's seed cover what an editor draws without asking it, and leave the global state as it was.

    OmniGen and JoyImage draw the latents of the picture that they are given so.
    """
    if generator is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed((generator[0] if isinstance(generator, list) else generator).initial_seed())
        yield
