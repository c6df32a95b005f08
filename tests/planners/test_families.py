"""The families that must do everything do; the table in the docs, which a benchmark makes of all of them, says so too."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from planner_cells import CELLS, WORDS, pictures, printable, read_plainly
from tiny_planners import FAMILIES, REQUIRED, build, byte_tokenizer

from diffusers_r1.plan import Edit
from diffusers_r1.planners.conversation import Conversation
from diffusers_r1.planners.plans import make_plans
from diffusers_r1.planners.templates import check_trainable, fitting_prompts, render
from diffusers_r1.prompts import Example, Prompts


pytestmark = [
    pytest.mark.tiny,
    # TRL and PEFT use the old name.
    pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing. is deprecated:FutureWarning"),
]

PAGE = Path(__file__).parents[2] / "docs" / "planners.md"


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("family", REQUIRED)
def test_a_required_family_does_everything(family, cell, tmp_path):
    CELLS[cell](*build(family), tmp_path)


def test_the_table_has_all_families_and_no_crash():
    rows = {name: cells for name, cells in re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE)}
    assert set(rows) == set(FAMILIES)
    assert all(set(rows[family].split(" | ")) == {"yes"} for family in REQUIRED)
    assert "crash" not in PAGE.read_text()


def test_a_class_that_would_answer_wrongly_is_refused():
    model, processor = build("phi4_multimodal")
    model.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match="eager"):
        Conversation(model, processor, pictures(1), ["x"], WORDS)


def test_a_class_without_a_chat_template_is_refused():
    model, processor = build("paligemma")
    with pytest.raises(ValueError, match="PaliGemmaProcessor has no chat template"):
        make_plans(model, processor, pictures(1), ["x"], WORDS)
    with pytest.raises(ValueError, match="PaliGemmaProcessor has no chat template"):
        check_trainable(processor)
    with pytest.raises(ValueError, match="leaves the chat template to its tokenizer"):
        check_trainable(build("phi4_multimodal")[1])


@pytest.mark.parametrize("family", ["mistral3", "gemma3", "qwen2_5_vl"])
def test_the_system_words_reach_the_model_with_or_without_a_role(family):
    _, processor = build(family)
    words = fitting_prompts(WORDS, processor)
    assert (words == WORDS) == (family != "mistral3")
    text = render(processor, words.second_turn(words.first_turn("paint it", pictures(1)[0]), "so"))
    assert text.count(WORDS.system) == 1 and text.index(WORDS.system) < text.index("Plan: paint it")


def test_a_template_that_refuses_the_role_has_none():
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no such role') }}{% endif %}"
        "{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    tokenizer = byte_tokenizer([], "<|end|>", template, image_token="<picture>")
    words = fitting_prompts(WORDS, tokenizer)
    assert words == replace(WORDS, system="", decompose=f"{WORDS.system}\n\n{WORDS.decompose}")
    assert render(tokenizer, words.first_turn("paint it")) == f"{WORDS.system}\n\nPlan: paint it>"
    plain = replace(WORDS, system="")
    assert fitting_prompts(plain, tokenizer) is plain
    assert render(tokenizer, plain.first_turn("paint it", pictures(1)[0])) == "<picture>Plan: paint it>"


def test_a_model_that_thinks_by_default_is_told_not_to_and_an_opened_thought_is_left_to_it():
    _, processor = build("qwen3_5")
    turn = WORDS.first_turn("paint it", pictures(1)[0])
    assert render(processor, turn).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    processor.chat_template = processor.chat_template.replace("enable_thinking", "something_else")
    assert render(processor, turn).endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "mistral3", "llava_onevision", "phi4_multimodal"])
def test_references_are_seen_and_examples_are_heard(family):
    model, processor = build(family)
    one, other, third = pictures(3)
    example = Example("a", (Edit("b", "c", "d"),), ("e",), "f")
    words = Prompts(decompose="Plan: {instruction}", sequence="Order.", system="You plan.", examples=(example,))
    settings = printable(processor)
    task = model, processor, [one, one], ["paint it"] * 2, words
    talk = Conversation(*task, references=[[other], [other, third]])
    answers = talk.decompose(**settings)
    for row, beside in enumerate([[other], [other, third]]):
        alone = Conversation(model, processor, [one], ["paint it"], words, references=[beside])
        text = render(processor, alone.first_turns[0])
        assert (
            text.index("Order.") < text.index("Picture 1, the one to edit:") < text.index("Picture 2, for reference:")
        )
        assert alone.decompose(**settings) == [answers[row]]
        inputs = read_plainly(processor, alone.first_turns[0], [one, *beside])
        output = model.generate(**inputs, do_sample=False, **settings)[:, inputs["input_ids"].shape[1] :]
        assert processor.batch_decode(output, skip_special_tokens=True) == [answers[row]]
    assert all(talk.sequence(**settings))
