"""Edit a picture and print where the result lies. The sub-requests and the progress are shown on stderr."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from ..bundles import AGENTS
from ..images import check_writable, load_with_metadata, write_picture
from ..plan import EditPlan
from .shared import (
    UsageError,
    add_editor_arguments,
    add_model_arguments,
    checking,
    load_pipeline,
    note_what_scenes_are,
    seed,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="path or URL of the picture")
    parser.add_argument("instruction", metavar="INSTRUCTION", nargs="?", help="what to do; left out with --plan")
    parser.add_argument("--plan", metavar="FILE", help="carry out this plan (JSON; - reads stdin), without planning")
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        default=Path("edited.png"),
        help="replaced if there (default: %(default)s)",
    )
    parser.add_argument(
        "--turns",
        choices=("single", "multi"),
        default="single",
        help="all sub-requests at once (default) or one by one",
    )
    parser.add_argument("--seed", type=seed, metavar="N", help="the same seed gives the same picture")
    parser.add_argument(
        "--num_images_per_prompt",
        type=int,
        default=1,
        metavar="N",
        help="more than one are numbered: edited-1.png, ...",
    )
    parser.add_argument("--max_new_tokens", type=int, default=512, metavar="N", help="of each agent's answer")
    add_editor_arguments(parser)
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> None:
    # 1. Everything that can be refused before a model is loaded
    if (args.instruction is None) == (args.plan is None):
        raise UsageError("give either INSTRUCTION or --plan FILE")
    with checking():
        _check_output(args.output)
        picture, metadata = load_with_metadata(args.image)
        _check_output(args.output, picture.size)
        plan = None if args.plan is None else read_plan(args.plan)
    note_what_scenes_are(args, picture)

    # 2. Load, and check against what was loaded
    with redirect_stdout(sys.stderr):
        import torch

        pipe = load_pipeline(args, **({} if plan is None else dict.fromkeys(AGENTS)))
        generator = None if args.seed is None else torch.Generator().manual_seed(args.seed)
        editor_arguments = dict(args.set)
        given = args.instruction if plan is None else plan
        with checking():
            pipe.check_inputs(
                [picture], [given], args.turns, args.num_images_per_prompt, generator, "pil", editor_arguments
            )

        # 3. Edit
        out: Any = pipe(
            picture,
            args.instruction,
            plan=plan,
            turns=args.turns,
            num_images_per_prompt=args.num_images_per_prompt,
            generator=generator,
            callback_on_plan=_show,
            max_new_tokens=args.max_new_tokens,
            **editor_arguments,
        )

    # 4. Write
    for path, image in zip(_paths(args.output, len(out.images)), out.images, strict=True):
        write_picture(path, image, metadata)
        print(path)


def read_plan(path: str) -> EditPlan:
    """The plan in a JSON file; `"-"` is stdin."""
    text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    try:
        return EditPlan.from_json(text)
    except ValueError as error:
        raise ValueError(f"{path} holds no plan: {error}") from error


def _check_output(path: Path, size: tuple[int, int] | None = None) -> None:
    try:
        check_writable(path, size)
    except ValueError as error:
        raise ValueError(f"--output {path}: {error}") from error


def _paths(output: Path, count: int) -> list[Path]:
    if count == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{number}") for number in range(1, count + 1)]


def _show(plan: EditPlan) -> None:
    for number, request in enumerate(plan.requests, start=1):
        print(f"{number}. {request}", file=sys.stderr)
