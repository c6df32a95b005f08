"""What an editor is asked of a plan, and what of it the text encoder does not read."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_editors import CASES, difference, editor_of, picture, seeded

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.editors import TRAITS, Asked, asked_of, traits_of, unread_of
from diffusers_r1.plan import Fault, FaultKind, describe_faults


SHORT = ("remove the star", "make it blue")
LONG = tuple(f"{letter} {'x' * 30}" for letter in "abcd")  # of the tiny CLIP each character is a token


def plan(requests: tuple[str, ...]) -> EditPlan:
    return EditPlan("", (), requests)


def test_the_ways_of_a_plan():
    editor = editor_of("StableDiffusionInstructPix2PixPipeline")
    joined = "remove the star. make it blue"
    assert asked_of(editor, plan(SHORT), "single") == [Asked(joined, SHORT)]
    assert asked_of(editor, plan(SHORT), "auto") == [Asked(joined, SHORT)]
    assert asked_of(editor, plan(SHORT), "multi") == [Asked(one, (one,)) for one in SHORT]
    assert asked_of(editor, plan(SHORT), "composed") == [Asked(joined, SHORT, composed=True)]
    assert asked_of(editor, plan(SHORT[:1]), "composed") == [Asked(SHORT[0], SHORT[:1])]
    with pytest.raises(ValueError, match="composed"):
        asked_of(editor, plan(SHORT), "twice")


def test_what_clip_does_not_read():
    editor = editor_of("StableDiffusionInstructPix2PixPipeline")
    assert asked_of(editor, plan(LONG), "single")[0].unread == LONG[2:]
    assert [one.requests for one in asked_of(editor, plan(LONG), "auto")] == [LONG[:2], LONG[2:]]
    assert all(one.unread == () for one in asked_of(editor, plan(LONG), "auto"))
    endless = ("x" * 100, "make it blue")
    assert asked_of(editor, plan(endless), "multi")[0].unread == endless[:1]
    assert [one.unread for one in asked_of(editor, plan(endless), "auto")] == [endless[:1], ()]
    assert asked_of(editor, plan(endless), "composed")[0].unread == endless[:1]


def test_clip_beside_t5_does_not_count():
    assert unread_of(editor_of("FluxKontextPipeline"), LONG) == ()
    assert unread_of(editor_of("FluxKontextPipeline"), LONG, {"max_sequence_length": 64}) == LONG[1:]
    many = LONG * 5
    assert 0 < len(unread_of(editor_of("FluxKontextPipeline"), many)) < len(many)


def test_the_last_request_that_fits_is_read_to_its_end():
    """To the token: the tokens of the class's own call, with and without truncation."""
    editor = editor_of("StableDiffusionInstructPix2PixPipeline")
    for length in (70, 74, 75, 76, 80):
        request = "x" * length
        ids = editor.tokenizer(request, truncation=False, verbose=False)["input_ids"]
        cut = editor.tokenizer(request, truncation=True, max_length=editor.tokenizer.model_max_length)["input_ids"]
        assert (unread_of(editor, [request]) == ()) == (ids == cut)


@pytest.mark.parametrize("name", [name for name, row in TRAITS.items() if row.reads is not None])
def test_each_rule_counts_and_has_a_limit(name):
    editor, reads = editor_of(name), TRAITS[name].reads
    few, most = reads(editor, "make it blue", {})
    more, same = reads(editor, "make it blue " * 10, {})
    assert 0 < few < more and most == same and most >= 64
    endless = ["make it blue " * 3000, "remove the star"]
    assert unread_of(editor, endless) == tuple(endless)


