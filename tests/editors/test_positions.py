"""The positions of a picture's tokens in the text encoders of the Qwen family, against the encoder's own rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_editors import CASES, editor_of, picture, seeded

from diffusers_r1.editors import call_editor
from diffusers_r1.editors.positions import token_types, with_positions


# All editors whose text encoder is a vision-language model of the family; the last four tell it themselves.
FAMILY = [
    "QwenImageEditPipeline",
    "QwenImageEditPlusPipeline",
    "QwenImageEditModularPipeline",
    "QwenImageEditPlusModularPipeline",
    "LongCatImageEditPipeline",
    "QwenImage21Pipeline",
    "QwenImage21ModularPipeline",
    "JoyImageEditPlusPipeline",
    "DreamLitePipeline",
]


class Seen:
    """What an encoder's language model was given: its inputs and the positions of its tokens."""

    def __init__(self, encoder: torch.nn.Module):
        self.calls: list[tuple[dict[str, Any], torch.Tensor | None]] = []
        inputs: list[dict[str, Any]] = []
        self.hooks = [
            encoder.model.register_forward_pre_hook(lambda _, args, kwargs: inputs.append(kwargs), with_kwargs=True),
            encoder.model.language_model.register_forward_pre_hook(
                lambda _, args, kwargs: self.calls.append((inputs[-1], kwargs.get("position_ids"))), with_kwargs=True
            ),
        ]

    def close(self) -> None:
        for hook in self.hooks:
            hook.remove()


@pytest.mark.tiny
@pytest.mark.parametrize("name", FAMILY)
def test_positions_equal_the_encoders_own_rule(name):
    editor, given = editor_of(name), CASES[name].given
    seen = Seen(editor.text_encoder)
    source = picture((96, 64)) if "height" in given else picture((1248, 832))
    try:
        call_editor(editor, [source], ["make it blue"], [seeded(1)], **given)
    finally:
        seen.close()
    with_pictures = [(inputs, at) for inputs, at in seen.calls if inputs.get("image_grid_thw") is not None]
    assert with_pictures
    for inputs, at in with_pictures:
        types = (inputs["input_ids"] == editor.text_encoder.config.image_token_id).int()
        truth, _ = editor.text_encoder.model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=types,
            image_grid_thw=inputs["image_grid_thw"],
            attention_mask=inputs["attention_mask"],
        )
        assert at.shape[0] in (3, 4)
        assert torch.equal(at[-3:], truth)
        rows, columns = truth[1][types.bool()], truth[2][types.bool()]
        assert len(set(zip(rows.tolist(), columns.tolist()))) > 1, "a picture has two dimensions"


def test_outside_of_the_call_nothing_is_changed():
    encoder = editor_of("QwenImageEditPipeline").text_encoder
    before = dict(encoder._forward_pre_hooks)
    with with_positions(editor_of("QwenImageEditPipeline")):
        assert len(encoder._forward_pre_hooks) == len(before) + 1
    assert dict(encoder._forward_pre_hooks) == before
    with pytest.raises(RuntimeError), with_positions(editor_of("QwenImageEditPipeline")):
        raise RuntimeError
    assert dict(encoder._forward_pre_hooks) == before


def test_what_the_caller_gives_is_left_as_it_is():
    """Once diffusers gives the types itself, ours are not used."""
    editor = editor_of("QwenImageEditPipeline")
    inputs = encoded(editor)
    wrong = torch.zeros_like(inputs["input_ids"]).int()
    with with_positions(editor):
        given = hidden(editor, **inputs, mm_token_type_ids=wrong)
    assert torch.equal(given, hidden(editor, **inputs, mm_token_type_ids=wrong))
    assert not torch.equal(given, hidden(editor, **inputs, mm_token_type_ids=token_types_of(editor, inputs)))


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_the_embedding_equals_the_one_with_the_types_by_hand(scale):
    """With larger weights the order of a picture's tokens matters more; what diffusers gives alone lacks exactly that."""
    editor = CASES["QwenImageEditPipeline"].build()
    with torch.no_grad():
        for layer in editor.text_encoder.model.language_model.layers:
            layer.self_attn.q_proj.weight.mul_(scale)
            layer.self_attn.k_proj.weight.mul_(scale)
    inputs = encoded(editor)
    bare = hidden(editor, **inputs)
    by_hand = hidden(editor, **inputs, mm_token_type_ids=token_types_of(editor, inputs))
    with with_positions(editor):
        ours, _ = editor.encode_prompt("make it blue", picture((64, 64)))
    lacking, _ = editor.encode_prompt("make it blue", picture((64, 64)))
    start = editor.prompt_template_encode_start_idx
    assert torch.equal(ours, by_hand[:, start:])
    assert torch.equal(lacking, bare[:, start:])
    gap = (ours - lacking).abs().max()
    assert gap > (1e-2 if scale > 1 else 1e-6), "the test must see the difference"
    torch.testing.assert_close(lacking + (by_hand - bare)[:, start:], ours)


def test_types_are_those_of_the_processor():
    editor = editor_of("QwenImageEditPipeline")
    inputs = editor.processor(
        text=[editor.prompt_template_encode.format("make it blue")], images=[picture((64, 48))], return_tensors="pt"
    )
    assert inputs["mm_token_type_ids"].sum() > 0
    assert torch.equal(token_types(inputs["input_ids"], editor.text_encoder.config), inputs["mm_token_type_ids"])


def encoded(editor: Any) -> dict[str, torch.Tensor]:
    """What the class gives its encoder, without the types."""
    inputs = editor.processor(
        text=[editor.prompt_template_encode.format("make it blue")],
        images=[picture((64, 64))],
        padding=True,
        return_tensors="pt",
    )
    inputs.pop("mm_token_type_ids")
    return dict(inputs)


def token_types_of(editor: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return (inputs["input_ids"] == editor.text_encoder.config.image_token_id).int()


@torch.no_grad()
def hidden(editor: Any, **inputs: torch.Tensor) -> torch.Tensor:
    return editor.text_encoder(**inputs, output_hidden_states=True).hidden_states[-1]
