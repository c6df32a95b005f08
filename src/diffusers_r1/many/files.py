"""A folder of pictures, or a table of files and instructions, edited to plain picture files on one machine.

The folder of such a run:

beach.jpg, 2024/hill.png    the results, under their sources' names
edited.jsonl                a line for each of them: file, instruction, output, plan
failed.jsonl                a line for each row that failed: file, instruction, error, kind
run.json                    what the pictures depend on
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from .. import records
from ..data.tables import read_table
from ..endpoints import map_concurrently
from ..images import SUFFIXES, Metadata, check_writable, content_of, is_url
from ..plan import EditPlan
from ..records import Failure
from .folder import FAILED, begin, check_begun, read_lines


EDITED = "edited.jsonl"
FILE_COLUMNS = ("file", "file_name", "image")
INSTRUCTION = "instruction"
NAMED = {"file": str, INSTRUCTION: str, "output": str}  # a row, in the lists of results and of failures
NOT_WRITTEN = (
    ".heic",
    ".heif",
)  # taken along, so that a phone's photos are among the failures and not left out in silence


@dataclass(frozen=True)
class FileRow:
    """A picture to edit.

    Args:
        file (`str`): Its name, as the table has it, or within the folder.
        source (`str` or `Path`): Where it is: a path, or a URL.
        instruction (`str`): What to do; empty where a plan is carried out.
        output (`str`): The result's name within the folder of results.
    """

    file: str
    source: str | Path
    instruction: str
    output: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What says whether a row was done before."""
        return self.file, self.instruction, self.output


@dataclass(frozen=True)
class Outcome:
    """What has become of the rows, those of earlier runs included.

    Args:
        edited (`int`): How many have a result.
        failed (`list` of `tuple`): For each that failed its file and why.
        missing (`int`): How many are neither.
    """

    edited: int
    failed: list[tuple[str, str]]
    missing: int


class FileFailed(Exception):
    """A row has failed; `kind` says what that means for the others."""

    def __init__(self, error: str, kind: Failure):
        super().__init__(error)
        self.kind = kind


Edited = tuple[Image.Image, Metadata, EditPlan]


def rows_of_folder(folder: Path, instruction: str, output: Path) -> list[FileRow]:
    """A row for each picture in a folder and below it, in alphabetical order, but for hidden ones and those in `output`.

    Raises:
        ValueError: If there is none, or the results were to go among them.
    """
    if folder.resolve().is_relative_to(output.resolve()):
        raise ValueError(f"the results go to a folder beside {folder}, in which the pictures are, or below it")
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        result = path.resolve().is_relative_to(output.resolve())
        if path.suffix.lower() in (*SUFFIXES, *NOT_WRITTEN) and path.is_file() and not hidden and not result:
            names.append(name)
    if not names:
        raise ValueError(f"{folder} holds no picture: {', '.join(SUFFIXES)}")
    # Those that keep their names first: `photo.heic` takes what `photo.png` leaves it.
    taken: dict[str, int] = {}
    outputs = {name: _free(name, taken) for name in sorted(names, key=_is_renamed)}
    return [FileRow(name.as_posix(), folder / name, instruction, outputs[name]) for name in names]


def rows_of_table(path: Path, planned: bool = False) -> list[FileRow]:
    """The rows of a CSV or JSONL file with the columns `file` (or `file_name`, or `image`) and `instruction`.

    Args:
        path (`Path`): Files are named in it as seen from its folder, or by a URL. A file may stand in several rows.
        planned (`bool`): Whether there are plans already, so that no instruction is needed.

    Raises:
        OSError, ValueError: If it cannot be read, or a row lacks one of the two; the message names the row.
    """
    rows: list[FileRow] = []
    taken: dict[str, int] = {}
    for number, cells in enumerate(_cells(path), start=1):
        file = next((cells[name] for name in FILE_COLUMNS if cells.get(name)), None)
        instruction = cells.get(INSTRUCTION) or ""
        if file is None:
            raise ValueError(f"{path}, row {number}: no `file`; a row is a picture's `file` and its `{INSTRUCTION}`")
        for column, cell in (("file", file), (INSTRUCTION, instruction)):
            if not isinstance(cell, str):
                raise ValueError(f"{path}, row {number}: `{column}` is text, not {cell!r}")
        if not instruction.strip() and not planned:
            raise ValueError(f"{path}, row {number}: no `{INSTRUCTION}` for {file}")
        name, source = Path(file), path.parent / file
        if is_url(file):
            # The end of it, where a server's name is longer than a file's can be.
            name, source = Path(urlsplit(file).path.rpartition("/")[2][-200:] or "picture"), file
        if name.is_absolute() or ".." in name.parts:
            name = Path(name.name)
        if not name.name:
            raise ValueError(f"{path}, row {number}: {file} is no file")
        rows.append(FileRow(file, source, instruction, _free(name, taken)))
    if not rows:
        raise ValueError(f"{path} has no row")
    return rows


