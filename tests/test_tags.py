import doctest
import random
import unicodedata

import pytest
from parse_broken_answers import broken

from diffusers_r1 import tags
from diffusers_r1.plan import Edit, Fault, FaultKind
from diffusers_r1.tags import read_decomposition, read_sequence, writable, write_decomposition, write_sequence


EDITS = (Edit("recolor", "coat", "the car's red"), Edit("remove", "man", "nothing"))
TEXT = write_decomposition(EDITS, "a coat; a <b>man</b>")


def test_reading_undoes_writing():
    found = read_decomposition(TEXT)
    assert (found.edits, found.reasoning, found.faults) == (EDITS, "a coat; a <b>man</b>", ())
    listed = read_sequence(write_sequence(["make the coat red", "remove the man"]))
    assert (listed.requests, listed.faults) == (("make the coat red", "remove the man"), ())


@pytest.mark.parametrize("edits", [(), (Edit("add", "", "x"),), (Edit("add", "hat", " "),)])
def test_what_could_not_be_read_back_is_not_written(edits):
    with pytest.raises(ValueError, match="needs items, none of them empty"):
        write_decomposition(edits)


PIECES = [
    ";",
    "\\",
    "<",
    ">",
    "/",
    "a",
    " ",
    "<action>",
    "</goal>",
    "</think>",
    "<sequence>",
    "<think>",
    "&lt;",
    "漢",
    "\u00a0",
    "é",
    "😀",
    "\\;",
    "n",
]


def random_text(rng: random.Random) -> str:
    """Of pieces that mean something to the format, or of any characters but control characters and halves of pairs."""
    if rng.random() < 0.5:
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 10)))
    else:
        text = "".join(chr(rng.randrange(32, rng.choice((127, 0x3000, 0x110000)))) for _ in range(rng.randint(1, 10)))
    kept = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cs"))
    return kept.strip() or "x"


@pytest.mark.parametrize("seed", range(20))
def test_reading_undoes_writing_whatever_the_texts_are(seed):
    rng = random.Random(seed)
    for _ in range(50):
        edits = tuple(Edit(*(random_text(rng) for _ in range(3))) for _ in range(rng.randint(1, 5)))
        reasoning = random_text(rng)
        found = read_decomposition(write_decomposition(edits, reasoning))
        assert (found.edits, found.reasoning, found.faults) == (edits, reasoning, ())
        requests = tuple(random_text(rng) for _ in range(rng.randint(1, 5)))
        listed = read_sequence(write_sequence(requests))
        assert (listed.requests, listed.faults) == (requests, ())


@pytest.mark.parametrize(
    ("written", "item"),
    [
        (r"a\: b", "a; b"),
        (r"a\[goal>", "a<goal>"),
        (r"a\\", "a\\"),
        ("a\\", "a\\"),
        (r"\\\: b", r"\; b"),
        (r"\\: b", r"\: b"),
        (r"C:\photos\n", r"C:\photos\n"),  # a backslash before anything else is one
        ("a < b > c", "a < b > c"),  # so is what is no tag
    ],
)
def test_what_stands_for_itself_and_what_does_not(written, item):
    found = read_decomposition(f"<think>t</think><action>{written}</action>{S}{G}")
    assert [edit.action for edit in found.edits] == [item] and not found.faults
    assert read_sequence(f"<sequence>{written}</sequence>").requests == (item,)
    assert read_decomposition(f"<think>{written}</think>{A}{S}{G}").reasoning == item


A, S, G = "<action>a</action>", "<subject>s</subject>", "<goal>g</goal>"
ONE = (Edit("a", "s", "g"),)


# Each in short form: kind, tag, detail.
NO_THINK = ("missing_tag", "think")


