"""What is checked without a pipeline: the last value that is taken and the first that is not, and what a record holds."""

import ast
import dataclasses
import re
from inspect import getdoc, signature

import numpy as np
import pytest
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.pipelines.checked import EditCall, PlanCall
from diffusers_r1.pipelines.checks import (
    changed_plan,
    check_count,
    check_either,
    check_functions,
    check_generation,
    check_plans,
    check_reflection,
    check_seed,
    check_texts,
    check_turns,
    open_pairs,
)
from diffusers_r1.pipelines.nested.adapters import SavedAdapter
from diffusers_r1.pipelines.pipeline_output import Candidate, ImageEditR1PipelineOutput
from diffusers_r1.pipelines.reflection import last_whole
from diffusers_r1.pipelines.remote import RemoteCall, RemoteOutput, RemotePipeline
from diffusers_r1.pipelines.turn import Turn


PLAN = EditPlan("", (), ("make it blue",))
RED, BLUE = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
INF = float("inf")


# Limits
# ------

SETTINGS_TAKEN = {
    "do_sample": [True, False, None],
    "constrained": [True, False, None],
    "temperature": [0.01, 1, 2.5, np.float32(0.5), None],
    "top_p": [0.01, 0.5, 1, None],
    "top_k": [0, 1, np.int64(50), None],
    "retries": [0, 1, None],
    "num_beams": [1, 4, None],
    "repetition_penalty": [0.01, 1, 1.2, None],
    "logits_processor": [[], [print], None],
    "suppress_tokens": [[1, 2], np.array([1]), None],
    "synced_gpus": [False, None],
    "min_p": ["what nobody here knows", 0],
}
SETTINGS_REFUSED = {
    "do_sample": [1, 0, "yes"],
    "constrained": [1, 0, "yes"],
    "temperature": [0, -0.1, INF, True, "hot"],
    "top_p": [0, 1.01, True, "x"],
    "top_k": [-1, 0.5, "x"],
    "retries": [-1, 0.5, "x"],
    "num_beams": [0, 1.5, "x"],
    "repetition_penalty": [0, -1, True, "x"],
    "logits_processor": [3, print, [3]],
    "stopping_criteria": [3, [3]],
    "streamer": [3, "x"],
    "suppress_tokens": [3, "x"],
    "synced_gpus": ["a", 1],
}
TAKEN = [
    (check_either, ("a", None)),
    (check_either, (None, PLAN)),
    *((check_turns, (turns,)) for turns in ("single", "multi", "auto", "composed")),
    *((check_count, ("n", number)) for number in (1, 2, np.int64(7))),
    *((check_reflection, given) for given in ((0, None), (1, print), (np.int64(2), print))),
    *((check_generation, (1, given)) for given in (None, {})),
    *((check_generation, (1, {name: value})) for name, values in SETTINGS_TAKEN.items() for value in values),
    *((check_seed, (seed,)) for seed in (None, 0, 3, np.int64(5))),
    *((check_functions, ()) for _ in range(1)),
]
REFUSED = [
    (check_either, (None, None), ValueError, "Give either"),
    (check_either, ("a", PLAN), ValueError, "Give either"),
    (check_turns, ("both",), ValueError, "`turns` must be one of single"),
    *((check_count, ("n", number), ValueError, "`n` must be 1 or more") for number in (0, -1, True, 1.5, "1")),
    *((check_reflection, (looks, print), ValueError, "0 or more, not") for looks in (-1, True, 1.5, "1")),
    (check_reflection, (1, None), ValueError, "needs a `critic`"),
    (check_reflection, (0, print), ValueError, "1 or more"),
    (check_reflection, (1, "scenes"), TypeError, "`critic` is called; str cannot be"),
    (check_generation, (0, None), ValueError, "`max_new_tokens` must be 1 or more"),
    (check_generation, (1, [("do_sample", True)]), TypeError, "`generation` is a `dict`"),
    (check_generation, (1, {"num_plans": 2}), TypeError, "arguments of their own"),
    *(
        (check_generation, (1, {name: value}), ValueError, f"`{name}` must be ")
        for name, values in SETTINGS_REFUSED.items()
        for value in values
    ),
    *((check_seed, (seed,), ValueError, "0 or more, not") for seed in (-1, True, 0.5, "1")),
    *((check_texts, (text,), TypeError, "An instruction is text") for text in (3, ["a", None], {})),
    *((check_texts, (text,), ValueError, "There is no instruction yet") for text in ("", " \n", ["a", ""])),
    (check_texts, ("a\ud800",), ValueError, "half of a surrogate pair"),
    (check_texts, ([],), ValueError, "`instruction` is an empty list"),
    (check_plans, ({"requests": ["a"]},), TypeError, "A plan is an `EditPlan`, not dict"),
    (check_plans, ((),), ValueError, "`plan` is an empty list"),
    (check_plans, (EditPlan("", (), "remove"),), ValueError, "requests"),
    (open_pairs, ([RED] * 2, ["a"] * 3), ValueError, "2 pictures do not go with 3 instructions"),
]


