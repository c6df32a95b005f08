"""Work that takes its turn: a line with an end, and a job that holds its place in it until its thread has ended.

The web server's own queue can be gone round, and forgets a request that is cancelled while the thread that works on it goes
on. So who may use a model is settled here, and by nothing else.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any


SECOND = 1.0  # how often a job that is on its way says so
TICK = 0.1  # seconds between two looks at how far a job is


class Refused(Exception):
    """Why a request is not done, in words for the person who asked."""


class Busy(Refused):
    """So many wait already that one more is sent away."""


class Stopped(Exception):
    """The job was stopped before it had anything to show."""


@dataclass(frozen=True)
class Progress:
    """How far a request is.

    Args:
        words (`str`): What is being done.
        share (`float`, *optional*): How much of it is done, from 0 to 1; `None` where nobody knows.
    """

    words: str
    share: float | None = None


class Line:
    """Who may use something, in the order in which they came. Used from several threads at once.

    Args:
        at_once (`int`): How many may use it at the same time.
        max_waiting (`int`): How many more may wait; one after those is sent away.
    """

    def __init__(self, at_once: int, max_waiting: int):
        self.at_once, self.max_waiting = at_once, max_waiting
        self._tickets: list[object] = []  # first those whose turn it is, then those who wait
        self._lock = Lock()

    def check_room(self) -> None:
        """Raises [`Busy`] if one more would be sent away."""
        if len(self._tickets) >= self.at_once + self.max_waiting:
            raise Busy(f"{self.max_waiting} people are waiting already. Please try again in a minute.")

    def join(self, let_in: bool = False) -> object:
        """A ticket, to be given back with `leave`; raises [`Busy`], but for those who were `let_in` somewhere before."""
        with self._lock:
            if not let_in:
                self.check_room()
            ticket = object()
            self._tickets.append(ticket)
            return ticket

    def place(self, ticket: object) -> int:
        """0 if it is the ticket's turn; otherwise its place among those who wait, from 1."""
        with self._lock:
            return max(0, self._tickets.index(ticket) + 1 - self.at_once)

    def leave(self, ticket: object) -> None:
        with self._lock:
            self._tickets.remove(ticket)


class Job:
    """A piece of work that is waited for without a thread, and done in one of its own.

    Args:
        line ([`Line`]): What has to be stood in.
        work (`Callable`): Called with the job, in a thread; what it returns is the job's result. It may set `progress`.
            Its errors are those of `steps`.
        let_in (`bool`): See [`Line.join`].
        on_stop (`Callable`, *optional*): Makes work that has begun end early, with a result of what is done. Without it
            nobody waits for the end of a stopped job; its place in the line is free only then all the same.
    """

    def __init__(
        self,
        line: Line,
        work: Callable[[Job], Any],
        let_in: bool = False,
        on_stop: Callable[[], None] | None = None,
    ):
        self.progress = Progress("Starting")
        self._line, self._work, self._let_in, self._on_stop = line, work, let_in, on_stop
        self._lock = Lock()
        self._stopped = self._working = False
        self._result: Any = None
        self._error: BaseException | None = None

    def stop(self) -> None:
        """End the job as soon as can be, wherever it is."""
        with self._lock:  # after its end the next one may be at work already, which is none of this one's business
            self._stopped = True
            if self._working and self._on_stop:
                self._on_stop()

    async def steps(self) -> AsyncGenerator[Any, None]:
        """How far the job is, as a [`Progress`] each time that changes and every second, and its result at the end.

        Whoever no longer waits for the next step stops the job.

        Raises:
            Busy: If too many wait.
            Stopped: If it was stopped and there is no result.
        """
        ticket = self._line.join(self._let_in)
        thread = Thread(target=self._run, args=[ticket], daemon=True)
        seen = None
        try:
            while place := self._line.place(ticket):
                if self._stopped:
                    raise Stopped
                if seen != place:
                    yield Progress(f"Waiting: you are number {place} in the line")
                seen = place
                await asyncio.sleep(TICK)
            thread.start()
            said = time.monotonic()
            while thread.is_alive() and not (self._stopped and self._on_stop is None):
                if seen is not self.progress or time.monotonic() - said > SECOND:
                    said = time.monotonic()
                    yield self.progress
                seen = self.progress
                await asyncio.sleep(TICK)
        finally:
            if thread.ident is None:
                self._line.leave(ticket)
            elif thread.is_alive():
                self.stop()
        if thread.is_alive():
            raise Stopped
        if self._error:
            raise self._error
        yield self._result

    def _run(self, ticket: object) -> None:
        try:
            with self._lock:
                self._working = True
                if self._stopped:
                    raise Stopped
            self._result = self._work(self)
        except BaseException as error:
            _let_go(error)
            self._error = error
        finally:
            with self._lock:
                self._working = False
            self._line.leave(ticket)


def _let_go(error: BaseException | None) -> None:
    """Empty the frames that an error came through: they hold pictures, and those who are told of the error hold it for long."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
