"""Seconds a step of GRPO and memory, two ways beside each other, in three cases.

    python benchmarks/grpo_speed.py photo
    python benchmarks/grpo_speed.py scenes --rounds 3
    python benchmarks/grpo_speed.py picture --steps 3

`photo` is a random planner of 97.5 M parameters that is asked about pictures of 1,000 tokens and answers with 100 tokens, 8
times each; a reward by chance tells every two answers apart, so nothing is left out of the update. `scenes` is the recipe
`examples/recipes/scenes.yaml`: the shipped planner's supervised start, its rewards, 64 completions a step by default. In both,
TRL's bare `GRPOTrainer` stands against `GroupedGRPOTrainer`, which reads a prompt once. `picture` is that recipe paid by
labels against `examples/recipes/scenes_picture.yaml`, paid by the picture, 256 completions a step.

Both ways have the same planner, rows, settings and seeds, and one thread. Each run has a process of its own, whose largest
memory is read at its end, and the runs take turns; the first step, which warms up, is left out. Seconds are the processor's, so
that other work on the machine does not count. The whole step is generation, rewards, log-probabilities, update and the
optimizer's step; `update` is forward and backward alone. What bounds the ratio of the trainers is the share of the prompt in
what is read: with a picture of 1,000 tokens and 8 answers of 100 it is 9,300 tokens against 1,860. What bounds that of the
rewards is how many different plans a step has: each is put into words and carried out once.

The bare trainer takes a step of `photo` in two micro-batches of 4 completions, since 8 rows of 1,160 tokens each keep too much
for the way back; the other takes a whole group, which is one packed row.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from midsize import midsize_planner, picture_of_1000_tokens, without_end
from report import print_table
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from diffusers_r1.bundles.planners import load_planner
from diffusers_r1.data import load_rows
from diffusers_r1.judging import ScenesJudge
from diffusers_r1.prompts import Prompts
from diffusers_r1.rewards import ActionReward, FormatReward, GoalReward, SubjectReward
from diffusers_r1.scenes import sample_task
from diffusers_r1.training.arguments import as_prompts
from diffusers_r1.training.grouped import GroupedGRPOTrainer
from diffusers_r1.training.models import vision_towers, without_control_tokens
from diffusers_r1.training.picture_trainer import PictureGRPOTrainer
from diffusers_r1.training.pictures import PictureReward, Renderer


BUNDLE, START = "imageedit-r1-scenes", "imageedit-r1-scenes-sft"
GROUP = 8


def by_chance(completions: list[Any], **kwargs: Any) -> list[float]:
    """Rewards between 0 and 1 of which no two are equal."""
    return [int(hashlib.md5(str(said).encode()).hexdigest()[:8], 16) / 2**32 for said in completions]


def by_labels() -> list[Any]:
    return [FormatReward(), ActionReward(), SubjectReward(), GoalReward()]


def by_pictures() -> list[Any]:
    renderer = Renderer(BUNDLE, START, batch_size=128)
    renderer.load()
    return [FormatReward(), PictureReward(renderer, ScenesJudge())]


def photo(small: bool) -> dict[str, Any]:
    """Planner, rows and settings; `small` for a look whether it runs."""
    planner, processor = midsize_planner()
    rows = []
    for seed in range(8):
        picture = picture_of_1000_tokens(seed)
        rows.append(
            {"image": picture.resize((112, 112)) if small else picture, "instruction": sample_task(seed).instruction}
        )
    return {
        "planner": planner,
        "processor": processor,
        "rows": as_prompts(Dataset.from_list(rows), processor, Prompts(decompose="{instruction}"), None),
        "settings": {"max_completion_length": 8 if small else 100, "generation_kwargs": without_end(processor)},
    }


def scenes(small: bool) -> dict[str, Any]:
    """As `photo`."""
    planner, processor, prompts = load_planner(START, dtype="float32")
    kinds = load_rows("scenes:complex=0.65,indirect=0.15,chained=0.1,simple=0.1")
    settings = GRPOConfig(output_dir="unused", use_cpu=True, bf16=False, report_to="none")
    without_control_tokens(settings, planner, processor)
    return {
        "planner": planner,
        "processor": processor,
        "rows": as_prompts(kinds, processor, prompts, None),
        "settings": {
            "max_completion_length": 16 if small else 128,
            "learning_rate": 1e-4,
            "generation_kwargs": settings.generation_kwargs,
        },
    }


@dataclass(frozen=True)
class Way:
    """One of the two ways of a case; `micro_batch` is how many completions go through the model at once, all by default."""

    trainer: type[GRPOTrainer]
    rewards: Callable[[], list[Any]]
    micro_batch: int | None = None


@dataclass(frozen=True)
class Case:
    """What is trained on what, the ways that are compared, the first being the measure of the other, and a usual step."""

    make: Callable[[bool], dict[str, Any]]
    ways: dict[str, Way]
    steps: int
    completions: int


def chance() -> list[Any]:
    return [by_chance]


CASES = {
    "photo": Case(
        photo,
        {"bare": Way(GRPOTrainer, chance, micro_batch=4), "grouped": Way(GroupedGRPOTrainer, chance)},
        steps=1,
        completions=GROUP,
    ),
    "scenes": Case(
        scenes,
        {"bare": Way(GRPOTrainer, by_labels), "grouped": Way(GroupedGRPOTrainer, by_labels)},
        steps=3,
        completions=64,
    ),
    "picture": Case(
        scenes,
        {"labels": Way(PictureGRPOTrainer, by_labels), "picture": Way(PictureGRPOTrainer, by_pictures)},
        steps=3,
        completions=256,
    ),
}


class WholeStep(TrainerCallback):
    """Keeps the processor's seconds of each step, and makes room for those of its parts."""

    def __init__(self, seconds: dict[str, list[float]]):
        self.seconds = seconds

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.start = time.process_time()
        for part in ("update", "rewards"):
            self.seconds[part].append(0.0)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds["whole"].append(time.process_time() - self.start)


