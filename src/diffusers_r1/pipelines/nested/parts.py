"""Which components of a pipeline are pipelines, and which of its models are a part of one of those."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DiffusionPipeline, ModularPipeline, ModularPipelineBlocks

from ... import schema
from ...names import ADAPTER_INDEX, MODULAR_INDEX, PIPELINE_INDEX


if TYPE_CHECKING:
    Mixin = DiffusionPipeline  # what our mixins are mixed into, after them
else:
    Mixin = object

_COMPONENT = list[str | bool | None]  # where its class is from, and the class; of some a third value
_FIELDS = {
    "_class_name": str | list[str],
    "_shared": dict[str, str] | None,
    "_base_models": dict[str, str] | None,
    "prompts": dict[str, Any] | None,
    "sequence_without_adapter": bool | None,
    "editor_defaults": dict[str, Any] | None,
}
SHARED = (
    "_shared"  # in an index: own components that are parts of a nested pipeline: `{"planner": "editor.text_encoder"}`
)


def nested_names(pipeline_class: type[DiffusionPipeline]) -> list[str]:
    """The names of the components that are pipelines, by the annotations of `__init__`."""

    def is_pipeline(annotation: Any) -> bool:
        return inspect.isclass(annotation) and issubclass(annotation, DiffusionPipeline)

    return [name for name, types in pipeline_class._get_signature_types().items() if any(map(is_pipeline, types))]


def nested_pipelines(pipeline: DiffusionPipeline) -> dict[str, DiffusionPipeline | ModularPipeline]:
    """The components that are pipelines, by name."""
    kinds = (DiffusionPipeline, ModularPipeline)
    return {name: part for name, part in pipeline.components.items() if isinstance(part, kinds)}


def models_of(pipeline: DiffusionPipeline | ModularPipeline) -> dict[str, torch.nn.Module]:
    """The components with weights, by name."""
    return {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}


def blocks_within(blocks: ModularPipelineBlocks) -> Iterator[ModularPipelineBlocks]:
    """The blocks that blocks are made of, those within them too."""
    for block in blocks.sub_blocks.values():
        yield block
        yield from blocks_within(block)


def shared_parts(pipeline: DiffusionPipeline) -> dict[str, str]:
    """The own models that are a nested pipeline's as well: `{"planner": "editor.text_encoder"}`."""
    theirs = {
        id(model): f"{outer}.{name}"
        for outer, nested in nested_pipelines(pipeline).items()
        for name, model in models_of(nested).items()
    }
    return {name: theirs[id(model)] for name, model in models_of(pipeline).items() if id(model) in theirs}


def refuse_modular(pipeline: DiffusionPipeline, method: str) -> None:
    """Modular pipelines are offloaded in a way of their own, which no outer pipeline can take part in.

    Raises:
        ValueError: If one of the nested pipelines is modular.
    """
    for name, part in nested_pipelines(pipeline).items():
        if isinstance(part, ModularPipeline):
            raise ValueError(
                f"`{method}` does not work with {type(part).__name__}, a modular pipeline, as `{name}`: offload it by its"
                " `ComponentsManager`."
            )


def read_index(folder: Path, components: Iterable[str] = ()) -> dict[str, Any]:
    """What `model_index.json` in a folder says.

    Args:
        components (iterable of `str`): Names under which there are components, or nothing. Beside these, every list is one.

    Raises:
        OSError: If there is none.
        ValueError: If it is no index; the message names file and field.
    """
    path = folder / PIPELINE_INDEX
    if not path.is_file():
        planner = any((folder / file).is_file() for file in ("config.json", ADAPTER_INDEX))
        hint = " It looks like a planner, which `load_planner` and --planner take." if planner else ""
        raise OSError(f"{str(folder)!r} has no {PIPELINE_INDEX}, so it is no pipeline.{hint}")
    index = schema.read_file(path, dict[str, Any])
    names = [name for name, entry in index.items() if isinstance(entry, list) or name in components]
    read = schema.read_fields(
        {**{name: _COMPONENT for name in names if name not in _FIELDS}, **_FIELDS}, index, str(path)
    )
    for name in names:
        if name not in _FIELDS and len(read[name]) < 2:
            raise ValueError(f"{path}: `{name}` must say where its class is from, and the class")
    return read


def is_modular(folder: Path) -> bool:
    """Whether the pipeline in a folder is a modular one."""
    return (folder / MODULAR_INDEX).is_file()


def write_index(folder: Path, index: dict[str, Any]) -> None:
    """Write `model_index.json` as diffusers does."""
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    (folder / PIPELINE_INDEX).write_text(text, encoding="utf-8")


def components_in(folder: Path) -> list[str]:
    """The names of the components of the pipeline in a folder; of a modular one those that lie there."""
    if is_modular(folder):
        index = schema.read_file(folder / MODULAR_INDEX, dict[str, Any])
        return [name for name, entry in index.items() if isinstance(entry, list) and (folder / name).is_dir()]
    return [name for name, entry in read_index(folder).items() if isinstance(entry, list) and name != "_class_name"]
