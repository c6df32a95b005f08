import dataclasses
import functools
import warnings

import numpy as np
import pytest
import tiny_models
import torch
from comparing import same
from PIL import Image

from diffusers_r1 import Edit, EditPlan, ImageEditR1Pipeline
from diffusers_r1.editors import working_size
from diffusers_r1.plan import Fault, FaultKind
from diffusers_r1.planners.plans import warn_of_fallbacks


pytestmark = pytest.mark.tiny

PLAN = EditPlan("", (), ("remove the red star", "make the background teal"))
FAST = {"num_inference_steps": 1}


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_kontext_works_at_a_size_it_was_trained_on(planner, prompts):
    editor = tiny_models.tiny_kontext()
    assert working_size(editor, (300, 100), {}) == (1568, 672)
    assert working_size(editor, (100, 100), {}) == (1024, 1024)
    assert working_size(editor, (100, 100), {"height": 64, "width": 96}) == (96, 64)


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (64, 64), (65, 63), (129, 40)])
def test_the_result_has_the_size_of_the_source(pipe, size):
    out = pipe(picture(*size), plan=PLAN, **FAST)
    assert out.images[0].size == size


def test_an_instruction_is_planned_and_its_plan_returned(pipe):
    out = pipe(picture(64, 64), "remove the star", max_new_tokens=8, generator=generator(), **FAST)
    plan = out.plans[0]
    assert plan.instruction == "remove the star" and plan.fallback and plan.reason
    assert out.turns[0][0].prompt == "remove the star"
    again = pipe(picture(64, 64), plan=plan, generator=generator(), **FAST)
    assert same(out.images[0], again.images[0])


def test_one_picture_with_many_instructions_and_the_other_way_round(pipe):
    assert len(pipe(picture(64, 64), ["a", "b"], max_new_tokens=2, **FAST).images) == 2
    assert len(pipe([picture(64, 64)] * 2, "a", max_new_tokens=2, **FAST).images) == 2
    assert isinstance(pipe.plan(picture(64, 64), "a", max_new_tokens=2), EditPlan)
    assert len(pipe.plan(picture(64, 64), ["a", "b", "c"], max_new_tokens=2)) == 3


def test_several_pictures_of_one_plan(pipe):
    out = pipe(picture(64, 64), plan=PLAN, num_images_per_prompt=3, generator=generator(), **FAST)
    assert len(out.images) == len(out.turns) == 3 and len(out.plans) == 1
    assert not same(out.images[0], out.images[1])
    bare = pipe.editor([PLAN.prompts()[0]] * 3, [picture(64, 64)] * 3, generator=generator(), **FAST).images
    assert all(same(*pair) for pair in zip(out.images, bare))


def test_output_types(pipe):
    sources = [picture(64, 64), picture(64, 64, 1)]
    pil = pipe(sources, plan=PLAN, generator=generator(), **FAST).images
    array = pipe(sources, plan=PLAN, generator=generator(), output_type="np", **FAST).images
    tensor = pipe(sources, plan=PLAN, generator=generator(), output_type="pt", **FAST).images
    assert array.shape == (2, 64, 64, 3) and tensor.shape == (2, 3, 64, 64)
    assert np.allclose(array, np.stack([np.asarray(image) for image in pil]) / 255, atol=1e-6)
    assert np.allclose(tensor.permute(0, 2, 3, 1).numpy(), array)
    mixed = pipe([sources[0], picture(40, 30)], plan=PLAN, output_type="pt", **FAST).images
    assert [tuple(image.shape) for image in mixed] == [(3, 64, 64), (3, 30, 40)]
    images, plans, turns, candidates, interrupted = pipe(sources, plan=PLAN, return_dict=False, **FAST)
    assert (len(images), plans, len(turns), candidates, interrupted) == (2, [PLAN, PLAN], 2, [], False)


def test_the_plan_can_be_changed_before_any_pixel_is_touched(pipe):
    seen = []

    def change(plan):
        seen.append(plan)
        return dataclasses.replace(plan, requests=("make it blue",))

    out = pipe(picture(64, 64), plan=PLAN, callback_on_plan=change, **FAST)
    assert seen == [PLAN] and out.plans[0].requests == ("make it blue",)
    assert out.turns[0][0].prompt == "make it blue"


def test_the_editor_gets_its_callback(pipe):
    steps = []

    def callback(editor, step, timestep, values):
        steps.append(step)
        return values

    pipe(picture(64, 64), plan=PLAN, turns="multi", num_inference_steps=2, callback_on_step_end=callback)
    assert steps == [0, 1, 0, 1]


def test_sampled_plans_follow_the_generator_and_leave_the_global_state(pipe):
    sampling = {"do_sample": True, "temperature": 5.0, "max_new_tokens": 12}
    before = torch.get_rng_state()
    first, again, other = (pipe.plan(picture(64, 64), "a", generator(seed), **sampling) for seed in (0, 0, 1))
    assert first == again and first.raw != other.raw
    assert torch.equal(before, torch.get_rng_state())


def test_a_sequencer_of_its_own(planner, prompts, pix2pix):
    pipe = ImageEditR1Pipeline(
        *planner, pix2pix, sequencer=planner[0], sequencer_processor=planner[1], prompts=prompts
    )
    assert isinstance(pipe.plan(picture(64, 64), "a", max_new_tokens=4), EditPlan)
    pipe.sequencer_processor = None
    with pytest.raises(ValueError, match="sequencer_processor"):
        pipe.plan(picture(64, 64), "a")


