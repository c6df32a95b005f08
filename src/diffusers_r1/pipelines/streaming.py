"""A stream of pictures: the next one is planned while the editor works on the current one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from queue import Queue
from typing import Any, TypeVar

from ..plan import EditPlan
from ..planners.plans import is_to_be_asked_again, warn_of_fallbacks
from .call import Generators, after, check_agents, check_settings, share_out_generators
from .checked import EditCall
from .checks import check_either, check_plans, check_texts
from .exclusive import Interruption
from .nested.parts import Mixin
from .nested.remote import is_remote
from .pipeline_output import ImageEditR1PipelineOutput


Item = TypeVar("Item")
Result = TypeVar("Result")

_NOTHING = object()


class StreamingMixin(Mixin):
    """For a pipeline with `check_inputs` and `run_checked`: results one by one, in order."""

    def stream(
        self,
        image: Any,
        instruction: str | Iterable[str] | None = None,
        generator: Generators = None,
        plan: EditPlan | Iterable[EditPlan] | None = None,
        return_dict: bool = True,
        **arguments: Any,
    ) -> Iterator[ImageEditR1PipelineOutput | tuple]:
        """Edit pictures one after the other, and give each result as soon as it is there.

        While the editor works on a picture, the next one is planned in a thread. Where the two would disturb each other
        they take turns: if the planner is a part of the editor, if model offload lets one of them on the device at a
        time, or if plans are sampled, since all sampling draws from one global state.

        Args:
            image:
                As in `__call__`: then everything is opened and checked at once. Or an iterator, of which one picture at a
                time is opened, checked, and forgotten: it gives what a list would hold or, with neither `instruction` nor
                `plan`, pairs of that and one instruction or one plan.
            instruction (`str` or iterable of `str`, *optional*):
                One for all pictures, or one for each.
            plan ([`EditPlan`] or iterable of [`EditPlan`], *optional*):
                Carried out as it is, in place of `instruction`.
            generator (`torch.Generator` or a list of them, *optional*):
                As in `__call__`. With an iterator of pictures, one that all draw from.
            return_dict (`bool`, defaults to `True`):
                Whether to give an [`ImageEditR1PipelineOutput`] rather than a tuple.
            arguments:
                Whatever else `__call__` takes: `turns`, `selector`, `num_inference_steps`, ...

        Returns:
            `Iterator` of [`ImageEditR1PipelineOutput`]: of each picture in order, what `__call__` gives for it alone. An
            interruption ends it.

        Raises:
            ValueError, TypeError: As `__call__`, at once, and nothing has run then. What an iterator gives is refused when
                it is its turn, before any model runs on it.
        """
        if isinstance(image, Iterator):
            calls = self._calls_one_by_one(image, instruction, plan, generator, arguments)
        else:
            calls = _alone(
                self.check_inputs(image, _listed(instruction), _listed(plan), generator=generator, **arguments)
            )
        calls = self._planned_ahead(calls) if self._can_plan_ahead(arguments) else calls
        outputs = self._until_interrupted(calls, Interruption(self))
        return outputs if return_dict else (output.to_tuple() for output in outputs)

    def _calls_one_by_one(
        self, image: Iterator, instruction: Any, plan: Any, generator: Generators, arguments: dict[str, Any]
    ) -> Iterator[EditCall]:
        """What can be checked without a picture is checked now, and each call as soon as it is asked for."""
        if instruction is not None or plan is not None:
            check_either(instruction, plan)
        if _is_for_all(instruction):
            check_texts(instruction)
        if _is_for_all(plan):
            check_plans(plan)
        if isinstance(generator, (list, tuple)):
            raise ValueError("An iterator of pictures goes with one generator, not with a list of them.")
        share_out_generators(generator, 1, 1)
        check_settings(self, planned=plan is not None, **arguments)
        if instruction is not None:
            check_agents(self)
        return self._counted_on(_pairs(image, instruction, plan), generator, arguments)

    def _counted_on(
        self, pairs: Iterable[tuple[Any, dict[str, Any]]], generator: Generators, arguments: dict[str, Any]
    ) -> Iterator[EditCall]:
        for sample, given in pairs:
            call = self.check_inputs([sample], **given, generator=generator, **arguments)
            yield call
            if call.generators and is_remote(self.editor):  # which draws nothing from it, so that seeds are counted on
                generator = after(call.generators[0][-1])

    def _until_interrupted(
        self, calls: Iterable[EditCall], interruption: Interruption
    ) -> Iterator[ImageEditR1PipelineOutput]:
        """The result of each call. After one that was interrupted there is no other, nor after `interrupt()` between two."""
        if interruption:
            return  # before the first was planned
        with closing(iter(calls)) if isinstance(calls, Generator) else nullcontext():
            for call in calls:
                if interruption:
                    return
                output = self.run_checked(call)
                yield output
                if output.interrupted or interruption:
                    return

    def _planned_ahead(self, calls: Iterable[EditCall]) -> Iterator[EditCall]:
        """Each call with its plan, where that could be made beside the editor."""

        def plan_greedily(call: EditCall) -> tuple[EditCall, EditPlan | None]:
            if call.planned:
                return call, None
            planning = call.planning
            return call, self._make_plans(replace(planning, settings={**planning.settings, "retries": 0}))[0]

        for call, plan in one_ahead(plan_greedily, calls):
            if plan is not None and not is_to_be_asked_again(plan):
                warn_of_fallbacks([plan])
                call = replace(call, given=[plan])
            # Otherwise it is asked for again, which takes sampling, and so is not done beside the editor.
            yield call

    def _can_plan_ahead(self, arguments: Mapping[str, Any]) -> bool:
        sampled = (arguments.get("generation") or {}).get("do_sample") or arguments.get("num_plans", 1) > 1
        return not sampled and not self._planner_and_editor_disturb_each_other


def _alone(call: EditCall) -> list[EditCall]:
    """A call about several pictures as one about each."""
    return [
        replace(
            call,
            images=[call.images[row]],
            references=[call.references[row]],
            given=[call.given[row]],
            each=[call.each[row]],
            generators=call.generators[row : row + 1],
        )
        for row in range(len(call.images))
    ]


def _is_for_all(given: Any) -> bool:
    """Whether it is one instruction or plan, for every picture, and not an iterable of them; nothing is neither."""
    return given is not None and (isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable))


def _listed(given: Any) -> Any:
    """One for all as it is, and any iterable of them as the list that a call takes."""
    return given if given is None or _is_for_all(given) else list(given)


def _pairs(samples: Iterator, instruction: Any, plan: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each sample with what goes with it, as an argument of a call: a list of one, in which no other list may stand."""
    name, given = ("instruction", instruction) if plan is None else ("plan", plan)
    if _is_for_all(given):
        yield from ((sample, {name: [given]}) for sample in samples)
        return
    if given is not None:
        given = iter(given)
        for sample in samples:
            one = next(given, _NOTHING)
            if one is _NOTHING:
                raise ValueError(f"There are more pictures than values of `{name}`.")
            yield sample, {name: [one]}
        if next(given, _NOTHING) is not _NOTHING:
            raise ValueError(f"There are more values of `{name}` than pictures.")
        return
    for pair in samples:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError("Without `instruction` and `plan`, an iterator gives pairs: a picture, and one of these.")
        picture, given = pair
        yield picture, {"plan" if isinstance(given, EditPlan) else "instruction": [given]}


def one_ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`work` of each item, in order. While the caller is busy with one, a thread works on the next.

    What `work` raises is raised where its result would have come. A caller that stops early leaves the rest undone, and
    does not wait for what is under way: the thread ends with it, or with the program.
    """
    results: Queue = Queue()
    wanted = threading.Semaphore(2)  # one that is waited for, and one ahead
    stopped = threading.Event()

    def run() -> None:
        try:
            for item in items:
                wanted.acquire()
                if stopped.is_set():
                    return
                results.put((work(item), None))
            results.put((None, StopIteration()))
        except BaseException as error:  # noqa: B036 (raised again in the caller's thread)
            results.put((None, error))

    thread = threading.Thread(target=run, daemon=True, name="plans-ahead")
    thread.start()
    try:
        while True:
            result, error = results.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield result
            wanted.release()
    finally:
        stopped.set()
        wanted.release()
        thread.join(timeout=0.2)  # seconds: who presses Ctrl-C does not want to wait for a plan
