"""Every editor that the documentation names, with tiny random weights of its real class, against the editor alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from diffusers import ModularPipeline
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.editors import REFERENCES, TRAITS, traits_of, working_size


pytestmark = [
    pytest.mark.tiny,
    # The processor of FLUX.2's text encoder, as diffusers calls it.
    pytest.mark.filterwarnings("ignore:Kwargs passed to `processor.__call__`:UserWarning"),
]

SMALL = {"height": 64, "width": 64, "num_inference_steps": 1}
ONE, TWO = EditPlan("", (), ("make it blue",)), EditPlan("", (), ("remove the star", "make it blue"))


def placeholder(prompt: str) -> str:
    return f"<img><|image_1|></img> {prompt}"


def edit_json(prompt: str) -> str:
    return json.dumps({"edit_instruction": prompt})


@dataclass(frozen=True)
class Case:
    """How one editor is tested.

    Args:
        build: Makes it.
        given: What the caller gives, with the pipeline and without.
        own: What one has to know to call the editor alone.
        prompt: How one has to write the prompt then.
        image: And where the picture goes.
    """

    build: Callable[[], Any]
    given: dict[str, Any] = field(default_factory=lambda: SMALL)
    own: dict[str, Any] = field(default_factory=dict)
    prompt: Callable[[str], str] = str
    image: str = "image"


MASK = Image.new("L", (64, 64))
MASK.paste(255, (0, 0, 64, 32))
KONTEXT = {"_auto_resize": False, "max_area": 64 * 64}

CASES = {
    "StableDiffusionInstructPix2PixPipeline": Case(tiny_models.tiny_pix2pix, {"num_inference_steps": 1}),
    "StableDiffusionXLInstructPix2PixPipeline": Case(tiny_models.tiny_sdxl_pix2pix),
    "FluxKontextPipeline": Case(tiny_models.tiny_kontext, own=KONTEXT),
    "FluxKontextInpaintPipeline": Case(tiny_models.tiny_kontext_inpaint, {**SMALL, "mask_image": MASK}, KONTEXT),
    "Flux2Pipeline": Case(tiny_models.tiny_flux2),
    "Flux2KleinPipeline": Case(tiny_models.tiny_flux2_klein),
    "QwenImageEditPipeline": Case(tiny_models.tiny_qwen_edit, own={"negative_prompt": " "}),
    "QwenImageEditPlusPipeline": Case(tiny_models.tiny_qwen_edit_plus, own={"negative_prompt": " "}),
    "QwenImageEditInpaintPipeline": Case(
        tiny_models.tiny_qwen_edit_inpaint,
        {"num_inference_steps": 1, "strength": 1.0, "true_cfg_scale": 1.0, "mask_image": MASK},
    ),
    "QwenImage21Pipeline": Case(
        tiny_models.tiny_qwen_image_21,
        {**SMALL, "output_resolution": 64, "true_cfg_scale": 3.0},
        {"negative_prompt": " "},
    ),
    "LongCatImageEditPipeline": Case(
        tiny_models.tiny_longcat, {"num_inference_steps": 1, "guidance_scale": 1.0, "negative_prompt": "blur"}
    ),
    "OmniGenPipeline": Case(tiny_models.tiny_omnigen, prompt=placeholder, image="input_images"),
    "BriaFiboEditPipeline": Case(tiny_models.tiny_fibo_edit, prompt=edit_json),
    "JoyImageEditPipeline": Case(tiny_models.tiny_joyimage_edit, {"num_inference_steps": 1, "guidance_scale": 1.0}),
    "FluxKontextModularPipeline": Case(tiny_models.tiny_kontext_modular, own=KONTEXT),
    "QwenImageEditModularPipeline": Case(tiny_models.tiny_qwen_edit_modular),
    "QwenImageEditPlusModularPipeline": Case(tiny_models.tiny_qwen_edit_plus_modular),
}


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def difference(first: Image.Image, second: Image.Image) -> int:
    """The largest of all channels of all pixels, from 0 to 255."""
    return int(np.abs(np.asarray(first, dtype=int) - np.asarray(second, dtype=int)).max())


@cache
def editor_of(name: str) -> Any:
    editor = CASES[name].build()
    editor.set_progress_bar_config(disable=True)
    return editor


def alone(name: str, image: Image.Image, prompt: str, generator: torch.Generator) -> Image.Image:
    """What the editor itself makes of a picture of its working size, called as its own documentation says."""
    case, editor = CASES[name], editor_of(name)
    arguments = {**case.given, **case.own, "prompt": case.prompt(prompt), "generator": generator}
    arguments[case.image] = [image] if case.image == "input_images" else image
    if "mask_image" in arguments:
        arguments["mask_image"] = MASK.resize(image.size, Image.Resampling.NEAREST)
    torch.manual_seed(generator.initial_seed())  # OmniGen and JoyImage draw from the global state too
    if isinstance(editor, ModularPipeline):
        return editor(**arguments, output="images")[0]
    return editor(**arguments).images[0]


def test_every_row_has_a_case():
    assert {type(case.build()).__name__ for case in CASES.values()} == set(CASES) == set(TRAITS)


@pytest.mark.parametrize("name", CASES)
class TestEditors:
    @pytest.fixture
    def pipe(self, planner, prompts, name):
        return ImageEditR1Pipeline(*planner, editor_of(name), prompts=prompts)

    def test_one_picture_in_one_turn_equals_the_editor_alone(self, pipe, name):
        source = picture((64, 64)).resize(working_size(pipe.editor, (64, 64), CASES[name].given))
        out = pipe(source, plan=ONE, generator=seeded(1), **CASES[name].given)
        turn = out.turns[0][0]
        assert turn.prompt == "make it blue" and turn.size_given == turn.size_returned == source.size
        assert difference(out.images[0], alone(name, source, "make it blue", seeded(1))) == 0

    def test_three_pictures_of_different_sizes_in_several_turns(self, pipe, name):
        case = CASES[name]
        sources = [picture((64, 64)), picture((70, 50), 1), picture((33, 90), 2)]
        generators = [seeded(1), seeded(2), seeded(3)]
        state = torch.get_rng_state()
        out = pipe(sources, plan=[ONE, TWO, ONE], turns="multi", generator=generators, **case.given)
        assert torch.equal(state, torch.get_rng_state())
        assert [image.size for image in out.images] == [(64, 64), (70, 50), (33, 90)]
        for record, source, plan in zip(out.turns, sources, (ONE, TWO, ONE)):
            assert [turn.prompt for turn in record] == list(plan.requests)
            at_work = working_size(pipe.editor, source.size, case.given)
            assert {turn.size_given for turn in record} == {turn.size_returned for turn in record} == {at_work}

        # The same turns by hand: the seed of a picture is its own, whatever else is in the batch.
        size, generator = working_size(pipe.editor, sources[1].size, case.given), seeded(2)
        current = sources[1].resize(size, Image.Resampling.LANCZOS)
        for request, turn in zip(TWO.requests, out.turns[1]):
            current = alone(name, current, request, generator)
            assert difference(turn.image, current) <= 1
        assert difference(out.turns[0][0].image.resize((64, 64)), out.turns[2][0].image.resize((64, 64))) > 0


@pytest.mark.parametrize("name", [name for name, row in TRAITS.items() if row.lists == REFERENCES and name in CASES])
def test_a_picture_with_references(planner, prompts, name):
    pipe, given = ImageEditR1Pipeline(*planner, editor_of(name), prompts=prompts), CASES[name].given
    source, coat, hat = picture((64, 64)), picture((80, 64), 1), picture((64, 96), 2)
    size = working_size(pipe.editor, source.size, given)
    out = pipe([[source, coat], source], plan=ONE, generator=[seeded(1), seeded(1)], **given)
    assert difference(*out.images) > 0 and out.images[0].size == (64, 64)
    again = pipe([[source, coat]], plan=ONE, generator=seeded(1), num_images_per_prompt=2, **given)
    assert difference(again.images[0], out.images[0]) == 0
    if name == "QwenImage21Pipeline":
        torch.manual_seed(1)
        bare = pipe.editor(
            image=[source.resize(size), coat, hat],
            prompt="make it blue",
            negative_prompt=" ",
            generator=seeded(1),
            **given,
        ).images[0]
        assert difference(pipe([[source, coat, hat]], plan=ONE, generator=seeded(1), **given).images[0], bare) == 0


def test_references_are_refused_by_an_editor_that_takes_one_picture(planner, prompts, pix2pix):
    pipe = ImageEditR1Pipeline(*planner, pix2pix, prompts=prompts)
    with pytest.raises(ValueError, match=r"one picture per result.*Flux2Pipeline"):
        pipe([[picture((64, 64)), picture((64, 64), 1)]], "make it blue")


@pytest.mark.parametrize("name", ["FluxKontextInpaintPipeline", "BriaFiboEditPipeline"])
def test_a_mask_for_each_picture(planner, prompts, name):
    pipe, argument = ImageEditR1Pipeline(*planner, editor_of(name), prompts=prompts), traits_of(editor_of(name)).mask
    source = picture((64, 64))
    white, half = Image.new("RGB", (20, 20), "white"), MASK
    options = {**SMALL, "num_inference_steps": 2}
    masks = {argument: [white, half]}
    out = pipe([source] * 2, plan=ONE, generator=[seeded(1), seeded(1)], **masks, **options)
    for mask, image in zip((white, half), out.images):
        only = pipe(source, plan=ONE, generator=seeded(1), **{argument: mask}, **options)
        assert difference(only.images[0], image) == 0
    assert difference(*out.images) > 0
    with pytest.raises(ValueError, match="2 masks do not go with 3 pictures"):
        pipe([source] * 3, plan=ONE, **masks, **options)


def test_an_editor_that_needs_a_mask_says_so(planner, prompts):
    pipe = ImageEditR1Pipeline(*planner, editor_of("FluxKontextInpaintPipeline"), prompts=prompts)
    with pytest.raises(ValueError, match="needs a `mask_image`: white"):
        pipe(picture((64, 64)), "make it blue")


def test_arguments_that_an_editor_ignores_are_refused(planner, prompts):
    pipe = ImageEditR1Pipeline(*planner, editor_of("JoyImageEditPipeline"), prompts=prompts)
    with pytest.raises(TypeError, match="takes no `height`"):
        pipe(picture((64, 64)), plan=ONE, height=64)


@pytest.mark.parametrize("size", [(1, 1), (30, 300), (100, 4000), (70, 65)])
def test_flux2_gets_no_picture_that_it_refuses(size):
    editor = editor_of("Flux2KleinPipeline")
    at_work = working_size(editor, size, {})
    editor.image_processor.check_image_input(Image.new("RGB", at_work))
    assert all(side % 16 == 0 for side in at_work)


@pytest.mark.parametrize("name", ["LongCatImageEditPipeline", "QwenImageEditInpaintPipeline", "JoyImageEditPipeline"])
def test_a_fixed_size_is_the_same_in_every_turn(name):
    rng = np.random.default_rng(0)
    for _ in range(500):
        size = working_size(editor_of(name), tuple(int(side) for side in rng.integers(40, 4000, 2)), {})
        assert working_size(editor_of(name), size, {}) == size


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if hasattr(case.build(), "load_lora_weights") and "Edit" not in name]
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
        return ImageEditR1Pipeline(*planner, tiny_models.tiny_qwen_edit_modular(), prompts=prompts)

    def test_it_is_moved_with_the_rest(self, pipe):
        pipe.planner = None  # which other tests use
        pipe.to(torch.bfloat16)
        assert pipe.editor.transformer.dtype == pipe.editor.text_encoder.dtype == torch.bfloat16

    @pytest.mark.parametrize("method", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
    def test_what_does_not_work_says_so(self, pipe, tmp_path, method):
        with pytest.raises(ValueError, match=f"`{method}` does not work.*ComponentsManager"):
            getattr(pipe, method)(device="cpu")
        with pytest.raises(ValueError, match="ComponentsManager"):
            pipe.enable_group_offload("cpu")
        with pytest.raises(ValueError, match="save it on its own"):
            pipe.save_pretrained(tmp_path / "bundle")
        assert not (tmp_path / "bundle").exists()
