"""Measure methods on benchmarks and print the report's path. The same command again goes on where it stopped."""

from __future__ import annotations

import argparse
import sys
from inspect import signature
from pathlib import Path
from typing import Any

from ..plan import TURNS
from . import placing
from .shared import (
    UsageError,
    add_bundle_arguments,
    add_critic_arguments,
    add_editor_arguments,
    add_planner_arguments,
    checking,
    naming,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output_dir", type=Path, required=True, metavar="FOLDER", help="of the run")
    what = parser.add_argument_group("what is measured")
    what.add_argument(
        "--benchmark",
        nargs="+",
        default=[],
        metavar="NAME",
        help="psr, realedit, ultraedit, magicbrush, gedit, complexedit, or NAME=FOLDER for a copy of one; scenes; a folder; "
        "or, of words alone, for --planners: sentences, reworded, everyday, paraphrases, complexbench-edit=FILE, magicbrush-sessions",
    )
    what.add_argument(
        "--planners",
        nargs="+",
        default=[],
        metavar="NAME",
        help="measured on words alone: rule, truth, names on the Hub, folders, addresses; NAME+few-shot, NAME+constrained, NAME+int8",
    )
    what.add_argument("--limit", type=int, metavar="N", help="samples of each benchmark (default: all; of scenes 500)")
    what.add_argument("--sample_seed", type=int, metavar="N", help="which samples these are (default: 260308059)")
    what.add_argument(
        "--methods",
        nargs="+",
        default=["base", "untrained", "r1"],
        metavar="METHOD",
        help="base, untrained, r1, oracle, remote (default: the first three); untrained, r1 and oracle with +reflect, "
        "r1+reflect, look at what the editor made and ask it again",
    )
    what.add_argument("--turns", nargs="+", default=["single"], choices=TURNS, help="one or several (default: single)")
    what.add_argument(
        "--stage", choices=("edit", "judge"), help="only make the pictures, or only judge those that are there"
    )

    models = parser.add_argument_group("models")
    add_bundle_arguments(models)
    add_planner_arguments(models)
    models.add_argument(
        "--untrained",
        metavar="NAME",
        help="planner of the method untrained (default: the one that a shipped bundle's was trained from)",
    )
    models.add_argument(
        "--editors",
        nargs="+",
        default=[],
        metavar="NAME",
        help="pipelines, in a folder or on the Hub (default: the bundle's)",
    )
    add_editor_arguments(models)
    models.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the editors' noise (default: %(default)s)"
    )
    models.add_argument(
        "--max_new_tokens", type=int, default=512, metavar="N", help="of each agent's answer (default: %(default)s)"
    )
    models.add_argument(
        "--batch_size",
        type=int,
        default=8,
        metavar="N",
        help="samples planned and edited at once (default: %(default)s)",
    )
    models.add_argument(
        "--remote_url", metavar="URL", help="of the method remote: a server with images/edits, up to /v1"
    )
    models.add_argument("--remote_model", metavar="NAME", help="the editor's name there")

    looks = parser.add_argument_group("a second look, of the methods with +reflect")
    looks.add_argument("--reflect", type=int, default=2, metavar="N", help="looks at most (default: %(default)s)")
    add_critic_arguments(looks)

    judges = parser.add_argument_group("judges", "Keys of servers are read from OPENAI_API_KEY.")
    judges.add_argument(
        "--judge", nargs="+", default=["scenes"], metavar="JUDGE", help="viescore, pixels, scenes (default: scenes)"
    )
    judges.add_argument("--judge_url", metavar="URL", help="of viescore: an OpenAI-compatible server, up to /v1")
    judges.add_argument(
        "--judge_model", metavar="NAME", help="a model there; without --judge_url, one to be loaded here"
    )
    judges.add_argument("--clip_model", metavar="NAME", help="of pixels, for clip_i")
    judges.add_argument(
        "--concurrency", type=int, default=8, metavar="N", help="requests to a server at once (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    from ..evaluation import evaluate, evaluate_planners, is_planner_benchmark, unscored
    from ..evaluation.planners import unanswered

    words = [name for name in args.benchmark if is_planner_benchmark(name)]
    if words and args.planner is not None:
        args.planners.append(args.planner)
    if bool(args.planners) != bool(words) or (words and words != args.benchmark):
        raise UsageError("--planners and benchmarks of words alone go together, and with no other benchmark.")
    options: dict[str, Any] = {
        name: value for name, value in vars(args).items() if name not in ("verb", "run", "traceback")
    }
    options["benchmarks"], options["judges"] = options.pop("benchmark"), options.pop("judge")
    options["editor_arguments"] = dict(options.pop("set"))
    if args.device is not None:  # judging by a server needs no torch
        with checking():
            placing.find_device(args.device)
    if args.dtype is not None:
        import torch

        options["dtype"] = getattr(torch, args.dtype)
    if args.sample_seed is None:
        del options["sample_seed"]
    try:
        if words:
            taken = signature(evaluate_planners).parameters.keys() - {"seed"}
            options = {name: options[name] for name in taken} | {"seed": args.sample_seed or 0}
            with naming():
                print(evaluate_planners(**options))
            missing, rows = unanswered(args.output_dir)
            if missing:
                print(
                    f"{missing} of {rows} rows are without an answer; planner_answers.jsonl says why.", file=sys.stderr
                )
            return int(missing > 0)
        del options["planners"]
        print(evaluate(**options))
    except (BlockingIOError, TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    missing, results = unscored(args.output_dir, judged=args.stage != "edit")
    if missing:
        what, why = ("picture", "edits.jsonl") if args.stage == "edit" else ("score", "the report")
        print(f"{missing} of {results} results have no {what}; {why} says what went wrong.", file=sys.stderr)
    return int(missing > 0)
