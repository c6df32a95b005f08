import random
from dataclasses import replace

import pytest

from diffusers_r1.app.table import follow, to_plan, to_rows
from diffusers_r1.plan import Edit, EditPlan


STAR = Edit("recolor", "red star", "blue")
BACKGROUND = Edit("background", "background", "teal")
CIRCLE = Edit("remove", "green circle", "nothing")
REQUESTS = ("make the background teal", "make the red star blue", "remove the green circle")
PLAN = EditPlan("...", (STAR, BACKGROUND, CIRCLE), REQUESTS, "a star", raw=("answer",))
ROWS = [
    ["recolor", "red star", "blue", 2, "make the red star blue"],
    ["background", "background", "teal", 1, "make the background teal"],
    ["remove", "green circle", "nothing", 3, "remove the green circle"],
]


def changed(row: int, **cells) -> list:
    """ROWS with some cells of a row changed."""
    places = {"action": 0, "subject": 1, "goal": 2, "order": 3, "request": 4}
    rows = [list(one) for one in ROWS]
    for name, value in cells.items():
        rows[row][places[name]] = value
    return rows


def test_every_edit_stands_beside_its_sub_request():
    assert to_rows(PLAN) == ROWS


def test_more_edits_than_sub_requests_and_the_other_way_round():
    rows = to_rows(replace(PLAN, requests=REQUESTS[2:]))
    assert [row[3:] for row in rows] == [["", ""], ["", ""], [1, REQUESTS[2]]]
    rows = to_rows(replace(PLAN, edits=(CIRCLE,)))
    assert rows == [ROWS[2], ["", "", "", 1, REQUESTS[0]], ["", "", "", 2, REQUESTS[1]]]


@pytest.mark.parametrize("seed", range(30))
def test_a_table_that_nobody_changed_is_the_plan(seed):
    draw = random.Random(seed)
    words = ("red star", "make it teal", "coat", "remove the dog", "ünïcödé", "a, b")
    edits = tuple(Edit(*draw.choices(words, k=3)) for _ in range(draw.randrange(5)))
    plan = EditPlan("...", edits, tuple(draw.choices(words, k=draw.randrange(1, 6))), fallback=True, reason="why")
    rows = to_rows(plan)
    assert to_plan(follow(rows, rows), plan) == plan


@pytest.mark.parametrize(
    ("rows", "edits", "requests"),
    [
        (changed(0, order=9), PLAN.edits, (REQUESTS[0], REQUESTS[2], REQUESTS[1])),
        (changed(1, order="2.5"), PLAN.edits, (REQUESTS[1], REQUESTS[0], REQUESTS[2])),
        (changed(1, order=None), PLAN.edits, (REQUESTS[1], REQUESTS[2], REQUESTS[0])),
        (changed(2, request="  leave the\ncircle "), PLAN.edits, (*REQUESTS[:2], "leave the circle")),
        (ROWS[:1], (STAR,), REQUESTS[1:2]),
        ([*ROWS, [None, "", " ", None, ""]], PLAN.edits, REQUESTS),
        ([["", "", "", "", "brighten it"]], (), ("brighten it",)),
    ],
)
def test_what_was_changed_is_in_the_plan(rows, edits, requests):
    plan = to_plan(rows, replace(PLAN, fallback=True, reason="why"))
    assert (plan.edits, plan.requests) == (edits, requests)
    assert plan.fallback == (requests == REQUESTS)  # what a person has written is no fallback
    assert (plan.instruction, plan.reasoning, plan.raw) == (PLAN.instruction, PLAN.reasoning, PLAN.raw)


def test_a_plan_written_from_scratch():
    assert to_plan(ROWS, instruction="do it") == EditPlan("do it", PLAN.edits, REQUESTS)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (changed(1, goal=""), "Row 2 .* all three, or none"),
        (changed(2, order="last"), "Row 3 .* a number, not 'last'"),
        ([["", "", "", 1, None]], "no sub-request yet"),
        ([], "no sub-request yet"),
    ],
)
def test_a_table_that_is_no_plan_says_why(rows, said):
    with pytest.raises(ValueError, match=said):
        to_plan(rows, PLAN)


@pytest.mark.parametrize(
    ("row", "cells", "asked"),
    [
        (0, {"goal": "pink"}, "make the red star pink"),
        (0, {"subject": "black square"}, "make the black square blue"),
        (0, {"subject": "blue star", "goal": "red"}, "make the blue star red"),
        (0, {"goal": "red"}, "make the red star red"),
        (0, {"action": "remove", "goal": "nothing"}, "remove red star: nothing"),
        (2, {"goal": "a hole"}, "remove green circle: a hole"),
        (0, {"goal": r"\1 \g<0>"}, r"make the red star \1 \g<0>"),
        (0, {"goal": "pink", "request": "paint it pink"}, "paint it pink"),
        (0, {"request": "paint it pink"}, "paint it pink"),
        (0, {"goal": ""}, "make the red star blue"),
        (0, {"order": 7}, "make the red star blue"),
    ],
)
def test_a_sub_request_follows_its_edit_unless_it_was_rewritten(row, cells, asked):
    followed = follow(changed(row, **cells), ROWS)
    assert followed[row][4] == asked
    assert [one for place, one in enumerate(followed) if place != row] == [
        one for place, one in enumerate(ROWS) if place != row
    ]


def test_a_new_row_gets_a_sub_request_once_its_edit_is_complete():
    assert follow([*ROWS, ["add", "dog", "", None, None]], ROWS)[3] == ["add", "dog", "", "", ""]
    assert follow([*ROWS, ["add", "dog", "left", "", ""]], ROWS)[3] == ["add", "dog", "left", "", "add dog: left"]


def test_an_edit_that_came_without_a_sub_request_gets_none():
    rows = to_rows(replace(PLAN, requests=REQUESTS[:1]))
    assert follow(rows, rows) == rows


def test_what_was_deleted_above_does_not_matter():
    rows = changed(2, subject="green square")[1:]
    assert follow(rows, ROWS)[1][4] == "remove the green square"
