"""A planner on disk or behind an address: model, processor and the prompts that it was trained with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .. import records, schema
from ..belongings import FILE_NAME as BELONGINGS_FILE
from ..belongings import belongings, read_belongings, set_belongings
from ..installing import install_line
from ..names import ADAPTER_INDEX, HUB_SETTINGS, PIPELINE_INDEX, is_address, planner_files, resolve
from ..planners.adapters import (
    STATE_FILE,
    check_adapter_name,
    has_adapter,
    restore_adapter_state,
    save_adapter_state,
)
from ..planners.remote import CONFIG_NAME as REMOTE_FILE
from ..planners.remote import RemotePlanner
from ..prompts import FILE_NAME as PROMPTS_FILE
from ..prompts import Prompts, prompts_of


if TYPE_CHECKING:  # a planner behind an address needs no torch
    from transformers import PreTrainedModel, ProcessorMixin
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase


ADAPTER_FOLDER = "planner_adapter"  # in a bundle whose planner is a part of its editor: what is added to that part
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
# What makes a folder one kind of planner or another, and its processor one or another.
PLANNER_FILES = (
    "config.json", "model*.safetensors*", "pytorch_model*.bin*", ADAPTER_INDEX, "adapter_model*", STATE_FILE, REMOTE_FILE,
    BELONGINGS_FILE, *PROCESSOR_FILES, "video_preprocessor_config.json", "tokenizer*.json", "tokenizer.model*",
    "chat_template*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
)  # fmt: skip
OF_WEIGHTS = ("variant", "use_safetensors")  # of a planner's settings those that say which files it takes


def load_planner(
    name: str | Path, model_name: str | None = None, base: str | Path | None = None, **kwargs: Any
) -> tuple[PreTrainedModel | RemotePlanner, ProcessorMixin | PreTrainedTokenizerBase | None, Prompts]:
    """Load what a pipeline, or further training, needs of a planner.

    Args:
        name (`str` or `Path`): A shipped bundle or planner, a folder that `save_planner` or a training script wrote, the
            folder of a whole bundle, or a Hub repository of any of these. A LoRA adapter is loaded onto the base model
            that it names, of the revision that it names. Or the address of a server that has a planner loaded, `"http://localhost:8000/v1"`: that takes
            no torch.
        model_name (`str`, *optional*): The model's name at an address; may be left out where the server has only one.
        base (`str` or `Path`, *optional*): Of a LoRA adapter, or a bundle whose planner is one, the model that it is loaded
            onto: a folder that holds it, or a name. By default the one that the adapter names.
        kwargs: `revision`, `token`, `cache_dir`, `force_download` and `local_files_only` say which copy of a repository
            is meant, of model, processor and prompts alike. The others, such as `dtype`, go to the model's
            `from_pretrained`; at an address, to [`RemotePlanner`], such as `concurrency`.

    Returns:
        `tuple`: the model, in evaluation mode, or the [`RemotePlanner`]; its processor, its tokenizer where it sees no
        pictures, `None` at an address; the words in which a pipeline made of it asks, see [`~prompts.prompts_of`].

    Raises:
        OSError: If nothing has that name.
        ValueError: If a file is not what it should be; the message names it. If a `model_name` is given without an
            address, or the address has several models and none is named. If a `base` is given to what is no adapter.
            If there is a `subfolder`.
    """
    if base is not None and is_address(name):
        raise ValueError(f"`base` goes with a LoRA adapter; {name} is an address.")
    if is_address(name):
        kwargs.pop("dtype", None)  # of weights, which the server has
        loaded = RemotePlanner(str(name), model_name, **kwargs), None, None
    elif model_name is not None:
        raise ValueError(f"`model_name` goes with an address, which begins with http://; {name} is none.")
    else:
        if "subfolder" in kwargs:
            raise ValueError("There is no `subfolder`: where in a bundle its planner lies is known.")
        hub = {key: kwargs.pop(key) for key in HUB_SETTINGS if key in kwargs}
        hub["choose"] = partial(planner_files, **{key: kwargs[key] for key in OF_WEIGHTS if key in kwargs})
        of_base = {key: value for key, value in hub.items() if key != "revision"}  # which is the adapter's
        loaded = _load_from(resolve(name, **hub), kwargs, [], base, of_base)
    model, processor, saved = loaded
    if saved is not None:
        set_belongings(model, prompts=saved.to_dict())
    return model, processor, prompts_of(model)


def load_agents(
    name: str | Path, model_name: str | None = None, base: str | Path | None = None, **kwargs: Any
) -> dict[str, Any]:
    """One planner in the place of all agents of a bundle, as components of a pipeline.

    Takes what [`load_planner`] takes, and raises what it raises. Like all of a pipeline it is in float32 unless a `dtype` is
    asked for, whatever it was saved in.

    Returns:
        `dict`: `planner` and `processor`; `sequencer` and `sequencer_processor`, which are `None`.
    """
    planner, processor, _ = load_planner(name, model_name, base, **{"dtype": "float32", **kwargs})
    return {"planner": planner, "processor": processor, "sequencer": None, "sequencer_processor": None}


def _load_from(
    folder: Path,
    settings: dict[str, Any],
    adapters: list[Path],
    given_base: str | Path | None = None,
    hub: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Any, Any, Prompts | None]:
    """`adapters` are those that led to this folder, each naming the next as its base, which `hub` says how to bring."""
    if (folder / ADAPTER_INDEX).is_file():
        if folder.resolve() in adapters:
            raise ValueError(f"{folder / ADAPTER_INDEX}: `base_model_name_or_path` leads back to the adapter itself.")
        _check_peft(folder)
        base = _resolve_base(folder, given_base, hub)
        model, processor, of_base = _load_from(base, settings, [*adapters, folder.resolve()], hub=hub)
        own, prompts = load_adapter(model, folder)
        return model.eval(), own or processor, prompts or of_base
    if (folder / PIPELINE_INDEX).is_file():
        return _load_from_bundle(folder, settings, adapters, given_base, hub)
    if given_base is not None:
        raise ValueError(f"`base` goes with a LoRA adapter; {folder} is none.")
    if (folder / REMOTE_FILE).is_file():
        settings = {key: value for key, value in settings.items() if key != "dtype"}
        planner = RemotePlanner.from_pretrained(folder, **settings)
        read_belongings(planner, folder)
        return planner, None, _prompts_in(folder, planner)
    return _load_here(folder, settings)


def _check_peft(adapter: Path) -> None:
    from transformers.utils import is_peft_available

    if not is_peft_available():
        raise ImportError(f"The planner in {adapter} is a LoRA adapter, which takes PEFT: {install_line('lora')}")


def _resolve_base(adapter: Path, given: str | Path | None, hub: Mapping[str, Any]) -> Path:
    name, revision = _named_base(adapter) if given is None else (given, None)
    try:
        return resolve(name, **{**hub, "revision": revision})
    except OSError as error:
        raise OSError(
            f"The planner in {adapter} is an adapter of {name}, which cannot be had: {error}\nWhere it lies in a folder, say "
            "so: `base`, --planner_base on the command line."
        ) from error


def _load_here(folder: Path, settings: dict[str, Any]) -> tuple[Any, Any, Prompts | None]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    from ..planners.families import ATTENTION

    if not (folder / "config.json").is_file():
        raise OSError(f"{str(folder)!r} has no config.json, so it is no planner.")
    # A model whose config is not known to see is loaded as one that does not, and its processor is its tokenizer.
    with naming(folder):
        kind = AutoConfig.from_pretrained(folder).model_type
    if kind in ATTENTION:
        settings = {"attn_implementation": ATTENTION[kind][0], **settings}
    sees = kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    auto = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    with naming(folder):
        model = auto.from_pretrained(folder, **settings).eval()
    return model, _processor_in(folder), _prompts_in(folder, model)


def _processor_in(folder: Path) -> Any:
    """The processor or tokenizer in a planner's folder; `None` if it has none."""
    has_processor = any((folder / file).is_file() for file in PROCESSOR_FILES)
    return _load_processor(folder) if has_processor else None


