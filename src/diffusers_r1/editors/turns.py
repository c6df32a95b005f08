"""What an editor is asked of a plan, turn by turn, and what of it the editor's text encoder will not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..plan import TURNS, EditPlan
from .sizes import Editor
from .table import traits_of


@dataclass(frozen=True)
class Asked:
    """One turn of a plan.

    Args:
        prompt (`str`): What the editor is asked, in one text.
        requests (`tuple` of `str`): The sub-requests in it.
        unread (`tuple` of `str`, defaults to `()`): Those of them that the text encoder does not read to their end.
        composed (`bool`, defaults to `False`): Whether each sub-request guides the denoising on its own.
    """

    prompt: str
    requests: tuple[str, ...]
    unread: tuple[str, ...] = ()
    composed: bool = False

    @property
    def first(self) -> str:
        """What the class itself is called with: all of it, or the first of the sub-requests that are composed."""
        return self.requests[0] if self.composed else self.prompt


def asked_of(editor: Editor, plan: EditPlan, turns: str, arguments: Mapping[str, Any] | None = None) -> list[Asked]:
    """The turns of a plan.

    Args:
        turns (`str`): `"single"`: all sub-requests in one prompt. `"multi"`: a turn for each. `"auto"`: in one prompt as
            many as the text encoder reads, and further turns for the rest. `"composed"`: one turn, in which the guidance of
            each sub-request is computed apart and added up.
        arguments (`Mapping`, *optional*): The editor's, among which `max_sequence_length` matters.

    Raises:
        ValueError: If `turns` is none of these.
    """
    arguments = arguments or {}
    if turns == "composed":
        unread = tuple(one for one in plan.requests if unread_of(editor, [one], arguments))
        return [Asked(_joined(plan.requests), plan.requests, unread, composed=len(plan.requests) > 1)]
    if turns == "auto":
        parts = _as_read(editor, plan.requests, arguments)
    elif turns == "single":
        parts = [plan.requests]
    elif turns == "multi":
        parts = [(request,) for request in plan.requests]
    else:
        raise ValueError(f"`turns` must be one of {', '.join(TURNS)}, not {turns!r}.")
    return [Asked(_joined(part), part, unread_of(editor, part, arguments)) for part in parts]


def unread_of(editor: Editor, requests: Sequence[str], arguments: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Of sub-requests in one prompt, those that the editor's text encoder does not read to their end; diffusers cuts them off."""
    traits = traits_of(editor)
    reads = traits.reads
    if reads is None:
        return ()

    def fits(count: int) -> bool:
        prompt = traits.prompt(_joined(requests[:count]), 1)
        tokens, most = reads(editor, prompt, arguments or {})
        return tokens <= most

    read = next((count for count in range(len(requests), 0, -1) if fits(count)), 0)
    return tuple(requests[read:])


def _joined(requests: Sequence[str]) -> str:
    return EditPlan("", (), tuple(requests)).prompts("single")[0]


def _as_read(editor: Editor, requests: Sequence[str], arguments: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The sub-requests in order, as many together as are read; one that is too long on its own stays alone."""
    parts: list[tuple[str, ...]] = []
    for request in requests:
        longer = (*parts[-1], request) if parts else ()
        if longer and not unread_of(editor, longer, arguments):
            parts[-1] = longer
        else:
            parts.append((request,))
    return parts
