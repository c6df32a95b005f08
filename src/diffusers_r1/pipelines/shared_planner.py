"""A planner that costs nothing: the editor's own text encoder, with a LoRA adapter on while it plans.

Editors of the Qwen-Image family read pictures and prompts with a whole vision-language model, Qwen2.5-VL or Qwen3-VL.
The same module can plan. It is one module, so it is moved, offloaded and quantized once; its adapter is off but while it
plans, so the editor makes what it made before; and a bundle holds its weights once, as the editor's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from diffusers import DiffusionPipeline
from transformers import PreTrainedModel, ProcessorMixin

from .nested.loading import add_quiet_adapter
from .nested.parts import Mixin, shared_parts


if TYPE_CHECKING:
    from typing_extensions import Self


class SharedPlannerMixin(Mixin):
    """For a pipeline whose `planner` may be a component of its `editor`."""

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
            found = add_quiet_adapter(planner, planner_adapter)
            processor = processor or found
        pipeline: Any = cls  # whose `__init__` is in the class that this one is mixed into
        return pipeline(planner=planner, processor=processor or _processor(editor), editor=editor, **kwargs)

    @property
    def planner_in_editor(self) -> str | None:
        """The name under which the planner is a component of the editor as well; `None` where it is not."""
        place = shared_parts(self).get("planner")
        return place.partition(".")[2] if place else None


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
