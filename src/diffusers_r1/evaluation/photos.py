"""Photos that rows of words are about: those that scikit-image and scikit-learn bring along, or files."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from ..images.reading import load_picture


# What a name begins with -> the package that has to be installed. Its pictures may be used freely, see its own notes.
PACKAGES = {"skimage.data.": "scikit-image", "sklearn.datasets.load_sample_image:": "scikit-learn"}


def find_photo(name: str, folder: Path) -> str:
    """The picture's name, made whole: of a file its path.

    Args:
        name (`str`): `"skimage.data.coffee"`, `"sklearn.datasets.load_sample_image:china.jpg"`, or a file's name.
        folder (`Path`): Where files are.

    Raises:
        ValueError: If the file, or the package that has the picture, is not there.
    """
    for start, package in PACKAGES.items():
        if name.startswith(start):
            if find_spec(start.partition(".")[0]) is None:
                raise ValueError(f"The picture {name} comes with {package}: pip install {package}.")
            if not callable(_function(name)):
                raise ValueError(f"{package} has no picture {name}.")
            return name
    if not (folder / name).is_file():
        raise ValueError(f"There is no picture {folder / name}.")
    return str(folder / name)


def open_photo(name: str) -> Image.Image:
    """The picture that [`find_photo`] found. Of a stereo pair the left one.

    Raises:
        ValueError: If it cannot be had: scikit-image fetches some of its pictures, for which it wants `pooch`.
    """
    if not name.startswith(tuple(PACKAGES)):
        return load_picture(name)
    _, _, argument = name.partition(":")
    try:
        picture = _function(name)(*([argument] if argument else []))
    except (AttributeError, ImportError, OSError) as error:  # the first by scikit-learn
        raise ValueError(f"The picture {name} cannot be had: {error}") from error
    return load_picture(picture[0] if isinstance(picture, tuple) else picture)


def _function(name: str) -> Any:
    """What gives the package's picture of that name; `None` if nothing does."""
    module, _, function = name.partition(":")[0].rpartition(".")
    try:
        return getattr(import_module(module), function, None)
    except ImportError:
        return None
