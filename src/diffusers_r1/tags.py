"""The text format in which the agents answer: declared once, written here, and read by one parser.

The decomposition agent answers with three lists of one length, item i of each belonging to edit i:

    <think>...</think><action>a1; a2</action><subject>s1; s2</subject><goal>g1; g2</goal>

and the sequencing agent with one list, in order:

    <sequence>r1; r2</sequence>

Reading never fails. It returns what was found and a list of faults: an answer without faults has the format that
training rewards, and one with faults is still used as far as it goes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .plan import Edit


REASONING = "think"
EDIT_LISTS = ("action", "subject", "goal")
DECOMPOSITION = (REASONING, *EDIT_LISTS)
SEQUENCE = ("sequence",)
SEPARATOR = ";"

_TAG = re.compile(rf"<(/?)({'|'.join(DECOMPOSITION + SEQUENCE)})>", re.IGNORECASE)


@dataclass(frozen=True)
class Decomposition:
    """What was found in a decomposition agent's answer; it has the declared format if there are no `faults`."""

    edits: tuple[Edit, ...]
    reasoning: str
    faults: tuple[str, ...]


@dataclass(frozen=True)
class RequestList:
    """What was found in a sequencing agent's answer; it has the declared format if there are no `faults`."""

    requests: tuple[str, ...]
    faults: tuple[str, ...]


def write_decomposition(edits: Sequence[Edit], reasoning: str = "") -> str:
    """The answer that `read_decomposition` reads back without faults.

    Raises:
        ValueError: If there is no edit, an item is empty, or a text holds what the format gives a meaning.
    """
    lists = {name: [getattr(edit, name) for edit in edits] for name in EDIT_LISTS}
    return _write({REASONING: [reasoning], **lists})


def write_sequence(requests: Sequence[str]) -> str:
    """The answer that `read_sequence` reads back without faults; raises as `write_decomposition` does."""
    return _write({SEQUENCE[0]: list(requests)})


def read_decomposition(text: str) -> Decomposition:
    """Read a decomposition agent's answer.

    Args:
        text (`str`): Anything.

    Returns:
        [`Decomposition`]: As many edits as all three lists have items for; if that is none, there is always a fault.

    Example:
        >>> read_decomposition("<action>remove</action><subject>red star</subject><goal>nothing</goal>").faults
        ('no <think>',)
    """
    blocks, faults = _scan(text, DECOMPOSITION)
    lists = [_items(blocks.get(name, "")) for name in EDIT_LISTS]
    lengths = [len(items) for items in lists]
    if len(set(lengths)) > 1:
        faults.append("lists of {}, {} and {} items".format(*lengths))
    elif not any(lengths) and all(name in blocks for name in EDIT_LISTS):
        faults.append("no edit")
    edits = []
    for number, items in enumerate(zip(*lists), start=1):
        if all(items):
            edits.append(Edit(*items))
        else:
            faults.append(f"item {number} is empty")
    return Decomposition(tuple(edits), blocks.get(REASONING, "").strip(), tuple(faults))


def read_sequence(text: str) -> RequestList:
    """Read a sequencing agent's answer; `text` can be anything."""
    blocks, faults = _scan(text, SEQUENCE)
    items = _items(blocks.get(SEQUENCE[0], ""))
    faults += [f"item {number} is empty" for number, item in enumerate(items, start=1) if not item]
    return RequestList(tuple(item for item in items if item), tuple(faults))


def _write(lists: dict[str, list[str]]) -> str:
    for name, items in lists.items():
        if not items or (name != REASONING and not all(item.strip() for item in items)):
            raise ValueError(f"<{name}> needs items, none of them empty; got {items}.")
        for item in items:
            if _TAG.search(item) or (name != REASONING and SEPARATOR in item):
                raise ValueError(f"<{name}> cannot hold {item!r}: tags and {SEPARATOR!r} have a meaning of their own.")
    return "".join(f"<{name}>{f'{SEPARATOR} '.join(items)}</{name}>" for name, items in lists.items())


def _items(text: str) -> list[str]:
    text = _TAG.sub(" ", text)  # a stray tag is a fault, and no part of what was meant
    return [item.strip() for item in text.split(SEPARATOR)] if text.strip() else []


def _scan(text: str, tags: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """The text in each tag, and what is wrong with them, in one pass over the tags met."""
    marks = [(m.start(), m.end(), m[2].lower(), bool(m[1])) for m in _TAG.finditer(text)]
    reasoning_ends = max((start for start, _, name, closing in marks if name == REASONING and closing), default=-1)
    found: list[tuple[str, str]] = []
    faults: list[str] = []
    opened: tuple[str, int] | None = None
    outside_from = 0
    for start, end, name, closing in marks:
        if opened is None:
            if text[outside_from:start].strip():
                faults.append("text outside the tags")
            if closing:
                faults.append(f"</{name}> closes nothing")
                outside_from = end
            else:
                opened = (name, end)
            continue
        inside, since = opened
        if closing and name == inside:
            found.append((inside, text[since:start]))
            opened, outside_from = None, end
        elif closing:
            faults.append(f"</{name}> inside <{inside}>")
        elif inside == REASONING and start < reasoning_ends:
            faults.append(f"<{name}> inside <{inside}>")
        else:
            faults.append(f"<{inside}> is not closed")
            found.append((inside, text[since:start]))
            opened = (name, end)
    if opened is not None:
        faults.append(f"<{opened[0]}> is not closed")
        found.append((opened[0], text[opened[1] :]))
    elif text[outside_from:].strip():
        faults.append("text outside the tags")

    names = [name for name, _ in found]
    faults += [f"no <{name}>" for name in tags if name not in names]
    faults += [f"<{name}> more than once" for name in tags if names.count(name) > 1]
    faults += [f"<{name}> does not belong here" for name in dict.fromkeys(names) if name not in tags]
    known = [name for name in dict.fromkeys(names) if name in tags]
    if known != [name for name in tags if name in known]:
        faults.append("tags out of order")
    blocks: dict[str, str] = {}
    for name, content in found:
        if not blocks.get(name, "").strip():  # of a repeated tag, the first that says something
            blocks[name] = content
    return blocks, faults
