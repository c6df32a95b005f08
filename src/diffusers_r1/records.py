"""Files that survive a crash: written whole or not at all, or JSONL that grows by one row and can be gone on with.

One process writes a file at a time, see `only_one_in`; a JSONL file may be read while it grows. `patiently` says when a
run over many rows gives up.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from uuid import uuid4

from . import schema


Item = TypeVar("Item")
Result = TypeVar("Result")

LOCK = ".in_use"
MOST_OUTAGES = 10  # one after the other; then it is not the rows


class Failure(Enum):
    """What the failure of one row says about the rows that follow. An exception says it as its `kind`."""

    REFUSED = "refused"  # nothing: this one is refused for good
    FAULT = "fault"  # they may fail too: a model that runs here raises, as it would again at this one
    OUTAGE = "outage"  # they may fail too: the server is down or busy
    HOPELESS = "hopeless"  # they would all fail: a wrong key, a wrong address


# In a list of failures: it was not the row's fault, which is tried again at the next start. All others stay out.
TRIED_AGAIN = (Failure.OUTAGE.value, Failure.HOPELESS.value)


def kind_of(error: Exception) -> Failure:
    """What the failure of one row says: what the error says itself, or, of a disk or memory that is full, an outage."""
    full = isinstance(error, (OSError, MemoryError)) or type(error).__name__ == "OutOfMemoryError"  # torch's
    return getattr(error, "kind", Failure.OUTAGE if full else Failure.FAULT)


@contextmanager
def only_one_in(folder: str | Path) -> Iterator[None]:
    """Within the block no other process that asks for the folder gets it. The system gives it back if this one is killed.

    Args:
        folder (`str` or `Path`): Made if it is not there. A file named `.in_use` stays in it; it means nothing by itself.

    Raises:
        BlockingIOError: If another process has the folder; the message says which.
    """
    import fcntl  # not on Windows, where no run is started

    path = Path(folder) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = f"process {number}" if (number := file.read()) else "another process"
            raise BlockingIOError(
                f"{folder} is in use by {holder}. Wait until that is done, or name another folder."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Writes the file so that, whatever happens, it holds either its old content or the new.

    Args:
        path (`str` or `Path`): Its folder has to exist. A file that is there is replaced.
        content (`str` or `bytes`): Text is written as UTF-8, line ends as they are.

    Raises:
        OSError: If it cannot be written; nothing is left behind then.
    """
    path = Path(path)
    content = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{uuid4().hex}.tmp")  # in the same folder: a move between disks is a copy
    try:
        with temporary.open("xb") as file:
            file.write(content)
            _to_disk(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def written_whole(folder: Path, replaced: Iterable[str]) -> Iterator[Path]:
    """Gives a folder to write into, whose files and folders then take the place of those of the same names in `folder`.

    What fails within the block leaves `folder` as it was.

    Args:
        folder (`Path`): Made if it is not there.
        replaced (iterable of `str`): Patterns of names: what was there before and fits one goes, also where nothing new has
            its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as name:  # on the same disk: moved, not copied
        yield Path(name)
        new = list(Path(name).iterdir())
        before = {folder / path.name for path in new} | {path for pattern in replaced for path in folder.glob(pattern)}
        for path in before:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for path in new:
            os.replace(path, folder / path.name)


def append(path: str | Path, row: Mapping[str, Any]) -> None:
    """Adds a row to a JSONL file and returns once it is on the disk. A torn last line is repaired first.

    Args:
        path (`str` or `Path`): Its folder has to exist; the file need not.
        row (`Mapping`): What JSON can hold; a figure that is missing is `None`, never NaN.

    Raises:
        TypeError: If the row holds what JSON cannot.
        ValueError: If it holds NaN or an infinite number.
    """
    line = json.dumps(dict(row), ensure_ascii=False, allow_nan=False) + "\n"
    with Path(path).open("a+b") as file:
        _repair(file)
        # A lone surrogate, which a model's text may hold, becomes the escape that JSON has for it.
        file.write(line.encode(errors="backslashreplace"))
        _to_disk(file)


def read(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file, in order: none if there is no file, and without a last line that was torn by a crash.

    Raises:
        ValueError: If a whole line is no JSON object; the message names the line.
    """
    return [row for _, row in _numbered(Path(path))]


def read_fields(path: str | Path, kinds: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a JSONL file as [`read`] gives them, of which some fields are known, and become what `kinds` says.

    Args:
        path (`str` or `Path`): The file; none yet means no rows.
        kinds (`Mapping` of `str` to type hints): See [`schema.read_fields`]. The other fields are not looked at.

    Raises:
        ValueError: If a row lacks a known field, or has something else there; the message names file, line and field.
    """
    rows = []
    for number, row in _numbered(Path(path)):
        known = {field: row[field] for field in kinds if field in row}
        rows.append({**row, **schema.read_fields(kinds, known, f"{path}, line {number}")})
    return rows


def patiently(results: Iterable[tuple[Item, Result]], most: int = MOST_OUTAGES) -> Iterator[tuple[Item, Result]]:
    """The results of a run over many rows, up to where the rows that follow would fare no better.

    A row that is refused for good is handed on, to be recorded, and says nothing about the others; it even shows that the
    server is there. A row at which a model raises, or that failed in an outage, is handed on as well; the latter is left for
    the next start.

    Args:
        results (`Iterable`): Each row with its result, or with the exception that it ended in.
        most (`int`, defaults to 10): Outages and faults one after the other.

    Yields:
        `tuple`: The row, and its result or an exception whose `kind` is not `HOPELESS`.

    Raises:
        Exception: A row's own: at once if its kind is `HOPELESS`, or if it has none, which is a fault of the program; the
            last one of `most` outages in a row, once that has been handed on.
    """
    outages = 0
    for item, result in results:
        if not isinstance(result, Exception):
            outages = 0
            yield item, result
            continue
        kind = getattr(result, "kind", Failure.HOPELESS)
        if kind is Failure.HOPELESS:
            raise result
        outages = 0 if kind is Failure.REFUSED else outages + 1
        yield item, result
        if outages == most:
            raise result


def _numbered(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows with the numbers of their lines, from 1 on."""
    if not path.exists():
        return
    *lines, rest = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        row = _parse(line)
        if row is not None:
            yield number, row
        elif line.strip():
            raise ValueError(f"Line {number} of {path} is no JSON object: {line[:80]!r}")
    last = _parse(rest)
    if last is not None:
        yield len(lines) + 1, last


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _repair(file: BinaryIO) -> None:
    """Ends the file with a line end: a torn last line is cut off, a whole one that only lacks its end gets it."""
    end = file.seek(0, os.SEEK_END)
    if end == 0 or _bytes_at(file, end - 1, 1) == b"\n":
        return
    start, rest = end, b""
    while start > 0 and b"\n" not in rest:
        step = min(start, 65536)
        start -= step
        rest = _bytes_at(file, start, step) + rest
    rest = rest.rpartition(b"\n")[2]
    if _parse(rest) is None:
        file.truncate(end - len(rest))
    else:
        file.write(b"\n")


def _bytes_at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
