"""The command line `diffusers-r1`: a file per verb, each of which makes one public call."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from .. import __version__
from .shared import UsageError


# A verb is a module of this name beside this file, with `add_arguments(parser)` and `run(args)`, which may return an exit
# code. Only `run` may import torch, so that `--help` answers at once.
VERBS = {
    "edit": "edit a picture as an instruction, or a plan, says",
    "plan": "print the plan that an instruction becomes, without editing",
    "app": "serve a page to edit pictures and plans in a browser",
    "serve": "serve OpenAI's /v1/images/edits over the pipeline",
    "demo": "edit a shipped picture with the shipped bundle",
    "evaluate": "measure methods on benchmarks: pictures, scores, a report",
    "compare": "print what one run of evaluate gains over another",
}


class _Parser(argparse.ArgumentParser):
    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As of Python 3.12.7: before, an instruction that may be left out was read only right after its picture."""
        parsed, left = self.parse_known_args(args, namespace)
        if getattr(parsed, "instruction", "") is None and len(left) == 1 and not left[0].startswith("-"):
            parsed.instruction = left.pop()
        if left:
            self.error(f"unrecognized arguments: {' '.join(left)}")
        return parsed

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: ") and not message.partition(": ")[2].startswith("-"):
            message += "; text of several words, such as an instruction, stands in quotes"
        # argparse puts the usage before it, of several lines; here an error is one.
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb: its result goes to stdout, all the rest to stderr.

    Args:
        argv (sequence of `str`, *optional*): The words after the program's name; by default those of the process.

    Returns:
        `int`: 0; 1 after a failure, 2 after bad use, 130 after an interrupt.
    """
    _speak_utf_8()
    parser = make_parser()
    try:
        args = parser.parse_args(argv)
    except SystemExit as end:  # --help, --version or bad use
        return int(end.code or 0)
    try:
        return args.run(args) or 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if args.traceback:
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"{parser.prog} {args.verb}: error: {message}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _speak_utf_8() -> None:
    """Whatever the machine's own encoding is: a plan goes through pipes and files, and its words are of any language.

    A path may have bytes that are no text: as a result they are those of the file's name, in a message they are written out.
    """
    streams = (sys.stdin, "strict"), (sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")
    for stream, errors in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=stream.encoding if stream.isatty() else "utf-8", errors=errors)


def make_parser() -> argparse.ArgumentParser:
    """What reads the words of the command line: a parser for each verb."""
    parser = _Parser(
        prog="diffusers-r1", description="Edit pictures with three agents, one of which plans.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--traceback", action="store_true", help="show where in the program an error comes from")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, help_line in VERBS.items():
        verb = import_module(f".{name}", __name__)
        verb_parser = verbs.add_parser(name, help=help_line, description=verb.__doc__, allow_abbrev=False)
        verb.add_arguments(verb_parser)
        verb_parser.set_defaults(run=verb.run)
    return parser
