"""Which editors can be trained, and how: of each family, what its denoiser is given when it makes a picture.

A row makes clean latents, conditions and one call of the denoiser out of source, prompt and edited picture, by the
pipeline's own methods; a test compares each call with the one that the pipeline itself makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from ..editors.signatures import arguments_of
from ..editors.sizes import one_megapixel


@dataclass(frozen=True)
class Encoded:
    """What a denoiser has to do with some pictures.

    Args:
        clean (`torch.Tensor`): The edited pictures' latents, `(batch, ...)`, scaled as the denoiser sees them.
        predict (callable): `(noisy latents, timesteps as the scheduler counts them) -> prediction`, of the latents' shape.
    """

    clean: Tensor
    predict: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Family:
    """How the editors of one class are trained.

    Args:
        denoiser (`str`): The component that is trained.
        encode (callable): `(editor, sources, prompts, edited pictures, arguments) -> Encoded`; all pictures have one size.
        without_guidance (`Mapping`): Arguments with which the pipeline samples what the denoiser itself predicts.
        lora_targets (`tuple` of `str`): The layers that an adapter is put on.
    """

    denoiser: str
    encode: Callable[..., Encoded]
    without_guidance: Mapping[str, float]
    lora_targets: tuple[str, ...]

    def unguided(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call, and those that switch guidance off.

        DiffusionNFT trains the denoiser that makes the pictures. With guidance they are made by a mixture of two
        predictions, which no single one of them is.

        Raises:
            ValueError: If guidance is asked for.
        """
        for name, value in self.without_guidance.items():
            if arguments.get(name, value) != value:
                raise ValueError(
                    f"An editor is trained without guidance: `{name}` is {value}, not {arguments[name]}. What guidance adds "
                    "is learned."
                )
        return {**arguments, **self.without_guidance}


def family_of(editor: DiffusionPipeline) -> Family:
    """The row of the editor's class or of its nearest base class that has one.

    Raises:
        ValueError: If there is none, with the classes that there are.
    """
    for base in type(editor).__mro__:
        if base.__name__ in FAMILIES:
            return FAMILIES[base.__name__]
    raise ValueError(f"{type(editor).__name__} cannot be trained; these classes can: {', '.join(FAMILIES)}.")


def _instruct_pix2pix(
    editor: Any, sources: Sequence[Image.Image], prompts: Sequence[str], edited: Sequence[Image.Image], _: Any
) -> Encoded:
    """The source's latents, not scaled, lie behind the noisy ones as further channels."""
    device = editor._execution_device
    words = editor._encode_prompt(list(prompts), device, 1, False)

    def latents(pictures: Sequence[Image.Image]) -> Tensor:
        pixels = editor.image_processor.preprocess(list(pictures))
        return editor.prepare_image_latents(pixels, len(pictures), 1, words.dtype, device, False)

    condition = latents(sources)

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        inputs = torch.cat([noisy.to(words.dtype), condition], dim=1)
        return editor.unet(inputs, timesteps, encoder_hidden_states=words, return_dict=False)[0]

    return Encoded(latents(edited) * editor.vae.config.scaling_factor, predict)


