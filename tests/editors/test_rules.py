"""The rules that need no picture to be made: sizes, ceilings, limits of text, and which rows share a call, to the number."""

from __future__ import annotations

import dataclasses
from dataclasses import FrozenInstanceError

import diffusers
import pytest
import torch
from PIL import Image
from tiny_editors import CASES, MASK, editor_of, picture, seeded

from diffusers_r1.editors import (
    TRAITS,
    Asked,
    as_large_as,
    call_editor,
    check_composed,
    check_editor,
    check_values,
    glm,
    share_out,
    sizes,
    traits_of,
    unread_of,
    wording,
    working_size,
)
from diffusers_r1.editors.call import _brought_to, _groups, _ignores_guidance, _same, _seeded_by
from diffusers_r1.editors.composed import COMPOSERS
from diffusers_r1.editors.positions import _add_token_types, _asks_for_types, token_types, with_positions
from diffusers_r1.editors.speed import denoisers_of, keeps_passes_apart, takes_cache
from diffusers_r1.editors.table import REFERENCES, REFUSED, REMOTE, Traits
from diffusers_r1.remote_editor import RemoteEditor


PIX2PIX = "StableDiffusionInstructPix2PixPipeline"
KONTEXT = "FluxKontextPipeline"


# Worked out by hand: blocks of 16 pixels for FLUX.2 and FLUX.3, 8:1 and 4:1 at most, a table of 64 blocks for the tiny OmniGen.
@pytest.mark.parametrize(
    ("name", "rule", "size", "expected"),
    [
        ("Flux2KleinPipeline", sizes.flux2_reference, (4000, 100), (1784, 223)),
        ("Flux2KleinPipeline", sizes.flux2_reference, (30, 40), (64, 85)),
        ("Flux2KleinPipeline", sizes.flux2_reference, (100, 200), (100, 200)),
        ("Flux2KleinPipeline", sizes.flux2_size, (4000, 100), (1776, 224)),
        ("Flux2KleinPipeline", sizes.flux2_size, (30, 40), (64, 80)),
        ("Flux2KleinPipeline", sizes.flux2_size, (100, 200), (96, 192)),
        ("Flux3ModularPipeline", sizes.flux3_size, (10, 90), (64, 80)),
        ("Flux3ModularPipeline", sizes.flux3_size, (5000, 100), (4096, 96)),
        ("Kandinsky3Img2ImgPipeline", sizes.blocks_of_64, (63, 130), (64, 128)),
        ("SanaSprintImg2ImgPipeline", sizes.blocks_of_32, (31, 70), (32, 64)),
        ("DreamLitePipeline", sizes.two_blocks, (5, 47), (16, 32)),
        (PIX2PIX, sizes.whole_blocks, (7, 47), (8, 40)),
        (KONTEXT, sizes.whole_blocks, (7, 47), (16, 32)),
        (KONTEXT, sizes.as_it_is, (7, 47), (7, 47)),
        ("GlmImagePipeline", sizes.glm_size, (4000, 100), (1248, 320)),
        ("GlmImagePipeline", sizes.glm_size, (1000, 700), (992, 672)),
        ("GlmImagePipeline", sizes.glm_size, (20, 30), (32, 32)),
        ("OmniGenPipeline", sizes.omnigen_size, (64, 48), (64, 48)),
        ("OmniGenPipeline", sizes.omnigen_size, (4096, 1000), (1024, 240)),
        (KONTEXT, sizes.kontext_size, (2000, 600), (1568, 672)),
        ("Kandinsky5I2IPipeline", sizes.kandinsky_size, (2000, 600), (1408, 640)),
        ("BriaFiboEditPipeline", sizes.fibo_size, (4032, 3024), (1184, 880)),
        ("BriaFibo2Pipeline", sizes.fibo2_size, (4032, 3024), (1152, 864)),
        ("JoyImageEditPipeline", sizes.joy_size, (2000, 600), (1792, 512)),
        ("LongCatImageEditPipeline", sizes.longcat_size, (2000, 600), (1872, 576)),
        ("QwenImageEditPipeline", sizes.one_megapixel, (2000, 600), (1856, 576)),
        ("QwenImageEditPipeline", sizes.one_megapixel, (100_000, 10), (102_400, 32)),
    ],
)
def test_a_rule_gives_the_size_worked_out_by_hand(name, rule, size, expected):
    assert rule(editor_of(name), size) == expected
    if name not in ("JoyImageEditPipeline", "BriaFiboEditPipeline"):  # whose tables are not the same both ways
        assert rule(editor_of(name), size[::-1]) == expected[::-1]


