"""What best of n adds to the pipeline on scenes: with a selector that knows the truth, and with one that knows nothing.

    python benchmarks/best_of_n.py                                    # the shipped planner
    python benchmarks/best_of_n.py --planner imageedit-r1-scenes-sft  # before training by reward

`truth` keeps a picture in which every cell is right, if there is one: more no selector can reach. `most alike` keeps the
picture that is nearest to all the others, without a judge: what the planner says most often.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from PIL import Image
from report import print_table, wilson
from tqdm import tqdm

from diffusers_r1 import ImageEditR1Pipeline, ImageEditR1PipelineOutput, load_planner
from diffusers_r1.evaluation.benchmarks import SAMPLE_SEED
from diffusers_r1.scenes import KINDS, TEST_SEEDS, Task, sample_task, score


def edit(pipe: ImageEditR1Pipeline, task: Task, turns: str, seed: int, **settings: Any) -> ImageEditR1PipelineOutput:
    noise = torch.Generator().manual_seed(seed)
    return pipe(task.image, task.instruction, turns=turns, generator=noise, max_new_tokens=160, **settings)


def most_alike(source: Image.Image, instruction: str, candidates: list[Image.Image]) -> list[float]:
    pixels = np.stack([np.asarray(candidate, dtype=float) for candidate in candidates])
    return [-np.abs(pixels - one).mean() for one in pixels]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="imageedit-r1-scenes")
    parser.add_argument("--planner", help="another one in the bundle's place")
    parser.add_argument("--kinds", nargs="+", default=["indirect", "complex"], choices=KINDS)
    parser.add_argument("--tasks", type=int, default=200, help="of each kind")
    parser.add_argument("--first_seed", type=int, default=TEST_SEEDS + SAMPLE_SEED)
    parser.add_argument("--plans", type=int, default=8)
    args = parser.parse_args()
    pipe = ImageEditR1Pipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    if args.planner:
        pipe.planner, pipe.processor, pipe.prompts = load_planner(args.planner, dtype="float32")

    rows = []
    for kind in args.kinds:
        tasks = [sample_task(args.first_seed + number, kind) for number in range(args.tasks)]
        for turns in ("single", "multi"):
            right: dict[str, list[bool]] = {"greedy": [], "most alike": [], "truth": []}
            for number, task in enumerate(tqdm(tasks, desc=f"{kind}, {turns}")):
                greedy = edit(pipe, task, turns, number)
                best = edit(pipe, task, turns, number, num_plans=args.plans, selector=most_alike)
                right["greedy"].append(all(score(greedy.images[0], task)))
                right["most alike"].append(all(score(best.images[0], task)))
                right["truth"].append(any(all(score(made.image, task)) for made in best.candidates[0]))
            rows += [
                {
                    "kind": kind,
                    "turns": turns,
                    "choice": name if name == "greedy" else f"best of {args.plans}, {name}",
                    "n": args.tasks,
                    "all cells right": sum(hits) / args.tasks,
                    "95%": "{:.3f} to {:.3f}".format(*wilson(sum(hits), args.tasks)),
                }
                for name, hits in right.items()
            ]
    print_table(rows)


if __name__ == "__main__":
    main()
