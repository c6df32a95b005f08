"""One denoising in which the guidance of each sub-request is added up, against the formula worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import ImageProjection
from tiny_editors import CASES, difference, editor_of, picture, seeded
from tiny_models import tiny_pix2pix

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.editors import Asked, call_editor, check_composed
from diffusers_r1.editors.composed import COMPOSERS, composed


pytestmark = pytest.mark.tiny

REQUESTS = ("remove the star", "make it blue", "add a hat")
PLAN = EditPlan("", (), REQUESTS)
GIVEN: dict[str, dict[str, Any]] = {
    "StableDiffusionInstructPix2PixPipeline": {"num_inference_steps": 2, "guidance_scale": 3.0},
    "StableDiffusionXLInstructPix2PixPipeline": {**CASES["StableDiffusionXLInstructPix2PixPipeline"].given, "num_inference_steps": 2, "guidance_scale": 15.0},
    "QwenImageEditPipeline": {**CASES["QwenImageEditPipeline"].given, "true_cfg_scale": 3.0},
    "QwenImageEditPlusPipeline": {**CASES["QwenImageEditPlusPipeline"].given, "true_cfg_scale": 3.0},
}  # fmt: skip


def test_every_composer_is_tested():
    assert set(GIVEN) == set(COMPOSERS)


def asked(*requests: str) -> Asked:
    return Asked(". ".join(requests), requests, composed=len(requests) > 1)


def call(name: str, what: Asked) -> tuple[Any, list[torch.Tensor]]:
    """The picture, and what the denoiser gave at each pass."""
    editor, passes = editor_of(name), []
    part = getattr(editor, COMPOSERS[name].denoiser)
    hook = part.register_forward_hook(lambda _, args, output: passes.append(output[0].clone()))
    source = picture((64, 64))
    image = call_editor(editor, [source], [what], [seeded(1)], **GIVEN[name])[0]
    hook.remove()
    return image, passes


def predictions_of(name: str, **given: Any) -> list[torch.Tensor]:
    """What the steps of all requests together make of the denoiser's passes."""
    editor, predictions = editor_of(name), []
    step = editor.scheduler.step

    def watch(prediction: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        predictions.append(prediction.clone())
        return step(prediction, *args, **kwargs)

    editor.scheduler.step = watch
    try:
        call_editor(editor, [picture((64, 64))], [asked(*REQUESTS)], [seeded(1)], **given)
    finally:
        del editor.scheduler.step
    return predictions


@pytest.mark.parametrize("name", GIVEN)
def test_the_first_step_is_the_sum_of_the_guidances(name):
    """The denoiser's own answers under each request alone, at the first step, where all start from the same noise."""
    part = getattr(editor_of(name), COMPOSERS[name].denoiser)
    alone = [call(name, asked(request))[1] for request in REQUESTS]
    predictions = predictions_of(name, **GIVEN[name])
    if COMPOSERS[name].denoiser == "unet":
        rows = [passes[0].chunk(3) for passes in alone]
        text, (_, shown, nothing) = [row[0] for row in rows], rows[0]
        scale, picture_scale = GIVEN[name]["guidance_scale"], 1.5
        expected = nothing + scale * sum(one - shown for one in text) + picture_scale * (shown - nothing)
    else:
        tokens = predictions[0].shape[1]
        text, nothing = [passes[0][:, :tokens] for passes in alone], alone[0][1][:, :tokens]
        under_all = nothing + sum(one - nothing for one in text)
        guided = nothing + 3.0 * (under_all - nothing)
        expected = guided * (under_all.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(predictions[0], expected, atol=1e-4, rtol=1e-3)
    assert not part._forward_hooks, "nothing is left on the denoiser"


@pytest.mark.parametrize("name", [name for name in GIVEN if not CASES[name].slow])
def test_order_does_not_matter_and_one_request_is_a_single_turn(planner, prompts, name):
    pipe = ImageEditR1Pipeline(*planner, editor_of(name), prompts=prompts)
    source = picture((64, 64))

    def edited(requests: tuple[str, ...], turns: str) -> Any:
        return pipe(source, plan=EditPlan("", (), requests), turns=turns, generator=seeded(1), **GIVEN[name])

    out = edited(REQUESTS, "composed")
    assert len(out.turns[0]) == 1 and out.turns[0][0].requests == REQUESTS
    assert difference(out.images[0], edited(REQUESTS[::-1], "composed").images[0]) <= 1
    assert difference(out.images[0], edited(REQUESTS, "single").images[0]) > 0
    assert difference(edited(REQUESTS[:1], "composed").images[0], edited(REQUESTS[:1], "single").images[0]) == 0


def test_several_pictures(planner, prompts):
    pipe = ImageEditR1Pipeline(*planner, editor_of("StableDiffusionInstructPix2PixPipeline"), prompts=prompts)
    given = GIVEN["StableDiffusionInstructPix2PixPipeline"]
    sources = [picture((64, 64)), picture((64, 64), 1), picture((64, 64), 2)]
    plans = [PLAN, EditPlan("", (), REQUESTS[:2]), EditPlan("", (), REQUESTS[::-1])]
    calls: list[int] = []
    hook = pipe.editor.unet.register_forward_hook(lambda *_: calls.append(1))
    out = pipe(sources, plan=plans, turns="composed", generator=[seeded(1), seeded(2), seeded(3)], **given)
    hook.remove()
    assert len(calls) == 2 * given["num_inference_steps"], "those of three sub-requests share a call"
    for row in range(3):
        only = pipe(sources[row], plan=plans[row], turns="composed", generator=seeded(row + 1), **given)
        assert difference(only.images[0], out.images[row]) <= 1


def test_several_pictures_with_a_negative_prompt(planner, prompts):
    pipe = ImageEditR1Pipeline(*planner, editor_of("StableDiffusionInstructPix2PixPipeline"), prompts=prompts)
    given = {**GIVEN["StableDiffusionInstructPix2PixPipeline"], "negative_prompt": "blurry"}
    sources = [picture((64, 64), row) for row in range(3)]
    out = pipe(sources, plan=PLAN, turns="composed", generator=[seeded(row) for row in range(3)], **given)
    only = pipe(sources[2], plan=PLAN, turns="composed", generator=seeded(2), **given)
    assert difference(only.images[0], out.images[2]) <= 1


def test_negative_embeddings_are_what_qwen_guides_away_from():
    name = "QwenImageEditPipeline"
    inputs = COMPOSERS[name].encode(editor_of(name), ["blurry"], {"image": picture((64, 64))})
    embedded = {f"negative_prompt_embeds{end}": value for end, value in zip(("", "_mask"), inputs.values())}
    plain = {name: value for name, value in GIVEN[name].items() if name != "negative_prompt"}
    (said, *_), (shown, *_) = (
        predictions_of(name, **plain, **negative) for negative in ({"negative_prompt": "blurry"}, embedded)
    )
    torch.testing.assert_close(shown, said)


def with_ip_adapter(unet: Any) -> None:
    """Give a denoiser an IP adapter of random weights, in the form of its files."""
    projection = ImageProjection(image_embed_dim=8, cross_attention_dim=32, num_image_text_embeds=4)
    state = {
        "image_proj": {
            f"{part.replace('image_embeds', 'proj')}": value for part, value in projection.state_dict().items()
        }
    }
    layers = [part for part in unet.modules() if isinstance(part, Attention) and part.is_cross_attention]
    state["ip_adapter"] = {
        f"{2 * number + 1}.to_{kind}_ip.weight": torch.randn(layer.inner_dim, 32)
        for number, layer in enumerate(layers)
        for kind in "kv"
    }
    unet._load_ip_adapter_weights([state])


def test_a_further_pass_sees_what_an_ip_adapter_shows_under_the_text():
    editor = tiny_pix2pix()
    unet, device = editor.unet, torch.device("cpu")
    with_ip_adapter(unet)
    latents, step = torch.randn(3, 8, 8, 8, generator=seeded(0)), torch.tensor(500)
    shown = torch.cat([torch.randn(1, 1, 8, generator=seeded(1)), torch.zeros(2, 1, 8)])

    def predicted(request: str) -> torch.Tensor:
        states = editor._encode_prompt(request, device, 1, True)
        seen = {"image_embeds": [shown]}
        return unet(latents, step, encoder_hidden_states=states, added_cond_kwargs=seen, return_dict=False)[0]

    with torch.no_grad():
        (first, without, _), (second, *_) = predicted("make it blue"), predicted("add a hat")
        with composed(editor, [asked("make it blue", "add a hat")], {}):
            summed = predicted("make it blue")[0]
    torch.testing.assert_close(summed, first + second - without, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("FluxKontextPipeline", {}, "FluxKontextPipeline cannot be asked.*StableDiffusionInstructPix2Pix"),
        ("StableDiffusionInstructPix2PixPipeline", {"guidance_scale": 1.0}, "`guidance_scale` above 1"),
        (
            "StableDiffusionInstructPix2PixPipeline",
            {"guidance_scale": 1.5, "image_guidance_scale": 0.9},
            "`image_guidance_scale` below 1",
        ),
        ("QwenImageEditPipeline", {"true_cfg_scale": 1.0}, "`true_cfg_scale` above 1"),
    ],
)
def test_what_cannot_be_composed_is_refused(planner, prompts, name, given, message):
    with pytest.raises(ValueError, match=message):
        check_composed(editor_of(name), given)
    pipe = ImageEditR1Pipeline(*planner, editor_of(name), prompts=prompts)
    with pytest.raises(ValueError, match=message):
        pipe(picture((64, 64)), plan=PLAN, turns="composed", **given)
