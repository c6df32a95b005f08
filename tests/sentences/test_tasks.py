import re
import subprocess
import sys
from collections import Counter

import pytest

from diffusers_r1.sentences import ACTIONS, KINDS, SEPARATOR, kind_of, sample_sentence
from diffusers_r1.tags import read_decomposition, read_sequence, write_decomposition, write_sequence


MANY = [sample_sentence(seed, kind) for kind in KINDS for seed in range(500)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_one_sentence(kind):
    assert sample_sentence(7, kind) == sample_sentence(7, kind)
    assert sample_sentence(7, kind) != sample_sentence(8, kind)


def test_a_seed_gives_the_same_in_another_process_with_other_hashes():
    code = "from diffusers_r1.sentences import *; print([sample_sentence(s, k) for s in range(20) for k in KINDS])"
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert texts == {f"{[sample_sentence(s, k) for s in range(20) for k in KINDS]}\n"}


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="plain, chained, referring, noisy, trade"):
        sample_sentence(0, "simple")


def test_a_seed_below_0_is_refused():
    with pytest.raises(ValueError, match="`seed` must be 0 or more, not -1"):
        sample_sentence(-1, "plain")


def test_the_format_can_hold_every_sentence():
    for sentence in MANY:
        answer = read_decomposition(write_decomposition(sentence.edits, sentence.reasoning))
        assert answer.edits == sentence.edits and not answer.faults
        assert read_sequence(write_sequence(sentence.requests)).requests == sentence.requests


def test_each_edit_has_its_clause_and_its_request():
    for sentence in MANY:
        assert len(sentence.edits) == len(sentence.requests) == len(sentence.clauses)
        assert sentence.reasoning.split(SEPARATOR) == list(sentence.clauses)


def test_conventions_of_the_true_edits():
    for sentence in MANY:
        for edit in sentence.edits:
            assert edit.action in ACTIONS
            assert (edit.goal == "nothing") == (edit.action == "remove")
            if sentence.kind != "trade":  # there it can be a thing like any other: "the background sharper"
                assert (edit.subject == "background") == (edit.action == "background") or edit.action == "adjust"
            if edit.action in ("restyle", "crop"):
                assert edit.subject == "whole picture" or edit.action == "restyle" and edit.subject.endswith("hair")
            assert not re.match(r"(the|a|an|my|our|this|that) ", edit.subject), edit
            assert not re.search(r"(?<!behind )(?<!between )\b(it|them|him)$", edit.subject), edit


def test_all_actions_and_some_thousand_subjects():
    actions = Counter(edit.action for sentence in MANY for edit in sentence.edits)
    assert set(actions) == set(ACTIONS) and min(actions.values()) > 50
    assert len({edit.subject for sentence in MANY for edit in sentence.edits}) > 2500
    assert len({sentence.instruction for sentence in MANY}) > 0.99 * len(MANY)


def test_kinds_hold_what_they_promise():
    by_kind = {kind: [sentence for sentence in MANY if sentence.kind == kind] for kind in KINDS}
    counts = {
        "plain": {*range(1, 5)},
        "chained": {*range(2, 7)},
        "referring": {*range(1, 6)},
        "noisy": {*range(1, 11)},
        "trade": {1, 2, 3, 4, 5, 6, 8},
    }
    for kind, sentences in by_kind.items():
        assert {len(sentence.edits) for sentence in sentences} == counts[kind]

    def share(kind, pattern):
        return sum(bool(re.search(pattern, sentence.instruction)) for sentence in by_kind[kind]) / len(by_kind[kind])

    assert (
        share("chained", r"\b(make|turn|paint|move) (it|them)\b") > 0.05 > share("plain", r"\b(turn|paint|move) it\b")
    )
    assert share("referring", r" of the two ") > 2 * share("plain", r" of the two ")
    assert share("noisy", r"\n|^1|^\(1") > 0.08 and share("plain", r"\n") == 0
    assert share("noisy", r"(?i)\bthank") > 0.05 and share("plain", r"(?i)\bthank") == 0


def test_errands_of_every_trade_are_drawn_and_filled():
    """Each of the ways to ask for each errand of a trade: nothing is left in braces, and the truth's words are said."""
    texts = [sample_sentence(seed, "trade") for seed in range(3000)]
    asked = Counter(edit.action for sentence in texts for edit in sentence.edits)
    assert set(asked) == set(ACTIONS)
    for sentence in texts:
        assert not re.search(r"[{}]", sentence.instruction + sentence.reasoning)
    thing_first = sum(bool(re.search(r"\b(gone|out|away)\b", sentence.instruction)) for sentence in texts)
    assert thing_first > 200


def test_a_pronoun_is_resolved_in_the_clauses_and_the_edits():
    chained = [
        sentence for sentence in MANY if re.search(r"\b(make|turn|paint|move|recolor) it\b", sentence.instruction)
    ]
    assert len(chained) > 50
    for sentence in chained:
        if (
            not sentence.kind == "chained" or "make it" in sentence.instruction
        ):  # of the whole photo, "make it brighter"
            continue
        assert not any(re.search(r"\b(turn|paint|move|recolor) it\b", clause) for clause in sentence.clauses)


def test_another_wording_means_the_same():
    for seed in range(100):
        for kind in KINDS:
            said = [sample_sentence(seed, kind, wording) for wording in range(5)]
            assert len({(sentence.edits, sentence.requests, sentence.before) for sentence in said}) == 1
            assert len({sentence.instruction for sentence in said}) > 1


def test_the_requests_are_in_an_order_that_works():
    for sentence in MANY:
        place = {request: number for number, request in enumerate(sentence.requests)}
        backgrounds = [place[request] for request in sentence.requests if request.startswith("Change the background")]
        crops = [place[request] for request in sentence.requests if request.startswith("Crop")]
        assert all(place == 0 for place in backgrounds)
        assert all(place == len(sentence.requests) - 1 for place in crops)
        for first, second in sentence.before:
            assert first != second and 0 <= min(first, second) and max(first, second) < len(sentence.edits)


def test_what_is_made_is_made_before_it_is_changed():
    found = 0
    for sentence in MANY:
        for second, edit in enumerate(sentence.edits):
            for first, made in enumerate(sentence.edits[:second]):
                if made.action == "add" and edit.action == "recolor" and edit.subject == made.subject:
                    assert (first, second) in sentence.before
                    found += 1
    assert found > 10


def test_texts_to_be_written_are_never_mistyped():
    for sentence in MANY:
        for edit in sentence.edits:
            if edit.action == "text":
                bare = sentence.instruction.replace("'", "")
                assert edit.goal.strip('"').replace("'", "") in bare, sentence


def test_sentences_follow_the_shares_of_kinds():
    kinds = Counter(kind_of(seed, {"plain": 0.25, "noisy": 0.75}) for seed in range(400))
    assert set(kinds) == {"plain", "noisy"} and 60 < kinds["plain"] < 140
