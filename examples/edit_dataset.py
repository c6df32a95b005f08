"""Edit all rows of a data set, on a laptop or on many machines, with Ray Data.

    python examples/edit_dataset.py --dataset_name scenes --dataset_limit 50 --output_dir runs/edited
    RAY_ADDRESS=auto python examples/edit_dataset.py --dataset_name psr --output_dir /shared/psr-edited \\
        --model org/imageedit-r1-flux --dtype bfloat16 --planners 2 --planner_gpus 0.5 --editors 7 --editor_gpus 1

Rows go in shards through two pools of workers: planners, which turn instructions into plans, and editors, which carry the
plans out; what comes out of a shard becomes one file. Only row numbers, plans and edited pictures travel: each worker opens
the pictures itself, so data set and `output_dir` have to lie where all machines see them under the same path.

`output_dir` becomes a data set of its own: `data/`, Parquet or WebDataset files with the edited pictures and their plans, and
`files.jsonl`, which lists them. A row that cannot be read, planned or edited goes to `failed.jsonl` with its error. Started
again with the same folder, the run goes on with the rows that are in no file; a row's noise comes from its number, so its
picture is the same. See docs/many_pictures.md.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import os
import shutil
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import ray
import ray.data
from PIL import Image
from tqdm import tqdm

from diffusers_r1 import EditPlan, records
from diffusers_r1.bundles import AGENTS
from diffusers_r1.commands.shared import add_editor_arguments, add_model_arguments, load_pipeline, seed
from diffusers_r1.data.options import add_row_options, check_row_options, positive, rows_of
from diffusers_r1.endpoints import sendable
from diffusers_r1.images import load_picture, to_png
from diffusers_r1.prompts import Prompts


if TYPE_CHECKING:
    from datasets import Dataset


DATA, FILES, FAILED, RUN, TRIES = "data", "files.jsonl", "failed.jsonl", "run.json", "tries"
SUFFIX = {"parquet": "parquet", "webdataset": "tar"}
# What the pictures depend on: a run goes on only with the same.
SETTINGS = (
    "dataset_name",
    "dataset_path",
    "dataset_split",
    "dataset_columns",
    "dataset_seed",
    "model",
    "vllm",
    "dtype",
)
SETTINGS += ("turns", "seed", "set", "max_new_tokens", "output_format")
GPU_SHARE = 0.5  # so that a planner and an editor share the one card of a laptop
MOST_DEATHS = 3  # of workers over one shard; Ray itself would try it for ever
MOST_FAILED = 3  # shards one after the other, of rows that could be read; then it is not the rows

CARD = f"""\
---
configs:
- config_name: default
  data_files: {DATA}/*
---

Edited pictures, the instructions, and the plans that these became, made with `examples/edit_dataset.py` of diffusers-r1. The
settings are in `{RUN}`; `row` is a row's place in the data set that was edited.
"""


@dataclass(frozen=True)
class Row:
    """A row on its way. `image` is there only while a worker needs it; `error` says which step failed, and why."""

    index: int
    instruction: str = ""
    image: Image.Image | None = None
    plan: EditPlan | None = None
    edited: Image.Image | None = None
    error: str = ""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments, checked as far as that goes without a cluster and a model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    add_row_options(parser)
    models = parser.add_argument_group("models")
    add_model_arguments(models)
    models.add_argument(
        "--vllm", metavar="PLANNER", help="plan with vLLM engines of this planner, not the bundle's own"
    )
    models.add_argument(
        "--max_new_tokens", type=positive, default=512, help="of an agent's answer (default: %(default)s)"
    )
    models.add_argument(
        "--turns", choices=("single", "multi"), default="single", help="sub-requests at once or one by one"
    )
    models.add_argument(
        "--seed", type=seed, default=0, help="of the noise, with each row's number (default: %(default)s)"
    )
    add_editor_arguments(models)
    workers = parser.add_argument_group("workers")
    workers.add_argument("--planners", type=positive, default=1, help="how many (default: %(default)s)")
    workers.add_argument("--editors", type=positive, default=1, help="how many (default: %(default)s)")
    workers.add_argument(
        "--planner_gpus", type=share, help=f"GPUs for each (default: {GPU_SHARE}; 0 if there are none)"
    )
    workers.add_argument(
        "--editor_gpus", type=share, help=f"GPUs for each (default: {GPU_SHARE}; 0 if there are none)"
    )
    workers.add_argument("--planner_batch_size", type=positive, default=8, help="rows at once (default: %(default)s)")
    workers.add_argument(
        "--editor_batch_size", type=positive, default=4, help="pictures at once (default: %(default)s)"
    )
    kept = parser.add_argument_group("result")
    kept.add_argument("--output_dir", type=Path, required=True, help="new, or of a run that is gone on with")
    kept.add_argument("--output_format", choices=tuple(SUFFIX), default="parquet", help="(default: %(default)s)")
    kept.add_argument(
        "--shard_size", type=positive, default=32, help="rows of a file, and the most that a dead worker costs"
    )
    kept.add_argument("--retry_failed", action="store_true", help="try the rows again that failed before")
    args = parser.parse_args(argv)

    check_row_options(parser, args)
    if args.output_dir.exists() and not is_ours(args.output_dir):
        parser.error(f"--output_dir: {args.output_dir} is there and holds something else")
    args.set = dict(args.set)
    args.output_dir = args.output_dir.absolute()  # workers run in folders of their own
    return args


def share(text: str) -> float:
    """The type of a number of GPUs: a part of one, or whole ones."""
    number = float(text)
    if number < 0 or (number > 1 and not number.is_integer()):
        raise argparse.ArgumentTypeError(f"{text} is neither a part of a GPU nor a whole number of them")
    return number


def is_ours(folder: Path) -> bool:
    """Whether a folder is empty or of a run of this script."""
    return folder.is_dir() and ((folder / RUN).exists() or not any(folder.iterdir()))


def load_dataset(args: argparse.Namespace) -> Dataset:
    try:
        return rows_of(args, on_bad_row="keep")
    except (OSError, ValueError) as error:
        stop(error)


def make_folder(args: argparse.Namespace) -> None:
    """Set the folder up, or refuse to go on in one that was begun with other settings."""
    settings = json.loads(json.dumps({name: getattr(args, name) for name in SETTINGS}))
    path = args.output_dir / RUN
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [
            f"--{name} was {before[name]!r}, not {settings[name]!r}"
            for name in settings
            if before[name] != settings[name]
        ]
        if changed:
            stop(
                f"{args.output_dir} was begun otherwise: {'; '.join(changed)}. Take the same, or another --output_dir."
            )
    args.output_dir.mkdir(parents=True, exist_ok=True)
    records.write_whole(path, json.dumps(settings, indent=2))
    records.write_whole(args.output_dir / "README.md", CARD)
    (args.output_dir / DATA).mkdir(exist_ok=True)


def edited_rows(folder: Path, instructions: Sequence[str | None]) -> set[int]:
    """The rows that have a picture. Brings files and their list in line first, so that each row is in one file.

    A file without a line in the list is taken in if it was finished just before a crash, and removed if its rows have come out
    of another one since, as they may when a worker dies.
    """
    there = {path.name: path for path in (folder / DATA).iterdir()}
    listed = {line["file"]: line["rows"] for line in records.read(folder / FILES) if line["file"] in there}
    for name, rows in listed.items():
        known = [instructions[row] for row in rows if row < len(instructions)]
        if len(known) == len(rows) and name != file_name(rows, known, Path(name).suffix):
            stop(
                f"{folder / DATA / name} is of other rows: take the same data set in the same order, or another --output_dir."
            )
    edited = {row for rows in listed.values() for row in rows}
    for name in sorted(there.keys() - listed.keys()):
        rows = [] if name.endswith(".tmp") else read_row_numbers(there[name])
        if rows and edited.isdisjoint(rows):
            records.append(folder / FILES, {"file": name, "rows": rows})
            edited.update(rows)
        else:
            there[name].unlink()
    return edited


def start_ray(args: argparse.Namespace) -> None:
    """Join the cluster of `RAY_ADDRESS`, or start one here; refuse what has no place in it."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    needed = args.planners * (2 if args.vllm else 1) + args.editors + 2  # each its processor; two read and write
    # Ray would log an error about the pools that Ray Data itself makes (ray issue 53727).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if "RAY_ADDRESS" in os.environ:
        ray.init(**quiet)
    else:
        ray.init(num_cpus=max(needed, os.cpu_count()), include_dashboard=False, **quiet)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what stops a run is said in one line, by `stop`
    ray.data.DataContext.get_current().enable_progress_bars = False

    there = ray.cluster_resources()
    default = GPU_SHARE if there.get("GPU") else 0
    args.planner_gpus = default if args.planner_gpus is None else args.planner_gpus
    args.editor_gpus = default if args.editor_gpus is None else args.editor_gpus
    gpus = args.planners * args.planner_gpus * (2 if args.vllm else 1) + args.editors * args.editor_gpus
    if gpus > there.get("GPU", 0) or needed > there["CPU"]:
        stop(
            f"{args.planners} planners and {args.editors} editors want {gpus:g} GPUs and {needed} processors; the cluster has "
            f"{there.get('GPU', 0):g} and {there['CPU']:g}."
        )


class Worker:
    """An actor that opens its rows itself and does one step with them, a batch at a time."""

    def __init__(self, dataset: ray.ObjectRef, args: argparse.Namespace):
        self.dataset = ray.get(dataset)
        self.args = args

    def __call__(self, shard: dict[str, Sequence[Row]]) -> dict[str, list[Row]]:
        rows = list(shard["row"])
        tries = self.args.output_dir / TRIES / f"{self.step}-{rows[0].index}"
        deaths = int(tries.read_text(encoding="utf-8")) if tries.exists() else 0
        if deaths == MOST_DEATHS:
            error = f"{self.step}: the worker died {deaths} times over this row or another one of its shard"
            return {"row": [replace(row, error=row.error or error) for row in rows]}
        records.write_whole(tries, str(deaths + 1))
        done = self.work_through(rows)
        tries.unlink()
        return {"row": done}

    def work_through(self, rows: list[Row]) -> list[Row]:
        done = []
        for start in range(0, len(rows), self.batch_size):
            batch = [attempt("read", self.read, [row])[0] for row in rows[start : start + self.batch_size]]
            done += [replace(row, image=None) for row in attempt(self.step, self.work, batch)]
        return done

    def read(self, rows: list[Row]) -> list[Row]:
        return [read_row(self.dataset, row) for row in rows]


class Planner(Worker):
    """Turns instructions into plans."""

    step = "plan"

    def __init__(self, dataset: ray.ObjectRef, args: argparse.Namespace):
        super().__init__(dataset, args)
        self.batch_size = args.planner_batch_size
        self.pipe = load_pipeline(args, editor=None)

    def work(self, rows: list[Row]) -> list[Row]:
        images, instructions = [row.image for row in rows], [row.instruction for row in rows]
        generators = [generator_of(row, self.args.seed) for row in rows]
        plans = self.pipe.plan(images, instructions, generators, self.args.max_new_tokens)
        return [replace(row, plan=plan) for row, plan in zip(rows, plans)]


class Editor(Worker):
    """Carries plans out."""

    step = "edit"

    def __init__(self, dataset: ray.ObjectRef, args: argparse.Namespace):
        super().__init__(dataset, args)
        from diffusers_r1.editors import check_editor

        self.batch_size = args.editor_batch_size
        self.pipe = load_pipeline(args, **dict.fromkeys(AGENTS))
        self.pipe.set_progress_bar_config(disable=True)
        check_editor(self.pipe.editor, args.set)

    def work(self, rows: list[Row]) -> list[Row]:
        images, plans = [row.image for row in rows], [row.plan for row in rows]
        generators = [generator_of(row, self.args.seed) for row in rows]
        out = self.pipe(images, plan=plans, turns=self.args.turns, generator=generators, **self.args.set)
        return [replace(row, edited=picture) for row, picture in zip(rows, out.images)]


def attempt(step: str, work: Callable[[list[Row]], list[Row]], rows: list[Row]) -> list[Row]:
    """All rows, those without an error after `work`. Where that fails, each is tried alone: only those at fault fail."""
    sound = [row for row in rows if not row.error]
    done, fault = [], ""
    try:
        done = work(sound) if sound else []
    except Exception as error:
        fault = f"{step}: {type(error).__name__}: {' '.join(str(error).split())}"
    if fault and len(sound) == 1:
        done = [replace(sound[0], error=fault)]
    elif fault:  # out of the `except`, whose traceback holds the memory of what has failed
        done = [attempt(step, work, [row])[0] for row in sound]
    after = {row.index: row for row in done}
    return [after.get(row.index, row) for row in rows]


def read_row(dataset: Dataset, row: Row) -> Row:
    """The row with its picture and instruction."""
    cells = dataset[row.index]
    if not (cells["instruction"] or "").strip():
        raise ValueError(f"the instruction is {cells['instruction']!r}")
    return replace(row, instruction=cells["instruction"], image=load_picture(cells["image"]))


def generator_of(row: Row, run_seed: int) -> Any:
    """Noise of the row's own, whatever batch, worker or run it is in."""
    import torch

    word = np.random.SeedSequence((run_seed, row.index)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word) >> 1)


def plan_with_vllm(rows: ray.data.Dataset, dataset: ray.ObjectRef, args: argparse.Namespace) -> ray.data.Dataset:
    """Both questions asked of vLLM engines, `--planners` of them for each question."""
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    prompts = Prompts.load(args.vllm)
    engine = vLLMEngineProcessorConfig(
        model_source=args.vllm,
        batch_size=args.shard_size,
        concurrency=(args.planners, args.planners),
        prepare_multimodal_stage=True,
        engine_kwargs={"gpu_memory_utilization": 0.9 * min(args.planner_gpus, 1), "limit_mm_per_prompt": {"image": 1}},
        placement_group_config={"bundle_per_worker": {"CPU": 1, "GPU": args.planner_gpus}},
    )
    sampling = {"temperature": 0, "max_tokens": args.max_new_tokens}

    def read(shard: dict[str, Sequence[Row]]) -> dict[str, list[Row]]:
        held = ray.get(dataset)
        return {"row": [attempt("read", lambda rows: [read_row(held, rows[0])], [row])[0] for row in shard["row"]]}

    def first_question(cells: dict[str, Any]) -> dict[str, Any]:
        row = cells["row"]
        # Every row has to be asked about; the answer to one that could not be read is not looked at.
        picture = row.image or Image.new("RGB", (56, 56))
        messages = [sendable(message) for message in prompts.first_turn(row.instruction, picture)]
        return {"messages": messages, "sampling_params": sampling}

    def second_question(cells: dict[str, Any]) -> dict[str, Any]:
        asked = first_question(cells)
        return {**asked, "messages": prompts.second_turn(asked["messages"], cells["decomposition"])}

    def read_plan(cells: dict[str, Any]) -> dict[str, Any]:
        from diffusers_r1.planning import to_plan

        row = cells["row"]
        plan = None if row.error else to_plan(row.instruction, cells["decomposition"], cells["generated_text"])
        return {"row": replace(row, image=None, plan=plan)}

    decompose = build_processor(
        engine,
        preprocess=first_question,
        postprocess=lambda cells: {"row": cells["row"], "decomposition": cells["generated_text"]},
    )
    sequence = build_processor(engine, preprocess=second_question, postprocess=read_plan)
    return sequence(decompose(rows.map_batches(read)))


def write_file(
    shard: dict[str, Sequence[Row]], folder: Path, output_format: str, run_seed: int
) -> dict[str, list[str]]:
    """Writes the edited rows to a file whose name follows from them; returns, as JSON, what the driver has to know.

    A worker that dies after this is replaced by one that writes the same file again.
    """
    edited = [row for row in shard["row"] if not row.error]
    failed = [
        {"row": row.index, "instruction": row.instruction, "error": row.error} for row in shard["row"] if row.error
    ]
    rows = [row.index for row in edited]
    name = file_name(rows, [row.instruction for row in edited], f".{SUFFIX[output_format]}")
    if edited:
        content = {"parquet": to_parquet, "webdataset": to_webdataset}[output_format]
        lines = [
            {
                "row": row.index,
                "instruction": row.instruction,
                "plan": row.plan.to_dict(),
                "seed": generator_of(row, run_seed).initial_seed(),
            }
            for row in edited
        ]
        records.write_whole(folder / DATA / name, content(lines, [to_png(row.edited) for row in edited]))
    return {"written": [json.dumps({"file": name, "rows": rows, "failed": failed})]}


def file_name(rows: Sequence[int], instructions: Sequence[str | None], suffix: str) -> str:
    """The first row's number, and a digest that no other rows have."""
    digest = hashlib.sha256(json.dumps([list(rows), list(instructions)]).encode()).hexdigest()
    return f"{min(rows, default=0):09d}-{digest[:12]}{suffix}"


def to_parquet(lines: list[dict[str, Any]], pictures: list[bytes]) -> bytes:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    kinds = {"row": Value("int64"), "instruction": Value("string"), "edited_image": ImageFeature()}
    kinds |= {"plan": Value("string"), "seed": Value("int64")}
    cells = [
        {
            **line,
            "edited_image": {"bytes": picture, "path": None},
            "plan": json.dumps(line["plan"], ensure_ascii=False),
        }
        for line, picture in zip(lines, pictures)
    ]
    file = io.BytesIO()
    Dataset.from_list(cells, features=Features(kinds)).to_parquet(file)
    return file.getvalue()


def to_webdataset(lines: list[dict[str, Any]], pictures: list[bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for line, picture in zip(lines, pictures):
            for kind, content in (("png", picture), ("json", json.dumps(line, ensure_ascii=False).encode())):
                member = tarfile.TarInfo(f"{line['row']:09d}.{kind}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def read_row_numbers(path: Path) -> list[int]:
    """The rows of a file that `write_file` wrote."""
    if path.suffix == ".tar":
        with tarfile.open(path) as tar:
            return [int(Path(name).stem) for name in tar.getnames() if name.endswith(".json")]
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path, columns=["row"])["row"].to_pylist()


def edit(dataset: Dataset, left: list[int], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What `write_file` says of each shard, as the shards come out."""
    import pandas as pd

    # Shards begin at the same rows in every run, so that a row meets the same others in its batches.
    shards: dict[int, list[Row]] = {}
    for index in left:
        shards.setdefault(index // args.shard_size, []).append(Row(index))
    rows = ray.data.from_pandas([pd.DataFrame({"row": shard}) for shard in shards.values()])
    held = ray.put(dataset)

    def pool(worker: type[Worker], size: int, gpus: float) -> dict[str, Any]:
        return {
            "fn": worker,
            "fn_constructor_args": (held, args),
            "compute": ray.data.ActorPoolStrategy(size=size),
            "num_cpus": 1,
            "num_gpus": gpus,
        }

    if args.vllm:
        planned = plan_with_vllm(rows, held, args)
    else:
        planned = rows.map_batches(**pool(Planner, args.planners, args.planner_gpus))
    edited = planned.map_batches(**pool(Editor, args.editors, args.editor_gpus))
    settings = {"folder": args.output_dir, "output_format": args.output_format, "run_seed": args.seed}
    written = edited.map_batches(write_file, fn_kwargs=settings)
    try:
        for cells in written.iter_rows():
            yield json.loads(cells["written"])
    except ray.exceptions.RayError as error:  # a worker that cannot even start; its own words come last
        stop(str(error).strip().splitlines()[-1])


def keep(folder: Path, written: dict[str, Any]) -> None:
    """List the file, then the rows that failed: those that a crash leaves out are tried again."""
    if written["rows"]:
        records.append(folder / FILES, {"file": written["file"], "rows": written["rows"]})
    for line in written["failed"]:
        records.append(folder / FAILED, line)


def edit_and_keep(dataset: Dataset, left: list[int], args: argparse.Namespace) -> None:
    failed = without_break = 0
    with tqdm(total=len(dataset), initial=len(dataset) - len(left), unit="row") as bar:
        for written in edit(dataset, left, args):
            keep(args.output_dir, written)
            failed += len(written["failed"])
            bar.set_postfix(failed=failed, refresh=False)
            bar.update(len(written["rows"]) + len(written["failed"]))
            errors = [line["error"] for line in written["failed"] if not line["error"].startswith("read:")]
            without_break = without_break + bool(errors) if not written["rows"] else 0
            if without_break == MOST_FAILED:
                bar.close()
                stop(
                    f"In {MOST_FAILED} shards one after the other no row could be edited. The last error: {errors[-1]}"
                )


def report(folder: Path, dataset: Dataset, edited: set[int]) -> int:
    """Print how many rows are edited and how many have failed; return how many are neither."""
    failures = {line["row"]: line["error"] for line in records.read(folder / FAILED)}
    failed = {row: error for row, error in failures.items() if row < len(dataset) and row not in edited}
    missing = len(set(range(len(dataset))) - edited - failed.keys())
    print(
        f"{folder}: of {len(dataset)} rows, {len(dataset) - len(failed) - missing} are edited and {len(failed)} have failed."
    )
    if failed:
        common = Counter(failed.values()).most_common(3)
        print(f"Errors: {'; '.join(f'{error} ({count})' for error, count in common)}. See {folder / FAILED}.")
    if missing:
        print(f"Without a result: {missing}. Start again to go on with them.")
    return missing


def stop(reason: Any) -> NoReturn:
    """End with one line that says why."""
    sys.exit(f"{Path(__file__).name}: error: {' '.join(str(reason).split())}")


def main() -> int:
    args = parse_args()
    dataset = load_dataset(args)
    make_folder(args)
    instructions = dataset["instruction"][:]
    edited = edited_rows(args.output_dir, instructions)
    skipped = edited if args.retry_failed else edited | records.done(args.output_dir / FAILED, "row")
    left = [index for index in range(len(dataset)) if index not in skipped]
    if left:
        shutil.rmtree(args.output_dir / TRIES, ignore_errors=True)  # a killed run is no worker's death
        (args.output_dir / TRIES).mkdir()
        start_ray(args)
        edit_and_keep(dataset, left, args)
        shutil.rmtree(args.output_dir / TRIES)
        edited = edited_rows(args.output_dir, instructions)
    return int(report(args.output_dir, dataset, edited) > 0)


if __name__ == "__main__":
    sys.exit(main())
