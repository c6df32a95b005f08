"""A plan as the rows of a list that a person changes, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any, TypedDict

from ..matching import multiset_f1, normalize
from ..plan import Edit, EditPlan
from ..planners.plans import request_by_rule


MAX_ROWS = 100


class Row(TypedDict):
    """A sub-request and the edit that it is about; either may be empty.

    Args:
        on (`bool`): Whether it is carried out.
        request (`str`): What the editor reads.
        action, subject, goal (`str`): The edit.
        place (`int`, *optional*): Of the edit in the decomposition, from 0; `None` of a row that a person has added.
    """

    on: bool
    request: str
    action: str
    subject: str
    goal: str
    place: int | None


def to_rows(plan: EditPlan) -> list[Row]:
    """A row for each sub-request in order, beside the edit that shares most words with it, then the edits that are left.

    Example:
        >>> to_rows(EditPlan("...", (Edit("remove", "red star", "nothing"),), ("make it teal",)))
        [{'on': True, 'request': 'make it teal', 'action': 'remove', 'subject': 'red star', 'goal': 'nothing', 'place': 0}]
    """
    edit_of = {request: edit for edit, request in _partners(plan).items()}
    rows = [_row(plan, edit_of.get(request), request) for request in range(len(plan.requests))]
    alone = set(range(len(plan.edits))) - set(edit_of.values())
    return rows + [_row(plan, place) for place in sorted(alone)]


def read(sent: Any) -> list[Row]:
    """The rows that a browser has sent.

    Raises:
        ValueError: If they are none.
    """
    if not isinstance(sent, list) or not all(isinstance(row, dict) for row in sent) or len(sent) > MAX_ROWS:
        raise ValueError(f"The plan is a list of at most {MAX_ROWS} rows.")
    return [
        Row(
            on=row.get("on") is not False,
            request=_text(row.get("request")),
            action=_text(row.get("action")),
            subject=_text(row.get("subject")),
            goal=_text(row.get("goal")),
            place=row["place"] if isinstance(row.get("place"), int) else None,
        )
        for row in sent
    ]


def to_plan(rows: Sequence[Row], planned: EditPlan | None = None, instruction: str = "") -> EditPlan:
    """The plan that a list says; `planned` itself if nothing was changed.

    Rows that are switched off, or without any text, are left out. Sub-requests are carried out in the order of the list.

    Args:
        rows (sequence of [`Row`]): As somebody left them.
        planned ([`EditPlan`], *optional*): Where they came from; its instruction, reasoning and raw answers are kept.
        instruction (`str`, defaults to `""`): Of a plan that was written from scratch.

    Raises:
        ValueError: If a row has some of action, subject and goal but not all, or the list has no sub-request.
    """
    kept = [row for row in rows if row["on"]]
    requests = tuple(row["request"] for row in kept if row["request"])
    found = []
    for number, row in enumerate(rows, start=1):
        edit = _edit(row)
        if row["on"] and any((edit.action, edit.subject, edit.goal)):
            if not _complete(edit):
                raise ValueError(f"Row {number} of the plan: action, subject and goal need all three, or none.")
            found.append((math.inf if row["place"] is None else row["place"], edit))
    if not requests:
        raise ValueError("The plan has no sub-request yet: press Plan, or add one.")
    edits = tuple(edit for _, edit in sorted(found, key=lambda one: one[0]))
    if planned is None:
        return EditPlan(instruction, edits, requests)
    as_shown = to_plan(to_rows(planned))
    if (edits, requests) == (as_shown.edits, as_shown.requests):
        return planned
    return replace(planned, edits=edits, requests=requests, fallback=False, reason="", faults=())


def follow(rows: Sequence[Row], shown: Sequence[Row]) -> list[Row]:
    """The rows, with each sub-request following what was changed in its action, subject or goal.

    The editor reads sub-requests only, so a new colour in `goal` has to arrive there too. A sub-request that somebody
    has rewritten or emptied stays as it is; a new row without one gets it.

    Args:
        rows (sequence of [`Row`]): As somebody left them.
        shown (sequence of [`Row`]): As they were shown.
    """
    before = [(_edit(row), row["request"]) for row in shown]
    edit_of = {request: edit for edit, request in before if request and _complete(edit)}
    followed: list[Row] = []
    for row in rows:
        edit, request = _edit(row), row["request"]
        if _complete(edit) and (edit, request) not in before:
            if request in edit_of:
                request = _reworded(request, edit_of[request], edit)
            elif not request and edit not in [known for known, _ in before]:
                request = request_by_rule(edit)
        followed.append({**row, "request": request})
    return followed


def _row(plan: EditPlan, place: int | None, request: int | None = None) -> Row:
    edit = Edit("", "", "") if place is None else plan.edits[place]
    asked = "" if request is None else plan.requests[request]
    texts = {"request": asked, "action": edit.action, "subject": edit.subject, "goal": edit.goal}
    return Row(on=True, **{name: _text(it) for name, it in texts.items()}, place=place)  # as `read` brings them back


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


def _edit(row: Row) -> Edit:
    return Edit(row["action"], row["subject"], row["goal"])


def _text(sent: Any) -> str:
    return " ".join(str(sent or "").split())


def _complete(edit: Edit) -> bool:
    return all((edit.action, edit.subject, edit.goal))


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
