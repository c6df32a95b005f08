"""A stream of pictures: the next one is planned while the editor works on the current one."""

from __future__ import annotations

import inspect
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from PIL import Image

from ..editors import share_out
from ..images import load_samples, pair
from ..plan import EditPlan
from .pipeline_output import ImageEditR1PipelineOutput


Item = TypeVar("Item")
Result = TypeVar("Result")


class StreamingMixin:
    """For a pipeline with `__call__`, `plan` and `check_inputs`: results one by one, in order."""

    def stream(
        self,
        image: Any,
        instruction: str | list[str],
        generator: torch.Generator | list[torch.Generator] | None = None,
        max_new_tokens: int = 512,
        generation: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> Iterator[ImageEditR1PipelineOutput]:
        """Edit pictures one after the other, and give each result as soon as it is there.

        While the editor works on a picture, the next one is planned in a thread. Where the two would disturb each other
        they take turns: if the planner is a part of the editor, if model offload lets one of them on the device at a
        time, or if plans are sampled, since all sampling draws from one global state.

        Args:
            image, instruction, max_new_tokens, generation: As in `__call__`.
            generator (`torch.Generator` or a list of them, *optional*):
                As in `__call__`; a list holds one per picture.
            arguments:
                Whatever else `__call__` takes: `turns`, `selector`, `num_inference_steps`, ...

        Returns:
            `Iterator` of [`ImageEditR1PipelineOutput`]: of each picture in order, what `__call__` gives for it alone.

        Raises:
            ValueError, TypeError: As `__call__`; nothing has run then.
        """
        samples = [[picture, *beside] for picture, beside in zip(*load_samples(image))]
        samples, given = pair(samples, instruction)
        own = inspect.signature(type(self).__call__).parameters
        of_editor = {name: value for name, value in arguments.items() if name not in own}
        self.check_inputs(
            [sample[0] for sample in samples],
            given,
            arguments.get("turns", "single"),
            1,
            None,
            arguments.get("output_type", "pil"),
            of_editor,
            any(len(sample) > 1 for sample in samples),
            arguments.get("max_pixels"),
        )
        generators = generator if isinstance(generator, list) else [generator] * len(samples)
        if len(generators) != len(samples):
            raise ValueError(f"{len(generators)} generators do not go with {len(samples)} pictures.")
        each = [{**arguments, **share} for share in share_out(self.editor, of_editor, len(samples))]
        settings = {"max_new_tokens": max_new_tokens, **(generation or {})}
        items = list(zip(samples, given, generators, each))
        if self._can_plan_ahead({**settings, **arguments}):
            return self._stream_planned_ahead(items, settings)
        about = {"max_new_tokens": max_new_tokens, "generation": generation}
        return (self([sample], text, generator=drawn, **about, **one) for sample, text, drawn, one in items)

    def _stream_planned_ahead(
        self,
        items: list[tuple[list[Image.Image], str, torch.Generator | None, dict[str, Any]]],
        settings: dict[str, Any],
    ) -> Iterator[ImageEditR1PipelineOutput]:
        planner_is_free = threading.Lock()

        def plan_greedily(item: tuple[list[Image.Image], str, torch.Generator | None, dict[str, Any]]) -> EditPlan:
            (image, *_), instruction, generator, _ = item
            with planner_is_free:
                return self._make_plans([image], [instruction], generator, retries=0, **settings)[0]

        for (sample, instruction, generator, arguments), plan in zip(items, one_ahead(plan_greedily, items)):
            if plan.edits:
                self._warn_of_fallbacks([plan])
            else:  # it is asked for again, which takes sampling, and so is not done beside the editor
                with planner_is_free:
                    plan = self.plan(sample[0], instruction, generator, **settings)
            yield self([sample], plan=plan, generator=generator, **arguments)

    def _can_plan_ahead(self, settings: dict[str, Any]) -> bool:
        sampled = settings.get("do_sample") or settings.get("num_plans", 1) > 1
        offloaded = bool(getattr(self, "_all_hooks", ()))
        agents = [agent for agent in (self.planner, self.sequencer) if agent is not None]
        return not sampled and not offloaded and not share_weights(agents, self.editor.components.values())


def one_ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`work` of each item, in order. While the caller is busy with one, a thread works on the next.

    What `work` raises is raised where its result would have come. A caller that stops early leaves the rest undone.
    """
    thread = ThreadPoolExecutor(max_workers=1)
    pending: deque = deque()
    try:
        for item in items:
            pending.append(thread.submit(work, item))
            if len(pending) == 2:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)


def share_weights(agents: Iterable[torch.nn.Module], parts: Iterable[Any]) -> bool:
    """Whether an agent has a weight in common with a part of the editor, so that the two cannot run at the same time."""
    own = {id(weight) for agent in agents for weight in agent.parameters()}
    theirs = (weight for part in parts if isinstance(part, torch.nn.Module) for weight in part.parameters())
    return any(id(weight) in own for weight in theirs)
