"""Planning by vLLM engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import ray
import ray.data
from PIL import Image

from ..endpoints import sendable
from ..prompts import Prompts
from .settings import Settings
from .shards import RowState, attempt, read_row


def plan_with_vllm(rows: ray.data.Dataset, dataset: ray.ObjectRef, settings: Settings) -> ray.data.Dataset:
    """Both questions asked of vLLM engines, `planners` of them for each question."""
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    name, gpus = cast(str, settings.vllm), cast(float, settings.planner_gpus)
    prompts = Prompts.load(name)
    engine = vLLMEngineProcessorConfig(
        model_source=name,
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
        picture = row.image or Image.new("RGB", (56, 56))
        messages = [sendable(message) for message in prompts.first_turn(row.instruction, picture)]
        return {"messages": messages, "sampling_params": sampling}

    def second_question(cells: dict[str, Any]) -> dict[str, Any]:
        asked = first_question(cells)
        return {**asked, "messages": prompts.second_turn(asked["messages"], cells["decomposition"])}

    def read_plan(cells: dict[str, Any]) -> dict[str, Any]:
        from ..planners.plans import to_plan

        row = cells["row"]
        plan = None if row.error else to_plan(row.instruction, cells["decomposition"], cells["generated_text"])
        return {"row": replace(row, image=None, plan=plan)}

    decompose = build_processor(
        engine,
        preprocess=first_question,
        postprocess=lambda cells: {"row": cells["row"], "decomposition": cells["generated_text"]},
    )
    sequence = build_processor(engine, preprocess=second_question, postprocess=read_plan)
    return sequence(decompose(rows.map_batches(cast(Any, read))))  # ray's types know only batches of arrays
