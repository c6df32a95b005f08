"""Where rows come from: one table of data sets, and one function that reads any of them.

No public data set of edits says which actions, subjects and goals an instruction means, so the rows of those in the
table have no truth until a teacher has annotated them.

What the table rests on: of PSR-328, UltraEdit and MagicBrush the columns and splits in their cards on the Hub. Of
GEdit-Bench and Complex-Edit, what public evaluation code reads from them. Of RealEdit the card could not be read: its
columns are assumed, from what the authors' scripts call theirs (`input_image_name`, `orig_img`, `instruction`) and from
what others in the field use, and its splits are the paper's. Where it holds names of files rather than pictures, download
it and give the folder as `path`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..images import to_png
from ..scenes import KINDS, TEST_SEEDS, reason, sample_tasks
from .rows import EDIT_COLUMNS, checked_texts, row_features


if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """How a data set is laid out.

    Args:
        path (`str`): Its name on the Hub.
        split (`str`): The split that is read when none is asked for.
        image, instruction, target (`tuple` of `str`): What its columns are called; the first name that it has counts.
            `"edit.steps.2.text"` leads into a nested column: the third of the steps of `edit`, and of that the text.
            `target` is the picture after, which only some have.
        unique (`str`, *optional*): A column of which each value is taken once, where one request has several rows.
        only (`Mapping` of `str` to `str`, defaults to `{}`): The value that a column has in the rows that are taken.
        category (`str`, *optional*): The column that says what kind of request a row is.
    """

    path: str
    split: str
    image: tuple[str, ...]
    instruction: tuple[str, ...]
    target: tuple[str, ...] = ()
    unique: str | None = None
    only: Mapping[str, str] = field(default_factory=dict)
    category: str | None = None


SOURCES: dict[str, Source] = {
    # 10,405 rows, one for each edit of a request; the instruction in fewer words is in `simplified_instruction`.
    "psr": Source(
        "PSRDataset/PSR-328",
        "test",
        ("source_image",),
        ("instruction",),
        ("human_edited_image",),
        unique="post_id",
    ),
    # Assumed, see above. Splits train (48,002 requests) and test (9,337).
    "realedit": Source(
        "peter-sushko/RealEdit",
        "train",
        ("input_image", "source_image", "original_image", "orig_img", "input_image_name", "image"),
        ("instruction", "edit_instruction", "edit_prompt"),
        ("output_image", "target_image", "edited_image", "edited_img", "output_image_name"),
    ),
    # Splits FreeForm_0, FreeForm_1, ... of 2,000 rows; `path="BleachNick/UltraEdit_500k"` has one, FreeForm.
    "ultraedit": Source("BleachNick/UltraEdit", "FreeForm_0", ("source_image",), ("edit_prompt",), ("edited_image",)),
    # Splits train and dev; from `turn_index` 2 on, the source is the picture that an edit before it made.
    "magicbrush": Source("osunlp/MagicBrush", "train", ("source_img",), ("instruction",), ("target_img",)),
    # 1,212 rows, half of them the same requests in Chinese.
    "gedit": Source(
        "stepfun-ai/GEdit-Bench",
        "train",
        ("input_image_raw", "input_image"),
        ("instruction",),
        only={"instruction_language": "en"},
        category="task_type",
    ),
    # 531 rows in each of test_real and test_syn; `edit.compound` has eight instructions, of one to eight edits.
    "complexedit": Source(
        "UCSC-VLAA/Complex-Edit", "test_real", ("image",), ("edit.compound.7.compound_instruction",)
    ),
}

SCENES = "scenes"
SCENES_SPLITS = {"train": 0, "validation": 900_000_000, "test": TEST_SEEDS}

_ANY = Source(
    "",
    "train",
    ("image", "source_image", "input_image", "original_image"),
    ("instruction", "edit_prompt"),
    ("target", "target_image", "edited_image", "output_image"),
)


def load_rows(
    name: str,
    split: str | None = None,
    on_bad_row: Literal["error", "skip", "keep"] = "error",
    limit: int | None = None,
    seed: int | None = None,
    columns: Mapping[str, str] | None = None,
    path: str | Path | None = None,
    measured: bool = False,
    **options: Any,
) -> Dataset | IterableDataset:
    """Rows with the columns `image`, `instruction`, `actions`, `subjects` and `goals`, each of them read and checked.

    The lists are `None` where the data set does not have them. Reading decodes every picture once, in about 30 ms for
    one of a megapixel.

    Args:
        name (`str`): One of

            - a name in [`SOURCES`], such as `"psr"`, or the Hub name there;
            - the Hub name of any other data set;
            - a local folder: pictures and a `metadata.jsonl` (`file_name`, `instruction`, `actions`, ...), see
              `imagefolder` of `datasets`; Parquet, CSV or JSON files; or what `save_to_disk` wrote. Pictures given as
              text are URLs, or paths from this folder on;
            - `"scenes"`, or `"scenes:complex=0.5,pointed=0.5"` with each kind's share: tasks made from seeds, whose true
              edits are known.
        split (`str`, *optional*): The data set's own by default. Of scenes `"train"`, `"validation"` or `"test"`, whose
            seeds do not overlap.
        on_bad_row (`"error"`, `"skip"` or `"keep"`, defaults to `"error"`): What a row that cannot be read does. Skipped
            rows are warned of one by one, and in sum at the end. `"keep"` leaves the checking to whoever reads a row:
            no picture is decoded, an instruction that is no text is `None`, and the lists and `reasoning` are `None`.
        limit (`int`, *optional*): The most rows that come back; bad ones and repetitions do not count. Scenes without
            a limit have no end and come back as an `IterableDataset`, always fresh: give the trainer `max_steps`.
        seed (`int`, *optional*): Take the rows in the random order of this seed; in their own order by default. Of
            scenes: the first task, counted from the beginning of the split; tasks of neighbouring seeds follow each
            other, so runs on different tasks have seeds further apart than they have tasks.
        columns (`Mapping` of `str` to `str`, *optional*): What the data set calls our columns, where that is not what
            the table says: `{"instruction": "simplified_instruction"}`.
        path (`str` or `Path`, *optional*): Where the data set is, if not at its own place: a copy in a folder, or
            another Hub name with the same layout.
        measured (`bool`, defaults to `False`): Add what measuring needs and training does not: `row`, the row's place in
            the data set; `target`, the picture after, and `category`, what kind of request it is, both `None` where that
            is not known. Not for scenes.
        options: Passed on to [`~datasets.load_dataset`]: `revision`, `token`, `data_dir`, ...

    Returns:
        [`~datasets.Dataset`], or for endless scenes [`~datasets.IterableDataset`].

    Raises:
        ValueError: If a row is bad (with its index and the reason), no row is left, a column is missing, or an argument
            does not fit the source.
    """
    if on_bad_row not in ("error", "skip", "keep"):
        raise ValueError(f'`on_bad_row` is "error", "skip" or "keep", not {on_bad_row!r}.')
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` is at least 1, not {limit}.")
    if is_scenes(name):
        if columns or path or measured or options:
            raise ValueError(
                "Scenes are made, not read: they take no `columns`, no `path`, no `measured` and no options of loading."
            )
        return _scenes(name, split or "train", limit, seed or 0)
    known = SOURCES.get(name) or next((source for source in SOURCES.values() if source.path == name), _ANY)
    where = str(path or known.path or name)
    dataset = _open(where, split or known.split, options)
    return _read(name, where, dataset, known, columns or {}, on_bad_row, limit, seed, measured)


def is_scenes(name: str) -> bool:
    """Whether the rows of that name are tasks of the scenes world, which have no end unless there is a limit."""
    return name.partition(":")[0] == SCENES


def _open(where: str, split: str, options: dict[str, Any]) -> Dataset:
    import datasets

    if (Path(where) / "state.json").exists():
        return datasets.Dataset.load_from_disk(where)
    if (Path(where) / "dataset_dict.json").exists():
        return datasets.DatasetDict.load_from_disk(where)[split]
    return datasets.load_dataset(where, split=split, **options)


def _read(
    name: str,
    where: str,
    dataset: Dataset,
    source: Source,
    columns: Mapping[str, str],
    on_bad_row: str,
    limit: int | None,
    seed: int | None,
    measured: bool,
) -> Dataset:
    import numpy as np
    from datasets import Dataset, Features, Value, concatenate_datasets

    from .pictures import Picture

    names = _column_names(name, dataset, source, columns)
    pictures = _pictures(dataset, names.pop("image"), "image", where)
    read = {_root(theirs, dataset) for theirs in names.values()} | set(source.only)
    texts = dataset.select_columns(sorted(read))
    repeated = dataset[source.unique][:] if source.unique else range(len(dataset))
    order = range(len(dataset)) if seed is None else np.random.default_rng(seed).permutation(len(dataset)).tolist()

    rows: dict[int, dict[str, Any]] = {}
    seen, faults = set(), {}
    for index in order:
        if len(rows) == limit:
            break
        if repeated[index] in seen:
            continue
        try:
            cells = texts[index]
            if any(cells[column] != value for column, value in source.only.items()):
                continue
            if on_bad_row == "keep":
                instruction = _cell(cells, names["instruction"])
                row = {"instruction": instruction if isinstance(instruction, str) else None}
            else:
                row = checked_texts({ours: _cell(cells, theirs) for ours, theirs in names.items()})
                _check_picture(pictures, index)
        except ValueError as error:
            faults[index] = f"Row {index} of {name} cannot be used: {error}."
            if on_bad_row == "error":
                raise ValueError(f'{faults[index]} With on_bad_row="skip" it is left out.') from error
            logger.warning(faults[index])
            continue
        rows[index] = row
        if repeated[index] is not None:
            seen.add(repeated[index])
    if faults:
        shown = ", ".join(map(str, islice(faults, 20))) + (", ..." if len(faults) > 20 else "")
        logger.warning("%d rows of %s were left out, %d remain. Left out: %s.", len(faults), name, len(rows), shown)
    if not rows:
        raise ValueError(f"{name} has no row that can be used.")

    kinds = {ours: kind for ours, kind in row_features().items() if ours != "image"}
    cells = {ours: [rows.get(index, {}).get(ours) for index in range(len(dataset))] for ours in kinds}
    joined = [pictures, Dataset.from_dict(cells, features=Features(kinds))]
    if measured:
        nothing = [None] * len(dataset)
        category = dataset[source.category][:] if source.category in dataset.column_names else nothing
        facts = {"row": list(range(len(dataset))), "category": category}
        kinds = {"row": Value("int64"), "category": Value("string")}
        joined.append(Dataset.from_dict(facts, features=Features(kinds)))
        target = next((column for column in source.target if column in dataset.column_names), None)
        joined.append(_pictures(dataset, target, "target", where) if target else _pictures_in(nothing, "target"))
    # Joined before it is selected from: the other way round every picture would be copied.
    result = concatenate_datasets(joined, axis=1).select(list(rows))
    for name in {"image", "target"} & set(result.column_names):
        result = result.cast_column(name, Picture())  # joining knows the types of `datasets` only
    return result


def _column_names(name: str, dataset: Dataset, source: Source, columns: Mapping[str, str]) -> dict[str, str]:
    """Our columns' names -> the data set's, without those of the true edits if it has none of them."""
    there = dataset.column_names
    own_names = (*EDIT_COLUMNS, "reasoning")
    unknown = set(columns) - {"image", "instruction", *own_names}
    if unknown:
        raise ValueError(f"`columns` names {sorted(unknown)}, and a row has image, instruction and {own_names}.")
    wanted = {"image": source.image, "instruction": source.instruction, **{own: (own,) for own in own_names}}
    wanted.update({ours: (theirs,) for ours, theirs in columns.items()})
    names = {
        ours: next((n for n in candidates if _root(n, dataset) in there), None) for ours, candidates in wanted.items()
    }
    without_truth = not any(names[own] or own in columns for own in EDIT_COLUMNS)
    optional = {"reasoning"} - set(columns) | (set(EDIT_COLUMNS) if without_truth else set())
    missing = [ours for ours, found in names.items() if found is None and ours not in optional]
    for column in filter(None, (source.unique, *source.only)):
        if column not in there:
            raise ValueError(f"{name} has no column {column!r}; it has {there}.")
    if missing:
        looked_for = ", ".join(f"{ours} ({' or '.join(wanted[ours])})" for ours in missing)
        raise ValueError(f"{name} has no column for {looked_for}; it has {there}. Name them with `columns`.")
    return {ours: found for ours, found in names.items() if found is not None}


def _root(name: str, dataset: Dataset) -> str:
    """The column that a name leads into: itself, unless the name has dots and there is no such column."""
    return name if name in dataset.column_names else name.partition(".")[0]


def _cell(cells: Mapping[str, Any], name: str) -> Any:
    """What a name leads to in a row, see [`Source`]."""
    if name in cells:
        return cells[name]
    value: Any = cells
    try:
        for step in name.split("."):
            value = value[int(step) if isinstance(value, list) else step]
    except (IndexError, KeyError, TypeError, ValueError):
        raise ValueError(f"it has no {name}") from None
    return value


def _pictures(dataset: Dataset, theirs: str, ours: str, where: str) -> Dataset:
    """One column alone, under our name and typed as pictures: it may hold paths, URLs or bytes."""
    from .pictures import Picture

    column = dataset.select_columns([theirs]).rename_columns({theirs: ours})
    if getattr(column.features[ours], "dtype", None) in ("string", "large_string"):
        cells = [cell and (cell if "://" in cell else str(Path(where) / cell)) for cell in column[ours]]
        return _pictures_in(cells, ours)
    return column.cast_column(ours, Picture())


def _pictures_in(cells: Sequence[str | None], name: str) -> Dataset:
    from datasets import Dataset, Features

    from .pictures import Picture

    return Dataset.from_dict({name: cells}, features=Features({name: Picture()}))


def _check_picture(pictures: Dataset, index: int) -> None:
    try:
        picture = pictures[index]["image"]
    # What `datasets` raises for a file in an archive or on the Hub has no base but this.
    except Exception as error:
        raise ValueError(f"its picture cannot be read: {error or type(error).__name__}".rstrip(".")) from error
    if picture is None:
        raise ValueError("it has no picture")


def _scenes(name: str, split: str, limit: int | None, seed: int) -> Dataset | IterableDataset:
    from datasets import Dataset, IterableDataset

    kinds = _shares(name)
    if split not in SCENES_SPLITS:
        raise ValueError(f"Scenes have the splits {', '.join(SCENES_SPLITS)}, not {split!r}.")
    first = SCENES_SPLITS[split] + seed
    end = min((start for start in SCENES_SPLITS.values() if start > SCENES_SPLITS[split]), default=None)
    if seed < 0 or (end is not None and first + (limit or 1) > end):
        raise ValueError(f"Seed {seed} with {limit or 1} tasks is outside of the split {split!r}.")
    if limit is None:
        return IterableDataset.from_generator(
            _scene_rows, features=row_features(), gen_kwargs={"first_seed": first, "kinds": kinds}
        )
    return Dataset.from_list(list(islice(_scene_rows(first, kinds), limit)), features=row_features())


def _shares(name: str) -> dict[str, float] | None:
    """`"scenes:complex=0.5,pointed=0.5"` -> each kind's share; `None` for `"scenes"`, which has all kinds equally."""
    _, colon, listed = name.partition(":")
    if not colon:
        return None
    try:
        shares = {kind.strip(): float(share) for kind, share in (item.split("=") for item in listed.split(","))}
    except ValueError:
        shares = {}
    if (
        not shares
        or set(shares) - set(KINDS)
        or min(shares.values()) < 0
        or not 0 < sum(shares.values()) < float("inf")
    ):
        raise ValueError(f'Scenes are asked for like "scenes:complex=0.5,pointed=0.5", kinds {KINDS}, not {name!r}.')
    return shares


def _scene_rows(first_seed: int, kinds: dict[str, float] | None) -> Iterator[dict[str, Any]]:
    for task in sample_tasks(first_seed, kinds):
        yield {
            "image": {"bytes": to_png(task.image), "path": None},  # 300 bytes instead of 12 kB of pixels
            "instruction": task.instruction,
            "actions": [edit.action for edit in task.edits],
            "subjects": [edit.subject for edit in task.edits],
            "goals": [edit.goal for edit in task.edits],
            "reasoning": reason(task, task.edits),
        }
