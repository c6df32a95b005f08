"""What the pipeline costs over the same three calls made by hand: generate, generate, editor.

    python benchmarks/pipeline_overhead.py

Bound by the editor's steps. By hand and through the pipeline alternate within one run; the ratio is that of the medians.
The pictures must be equal to the pixel, or the script fails. By hand the second question is put as a new conversation,
since plain `generate` keeps nothing. So does the shipped bundle, whose second question goes to a sequencer of its own;
`--one_model` has the planner answer both, which brings the shared cache into what is compared.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from report import print_table

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.scenes import TEST_SEEDS, sample_task
from diffusers_r1.tags import read_sequence


def by_hand(pipe: ImageEditR1Pipeline, task, seed: int):
    """Edit a task's picture with nothing but `transformers` and `diffusers`."""
    messages, answers = pipe.prompts.first_turn(task.instruction, task.image), []
    second = pipe.sequencer or pipe.planner
    for model in (pipe.planner, second):
        text = pipe.processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = pipe.processor(text=[text], images=[[task.image]], return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=160, do_sample=False)
        answers += pipe.processor.batch_decode(output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
        messages = pipe.prompts.second_turn(messages, answers[0])
    prompt = EditPlan("", (), read_sequence(answers[1]).requests).prompts()[0]
    generator = torch.Generator().manual_seed(seed)
    return pipe.editor(prompt, task.image, generator=generator, **pipe.editor_defaults).images[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="imageedit-r1-scenes")
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument(
        "--one_model", action="store_true", help="the planner answers both questions of one conversation"
    )
    args = parser.parse_args()
    pipe = ImageEditR1Pipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    if args.one_model:
        pipe.register_modules(sequencer=None, sequencer_processor=None)
    times: dict[str, list[float]] = {"by hand": [], "pipeline": []}
    for number in range(args.tasks + 2):
        task = sample_task(TEST_SEEDS + number, "chained")
        start = time.perf_counter()
        expected = by_hand(pipe, task, number)
        middle = time.perf_counter()
        generator = torch.Generator().manual_seed(number)
        image = pipe(task.image, task.instruction, generator=generator, max_new_tokens=160).images[0]
        end = time.perf_counter()
        if not np.array_equal(np.asarray(expected), np.asarray(image)):
            raise SystemExit(f"task {number}: the pictures differ")
        if number >= 2:  # the first ones warm up
            times["by hand"].append(middle - start)
            times["pipeline"].append(end - middle)
    medians = {name: statistics.median(values) for name, values in times.items()}
    quartiles = {name: statistics.quantiles(values, n=4) for name, values in times.items()}
    print_table(
        [
            {
                "way": name,
                "n": args.tasks,
                "median seconds": medians[name],
                "quartiles": f"{quartiles[name][0]:.3f} to {quartiles[name][2]:.3f}",
                "ratio": medians[name] / medians["by hand"],
            }
            for name in times
        ]
    )


if __name__ == "__main__":
    main()
