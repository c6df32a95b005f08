"""Answers and truths in natural wording, judged by hand: what rewards and marks count as the same is what a person does."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from diffusers_r1.matching import action_f1, likeness, same_edits
from diffusers_r1.plan import Edit


PAIRS = [
    json.loads(line)
    for line in (Path(__file__).parent / "data_files" / "wordings.jsonl").read_text(encoding="utf-8").splitlines()
]
AGREEMENT = 0.95


def alike(pair: dict) -> float:
    """From 0 to 1; above a half, the pair counts as the same."""
    answer, truth = pair["answer"], pair["truth"]
    if pair["field"] == "action":
        return action_f1([answer], [truth])
    if pair["field"] == "edits":
        return float(same_edits([Edit(**edit) for edit in answer], [Edit(**edit) for edit in truth]))
    return likeness(answer, truth)


@pytest.fixture(params=["with simplemma", "without"])
def simplemma(request, monkeypatch):
    from diffusers_r1 import matching

    if request.param == "without":
        monkeypatch.setitem(__import__("sys").modules, "simplemma", None)
    for cached in (matching._known_action, matching._lemmas):
        cached.cache_clear()
    yield
    for cached in (matching._known_action, matching._lemmas):
        cached.cache_clear()


def test_we_agree_with_a_person(simplemma):
    wrong = [pair["id"] for pair in PAIRS if (alike(pair) > 0.5) != pair["same"]]
    assert len(PAIRS) == 500
    assert len(wrong) <= (1 - AGREEMENT) * len(PAIRS), wrong
    for field in ("action", "subject", "goal", "edits"):
        of_field = [pair["id"] for pair in PAIRS if pair["field"] == field]
        assert len(set(wrong) & set(of_field)) <= (1 - AGREEMENT) * len(of_field), field


def test_a_right_answer_is_never_below_a_wrong_one():
    told_apart = defaultdict(lambda: {True: [], False: []})
    for pair in PAIRS:
        told_apart[pair["field"], str(pair["truth"])][pair["same"]].append(alike(pair))
    both = {truth: found for truth, found in told_apart.items() if found[True] and found[False]}
    assert len(both) > 50
    assert [truth for truth, found in both.items() if min(found[True]) < max(found[False])] == []
