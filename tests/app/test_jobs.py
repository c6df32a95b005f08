"""Who may work when, and that a place is held until the work has ended, whoever still waits for it."""

import asyncio
import gc
import threading
import weakref
from contextlib import aclosing

import pytest
from PIL import Image

from diffusers_r1.app.jobs import Busy, Job, Line, Progress, Refused, Stopped


async def steps_of(job):
    return [step async for step in job.steps()]


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def test_a_job_says_how_far_it_is_and_ends_with_its_result():
    go = threading.Event()

    def work(job):
        job.progress = Progress("half", 0.5)
        go.wait(30)
        return 7

    async def look():
        seen = []
        async for step in Job(Line(1, 0), work).steps():
            seen.append(step)
            if step == Progress("half", 0.5):
                go.set()
        return seen

    *progress, result = run(look())
    assert Progress("half", 0.5) in progress and result == 7


def test_an_error_of_the_work_is_the_job_s_and_the_place_is_free_again():
    line = Line(1, 0)

    def work(job):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run(steps_of(Job(line, work)))
    line.check_room()


def test_whoever_keeps_an_error_keeps_no_picture():
    """A picture of 25 megapixels that was refused would otherwise stay until Python's collector comes by."""
    opened = []

    def open_picture():
        picture = Image.new("L", (1, 1))
        opened.append(weakref.ref(picture))
        raise ValueError(f"{picture.width} pixel is too few")

    def work(job):
        try:
            open_picture()
        except ValueError as error:
            raise Refused(str(error)) from error

    gc.disable()
    try:
        with pytest.raises(Refused, match="1 pixel") as raised:
            run(steps_of(Job(Line(1, 0), work)))
        assert opened[0]() is None and isinstance(raised.value.__cause__, ValueError)
    finally:
        gc.enable()


def test_those_who_wait_see_their_place_and_come_in_their_order():
    line, go, done = Line(2, 10), threading.Event(), []

    def work(number):
        def do(job):
            go.wait(30)
            done.append(number)

        return Job(line, do)

    async def all_of_them():
        jobs = []
        for number in range(5):
            jobs.append(asyncio.create_task(steps_of(work(number))))
            await asyncio.sleep(0)
        await asyncio.sleep(0.5)
        go.set()
        return await asyncio.gather(*jobs)

    seen = run(all_of_them())
    waited = [
        [step.words for step in steps if isinstance(step, Progress) and "number" in step.words] for steps in seen
    ]
    first = [words[0].split()[-4] for words in waited if words]
    assert first == ["1", "2", "3"] and waited[:2] == [[], []]
    assert sorted(done[:2]) == [0, 1] and done[-1] in (3, 4)


def test_one_more_than_may_wait_is_sent_away_unless_it_was_let_in_before():
    line = Line(1, 1)
    line.join()
    second = line.join()
    with pytest.raises(Busy, match="1 people are waiting already"):
        line.join()
    third = line.join(let_in=True)
    assert (line.place(second), line.place(third)) == (1, 2)


@pytest.mark.parametrize("way", ["cancelled", "closed", "stopped"])
def test_a_place_is_held_until_the_work_has_ended(way):
    line, begun, go = Line(1, 0), threading.Event(), threading.Event()

    def work(job):
        begun.set()
        go.wait(30)

    async def leave():
        job = Job(line, work)
        if way == "cancelled":
            task = asyncio.create_task(steps_of(job))
            await asyncio.to_thread(begun.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            async with aclosing(job.steps()) as steps:
                await anext(steps)
                await asyncio.to_thread(begun.wait, 30)
                if way == "stopped":
                    job.stop()
                    with pytest.raises(Stopped):
                        await anext(steps)
        with pytest.raises(Busy):
            line.check_room()  # the thread is still at work
        go.set()
        while True:
            try:
                return line.check_room()
            except Busy:
                await asyncio.sleep(0.01)

    run(leave())


def test_who_is_stopped_while_waiting_never_works():
    line, worked = Line(1, 1), []
    ticket = line.join()
    job = Job(line, worked.append)

    async def stop():
        with pytest.raises(Stopped):
            async for _ in job.steps():
                job.stop()

    run(stop())
    line.leave(ticket)
    line.check_room()
    assert worked == []


def test_work_that_can_end_early_is_told_once_it_has_begun_and_keeps_what_is_done():
    told = threading.Event()

    def work(job):
        told.wait(30)
        return "half"

    async def stop():
        job, seen = Job(Line(1, 0), work, on_stop=told.set), []
        async for step in job.steps():
            seen.append(step)
            job.stop()
        return seen

    assert run(stop())[-1] == "half"
