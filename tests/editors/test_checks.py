"""What is refused before any model runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import MultiIPAdapterImageProjection
from tiny_editors import CASES, MASK, editor_of

from diffusers_r1.editors import check_editor, check_values, checks, share_out, traits_of


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
        ({"guidance_scale": 1 + 2j}, TypeError, "is a number, not complex"),
        ({"guidance_scale": {1}}, TypeError, "is a number, not set"),
        ({"guidance_scale": range(3)}, TypeError, "is a number, not range"),
        ({"guidance_scale": MASK}, TypeError, "is a number, not Image"),
        ({"guidance_scale": [[1.0, 2.0]]}, TypeError, "is a number, not list"),
        ({"guidance_scale": np.array([[1.0, 2.0]])}, TypeError, "is a number, not list"),
        ({"guidance_scale": np.array(["x"])}, TypeError, "is a number, not str"),
        ({"guidance_scale": 1e39}, ValueError, "must be a finite number of 32 bits, not 1e"),
        ({"guidance_scale": torch.tensor(float("nan"))}, ValueError, "must be a finite number"),
        ({"max_sequence_length": -1}, ValueError, "must be 1 or more, not -1"),
        ({"max_sequence_length": 2.5}, ValueError, "must be 1 or more, not 2.5"),
        ({"max_area": 0}, ValueError, "must be 1 or more, not 0"),
        ({"sigmas": 3}, TypeError, "is a list of numbers, not int"),
        ({"sigmas": "x"}, TypeError, "is a list of numbers, not str"),
        ({"sigmas": ["x"]}, TypeError, "is a list of numbers, and 'x' is none"),
        ({"sigmas": [float("nan")]}, ValueError, "must be a finite number"),
        ({"latents": "x"}, TypeError, "is a tensor, not str"),
        ({"latents": 3}, TypeError, "is a tensor, not int"),
        ({"joint_attention_kwargs": {1: 2}}, TypeError, "a dict with names as its keys"),
        ({"callback_on_step_end_tensor_inputs": ["latents", "x"]}, ValueError, "names out of latents, prompt_embeds"),
        ({"callback_on_step_end_tensor_inputs": "latents"}, ValueError, "names out of latents, prompt_embeds"),
        ({"callback_on_step_end_tensor_inputs": 3}, ValueError, "names out of latents, prompt_embeds"),
        ({"callback_on_step_end_tensor_inputs": None}, TypeError, "is a list, not None"),
    ],
)
def test_values_that_no_editor_can_use(arguments, error, message):
    editor = editor_of("FluxKontextPipeline")
    with pytest.raises(error, match=message):
        check_values(editor, *share_out(editor, arguments, 1))


def test_the_signature_is_read_once_for_all_pictures(monkeypatch):
    read, hints_of = [], checks.hints_of
    monkeypatch.setattr(checks, "hints_of", lambda editor: read.append(editor) or hints_of(editor))
    with pytest.raises(TypeError, match="is a number, not str"):
        check_values(editor_of("FluxKontextPipeline"), {"guidance_scale": 1.0}, {}, {"guidance_scale": "3"})
    assert len(read) == 1


def test_values_that_an_editor_can_use():
    given = {"num_inference_steps": np.int64(1), "width": None, "guidance_scale": 0, "negative_prompt": ["x"]}
    given |= {"sigmas": np.array([1.0, 0.5]), "true_cfg_scale": torch.tensor(1.5), "latents": torch.zeros(1, 16, 16)}
    given |= {"callback_on_step_end_tensor_inputs": ["latents"], "ip_adapter_image": None}
    editor = editor_of("FluxKontextPipeline")
    check_values(editor, *share_out(editor, given, 1))


@pytest.mark.parametrize("name", ["ip_adapter_image", "negative_ip_adapter_image", "ip_adapter_image_embeds"])
def test_a_picture_for_an_adapter_that_is_not_there(name):
    editor = CASES["FluxKontextPipeline"].build()
    check_editor(editor, {name: None})
    with pytest.raises(ValueError, match=f"no IP adapter that could read `{name}`"):
        check_editor(editor, {name: MASK})
    editor.transformer.encoder_hid_proj = MultiIPAdapterImageProjection([torch.nn.Identity()])  # as loading one does
    check_editor(editor, {name: MASK})


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
    shares = share_out(editor, {"mask_image": [MASK.convert("RGB"), MASK]}, 2)
    assert [share["mask_image"].mode for share in shares] == ["L", "L"]
    assert share_out(editor, {}, 2) == [{}, {}] and traits_of(editor).mask_needed
    with pytest.raises(ValueError, match="2 .*mask_image.* do not go with 3 pictures"):
        share_out(editor, {"mask_image": [MASK, MASK]}, 3)
