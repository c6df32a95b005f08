"""Tables that people write by hand or in a spreadsheet: CSV in UTF-8 with a line of names, text with commas in quotes."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path


MOST_CHARACTERS = 2**30  # of a cell: it can be a picture in base64, which is more than the module's own limit


def read_table(path: str | Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file, one after the other.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is no such table, or a row has more cells than there are columns, as one with a comma outside of
            quotes has: others would take its cells for those of other columns. The message names file and row.
    """
    csv.field_size_limit(MOST_CHARACTERS)
    try:
        # A byte order mark is what spreadsheets put in front.
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, strict=True)
            for number, cells in enumerate(rows, start=1):
                if None in cells:
                    raise ValueError(
                        f"{path}, row {number} (line {rows.line_num}): more cells than the table has columns; text with"
                        " commas stands in quotes"
                    )
                yield cells
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not written in UTF-8: {error}") from error
    except csv.Error as error:  # as of a quote that does not end, which would take the rows below along
        raise ValueError(f"{path} cannot be read as a table: {error}") from error
