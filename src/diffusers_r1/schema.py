"""What is read from outside (plans, prompts, indexes, settings), checked against type hints before it is used.

JSON says nothing of types, and whatever goes wrong later names neither the file nor the field. [`read`] does:

    plan.json: `requests[1]` must be text, not null
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


DEEPEST = 100  # lists and objects inside each other; what people write has three or four


def read_file(path: str | Path, kind: Any = Any) -> Any:
    """What a JSON file holds, as a `kind`; see [`read`].

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is no JSON in UTF-8, or holds something else than a `kind`; the message names the file.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}") from None
    return read(kind, read_json(text, str(path)), str(path))


def read_json(text: str, name: str) -> Any:
    """The value of a JSON text, whose numbers are all finite.

    Args:
        text (`str`): The JSON.
        name (`str`): Where it came from, for the error: a file's name.

    Raises:
        ValueError: If it is no JSON, has NaN or an infinite number in it, or is nested too deeply to be read.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number that JSON has")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be read as JSON: {error}") from None


def read(kind: Any, data: Any, name: str) -> Any:
    """`data` as a `kind`: objects become dataclasses, lists become tuples where `kind` says so.

    Args:
        kind: What is expected, as a type hint: `str`, `bool`, `int`, `float`, `None`, `Any` (whatever JSON can hold),
            `Literal`, an `Enum` (by its value), `list[...]`, `tuple[..., ...]`, `tuple[one, other]`, `dict[str, ...]`,
            unions of these, and dataclasses with such fields.
        data: What `json.loads` gives. Tuples count as lists, and a dataclass may be there already.
        name (`str`): Where it came from, for the error: a file's name.

    Raises:
        ValueError: If `data` is something else, a dataclass's field is missing or unknown, a text holds half of a
            surrogate pair (which no file in UTF-8 can hold), a number is not finite, or lists and objects are nested
            more than 100 deep. What a dataclass itself refuses is a `ValueError` too. The message begins with `name`
            and names the field.

    Example:
        >>> read(tuple[str, ...], ["a", "b"], "plan.json")
        ('a', 'b')
        >>> read(dict[str, list[str]], {"editor": ["diffusers", None]}, "model_index.json")
        Traceback (most recent call last):
        ValueError: model_index.json: `editor[1]` must be text, not null
    """
    return _read(kind, data, name, "")


def read_fields(kinds: Mapping[str, Any], data: Any, name: str) -> dict[str, Any]:
    """An object of which only some fields are known, such as the settings that another library writes.

    Args:
        kinds (`Mapping` of `str` to type hints): The known fields. All have to be there, but for those that may be
            `None`.
        data, name: As in [`read`].

    Returns:
        `dict`: all of `data`, the known fields as their kinds.

    Raises:
        ValueError: As in [`read`].

    Example:
        >>> read_fields({"base_model_name_or_path": str}, {"r": 8}, "adapter_config.json")
        Traceback (most recent call last):
        ValueError: adapter_config.json: `base_model_name_or_path` is missing
    """
    whole = read(dict[str, Any], data, name)
    known = {}
    for field, kind in kinds.items():
        if field not in whole and NoneType not in get_args(kind):
            raise ValueError(f"{name}: `{field}` is missing")
        known[field] = _read(kind, whole.get(field), name, field)
    return {**whole, **known}


def check_text(text: str, name: str) -> None:
    """Refuse what no file and no request in UTF-8 can hold, and no tokenizer reads.

    Raises:
        ValueError: If it holds half of a surrogate pair. The message begins with `name`.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} holds half of a surrogate pair at character {error.start}, which is no text"
        ) from None


def _read(kind: Any, data: Any, name: str, place: str) -> Any:
    """`place` is the way to `data` inside the whole, such as `edits[0].goal`; empty for the whole itself."""

    def refusal() -> ValueError:
        return ValueError(f"{name}{f': `{place}`' if place else ''} must be {_words(kind)}, not {_found(data)}")

    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        _check_any(data, name, place)
        return data
    if origin in (Union, UnionType):
        return _read_union(kind, data, name, place)
    if origin is Literal:
        if not any(type(data) is type(choice) and data == choice for choice in arguments):
            raise refusal()
        return data
    if isinstance(kind, type) and is_dataclass(kind):
        return data if isinstance(data, kind) else _read_dataclass(kind, data, name, place)
    if origin is dict:
        if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
            raise refusal()
        for key in data:
            _check_text(key, name, place)
        return {key: _read(arguments[1], value, name, _inside(place, key)) for key, value in data.items()}
    if origin in (list, tuple):
        some = origin is list or arguments[-1] is Ellipsis
        if not isinstance(data, (list, tuple)) or not (some or len(data) == len(arguments)):
            raise refusal()
        kinds = [arguments[0]] * len(data) if some else arguments
        return origin(_read(k, value, name, f"{place}[{i}]") for i, (k, value) in enumerate(zip(kinds, data)))
    if isinstance(kind, type) and issubclass(kind, Enum):
        if isinstance(data, kind):
            return data
        if not any(type(data) is type(one.value) and data == one.value for one in kind):
            raise refusal()
        return kind(data)
    if kind is str and isinstance(data, str):
        _check_text(data, name, place)
        return data
    if kind is float and isinstance(data, (int, float)) and not isinstance(data, bool) and _is_held(data):
        return float(data)
    if type(data) is (NoneType if kind is None else kind) and kind not in (str, float):
        return data
    raise refusal()