@pytest.mark.parametrize(("check", "given"), TAKEN)
def test_what_is_just_in_bounds_is_taken(check, given):
    assert check(*given) is None


@pytest.mark.parametrize(("check", "given", "error", "said"), REFUSED)
def test_what_is_just_out_of_bounds_is_refused(check, given, error, said):
    with pytest.raises(error, match=re.escape(said)):
        check(*given)


def test_what_is_called_can_be_called_or_is_none():
    check_functions(selector=None, upscale=print)
    with pytest.raises(TypeError, match="`upscale` is called; int cannot be"):
        check_functions(selector=print, upscale=3)


def test_texts_and_plans_become_lists():
    assert check_texts("a") == ["a"] and check_texts(("a", "ü")) == ["a", "ü"]
    assert check_plans(PLAN) == [PLAN] and check_plans((PLAN, PLAN)) == [PLAN, PLAN]


def test_a_callback_may_change_the_plan_or_leave_it():
    other = dataclasses.replace(PLAN, requests=("make it red",))
    assert changed_plan(lambda plan: None, PLAN) is PLAN
    assert changed_plan(lambda plan: other, PLAN) == other
    with pytest.raises(TypeError, match="gives an `EditPlan` or None, not dict"):
        changed_plan(lambda plan: {}, PLAN)


@pytest.mark.parametrize(
    ("pictures", "given", "expected"),
    [
        ([RED], ["a"], "red a"),
        ([RED], ["a", "b", "c"], "red a, red b, red c"),
        ([RED, BLUE], ["a"], "red a, blue a"),
        ([RED, BLUE], ["a", "b"], "red a, blue b"),
    ],
)
def test_one_is_for_all_where_the_other_is_many(pictures, given, expected):
    images, references, texts = open_pairs(pictures, given)
    colours = {(255, 0, 0): "red", (0, 0, 255): "blue"}
    assert ", ".join(f"{colours[image.getpixel((0, 0))]} {text}" for image, text in zip(images, texts)) == expected
    assert len(images) == len(texts) and references == [[] for _ in images]


# Records and signatures
# ----------------------


@pytest.mark.parametrize("kind", [PlanCall, EditCall, RemoteCall, RemoteOutput, Candidate, Turn, SavedAdapter])
def test_a_record_of_what_was_asked_or_done_does_not_change(kind):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(object.__new__(kind), dataclasses.fields(kind)[0].name, None)


def test_what_a_record_says_unless_told_otherwise():
    turn = Turn("a", (1, 1), (1, 1), RED)
    assert (turn.requests, turn.unread, turn.interrupted, turn.look, turn.kept) == ((), (), False, 0, True)
    assert turn.criticism is None and Candidate(RED, PLAN, []).score is None
    output = ImageEditR1PipelineOutput([], [], [])
    assert output.interrupted is False and output.candidates == [] and RemoteOutput([], [], []).interrupted is False


@pytest.mark.parametrize(
    "function",
    [
        ImageEditR1Pipeline.__call__,
        ImageEditR1Pipeline.plan,
        ImageEditR1Pipeline.stream,
        ImageEditR1Pipeline.reflect,
        RemotePipeline.__call__,
        last_whole,
    ],
)
def test_a_default_is_what_the_docstring_says(function):
    said = re.findall(r"^ *(\w+) \(.*, defaults to `?([^`\n]+?)`?\):", getdoc(function), re.MULTILINE)
    parameters = signature(function).parameters
    assert said
    assert {name: parameters[name].default for name, _ in said} == {
        name: ast.literal_eval(text) for name, text in said
    }
    assert all(type(parameters[name].default) is type(ast.literal_eval(text)) for name, text in said)


@pytest.mark.parametrize("ours", [ImageEditR1Pipeline.save_pretrained, ImageEditR1Pipeline.push_to_hub])
def test_a_default_is_that_of_diffusers_where_it_has_the_method(ours):
    theirs = signature(getattr(DiffusionPipeline, ours.__name__)).parameters
    shared = {name: one for name, one in signature(ours).parameters.items() if name in theirs and name != "kwargs"}
    assert len(shared) > 4
    for name, parameter in shared.items():
        assert parameter.default is theirs[name].default
