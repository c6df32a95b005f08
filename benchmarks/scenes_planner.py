"""How many plans are exactly right, by kind of task, greedy and as the best of eight samples.

    python benchmarks/scenes_planner.py imageedit-r1-scenes-sft --tasks 1000
    python benchmarks/scenes_planner.py runs/scenes-references --kinds reference --samples 0

Each name is a shipped bundle or a folder with a planner. Seeds start at 1,000,000,000 unless `--first_seed`
says otherwise, and are never trained on. A plan is exact when it holds the true edits and no other, in any order. The
commonest faults of the greedy plans are counted by how the request that went wrong points.

Tasks of the kind `reference`, which a second picture decides, are asked in three ways: with their own second picture, with
that of another task, and with none. What a planner can reach that sees the first picture alone is computed beside it: all
colors that the shape can be given are equally likely.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

import numpy as np
from PIL import Image
from report import print_table, wilson

from diffusers_r1.bundles.planners import load_planner
from diffusers_r1.matching import exact
from diffusers_r1.scenes import ALL_KINDS, COLORS, KINDS, TEST_SEEDS, TWO_PICTURES, Item, Task, sample_task
from diffusers_r1.tags import read_decomposition
from diffusers_r1.training.validation import decompose_all, score_answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("planners", nargs="+")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=ALL_KINDS)
    parser.add_argument("--tasks", type=int, default=500, help="of each kind")
    parser.add_argument("--samples", type=int, default=8, help="0 leaves out the best of several")
    parser.add_argument("--first_seed", type=int, default=TEST_SEEDS)
    args = parser.parse_args()

    rows, faults = [], {}
    for name in args.planners:
        planner = load_planner(name, dtype="float32")
        for kind in args.kinds:
            tasks = [sample_task(args.first_seed + i, kind) for i in range(args.tasks)]
            for pictures, references in ways_to_ask(tasks, kind).items():
                about = planner, tasks, references
                answers = ask(*about)
                asked = {"planner": name, "kind": kind, "pictures": pictures, "n": len(tasks)}
                rows.append(asked | marks_of(answers, tasks) | best_of(args.samples, *about))
                faults[name, kind, pictures] = count_faults(answers, tasks)
    print_table(rows)
    for (name, kind, pictures), counted in faults.items():
        print(f"{name}, {kind}, {pictures}: {counted.most_common(8)}")
    if TWO_PICTURES in args.kinds:
        tasks = [sample_task(args.first_seed + i, TWO_PICTURES) for i in range(args.tasks)]
        print(f"The first picture alone allows {np.mean([chance(task) for task in tasks]):.3f} of {TWO_PICTURES}.")


def ways_to_ask(tasks: list[Task], kind: str) -> dict[str, list[list[Image.Image]]]:
    """The further pictures of each task, by what they are called in the table."""
    own = [task.reference_images for task in tasks]
    if kind != TWO_PICTURES:
        return {"its own": own}
    return {"its own": own, "another second one": [*own[1:], own[0]], "the first alone": [[] for _ in tasks]}


def ask(
    planner: tuple[Any, Any, Any], tasks: list[Task], references: list[list[Image.Image]], **sampling: Any
) -> list[str]:
    images, instructions = [task.image for task in tasks], [task.instruction for task in tasks]
    return decompose_all(*planner, images, instructions, references=references, max_new_tokens=160, **sampling)


def marks_of(answers: list[str], tasks: list[Task]) -> dict[str, Any]:
    marks = score_answers(answers, [task.edits for task in tasks])
    low, high = wilson(sum(marks["exact"]), len(tasks))
    return {
        **{mark: float(np.mean(values)) for mark, values in marks.items()},
        "exact 95%": f"{low:.3f} to {high:.3f}",
    }


def best_of(samples: int, planner: tuple[Any, Any, Any], tasks: list[Task], references: Any) -> dict[str, Any]:
    """The share of tasks of which one of so many sampled plans is exact."""
    found = np.zeros(len(tasks))
    for seed in range(samples):
        drawn = ask(planner, tasks, references, seed=seed, do_sample=True, temperature=1.0)
        found = np.maximum(found, score_answers(drawn, [task.edits for task in tasks])["exact"])
    return {f"best of {samples}": float(found.mean()) if samples else ""}


def chance(task: Task) -> float:
    """How likely a plan is right that gives the shape any of the colors in which the scene does not have it yet."""
    shape = task.edits[0].subject.split(" ")[1]
    return 1 / sum(Item(color, shape) not in task.scene.items for color in COLORS)


def count_faults(answers: list[str], tasks: list[Task]) -> Counter:
    """Of each greedy plan that is not exact, the requests whose edits are missing, by how they point."""
    counted: Counter = Counter()
    for answer, task in zip(answers, tasks):
        found = read_decomposition(answer)
        if exact(found.edits, task.edits):
            continue
        missing = [part for part in task.parts if not set(part.edits) <= set(found.edits)]
        counted.update(
            f"{part.pointer} {'as said' if set(part.literal) <= set(found.edits) else 'misread'}" for part in missing
        )
        counted.update(["too much" for _ in [0] if not missing])
    return counted


if __name__ == "__main__":
    main()
