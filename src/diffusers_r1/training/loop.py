"""The parts of a plain training loop: its learning rate, its steps, its curve and its one checkpoint."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch


if TYPE_CHECKING:
    from transformers import TrainingArguments


def rows_a_step(training: TrainingArguments) -> int:
    """How many rows, or completions, one step of a trainer's optimizer learns from, on all processes together."""
    return training.train_batch_size * training.gradient_accumulation_steps * training.world_size


def warmup_stable_decay(step: int, steps: int, warmup: int = 200, decay: float = 0.25) -> float:
    """The factor on the learning rate: up for `warmup` steps, flat, then down to 0 over the last `decay` of `steps`.

    The flat part does not depend on `steps`, so a run can be resumed with more of them than it was started with.
    """
    return min(1.0, (step + 1) / warmup, (steps - step) / (decay * steps))


def save_checkpoint(folder: str | Path, **state: Any) -> None:
    """Write `folder/checkpoint.pt`, whole or not at all. `state` holds state dicts, tensors and numbers."""
    path = Path(folder) / "checkpoint.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def load_checkpoint(folder: str | Path) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote to `folder`, or `None` where nothing is."""
    path = Path(folder) / "checkpoint.pt"
    return torch.load(path, weights_only=True) if path.exists() else None


def resumable(folder: str | Path, steps: int, save_every: int, **parts: Any) -> Iterator[int]:
    """The steps that are left of a run, from 0 or from where `folder`'s checkpoint says that it stopped.

    After every `save_every` of them, and after the last, the checkpoint is written anew: once the body of the loop is
    done, so a step that raises is not saved.

    Args:
        folder (`str` or `Path`): Where the checkpoint is or will be.
        steps (`int`): Of the whole run.
        save_every (`int`): How many steps lie between two checkpoints.
        parts: What is restored and saved, by name: models, optimizers, anything with a `state_dict`.
    """
    start = 0
    if state := load_checkpoint(folder):
        for name, part in parts.items():
            part.load_state_dict(state[name])
        start = state["step"]
    for step in range(start, steps):
        yield step
        if (step + 1) % save_every == 0 or step + 1 == steps:
            save_checkpoint(folder, **{name: part.state_dict() for name, part in parts.items()}, step=step + 1)


def take_step(loss: torch.Tensor, optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> None:
    """One optimizer step, the gradient's norm clipped to 1."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def log_row(path: str | Path, **values: float) -> None:
    """Append one row to a CSV file, under a header made from the first row's names; print it as well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(values))
        if new:
            writer.writeheader()
        writer.writerow(values)
    print("  ".join(f"{name} {value:.5g}" for name, value in values.items()), flush=True)
