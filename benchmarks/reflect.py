"""What a second look mends on scenes: first edits are sabotaged, and an exact critic sends the pipeline back to them.

    python benchmarks/reflect.py

`dropped`: one sub-request was not asked for. `spoilt`: one cell that nobody asked about shows something else. `both`: both.
`none`: as the editor made it. Plans are the true ones, so that what is counted is the second look; a picture is right if its
nine cells and its background are. A picture counts as worse if fewer of these ten are right after it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np
from PIL import Image
from report import print_table, wilson
from tqdm import tqdm

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.evaluation.benchmarks import SAMPLE_SEED
from diffusers_r1.judging import ScenesCritic
from diffusers_r1.pipelines.pipeline_output import Turn
from diffusers_r1.pipelines.reflection import last_whole
from diffusers_r1.scenes import CONTENTS, KINDS, TEST_SEEDS, Task, contents, render, sample_task, score
from diffusers_r1.scenes.world import CELL, MARGIN


SABOTAGE = ("both", "dropped", "spoilt", "none")
BATCH = 25


def first_edits(
    pipe: ImageEditR1Pipeline, tasks: Sequence[Task], plans: Sequence[EditPlan], sabotage: str
) -> list[list[Turn]]:
    """The editor's turn of each task, sabotaged. What is dropped and spoilt follows from the task's seed."""
    dice = [np.random.default_rng(task.seed) for task in tasks]
    asked = list(plans)
    if sabotage in ("dropped", "both"):
        dropped = [int(random.integers(len(plan.requests))) for random, plan in zip(dice, plans)]
        asked = [
            replace(plan, requests=(*plan.requests[:place], *plan.requests[place + 1 :]))
            for plan, place in zip(plans, dropped)
        ]
    done = pipe.edit([task.image for task in tasks], asked)
    if sabotage in ("spoilt", "both"):
        done = [
            [*turns[:-1], replace(turns[-1], image=spoil(turns[-1].image, task, random))]
            for turns, task, random in zip(done, tasks, dice)
        ]
    return done


def spoil(image: Image.Image, task: Task, random: np.random.Generator) -> Image.Image:
    """The picture with another content in one of the cells that should be as they were."""
    was, should = contents(task.scene), contents(task.target_scene)
    place = int(random.choice([place for place in range(9) if was[place] == should[place]]))
    others = [content for content in CONTENTS if content != task.target_scene.cells[place]]
    shown = render(task.target_scene.with_cell(place, others[random.integers(len(others))]))
    row, column = divmod(place, 3)
    left, top = MARGIN + column * CELL, MARGIN + row * CELL
    box = (left, top, left + CELL, top + CELL)
    spoilt = image.copy()
    spoilt.paste(shown.crop(box), box)
    return spoilt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="imageedit-r1-scenes")
    parser.add_argument("--kind", default="complex", choices=[kind for kind in KINDS if kind != "simple"])
    parser.add_argument("--sabotage", nargs="+", default=list(SABOTAGE), choices=SABOTAGE)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--first_seed", type=int, default=TEST_SEEDS + SAMPLE_SEED)
    parser.add_argument("--looks", type=int, default=2)
    args = parser.parse_args()
    pipe = ImageEditR1Pipeline.from_pretrained(args.model, planner=None, processor=None)
    pipe.set_progress_bar_config(disable=True)
    tasks = [sample_task(args.first_seed + number, args.kind) for number in range(args.tasks)]

    rows = []
    for sabotage in args.sabotage:
        before, after, looks, changed = [], [], 0, 0
        seconds = {"edit": 0.0, "looks": 0.0}
        for start in tqdm(range(0, len(tasks), BATCH), desc=sabotage):
            some = tasks[start : start + BATCH]
            images = [task.image for task in some]
            plans = [EditPlan(task.instruction, task.edits, task.sub_requests) for task in some]
            begun = perf_counter()
            done = first_edits(pipe, some, plans, sabotage)
            edited = perf_counter()
            story = pipe.reflect(images, plans, done, ScenesCritic(), args.looks)
            seconds["edit"] += edited - begun
            seconds["looks"] += perf_counter() - edited
            for task, image, first, turns in zip(some, images, done, story):
                old, new = last_whole(image, first), last_whole(image, turns)
                before.append(score(old, task))
                after.append(score(new, task))
                changed += old is not new and all(before[-1])
                looks += turns[-1].look
        right = sum(map(all, after))
        rows.append(
            {
                "sabotage": sabotage,
                "n": len(tasks),
                "right before": sum(map(all, before)) / len(tasks),
                "right after": right / len(tasks),
                "95%": "{:.3f} to {:.3f}".format(*wilson(right, len(tasks))),
                "worse": sum(sum(new) < sum(old) for old, new in zip(before, after)),
                "right ones changed": changed,
                "looks a picture": looks / len(tasks),
                "seconds, looks to edit": seconds["looks"] / seconds["edit"],
            }
        )
    print_table(rows)


if __name__ == "__main__":
    main()
