"""The layers of the house: nothing imports upward, nor sideways within a layer; the lower layers do without torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffusers_r1


PACKAGE = Path(diffusers_r1.__file__).parent
LAYERS = (
    ("schema", "names", "installing"),
    ("plan", "languages", "records", "belongings", "random_state"),
    ("images", "tags", "matching", "scenes", "sentences"),
    ("endpoints", "prompts", "grammar"),
    ("remote_editor",),
    ("planners", "editors", "rewards", "data"),
    ("bundles", "judging"),
    ("pipelines",),
    ("training", "evaluation", "many", "modular"),
    ("app",),
    ("serve",),
    ("commands",),
)
LAYER_OF = {room: number for number, layer in enumerate(LAYERS) for room in layer}
WITHOUT_TORCH = (
    "schema",
    "names",
    "installing",
    "belongings",
    "plan",
    "languages",
    "images",
    "records",
    "endpoints",
    "tags",
    "matching",
    "scenes",
    "sentences",
    "prompts",
    "grammar",
    "rewards",
    "planners.plans",
    "planners.remote",
    "bundles.planners",
    "pipelines.remote",
    "remote_editor",
)


def python_files() -> list[Path]:
    # A bundle's folder has a file for plain diffusers users in it, which is no module of ours: its name has a hyphen.
    files = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]
    return [path for path in files if all(part.isidentifier() for part in path.with_suffix("").parts)]


def room_of(path: Path) -> str:
    return path.with_suffix("").parts[0]


def imported_rooms(path: Path, source: str) -> Iterator[str]:
    """The rooms that a module of the package imports from, anywhere in it.

    Args:
        path (`Path`): Of the module, relative to the package.
        source (`str`): Its text.
    """
    package = ("diffusers_r1", *path.parts[:-1])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            names = [(*base, alias.name) for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == "diffusers_r1":
                yield from _rooms(name[1:])


def _rooms(inside: tuple[str, ...]) -> list[str]:
    if not inside or inside[0].startswith("__"):  # the package itself, or its __version__
        return []
    home = diffusers_r1._HOMES.get(inside[0], inside[0])  # a public name stands for the room that it lives in
    return [home.lstrip(".").split(".")[0]]


@pytest.mark.parametrize(
    ("path", "source", "rooms"),
    [
        ("tags.py", "from .plan import Edit", ["plan"]),
        ("tags.py", "from . import records, plan", ["records", "plan"]),
        ("tags.py", "def f():\n    from .pipelines.nested import X", ["pipelines"]),
        ("scenes/tasks.py", "from ..plan import Edit\nfrom .world import Scene", ["plan", "scenes"]),
        ("scenes/__init__.py", "from .world import Scene", ["scenes"]),
        ("scenes/tasks.py", "from .. import EditPlan, __version__", ["plan"]),
        ("scenes/tasks.py", "import diffusers_r1.planners, torch\nimport diffusers_r1", ["planners"]),
        ("scenes/tasks.py", "from diffusers_r1 import ImageEditR1Pipeline", ["pipelines"]),
        ("scenes/tasks.py", "from PIL import Image\nimport diffusers", []),
    ],
)
def test_imports_are_found(path, source, rooms):
    assert list(imported_rooms(Path(path), source)) == rooms


def test_every_room_has_a_layer():
    rooms = {room_of(path) for path in python_files()} - {"__init__", "__main__"}
    assert rooms <= set(LAYER_OF)


@pytest.mark.parametrize("path", [path for path in python_files() if room_of(path) in LAYER_OF], ids=str)
def test_nothing_imports_upward_or_sideways(path):
    room = room_of(path)
    others = set(imported_rooms(path, (PACKAGE / path).read_text(encoding="utf-8"))) - {room}
    wrong = sorted(other for other in others if LAYER_OF[other] >= LAYER_OF[room])
    assert not wrong, f"{room} (layer {LAYER_OF[room]}) imports {wrong}"


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_imports_without_torch(room):
    code = f"import sys, diffusers_r1.{room}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