@pytest.mark.parametrize(
    ("text", "edits", "faults"),
    [
        ("", (), [NO_THINK, ("missing_tag", "action"), ("missing_tag", "subject"), ("missing_tag", "goal")]),
        (
            "I would make the coat red.",
            (),
            [
                ("text_outside",),
                NO_THINK,
                ("missing_tag", "action"),
                ("missing_tag", "subject"),
                ("missing_tag", "goal"),
            ],
        ),
        (A + S + G, ONE, [NO_THINK]),
        (f"<think>t{A}{S}{G}", ONE, [("unclosed_tag", "think")]),
        (f"<think>t</think>{A}{S}<goal>g", ONE, [("unclosed_tag", "goal")]),
        (
            f"<think>t</think>{A}{S}",
            (),
            [
                ("missing_tag", "goal"),
                ("unequal_lists", "", "1, 1 and 0"),
                ("lost_item", "action", "a"),
                ("lost_item", "subject", "s"),
            ],
        ),
        (f"<think>t</think>{S}{A}{G}", ONE, [("tag_order",)]),
        (f"<think>t</think>{A}{A}{S}{G}", ONE, [("repeated_tag", "action")]),
        (
            f"<think>t</think>{A}{A.replace('a<', 'b; a<')}{S}{G}",
            ONE,
            [("repeated_tag", "action"), ("lost_item", "action", "b"), ("lost_item", "action", "a")],
        ),
        (f"<think>t</think><think>u</think>{A}{S}{G}", ONE, [("repeated_tag", "think")]),
        (f"<think>t</think><action> </action>{A}{S}{G}", ONE, [("repeated_tag", "action")]),
        (f"<think>t</think>{A}{S}{G} done", ONE, [("text_outside",)]),
        (f"<think>t</think>{A} and {S} and {G}", ONE, [("text_outside",), ("text_outside",)]),
        (f"Sure: <think>t</think>{A}{S}{G}", ONE, [("text_outside",)]),
        (
            f"<think>{A}</think>",
            (),
            [
                ("nested_tag", "think", "<action>"),
                ("nested_tag", "think", "</action>"),
                ("missing_tag", "action"),
                ("missing_tag", "subject"),
                ("missing_tag", "goal"),
            ],
        ),
        (
            f"<think>{A}</think>{A}{S}{G}",
            ONE,
            [("nested_tag", "think", "<action>"), ("nested_tag", "think", "</action>")],
        ),
        (
            f"<think>t</think><action>a; b</action>{S}{G}",
            ONE,
            [("unequal_lists", "", "2, 1 and 1"), ("lost_item", "action", "b")],
        ),
        (
            "<think>t</think><action>a; b; c</action><subject>s; t</subject><goal>g; h; i</goal>",
            (*ONE, Edit("b", "t", "h")),
            [("unequal_lists", "", "3, 2 and 3"), ("lost_item", "action", "c"), ("lost_item", "goal", "i")],
        ),
        (
            f"<think>t</think><action>a;</action>{S}{G}",
            ONE,
            [("unequal_lists", "", "2, 1 and 1"), ("empty_item", "action", "2")],
        ),
        (
            "<think>t</think><action>a; </action><subject>s; u</subject><goal>g; h</goal>",
            ONE,
            [("empty_item", "action", "2"), ("lost_item", "subject", "u"), ("lost_item", "goal", "h")],
        ),
        ("<think>t</think><action></action><subject> </subject><goal></goal>", (), [("no_edit",)]),
        (f"<think>t</think>{A}{S}{G}<sequence>r</sequence>", ONE, [("foreign_tag", "sequence")]),
        (f"<think>t</think></goal>{A}{S}{G}", ONE, [("unopened_tag", "goal")]),
        (f"<think>t</think>{A}<subject>s</goal></subject>{G}", ONE, [("nested_tag", "subject", "</goal>")]),
        (f"<THINK>t</THINK>{A.upper()}{S}{G}", (Edit("A", "s", "g"),), []),
        # reasoning that a chat template has opened, or of which a server has left nothing but the end
        (f"a coat</think>{A}{S}{G}", ONE, []),
        (f"</think>\n{A}{S}{G}", ONE, []),
        (
            f"a {A} b</think>{A}{S}{G}",
            ONE,
            [("nested_tag", "think", "<action>"), ("nested_tag", "think", "</action>")],
        ),
        (f"{A}{S}{G}</think>", ONE, [("unopened_tag", "think"), NO_THINK]),
        (f"t</think>u</think>{A}{S}{G}", ONE, [("text_outside",), ("unopened_tag", "think")]),
    ],
)
def test_odd_answers_are_used_as_far_as_they_go(text, edits, faults):
    found = read_decomposition(text)
    assert found.edits == edits
    assert list(found.faults) == [Fault(FaultKind(kind), *rest) for kind, *rest in faults]
    assert found.edits or found.faults


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        (f"<think> a coat </think>{A}{S}{G}", "a coat"),
        (f" a coat; red</think>{A}{S}{G}", "a coat; red"),
        (f"</think>{A}{S}{G}", ""),
        (f"a {A}</think>{A}{S}{G}", f"a {A}"),
        (f"{A}{S}{G}", ""),
    ],
)
def test_reasoning_is_what_stands_before_the_answer(text, reasoning):
    assert read_decomposition(text).reasoning == reasoning


@pytest.mark.parametrize(
    ("text", "requests", "faults"),
    [
        ("<sequence>a; b</sequence>", ("a", "b"), []),
        ("<think>hm</think><sequence>a</sequence>", ("a",), []),
        ("hm</think><sequence>a</sequence>", ("a",), []),
        ("", (), [("missing_tag", "sequence")]),
        ("<sequence> </sequence>", (), [("empty_item", "sequence", "1")]),
        ("<sequence>a; ; b</sequence>", ("a", "b"), [("empty_item", "sequence", "2")]),
        (
            "<sequence>a</sequence><sequence>b</sequence>",
            ("a",),
            [("repeated_tag", "sequence"), ("lost_item", "sequence", "b")],
        ),
        (f"{A}<sequence>a</sequence>", ("a",), [("foreign_tag", "action")]),
        (
            "<sequence>a <goal>b</sequence>",
            ("a",),
            [
                ("unclosed_tag", "sequence"),
                ("nested_tag", "goal", "</sequence>"),
                ("unclosed_tag", "goal"),
                ("foreign_tag", "goal"),
            ],
        ),
    ],
)
def test_sequences_are_read_as_far_as_they_go(text, requests, faults):
    listed = read_sequence(text)
    assert listed.requests == requests
    assert list(listed.faults) == [Fault(FaultKind(kind), *rest) for kind, *rest in faults]


def test_no_item_of_a_broken_answer_is_lost_without_a_fault():
    rng = random.Random(2603)
    for _ in range(1_000):
        text = broken(TEXT, rng)
        found = read_decomposition(text)
        assert found.edits or found.faults
        if not found.faults:
            assert len(read_decomposition(write_decomposition(found.edits, found.reasoning)).edits) == len(found.edits)


def test_halves_of_surrogate_pairs_are_no_text():
    assert writable("caf\u00e9 \ud800 \U0001f600") == "caf\u00e9 ? \U0001f600"


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(tags).failed == 0
