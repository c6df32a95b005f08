"""The type of a data set's column of pictures: as `datasets` stores them, and opened as the whole package opens pictures."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import datasets
from datasets.utils.file_utils import xopen
from PIL.Image import Image

from ..images import is_url, load_picture


@dataclass
class Picture(datasets.Image):
    """A column whose cells are read as upright RGB pictures by [`~diffusers_r1.images.load_picture`].

    `datasets.Image` opens every format that Pillow knows, some of which start other programs, and fetches a URL only with
    `aiohttp`, as long as it may be. What is stored is the same: once saved, the column is an ordinary column of pictures.
    """

    def decode_example(self, value: Any, token_per_repo_id: dict[str, Any] | None = None) -> Image:
        if value["bytes"] is not None:
            return load_picture(BytesIO(value["bytes"]))
        path = value["path"]
        if "://" not in path or is_url(path):
            return load_picture(path)
        with xopen(path, "rb") as file:  # hf://, or a file inside an archive
            return load_picture(BytesIO(file.read()))
