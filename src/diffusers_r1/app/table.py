"""A plan as the rows of a table that a person changes, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from ..matching import multiset_f1, normalize
from ..plan import Edit, EditPlan
from ..planners.plans import request_by_rule


COLUMNS = ("action", "subject", "goal", "order", "sub-request")
Row = list[Any]  # a value for each column: text, and for the order a number; an empty cell is "" or None


def to_rows(plan: EditPlan) -> list[Row]:
    """A row for each edit, in the order of the instruction, beside the sub-request that shares most words with it.

    The order counts the sub-requests from 1. There can be more edits than sub-requests, or fewer: what has no partner
    has a row of its own.

    Example:
        >>> to_rows(EditPlan("...", (Edit("remove", "red star", "nothing"),), ("make it teal", "remove the red star")))
        [['remove', 'red star', 'nothing', 2, 'remove the red star'], ['', '', '', 1, 'make it teal']]
    """
    partners = _partners(plan)
    rows: list[Row] = []
    for number, edit in enumerate(plan.edits):
        place = partners.get(number)
        order, request = ("", "") if place is None else (place + 1, plan.requests[place])
        rows.append([edit.action, edit.subject, edit.goal, order, request])
    alone = set(range(len(plan.requests))) - set(partners.values())
    return rows + [["", "", "", place + 1, plan.requests[place]] for place in sorted(alone)]


def to_plan(rows: Sequence[Row], planned: EditPlan | None = None, instruction: str = "") -> EditPlan:
    """The plan that a table says; `planned` itself if nothing was changed.

    Rows without any text are left out. Sub-requests are carried out by their order; those without one come last.

    Args:
        rows (sequence of rows): As somebody left them.
        planned ([`EditPlan`], *optional*): Where they came from; its instruction, reasoning and raw answers are kept.
        instruction (`str`, defaults to `""`): Of a plan that was written from scratch.

    Raises:
        ValueError: If a row has some of action, subject and goal but not all, an order that is no number, or the
            table has no sub-request.
    """
    edits, requests = [], []
    for number, row in enumerate(rows, start=1):
        edit, order, request = _read(row)
        if any((edit.action, edit.subject, edit.goal)):
            if not _complete(edit):
                raise ValueError(f"Row {number} of the plan: action, subject and goal need all three, or none.")
            edits.append(edit)
        if request:
            requests.append((_number(order, number), request))
    if not requests:
        raise ValueError("The plan has no sub-request yet: press Plan, or write one into the table.")
    requests.sort(key=lambda one: one[0])
    written = EditPlan(instruction, tuple(edits), tuple(request for _, request in requests))
    if planned is None:
        return written
    if (written.edits, written.requests) == (planned.edits, planned.requests):
        return planned
    return replace(planned, edits=written.edits, requests=written.requests, fallback=False, reason="", faults=())


def follow(rows: Sequence[Row], before: Sequence[Row]) -> list[Row]:
    """The rows, with each sub-request following what was changed in its action, subject or goal.

    The editor reads sub-requests only, so a new colour in `goal` has to arrive there too. A sub-request that somebody
    has rewritten or emptied stays as it is; a new row without one gets it.

    Args:
        rows (sequence of rows): As somebody left them.
        before (sequence of rows): As they were shown.

    Example:
        >>> before = [["recolor", "red star", "blue", 1, "make the red star blue"]]
        >>> follow([["recolor", "red star", "pink", 1, "make the red star blue"]], before)
        [['recolor', 'red star', 'pink', 1, 'make the red star pink']]
    """
    shown = [(edit, request) for edit, _, request in map(_read, before)]
    edit_of = {request: edit for edit, request in shown if request and _complete(edit)}
    followed = []
    for row in rows:
        edit, order, request = _read(row)
        if _complete(edit) and (edit, request) not in shown:
            if request in edit_of:
                request = _reworded(request, edit_of[request], edit)
            elif not request and edit not in [known for known, _ in shown]:
                request = request_by_rule(edit)
        followed.append([edit.action, edit.subject, edit.goal, order, request])
    return followed


def _partners(plan: EditPlan) -> dict[int, int]:
    """Edit -> sub-request, both by their place in the plan, the likest first."""

    def unlikeness(pair: tuple[int, int]) -> tuple[float, int]:
        edit, request = plan.edits[pair[0]], plan.requests[pair[1]]
        words = normalize(f"{edit.action} {edit.subject} {edit.goal}").split()
        return -multiset_f1(words, normalize(request).split()), abs(pair[0] - pair[1])

    partners: dict[int, int] = {}
    for edit, request in sorted(product(range(len(plan.edits)), range(len(plan.requests))), key=unlikeness):
        if edit not in partners and request not in partners.values():
            partners[edit] = request
    return partners


def _read(row: Row) -> tuple[Edit, Any, str]:
    action, subject, goal, order, request = ("" if cell is None else cell for cell in row)
    return Edit(_text(action), _text(subject), _text(goal)), order, _text(request)


def _text(cell: Any) -> str:
    return " ".join(str(cell).split())


def _complete(edit: Edit) -> bool:
    return all((edit.action, edit.subject, edit.goal))


def _number(order: Any, number: int) -> float:
    if order == "":
        return math.inf
    try:
        return float(order)
    except (TypeError, ValueError):
        raise ValueError(f"Row {number} of the plan: the order is a number, not {order!r}.") from None


def _reworded(request: str, before: Edit, after: Edit) -> str:
    """The sub-request with the new subject and goal in place of the old ones; by rule where these are not in it."""
    fields = sorted(("subject", "goal"), key=lambda name: len(getattr(before, name)), reverse=True)
    either = "|".join(rf"(?P<{name}>{re.escape(getattr(before, name))})" for name in fields)
    said = set()

    def put(found: re.Match) -> str:
        name = str(found.lastgroup)  # one of the two: a match is always of one of them
        said.add(name)
        return getattr(after, name)

    reworded = re.sub(rf"(?<!\w)(?:{either})(?!\w)", put, request, flags=re.IGNORECASE)
    changed = {name for name in fields if getattr(before, name) != getattr(after, name)}
    return reworded if before.action == after.action and changed <= said else request_by_rule(after)
