"""A shard: rows on their way through the workers, of which one that fails takes no other along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..images import load_picture
from ..plan import EditPlan
from ..records import Failure, kind_of


if TYPE_CHECKING:
    import torch
    from datasets import Dataset


@dataclass(frozen=True)
class RowState:
    """A row on its way. `pictures` are there only while a worker needs them: what is edited, and then its references. `error`
    says which step failed, and why.

    `failure` is what that says about other rows, and `None` where a worker died over the shard.
    """

    index: int
    instruction: str = ""
    pictures: tuple[Image.Image, ...] = ()
    plan: EditPlan | None = None
    edited: Image.Image | None = None
    error: str = ""
    failure: Failure | None = None


class RowFailed(Exception):
    """A row has failed; `kind` says what that means for the others."""

    def __init__(self, row: int, error: str, kind: Failure):
        super().__init__(f"Row {row}: {error}")
        self.kind = kind


def attempt(step: str, work: Callable[[list[RowState]], list[RowState]], rows: list[RowState]) -> list[RowState]:
    """All rows, those without an error after `work`. Where that fails, each is tried alone: only those at fault fail."""
    sound = [row for row in rows if not row.error]
    done, fault, failure = [], "", None
    try:
        done = work(sound) if sound else []
    except Exception as error:
        fault = f"{step}: {type(error).__name__}: {' '.join(str(error).split())}"
        failure = getattr(error, "kind", Failure.REFUSED) if step == "read" else kind_of(error)
    if fault and len(sound) == 1:
        done = [replace(sound[0], error=fault, failure=failure)]
    elif fault:  # out of the `except`, whose traceback holds the memory of what has failed
        done = [attempt(step, work, [row])[0] for row in sound]
    after = {row.index: row for row in done}
    return [after.get(row.index, row) for row in rows]


def read_row(dataset: Dataset, row: RowState) -> RowState:
    """The row with its pictures."""
    cells = dataset[row.index]
    if not row.instruction.strip():
        raise ValueError(f"the instruction is {cells['instruction']!r}")
    sources = [cells["image"], *(cells.get("references") or [])]
    return replace(row, pictures=tuple(load_picture(source) for source in sources))


def generator_of(row: RowState, run_seed: int) -> torch.Generator:
    """Noise of the row's own, whatever batch, worker or run it is in."""
    import torch

    word: Any = np.random.SeedSequence((run_seed, row.index)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word) >> 1)
