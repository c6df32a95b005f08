"""What `ImageEditR1Pipeline` returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image

from ..plan import EditPlan
from .turn import Turn


@dataclass(frozen=True)
class Candidate:
    """A picture that a selector could choose.

    Args:
        image (`PIL.Image.Image`): In its source's size.
        plan ([`EditPlan`]): What was carried out.
        turns (`list` of [`Turn`]): What the editor was asked and gave.
        score (`float`, *optional*): The selector's; `None` if it gave an index, or no score to this picture.
    """

    image: Image.Image
    plan: EditPlan
    turns: list[Turn]
    score: float | None = None


@dataclass
class ImageEditR1PipelineOutput(BaseOutput):
    """
    Args:
        images (`list` of `PIL.Image.Image`, `np.ndarray` or `torch.Tensor`): The edited pictures, each in its source's
            size, `num_images_per_prompt` of them for each source in turn. With `output_type="np"` an array of shape
            `(n, height, width, 3)`, with `"pt"` a tensor of shape `(n, 3, height, width)`, both from 0 to 1; where the
            sizes differ, a list of such arrays or tensors without the first axis.
        plans (`list` of [`EditPlan`]): The plan that was carried out, one for each source.
        turns (`list` of `list` of [`Turn`]): For each picture in `images`, what the editor was asked and gave, in
            order of time. With `reflect`, those that were tried in vain are among them.
        candidates (`list` of `list` of [`Candidate`]): With a selector, for each source, all pictures that it was shown,
            in its order; empty without one. They are those before a second look.
        interrupted (`bool`): Whether the call was ended early. What was done is here; a picture without a whole turn is its
            source.
    """

    images: list[Image.Image] | np.ndarray | torch.Tensor
    plans: list[EditPlan]
    turns: list[list[Turn]]
    candidates: list[list[Candidate]] = field(default_factory=list)
    interrupted: bool = False
