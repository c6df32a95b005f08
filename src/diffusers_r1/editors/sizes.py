"""At which size an editor works: rules of the classes, their ceilings, and the way back to the source's size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from diffusers import DiffusionPipeline, ModularPipeline
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS
from PIL import Image

from ..images import resized
from ..remote_editor import RemoteEditor


Pipeline = DiffusionPipeline | ModularPipeline
Editor = Pipeline | RemoteEditor
Size = tuple[int, int]  # width, height in pixels, as PIL has it

MEGAPIXEL = 1024 * 1024


# The most pixels
# ---------------


def sample_area(editor: Pipeline) -> int:
    """What the denoiser's own `sample_size` comes to in pixels: the size that the class makes unless it is told one."""
    denoiser = editor.unet if getattr(editor, "unet", None) is not None else editor.transformer
    return (denoiser.config.sample_size * editor.vae_scale_factor) ** 2


def bounded(size: Size, pixels: int | None) -> Size:
    """`size`, made smaller in its aspect ratio where it has more than `pixels`; `None` is no ceiling."""
    if pixels is None or size[0] * size[1] <= pixels:
        return size
    scale = math.sqrt(pixels / (size[0] * size[1]))
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


# The rules: `(editor, size) -> size`
# -----------------------------------


def block_of(editor: Editor) -> int:
    """The pixels of a latent block's side: what the autoencoder makes one value of, and the transformer one token."""
    factor = getattr(editor, "vae_scale_factor", None) or getattr(editor, "vae_scale_factor_spatial", 8)
    packs = getattr(editor, "transformer", None) is not None  # 2x2 latents into a token
    return factor * 2 if packs else factor


def as_it_is(editor: Editor, size: Size) -> Size:
    """`size` as it is: a server brings pictures to its own size."""
    return size


def whole_blocks(editor: Pipeline, size: Size) -> Size:
    """`size`, each side rounded down to whole latent blocks and to at least one."""
    return _in_blocks_of(block_of(editor), size)


def two_blocks(editor: Pipeline, size: Size) -> Size:
    """`size`, each side rounded down to whole pairs of latent blocks and to at least one pair."""
    return _in_blocks_of(2 * editor.vae_scale_factor, size)


