"""What a person at a terminal sees of an edit and can do to it: how far it is, and Ctrl-C, which keeps what is done."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..plan import EditPlan, Turns


if TYPE_CHECKING:
    from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline
    from ..pipelines.remote import RemotePipeline

LEVELS = ("debug", "info", "warning", "error")
LOGGERS = ("diffusers_r1", "diffusers", "transformers", "huggingface_hub")


def add_log_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    parser.add_argument("--quiet", action="store_true", help="nothing on stderr but errors")
    parser.add_argument(
        "--log_level", "--log-level", choices=LEVELS, help="of this package and its libraries (default: warning)"
    )


def set_log_level(args: argparse.Namespace) -> None:
    """Goes by `--log_level` and `--quiet`. To be called once diffusers and transformers are imported, which set their own."""
    quiet = getattr(args, "quiet", False)
    level = getattr(args, "log_level", None) or ("error" if quiet else None)
    if level is not None:
        logging.basicConfig(format="%(levelname)s: %(message)s")
        for name in LOGGERS:
            logging.getLogger(name).setLevel(level.upper())
    if quiet:
        import huggingface_hub.utils

        huggingface_hub.utils.disable_progress_bars()
        for name in ("diffusers", "transformers"):
            library = sys.modules.get(f"{name}.utils.logging")  # not imported where all models are behind addresses
            if library is not None:
                library.disable_progress_bar()


class Progress:
    """Says where an edit is, on stderr: on a terminal one line that changes, elsewhere a line for each stage.

    Args:
        quiet (`bool`): Say nothing.
        turns (`str`): As in the pipeline's call.
        pictures (`int`): How many are made of each plan. Of several, turns cannot be told apart, so steps alone are said.
        lines (`bool`): Whether stages and sub-requests have lines of their own; not where many pictures follow each other.
    """

    def __init__(self, quiet: bool = False, turns: Turns = "single", pictures: int = 1, lines: bool = True):
        self.quiet, self.turns, self.pictures, self.lines = quiet, turns, pictures, lines
        self.before = ""
        self.turn = 0  # that the editor is at, from 1
        self.of = 0  # 0: not known
        self.stopping = False  # an editor that does not stop by itself is stopped after its step
        self._changing = not quiet and sys.stderr.isatty()
        self._shown = ""

    def begin(self, before: str = "", planned: bool = False) -> None:
        """A new edit; `before` stands in front of all that is said of it, such as `"3 of 20, beach.jpg: "`."""
        self.before, self.turn, self.of, self.stopping = before, 0, 0, False
        if not planned:
            self.stage("planning")

    def stage(self, text: str) -> None:
        if self._changing:
            self._write(f"{self.before}{text}")
        elif self.lines and not self.quiet:
            print(f"{self.before}{text}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self.quiet:
            self._write("")
            print(text, file=sys.stderr, flush=True)

    def plan(self, plan: EditPlan) -> None:
        """The sub-requests: the pipeline's `callback_on_plan`."""
        self.of = {"single": 1, "composed": 1, "multi": len(plan.requests)}.get(self.turns, 0)
        if self.lines:
            for number, request in enumerate(plan.requests, start=1):
                self.say(f"{number}. {request}")
        self.stage("editing")

    def step(self, editor: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """A step of the editor: its `callback_on_step_end`.

        Raises:
            KeyboardInterrupt: If it is to end, and has no way to be told.
        """
        if self.stopping and not hasattr(type(editor), "interrupt"):
            raise KeyboardInterrupt
        self.turn += step == 0
        where = f"step {step + 1} of {steps}" if (steps := getattr(editor, "num_timesteps", 0)) else f"step {step + 1}"
        if self.pictures == 1 and 0 < self.of < self.turn:
            where = f"once more, {where}"
        elif self.pictures == 1 and self.of != 1:
            where = f"turn {self.turn}{f' of {self.of}' if self.of else ''}, {where}"
        if self._changing:
            self._write(f"{self.before}editing, {where}")
        elif step == 0 and (self.of != 1 or self.turn > 1):
            self.stage(f"editing, {where}")
        return tensors

    def end(self) -> None:
        self._write("")

    def _write(self, text: str) -> None:
        """In place of what the line held before."""
        if self._changing:
            sys.stderr.write(f"\r{text.ljust(len(self._shown))}" + ("" if text else "\r"))
            sys.stderr.flush()
            self._shown = text


def follow(pipe: ImageEditR1Pipeline | RemotePipeline, progress: Progress) -> dict[str, Any]:
    """The arguments of a call by which `progress` hears of it. An editor that counts its steps to nobody shows its own bar."""
    call: dict[str, Any] = {"callback_on_plan": progress.plan}
    from ..pipelines.remote import RemotePipeline

    if isinstance(pipe, RemotePipeline):
        return call
    from ..editors import arguments_of

    counts = "callback_on_step_end" in arguments_of(pipe.editor)
    pipe.set_progress_bar_config(disable=progress.quiet or counts)
    return {**call, "callback_on_step_end": progress.step} if counts else call


@contextmanager
def stoppable(pipe: ImageEditR1Pipeline | RemotePipeline, progress: Progress) -> Iterator[None]:
    """Within the block Ctrl-C ends the edit, and the pipeline hands back the turns that are done.

    An editor that is loaded here ends its step first, where a turn is done that is worth the wait. A request to a server, and
    any editor the second time, is given up at once.

    Raises:
        KeyboardInterrupt: Where nothing is done yet.
    """
    remote = getattr(pipe.editor, "concurrent", False)
    asked = False

    def stop(*_: Any) -> None:
        nonlocal asked
        pipe.interrupt()
        if asked or remote or progress.turn < 2:
            raise KeyboardInterrupt
        asked = progress.stopping = True
        progress.say("Stopping after this step; what is done is kept. Ctrl-C again ends at once.")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        progress.end()