def one_run(case: Case, way: Way, steps: int, completions: int, train_vision: bool, small: bool) -> dict[str, Any]:
    """Seconds of each step and its parts, pictures a step, and the largest memory of this process in GB."""
    seconds: dict[str, list[float]] = {"whole": [], "update": [], "rewards": []}
    micro_batch = way.micro_batch or completions

    class Timed(way.trainer):
        def training_step(self, *inputs: Any) -> torch.Tensor:
            loss = super().training_step(*inputs)
            seconds["update"][-1] += time.process_time() - self.prepared
            return loss

        def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
            inputs = super()._prepare_inputs(generation_batch)
            self.prepared = time.process_time()
            return inputs

        def _calculate_rewards(self, *inputs: Any) -> torch.Tensor:
            start = time.process_time()
            rewards = super()._calculate_rewards(*inputs)
            seconds["rewards"][-1] += time.process_time() - start
            return rewards

    torch.set_num_threads(1)
    made = case.make(small)
    for tower in vision_towers(made["planner"]).values():
        tower.requires_grad_(train_vision)
    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder,
            max_steps=steps + 1,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=completions // micro_batch,
            num_generations=GROUP,
            use_cpu=True,
            bf16=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **{"gradient_checkpointing": False, **made["settings"]},
        )
        trainer = Timed(
            model=made["planner"],
            processing_class=made["processor"],
            args=settings,
            train_dataset=made["rows"],
            reward_funcs=way.rewards(),
            callbacks=[WholeStep(seconds)],
        )
        trainer.train()
    rendered = [float(row["picture/rendered"]) for row in trainer.state.log_history if "picture/rendered" in row]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**{part: times[1:] for part, times in seconds.items()}, "pictures": rendered[1:], "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, help="1 for photo, 3 for the others by default")
    parser.add_argument(
        "--completions", type=int, help="a step; 8 for photo, 64 for scenes, 256 for picture by default"
    )
    parser.add_argument("--train_vision", action="store_true")
    parser.add_argument(
        "--small", action="store_true", help="small pictures and short answers, to see whether it runs"
    )
    parser.add_argument("--way", help="one run of this one, in this process")
    args = parser.parse_args()
    case = CASES[args.case]
    if args.way:
        steps, completions = args.steps or case.steps, args.completions or case.completions
        print(json.dumps(one_run(case, case.ways[args.way], steps, completions, args.train_vision, args.small)))
        return

    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in case.ways}
    for _ in range(args.rounds):
        for name in case.ways:
            command = [sys.executable, __file__, *sys.argv[1:], "--way", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    print_table([row_of(args.case, name, some, next(iter(runs.values()))) for name, some in runs.items()])


def row_of(case: str, name: str, runs: list[dict[str, Any]], measure: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of the table: a way's runs beside those of the way that it is measured by."""
    row: dict[str, Any] = {"case": case, "way": name}
    for part in ("whole", "update"):
        times, others = ([second for run in some for second in run[part]] for some in (runs, measure))
        row[f"{part}, s"] = float(np.median(times))
        row[f"{part}, spread"] = f"{min(times):.2f} to {max(times):.2f}"
        row[f"{part}, times as fast"] = float(np.median(others) / np.median(times))
    row["rewards, s"] = float(np.median([second for run in runs for second in run["rewards"]]))
    row["pictures a step"] = float(np.mean([made for run in runs for made in run["pictures"]] or [0.0]))
    memory, other = (max(run["memory"] for run in some) for some in (runs, measure))
    return {**row, "steps": len(times), "memory, GB": memory, "memory, share": memory / other}


if __name__ == "__main__":
    main()
