"""What `ImageEditR1Pipeline` returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image

from ..judging import Criticism
from ..plan import EditPlan


@dataclass(frozen=True)
class Turn:
    """One call of the editor for one picture.

    Args:
        prompt (`str`): What the editor was asked.
        size_given (`tuple` of two `int`): Width and height, in pixels, of the picture it was given.
        size_returned (`tuple` of two `int`): Width and height of the picture that came back.
        image (`PIL.Image.Image`): The picture that came back, as it came.
        requests (`tuple` of `str`): The sub-requests in the prompt.
        unread (`tuple` of `str`): Those of them that the editor's text encoder does not read to their end.
        interrupted (`bool`): Whether the call was ended before its last step, so that the picture is half done. It is no
            source of another turn, and no result.
        look (`int`): 0 for the edit itself, and from 1 on for what was tried after a critic's look at a picture.
        kept (`bool`): Whether it is a step on the way to the picture that came out; of a picture that was looked at again some
            are not.
        criticism ([`~judging.Criticism`], *optional*): With a critic, what it said of the picture after a look's last turn.
    """

    prompt: str
    size_given: tuple[int, int]
    size_returned: tuple[int, int]
    image: Image.Image
    requests: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    interrupted: bool = False
    look: int = 0
    kept: bool = True
    criticism: Criticism | None = None


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
