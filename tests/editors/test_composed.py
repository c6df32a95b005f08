"""One denoising in which the guidance of each sub-request is added up, against the formula worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_editors import CASES, difference, editor_of, picture, seeded

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.editors import Asked, call_editor, check_composed
from diffusers_r1.editors.composed import COMPOSERS


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


@pytest.mark.parametrize("name", GIVEN)
def test_the_first_step_is_the_sum_of_the_guidances(name):
    """The denoiser's own answers under each request alone, at the first step, where all start from the same noise."""
    part = getattr(editor_of(name), COMPOSERS[name].denoiser)
    alone = [call(name, asked(request))[1] for request in REQUESTS]
    composed: list[torch.Tensor] = []
    editor = editor_of(name)
    step = editor.scheduler.step

    def watch(prediction: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        composed.append(prediction.clone())
        return step(prediction, *args, **kwargs)

    editor.scheduler.step = watch
    try:
        call_editor(editor, [picture((64, 64))], [asked(*REQUESTS)], [seeded(1)], **GIVEN[name])
    finally:
        del editor.scheduler.step
    if COMPOSERS[name].denoiser == "unet":
        rows = [passes[0].chunk(3) for passes in alone]
        text, (_, shown, nothing) = [row[0] for row in rows], rows[0]
        scale, picture_scale = GIVEN[name]["guidance_scale"], 1.5
        expected = nothing + scale * sum(one - shown for one in text) + picture_scale * (shown - nothing)
    else:
        tokens = composed[0].shape[1]
        text, nothing = [passes[0][:, :tokens] for passes in alone], alone[0][1][:, :tokens]
        under_all = nothing + sum(one - nothing for one in text)
        guided = nothing + 3.0 * (under_all - nothing)
        expected = guided * (under_all.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(composed[0], expected, atol=1e-4, rtol=1e-3)
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


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("FluxKontextPipeline", {}, "FluxKontextPipeline cannot be asked.*StableDiffusionInstructPix2Pix"),
        ("StableDiffusionInstructPix2PixPipeline", {"guidance_scale": 1.0}, "`guidance_scale` above 1"),
        ("QwenImageEditPipeline", {"true_cfg_scale": 1.0}, "`true_cfg_scale` above 1"),
    ],
)
def test_what_cannot_be_composed_is_refused(planner, prompts, name, given, message):
    with pytest.raises(ValueError, match=message):
        check_composed(editor_of(name), given)
    pipe = ImageEditR1Pipeline(*planner, editor_of(name), prompts=prompts)
    with pytest.raises(ValueError, match=message):
        pipe(picture((64, 64)), plan=PLAN, turns="composed", **given)
