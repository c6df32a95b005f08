import subprocess
import sys
from importlib.metadata import version

import pytest

import diffusers_r1


def test_all_is_sorted_and_everything_in_it_is_there():
    assert diffusers_r1.__all__ == sorted(diffusers_r1.__all__)
    for name in diffusers_r1.__all__:
        assert getattr(diffusers_r1, name) is not None


@pytest.mark.parametrize("name", [name for name in diffusers_r1.__all__ if name != "__version__"])
def test_a_public_name_is_the_one_of_its_module(name):
    thing = getattr(diffusers_r1, name)
    assert thing.__name__ == name
    assert getattr(sys.modules[thing.__module__], name) is thing


def test_dir_lists_the_public_names():
    assert set(diffusers_r1.__all__) <= set(dir(diffusers_r1))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'ImageEditR2Pipeline'"):
        diffusers_r1.ImageEditR2Pipeline  # noqa: B018


def test_the_import_brings_neither_torch_nor_diffusers():
    code = "import sys, diffusers_r1; dir(diffusers_r1); print(sorted({'torch', 'diffusers'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"


def test_the_version_is_the_one_that_is_installed():
    assert diffusers_r1.__version__ == version("diffusers-r1")
