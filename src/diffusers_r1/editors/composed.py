r"""One denoising for a whole plan, in which the guidance of each sub-request is computed apart and added up.

With \(\epsilon(c)\) for what the denoiser predicts under request \(c\) and \(\epsilon(\varnothing)\) under none, guidance goes
\(s\,(\epsilon(c) - \epsilon(\varnothing))\) away from the latter. The conjunction of composable diffusion (Liu et al., 2022,
arXiv 2206.01714, equation 11) is the sum over all requests, \(s \sum_k (\epsilon(c_k) - \epsilon(\varnothing))\). Specify and Edit
(Iakovleva et al., arXiv 2407.20232) brings it to instructions: one that was decomposed guides by its parts. Here the parts
are a plan's sub-requests, all of one weight.

The editor's own loop runs, with the first request as its prompt. A hook on the denoiser adds what the others differ by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch

from .signatures import arguments_of
from .sizes import MEGAPIXEL, Editor, Pipeline
from .turns import Asked


Inputs = dict[str, Any]


@dataclass(frozen=True)
class Composer:
    """How one editor class is composed.

    Args:
        denoiser (`str`): The component that predicts.
        scale (`str`): The argument that is the guidance's strength, above 1 where guidance is on.
        encode (callable): `(editor, requests, given) -> inputs` of the denoiser that one request of each picture makes.
        hook (callable): `(requests' inputs, the empty request's inputs) -> forward hook` of the denoiser.
    """

    denoiser: str
    scale: str
    encode: Callable[[Any, list[str], Mapping[str, Any]], Inputs]
    hook: Callable[[list[Inputs], Inputs], Callable]


def composer_of(editor: Editor) -> Composer:
    """How the editor's class is composed.

    Raises:
        ValueError: If it is not.
    """
    composer = next((COMPOSERS[base.__name__] for base in type(editor).__mro__ if base.__name__ in COMPOSERS), None)
    if composer is None:
        able = ", ".join(COMPOSERS)
        raise ValueError(f'{type(editor).__name__} cannot be asked with turns="composed". It is for: {able}.')
    return composer


def check_composed(editor: Editor, arguments: Mapping[str, Any]) -> None:
    """Refuse to compose where nothing would be added up, before any model runs.

    Raises:
        ValueError: If the editor has no classifier-free guidance that can be composed, or it is off.
    """
    composer, given = composer_of(editor), {**arguments_of(editor), **arguments}
    if not all(isinstance(one, Real) and float(one) > 1 for one in _listed(given[composer.scale])):
        raise ValueError(f'turns="composed" adds up guidance, which is off: give `{composer.scale}` above 1.')
    if any(isinstance(one, Real) and float(one) < 1 for one in _listed(given.get("image_guidance_scale"))):
        raise ValueError('turns="composed" adds up guidance, which `image_guidance_scale` below 1 switches off.')


@contextmanager
def composed(editor: Editor, asked: Sequence[Asked], given: Mapping[str, Any]) -> Iterator[None]:
    """While it is open, the editor's call with the first of the sub-requests is guided by all of them.

    Args:
        asked (`Sequence` of [`Asked`]): Of each picture of the call, all of as many sub-requests. If they are not
            `composed`, nothing happens.
        given (`Mapping`): What the editor is called with.
    """
    if not asked[0].composed:
        yield
        return
    composer = composer_of(editor)
    with torch.no_grad():
        later = list(zip(*(one.requests for one in asked)))[1:]
        others = [composer.encode(editor, list(requests), given) for requests in later]
        nothing = _nothing(composer, editor, len(asked), given)
    hook = getattr(editor, composer.denoiser).register_forward_hook(composer.hook(others, nothing), with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _nothing(composer: Composer, editor: Editor, pictures: int, given: Mapping[str, Any]) -> Inputs:
    """What the class guides away from."""
    if (embeds := given.get("negative_prompt_embeds")) is not None:
        mask = given.get("negative_prompt_embeds_mask")
        return {"encoder_hidden_states": embeds, "encoder_hidden_states_mask": mask}
    return composer.encode(editor, _listed(given.get("negative_prompt") or "", pictures), given)


def _listed(value: Any, times: int = 1) -> list[Any]:
    """The values of several pictures; of one for all, that value so many `times`."""
    return list(value) if isinstance(value, (list, tuple)) else [value] * times


# InstructPix2Pix: one pass of three rows, under text and picture, under the picture alone, under nothing
# --------------------------------------------------------------------------------------------------------


def _pix2pix_text(editor: Pipeline, requests: list[str], given: Mapping[str, Any]) -> Inputs:
    return {"encoder_hidden_states": editor._encode_prompt(requests, editor._execution_device, 1, False)}


def _sdxl_text(editor: Pipeline, requests: list[str], given: Mapping[str, Any]) -> Inputs:
    embeds, _, pooled, _ = editor.encode_prompt(
        requests, device=editor._execution_device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    return {"encoder_hidden_states": embeds, "text_embeds": pooled}


def _three_rows(others: list[Inputs], nothing: Inputs) -> Callable:
    def hook(unet: torch.nn.Module, args: tuple, kwargs: Inputs, output: tuple) -> tuple:
        text, picture, empty = output[0].chunk(3)
        latents, timestep = args
        for inputs in others:
            own = {**kwargs, "encoder_hidden_states": inputs["encoder_hidden_states"]}
            if kwargs.get("added_cond_kwargs"):
                own["added_cond_kwargs"] = {
                    # a list has the rows of each IP adapter
                    name: [rows[: len(text)] for rows in value] if isinstance(value, list) else value[: len(text)]
                    for name, value in kwargs["added_cond_kwargs"].items()
                }
                if "text_embeds" in inputs:
                    own["added_cond_kwargs"]["text_embeds"] = inputs["text_embeds"]
            # `forward`, so that this hook does not call itself
            text = text + unet.forward(latents[: len(text)], timestep, **own)[0] - picture
        return (torch.cat([text, picture, empty]), *output[1:])

    return hook


# Qwen-Image-Edit: a pass under the request, then one under the negative prompt
# -----------------------------------------------------------------------------


def _qwen_text(editor: Pipeline, requests: list[str], given: Mapping[str, Any]) -> Inputs:
    picture = given["image"][0] if isinstance(given["image"], list) else given["image"]
    return _qwen_inputs(editor, requests, editor.image_processor.resize(picture, *_area_of(MEGAPIXEL, picture)))


def _qwen_plus_text(editor: Pipeline, requests: list[str], given: Mapping[str, Any]) -> Inputs:
    seen = [editor.image_processor.resize(picture, *_area_of(384 * 384, picture)) for picture in given["image"]]
    return _qwen_inputs(editor, requests, seen)


def _qwen_inputs(editor: Pipeline, requests: list[str], seen: Any) -> Inputs:
    embeds, mask = editor.encode_prompt(image=seen, prompt=requests, device=editor._execution_device)
    return {"encoder_hidden_states": embeds, "encoder_hidden_states_mask": mask}


def _area_of(pixels: int, picture: Any) -> tuple[int, int]:
    """Height and width at which the text encoder sees a picture."""
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_dimensions

    width, height, *_ = calculate_dimensions(pixels, picture.width / picture.height)
    return height, width


def _two_passes(others: list[Inputs], nothing: Inputs) -> Callable:
    passes = 0

    def hook(transformer: torch.nn.Module, args: tuple, kwargs: Inputs, output: tuple) -> tuple:
        nonlocal passes
        passes += 1
        if passes % 2 == 0:  # the pass under the negative prompt
            return output
        text = output[0]
        empty = transformer.forward(**{**kwargs, **nothing})[0]
        for inputs in others:
            text = text + transformer.forward(**{**kwargs, **inputs})[0] - empty
        return (text, *output[1:])

    return hook


COMPOSERS: dict[str, Composer] = {
    "StableDiffusionInstructPix2PixPipeline": Composer("unet", "guidance_scale", _pix2pix_text, _three_rows),
    "StableDiffusionXLInstructPix2PixPipeline": Composer("unet", "guidance_scale", _sdxl_text, _three_rows),
    "QwenImageEditPipeline": Composer("transformer", "true_cfg_scale", _qwen_text, _two_passes),
    "QwenImageEditPlusPipeline": Composer("transformer", "true_cfg_scale", _qwen_plus_text, _two_passes),
}
