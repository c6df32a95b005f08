"""Working sizes: rules, ceilings, one side given, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from tiny_editors import CASES, editor_of, picture, seeded

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.editors import TRAITS, as_large_as, check_editor, working_size
from diffusers_r1.editors.sizes import bounded


PLAN = EditPlan("", (), ("make it blue",))
# At a photo of 12 megapixels, worked out by hand from what each class was made for.
PHOTO = {
    "FluxKontextPipeline": (1184, 880),
    "Flux2KleinPipeline": (1168, 880),
    "QwenImageEditPipeline": (1184, 896),
    "Kandinsky5I2IPipeline": (1152, 896),
    "OmniGenPipeline": (1024, 752),  # the tiny one's table of positions ends there; at 3072 it is (1168, 880)
    "GlmImagePipeline": (1152, 864),
    "QwenImageInpaintPipeline": (1520, 1136),
}


@pytest.mark.parametrize("name", PHOTO)
def test_a_photo(name):
    assert working_size(editor_of(name), (4032, 3024), {}) == PHOTO[name]


@pytest.mark.parametrize("name", CASES)
def test_no_size_that_a_class_refuses(name):
    editor = editor_of(name)
    for size in ((1, 1), (40, 40), (30, 300), (100, 4000), (70, 65), (12_000, 1_000), (1_000, 12_000)):
        width, height = working_size(editor, size, {})
        assert width % 8 == height % 8 == 0 and min(width, height) >= 8
        if name.startswith("Flux2") or name == "ZImageOmniPipeline":
            editor.image_processor.check_image_input(Image.new("RGB", (width, height)))
        if name == "GlmImagePipeline":
            assert width % 32 == height % 32 == 0 and max(width, height) <= 4 * min(width, height)
        if name == "OmniGenPipeline":
            assert max(width, height) <= editor.transformer.config.pos_embed_max_size * 16


@pytest.mark.parametrize("name", ["LongCatImageEditPipeline", "QwenImageEditInpaintPipeline", "JoyImageEditPipeline"])
def test_a_fixed_size_is_the_same_in_every_turn(name):
    rng = np.random.default_rng(0)
    for _ in range(500):
        size = working_size(editor_of(name), tuple(int(side) for side in rng.integers(40, 4000, 2)), {})
        assert working_size(editor_of(name), size, {}) == size


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "height" in case.given])
@pytest.mark.parametrize(("size", "given", "expected"), [((4000, 1000), "height", 4.0), ((300, 900), "width", 1 / 3)])
def test_one_side_given_the_other_follows_the_aspect_ratio(name, size, given, expected):
    at_work = working_size(editor_of(name), size, {given: 512})
    assert at_work[0 if given == "width" else 1] == 512
    assert at_work[0] / at_work[1] == pytest.approx(expected, rel=0.05)
    assert working_size(editor_of(name), size, {"width": 96, "height": 64}) == (96, 64)


@pytest.mark.parametrize("name", CASES)
def test_max_pixels(name):
    editor, row = editor_of(name), TRAITS[name]
    fixed = row.snaps or (row.pixels is None and "height" not in CASES[name].given)
    if fixed:
        with pytest.raises(ValueError, match="sizes of its own"):
            check_editor(editor, masked(name), max_pixels=10_000)
        return
    check_editor(editor, masked(name), max_pixels=250_000)
    width, height = working_size(editor, (4032, 3024), {}, 250_000)
    assert 0.8 * 250_000 < width * height <= 250_000 or name == "GlmImagePipeline"
    larger = working_size(editor, (4032, 3024), {}, 8_000_000)
    usual = working_size(editor, (4032, 3024), {})
    assert larger == usual if row.pixels is None else larger[0] > usual[0] or name == "OmniGenPipeline"


@pytest.mark.parametrize("max_pixels", [0, -1, 2.5, "many"])
def test_max_pixels_that_are_none(pix2pix, max_pixels):
    with pytest.raises(ValueError, match="1 or more"):
        check_editor(pix2pix, {}, max_pixels=max_pixels)


def masked(name: str) -> dict:
    return {TRAITS[name].mask: Image.new("L", (8, 8))} if TRAITS[name].mask_needed else {}


def test_bounded_keeps_the_aspect_ratio():
    assert bounded((4000, 3000), 1_000_000) == (1154, 866)
    assert bounded((40, 30), 1_000_000) == (40, 30) == bounded((40, 30), None)
    assert bounded((100_000, 10), 100) == (1000, 1) or min(bounded((100_000, 10), 100)) == 1


class TestTheWayBack:
    def test_lanczos_by_default(self):
        source, edited = picture((100, 80)), picture((50, 40))
        result = as_large_as(source, edited)
        assert result.tobytes() == edited.resize((100, 80), Image.Resampling.LANCZOS).tobytes()

    def test_an_upscaler_sees_both_and_its_size_is_its_own(self):
        seen = []

        def upscale(edited, source):
            seen.append((edited.size, source.size))
            return edited.resize((75, 60), Image.Resampling.NEAREST)

        assert as_large_as(picture((100, 80)), picture((50, 40)), upscale).size == (100, 80)
        assert seen == [((50, 40), (100, 80))]

    def test_what_an_upscaler_gives_is_a_picture_in_rgb(self):
        larger = as_large_as(picture((100, 80)), picture((50, 40)), lambda edited, source: source.convert("RGBA"))
        assert larger.mode == "RGB"
        for answer in (None, np.zeros((80, 100, 3))):
            with pytest.raises(TypeError, match="`upscale` gives a `PIL.Image.Image`"):
                as_large_as(picture((100, 80)), picture((50, 40)), lambda *_, answer=answer: answer)

    def test_it_is_not_called_where_nothing_was_lost(self):
        def fail(edited, source):
            raise AssertionError

        assert as_large_as(picture((50, 40)), picture((50, 40)), fail).size == (50, 40)
        assert as_large_as(picture((30, 30)), picture((64, 64)), fail).size == (30, 30)


@pytest.mark.tiny
def test_through_the_pipeline(planner, prompts, pix2pix):
    pipe = ImageEditR1Pipeline(*planner, pix2pix, prompts=prompts)
    source = picture((400, 300))

    def flat(edited, original):
        return Image.new("RGB", original.size, "red")

    given = {"plan": PLAN, "num_inference_steps": 1, "max_pixels": 40 * 30}
    out = pipe([source, picture((20, 16))], generator=seeded(1), upscale=flat, **given)
    assert [turns[0].size_given for turns in out.turns] == [(40, 24), (16, 16)]
    assert [image.size for image in out.images] == [(400, 300), (20, 16)]
    assert out.images[0].getcolors() == [(400 * 300, (255, 0, 0))]
    with pytest.raises(ValueError, match="max_pixels"):
        pipe(source, "make it blue", max_pixels=0)
