"""What happened in one call of the editor. Without torch, for pipelines that have none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image


if TYPE_CHECKING:
    from ..judging import Criticism


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
