"""Texts behind one copy of how they begin, such as completions behind their prompt: a row that a model reads once, where each pair of its own would read it again.

A packed row is `[prompt][completion 1]...[completion k]`. Every completion goes on at the prompt's position, and sees the
prompt and itself, nothing of the other completions. The prompt's last token, which has the first token of every completion
to predict, stands at the head of each of them instead of at the prompt's end.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel, TrainingArguments
from transformers.masking_utils import create_causal_mask
from trl.trainer.utils import FusedCausalLMOutput, split_pixel_values_by_grid, unsplit_pixel_values_by_grid


logger = logging.getLogger(__name__)

# How far log-probabilities of packed rows may be on average from those of rows of their own: in half precision, or not.
ROUNDING = {True: 0.05, False: 1e-4}
# The attention functions of transformers that take any mask. Flash attention takes none.
MASKED_ATTENTION = ("eager", "sdpa", "flex_attention")
# What TRL hands on about pictures that the model itself does not take.
COUNTS = ("num_images", "num_tiles")
# One value a token; the rest of what TRL hands on about pictures is one or more values a picture.
TOKEN_TYPES = "mm_token_type_ids"


@dataclass(frozen=True)
class Branched:
    """`n` packed rows of `length` tokens, made from a batch of `size` rows: `[beginning][rest 1]...[rest k]`.

    Args:
        rows, columns (`Tensor`): (n, length), where in the batch a token stands.
        segments (`Tensor`): (n, length), 0 in the beginning, 1 and up in the rests, -1 in the padding at the end.
        seen (`list` of `int`): For each packed row the row of the batch that its pictures are taken from.
        places (`Tensor`): (size, batch length - 1), where in the flattened packed rows the batch's tokens are predicted,
            from each row's second one on. Several rows have a place in common where they begin alike.
    """

    rows: Tensor
    columns: Tensor
    segments: Tensor
    seen: list[int]
    places: Tensor

    def labels(self, wanted: Tensor) -> Tensor:
        """`wanted` (size, batch length - 1), -100 where nothing is predicted, as labels (n, length) of the packed rows."""
        flat = torch.full((self.segments.numel(),), -100, device=wanted.device)
        return flat.scatter_reduce(0, self.places.flatten(), wanted.flatten(), "amax").view(self.segments.shape)


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


class PackingTrainer:
    """What trainers that pack have in common: they read what rows share once, until something speaks against it."""

    accelerator: Accelerator
    args: TrainingArguments
    model: Any
    reads_once = True
    _tried = False  # whether packed rows were compared with rows of their own

    def read_anew(self, why: str) -> None:
        """Train as TRL does from now on, and say so."""
        self.reads_once = False
        if self.accelerator.is_main_process:
            name = type(self.bare(self.model)).__name__
            logger.warning("%s reads every row from its beginning, as in TRL: %s.", name, why)

    def read_anew_if_apart(self, apart: float, dtype: torch.dtype) -> None:
        """The same if log-probabilities (of `dtype`, when packed) are further `apart` from the true ones than by rounding."""
        if apart > ROUNDING[self.args.bf16 or self.args.fp16 or dtype != torch.float32]:
            self.read_anew(f"packed, its log-probabilities are {apart:.2g} a token from what they should be")

    def score(self, model: Any, inputs: Mapping[str, Any], labels: Tensor) -> Any:
        """What TRL's fused head says of packed rows, each value as `labels` (n, length).

        Without Triton the head projects every place it is given onto the vocabulary. So it is given those from the first
        one on that predicts something: not the prompt, which is the larger part of a row.
        """
        begin = int((labels != -100).any(0).int().argmax())

        def cut(module: Any, args: Any, outputs: Any) -> None:
            outputs.last_hidden_state = outputs.last_hidden_state[:, begin:]

        hook = self.bare(model).base_model.register_forward_hook(cut)
        try:
            outputs = model(**inputs, shift_labels=labels[:, begin:], use_cache=False, fused_lm_head=True)
        finally:
            hook.remove()
        return FusedCausalLMOutput(
            **{
                name: F.pad(value, (begin, 0))
                for name, value in outputs.items()
                if value.shape == labels[:, begin:].shape
            }
        )

    def bare(self, model: Any) -> PreTrainedModel:
        """The model itself, out of accelerate's and PEFT's wrappers."""
        model = self.accelerator.unwrap_model(model)
        return model.get_base_model() if hasattr(model, "get_base_model") else model


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


def branch(ids: Tensor, mask: Tensor, firsts: Sequence[int], begin: Sequence[int], width: int) -> Branched | None:
    """Put rows of a batch behind one copy of how they begin; `None` where the batch is read as fast as it is.

    Args:
        ids, mask (`Tensor`): (size, length), padded on the right.
        firsts (`Sequence[int]`): For each row the first row with the same pictures, see [`equal_prompts`].
        begin (`Sequence[int]`): How many tokens of each row hold all of its pictures. Rows that differ before are not put
            together.
        width (`int`): How many numbers the model has for a token.
    """
    texts = [row[on].tolist() for row, on in zip(ids, mask.bool())]
    together: dict[int, list[int]] = {}
    for row, first in enumerate(firsts):
        together.setdefault(first, []).append(row)
    groups: list[tuple[int, list[int]]] = []  # how many tokens the rows have in common, and the rows
    for rows in together.values():
        common = _common([texts[row] for row in rows])
        alike = len(rows) > 1 and common > max(begin[row] for row in rows)
        groups += [(common, rows)] if alike else [(len(texts[row]), [row]) for row in rows]

    def size(way: list[tuple[int, list[int]]]) -> tuple[int, int]:
        return len(way), max(common - 1 + sum(len(texts[row]) - common for row in rows) for common, rows in way)

    most = max(len(rows) for _, rows in groups)
    ways = [
        [(common, rows[start : start + part]) for common, rows in groups for start in range(0, len(rows), part)]
        for part in dict.fromkeys(-(-most // cut) for cut in range(1, most + 1))
    ]
    chosen = min(ways, key=lambda way: _work(*size(way), width))
    if len(chosen) == len(texts):
        return None

    shape = size(chosen)
    rows, columns = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    segments = torch.full(shape, -1)
    places = torch.zeros(len(ids), ids.shape[1] - 1, dtype=torch.long)
    for number, (common, group) in enumerate(chosen):
        # The last token in common has the first of each rest to predict, so it stands at the head of each of them. The
        # last token of a rest has none.
        end = common - 1
        rows[number, :end], columns[number, :end], segments[number, :end] = group[0], torch.arange(end), 0
        for segment, row in enumerate(group, start=1):
            length = len(texts[row]) - common
            place = slice(end, end + length)
            rows[number, place], segments[number, place] = row, segment
            columns[number, place] = torch.arange(common - 1, common - 1 + length)
            start = number * shape[1]
            places[row, : common - 1] = start + torch.arange(common - 1)
            places[row, common - 1 : common - 1 + length] = start + torch.arange(end, end + length)
            end += length
    on_device = (tensor.to(ids.device) for tensor in (rows, columns, segments))
    return Branched(*on_device, seen=[group[0] for _, group in chosen], places=places.to(ids.device))


def _common(texts: Sequence[list[int]]) -> int:
    """How many tokens all of these begin with."""
    shortest, longest = min(texts), max(texts)  # in the order of a dictionary, between which all others lie
    return next(
        (place for place, (one, other) in enumerate(zip(shortest, longest)) if one != other),
        min(len(shortest), len(longest)),
    )


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
    inputs["attention_mask"] = packed_mask(model, packed.segments)
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


def packed_mask(model: PreTrainedModel, segments: Tensor) -> Any:
    """Causal, and blind between segments but for the first; in the form that the model's attention function takes."""

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
