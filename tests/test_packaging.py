"""What is installed: versions that belong together, types for others, and bounds that the tested versions keep."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import diffusers_r1


ROOT = Path(__file__).parents[1]
LINE = re.compile(r'([a-z0-9.-]+)==([^\s+]+) ; python_version >= "3\.\d+"')


def versions() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [LINE.fullmatch(line) for line in lines if not line.startswith("#")]
    assert all(found)
    return {canonicalize_name(match[1]): match[2] for match in found}


def needed() -> list[Requirement]:
    return [Requirement(text) for text in requires("diffusers-r1")]


@pytest.mark.parametrize("requirement", needed(), ids=lambda requirement: f"{requirement.name}-{requirement.marker}")
def test_every_requirement_has_a_tested_version_within_its_bounds(requirement):
    assert versions()[canonicalize_name(requirement.name)] in requirement.specifier


def test_what_users_install_has_a_lower_bound():
    """`make test-oldest` measures it. The tools of tests, site and style are ours alone."""
    ours = ('extra == "test"', 'extra == "docs"', 'extra == "quality"')
    without = {
        requirement.name
        for requirement in needed()
        if not str(requirement.marker).endswith(ours) and ">=" not in str(requirement.specifier)
    }
    assert not without - {"transformers"}  # which `train` holds below a version, and the package above one


def test_types_are_shipped():
    assert (Path(diffusers_r1.__file__).parent / "py.typed").exists()
    assert '"diffusers_r1": ["py.typed"]' in (ROOT / "setup.py").read_text(encoding="utf-8")


@pytest.mark.tiny
def test_the_wheel_has_all_that_the_demo_needs(tmp_path):
    """Built as `make dist` does, installed where nothing of this folder is, and run."""
    apart = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    about = {"check": True, "capture_output": True, "text": True, "cwd": tmp_path, "env": apart}
    clone, dist = tmp_path / "clone", tmp_path / "dist"
    made = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", clone / "src", ignore=made)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, clone], **about)
    (wheel,), (sources,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    assert wheel.name == f"diffusers_r1-{diffusers_r1.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as packed, tarfile.open(sources) as tar:
        names = set(packed.namelist())
        assert {f"src/{name}" for name in names if name.startswith("diffusers_r1/")} <= {
            name.partition("/")[2] for name in tar.getnames()
        }
    assert not [name for name in names if name.startswith(("tests", "docs")) or "__pycache__" in name]

    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--no-deps", "--quiet", wheel], **about)
    # What it depends on is lent from here: a line of a path, which brings no editable install along.
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "lent.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    program = tmp_path / "env" / "bin" / "diffusers-r1"
    where = [python, "-c", "import diffusers_r1; print(diffusers_r1.__file__)"]
    said = subprocess.run(where, **about).stdout
    assert Path(said.strip()).is_relative_to(site)
    subprocess.run([program, "demo", "--output_dir", "out"], **about)
    assert (tmp_path / "out" / "demo.png").is_file()


def test_the_changelog_knows_this_version():
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    assert newest in (diffusers_r1.__version__, "Unreleased")
