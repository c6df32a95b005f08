"""From a pipeline with a modular editor to a modular pipeline, and to a repository from which diffusers alone loads it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from diffusers import ModularPipeline, ModularPipelineBlocks, SequentialPipelineBlocks
from diffusers.modular_pipelines.mellon_node_utils import MellonPipelineConfig
from diffusers.modular_pipelines.modular_pipeline_utils import InputParam
from huggingface_hub import HfApi
from PIL import Image

from ..belongings import set_belongings
from ..pipelines.call import made_for
from ..pipelines.nested.modular import name_source
from ..pipelines.nested.parts import models_of
from ..pipelines.nested.remote import is_remote
from ..pipelines.nested.saving import check_agents_to_save
from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline
from ..planners.adapters import adapter_layers
from ..records import write_whole
from .editing import EDITOR, EditTurnsBlock
from .parameters import AGENTS, PACKAGE
from .planning import ImageEditR1Blocks


BLOCKS_FILE = "block.py"
PLAN, EDIT = "plan", "edit"
MELLON = ((Image.Image, "image"), (str, "textbox"), (bool, "checkbox"), (int, "number"), (float, "number"))

BLOCKS = '''"""Plans an edit, then has the editor carry it out: blocks of {package}, which has to be installed."""

from diffusers import SequentialPipelineBlocks
from {module} import {editor}

from diffusers_r1.modular import EditTurnsBlock, ImageEditR1Blocks


class Turns(EditTurnsBlock):
    block_classes = [{editor}]
    editor_defaults = {defaults!r}


class {name}(SequentialPipelineBlocks):
    block_classes = [ImageEditR1Blocks, Turns]
    block_names = ["plan", "edit"]

    @property
    def description(self):
        return "{description}"
'''
DESCRIPTION = "ImageEdit-R1: decomposes an instruction, puts its parts in order, and edits with {editor}."

CARD = """---
library_name: diffusers
pipeline_tag: image-to-image
tags:
- modular-diffusers
- diffusers
- diffusers-r1
- mellon
---

# {title}