def _load_processor(folder: Path) -> Any:
    from transformers import AutoProcessor

    with naming(folder):
        return AutoProcessor.from_pretrained(folder)


def _prompts_in(folder: Path, model: Any) -> Prompts | None:
    """What `prompts.json` says, or else the model's own config."""
    if (folder / PROMPTS_FILE).is_file():
        return Prompts.load(folder)
    kept = belongings(model).get("prompts")
    return None if kept is None else Prompts.from_dict(kept, str(folder / "config.json"))


def _load_from_bundle(
    folder: Path, settings: dict[str, Any], adapters: list[Path], base: str | Path | None, hub: Mapping[str, Any]
) -> tuple[Any, Any, Prompts | None]:
    """The planner of a bundle, which may be a part of its editor."""
    place = place_of_planner(folder)
    if not (folder / place).is_dir():
        raise ValueError(f"The bundle {str(folder)!r} has no planner.")
    own_processor, own_prompts, sequence_without_adapter = _of_bundle(folder)
    model, processor, prompts = _load_from(folder / place, settings, adapters, base, hub)
    if (folder / ADAPTER_FOLDER).is_dir():
        prompts = load_adapter(model, folder / ADAPTER_FOLDER)[1] or prompts
    if sequence_without_adapter:
        set_belongings(model, sequence_without_adapter=True)
    return model, own_processor or processor, own_prompts or prompts


