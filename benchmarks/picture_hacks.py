"""What a planner could try in place of understanding, and what the reward from the picture pays for it.

    python benchmarks/picture_hacks.py --tasks 200

Each attempt is an answer of the declared format, carried out by the sequencer and the editor of the shipped bundle and judged
exactly, as in training. `true plan` is the honest try that succeeds; `supervised start` is the honest try of a planner before
GRPO, greedy, answers without the format among them. A hack is not worth trying if it earns less than that one.

- `untouched picture`: what an editor that does nothing would hand over; no plan.
- `instruction echoed`: one edit, whose subject is the instruction.
- `nothing asked for`: an item is recoloured to what it is.
- `true plan, padded`: with an edit for everything else that is there, to what it is already; `one edit more`: with one of
  these. They are to earn less than the plan without.
- `every action at once`: each item removed, recoloured and replaced, something added, and the background changed.
- `only edits that show`: what the judge notices first, a new background, and no understanding.
- `goals everywhere`: each goal that the instruction asks for, given to every item.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

import numpy as np
from report import print_table

from diffusers_r1.bundles.planners import load_planner
from diffusers_r1.judging import ScenesJudge, scenes_marks
from diffusers_r1.plan import Edit
from diffusers_r1.scenes import BACKGROUNDS, COLORS, SHAPES, Task, reason, sample_task
from diffusers_r1.tags import write_decomposition
from diffusers_r1.training.pictures import PictureReward, Renderer
from diffusers_r1.training.validation import decompose_all


BUNDLE, START = "imageedit-r1-scenes", "imageedit-r1-scenes-sft"
FIRST_SEED = 500_000_000


def echoed(task: Task) -> list[Edit]:
    return [Edit("recolor", task.instruction.replace(";", ","), "as asked")]


def nothing(task: Task) -> list[Edit]:
    item = task.scene.items[0]
    return [Edit("recolor", str(item), item.color)]


def padded_by_one(task: Task) -> list[Edit]:
    return padded(task)[: len(task.edits) + 1]


def padded(task: Task) -> list[Edit]:
    spared = [item for item in task.scene.items if item in task.target_scene.items]
    kept = [Edit("recolor", str(item), item.color) for item in spared]
    return [*task.edits, *kept, Edit("background", "background", task.target_scene.background)]


def everything(task: Task) -> list[Edit]:
    edits = []
    for item in task.scene.items:
        color = next(color for color in COLORS if color != item.color)
        shape = next(shape for shape in SHAPES if shape != item.shape)
        edits += [Edit("recolor", str(item), color), Edit("replace", str(item), shape)]
        edits.append(Edit("remove", str(item), "nothing"))
    return [*edits, Edit("add", "red star", "center"), showing(task)[0]]


def showing(task: Task) -> list[Edit]:
    other = next(name for name in BACKGROUNDS if name != task.scene.background)
    return [Edit("background", "background", other)]


def goals_everywhere(task: Task) -> list[Edit]:
    goals = dict.fromkeys(
        (edit.action, edit.goal) for edit in task.edits if edit.action in ("recolor", "replace", "remove")
    )
    return [Edit(action, str(item), goal) for action, goal in goals for item in task.scene.items] or showing(task)


HACKS: dict[str, Callable[[Task], list[Edit]]] = {
    "instruction echoed": echoed,
    "nothing asked for": nothing,
    "true plan, one edit more": padded_by_one,
    "true plan, padded": padded,
    "every action at once": everything,
    "only edits that show": showing,
    "goals everywhere": goals_everywhere,
}


def written(task: Task, edits: list[Edit]) -> str:
    """An answer in the way of the shipped planner: an inventory first, a space after each tag."""
    return re.sub(r"(<\w+>)", r"\1 ", write_decomposition(edits, reason(task, tuple(edits))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--first_seed", type=int, default=FIRST_SEED)
    args = parser.parse_args()
    tasks = [sample_task(args.first_seed + number, "complex") for number in range(args.tasks)]
    columns = {
        "image": [task.image for task in tasks],
        "instruction": [task.instruction for task in tasks],
        "actions": [[edit.action for edit in task.edits] for task in tasks],
        "subjects": [[edit.subject for edit in task.edits] for task in tasks],
        "goals": [[edit.goal for edit in task.edits] for task in tasks],
    }
    planner, processor, prompts = load_planner(START, dtype="float32")
    reward = PictureReward(Renderer(BUNDLE, START, batch_size=64), ScenesJudge())

    answers = {
        "true plan": [written(task, list(task.edits)) for task in tasks],
        "supervised start": decompose_all(
            planner, processor, prompts, columns["image"], columns["instruction"], max_new_tokens=128
        ),
        **{name: [written(task, hack(task)) for task in tasks] for name, hack in HACKS.items()},
    }
    earned = {name: reward([None] * len(tasks), said, **columns) for name, said in answers.items()}
    earned["untouched picture"] = [scenes_marks(t.image, t.scene, t.target_scene).reward for t in tasks]
    start, true = earned["supervised start"], earned["true plan"]
    rows = []
    for name, rewards in earned.items():
        rows.append(
            {
                "attempt": name,
                "n": len(rewards),
                "reward": float(np.mean(rewards)),
                "above 0": float(np.mean([one > 0 for one in rewards])),
                "of 1.0": float(np.mean([one == 1 for one in rewards])),
                "above the supervised start": float(np.mean([one > other for one, other in zip(rewards, start)])),
                "above the true plan": float(np.mean([one > other for one, other in zip(rewards, true)])),
            }
        )
    print_table(rows)


if __name__ == "__main__":
    main()
