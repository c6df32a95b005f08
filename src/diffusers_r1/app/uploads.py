"""What people send, checked before any model runs: refused in words that the sender understands, or fit to be used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ..images import MAX_UPLOAD_PIXELS, Metadata, load_with_metadata
from ..pipelines.checks import NO_INSTRUCTION
from ..plan import EditPlan


MAX_CHARACTERS = 2000  # of an instruction or a sub-request
MAX_REQUESTS = 20  # in a plan: each can be a turn of the editor
MAX_WAITING = 20  # requests that wait for their turn


def open_with_metadata(
    upload: Mapping[str, Any] | None, folder: Path, max_pixels: int = MAX_UPLOAD_PIXELS
) -> tuple[Image.Image, Metadata]:
    """The picture in an uploaded file, upright and RGB, and what the file says besides.

    Args:
        upload (`Mapping`, *optional*): What was sent in place of the file that was uploaded before: its `path` here.
        folder (`Path`): Where uploads lie. No other file of this machine is opened, whatever `path` says.
        max_pixels (`int`, defaults to 2**25): The largest width x height that is decoded.

    Raises:
        ValueError: If there is no picture, or it cannot be used; the message names the file, not where it lies.
    """
    path = Path(check_there(upload).get("path") or "").resolve()
    # Gradio looks after this only where the sender has called the mapping a file.
    if not path.is_relative_to(folder.resolve()):
        raise ValueError("The picture cannot be used: it was not uploaded.")
    try:
        return load_with_metadata(path, max_pixels)
    except ValueError as error:
        raise ValueError(str(error).replace(f"{path.parent}{os.sep}", "")) from error


def check_there(upload: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What was uploaded; a `ValueError` if nothing was."""
    if not upload:
        raise ValueError("There is no picture yet: choose one first.")
    return upload


def check_instruction(instruction: Any) -> str:
    """The instruction, if it is text of a usable length; a `ValueError` says what is wrong otherwise."""
    if not isinstance(instruction, str) or not instruction.strip():
        raise ValueError(NO_INSTRUCTION)
    if len(instruction) > MAX_CHARACTERS:
        raise ValueError(f"The instruction has {len(instruction):,} characters; at most {MAX_CHARACTERS:,} are read.")
    return instruction


def check_plan(plan: EditPlan) -> EditPlan:
    """The plan, if it is not too much for one visitor to ask; a `ValueError` says what is wrong otherwise."""
    if len(plan.requests) > MAX_REQUESTS:
        raise ValueError(f"The plan has {len(plan.requests)} sub-requests; at most {MAX_REQUESTS} are carried out.")
    longest = max(map(len, plan.requests))
    if longest > MAX_CHARACTERS:
        raise ValueError(f"A sub-request has {longest:,} characters; at most {MAX_CHARACTERS:,} are read.")
    return plan


def check_seed(seed: Any) -> int:
    """The seed as `torch.Generator.manual_seed` takes it; a `ValueError` says what is wrong otherwise."""
    if not isinstance(seed, (int, float)) or not 0 <= seed < 2**63 or seed != int(seed):
        raise ValueError("The seed is a whole number, 0 or more.")
    return int(seed)
