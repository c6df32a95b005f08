"""What the agents hand to each other: an edit, and the plan that a whole instruction becomes.

Start reading here: everything else in the package makes an `EditPlan`, changes one, or carries one out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Literal, get_args

from . import schema


Turns = Literal["single", "multi", "auto", "composed"]
TURNS: tuple[Turns, ...] = get_args(Turns)


class FaultKind(str, Enum):
    """What can be wrong with a plan; the value is the kind's name in JSON. `FAULT_WORDS` has the words.

    All are faults of an agent's answer but `UNREAD`: a sub-request of which the editor's text encoder does not read the end.
    """

    TEXT_OUTSIDE = "text_outside"
    MISSING_TAG = "missing_tag"
    REPEATED_TAG = "repeated_tag"
    UNCLOSED_TAG = "unclosed_tag"
    UNOPENED_TAG = "unopened_tag"
    NESTED_TAG = "nested_tag"
    FOREIGN_TAG = "foreign_tag"
    TAG_ORDER = "tag_order"
    NO_EDIT = "no_edit"
    UNEQUAL_LISTS = "unequal_lists"
    EMPTY_ITEM = "empty_item"
    LOST_ITEM = "lost_item"
    UNREAD = "unread"


# `{tags}` are the tags of all faults of a kind, and `{detail}` the first one's.
FAULT_WORDS = {
    FaultKind.TEXT_OUTSIDE: "text outside the tags",
    FaultKind.MISSING_TAG: "no {tags}",
    FaultKind.REPEATED_TAG: "{tags} more than once",
    FaultKind.UNCLOSED_TAG: "{tags} not closed",
    FaultKind.UNOPENED_TAG: "{tags} closed but never opened",
    FaultKind.NESTED_TAG: "other tags inside {tags}",
    FaultKind.FOREIGN_TAG: "{tags} not asked for",
    FaultKind.TAG_ORDER: "tags out of order",
    FaultKind.NO_EDIT: "no edit",
    FaultKind.UNEQUAL_LISTS: "lists of {detail} items",
    FaultKind.EMPTY_ITEM: "empty items in {tags}",
    FaultKind.LOST_ITEM: "items of {tags} that became part of nothing",
    FaultKind.UNREAD: "sub-requests that the editor's text encoder does not read to their end",
}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a plan. `str(fault)` says it in words.

    Args:
        kind ([`FaultKind`]): What is wrong.
        tag (`str`, defaults to `""`): The tag that it is about, without brackets; empty where it is about none.
        detail (`str`, defaults to `""`): Of unequal lists their lengths, of an empty item its number (from 1), of a lost
            item or an unread sub-request its text, of a nested tag that tag.
    """

    kind: FaultKind
    tag: str = ""
    detail: str = ""

    def __str__(self) -> str:
        return describe_faults([self])


def describe_faults(faults: Iterable[Fault]) -> str:
    """Faults in words, each kind once and with its count where that says more: an answer can hold the same one often.

    Example:
        >>> kinds = [FaultKind.MISSING_TAG, FaultKind.TEXT_OUTSIDE, FaultKind.TEXT_OUTSIDE]
        >>> describe_faults([Fault(kind, tag) for kind, tag in zip(kinds, ("goal", "", ""))])
        'no <goal>, text outside the tags (2 times)'
    """
    by_kind: dict[FaultKind, list[Fault]] = {}
    for fault in faults:
        by_kind.setdefault(fault.kind, []).append(fault)
    phrases = []
    for kind, alike in by_kind.items():
        tags = list(dict.fromkeys(fault.tag for fault in alike))
        named = " and ".join(f"<{tag}>" for tag in tags)
        count = f" ({len(alike)} times)" if len(alike) > len(tags) else ""
        phrases.append(FAULT_WORDS[kind].format(tags=named, detail=alike[0].detail) + count)
    return ", ".join(phrases)