def _of_bundle(folder: Path) -> tuple[Any, Prompts | None, bool]:
    """What a bundle keeps beside its planner: the processor, and of a planner that is an adapter what else its config would."""
    path = folder / PIPELINE_INDEX
    kinds = {
        "prompts": dict[str, Any] | None,
        "sequence_without_adapter": bool | None,
    }
    index = schema.read_fields(kinds, _read(path), str(path))
    prompts = Prompts.from_dict(index["prompts"], str(path)) if index["prompts"] else None
    own = folder / "processor"
    return _load_processor(own) if own.is_dir() else None, prompts, bool(index["sequence_without_adapter"])


def shared_in(folder: Path) -> dict[str, str]:
    """The agents of the bundle in a folder that are parts of its editor: `{"planner": "editor.text_encoder"}`.

    Raises:
        ValueError: If its index is not what it should be; the message names it.
    """
    path = folder / PIPELINE_INDEX
    index = _read(path) if path.is_file() else {}
    return schema.read_fields({"_shared": dict[str, str] | None}, index, str(path))["_shared"] or {}


def place_of_planner(folder: Path) -> str:
    """Where in a bundle's folder its planner lies, which may be a part of its editor."""
    return shared_in(folder).get("planner", "planner").replace(".", "/")


def base_of_adapter(folder: Path) -> str:
    """The name of the model that the LoRA adapter in a folder was trained on.

    Raises:
        ValueError: If the adapter names none, or itself.
    """
    return _named_base(folder)[0]


def _named_base(adapter: Path) -> tuple[str, str | None]:
    """Name and revision of the model that the LoRA adapter in a folder was trained on."""
    path = adapter / ADAPTER_INDEX
    kinds = {"base_model_name_or_path": str, "revision": str | None}
    settings = schema.read_fields(kinds, _read(path), str(path))
    base = settings["base_model_name_or_path"]
    if Path(base).is_dir() and Path(base).resolve() == adapter.resolve():
        raise ValueError(f"{path}: `base_model_name_or_path` names the adapter itself.")
    return base, settings["revision"]


def adapter_in(folder: Path) -> Path | None:
    """Where the LoRA adapter lies that is the planner in a folder, or of the bundle in it; `None` if that is none."""
    places = [folder]
    if (folder / PIPELINE_INDEX).is_file():
        places += [folder / ADAPTER_FOLDER, folder / place_of_planner(folder)]
    return next((place for place in places if (place / ADAPTER_INDEX).is_file()), None)


def base_of(name: str | Path, **hub: Any) -> str:
    """The name of the model that a planner's LoRA adapter was trained on; of any other planner its own name.

    Args:
        name (`str` or `Path`): As [`load_planner`] takes it.
        hub: `revision`, `token`, ..., as there.
    """
    folder = resolve(name, **hub)
    adapter = adapter_in(folder)
    if adapter is None:
        return str(name)
    return str(folder / place_of_planner(folder)) if _is_in_editor(adapter, folder) else base_of_adapter(adapter)


def base_folder(folder: Path, **hub: Any) -> Path:
    """Where the model lies that the LoRA adapter of the planner in a folder was trained on; of any other planner its own folder.

    Args:
        hub: `token`, `cache_dir`, ... and `choose`, as in `resolve`, which brings it.
    """
    adapter = adapter_in(folder)
    if adapter is None:
        return folder
    return folder / place_of_planner(folder) if _is_in_editor(adapter, folder) else _resolve_base(adapter, None, hub)


