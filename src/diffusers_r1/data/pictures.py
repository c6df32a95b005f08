"""A data set's column of pictures, whatever it holds them as: typed, bytes, paths, URLs, data URLs, base64, lists of one."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import records
from ..images import load_picture, to_png


if TYPE_CHECKING:
    from datasets import Dataset
    from PIL import Image


AT_ONCE = 16  # downloads
AHEAD = 64  # rows, whose pictures are fetched before they are looked at
LONGEST = 200  # characters of what a message quotes: a picture can be text as well

_URL = re.compile(r"https?://", re.IGNORECASE)
_DATA_URL = re.compile(r"data:[^,]*,", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{100,}={0,2}\s*")  # longer than a path without a dot ever is


def shortened(text: str) -> str:
    """A text as a message can quote it: on one line, and never with a picture in it."""
    line = text[:LONGEST].replace("\n", " ")
    return line + "..." if len(text) > LONGEST else line


class Pictures:
    """One column of a data set.

    Args:
        dataset ([`~datasets.Dataset`]): Where it is in.
        theirs, ours (`str`): The column's name there, and in what comes back.
        folder (`str` or `Path`): Where paths begin.
    """

    def __init__(self, dataset: Dataset, theirs: str, ours: str, folder: str | Path):
        from datasets import List, Value

        from .features import Picture

        self.name, self.folder = ours, Path(folder)
        self.several: dict[int, int] = {}  # row -> how many pictures it has, where that is not one
        self.cells: list[Any] | None = None  # pictures told by text
        self.fetched: dict[int, dict[str, Any] | ValueError | None] = {}
        self.column = dataset.select_columns([theirs]).rename_columns({theirs: ours})
        kind = self.column.features[ours]
        if isinstance(kind, List):
            kind, self.column, counts = kind.feature, *_firsts(self.column, ours)
            self.several = {row: count for row, count in enumerate(counts) if count > 1}
        if isinstance(kind, Value) and kind.dtype in ("string", "large_string"):
            self.cells = self.column[ours][:]
        else:
            self.column = self.column.cast_column(ours, Picture())

    def check(self, index: int, ahead: Sequence[int] = (), required: bool = True) -> None:
        """Open a row's picture. A `ValueError` says what is wrong, in words that follow "cannot be used".

        Args:
            index (`int`): The row.
            ahead (sequence of `int`): The rows that are checked next; what they have on the net is fetched along.
            required (`bool`, defaults to `True`): Whether a row has to have one.
        """
        if index in self.several:
            raise ValueError(f"it has {self.several[index]} pictures, and a row has one")
        try:
            picture = self._opened(index, ahead)
        except ValueError as error:
            raise ValueError(shortened(str(error)).rstrip(".")) from error
        # What Pillow and `datasets` raise for a damaged, missing or unreachable picture has no base but this.
        except Exception as error:
            reason = shortened(str(error) or type(error).__name__).rstrip(".")
            raise ValueError(f"its picture cannot be read: {reason}") from error
        if picture is None and required:
            raise ValueError("it has no picture")

    def dataset(self, rows: Collection[int] | None = None) -> Dataset:
        """The column alone, typed as pictures. A row that cannot be had raises when it is read.

        Args:
            rows (collection of `int`, *optional*): Those that matter; of the others nothing is fetched. All by default.
        """
        from datasets import Dataset, Features

        from .features import Picture

        if self.cells is None:
            return self.column
        self._fetch(self.cells, range(len(self.cells)) if rows is None else list(rows))
        cells = [self.fetched.get(row) for row in range(len(self.cells))]
        for row, cell in enumerate(cells):
            if isinstance(cell, ValueError):
                cells[row] = {"bytes": None, "path": shortened(self.cells[row])}
        return Dataset.from_dict({self.name: cells}, features=Features({self.name: Picture()}))

    def _opened(self, index: int, ahead: Sequence[int]) -> Any:
        if self.cells is None:
            picture = self.column[index][self.name]
        else:
            if index not in self.fetched:
                self._fetch(self.cells, [index, *ahead[:AHEAD]])
            stored = self.fetched[index]
            if isinstance(stored, ValueError):
                raise stored
            if stored is not None and stored["path"] and not Path(stored["path"]).is_file():
                raise ValueError(f"its picture cannot be read: there is no file {shortened(stored['path'])}")
            picture = stored and (stored["path"] or _decoded(stored["bytes"]))
        return None if picture is None else load_picture(picture)

    def _fetch(self, cells: Sequence[Any], rows: Sequence[int]) -> None:
        left = [row for row in rows if row not in self.fetched]
        told = [cells[row] for row in left]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            self.fetched.update(zip(left, pool.map(partial(_stored, folder=self.folder), told)))


class References:
    """A data set's column of lists of pictures, the further ones that belong to a row's picture.

    Args:
        dataset ([`~datasets.Dataset`]): Where it is in.
        theirs (`str`): The column's name there; it is called `references` in what comes back.
        folder (`str` or `Path`): Where paths begin.

    Raises:
        ValueError: If the column holds no lists.
    """

    name = "references"

    def __init__(self, dataset: Dataset, theirs: str, folder: str | Path):
        from datasets import Dataset, Features, List, Value

        from .features import Picture

        kind = dataset.features[theirs]
        if not isinstance(kind, List):
            raise ValueError(f"`{theirs}` is a list of pictures in each row, not {kind}.")
        self.column = dataset.select_columns([theirs]).rename_columns({theirs: self.name})
        self.told: Pictures | None = None  # all of them one after the other, where they are told by text
        if isinstance(kind.feature, Value) and kind.feature.dtype in ("string", "large_string"):
            cells = [cell or [] for cell in self.column[self.name]]
            self.ends = [0, *accumulate(map(len, cells))]
            texts = {self.name: [text for cell in cells for text in cell]}
            flat = Dataset.from_dict(texts, features=Features({self.name: kind.feature}))
            self.told = Pictures(flat, self.name, self.name, folder)
        else:
            self.column = self.column.cast_column(self.name, List(Picture()))

    def check(self, index: int) -> None:
        """Open a row's pictures. A `ValueError` says what is wrong, in words that follow "cannot be used"."""
        try:
            if self.told is None:
                self.column[index]
            else:
                for place in self._places(index):
                    self.told.check(place)
        # As in `Pictures.check`: what Pillow and `datasets` raise has no base but this.
        except Exception as error:
            reason = shortened(str(error) or type(error).__name__).rstrip(".")
            raise ValueError(f"one of its references is no picture that can be read: {reason}") from error

    def dataset(self, rows: Collection[int]) -> Dataset:
        """The column alone, typed as lists of pictures; of rows that are not named nothing is fetched."""
        from datasets import Dataset, Features, Image, List

        from .features import Picture

        if self.told is None:
            return self.column
        stored = self.told.dataset([place for row in rows for place in self._places(row)])
        cells = stored.cast_column(self.name, Image(decode=False))[self.name][:]
        lists = {self.name: [cells[start:end] for start, end in pairwise(self.ends)]}
        return Dataset.from_dict(lists, features=Features({self.name: List(Picture())}))

    def _places(self, row: int) -> range:
        return range(0) if self.told is None else range(*self.ends[row : row + 2])


