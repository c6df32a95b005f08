"""Rows of words: instructions and what is known of their truth, made from seeds or read from files.

What is in a file is checked whole, row by row, before any of it is used; an error names the file, the row and the field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from .. import schema
from ..pipelines.checks import check_seed
from ..plan import Edit
from ..sentences import KINDS, TEST_SEEDS, sample_sentence
from .photos import find_photo
from .runs import digest
from .stages import check_numbers


NAMES = (
    "sentences", "reworded", "everyday", "everyday-photos", "paraphrases", "complexbench-edit", "magicbrush-sessions",
)  # fmt: skip
SENTENCES_LIMIT = 400  # where no limit is given: sentences have no end
WORDINGS = 5  # of each of the reworded sentences
HAND_WRITTEN = {  # files of the package
    "everyday": "everyday_test.jsonl",
    "everyday-photos": "everyday_test.jsonl",
    "paraphrases": "paraphrases.jsonl",
}
JOINTS = (", ", ", and ", " and ", ". ", ", then ", " and then ")

# ComplexBench-Edit's names of what is done -> ours.
EDIT_TYPES = {
    "add object": "add",
    "chain two": "add",
    "delete object": "remove",
    "change object": "replace",
    "content": "replace",
    "color": "recolor",
    "change style": "restyle",
    "change background": "background",
    "material": "material",
    "text": "text",
    "pose": "pose",
}
COMPLEXBENCH_FILE = "final_update_v2.json"
WHOLE = {"background": "background", "restyle": "whole picture"}  # the subject of what is done to a whole picture


@dataclass(frozen=True)
class Row:
    """An instruction and what is known of its truth.

    Args:
        benchmark (`str`): One of `NAMES`.
        id (`str`): Names the row within its benchmark.
        instruction (`str`): What somebody types.
        number (`int`): How many edits it asks for.
        edits (`tuple` of [`Edit`]): What they are; empty where nobody knows. A goal that nobody knows is empty.
        requests (`tuple` of `str`): The true sub-requests; empty where nobody knows them.
        before (`tuple` of pairs of `int`): Edit i has to come before edit j, counted from 0.
        group (`str`, defaults to `""`): Rows of one group say the same in other words.
        picture (`str`, defaults to `""`): What [`open_photo`] opens for planners that see.
    """

    benchmark: str
    id: str
    instruction: str
    number: int
    edits: tuple[Edit, ...] = ()
    requests: tuple[str, ...] = ()
    before: tuple[tuple[int, int], ...] = ()
    group: str = ""
    picture: str = ""

    @property
    def key(self) -> str:
        return f"{self.benchmark}/{self.id}"


def read_rows(name: str, limit: int | None = None, seed: int = 0) -> list[Row]:
    """The rows of a benchmark, see [`evaluate_planners`]. The same arguments give the same rows.

    Raises:
        ValueError: If the benchmark or its file is not there, or a row of the file is not as it should be.
    """
    check_numbers(limit=limit)
    check_seed(seed)  # below 0 are the seeds that planners are trained on
    seed = int(seed)
    source, _, path = name.partition("=")
    if source not in NAMES:
        raise ValueError(f"{source!r} is no benchmark of planners: {', '.join(NAMES)}.")
    if path and not Path(path).exists():
        raise ValueError(f"There is no {path}, where {source} should be.")
    if source == "complexbench-edit" and not path:
        raise ValueError("ComplexBench-Edit is read from a file: complexbench-edit=FILE.")
    rows = {
        "sentences": lambda: _sentences(SENTENCES_LIMIT if limit is None else limit, seed),
        "reworded": lambda: _reworded(100 * WORDINGS if limit is None else limit, seed),
        "everyday": lambda: _everyday(_hand_written(source, path)),
        "everyday-photos": lambda: _with_photos(_hand_written(source, path)),
        "paraphrases": lambda: _paraphrases(_hand_written(source, path)),
        "complexbench-edit": lambda: _complexbench(Path(path), seed),
        "magicbrush-sessions": lambda: _magicbrush(Path(path) if path else None, seed),
    }[source]()
    return [*rows][:limit]  # whatever the limit, a file is read to its end: a row that is wrong is refused at once


# Made from seeds
# ---------------


def _sentences(limit: int, seed: int) -> Iterator[Row]:
    for number in range(limit):
        sentence = sample_sentence(TEST_SEEDS + seed + number, KINDS[number % len(KINDS)])
        yield Row(
            "sentences", f"{sentence.kind}-{sentence.seed}", sentence.instruction, len(sentence.edits), sentence.edits,
            sentence.requests, sentence.before,
        )  # fmt: skip


def _reworded(limit: int, seed: int) -> Iterator[Row]:
    for number in range(limit):
        place, wording = divmod(number, WORDINGS)
        said = sample_sentence(TEST_SEEDS + 500_000 + seed + place, KINDS[place % len(KINDS)], wording)
        group = f"{said.kind}-{said.seed}"
        yield Row(
            "reworded", f"{group}-{wording}", said.instruction, len(said.edits), said.edits, said.requests,
            said.before, group,
        )  # fmt: skip


# Written by hand
# ---------------


@dataclass(frozen=True)
class Instruction:
    """A line of a file of instructions, checked.

    Raises:
        ValueError: If a text that has to say something is empty, or `before` names an edit that is not there.
    """

    id: str | int
    instruction: str
    edits: tuple[Edit, ...]
    requests: tuple[str, ...]
    before: tuple[tuple[int, int], ...] | None = None
    picture: str | None = None
    trade: str = ""
    reasoning: str | None = None

    def __post_init__(self):
        _check_said(instruction=[self.instruction], requests=self.requests)
        _check_edits(self.edits)
        for pair in self.before or ():
            if pair[0] == pair[1] or not all(0 <= place < len(self.edits) for place in pair):
                raise ValueError(f"`before` has {[*pair]}, which is no pair of the edits, counted from 0")


@dataclass(frozen=True)
class Wordings:
    """A line of a file of instructions in several wordings each, checked as an [`Instruction`]."""

    id: str | int
    wordings: tuple[str, ...]
    edits: tuple[Edit, ...]
    before: tuple[tuple[int, int], ...] | None = None
    trade: str = ""

    def __post_init__(self):
        if not self.wordings:
            raise ValueError("`wordings` is empty")
        _check_said(wordings=self.wordings)
        _check_edits(self.edits)


Line = TypeVar("Line", Instruction, Wordings)


def _check_said(**texts: Sequence[str]) -> None:
    for name, said in texts.items():
        if not all(text.strip() for text in said):
            raise ValueError(f"`{name}` has a text without a word in it")


def _check_edits(edits: Sequence[Edit]) -> None:
    """Of an edit the goal alone may be unknown."""
    _check_said(edits=[text for edit in edits for text in (edit.action, edit.subject)])


def _hand_written(name: str, path: str) -> Path:
    file = Path(path) if path else Path(__file__).parents[1] / "sentences" / "data" / HAND_WRITTEN[name]
    if not file.is_file():
        raise ValueError(f"There is no {file}; give a file: {name}=FILE.")
    return file


def _read_lines(path: Path, kind: type[Line]) -> dict[str, Line]:
    """The lines of a JSONL file by where they stand, for errors: `"rows.jsonl: row 3"`.

    Raises:
        ValueError: If one of them is no `kind`, or two have one id, or there is none. `records.read` would pass over a last
            line that is no object, as a file of the run's own ends after a crash.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}") from None
    lines: dict[str, Line] = {}
    places: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{path}: row {number}"
            lines[place] = schema.read(kind, schema.read_json(line, place), place)
            _check_new(str(lines[place].id), place, places)
    _check_some(lines, path)
    return lines


