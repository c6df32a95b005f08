"""GLM-Image's first half: a language model that writes the tokens of the picture to come.

`GlmImagePipeline.generate_prior_tokens` joins the features of its pictures along the wrong axis: since transformers 5.2 they
come as one `[channels, rows, columns]` for each picture. It takes the tokens as arguments, too, so they are made here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch

from ..random_state import devices_of, seeded
from .sizes import Pipeline


def prior_tokens(editor: Pipeline, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a language model makes of prompt and pictures, as arguments of the class's call.

    Args:
        given (`Mapping`): What the class is about to be called with: `prompt`, `image`, `height`, `width`, `generator`.

    Returns:
        `dict`: `prior_token_ids` of shape `(1, tokens)`, and for the pictures `prior_token_image_ids` and
        `source_image_grid_thw`, lists of one tensor each.
    """
    model, generator = editor.vision_language_encoder, given.get("generator")
    content = [
        *({"type": "image", "image": image} for image in given["image"]),
        {"type": "text", "text": given["prompt"]},
    ]
    inputs = editor.processor.apply_chat_template(
        [[{"role": "user", "content": content}]],
        tokenize=True,
        target_h=given["height"],
        target_w=given["width"],
        return_dict=True,
        return_tensors="pt",
    ).to(editor._execution_device)
    *_, target = inputs["image_grid_thw"].tolist()
    sources = inputs["image_grid_thw"][:-1]
    seen = model.get_image_features(inputs["pixel_values"], sources).pooler_output
    codes = [model.get_image_tokens([one], grid[None]) for one, grid in zip(seen, sources)]

    rows, columns = target[1:]
    # `generate` samples from the global state of where it computes, which need not be where the weights wait.
    devices = devices_of(model) | {editor._execution_device}
    with nullcontext() if generator is None else seeded(generator.initial_seed(), devices):
        written = model.generate(**inputs, max_new_tokens=rows * columns + 1, do_sample=True)
    start = inputs["input_ids"].shape[-1]
    return {
        "prior_token_ids": _twice_as_fine(written[0, start : start + rows * columns], rows, columns)[None],
        "prior_token_image_ids": [
            torch.cat([_twice_as_fine(code, *grid[1:].tolist()) for code, grid in zip(codes, sources)])
        ],
        "source_image_grid_thw": [sources * torch.tensor([1, 2, 2], device=sources.device)],
    }


def _twice_as_fine(codes: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Codes of a grid, each of them four times: the transformer's grid has half the spacing."""
    grid = codes.reshape(rows, columns)
    return grid.repeat_interleave(2, dim=0).repeat_interleave(2, dim=1).flatten()
