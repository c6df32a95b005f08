"""What a stream of pictures needs: the planning of the next one while the editor works on the current one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch


Item = TypeVar("Item")
Result = TypeVar("Result")


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
