"""How much of planning `pipe.stream` hides behind the editor, and when the first result comes.

    python benchmarks/stream.py --steps 10 --size 256     # both on this CPU, a core each
    python benchmarks/stream.py --steps 20 --wait 0.1     # an editor that waits, as a program does for its accelerator

12 pictures, one at a time. The stages alone (all plans, then all edits) and the stream alternate within one run; the ratio
is the stream's time to that of the slower stage. The results must be equal and in order, or the script fails.

Two threads share Python's interpreter lock. With pictures of 64x64 pixels most of the editor's time is Python's, as it is in
no real editor, and a second core can do little; of larger ones the computing is done outside the lock.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from report import print_table

from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.scenes import TEST_SEEDS, sample_task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="imageedit-r1-scenes")
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1, help="of the editor")
    parser.add_argument("--size", type=int, default=64, help="of the pictures, in pixels; the planner sees 64 of each")
    parser.add_argument("--wait", type=float, default=0.0, help="seconds that each step of the editor waits")
    args = parser.parse_args()
    pipe = ImageEditR1Pipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    tasks = [sample_task(TEST_SEEDS + number, "chained") for number in range(args.pictures)]
    images = [task.image.resize((args.size, args.size)) for task in tasks]
    instructions = [task.instruction for task in tasks]

    def wait(editor, step, timestep, values):
        time.sleep(args.wait)
        return values

    settings = {"num_inference_steps": args.steps, "callback_on_step_end": wait}

    def seeded(number: int) -> torch.Generator:
        return torch.Generator().manual_seed(number)

    rows = []
    for number in range(args.rounds + 1):
        clock = [time.perf_counter()]
        plans = [pipe.plan(image, text, max_new_tokens=160) for image, text in zip(images, instructions)]
        clock.append(time.perf_counter())
        edited = [
            pipe(image, plan=plan, generator=seeded(row), **settings).images[0]
            for row, (image, plan) in enumerate(zip(images, plans))
        ]
        clock.append(time.perf_counter())
        generators = [seeded(row) for row in range(len(tasks))]
        arrivals, results = [], []
        for out in pipe.stream(images, instructions, generators, max_new_tokens=160, **settings):
            arrivals.append(time.perf_counter() - clock[2])
            results.append(out)
        if [out.plans[0] for out in results] != plans:
            raise SystemExit(f"round {number}: the plans differ")
        if not all(
            np.array_equal(np.asarray(out.images[0]), np.asarray(image)) for out, image in zip(results, edited)
        ):
            raise SystemExit(f"round {number}: the pictures differ")
        if number:  # the first round warms up
            planning, editing = clock[1] - clock[0], clock[2] - clock[1]
            rows.append((planning, editing, arrivals[0], arrivals[-1], arrivals[-1] / max(planning, editing)))
    planning, editing, first, total, ratio = (statistics.median(column) for column in zip(*rows))
    print_table(
        [
            {
                "pictures": args.pictures,
                "size": args.size,
                "steps": args.steps,
                "wait a step": args.wait,
                "rounds": args.rounds,
                "planning alone, s": planning,
                "editing alone, s": editing,
                "first result after, s": first,
                "stream, s": total,
                "to the slower stage": ratio,
                "spread": f"{min(row[-1] for row in rows):.3f} to {max(row[-1] for row in rows):.3f}",
                "to both in turn": total / (planning + editing),
            }
        ]
    )


if __name__ == "__main__":
    main()