def test_ceilings_in_pixels():
    assert sizes.MEGAPIXEL == 2**20
    most = {name: row.pixels for name, row in TRAITS.items() if isinstance(row.pixels, int)}
    assert {most[name] for name in most if name.startswith("Flux3")} == {2**22}
    assert {most[name] for name in most if name.startswith("QwenImage")} == {1328**2}
    assert {pixels for name, pixels in most.items() if not name.startswith(("Flux3", "QwenImage"))} == {2**20}
    assert (
        sizes.sample_area(editor_of(PIX2PIX))
        == sizes.sample_area(editor_of("StableDiffusion3Img2ImgPipeline"))
        == 64**2
    )
    assert sizes.bounded((100_000, 10), 100) == (1000, 1) and sizes.bounded((10, 100_000), 100) == (1, 1000)
    assert sizes.bounded((10, 10), 100) == (10, 10)


@pytest.mark.parametrize(
    ("name", "block"), [(PIX2PIX, 8), (KONTEXT, 16), ("BriaFiboEditPipeline", 32), ("DreamLitePipeline", 8)]
)
def test_the_side_of_a_block_is_the_shortest_side_that_is_taken(name, block):
    editor = editor_of(name)
    assert sizes.block_of(editor) == block
    check_values(editor, {"height": block})
    with pytest.raises(ValueError, match=f"`height` of {name} must be {block} pixels or more, not {block - 1}"):
        check_values(editor, {"height": block - 1})


@pytest.mark.parametrize(
    ("name", "size", "given", "expected"),
    [
        (PIX2PIX, (4000, 10), {}, (1264, 8)),
        (KONTEXT, (4000, 10), {"width": 64}, (64, 16)),
        (KONTEXT, (10, 4000), {"height": 64}, (16, 64)),
        (KONTEXT, (300, 900), {"width": 512}, (512, 1536)),
        (KONTEXT, (4000, 1000), {"height": 512}, (2048, 512)),
        (KONTEXT, (300, 900), {"width": 90, "height": 70}, (90, 70)),
        ("Kandinsky5I2IPipeline", (300, 900), {"width": 512}, (640, 1408)),
        ("Kandinsky5I2IPipeline", (300, 900), {"width": 900, "height": 300}, (1408, 640)),
    ],
)
def test_working_sizes_worked_out_by_hand(name, size, given, expected):
    if name == PIX2PIX:  # 64x64 pixels are what the tiny one was made for
        expected = sizes.whole_blocks(editor_of(name), sizes.bounded(size, 64 * 64))
    assert working_size(editor_of(name), size, given) == expected


def test_fewer_pixels_than_a_class_of_fixed_sizes_works_at():
    photo, editor = (4032, 3024), editor_of(KONTEXT)
    found = [working_size(editor, photo, {}, most) for most in (10**7, 1184 * 880, 10**6, 4096, 1)]
    assert found == [(1184, 880), (1184, 880), (1152, 848), (64, 48), (16, 16)]


def test_one_pixel_is_a_number_of_pixels_and_a_truth_value_is_none(pix2pix):
    check_editor(pix2pix, {}, max_pixels=1)
    with pytest.raises(ValueError, match="1 or more, not True"):
        check_editor(pix2pix, {}, max_pixels=True)


def test_of_as_many_pixels_nothing_was_lost():
    calls = []
    made = as_large_as(picture((80, 50)), picture((50, 80)), lambda *both: calls.append(both))
    assert made.size == (80, 50) and not calls


def test_what_stands_in_a_row_that_says_nothing():
    assert dataclasses.asdict(Traits()) == {
        "lists": REFUSED,
        "size": sizes.whole_blocks,
        "pixels": None,
        "pixels_from": "",
        "snaps": False,
        "reference": None,
        "always": {},
        "ignored": (),
        "before": None,
        "batched": (),
        "image": "image",
        "answer": "images",
        "asks": "what to change",
        "prompt": wording.as_it_is,
        "reads": None,
        "mask": "",
        "mask_needed": False,
        "mask_fixes_size": False,
        "encodes_in": None,
    }
    assert traits_of(object.__new__(diffusers.StableDiffusionPipeline)) == Traits()
    remote = RemoteEditor("http://localhost:1/v1", "m", api_key_env=None)
    assert traits_of(remote) is REMOTE and REMOTE.lists == REFERENCES and REMOTE.pixels == 2**22
    assert sizes.block_of(remote) == 8
    remote.close()