def test_a_text_only_planner(text_planner, prompts, pix2pix):
    pipe = ImageEditR1Pipeline(*text_planner, pix2pix, prompts=prompts)
    assert len(pipe(picture(64, 64), ["a", "bb"], max_new_tokens=4, **FAST).images) == 2


def test_defaults_of_the_editor_go_with_it(planner, prompts, pix2pix):
    pipe = ImageEditR1Pipeline(*planner, pix2pix, prompts=prompts, editor_defaults={"num_inference_steps": 2})
    steps = []
    count = lambda *args: steps.append(args[1]) or args[3]  # noqa: E731
    pipe(picture(64, 64), plan=PLAN, callback_on_step_end=count)
    assert steps == [0, 1]
    pipe.editor = pipe.editor
    assert pipe.editor_defaults == {"num_inference_steps": 2}
    pipe.editor = tiny_models.tiny_pix2pix()
    assert pipe.editor_defaults == {}


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({}, ValueError, "either `instruction`"),
        ({"instruction": "a", "plan": PLAN}, ValueError, "either `instruction`"),
        ({"instruction": " "}, ValueError, "empty"),
        ({"instruction": 3}, TypeError, "int"),
        ({"plan": {"requests": ["a"]}}, TypeError, "EditPlan"),
        ({"plan": PLAN, "turns": "both"}, ValueError, "single"),
        ({"plan": PLAN, "num_images_per_prompt": 0}, ValueError, "num_images_per_prompt"),
        ({"plan": PLAN, "generator": [generator()] * 2}, ValueError, "2 generators"),
        ({"plan": PLAN, "output_type": "latent"}, ValueError, "output_type"),
        ({"plan": PLAN, "prompt": "a"}, TypeError, "`prompt` is not for the caller"),
        ({"plan": PLAN, "true_cfg_scale": 4.0}, TypeError, "takes no `true_cfg_scale`.*image_guidance_scale"),
    ],
)
def test_bad_input_is_refused_before_any_model_runs(pipe, monkeypatch, arguments, error, said):
    def fail(*args, **kwargs):
        raise AssertionError("a model ran")

    monkeypatch.setattr(type(pipe.planner), "forward", fail)
    monkeypatch.setattr(type(pipe.editor.unet), "forward", fail)
    with pytest.raises(error, match=said):
        pipe(picture(64, 64), **arguments)


def test_lists_that_do_not_fit_are_refused(pipe):
    with pytest.raises(ValueError, match="2 pictures do not go with 3"):
        pipe([picture(64, 64)] * 2, ["a"] * 3)
    with pytest.raises(ValueError, match="2 pictures do not go with 3"):
        pipe.plan([picture(64, 64)] * 2, ["a"] * 3)


def test_parts_that_are_missing_are_named(planner, prompts, pix2pix):
    with pytest.raises(ValueError, match="no planner"):
        ImageEditR1Pipeline(None, None, pix2pix)(picture(64, 64), "a")
    assert ImageEditR1Pipeline(None, None, pix2pix)(picture(64, 64), plan=PLAN, **FAST).images
    with pytest.raises(ValueError, match="no editor"):
        ImageEditR1Pipeline(*planner, None)(picture(64, 64), "a")


def test_a_pipeline_that_takes_no_picture_is_no_editor(planner, pix2pix):
    from diffusers import StableDiffusionPipeline

    parts = {**pix2pix.components}
    text_to_image = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    with pytest.raises(TypeError, match="takes no `image`"):
        ImageEditR1Pipeline(*planner, text_to_image)(picture(64, 64), plan=PLAN)


def test_using_the_pipeline_does_not_warn_of_deprecated_calls(pipe):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        pipe(picture(64, 64), "a", max_new_tokens=2, **FAST)


def test_a_mask_keeps_its_edges_and_holds_in_every_turn(planner, prompts, monkeypatch):
    pipe = ImageEditR1Pipeline(*planner, tiny_models.tiny_kontext_inpaint(), prompts=prompts)
    pipe.set_progress_bar_config(disable=True)
    seen, original = [], type(pipe.editor).__call__

    @functools.wraps(original)
    def record(self, *args, **kwargs):
        seen.append(kwargs["mask_image"])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(pipe.editor), "__call__", record)
    mask = Image.new("L", (10, 10))
    mask.paste(255, (3, 3, 7, 7))
    size = {"height": 64, "width": 64, "num_inference_steps": 1, "strength": 1.0}
    pipe(picture(40, 40), plan=PLAN, turns="multi", mask_image=mask, **size)
    assert len(seen) == 2 and all(one.size == (64, 64) for one in seen)
    for one in seen:  # neither blurred nor rung: black and white are all there is, in the shares that they had
        values = np.asarray(one)
        assert set(np.unique(values)) == {0, 255} and abs((values == 255).mean() - 0.16) < 0.02


def test_what_is_said_of_a_plan_that_is_not_whole(caplog):
    edits = (Edit("recolor", "hat", "red"),)
    whole = EditPlan("a", edits, ("make the hat red",))
    in_part = EditPlan("b", edits, ("make the hat red",), faults=(Fault(FaultKind.LOST_ITEM, "subject", "coat"),))
    warn_of_fallbacks([whole])
    assert not caplog.records
    warn_of_fallbacks([whole, in_part])
    (said,) = caplog.records
    assert said.getMessage().startswith("A part of the plan for 'b' could not be read: ")
