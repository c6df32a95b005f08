"""Which picture gets which value of an argument: one rule for all, read from the class's type hints.

A list that is longer than one value of that argument holds a value for each picture. `negative_prompt` is
`str | list[str]`, so a list of two is two values; `sigmas` is `list[float]`, so it takes a list of two lists. Where
numbers are asked for, an array or tensor of them is the list of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..images import load_picture, load_pictures
from ..remote_editor import RemoteEditor
from .signatures import hints_of, is_list, is_number, is_numbers, is_picture
from .sizes import Editor
from .table import traits_of


def share_out(editor: Editor, arguments: Mapping[str, Any], pictures: int, each: int = 1) -> list[dict[str, Any]]:
    """The arguments of each picture that is made, with every picture among them opened.

    Args:
        editor: Whose arguments they are.
        arguments (`Mapping`): As the caller gave them. A value that is a list of values, or a tensor of as many rows, is
            shared out: one for each picture, or one for each result, where there are several of a picture. Any other
            value, and a list of one, goes to all, and so does any value for a server, but for masks.
        pictures (`int`): How many pictures are edited.
        each (`int`, defaults to 1): How many results are made of a picture, which lie next to each other.

    Returns:
        `list` of `dict`: `pictures * each` of them, in order.

    Raises:
        ValueError: If the number of values does not fit, or a picture cannot be opened.
    """
    hints, traits = hints_of(editor), traits_of(editor)
    shares: list[dict[str, Any]] = [{} for _ in range(pictures * each)]
    for name, value in arguments.items():
        if name == traits.mask and value is not None:
            value = [mask.convert("L") for mask in load_pictures(value)]
        hint = None if name in (*traits.batched, traits.mask) else hints.get(name)
        if is_number(hint) or is_numbers(hint):
            value = _plain(value)
        of_server = isinstance(editor, RemoteEditor) and name != traits.mask  # which alone knows what a list is
        values = [value] if of_server else _values(name, value, hint, pictures, pictures * each)
        if name in traits.batched:
            values = [[one] for one in values]
        elif is_picture(hints.get(name)) and name != traits.mask:
            values = [_opened(one) for one in values]
        for place, share in enumerate(shares):
            share[name] = values[place * len(values) // len(shares)]
    return shares


def _values(name: str, value: Any, hint: Any, pictures: int, results: int) -> Sequence[Any]:
    """The values in `value`: as many as pictures or results, or one for all."""
    if isinstance(value, (list, tuple)):
        if is_list(hint) and not (value and all(isinstance(one, (list, tuple)) for one in value)):
            return [value]
        if len(value) in (1, pictures, results) and len(value) > 0:
            return value
        if pictures == 1 and is_picture(hint):  # a class that reads several there, such as two adapters
            return [value]
        raise ValueError(f"{len(value)} values of `{name}` do not go with {pictures} pictures.")
    if isinstance(value, torch.Tensor) and value.ndim > 1 and len(value) in (pictures, results):
        return list(value.split(1))
    return [value]


def _plain(value: Any) -> Any:
    """Numbers as Python's own, and rows of them as lists, out of arrays and tensors, which many editors cannot compare."""
    if isinstance(value, (list, tuple)):
        values = map(_plain, value)
        return tuple(values) if isinstance(value, tuple) else list(values)
    return value.tolist() if isinstance(value, (np.ndarray, np.generic, torch.Tensor)) else value


def _opened(value: Any) -> Any:
    """Pictures, and lists of them, opened; tensors and arrays, which may be latents, as they are."""
    if isinstance(value, (list, tuple)):
        return [_opened(one) for one in value]
    return load_picture(value) if isinstance(value, (str, Path, Image.Image)) else value
