"""How many tasks are edited right in every cell: true plan, bare editor, and the whole pipeline, with intervals.

    python benchmarks/scenes_editing.py --methods oracle bare pipeline --tasks 500

`oracle` gives the editor the true sub-requests, `bare` the user's instruction as it is, `pipeline` what the planner of
`--model` makes of it, and any other name is a planner (a shipped one or a folder) put into that pipeline. Plans are
greedy. Seeds start at 1,000,000,000 unless `--first_seed` says otherwise, and are never trained on.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from report import print_table, wilson

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.bundles.planners import load_planner
from diffusers_r1.scenes import KINDS, TEST_SEEDS, sample_task, score


BATCH = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="imageedit-r1-scenes")
    parser.add_argument("--methods", nargs="+", default=["oracle", "bare", "pipeline"])
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--turns", nargs="+", default=["single"], choices=["single", "multi"])
    parser.add_argument("--tasks", type=int, default=500, help="of each kind")
    parser.add_argument("--first_seed", type=int, default=TEST_SEEDS)
    args = parser.parse_args()

    pipe = ImageEditR1Pipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    rows = []
    for method in args.methods:
        if method not in ("oracle", "bare", "pipeline"):
            pipe.planner, pipe.processor, pipe.prompts = load_planner(method, dtype=torch.float32)
        for kind in args.kinds:
            tasks = [sample_task(args.first_seed + i, kind) for i in range(args.tasks)]
            for turns in args.turns if method != "bare" else ["single"]:
                start = time.perf_counter()
                marks = [all(score(*pair)) for pair in zip(edit(pipe, method, tasks, turns), tasks)]
                low, high = wilson(sum(marks), len(marks))
                rows.append(
                    {
                        "method": method,
                        "turns": turns,
                        "kind": kind,
                        "n": len(tasks),
                        "all cells right": float(np.mean(marks)),
                        "95%": f"{low:.3f} to {high:.3f}",
                        "seconds": round(time.perf_counter() - start),
                    }
                )
                print(rows[-1], flush=True)
    print_table(rows)


def edit(pipe: ImageEditR1Pipeline, method: str, tasks: list, turns: str) -> list:
    """The pictures that a method makes of tasks, `BATCH` at a time."""
    images = []
    for start in range(0, len(tasks), BATCH):
        batch = tasks[start : start + BATCH]
        sources = [task.image for task in batch]
        generator = torch.Generator().manual_seed(start)
        if method == "oracle":
            given = {"plan": [EditPlan(task.instruction, task.edits, task.sub_requests) for task in batch]}
        elif method == "bare":
            given = {"plan": [EditPlan(task.instruction, (), (task.instruction,)) for task in batch]}
        else:
            given = {"instruction": [task.instruction for task in batch], "max_new_tokens": 160}
        images += pipe(sources, **given, turns=turns, generator=generator).images
    return images


if __name__ == "__main__":
    main()
