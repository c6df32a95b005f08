"""Tasks: a scene, an instruction about it, and the one true outcome. Everything follows from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..plan import Edit
from .language import CHATTER_AFTER, CHATTER_BEFORE, JOINTS, POINTERS, Author, Request, apply_edits, sub_request
from .world import BACKGROUNDS, CONTENTS, PLACES, SHAPES, Item, Scene, describe, render, score_scene


KINDS = ("simple", "chained", "indirect", "complex")
TWO_PICTURES = "reference"  # a kind by itself, in no mixture that does not name it: its tasks have a second picture
ALL_KINDS = (*KINDS, TWO_PICTURES)
TEST_SEEDS = (
    1_000_000_000  # seeds from here on are for reporting only: never for training, never for choosing settings
)
CHATTER_SHARE = 0.3
MOST_EDITS = 4


@dataclass(frozen=True)
class Task:
    """An instruction about a scene, with its truth.

    Args:
        kind (`str`): `"simple"`, `"chained"`, `"indirect"`, `"complex"` or `"reference"`, see [`sample_task`].
        scene, target_scene ([`Scene`]): Before and after the edits.
        instruction (`str`): What the user says.
        parts (`tuple` of [`Request`]): What the instruction is made of.
        seed (`int`): Where it came from.
        references (`tuple` of [`Scene`], defaults to `()`): What further pictures show, which the instruction speaks of.
    """

    kind: str
    scene: Scene
    target_scene: Scene
    instruction: str
    parts: tuple[Request, ...]
    seed: int
    references: tuple[Scene, ...] = ()

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The true decomposition, 1 to 4 explicit edits in the order of the instruction."""
        return tuple(edit for part in self.parts for edit in part.edits)

    @property
    def sub_requests(self) -> tuple[str, ...]:
        """The true edits as the editor is asked for them."""
        return tuple(sub_request(edit) for edit in self.edits)

    @property
    def image(self) -> Image.Image:
        """The picture before, 64x64 RGB."""
        return render(self.scene)

    @property
    def target_image(self) -> Image.Image:
        """The picture after, 64x64 RGB."""
        return render(self.target_scene)

    @property
    def reference_images(self) -> list[Image.Image]:
        """The further pictures, 64x64 RGB each: the second picture first."""
        return [render(scene) for scene in self.references]


def sample_scene(random: np.random.Generator) -> Scene:
    """A scene of 3 to 6 different items on a random background."""
    count = random.integers(3, 7)
    cells = [None] * 9
    items = random.choice(len(CONTENTS) - 1, size=count, replace=False) + 1
    for place, item in zip(random.choice(9, size=count, replace=False), items):
        cells[place] = CONTENTS[item]
    return Scene(tuple(cells), list(BACKGROUNDS)[random.integers(len(BACKGROUNDS))])


def sample_task(seed: int, kind: str | None = None) -> Task:
    """The task of a seed.

    Args:
        seed (`int`): Not negative. Seeds of 1,000,000,000 and above are kept for reporting.
        kind (`str`, *optional*): One of

            - `"simple"`: one explicit request;
            - `"chained"`: 2 to 4 explicit requests;
            - `"indirect"`: one indirect request (by place, colour, shape, elimination, comparison, with a correction),
              three in ten of them wrapped in chatter;
            - `"complex"`: 2 to 4 edits asked for by at least two requests, two or more of them indirect, four in ten
              wrapped in chatter;
            - `"reference"`: one shape is to have the color of the only shape in a second picture, which no look at the first
              picture tells.

            Left out: one of the first four, drawn from the seed, each equally often.

    Returns:
        [`Task`]

    Raises:
        ValueError: If `kind` is none of these.
    """
    if kind is None:
        kind = KINDS[np.random.default_rng([seed, len(KINDS)]).integers(len(KINDS))]
    if kind not in ALL_KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(ALL_KINDS)}, not {kind!r}.")
    random = np.random.default_rng([seed, ALL_KINDS.index(kind)])
    while True:  # a scene can lack what the requests drawn would need; the next one is drawn from the same stream
        scene = sample_scene(random)
        parts = _sample_requests(kind, scene, random)
        if parts is not None:
            break
    text = parts[0].text
    for part in parts[1:]:
        text += JOINTS[random.integers(len(JOINTS))] + part.text
    if kind in ("indirect", "complex") and random.random() < CHATTER_SHARE:
        text = f"{CHATTER_BEFORE[random.integers(len(CHATTER_BEFORE))]} {text}"
        text += CHATTER_AFTER[random.integers(len(CHATTER_AFTER))]
    edits = [edit for part in parts for edit in part.edits]
    references = (_scene_of_one(edits[0].goal, random),) if kind == TWO_PICTURES else ()
    return Task(kind, scene, apply_edits(scene, edits), text, parts, seed, references)


