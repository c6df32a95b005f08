"""What several verbs share: the options that choose and load a pipeline, and the errors that are the user's."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from PIL import Image

    from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline

SCENES = "imageedit-r1-scenes"


class UsageError(Exception):
    """What was asked for cannot be done, and asking otherwise helps."""


@contextmanager
def checking() -> Iterator[None]:
    """An error inside the block is the user's to mend."""
    try:
        yield
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def seed(text: str) -> int:
    """The type of `--seed`: what `torch.Generator.manual_seed` takes."""
    number = int(text)
    if not 0 <= number < 2**63:
        raise ValueError
    return number


def add_model_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--model", default=SCENES, help="a folder, a name on the Hub, or a shipped bundle (default: %(default)s)"
    )
    parser.add_argument(
        "--device", help="where the models run: cuda, cpu, ... (default: an accelerator if there is one)"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), help="of the weights (default: float32)"
    )


def note_what_scenes_are(args: argparse.Namespace, picture: Image.Image) -> None:
    """Say on stderr that the shipped bundle was not made for a picture like this one."""
    from ..scenes.world import SIZE

    if args.model == SCENES and picture.size != (SIZE, SIZE):
        print(
            f"note: {SCENES} knows {SIZE}x{SIZE} pictures of coloured shapes and nothing else; for photos, give another --model",
            file=sys.stderr,
        )


def add_editor_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=editor_argument,
        metavar="NAME=VALUE",
        help="""an argument of the editor, the value as JSON: guidance_scale=2.5 or negative_prompt='"blurry"'""",
    )


def editor_argument(text: str) -> tuple[str, Any]:
    """`"guidance_scale=2.5"` as name and value."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"the value in {text!r} is no JSON; text stands in double quotes") from None


def load_pipeline(args: argparse.Namespace, **components: Any) -> ImageEditR1Pipeline:
    """The pipeline that `add_model_arguments` asks for.

    Args:
        args (`argparse.Namespace`): Parsed.
        components: Replaces components; one that is `None` is neither downloaded nor loaded.

    Raises:
        UsageError: If there is no such device or pipeline.
    """
    import torch
    from diffusers.utils.torch_utils import get_device
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    from .. import ImageEditR1Pipeline

    with checking():
        device = torch.device(args.device or get_device())
    settings = {} if args.dtype is None else {"dtype": getattr(torch, args.dtype)}
    try:
        pipe = ImageEditR1Pipeline.from_pretrained(args.model, **settings, **components)
    except (OSError, ValueError) as error:
        # A disk or a network that fails raises subclasses of OSError, or sets its errno: those are failures.
        misnamed = isinstance(error, (HFValidationError, RepositoryNotFoundError))
        if misnamed or (type(error) is OSError and error.errno is None):
            raise UsageError(str(error)) from error
        raise
    return pipe.to(device)
