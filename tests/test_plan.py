import dataclasses
import random

import pytest

from diffusers_r1.plan import Edit, EditPlan


def random_text(rng: random.Random) -> str:
    return "".join(rng.choice("ab é\n\"'{};<>漢") for _ in range(rng.randint(0, 12))) or "x"


def random_plan(seed: int) -> EditPlan:
    rng = random.Random(seed)
    texts = lambda n: tuple("x" + random_text(rng) for _ in range(n))  # noqa: E731
    edits = tuple(Edit(*texts(3)) for _ in range(rng.randint(0, 4)))
    return EditPlan(*texts(1), edits, texts(rng.randint(1, 4)), *texts(1), rng.random() < 0.5, *texts(1), texts(2))


@pytest.mark.parametrize("seed", range(50))
def test_a_plan_survives_dict_and_json(seed):
    plan = random_plan(seed)
    assert EditPlan.from_dict(plan.to_dict()) == plan
    assert EditPlan.from_json(plan.to_json()) == plan


def test_a_plan_can_be_written_by_hand_and_changed():
    plan = EditPlan.from_dict({"requests": ["make it snow"]})
    assert plan == EditPlan("", (), ("make it snow",))
    assert dataclasses.replace(plan, requests=("make it rain",)).prompts() == ["make it rain"]


def test_prompts_are_one_string_or_one_for_each_request():
    plan = EditPlan("", (), ("remove the man.", "make the coat red", "brighten it."))
    assert plan.prompts("single") == ["remove the man. make the coat red. brighten it."]
    assert plan.prompts("multi") == ["remove the man.", "make the coat red", "brighten it."]
    with pytest.raises(ValueError, match="single"):
        plan.prompts("both")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "JSON object"),
        ({}, "needs `requests`"),
        ({"requests": []}, "at least one"),
        ({"requests": [" "]}, "none of them empty"),
        ({"requests": "make it snow"}, "`requests`"),
        ({"requests": [1]}, "`requests`"),
        ({"requests": ["a"], "colour": 1}, "colour"),
        ({"requests": ["a"], "edits": [{"action": "add"}]}, "subject"),
        ({"requests": ["a"], "edits": [{"action": 1, "subject": "b", "goal": "c"}]}, "edits"),
        ({"requests": ["a"], "instruction": 3}, "`instruction`"),
    ],
)
def test_bad_plans_are_refused_with_what_is_wrong(data, said):
    with pytest.raises(ValueError, match=said):
        EditPlan.from_dict(data)
