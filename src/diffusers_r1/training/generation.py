"""Prompts read once, in a cache from which many completions of each are generated."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import GenerationConfig
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """A layer of a [`~transformers.DynamicCache`] with room for what is still to come.

    The library's own copies all that it holds for every token that is added. With prompts of a thousand tokens, most of
    the time of a small model goes there.

    Args:
        layer (`DynamicLayer`): What has been read, one row a prompt.
        again (`Tensor`): For each row of this layer, the number of its prompt.
        room (`int`): How many tokens will be added.
    """

    def __init__(self, layer: DynamicLayer, again: Tensor, room: int):
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.all_keys, self.all_values = (_with_room(states, again, room) for states in (layer.keys, layer.values))
        self._show(layer.keys.shape[-2])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        self.all_keys[..., start:end, :] = key_states
        self.all_values[..., start:end, :] = value_states
        self._show(end)
        return self.keys, self.values

    def _show(self, end: int) -> None:
        self.keys, self.values = self.all_keys[..., :end, :], self.all_values[..., :end, :]


def read_prompts(model: Any, inputs: dict[str, Tensor], again: Tensor, settings: GenerationConfig) -> dict[str, Any]:
    """What `generate` goes on from: prompts in a cache that holds all of them but the last token.

    Args:
        model ([`~transformers.PreTrainedModel`] or a PEFT model): What generates. All of its layers are of full attention.
        inputs (`dict`): Its inputs for different prompts.
        again (`Tensor`): For each row that is to be generated, the number of its prompt.
        settings ([`~transformers.GenerationConfig`]): With which the rows will be generated.
    """
    one_token = GenerationConfig(
        max_new_tokens=1,
        do_sample=False,
        pad_token_id=settings.pad_token_id,
        use_cache=True,
        return_dict_in_generate=True,
    )
    read = model.generate(**inputs, generation_config=one_token)
    name = "cache" if "cache" in read else "past_key_values"  # the latter before transformers 5.24
    cache = read[name]
    cache.crop(-1)
    cache.layers = [RoomyLayer(layer, again, settings.max_new_tokens) for layer in cache.layers]
    # Qwen-VL keeps a part of what belongs in the cache to itself: how far pictures shift the positions.
    for module in model.modules():
        if getattr(module, "rope_deltas", None) is not None:
            module.rope_deltas = module.rope_deltas[again]
    return {key: inputs[key][again] for key in ("input_ids", "attention_mask")} | {name: cache}


def _with_room(states: Tensor, again: Tensor, room: int) -> Tensor:
    _, heads, length, size = states.shape
    roomy = states.new_empty(len(again), heads, length + room, size)
    roomy[..., :length, :] = states[again]
    return roomy
