import doctest
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import pytest

from diffusers_r1 import schema


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: float
    names: list[str] = field(default_factory=list)
    inner: "Point | None" = None

    def __post_init__(self):
        if self.x < 0:
            raise ValueError("x is negative")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(schema).failed == 0


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (str, "ä", "ä"),
        (bool, False, False),
        (int, 3, 3),
        (float, 3, 3.0),
        (None, None, None),
        (str | None, None, None),
        (str | int, 3, 3),
        (Literal["a", 1], 1, 1),
        (Colour, "red", Colour.RED),
        (Colour, Colour.RED, Colour.RED),
        (list[str], ("a",), ["a"]),
        (tuple[int, ...], [], ()),
        (tuple[str, int | None], ["a", None], ("a", None)),
        (dict[str, list[int]], {"a": [1]}, {"a": [1]}),
        (Any, {"a": [1, None, 2.5, True, {"b": "c"}]}, {"a": [1, None, 2.5, True, {"b": "c"}]}),
        (Any, nested(100), nested(100)),
        (Point, {"x": 1}, Point(1.0)),
        (Point, Point(1.0), Point(1.0)),
        (Point, {"x": 1, "inner": {"x": 2, "names": ["a"]}}, Point(1.0, [], Point(2.0, ["a"]))),
    ],
)
def test_what_fits_is_read(kind, data, expected):
    found = schema.read(kind, data, "f.json")
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        (str, 1, "f.json must be text, not a number"),
        (str, b"a", "f.json must be text, not bytes"),
        (str, "a\udc80", "f.json holds half of a surrogate pair at character 1"),
        (bool, 1, "f.json must be true or false, not a number"),
        (int, True, "f.json must be a whole number, not true"),
        (int, 1.0, "f.json must be a whole number, not a number"),
        (float, True, "f.json must be a finite number, not true"),
        (float, float("inf"), "f.json must be a finite number, not inf"),
        (float, 10**400, "f.json must be a finite number, not one that no float holds"),
        (float, "1", 'f.json must be a finite number, not "1"'),
        (None, 0, "f.json must be null, not a number"),
        (str | None, 1, "f.json must be text, not a number"),
        (str | int, None, "f.json must be text or a whole number, not null"),
        (Literal["a", 1], True, "f.json must be one of a, 1, not true"),
        (Colour, "blue", 'f.json must be one of red, not "blue"'),
        (list[str], "ab", 'f.json must be a list of text, not "ab"'),
        (list[str], {"a": 1}, "f.json must be a list of text, not an object"),
        (list[list[int]], [[1], [None]], r"f.json: `\[1\]\[0\]` must be a whole number, not null"),
        (tuple[str, str], ["a"], "f.json must be a list of 2: text, text, not a list of 1"),
        (dict[str, Any], [], "f.json must be an object, not a list of 0"),
        (dict[str, Any], {1: 2}, "f.json must be an object, not an object with keys that are no text"),
        (dict[str, str], {"a": {"b": 1}}, "f.json: `a` must be text, not an object"),
        (dict[str, Any], {"\ud800": 1}, "f.json holds half of a surrogate pair"),
        (Any, {"a": ["\ud800"]}, r"f.json: `a\[0\]` holds half of a surrogate pair"),
        (Any, {"a": {"\ud800": 1}}, "f.json: `a` holds half of a surrogate pair"),
        (Any, [float("nan")], r"f.json: `\[0\]` must be a finite number, not nan"),
        (Any, {"a": {1, 2}}, "f.json: `a` must be what JSON can hold, not set"),
        (Any, {"a": {1: 2}}, "f.json: `a` must be an object, not an object with keys that are no text"),
        (Any, nested(101), "f.json is nested too deeply"),
        (Any, nested(50_000), "f.json is nested too deeply"),
        (str, nested(50_000), "f.json must be text, not a list of 1"),
        (Point, {}, "f.json: `x` is missing"),
        (Point, {"x": 1, "y": 2}, "f.json has no `y`; it has `x`, `names` and `inner`"),
        (Point, {"x": 1, "inner": {"names": []}}, "f.json: `inner.x` is missing"),
        (Point, {"x": 1, "inner": 2}, "f.json: `inner` must be an object with `x`, `names` and `inner`, not a number"),
        (Point, {"x": 1, "inner": {"x": -1}}, "f.json: `inner`: x is negative"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(kind, data, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        schema.read(kind, data, "f.json")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "model_index.json must be an object, not a list of 0"),
        ({"editor": ["diffusers"]}, "`editor` must be a list of 2: text or null, text or null, not a list of 1"),
        ({"editor": "diffusers"}, '`editor` must be a list of 2: text or null, text or null, not "diffusers"'),
        ({}, "`editor` is missing"),
        ({"editor": [None, None], "steps": float("nan")}, "`steps` must be a finite number"),
    ],
)
def test_some_fields_of_an_object_are_checked_and_the_others_kept(data, said):
    kinds = {"editor": tuple[str | None, str | None], "prompts": dict[str, str] | None}
    index = {"editor": ["diffusers", "X"], "steps": 3}
    assert schema.read_fields(kinds, index, "m") == {"editor": ("diffusers", "X"), "steps": 3, "prompts": None}
    with pytest.raises(ValueError, match=said):
        schema.read_fields(kinds, data, "model_index.json")


def test_a_file_is_named_whatever_is_wrong_with_it(tmp_path):
    path = tmp_path / "adapter_config.json"
    broken = {
        b"\xff\xfe": "is no UTF-8 text",
        b"": "cannot be read as JSON",
        b"[" * 200_000: "is nested too deeply",
        b'{"r": Infinity}': "cannot be read as JSON: Infinity is no number",
        b"[1]": "must be an object, not a list of 1",
        b"null": "must be an object, not null",
    }
    for content, said in broken.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=said) as caught:
            schema.read_file(path, dict[str, Any])
        assert str(path) in str(caught.value)
    path.write_text('{"r": 8}', encoding="utf-8")
    assert schema.read_file(path) == {"r": 8}
    with pytest.raises(OSError):
        schema.read_file(tmp_path / "none.json")
