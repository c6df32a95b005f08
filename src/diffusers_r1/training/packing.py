"""Completions behind one copy of their prompt: a row that a model reads once, where each pair of its own would read it again.

A packed row is `[prompt][completion 1]...[completion k]`. Every completion goes on at the prompt's position, and sees the
prompt and itself, nothing of the other completions. The prompt's last token, which has the first token of every completion
to predict, stands at the head of each of them instead of at the prompt's end.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.masking_utils import create_causal_mask
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid


# The attention functions of transformers that take any mask. Flash attention takes none.
MASKED_ATTENTION = ("eager", "sdpa", "flex_attention")
# What TRL hands on about pictures that the model itself does not take.
COUNTS = ("num_images", "num_tiles")
# One value a token; the rest of what TRL hands on about pictures is one or more values a picture.
TOKEN_TYPES = "mm_token_type_ids"


@dataclass(frozen=True)
class Packed:
    """`n` packed rows of `length` tokens, made from a batch of `size` pairs of prompt and completion.

    Args:
        input_ids (`Tensor`): (n, length).
        labels (`Tensor`): (n, length), the token that each place has to predict, -100 where there is none.
        segments (`Tensor`): (n, length), 0 in the prompt, 1 and up in the completions, -1 in the padding at the end.
        steps (`Tensor`): (n, length), how far a token of a completion is behind the prompt's last one.
        prompts (`list` of `int`): For each packed row the pair of the batch that its prompt is taken from.
        places (`Tensor`): (size, completion length), where in the flattened packed rows the batch's tokens are predicted.
        scored (`Tensor`): (size, completion length), which of the batch's tokens are predicted at all.
    """

    input_ids: Tensor
    labels: Tensor
    segments: Tensor
    steps: Tensor
    prompts: list[int]
    places: Tensor
    scored: Tensor

    def unpack(self, values: Tensor) -> Tensor:
        """`values` (n, length) of the packed rows as (size, completion length) of the batch, 0 where nothing is scored."""
        return values.flatten()[self.places].masked_fill(~self.scored, 0)


def why_unpackable(model: PreTrainedModel) -> str | None:
    """What keeps the completions of this model from being packed, in a few words; `None` where nothing does."""
    config = model.config.get_text_config()
    other_layers = sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})
    if other_layers:
        return f"it has layers of {' and '.join(other_layers)}"
    if not hasattr(config, "layer_types") and getattr(config, "sliding_window", None):
        return "its attention has a sliding window"
    if model._is_stateful or model.config.is_encoder_decoder:
        return "it reads its input in another way than by causal attention"
    if config._attn_implementation not in MASKED_ATTENTION:
        return f"`{config._attn_implementation}` takes no mask; load it with attn_implementation='sdpa'"
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return "it takes no positions"
    return None


def pick(pictures: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """The part of a batch's picture inputs, as TRL hands them on, that belongs to these rows, in their order."""
    by_row = split_pixel_values_by_grid({name: value for name, value in pictures.items() if value is not None})
    index = list(rows)
    picked = {
        name: value[index] if isinstance(value, Tensor) else [value[row] for row in index]
        for name, value in by_row.items()
    }
    return unsplit_pixel_values_by_grid(picked)


def equal_prompts(ids: Tensor, mask: Tensor, pictures: Mapping[str, Any]) -> list[int]:
    """For each row of a batch the first row that has the same prompt and the same pictures.

    Args:
        ids (`Tensor`): (size, prompt length), padded on the left.
        mask (`Tensor`): (size, prompt length), 1 where there is a token.
        pictures (`Mapping`): What TRL hands on about the pictures.
    """
    by_row = split_pixel_values_by_grid({name: value for name, value in pictures.items() if value is not None})
    per_row = [value for name, value in by_row.items() if name != TOKEN_TYPES]
    texts = [tuple(row[kept].tolist()) for row, kept in zip(ids, mask.bool())]
    candidates: dict[tuple[int, ...], list[int]] = {}
    firsts = []
    for row, text in enumerate(texts):
        known = candidates.setdefault(text, [])
        # Two pictures of one size, asked about in the same words, make the same tokens.
        twin = next((one for one in known if all(_equal(value[one], value[row]) for value in per_row)), row)
        if twin == row:
            known.append(row)
        firsts.append(twin)
    return firsts


