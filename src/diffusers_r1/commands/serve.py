"""Serve OpenAI's /v1/images/edits, and /v1/plans, over the pipeline, and print the address. By default only this machine reaches it."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import redirect_stdout
from typing import Any

from ..images import MAX_UPLOAD_PIXELS
from ..installing import install_line
from .listening import listen, port
from .progress import add_log_arguments
from .shared import SCENES, UsageError, add_limits, add_model_arguments, load_pipeline, positive


KEY = "DIFFUSERS_R1_API_KEY"
SECONDS_TO_END = 2  # after Ctrl-C, for requests that are nearly done


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help=f"the address to listen at; 0.0.0.0 lets others in, who need the key in ${KEY} if there is one (default: %(default)s)",
    )
    parser.add_argument("--port", type=port, default=8000, metavar="N", help="0: any free one (default: %(default)s)")
    parser.add_argument(
        "--name", metavar="NAME", help="of the model, to clients (default: the bundle's, or imageedit-r1)"
    )
    add_limits(parser, MAX_UPLOAD_PIXELS, 64)
    parser.add_argument(
        "--max_steps",
        type=positive,
        default=100,
        metavar="N",
        help="refuse a request for more steps of denoising (default: %(default)s)",
    )
    add_model_arguments(parser)
    add_log_arguments(parser)


def run(args: argparse.Namespace) -> None:
    stdout = sys.stdout
    with redirect_stdout(sys.stderr):
        try:
            import python_multipart  # noqa: F401
            import uvicorn

            from ..serve.server import Service
        except ModuleNotFoundError as error:
            if error.name not in ("uvicorn", "starlette", "python_multipart"):
                raise
            raise UsageError(f"the server needs {error.name}: {install_line('serve')}") from error

        with listen(args.host, args.port) as listening:  # before a model loads, and held from then on
            pipe: Any = load_pipeline(args)
            if hasattr(pipe, "set_progress_bar_config"):
                pipe.set_progress_bar_config(disable=True)
            name = args.name or args.model or (SCENES if args.planner is None else "imageedit-r1")
            service = Service(pipe, name, os.environ.get(KEY), args.max_pixels, args.max_waiting, args.max_steps)
            config = uvicorn.Config(
                service.app(), log_level=args.log_level or "warning", timeout_graceful_shutdown=SECONDS_TO_END
            )
            host, number = listening.getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            print(f"http://{host}:{number}/v1", file=stdout, flush=True)
            try:
                uvicorn.Server(config).run(sockets=[listening])  # until an interrupt, which it raises again
            finally:
                pipe.interrupt()
