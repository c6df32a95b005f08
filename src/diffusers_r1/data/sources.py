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
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape, glob, has_magic
from itertools import count, islice
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import records, scenes, schema, sentences
from ..images import to_png
from ..plan import Edit
from .pictures import AHEAD, Pictures, References, shortened
from .rows import EDIT_COLUMNS, checked_texts, row_features
from .tables import ZIP, is_table, read_table


if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from PIL import Image


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

FILE_KINDS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}

# Options that say how a CSV file is laid out, if not with a line of names and commas.
LAID_OUT = {
    "sep",
    "delimiter",
    "header",
    "names",
    "column_names",
    "skiprows",
    "quotechar",
    "quoting",
    "escapechar",
    "comment",
}

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}

# Worlds whose rows are made from seeds, without end: their kinds.
FILE = "file"  # the kind of sentences that were not made: they are read from a file
FILE_ROW = {"instruction": str, "edits": list[Edit], "reasoning": str | None, "requests": list[str] | None}
WORLDS = {"scenes": scenes.ALL_KINDS, "sentences": (FILE, *sentences.KINDS)}
WORLD_SPLITS = {"train": 0, "validation": 900_000_000, "test": scenes.TEST_SEEDS}

_ANY = Source(
    "",
    "train",
    ("image", "images", "source_image", "input_image", "original_image", "file_name"),
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

    Where a data set has lists of further pictures that belong to a row's picture, they are a column `references`, which the
    planner sees as well.

    The lists are `None` where the data set does not have them. Reading decodes every picture once, in about 30 ms for
    one of a megapixel.

    Args:
        name (`str`): One of

            - a name in [`SOURCES`], such as `"psr"`, or the Hub name there;
            - the Hub name of any other data set;
            - a local folder: pictures and a `metadata.jsonl` (`file_name`, `instruction`, `actions`, ...), see
              `imagefolder` of `datasets`; Parquet, CSV or JSON files, with or without pictures beside them; or what `save_to_disk` wrote. One such file may be
              named itself, `metadata.jsonl` among them. Pictures given as text are paths from this folder on, URLs
              (fetched once, into the cache of `datasets`), data URLs or base64; a list has to hold one picture;
            - `"scenes"`, or `"scenes:complex=0.5,indirect=0.5"` with each kind's share: tasks made from seeds, whose true
              edits are known;
            - `"sentences"`, in the same ways: instructions in everyday English with their true edits and requests, for
              planners that do not see. Their rows have no `image`, and `requests` beside the other columns. With `path`, a
              JSONL file of `{"instruction", "edits"}`, its rows are a kind of the split `"train"`: `"sentences:noisy=0.4,file=0.6"`.
        split (`str`, *optional*): The data set's own by default; a part of it by `"train[:100]"` or `"train[:10%]"`. Of scenes and sentences `"train"`, `"validation"` or `"test"`,
            whose seeds do not overlap.
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
        FileNotFoundError: If there is no such data set; the message says what is there.
        ValueError: If a row is bad (with its index and the reason), no row is left, a column or the split is missing, or an
            argument does not fit the source; of measured rows also if they have `references`.
    """
    if on_bad_row not in ("error", "skip", "keep"):
        raise ValueError(f'`on_bad_row` is "error", "skip" or "keep", not {on_bad_row!r}.')
    for named, number, least in (("limit", limit, 1), ("seed", seed, 0)):
        if number is not None and not (isinstance(number, Integral) and number >= least):
            raise ValueError(f"`{named}` is a whole number of at least {least}, not {number!r}.")
    if is_made(name):
        kinds = _shares(name)
        of_file = (kinds or {}).get(FILE) is not None
        if columns or bool(path) != of_file or measured or options:
            world = name.partition(":")[0].capitalize()
            raise ValueError(
                f"{world} are made, not read: they take no `columns`, no `measured`, no options of loading, and no `path` "
                f"but sentences of which `{FILE}` has a share."
            )
        return _made(name, split or "train", limit, seed or 0, path)
    known = SOURCES.get(name) or next((source for source in SOURCES.values() if source.path == name), _ANY)
    location = str(path or known.path or name)
    dataset = _open(location, split, known.split, options)
    folder = str(Path(location).parent) if Path(location).is_file() else location
    return _read(name, folder, dataset, known, columns or {}, on_bad_row, limit, seed, measured)


def is_made(name: str) -> bool:
    """Whether the rows of that name are made from seeds (scenes, sentences): they have no end unless there is a limit."""
    return name.partition(":")[0] in WORLDS


def _open(location: str, split: str | None, default: str, options: dict[str, Any]) -> Dataset:
    """The data set that a path or a name on the Hub stands for; `split` with a slice if one was asked for: `"train[:100]"`."""
    import datasets
    from datasets.exceptions import DatasetGenerationError

    if options.get("streaming"):
        raise ValueError(
            "Rows are counted and checked before anything learns from them, so they are not streamed: leave `streaming` out, "
            'and take a part by `limit` or `split="train[:1000]"`.'
        )
    path, read = Path(location), location
    if not LAID_OUT & options.keys():
        _check_tables(path, options.get("data_files"))
    try:
        if (path / "state.json").exists():
            saved: Any = datasets.load_from_disk(location)
            return _part({str(saved.split or "train"): saved}, split, default)
        if (path / "dataset_dict.json").exists():
            saved = datasets.load_from_disk(location)
            return _part(saved, split, default)
        if path.is_file():
            read, options = _file_as_data_set(path, options)
        elif "data_files" not in options and (tables := _tables_beside_pictures(path)):
            read, options = FILE_KINDS[tables[0].suffix], {"data_files": _by_split(tables), **options}
        elif path.is_dir() and has_magic(str(path.absolute())):
            raise ValueError("`datasets` takes [, * and ? in a folder's name for a pattern: give it another name")
        return datasets.load_dataset(read, split=split or default, **options)
    except OSError as error:
        there = f"{path} holds {_listing(path)}" if path.is_dir() else f"There is no {path} here"
        raise FileNotFoundError(f"{there}, and no data set could be read: {shortened(str(error))}") from error
    except DatasetGenerationError as error:
        raise ValueError(f"{location} cannot be read: {shortened(str(error.__cause__ or error))}") from error
    except ValueError as error:
        raise ValueError(f"{location}: {shortened(str(error))}") from error


def _check_tables(path: Path, data_files: Any) -> None:
    """Refuse rows of CSV files, packed or not, of which pandas would read cells as those of other columns, and say nothing.

    Args:
        path (`Path`): Of a data set; of one on the Hub, which is not here, nothing is looked at.
        data_files: As `load_dataset` takes them; those that it would find by default.
    """
    if path.is_file():
        data_files = escape(str(path.absolute()))
    elif data_files is None:
        shown = path.is_dir() and _has_pictures(path)
        beside = [escape(str(table.absolute())) for table in _tables_beside_pictures(path)]
        data_files = ["**/metadata.csv", *beside] if shown else "**/*"
    folder = path if path.is_dir() or data_files == "**/*" else Path()
    for pattern in _flat(data_files):
        for file in glob(pattern, root_dir=folder, recursive=True):
            if (is_table(file) or file.lower().endswith(ZIP)) and (folder / file).is_file():
                deque(read_table(folder / file), maxlen=0)


def _flat(data_files: Any) -> Iterator[str]:
    if isinstance(data_files, Mapping):
        data_files = list(data_files.values())
    for one in data_files if isinstance(data_files, (list, tuple)) else [data_files]:
        yield from _flat(one) if isinstance(one, (list, tuple)) else [str(one)]


def _part(saved: Mapping[str, Dataset], split: str | None, default: str) -> Dataset:
    """What `save_to_disk` has written, or the part of it that is asked for."""
    from datasets import ReadInstruction, concatenate_datasets

    if split is None:
        (only, *others) = saved
        split = default if default in saved else only
        if others and default not in saved:
            raise ValueError(f"it has the splits {', '.join(saved)}; name one of them")
    lengths = {name: len(rows) for name, rows in saved.items()}
    parts = ReadInstruction.from_spec(split).to_absolute(lengths)
    chosen = [saved[p.splitname].select(range(*slice(p.from_, p.to).indices(lengths[p.splitname]))) for p in parts]
    return chosen[0] if len(chosen) == 1 else concatenate_datasets(chosen)


def _file_as_data_set(path: Path, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A file as `load_dataset` wants to be told of it."""
    if path.stem == "metadata" and _has_pictures(path.parent):  # of those; other tables beside it are not meant
        return "imagefolder", {"data_dir": escape(str(path.parent.absolute())), **options}
    if path.suffix not in FILE_KINDS:
        raise ValueError(
            f"a data set is a folder or a file of {', '.join(FILE_KINDS)}, not {path.suffix or 'a file without suffix'}"
        )
    return FILE_KINDS[path.suffix], {"data_files": escape(str(path.absolute())), **options}


def _tables_beside_pictures(folder: Path) -> list[Path]:
    """The tables of a folder that names its pictures in them: `datasets` would take the pictures and leave the tables."""
    if not folder.is_dir() or any(folder.rglob("metadata.*")) or (folder / "README.md").exists():
        return []
    tables = sorted(path for path in folder.iterdir() if path.suffix in FILE_KINDS)
    same_kind = len({path.suffix for path in tables}) == 1
    return tables if same_kind and _has_pictures(folder) else []


def _has_pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in PICTURES for path in folder.rglob("*"))


