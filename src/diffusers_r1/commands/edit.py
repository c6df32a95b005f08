"""Edit a picture and print where the result lies. The sub-requests and the progress are shown on stderr."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import get_args

from .. import schema
from ..images import check_writable, load_with_metadata, write_picture
from ..plan import EditPlan, Turns
from .shared import (
    UsageError,
    add_editor_arguments,
    add_model_arguments,
    check_set,
    checking,
    load_pipeline,
    pipe_seed,
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
        choices=get_args(Turns),
        default="single",
        help="all sub-requests at once (default), one by one, as many at once as the editor reads, or each guiding apart",
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

    # 2. Load, and check against what was loaded
    with redirect_stdout(sys.stderr):
        pipe = load_pipeline(args, planning=plan is None)
        call = {
            "image": picture,
            "instruction": args.instruction,
            "plan": plan,
            "turns": args.turns,
            "num_images_per_prompt": args.num_images_per_prompt,
            "callback_on_plan": _show,
            "max_new_tokens": args.max_new_tokens,
            **pipe_seed(pipe, args.seed),
        }
        with checking():
            check_set(pipe, dict(args.set))
            if taken := sorted(set(call) & {name for name, _ in args.set}):
                raise ValueError(f"--set {taken[0]}: this is no argument of the editor")
            call |= dict(args.set)
            checked = pipe.check_inputs(**call)

        # 3. Edit
        out = pipe.run_checked(checked)

    # 4. Write
    for path, image in zip(_paths(args.output, len(out.images)), out.images, strict=True):
        write_picture(path, image, metadata)
        print(path)


def read_plan(path: str) -> EditPlan:
    """The plan in a JSON file; `"-"` is stdin."""
    if path == "-":
        return EditPlan.from_json(sys.stdin.read(), "stdin")
    return EditPlan.from_dict(schema.read_file(path), path)


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
