"""Loading a pipeline with the pipelines in it, from a folder, a name, or through plain `DiffusionPipeline`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DiffusionPipeline, ModularPipeline
from diffusers.utils import logging
from transformers import PreTrainedModel

from ... import schema
from ...belongings import set_belongings
from ...bundles.cards import PIPELINE_MODULE, keep_base_models
from ...bundles.planners import (
    ADAPTER_FOLDER,
    OF_WEIGHTS,
    load_adapter,
    load_agents,
    load_planner,
    naming,
    shared_in,
)
from ...names import (
    ADAPTER_INDEX,
    HUB_SETTINGS,
    PIPELINE_INDEX,
    files_to_load,
    is_address,
    local,
    only_configs,
    resolve,
)
from ...planners.adapters import let_rest
from ...planners.remote import RemotePlanner
from ...prompts import Prompts
from ...remote_editor import RemoteEditor
from .adapters import ADAPTERS_FILE, check_base_stays, load_adapters
from .modular import load_nested
from .parts import SHARED, Mixin, components_in, is_modular, nested_names, read_index
from .plain import loaded_by_ours, where_loaded
from .remote import REMOTE, is_remote, load_remote
from .settings import (
    check_dtype,
    check_dtype_names,
    dtype_in,
    settings_of_agent,
    settings_of_nested,
    settings_of_outer,
)


if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.get_logger(__name__)

# What an index says for a planner that is an adapter, and older ones for any planner and editor: nothing for another one.
_KEPT_IN_INDEX = {"prompts": "planner", "sequence_without_adapter": "planner", "editor_defaults": "editor"}
_OF_ANY_CLASS = ("processor", "sequencer_processor")
_COMPONENTS = ("planner", "processor", "editor", "sequencer", "sequencer_processor")


class MissingPartError(ValueError):
    """An agent of a bundle is a part of its editor, and the editor that is given in its place has no part that could be one."""


class LoadingMixin(Mixin):
    """`from_pretrained` and `download` for a pipeline that has pipelines as components."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """Load a pipeline with the pipelines in it.

        Takes what `DiffusionPipeline.from_pretrained` takes, and every setting (`dtype`, `variant`, `device_map`,
        `quantization_config`, ...) reaches the nested pipelines, which diffusers loads without any. Settings that name
        components (`dtype={"planner": ..., "transformer": ...}`) may name those of both levels, or a nested pipeline.
        A component given here is neither downloaded nor loaded, and brings what belongs to it; `editor=None` leaves it
        out. `planner="http://localhost:8000/v1"`, the address of a server with one model, replaces all agents, and so does a
        [`RemotePlanner`], which names a model of several. Without `dtype` all is loaded in float32, where diffusers leaves transformers' models in whatever they were
        saved in.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`):
                A folder, a repository on the Hub (`"org/name"`, with `revision` and `token`), or a bundle that comes
                with the package.

        Raises:
            OSError: If nothing has that name, or a file is missing.
            TypeError: If a dtype is none.
            ValueError: If a file is not what it should be; the message names it. If `dtype` names what is no component.
        """
        _complete_dtype(kwargs)
        if isinstance(kwargs.get("planner"), str) and is_address(kwargs["planner"]):
            kwargs = {**load_agents(kwargs.pop("planner")), **kwargs}
        elif isinstance(kwargs.get("planner"), RemotePlanner):
            kwargs = {"processor": None, "sequencer": None, "sequencer_processor": None, **kwargs}
        folder = Path(cls.download(pretrained_model_name_or_path, **kwargs))
        hub = {key: kwargs.pop(key) for key in HUB_SETTINGS if key in kwargs}
        index = read_index(folder, cls._get_signature_keys(cls)[0])
        given = {key: kwargs.pop(key) for key in inspect.signature(cls.__init__).parameters if key in kwargs}
        for name, component in given.items():
            check_component(name, component)
        replaced = set(given)

        # 1. What is behind an address, and the nested pipelines with their adapters
        for name, kind in _remote_in(index).items():
            if name not in given:
                given[name] = load_remote(kind, folder / name)
        nested = [name for name in nested_names(cls) if name not in given and index.get(name, [None])[0]]
        if isinstance(dtypes := dtype_in(kwargs), dict):
            parts: dict[str, Iterable[str]] = {name: components_in(folder / name) for name in nested}
            parts |= {name: getattr(given[name], "components", ()) for name in nested_names(cls) if name in given}
            check_dtype_names(dtypes, cls._get_signature_keys(cls)[0], parts)
        shared = {own: place for own, place in (index.get(SHARED) or {}).items() if own not in given}
        inside = {own: place.partition(".")[2] for own, place in shared.items()}
        settings = {name: settings_of_nested(name, folder / name, kwargs, inside) for name in nested}
        for name in nested:
            with naming(folder / name):
                given[name] = load_nested(folder / name, **settings[name])

        # 2. Models of ours that are parts of one of them
        given.update(_parts_of(given, shared, folder))

        # 3. Agents of ours that are adapters, each on its base, which may be a bundle's planner, or private
        for name in ("planner", "sequencer"):
            if name not in given and (folder / name / ADAPTER_INDEX).is_file():
                given[name], *_ = load_planner(folder / name, **hub, **settings_of_agent(name, kwargs))

        # 4. The rest, as diffusers loads it
        # Saved as absent, loaded as absent; diffusers would say that the pipeline expected it.
        absent = {name: None for name, entry in index.items() if entry == [None, None]}
        of_others = {name: None for name, part in _KEPT_IN_INDEX.items() if part in replaced and index.get(name)}
        kwargs = settings_of_outer(folder, nested, kwargs, inside)
        # diffusers refuses a tokenizer where the bundle has a processor, and an address where it has weights.
        late = {name: part for name, part in given.items() if name in _OF_ANY_CLASS or is_remote(part)}
        late = {name: given.pop(name) for name, part in late.items() if part is not None}
        absent.update(dict.fromkeys(late))
        with naming(folder):
            pipeline = super().from_pretrained(str(folder), **kwargs, **{**absent, **of_others, **given})
        pipeline.register_modules(**late)
        pipeline.register_to_config(_name_or_path=str(pretrained_model_name_or_path))
        own = {name: part for name, part in pipeline.components.items() if name not in replaced}
        keep_base_models(own, index.get("_base_models") or {})
        return pipeline

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike) -> dict[str, Any]:
        """Read the index as diffusers' loader should see it: without nested pipelines, which are loaded here already.

        With them it fails on `variant` (folders have no "." in their names) and prints every pipeline that is passed
        in place of a saved one ("You have passed a non-standard module ..."). And a class name that is a pair, see
        `save_pretrained`, would make it ask for `trust_remote_code` to load this very class.
        """
        index = super()._dict_from_json_file(json_file)
        loaded_here = {*nested_names(cls), *_remote_in(index)}
        return {**{key: value for key, value in index.items() if key not in loaded_here}, "_class_name": cls.__name__}

    @classmethod
    def download(cls, pretrained_model_name: str | os.PathLike, **kwargs: Any) -> str:
        """The folder of what `from_pretrained` with the same arguments would load; from the Hub it is brought first.

        diffusers knows folders one level deep: of the nested pipelines it brings every variant and every format.
        """

        def choose(folder: Path, files: list[str]) -> list[str]:
            index, nested = read_index(folder), nested_names(cls)
            depths = {
                name: 2 if name in nested else 1
                for name, entry in index.items()
                if isinstance(entry, list) and entry and entry[0] and name != "_class_name" and name not in kwargs
            }
            if index.get(SHARED):
                depths[ADAPTER_FOLDER] = 1
            return files_to_load(files, depths, kwargs.get("variant"), kwargs.get("use_safetensors"))

        hub = {key: kwargs[key] for key in HUB_SETTINGS if key in kwargs}
        return str(resolve(pretrained_model_name, choose, {"pipeline_class": cls.__name__}, **hub))

    def _complete_plain_loading(self) -> None:
        """Do what plain `DiffusionPipeline` leaves undone: share what was one model, and keep what the models come from."""
        loaded = where_loaded(self.components)
        if not loaded:
            return
        folder = next(iter(loaded.values()))  # of all of them
        shared = {own: place for own, place in shared_in(folder).items() if self.components[own] is None}
        try:
            self.register_modules(**_parts_of(self.components, shared, folder))
        except MissingPartError as error:
            # Whether it is meant to be absent, `planner=None`, plain `DiffusionPipeline` does not say.
            logger.warning(str(error))
        index = read_index(folder)
        keep_base_models({name: self.components[name] for name in loaded}, index.get("_base_models") or {})

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in diffusers. Only plain `DiffusionPipeline` reads a pair for the class name: it is shown how agents are loaded."""
        is_plain = not isinstance(config_dict["_class_name"], str)
        return super().extract_init_dict(loaded_by_ours(config_dict) if is_plain else config_dict, **kwargs)


def load_editor(name: str | os.PathLike, **kwargs: Any) -> DiffusionPipeline | ModularPipeline | RemoteEditor:
    """An editor by its name: a pipeline of diffusers, or the editor of a bundle. A folder's adapters come along.

    Args:
        name (`str` or `os.PathLike`): A folder, a shipped bundle, or a repository on the Hub.
        kwargs: As in `DiffusionPipeline.from_pretrained`. In float32 if no dtype is asked for.

    Raises:
        OSError: If nothing has that name.
        TypeError: If a dtype is none.
        ValueError: If a file is not what it should be; the message names it. If the bundle has no editor.
    """
    _complete_dtype(kwargs)
    hub = {key: kwargs.pop(key) for key in HUB_SETTINGS if key in kwargs}
    of_weights = {key: kwargs[key] for key in OF_WEIGHTS if key in kwargs}
    folder = resolve(name, only_configs, **hub)
    if is_modular(folder) and not (folder / PIPELINE_INDEX).is_file():
        return load_nested(resolve(name, partial(_of_modular, **of_weights), **hub), **kwargs)
    index = read_index(folder)
    if "editor" not in index:
        if local(name) is not None:
            return load_nested(folder, **kwargs)
        # diffusers knows what it takes of a repository, but for adapters. All of one commit: a branch may move.
        hub["revision"] = folder.name
        folder = resolve(name, lambda _, files: [file for file in files if _is_of_adapters(file)], **hub)
        pipeline = DiffusionPipeline.from_pretrained(str(name), **kwargs, **hub)
        load_adapters(pipeline, folder)
        return pipeline
    if index["editor"] == [None, None]:
        raise ValueError(f"The bundle {str(name)!r} has no editor.")
    folder = resolve(name, lambda _, files: files_to_load(files, {"editor": 2}, **of_weights), **hub)
    if (remote := _remote_in(index).get("editor")) is not None:
        return load_remote(remote, folder / "editor")
    return load_nested(folder / "editor", **kwargs)


def check_component(name: str, value: Any) -> None:
    """Refuse what no pipeline could use under the name of a component, or of what belongs to one.

    Raises:
        TypeError: If a component is a name, the editor no pipeline or one that has an editor itself, or its defaults no mapping.
        ValueError: If prompts are none.
    """
    if name == "prompts" and value is not None and not isinstance(value, Prompts):
        Prompts.from_dict(value)
    if name in _COMPONENTS and isinstance(value, (str, os.PathLike)):
        raise TypeError(
            f"`{name}` is loaded before it is given, and {str(value)!r} is a name: `load_planner` loads a planner,"
            " `DiffusionPipeline.from_pretrained` an editor."
        )
    if name == "editor" and not isinstance(value, (DiffusionPipeline, ModularPipeline, RemoteEditor, NoneType)):
        raise TypeError(f"`editor` is a pipeline of diffusers, or a `RemoteEditor`, not {type(value).__name__}.")
    if name == "editor" and isinstance(value, LoadingMixin):
        raise TypeError(
            f"`editor` is the pipeline that edits, not a {type(value).__name__}, which has one: give `other.editor`."
        )
    if name == "editor_defaults" and not isinstance(value, (Mapping, NoneType)):
        raise TypeError(f"`editor_defaults` are arguments by name, not {type(value).__name__}.")


def _complete_dtype(settings: dict[str, Any]) -> None:
    """Have settings for loading say float32 if they name no dtype.

    Raises:
        TypeError: If they name one that is none.
    """
    if dtype_in(settings) is None:
        settings["dtype"] = torch.float32
    check_dtype(dtype_in(settings))


def _of_modular(_: Path, files: list[str], **of_weights: Any) -> list[str]:
    """Of the files of a repository that is a modular pipeline, those that are loaded of it."""
    depths = {file.rpartition("/")[0]: 1 for file in files if file.count("/") == 1}
    return files_to_load(files, {"": 0, **depths}, **of_weights)


def _is_of_adapters(file: str) -> bool:
    return file == ADAPTERS_FILE or file.startswith("adapter-")


def _remote_in(index: dict[str, Any]) -> dict[str, str]:
    """The components in an index that are behind an address: the names of their classes."""
    entries = {name: entry for name, entry in index.items() if isinstance(entry, list) and len(entry) == 2}
    return {name: kind for name, (module, kind) in entries.items() if module == PIPELINE_MODULE and kind in REMOTE}


def add_quiet_adapter(model: Any, name: str | os.PathLike) -> Any:
    """Load a LoRA adapter onto a model and leave it off; returns the adapter's processor, `None` if it has none.

    The model keeps the adapter's prompts, if it has some.

    Raises:
        ValueError: If the adapter is for other weights than the model has. The model is as it was then.
    """
    folder = resolve(name)
    said = schema.read_file(folder / ADAPTER_INDEX, dict[str, Any])
    check_base_stays(said.get("init_lora_weights"), f"The adapter in {folder}")
    processor, prompts = load_adapter(model, folder)
    if prompts is not None:
        set_belongings(model, prompts=prompts.to_dict())
    let_rest(model)
    return processor


def _parts_of(components: Mapping[str, Any], shared: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """The models of ours that are parts of a nested pipeline, by component, the planner with its own adapter.

    Args:
        components (`Mapping`): Those that are there.
        shared (`Mapping`): What the index of the bundle in `folder` says of them: `{"planner": "editor.text_encoder"}`.
    """
    parts = {}
    for own, place in shared.items():
        outer, _, name = place.partition(".")
        if components.get(outer) is not None:
            parts[own] = _part(components[outer], name, own, folder)
    if "planner" in parts and (folder / ADAPTER_FOLDER).is_dir():
        add_quiet_adapter(parts["planner"], folder / ADAPTER_FOLDER)
    return parts


def _part(pipeline: DiffusionPipeline, name: str, own: str, folder: Path) -> PreTrainedModel:
    part: Any = pipeline.components.get(name)
    if not getattr(part, "can_generate", bool)():
        raise MissingPartError(
            f"{folder / PIPELINE_INDEX}: This bundle's {own} is its editor's `{name}`, one that writes text, which"
            f" {type(pipeline).__name__} does not have: give a `{own}` too, or `{own}=None`."
        )
    return part