def test_facts_that_only_some_rows_have():
    assert [name for name, row in TRAITS.items() if row.snaps] == ["Kandinsky5I2IPipeline"]
    assert [name for name, row in TRAITS.items() if row.mask_fixes_size] == ["QwenImageEditModularPipeline"]
    needs = {name for name, row in TRAITS.items() if row.mask_needed}
    assert needs == {name for name in TRAITS if "Inpaint" in name or "Fill" in name}
    always = {name: dict(row.always) for name, row in TRAITS.items() if row.always}
    kontext = dict.fromkeys((name for name in TRAITS if name.startswith("FluxKontext")), {"_auto_resize": False})
    assert always == {**kontext, "SanaSprintImg2ImgPipeline": {"use_resolution_binning": False}}


@pytest.mark.parametrize(
    ("one", "name"), [(Traits(), "snaps"), (Asked("a", ("a",)), "prompt"), (COMPOSERS[PIX2PIX], "scale")]
)
def test_facts_are_not_to_be_changed(one, name):
    with pytest.raises(FrozenInstanceError):
        setattr(one, name, None)


# What the docstrings of the rules say; Kandinsky's is 1,024 less 16 tokens of the tiny picture and the 3 around them.
READ = {
    PIX2PIX: 77,
    KONTEXT: 512,
    "StableDiffusion3Img2ImgPipeline": 256,
    "Flux2KleinPipeline": 512,
    "FluxKontextModularPipeline": 512,
    "LongCatImageEditPipeline": 512,
    "BriaFiboEditPipeline": 3000,
    "SanaSprintImg2ImgPipeline": 300,
    "Kandinsky3Img2ImgPipeline": 128,
    "Kandinsky5I2IPipeline": 1005,
    "QwenImageImg2ImgPipeline": 512,
    "QwenImageModularPipeline": 1024,
}


@pytest.mark.parametrize("name", READ)
def test_the_most_tokens_that_are_read(name):
    reads = TRAITS[name].reads
    assert reads(editor_of(name), "make it blue", {})[1] == READ[name]


def test_the_caller_can_move_the_limit_as_far_as_the_class_goes():
    def most(name: str) -> int:
        return TRAITS[name].reads(editor_of(name), "x", {"max_sequence_length": 5000})[1]

    assert most(KONTEXT) == 5000 and most("QwenImageImg2ImgPipeline") == 1024 and most(PIX2PIX) == 77


def test_stable_diffusion_3_without_t5_reads_what_clip_reads():
    editor = CASES["StableDiffusion3Img2ImgPipeline"].build()
    reads = TRAITS["StableDiffusion3Img2ImgPipeline"].reads
    assert reads(editor, "make it blue", {}) == (14, 256)
    editor.text_encoder_3 = None
    assert reads(editor, "make it blue", {}) == (12, 77)


def test_a_prompt_that_ends_at_the_limit_is_read_and_one_more_token_is_not():
    editor = editor_of(PIX2PIX)  # 77 tokens, of which two are CLIP's own
    assert unread_of(editor, ["x" * 75]) == () and unread_of(editor, ["x" * 76]) == ("x" * 76,)
    assert unread_of(editor, ["x" * 30, "x" * 44]) == () and unread_of(editor, ["x" * 30, "x" * 45]) == ("x" * 45,)


def test_how_requests_are_written():
    assert wording.with_placeholders("blue", 2) == "<img><|image_1|></img> <img><|image_2|></img> blue"
    assert wording.as_edit_json("bleu foncé", 1) == '{"edit_instruction": "bleu foncé"}'
    assert wording.as_it_is("blue", 3) == "blue"


# Which rows share a call
# -----------------------


def test_arguments_of_one_call_are_the_same_but_for_texts():
    shared, tensor = [1.0], torch.tensor([1])
    assert _same({}, {}, []) and _same({"a": 1, "b": (1, 2)}, {"b": (1, 2), "a": 1}, [])
    assert _same({"a": shared}, {"a": shared}, []) and _same({"p": "x"}, {"p": "y"}, ["p"])
    for one, other in [({"a": 1}, {"a": 2}), ({"a": [1.0]}, {"a": [1.0]}), ({"a": 1}, {}), ({"p": "x"}, {"p": ["y"]})]:
        assert not _same(one, other, ["p"]) and not _same(other, one, ["p"])
    assert not _same({"p": "x"}, {"p": "y"}, []) and not _same({"a": 1, "b": 1}, {"a": 1, "b": 2}, [])
    assert not _same({"a": 1}, {"a": tensor}, []) and not _same({"a": tensor}, {"a": 1}, [])


