"""How many plans are exactly right, by kind of task, greedy and as the best of eight samples.

    python benchmarks/scenes_planner.py imageedit-r1-scenes-sft --tasks 1000

Each name is a shipped bundle or a folder with a planner. Seeds start at 1,000,000,000 unless `--first_seed`
says otherwise, and are never trained on. A plan is exact when it holds the true edits and no other, in any order. The
commonest faults of the greedy plans are counted by how the request that went wrong points.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from report import print_table, wilson

from diffusers_r1.bundles.planners import load_planner
from diffusers_r1.matching import exact
from diffusers_r1.scenes import KINDS, TEST_SEEDS, sample_task
from diffusers_r1.tags import read_decomposition
from diffusers_r1.training.validation import decompose_all, score_answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("planners", nargs="+")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--tasks", type=int, default=500, help="of each kind")
    parser.add_argument("--samples", type=int, default=8, help="0 leaves out the best of several")
    parser.add_argument("--first_seed", type=int, default=TEST_SEEDS)
    args = parser.parse_args()

    rows, faults = [], {}
    for name in args.planners:
        planner, processor, prompts = load_planner(name, dtype="float32")
        for kind in args.kinds:
            tasks = [sample_task(args.first_seed + i, kind) for i in range(args.tasks)]
            about = (planner, processor, prompts, [t.image for t in tasks], [t.instruction for t in tasks])
            truths = [task.edits for task in tasks]
            answers = decompose_all(*about, max_new_tokens=160)
            marks = score_answers(answers, truths)
            best = np.array(marks["exact"])
            for sample in range(args.samples):
                drawn = decompose_all(*about, seed=sample, max_new_tokens=160, do_sample=True, temperature=1.0)
                best = (
                    np.maximum(best, score_answers(drawn, truths)["exact"])
                    if sample
                    else np.array(score_answers(drawn, truths)["exact"])
                )
            low, high = wilson(sum(marks["exact"]), len(tasks))
            rows.append(
                {
                    "planner": name,
                    "kind": kind,
                    "n": len(tasks),
                    **{mark: float(np.mean(values)) for mark, values in marks.items()},
                    "exact 95%": f"{low:.3f} to {high:.3f}",
                    f"best of {args.samples}": float(best.mean()) if args.samples else "",
                }
            )
            faults[name, kind] = count_faults(answers, tasks)
    print_table(rows)
    for (name, kind), counted in faults.items():
        print(f"{name}, {kind}: {counted.most_common(8)}")


def count_faults(answers: list[str], tasks: list) -> Counter:
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
