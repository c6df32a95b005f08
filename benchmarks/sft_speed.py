"""Seconds of a supervised step, forward and backward: TRL's `SFTTrainer` against `GroupedSFTTrainer`.

    python benchmarks/sft_speed.py --rounds 3

A random planner of 97.5 M parameters learns from a micro-batch of instructions about one picture, 4 of them by default, with
true answers of scenes, about 300 tokens each in its vocabulary of bytes. Both trainers have the same weights and rows and
one thread, and take turns in one process; seconds are the processor's. The first round, which warms up and in which the
packed rows are compared with rows of their own, is left out. What bounds the ratio is how much of a row is its picture.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import numpy as np
import torch
from datasets import Dataset
from midsize import midsize_planner, picture_of_1000_tokens
from report import print_table
from trl import SFTConfig, SFTTrainer

from diffusers_r1.data import load_rows
from diffusers_r1.prompts import Prompts
from diffusers_r1.training.arguments import as_prompts
from diffusers_r1.training.grouped_sft import GroupedSFTTrainer
from diffusers_r1.training.models import vision_towers


TRAINERS = {"bare": SFTTrainer, "grouped": GroupedSFTTrainer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=4, help="instructions about one picture")
    parser.add_argument("--side", type=int, help="pixels along each side; a picture of 1,000 tokens by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    picture = picture_of_1000_tokens()
    if args.side:
        picture = picture.resize((args.side, args.side))
    asked = [{**row, "image": picture} for row in load_rows("scenes", limit=args.rows)]
    seconds: dict[str, list[float]] = {name: [] for name in TRAINERS}
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        trainers = {}
        for name, trainer in TRAINERS.items():
            planner, processor = midsize_planner()
            for tower in vision_towers(planner).values():
                tower.requires_grad_(False)
            trainers[name] = trainer(
                model=planner,
                processing_class=processor,
                args=SFTConfig(
                    output_dir=folder,
                    per_device_train_batch_size=args.rows,
                    gradient_checkpointing=False,
                    max_length=None,
                    use_cpu=True,
                    bf16=False,
                    report_to="none",
                ),
                train_dataset=as_prompts(
                    Dataset.from_list(asked), processor, Prompts(decompose="{instruction}"), None, answered=True
                ),
            )
            trainers[name].model.train()
        for _ in range(args.rounds + 1):
            for name, trainer in trainers.items():
                inputs = trainer.data_collator([dict(row) for row in trainer.train_dataset])
                trainer.model.zero_grad()
                start = time.process_time()
                loss = trainer.compute_loss(trainer.model, inputs)
                loss.backward()
                seconds[name].append(time.process_time() - start)
                losses[name] = loss.item()
    rows = []
    for name, times in seconds.items():
        kept = times[1:]
        rows.append(
            {
                "trainer": name,
                "rows": args.rows,
                "tokens a row": int(inputs["attention_mask"].sum()) // args.rows,
                "forward and backward, s": float(np.median(kept)),
                "spread": f"{min(kept):.2f} to {max(kept):.2f}",
                "times as fast": float(np.median(seconds["bare"][1:]) / np.median(kept)),
                "n": len(kept),
                "loss": losses[name],
            }
        )
    print_table(rows)


if __name__ == "__main__":
    main()
