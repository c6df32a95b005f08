"""What a run is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..plan import Turns


# What the pictures depend on: a run goes on only with the same.
IDENTITY = ("rows", "model", "vllm", "dtype", "turns", "seed", "editor_arguments", "max_new_tokens")


@dataclass(frozen=True)
class Settings:
    """Of a run over a data set.

    Args:
        output_dir (`Path`): Absolute, since workers run in folders of their own; where all machines see it.
        rows (`Mapping`): What names the data set and its order, ready for JSON.
        model (`str`): A bundle.
        vllm (`str`, *optional*): A planner to be run by vLLM engines in place of the bundle's own.
        device, dtype (`str`, *optional*): Of the models; an accelerator if there is one, and float32.
        turns (`"single"` or `"multi"`, defaults to `"single"`): Sub-requests at once or one by one.
        seed (`int`, defaults to 0): Of the noise, with each row's number.
        max_new_tokens (`int`, defaults to 512): Of an agent's answer.
        editor_arguments (`Mapping`): Such as `num_inference_steps`.
        planners, editors (`int`, default to 1): Workers of each kind.
        planner_gpus, editor_gpus (`float`, *optional*): GPUs for each: a part of one, or whole ones. Half of one by default,
            so that a planner and an editor share the one card of a laptop; 0 where there are none.
        planner_batch_size (`int`, defaults to 8), editor_batch_size (`int`, defaults to 4): Rows at once.
        shard_size (`int`, defaults to 32): Rows of a file, and the most that a dead worker costs.
        retry_failed (`bool`, defaults to `False`): Whether rows that failed before are tried again.
    """

    output_dir: Path
    rows: Mapping[str, Any]
    model: str
    vllm: str | None = None
    device: str | None = None
    dtype: str | None = None
    turns: Turns = "single"
    seed: int = 0
    max_new_tokens: int = 512
    editor_arguments: Mapping[str, Any] = field(default_factory=dict)
    planners: int = 1
    editors: int = 1
    planner_gpus: float | None = None
    editor_gpus: float | None = None
    planner_batch_size: int = 8
    editor_batch_size: int = 4
    shard_size: int = 32
    retry_failed: bool = False

    def identity(self) -> dict[str, Any]:
        """What has to be the same when a run is gone on with, as JSON gives it back."""
        return json.loads(json.dumps({name: getattr(self, name) for name in IDENTITY}, default=dict))
