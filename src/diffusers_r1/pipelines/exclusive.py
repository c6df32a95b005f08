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
from torch import nn

from ..editors.checks import CALLED


if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class _Inside(threading.local):
    """What this thread holds the locks of."""

    def __init__(self) -> None:
        self.owners: list[Any] = []


_LOCKS: WeakKeyDictionary[Any, threading.RLock] = WeakKeyDictionary()
_INSIDE = _Inside()
_AT_WORK: dict[Interruption, Any] = {}  # the calls whose turn an editor makes now, each with that editor
_TABLES = threading.RLock()  # for these tables; taken again by a handler of Ctrl-C that ends a call


@contextmanager
def one_at_a_time(editor: Any, again: bool = False) -> Iterator[None]:
    """Within the block, no other thread uses the editor, nor one that shares its schedulers or models, from whatever pipeline.

    A pipeline of diffusers keeps the state of its scheduler and its guidance to itself, and hooks on its models: two calls at
    once give wrong pictures without an error. Nothing to do for `None`.

    Args:
        again (`bool`): Whether this thread may be inside already, as a callback is that plans between two steps.

    Raises:
        RuntimeError: If it is, and may not.
    """
    if is_used_at_once(editor):
        yield
        return
    if not again:
        check_not_inside(editor)
    owners = _owners(editor)
    with ExitStack() as held:
        for owner in owners:
            with _TABLES:
                lock = _LOCKS.setdefault(owner, threading.RLock())
            held.enter_context(lock)
        _INSIDE.owners += owners
        try:
            yield
        finally:
            del _INSIDE.owners[-len(owners) :]


def check_not_inside(editor: Any) -> None:
    """Refuse a call of the editor by a callback of its own, which would go on with the other call's schedule.

    Raises:
        RuntimeError: If this thread is inside the editor, or inside one that shares its schedulers or models.
    """
    if is_used_at_once(editor):
        return
    if any(owner is inside for owner in _owners(editor) for inside in _INSIDE.owners):
        raise RuntimeError(
            f"This {type(editor).__name__} is at work: a callback of its own steps cannot call it for another picture,"
            " since both calls would share its schedule, or its models with what is hooked to them. Do that after the call,"
            " or with another editor."
        )


def is_used_at_once(editor: Any) -> bool:
    """Whether there is nothing to take turns at: no editor, or one behind an address."""
    return editor is None or getattr(editor, "concurrent", False)


def _owners(editor: Any) -> list[Any]:
    """The editor, its schedulers and its models: in one order, so that no two threads wait for each other."""
    parts = {id(part): part for part in editor.components.values() if isinstance(part, (SchedulerMixin, nn.Module))}
    return [editor, *(parts[key] for key in sorted(parts))]


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
        tell_editors()

    @contextmanager
    def at_the_editor(self) -> Iterator[None]:
        """Within the block the editor makes a turn of this call, and is told if the call is to end.

        What the editor was told of in an earlier call, and has not forgotten itself, is forgotten first.
        """
        editor = self._pipeline.editor
        if is_used_at_once(editor):
            yield
            return
        with _TABLES:
            editor._interrupt = False
            _AT_WORK[self] = editor
        try:
            yield
        finally:
            with _TABLES:
                del _AT_WORK[self]

    def cut(self) -> bool:
        """After a turn: whether it was cut off. An editor that cannot be stopped between two steps ends its turn whole."""
        editor = self._pipeline.editor
        told = bool(getattr(editor, "_interrupt", False))
        self._by_editor = self._by_editor or told
        return told and hasattr(type(editor), "interrupt")


def tell_editors() -> None:
    """Have each editor that makes a turn of a call that is to end stop before its next step, and no other editor."""
    with _TABLES:
        for call, editor in _AT_WORK.items():
            if call:
                editor._interrupt = True
