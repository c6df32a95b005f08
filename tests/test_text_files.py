"""Text is read and written as UTF-8, whatever the machine's own encoding is."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
FILES = [
    path.relative_to(ROOT) for folder in ("src", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")
]


def without_encoding(source: str) -> list[int]:
    """The lines that read or write text and do not say in which encoding."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        whole, name = ast.unparse(node.func), getattr(node.func, "attr", getattr(node.func, "id", None))
        named = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        # Those of importlib's metadata are read in UTF-8 and take no encoding.
        if "encoding" in named or whole in ("Image.open", "PIL.Image.open", "tarfile.open", "metadata.read_text"):
            continue
        # The mode is the first argument of a method, the second of a function.
        modes = [named.get("mode", ""), *(ast.unparse(argument) for argument in node.args[:2])]
        is_binary = any("b" in mode.strip("'\"") and len(mode) <= 6 for mode in modes)
        if name in ("read_text", "write_text") or (name in ("open", "fdopen") and not is_binary):
            lines.append(node.lineno)
        elif name in ("run", "Popen", "check_output") and "text" in named:
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("path.read_text()", [1]),
        ("a\npath.open('a', newline='')", [2]),
        ("open(path)", [1]),
        ("path.open('w')", [1]),
        ("subprocess.run([], text=True)", [1]),
        ("path.open('rb')\nopen(path, 'wb')\nopen(path, mode='xb')\npath.write_bytes(b'')", []),
        ("path.read_text(encoding='utf-8')\nopen(path, encoding='utf-8')\nsubprocess.run([])", []),
    ],
)
def test_calls_are_found(source, lines):
    assert without_encoding(source) == lines


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_read_and_write_names_its_encoding(path):
    assert not without_encoding((ROOT / path).read_text(encoding="utf-8"))


def test_the_command_line_speaks_utf_8_through_pipes():
    """A plan is printed into a file, and read from one, on machines whose own encoding is another one."""
    program = "import sys\nfrom diffusers_r1.commands import main\nmain(['--version'])\nprint(sys.stdin.read())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="ein Hütchen, 帽子".encode(),
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert done.stdout.decode("utf-8").splitlines()[1] == "ein Hütchen, 帽子"