def edit_files(
    rows: Sequence[FileRow],
    folder: Path,
    identity: Mapping[str, Any],
    load: Callable[[], tuple[Callable[[FileRow], Edited], int]],
    retry_failed: bool = False,
    report: Callable[[FileRow, Path | Exception], None] = lambda row, result: None,
) -> Outcome:
    """Edits the rows that are not edited yet. The same call again goes on where it stopped.

    A row that fails is recorded, and the others go on; ten in a row at which planner, editor or the server of a picture fail
    end the run. What would fail for all of them, such as a full disk or a wrong key, ends it at once.

    Args:
        folder (`Path`): Of the results; made if not there.
        identity (`Mapping`): What the pictures depend on, ready for JSON: a run goes on only with the same.
        load (callable): Called once, and only if there is something to do. Gives what edits a row, and how many rows may be
            under way at a time, in threads if more than one. A `ValueError` or `TypeError` of an edit is the row's own
            fault; other errors go by their `kind`, an `OSError` counts as an outage.
        retry_failed (`bool`, defaults to `False`): Whether rows that were refused for good, or at which a model raised, are
            tried again.
        report (callable): Told of each row with its result, or its error.

    Raises:
        ValueError: If the folder is of another run, or holds something else.
        BlockingIOError: If another run is at work in it.
        Exception: What ended the run early.
    """
    check_begun(folder, identity)
    with records.only_one_in(folder):
        left = _left(rows, folder, retry_failed)
        if left:
            edit, at_once = load()
            begin(folder, identity)  # not before: a name that was mistyped is no run
            for row, result in records.patiently(_results(edit, left, folder, at_once)):
                named = {"file": row.file, INSTRUCTION: row.instruction, "output": row.output}
                if isinstance(result, FileFailed):
                    records.append(folder / FAILED, {**named, "error": str(result), "kind": result.kind.value})
                    report(row, result)
                    continue
                content, plan = result
                path = folder / row.output
                path.parent.mkdir(parents=True, exist_ok=True)
                # In this order, so that the list never names one row where the file is another one's, whatever stops us.
                path.unlink(missing_ok=True)
                records.append(folder / EDITED, {**named, "plan": plan.to_dict()})
                records.write_whole(path, content)
                report(row, path)
        return _outcome(rows, folder)


def _left(rows: Sequence[FileRow], folder: Path, retry_failed: bool) -> list[FileRow]:
    last = {_key(line): line["kind"] for line in _failed(folder)}
    failed = {key for key, kind in last.items() if kind not in records.TRIED_AGAIN}
    skipped = _written(folder) | (set() if retry_failed else failed)
    return [row for row in rows if row.key not in skipped]


def _outcome(rows: Sequence[FileRow], folder: Path) -> Outcome:
    edited = _written(folder)
    errors = {_key(line): line["error"] for line in _failed(folder)}
    failed = [(row.file, errors[row.key]) for row in rows if row.key in errors and row.key not in edited]
    done = sum(row.key in edited for row in rows)
    return Outcome(done, failed, len(rows) - done - len(failed))


def _results(
    edit: Callable[[FileRow], Edited], rows: Sequence[FileRow], folder: Path, at_once: int
) -> Iterator[tuple[FileRow, Any]]:
    if at_once > 1:
        yield from map_concurrently(lambda row: _attempt(edit, row, folder), rows, at_once)
        return
    for row in rows:  # here, and not in a thread, so that Ctrl-C reaches the model
        try:
            result: Any = _attempt(edit, row, folder)
        except FileFailed as error:
            result = error
        yield row, result


def _attempt(edit: Callable[[FileRow], Edited], row: FileRow, folder: Path) -> tuple[bytes, EditPlan]:
    """The edit of a row, ready to be written; what goes wrong with it has a kind."""
    path = folder / row.output
    try:
        if path.parent.is_dir():  # or it is made once there is a picture for it
            check_writable(path)
        picture, metadata, plan = edit(row)
        return content_of(path, picture, metadata), plan
    except Exception as error:
        own = isinstance(error, (TypeError, ValueError))
        kind = getattr(error, "kind", Failure.REFUSED) if own else records.kind_of(error)
        raise FileFailed(" ".join(str(error).split()) or type(error).__name__, kind) from error


def _written(folder: Path) -> set[tuple[str, str, str]]:
    """The rows whose result is still there. Where several had the same output, it is that of the last one."""
    last = {line["output"]: _key(line) for line in read_lines(folder / EDITED, **NAMED)}
    return {key for output, key in last.items() if (folder / output).is_file()}


def _failed(folder: Path) -> list[dict[str, Any]]:
    return read_lines(folder / FAILED, **NAMED, error=str, kind=str)


def _key(line: Mapping[str, Any]) -> tuple[str, str, str]:
    return line["file"], line[INSTRUCTION], line["output"]


def _cells(path: Path) -> list[dict[str, Any]]:
    if path.suffix.lower() == ".jsonl":
        rows = records.read(path)
        # What a crash would have torn is a mistake here: nobody but a person has written the table.
        if len(rows) < sum(bool(line.strip()) for line in path.read_bytes().split(b"\n")):
            raise ValueError(f"{path}, row {len(rows) + 1}: no JSON object")
        return rows
    return list(read_table(path))


def _is_renamed(name: Path) -> bool:
    """Whether the picture is one that is read, or taken along, and not written: its result is a PNG."""
    return name.suffix.lower() not in SUFFIXES


def _free(name: Path, taken: dict[str, int]) -> str:
    """The name, with a number where another row has it: `"beach-2.jpg"`.

    Args:
        taken (`dict`): The names that rows have, to which this one is added; of each the number that its rows have come to.
    """
    name = name.with_suffix(".png") if _is_renamed(name) else name
    free, number = name, taken.get(name.as_posix(), 1)
    while free.as_posix() in taken:
        number += 1
        free = name.with_stem(f"{name.stem}-{number}")
    taken[name.as_posix()] = number
    taken.setdefault(free.as_posix(), 1)
    return free.as_posix()
