"""Benchmarks: where samples come from. A benchmark is a data set of the table in `data/`, a split and a rule of sampling."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..data import load_rows
from ..data.rows import EDIT_COLUMNS, true_edits
from ..images import load_picture
from ..pipelines.checks import check_count, check_seed
from ..plan import Edit
from ..scenes import KINDS, TEST_SEEDS, sample_task
from ..schema import check_text


# The split that each is measured on. MagicBrush's test split is not on the Hub.
SPLITS = {
    "psr": "test",
    "realedit": "test",
    "ultraedit": "FreeForm_0",
    "magicbrush": "dev",
    "gedit": "train",
    "complexedit": "test_real",
}
SCENES = {f"scenes-{kind}": kind for kind in KINDS}
SCENES_OF_RUNS = {**SCENES, "scenes-pointed": "indirect"}  # with what earlier runs called it
SCENES_LIMIT = 500  # tasks of each kind, where no limit is given: scenes have no end
SAMPLE_SEED = 260308059  # arXiv 2603.08059


@dataclass(frozen=True)
class Sample:
    """A picture and an instruction, and whatever is known of the truth.

    Args:
        benchmark (`str`): The benchmark's short name, such as `"psr"` or `"scenes-complex"`.
        row (`int`): Its place in the data set, before anything was left out; of scenes the task's seed.
        image (`PIL.Image.Image`): RGB.
        instruction (`str`): What the user says.
        edits (`tuple` of [`Edit`]): The true decomposition; empty where nobody knows it.
        requests (`tuple` of `str`): The true sub-requests; empty where nobody knows them.
        target (`PIL.Image.Image`, *optional*): The picture after, RGB.
        category (`str`, *optional*): What kind of request it is, where the data set says so.
    """

    benchmark: str
    row: int
    image: Image.Image
    instruction: str
    edits: tuple[Edit, ...] = ()
    requests: tuple[str, ...] = ()
    target: Image.Image | None = None
    category: str | None = None

    @property
    def id(self) -> str:
        """Names the sample in every file of a run: `"psr/17"`."""
        return f"{self.benchmark}/{self.row}"


def expand(names: Sequence[str]) -> list[str]:
    """The benchmarks that are asked for, one by one: `"scenes"` stands for the four kinds of tasks.

    Raises:
        ValueError: If two have one short name, or a folder is not there.
    """
    each = [one for name in names for one in (SCENES if name == "scenes" else [name])]
    short = [short_name(name) for name in each]
    if repeated := sorted({name for name in short if short.count(name) > 1}):
        raise ValueError(f"Two benchmarks are called {', '.join(repeated)}.")
    for name in each:
        check_text(short_name(name), f"The name of {name!r}")  # it stands in the run's files
        source, path = _source_and_copy(name)
        if name not in SCENES and short_name(name) in SCENES_OF_RUNS:
            # Samples are told by this name: scenes have a truth of their own.
            raise ValueError(
                f"{name} is called like the scenes, which are judged by their own truth: rename the folder."
            )
        if path and not Path(path).exists():
            raise ValueError(f"There is no {path}, where {source} should be.")
        if source not in {*SCENES, *SPLITS} and "/" not in source and not Path(source).exists():
            known = ", ".join(["scenes", *SCENES, *SPLITS])
            raise ValueError(f"{source!r} is no benchmark: {known}, a folder, or a data set's name on the Hub.")
    return each


def short_name(name: str) -> str:
    """What a benchmark is called in tables and ids: the name in the table, or the last part of a folder or Hub name."""
    return Path(os.path.abspath(_source_and_copy(name)[0])).name  # "." and ".." have a name too


def read_samples(name: str, limit: int | None = None, seed: int = SAMPLE_SEED) -> Iterator[Sample]:
    """The samples of a benchmark. The same arguments give the same samples in the same order.

    Rows that cannot be read are left out, with a warning.

    Args:
        name (`str`): One of

            - a name in `SPLITS`, such as `"psr"`, read from the Hub, or `"psr=FOLDER"`, read from a copy;
            - a folder with pictures and a `metadata.jsonl` (`file_name`, `instruction`, and where they are known
              `target_file_name`, `actions`, `subjects`, `goals`), or whatever else [`load_rows`] reads;
            - `"scenes-simple"`, `"scenes-chained"`, `"scenes-indirect"` or `"scenes-complex"`.
        limit (`int`, *optional*): The most samples. All of them by default; 500 of scenes.
        seed (`int`, defaults to 260308059): Which of the rows are taken, where there is a limit, and their order. Of
            scenes: the first task, counted from the seeds that are kept for reporting.
    """
    if limit is not None:
        check_count("limit", limit)
    check_seed(seed)  # below 0 are the seeds that planners are trained on
    if name in SCENES:
        return _scenes(name, limit or SCENES_LIMIT, seed)
    return _rows(name, limit, seed)


def _source_and_copy(name: str) -> tuple[str, str | None]:
    """`"psr=data/psr"` -> `("psr", "data/psr")`; without a copy, or with a folder that has such a name, no second part."""
    source, _, path = name.partition("=")
    return (source, path) if path and not Path(name).exists() else (name, None)


def _rows(name: str, limit: int | None, seed: int) -> Iterator[Sample]:
    from ..planners.plans import request_by_rule

    source, path = _source_and_copy(name)
    rows: Any = load_rows(source, SPLITS.get(source), "skip", limit, seed, path=path, measured=True)
    for row in rows:
        edits = tuple(true_edits(row)) if row[EDIT_COLUMNS[0]] else ()
        yield Sample(
            short_name(name),
            row["row"],
            load_picture(row["image"]),
            row["instruction"],
            edits,
            tuple(request_by_rule(edit) for edit in edits),
            row["target"] and load_picture(row["target"]),
            row["category"],
        )


def _scenes(name: str, limit: int, seed: int) -> Iterator[Sample]:
    for task_seed in range(TEST_SEEDS + seed, TEST_SEEDS + seed + limit):
        task = sample_task(task_seed, SCENES[name])
        yield Sample(
            name, task_seed, task.image, task.instruction, task.edits, task.sub_requests, task.target_image, task.kind
        )
