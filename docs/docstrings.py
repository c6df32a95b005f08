"""Docstrings as mkdocstrings reads them: their links to classes, written as Hugging Face writes them, resolved."""

from __future__ import annotations

import re
from typing import Any

import griffe


LINK = re.compile(r"\[`~?([\w.]+)`\](?![(\[])")


class Links(griffe.Extension):
    """`` [`EditPlan`] `` becomes a link where the name is one of this package, and plain code where it is another's."""

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
                thing.docstring.value = LINK.sub(resolved, thing.docstring.value)


def _objects(thing: griffe.Object) -> Any:
    """The package, modules, classes, functions and attributes that are defined in it."""
    yield thing
    for member in thing.members.values():
        if not member.is_alias:
            yield from _objects(member)
