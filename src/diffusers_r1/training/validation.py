"""How well a planner decomposes, measured greedily on tasks whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from ..plan import Edit
from ..planners.conversation import Conversation
from ..prompts import Prompts
from ..random_state import seeded
from ..rewards import marks


@torch.no_grad()
def decompose_all(
    model: Any,
    processor: Any,
    prompts: Prompts,
    images: Sequence[Image.Image],
    instructions: Sequence[str],
    batch_size: int = 50,
    seed: int = 0,
    references: Sequence[Sequence[Image.Image]] | None = None,
    show_bar: bool = False,
    **generation: Any,
) -> list[str]:
    """The decomposition agent's answers, greedy unless `generation` says otherwise, `batch_size` rows a call.

    `references` are, for each picture, those that belong to it. The bar is gone when all are answered.
    """
    training = model.training
    model.eval()
    answers = []
    with seeded(seed), tqdm(total=len(images), desc="planning rows", leave=False, disable=not show_bar) as bar:
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            of_rows = references and references[rows]
            conversation = Conversation(
                model, processor, images[rows], instructions[rows], prompts, references=of_rows
            )
            answers += conversation.decompose(**generation)
            bar.update(len(answers) - bar.n)
    model.train(training)
    return answers


def score_answers(
    answers: Sequence[str],
    truths: Sequence[Sequence[Edit]],
    instructions: Sequence[str] | None = None,
    synonyms: Mapping[str, str] | None = None,
) -> dict[str, list[float]]:
    """Marks of each answer: what it would earn of each reward, and whether its edits are the true ones.

    Args:
        answers (sequence of `str`): The decomposition agent's.
        truths (sequence of sequences of [`Edit`]): The true edits of each.
        instructions (sequence of `str`, *optional*): What was asked; without them, copies of the instruction are not seen.
        synonyms (`Mapping` of `str` to `str`, *optional*): Those that the action reward was given.

    Returns:
        `dict` of lists, one value in [0, 1] per answer, under the names that [`~rewards.marks`] gives them.
    """
    asked = instructions or [""] * len(answers)
    rows = [marks(*row, synonyms) for row in zip(answers, truths, asked)]
    return {name: [row[name] for row in rows] for name in rows[0]}
