"""Every editor that has a row, with tiny random weights of its real class, against the class called by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import ModularPipeline
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from tiny_editors import CASES, MASK, alone, difference, editor_of, picture, seeded

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.editors import PAIRS, REFERENCES, TRAITS, arguments_of, traits_of, working_size


pytestmark = [
    pytest.mark.tiny,
    # Stable Diffusion with a depth estimator asks for autocast on a processor, too.
    pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning"),
    # The processor of FLUX.2's and GLM-Image's text encoder, as diffusers calls it.
    pytest.mark.filterwarnings("ignore:Kwargs passed to `processor.__call__`:UserWarning"),
]

ONE, TWO = EditPlan("", (), ("make it blue",)), EditPlan("", (), ("remove the star", "make it blue"))


def test_every_row_has_a_case():
    assert {type(editor_of(name)).__name__ for name in CASES} == set(CASES) == set(TRAITS)


@pytest.fixture
def pipe(planner, prompts, name):
    return ImageEditR1Pipeline(*planner, editor_of(name), prompts=prompts)


def smaller(name: str) -> dict[str, Any]:
    """The case's arguments without a size of its own, and at a ceiling that keeps it quick where there is one."""
    given = {key: value for key, value in CASES[name].given.items() if key not in ("height", "width")}
    own_sizes = TRAITS[name].pixels is None and "height" not in CASES[name].given
    return given if own_sizes else {**given, "max_pixels": 64 * 64}


@pytest.mark.parametrize("name", CASES)
def test_one_picture_in_one_turn_equals_the_editor_alone(pipe, name):
    source = picture((64, 64)).resize(working_size(pipe.editor, (64, 64), CASES[name].given))
    out = pipe(source, plan=ONE, generator=seeded(1), **CASES[name].given)
    turn = out.turns[0][0]
    assert turn.prompt == "make it blue" and turn.size_given == turn.size_returned == source.size
    assert difference(out.images[0], alone(name, source, "make it blue", seeded(1))) == 0


@pytest.mark.parametrize("name", CASES)
def test_small_and_long_pictures_in_several_turns(pipe, name):
    """40x40, 8:1 and 1:12, each with a seed of its own; the turns of the long one by hand."""
    given, slow = smaller(name), CASES[name].slow
    sources = [picture((320, 40)), picture((40, 40), 1), picture((40, 480), 2)][: 2 if slow else 3]
    plans = [ONE if slow else TWO, ONE, ONE][: len(sources)]
    state = torch.get_rng_state()
    generators = [seeded(number) for number in range(1, len(sources) + 1)]
    out = pipe(sources, plan=plans, turns="multi", generator=generators, **given)
    assert torch.equal(state, torch.get_rng_state())
    assert [image.size for image in out.images] == [source.size for source in sources]
    max_pixels = given.pop("max_pixels", None)
    for record, source, plan in zip(out.turns, sources, plans):
        assert [turn.prompt for turn in record] == list(plan.requests)
        at_work = working_size(pipe.editor, source.size, given, max_pixels)
        assert {turn.size_given for turn in record} == {turn.size_returned for turn in record} == {at_work}

    width, height = out.turns[0][0].size_given
    sized = {"height": height, "width": width} if "height" in CASES[name].given else {}
    current, generator = sources[0].resize((width, height), Image.Resampling.LANCZOS), seeded(1)
    for turn in out.turns[0]:
        current = alone(name, current, turn.prompt, generator, **sized)
        assert difference(turn.image, current) <= 1


@pytest.mark.parametrize("name", CASES)
def test_a_photo_of_twelve_megapixels_is_worked_at_what_the_class_was_made_for(name):
    editor, traits = editor_of(name), TRAITS[name]
    width, height = working_size(editor, (4032, 3024), {})
    most = traits.pixels(editor) if callable(traits.pixels) else traits.pixels or 1.15 * 1024 * 1024
    assert 0.7 * most < width * height <= most, "the largest size within the ceiling"
    assert width / height == pytest.approx(4 / 3, rel=0.35 if traits.snaps else 0.15)
    assert (traits.pixels is None) == (traits.pixels_from == "")