@dataclass(frozen=True)
class Edit:
    """One thing to change: what is done, to what, with which outcome.

    Args:
        action (`str`): The kind of change, such as `"recolor"` or `"remove"`.
        subject (`str`): What is changed, named so that it can be found without the instruction: `"red circle"`.
        goal (`str`): What the subject is afterwards: a colour, a place, a style, `"nothing"` once it is removed.
    """

    action: str
    subject: str
    goal: str


@dataclass(frozen=True)
class EditPlan:
    """An instruction, decomposed into edits and written out as ordered sub-requests (ImageEdit-R1, arXiv 2603.08059).

    A plan is input only: it says what the editor will be asked. What the editor was given and what came back stands
    in [`ImageEditR1PipelineOutput.turns`]. Change a plan with `dataclasses.replace`.

    Args:
        instruction (`str`): What the user typed.
        edits (`tuple` of [`Edit`]): The decomposition agent's answer.
        requests (`tuple` of `str`): The sequencing agent's answer: one sub-request per entry, in the order in which
            a multi-turn run carries them out. Never empty.
        reasoning (`str`, defaults to `""`): What the decomposition agent wrote before its answer.
        fallback (`bool`, defaults to `False`): Whether an agent's answer could not be used, so that `requests` is the
            instruction itself or is written from `edits` by rule.
        reason (`str`, defaults to `""`): Why, when `fallback` is set.
        raw (`tuple` of `str`, defaults to `()`): Every answer of the agents, unparsed, in the order in which they came.
        faults (`tuple` of [`Fault`], defaults to `()`): What is wrong with the answers that the plan was read from. An item
            that became no part of an edit or a sub-request is a `FaultKind.LOST_ITEM` with its text. On a plan that a
            pipeline gives back, a sub-request that its editor did not read to the end is a `FaultKind.UNREAD`.

    Raises:
        ValueError: If there is no sub-request, or an empty one.
    """

    instruction: str
    edits: tuple[Edit, ...]
    requests: tuple[str, ...]
    reasoning: str = ""
    fallback: bool = False
    reason: str = ""
    raw: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()

    def __post_init__(self):
        if not self.requests or not all(request.strip() for request in self.requests):
            raise ValueError(f"A plan needs at least one sub-request, none of them empty; got {self.requests!r}.")

    def prompts(self, turns: Turns = "single") -> list[str]:
        """What the editor is asked, one entry per turn.

        Args:
            turns (`"single"` or `"multi"`): All sub-requests in one prompt, or one prompt for each.

        Returns:
            `list` of `str`: one prompt for single-turn, `len(requests)` prompts for multi-turn.

        Example:
            >>> plan = EditPlan("...", (), ("remove the red circle", "make the background teal"))
            >>> plan.prompts("single")
            ['remove the red circle. make the background teal']
            >>> plan.prompts("multi")
            ['remove the red circle', 'make the background teal']
        """
        if turns == "multi":
            return list(self.requests)
        if turns == "single":
            *head, last = self.requests
            return [". ".join([*(request.rstrip(" .;,") for request in head), last])]
        raise ValueError(f'`turns` must be "single" or "multi", not {turns!r}.')

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain lists, strings and booleans, ready for JSON."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], name: str = "plan") -> EditPlan:
        """The plan that `to_dict` wrote. Only `requests` has to be there, so that a plan can be written by hand.

        Args:
            data (`Mapping`): The plan.
            name (`str`, defaults to `"plan"`): Where it came from, for the error: a file's name.

        Raises:
            ValueError: If a key is unknown, `requests` is missing, or a value has the wrong type; see [`schema.read`].
        """
        written = {"instruction": "", "edits": (), **data} if isinstance(data, Mapping) else data
        return schema.read(cls, written, name)

    def to_json(self) -> str:
        """The plan as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, name: str = "plan") -> EditPlan:
        """The plan that `to_json` wrote; a `ValueError` says what is wrong with the text. `name` as in `from_dict`."""
        return cls.from_dict(schema.read_json(text, name), name)
