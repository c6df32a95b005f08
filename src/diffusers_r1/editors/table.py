"""What each editor class wants: a table of facts. `refusals.py` has the classes that cannot be editors.

A class that takes `image` and `prompt` works without a row, one picture at a time at the source's size. It gets a row when
it reads lists in a way of its own, needs an argument that it does not default to, or has sizes of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from ..images import MOST_PIXELS_SENT
from ..remote_editor import MASK as MASK_OF_REMOTE
from ..remote_editor import RemoteEditor
from . import glm, reading, sizes, wording
from .sizes import MEGAPIXEL, Editor, Size


PAIRS = "a batch of pictures, each with its prompt"
REFERENCES = "several pictures for one result"
REFUSED = "not at all"

INSTRUCTION = "what to change"
DESCRIPTION = "what the picture shows afterwards"


@dataclass(frozen=True)
class Traits:
    """What has to be known to call an editor class. The callables take an editor of that class.

    Args:
        lists (`str`): How a list of pictures is read: `PAIRS`, `REFERENCES` or `REFUSED`. Only with `PAIRS` is a batch
            one call; otherwise there is one call per picture. Only with `REFERENCES` may a picture have others beside it.
        size (callable): `(editor, source size) -> size` that the editor is given and returns.
        pixels (`int` or callable, *optional*): The most pixels that the class was made for, or `(editor) -> pixels`. The
            source is made smaller before `size` sees it. `None` where `size` has sizes of its own, or nobody knows.
        pixels_from (`str`): Where that figure is from.
        snaps (`bool`): Whether `height` and `width`, too, are moved to one of the class's own sizes.
        reference (callable, *optional*): `(editor, size) -> size` that a picture beside the edited one is brought to.
        always (`Mapping`): Arguments given unless the caller gives them.
        ignored (`tuple` of `str`): Arguments in the signature that change nothing.
        before (callable, *optional*): `(editor, arguments of the call) -> further arguments`, worked out before each call.
        batched (`tuple` of `str`): Arguments that are a list of one tensor for each picture of a batch. Such a type hint
            otherwise means several tensors for one picture.
        image (`str`): The argument that takes the picture.
        answer (`str`): The field of the output that has the pictures.
        asks (`str`): What a prompt says to this class: `INSTRUCTION` or `DESCRIPTION`.
        prompt (callable): `(request, number of pictures) -> prompt`.
        reads (callable, *optional*): `(editor, prompt, arguments) -> (tokens of the prompt, most tokens it reads)`; `None`
            where no text is cut off.
        mask (`str`): The argument that takes a mask; empty where none does.
        mask_needed (`bool`): Whether the editor does not run without one.
        mask_fixes_size (`bool`): Whether it cannot be told a size when it is given one.
        encodes_in (`torch.dtype`, *optional*): The type in which the class gives pictures to its autoencoder, whatever
            type that has.
    """

    lists: str = REFUSED
    size: Callable[[Any, Size], Size] = sizes.whole_blocks
    pixels: int | Callable[[Any], int] | None = None
    pixels_from: str = ""
    snaps: bool = False
    reference: Callable[[Any, Size], Size] | None = None
    always: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    before: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]] | None = None
    batched: tuple[str, ...] = ()
    image: str = "image"
    answer: str = "images"
    asks: str = INSTRUCTION
    prompt: Callable[[str, int], str] = wording.as_it_is
    reads: Callable[[Any, str, Mapping[str, Any]], tuple[int, int]] | None = None
    mask: str = ""
    mask_needed: bool = False
    mask_fixes_size: bool = False
    encodes_in: torch.dtype | None = None


# What several rows have in common: values of fields, by their names.
Facts: TypeAlias = dict[str, Any]
OWN_SIZE: Facts = {"pixels": sizes.sample_area, "pixels_from": "`sample_size` in the model's configuration"}
FLUX2: Facts = {
    "size": sizes.flux2_size,
    "pixels": MEGAPIXEL,
    "pixels_from": "the class, which brings its picture to 1024x1024 pixels",
    "reference": sizes.flux2_reference,
    "reads": reading.chat_tokens,
}
FLUX3: Facts = {
    "size": sizes.flux3_size,
    "pixels": 4 * MEGAPIXEL,
    "pixels_from": "the class, which brings its picture to 4 megapixels",
    "reads": reading.prompt_tokens,
}
ONE_MEGAPIXEL: Facts = {"pixels": MEGAPIXEL, "pixels_from": "the class's default, 1024x1024"}
FLUX1: Facts = {"reads": reading.t5_tokens, **ONE_MEGAPIXEL}
KONTEXT: Facts = {"size": sizes.kontext_size, "reads": reading.t5_tokens, "always": {"_auto_resize": False}}
MASK: Facts = {"mask": "mask_image", "mask_needed": True}
Z_IMAGE: Facts = {
    "reads": reading.chat_tokens,
    "batched": ("negative_prompt_embeds",),
    **ONE_MEGAPIXEL,
}
REDRAWS: Facts = {"asks": DESCRIPTION}
QWEN_IMAGE: Facts = {
    "pixels": 1328 * 1328,
    "pixels_from": "Qwen-Image's card, whose square size is 1328x1328",
    **REDRAWS,
}

# `_auto_resize` would snap a picture that already has the working size. QwenImageEditInpaintPipeline and
# JoyImageEditPipeline work at their own rule's size whatever `height` and `width` say, Flux2KleinInpaintPipeline at the
# picture's.
TRAITS: dict[str, Traits] = {
    # Editors that follow an instruction
    "StableDiffusionInstructPix2PixPipeline": Traits(PAIRS, reads=reading.clip_tokens, **OWN_SIZE),
    "StableDiffusionXLInstructPix2PixPipeline": Traits(PAIRS, reads=reading.clip_tokens, **OWN_SIZE),
    "FluxKontextPipeline": Traits(PAIRS, **KONTEXT),
    "FluxKontextInpaintPipeline": Traits(**KONTEXT, **MASK),
    "Flux2Pipeline": Traits(REFERENCES, **FLUX2),
    "Flux2KleinPipeline": Traits(REFERENCES, **FLUX2),
    "Flux2KleinKVPipeline": Traits(REFERENCES, **FLUX2),
    "Flux2KleinInpaintPipeline": Traits(ignored=("height", "width"), **FLUX2, **MASK),
    "QwenImageEditPipeline": Traits(size=sizes.one_megapixel),
    "QwenImageEditPlusPipeline": Traits(REFERENCES, sizes.one_megapixel),
    "QwenImageEditInpaintPipeline": Traits(size=sizes.one_megapixel, ignored=("height", "width"), **MASK),
    "QwenImage21Pipeline": Traits(REFERENCES, sizes.one_megapixel),
    "LongCatImageEditPipeline": Traits(size=sizes.longcat_size, reads=reading.longcat_tokens),
    "OmniGenPipeline": Traits(
        REFERENCES, sizes.omnigen_size, image="input_images", prompt=wording.with_placeholders, **ONE_MEGAPIXEL
    ),
    "BriaFiboEditPipeline": Traits(
        REFERENCES, sizes.fibo_size, prompt=wording.as_edit_json, mask="mask", reads=reading.prompt_tokens
    ),
    "BriaFibo2Pipeline": Traits(REFERENCES, sizes.fibo2_size, mask="mask"),
    "JoyImageEditPipeline": Traits(size=sizes.joy_size, ignored=("height", "width")),
    "JoyImageEditPlusPipeline": Traits(REFERENCES, sizes.joy_size, image="images"),
    "GlmImagePipeline": Traits(
        REFERENCES, sizes.glm_size, reference=sizes.glm_size, before=glm.prior_tokens, **ONE_MEGAPIXEL
    ),
    "Kandinsky5I2IPipeline": Traits(
        size=sizes.kandinsky_size, snaps=True, answer="image", reads=reading.kandinsky5_tokens
    ),
    "DreamLitePipeline": Traits(size=sizes.two_blocks, **ONE_MEGAPIXEL),
    "DreamLiteMobilePipeline": Traits(size=sizes.two_blocks, **ONE_MEGAPIXEL),
    "ZImageOmniPipeline": Traits(REFERENCES, batched=("negative_prompt_embeds",), encodes_in=torch.bfloat16, **FLUX2),
    "FluxKontextModularPipeline": Traits(**KONTEXT),
    "Flux2ModularPipeline": Traits(REFERENCES, **FLUX2),
    "Flux2KleinModularPipeline": Traits(REFERENCES, **FLUX2),
    "Flux2KleinBaseModularPipeline": Traits(REFERENCES, **FLUX2),
    "QwenImageEditModularPipeline": Traits(size=sizes.one_megapixel, mask="mask_image", mask_fixes_size=True),
    "QwenImageEditPlusModularPipeline": Traits(REFERENCES, sizes.one_megapixel),
    "QwenImage21ModularPipeline": Traits(REFERENCES, sizes.one_megapixel),
    "QwenImage21TurboModularPipeline": Traits(REFERENCES, sizes.one_megapixel),
    "Flux3ModularPipeline": Traits(REFERENCES, **FLUX3),
    "Flux3DistilledModularPipeline": Traits(REFERENCES, **FLUX3),
    # Editors that redraw a picture, or a part of it, as a description says
    "AnimaModularPipeline": Traits(reads=reading.prompt_tokens, **ONE_MEGAPIXEL, **REDRAWS),
    "Kandinsky3Img2ImgPipeline": Traits(
        size=sizes.blocks_of_64, reads=reading.kandinsky3_tokens, **ONE_MEGAPIXEL, **REDRAWS
    ),
    # its size is moved to one of a table unless it is told otherwise
    "SanaSprintImg2ImgPipeline": Traits(
        size=sizes.blocks_of_32,
        always={"use_resolution_binning": False},
        reads=reading.prompt_tokens,
        **ONE_MEGAPIXEL,
        **REDRAWS,
    ),
    "StableDiffusionImg2ImgPipeline": Traits(PAIRS, reads=reading.clip_tokens, **OWN_SIZE, **REDRAWS),
    "StableDiffusionXLImg2ImgPipeline": Traits(PAIRS, reads=reading.clip_tokens, **OWN_SIZE, **REDRAWS),
    "StableDiffusion3Img2ImgPipeline": Traits(PAIRS, reads=reading.sd3_tokens, **OWN_SIZE, **REDRAWS),
    "LatentConsistencyModelImg2ImgPipeline": Traits(PAIRS, reads=reading.clip_tokens, **OWN_SIZE, **REDRAWS),
    "FluxImg2ImgPipeline": Traits(PAIRS, **FLUX1, **REDRAWS),
    "ChromaImg2ImgPipeline": Traits(PAIRS, **FLUX1, **REDRAWS),
    "QwenImageImg2ImgPipeline": Traits(PAIRS, reads=reading.qwen_image_tokens, **QWEN_IMAGE),
    "ZImageImg2ImgPipeline": Traits(PAIRS, **Z_IMAGE, **REDRAWS),
    "StableDiffusionDepth2ImgPipeline": Traits(reads=reading.clip_tokens, **OWN_SIZE, **REDRAWS),
    "StableDiffusionPAGImg2ImgPipeline": Traits(reads=reading.clip_tokens, **OWN_SIZE, **REDRAWS),
    "StableDiffusionXLPAGImg2ImgPipeline": Traits(reads=reading.clip_tokens, **OWN_SIZE, **REDRAWS),
    "StableDiffusion3PAGImg2ImgPipeline": Traits(reads=reading.sd3_tokens, **OWN_SIZE, **REDRAWS),
    "FluxModularPipeline": Traits(**FLUX1, **REDRAWS),
    "QwenImageModularPipeline": Traits(mask="mask_image", reads=reading.modular_qwen_tokens, **QWEN_IMAGE),
    "StableDiffusion3ModularPipeline": Traits(reads=reading.sd3_tokens, **OWN_SIZE, **REDRAWS),
    "StableDiffusionXLModularPipeline": Traits(reads=reading.clip_tokens, mask="mask_image", **OWN_SIZE, **REDRAWS),
    "ZImageModularPipeline": Traits(**Z_IMAGE, **REDRAWS),
    "StableDiffusionPAGInpaintPipeline": Traits(reads=reading.clip_tokens, **OWN_SIZE, **MASK, **REDRAWS),
    "StableDiffusionXLPAGInpaintPipeline": Traits(reads=reading.clip_tokens, **OWN_SIZE, **MASK, **REDRAWS),
    "StableDiffusionInpaintPipeline": Traits(reads=reading.clip_tokens, **OWN_SIZE, **MASK, **REDRAWS),
    "StableDiffusionXLInpaintPipeline": Traits(reads=reading.clip_tokens, **OWN_SIZE, **MASK, **REDRAWS),
    "StableDiffusion3InpaintPipeline": Traits(reads=reading.sd3_tokens, **OWN_SIZE, **MASK, **REDRAWS),
    "FluxInpaintPipeline": Traits(**FLUX1, **MASK, **REDRAWS),
    "FluxFillPipeline": Traits(**FLUX1, **MASK, **REDRAWS),
    "ChromaInpaintPipeline": Traits(**FLUX1, **MASK, **REDRAWS),
    "QwenImageInpaintPipeline": Traits(reads=reading.qwen_image_tokens, **QWEN_IMAGE, **MASK),
    "ZImageInpaintPipeline": Traits(**Z_IMAGE, **MASK, **REDRAWS),
}


# An editor behind an address. No class of diffusers, so that it has no row.
REMOTE = Traits(REFERENCES, sizes.as_it_is, MOST_PIXELS_SENT, "what servers take", mask=MASK_OF_REMOTE)


def traits_of(editor: Editor) -> Traits:
    """The row of the editor's class or of its nearest base class that has one; the defaults where none has."""
    if isinstance(editor, RemoteEditor):
        return REMOTE
    return next((TRAITS[base.__name__] for base in type(editor).__mro__ if base.__name__ in TRAITS), Traits())