@pytest.mark.parametrize("name", CASES)
def test_values_for_each_picture_go_with_it(planner, prompts, name, tmp_path):
    """Two pictures of two sizes, two of each, every argument that has two values here; against the class by hand."""
    pipe, case = ImageEditR1Pipeline(*planner, editor_of(name), prompts=prompts), CASES[name]
    accepted, traits = arguments_of(pipe.editor), traits_of(pipe.editor)
    coat, hat = picture((64, 64), 3), picture((96, 64), 4)
    coat.save(tmp_path / "coat.png")
    other = MASK.transpose(Image.Transpose.ROTATE_90)
    other.save(tmp_path / "mask.png")
    pairs = {
        "negative_prompt": ("blur", "noise"),
        "guidance_scale": (1.5, 3.0),
        "image_guidance_scale": (1.5, 2.0),
        "img_guidance_scale": (1.6, 2.0),
        "true_cfg_scale": (2.0, 3.0),
        "strength": (0.7, 1.0),
        "num_inference_steps": (2, 2) if "SanaSprint" in name else (2, 3),  # it redraws in two steps only
        "image_reference": (tmp_path / "coat.png", hat),
        traits.mask: (MASK, tmp_path / "mask.png"),
    }
    slow = {"num_inference_steps", "strength"} if case.slow else set()
    pairs = {argument: values for argument, values in pairs.items() if argument in set(accepted) - slow}
    opened = {tmp_path / "coat.png": coat, tmp_path / "mask.png": other}
    sources = [picture((64, 64)), picture((128, 64), 1)]
    each = 1 if case.slow else 2
    generators = [seeded(number) for number in range(2 * each)]
    given = {**case.given, **{argument: list(values) for argument, values in pairs.items()}}
    given = {argument: value for argument, value in given.items() if argument not in ("height", "width")}
    sized = "height" in case.given and not traits.mask_fixes_size
    if sized:
        given["height"] = [64, 64]
    out = pipe(sources, plan=ONE, generator=generators, num_images_per_prompt=each, **given)
    for row, (result, record) in enumerate(zip(out.images, out.turns)):
        size = record[0].size_given
        own = {argument: values[row // each] for argument, values in pairs.items()}
        own = {argument: opened.get(value, value) if not isinstance(value, Image.Image) else value
               for argument, value in own.items()}  # fmt: skip
        if "height" in case.given:
            own |= {"width": size[0], "height": size[1]} if sized else {"width": None, "height": None}
        bare = alone(
            name, sources[row // each].resize(size, Image.Resampling.LANCZOS), "make it blue", seeded(row), **own
        )
        assert difference(record[0].image, bare) <= 1
        assert result.size == sources[row // each].size
    if not case.slow and "height" not in traits.ignored:
        assert out.turns[0][0].size_given != out.turns[each][0].size_given


@pytest.mark.parametrize("name", [name for name, row in TRAITS.items() if row.lists == REFERENCES])
def test_a_picture_with_a_reference(pipe, name):
    given = CASES[name].given
    # GLM-Image's own code joins features of one size only
    source, coat = picture((64, 64)), picture((64, 64) if name == "GlmImagePipeline" else (96, 64), 1)
    out = pipe([[source, coat]], plan=ONE, generator=seeded(1), **given)
    at_work = source.resize(out.turns[0][0].size_given, Image.Resampling.LANCZOS)
    beside = alone(name, at_work, "make it blue", seeded(1), [coat])
    assert difference(out.turns[0][0].image, beside) == 0 and out.images[0].size == (64, 64)
    if not CASES[name].slow:
        assert difference(beside, alone(name, at_work, "make it blue", seeded(1))) > 0


@pytest.mark.parametrize("name", [name for name, row in TRAITS.items() if row.reference is not None and name in CASES])
def test_references_that_flux2_would_refuse_are_made_to_fit(pipe, name):
    if TRAITS[name].lists == REFERENCES:
        small, long = picture((30, 30), 1), picture((400, 40), 2)
        out = pipe([[picture((64, 64)), small, long]], plan=ONE, generator=seeded(1), **CASES[name].given)
        assert out.images[0].size == (64, 64)


@pytest.mark.parametrize("name", [name for name, row in TRAITS.items() if row.lists == PAIRS and name in CASES])
def test_pictures_of_one_size_share_a_call_in_every_turn(pipe, name):
    """A batch has other rounding, so equal to one within a step of 255."""
    given = CASES[name].given
    part = pipe.editor.unet if hasattr(pipe.editor, "unet") else pipe.editor.transformer
    calls = []
    hook = part.register_forward_hook(lambda *_: calls.append(1))
    sources = [picture((64, 64)), picture((96, 32), 1), picture((64, 64), 2)]
    if "height" in given:
        sources[1] = picture((64, 64), 1)
    seeds = [seeded(1), seeded(2), seeded(3)]
    try:
        pipe(sources[0], plan=TWO, turns="multi", generator=seeded(1), **given)
        alone_calls = len(calls)
        calls.clear()
        out = pipe(sources, plan=TWO, turns="multi", generator=seeds, **given)
        assert len(calls) == alone_calls * len({record[0].size_given for record in out.turns})
    finally:
        hook.remove()
    last = pipe(sources[2], plan=TWO, turns="multi", generator=seeded(3), **given)
    assert difference(last.images[0], out.images[2]) <= 1


def test_references_are_refused_by_an_editor_that_takes_one_picture(planner, prompts, pix2pix):
    pipe = ImageEditR1Pipeline(*planner, pix2pix, prompts=prompts)
    with pytest.raises(ValueError, match=r"one picture per result.*Flux2Pipeline"):
        pipe([[picture((64, 64)), picture((64, 64), 1)]], "make it blue")


@pytest.mark.parametrize("name", [name for name, row in TRAITS.items() if row.mask and name in CASES])
def test_a_mask_for_each_picture(pipe, name):
    if CASES[name].slow:
        pytest.skip("its values for each picture are asked above")
    argument, source = traits_of(pipe.editor).mask, picture((64, 64))
    white, half = Image.new("RGB", (20, 20), "white"), MASK
    options = {**CASES[name].given, "num_inference_steps": 3}
    masks = {argument: [white, half]}
    out = pipe([source] * 2, plan=ONE, generator=[seeded(1), seeded(1)], **{**options, **masks})
    for mask, image in zip((white, half), out.images):
        only = pipe(source, plan=ONE, generator=seeded(1), **{**options, argument: mask})
        assert difference(only.images[0], image) == 0
    assert difference(*out.images) > 0
    with pytest.raises(ValueError, match="2 values of `mask.*` do not go with 3 pictures"):
        pipe([source] * 3, plan=ONE, **{**options, **masks})


@pytest.mark.parametrize("name", [name for name, row in TRAITS.items() if row.mask_needed and name in CASES])
def test_an_editor_that_needs_a_mask_says_so(pipe, name):
    with pytest.raises(ValueError, match="needs a `mask_image`: white"):
        pipe(picture((64, 64)), "make it blue")


@pytest.mark.parametrize("name", [name for name, row in TRAITS.items() if row.ignored and name in CASES])
def test_arguments_that_an_editor_ignores_are_refused(pipe, name):
    with pytest.raises(TypeError, match="takes no `height`"):
        pipe(picture((64, 64)), plan=ONE, height=64)


@pytest.mark.parametrize(
    "name", ["StableDiffusionInstructPix2PixPipeline", "FluxKontextPipeline", "Flux2KleinPipeline"]
)
def test_a_lora_on_the_editor(planner, prompts, name, tmp_path):
    trained = CASES[name].build()
    part = "unet" if hasattr(trained, "unet") else "transformer"
    torch.manual_seed(0)
    getattr(trained, part).add_adapter(
        LoraConfig(r=2, lora_alpha=64, target_modules=["to_q", "to_v"], init_lora_weights=False)
    )
    layers = get_peft_model_state_dict(getattr(trained, part))
    trained.save_lora_weights(tmp_path, **{f"{part}_lora_layers": layers})

    editor, given = CASES[name].build(), {**CASES[name].given, "num_inference_steps": 3}
    editor.set_progress_bar_config(disable=True)
    pipe = ImageEditR1Pipeline(*planner, editor, prompts=prompts)
    before = pipe(picture((64, 64)), plan=ONE, generator=seeded(1), **given).images[0]
    pipe.editor.load_lora_weights(tmp_path)
    adapted = pipe(picture((64, 64)), plan=ONE, generator=seeded(1), **given).images[0]
    pipe.editor.unload_lora_weights()
    after = pipe(picture((64, 64)), plan=ONE, generator=seeded(1), **given).images[0]
    assert difference(before, adapted) > 0 and difference(before, after) == 0


class TestModular:
    @pytest.fixture
    def pipe(self, planner, prompts):
        return ImageEditR1Pipeline(*planner, CASES["QwenImageEditModularPipeline"].build(), prompts=prompts)

    def test_it_is_moved_with_the_rest(self, pipe):
        pipe.planner = None  # which other tests use
        pipe.to(torch.bfloat16)
        assert pipe.editor.transformer.dtype == pipe.editor.text_encoder.dtype == torch.bfloat16

    @pytest.mark.parametrize("method", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
    def test_what_does_not_work_says_so(self, pipe, method):
        with pytest.raises(ValueError, match=f"`{method}` does not work.*ComponentsManager"):
            getattr(pipe, method)(device="cpu")
        with pytest.raises(ValueError, match="ComponentsManager"):
            pipe.enable_group_offload("cpu")
        assert isinstance(pipe.editor, ModularPipeline)
