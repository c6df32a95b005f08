"""A true plan carried out in one prompt, in a turn for each sub-request, and in one turn whose guidance is added up.

    python benchmarks/composed_turns.py --tasks 500 --guidance 1.001:1 1.5:4

Each entry of `--guidance` is `guidance_scale:steps`. The editor of `--model` has to have classifier-free guidance. The
shipped one was trained with an empty prompt in one row of twenty; at 1.001 and one step, its guided prediction is the plain
one. All ways have the same editor, settings, tasks and noise. Seeds start at 1,000,000,000 and are never trained on.
"""

from __future__ import annotations

import argparse
import time
from itertools import count, islice

import torch
from report import print_table, wilson

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.scenes import TEST_SEEDS, Task, sample_task, score


WAYS = ("single", "multi", "composed")
BATCH = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="imageedit-r1-scenes")
    parser.add_argument("--edits", nargs="+", type=int, default=[2, 3, 4])
    parser.add_argument("--tasks", type=int, default=500, help="of each number of edits")
    parser.add_argument("--guidance", nargs="+", default=["1.001:1"], help="guidance_scale:steps")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    args = parser.parse_args()

    pipe = ImageEditR1Pipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    rows = []
    for settings in args.guidance:
        scale, steps = settings.split(":")
        for edits in args.edits:
            tasks = list(islice(tasks_of(edits), args.tasks))
            for way in args.ways:
                start = time.perf_counter()
                right = sum(edited_right(pipe, tasks, way, float(scale), int(steps)))
                low, high = wilson(right, len(tasks))
                rows.append(
                    {
                        "guidance": float(scale),
                        "steps": int(steps),
                        "edits": edits,
                        "way": way,
                        "n": len(tasks),
                        "all cells right": right / len(tasks),
                        "95%": f"{low:.3f} to {high:.3f}",
                        "seconds a task": (time.perf_counter() - start) / len(tasks),
                    }
                )
                print(rows[-1], flush=True)
    print_table(rows)


def tasks_of(edits: int):
    """Explicit tasks of so many edits, in the order of their seeds."""
    tasks = (sample_task(TEST_SEEDS + number, "chained") for number in count())
    return (task for task in tasks if len(task.sub_requests) == edits)


def edited_right(pipe: ImageEditR1Pipeline, tasks: list[Task], way: str, scale: float, steps: int) -> list[bool]:
    """Whether every cell came out right, for each task."""
    marks = []
    for start in range(0, len(tasks), BATCH):
        batch = tasks[start : start + BATCH]
        images = pipe(
            [task.image for task in batch],
            plan=[EditPlan(task.instruction, task.edits, task.sub_requests) for task in batch],
            turns=way,
            generator=[torch.Generator().manual_seed(start + row) for row in range(len(batch))],
            guidance_scale=scale,
            image_guidance_scale=1.0,
            num_inference_steps=steps,
        ).images
        marks += [all(score(image, task)) for image, task in zip(images, batch)]
    return marks


if __name__ == "__main__":
    main()