def _by_split(tables: list[Path]) -> str | dict[str, str]:
    files = {path.stem: escape(str(path.absolute())) for path in tables}
    return files if len(files) > 1 else next(iter(files.values()))


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"


def _read(
    name: str,
    folder: str,
    dataset: Dataset,
    source: Source,
    columns: Mapping[str, str],
    on_bad_row: str,
    limit: int | None,
    seed: int | None,
    measured: bool,
) -> Dataset:
    import numpy as np
    from datasets import Dataset, Features, Image, List, Value, concatenate_datasets

    from .features import Picture

    names = _column_names(name, dataset, source, columns)
    pictures = Pictures(dataset, names.pop("image"), "image", folder)
    column = names.pop("references", None)
    if measured and column is not None:
        raise ValueError(
            f"{name} has `{column}`, further pictures beside those that are edited, which an evaluation shows to nobody: it is "
            "of rows with one picture."
        )
    references = None if column is None else References(dataset, column, folder)
    column = next((column for column in source.target if column in dataset.column_names), None)
    targets = None if column is None or not measured else Pictures(dataset, column, "target", folder)
    read = {_root(theirs, dataset) for theirs in names.values()} | set(source.only)
    texts = dataset.select_columns(sorted(read))
    repeated = dataset[source.unique][:] if source.unique else range(len(dataset))
    order = range(len(dataset)) if seed is None else np.random.default_rng(seed).permutation(len(dataset)).tolist()

    rows: dict[int, dict[str, Any]] = {}
    seen, faults = set(), {}
    for place, index in enumerate(order):
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
                pictures.check(index, ahead=order[place + 1 : place + (limit or AHEAD) - len(rows)])
                if references:
                    references.check(index)
                if targets:
                    _check_target(targets, index)
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
    joined = [pictures.dataset(rows), Dataset.from_dict(cells, features=Features(kinds))]
    if references:
        joined.append(references.dataset(rows))
    if measured:
        nothing = [None] * len(dataset)
        category = dataset[source.category][:] if source.category in dataset.column_names else nothing
        facts = {"row": list(range(len(dataset))), "category": category}
        kinds = {"row": Value("int64"), "category": Value("string")}
        joined.append(Dataset.from_dict(facts, features=Features(kinds)))
        if targets:
            joined.append(targets.dataset(rows))
        else:
            joined.append(Dataset.from_dict({"target": nothing}, features=Features({"target": Image()})))
    # Joined before it is selected from: the other way round every picture would be copied.
    result = concatenate_datasets(joined, axis=1).select(list(rows))
    typed = {"image": Picture(), "target": Picture(), "references": List(Picture())}
    for name in typed.keys() & set(result.column_names):
        result = result.cast_column(name, typed[name])  # joining knows the types of `datasets` only
    return result


