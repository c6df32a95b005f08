"""A planner made ready for TRL's trainers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from ..belongings import belongings
from ..bundles.planners import OF_WEIGHTS, adapter_in, base_folder, base_of, beside_adapter, load_planner
from ..names import HUB_SETTINGS, local, planner_files, resolve
from ..planners.adapters import has_adapter
from ..planners.control_tokens import control_token_ids
from ..prompts import Prompts, prompts_of


if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import Trainer
    from trl import GRPOConfig, ModelConfig, SFTConfig


PEFT_PREFIX = "base_model.model."  # of the names of layers in PEFT's own wrapper
PEFT_WEIGHTS = "adapter_model.safetensors"


@dataclass
class Start:
    """The planner that a run starts from.

    It is brought when it is first asked for, and once: whatever is loaded of it, up to the end of the run, is of one commit.

    Args:
        name (`str`): As [`load_planner`] takes it, and as cards name it.
        settings (`Mapping`): Which copy of a repository, and which weights in it: `revision`, `variant`, ..., as there.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def folder(self) -> Path:
        """Where it lies."""
        return resolve(self.name, partial(planner_files, **self._of_weights), **self.settings)

    @cached_property
    def adapter(self) -> Path | None:
        """Where its LoRA adapter lies, if it is one."""
        return adapter_in(self.folder)

    @cached_property
    def base(self) -> str:
        """The name of what an adapter was trained on; of any other planner its own."""
        return self.name if self.adapter is None else base_of(self.folder)

    @cached_property
    def base_folder(self) -> Path:
        """Where that lies."""
        hub = {name: self.settings[name] for name in HUB_SETTINGS if name in self.settings}
        return base_folder(self.folder, choose=partial(planner_files, **self._of_weights), **hub)

    @property
    def commit(self) -> str | None:
        """The base's, where that is a repository."""
        return None if local(self.base) is not None else self.base_folder.name

    def load_base(self, **settings: Any) -> tuple[Any, Any, Prompts]:
        """The base without an adapter of its own, as [`load_planner`] gives it."""
        return load_planner(self.base_folder, **{**self._of_weights, **settings})

    def load(self, **settings: Any) -> tuple[Any, Any, Prompts]:
        """The planner as it is before training, as [`load_planner`] gives it."""
        is_apart = self.adapter is not None and not self.base_folder.is_relative_to(self.folder)
        base = self.base_folder if is_apart else None
        planner, processor, prompts = load_planner(self.folder, base=base, **{**self._of_weights, **settings})
        if self.adapter is not None:  # that of an editor's encoder names where it was trained
            cast(Any, planner).peft_config["default"].base_model_name_or_path = self.base
        return planner, processor, prompts

    def load_sequencer(self, **settings: Any) -> tuple[Any, Any, Prompts]:
        """What puts edits in order before training, as `load` gives it: without the adapter, where that is only for planning."""
        planner, processor, prompts = self.load(**settings)
        if belongings(planner).get("sequence_without_adapter"):
            planner = self.load_base(**settings)[0]
        return planner, processor, prompts

    @property
    def _of_weights(self) -> dict[str, Any]:
        return {name: self.settings[name] for name in OF_WEIGHTS if name in self.settings}


def start_of(model: ModelConfig, training: GRPOConfig | SFTConfig) -> Start:
    """What `--model_name_or_path` names, at `--model_revision`; `model_init_kwargs` may say more of where it is had from.

    Raises:
        ValueError: If there is no name.
    """
    if model.model_name_or_path is None:
        raise ValueError("Name the planner to start from: --model_name_or_path.")
    settings = {"revision": model.model_revision, **cast(dict, training.model_init_kwargs or {})}
    known = (*HUB_SETTINGS, *OF_WEIGHTS)
    return Start(model.model_name_or_path, {name: settings[name] for name in known if name in settings})


def load_trainable(
    start: Start,
    model: ModelConfig,
    training: GRPOConfig | SFTConfig,
    freeze_vision: bool,
    prompts_folder: str | None = None,
) -> tuple[PreTrainedModel, ProcessorMixin | PreTrainedTokenizerBase, Prompts]:
    """The planner that a run starts from, as the options of TRL's `ModelConfig` say.

    Args:
        start ([`Start`]): An adapter is trained on: it stays one adapter of its base, of its rank, with the dropout that is
            asked for now.
        model ([`~trl.ModelConfig`]): How it is loaded.
        training ([`~trl.GRPOConfig`] or [`~trl.SFTConfig`]): Its `model_init_kwargs` are passed on.
        freeze_vision (`bool`): Whether the vision tower stays as it is.
        prompts_folder (`str`, *optional*): Whose `prompts.json` it is asked with in place of its own words.
    """
    from trl import get_quantization_config

    if start.adapter is not None and model.use_peft:
        raise ValueError("The planner to start from is an adapter, which is trained on: leave out --use_peft.")
    options = {
        "dtype": model.dtype,
        "attn_implementation": model.attn_implementation,
        "quantization_config": get_quantization_config(model),
        **cast(dict, training.model_init_kwargs or {}),
    }
    given = {name: value for name, value in options.items() if value is not None and name not in HUB_SETTINGS}
    training.model_init_kwargs = None  # the trainer gets a model, not a name
    planner, processor, _ = start.load_base(**given)
    prompts = prompts_of(planner, examples=())  # what training teaches need not be shown with every question
    if start.adapter is not None:
        planner = _with_adapter(planner, start.adapter, model.lora_dropout)
        own_processor, own_prompts = beside_adapter(start.folder, start.adapter)
        processor, prompts = own_processor or processor, own_prompts or prompts
    if freeze_vision and hasattr(processor, "image_processor"):
        for tower in vision_towers(planner).values():
            tower.requires_grad_(False)
    return planner, processor, prompts if prompts_folder is None else Prompts.load(prompts_folder)


def _with_adapter(planner: PreTrainedModel, adapter: Path, dropout: float) -> PreTrainedModel:
    """The planner with the adapter from a folder, to be trained on."""
    from peft import LoraConfig, PeftConfig, PeftModel, load_peft_weights

    settings = PeftConfig.from_pretrained(str(adapter))
    if isinstance(settings, LoraConfig):  # how it is trained, not what it is
        settings.lora_dropout = dropout
    weights = load_peft_weights(str(adapter), device="cpu")
    with TemporaryDirectory() as renamed:
        folder = adapter
        if not any(name.startswith(PEFT_PREFIX) for name in weights):
            # transformers, which writes the adapters of bundles, names them by the model's own layers. PEFT finds none of
            # them then, and goes on with random ones.
            folder = Path(renamed)
            settings.save_pretrained(renamed)
            save_file({f"{PEFT_PREFIX}{name}": weight for name, weight in weights.items()}, folder / PEFT_WEIGHTS)
        adapted = PeftModel.from_pretrained(planner, folder, is_trainable=True, config=settings)
    return cast(PreTrainedModel, adapted)  # it has all that the planner has


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
