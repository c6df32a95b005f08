"""The two kinds of workers: each holds its part of the bundle, opens its rows itself, and does one step with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray

from .. import records
from ..bundles import AGENTS
from .folder import TRIES
from .settings import Settings
from .shards import RowState, attempt, generator_of, read_row


if TYPE_CHECKING:
    from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline

MOST_DEATHS = 3  # of workers over one shard; Ray itself would try it for ever


class Worker:
    """An actor that works through a shard, a batch at a time."""

    step: str
    batch_size: int

    def __init__(self, dataset: ray.ObjectRef, settings: Settings):
        self.dataset = ray.get(dataset)
        self.settings = settings

    def __call__(self, shard: dict[str, Sequence[RowState]]) -> dict[str, list[RowState]]:
        rows = list(shard["row"])
        tries = self.settings.output_dir / TRIES / f"{self.step}-{rows[0].index}"
        deaths = int(tries.read_text(encoding="utf-8")) if tries.exists() else 0
        if deaths == MOST_DEATHS:
            error = f"{self.step}: the worker died {deaths} times over this row or another one of its shard"
            return {"row": [row if row.error else replace(row, error=error) for row in rows]}
        records.write_whole(tries, str(deaths + 1))
        done = self.work_through(rows)
        tries.unlink()
        return {"row": done}

    def work_through(self, rows: list[RowState]) -> list[RowState]:
        done = []
        for start in range(0, len(rows), self.batch_size):
            batch = [attempt("read", self.read, [row])[0] for row in rows[start : start + self.batch_size]]
            done += [replace(row, pictures=()) for row in attempt(self.step, self.work, batch)]
        return done

    def read(self, rows: list[RowState]) -> list[RowState]:
        return [read_row(self.dataset, row) for row in rows]

    def work(self, rows: list[RowState]) -> list[RowState]:
        raise NotImplementedError


class PlanWorker(Worker):
    """Turns instructions into plans."""

    step = "plan"

    def __init__(self, dataset: ray.ObjectRef, settings: Settings):
        super().__init__(dataset, settings)
        self.batch_size = settings.planner_batch_size
        self.pipe = load_planning_part(settings)

    def work(self, rows: list[RowState]) -> list[RowState]:
        images, instructions = [row.pictures for row in rows], [row.instruction for row in rows]
        generators = [generator_of(row, self.settings.seed) for row in rows]
        plans: Any = self.pipe.plan(images, instructions, generators, self.settings.max_new_tokens)
        return [replace(row, plan=plan) for row, plan in zip(rows, plans)]


class EditWorker(Worker):
    """Carries plans out."""

    step = "edit"

    def __init__(self, dataset: ray.ObjectRef, settings: Settings):
        super().__init__(dataset, settings)
        self.batch_size = settings.editor_batch_size
        self.pipe = load_part(settings, **dict.fromkeys(AGENTS))
        self.pipe.set_progress_bar_config(disable=True)
        check_editing(self.pipe, settings, references="references" in self.dataset.column_names)

    def work(self, rows: list[RowState]) -> list[RowState]:
        images = [row.pictures for row in rows]
        plans: list[Any] = [row.plan for row in rows]
        generators = [generator_of(row, self.settings.seed) for row in rows]
        told = {"turns": self.settings.turns, "max_batch": self.settings.editor_batch_size}
        out: Any = self.pipe(images, plan=plans, generator=generators, **told, **self.settings.editor_arguments)
        return [replace(row, plan=plan, edited=picture) for row, plan, picture in zip(rows, out.plans, out.images)]


def check_editing(pipe: ImageEditR1Pipeline, settings: Settings, references: bool = False) -> None:
    """Refuse what the editor cannot do for any row, rather than have every row fail.

    Raises:
        TypeError, ValueError
    """
    from ..editors import check_given

    given = {**pipe.editor_defaults, **settings.editor_arguments}
    check_given(pipe.editor, given, references, settings.turns == "composed")


def load_planning_part(settings: Settings) -> ImageEditR1Pipeline:
    """The bundle's agents, or the planner that was named in their place."""
    if settings.planner is None:
        return load_part(settings, editor=None)
    from ..bundles.planners import load_agents

    agents = load_agents(settings.planner, settings.planner_model, settings.planner_base, **dtype_of(settings))
    return load_part(settings, editor=None, **agents)


def load_part(settings: Settings, **components: Any) -> ImageEditR1Pipeline:
    """The bundle; a component that is `None` is neither downloaded nor loaded."""
    # Here, since Ray's own processes, which pass rows on, import this module as well, and need no models.
    from diffusers.utils.torch_utils import get_device

    from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline

    pipe = ImageEditR1Pipeline.from_pretrained(settings.model, **dtype_of(settings), **components)
    return pipe.to(settings.device or get_device())


def dtype_of(settings: Settings) -> dict[str, Any]:
    """What `from_pretrained` is told of the weights' type: nothing, or which."""
    import torch

    return {} if settings.dtype is None else {"dtype": getattr(torch, settings.dtype)}
