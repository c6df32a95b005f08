import random

import pytest
from parse_broken_answers import broken

from diffusers_r1.plan import Edit
from diffusers_r1.planners.plans import to_plan
from diffusers_r1.tags import read_decomposition, read_sequence, write_decomposition, write_sequence


EDITS = (Edit("recolor", "coat", "the car's red"), Edit("remove", "man", "nothing"))
TEXT = write_decomposition(EDITS, "a coat; a <b>man</b>")


def test_reading_undoes_writing():
    found = read_decomposition(TEXT)
    assert (found.edits, found.reasoning, found.faults) == (EDITS, "a coat; a <b>man</b>", ())
    listed = read_sequence(write_sequence(["make the coat red", "remove the man"]))
    assert (listed.requests, listed.faults) == (("make the coat red", "remove the man"), ())


@pytest.mark.parametrize(
    "edits", [(), (Edit("add", "", "x"),), (Edit("add", "a; b", "x"),), (Edit("add", "<goal>", "x"),)]
)
def test_what_could_not_be_read_back_is_not_written(edits):
    with pytest.raises(ValueError):
        write_decomposition(edits)


A, S, G = "<action>a</action>", "<subject>s</subject>", "<goal>g</goal>"
ONE = (Edit("a", "s", "g"),)


@pytest.mark.parametrize(
    ("text", "edits", "faults"),
    [
        ("", (), ("no <think>", "no <action>", "no <subject>", "no <goal>")),
        ("I would make the coat red.", (), ("text outside the tags", "no <think>")),
        (A + S + G, ONE, ("no <think>",)),
        (f"<think>t{A}{S}{G}", ONE, ("<think> is not closed",)),
        (f"<think>t</think>{A}{S}<goal>g", ONE, ("<goal> is not closed",)),
        (f"<think>t</think>{A}{S}", (), ("no <goal>",)),
        (f"<think>t</think>{S}{A}{G}", ONE, ("tags out of order",)),
        (f"<think>t</think>{A}{A}{S}{G}", ONE, ("<action> more than once",)),
        (f"<think>t</think>{A}{S}{G} done", ONE, ("text outside the tags",)),
        (f"Sure: <think>t</think>{A}{S}{G}", ONE, ("text outside the tags",)),
        (f"<think>{A}{S}{G}</think>", (), ("<action> inside <think>", "no <action>")),
        (f"<think>{A}</think>{A}{S}{G}", ONE, ("<action> inside <think>",)),
        (f"<think>t</think><action>a; b</action>{S}{G}", ONE, ("lists of 2, 1 and 1 items",)),
        ("<think>t</think><action>a; </action><subject>s; u</subject><goal>g; h</goal>", ONE, ("item 2 is empty",)),
        ("<think>t</think><action></action><subject> </subject><goal></goal>", (), ("no edit",)),
        (f"<think>t</think>{A}{S}{G}<sequence>r</sequence>", ONE, ("<sequence> does not belong here",)),
        (f"<think>t</think></goal>{A}{S}{G}", ONE, ("</goal> closes nothing",)),
        (f"<think>t</think>{A}<subject>s</goal></subject>{G}", ONE, ("</goal> inside <subject>",)),
        (f"<THINK>t</THINK>{A.upper()}{S}{G}", (Edit("A", "s", "g"),), ()),
    ],
)
def test_odd_answers_are_used_as_far_as_they_go(text, edits, faults):
    found = read_decomposition(text)
    assert found.edits == edits
    assert all(fault in found.faults for fault in faults)
    assert bool(found.faults) == bool(faults)
    assert found.edits or found.faults


def test_ten_thousand_broken_answers_end_in_a_plan():
    rng = random.Random(2603)
    answered = write_sequence(["make the coat red", "remove the man"])
    for _ in range(10_000):
        decomposition, sequence = broken(TEXT, rng), broken(answered, rng)
        plan = to_plan("make it nice", decomposition, sequence)
        found = read_decomposition(decomposition)
        assert found.edits or found.faults
        assert plan.requests and all(request.strip() for request in plan.requests)
        assert plan.fallback == (not found.edits or not read_sequence(sequence).requests)
        assert plan.reason if plan.fallback else not plan.reason
