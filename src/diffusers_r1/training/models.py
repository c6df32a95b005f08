"""A planner made ready for TRL's trainers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel, ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..bundles.planners import base_of, load_planner
from ..planners.adapters import has_adapter
from ..planners.control_tokens import control_token_ids
from ..planners.encoded import vision_tower
from ..prompts import Prompts


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
            adapter of its base.
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
    }
    options["quantization_config"] = get_quantization_config(model)
    options.update(training.model_init_kwargs or {})
    given = {name: value for name, value in options.items() if value is not None}
    training.model_init_kwargs = None  # the trainer gets a model, not a name
    planner, processor, prompts = load_planner(base, **given)
    if is_adapter:
        from peft import PeftModel

        planner = PeftModel.from_pretrained(planner, model.model_name_or_path, is_trainable=True)
        prompts = Prompts.load(model.model_name_or_path)
    tower = vision_tower(planner)
    if freeze_vision and tower is not None:
        tower.requires_grad_(False)
    return planner, processor, prompts


def lora_settings(model: ModelConfig, freeze_vision: bool) -> LoraConfig | None:
    """TRL's LoRA options, which leave the vision tower out where it is frozen; `None` without `--use_peft`."""
    from trl import get_peft_config

    settings = get_peft_config(model)
    if settings is not None and freeze_vision:
        settings.exclude_modules = r".*\b(visual|vision_tower)\b.*"
    return settings


def without_control_tokens(
    training: GRPOConfig, planner: PreTrainedModel, processor: ProcessorMixin | PreTrainedTokenizerBase
) -> None:
    """Let no completion hold a control token but those that end it: a picture's token would have no picture."""
    tokenizer = getattr(processor, "tokenizer", processor)
    ends: Any = planner.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    suppressed = sorted(set(control_token_ids(processor)) - ends)
    # vLLM takes the tokens as text.
    guard = (
        {"bad_words": tokenizer.convert_ids_to_tokens(suppressed)}
        if training.use_vllm
        else {"suppress_tokens": suppressed}
    )
    training.generation_kwargs = {**guard, **(training.generation_kwargs or {})}


def resume_point(training: GRPOConfig | SFTConfig) -> str | None:
    """The checkpoint that `--resume_from_checkpoint` asks for; `true` is the newest in `output_dir`, if there is one.

    A checkpoint that a killed run left unfinished does not count.
    """
    asked = training.resume_from_checkpoint
    if asked is None or asked.lower() != "true":
        return asked
    # The trainer's state is what is written last.
    whole = [path.parent for path in Path(training.output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*/{TRAINER_STATE_NAME}")]
    return str(max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]))) if whole else None


def restore_weights(trainer: Trainer, checkpoint: str | None) -> None:
    """Give a trainer's model the weights of the checkpoint that its `train` is about to go on from.

    `train` reads them as well, but by their names on disk. Those of Qwen2.5-VL are others than in memory, so it would
    leave the model as it is, with a warning of missing keys and no more (transformers issue 43701). Adapters and
    sharded weights are read in other ways, which are right.
    """
    if checkpoint is None or has_adapter(trainer.model) or trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        return
    saved, _, _ = load_planner(checkpoint, dtype=trainer.model.dtype)
    trainer.model.load_state_dict(saved.state_dict())
