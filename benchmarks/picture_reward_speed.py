"""Seconds a step of GRPO on scenes, paid by the picture against paid by labels.

    python benchmarks/picture_reward_speed.py --rounds 2

The recipes `examples/recipes/scenes.yaml` and `scenes_picture.yaml`: the shipped planner's supervised start, 256 completions
of 32 prompts a step, one thread. Each run has a process of its own, and the runs take turns; the first step, which warms up,
is left out. Seconds are the processor's, so that other work on the machine does not count. What bounds the ratio is how many
different plans a step has: each is put into words and carried out once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch
from report import print_table
from trl import GRPOConfig

from diffusers_r1.bundles.planners import load_planner
from diffusers_r1.data import load_rows
from diffusers_r1.judging import ScenesJudge
from diffusers_r1.rewards import ActionReward, FormatReward, GoalReward, SubjectReward
from diffusers_r1.training.arguments import as_prompts
from diffusers_r1.training.models import vision_towers, without_control_tokens
from diffusers_r1.training.picture_trainer import PictureGRPOTrainer
from diffusers_r1.training.pictures import PictureReward, Renderer


BUNDLE, START = "imageedit-r1-scenes", "imageedit-r1-scenes-sft"
GROUP = 8


def pictures() -> list[Any]:
    renderer = Renderer(BUNDLE, START, batch_size=128)
    renderer.load()
    return [FormatReward(), PictureReward(renderer, ScenesJudge())]


REWARDS = {
    "labels": lambda: [FormatReward(), ActionReward(), SubjectReward(), GoalReward()],
    "picture": pictures,
}


def one_run(paid_by: str, steps: int, completions: int) -> dict[str, Any]:
    """Seconds of each step, whole and of its rewards alone, and how many pictures each made."""
    seconds: dict[str, list[float]] = {"whole": [], "rewards": []}

    class Timed(PictureGRPOTrainer):
        def training_step(self, *inputs: Any) -> torch.Tensor:
            start = time.process_time()
            loss = super().training_step(*inputs)
            seconds["whole"].append(time.process_time() - start)
            return loss

        def _calculate_rewards(self, *inputs: Any) -> torch.Tensor:
            start = time.process_time()
            rewards = super()._calculate_rewards(*inputs)
            seconds["rewards"].append(time.process_time() - start)
            return rewards

    planner, processor, prompts = load_planner(START, dtype="float32")
    for tower in vision_towers(planner).values():
        tower.requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder,
            max_steps=steps + 1,
            per_device_train_batch_size=completions,
            num_generations=GROUP,
            max_completion_length=128,
            learning_rate=1e-4,
            gradient_checkpointing=False,
            use_cpu=True,
            bf16=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        without_control_tokens(settings, planner, processor)
        trainer = Timed(
            model=planner,
            processing_class=processor,
            args=settings,
            train_dataset=as_prompts(
                load_rows("scenes:complex=0.65,indirect=0.15,chained=0.1,simple=0.1"), processor, prompts, None
            ),
            reward_funcs=REWARDS[paid_by](),
        )
        trainer.train()
    made = [float(row["picture/rendered"]) for row in trainer.state.log_history if "picture/rendered" in row]
    return {**{name: times[1:] for name, times in seconds.items()}, "pictures": made[1:] or [0.0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--completions", type=int, default=256)
    parser.add_argument("--paid_by", choices=REWARDS, help="one run of this one, in this process")
    args = parser.parse_args()
    if args.paid_by:
        torch.set_num_threads(1)
        print(json.dumps(one_run(args.paid_by, args.steps, args.completions)))
        return

    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in REWARDS}
    for _ in range(args.rounds):
        for name in REWARDS:
            command = [sys.executable, __file__, *sys.argv[1:], "--paid_by", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    rows = []
    for name, own in runs.items():
        whole, rewards, made, labels = (
            [value for run in some for value in run[part]]
            for some, part in ((own, "whole"), (own, "rewards"), (own, "pictures"), (runs["labels"], "whole"))
        )
        rows.append(
            {
                "paid by": name,
                "steps": len(whole),
                "step, s": float(np.median(whole)),
                "spread": f"{min(whole):.2f} to {max(whole):.2f}",
                "rewards, s": float(np.median(rewards)),
                "pictures a step": float(np.mean(made)),
                "steps a second, share of labels": float(np.median(labels) / np.median(whole)),
            }
        )
    print_table(rows)


if __name__ == "__main__":
    main()