def _check_target(targets: Pictures, index: int) -> None:
    try:
        targets.check(index, required=False)
    except ValueError as error:
        raise ValueError(f"of its target, {error}") from error


def _column_names(name: str, dataset: Dataset, source: Source, columns: Mapping[str, str]) -> dict[str, str]:
    """Our columns' names -> the data set's, without those of the true edits if it has none of them."""
    there = dataset.column_names
    own_names = (*EDIT_COLUMNS, "reasoning", "references")
    unknown = set(columns) - {"image", "instruction", *own_names}
    if unknown:
        raise ValueError(f"`columns` names {sorted(unknown)}, and a row has image, instruction and {own_names}.")
    wanted = {"image": source.image, "instruction": source.instruction, **{own: (own,) for own in own_names}}
    wanted.update({ours: (theirs,) for ours, theirs in columns.items()})
    names = {
        ours: next((n for n in candidates if _root(n, dataset) in there), None) for ours, candidates in wanted.items()
    }
    without_truth = not any(names[own] or own in columns for own in EDIT_COLUMNS)
    optional = {"reasoning", "references"} - set(columns) | (set(EDIT_COLUMNS) if without_truth else set())
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


def _made(name: str, split: str, limit: int | None, seed: int, path: str | Path | None) -> Dataset | IterableDataset:
    from datasets import Dataset, Features, IterableDataset, List, Value

    world = name.partition(":")[0]
    kinds = _shares(name)
    if split not in WORLD_SPLITS:
        raise ValueError(f"{world.capitalize()} have the splits {', '.join(WORLD_SPLITS)}, not {split!r}.")
    first = WORLD_SPLITS[split] + seed
    end = min((start for start in WORLD_SPLITS.values() if start > WORLD_SPLITS[split]), default=None)
    if end is not None and first + (limit or 1) > end:
        raise ValueError(f"Seed {seed} with {limit or 1} tasks is outside of the split {split!r}.")
    rows, features = _scene_rows, row_features()
    if world == "scenes" and scenes.TWO_PICTURES in (kinds or {}):
        features = Features({**features, "references": List(features["image"])})
    if world == "sentences":
        rows = _sentence_rows
        features = Features({**{k: v for k, v in features.items() if k != "image"}, "requests": List(Value("string"))})
    made_from: dict[str, Any] = {"first_seed": first, "kinds": kinds}
    if path is not None and split == "train":
        made_from["read"] = tuple(rows_of_file(path))  # `datasets` would take a list for shards, one after the other
    elif path is not None:  # what is measured has to be new
        made_from["kinds"] = {kind: share for kind, share in (kinds or {}).items() if kind != FILE} or None
    if limit is None:
        return IterableDataset.from_generator(rows, features=features, gen_kwargs=made_from)
    return Dataset.from_list(list(islice(rows(**made_from), limit)), features=features)


