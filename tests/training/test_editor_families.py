"""What a denoiser is given in training is what its pipeline gives it, checked against the pipeline's own call."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models
import torch
from tiny_editors import picture, stable_diffusion

from diffusers_r1.editors.positions import with_positions
from diffusers_r1.training.editor_families import FAMILIES, family_of


WIDTH, HEIGHT = 96, 64
SIZE = {"width": WIDTH, "height": HEIGHT}
BUILDERS = {
    "StableDiffusionInstructPix2PixPipeline": (tiny_models.tiny_pix2pix, {}),
    "FluxKontextPipeline": (
        tiny_models.tiny_kontext,
        {**SIZE, "_auto_resize": False, "max_area": WIDTH * HEIGHT, "guidance_scale": 2.5},
    ),
    "Flux2KleinPipeline": (tiny_models.tiny_flux2_klein, SIZE),
    "QwenImageEditPipeline": (tiny_models.tiny_qwen_edit, SIZE),
}


def test_every_family_is_tested():
    assert BUILDERS.keys() == FAMILIES.keys()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_denoiser_is_given_what_the_pipeline_gives_it(name):
    build, given = BUILDERS[name]
    editor = build()
    editor.set_progress_bar_config(disable=True)
    family = family_of(editor)
    denoiser = getattr(editor, family.denoiser)
    calls: list[dict[str, Any]] = []

    def record(module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        positional = dict(zip(("sample", "timestep"), args))
        calls.append({**positional, **kwargs})

    hook = denoiser.register_forward_pre_hook(record, with_kwargs=True)
    source, edited = picture((WIDTH, HEIGHT)), picture((WIDTH, HEIGHT), seed=1)
    arguments = family.unguided(given)
    accepted = {key: value for key, value in arguments.items() if key != "max_area" or "Kontext" in name}
    with torch.no_grad(), with_positions(editor):
        editor(
            image=source,
            prompt="make it red",
            num_inference_steps=2,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            **accepted,
        )
        encoded = family.encode(editor, [source], ["make it red"], [edited], arguments)
        by_pipeline = calls[0]
        latents = by_pipeline["sample" if "sample" in by_pipeline else "hidden_states"]
        noisy = latents[:, : encoded.clean.shape[1]]  # channels or tokens: what follows is the source's
        prediction = encoded.predict(noisy, editor.scheduler.timesteps[:1])
    hook.remove()
    assert len(calls) == 3
    assert prediction.shape == encoded.clean.shape == noisy.shape
    by_row = calls[-1]
    for key in by_row:
        assert _same(by_pipeline[key], by_row[key]), key
    assert {key for key in by_pipeline if key not in by_row} <= {
        "joint_attention_kwargs",
        "attention_kwargs",
        "cross_attention_kwargs",
        "added_cond_kwargs",
    }


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.allclose(one.reshape(other.shape), other, atol=1e-6)
    return one == other


@pytest.mark.parametrize("name", FAMILIES)
def test_clean_latents_are_those_that_the_pipeline_decodes(name):
    """The latents of a picture, decoded as the pipeline decodes its result, are what the autoencoder makes of the picture."""
    build, given = BUILDERS[name]
    editor = build()
    editor.set_progress_bar_config(disable=True)
    family = family_of(editor)
    edited = picture((WIDTH, HEIGHT), seed=1)
    arguments = family.unguided(given)
    with torch.no_grad(), with_positions(editor):
        encoded = family.encode(editor, [edited], ["make it red"], [edited], arguments)

        def instead(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            return {"latents": encoded.clean}

        result = editor(
            image=edited,
            prompt="make it red",
            num_inference_steps=1,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
            callback_on_step_end=instead,
            **arguments,
        ).images[0]
        pixels = editor.image_processor.preprocess(edited, HEIGHT, WIDTH)
        if "Qwen" in name:
            pixels = pixels.unsqueeze(2)
        decoded = editor.vae.decode(editor.vae.encode(pixels).latent_dist.mode()).sample
    decoded = decoded[:, :, 0] if decoded.ndim == 5 else decoded
    assert torch.allclose(result, (decoded[0] / 2 + 0.5).clamp(0, 1), atol=1e-4)


def test_a_batch_is_its_pictures_one_by_one():
    for name, (build, given) in BUILDERS.items():
        editor = build()
        family = family_of(editor)
        arguments = family.unguided(given)
        sources = [picture((WIDTH, HEIGHT), seed) for seed in (0, 1)]
        edited = [picture((WIDTH, HEIGHT), seed) for seed in (2, 3)]
        prompts = ["make it red", "remove the small dog on the left"]
        with torch.no_grad(), with_positions(editor):
            both = family.encode(editor, sources, prompts, edited, arguments)
            predicted = both.predict(both.clean, torch.tensor([900.0, 300.0]))
            for row, time in enumerate((900.0, 300.0)):
                one = slice(row, row + 1)
                alone = family.encode(editor, sources[one], prompts[one], edited[one], arguments)
                assert torch.allclose(alone.clean, both.clean[one], atol=1e-5), name
                expected = alone.predict(alone.clean, torch.tensor([time]))
                assert torch.allclose(expected, predicted[one], atol=1e-4), name


def test_other_classes_are_refused():
    with pytest.raises(ValueError, match="StableDiffusionImg2ImgPipeline cannot be trained.*FluxKontextPipeline"):
        family_of(stable_diffusion("StableDiffusionImg2ImgPipeline")())


def test_guidance_is_refused():
    with pytest.raises(ValueError, match="`true_cfg_scale` is 1.0, not 4.0"):
        FAMILIES["QwenImageEditPipeline"].unguided({"true_cfg_scale": 4.0})