def _check_new(id: str, place: str, places: dict[str, str]) -> None:
    """Refuse an id that another row has, of which one would be lost. `places` says where each stands, and is added to."""
    if id in places:
        raise ValueError(f"{place}: `id` is {id!r}, as in {places[id].rpartition(': ')[2]}")
    places[id] = place


def _check_some(rows: Any, path: Path) -> None:
    if not rows:
        raise ValueError(f"{path} has no rows")


def _everyday(path: Path) -> Iterator[Row]:
    """Rows of `{"id", "trade", "instruction", "edits": [{"action", "subject", "goal"}], "requests", "before"}`."""
    return map(_row, _read_lines(path, Instruction).values())


def _row(line: Instruction) -> Row:
    return Row(
        "everyday", str(line.id), line.instruction, len(line.edits), line.edits, line.requests, line.before or ()
    )


def _with_photos(path: Path) -> list[Row]:
    """The rows of [`_everyday`] that name a `picture`."""
    rows = []
    for place, line in _read_lines(path, Instruction).items():
        if line.picture is not None:
            try:
                photo = find_photo(line.picture, path.parent)
            except ValueError as error:
                raise ValueError(f"{place}: `picture`: {error}") from error
            rows.append(replace(_row(line), benchmark="everyday-photos", picture=photo))
    if not rows:
        raise ValueError(f"{path} has no rows with a `picture`")
    return rows


def _paraphrases(path: Path) -> Iterator[Row]:
    """Rows of `{"id", "trade", "wordings": [...], "edits"}`: one row for each wording."""
    for line in _read_lines(path, Wordings).values():
        for number, wording in enumerate(line.wordings):
            yield Row("paraphrases", f"{line.id}-{number}", wording, len(line.edits), line.edits, group=str(line.id))


# Of other data sets
# ------------------


def _complexbench(path: Path, seed: int) -> list[Row]:
    files = sorted(path.glob(f"**/{COMPLEXBENCH_FILE}")) if path.is_dir() else [path]
    rows: dict[str, Row] = {}
    for file in files:
        lines = _complexbench_lines(file)
        for place, line in lines.items():
            steps, edits = _complexbench_steps(line, place)
            # One picture can have several rows, and a picture's number several files.
            id = next(id for number in count(1) if (id := f"{line['id']}-{number}") not in rows)
            rows[id] = Row("complexbench-edit", id, join(steps, f"{id} {seed}"), len(edits), edits)
    _check_some(rows, path)
    return [*rows.values()]


