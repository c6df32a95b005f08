"""A planner on disk: model, processor and the prompts that it was trained with, in one folder or inside a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import cached_file, find_adapter_config_file

from ..prompts import Prompts
from . import find


def load_planner(
    name: str | Path, **kwargs: Any
) -> tuple[PreTrainedModel, ProcessorMixin | PreTrainedTokenizerBase, Prompts]:
    """Load what a pipeline, or further training, needs of a planner.

    Args:
        name (`str` or `Path`): A shipped bundle or planner, a folder that `save_planner` or a training script wrote, the
            folder of a whole bundle, or a Hub repository. A LoRA adapter is loaded onto the base model that it names.
        kwargs: Passed on to the model's `from_pretrained`, such as `dtype`.

    Returns:
        `tuple`: the model, in evaluation mode; its processor, or its tokenizer where it sees no pictures; its prompts,
        the default ones where the folder has none.
    """
    folder = find(str(name)) or name
    if adapter := find_adapter_config_file(str(folder)):
        model, processor, _ = load_planner(
            json.loads(Path(adapter).read_text(encoding="utf-8"))["base_model_name_or_path"], **kwargs
        )
        own, prompts = load_adapter(model, folder)
        return model.eval(), own or processor, prompts
    index = Path(folder) / "model_index.json"
    if index.exists():
        words = json.loads(index.read_text(encoding="utf-8")).get("prompts") or {}
        model, processor, prompts = Path(folder) / "planner", Path(folder) / "processor", Prompts(**words)
    else:
        model, processor, prompts = folder, folder, Prompts.load(folder)
    sees = AutoConfig.from_pretrained(model).model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    auto = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    return auto.from_pretrained(model, **kwargs).eval(), AutoProcessor.from_pretrained(processor), prompts


def load_adapter(
    model: PreTrainedModel, name: str | Path
) -> tuple[ProcessorMixin | PreTrainedTokenizerBase | None, Prompts]:
    """Load a LoRA adapter onto the model that it was trained on.

    Returns:
        `tuple`: the processor that was saved beside the adapter, `None` if there is none; the prompts, the default ones
        if there are none.
    """
    model.load_adapter(str(name))
    has_processor = cached_file(name, "tokenizer_config.json", _raise_exceptions_for_missing_entries=False) is not None
    return AutoProcessor.from_pretrained(name) if has_processor else None, Prompts.load(name)


def save_planner(
    folder: str | Path,
    planner: PreTrainedModel,
    processor: ProcessorMixin | PreTrainedTokenizerBase,
    prompts: Prompts,
) -> None:
    """Write a planner to one folder, from which `load_planner` reads it."""
    planner.save_pretrained(folder)
    processor.save_pretrained(folder)
    prompts.save(folder)