def pack(
    ids: Tensor,
    mask: Tensor,
    completion_length: int,
    firsts: Sequence[int],
    left_out: Tensor | None = None,
    width: int | None = None,
) -> Packed:
    """Pack a batch of pairs. Equal completions of one prompt are computed once.

    Args:
        ids, mask (`Tensor`): (size, prompt length + completion length), prompts padded on the left, completions on the
            right. A prompt ends in a token of text.
        completion_length (`int`): Where the completions begin, counted from the end.
        firsts (`Sequence[int]`): See [`equal_prompts`].
        left_out (`Tensor`, *optional*): (size,), the pairs that are not scored; none by default.
        width (`int`, *optional*): How many numbers the model has for a token, its `hidden_size`. Attention grows with the
            square of a row, so short prompts with long completions are read faster as several rows, each with a copy of
            the prompt; how many is computed from it. One row a prompt by default.
    """
    kept = mask.bool()
    prompts = [row[on].tolist() for row, on in zip(ids[:, :-completion_length], kept[:, :-completion_length])]
    scored = kept[:, -completion_length:] if left_out is None else kept[:, -completion_length:] & ~left_out[:, None]
    completions = [tuple(row[on].tolist()) for row, on in zip(ids[:, -completion_length:], scored)]
    different: dict[int, list[tuple[int, ...]]] = {}  # first row with a prompt -> its completions
    for first, completion in zip(firsts, completions):
        if completion and completion not in different.setdefault(first, []):
            different[first].append(completion)
    most = max(map(len, different.values()), default=1)
    ways = (
        [_cut(different, most)]
        if width is None
        else [_cut(different, -(-most // rows)) for rows in range(1, most + 1)]
    )
    sizes = [
        (len(way), max((len(prompts[first]) - 1 + sum(map(len, group)) for first, group in way), default=0))
        for way in ways
    ]
    cut, (_, length) = min(zip(ways, sizes), key=lambda pair: _work(*pair[1], width or 1))
    shape = (len(cut), length)
    input_ids, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, -100)
    segments, steps = torch.full(shape, -1), torch.zeros(shape, dtype=torch.long)
    begins = {}
    for row, (first, group) in enumerate(cut):
        prompt = torch.tensor(prompts[first])
        end = len(prompt) - 1
        input_ids[row, :end] = prompt[:-1]
        segments[row, :end] = 0
        for number, completion in enumerate(group, start=1):
            begins[first, completion] = row * length + end
            place = slice(end, end := end + len(completion))
            said = torch.tensor(completion)
            input_ids[row, place] = torch.cat([prompt[-1:], said[:-1]])
            labels[row, place] = said
            segments[row, place] = number
            steps[row, place] = torch.arange(len(completion))

    starts = [begins.get(key, 0) for key in zip(firsts, completions)]
    places = torch.tensor(starts, device=ids.device)[:, None] + torch.arange(completion_length, device=ids.device)
    on_device = (tensor.to(ids.device) for tensor in (input_ids, labels, segments, steps))
    chosen = [first for first, _ in cut]
    return Packed(*on_device, prompts=chosen, places=places.masked_fill(~scored, 0), scored=scored)


def _cut(groups: Mapping[int, list[tuple[int, ...]]], most: int) -> list[tuple[int, list[tuple[int, ...]]]]:
    """Each prompt with at most `most` of its completions, in as many rows as that takes."""
    return [
        (first, group[start : start + most]) for first, group in groups.items() for start in range(0, len(group), most)
    ]


def _work(rows: int, length: int, width: int) -> int:
    """About how much it takes to read so many rows: a layer's 13 matrices of width x width, and its attention."""
    return rows * length * (13 * width + 2 * length)


def packed_inputs(model: PreTrainedModel, packed: Packed, prompt_mask: Tensor, pictures: Mapping[str, Any]) -> dict:
    """What the model's `forward` takes: tokens, positions, a mask with four dimensions, each row's pictures once.

    Args:
        model ([`~transformers.PreTrainedModel`]): The model itself, out of every wrapper.
        packed ([`Packed`]): The rows.
        prompt_mask (`Tensor`): (size, prompt length) of the batch they are made from.
        pictures (`Mapping`): What TRL hands on about the batch's pictures.
    """
    rows = pick(pictures, packed.prompts)
    inputs = {name: value for name, value in rows.items() if name not in (*COUNTS, TOKEN_TYPES)}
    inputs["input_ids"] = packed.input_ids
    inputs["position_ids"] = _positions(model, packed, prompt_mask[packed.prompts], rows)
    if TOKEN_TYPES in rows:
        types = torch.zeros_like(packed.input_ids)
        for row, (given, on) in enumerate(zip(rows[TOKEN_TYPES], prompt_mask[packed.prompts].bool())):
            prompt = given[: len(on)][on][:-1]
            types[row, : len(prompt)] = prompt
        inputs[TOKEN_TYPES] = types
    inputs["attention_mask"] = _mask(model, packed.segments)
    return inputs


def _positions(model: PreTrainedModel, packed: Packed, prompt_mask: Tensor, rows: Mapping[str, Any]) -> Tensor:
    """(n, length), or (3, n, length) where the model has positions in time, height and width."""
    kept = prompt_mask.bool()
    in_space = getattr(model.base_model, "get_rope_index", None)
    if in_space is not None and "image_grid_thw" in rows:
        # What a completion holds is text, which goes on counting from the prompt's last token, text as well.
        types = rows[TOKEN_TYPES][:, : kept.shape[1]]
        ids = torch.zeros_like(types)
        of_prompts, _ = in_space(
            input_ids=ids,
            mm_token_type_ids=types,
            image_grid_thw=rows["image_grid_thw"],
            attention_mask=prompt_mask,
        )
    else:
        of_prompts = (kept.cumsum(-1) - 1)[None]
    last = of_prompts[:, :, -1:]
    positions = (last + packed.steps).masked_fill(packed.segments == -1, 0)
    for row, on in enumerate(kept):
        prompt = of_prompts[:, row, on][:, :-1]
        positions[:, row, : prompt.shape[1]] = prompt
    return positions if len(positions) > 1 else positions[0]


def _mask(model: PreTrainedModel, segments: Tensor) -> Any:
    """Causal, and blind between completions; in the form that the model's attention function takes."""

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (segments[batch, key] == 0) | (segments[batch, key] == segments[batch, query])

    embeddings: Any = model.get_input_embeddings()
    dtype = embeddings.weight.dtype
    return create_causal_mask(
        config=model.config.get_text_config(),
        inputs_embeds=torch.empty(*segments.shape, 0, dtype=dtype, device=segments.device),  # asked for its shape only
        attention_mask=segments >= 0,
        past_key_values=None,
        and_mask_function=sees,
    )


def _equal(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other
