"""Print the plan that an instruction becomes, as JSON on stdout. The editor is not loaded. Greedy by default."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from typing import Any

from ..images import load_picture
from ..pipelines.checks import check_generation, check_texts
from .progress import add_log_arguments
from .shared import UsageError, add_model_arguments, checking, load_pipeline, seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="path or URL of the picture")
    parser.add_argument("instruction", metavar="INSTRUCTION", help="what to do, in quotes")
    parser.add_argument("--max_new_tokens", type=int, default=512, metavar="N", help="of each agent's answer")
    parser.add_argument("--do_sample", action="store_true", help="sample the answers, by these three")
    parser.add_argument("--temperature", type=float, metavar="T")
    parser.add_argument("--top_p", type=float, metavar="P")
    parser.add_argument("--seed", type=seed, metavar="N")
    add_model_arguments(parser, edits=False)
    add_log_arguments(parser)


def run(args: argparse.Namespace) -> None:
    from ..pipelines.remote import seed_for

    sampling = _sampling(args)
    with checking():
        check_texts(args.instruction)
        check_generation(args.max_new_tokens, sampling)
        picture = load_picture(args.image)
    with redirect_stdout(sys.stderr):
        pipe = load_pipeline(args, editing=False, sizes=[picture.size])
        with checking():
            seeded = seed_for(pipe, args.seed)
            call = pipe.check_planning(picture, args.instruction, args.max_new_tokens, generation=sampling, **seeded)
        [plan] = pipe.plan_checked(call)
    print(plan.to_json())


def _sampling(args: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(args, name) for name in ("temperature", "top_p", "seed") if getattr(args, name) is not None}
    if given and not args.do_sample:
        raise UsageError(f"--{next(iter(given))} does nothing without --do_sample")
    given.pop("seed", None)
    return {"do_sample": True, **given} if args.do_sample else {}
