"""The folder of a run, which becomes a data set of its own.

data/           000000032-5b1f0c9a7d21.parquet, ...: a file for each shard
files.jsonl     which rows each of them holds
failed.jsonl    a line for each row that failed
run.json        the settings that the pictures depend on
README.md       tells `datasets` which files are data
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from PIL import Image

from .. import records, schema
from ..images import to_png
from ..plan import EditPlan
from .settings import Settings
from .shards import RowState, generator_of


DATA, FILES, FAILED, RUN, TRIES = "data", "files.jsonl", "failed.jsonl", "run.json", "tries"
SUFFIX = ".parquet"
OTHER_ROWS = "is of other rows: take the same data set in the same order, or another folder."

CARD = f"""\
---
configs:
- config_name: default
  data_files: {DATA}/*
---

Edited pictures, the instructions, and the plans that these became, made by diffusers-r1. The settings are in `{RUN}`; `row` is a
row's place in the data set that was edited.
"""


@dataclass(frozen=True)
class Summary:
    """How many rows of a data set are edited, how many have failed, and how many are neither; the failures' errors."""

    edited: int
    failed: int
    missing: int
    errors: Counter[str]


def is_ours(folder: Path) -> bool:
    """Whether a folder is empty or of a run."""
    there = {path.name for path in folder.iterdir()} - {records.LOCK} if folder.is_dir() else None
    return there is not None and (RUN in there or not there)


def make_folder(settings: Settings) -> None:
    """Sets the folder up.

    Raises:
        ValueError: If it was begun with other settings, or holds something else.
    """
    folder = settings.output_dir
    begin(folder, settings.identity())
    records.write_whole(folder / "README.md", CARD)
    (folder / DATA).mkdir(exist_ok=True)


def begin(folder: Path, identity: Mapping[str, Any]) -> None:
    """Makes the folder of a run, or goes on with one that was begun alike.

    Args:
        identity (`Mapping`): What the results depend on, as JSON gives it back.

    Raises:
        ValueError: If it was begun otherwise, or holds something else, or what it says of itself cannot be read.
    """
    check_begun(folder, identity)
    folder.mkdir(parents=True, exist_ok=True)
    records.write_whole(folder / RUN, json.dumps(dict(identity), indent=2))


def check_begun(folder: Path, identity: Mapping[str, Any]) -> None:
    """Refuse a folder that [`begin`] would refuse, and leave it as it is."""
    if folder.exists() and not is_ours(folder):
        raise ValueError(f"{folder} is there and holds something else.")
    if (folder / RUN).exists():
        before = schema.read_file(folder / RUN, dict[str, Any])
        changed = [
            f"{name} was {before.get(name)!r}, not {value!r}"
            for name, value in identity.items()
            if before.get(name) != value
        ]
        if changed:
            raise ValueError(f"{folder} was begun otherwise: {'; '.join(changed)}. Take the same, or another folder.")


def edited_rows(folder: Path, instructions: Sequence[str | None]) -> set[int]:
    """The rows that have a picture. Brings files and their list in line first, so that each row is in one file.

    A file without a line in the list is taken in if it was finished just before a crash, and removed if its rows have come out
    of another one since, as they may when a worker dies.

    Raises:
        ValueError: If a file holds other rows than these, or others have failed.
    """
    _check_failed(folder, instructions)
    there = {path.name: path for path in (folder / DATA).iterdir()}
    lines = records.read_fields(folder / FILES, {"file": str, "rows": list[int]})
    listed = {line["file"]: line["rows"] for line in lines if line["file"] in there}
    for name, rows in listed.items():
        _check_rows(there[name], rows, instructions)
    edited = {row for rows in listed.values() for row in rows}
    for name in sorted(there.keys() - listed.keys()):
        rows = [] if name.endswith(".tmp") else read_column(there[name], "row")
        if rows and edited.isdisjoint(rows):
            _check_rows(there[name], rows, instructions)
            records.append(folder / FILES, {"file": name, "rows": rows})
            edited.update(rows)
        else:
            there[name].unlink()
    return edited


def _check_rows(file: Path, rows: Sequence[int], instructions: Sequence[str | None]) -> None:
    """Refuse a file that was made of other instructions, as far as they are known: a limit may have left some out."""
    known = [row for row in rows if row < len(instructions)]
    if len(known) == len(rows):  # as nearly always, and then the name says it
        same = file.name == file_name(rows, [instructions[row] for row in rows])
    else:
        written = dict(zip(read_column(file, "row"), read_column(file, "instruction")))
        same = all(written[row] == instructions[row] for row in known)
    if not same:
        raise ValueError(f"{file} {OTHER_ROWS}")


def _check_failed(folder: Path, instructions: Sequence[str | None]) -> None:
    """Likewise rows that have failed. Of one that could not be read the instruction may be unknown."""
    for line in read_lines(folder / FAILED, row=int):
        row, said = line["row"], line.get("instruction")
        if said and row < len(instructions) and said != instructions[row]:
            raise ValueError(f"{folder / FAILED} {OTHER_ROWS} Row {row} was {said!r}, not {instructions[row]!r}.")


def write_file(shard: dict[str, Sequence[RowState]], folder: Path, run_seed: int) -> dict[str, list[str]]:
    """Writes the edited rows to a file whose name follows from them; returns, as JSON, what the driver has to know.

    A worker that dies after this is replaced by one that writes the same file again.
    """
    edited = [row for row in shard["row"] if not row.error]
    failed = [
        {
            "row": row.index,
            "instruction": row.instruction,
            "error": row.error,
            "kind": row.failure and row.failure.value,
        }
        for row in shard["row"]
        if row.error
    ]
    rows = [row.index for row in edited]
    name = file_name(rows, [row.instruction for row in edited])
    if edited:
        records.write_whole(folder / DATA / name, to_parquet(edited, run_seed))
    return {"written": [json.dumps({"file": name, "rows": rows, "failed": failed})]}


def file_name(rows: Sequence[int], instructions: Sequence[str | None]) -> str:
    """The first row's number, and a digest that no other rows have."""
    digest = hashlib.sha256(json.dumps([list(rows), list(instructions)]).encode()).hexdigest()
    return f"{min(rows, default=0):09d}-{digest[:12]}{SUFFIX}"


def to_parquet(rows: Sequence[RowState], run_seed: int) -> bytes:
    """The bytes of a file of rows that are edited."""
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    kinds = {"row": Value("int64"), "instruction": Value("string"), "edited_image": ImageFeature()}
    kinds |= {"plan": Value("string"), "seed": Value("int64")}
    cells = [
        {
            "row": row.index,
            "instruction": row.instruction,
            "edited_image": {"bytes": to_png(cast(Image.Image, row.edited)), "path": None},
            "plan": json.dumps(cast(EditPlan, row.plan).to_dict(), ensure_ascii=False),
            "seed": generator_of(row, run_seed).initial_seed(),
        }
        for row in rows
    ]
    file = io.BytesIO()
    Dataset.from_list(cells, features=Features(kinds)).to_parquet(file)
    return file.getvalue()


def read_column(path: Path, name: str) -> list[Any]:
    """A column of a file that `write_file` wrote."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path, columns=[name])[name].to_pylist()


def record_shard(folder: Path, written: dict[str, Any]) -> None:
    """Lists the file, then the rows that failed: those that a crash leaves out are tried again."""
    if written["rows"]:
        records.append(folder / FILES, {"file": written["file"], "rows": written["rows"]})
    for line in written["failed"]:
        records.append(folder / FAILED, line)


def failed_rows(folder: Path) -> dict[int, str]:
    """The rows that have failed, with why the last time. One that failed in an outage has no result yet, as if it was not tried."""
    last = {line["row"]: line for line in read_lines(folder / FAILED, row=int, error=str)}
    return {row: line["error"] for row, line in last.items() if line.get("kind") not in records.TRIED_AGAIN}


def read_lines(path: Path, **kinds: type) -> list[dict[str, Any]]:
    """The lines of one of a run's files. Names of files and words of servers may be no text in UTF-8.

    Args:
        kinds: Of the fields that every line has.

    Raises:
        ValueError: If one lacks a field, or has something else there; the message names file, line and field.
    """
    lines = records.read(path)
    for number, line in enumerate(lines, start=1):
        for name, kind in kinds.items():
            if not isinstance(line.get(name), kind):
                raise ValueError(f"{path}, line {number}: `{name}` is missing, or no {kind.__name__}")
    return lines


def summarize(folder: Path, rows: int, edited: set[int]) -> Summary:
    """What has become of a data set of so many rows."""
    failures = failed_rows(folder)
    failed = {row: error for row, error in failures.items() if row < rows and row not in edited}
    missing = len(set(range(rows)) - edited - failed.keys())
    return Summary(rows - len(failed) - missing, len(failed), missing, Counter(failed.values()))