def flux2_size(editor: Pipeline, size: Size) -> Size:
    """`size` in whole latent blocks, made no longer than 8:1 and no side below 64 pixels, which FLUX.2 refuses."""
    width, height = flux2_reference(editor, size)
    block = 2 * editor.vae_scale_factor
    shortest = math.ceil(max(width, height) / 8 / block) * block  # rounding down must not make it longer again
    return max(width // block * block, shortest), max(height // block * block, shortest)


def flux2_reference(editor: Pipeline, size: Size) -> Size:
    """`size`, made no longer than 8:1, its area kept, and no side below 64 pixels."""
    return _fitted(size, longest=8, shortest_side=64)


def flux3_size(editor: Pipeline, size: Size) -> Size:
    """`size` in whole latent blocks, no side below 64 or above 4096 pixels; FLUX.3 fills up what is not whole."""
    block = 2 * editor.vae_scale_factor
    return min(4096, max(64, size[0] // block * block)), min(4096, max(64, size[1] // block * block))


def blocks_of_32(editor: Pipeline, size: Size) -> Size:
    """`size`, each side rounded down to a multiple of 32 and to at least 32."""
    return _in_blocks_of(32, size)


def blocks_of_64(editor: Pipeline, size: Size) -> Size:
    """`size`, each side rounded down to a multiple of 64 and to at least 64."""
    return _in_blocks_of(64, size)


def glm_size(editor: Pipeline, size: Size) -> Size:
    """`size` in multiples of 32, made no longer than 4:1 and no side below 512 pixels: others GLM-Image refuses or misreads."""
    shortest_side = math.ceil(math.sqrt(editor.processor.image_processor.size["shortest_edge"]) / 32) * 32
    width, height = _fitted(size, longest=4, shortest_side=shortest_side)
    shortest = math.ceil(max(width, height) / 4 / 32) * 32
    return max(width // 32 * 32, shortest), max(height // 32 * 32, shortest)


def omnigen_size(editor: Pipeline, size: Size) -> Size:
    """`size` in whole latent blocks, no side longer than OmniGen's table of positions reaches (3072 pixels)."""
    block = 2 * editor.vae_scale_factor
    longest = editor.transformer.config.pos_embed_max_size * block
    scale = min(1.0, longest / max(size))
    return _in_blocks_of(block, (int(size[0] * scale), int(size[1] * scale)))


def kontext_size(editor: Pipeline, size: Size) -> Size:
    """Of the sizes that FLUX.1 Kontext was trained on, the one nearest in aspect ratio."""
    return _nearest_in_aspect(PREFERRED_KONTEXT_RESOLUTIONS, size)


def kandinsky_size(editor: Pipeline, size: Size) -> Size:
    """Of Kandinsky's seven sizes of about one megapixel, the one nearest in aspect ratio."""
    return _nearest_in_aspect(editor.resolutions, size)


def fibo_size(editor: Pipeline, size: Size) -> Size:
    """Of the sizes of about one megapixel that FIBO was trained on, the one nearest in aspect ratio."""
    from diffusers.pipelines.bria_fibo.pipeline_bria_fibo_edit import PREFERRED_RESOLUTION

    return _nearest_in_aspect(PREFERRED_RESOLUTION[MEGAPIXEL], size)


def fibo2_size(editor: Pipeline, size: Size) -> Size:
    """Of the sizes of about one megapixel that Fibo 2 was trained on, the one nearest in aspect ratio."""
    area = (editor.default_sample_size * editor.vae_scale_factor) ** 2
    return editor.image_processor.get_image_size(size[0] / size[1], area=area)


def joy_size(editor: Pipeline, size: Size) -> Size:
    """Of JoyImage's sizes of about one megapixel, the one nearest in aspect ratio; left to itself it crops to it."""
    processor = getattr(editor, "vae_image_processor", editor.image_processor)
    height, width = processor.get_default_height_width(None, size[1], size[0])
    return width, height


def one_megapixel(editor: Pipeline, size: Size) -> Size:
    """About 1024x1024 pixels in the source's aspect ratio, in multiples of 32: what Qwen-Image-Edit works at."""
    scale = math.sqrt(MEGAPIXEL / (size[0] * size[1]))
    return max(32, round(size[0] * scale / 32) * 32), max(32, round(size[1] * scale / 32) * 32)


def longcat_size(editor: Pipeline, size: Size) -> Size:
    """About 1024x1024 pixels in the source's aspect ratio, in multiples of 16, rounded up."""
    from diffusers.pipelines.longcat_image.pipeline_longcat_image_edit import calculate_dimensions

    return calculate_dimensions(MEGAPIXEL, size[0] / size[1])


def _in_blocks_of(block: int, size: Size) -> Size:
    return max(block, size[0] // block * block), max(block, size[1] // block * block)


def _fitted(size: Size, longest: int, shortest_side: int) -> Size:
    """`size` with its area kept as far as possible, no longer than `longest`:1, no side shorter than that."""
    width, height = size
    if max(size) > longest * min(size):
        short = math.floor(math.sqrt(width * height / longest))
        width, height = (longest * short, short) if width > height else (short, longest * short)
    scale = max(1.0, shortest_side / min(width, height))
    return round(width * scale), round(height * scale)


def _nearest_in_aspect(sizes: Sequence[Size], size: Size) -> Size:
    aspect = size[0] / size[1]
    return min(sizes, key=lambda preferred: abs(preferred[0] / preferred[1] - aspect))


# The way back
# ------------

Upscaler = Callable[[Image.Image, Image.Image], Image.Image]
"""`(edited, source) -> picture`: the edited picture at its working size, made larger; the source is there to look at."""


def as_large_as(source: Image.Image, edited: Image.Image, upscale: Upscaler | None = None) -> Image.Image:
    """The edited picture in its source's size.

    Args:
        source (`PIL.Image.Image`): What was edited.
        edited (`PIL.Image.Image`): What came out, at the size that the editor worked at.
        upscale (`Callable`, *optional*): Called with both where the edited picture has fewer pixels than the source, to
            bring detail back. What it returns may have any size. Lanczos by default.

    Raises:
        TypeError: If it returns no picture.
    """
    if upscale is not None and edited.width * edited.height < source.width * source.height:
        larger: Any = upscale(edited, source)
        if not isinstance(larger, Image.Image):
            raise TypeError(f"`upscale` gives a `PIL.Image.Image`, not {type(larger).__name__}.")
        edited = larger.convert("RGB")
    return resized(edited, source.size)
