"""What has to be known of a family of models beside what transformers says of it: facts, one row each."""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from transformers import PreTrainedModel


# The attention that a family has to be loaded with, by `model_type`, and why.
ATTENTION = {
    "phi4_multimodal": ("eager", "its vision tower is causal under every other attention (transformers 5.23)"),
}


def check_family(model: PreTrainedModel) -> None:
    """Refuse a model that would answer wrongly as it was loaded.

    Raises:
        ValueError: Saying how to load it.
    """
    kind = model.config.model_type
    needed, reason = ATTENTION.get(kind, (None, ""))
    if needed and model.config._attn_implementation != needed:
        raise ValueError(f'{kind} plans with attn_implementation="{needed}" only: {reason}')
