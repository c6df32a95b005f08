import random
from dataclasses import replace

import pytest

from diffusers_r1.app.rows import follow, read, to_plan, to_rows
from diffusers_r1.plan import Edit, EditPlan


STAR = Edit("recolor", "red star", "blue")
BACKGROUND = Edit("background", "background", "teal")
CIRCLE = Edit("remove", "green circle", "nothing")
REQUESTS = ("make the background teal", "make the red star blue", "remove the green circle")
PLAN = EditPlan("...", (STAR, BACKGROUND, CIRCLE), REQUESTS, "a star", raw=("answer",))


NOTHING = Edit("", "", "")


def row(request="", edit=NOTHING, place=None, on=True):
    return {
        "on": on,
        "request": request,
        "action": edit.action,
        "subject": edit.subject,
        "goal": edit.goal,
        "place": place,
    }


ROWS = [row(REQUESTS[0], BACKGROUND, 1), row(REQUESTS[1], STAR, 0), row(REQUESTS[2], CIRCLE, 2)]


def changed(number: int, **fields) -> list:
    """ROWS with some fields of a row changed."""
    return [{**one, **(fields if place == number else {})} for place, one in enumerate(ROWS)]


def test_sub_requests_stand_in_order_beside_their_edits():
    assert to_rows(PLAN) == ROWS


def test_more_edits_than_sub_requests_and_the_other_way_round():
    assert to_rows(replace(PLAN, requests=REQUESTS[2:])) == [ROWS[2], row("", STAR, 0), row("", BACKGROUND, 1)]
    rows = to_rows(replace(PLAN, edits=(CIRCLE,)))
    assert rows == [row(REQUESTS[0]), row(REQUESTS[1]), row(REQUESTS[2], CIRCLE, 0)]


@pytest.mark.parametrize("seed", range(30))
def test_a_list_that_nobody_changed_is_the_plan(seed):
    draw = random.Random(seed)
    words = (
        "red star",
        "make it teal",
        "coat",
        "remove the dog",
        "ünïcödé",
        "a, b",
        "dark\xa0blue",
        "two\nlines  of it",
    )
    edits = tuple(Edit(*draw.choices(words, k=3)) for _ in range(draw.randrange(5)))
    plan = EditPlan("...", edits, tuple(draw.choices(words, k=draw.randrange(1, 6))), fallback=True, reason="why")
    rows = to_rows(plan)
    assert to_plan(follow(read(rows), rows), plan) is plan


@pytest.mark.parametrize(
    ("rows", "edits", "requests"),
    [
        ([ROWS[2], ROWS[0], ROWS[1]], PLAN.edits, (REQUESTS[2], REQUESTS[0], REQUESTS[1])),
        (changed(1, on=False), (BACKGROUND, CIRCLE), (REQUESTS[0], REQUESTS[2])),
        (changed(2, request="leave the circle"), PLAN.edits, (*REQUESTS[:2], "leave the circle")),
        (ROWS[1:2], (STAR,), REQUESTS[1:2]),
        ([*ROWS, row()], PLAN.edits, REQUESTS),
        ([*ROWS, row(edit=Edit("half", "", ""), on=False)], PLAN.edits, REQUESTS),
        ([row("brighten it"), *ROWS], PLAN.edits, ("brighten it", *REQUESTS)),
        ([row("add a dog", Edit("add", "dog", "left")), ROWS[0]], (BACKGROUND, Edit("add", "dog", "left")), None),
    ],
)
def test_what_was_changed_is_in_the_plan(rows, edits, requests):
    plan = to_plan(rows, replace(PLAN, fallback=True, reason="why"))
    assert plan.edits == edits and requests in (None, plan.requests)
    assert plan.fallback == (plan.requests == REQUESTS)  # what a person has written is no fallback
    assert (plan.instruction, plan.reasoning, plan.raw) == (PLAN.instruction, PLAN.reasoning, PLAN.raw)


def test_a_plan_written_from_scratch():
    assert to_plan(ROWS, instruction="do it") == EditPlan("do it", PLAN.edits, REQUESTS)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (changed(1, goal=""), "Row 2 .* all three, or none"),
        ([row()], "no sub-request yet"),
        (changed(0, on=False)[:1], "no sub-request yet"),
        ([], "no sub-request yet"),
    ],
)
def test_a_list_that_is_no_plan_says_why(rows, said):
    with pytest.raises(ValueError, match=said):
        to_plan(rows, PLAN)


@pytest.mark.parametrize("sent", [None, "rows", {}, [1], [[]], [{}] * 101])
def test_what_is_no_list_of_rows_is_refused(sent):
    with pytest.raises(ValueError, match="list of at most 100 rows"):
        read(sent)


def test_what_a_browser_sends_is_made_plain():
    sent = {"on": False, "request": " make\nit  teal ", "subject": None, "goal": 7, "place": "1", "more": "x"}
    assert read([sent, {}]) == [{**row("make it teal", on=False), "goal": "7"}, row()]


@pytest.mark.parametrize(
    ("number", "fields", "asked"),
    [
        (1, {"goal": "pink"}, "make the red star pink"),
        (1, {"subject": "black square"}, "make the black square blue"),
        (1, {"subject": "blue star", "goal": "red"}, "make the blue star red"),
        (1, {"goal": "red"}, "make the red star red"),
        (1, {"action": "remove", "goal": "nothing"}, "remove red star: nothing"),
        (2, {"goal": "a hole"}, "remove green circle: a hole"),
        (1, {"goal": r"\1 \g<0>"}, r"make the red star \1 \g<0>"),
        (1, {"goal": "pink", "request": "paint it pink"}, "paint it pink"),
        (1, {"request": "paint it pink"}, "paint it pink"),
        (1, {"goal": ""}, "make the red star blue"),
        (1, {"on": False}, "make the red star blue"),
    ],
)
def test_a_sub_request_follows_its_edit_unless_it_was_rewritten(number, fields, asked):
    followed = follow(changed(number, **fields), ROWS)
    assert followed[number] == {**ROWS[number], **fields, "request": asked}
    assert followed[:number] == ROWS[:number] and followed[number + 1 :] == ROWS[number + 1 :]


def test_a_new_row_gets_a_sub_request_once_its_edit_is_complete():
    half, whole = row(edit=Edit("add", "dog", "")), row(edit=Edit("add", "dog", "left"))
    assert follow([*ROWS, half], ROWS)[3] == half
    assert follow([*ROWS, whole], ROWS)[3] == {**whole, "request": "add dog: left"}


def test_an_edit_that_came_without_a_sub_request_gets_none():
    rows = to_rows(replace(PLAN, requests=REQUESTS[:1]))
    assert follow(rows, rows) == rows


def test_what_was_deleted_or_moved_above_does_not_matter():
    rows = [*changed(2, subject="green square")[1:], ROWS[0]]
    assert follow(rows, ROWS)[1]["request"] == "remove the green square"