A modular pipeline that plans an edit before it edits: [ImageEdit-R1](https://arxiv.org/abs/2603.08059) in front of
`{editor}`.

```sh
pip install -e .    # in a clone of diffusers-r1
```

```python
import torch
from diffusers import ModularPipeline

pipe = ModularPipeline.from_pretrained("{source}", trust_remote_code=True)
pipe.load_components(dtype=torch.bfloat16)
pipe.to("cuda")
state = pipe(image="photo.jpg", instruction="match the coat to the car, and remove the man behind it")
state.get("images")[0].save("edited.png")
print(state.get("plan").requests)
```

Blocks, in this order: `plan` (`decompose`, `sequence`, `write_prompts`), then `edit`, which runs the editor's blocks once for
each prompt.
"""


def as_modular(pipeline: ImageEditR1Pipeline) -> ModularPipeline:
    """The modular pipeline of a pipeline's parts: the planning blocks in front of its editor's, of the editor's class.

    Called with one picture and an instruction it gives the same pixels.

    Args:
        pipeline ([`ImageEditR1Pipeline`]): With an editor that is a [`~diffusers.ModularPipeline`].

    Raises:
        TypeError: If its editor is not modular.
    """
    editor = pipeline.editor
    if not isinstance(editor, ModularPipeline):
        raise TypeError(
            f"Blocks stand in front of blocks, and {type(editor).__name__} has none: load the editor by"
            " `ModularPipeline.from_pretrained(name)` and `load_components()`."
        )
    blocks = SequentialPipelineBlocks.from_blocks_dict(
        {PLAN: ImageEditR1Blocks(), EDIT: EditTurnsBlock.around(editor.blocks, pipeline.editor_defaults)}
    )
    modular = type(editor)(blocks=blocks)
    for name, spec in editor._component_specs.items():
        modular._component_specs[name] = deepcopy(spec)  # from where its weights are
    agents = {name: getattr(pipeline, part) for part, name in AGENTS.items()}
    modular.register_components(**{name: getattr(editor, name) for name in editor.component_names})
    modular.update_components(**{name: agent for name, agent in agents.items() if agent is not None})
    modular.update_components(**{one.name: editor.config[one.name] for one in editor.blocks.expected_configs})
    if known := made_for(editor):
        set_belongings(modular, made_for=known)
    return modular


def save_modular(
    pipeline: ModularPipeline,
    save_directory: str | os.PathLike,
    repo_id: str | None = None,
    private: bool | None = None,
    token: str | None = None,
) -> None:
    """Save a pipeline that [`as_modular`] made: weights, `block.py`, the indexes, Mellon's nodes and a card.

    `ModularPipeline.from_pretrained(folder, trust_remote_code=True)` and `diffusers-cli run`, `schema` and `custom_blocks` work
    on it, where the package is installed.

    Args:
        pipeline ([`~diffusers.ModularPipeline`]): Made by [`as_modular`].
        save_directory (`str` or `os.PathLike`): The folder; made if not there.
        repo_id (`str`, *optional*): Upload the folder to this repository on the Hub too, which is made if not there.
        private (`bool`), token (`str`, *optional*): Of the upload, as in huggingface_hub.

    Raises:
        ValueError: If there are no planning blocks, an agent is behind an address, is no model of transformers or has weights of
            8 bits, a model has a LoRA adapter, or the editor's blocks were put together by hand, so that no file can name
            them. Nothing is written then.
    """
    folder, source = Path(save_directory), repo_id or Path(save_directory).name
    turns = _turns_of(pipeline)
    editor = _editor_blocks(turns)
    for name in AGENTS.values():
        if is_remote(getattr(pipeline, name)):
            raise ValueError(
                f"The {name} is behind an address, and a modular repository holds weights: save a bundle."
            )
    _check_weights(pipeline, folder)
    folder.mkdir(parents=True, exist_ok=True)
    blocks = write_blocks(folder, editor, turns.editor_defaults)
    pipeline.save_pretrained(str(folder), overwrite_modular_index=True)
    _complete_index(folder, pipeline, blocks, repo_id)
    MellonPipelineConfig.from_custom_block(
        blocks, "ImageEdit-R1", {one.name: mellon_type(one) for one in blocks.inputs if one.name}
    ).save(folder)
    title = source.rpartition("/")[2]
    card = CARD.format(title=title, editor=type(pipeline).__name__, source=source)
    write_whole(folder / "README.md", card)
    if repo_id is not None:
        api = HfApi(token=token)
        made = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            commit_message=f"Upload {title}",
            delete_patterns=[f"{name}/*" for name in pipeline.component_names],  # what an earlier one left there
        )


def write_blocks(
    folder: Path, editor: type[ModularPipelineBlocks], editor_defaults: Mapping[str, Any]
) -> ModularPipelineBlocks:
    """Write `block.py` and what says that it is to be loaded; returns the blocks that it makes."""
    name = f"ImageEditR1{editor.__name__}"
    description = DESCRIPTION.format(editor=editor.__name__)
    text = BLOCKS.format(
        package=PACKAGE,
        module=editor.__module__,
        editor=editor.__name__,
        defaults=json.loads(json.dumps(dict(editor_defaults))),  # of plain types, which Python reads back
        name=name,
        description=description,
    )
    path = folder / BLOCKS_FILE
    write_whole(path, text)
    spec: Any = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    blocks = getattr(module, name)()
    blocks.save_pretrained(str(folder))
    return blocks


def mellon_type(parameter: InputParam) -> str:
    """What Mellon shows an input as, by its own word or else by its type; `"custom"` is a connection to another node."""
    if parameter.metadata and "mellon" in parameter.metadata:
        return parameter.metadata["mellon"]
    kinds = (*getattr(parameter.type_hint, "__args__", (parameter.type_hint,)), type(parameter.default))
    return next((shown for kind, shown in MELLON if kind in kinds), "custom")


def _check_weights(pipeline: Any, folder: Path) -> None:
    """Refuse weights that would not come back. Diffusers loads the repository, and none of what it reads names an adapter."""
    adapted = sorted(name for name, model in models_of(pipeline).items() if adapter_layers(model))
    if adapted:
        raise ValueError(
            f"There is a LoRA adapter on {' and '.join(f'`{name}`' for name in adapted)}, and a modular repository holds none:"
            " save a bundle, `ImageEditR1Pipeline.save_pretrained`, or make it a part of the weights first: an editor's by"
            " `fuse_lora()` and `unload_lora_weights()`, a planner's by PEFT's `merge_and_unload()`."
        )
    check_agents_to_save(pipeline, folder)


def _turns_of(pipeline: ModularPipeline) -> EditTurnsBlock:
    turns = pipeline.blocks.sub_blocks.get(EDIT)
    if not isinstance(turns, EditTurnsBlock):
        raise ValueError("This pipeline has no planning blocks: `as_modular` makes one that has.")
    return turns


def _editor_blocks(turns: EditTurnsBlock) -> type[ModularPipelineBlocks]:
    """The class of the editor's blocks, which a file can import."""
    blocks = turns.sub_blocks[EDITOR]
    kind = type(blocks)
    module = importlib.import_module(kind.__module__)
    if getattr(module, kind.__name__, None) is not kind or list(kind().sub_blocks) != list(blocks.sub_blocks):
        raise ValueError(
            f"The editor's blocks, of {kind.__name__}, were put together by hand: write a block.py that does so, and have"
            " `diffusers-cli custom_blocks` save it."
        )
    return kind


def _complete_index(
    folder: Path, pipeline: ModularPipeline, blocks: ModularPipelineBlocks, repo_id: str | None
) -> None:
    """Name the blocks of the file, and the repository in place of the folder that it was made in."""
    path = folder / pipeline.config_name
    index = json.loads(path.read_text(encoding="utf-8"))
    index["_blocks_class_name"] = type(blocks).__name__
    write_whole(path, json.dumps(index, indent=2, sort_keys=True) + "\n")
    name_source(folder, str(folder), repo_id or str(folder))
