"""The text format in which the agents answer: declared once, written here, and read by one parser.

The decomposition agent answers with three lists of one length, item i of each belonging to edit i:

    <think>...</think><action>a1; a2</action><subject>s1; s2</subject><goal>g1; g2</goal>

and the sequencing agent with one list, in order:

    <sequence>r1; r2</sequence>

An item holds any text: `\\:` stands for a semicolon in it, `\\[` for a `<` and `\\\\` for a backslash; any other backslash is
a plain character. No escape has a semicolon or a `<` in it, so that lists are split, tags found and the grammar written as
if there were none. The writer escapes, the parser takes it back, and the prompts say how.

Chat templates of models that reason open `<think>` in the question: reasoning that is closed without having been opened is
no fault.

Reading never fails. It returns what was found and a list of faults: an answer without faults has the format that
training rewards, and one with faults is still used as far as it goes. What could not be used is among the faults.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from .plan import Edit, Fault, FaultKind


REASONING = "think"
EDIT_LISTS = ("action", "subject", "goal")
DECOMPOSITION = (REASONING, *EDIT_LISTS)
SEQUENCE = ("sequence",)
SEPARATOR = ";"
ESCAPES = {";": r"\:", "<": r"\[", "\\": r"\\"}

_TAG = re.compile(rf"<(/?)({'|'.join(DECOMPOSITION + SEQUENCE)})>", re.IGNORECASE)
_ESCAPED = re.compile("|".join(map(re.escape, ESCAPES.values())))
_MEANT = {escape: character for character, escape in ESCAPES.items()}


@dataclass(frozen=True)
class Decomposition:
    """What was found in a decomposition agent's answer; it has the declared format if there are no `faults`."""

    edits: tuple[Edit, ...]
    reasoning: str
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class RequestList:
    """What was found in a sequencing agent's answer; it has the declared format if there are no `faults`."""

    requests: tuple[str, ...]
    faults: tuple[Fault, ...]


def write_decomposition(edits: Sequence[Edit], reasoning: str = "") -> str:
    """The answer that `read_decomposition` reads back without faults.

    Raises:
        ValueError: If there is no edit, or an item is empty. Spaces around an item are not kept.
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
        >>> found = read_decomposition("<action>remove</action><subject>red star</subject><goal>nothing</goal>")
        >>> str(found.faults[0])
        'no <think>'
    """
    blocks, faults = _scan(text, DECOMPOSITION, required=DECOMPOSITION)
    lists = {name: _items(blocks.get(name, "")) for name in EDIT_LISTS}
    lengths = [len(items) for items in lists.values()]
    if len(set(lengths)) > 1:
        faults.append(Fault(FaultKind.UNEQUAL_LISTS, detail="{}, {} and {}".format(*lengths)))
    elif not any(lengths) and all(name in blocks for name in EDIT_LISTS):
        faults.append(Fault(FaultKind.NO_EDIT))
    edits = []
    for number, items in enumerate(zip_longest(*lists.values()), start=1):  # None: the list has ended
        if all(items):
            edits.append(Edit(*items))
            continue
        for name, item in zip(EDIT_LISTS, items):
            if item:
                faults.append(Fault(FaultKind.LOST_ITEM, name, item))
            elif item is not None:
                faults.append(Fault(FaultKind.EMPTY_ITEM, name, str(number)))
    return Decomposition(tuple(edits), _plain(blocks.get(REASONING, "").strip()), tuple(faults))


def read_sequence(text: str) -> RequestList:
    """Read a sequencing agent's answer; `text` can be anything. What the agent thought before it answers is no fault."""
    blocks, faults = _scan(text, (REASONING, *SEQUENCE), required=SEQUENCE)
    (name,) = SEQUENCE
    items = (_items(blocks[name]) or [""]) if name in blocks else []
    faults += [Fault(FaultKind.EMPTY_ITEM, name, str(number)) for number, item in enumerate(items, 1) if not item]
    return RequestList(tuple(item for item in items if item), tuple(faults))


def writable(text: str) -> str:
    """An answer in which halves of surrogate pairs are question marks: a server can send them, and no file can hold them."""
    return text.encode(errors="replace").decode()