def sample_tasks(first_seed: int, kinds: dict[str, float] | None = None) -> Iterator[Task]:
    """Tasks without end, from consecutive seeds; `kinds` gives each kind's share of them (default: `KINDS`, equally)."""
    kinds = kinds or dict.fromkeys(KINDS, 1.0)
    shares = np.array(list(kinds.values())) / sum(kinds.values())
    seed = first_seed
    while True:
        yield sample_task(seed, str(np.random.default_rng([seed, 99]).choice(list(kinds), p=shares)))
        seed += 1


def teacher(task: Task, random: np.random.Generator, literal: float = 0.6) -> tuple[Edit, ...]:
    """The decomposition that an annotator with habits writes down.

    An indirect request is resolved with probability `1 - literal`; otherwise subject and goal stay as they were said
    ("shape at the top"), in words that the editor has never seen. Explicit requests are always written correctly.

    Args:
        task ([`Task`]): What is annotated.
        random (`numpy.random.Generator`): Decides, request by request.
        literal (`float`, defaults to 0.6): In [0, 1]; 0 gives clean labels.

    Returns:
        `tuple` of [`Edit`], in the order of the instruction.
    """
    return tuple(edit for part in task.parts for edit in (part.literal if random.random() < literal else part.edits))


def reason(task: Task, edits: tuple[Edit, ...]) -> str:
    """What is to be thought before `edits` are written down: the picture's inventory, then what is meant by each
    indirect request that they resolve.

    Args:
        task ([`Task`]): What the edits are about.
        edits (`tuple` of [`Edit`]): As a teacher wrote them down, see [`teacher`].

    Example:
        >>> reason(task, task.edits)
        'top red star; left blue circle; background teal; shape at the top is red star'
    """
    steps, left = [describe(task.scene)], list(edits)
    for part in task.parts:
        resolved = tuple(left[: len(part.edits)]) == part.edits
        del left[: len(part.edits) if resolved else len(part.literal)]
        if resolved and part.pointer != "explicit":
            said = part.literal[0]
            name = "subject" if said.subject != part.edits[0].subject else "goal"
            meant = ", ".join(getattr(edit, name) for edit in part.edits)
            steps.append(f"{getattr(said, name)} is {meant}")
    return "; ".join(steps)


def score(image: Image.Image, task: Task) -> list[bool]:
    """Judge an edited picture against the task's truth: nine cells and the background, see [`score_scene`]."""
    return score_scene(image, task.target_scene)


def _scene_of_one(color: str, random: np.random.Generator) -> Scene:
    """A scene that shows one shape of a color, whatever shape, wherever, on whatever background."""
    item = Item(color, SHAPES[random.integers(len(SHAPES))])
    nothing = Scene((None,) * len(PLACES), list(BACKGROUNDS)[random.integers(len(BACKGROUNDS))])
    return nothing.with_cell(int(random.integers(len(PLACES))), item)


def _sample_requests(kind: str, scene: Scene, random: np.random.Generator) -> tuple[Request, ...] | None:
    author = Author(scene, random)
    if kind == "simple":
        parts = [author.explicit()]
    elif kind == "chained":
        parts = [author.explicit() for _ in range(random.integers(2, MOST_EDITS + 1))]
    elif kind == "indirect":
        parts = [author.indirect(POINTERS[random.integers(len(POINTERS))], MOST_EDITS)]
    elif kind == TWO_PICTURES:
        parts = [author.color_of_reference()]
    else:
        count = int(random.integers(2, MOST_EDITS + 1))
        pointers = [POINTERS[random.integers(len(POINTERS))] for _ in range(count)]
        parts = [author.indirect(pointer, MOST_EDITS + 1 - count) for pointer in pointers]
    found = tuple(part for part in parts if part is not None)
    if len(found) < len(parts) or sum(len(part.edits) for part in found) > MOST_EDITS:
        return None
    return found
