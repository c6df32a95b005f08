"""Rows: what is known of one request, and the prompt that a planner is asked about it.

A row has the columns `image`, `instruction`, `actions`, `subjects`, `goals` and `reasoning`. The three lists are of one
length, item i of each belonging to edit i, or all `None` where nobody knows the true edits. `reasoning` is what a teacher
thought before it wrote them down, or `None`. Where a data set has them, a list of further pictures that belong to the row's
picture stands in `references`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..images import load_picture
from ..plan import Edit
from ..prompts import Prompts, plain_text
from ..tags import write_decomposition, write_sequence
from .pictures import shortened


if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset


EDIT_COLUMNS = ("actions", "subjects", "goals")
NEUTRAL_GREY = (128, 128, 128)


def row_features() -> Features:
    """The types of a row's columns."""
    from datasets import Features, List, Value

    from .features import Picture

    return Features(
        {
            "image": Picture(),
            "instruction": Value("string"),
            **{name: List(Value("string")) for name in EDIT_COLUMNS},
            "reasoning": Value("string"),
        }
    )


def checked_texts(cells: Mapping[str, Any]) -> dict[str, Any]:
    """A row's `instruction`, `actions`, `subjects`, `goals` and `reasoning` without surplus space around them.

    Args:
        cells (`Mapping`): What a data set has of these five; an absent list is an unknown one.

    Raises:
        ValueError: If there is no instruction, some but not all of the lists are there, they are of different lengths
            or empty, or hold something else than text.
    """
    instruction = cells["instruction"]
    if not isinstance(instruction, str) or not instruction.strip():
        raise ValueError(f"the instruction is {shortened(repr(instruction))}")
    reasoning = cells.get("reasoning")
    if not isinstance(reasoning, str | None):
        raise ValueError(f"the reasoning is {shortened(repr(reasoning))}")
    texts = {"instruction": instruction.strip(), "reasoning": reasoning and reasoning.strip()}
    lists: dict[str, Any] = {name: cells.get(name) for name in EDIT_COLUMNS}
    if all(items is None for items in lists.values()):
        return {**texts, **lists}
    for name, items in lists.items():
        if not isinstance(items, list) or not all(isinstance(item, str) and item.strip() for item in items):
            raise ValueError(f"`{name}` is no list of texts: {shortened(repr(items))}")
    lengths = [len(items) for items in lists.values()]
    if len(set(lengths)) > 1 or not lengths[0]:
        raise ValueError("there are {} actions, {} subjects and {} goals".format(*lengths))
    stripped = {name: [item.strip() for item in items] for name, items in lists.items()}
    return {**texts, **stripped}


def true_edits(row: Mapping[str, Any]) -> list[Edit]:
    """The edits of a row that has them."""
    return [Edit(*edit) for edit in zip(*(row[name] for name in EDIT_COLUMNS))]


def check_apart(rows: Dataset | IterableDataset, held_out: Dataset | None) -> None:
    """Raise a `ValueError` that says how many of the held-out rows are among those that are trained on.

    Rows are the same if instruction and pixels are, those of `references` among them. Pictures are opened only where the instructions are equal. Rows without
    end, which are made from seeds, are not looked at: their splits are apart.
    """
    from datasets import Dataset

    if held_out is None or not isinstance(rows, Dataset):
        return
    asked: dict[str, list[int]] = {}
    for index, instruction in enumerate(rows["instruction"]):
        asked.setdefault(instruction, []).append(index)
    pixels = cache(lambda index: _pixels(rows[index]))
    shared = [
        place
        for place, instruction in enumerate(held_out["instruction"])
        if instruction in asked and _pixels(held_out[place]) in {pixels(index) for index in asked[instruction]}
    ]
    if shared:
        raise ValueError(
            f"{len(shared)} of the {len(held_out)} held-out rows are among those that are trained on (the first is row "
            f"{shared[0]}): same picture, same instruction. What is measured on them says nothing."
        )


def _pixels(row: Mapping[str, Any]) -> bytes:
    """What tells the pictures of a row from others; rows of words alone have none."""
    pictures = [row["image"]] if "image" in row else []
    upright = [load_picture(picture) for picture in (*pictures, *(row.get("references") or []))]
    return sha256(b"".join(repr(each.size).encode() + each.tobytes() for each in upright)).digest()