def test_rows_of_one_size_and_kind_share_a_call():
    small, large = picture((8, 8)), picture((16, 8))
    images, plain = [small, large, small, large], [Asked("a", ("a",))] * 4

    def groups(images=images, asked=plain, own=({},) * 4, texts=(), batched=True, in_order=False):
        return _groups(images, asked, own, texts, batched, in_order)

    assert groups() == [[0, 2], [1, 3]]
    assert groups(batched=False) == [[0], [1], [2], [3]]
    assert groups(in_order=True) == [[0], [1], [2], [3]]
    assert groups([small] * 4, in_order=True) == groups([small] * 4) == [[0, 1, 2, 3]]
    assert groups([small] * 4, own=[{"a": 1}, {"a": 2}, {"a": 1}, {}]) == [[0, 2], [1], [3]]
    two, three = Asked("a. b", ("a", "b"), composed=True), Asked("a. b. c", ("a", "b", "c"), composed=True)
    assert groups([small] * 4, [two, three, two, plain[0]]) == [[0, 2], [1], [3]]
    many = Asked("a. b", ("a", "b"))
    assert groups([small] * 4, [many, plain[0], two, many]) == [[0, 1, 3], [2]]


@pytest.mark.parametrize(
    ("accepted", "given", "expected"),
    [
        ({}, {}, False),
        ({"true_cfg_scale": 4.0}, {}, True),
        ({"true_cfg_scale": 1.0}, {}, False),
        ({"true_cfg_scale": 4.0}, {"true_cfg_scale": 1.0}, False),
        ({"true_cfg_scale": 1.0}, {"true_cfg_scale": 1.5}, True),
        ({"true_cfg_scale": 4.0}, {"negative_prompt": ""}, False),
        ({"true_cfg_scale": 4.0}, {"negative_prompt_embeds": torch.zeros(1)}, False),
        ({"true_cfg_scale": 4.0}, {"negative_prompt": None, "negative_prompt_embeds": None}, True),
    ],
)
def test_guidance_needs_a_negative_prompt_where_it_is_on_and_has_none(accepted, given, expected):
    assert _ignores_guidance(accepted, given) == expected


def test_references_are_brought_to_a_size_that_the_class_takes():
    long, square = picture((4000, 100)), picture((64, 64))
    editor = editor_of("Flux2KleinPipeline")
    brought = _brought_to(traits_of(editor), editor, [long, square])
    assert brought[0].tobytes() == long.resize((1784, 223), Image.Resampling.LANCZOS).tobytes()
    assert brought[1] is square
    assert _brought_to(traits_of(editor_of(KONTEXT)), editor_of(KONTEXT), [long, square]) == [long, square]


def test_a_generators_seed_covers_what_is_drawn_without_it():
    before = torch.get_rng_state()
    drawn = []
    for generator in (seeded(3), [seeded(3), seeded(4)], [seeded(4), seeded(3)]):
        with _seeded_by(editor_of(PIX2PIX), generator):
            drawn.append(torch.rand(2).tolist())
    assert drawn[0] == drawn[1] != drawn[2] and torch.equal(before, torch.get_rng_state())
    with _seeded_by(editor_of(PIX2PIX), None):
        assert torch.equal(before, torch.get_rng_state())


@pytest.mark.filterwarnings("ignore:You have passed 2 text prompts:FutureWarning")
def test_more_pictures_than_rows_are_not_dropped(pix2pix):
    given = {"num_inference_steps": 1, "num_images_per_prompt": 2}
    with pytest.raises(ValueError, match=r"zip\(\)"):
        call_editor(pix2pix, [picture((64, 64))], ["make it blue"], **given)


# What a value is
# ---------------


def test_a_row_of_numbers_is_one_value_and_a_tensor_of_rows_is_many():
    editor = editor_of(KONTEXT)
    flat = torch.arange(2.0)
    assert [share["latents"] is flat for share in share_out(editor, {"latents": flat}, 2)] == [True, True]
    rows = torch.arange(6.0).reshape(3, 2)
    assert [share["latents"] is rows for share in share_out(editor, {"latents": rows}, 2)] == [True, True]
    split = share_out(editor, {"latents": torch.arange(8.0).reshape(4, 2)}, 2, each=2)
    assert [share["latents"].tolist() for share in split] == [[[0, 1]], [[2, 3]], [[4, 5]], [[6, 7]]]
    assert len(share_out(editor, {}, 3)) == 3 and share_out(editor, {}, 3) == [{}] * 3


