"""Where the models of a pipeline in a pipeline are and how they compute: device, dtype, offloading, memory, progress."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DiffusionPipeline, ModularPipeline
from diffusers.utils.accelerate_utils import apply_forward_hook

from ...editors.speed import disable_cache, enable_cache
from .parts import Mixin, blocks_within, models_of, nested_pipelines, refuse_modular


if TYPE_CHECKING:
    from typing_extensions import Self

Setting = tuple[str, tuple[str, ...], tuple, dict[str, Any]]  # a method, of which components, and its arguments


def _reaching_nested(name: str) -> Callable:
    """`DiffusionPipeline`'s method `name`, followed by the same call on every nested pipeline that has it."""

    @functools.wraps(getattr(DiffusionPipeline, name))
    def method(self: MovingMixin, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("enable"):
            refuse_modular(self, name)
        result = getattr(super(MovingMixin, self), name)(*args, **kwargs)
        if name.startswith("set_"):
            self._ask_nested(name, *args, **kwargs)
        else:
            for pipeline in nested_pipelines(self).values():
                if hasattr(pipeline, name):
                    getattr(pipeline, name)(*args, **kwargs)
        return result

    return method


class MovingMixin(Mixin):
    """What is asked of the outer pipeline reaches the nested one, and the next one that takes its place."""

    # diffusers goes through the components that are modules. A pipeline is none, so it would be left where and as it is.

    to = _reaching_nested("to")
    set_progress_bar_config = _reaching_nested("set_progress_bar_config")
    set_attention_slice = _reaching_nested("set_attention_slice")
    set_use_memory_efficient_attention_xformers = _reaching_nested("set_use_memory_efficient_attention_xformers")
    enable_sequential_cpu_offload = _reaching_nested("enable_sequential_cpu_offload")
    maybe_free_model_hooks = _reaching_nested("maybe_free_model_hooks")
    reset_device_map = _reaching_nested("reset_device_map")

    @property
    def nested_pipelines(self) -> dict[str, Any]:
        """The components that are pipelines, by name."""
        return nested_pipelines(self)

    # Offloading
    # ----------

    @functools.wraps(DiffusionPipeline.enable_model_cpu_offload)
    def enable_model_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        # The hook that brings a model to the accelerator is on `forward`. transformers' `generate` runs the vision
        # tower before the first `forward`, so `generate` brings the model as well.
        refuse_modular(self, "enable_model_cpu_offload")
        super().enable_model_cpu_offload(*args, **kwargs)
        for pipeline in nested_pipelines(self).values():
            pipeline.enable_model_cpu_offload(*args, **kwargs)
        for model in self._generating_models:
            model.generate = MethodType(apply_forward_hook(type(model).generate), model)

    @functools.wraps(DiffusionPipeline.remove_all_hooks)
    def remove_all_hooks(self) -> None:
        for model in self._generating_models:
            vars(model).pop("generate", None)
        super().remove_all_hooks()
        for pipeline in nested_pipelines(self).values():
            if isinstance(pipeline, DiffusionPipeline):
                pipeline.remove_all_hooks()

    def enable_group_offload(
        self,
        onload_device: torch.device | str,
        offload_device: torch.device | str = "cpu",
        offload_type: str = "block_level",
        *,
        exclude_modules: str | list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """As in `DiffusionPipeline`; `exclude_modules` may name components of both levels, or a nested pipeline.

        Models of our own are always offloaded leaf by leaf: diffusers finds no blocks in a vision-language model, and
        brings the rest of a model in `forward` only, which `generate` calls after the vision tower.
        """
        refuse_modular(self, "enable_group_offload")
        devices = torch.device(onload_device), torch.device(offload_device)
        excluded = [exclude_modules] if isinstance(exclude_modules, str) else list(exclude_modules or [])
        own = {id(model): name for name, model in models_of(self).items()}
        for name, pipeline in nested_pipelines(self).items():
            shared = {part: own[id(model)] for part, model in pipeline.components.items() if id(model) in own}
            if name in excluded:
                pipeline.to(onload_device)
            else:
                theirs = [*excluded, *shared]  # a model of both levels is offloaded below, as one that generates
                pipeline.enable_group_offload(*devices, offload_type, exclude_modules=theirs, **kwargs)
            excluded += [ours for part, ours in shared.items() if {name, part} & {*excluded}]
        super().enable_group_offload(*devices, "leaf_level", exclude_modules=excluded, **kwargs)

    # Saving memory and time
    # ----------------------
    # diffusers has these on single models. Here they reach each model of a nested pipeline that has them.

    def enable_vae_tiling(self) -> None:
        """Let each autoencoder work tile by tile, where a picture is large."""
        self._ask_models("enable_tiling", "vae")

    def disable_vae_tiling(self) -> None:
        """Let each autoencoder work on whole pictures again."""
        self._ask_models("disable_tiling", "vae")

    def enable_vae_slicing(self) -> None:
        """Let each autoencoder work on one picture of a batch at a time."""
        self._ask_models("enable_slicing", "vae")

    def disable_vae_slicing(self) -> None:
        """Let each autoencoder work on whole batches again."""
        self._ask_models("disable_slicing", "vae")

    def set_attention_backend(self, backend: str) -> None:
        """Let each denoiser compute attention by a backend of diffusers: `"native"`, `"flash"`, `"sage"`, ...

        Models of transformers have names of their own: `pipe.planner.set_attn_implementation("flash_attention_2")`.
        """
        self._ask_models("set_attention_backend", "transformer", "unet", backend=backend)

    def enable_cache(self, config: Any) -> None:
        """Let each denoiser of the editor leave out what hardly changed since the step before.

        Args:
            config: Of diffusers, such as `FirstBlockCacheConfig(threshold=0.1)`. It is for this editor, not for the next.

        Raises:
            ValueError: If a denoiser takes no cache.
        """
        for pipeline in nested_pipelines(self).values():
            enable_cache(pipeline, config)

    def disable_cache(self) -> None:
        """Take the cache off the editor's denoisers."""
        for pipeline in nested_pipelines(self).values():
            disable_cache(pipeline)

    def _ask_models(self, method: str, *names: str, **kwargs: Any) -> None:
        parts = [getattr(pipeline, name, None) for pipeline in nested_pipelines(self).values() for name in names]
        if not any(hasattr(part, method) for part in parts):
            raise ValueError(
                f"There is no {' or '.join(names)} in {list(nested_pipelines(self))} that can `{method}`."
            )
        self._set_now_and_later((method, names, (), kwargs))

    def _ask_nested(self, method: str, *args: Any, **kwargs: Any) -> None:
        self._set_now_and_later((method, (), args, kwargs))

    def _set_now_and_later(self, setting: Setting) -> None:
        for pipeline in nested_pipelines(self).values():
            _apply(pipeline, *setting)
        subject = setting[0].removeprefix("enable_").removeprefix("disable_")  # of each, the last one counts
        vars(self).setdefault("_settings_of_nested", {})[subject] = setting

    def __setattr__(self, name: str, value: Any) -> None:
        replaces = vars(self).get(name) is not value
        super().__setattr__(name, value)
        if replaces and isinstance(value, (DiffusionPipeline, ModularPipeline)):
            for setting in vars(self).get("_settings_of_nested", {}).values():
                _apply(value, *setting)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> Self:
        """As in `DiffusionPipeline`; what was asked of `pipeline` about the one inside it holds here as well."""
        result: Any = super().from_pipe(pipeline, **kwargs)
        for setting in vars(pipeline).get("_settings_of_nested", {}).values():
            result._set_now_and_later(setting)
        return result

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
        models = models_of(self)
        for outer, pipeline in nested_pipelines(self).items():
            models.update({f"{outer}.{name}": model for name, model in models_of(pipeline).items()})
        unknown = [part for part in parts if part not in models]
        if unknown:
            raise ValueError(f"There is no model {unknown[0]!r}; there are: {', '.join(models)}.")
        usual = [name for name in models if "." not in name or name.endswith((".transformer", ".unet"))]
        for name in parts or usual:
            model: Any = models[name]
            by_blocks = getattr(model, "_repeated_blocks", None)
            (model.compile_repeated_blocks if by_blocks else model.compile)(**kwargs)

    @property
    def _generating_models(self) -> list[Any]:
        return [model for model in models_of(self).values() if hasattr(type(model), "generate")]

    # Where it is
    # -----------
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
    def _asked(self) -> DiffusionPipeline | ModularPipeline:
        # What is no pipeline of diffusers, such as an editor behind an address, is nowhere: then the outer one answers.
        return self if models_of(self) else next(iter(nested_pipelines(self).values()), self)


def _apply(pipeline: Any, method: str, names: tuple[str, ...], args: tuple, kwargs: dict[str, Any]) -> None:
    """Ask a pipeline, or its components of those names, for something; who has no such method has nothing to do."""
    asked = [getattr(pipeline, name, None) for name in names] if names else [pipeline]
    if not names and isinstance(pipeline, ModularPipeline):
        blocks: Any = pipeline._blocks  # `blocks` is a copy, and diffusers asks the outermost alone
        asked += blocks_within(blocks)
    for part in asked:
        if hasattr(part, method):
            getattr(part, method)(*args, **kwargs)
