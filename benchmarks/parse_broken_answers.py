"""How much processor time the slowest of 10,000 broken answers takes to become a plan; an exception fails the script.

python benchmarks/parse_broken_answers.py
"""

from __future__ import annotations

import random
import statistics
import time

from report import print_table

from diffusers_r1.planners.plans import to_plan
from diffusers_r1.scenes import describe, sample_task
from diffusers_r1.tags import write_decomposition, write_sequence


PIECES = (
    "<think>",
    "</think>",
    "<action>",
    "</goal>",
    "<sequence>",
    ";",
    "; ;",
    "<",
    ">",
    "\n",
    "漢",
    "\x00",
    " " * 50,
)


def broken(text: str, rng: random.Random) -> str:
    """`text` after 1 to 6 cuts, insertions, repetitions and changes of case, at most 4,000 characters long."""
    for _ in range(rng.randint(1, 6)):
        at, to = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        text = rng.choice(
            (
                text[:at],
                text[:at] + text[to:],
                text[:at] + rng.choice(PIECES) + text[at:],
                text[:to] + text[at:],
                text[:at] + text[at:to] * rng.randint(2, 40) + text[to:],
                text[at:to] * rng.randint(2, 40),
                text[:at] + text[at:to].swapcase() + text[to:],
            )
        )[:4000]
    return text


def main() -> None:
    rng = random.Random(2603)
    times, fallbacks = [], 0
    for number in range(10_000):
        task = sample_task(number % 500, "chained")
        answers = write_decomposition(task.edits, describe(task.scene)), write_sequence(task.sub_requests)
        decomposition, sequence = (broken(answer, rng) for answer in answers)
        start = time.thread_time()
        plan = to_plan(task.instruction, decomposition, sequence)
        times.append(1000 * (time.thread_time() - start))
        fallbacks += plan.fallback
    print_table(
        [
            {
                "answers": len(times),
                "marked fallbacks": fallbacks,
                "median ms": statistics.median(times),
                "slowest ms": max(times),
            }
        ]
    )


if __name__ == "__main__":
    main()