def _shares(name: str) -> dict[str, float] | None:
    """`"scenes:complex=0.5,indirect=0.5"` -> each kind's share; `None` for `"scenes"`, which has all kinds equally."""
    world, colon, listed = name.partition(":")
    if not colon:
        return None
    try:
        shares = {kind.strip(): float(share) for kind, share in (item.split("=") for item in listed.split(","))}
    except ValueError:
        shares = {}
    known = WORLDS[world]
    if (
        not shares
        or set(shares) - set(known)
        or min(shares.values()) < 0
        or not 0 < sum(shares.values()) < float("inf")
    ):
        like = f"{world}:{known[-1]}=0.5,{known[-2]}=0.5"
        raise ValueError(f'{world.capitalize()} are asked for like "{like}", kinds {known}, not {name!r}.')
    return shares


def _scene_rows(first_seed: int, kinds: dict[str, float] | None) -> Iterator[dict[str, Any]]:
    for task in scenes.sample_tasks(first_seed, kinds):
        row = {
            "image": _as_png(task.image),
            "instruction": task.instruction,
            **edit_columns(task.edits),
            "reasoning": scenes.reason(task, task.edits),
        }
        if scenes.TWO_PICTURES in (kinds or {}):
            row["references"] = [_as_png(picture) for picture in task.reference_images]
        yield row


def _as_png(picture: Image.Image) -> dict[str, Any]:
    """A picture as `datasets` stores it: 300 bytes instead of 12 kB of pixels."""
    return {"bytes": to_png(picture), "path": None}


def _sentence_rows(
    first_seed: int, kinds: dict[str, float] | None, read: Sequence[dict[str, Any]] = ()
) -> Iterator[dict[str, Any]]:
    for seed in count(first_seed):
        kind = sentences.kind_of(seed, kinds)
        if kind == FILE:
            yield read[seed % len(read)]
            continue
        sentence = sentences.sample_sentence(seed, kind)
        yield {
            "instruction": sentence.instruction,
            **edit_columns(sentence.edits),
            "reasoning": sentence.reasoning,
            "requests": list(sentence.requests),
        }


def rows_of_file(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file of sentences. A goal may be empty, where nobody knows it; no other text is.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there is no row, or one has no edits or is not what it should be; the message names file and row.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    rows = []
    for number, line in enumerate(records.read(path)):
        place = f"Row {number} of {path}"
        read = schema.read_fields(FILE_ROW, line, place)
        row = {name: read[name] for name in ("instruction", "reasoning", "requests")} | edit_columns(read["edits"])
        texts = [row["instruction"], *row["actions"], *row["subjects"], *(row["requests"] or ())]
        if not read["edits"] or not all(map(str.strip, texts)):
            raise ValueError(
                f"{place} has no edits, or a text without words: instruction, action, subject or request."
            )
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} has no rows.")
    return rows


def edit_columns(edits: Iterable[Edit]) -> dict[str, list[str]]:
    """Edits as the columns of a row."""
    edits = list(edits)
    return {
        "actions": [edit.action for edit in edits],
        "subjects": [edit.subject for edit in edits],
        "goals": [edit.goal for edit in edits],
    }
