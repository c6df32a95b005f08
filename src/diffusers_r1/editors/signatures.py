"""What an editor's call takes: names, defaults and, from the type hints, what one value of an argument is."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any

from diffusers import ModularPipeline
from PIL import Image

from ..remote_editor import MASK, RemoteEditor
from .sizes import Editor
from .table import traits_of


def arguments_of(editor: Editor) -> dict[str, Any]:
    """The arguments that the editor takes, with their defaults; `**kwargs`, which it would ignore, does not count."""
    if isinstance(editor, RemoteEditor):  # a server may take more; what it makes of that is its own
        return dict.fromkeys(("image", "prompt", "width", "height", MASK))
    if isinstance(editor, ModularPipeline):
        found = {name: default for name, default in editor.default_call_parameters.items() if name}
    else:
        found = {name: parameter.default for name, parameter in _parameters(editor).items()}
    return {name: default for name, default in found.items() if name not in traits_of(editor).ignored}


def hints_of(editor: Editor) -> dict[str, Any]:
    """The type hint of each argument that the editor takes; `None` where it has none that can be read."""
    if isinstance(editor, RemoteEditor):
        return {MASK: Image.Image}
    if isinstance(editor, ModularPipeline):
        hints = {entry.name: entry.type_hint for entry in editor.blocks.inputs}
    else:
        hints = {name: parameter.annotation for name, parameter in _parameters(editor).items()}
        if any(isinstance(hint, str) for hint in hints.values()):
            hints = typing.get_type_hints(type(editor).__call__)
    return {name: hints.get(name) for name in arguments_of(editor)}


def is_text(hint: Any) -> bool:
    """Whether one value is text, and a list of texts is one for each picture of a batch."""
    return str in _alternatives(hint) and any(typing.get_args(one) == (str,) for one in _lists(hint))


def is_number(hint: Any) -> bool:
    """Whether one value is a number and nothing else."""
    kinds = [one for one in _alternatives(hint) if one is not types.NoneType]
    return bool(kinds) and all(one in (int, float) for one in kinds)


def is_mapping(hint: Any) -> bool:
    """Whether one value is a dict and nothing else."""
    kinds = [one for one in _alternatives(hint) if one is not types.NoneType]
    return bool(kinds) and all((typing.get_origin(one) or one) is dict for one in kinds)


def is_optional(hint: Any) -> bool:
    """Whether a value may be `None`."""
    return types.NoneType in _alternatives(hint)


def is_picture(hint: Any) -> bool:
    """Whether one value may be a picture."""
    return Image.Image in _alternatives(hint) or any(Image.Image in typing.get_args(one) for one in _lists(hint))


def is_list(hint: Any) -> bool:
    """Whether one value is a list or tuple itself: `list[float]` is, `str | list[str]` is not."""
    singles = [one for one in _alternatives(hint) if one not in _lists(hint)]
    return bool(_lists(hint)) and not any(one in singles for many in _lists(hint) for one in _alternatives_in(many))


def _parameters(editor: Editor) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(type(editor).__call__).parameters.values()
    return {p.name: p for p in parameters if p.name != "self" and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def _alternatives(hint: Any) -> list[Any]:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return [one for part in typing.get_args(hint) for one in _alternatives(part)]
    return [hint]


def _lists(hint: Any) -> list[Any]:
    return [one for one in _alternatives(hint) if one in (list, tuple) or typing.get_origin(one) in (list, tuple)]


def _alternatives_in(many: Any) -> Iterator[Any]:
    for part in typing.get_args(many):
        yield from _alternatives(part)