def _is_in_editor(adapter: Path, bundle: Path) -> bool:
    """Whether an adapter's base is a part of the editor of the bundle that it is in."""
    return adapter == bundle / ADAPTER_FOLDER


def beside_adapter(
    folder: Path, adapter: Path
) -> tuple[ProcessorMixin | PreTrainedTokenizerBase | None, Prompts | None]:
    """Processor and prompts that come with the LoRA adapter that is the planner in a folder, or of the bundle in it.

    Either is `None` where there is none, so that it is the base's.
    """
    processor, prompts = _processor_in(adapter), Prompts.load(adapter) if (adapter / PROMPTS_FILE).is_file() else None
    if (folder / PIPELINE_INDEX).is_file():
        own_processor, own_prompts, _ = _of_bundle(folder)
        return own_processor or processor, own_prompts or prompts
    return processor, prompts


def load_adapter(
    model: PreTrainedModel, name: str | os.PathLike, **hub: Any
) -> tuple[ProcessorMixin | PreTrainedTokenizerBase | None, Prompts | None]:
    """Load a LoRA adapter onto the model that it was trained on: as strong as it was when it was saved, and off if it was.

    Args:
        name (`str` or `os.PathLike`): A folder, or a repository on the Hub.
        hub: `revision`, `token`, ..., as in [`load_planner`].

    Returns:
        `tuple`: the processor and the prompts that were saved beside the adapter, `None` where there are none.

    Raises:
        ImportError: If PEFT is not installed; the message says how to.
    """
    folder = resolve(name, **hub)
    _check_peft(folder)
    with naming(folder / ADAPTER_INDEX):
        model.load_adapter(str(folder))
    restore_adapter_state(model, folder)
    read_belongings(model, folder)
    return _processor_in(folder), Prompts.load(folder) if (folder / PROMPTS_FILE).is_file() else None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within the block a library reads what lies in `path`: what it cannot make sense of is an error that names the place.

    diffusers, transformers, PEFT, tokenizers and safetensors answer damaged files with whatever their code runs into. A
    package that is missing and a memory that is full are no fault of the files.
    """
    import torch

    try:
        yield
    except (ImportError, MemoryError, torch.AcceleratorError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, (OSError, ValueError)) and str(path) in str(error):
            raise
        kind = OSError if isinstance(error, OSError) else ValueError
        said = f"{path} cannot be loaded: {type(error).__name__}: {str(error)[:1000]}"
        raise kind(_broken_json(path) or said) from error


def _broken_json(folder: Path) -> str:
    """The first JSON file in a folder of which no library can make sense, and why; empty if there is none.

    diffusers takes settings that are text for a name on the Hub, and says nothing of the file.
    """
    for path in sorted(folder.rglob("*.json")):
        try:
            content = json.loads(path.read_bytes())
        except (RecursionError, ValueError) as error:
            return f"{path} cannot be read as JSON: {error}"
        if path.name.endswith(("config.json", "tokenizer.json")) and not isinstance(content, dict):
            return f"{path} must be an object, not {type(content).__name__}"
    return ""


def _read(path: Path) -> dict[str, Any]:
    return schema.read_file(path, dict[str, Any])


def save_planner(
    folder: str | Path,
    planner: PreTrainedModel | RemotePlanner,
    processor: ProcessorMixin | PreTrainedTokenizerBase | None,
    prompts: Prompts,
) -> None:
    """Write a planner to one folder, from which `load_planner` reads it, whole or not at all; nothing of another one stays there.

    Raises:
        ValueError: If it has an adapter that is called as one of its layers is.
    """
    check_adapter_name(planner)
    set_belongings(planner, prompts=prompts.to_dict())
    with records.written_whole(Path(folder), PLANNER_FILES) as new:
        planner.save_pretrained(new)
        save_adapter_state(planner, new)
        if has_adapter(planner):  # of which nobody saves the config
            records.write_whole(new / BELONGINGS_FILE, json.dumps(belongings(planner), indent=2) + "\n")
        if processor is not None:
            processor.save_pretrained(new)
        prompts.save(new)
