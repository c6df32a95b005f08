"""What the agents hand to each other: an edit, and the plan that a whole instruction becomes.

Start reading here: everything else in the package makes an `EditPlan`, changes one, or carries one out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal


Turns = Literal["single", "multi", "auto", "composed"]


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
    def from_dict(cls, data: Mapping[str, Any]) -> EditPlan:
        """The plan that `to_dict` wrote. Only `requests` has to be there, so that a plan can be written by hand.

        Raises:
            ValueError: If a key is unknown, `requests` is missing, or a value has the wrong type.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"A plan is a JSON object, not {type(data).__name__}.")
        unknown = set(data) - set(cls.__dataclass_fields__)
        if unknown:
            raise ValueError(f"A plan has no {sorted(unknown)}; it has {sorted(cls.__dataclass_fields__)}.")
        if "requests" not in data:
            raise ValueError("A plan needs `requests`, the list of sub-requests.")
        fields = {"instruction": "", "edits": (), **data}
        try:
            fields["edits"] = tuple(Edit(**edit) for edit in fields["edits"])
        except TypeError as error:
            raise ValueError(f"An edit has `action`, `subject` and `goal`: {error}") from None
        for name in ("requests", "raw"):
            fields[name] = _strings(name, fields.get(name, ()))
        for edit in fields["edits"]:
            _strings("edits", [edit.action, edit.subject, edit.goal])
        for name in ("instruction", "reasoning", "reason"):
            _strings(name, [fields.get(name, "")])
        return cls(**fields)

    def to_json(self) -> str:
        """The plan as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> EditPlan:
        """The plan that `to_json` wrote; a `ValueError` says what is wrong with the text."""
        return cls.from_dict(json.loads(text))


def _strings(name: str, values: Any) -> tuple[str, ...]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"`{name}` of a plan holds text; got {values!r}.")
    return tuple(values)
