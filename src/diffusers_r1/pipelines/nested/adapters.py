"""LoRA adapters on the models of a pipeline: base and adapter are saved apart, and both come back.

A model with an adapter in it has other names for its weights. Saved as it is, nothing loads it, or it loads without its
weights and nobody is told.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ... import schema
from ...bundles.planners import naming
from ...planners.adapters import adapter_layers
from .parts import models_of


ADAPTERS_FILE = "adapters.json"  # in a nested pipeline's folder, beside a folder for each adapter
_WEIGHTS = "adapter_model.safetensors"
_OFF_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # ways to begin that change the base's weights


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter in a bundle.

    Args:
        folder (`str`): Where its weights and its config lie, beside the file that says this.
        component (`str`): The model that it is on.
        name (`str`): What it is called there.
        active, enabled (`bool`): Whether it is among those that are used, and whether these are used at all.
        scales (`dict`): By what its part is multiplied, by layer.
    """

    folder: str
    component: str
    name: str
    active: bool
    enabled: bool
    scales: dict[str, float]

    def __post_init__(self):
        if Path(self.folder).name != self.folder:
            raise ValueError(f"`folder` must be the name of a folder beside the file, not {self.folder!r}")


@contextmanager
def adapters_taken_out(*models: torch.nn.Module) -> Iterator[None]:
    """Models with the layers that they had before their adapters came, so that they are saved as such."""
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(_taken_out(model))
        yield


@contextmanager
def _taken_out(model: torch.nn.Module) -> Iterator[None]:
    layers = {id(layer) for layer in adapter_layers(model).values()}
    places: list[tuple[torch.nn.Module, str, Any]] = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if id(layer) in layers
    ]
    # What transformers and diffusers note on loading an adapter: that there is one, and how its weights are named in the
    # file, by which they would name those of the model as well.
    noted = {key: vars(model)[key] for key in ("_hf_peft_config_loaded", "_weight_conversions") if key in vars(model)}
    for parent, name, layer in places:
        setattr(parent, name, layer.get_base_layer())
    vars(model).update(dict.fromkeys(noted))
    try:
        yield
    finally:
        vars(model).update(noted)
        for parent, name, layer in places:
            setattr(parent, name, layer)


def adapted_models(pipeline: Any, but: torch.nn.Module | None = None) -> dict[str, Any]:
    """The models of a pipeline that have adapters, by component; without `but`.

    Raises:
        ValueError: If an adapter is fused, so that the weights of the base are not the base's, or of a kind that is not kept.
    """
    found = {name: model for name, model in models_of(pipeline).items() if model is not but and adapter_layers(model)}
    for name, model in found.items():
        check_layers_alone(model, name)
        _check_scales(model, name)
        if any(getattr(layer, "merged", False) for layer in adapter_layers(model).values()):
            raise ValueError(
                f"The adapter on `{name}` is fused with it, so that the two cannot be saved apart: call `unfuse_lora()`"
                " first or, to keep what is fused for good, `unload_lora_weights()`."
            )
    return found


def check_layers_alone(model: Any, name: str) -> None:
    """Refuse adapters that are more than what is added to layers, which would stay in the model when they are taken out.

    Raises:
        ValueError: If one has whole layers or tokens that were trained with it.
    """
    from peft.utils.other import AuxiliaryTrainingWrapper

    if any(isinstance(module, AuxiliaryTrainingWrapper) for module in model.modules()):
        raise ValueError(
            f"The adapter on `{name}` has whole layers or tokens of its own (`modules_to_save`, `trainable_token_indices`),"
            " which a bundle does not keep: merge it into the model, or take it off (`delete_adapters`)."
        )


def check_base_stays(init: Any, what: str) -> None:
    """Refuse an adapter of a shared model that is for another base than the one that the editor encodes with.

    Args:
        init: What the adapter's config says under `init_lora_weights`.

    Raises:
        ValueError
    """
    if str(init).startswith(_OFF_THE_BASE):
        raise ValueError(
            f"{what} began as {init!r}, which changes the weights that it is for, and with them how the editor reads: have PEFT"
            " convert it, `save_pretrained(folder, path_initial_model_for_weight_conversion=...)`."
        )


def _check_scales(model: Any, name: str) -> None:
    """Refuse adapters that are not on by a scale in each layer, such as OFT and IA3.

    Raises:
        ValueError
    """
    layers = adapter_layers(model).values()
    for adapter, config in model.peft_config.items():
        own = [layer for layer in layers if _weights_in(layer, adapter)]
        if not all(adapter in getattr(layer, "scaling", {}) for layer in own):
            raise ValueError(
                f"The adapter {adapter!r} on `{name}` is of the kind {config.peft_type.value}, which a bundle does not keep: LoRA,"
                " LoHa and LoKr are kept."
            )


