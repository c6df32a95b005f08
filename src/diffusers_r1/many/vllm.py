"""Planning by vLLM engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import ray
import ray.data
from PIL import Image

from ..belongings import belongings_in
from ..endpoints import sendable
from ..names import resolve
from ..planners.remote import CONTROL_TOKENS
from ..prompts import FILE_NAME as PROMPTS_FILE
from ..prompts import PHOTO_EXAMPLES, Prompts, plain_text
from .settings import Settings
from .shards import RowState, attempt, read_row


def plan_with_vllm(rows: ray.data.Dataset, dataset: ray.ObjectRef, settings: Settings) -> ray.data.Dataset:
    """Both questions asked of vLLM engines, `planners` of them for each question."""
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    folder, gpus = find_planner(cast(str, settings.vllm)), cast(float, settings.planner_gpus)
    prompts = prompts_in(folder)
    engine = vLLMEngineProcessorConfig(
        model_source=str(folder),
        batch_size=settings.shard_size,
        concurrency=(settings.planners, settings.planners),
        prepare_multimodal_stage=True,
        engine_kwargs={
            "gpu_memory_utilization": 0.9 * min(gpus, 1),
            "limit_mm_per_prompt": {"image": 1},
        },
        placement_group_config={"bundle_per_worker": {"CPU": 1, "GPU": gpus}},
    )
    sampling = {"temperature": 0, "max_tokens": settings.max_new_tokens}

    def read(shard: dict[str, Sequence[RowState]]) -> dict[str, list[RowState]]:
        held = ray.get(dataset)
        return {"row": [attempt("read", lambda rows: [read_row(held, rows[0])], [row])[0] for row in shard["row"]]}

    def first_question(cells: dict[str, Any]) -> dict[str, Any]:
        row = cells["row"]
        # Every row has to be asked about; the answer to one that could not be read is not looked at.
        picture = row.pictures[0] if row.pictures else Image.new("RGB", (56, 56))
        instruction = plain_text(row.instruction, CONTROL_TOKENS)
        messages = [sendable(message) for message in prompts.first_turn(instruction, picture)]
        return {"messages": messages, "sampling_params": sampling}

    def second_question(cells: dict[str, Any]) -> dict[str, Any]:
        asked = first_question(cells)
        decomposition = plain_text(cells["decomposition"], CONTROL_TOKENS)
        return {**asked, "messages": prompts.second_turn(asked["messages"], decomposition)}

    def read_plan(cells: dict[str, Any]) -> dict[str, Any]:
        from ..planners.plans import to_plan

        row = cells["row"]
        plan = None if row.error else to_plan(row.instruction, cells["decomposition"], cells["generated_text"])
        return {"row": replace(row, pictures=(), plan=plan)}

    decompose = build_processor(
        engine,
        preprocess=first_question,
        postprocess=lambda cells: {"row": cells["row"], "decomposition": cells["generated_text"]},
    )
    sequence = build_processor(engine, preprocess=second_question, postprocess=read_plan)
    return sequence(decompose(rows.map_batches(cast(Any, read))))  # ray's types know only batches of arrays


def find_planner(name: str) -> Path:
    """The folder that engines load: what the name stands for, model, processor and prompts of one revision.

    Raises:
        OSError: If nothing has that name, or it is no whole model.
    """
    folder = resolve(name)
    if not (folder / "config.json").is_file():
        raise OSError(f"{name} has no config.json: engines load a planner's own folder, no bundle and no adapter.")
    return folder


def prompts_in(folder: Path) -> Prompts:
    """The words that are kept with a planner, in a file of their own or in its config.

    Where none are, nobody has trained it for this, and it is shown examples, as [`~prompts.prompts_of`] has it.
    """
    if (folder / PROMPTS_FILE).is_file():
        return Prompts.load(folder)
    config = folder / "config.json"
    kept = belongings_in(config).get("prompts")
    return Prompts(examples=PHOTO_EXAMPLES) if kept is None else Prompts.from_dict(kept, str(config))
