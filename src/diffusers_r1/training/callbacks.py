"""What the training scripts do beside training: warn of runs that cannot learn, draw the curves."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from ..records import write_whole


logger = logging.getLogger(__name__)

NO_VARIANCE = 0.95
PATIENCE = 20


class VarianceWatch(TrainerCallback):
    """Warn when the completions of almost every prompt earn one and the same reward: nothing can be learned from them."""

    def __init__(self):
        self.shares: list[float] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "frac_reward_zero_std" not in (logs or {}):
            return
        self.shares = [*self.shares, float(logs["frac_reward_zero_std"])][-PATIENCE:]
        if len(self.shares) == PATIENCE and np.mean(self.shares) >= NO_VARIANCE and state.is_world_process_zero:
            logger.warning(
                "For %d logs, %.0f%% of the prompts had completions of one reward only, so their advantages are 0. Take "
                "harder rows, more generations a prompt (`--num_generations`) or a higher `--temperature`; if the reward "
                "is low throughout, the planner first needs a supervised start.",
                PATIENCE,
                100 * np.mean(self.shares),
            )
            self.shares = []


def curve_rows(log_history: list[dict[str, Any]]) -> list[dict[str, float]]:
    """A trainer's log as one row per step, with every number logged at that step."""
    rows: dict[int, dict[str, float]] = {}
    for entry in log_history:
        numbers = {name: value for name, value in entry.items() if isinstance(value, (int, float))}
        rows.setdefault(entry["step"], {}).update(numbers)
    return [rows[step] for step in sorted(rows)]


def save_curves(log_history: list[dict[str, Any]], folder: str | Path) -> None:
    """Write `training_curves.csv` with all that was logged and `training_curves.png` with rewards and validation.

    The picture shows what the paper's figure 3 does: the rewards over the steps, and beside them the greedy marks.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = curve_rows(log_history)
    names = ["step", *sorted({name for row in rows for name in row} - {"step"})]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=names)
    writer.writeheader()
    writer.writerows(rows)
    write_whole(Path(folder) / "training_curves.csv", text.getvalue())

    panels = {
        "rewards": [n for n in names if n == "reward" or (n.startswith("rewards/") and n.endswith("/mean"))],
        "validation, greedy": [n for n in names if n.startswith("val/")],
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 4), constrained_layout=True)
    for axis, (title, shown) in zip(axes, panels.items()):
        for name in shown:
            points = [(row["step"], row[name]) for row in rows if name in row]
            axis.plot(*zip(*points), label=name, marker="." if len(points) < 30 else None)
        axis.set(title=title, xlabel="step")
        if shown:
            axis.legend(fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    plt.close(figure)
    write_whole(Path(folder) / "training_curves.png", picture.getvalue())
