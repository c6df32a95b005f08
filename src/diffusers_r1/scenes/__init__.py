"""The scenes world: a synthetic test bench for instruction-based editing in which every answer is known."""

from .language import ACTIONS, POINTERS, Request, apply_edits, place_of_edit, read_request, sub_request
from .tasks import KINDS, TEST_SEEDS, Task, reason, sample_scene, sample_task, sample_tasks, score, teacher
from .world import (
    BACKGROUNDS,
    COLORS,
    CONTENTS,
    PLACES,
    SHAPES,
    UNREADABLE,
    Item,
    Scene,
    contents,
    describe,
    read_contents,
    read_scene,
    render,
    score_scene,
)


__all__ = [
    "ACTIONS",
    "BACKGROUNDS",
    "COLORS",
    "CONTENTS",
    "KINDS",
    "PLACES",
    "POINTERS",
    "SHAPES",
    "TEST_SEEDS",
    "UNREADABLE",
    "Item",
    "Request",
    "Scene",
    "Task",
    "apply_edits",
    "contents",
    "describe",
    "place_of_edit",
    "read_contents",
    "read_request",
    "read_scene",
    "reason",
    "render",
    "sample_scene",
    "sample_task",
    "sample_tasks",
    "score",
    "score_scene",
    "sub_request",
    "teacher",
]