def _complexbench_lines(file: Path) -> dict[str, dict[str, Any]]:
    """The rows of a list, or of the original's object of rows by their ids, by where they stand."""
    content = schema.read(list[Any] | dict[str, Any], schema.read_file(file), str(file))
    rows = enumerate(content, start=1) if isinstance(content, list) else content.items()
    lines = {f"{file}: row {name}": line for name, line in rows}
    lines = {place: schema.read(dict[str, Any], line, place) for place, line in lines.items()}
    if isinstance(content, dict):
        lines = {place: {"id": id, **line} for id, (place, line) in zip(content, lines.items())}
    return {place: schema.read_fields({"id": str | int}, line, place) for place, line in lines.items()}


def _complexbench_steps(line: Mapping[str, Any], place: str) -> tuple[list[str], tuple[Edit, ...]]:
    steps_name = "new_ins" if "new_ins" in line and "steps" not in line else "steps"
    edits_name = "edit pair" if "edit pair" in line and "edits" not in line else "edits"
    kinds = {steps_name: str if steps_name == "new_ins" else list[str], edits_name: list[Any]}
    read = schema.read_fields(kinds, line, place)
    steps, pairs = read[steps_name], read[edits_name]
    steps = [step.strip().rstrip(".") for step in (steps.splitlines() if isinstance(steps, str) else steps)]
    steps = [step for step in steps if step]
    if not steps or len(steps) != len(pairs):
        raise ValueError(f"{place}: `{steps_name}` has {len(steps)} steps, `{edits_name}` {len(pairs)} edits")
    places = [f"{place}: `{edits_name}[{number}]`" for number in range(len(pairs))]
    return steps, tuple(map(_complexbench_edit, steps, pairs, places))


def _complexbench_edit(step: str, pair: Any, place: str) -> Edit:
    kind = schema.read_fields({"edit_type": str}, pair, place)["edit_type"]
    if kind not in EDIT_TYPES:
        raise ValueError(f"{place}: `edit_type` must be one of {', '.join(EDIT_TYPES)}, not {kind!r}")
    action = EDIT_TYPES[kind]
    if kind == "content" and re.search(r"\b(text|words?|letters?|numbers?|logo)\b|['\"]", step):
        action = "text"
    has_subject = action != "add" and action not in WHOLE
    read = schema.read_fields({"new_obj": str, **({"ori obj": str} if has_subject else {})}, pair, place)
    if action == "add":
        return Edit("add", read["new_obj"].strip(), "")
    goal = {"remove": "nothing", "replace": read["new_obj"].strip()}.get(action, "")
    return Edit(action, WHOLE.get(action) or read["ori obj"].strip(), "" if kind == "content" else goal)


def _magicbrush(path: Path | None, seed: int) -> list[Row]:
    sessions = _sessions_in(path) if path is not None and path.is_file() else _sessions_of_data_set(path)
    rows = []
    for id, turns in sessions.items():
        if len(turns) > 1:
            steps = [turn.strip().rstrip(".") for turn in turns]
            rows.append(Row("magicbrush-sessions", id, join(steps, f"{id} {seed}"), len(turns)))
    if not rows:
        raise ValueError(f"{path} has no session of two turns or more")
    return rows


def _sessions_in(path: Path) -> dict[str, list[str]]:
    """Of a file with a list of `{"img_id", "turns": [...]}`."""
    sessions: dict[str, list[str]] = {}
    places: dict[str, str] = {}
    for number, line in enumerate(schema.read_file(path, list[Any]), start=1):
        place = f"{path}: row {number}"
        read = schema.read_fields({"img_id": str | int, "turns": list[str]}, line, place)
        if not all(turn.strip(" .\n\t") for turn in read["turns"]):
            raise ValueError(f"{place}: `turns` has a text without a word in it")
        _check_new(str(read["img_id"]), place, places)
        sessions[str(read["img_id"])] = read["turns"]
    return sessions


def _sessions_of_data_set(path: Path | None) -> dict[str, list[str]]:
    """Of the Hub's data set, or a copy of it in a folder: a row for each turn."""
    from datasets import load_dataset

    name = str(path or "osunlp/MagicBrush")
    split: Any = load_dataset(name, split="dev" if path is None else "train")
    kinds = {"img_id": str | int, "turn_index": int, "instruction": str}
    rows = enumerate(split.select_columns([*kinds]), start=1)
    lines = [schema.read_fields(kinds, line, f"{name}: row {number}") for number, line in rows]
    sessions: dict[str, list[str]] = {}
    for line in sorted(lines, key=lambda line: (line["img_id"], line["turn_index"])):
        sessions.setdefault(str(line["img_id"]), []).append(line["instruction"])
    return sessions


def join(steps: Sequence[str], seed: str) -> str:
    """Single instructions as one sentence, joined in a way that the seed chooses."""
    joint = JOINTS[int(digest(seed), 16) % len(JOINTS)]
    if joint in (", and ", " and then "):
        return ", ".join(steps[:-1]) + joint + steps[-1]
    return joint.join(steps)
