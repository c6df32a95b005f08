"""Serve a page on which people edit pictures, and print its address. By default only this machine reaches it."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import redirect_stdout
from importlib.util import find_spec

from ..app.uploads import MAX_WAITING
from ..images import MAX_UPLOAD_PIXELS
from ..installing import install_line
from .listening import listen, port
from .progress import add_log_arguments
from .shared import (
    UsageError,
    add_critic_arguments,
    add_limits,
    add_model_arguments,
    checking,
    load_pipeline,
    named_critic,
    with_turns,
)


PASSWORD = "DIFFUSERS_R1_PASSWORD"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", help="the address to listen at; 0.0.0.0 lets others in (default: %(default)s)"
    )
    parser.add_argument("--port", type=port, metavar="N", help="default: the first free one from 7860 on")
    parser.add_argument("--user", metavar="NAME", help=f"let in only this user, whose password is in ${PASSWORD}")
    parser.add_argument(
        "--share", action="store_true", help="have it reached from everywhere, through Gradio's servers"
    )
    add_limits(parser, MAX_UPLOAD_PIXELS, MAX_WAITING)
    parser.add_argument(
        "--mcp", action="store_true", help="be an MCP server as well: plan, edit and plan_and_edit as tools"
    )
    looks = parser.add_argument_group("the critic of the button Look again")
    add_critic_arguments(looks)
    add_model_arguments(parser)
    add_log_arguments(parser)


def run(args: argparse.Namespace) -> None:
    auth = _auth(args)
    if args.mcp and auth is not None:
        raise UsageError("--mcp and --user do not go together: MCP clients would get in without the password")
    if args.mcp and find_spec("mcp") is None:
        raise UsageError(f"--mcp needs the package mcp: {install_line('mcp')}")
    listen(args.host, args.port or 0).close()  # Gradio opens its own, once the models are there
    with redirect_stdout(sys.stderr):
        try:
            from ..app import page
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise UsageError(f"the page needs Gradio: {install_line('app')}") from error

        pipe = with_turns(load_pipeline(args))
        pipe.set_progress_bar_config(disable=True)
        with checking():
            critic = named_critic(args)
        limits = {"max_pixels": args.max_pixels, "max_waiting": args.max_waiting}
        blocks = page.make_page(pipe, **limits, mcp=args.mcp, critic=critic)
        with checking():
            address = page.launch(blocks, args.host, args.port, args.share, auth, args.mcp)
    print(address, flush=True)
    with redirect_stdout(sys.stderr):
        blocks.block_thread()  # until an interrupt


def _auth(args: argparse.Namespace) -> tuple[str, str] | None:
    if args.user is None:
        return None
    if not os.environ.get(PASSWORD):
        raise UsageError(f"--user {args.user}: set its password in the environment, as {PASSWORD}")
    return args.user, os.environ[PASSWORD]
