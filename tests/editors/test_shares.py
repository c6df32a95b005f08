"""Which picture gets which value: the rule, read from type hints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_editors import SMALL, difference, editor_of, picture, seeded

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.editors import hints_of, share_out
from diffusers_r1.editors.signatures import is_list, is_numbers, is_picture, is_tensor, is_text, plain_of


PLAN = EditPlan("", (), ("make it blue",))
KONTEXT = "FluxKontextPipeline"


@pytest.mark.parametrize(
    ("hint", "text", "shown", "listed"),
    [
        (str | list[str] | None, True, False, False),
        (str, False, False, False),
        (float, False, False, False),
        (list[float] | None, False, False, True),
        (list[str], False, False, True),
        (tuple[int, int], False, False, True),
        (tuple[int, ...], False, False, True),
        (list[torch.Tensor] | None, False, False, True),
        (torch.Tensor | None, False, False, False),
        (Image.Image | list[Image.Image], False, True, False),
        (list[Image.Image] | list[list[Image.Image]], False, True, True),
        (dict[str, int] | None, False, False, False),
        (None, False, False, False),
    ],
)
def test_what_one_value_is(hint, text, shown, listed):
    assert (is_text(hint), is_picture(hint), is_list(hint)) == (text, shown, listed)


@pytest.mark.parametrize(
    ("hint", "numbers", "tensor"),
    [
        (list[float] | None, True, False),
        (tuple[int, int], True, False),
        (tuple[int, ...], True, False),
        (list[str], False, False),
        (list, False, False),
        (float | list[float], False, False),
        (torch.Tensor | None, False, True),
        (torch.FloatTensor | None, False, True),
        (torch.Tensor | list[torch.Tensor], False, False),
        (None, False, False),
    ],
)
def test_whether_one_value_is_a_list_of_numbers_or_a_tensor(hint, numbers, tensor):
    assert (is_numbers(hint), is_tensor(hint)) == (numbers, tensor)


@pytest.mark.parametrize(
    ("hint", "plain"),
    [
        (float | torch.Tensor, float),
        (str | list[str] | None, str | list[str]),
        (torch.Tensor | None, None),
        (Image.Image | list[Image.Image] | np.ndarray, None),
        (list[torch.Tensor], None),
        (list[dict], list[dict[str, Any]]),
        (tuple[int], tuple[int, ...]),
        (tuple[int, int], tuple[int, int]),
        (list[tuple[int, int] | None], list[tuple[int, int] | None]),
        (None, None),
    ],
)
def test_what_json_can_hold(hint, plain):
    assert plain_of(hint) == plain


@pytest.mark.parametrize(
    ("editor", "name", "hint"),
    [
        ("FluxKontextModularPipeline", "num_inference_steps", int),
        ("FluxKontextModularPipeline", "sigmas", list[float]),
        ("FluxKontextModularPipeline", "guidance_scale", float),
        ("FluxKontextModularPipeline", "prompt_2", str),
        ("FluxKontextModularPipeline", "joint_attention_kwargs", None),
        ("BriaFiboEditPipeline", "do_patching", bool),
        ("Flux2KleinPipeline", "negative_prompt_embeds", torch.Tensor),
        ("FluxFillPipeline", "mask_image", Image.Image),  # which says a tensor
    ],
)
def test_what_a_class_does_not_say_of_an_argument(editor, name, hint):
    assert hints_of(editor_of(editor))[name] == hint


def test_one_schedule_is_one_value_for_blocks_without_hints():
    (share,) = share_out(editor_of("FluxKontextModularPipeline"), {"sigmas": [1.0, 0.5]}, 1)
    assert share == {"sigmas": [1.0, 0.5]}


@pytest.mark.parametrize(
    ("arguments", "first", "second"),
    [
        ({"negative_prompt": ["a", "b"]}, "a", "b"),
        ({"negative_prompt": "a"}, "a", "a"),
        ({"negative_prompt": ["a"]}, "a", "a"),
        ({"guidance_scale": [1.0, 2.0]}, 1.0, 2.0),
        ({"guidance_scale": (1.0, 2.0)}, 1.0, 2.0),
        ({"guidance_scale": np.array([1.0, 2.0])}, 1.0, 2.0),
        ({"guidance_scale": torch.tensor([1.0, 2.0])}, 1.0, 2.0),
        ({"guidance_scale": torch.tensor(2.0)}, 2.0, 2.0),
        ({"guidance_scale": [torch.tensor(1.0), np.float32(2.0)]}, 1.0, 2.0),
        ({"num_inference_steps": np.array([2, 3])}, 2, 3),
        ({"sigmas": np.array([1.0, 0.5])}, [1.0, 0.5], [1.0, 0.5]),
        ({"sigmas": torch.tensor([[1.0, 0.5], [1.0, 0.25]])}, [1.0, 0.5], [1.0, 0.25]),
        ({"sigmas": [1.0, 0.5]}, [1.0, 0.5], [1.0, 0.5]),
        ({"sigmas": [1.0, 0.7, 0.5]}, [1.0, 0.7, 0.5], [1.0, 0.7, 0.5]),
        ({"sigmas": [[1.0, 0.5], [1.0]]}, [1.0, 0.5], [1.0]),
        ({"callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}, ["latents", "prompt_embeds"],
         ["latents", "prompt_embeds"]),
        ({"joint_attention_kwargs": {"scale": 0.5}}, {"scale": 0.5}, {"scale": 0.5}),
    ],
)  # fmt: skip
def test_two_pictures(arguments, first, second):
    (name,) = arguments
    shares = share_out(editor_of(KONTEXT), arguments, 2)
    assert [share[name] for share in shares] == [first, second]
    shares = share_out(editor_of(KONTEXT), arguments, 2, each=3)
    assert [share[name] for share in shares] == [first] * 3 + [second] * 3


def test_a_value_for_each_result():
    shares = share_out(editor_of(KONTEXT), {"negative_prompt": ["a", "b", "c", "d"]}, 2, each=2)
    assert [share["negative_prompt"] for share in shares] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("values", "pictures"), [(["a", "b"], 3), (["a", "b", "c"], 2), ([], 2)])
def test_numbers_that_do_not_fit(values, pictures):
    with pytest.raises(
        ValueError, match=f"{len(values)} values of `negative_prompt` do not go with {pictures} pictures"
    ):
        share_out(editor_of(KONTEXT), {"negative_prompt": values}, pictures)


def test_tensors_go_by_rows_or_one_by_one():
    latents = torch.arange(8.0).reshape(2, 4)
    shares = share_out(editor_of(KONTEXT), {"latents": latents}, 2)
    assert [share["latents"].tolist() for share in shares] == [[[0, 1, 2, 3]], [[4, 5, 6, 7]]]
    shares = share_out(editor_of(KONTEXT), {"latents": [latents, latents[:1]]}, 2)
    assert [share["latents"].shape[0] for share in shares] == [2, 1]
    assert share_out(editor_of(KONTEXT), {"latents": latents[:1]}, 2)[1]["latents"].shape == (1, 4)


def test_a_list_of_one_tensor_for_each_prompt():
    """Z-Image's hint reads as several tensors for one picture, as FLUX's adapters do; the row knows."""
    one, other = torch.zeros(3, 4), torch.ones(5, 4)
    shares = share_out(editor_of("ZImageImg2ImgPipeline"), {"negative_prompt_embeds": [one, other]}, 2)
    assert [share["negative_prompt_embeds"] for share in shares] == [[one], [other]]
    shares = share_out(editor_of(KONTEXT), {"ip_adapter_image_embeds": [one, other]}, 2)
    assert all(share["ip_adapter_image_embeds"] == [one, other] for share in shares)


def test_pictures_are_opened(tmp_path):
    turned = Image.new("RGB", (30, 20), "red")
    exif = turned.getexif()
    exif[0x0112] = 6  # lying on its side
    turned.save(tmp_path / "turned.jpg", exif=exif)
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    editor = editor_of("FluxKontextInpaintPipeline")
    given = {"image_reference": [str(tmp_path / "turned.jpg"), clear], "mask_image": tmp_path / "turned.jpg"}
    first, second = share_out(editor, given, 2)
    assert first["image_reference"].size == (20, 30) and second["image_reference"].getpixel((0, 0)) == (255, 255, 255)
    assert first["mask_image"].mode == "L" and first["mask_image"] is second["mask_image"]
    with pytest.raises(ValueError, match=r"nothing\.png.* cannot be used"):
        share_out(editor, {"image_reference": tmp_path / "nothing.png"}, 1)


def test_pictures_of_several_adapters_are_a_list_for_each_picture():
    one, other = picture((8, 8)), picture((8, 8), 1)
    editor = editor_of(KONTEXT)
    shares = share_out(editor, {"ip_adapter_image": [[one, other], [other, one]]}, 2)
    assert [len(share["ip_adapter_image"]) for share in shares] == [2, 2]
    assert len(share_out(editor, {"ip_adapter_image": [one, other]}, 1)[0]["ip_adapter_image"]) == 2


def test_arrays_stay_as_they_are():
    """They may be latents."""
    array = np.zeros((1, 4, 8, 8), dtype=np.float32)
    assert share_out(editor_of(KONTEXT), {"ip_adapter_image": array}, 1)[0]["ip_adapter_image"] is array


def test_every_argument_of_every_class_has_a_hint_that_can_be_read():
    for name in ("JoyImageEditPipeline", "DreamLitePipeline", "QwenImageEditModularPipeline", "OmniGenPipeline"):
        assert sum(hint is not None for hint in hints_of(editor_of(name)).values()) > 5


@pytest.mark.tiny
def test_latents_and_embeddings_for_each_picture(planner, prompts):
    """Against the class, called for each with its own."""
    pipe = ImageEditR1Pipeline(*planner, editor_of(KONTEXT), prompts=prompts)
    latents = torch.randn(2, 16, 16, generator=seeded(3))
    no_t5 = torch.randn(2, 512, 32, generator=seeded(4))
    no_clip = torch.randn(2, 32, generator=seeded(5))
    sources = [picture((64, 64)), picture((64, 64), 1)]
    own = {"negative_prompt_embeds": no_t5, "negative_pooled_prompt_embeds": no_clip}
    out = pipe(sources, plan=PLAN, latents=latents, true_cfg_scale=3.0, **own, **SMALL)
    for row, source in enumerate(sources):
        bare = pipe.editor(
            source,
            "make it blue",
            latents=latents[row : row + 1],
            true_cfg_scale=3.0,
            **{name: value[row : row + 1] for name, value in own.items()},
            _auto_resize=False,
            max_area=64 * 64,
            **SMALL,
        ).images[0]
        assert difference(out.images[row], bare) == 0
    assert difference(*out.images) > 0


@pytest.mark.tiny
def test_texts_share_a_call_and_other_values_part_it(planner, prompts):
    pipe = ImageEditR1Pipeline(*planner, editor_of(KONTEXT), prompts=prompts)
    calls = []
    hook = pipe.editor.transformer.register_forward_hook(lambda *_: calls.append(1))
    sources = [picture((64, 64)), picture((64, 64), 1)]
    try:
        pipe(sources, plan=PLAN, negative_prompt=["blur", "noise"], true_cfg_scale=2.0, **SMALL)
        assert len(calls) == 2, "one under the prompts, one under the negative prompts"
        pipe(sources, plan=PLAN, guidance_scale=[2.0, 3.0], **SMALL)
        assert len(calls) == 2 + 2, "one for each"
    finally:
        hook.remove()


@pytest.mark.tiny
def test_in_a_stream(planner, prompts):
    pipe = ImageEditR1Pipeline(*planner, editor_of(KONTEXT), prompts=prompts)
    sources = [picture((64, 64)), picture((64, 64), 1)]
    scales = [1.5, 4.0]
    streamed = list(
        pipe.stream(sources, "make it blue", [seeded(1), seeded(1)], max_new_tokens=4, guidance_scale=scales, **SMALL)
    )
    for one, source, scale in zip(streamed, sources, scales):
        alone = pipe(source, plan=one.plans[0], generator=seeded(1), guidance_scale=scale, **SMALL)
        assert difference(one.images[0], alone.images[0]) <= 1
