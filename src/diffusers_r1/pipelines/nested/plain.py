"""How plain `DiffusionPipeline` loads what a bundle holds: by classes of ours, which it takes for those of the libraries.

What it loads is no instance of them. Each notes in what it loads that it was loaded so, and where, for the pipeline to complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import DiffusionPipeline, ModularPipeline
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel, ProcessorMixin

from ...bundles.planners import load_planner
from ...names import ADAPTER_INDEX
from .modular import load_nested
from .parts import read_index


_LOADED_PLAINLY = "_loaded_plainly"


class NestedPipeline(DiffusionPipeline, torch.nn.Module):
    """A nested pipeline, as what plain `DiffusionPipeline` takes for a model, to which it gives the dtype.

    It gives none to a pipeline, and takes nothing but a pipeline in its place. This class is named in a bundle's index.
    """

    @classmethod
    def from_pretrained(
        cls, folder: str, torch_dtype: torch.dtype | None = None, **kwargs: Any
    ) -> DiffusionPipeline | ModularPipeline:
        """The pipeline in a folder with its adapters, in float32 if no dtype is asked for."""
        return _noted(load_nested(Path(folder), dtype=torch_dtype or torch.float32), folder)


class PlainAgent(PreTrainedModel):
    """An agent's model. Transformers leaves it in the dtype that it was saved in, and its adapter as it was made."""

    config_class: Any = AutoConfig

    def __new__(cls, config: PretrainedConfig) -> Any:
        # What diffusers asks for where it shares models out among devices: one without weights.
        return getattr(transformers, (config.architectures or [""])[0])(config)

    @classmethod
    def from_pretrained(cls, folder: str, dtype: torch.dtype | None = None, **settings: Any) -> Any:
        """The model in a folder, its adapter as it was saved, in float32 if no dtype is asked for."""
        settings["dtype"] = dtype or torch.float32
        if (Path(folder) / ADAPTER_INDEX).is_file():
            return _noted(load_planner(folder, **settings)[0], folder)
        return _noted(_named_class(Path(folder)).from_pretrained(folder, **settings), folder)


class PlainProcessor(ProcessorMixin):
    """An agent's processor: all that is loaded of a bundle where the model is a part of its editor, and another one is given."""

    @classmethod
    def from_pretrained(cls, folder: str, **_: Any) -> Any:
        """The processor in a folder."""
        return _noted(_named_class(Path(folder)).from_pretrained(folder), folder)


def loaded_by_ours(index: Mapping[str, Any]) -> dict[str, Any]:
    """An index in which agents are loaded by the classes here, as far as they are of transformers."""
    kinds = {PreTrainedModel: PlainAgent, ProcessorMixin: PlainProcessor}
    ours = dict(index)
    for name in ("planner", "processor", "sequencer", "sequencer_processor"):
        library, kind = (index.get(name) or [None, None])[:2]
        known = getattr(transformers, str(kind), type) if library == "transformers" else type
        for theirs, mine in kinds.items():
            if issubclass(known, theirs):
                ours[name] = [__name__, mine.__name__]
    return ours


def where_loaded(components: Mapping[str, Any]) -> dict[str, Path]:
    """Of which bundle's folder components are that the classes here have just loaded, by name. This is asked once."""
    parts = {name: vars(part) for name, part in components.items() if hasattr(part, "__dict__")}
    return {name: part.pop(_LOADED_PLAINLY) for name, part in parts.items() if _LOADED_PLAINLY in part}


def _noted(component: Any, folder: str) -> Any:
    vars(component)[_LOADED_PLAINLY] = Path(folder).parent
    return component


def _named_class(folder: Path) -> Any:
    """The class of transformers that a bundle's index names for what lies in a folder."""
    return getattr(transformers, read_index(folder.parent)[folder.name][1])
