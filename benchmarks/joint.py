"""Who should learn: each planner with each editor of joint training, on the same unseen tasks and from the same noise.

    python benchmarks/joint.py --editor runs/early-editor/pipeline --runs runs/joint-1 runs/joint-2 runs/joint-3

Each folder of `--runs` is a seed and has three runs of `train_grpo_joint.py`: `planner`, `editor` and `joint`, called after
who learned. Planner and editor of each are taken apart and tried with those of the start, and with each other where they are
of one seed: single-turn, on complex tasks. `true plans` gives each editor the true sub-requests, of complex and of simple
tasks. Plans are greedy, and put into words by the sequencer of training. The four pairs that answer the question are tried on
`--tasks` tasks, all others on the first `--swap_tasks` of them. With `--kept` a run that was stopped goes on, and further seeds
cost no more than themselves.

A task's mark is its mean over the seeds; intervals are those of the mean over tasks, and how seeds spread is beside them.
`joint ahead` is by how much the joint pair is better on the same tasks. Tasks start at 1,000,000,000 unless `--first_seed`
says otherwise, and are never trained on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from report import print_table

from diffusers_r1 import EditPlan
from diffusers_r1.bundles.planners import load_planner
from diffusers_r1.pipelines.nested.loading import load_editor
from diffusers_r1.records import write_whole
from diffusers_r1.scenes import TEST_SEEDS, Task, sample_task, score
from diffusers_r1.training.pictures import Renderer


BATCH = 250
START, PLANNER, EDITOR, JOINT, TRUE = "start", "planner", "editor", "joint", "true plans"
ASKED = (START, START), (PLANNER, START), (START, EDITOR), (JOINT, JOINT)  # planner and editor
ARGUMENTS = '{"num_inference_steps": 4, "eta": 0.7, "guidance_scale": 1.0, "image_guidance_scale": 1.0}'
Z = 1.959964  # of 95%


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--planner", default="imageedit-r1-scenes-sft", help="that training started from")
    parser.add_argument("--editor", required=True, help="that training started from: a pipeline or a bundle")
    parser.add_argument("--editor_arguments", default=ARGUMENTS, help="how it is called, as JSON")
    parser.add_argument("--runs", nargs="*", type=Path, default=[], help="a folder for each seed")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--swap_tasks", type=int, default=300)
    parser.add_argument("--first_seed", type=int, default=TEST_SEEDS)
    parser.add_argument("--kept", type=Path, help="a file of marks: those that are there are not made again")
    args = parser.parse_args()

    trial = Trial(args)
    marks = defaultdict(list)  # of each pair, an array for each seed
    for editor, run in [(START, None), *((name, run) for run in args.runs for name in (EDITOR, JOINT))]:
        for kind in ("complex", "simple"):
            marks[TRUE, editor, kind].append(trial.marks(TRUE, None, editor, run, kind, args.swap_tasks))
        for planner, its_run in [
            (START, None),
            *((name, its_run) for its_run in args.runs for name in (PLANNER, JOINT)),
        ]:
            if None in (run, its_run) or run == its_run:
                count = args.tasks if (planner, editor) in ASKED else args.swap_tasks
                marks[planner, editor, "complex"].append(trial.marks(planner, its_run, editor, run, "complex", count))
    joint = marks.get((JOINT, JOINT, "complex"))
    print_table([row(*names, found, joint) for names, found in marks.items()])


class Trial:
    """Tries planners with editors; each is loaded, and each planner asked, once it is needed."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        arguments = json.loads(args.editor_arguments)
        self.renderer = Renderer(args.editor, args.planner, batch_size=BATCH, arguments=arguments)
        self.renderer.load()
        self.editors = {(START, None): self.renderer.pipeline.editor}
        self.plans: dict[tuple[str, Path | None], list[EditPlan]] = {}
        self.kept = json.loads(args.kept.read_text(encoding="utf-8")) if args.kept and args.kept.exists() else {}

    def marks(
        self, planner: str, planner_run: Path | None, editor: str, editor_run: Path | None, kind: str, count: int
    ) -> np.ndarray:
        """Of each of the first tasks, whether all cells are right: 1.0 or 0.0."""
        key = f"{planner} {planner_run}, {editor} {editor_run}, {kind}, {count} from {self.args.first_seed}"
        if key not in self.kept:
            tasks = self._tasks(kind, count)
            if planner == TRUE:
                plans = [EditPlan(task.instruction, task.edits, task.sub_requests) for task in tasks]
            else:
                plans = self._planned(planner, planner_run)[:count]
            self.renderer.pipeline.editor = self._editor(editor, editor_run)
            shown = [task.image for task in tasks], plans, [task.seed for task in tasks]
            self.kept[key] = [
                int(all(score(picture, task))) for picture, task in zip(self.renderer.pictures(*shown), tasks)
            ]
            print(f"{key}: {np.mean(self.kept[key]):.3f}", file=sys.stderr, flush=True)
            if self.args.kept:
                write_whole(self.args.kept, json.dumps(self.kept))
        return np.array(self.kept[key], dtype=float)

    def _tasks(self, kind: str, count: int) -> list[Task]:
        return [sample_task(self.args.first_seed + number, kind) for number in range(count)]

    def _editor(self, name: str, run: Path | None) -> Any:
        if run is not None and (name, run) not in self.editors:
            self.editors[name, run] = load_editor(run / name / "bundle")
        return self.editors[name, run]

    def _planned(self, name: str, run: Path | None) -> list[EditPlan]:
        """A planner's greedy plans of all complex tasks."""
        if (name, run) not in self.plans:
            pipe = self.renderer.pipeline
            where = self.args.planner if run is None else run / name / "bundle"
            pipe.planner, pipe.processor, pipe.prompts = load_planner(where, dtype="float32")
            tasks, found = self._tasks("complex", self.args.tasks), []
            for start in range(0, len(tasks), BATCH):
                batch = tasks[start : start + BATCH]
                instructions = [task.instruction for task in batch]
                found += pipe.plan([task.image for task in batch], instructions, max_new_tokens=128)
            self.plans[name, run] = found
        return self.plans[name, run]


def row(planner: str, editor: str, kind: str, found: list[np.ndarray], joint: list[np.ndarray] | None) -> dict:
    of_tasks = np.mean(found, axis=0)
    ahead = ""
    if joint is not None and planner != TRUE:
        middle, low, high = interval(np.mean(joint, axis=0)[: len(of_tasks)] - of_tasks)
        ahead = f"{middle:+.3f} ({low:+.3f} to {high:+.3f})"
    middle, low, high = interval(of_tasks)
    return {
        "planner": planner,
        "editor": editor,
        "kind": kind,
        "n": len(of_tasks),
        "all cells right": middle,
        "95%": f"{low:.3f} to {high:.3f}",
        "by seed": ", ".join(f"{one.mean():.3f}" for one in found),
        "joint ahead": ahead,
    }


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The mean of values, and the ends of its 95% interval."""
    middle = float(values.mean())
    half = Z * float(values.std(ddof=1)) / len(values) ** 0.5
    return middle, middle - half, middle + half


if __name__ == "__main__":
    main()