def fit(picture: Image.Image, size: int) -> Image.Image:
    """The picture, `size` x `size` pixels: scaled so that its longer side fits, centred on neutral grey.

    Padded, not stretched: a planner is asked for shapes and places, and it sees pictures undistorted when it plans.
    """
    if picture.size == (size, size):
        return picture
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    result = Image.new("RGB", (size, size), NEUTRAL_GREY)
    scaled = picture.resize((width, height), Image.Resampling.BICUBIC)
    result.paste(scaled, ((size - width) // 2, (size - height) // 2))
    return result


def to_prompts(
    dataset: Dataset | IterableDataset,
    prompts: Prompts,
    image_size: int | None,
    sees: bool,
    control_tokens: Sequence[str] = (),
    answered: bool = False,
) -> Dataset | IterableDataset:
    """The rows with the columns from which TRL's trainers ask a planner: `prompt`, and `image` or `images` if it sees.

    `prompt` is a conversation of one turn. Its content is a list of parts, of which `{"type": "image"}` stands for the
    row's `image`: TRL puts the picture there itself. Of rows with `references`, `images` is the picture that is edited and
    then those, numbered in the prompt as they are when planning. For a planner that does not see, the content is plain text.

    All pictures come out at one size, since the trainer splits the flattened patches of a batch by picture, sample and
    step, where uneven sizes have gone wrong (trl issues 4061, 5785, 6294, 6401), and since every step then takes the same
    memory.

    Args:
        dataset ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]): Rows as [`load_rows`] gives them.
        prompts ([`Prompts`]): The words around the instruction.
        image_size (`int` or `None`): Pixels along each side, see [`fit`]. `None` leaves the pictures as large as they
            are, which is right where they are all of one size.
        sees (`bool`): Whether the planner takes pictures. If not, the result has no `image`.
        control_tokens (sequence of `str`, defaults to `()`): Taken out of instruction and answer, as planning does, see
            [`~prompts.plain_text`]. A picture's token among the words would not match any picture.
        answered (`bool`, defaults to `False`): Add `completion`, the true answer as supervised training wants it: the
            row's reasoning and edits in the declared format. Every row has to have its true edits. Where the rows have
            `requests` as well, the second question and its answer follow.

    Returns:
        The same kind of data set: the other columns stay, for the rewards. A `Dataset` is converted here and now and
        kept in the cache of `datasets`; an `IterableDataset` row by row.

    Raises:
        ValueError: If `image_size` is below 1, or the planner sees and the rows have no pictures.
    """
    from datasets import Features, Image, List, Value

    columns = dataset.column_names or list(row_features())
    if sees and "image" not in columns:
        raise ValueError("These rows have no pictures: they are for planners that do not see.")

    if image_size is not None and image_size < 1:
        raise ValueError(f"`image_size` is a number of pixels, not {image_size}.")
    part = {"type": Value("string"), "text": Value("string")}
    message = {"role": Value("string"), "content": List(part) if sees else Value("string")}
    kinds = {**(dataset.features or row_features()), "image": Image(), "prompt": List(message)}
    if answered:
        kinds["completion"] = List(message)
    several = sees and "references" in columns
    if several:  # as TRL calls all pictures of a row
        kinds["images"] = List(Image())
    dropped = {"references"} if sees and not several else {"image", "references"}
    kinds = {name: kind for name, kind in kinds.items() if name not in dropped}
    return dataset.map(
        partial(
            _to_prompt,
            prompts=prompts,
            image_size=image_size,
            sees=sees,
            control_tokens=tuple(control_tokens),
            answered=answered,
        ),
        remove_columns=sorted(dropped & set(columns)),
        features=Features(kinds),
    )


def _to_prompt(
    row: dict[str, Any],
    prompts: Prompts,
    image_size: int | None,
    sees: bool,
    control_tokens: tuple[str, ...],
    answered: bool,
) -> dict[str, Any]:
    instruction = plain_text(row["instruction"], control_tokens)
    pictures = [row["image"], *(row.get("references") or [])] if sees else []
    columns = {"prompt": prompts.first_turn(instruction, image=True if sees else None, references=pictures[1:])}
    if answered:
        answer = write_decomposition(true_edits(row), row["reasoning"] or "")
        answer = plain_text(answer, control_tokens)
        columns["completion"] = [{"role": "assistant", "content": [{"type": "text", "text": answer}]}]
        if row.get("requests"):
            sequence = plain_text(write_sequence(row["requests"]), control_tokens)
            columns["completion"] = prompts.second_turn([], answer) + [
                {"role": "assistant", "content": [{"type": "text", "text": sequence}]}
            ]
    for messages in columns.values():
        for message in messages:
            parts = message["content"]
            message["content"] = (
                [{"type": part["type"], "text": part.get("text")} for part in parts]
                if sees
                else "".join(part["text"] for part in parts)
            )
    pictures = [load_picture(picture) for picture in pictures]
    if image_size is not None:
        pictures = [fit(picture, image_size) for picture in pictures]
    return columns | ({"images": pictures} if "references" in row else {"image": pictures[0]}) if sees else columns
