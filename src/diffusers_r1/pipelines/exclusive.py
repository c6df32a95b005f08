"""What several threads must not do at once to one editor, how a call is ended early, and what must not pass as a picture."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from diffusers import SchedulerMixin
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback

from ..editors.checks import CALLED


if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_LOCKS: WeakKeyDictionary[Any, threading.RLock] = WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


@contextmanager
def one_at_a_time(editor: Any) -> Iterator[None]:
    """Within the block, no other thread uses the editor, nor one that shares its schedulers, from whatever pipeline.

    A pipeline of diffusers keeps the state of its scheduler, its guidance and its hooks to itself: two calls at once give
    wrong pictures without an error. Nothing to do for `None`.
    """
    if editor is None or getattr(editor, "concurrent", False):  # an editor behind an address
        yield
        return
    schedulers = [part for part in editor.components.values() if isinstance(part, SchedulerMixin)]
    with ExitStack() as held:
        for owner in (editor, *sorted(schedulers, key=id)):  # in one order, so that no two threads wait for each other
            with _LOCKS_LOCK:
                lock = _LOCKS.setdefault(owner, threading.RLock())
            held.enter_context(lock)
        yield


@contextmanager
def not_a_number_raises(editor: Any) -> Iterator[None]:
    """Within the block, a picture with values that are no numbers is an error. It would come out black otherwise.

    Raises:
        FloatingPointError: On the last step of every editor's way to a picture, from numbers to bytes.
    """
    try:
        with np.errstate(invalid="raise"):
            yield
    except FloatingPointError as error:
        raise FloatingPointError(
            f"{type(editor).__name__} made a picture with values that are no numbers (NaN). In float16 some editors do:"
            " load it in bfloat16 or float32."
        ) from error


def with_callers_numbers(each: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The arguments of pictures, with the caller's own functions among them kept out of `not_a_number_raises`.

    Pictures that share a function share it afterwards, so that they still go into one call.
    """
    errors = np.geterr()
    known: dict[int, Callable] = {}

    def outside(function: Callable) -> Callable:
        def called(*args: Any, **kwargs: Any) -> Any:
            with np.errstate(**errors):
                return function(*args, **kwargs)

        return known.setdefault(id(function), called)

    of_diffusers = (PipelineCallback, MultiPipelineCallbacks)  # which diffusers looks into
    return [
        {
            name: outside(value)
            if name in CALLED and value is not None and not isinstance(value, of_diffusers)
            else value
            for name, value in own.items()
        }
        for own in each
    ]


class Interruption:
    """Whether a call is to end early: `pipe.interrupt()` was called since it began, or its editor was told to stop.

    Args:
        pipeline ([`ImageEditR1Pipeline`]): Whose call begins now.
    """

    def __init__(self, pipeline: DiffusionPipeline):
        self._pipeline = pipeline
        self._before = pipeline._interrupts
        self._by_editor = self._stopped = False

    def __bool__(self) -> bool:
        return self._stopped or self._by_editor or self._pipeline._interrupts != self._before

    def stop(self) -> None:
        """End this call alone: before its editor's next step, or before its next turn where the editor is behind an address."""
        self._stopped = True
        if not getattr(self._pipeline.editor, "concurrent", False):
            self._pipeline.editor._interrupt = True

    def reset(self) -> None:
        """Before a turn: forget a stop that the editor was told of in an earlier call and has not forgotten itself."""
        self._pipeline.editor._interrupt = False

    def cut(self) -> bool:
        """After a turn: whether it was cut off. An editor that cannot be stopped between two steps ends its turn whole."""
        editor = self._pipeline.editor
        told = bool(getattr(editor, "_interrupt", False))
        self._by_editor = self._by_editor or told
        return told and hasattr(type(editor), "interrupt")