def test_several_pictures_for_one_are_one_value_and_for_two_a_fault():
    editor, both = editor_of(KONTEXT), [picture((8, 8)), picture((8, 8), 1), picture((8, 8), 2)]
    (share,) = share_out(editor, {"ip_adapter_image": both}, 1)
    assert [one.tobytes() for one in share["ip_adapter_image"]] == [one.tobytes() for one in both]
    with pytest.raises(ValueError, match="3 values of `ip_adapter_image` do not go with 2 pictures"):
        share_out(editor, {"ip_adapter_image": both}, 2)
    with pytest.raises(ValueError, match="3 values of `guidance_scale` do not go with 1 pictures"):
        share_out(editor, {"guidance_scale": [1.0, 2.0, 3.0]}, 1)


def test_no_mask_is_none_and_one_is_for_all():
    editor = editor_of("FluxFillPipeline")
    assert share_out(editor, {"mask_image": None}, 2) == [{"mask_image": None}] * 2
    shares = share_out(editor, {"mask_image": [MASK]}, 3)
    assert [share["mask_image"].tobytes() for share in shares] == [MASK.tobytes()] * 3


# Encoders, denoisers, guidance
# -----------------------------


def test_which_tokens_are_a_pictures():
    config = editor_of("QwenImageEditPipeline").text_encoder.config
    ids = torch.tensor([[3, config.image_token_id, config.video_token_id, 3]])
    types = token_types(ids, config)
    assert types.tolist() == [[0, 1, 2, 0]] and types.dtype is torch.int32


def test_an_encoder_is_told_only_what_it_asks_for():
    encoder = editor_of("QwenImageEditPipeline").text_encoder
    assert _asks_for_types(encoder) is True
    assert _asks_for_types(editor_of(PIX2PIX).text_encoder) is False and _asks_for_types(None) is False
    clip = editor_of(PIX2PIX).text_encoder
    with with_positions(editor_of(PIX2PIX)):
        assert not clip._forward_pre_hooks
    ids, grid = torch.tensor([[1, encoder.config.image_token_id]]), torch.tensor([[1, 2, 2]])
    told = _add_token_types(encoder, (1,), {"input_ids": ids, "image_grid_thw": grid})
    assert told[0] == (1,) and told[1]["mm_token_type_ids"].tolist() == [[0, 1]]
    for kwargs in (
        {"input_ids": ids},
        {"image_grid_thw": grid},
        {"input_ids": None, "image_grid_thw": grid},
        {"input_ids": ids, "image_grid_thw": grid, "mm_token_type_ids": ids},
    ):
        assert _add_token_types(encoder, (), kwargs) == ((), kwargs)


def test_which_denoisers_take_a_cache():
    def takes(name: str) -> bool:
        return all(takes_cache(type(model)) for model in denoisers_of(editor_of(name)).values())

    for name in ("QwenImageEditPipeline", "QwenImageImg2ImgPipeline"):
        assert takes(name) is True and keeps_passes_apart(type(editor_of(name))) is True
    assert takes(KONTEXT) is True and takes("Flux2KleinPipeline") is False and takes(PIX2PIX) is False
    assert keeps_passes_apart(diffusers.FluxKontextPipeline) is False
    assert keeps_passes_apart(diffusers.QwenImage21ModularPipeline) is True  # by the file beside it
    assert keeps_passes_apart(diffusers.QwenImageModularPipeline) is False
    assert keeps_passes_apart(diffusers.ModularPipeline) is False  # a class of no family has no loop of its own


@pytest.mark.parametrize(
    ("given", "on"), [({}, True), ({"guidance_scale": 1.5}, True), ({"guidance_scale": [1.5, 2.0]}, True),
                      ({"guidance_scale": (2.0, 1.0)}, False), ({"guidance_scale": 1}, False)]
)  # fmt: skip
def test_guidance_of_more_than_one_is_on(given, on):
    if on:
        check_composed(editor_of(PIX2PIX), given)
        return
    with pytest.raises(ValueError, match="which is off"):
        check_composed(editor_of(PIX2PIX), given)


def test_a_grid_of_codes_becomes_twice_as_fine():
    fine = glm._twice_as_fine(torch.arange(6), 2, 3)
    assert fine.reshape(4, 6).tolist() == [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2
