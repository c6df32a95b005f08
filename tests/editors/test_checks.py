"""What is refused before any model runs."""

from __future__ import annotations

import pytest
import torch
from tiny_editors import CASES, MASK, editor_of

from diffusers_r1.editors import check_editor, open_masks, traits_of


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