def _write(lists: dict[str, list[str]]) -> str:
    for name, items in lists.items():
        if not items or (name != REASONING and not all(item.strip() for item in items)):
            raise ValueError(f"<{name}> needs items, none of them empty; got {items}.")
    return "".join(
        f"<{name}>{f'{SEPARATOR} '.join(_escaped(item, name) for item in items)}</{name}>"
        for name, items in lists.items()
    )


def _escaped(item: str, tag: str) -> str:
    special = {**ESCAPES, SEPARATOR: SEPARATOR} if tag == REASONING else ESCAPES  # reasoning is no list
    return item.translate(str.maketrans(special))


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda escape: _MEANT[escape[0]], text)


def _items(text: str) -> list[str]:
    text = _TAG.sub(" ", text)  # a stray tag is a fault, and no part of what was meant
    return [_plain(item.strip()) for item in text.split(SEPARATOR)] if text.strip() else []


def _scan(text: str, tags: tuple[str, ...], required: tuple[str, ...]) -> tuple[dict[str, str], list[Fault]]:
    """The text in each tag, and what is wrong with them, in one pass over the tags met."""
    marks = [(m.start(), m.end(), m[2].lower(), bool(m[1])) for m in _TAG.finditer(text)]
    reasoning_ends = max((start for start, _, name, closing in marks if name == REASONING and closing), default=-1)
    found: list[tuple[str, str]] = []
    faults: list[Fault] = []
    opened: tuple[str, int] | None = (REASONING, 0) if _begins_in_reasoning(marks) else None
    outside_from = 0
    for start, end, name, closing in marks:
        if opened is None:
            if text[outside_from:start].strip():
                faults.append(Fault(FaultKind.TEXT_OUTSIDE))
            if closing:
                faults.append(Fault(FaultKind.UNOPENED_TAG, name))
                outside_from = end
            else:
                opened = (name, end)
            continue
        inside, since = opened
        if closing and name == inside:
            found.append((inside, text[since:start]))
            opened, outside_from = None, end
        elif closing:
            faults.append(Fault(FaultKind.NESTED_TAG, inside, f"</{name}>"))
        elif inside == REASONING and start < reasoning_ends:
            faults.append(Fault(FaultKind.NESTED_TAG, inside, f"<{name}>"))
        else:
            faults.append(Fault(FaultKind.UNCLOSED_TAG, inside))
            found.append((inside, text[since:start]))
            opened = (name, end)
    if opened is not None:
        faults.append(Fault(FaultKind.UNCLOSED_TAG, opened[0]))
        found.append((opened[0], text[opened[1] :]))
    elif text[outside_from:].strip():
        faults.append(Fault(FaultKind.TEXT_OUTSIDE))

    names = [name for name, _ in found]
    faults += [Fault(FaultKind.MISSING_TAG, name) for name in required if name not in names]
    faults += [Fault(FaultKind.REPEATED_TAG, name) for name in tags if names.count(name) > 1]
    faults += [Fault(FaultKind.FOREIGN_TAG, name) for name in dict.fromkeys(names) if name not in tags]
    known = [name for name in dict.fromkeys(names) if name in tags]
    if known != [name for name in tags if name in known]:
        faults.append(Fault(FaultKind.TAG_ORDER))
    blocks: dict[str, str] = {}
    for name, content in found:
        if not blocks.get(name, "").strip():  # of a repeated tag, the first that says something
            blocks[name] = content
        elif name in tags and name != REASONING and _items(content) != _items(blocks[name]):
            faults += [Fault(FaultKind.LOST_ITEM, name, item) for item in _items(content) if item]
    return blocks, faults


def _begins_in_reasoning(marks: list[tuple[int, int, str, bool]]) -> bool:
    """Whether reasoning is closed that nobody has opened, and the answer comes after it."""
    reasoning = [place for place, (_, _, name, _) in enumerate(marks) if name == REASONING]
    if not reasoning or not marks[reasoning[0]][3]:
        return False
    return any(not closing for _, _, _, closing in marks[reasoning[0] :])