@pytest.mark.tiny
@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusionInstructPix2PixPipeline",
        "FluxKontextPipeline",
        "Flux2Pipeline",
        "Flux2KleinPipeline",
        "QwenImageImg2ImgPipeline",
        "StableDiffusion3Img2ImgPipeline",
        "ChromaImg2ImgPipeline",
        "ZImageImg2ImgPipeline",
        "BriaFiboEditPipeline",
    ],
)
@pytest.mark.filterwarnings("ignore:Kwargs passed to `processor.__call__`:UserWarning")
def test_the_limit_is_where_the_pictures_stop_to_differ(name):
    """The truth: two prompts that differ only beyond the limit give one picture, and within it two."""
    editor = editor_of(name)
    traits = traits_of(editor)

    def tokens(prompt: str) -> tuple[int, int]:
        return traits.reads(editor, traits.prompt(prompt, 1), {})

    most = tokens("x")[1]
    beyond = "ab " * most  # longer than anything is read
    within = next(beyond[:length] for length in range(len(beyond), 0, -7) if tokens(beyond[:length])[0] <= most - 8)
    assert unread_of(editor, [beyond + "end"]) and not unread_of(editor, [within])
    assert not told_apart(editor, name, beyond + "end", beyond + "other")
    assert told_apart(editor, name, within, within[:-4] + "zzzz")


def told_apart(editor: Any, name: str, one: str, other: str) -> bool:
    """Whether the denoiser gets anything else for one prompt than for the other, called as the class is called."""
    seen: list[list[torch.Tensor]] = []
    part = editor.unet if hasattr(editor, "unet") else editor.transformer
    case, calls = CASES[name], []
    taken = list(inspect.signature(part.forward).parameters)  # Z-Image gives them by place
    hook = part.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append({**dict(zip(taken, args)), **kwargs}), with_kwargs=True
    )
    for prompt in (one, other):
        calls.clear()
        written = traits_of(editor).prompt(prompt, 1)
        editor(image=picture((64, 64)), prompt=written, generator=seeded(1), **{**case.given, **case.own})
        words = calls[0].get("encoder_hidden_states", calls[0].get("cap_feats"))
        seen.append(list(words) if isinstance(words, list) else [words])
    hook.remove()
    return any(first.shape != second.shape or not torch.equal(first, second) for first, second in zip(*seen))


@pytest.mark.tiny
class TestThroughThePipeline:
    @pytest.fixture
    def pipe(self, planner, prompts, pix2pix):
        return ImageEditR1Pipeline(*planner, pix2pix, prompts=prompts)

    def test_turns_say_what_was_cut_off(self, pipe):
        out = pipe(picture((64, 64)), plan=plan(LONG), num_inference_steps=1)
        (turn,) = out.turns[0]
        assert turn.requests == LONG and turn.unread == LONG[2:]

    def test_the_plan_says_what_was_cut_off(self, pipe):
        lost = Fault(FaultKind.LOST_ITEM, "action", "sharpen")
        given = replace(plan(LONG), faults=(lost,))
        settings = {"num_images_per_prompt": 2, "num_inference_steps": 1}
        out = pipe([picture((64, 64))] * 2, plan=[given, plan(SHORT)], **settings)
        unread = tuple(Fault(FaultKind.UNREAD, detail=request) for request in LONG[2:])
        assert [one.faults for one in out.plans] == [(lost, *unread), ()]
        assert EditPlan.from_json(out.plans[0].to_json()) == out.plans[0]
        assert "does not read to their end" in describe_faults(out.plans[0].faults)
        again = pipe(picture((64, 64)), plan=out.plans[0], turns="auto", num_inference_steps=1)
        assert again.plans[0].faults == (lost,)  # nothing was cut off this time

    def test_auto_splits(self, pipe):
        out = pipe(picture((64, 64)), plan=plan(LONG), turns="auto", generator=seeded(1), num_inference_steps=1)
        assert [turn.requests for turn in out.turns[0]] == [LONG[:2], LONG[2:]]
        assert all(turn.unread == () for turn in out.turns[0])
        short = pipe(picture((64, 64)), plan=plan(SHORT), turns="auto", generator=seeded(1), num_inference_steps=1)
        single = pipe(picture((64, 64)), plan=plan(SHORT), generator=seeded(1), num_inference_steps=1)
        assert difference(short.images[0], single.images[0]) == 0

    def test_a_word_that_is_no_way(self, pipe):
        with pytest.raises(ValueError, match="one of single, multi, auto, composed, not"):
            pipe(picture((64, 64)), plan=plan(SHORT), turns="thrice")
