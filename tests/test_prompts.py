import json

import pytest
import tiny_models

from diffusers_r1 import ImageEditR1Pipeline, prompts
from diffusers_r1.belongings import set_belongings
from diffusers_r1.bundles.planners import load_planner
from diffusers_r1.planners.int8 import to_int8
from diffusers_r1.planners.remote import RemotePlanner
from diffusers_r1.prompts import PHOTO_EXAMPLES, Prompts, prompts_of
from diffusers_r1.tags import ESCAPES


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "prompts.json must be an object"),
        ({"decompose": None}, "prompts.json: `decompose` must be text, not null"),
        ({"decompose": "no place"}, "prompts.json: The decomposition prompt has no {instruction}"),
        (
            {"words": "x"},
            "prompts.json has no `words`; it has `decompose`, `sequence`, `system`, `edited`, `reference` and `examples`",
        ),
        ({"system": ["x"]}, "prompts.json: `system` must be text, not a list of 1"),
    ],
)
def test_prompts_are_read_through_the_schema(tmp_path, data, said):
    (tmp_path / "prompts.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ValueError, match=said) as caught:
        Prompts.load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(ValueError, match=said):
        Prompts.from_dict(data, "prompts.json")


@pytest.mark.parametrize("text", ["half of one \ud800", 3, None, ["x"]])
@pytest.mark.parametrize("name", ["system", "sequence", "edited"])
def test_prompts_are_text(name, text):
    with pytest.raises(ValueError, match=f"`{name}` (must be text|holds half of a surrogate pair)"):
        Prompts(**{name: text})


def test_prompts_survive_their_file(tmp_path):
    assert Prompts.load(tmp_path) == Prompts()
    prompts = Prompts("é {instruction}", "in order", "漢")
    prompts.save(tmp_path)
    assert Prompts.load(tmp_path) == prompts
    assert Prompts.from_dict({}) == Prompts()


def test_the_default_prompts_say_how_the_format_is_written():
    prompts = Prompts()
    assert ESCAPES[";"] in prompts.decompose and ESCAPES["<"] in prompts.decompose and ESCAPES[";"] in prompts.sequence


def test_the_two_turns():
    prompts = Prompts("Plan: {instruction}", "in order", "You plan.")
    first = prompts.first_turn("a {instruction}", "picture")
    assert [message["role"] for message in first] == ["system", "user"]
    assert first[1]["content"] == [
        {"type": "image", "image": "picture"},
        {"type": "text", "text": "Plan: a {instruction}"},
    ]
    assert Prompts("{instruction}").first_turn("a") == [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    second = prompts.second_turn(first, "answer")
    assert second[:2] == first and [message["role"] for message in second[2:]] == ["assistant", "user"]
    assert [message["content"][0]["text"] for message in second[2:]] == ["answer", "in order"]


@pytest.mark.parametrize("parameters, shown", [(900_000_000, 0), (3_000_000_000, len(PHOTO_EXAMPLES))])
def test_a_large_planner_that_nobody_trained_is_shown_examples(parameters, shown):
    planner, _ = tiny_models.tiny_text_planner()
    assert prompts_of(planner) == Prompts()
    planner.num_parameters = lambda: parameters
    assert len(prompts_of(planner).examples) == shown
    assert prompts_of(planner, examples=()) == Prompts()
    set_belongings(planner, prompts=Prompts(system="asked so").to_dict())
    assert prompts_of(planner) == Prompts(system="asked so")


def test_weights_of_8_bits_are_weights_too(monkeypatch):
    planner, _ = tiny_models.tiny_text_planner()
    monkeypatch.setattr(prompts, "FOLLOWS_EXAMPLES", planner.num_parameters())
    assert prompts_of(planner).examples and prompts_of(to_int8(planner)).examples
    assert planner.num_parameters() < prompts.FOLLOWS_EXAMPLES


def test_a_planner_behind_an_address_is_shown_examples_whoever_asks(tmp_path):
    planner = RemotePlanner("http://localhost:1/v1", "eyes")
    assert ImageEditR1Pipeline(planner, None, None).prompts == Prompts(examples=PHOTO_EXAMPLES)
    planner.save_pretrained(tmp_path)
    assert load_planner(tmp_path)[2] == Prompts(examples=PHOTO_EXAMPLES)
    planner.close()