def _read_dataclass(kind: Any, data: Any, name: str, place: str) -> Any:
    at = f"{name}{f': `{place}`' if place else ''}"
    if not isinstance(data, Mapping):
        raise ValueError(f"{at} must be {_words(kind)}, not {_found(data)}")
    known = {field.name: field for field in fields(kind)}
    unknown = [key for key in data if key not in known]
    if unknown:
        raise ValueError(f"{at} has no `{_short(unknown[0])}`; it has {_listed(known)}")
    for field in known.values():
        if field.name not in data and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{name}: `{_inside(place, field.name)}` is missing")
    hints = get_type_hints(kind)
    values = {key: _read(hints[key], value, name, _inside(place, key)) for key, value in data.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{at}: {error}") from None


def _read_union(kind: Any, data: Any, name: str, place: str) -> Any:
    choices = get_args(kind)
    if data is None and NoneType in choices:
        return None
    choices = [choice for choice in choices if choice is not NoneType]
    if len(choices) == 1:  # an optional value: what is wrong deeper inside it is worth naming
        return _read(choices[0], data, name, place)
    for choice in choices:
        try:
            return _read(choice, data, name, place)
        except ValueError:
            continue
    at = f"{name}{f': `{place}`' if place else ''}"
    raise ValueError(f"{at} must be {_words(kind)}, not {_found(data)}")


def _check_any(data: Any, name: str, place: str) -> None:
    """Step by step, not by recursion: this is where nesting has no end of its own."""
    left = [(data, place, 0)]
    while left:
        value, at, depth = left.pop()
        if depth > DEEPEST:
            raise ValueError(f"{name} is nested too deeply")
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    raise ValueError(f"{name}{f': `{at}`' if at else ''} must be an object, not {_found(value)}")
                _check_text(key, name, at)
            left += [(inner, _inside(at, key), depth + 1) for key, inner in value.items()]
        elif isinstance(value, (list, tuple)):
            left += [(inner, f"{at}[{i}]", depth + 1) for i, inner in enumerate(value)]
        elif isinstance(value, str):
            _check_text(value, name, at)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name}{f': `{at}`' if at else ''} must be a finite number, not {value}")
        elif not isinstance(value, (bool, int, float, NoneType)):
            raise ValueError(f"{name}{f': `{at}`' if at else ''} must be what JSON can hold, not {_found(value)}")


def _check_text(text: str, name: str, place: str) -> None:
    check_text(text, f"{name}{f': `{_short(place)}`' if place else ''}")


def _inside(place: str, key: str) -> str:
    return f"{place}.{_short(key)}" if place else _short(key)


def _is_held(number: int | float) -> bool:
    """Whether a float holds it: it is no NaN, not infinite, and no whole number of hundreds of digits."""
    return abs(number) <= sys.float_info.max


def _short(key: Any) -> str:
    """A name from outside, fit to stand in a message."""
    return str(key)[:80].encode("utf-8", errors="replace").decode()


def _listed(names: Any) -> str:
    *head, last = [f"`{name}`" for name in names]
    return f"{', '.join(head)} and {last}" if head else last


def _words(kind: Any) -> str:
    """What is expected, as a sentence names it."""
    simple = {
        str: "text",
        bool: "true or false",
        int: "a whole number",
        float: "a finite number",
        None: "null",
        NoneType: "null",
        Any: "any value",
    }
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return f"an object with {_listed(field.name for field in fields(kind))}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(str(one.value) for one in kind)}"
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (Union, UnionType):
        return " or ".join(_words(choice) for choice in arguments)
    if origin is dict:
        return "an object" if arguments[1] is Any else f"an object of which every value is {_words(arguments[1])}"
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)}: {', '.join(map(_words, arguments))}"
    if origin in (list, tuple):
        item = arguments[0]
        return f"a list of {'objects' if is_dataclass(item) else _words(item)}"
    return simple[kind]


def _found(data: Any) -> str:
    """What is there, without showing it: it can be large, or nested too deeply to be shown."""
    if data is None:
        return "null"
    if isinstance(data, bool):
        return "true" if data else "false"
    if isinstance(data, (int, float)):
        return "a number" if _is_held(data) else str(data) if isinstance(data, float) else "one that no float holds"
    if isinstance(data, str):
        return f'"{_short(data)}"' if len(data) <= 40 else "text"
    if isinstance(data, (list, tuple)):
        return f"a list of {len(data)}"
    if isinstance(data, Mapping):
        return "an object" if all(isinstance(key, str) for key in data) else "an object with keys that are no text"
    return type(data).__name__
