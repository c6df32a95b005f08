"""What an editor's call takes: names, defaults and, from the type hints, what one value of an argument is."""

from __future__ import annotations

import inspect
import operator
import types
import typing
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Any

import torch
from diffusers import ModularPipeline
from diffusers.modular_pipelines.modular_pipeline_utils import INPUT_PARAM_TEMPLATES
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
    """The type hint of each argument that the editor takes, or what its name or its default says where it has none.

    `None` where nothing says what an argument is.
    """
    if isinstance(editor, RemoteEditor):
        return {MASK: Image.Image}
    if isinstance(editor, ModularPipeline):
        hints = {entry.name: entry.type_hint for entry in editor.blocks.inputs}
    else:
        hints = {name: parameter.annotation for name, parameter in _parameters(editor).items()}
        if any(isinstance(hint, str) for hint in hints.values()):
            hints = typing.get_type_hints(type(editor).__call__)
    known = {
        name: hints[name] if _is_hint(name, hints.get(name)) else _supposed(name, default)
        for name, default in arguments_of(editor).items()
    }
    # A mask is a picture, whatever the class says: FluxFillPipeline's hint is a tensor.
    return {name: Image.Image if name == traits_of(editor).mask else hint for name, hint in known.items()}


def is_text(hint: Any) -> bool:
    """Whether one value is text, and a list of texts is one for each picture of a batch."""
    return str in _alternatives(hint) and any(typing.get_args(one) == (str,) for one in _lists(hint))


def is_number(hint: Any) -> bool:
    """Whether one value is a number and nothing else."""
    kinds = [one for one in _alternatives(hint) if one is not types.NoneType]
    return bool(kinds) and all(one in (int, float) for one in kinds)


def is_numbers(hint: Any) -> bool:
    """Whether one value is a list or tuple of numbers and nothing else."""
    kinds = [one for one in _alternatives(hint) if one is not types.NoneType]
    numbers = [list(_alternatives_in(one)) for one in kinds if one in _lists(hint)]
    return len(numbers) == len(kinds) and all(
        parts and all(part in (int, float, Ellipsis) for part in parts) for parts in numbers
    )


def is_tensor(hint: Any) -> bool:
    """Whether one value is a tensor and nothing else."""
    kinds = [one for one in _alternatives(hint) if one is not types.NoneType]
    return bool(kinds) and all(one in (torch.Tensor, torch.FloatTensor) for one in kinds)


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


def plain_of(hint: Any) -> Any:
    """What JSON can hold of a type hint but for null, as `schema.read` takes it; `None` if that is nothing.

    Example:
        >>> plain_of(list[float] | torch.Tensor | None)  # doctest: +SKIP
        list[float]
    """
    return _either(_plain(one) for one in _alternatives(hint) if one is not types.NoneType)


def is_list(hint: Any) -> bool:
    """Whether one value is a list or tuple itself: `list[float]` is, `str | list[str]` is not."""
    singles = [one for one in _alternatives(hint) if one not in _lists(hint)]
    return bool(_lists(hint)) and not any(one in singles for many in _lists(hint) for one in _alternatives_in(many))


def _is_hint(name: str, hint: Any) -> bool:
    """Whether the hint says what the argument is: `negative_prompt_embeds` of Flux2KleinPipeline calls a tensor text."""
    return hint not in (None, inspect.Parameter.empty) and not (name.endswith("_embeds") and is_text(hint))


def _supposed(name: str, default: Any) -> Any:
    """What diffusers' own words for modular blocks say of the name, such as `prompt_2`; otherwise what the default is."""
    known = INPUT_PARAM_TEMPLATES.get(name) or INPUT_PARAM_TEMPLATES.get(name.rstrip("_0123456789"))
    kinds = {bool: bool, int: int | float, float: float, str: str}
    return known["type_hint"] if known else kinds.get(type(default))


def _plain(kind: Any) -> Any:
    if kind in (bool, int, float, str, types.NoneType, Any):
        return kind
    origin = typing.get_origin(kind) or kind
    if origin is dict:
        return dict[str, Any]
    inside = [_either(map(_plain, _alternatives(one))) for one in typing.get_args(kind) if one is not Ellipsis]
    if origin not in (list, tuple) or None in inside:
        return None
    if origin is tuple and len(inside) > 1:
        return tuple[tuple(inside)]
    item = inside[0] if inside else Any
    return list[item] if origin is list else tuple[item, ...]


def _either(kinds: Iterable[Any]) -> Any:
    """The union of those that are there; `None` of none."""
    there = [kind for kind in kinds if kind is not None]
    return reduce(operator.or_, there) if there else None


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
