"""What an argument is if nobody gives it is what its description says."""

import inspect
import re

import pytest

from diffusers_r1.planners import plans, remote
from diffusers_r1.planners.conversation import Conversation


DESCRIBED = {
    "Conversation.decompose": (
        Conversation.decompose,
        {"max_new_tokens": 512, "num_answers": 1, "constrained": False},
    ),
    "RemoteConversation": (remote.RemoteConversation, {"seed": 0}),
    "RemoteConversation.decompose": (
        remote.RemoteConversation.decompose,
        {"max_new_tokens": 512, "num_answers": 1, "constrained": False},
    ),
    "make_plans": (plans.make_plans, {"sequence_without_adapter": False, "num_plans": 1, "retries": 1, "seed": 0}),
    "sequence_plans": (plans.sequence_plans, {"without_adapter": False, "seed": 0}),
}


def given_by(function) -> dict:
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.default not in (inspect.Parameter.empty, None)}


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_default_is_what_its_description_says(name):
    function, expected = DESCRIBED[name]
    assert given_by(function) == expected
    described = re.findall(r"^ +(\w+) \(`\w+`, defaults to `?([\w.]+)`?\)", inspect.getdoc(function), re.MULTILINE)
    assert {argument: str(value) for argument, value in expected.items()} == dict(described)


@pytest.mark.parametrize("talk", [Conversation, remote.RemoteConversation])
def test_both_questions_have_the_same_defaults(talk):
    first = given_by(talk.decompose)
    assert given_by(talk.sequence) == {name: value for name, value in first.items() if name != "num_answers"}
    assert given_by(plans.decompose) == given_by(remote.RemotePlanner.converse) == {"seed": 0}