def _firsts(column: Dataset, name: str) -> tuple[Dataset, list[int]]:
    """Of each list the first picture, as it is stored; and how many there are."""
    from datasets import Features, Image, List, Value

    kind = column.features[name].feature
    kind = Image(decode=False) if isinstance(kind, Image) else kind
    firsts = column.cast_column(name, List(kind)).map(
        lambda cells: {name: (cells[name] or [None])[0], "count": len(cells[name] or [])},
        features=Features({name: kind, "count": Value("int64")}),
    )
    return firsts.select_columns([name]), firsts["count"][:]


def _stored(cell: str | None, folder: Path) -> dict[str, Any] | ValueError | None:
    """What a text says a picture is, as `datasets` keeps it: bytes or a path; the error if that cannot be had."""
    if not cell or not cell.strip():
        return None
    try:
        if _URL.match(cell):
            return {"bytes": None, "path": str(_downloaded(cell))}
        if found := _DATA_URL.match(cell):
            if ";base64" not in found[0].lower():
                raise ValueError("its picture is a data URL that is not base64")
            return {"bytes": _unpacked(cell[found.end() :]), "path": None}
        if _BASE64.fullmatch(cell):
            return {"bytes": _unpacked(cell), "path": None}
        return {"bytes": None, "path": str(folder / cell)}
    except ValueError as error:
        return error


def _unpacked(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"its picture is broken base64: {error}") from None


def _decoded(content: bytes) -> Image.Image:
    try:
        return load_picture(io.BytesIO(content))
    except ValueError as error:
        raise ValueError(f"its picture is text that is neither a path nor a picture in base64: {error}") from None


def _downloaded(url: str) -> Path:
    """The picture behind a URL, as a PNG file in the cache of `datasets`; it is fetched and checked once."""
    from datasets import config

    folder = Path(config.HF_DATASETS_CACHE) / "diffusers_r1_pictures"
    path = folder / f"{hashlib.sha256(url.encode()).hexdigest()}.png"
    if not path.exists():
        picture = load_picture(url)
        folder.mkdir(parents=True, exist_ok=True)
        records.write_whole(path, to_png(picture))
    return path