def _weights_in(layer: Any, adapter: str) -> dict[str, torch.Tensor]:
    """The weights in a layer that are those of an adapter, by their names there, such as `lora_A.ink.weight`."""
    kinds = layer.adapter_layer_names
    return {
        key: value
        for key, value in layer.state_dict().items()
        if key.split(".")[:2] in [[kind, adapter] for kind in kinds]
    }


def _weights_of(model: Any, adapter: str) -> dict[str, torch.Tensor]:
    """The weights of an adapter, under the names that PEFT gives them in a file."""
    from peft import get_peft_model_state_dict

    own = {
        f"{place}.{key}": value.contiguous()
        for place, layer in adapter_layers(model).items()
        for key, value in _weights_in(layer, adapter).items()
    }
    # PEFT leaves out what has the name of another adapter anywhere in it, and an adapter may be called as a layer is.
    configs, model.peft_config = model.peft_config, {adapter: model.peft_config[adapter]}
    try:
        return get_peft_model_state_dict(model, own, adapter_name=adapter)
    finally:
        model.peft_config = configs


def save_adapters(pipeline: Any, folder: Path, but: torch.nn.Module | None = None) -> None:
    """Write the adapters of a nested pipeline, and how strongly each is on, into the new folder that the pipeline was saved to."""
    from safetensors.torch import save_file

    saved: list[SavedAdapter] = []
    for component, model in adapted_models(pipeline, but).items():
        layers = adapter_layers(model)
        for name, config in model.peft_config.items():
            target = folder / f"adapter-{len(saved)}"
            target.mkdir()
            config.save_pretrained(str(target))
            save_file(_weights_of(model, name), target / _WEIGHTS)
            active = any(name in layer.active_adapters for layer in layers.values())
            enabled = not any(layer.disable_adapters for layer in layers.values())
            scales = {place: float(layer.scaling[name]) for place, layer in layers.items() if name in layer.scaling}
            saved.append(SavedAdapter(target.name, component, name, active, enabled, scales))
    if saved:
        text = json.dumps([asdict(adapter) for adapter in saved], indent=2)
        (folder / ADAPTERS_FILE).write_text(text + "\n", encoding="utf-8")


def load_adapters(pipeline: Any, folder: Path) -> None:
    """Bring back what `save_adapters` wrote into a nested pipeline's folder; nothing where it wrote nothing.

    Raises:
        ValueError: If the file is not what `save_adapters` wrote, or the pipeline has no such component.
    """
    if not (folder / ADAPTERS_FILE).is_file():
        return
    from peft import PeftConfig, inject_adapter_in_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    saved = schema.read_file(folder / ADAPTERS_FILE, list[SavedAdapter])
    models = models_of(pipeline)
    for adapter in saved:
        if adapter.component not in models:
            raise ValueError(f"{folder / ADAPTERS_FILE}: the pipeline has no model {adapter.component!r}.")
        model: Any = models[adapter.component]
        source = folder / adapter.folder
        with naming(source), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a second adapter is meant to be there
            config: Any = PeftConfig.from_pretrained(str(source))
            config.inference_mode = True
            # PiSSA, OLoRA and their like take what they begin with off the base, and the base here is what was left then.
            config.init_lora_weights = True
            inject_adapter_in_model(config, model, adapter_name=adapter.name)
            set_peft_model_state_dict(model, load_file(source / _WEIGHTS), adapter_name=adapter.name)
        model._hf_peft_config_loaded = True
    for component in {adapter.component for adapter in saved}:
        _switch_on(models[component], [adapter for adapter in saved if adapter.component == component])


def _switch_on(model: torch.nn.Module, saved: list[SavedAdapter]) -> None:
    """Make active what was, as strongly as it was."""
    model.eval().requires_grad_(False)
    for place, layer in adapter_layers(model).items():
        base = layer.get_base_layer().weight
        layer.to(device=base.device, dtype=base.dtype if base.is_floating_point() else None)
        layer.set_adapter([adapter.name for adapter in saved if adapter.active and place in adapter.scales])
        layer.enable_adapters(all(adapter.enabled for adapter in saved))
        for adapter in saved:
            if place in adapter.scales:
                layer.scaling[adapter.name] = adapter.scales[place]
    model.requires_grad_(False)
