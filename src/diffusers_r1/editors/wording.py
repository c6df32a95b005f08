"""How a request is written for an editor: `(request, number of pictures) -> prompt`."""

from __future__ import annotations

import json


def as_it_is(prompt: str, pictures: int) -> str:
    """The request as it is."""
    return prompt


def with_placeholders(prompt: str, pictures: int) -> str:
    """The request after a placeholder for each picture: `"<img><|image_1|></img> make it blue"`."""
    return " ".join([f"<img><|image_{number}|></img>" for number in range(1, pictures + 1)] + [prompt])


def as_edit_json(prompt: str, pictures: int) -> str:
    """The request as JSON: `{"edit_instruction": "make it blue"}`."""
    return json.dumps({"edit_instruction": prompt}, ensure_ascii=False)
