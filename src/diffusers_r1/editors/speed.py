"""The models of an editor that run at every step, and diffusers' caches for them, which a pipeline does not pass on."""

from __future__ import annotations

import importlib
import inspect
from importlib.util import find_spec
from typing import Any

from diffusers import ModelMixin, ModularPipeline
from diffusers.models.cache_utils import CacheMixin

from .sizes import Pipeline


# diffusers 0.42.1's hooks do not know the blocks of these, and fail at the first step
WITHOUT_CACHE = ("Flux2Transformer2DModel", "LongCatImageTransformer2DModel")
DENOISERS = ("transformer", "transformer_2", "unet", "controlnet")


def denoisers_of(editor: Pipeline) -> dict[str, ModelMixin]:
    """The models of an editor that run at every step, by name."""
    found = {name: editor.components.get(name) for name in DENOISERS}
    return {name: model for name, model in found.items() if isinstance(model, ModelMixin)}


def keeps_passes_apart(pipeline: type) -> bool:
    """Whether a class names its passes (under the prompt, under the negative one), for each of which a cache has a state."""
    home: Any = inspect.getmodule(pipeline)
    modules = [home]
    if issubclass(pipeline, ModularPipeline):  # the loop is in a file beside it
        loop = f"{home.__package__}.denoise"
        modules = [importlib.import_module(loop)] if home.__package__ and find_spec(loop) else []
    return any("cache_context(" in inspect.getsource(module) for module in modules)


def takes_cache(denoiser: type) -> bool:
    """Whether diffusers' caches work on a class of denoisers."""
    return issubclass(denoiser, CacheMixin) and denoiser.__name__ not in WITHOUT_CACHE


def enable_cache(editor: Pipeline, config: Any) -> None:
    """`enable_cache` of each denoiser: steps reuse what hardly changed since the one before.

    Args:
        config: Of diffusers, such as `FirstBlockCacheConfig(threshold=0.1)`.

    Raises:
        ValueError: If a denoiser takes no cache, or the class does not keep its passes apart, so that a cache would mix them.
    """
    for name, model in denoisers_of(editor).items():
        if not takes_cache(type(model)):
            raise ValueError(f"`{name}` ({type(model).__name__}) takes no cache.")
    if not keeps_passes_apart(type(editor)):
        raise ValueError(f"{type(editor).__name__} does not keep its passes apart, so it takes no cache.")
    for model in denoisers_of(editor).values():
        model.enable_cache(config)


def disable_cache(editor: Pipeline) -> None:
    """Take the cache off each denoiser that has one."""
    for model in denoisers_of(editor).values():
        if isinstance(model, CacheMixin) and model.is_cache_enabled:
            model.disable_cache()
