"""A planner on disk: model, processor and the prompts that it was trained with, in one folder or inside a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..planners.remote import CONFIG_NAME as REMOTE
from ..planners.remote import RemotePlanner
from ..prompts import PHOTO_EXAMPLES, Prompts
from . import find


if TYPE_CHECKING:  # a planner behind an address needs no torch
    from transformers import PreTrainedModel, ProcessorMixin
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase


ADDRESS = ("http://", "https://")


def load_planner(
    name: str | Path, model_name: str | None = None, **kwargs: Any
) -> tuple[PreTrainedModel | RemotePlanner, ProcessorMixin | PreTrainedTokenizerBase | None, Prompts]:
    """Load what a pipeline, or further training, needs of a planner.

    Args:
        name (`str` or `Path`): A shipped bundle or planner, a folder that `save_planner` or a training script wrote, the
            folder of a whole bundle, or a Hub repository. A LoRA adapter is loaded onto the base model that it names. Or
            the address of a server that has a planner loaded, `"http://localhost:8000/v1"`: that takes no torch.
        model_name (`str`, *optional*): The model's name at an address; may be left out where the server has only one.
        kwargs: Passed on to the model's `from_pretrained`, such as `dtype`; at an address, to [`RemotePlanner`], such as
            `concurrency`.

    Returns:
        `tuple`: the model, in evaluation mode, or the [`RemotePlanner`]; its processor, its tokenizer where it sees no
        pictures, `None` at an address; its prompts, the default ones where the folder has none. At an address these hold
        worked examples, since nobody knows what that model was trained for.

    Raises:
        ValueError: If a `model_name` is given without an address, or the address has several models and none is named.
    """
    if str(name).lower().startswith(ADDRESS):
        kwargs.pop("dtype", None)  # of weights, which the server has
        return RemotePlanner(str(name), model_name, **kwargs), None, Prompts(examples=PHOTO_EXAMPLES)
    if model_name is not None:
        raise ValueError(f"`model_name` goes with an address, which begins with http://; {name} is none.")
    folder = find(str(name)) or name
    index = Path(folder) / "model_index.json"
    if index.exists():
        words = json.loads(index.read_text(encoding="utf-8")).get("prompts") or {}
        model, processor, prompts = Path(folder) / "planner", Path(folder) / "processor", Prompts(**words)
    else:
        model, processor, prompts = folder, folder, Prompts.load(folder)
    if (Path(model) / REMOTE).exists():
        kwargs.pop("dtype", None)
        return RemotePlanner.from_pretrained(model, **kwargs), None, prompts
    if base := _base_of_adapter(folder):
        planner, of_base, _ = load_planner(base, **kwargs)
        own, prompts = load_adapter(planner, folder)
        return planner.eval(), own or of_base, prompts
    return *_load_here(model, processor, **kwargs), prompts


def _base_of_adapter(folder: str | Path) -> str | None:
    """The model that a LoRA adapter was trained on; `None` if this is no adapter."""
    from transformers.utils import find_adapter_config_file

    adapter = find_adapter_config_file(folder)
    return json.loads(Path(adapter).read_text(encoding="utf-8"))["base_model_name_or_path"] if adapter else None


def _load_here(
    model: str | Path, processor: str | Path, **kwargs: Any
) -> tuple[PreTrainedModel, ProcessorMixin | PreTrainedTokenizerBase]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    from ..planners.families import ATTENTION

    kind = AutoConfig.from_pretrained(model).model_type
    if kind in ATTENTION:
        kwargs = {"attn_implementation": ATTENTION[kind][0], **kwargs}
    sees = kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    auto = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    return auto.from_pretrained(model, **kwargs).eval(), AutoProcessor.from_pretrained(processor)


def load_adapter(
    model: PreTrainedModel, name: str | Path
) -> tuple[ProcessorMixin | PreTrainedTokenizerBase | None, Prompts]:
    """Load a LoRA adapter onto the model that it was trained on.

    Returns:
        `tuple`: the processor that was saved beside the adapter, `None` if there is none; the prompts, the default ones
        if there are none.
    """
    from transformers import AutoProcessor
    from transformers.utils import cached_file

    model.load_adapter(str(name))
    has_processor = cached_file(name, "tokenizer_config.json", _raise_exceptions_for_missing_entries=False) is not None
    return AutoProcessor.from_pretrained(name) if has_processor else None, Prompts.load(name)


def save_planner(
    folder: str | Path,
    planner: PreTrainedModel | RemotePlanner,
    processor: ProcessorMixin | PreTrainedTokenizerBase | None,
    prompts: Prompts,
) -> None:
    """Write a planner to one folder, from which `load_planner` reads it; of a remote one its address, never a key."""
    planner.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    prompts.save(folder)
