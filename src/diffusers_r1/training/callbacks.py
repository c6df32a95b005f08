"""What the training scripts do beside training: warn of runs that cannot learn, draw the curves."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from accelerate.utils import gather_object
from transformers import ProgressCallback, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..data.rows import EDIT_COLUMNS, fit, true_edits
from ..prompts import Prompts
from ..records import write_whole
from .validation import decompose_all, score_answers


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer

    from .arguments import DataArguments


logger = logging.getLogger(__name__)

NO_VARIANCE = 0.95
PATIENCE = 20
FEW = 3
RISE = 0.1  # of the sum of all rewards


def known(logs: Mapping[str, Any] | None) -> dict[str, Any]:
    """What was logged, without what nothing is known of: of a step that was all left out, TRL logs rewards of `None`."""
    return {name: value for name, value in (logs or {}).items() if value is not None}


class LearningWatch(TrainerCallback):
    """Warn, once each, of four ways to learn nothing that look like training.

    - The completions of almost every prompt earn one and the same reward: none is better than another.
    - Every answer is cut before it ends: none can be right.
    - The format is never kept: there is no better answer to learn from.
    - The reward rises, and no metric of the held-out rows does: what is learned is to please the reward.
    """

    def __init__(self):
        self.cut = self.unformatted = 0
        self.rewards: list[float] = []
        self.shares: list[float] = []
        self.marks: list[dict[str, float]] = []
        self.said: set[str] = set()

    def on_log(self, args, state, control, logs=None, **kwargs):
        logs = known(logs)
        if "reward" in logs:
            self.rewards.append(float(logs["reward"]))
        if "frac_reward_zero_std" in logs:
            self.shares = [*self.shares, float(logs["frac_reward_zero_std"])][-PATIENCE:]
        if "completions/clipped_ratio" in logs:
            self.cut = self.cut + 1 if float(logs["completions/clipped_ratio"]) == 1 else 0
        if "rewards/format/mean" in logs:
            self.unformatted = self.unformatted + 1 if float(logs["rewards/format/mean"]) == 0 else 0
        if "val/exact" in logs:
            self.marks.append({name: value for name, value in logs.items() if name.startswith("val/")})
        if not state.is_world_process_zero:
            return
        if len(self.shares) == PATIENCE and np.mean(self.shares) >= NO_VARIANCE:
            self._say(
                "variance",
                f"For {PATIENCE} logs, {np.mean(self.shares):.0%} of the prompts had completions of one reward only, so their "
                "advantages are 0. Take harder rows, more generations a prompt (`--num_generations`) or a higher "
                "`--temperature`; if the reward is low throughout, the planner first needs a supervised start.",
            )
        if self.cut >= FEW:
            self._say(
                "cut",
                f"For {FEW} logs every answer was cut before its end, so none could be right: raise "
                "--max_completion_length, or take a planner that answers in fewer words.",
            )
        elif self.unformatted >= FEW:  # what is cut keeps no format
            self._say(
                "format",
                f"For {FEW} logs no answer kept the format, so there is none to learn from: start from a planner that was "
                "trained supervised first (examples/train_sft_planner.py).",
            )
        if "val/exact" in logs and self._only_pleases():
            self._say(
                "reward",
                f"The reward has risen from {np.mean(self.rewards[:FEW]):.2f} to {np.mean(self.rewards[-FEW:]):.2f}, and no "
                "metric of the held-out rows has: read the answers (--log_completions) for what the reward is paid for.",
            )

    def _only_pleases(self) -> bool:
        first, *later = self.marks
        if len(later) < FEW or len(self.rewards) < 2 * FEW:
            return False
        risen = np.mean(self.rewards[-FEW:]) - np.mean(self.rewards[:FEW]) > RISE
        return bool(risen) and not any(mark[name] > first[name] + RISE / 10 for mark in later for name in first)

    def _say(self, what: str, text: str) -> None:
        if what not in self.said:
            self.said.add(what)
            logger.warning("%s", text)


class RewardBar(ProgressCallback):
    """The progress bar with the reward and the held-out rows' `exact` beside it, in place of all that is logged."""

    shown = {"reward": "reward", "val/exact": "exact", "loss": "loss"}

    def __init__(self):
        super().__init__()
        self.values: dict[str, str] = {}

    def on_log(self, args, state, control, logs=None, **kwargs):
        logs = known(logs)
        if state.is_world_process_zero and self.training_bar is not None:
            self.values |= {short: f"{float(logs[name]):.3g}" for name, short in self.shown.items() if name in logs}
            self.training_bar.set_postfix(self.values)


