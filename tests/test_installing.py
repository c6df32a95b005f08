"""The line that a message gives installs from where the package came from; nothing names an index that does not have it."""

import json
import re
import shlex
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from diffusers_r1 import __version__, installing


ROOT = Path(__file__).parents[1]


class Installed(Distribution):
    """As pip leaves it behind, with or without a `direct_url.json`."""

    def __init__(self, origin):
        self.origin = origin

    def read_text(self, filename):
        return self.origin and json.dumps(self.origin)

    def locate_file(self, path):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        (None, '"diffusers-r1[app]"'),
        ({"url": "file:///home/ann/my%20clone", "dir_info": {"editable": True}}, '-e "/home/ann/my clone[app]"'),
        ({"url": "file:///home/ann/clone", "dir_info": {}}, '"/home/ann/clone[app]"'),
        (
            {"url": "https://git.example/r1.git", "vcs_info": {"vcs": "git", "commit_id": "0a1b"}},
            '"diffusers-r1[app] @ git+https://git.example/r1.git@0a1b"',
        ),
        ({"url": "file:///tmp/r1.whl", "archive_info": {}}, '"diffusers-r1[app] @ file:///tmp/r1.whl"'),
    ],
    ids=["an index", "a clone", "a folder", "git", "a wheel"],
)
def test_the_line_goes_by_where_the_package_came_from(monkeypatch, origin, source):
    monkeypatch.setattr(installing, "distribution", lambda name: Installed(origin))
    line = installing.install_line("app")
    assert line == f"{sys.executable} -m pip install {source}"


def test_the_line_of_this_environment_is_understood_by_pip(tmp_path):
    """What it would do, without doing it: the package that it finds is this one."""
    words = shlex.split(installing.install_line("app"))
    report = tmp_path / "report.json"
    words[words.index("install") + 1 : words.index("install") + 1] = ["--dry-run", "--no-deps", "--ignore-installed"]
    done = subprocess.run(
        [*words, "--no-build-isolation", "--report", str(report)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(report.read_text())["install"]
    assert (found["metadata"]["name"], found["metadata"]["version"]) == ("diffusers-r1", __version__)
    assert found["requested_extras"] == ["app"]


def test_without_pip_it_is_uv_that_installs(monkeypatch):
    monkeypatch.setattr(installing, "find_spec", lambda name: None)
    assert installing.install_line("app").startswith(f"uv pip install --python {sys.executable} ")


def test_the_program_that_is_named_runs():
    done = subprocess.run(f"{installing.program()} --version", shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "diffusers_r1", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")


def test_nothing_says_to_install_by_a_name_that_no_index_has():
    files = [*ROOT.glob("*.md"), *(path for room in ("docs", "examples", "src") for path in (ROOT / room).rglob("*"))]
    said = [path for path in files if path.suffix in (".md", ".py", ".ipynb", ".yaml", ".txt")]
    assert len(said) > 100
    for path in said:
        assert not re.search(r'pip install \\?"?diffusers-r1', path.read_text(encoding="utf-8")), path
