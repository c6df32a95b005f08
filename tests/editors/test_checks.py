"""What is refused before any model runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_editors import CASES, MASK, editor_of

from diffusers_r1.editors import check_editor, check_values, checks, open_masks, traits_of


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("FluxKontextPipeline", {"prompt": "x"}, TypeError, "`prompt` is not for the caller"),
        ("FluxKontextPipeline", {"image": None}, TypeError, "`image` is not for the caller"),
        ("FluxKontextPipeline", {"prompt_embeds": torch.zeros(1, 2)}, TypeError, "`prompt_embeds` is not for the caller"),
        ("FluxKontextPipeline", {"pooled_prompt_embeds": 1}, TypeError, "`pooled_prompt_embeds` is not for"),
        ("Kandinsky5I2IPipeline", {"prompt_embeds_qwen": 1}, TypeError, "`prompt_embeds_qwen` is not for"),
        ("JoyImageEditPlusPipeline", {"images": []}, TypeError, "`images` is not for the caller"),
        ("FluxKontextPipeline", {"warmth": 1}, TypeError, "takes no `warmth`. It takes: .*guidance_scale"),
        ("Flux2KleinInpaintPipeline", {"height": 64}, TypeError, "takes no `height`"),
        ("FluxFillPipeline", {}, ValueError, "needs a `mask_image`"),
        ("QwenImageEditModularPipeline", {"mask_image": MASK, "height": 64}, ValueError, "a size of its own when"),
    ],
)  # fmt: skip
def test_refused(name, arguments, error, message):
    with pytest.raises(error, match=message):
        check_editor(editor_of(name), arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_inference_steps": 0}, ValueError, "must be 1 or more, not 0"),
        ({"height": -8}, ValueError, "must be 1 or more, not -8"),
        ({"height": 15}, ValueError, "must be 16 pixels or more, not 15"),
        ({"num_inference_steps": 2.5}, ValueError, "must be 1 or more, not 2.5"),
        ({"num_inference_steps": True}, ValueError, "must be 1 or more, not True"),
        ({"guidance_scale": float("nan")}, ValueError, "must be a finite number"),
        ({"guidance_scale": "3"}, TypeError, "is a number, not str"),
        ({"negative_prompt": 3}, TypeError, "is text, not int"),
        ({"callback_on_step_end": 3}, TypeError, "is called; int cannot be"),
    ],
)
def test_values_that_no_editor_can_use(arguments, error, message):
    with pytest.raises(error, match=message):
        check_values(editor_of("FluxKontextPipeline"), arguments)


def test_the_signature_is_read_once_for_all_pictures(monkeypatch):
    read, hints_of = [], checks.hints_of
    monkeypatch.setattr(checks, "hints_of", lambda editor: read.append(editor) or hints_of(editor))
    with pytest.raises(TypeError, match="is a number, not str"):
        check_values(editor_of("FluxKontextPipeline"), {"guidance_scale": 1.0}, {}, {"guidance_scale": "3"})
    assert len(read) == 1


def test_values_that_an_editor_can_use():
    given = {"num_inference_steps": np.int64(1), "width": None, "guidance_scale": 0, "negative_prompt": ["x"]}
    check_values(editor_of("FluxKontextPipeline"), given)


@pytest.mark.parametrize("name", CASES)
def test_what_the_cases_give_is_accepted(name):
    check_editor(editor_of(name), CASES[name].given)


def test_an_autoencoder_of_a_type_that_the_class_does_not_run_in():
    editor = CASES["ZImageOmniPipeline"].build()
    check_editor(editor, {})
    editor.vae.to(torch.float32)
    with pytest.raises(ValueError, match=r"needs its autoencoder in torch\.bfloat16"):
        check_editor(editor, {})


def test_masks_are_opened():
    editor = editor_of("FluxFillPipeline")
    assert [mask.mode for mask in open_masks(editor, {"mask_image": [MASK.convert("RGB"), MASK]}, 2)] == ["L", "L"]
    assert open_masks(editor, {}, 2) == [] and traits_of(editor).mask_needed
    with pytest.raises(ValueError, match="2 masks do not go with 3 pictures"):
        open_masks(editor, {"mask_image": [MASK, MASK]}, 3)
