"""What a run is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..endpoints import check_address
from ..names import is_address
from ..pipelines.checks import check_count, check_seed, check_turns
from ..plan import Turns


# What the pictures depend on: a run goes on only with the same.
IDENTITY = (
    "rows",
    "model",
    "planner",
    "planner_model",
    "planner_base",
    "vllm",
    "dtype",
    "turns",
    "seed",
    "editor_arguments",
    "max_new_tokens",
)

COUNTS = ("max_new_tokens", "planners", "editors", "planner_batch_size", "editor_batch_size", "shard_size")


@dataclass(frozen=True)
class Settings:
    """Of a run over a data set.

    Args:
        output_dir (`Path`): Absolute, since workers run in folders of their own; where all machines see it.
        rows (`Mapping`): What names the data set and its order, ready for JSON.
        model (`str`): A bundle.
        planner (`str`, *optional*): What plans in place of the bundle's agents: as [`load_planner`] takes it, the address of
            a server too. The key is read from `OPENAI_API_KEY` where the worker runs.
        planner_model (`str`, *optional*): The model at an address that has several.
        planner_base (`str`, *optional*): Of a planner that is an adapter, where its base is.
        vllm (`str`, *optional*): A planner to be run by vLLM engines in place of the bundle's own.
        device, dtype (`str`, *optional*): Of the models; an accelerator if there is one, and float32.
        turns (`"single"`, `"multi"`, `"auto"` or `"composed"`, defaults to `"single"`): How plans are carried out.
        seed (`int`, defaults to 0): Of the noise, with each row's number.
        max_new_tokens (`int`, defaults to 512): Of an agent's answer.
        editor_arguments (`Mapping`): Such as `num_inference_steps`.
        planners, editors (`int`, default to 1): Workers of each kind.
        planner_gpus, editor_gpus (`float`, *optional*): GPUs for each: a part of one, or whole ones. Half of one by default,
            so that a planner and an editor share the one card of a laptop; 0 where there are none, and for a planner
            behind an address.
        planner_batch_size (`int`, defaults to 8), editor_batch_size (`int`, defaults to 4): Rows at once.
        shard_size (`int`, defaults to 32): Rows of a file, and the most that a dead worker costs.
        retry_failed (`bool`, defaults to `False`): Whether rows that failed by their own fault are tried again. Those that a server
            failed at in an outage always are.

    Raises:
        ValueError: If the planner cannot be, or a number or a way to carry plans out.
    """

    output_dir: Path
    rows: Mapping[str, Any]
    model: str
    planner: str | None = None
    planner_model: str | None = None
    planner_base: str | None = None
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

    def __post_init__(self):
        check_turns(self.turns)
        check_seed(self.seed)
        for name in COUNTS:
            check_count(name, getattr(self, name))
        if self.vllm is not None and (self.planner is not None or is_address(self.vllm)):
            raise ValueError(
                "`vllm` is a planner whose weights engines here load; one behind an address is a `planner`."
            )
        if self.planner is not None and is_address(self.planner):
            check_address(self.planner)  # it is written to the run's folder
        elif self.planner_model is not None:
            raise ValueError("`planner_model` goes with a `planner` behind an address, which begins with http://.")

    def identity(self) -> dict[str, Any]:
        """What has to be the same when a run is gone on with, as JSON gives it back."""
        return json.loads(json.dumps({name: getattr(self, name) for name in IDENTITY}, default=_plain))


def _plain(value: Any) -> Any:
    """numpy's numbers as Python's, mappings as `dict`."""
    return value.item() if isinstance(value, np.generic) else dict(value)