class GreedyValidation(TrainerCallback):
    """Decompose held-out rows greedily before the first step, every `steps` steps and after the last one, and log the marks.

    Logged beside the rewards: `val/format`, `val/action_f1`, `val/subject_f1`, `val/goal_f1` and `val/exact`, each the
    mean over the rows, from 0 to 1; see [`score_answers`]. The rows are shared out among the processes.

    Args:
        trainer ([`~transformers.Trainer`]): Whose model is measured.
        prompts ([`Prompts`]): The planner's words.
        rows (`datasets.Dataset`): Columns `image`, `instruction`, `actions`, `subjects`, `goals` and, if there are any,
            `references`, as [`load_rows`] gives them.
        image_size (`int` or `None`): Pixels along each side at which the planner is shown the pictures, as in training;
            see [`to_prompts`].
        steps (`int`): How often.
        max_new_tokens (`int`): The most tokens an answer may have.
        batch_size (`int`, defaults to 50): Rows in one generate call.
        constrained (`bool`, defaults to `False`): Let the planner write nothing but the declared format.
        synonyms (`Mapping` of `str` to `str`, *optional*): Those that the action reward was given.
    """

    def __init__(
        self,
        trainer: Trainer,
        prompts: Prompts,
        rows: Dataset,
        image_size: int | None,
        steps: int,
        max_new_tokens: int,
        batch_size: int = 50,
        constrained: bool = False,
        synonyms: Mapping[str, str] | None = None,
    ):
        self.trainer, self.prompts, self.rows, self.steps = trainer, prompts, rows, steps
        self.image_size, self.synonyms = image_size, synonyms
        self.generation = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "constrained": constrained}
        lists: Any = rows.select_columns(list(EDIT_COLUMNS))  # no picture is opened
        self.truths = [true_edits(row) for row in lists]

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.validate(args, state, control)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.steps == 0 or control.should_training_stop:
            self.validate(args, state, control)

    def on_train_end(self, args, state, control, **kwargs):
        """Measure what ended without another step: rows that ran out, a checkpoint of the last step that was gone on from."""
        if not any(row["step"] == state.global_step and "val/exact" in row for row in state.log_history):
            # For curves and card only: who else reads logs has closed its own.
            state.log_history.append({**self.means(self.answers()), "step": state.global_step})

    def validate(self, args, state, control) -> None:
        means = self.means(self.answers())
        # Not through the trainer's `log`: that would close the averages of a step that is still under way.
        state.log_history.append({**means, "step": state.global_step})
        should_log = control.should_log
        self.trainer.callback_handler.on_log(args, state, control, means)
        control.should_log = should_log

    def means(self, answers: Sequence[str]) -> dict[str, float]:
        """The metrics of answers to all rows, each of which counts as the reward of its name does."""
        marks = score_answers(answers, self.truths, self.rows["instruction"][:], self.synonyms)
        return {f"val/{name}": float(np.mean(each)) for name, each in marks.items()}

    def answers(self) -> list[str]:
        """The answers to all rows, on every process."""
        from trl.models import unwrap_model_for_generation

        show_bar = self.trainer.is_world_process_zero() and not self.trainer.args.disable_tqdm
        accelerator, processor = self.trainer.accelerator, self.trainer.processing_class
        indices = list(range(len(self.rows)))
        with (
            # Padded: with sharded weights every process has to make the same number of calls.
            accelerator.split_between_processes(indices, apply_padding=True) as mine,
            unwrap_model_for_generation(self.trainer.model_wrapped, accelerator) as model,
        ):
            rows = self.rows.select(mine)
            images = rows["image"] if "image" in rows.column_names else [None] * len(rows)
            images = [self._fitted(image) for image in images]
            references = None
            if "references" in rows.column_names:
                references = [[self._fitted(picture) for picture in pictures] for pictures in rows["references"]]
            instructions = list(rows["instruction"])
            answers = decompose_all(
                model,
                processor,
                self.prompts,
                images,
                instructions,
                references=references,
                show_bar=show_bar,
                **self.generation,
            )
        by_index = dict(gather_object(list(zip(mine, answers))))
        return [by_index[index] for index in indices]

    def _fitted(self, picture: Any) -> Any:
        return fit(picture, self.image_size) if self.image_size else picture


class PromptsBesideCheckpoints(TrainerCallback):
    """Write the planner's words into each checkpoint: what is loaded from there is asked in them, and not in the default ones."""

    def __init__(self, prompts: Prompts):
        self.prompts = prompts

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.prompts.save(Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")


def show_progress(
    trainer: Trainer, prompts: Prompts, held_out: Dataset | None, script: DataArguments, max_new_tokens: int
) -> None:
    """Have a run validate on held-out rows, where there are some, keep its words beside checkpoints, and show a bar with what
    it earns, where bars are shown.

    The arguments are those of [`GreedyValidation`], of which `script` has the others.
    """
    if held_out is not None:
        shown, steps = script.image_size, script.validation_steps
        given = {name: getattr(script, name) for name in ("constrained", "synonyms") if hasattr(script, name)}
        trainer.add_callback(GreedyValidation(trainer, prompts, held_out, shown, steps, max_new_tokens, **given))
    trainer.add_callback(PromptsBesideCheckpoints(prompts))
    if not trainer.args.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(RewardBar())


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
    from matplotlib.figure import Figure  # pyplot would choose where a notebook's own figures are shown

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
    if editor := [n for n in names if n in ("picture/reward_a_picture", "picture/spread", "editor/loss")]:
        panels["pictures and editor"] = editor
    figure = Figure(figsize=(11, 4), constrained_layout=True)
    axes = figure.subplots(1, len(panels))
    for axis, (title, shown) in zip(axes, panels.items()):
        for name in shown:
            points = [(row["step"], row[name]) for row in rows if name in row]
            axis.plot(*zip(*points), label=name, marker="." if len(points) < 30 else None)
        axis.set(title=title, xlabel="step")
        if shown:
            axis.legend(fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_whole(Path(folder) / "training_curves.png", picture.getvalue())
