"""Seconds a step of GRPO: TRL's bare `GRPOTrainer` against what `train_grpo_planner.py` makes of it.

    python benchmarks/grpo_speed.py --rounds 3

Same planner, rows, rewards, settings and seeds; the two take turns. The script's run encodes each picture once for all of
its completions, in generation and in training, and watches for variance; greedy validation is left out of both.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import nullcontext

import numpy as np
from report import print_table
from trl import GRPOConfig, GRPOTrainer

from diffusers_r1.bundles.planners import load_planner
from diffusers_r1.data import load_rows
from diffusers_r1.planners.encoded import encode_pictures_once, vision_tower
from diffusers_r1.rewards import ActionReward, FormatReward, SubjectReward
from diffusers_r1.training.arguments import as_prompts
from diffusers_r1.training.callbacks import VarianceWatch
from diffusers_r1.training.models import without_control_tokens


def seconds_of_steps(name: str, ours: bool, steps: int, completions: int, freeze_vision: bool) -> list[float]:
    """The seconds that each step of a fresh run took, the first one, which warms up, left out."""
    planner, processor, prompts = load_planner(name, dtype="float32")
    vision_tower(planner).requires_grad_(not freeze_vision)
    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder,
            max_steps=steps + 1,
            per_device_train_batch_size=completions,
            num_generations=8,
            max_completion_length=128,
            gradient_checkpointing=False,
            use_cpu=True,
            bf16=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        without_control_tokens(settings, planner, processor)
        trainer = GRPOTrainer(
            model=planner,
            processing_class=processor,
            args=settings,
            train_dataset=as_prompts(load_rows("scenes:complex=1"), processor, prompts, None),
            reward_funcs=[FormatReward(), ActionReward(), SubjectReward()],
            callbacks=[VarianceWatch()] if ours else None,
        )
        with encode_pictures_once(trainer.model) if ours else nullcontext():
            trainer.train()
    times = [row["step_time"] for row in trainer.state.log_history if "step_time" in row]
    return times[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--planner", default="imageedit-r1-scenes-sft")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--completions", type=int, default=64)
    args = parser.parse_args()
    rows = []
    for frozen in (True, False):
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(args.rounds):
            for ours in seconds:
                seconds[ours] += seconds_of_steps(args.planner, ours, args.steps, args.completions, frozen)
        for ours, times in seconds.items():
            rows.append(
                {
                    "vision tower": "frozen" if frozen else "trained",
                    "trainer": "train_grpo_planner.py" if ours else "bare GRPOTrainer",
                    "steps": len(times),
                    "median seconds": float(np.median(times)),
                    "spread": f"{min(times):.2f} to {max(times):.2f}",
                    "steps a second, ratio": float(np.median(seconds[False]) / np.median(times)),
                }
            )
    print_table(rows)


if __name__ == "__main__":
    main()
