"""What planning saves by reading things once, as ratios within one run.

    python benchmarks/planning_speed.py cache     # about 100 M random weights, a picture of 1,000 tokens
    python benchmarks/planning_speed.py plans
    python benchmarks/planning_speed.py batch     # the shipped bundle

cache: both questions in one conversation against two plain `generate` calls. plans: 8 sampled plans of one picture in one
call against eight calls. batch: 16 instructions in one call against 16 calls. Where nothing is sampled the texts must be
equal, or the script fails. Ways alternate; the first round warms up.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from midsize import midsize_planner, picture_of_1000_tokens, without_end
from report import print_table

from diffusers_r1 import Prompts
from diffusers_r1.bundles.planners import load_planner
from diffusers_r1.planners.conversation import Conversation
from diffusers_r1.planners.plans import make_plans
from diffusers_r1.scenes import TEST_SEEDS, sample_task


Ways = dict[str, Callable[[], Any]]

INSTRUCTION = "recolor the coat to match the car, brighten the light and remove the man in the background"
SHORT = Prompts(decompose="Name actions, subjects and goals. {instruction}", sequence="Now put them in order.")


def cache(args: argparse.Namespace) -> Iterator[Ways]:
    planner, processor = midsize_planner()
    image, settings = picture_of_1000_tokens(), without_end(processor)

    def plain() -> list[str]:
        messages, answers = SHORT.first_turn(INSTRUCTION, image), []
        for _ in range(2):
            text = processor.apply_chat_template(messages, add_generation_prompt=True)
            inputs = processor(text=[text], images=[[image]], return_tensors="pt")
            output = planner.generate(**inputs, max_new_tokens=args.tokens, do_sample=False, **settings)
            answers += processor.batch_decode(output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
            messages = SHORT.second_turn(messages, answers[0])
        return answers

    def shared() -> list[str]:
        talk = Conversation(planner, processor, [image], [INSTRUCTION], SHORT)
        return [talk.decompose(args.tokens, **settings)[0], talk.sequence(max_new_tokens=args.tokens, **settings)[0]]

    while True:
        yield {"two generate calls": plain, "one conversation": shared}


def plans(args: argparse.Namespace) -> Iterator[Ways]:
    planner, processor = midsize_planner()
    image, settings = picture_of_1000_tokens(), {"do_sample": True, "max_new_tokens": args.tokens}
    settings.update(without_end(processor))
    about = planner, processor, [image], [INSTRUCTION], SHORT

    def answers(talk: Conversation, times: int) -> None:
        talk.decompose(num_answers=times, **settings)
        talk.sequence(**settings)

    while True:
        yield {
            "8 calls": lambda: [answers(Conversation(*about), 1) for _ in range(8)] and None,
            "8 plans in one call": lambda: answers(Conversation(*about), 8),
        }


def batch(args: argparse.Namespace) -> Iterator[Ways]:
    planner, processor, prompts = load_planner(args.model, dtype="float32")
    number = TEST_SEEDS

    def plan(tasks, **settings):
        about = [task.image for task in tasks], [task.instruction for task in tasks]
        return make_plans(planner, processor, *about, prompts, max_new_tokens=160, **settings)

    while True:
        tasks = [sample_task(number + i, "chained") for i in range(16)]
        number += 16
        yield {
            "16 calls": lambda: [plan([task])[0] for task in tasks],  # noqa: B023
            "16 calls, no shared cache": lambda: [
                plan([task], sequencer=(planner, processor))[0]
                for task in tasks  # noqa: B023
            ],
            "one call of 16": lambda: plan(tasks),  # noqa: B023
        }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("cache", "plans", "batch"))
    parser.add_argument("--model", default="imageedit-r1-scenes-sft", help="of batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64, help="of each answer, of cache and plans")
    args = parser.parse_args()

    times: dict[str, list[float]] = {}
    rounds = {"cache": cache, "plans": plans, "batch": batch}[args.what](args)
    for number, ways in zip(range(args.rounds + 1), rounds):
        made = []
        for name, way in ways.items():
            start = time.perf_counter()
            made.append(way())
            if number:
                times.setdefault(name, []).append(time.perf_counter() - start)
        if any(one != made[0] for one in made):
            raise SystemExit(f"the ways of round {number} differ: {made}")
    medians = {name: statistics.median(values) for name, values in times.items()}
    first = next(iter(medians))
    print_table(
        [
            {
                "way": name,
                "rounds": args.rounds,
                "median seconds": medians[name],
                "spread": f"{min(times[name]):.2f} to {max(times[name]):.2f}",
                "speed, ratio": medians[first] / medians[name],
            }
            for name in times
        ]
    )


if __name__ == "__main__":
    main()
