"""Where the tokens of a picture stand for a text encoder of the Qwen-VL family, when diffusers does not say.

Since transformers 5 these encoders find the two-dimensional positions of a picture's tokens only if they are told, in
`mm_token_type_ids`, which tokens those are; without, every token gets the next position of the text. Qwen-Image-Edit,
its variants and LongCat-Image-Edit do not tell them (https://github.com/huggingface/diffusers/issues/14194).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch

from .sizes import Pipeline


@contextmanager
def with_positions(editor: Pipeline) -> Iterator[None]:
    """While it is open, the editor's text encoder is told which tokens are a picture's, unless its caller does."""
    encoder = editor.components.get("text_encoder")
    if not _asks_for_types(encoder):
        yield
        return
    hook = encoder.register_forward_pre_hook(_add_token_types, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def token_types(input_ids: torch.Tensor, config: Any) -> torch.Tensor:
    """What the processor calls `mm_token_type_ids`: 1 for a picture's token, 2 for a video's, 0 for text.

    Args:
        input_ids (`torch.Tensor`): Of shape `(batch, length)`.
        config: The encoder's, with `image_token_id` and `video_token_id`.

    Returns:
        `torch.Tensor` of `int32`, of the same shape.
    """
    types = (input_ids == config.image_token_id).int()
    return types.masked_fill(input_ids == config.video_token_id, 2)


def _asks_for_types(encoder: Any) -> TypeGuard[torch.nn.Module]:
    """Whether the encoder reads pictures and wants to know which tokens are theirs."""
    return (
        isinstance(encoder, torch.nn.Module)
        and getattr(getattr(encoder, "config", None), "image_token_id", None) is not None
        and "mm_token_type_ids" in inspect.signature(_base(encoder).forward).parameters
    )


def _base(encoder: torch.nn.Module) -> torch.nn.Module:
    """The model itself: an adapter's wrapper takes anything and passes it on."""
    return getattr(encoder, "get_base_model", lambda: encoder)()


def _add_token_types(encoder: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    pictures = kwargs.get("image_grid_thw") is not None and kwargs.get("input_ids") is not None
    if pictures and kwargs.get("mm_token_type_ids") is None:
        kwargs = {**kwargs, "mm_token_type_ids": token_types(kwargs["input_ids"], encoder.config)}
    return args, kwargs
