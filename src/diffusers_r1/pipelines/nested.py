"""What a `DiffusionPipeline` needs when one of its components is itself a `DiffusionPipeline`.

diffusers 0.42 registers, saves and loads such a component, and then forgets it: nothing that is asked of the outer
pipeline (move, offload, show progress, load in half precision, ...) reaches it. Each override here says what it mends.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DiffusionPipeline, ModularPipeline
from diffusers.pipelines.pipeline_loading_utils import simple_get_class_obj
from diffusers.quantizers import PipelineQuantizationConfig
from diffusers.utils.accelerate_utils import apply_forward_hook
from huggingface_hub import create_repo, get_cached_repo_tree, snapshot_download

from .. import bundles
from ..bundles import cards
from ..editors.speed import disable_cache, enable_cache
from ..plan import EditPlan


if TYPE_CHECKING:
    from typing_extensions import Self


def _reaching_nested(name: str) -> Callable:
    """`DiffusionPipeline`'s method `name`, followed by the same call on every nested pipeline that has it."""

    @functools.wraps(getattr(DiffusionPipeline, name))
    def method(self: NestedPipelineMixin, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("enable"):
            self._refuse_modular(name)
        result = getattr(super(NestedPipelineMixin, self), name)(*args, **kwargs)
        for pipeline in self.nested_pipelines.values():
            if hasattr(pipeline, name):
                getattr(pipeline, name)(*args, **kwargs)
        return result

    return method


class NestedPipelineMixin:
    """Put before `DiffusionPipeline` among the bases of a pipeline that has pipelines as components.

    Which components those are is read off the annotations of `__init__`: `editor: DiffusionPipeline`.
    """

    @property
    def nested_pipelines(self) -> dict[str, DiffusionPipeline | ModularPipeline]:
        """The components that are pipelines, by name."""
        kinds = (DiffusionPipeline, ModularPipeline)
        return {name: part for name, part in self.components.items() if isinstance(part, kinds)}

    def _refuse_modular(self, method: str) -> None:
        """Modular pipelines are saved and offloaded in ways of their own, which no outer pipeline can take part in."""
        for name, part in self.nested_pipelines.items():
            if isinstance(part, ModularPipeline):
                raise ValueError(
                    f"`{method}` does not work with {type(part).__name__}, a modular pipeline, as `{name}`: save it on its"
                    " own, and offload it by its `ComponentsManager`."
                )

    @classmethod
    def _nested_names(cls) -> list[str]:
        def is_pipeline(annotation: Any) -> bool:
            return inspect.isclass(annotation) and issubclass(annotation, DiffusionPipeline)

        return [name for name, types in cls._get_signature_types().items() if any(map(is_pipeline, types))]

    # Moving and offloading
    # ---------------------
    # These go through the components that are modules. A pipeline is none, so it would be left where and as it is.

    to = _reaching_nested("to")
    set_progress_bar_config = _reaching_nested("set_progress_bar_config")
    set_attention_slice = _reaching_nested("set_attention_slice")
    set_use_memory_efficient_attention_xformers = _reaching_nested("set_use_memory_efficient_attention_xformers")
    enable_sequential_cpu_offload = _reaching_nested("enable_sequential_cpu_offload")
    maybe_free_model_hooks = _reaching_nested("maybe_free_model_hooks")
    reset_device_map = _reaching_nested("reset_device_map")

    @functools.wraps(DiffusionPipeline.enable_model_cpu_offload)
    def enable_model_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        # The hook that brings a model to the accelerator is on `forward`. transformers' `generate` runs the vision
        # tower before the first `forward`, so `generate` brings the model as well.
        self._refuse_modular("enable_model_cpu_offload")
        super().enable_model_cpu_offload(*args, **kwargs)
        for pipeline in self.nested_pipelines.values():
            pipeline.enable_model_cpu_offload(*args, **kwargs)
        for model in self._generating_models:
            model.generate = MethodType(apply_forward_hook(type(model).generate), model)

    @functools.wraps(DiffusionPipeline.remove_all_hooks)
    def remove_all_hooks(self) -> None:
        for model in self._generating_models:
            vars(model).pop("generate", None)
        super().remove_all_hooks()
        for pipeline in self.nested_pipelines.values():
            if isinstance(pipeline, DiffusionPipeline):
                pipeline.remove_all_hooks()

    def enable_group_offload(
        self,
        onload_device: torch.device | str,
        offload_device: torch.device | str = "cpu",
        offload_type: str = "block_level",
        exclude_modules: str | list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """As in `DiffusionPipeline`; `exclude_modules` may name components of both levels, or a nested pipeline.

        Models of our own are always offloaded leaf by leaf: diffusers finds no blocks in a vision-language model, and
        brings the rest of a model in `forward` only, which `generate` calls after the vision tower.
        """
        self._refuse_modular("enable_group_offload")
        excluded = [exclude_modules] if isinstance(exclude_modules, str) else list(exclude_modules or [])
        own = {id(part): name for name, part in self.components.items() if isinstance(part, torch.nn.Module)}
        for name, pipeline in self.nested_pipelines.items():
            shared = {part: own[id(model)] for part, model in pipeline.components.items() if id(model) in own}
            if name in excluded:
                pipeline.to(onload_device)
            else:
                theirs = [*excluded, *shared]  # a model of both levels is offloaded below, as one that generates
                pipeline.enable_group_offload(
                    onload_device, offload_device, offload_type, exclude_modules=theirs, **kwargs
                )
            excluded += [ours for part, ours in shared.items() if {name, part} & {*excluded}]
        super().enable_group_offload(onload_device, offload_device, "leaf_level", exclude_modules=excluded, **kwargs)

    # Saving memory and time
    # ----------------------
    # diffusers has these on single models. Here they reach each model of a nested pipeline that has them.

    def enable_vae_tiling(self) -> None:
        """Let each autoencoder work tile by tile, where a picture is large."""
        self._tell_models("enable_tiling", "vae")

    def disable_vae_tiling(self) -> None:
        """Let each autoencoder work on whole pictures again."""
        self._tell_models("disable_tiling", "vae")

    def enable_vae_slicing(self) -> None:
        """Let each autoencoder work on one picture of a batch at a time."""
        self._tell_models("enable_slicing", "vae")

    def disable_vae_slicing(self) -> None:
        """Let each autoencoder work on whole batches again."""
        self._tell_models("disable_slicing", "vae")

    def set_attention_backend(self, backend: str) -> None:
        """Let each denoiser compute attention by a backend of diffusers: `"native"`, `"flash"`, `"sage"`, ...

        Models of transformers have names of their own: `pipe.planner.set_attn_implementation("flash_attention_2")`.
        """
        self._tell_models("set_attention_backend", "transformer", "unet", backend=backend)

    def enable_cache(self, config: Any) -> None:
        """Let each denoiser of the editor leave out what hardly changed since the step before.

        Args:
            config: Of diffusers, such as `FirstBlockCacheConfig(threshold=0.1)`.

        Raises:
            ValueError: If a denoiser takes no cache.
        """
        enable_cache(self.editor, config)

    def disable_cache(self) -> None:
        """Take the cache off the editor's denoisers."""
        disable_cache(self.editor)

    def _tell_models(self, method: str, *names: str, **kwargs: Any) -> None:
        parts = [getattr(pipeline, name, None) for pipeline in self.nested_pipelines.values() for name in names]
        able = [part for part in parts if hasattr(part, method)]
        if not able:
            raise ValueError(f"There is no {' or '.join(names)} in {list(self.nested_pipelines)} that can `{method}`.")
        for part in able:
            getattr(part, method)(**kwargs)

    def compile(self, *parts: str, **kwargs: Any) -> None:
        """Compile models in place by `torch.compile`, on their first use.

        A model of diffusers that has repeated blocks is compiled block by block, which is much quicker.

        Args:
            parts (`str`): Such as `"planner"`, `"editor.transformer"` or `"editor.vae"`. By default our own models that
                write text and each nested pipeline's denoiser.
            kwargs: Of `torch.compile`, such as `fullgraph` or `mode`.

        Raises:
            ValueError: If one of `parts` is no model.
        """
        models = {name: part for name, part in self.components.items() if isinstance(part, torch.nn.Module)}
        for outer, pipeline in self.nested_pipelines.items():
            theirs = {f"{outer}.{name}": part for name, part in pipeline.components.items()}
            models.update({name: part for name, part in theirs.items() if isinstance(part, torch.nn.Module)})
        unknown = [part for part in parts if part not in models]
        if unknown:
            raise ValueError(f"There is no model {unknown[0]!r}; there are: {', '.join(models)}.")
        usual = [name for name in models if "." not in name or name.endswith((".transformer", ".unet"))]
        for name in parts or usual:
            by_blocks = getattr(models[name], "_repeated_blocks", None)
            (models[name].compile_repeated_blocks if by_blocks else models[name].compile)(**kwargs)

    @property
    def _generating_models(self) -> list[torch.nn.Module]:
        models = [part for part in self.components.values() if isinstance(part, torch.nn.Module)]
        return [model for model in models if hasattr(type(model), "generate")]

    # Only modules of our own are asked for these. With none (`planner=None`) the nested pipeline knows.

    @property
    def device(self) -> torch.device:
        """The device of our own models; of the nested pipeline where there are none."""
        return super().device if self._asked is self else self._asked.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of our own models; of the nested pipeline where there are none."""
        return super().dtype if self._asked is self else self._asked.dtype

    @property
    def _execution_device(self) -> torch.device:
        return super()._execution_device if self._asked is self else self._asked._execution_device

    @property
    def _asked(self) -> DiffusionPipeline:
        has_models = any(isinstance(part, torch.nn.Module) for part in self.components.values())
        return self if has_models else next(iter(self.nested_pipelines.values()), self)

    # Loading
    # -------

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """Load a pipeline with the pipelines in it.

        Takes what `DiffusionPipeline.from_pretrained` takes, and every setting (`dtype`, `variant`, `device_map`,
        `quantization_config`, ...) reaches the nested pipelines, which diffusers loads without any. Settings that name
        components (`dtype={"planner": ..., "transformer": ...}`) may name those of both levels, or a nested pipeline.
        A component given here is neither downloaded nor loaded; `editor=None` leaves it out. Without `dtype` all is
        loaded in float32, where diffusers leaves transformers' models in whatever they were saved in.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`):
                A folder, a repository on the Hub (`"org/name"`), or a bundle that comes with the package.
        """
        if kwargs.get("dtype") is None and kwargs.get("torch_dtype") is None:
            kwargs["dtype"] = torch.float32
        folder = cls._find(pretrained_model_name_or_path, kwargs)
        index = json.loads((folder / cls.config_name).read_text(encoding="utf-8"))
        given = {key: kwargs.pop(key) for key in inspect.signature(cls.__init__).parameters if key in kwargs}
        nested = [name for name in cls._nested_names() if name not in given and index.get(name, [None])[0]]
        shared = {own: part for own, part in cls._shared_with_nested(index).items() if own not in given}
        settings = {name: _settings_of_nested(name, folder / name, kwargs, shared) for name in nested}
        for name in nested:
            nested_class = simple_get_class_obj(*index[name])
            given[name] = nested_class.from_pretrained(str(folder / name), **settings[name])
        given.update(cls._parts_in_nested(index, folder, given))
        # Saved as absent, loaded as absent; diffusers would say that the pipeline expected it.
        absent = {name: None for name, entry in index.items() if entry == [None, None]}

        kwargs = _settings_of_outer(folder, nested, kwargs, shared)
        pipeline = super().from_pretrained(str(folder), **kwargs, **{**absent, **given})
        pipeline.register_to_config(_name_or_path=str(pretrained_model_name_or_path))
        pipeline._bases_by_folder = {str(folder / name): base for name, base in index.get("_base_models", {}).items()}
        return pipeline

    @classmethod
    def _shared_with_nested(cls, index: dict[str, Any]) -> dict[str, str]:
        """Of the components in an index, those that are a nested pipeline's: their names there. For a subclass to say."""
        return {}

    @classmethod
    def _parts_in_nested(cls, index: dict[str, Any], folder: Path, given: dict[str, Any]) -> dict[str, Any]:
        """The components that are a nested pipeline's themselves; `given` holds what is loaded. For a subclass to say."""
        return {}

    @classmethod
    def _other_folders(cls, index: dict[str, Any]) -> list[str]:
        """Folders with weights that are no component's, for a subclass to say."""
        return []

    @classmethod
    def _find(cls, name: str | os.PathLike, kwargs: dict[str, Any]) -> Path:
        folder = Path(name)
        if not folder.is_dir():
            if folder.name == str(name):
                shipped = bundles.find(str(name))
                if shipped is None:
                    raise OSError(
                        f"{str(name)!r} is neither a folder nor a bundle that comes with diffusers-r1"
                        f' ({", ".join(bundles.names())}). A name on the Hub has the form "org/name".'
                    )
                return shipped
            folder = Path(cls.download(str(name), **kwargs))
        if not (folder / cls.config_name).is_file():
            raise OSError(f"{str(name)!r} has no {cls.config_name}, so it is no pipeline.")
        return folder

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike) -> dict[str, Any]:
        """Read the index as diffusers' loader should see it: without nested pipelines, which are loaded here already.

        With them it fails on `variant` (folders have no "." in their names) and prints every pipeline that is passed
        in place of a saved one ("You have passed a non-standard module ..."). And a class name that is a pair, see
        `save_pretrained`, would make it ask for `trust_remote_code` to load this very class.
        """
        index = super()._dict_from_json_file(json_file)
        nested = cls._nested_names()
        return {**{key: value for key, value in index.items() if key not in nested}, "_class_name": cls.__name__}

    @classmethod
    def download(cls, pretrained_model_name: str | os.PathLike, **kwargs: Any) -> str:
        """Download what `from_pretrained` with the same arguments would load, and return the folder it is in.

        diffusers knows folders one level deep: of the nested pipelines it brings every variant and every format.
        """
        variant, use_safetensors = kwargs.pop("variant", None), kwargs.pop("use_safetensors", None)
        hub_settings = ("cache_dir", "force_download", "local_files_only", "token")
        source = {key: kwargs[key] for key in hub_settings if kwargs.get(key) is not None}
        source["user_agent"] = {"pipeline_class": cls.__name__}
        folder = snapshot_download(
            pretrained_model_name, revision=kwargs.get("revision"), allow_patterns=cls.config_name, **source
        )
        index = Path(folder, cls.config_name)
        if not index.is_file():
            return folder
        nested, components = cls._nested_names(), json.loads(index.read_text(encoding="utf-8"))
        depths = {
            name: 2 if name in nested else 1
            for name, entry in components.items()
            if isinstance(entry, list) and entry[0] and name != "_class_name" and name not in kwargs
        }
        depths.update(dict.fromkeys(cls._other_folders(components), 1))
        commit = index.parent.name
        listing = get_cached_repo_tree(pretrained_model_name, revision=commit, cache_dir=kwargs.get("cache_dir"))
        wanted = files_to_load([file.path for file in listing], depths, variant, use_safetensors)
        return snapshot_download(
            pretrained_model_name, revision=commit, allow_patterns=[cls.config_name, *wanted], **source
        )

    # Saving
    # ------

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        use_flashpack: bool = False,
        plan: EditPlan | None = None,
        scores: str | os.PathLike | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Save the pipeline with the pipelines in it, a model card, and what plain `DiffusionPipeline` loads it by.

        The class name in the index is a pair, as diffusers has it for code that comes with the weights: plain
        `DiffusionPipeline` refuses without `trust_remote_code=True`, where otherwise it fails with "module diffusers
        has no attribute ...". The refusal quotes nothing of ours but the file's name, so the name says what to do.

        Takes what `DiffusionPipeline.save_pretrained` takes, and for the model card:

        Args:
            plan ([`EditPlan`], *optional*):
                An example of what the agents make of an instruction.
            scores (`str`, `os.PathLike` or `Mapping`, *optional*):
                An evaluation's report of this very pipeline, as [`Scores.read`] takes it. It is not kept for the next
                save: a pipeline that is changed has other scores.
        """
        self._refuse_modular("save_pretrained")
        about = {"plan": plan, "scores": None if scores is None else cards.Scores.read(scores)}
        folder = Path(save_directory)
        self.register_to_config(_base_models=cards.base_models(self))
        super().save_pretrained(str(folder), safe_serialization, variant, max_shard_size, use_flashpack=use_flashpack)
        index = json.loads((folder / self.config_name).read_text(encoding="utf-8"))
        index["_class_name"] = [cards.PIPELINE_MODULE, type(self).__name__]
        (folder / self.config_name).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        (folder / f"{cards.PIPELINE_MODULE}.py").write_text(cards.pipeline_file(type(self)), encoding="utf-8")
        cards.write_card(self, folder, **about)
        if push_to_hub:
            self._push(folder, kwargs.pop("repo_id", folder.name), about, **kwargs)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        subfolder: str | None = None,
        plan: EditPlan | None = None,
        scores: str | os.PathLike | Mapping[str, Any] | None = None,
    ) -> Any:
        """Save and upload the whole bundle. diffusers would put an empty card over ours.

        Takes what `DiffusionPipeline.push_to_hub` takes, and `plan` and `scores` for the model card, as `save_pretrained`.
        """
        about = {"plan": plan, "scores": None if scores is None else cards.Scores.read(scores)}
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, safe_serialization=safe_serialization, variant=variant)
            return self._push(Path(folder), repo_id, about, commit_message, private, token, create_pr, subfolder)

    def _push(
        self,
        folder: Path,
        repo_id: str,
        about: dict[str, Any],
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        subfolder: str | None = None,
    ) -> Any:
        repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        cards.write_card(self, folder, repo_id, token, **about)
        return self._upload_folder(folder, repo_id, token, commit_message, create_pr, subfolder)


# Which settings go to which level
# --------------------------------


def _settings_of_nested(
    name: str, folder: Path, settings: dict[str, Any], shared: dict[str, str] | None = None
) -> dict[str, Any]:
    """What `from_pretrained` of the nested pipeline in `folder` is given, of what the outer one was given.

    Args:
        shared (`dict`, *optional*): Components of the outer pipeline that are components of this one: their names here.
    """
    components = _components(folder)
    own_names = {**{part: part for part in components}, **{f"{name}.{part}": part for part in components}}
    own_names.update(shared or {})
    result = {key: value for key, value in settings.items() if key not in ("custom_pipeline", "custom_revision")}
    for key in ("dtype", "torch_dtype"):
        if isinstance(settings.get(key), dict):
            wanted = {own_names.get(part, part): dtype for part, dtype in settings[key].items()}
            result[key] = wanted.get(name, wanted)
    if not _has_variant(folder, settings.get("variant")):
        result.pop("variant", None)
    config = settings.get("quantization_config")
    if _is_quantized(name, config):
        result["quantization_config"] = copy.copy(config)
        result["quantization_config"].components_to_quantize = None  # all of them
    else:
        result["quantization_config"] = _quantizing(config, own_names)
    return result


def _settings_of_outer(
    folder: Path, nested: list[str], settings: dict[str, Any], shared: dict[str, str] | None = None
) -> dict[str, Any]:
    """The same settings without what only concerns the nested pipelines."""
    result = dict(settings)
    variant, own = settings.get("variant"), [p for p in folder.iterdir() if p.is_dir() and p.name not in nested]
    if any(_has_variant(folder / name, variant) for name in nested) and not any(_has_variant(p, variant) for p in own):
        del result["variant"]
    config = settings.get("quantization_config")
    if config is not None:
        theirs = {*(shared or {}), *(name for name in nested if _is_quantized(name, config))}
        for name in nested:
            theirs.update(part for own in _components(folder / name) for part in (own, f"{name}.{own}"))
        result["quantization_config"] = _quantizing(config, {p: p for p in _quantized(config) if p not in theirs})
    return result


def _components(folder: Path) -> list[str]:
    """The names of the components of the pipeline in a folder."""
    index = json.loads((folder / DiffusionPipeline.config_name).read_text(encoding="utf-8"))
    return [name for name, entry in index.items() if isinstance(entry, list) and name != "_class_name"]


def _is_quantized(name: str, config: PipelineQuantizationConfig | None) -> bool:
    """Whether a nested pipeline is to be quantized as a whole."""
    return name in (getattr(config, "components_to_quantize", None) or [])


def _quantized(config: PipelineQuantizationConfig | None) -> list[str]:
    """The components that a quantization config names; none where it means all."""
    return list(getattr(config, "quant_mapping", None) or getattr(config, "components_to_quantize", None) or [])


def _quantizing(
    config: PipelineQuantizationConfig | None, own_names: dict[str, str]
) -> PipelineQuantizationConfig | None:
    """A quantization config for those of its components that belong to a level, since diffusers warns of the others.

    Args:
        own_names (`dict`): What the config may call the level's components: their names there.

    Returns:
        The config as it is if it names no components, `None` if it names others only.
    """
    if not _quantized(config):
        return config
    names = {own_names[name]: name for name in _quantized(config) if name in own_names}
    if not names:
        return None
    config = copy.copy(config)
    if config.quant_mapping:
        config.quant_mapping = {own: config.quant_mapping[name] for own, name in names.items()}
    else:
        config.components_to_quantize = list(names)
    return config


# Which files are loaded
# ----------------------

_PICKLED = ".bin"
_SAFE = ".safetensors"
_NEVER_LOADED = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".ot", ".onnx", ".pb", ".gguf")
_SHARD = re.compile(r"-\d{5}-of-\d{5}")


def _variant_of(file: str) -> str:
    """`"fp16"` for `model.fp16-00001-of-00002.safetensors` or `model.safetensors.index.fp16.json`, `""` for none."""
    parts = _SHARD.sub("", file.rpartition("/")[2]).split(".")[1:]
    return ".".join(part for part in parts if part not in ("safetensors", "bin", "index", "json"))


def _is_weights(file: str, kind: str) -> bool:
    """Whether a file holds weights of a kind (`.bin`, `.safetensors`), or is the index of their shards."""
    return file.endswith(kind) or (f"{kind}." in file and ".index." in file and file.endswith(".json"))


def _has_variant(folder: Path, variant: str | None) -> bool:
    files = [path.name for path in folder.rglob("*")] if variant else []
    return any(
        _variant_of(file) == variant for file in files if _is_weights(file, _SAFE) or _is_weights(file, _PICKLED)
    )


def files_to_load(
    files: Iterable[str], depths: dict[str, int], variant: str | None = None, use_safetensors: bool | None = None
) -> list[str]:
    """Of the files of a repository, those that loading it takes.

    Args:
        files (iterable of `str`): Paths in the repository, with "/".
        depths (`dict`): How many folders deep the weights of each component lie: 1, or 2 for a nested pipeline.
        variant (`str`, *optional*): Taken in each folder that has it; the others give their plain weights.
        use_safetensors (`bool`, *optional*): By default a folder gives pickled weights (`.bin`) only if it has no
            others. `True` refuses them, `False` asks for them.

    Raises:
        ValueError: If no folder has the variant.
        OSError: If `use_safetensors=True` and a folder has pickled weights only.
    """
    kinds = {None: (_SAFE, _PICKLED), True: (_SAFE,), False: (_PICKLED,)}[use_safetensors]
    wanted, weights = [], defaultdict(list)
    for file in files:
        component, depth = file.partition("/")[0], file.count("/")
        if depth == 0 or component not in depths or file.endswith(_NEVER_LOADED):
            continue
        if not _is_weights(file, _SAFE) and not _is_weights(file, _PICKLED):
            wanted.append(file)
        elif depth == depths[component]:
            weights[file.rpartition("/")[0]].append(file)

    found = False
    for folder, members in weights.items():
        taken = next((some for kind in kinds if (some := [m for m in members if _is_weights(m, kind)])), None)
        if taken is None and use_safetensors:
            raise OSError(f"{folder} has no {_SAFE} weights, and `use_safetensors=True` refuses others.")
        asked = [file for file in taken or [] if variant and _variant_of(file) == variant]
        found = found or bool(asked)
        wanted += asked or [file for file in taken or [] if not _variant_of(file)]
    if variant and not found:
        raise ValueError(f"There are no weights of the variant {variant!r}.")
    return wanted
