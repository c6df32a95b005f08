"""Prompts read once, in a cache from which many completions of each are generated, each no longer than it is."""

from __future__ import annotations

from collections.abc import Callable, Collection
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList
from transformers.cache_utils import DynamicLayer


# After how many tokens the completions that have ended are dropped from the batch.
STAGE = 32
# Settings of `generate` that count tokens from where it was called, or go on in another way than token by token.
WHOLE = (
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
    "forced_eos_token_id",
    "max_time",
    "min_length",
    "min_new_tokens",
    "num_beams",
    "prompt_lookup_num_tokens",
    "stop_strings",
)


class RoomyLayer(DynamicLayer):
    """A layer of a [`~transformers.DynamicCache`] with room for what is still to come.

    The library's own copies all that it holds for every token that is added. With prompts of a thousand tokens, most of
    the time of a small model goes there.

    Args:
        keys, values (`Tensor`): What has been read, one row a prompt.
        again (`Tensor`): For each row of this layer, the number of its prompt.
        room (`int`): How many tokens will be added.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor, again: Tensor, room: int):
        super().__init__()
        self.lazy_initialization(keys, values)
        self.all_keys, self.all_values = (_with_room(states, again, room) for states in (keys, values))
        self._show(keys.shape[-2])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        self.all_keys[..., start:end, :] = key_states
        self.all_values[..., start:end, :] = value_states
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        self.all_keys, self.all_values = self.all_keys[indices], self.all_values[indices]
        self._show(self.keys.shape[-2])

    def _show(self, end: int) -> None:
        self.keys, self.values = self.all_keys[..., :end, :], self.all_values[..., :end, :]


def generate_from_one_reading(
    model: Any,
    inputs: dict[str, Tensor],
    again: Tensor,
    settings: GenerationConfig,
    ends: Collection[int],
    in_stages: bool = True,
    bound_by: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> list[list[int]]:
    """Completions, each with the token that ended it, if one did.

    Args:
        model ([`~transformers.PreTrainedModel`] or a PEFT model): What generates. All of its layers are of full attention.
        inputs (`dict`): Its inputs for different prompts.
        again (`Tensor`): For each completion, the number of its prompt.
        settings ([`~transformers.GenerationConfig`]): Its `max_new_tokens` are the most that a completion may have.
        ends (collection of `int`): The tokens that end a completion.
        in_stages (`bool`, defaults to `True`): Drop what has ended every 32 tokens. A batch otherwise takes as long as
            if all of its completions were as long as the longest.
        bound_by (a logits processor, *optional*): What the completions are held to, such as a
            [`~grammar.GrammarProcessor`]. It sees rows move up when others have ended.
    """
    processors = LogitsProcessorList([] if bound_by is None else [bound_by])
    said: list[list[int]] = [[] for _ in again]
    unfinished = list(range(len(again)))
    name, cache = _read(model, inputs, again, settings)
    ids, mask = inputs["input_ids"][again], inputs["attention_mask"][again]
    left = settings.max_new_tokens
    while unfinished and left:
        stage = deepcopy(settings)
        stage.max_new_tokens = min(left, STAGE) if in_stages else left
        grown = model.generate(
            input_ids=ids,
            attention_mask=mask,
            **{name: cache},
            generation_config=stage,
            logits_processor=processors,
        )
        going_on = []
        for place, (row, new) in enumerate(zip(unfinished, grown[:, ids.shape[1] :].tolist())):
            stop = next((number for number, token in enumerate(new, 1) if token in ends), None)
            said[row] += new[:stop]
            if stop is None:
                going_on.append(place)
        left -= stage.max_new_tokens
        unfinished = [unfinished[place] for place in going_on]
        chosen = torch.tensor(going_on, dtype=torch.long, device=ids.device)
        new_mask = mask.new_ones(len(going_on), grown.shape[1] - ids.shape[1])
        ids, mask = grown[chosen], torch.cat([mask[chosen], new_mask], dim=1)
        if unfinished and left:
            cache.batch_select_indices(chosen)
            _select_positions(model, chosen)
    return said


def _read(model: Any, inputs: dict[str, Tensor], again: Tensor, settings: GenerationConfig) -> tuple[str, Any]:
    """The prompts in a cache, a row a completion, that holds all of them but the last token; and what it is called."""
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
    cache.layers = [RoomyLayer(layer.keys, layer.values, again, settings.max_new_tokens) for layer in cache.layers]
    _select_positions(model, again)
    return name, cache


def _select_positions(model: Any, rows: Tensor) -> None:
    """Qwen-VL keeps a part of what belongs in the cache to itself: how far pictures shift the positions."""
    for module in model.modules():
        if getattr(module, "rope_deltas", None) is not None:
            module.rope_deltas = module.rope_deltas[rows]


def _with_room(states: Tensor, again: Tensor, room: int) -> Tensor:
    _, heads, length, size = states.shape
    roomy = states.new_empty(len(again), heads, length + room, size)
    roomy[..., :length, :] = states[again]
    return roomy
