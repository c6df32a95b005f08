"""What is installed: versions that belong together, types for others, and bounds that the tested versions keep."""

import re
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