def _kontext(
    editor: Any,
    sources: Sequence[Image.Image],
    prompts: Sequence[str],
    edited: Sequence[Image.Image],
    arguments: Mapping[str, Any],
) -> Encoded:
    """The source's tokens stand behind the noisy ones; their first coordinate is 1."""
    device, transformer = editor._execution_device, editor.transformer
    words, pooled, text_ids = editor.encode_prompt(
        list(prompts), None, device=device, max_sequence_length=_value("max_sequence_length", editor, arguments)
    )
    width, height = edited[0].size
    shape = (len(prompts), transformer.config.in_channels // 4, height, width, words.dtype, device)

    def prepared(pictures: Sequence[Image.Image], latents: Tensor) -> tuple[Tensor, ...]:
        pixels = editor.image_processor.preprocess(list(pictures), pictures[0].height, pictures[0].width)
        return editor.prepare_latents(pixels, *shape, latents=latents)  # given some, it draws none

    clean = prepared(edited, torch.zeros(0))[1]
    _, condition, latent_ids, image_ids = prepared(sources, clean)
    positions = torch.cat([latent_ids, image_ids], dim=0)
    guidance = None
    if transformer.config.guidance_embeds:
        guidance = torch.full([len(prompts)], _value("guidance_scale", editor, arguments), device=device).float()

    given = {"guidance": guidance, "pooled_projections": pooled, "txt_ids": text_ids, "img_ids": positions}
    return Encoded(clean, _behind(transformer, condition, words, **given))


def _klein(
    editor: Any,
    sources: Sequence[Image.Image],
    prompts: Sequence[str],
    edited: Sequence[Image.Image],
    arguments: Mapping[str, Any],
) -> Encoded:
    """The source's tokens stand behind the noisy ones; their time coordinate is 10."""
    device, transformer = editor._execution_device, editor.transformer
    words, text_ids = editor.encode_prompt(
        list(prompts),
        device,
        max_sequence_length=_value("max_sequence_length", editor, arguments),
        text_encoder_out_layers=_value("text_encoder_out_layers", editor, arguments),
    )

    def tokens(picture: Image.Image) -> tuple[Tensor, Tensor]:
        pixels = editor.image_processor.preprocess(
            picture, height=picture.height, width=picture.width, resize_mode="crop"
        )
        return editor.prepare_image_latents([pixels], 1, None, device, editor.vae.dtype)

    clean = torch.cat([tokens(picture)[0] for picture in edited])
    condition, image_ids = (torch.cat(parts) for parts in zip(*map(tokens, sources)))
    side = 2 * editor.vae_scale_factor
    grid = clean.new_empty(len(prompts), 1, edited[0].height // side, edited[0].width // side)
    positions = torch.cat([editor._prepare_latent_ids(grid).to(device), image_ids], dim=1)

    given = {"guidance": None, "txt_ids": text_ids, "img_ids": positions}
    return Encoded(clean, _behind(transformer, condition, words, **given))


def _qwen_image_edit(
    editor: Any,
    sources: Sequence[Image.Image],
    prompts: Sequence[str],
    edited: Sequence[Image.Image],
    arguments: Mapping[str, Any],
) -> Encoded:
    """The source, at about one megapixel whatever the result's size is, is read by the text encoder and stands as tokens
    behind the noisy ones."""
    device, transformer = editor._execution_device, editor.transformer
    width, height = one_megapixel(editor, sources[0].size)
    shown = [editor.image_processor.resize(source, height, width) for source in sources]
    words, mask = editor.encode_prompt(
        list(prompts), shown, device, max_sequence_length=_value("max_sequence_length", editor, arguments)
    )

    def tokens(pictures: Sequence[Image.Image]) -> Tensor:
        pixels = editor.image_processor.preprocess(list(pictures), pictures[0].height, pictures[0].width).unsqueeze(2)
        size = transformer.config.in_channels // 4, pictures[0].height, pictures[0].width
        return editor.prepare_latents(pixels, len(pictures), *size, words.dtype, device, None, torch.zeros(0))[1]

    condition = tokens(shown)
    side = 2 * editor.vae_scale_factor
    shapes = [(1, edited[0].height // side, edited[0].width // side), (1, height // side, width // side)]

    given = {"guidance": None, "encoder_hidden_states_mask": mask, "img_shapes": [shapes] * len(prompts)}
    return Encoded(tokens(edited), _behind(transformer, condition, words, **given))


def _behind(transformer: Any, condition: Tensor, words: Tensor, **given: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """`predict` of an editor that reads the source's tokens, `condition`, behind the noisy ones."""

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        return transformer(
            hidden_states=torch.cat([noisy.to(words.dtype), condition], dim=1).to(transformer.dtype),
            timestep=timesteps.to(words.dtype) / 1000,
            encoder_hidden_states=words,
            return_dict=False,
            **given,
        )[0][:, : noisy.shape[1]]

    return predict


def _value(name: str, editor: DiffusionPipeline, arguments: Mapping[str, Any]) -> Any:
    """What the editor is called with: what is given, or its own default."""
    return arguments.get(name, arguments_of(editor)[name])


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
BOTH_STREAMS = (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")

FAMILIES: dict[str, Family] = {
    "StableDiffusionInstructPix2PixPipeline": Family(
        "unet", _instruct_pix2pix, {"guidance_scale": 1.0, "image_guidance_scale": 1.0}, ATTENTION
    ),
    "FluxKontextPipeline": Family("transformer", _kontext, {"true_cfg_scale": 1.0}, BOTH_STREAMS),
    "Flux2KleinPipeline": Family("transformer", _klein, {"guidance_scale": 1.0}, (*BOTH_STREAMS, "to_qkv_mlp_proj")),
    "QwenImageEditPipeline": Family("transformer", _qwen_image_edit, {"true_cfg_scale": 1.0}, BOTH_STREAMS),
}
"""By the name of the class."""
