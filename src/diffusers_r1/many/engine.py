"""The run: what is left is cut into shards, which go through the workers and into files."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import ray
import ray.data
from ray.exceptions import RayError
from tqdm import tqdm

from .. import records
from ..names import is_address
from ..records import Failure
from .folder import TRIES, Summary, edited_rows, failed_rows, make_folder, record_shard, summarize, write_file
from .settings import Settings
from .shards import RowFailed, RowState
from .vllm import plan_with_vllm
from .workers import EditWorker, PlanWorker, Worker


if TYPE_CHECKING:
    from datasets import Dataset


GPU_SHARE = 0.5


def edit_data_set(dataset: Dataset, settings: Settings) -> Summary:
    """Edits the rows that are not edited yet. The same call again goes on where it stopped.

    A row that cannot be read, planned or edited is recorded with its error. Ten in a row at which planner or editor fail, or
    over which workers die, end the run: then it is not the rows.

    Args:
        dataset (`datasets.Dataset`): Rows as `load_rows(..., on_bad_row="keep")` gives them.
        settings ([`Settings`]): `output_dir` becomes a data set of its own, see `folder.py`.

    Returns:
        [`~folder.Summary`]: Of all rows, those of earlier runs included.

    Raises:
        ValueError: If the folder is of another run, or the cluster has no place for the workers.
        BlockingIOError: If another run is at work in the folder.
        RuntimeError: If a worker cannot start, as with an argument that the editor does not take.
        RowFailed: The error of the row at which the run gave up.
    """
    folder = settings.output_dir
    if settings.vllm and "references" in dataset.column_names:
        raise ValueError("`vllm` shows its planner one picture of each row, and these rows have `references`.")
    make_folder(settings)
    with records.only_one_in(folder):
        instructions = dataset["instruction"][:]
        edited = edited_rows(folder, instructions)
        skipped = edited if settings.retry_failed else edited | failed_rows(folder).keys()
        left = [index for index in range(len(dataset)) if index not in skipped]
        if left:
            shutil.rmtree(folder / TRIES, ignore_errors=True)  # a killed run is no worker's death
            (folder / TRIES).mkdir()
            ours = not ray.is_initialized()
            try:
                settings = start_ray(settings)
                with tqdm(total=len(dataset), initial=len(dataset) - len(left), unit="row") as bar:
                    # Closed before Ray is: its own threads end with it.
                    with closing(edited_or_failed(dataset, left, settings, bar)) as coming:
                        for _ in records.patiently(coming):
                            pass
            finally:
                if ours:
                    ray.shutdown()
            shutil.rmtree(folder / TRIES)
            edited = edited_rows(folder, instructions)
        return summarize(folder, len(dataset), edited)


def start_ray(settings: Settings) -> Settings:
    """Joins the cluster of `RAY_ADDRESS`, or starts one here, unless the caller has Ray on already; returns the settings with
    the GPUs that each worker gets.

    Raises:
        ValueError: If the workers have no place in it.
    """
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    planners, editors = settings.planners * (2 if settings.vllm else 1), settings.editors
    needed = planners + editors + 2  # each its processor; two read and write
    # Ray would log an error about the pools that Ray Data itself makes (ray issue 53727).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if "RAY_ADDRESS" in os.environ:
        ray.init(**quiet, ignore_reinit_error=True)
    elif not ray.is_initialized():
        # "local": a cluster that somebody else has started on this machine is not ours to use.
        ray.init("local", num_cpus=max(needed, os.cpu_count() or 1), include_dashboard=False, **quiet)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what stops a run is said in one line, by its exception
    ray.data.DataContext.get_current().enable_progress_bars = False

    there = ray.cluster_resources()
    share = GPU_SHARE if there.get("GPU") else 0
    planner_share = 0 if is_address(settings.planner) else share
    planner_gpus = planner_share if settings.planner_gpus is None else settings.planner_gpus
    editor_gpus = share if settings.editor_gpus is None else settings.editor_gpus
    gpus = planners * planner_gpus + editors * editor_gpus
    if gpus > there.get("GPU", 0) or needed > there["CPU"]:
        raise ValueError(
            f"{settings.planners} planners and {editors} editors want {gpus:g} GPUs and {needed} processors; the cluster has "
            f"{there.get('GPU', 0):g} and {there['CPU']:g}."
        )
    return replace(settings, planner_gpus=planner_gpus, editor_gpus=editor_gpus)


def edited_or_failed(
    dataset: Dataset, left: list[int], settings: Settings, bar: tqdm
) -> Generator[tuple[int, RowFailed | None], None, None]:
    """Each row as it is kept, with why it failed. A shard over which workers died is one failure, not one of each row."""
    failed = 0
    for written in shards(dataset, left, settings):
        record_shard(settings.output_dir, written)
        failed += len(written["failed"])
        bar.set_postfix(failed=failed, refresh=False)
        bar.update(len(written["rows"]) + len(written["failed"]))
        outcomes: dict[int, RowFailed | None] = dict.fromkeys(written["rows"])
        died = [line for line in written["failed"] if line["kind"] is None]
        for line in [line for line in written["failed"] if line["kind"]] + died[:1]:
            outcomes[line["row"]] = RowFailed(line["row"], line["error"], Failure(line["kind"] or Failure.OUTAGE))
        yield from sorted(outcomes.items())


def shards(dataset: Dataset, left: list[int], settings: Settings) -> Iterator[dict[str, Any]]:
    """What `write_file` says of each shard, as the shards come out."""
    import pandas as pd

    # Shards begin at the same rows in every run, so that a row meets the same others in its batches.
    waiting: dict[int, list[RowState]] = {}
    instructions = dataset["instruction"][:]
    for index in left:
        waiting.setdefault(index // settings.shard_size, []).append(RowState(index, instructions[index] or ""))
    rows = ray.data.from_pandas([pd.DataFrame({"row": shard}) for shard in waiting.values()])
    held = ray.put(dataset)

    def pool(worker: type[Worker], size: int, gpus: float | None) -> dict[str, Any]:
        return {
            "fn": worker,
            "fn_constructor_args": (held, settings),
            "compute": ray.data.ActorPoolStrategy(size=size),
            "num_cpus": 1,
            "num_gpus": gpus,
        }

    if settings.vllm:
        planned = plan_with_vllm(rows, held, settings)
    else:
        planned = rows.map_batches(**pool(PlanWorker, settings.planners, settings.planner_gpus))
    edited = planned.map_batches(**pool(EditWorker, settings.editors, settings.editor_gpus))
    writer = cast(Any, write_file)  # ray's types know only functions of one argument
    written = edited.map_batches(writer, fn_kwargs={"folder": settings.output_dir, "run_seed": settings.seed})
    fault = ""
    try:
        for cells in written.iter_rows():
            yield json.loads(cells["written"])
    except RayError as error:  # a worker that cannot even start; its own words come last
        fault = str(error).strip().splitlines()[-1]
    if fault:
        raise RuntimeError(fault)
