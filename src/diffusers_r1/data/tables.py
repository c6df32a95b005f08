"""Tables that people write by hand or in a spreadsheet: CSV in UTF-8 with a line of names, text with commas in quotes.

Tabs in place of commas (`.tsv`) and what is packed (`.csv.gz`) are read by the same rule.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO
from zipfile import BadZipFile, ZipFile


DELIMITERS = {".csv": ",", ".tsv": "\t"}
PACKED = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
ZIP = ".zip"
UNREAD = (".zst", ".lz4", ".7z", ".rar", ".tar", ".tgz")  # what `datasets` unpacks and we do not
MOST_CHARACTERS = 2**30  # of a cell: it can be a picture in base64, which is more than the module's own limit


def is_table(path: str | Path) -> bool:
    """Whether a file is a table by its name, packed or not."""
    path = Path(str(path).lower())
    while path.suffix in (*PACKED, ZIP, *UNREAD):
        path = path.with_suffix("")
    return path.suffix in DELIMITERS


def read_table(path: str | Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file, one after the other.

    Args:
        path (`str` or `Path`): A file, with commas unless it is called `.tsv`; it may be packed as `.gz`, `.bz2` or `.xz`. Or a
            `.zip`, of which those files count that are tables by their names.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is no such table, or packed in another way, or a row has more cells than there are columns, as one
            with a comma outside of quotes has: others would take its cells for those of other columns. The message names
            file and row.
    """
    path = Path(path)
    csv.field_size_limit(MOST_CHARACTERS)
    try:
        for file, delimiter in _texts(path):
            rows = csv.DictReader(file, strict=True, delimiter=delimiter)
            for number, cells in enumerate(rows, start=1):
                if None in cells:
                    raise ValueError(
                        f"{path}, row {number} (line {rows.line_num}): more cells than the table has columns; text with"
                        " commas stands in quotes"
                    )
                yield cells
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not written in UTF-8: {error}") from error
    except (BadZipFile, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        if isinstance(error, OSError) and error.filename is not None:  # it cannot be opened
            raise
        raise ValueError(f"{path} cannot be unpacked: {error}") from error
    except csv.Error as error:  # as of a quote that does not end, which would take the rows below along
        raise ValueError(f"{path} cannot be read as a table: {error}") from error


def _texts(path: Path) -> Iterator[tuple[TextIO, str]]:
    """The texts in a file, open, and what is between the cells of each."""
    # A byte order mark, which utf-8-sig leaves out, is what spreadsheets put in front.
    last = path.suffix.lower()
    if last == ZIP:
        with ZipFile(path) as archive:
            for name in filter(_counts, archive.namelist()):
                member = io.BytesIO(archive.read(name))
                yield io.TextIOWrapper(member, encoding="utf-8-sig", newline=""), _delimiter(Path(name))
    elif last in DELIMITERS or not is_table(path):
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file, _delimiter(path)
    elif last in PACKED and Path(path.stem).suffix.lower() in DELIMITERS:
        with PACKED[last](path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file, _delimiter(path)
    else:
        raise ValueError(f"{path} is packed so that its rows cannot be checked: give the table itself")


def _counts(name: str) -> bool:
    """Whether a file in an archive is a table, and none of those that systems add, which `datasets` passes over."""
    return is_table(name) and not any(part.startswith((".", "__")) for part in Path(name).parts)


def _delimiter(path: Path) -> str:
    return next((DELIMITERS[suffix.lower()] for suffix in path.suffixes if suffix.lower() in DELIMITERS), ",")
