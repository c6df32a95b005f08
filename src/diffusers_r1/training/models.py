"""A planner made ready for TRL's trainers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import PreTrainedModel, ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from ..bundles.planners import base_of, load_planner
from ..names import resolve
from ..planners.adapters import has_adapter
from ..planners.control_tokens import control_token_ids
from ..prompts import Prompts, prompts_of


if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import Trainer
    from trl import GRPOConfig, ModelConfig, SFTConfig


def load_trainable(
    model: ModelConfig, training: GRPOConfig | SFTConfig, freeze_vision: bool
) -> tuple[PreTrainedModel, ProcessorMixin | PreTrainedTokenizerBase, Prompts]:
    """The planner that `--model_name_or_path` names, as the other options of TRL's `ModelConfig` say.

    Args:
        model ([`~trl.ModelConfig`]): The name is one that [`load_planner`] takes. An adapter is trained on: it stays one
            adapter of its base, of its rank, with the dropout that is asked for now.
        training ([`~trl.GRPOConfig`] or [`~trl.SFTConfig`]): Its `model_init_kwargs` are passed on.
        freeze_vision (`bool`): Whether the vision tower stays as it is.
    """
    from trl import get_quantization_config

    if model.model_name_or_path is None:
        raise ValueError("Name the planner to start from: --model_name_or_path.")
    base = base_of(model.model_name_or_path)
    is_adapter = base != model.model_name_or_path
    if is_adapter and model.use_peft:
        raise ValueError("The planner to start from is an adapter, which is trained on: leave out --use_peft.")
    options = {
        "dtype": model.dtype,
        "attn_implementation": model.attn_implementation,
        "revision": model.model_revision,
        "quantization_config": get_quantization_config(model),
        **cast(dict, training.model_init_kwargs or {}),
    }
    given = {name: value for name, value in options.items() if value is not None}
    training.model_init_kwargs = None  # the trainer gets a model, not a name
    planner, processor, _ = cast(Any, load_planner(base, **given))
    prompts = prompts_of(planner, examples=())  # what training teaches need not be shown with every question
    if is_adapter:
        from peft import LoraConfig, PeftConfig, PeftModel

        adapter = resolve(model.model_name_or_path)
        settings = PeftConfig.from_pretrained(str(adapter))
        if isinstance(settings, LoraConfig):  # how it is trained, not what it is
            settings.lora_dropout = model.lora_dropout
        adapted = PeftModel.from_pretrained(planner, adapter, is_trainable=True, config=settings)
        planner = cast(PreTrainedModel, adapted)  # it has all that the planner has
        prompts = Prompts.load(adapter)
    if freeze_vision and hasattr(processor, "image_processor"):
        for tower in vision_towers(planner).values():
            tower.requires_grad_(False)
    return planner, processor, prompts


def vision_towers(planner: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """By name, the modules that encode pictures: those that are built from the `vision_config` of the planner's settings.

    What lies between them and the language model, and is no part of them, is not among them.

    Raises:
        ValueError: If the planner takes pictures and none is found.
    """
    settings = getattr(planner.config, "vision_config", None)
    towers = {
        name: module
        for name, module in planner.named_modules()
        if settings is not None and isinstance(getattr(module, "config", None), type(settings))
    }
    outermost = {
        name: tower for name, tower in towers.items() if not any(name.startswith(f"{other}.") for other in towers)
    }
    if not outermost:
        raise ValueError(
            f"{type(planner).__name__} takes pictures, but no module is built from a `vision_config` of its settings, so "
            "its vision tower cannot be found. Train it as a whole: --freeze_vision false."
        )
    return outermost


def lora_settings(model: ModelConfig, planner: PreTrainedModel, freeze_vision: bool) -> LoraConfig | None:
    """TRL's LoRA options, which leave the vision tower out where it is frozen; `None` without `--use_peft`."""
    from trl import get_peft_config

    settings = cast("LoraConfig | None", get_peft_config(model))
    if settings is not None and freeze_vision and hasattr(planner, "get_image_features"):
        settings.exclude_modules = "|".join(rf"{re.escape(name)}(\..*)?" for name in vision_towers(planner))
    return settings


def without_control_tokens(
    training: GRPOConfig, planner: PreTrainedModel, processor: ProcessorMixin | PreTrainedTokenizerBase
) -> None:
    """Let no completion hold a control token but those that end it: a picture's token would have no picture."""
    tokenizer: Any = getattr(processor, "tokenizer", processor)
    ends: Any = planner.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    suppressed = sorted(set(control_token_ids(processor)) - ends)
    # vLLM takes the tokens as text.
    guard = (
        {"bad_words": tokenizer.convert_ids_to_tokens(suppressed)}
        if training.use_vllm
        else {"suppress_tokens": suppressed}
    )
    training.generation_kwargs = {**guard, **cast(dict, training.generation_kwargs or {})}


def restore_weights(trainer: Trainer, checkpoint: str | None) -> None:
    """Give a trainer's model the weights of the checkpoint that its `train` is about to go on from.

    `train` reads them as well, but by their names on disk. Those of Qwen2.5-VL are others than in memory, so it would
    leave the model as it is, with a warning of missing keys and no more (transformers issue 43701). Adapters and
    sharded weights are read in other ways, which are right.
    """
    model: Any = trainer.model
    if checkpoint is None or has_adapter(model) or trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        return
    saved: Any = load_planner(checkpoint, dtype=model.dtype)[0]
    model.load_state_dict(saved.state_dict())
