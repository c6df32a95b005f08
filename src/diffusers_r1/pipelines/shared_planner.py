"""A planner that costs nothing: the editor's own text encoder, with a LoRA adapter on while it plans.

Editors of the Qwen-Image family read pictures and prompts with a whole vision-language model, Qwen2.5-VL or Qwen3-VL.
The same module can plan. It is one module, so it is moved, offloaded and quantized once; its adapter is off but while it
plans, so the editor makes what it made before; and a bundle holds its weights once, as the editor's.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DiffusionPipeline
from transformers import PreTrainedModel, ProcessorMixin

from ..bundles.planners import load_adapter
from ..planners.adapters import has_adapter


if TYPE_CHECKING:
    from typing_extensions import Self

ADAPTER_FOLDER = "planner_adapter"  # in a bundle, beside the editor's folder
_ENTRY = "_planner_from_editor"  # in a bundle's index: the name of the editor's component that plans


class SharedPlannerMixin:
    """Put before the mixin for nested pipelines; `planner` may then be a component of `editor`."""

    @classmethod
    def from_editor(
        cls,
        editor: DiffusionPipeline,
        planner_adapter: str | os.PathLike | None = None,
        processor: ProcessorMixin | None = None,
        **kwargs: Any,
    ) -> Self:
        """A pipeline whose planner is the editor's own text encoder.

        Args:
            editor ([`~diffusers.DiffusionPipeline`]): With a vision-language model as its text encoder, such as
                [`~diffusers.QwenImageEditPipeline`].
            planner_adapter (`str` or `os.PathLike`, *optional*): A LoRA adapter for that model, a folder or a Hub
                repository, as the training scripts write it. It is on while the model plans and off otherwise. Without one
                the model plans as it is.
            processor ([`~transformers.ProcessorMixin`], *optional*): By default the adapter's, or else the editor's.
            kwargs: Further arguments of the pipeline, such as `prompts`, by default those of the adapter.

        Raises:
            ValueError: If the editor's text encoder does not write text, or nothing in the editor prepares pictures.
        """
        planner = _text_encoder(editor)
        if planner_adapter is not None:
            found, prompts = add_quiet_adapter(planner, planner_adapter)
            processor = processor or found
            kwargs.setdefault("prompts", prompts)
        return cls(planner=planner, processor=processor or _processor(editor), editor=editor, **kwargs)

    @property
    def planner_in_editor(self) -> str | None:
        """The name under which the planner is a component of the editor as well; `None` where it is not."""
        parts = self.editor.components.items() if self.editor is not None else ()
        return next((name for name, part in parts if part is self.planner is not None), None)

    @classmethod
    def _shared_with_nested(cls, index: dict[str, Any]) -> dict[str, str]:
        return {"planner": index[_ENTRY]} if index.get(_ENTRY) else {}

    @classmethod
    def _parts_in_nested(cls, index: dict[str, Any], folder: Path, given: dict[str, Any]) -> dict[str, Any]:
        name = index.get(_ENTRY)
        if name is None or "planner" in given or given["editor"] is None:
            return {}
        planner = given["editor"].components.get(name)
        if planner is None:
            raise ValueError(
                f"This bundle plans with its editor's `{name}`, which {type(given['editor']).__name__} does not have:"
                " give a `planner` too, or `planner=None`."
            )
        if (folder / ADAPTER_FOLDER).is_dir():
            add_quiet_adapter(planner, folder / ADAPTER_FOLDER)
        return {"planner": planner}

    @classmethod
    def _other_folders(cls, index: dict[str, Any]) -> list[str]:
        return [ADAPTER_FOLDER] if index.get(_ENTRY) else []

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """As in [`~diffusers.DiffusionPipeline`]. A planner that is part of the editor is saved there, its adapter apart."""
        name = self.planner_in_editor
        self.register_to_config(**{_ENTRY: name})
        if name is None:
            super().save_pretrained(save_directory, *args, **kwargs)
            return
        entry = self.config.planner
        self.register_to_config(planner=(None, None))
        if has_adapter(self.planner):
            self.planner.save_pretrained(Path(save_directory, ADAPTER_FOLDER))  # nothing but the adapter
        try:
            with adapter_taken_out(self.planner):
                super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.register_to_config(planner=entry)


def add_quiet_adapter(model: PreTrainedModel, name: str | os.PathLike) -> tuple[ProcessorMixin | None, Any]:
    """Load a LoRA adapter onto a model and leave it off; returns the adapter's processor, if it has one, and prompts."""
    processor, prompts = load_adapter(model, name)
    for layer in adapter_layers(model):
        layer.enable_adapters(False)
    return processor, prompts


def adapter_layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The LoRA layers in a model, each in place of the layer that it adapts; none without an adapter."""
    if not has_adapter(model):
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


@contextmanager
def adapter_on(model: PreTrainedModel) -> Iterator[None]:
    """Run a model with its adapter, if it has one, and leave it as it was: off, where an editor encodes with it."""
    resting = [layer for layer in adapter_layers(model) if layer.disable_adapters]
    for layer in resting:
        layer.enable_adapters(True)
    try:
        yield
    finally:
        for layer in resting:
            layer.enable_adapters(False)


def with_adapter(method: Callable) -> Callable:
    """Run a pipeline's method with the adapter of its planner on."""

    @functools.wraps(method)
    def wrapped(self: DiffusionPipeline, *args: Any, **kwargs: Any) -> Any:
        with adapter_on(self.planner):
            return method(self, *args, **kwargs)

    return wrapped


@contextmanager
def adapter_taken_out(model: PreTrainedModel) -> Iterator[None]:
    """A model with the layers that it had before its adapter came, so that it is saved as such."""
    layers = {id(layer) for layer in adapter_layers(model)}
    places = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if id(layer) in layers
    ]
    # What transformers notes on loading an adapter: that there is one, and how its weights are named in the file, by which
    # it would name those of the model as well.
    noted = {key: getattr(model, key, None) for key in ("_hf_peft_config_loaded", "_weight_conversions")}
    for parent, name, layer in places:
        setattr(parent, name, layer.get_base_layer())
    vars(model).update(dict.fromkeys(noted))
    try:
        yield
    finally:
        vars(model).update(noted)
        for parent, name, layer in places:
            setattr(parent, name, layer)


def _text_encoder(editor: DiffusionPipeline) -> PreTrainedModel:
    model = editor.components.get("text_encoder")
    if model is None or not getattr(model, "can_generate", bool)():
        raise ValueError(
            f"{type(editor).__name__} has no text encoder that can plan: it must write text, as Qwen2.5-VL does."
        )
    return model


def _processor(editor: DiffusionPipeline) -> ProcessorMixin:
    found = [part for part in editor.components.values() if isinstance(part, ProcessorMixin)]
    if not found:
        raise ValueError(
            f"{type(editor).__name__} has no processor of text and pictures: give the planner's `processor`."
        )
    return found[0]
