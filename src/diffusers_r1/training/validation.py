"""How well a planner decomposes, measured greedily on tasks whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from ..matching import exact, multiset_f1, soft_f1
from ..plan import Edit
from ..planners.conversation import Conversation
from ..planners.sampling import seeded
from ..prompts import Prompts
from ..tags import read_decomposition


@torch.no_grad()
def decompose_all(
    model: Any,
    processor: Any,
    prompts: Prompts,
    images: Sequence[Image.Image],
    instructions: Sequence[str],
    batch_size: int = 50,
    seed: int = 0,
    **generation: Any,
) -> list[str]:
    """The decomposition agent's answers, greedy unless `generation` says otherwise, `batch_size` rows a call."""
    training = model.training
    model.eval()
    answers = []
    with seeded(seed):
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            conversation = Conversation(model, processor, images[rows], instructions[rows], prompts)
            answers += conversation.decompose(**generation)
    model.train(training)
    return answers


def score_answers(answers: Sequence[str], truths: Sequence[Sequence[Edit]]) -> dict[str, list[float]]:
    """Marks of each answer.

    Returns:
        `dict` of lists, one value in [0, 1] per answer: `format` (no fault), `action_f1` (multiset F1), `subject_f1` and
        `goal_f1` (soft F1), and `exact` (the true edits, in any order).
    """
    marks: dict[str, list[float]] = {"format": [], "action_f1": [], "subject_f1": [], "goal_f1": [], "exact": []}
    for answer, truth in zip(answers, truths):
        found = read_decomposition(answer)
        marks["format"].append(float(not found.faults))
        marks["action_f1"].append(multiset_f1([e.action for e in found.edits], [e.action for e in truth]))
        marks["subject_f1"].append(soft_f1([e.subject for e in found.edits], [e.subject for e in truth]))
        marks["goal_f1"].append(soft_f1([e.goal for e in found.edits], [e.goal for e in truth]))
        marks["exact"].append(float(exact(found.edits, truth)))
    return marks
