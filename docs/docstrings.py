"""Docstrings as mkdocstrings reads them: links to classes and types of arguments, written as Hugging Face writes them."""

from __future__ import annotations

import re
from typing import Any

import griffe


LINK = re.compile(r"\[`~?([\w.]+)`\](?![(\[])")
ARGUMENT = re.compile(r"^(\s+[\w, ]+ \()(.+)(\):)", flags=re.MULTILINE)


class HuggingFaceStyle(griffe.Extension):
    """Makes of `` [`EditPlan`] `` a link where the name is one of this package, and plain code where it is another's.

    A type, `` name ([`EditPlan`], *optional*, defaults to `None`): ``, loses its marks, which would be shown as they are, and its
    default, which the signature has.
    """

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        homes: dict[str, str] = {}
        objects = list(_objects(pkg))
        for thing in objects:
            if thing.docstring is None:
                continue  # it has no place on a page
            homes.setdefault(thing.name, thing.path)
            if thing.parent is not None:
                homes.setdefault(f"{thing.parent.name}.{thing.name}", thing.path)

        def resolved(link: re.Match) -> str:
            name = link[1]
            return f"[`{name}`][{homes[name]}]" if name in homes else f"`{name.rpartition('.')[2]}`"

        for thing in objects:
            if thing.docstring is not None:
                plain = ARGUMENT.sub(lambda found: found[1] + plain_type(found[2]) + found[3], thing.docstring.value)
                thing.docstring.value = LINK.sub(resolved, plain)


def plain_type(text: str) -> str:
    text = re.sub(r"\[?`~?(?:\w+\.)*([^`]+)`\]?", r"\1", text).replace("*", "")
    return re.sub(r",? defaults to .+$", "", text)


def _objects(thing: griffe.Object) -> Any:
    """The package, modules, classes, functions and attributes that are defined in it."""
    yield thing
    for member in thing.members.values():
        if not member.is_alias:
            yield from _objects(member)
