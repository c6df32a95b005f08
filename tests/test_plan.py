import dataclasses
import doctest
import random

import pytest

from diffusers_r1 import plan
from diffusers_r1.plan import FAULT_WORDS, Edit, EditPlan, Fault, FaultKind, describe_faults


def random_text(rng: random.Random) -> str:
    return "".join(rng.choice("ab é\n\"'{};<>漢") for _ in range(rng.randint(0, 12))) or "x"


def random_plan(seed: int) -> EditPlan:
    rng = random.Random(seed)
    texts = lambda n: tuple("x" + random_text(rng) for _ in range(n))  # noqa: E731
    edits = tuple(Edit(*texts(3)) for _ in range(rng.randint(0, 4)))
    faults = tuple(Fault(rng.choice(list(FaultKind)), *texts(2)) for _ in range(rng.randint(0, 3)))
    told = (*texts(1), rng.random() < 0.5, *texts(1), texts(2), faults)
    return EditPlan(*texts(1), edits, texts(rng.randint(1, 4)), *told)


@pytest.mark.parametrize("seed", range(50))
def test_a_plan_survives_dict_and_json(seed):
    plan = random_plan(seed)
    assert EditPlan.from_dict(plan.to_dict()) == plan
    assert EditPlan.from_json(plan.to_json()) == plan


def test_a_plan_can_be_written_by_hand_and_changed():
    plan = EditPlan.from_dict({"requests": ["make it snow"]})
    assert plan == EditPlan("", (), ("make it snow",)) and not plan.fallback
    assert dataclasses.replace(plan, requests=("make it rain",)).prompts() == ["make it rain"]


def test_prompts_are_one_string_or_one_for_each_request():
    plan = EditPlan("", (), ("remove the man.", "make the coat red", "brighten it."))
    assert plan.prompts("single") == ["remove the man. make the coat red. brighten it."]
    assert plan.prompts("multi") == ["remove the man.", "make the coat red", "brighten it."]
    for other in ("both", "two", "Multi", ""):
        with pytest.raises(ValueError, match="single"):
            plan.prompts(other)


def test_what_is_handed_on_does_not_change():
    plan = EditPlan("", (Edit("a", "b", "c"),), ("d",), faults=(Fault(FaultKind.NO_EDIT),))
    for thing, field in ((plan, "requests"), (plan.edits[0], "goal"), (plan.faults[0], "tag")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, field, "x")


def test_json_is_for_people_to_read():
    assert EditPlan("é", (), ("a",)).to_json().splitlines()[1] == '  "instruction": "é",'


FAULT = {"kind": "lost_item", "tag": "action", "detail": "sharpen"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "plan must be an object with `instruction`, `edits`, .* and `faults`, not a list of 0"),
        (None, "plan must be an object"),
        ({}, "plan: `requests` is missing"),
        ({"requests": []}, "at least one"),
        ({"requests": [" "]}, "none of them empty"),
        ({"requests": "make it snow"}, '`requests` must be a list of text, not "make it snow"'),
        ({"requests": None}, "`requests` must be a list of text, not null"),
        ({"requests": {"a": 1}}, "`requests` must be a list of text, not an object"),
        ({"requests": [1]}, r"`requests\[0\]` must be text, not a number"),
        ({"requests": ["a", None]}, r"`requests\[1\]` must be text, not null"),
        ({"requests": ["a", "\ud800"]}, r"`requests\[1\]` holds half of a surrogate pair"),
        ({"requests": ["a"], "colour": 1}, "has no `colour`; it has `instruction`"),
        ({"requests": ["a"], "\ud800": 1}, r"has no `\?`"),
        ({"requests": ["a"], "edits": [{"action": "add"}]}, r"`edits\[0\].subject` is missing"),
        (
            {"requests": ["a"], "edits": [{"action": 1, "subject": "b", "goal": "c"}]},
            r"`edits\[0\].action` must be text",
        ),
        ({"requests": ["a"], "edits": {"action": "b"}}, "`edits` must be a list of objects, not an object"),
        ({"requests": ["a"], "edits": ["b"]}, r"`edits\[0\]` must be an object with `action`, `subject` and `goal`"),
        ({"requests": ["a"], "instruction": 3}, "`instruction` must be text, not a number"),
        ({"requests": ["a"], "instruction": None}, "`instruction` must be text, not null"),
        ({"requests": ["a"], "fallback": "yes"}, '`fallback` must be true or false, not "yes"'),
        ({"requests": ["a"], "fallback": 1}, "`fallback` must be true or false, not a number"),
        ({"requests": ["a"], "raw": "b"}, "`raw` must be a list of text"),
        (
            {"requests": ["a"], "faults": [{**FAULT, "kind": "bad"}]},
            r"`faults\[0\].kind` must be one of text_outside, ",
        ),
        ({"requests": ["a"], "faults": [{"tag": "goal"}]}, r"`faults\[0\].kind` is missing"),
    ],
)
def test_bad_plans_are_refused_with_what_is_wrong(data, said):
    with pytest.raises(ValueError, match=said):
        EditPlan.from_dict(data)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "trip.json cannot be read as JSON"),
        ('{"requests": ["a"]', "trip.json cannot be read as JSON"),
        ("[" * 100_000 + "]" * 100_000, "trip.json is nested too deeply"),
        ('{"requests": ' + "[" * 100_000 + "]" * 100_000 + "}", "trip.json is nested too deeply"),
        ('{"requests": [NaN]}', "trip.json cannot be read as JSON: NaN"),
        ('{"requests": ["\\ud83d"]}', r"trip.json: `requests\[0\]` holds half"),
        ('{"requests": null}', "trip.json: `requests` must be a list of text, not null"),
    ],
)
def test_bad_files_of_plans_are_named(text, said):
    with pytest.raises(ValueError, match=said):
        EditPlan.from_json(text, "trip.json")


def test_a_written_fault_is_read():
    plan = EditPlan.from_dict({"requests": ["a"], "faults": [FAULT]})
    assert plan.faults == (Fault(FaultKind.LOST_ITEM, "action", "sharpen"),)
    assert plan.to_dict()["faults"] == [FAULT]


def test_faults_in_words_name_each_kind_once():
    faults = [Fault(FaultKind.TEXT_OUTSIDE)] * 74 + [Fault(FaultKind.MISSING_TAG, tag) for tag in ("action", "goal")]
    assert describe_faults(faults) == "text outside the tags (74 times), no <action> and <goal>"
    assert describe_faults([]) == ""
    assert describe_faults([Fault(FaultKind.UNEQUAL_LISTS, detail=d) for d in "ab"]) == "lists of a items (2 times)"
    assert str(Fault(FaultKind.UNEQUAL_LISTS, detail="3, 2 and 3")) == "lists of 3, 2 and 3 items"
    assert set(FAULT_WORDS) == set(FaultKind)
    assert len({str(Fault(kind, "goal", "1")) for kind in FaultKind}) == len(FaultKind)


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(plan).failed == 0
