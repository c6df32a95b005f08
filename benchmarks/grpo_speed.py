"""Seconds a step of GRPO and memory: TRL's bare `GRPOTrainer` against `GroupedGRPOTrainer`, which reads a prompt once.

    python benchmarks/grpo_speed.py photo --rounds 2
    python benchmarks/grpo_speed.py scenes --rounds 3

`photo` is a random planner of 97.5 M parameters that is asked about pictures of 1,000 tokens and answers with 100 tokens, 8
times each; a reward by chance tells every two answers apart, so nothing is left out of the update. `scenes` is the recipe
`examples/recipes/scenes.yaml`: the shipped planner's supervised start, its rewards, 64 completions a step by default.

Both trainers have the same planner, rows, rewards, settings and seeds, and one thread. Each run has a process of its own,
whose largest memory is read at its end, and the runs take turns. Seconds are the processor's, so that other work on the
machine does not count. The whole step is generation, rewards, log-probabilities, update and the optimizer's step; `update`
is forward and backward alone. What bounds the ratio is the share of the prompt in what is read: with a picture of 1,000
tokens and 8 answers of 100 it is 9,300 tokens against 1,860.

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
from diffusers_r1.prompts import Prompts
from diffusers_r1.rewards import ActionReward, FormatReward, GoalReward, SubjectReward
from diffusers_r1.scenes import sample_task
from diffusers_r1.training.arguments import as_prompts
from diffusers_r1.training.callbacks import VarianceWatch
from diffusers_r1.training.grouped import GroupedGRPOTrainer
from diffusers_r1.training.models import vision_towers, without_control_tokens


TRAINERS = {"bare": GRPOTrainer, "grouped": GroupedGRPOTrainer}
GROUP = 8
# Completions in a micro-batch where that is not all of a step.
MICRO_BATCH = {("photo", "bare"): 4}


def by_chance(completions: list[Any], **kwargs: Any) -> list[float]:
    """Rewards between 0 and 1 of which no two are equal."""
    return [int(hashlib.md5(str(said).encode()).hexdigest()[:8], 16) / 2**32 for said in completions]


def photo(small: bool) -> dict[str, Any]:
    """Planner, rows, rewards and settings of the case; `small` for a look whether it runs."""
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
        "rewards": [by_chance],
        "settings": {"max_completion_length": 8 if small else 100, "generation_kwargs": without_end(processor)},
    }


def scenes(small: bool) -> dict[str, Any]:
    """As `photo`."""
    planner, processor, prompts = load_planner("imageedit-r1-scenes-sft", dtype="float32")
    kinds = load_rows("scenes:complex=0.65,indirect=0.15,chained=0.1,simple=0.1")
    settings = GRPOConfig(output_dir="unused", use_cpu=True, bf16=False, report_to="none")
    without_control_tokens(settings, planner, processor)
    return {
        "planner": planner,
        "processor": processor,
        "rows": as_prompts(kinds, processor, prompts, None),
        "rewards": [FormatReward(), ActionReward(), SubjectReward(), GoalReward()],
        "settings": {
            "max_completion_length": 16 if small else 128,
            "learning_rate": 1e-4,
            "generation_kwargs": settings.generation_kwargs,
        },
    }


CASES = {"photo": photo, "scenes": scenes}


def one_run(case: str, trainer: str, steps: int, completions: int, train_vision: bool, small: bool) -> dict[str, Any]:
    """Seconds of each step, whole and forward and backward alone, and the largest memory of this process in GB.

    The first step, which warms up, is left out.
    """

    whole: list[float] = []
    update: list[float] = []
    micro_batch = MICRO_BATCH.get((case, trainer), completions)

    class Whole(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.start = time.process_time()
            update.append(0.0)

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            whole.append(time.process_time() - self.start)

    class Timed(TRAINERS[trainer]):
        def training_step(self, *inputs: Any) -> torch.Tensor:
            loss = super().training_step(*inputs)
            update[-1] += time.process_time() - self.prepared
            return loss

        def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
            inputs = super()._prepare_inputs(generation_batch)
            self.prepared = time.process_time()
            return inputs

    torch.set_num_threads(1)
    made = CASES[case](small)
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
        running = Timed(
            model=made["planner"],
            processing_class=made["processor"],
            args=settings,
            train_dataset=made["rows"],
            reward_funcs=made["rewards"],
            callbacks=[VarianceWatch(), Whole()],
        )
        running.train()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"whole": whole[1:], "update": update[1:], "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, help="1 for photo, 3 for scenes by default")
    parser.add_argument("--completions", type=int, help="a step; 8 for photo, 64 for scenes by default")
    parser.add_argument("--train_vision", action="store_true")
    parser.add_argument(
        "--small", action="store_true", help="small pictures and short answers, to see whether it runs"
    )
    parser.add_argument("--trainer", choices=TRAINERS, help="one run of this one, in this process")
    args = parser.parse_args()
    steps = args.steps or {"photo": 1, "scenes": 3}[args.case]
    completions = args.completions or {"photo": GROUP, "scenes": 64}[args.case]
    if args.trainer:
        print(json.dumps(one_run(args.case, args.trainer, steps, completions, args.train_vision, args.small)))
        return

    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in TRAINERS}
    for _ in range(args.rounds):
        for name in TRAINERS:
            command = [sys.executable, __file__, *sys.argv[1:], "--trainer", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    rows = []
    for name, of_trainer in runs.items():
        row: dict[str, Any] = {"case": args.case, "trainer": name}
        for part in ("whole", "update"):
            times, bare = ([second for run in some for second in run[part]] for some in (of_trainer, runs["bare"]))
            row[f"{part}, s"] = float(np.median(times))
            row[f"{part}, spread"] = f"{min(times):.2f} to {max(times):.2f}"
            row[f"{part}, times as fast"] = float(np.median(bare) / np.median(times))
        memory, bare = (max(run["memory"] for run in some) for some in (of_trainer, runs["bare"]))
        rows.append({**row, "steps": len(times), "memory, GB": memory, "memory, share": memory / bare})
    print_table(rows)


if __name__ == "__main__":
    main()
