"""What the shared cache and batches save in planning, as ratios within one run.

    python benchmarks/planning_speed.py

Shared cache: both questions in one conversation against a second conversation that repeats the first; same text, or the
script fails. Batch: 16 instructions in one call against 16 calls; same plans, or the script fails. Ways alternate.
"""

from __future__ import annotations

import argparse
import statistics
import time

from report import print_table

from diffusers_r1.bundles.planners import load_planner
from diffusers_r1.planning import make_plans
from diffusers_r1.scenes import TEST_SEEDS, sample_task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="imageedit-r1-scenes")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    planner, processor, prompts = load_planner(args.model, dtype="float32")

    def plan(tasks, **settings):
        about = [task.image for task in tasks], [task.instruction for task in tasks]
        return make_plans(planner, processor, *about, prompts, max_new_tokens=160, **settings)

    ways = {
        "16 calls": lambda tasks: [plan([task])[0] for task in tasks],
        "16 calls, no shared cache": lambda tasks: [plan([task], sequencer=(planner, processor))[0] for task in tasks],
        "one call of 16": plan,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(args.rounds + 1):
        tasks = [sample_task(TEST_SEEDS + 16 * number + i, "chained") for i in range(16)]
        made = {}
        for name, way in ways.items():
            start = time.perf_counter()
            made[name] = way(tasks)
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - start)
        for name, plans in made.items():
            if plans != made["16 calls"]:
                raise SystemExit(f"{name}: the plans differ")
    medians = {name: statistics.median(values) for name, values in times.items()}
    print_table(
        [
            {
                "way": name,
                "rounds": args.rounds,
                "median seconds": medians[name],
                "spread": f"{min(times[name]):.2f} to {max(times[name]):.2f}",
                "plans a second, ratio": medians["16 calls"] / medians[name],
            }
            for name in ways
        ]
    )


if __name__ == "__main__":
    main()
