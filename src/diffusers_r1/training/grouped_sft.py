"""TRL's supervised training with what the rows of a batch begin with, such as a picture, read once for all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from datasets import Dataset, Image
from torch import Tensor
from torch.utils.data import RandomSampler, Sampler
from transformers import PreTrainedModel
from trl import SFTTrainer
from trl.trainer.utils import FusedCausalLMOutput

from .loop import rows_a_step
from .packing import TOKEN_TYPES, PackingTrainer, branch, equal_prompts, packed_mask, pick, why_unpackable


# What a batch holds when its rows are not texts padded on the right, or when its pictures cannot be told apart by rows.
OTHER_BATCHES = ("position_ids", "token_type_ids", "spatial_shapes", "num_tiles")
# About how many pictures the rows of a step are at least.
PICTURES = 4


class GroupedSFTTrainer(PackingTrainer, SFTTrainer):
    """[`~trl.SFTTrainer`] that reads once what rows of a micro-batch begin with in common.

    Several instructions about one picture begin with the picture, a thousand tokens of it, and all rows of a planner that
    does not see begin with the words around the instruction. A packed row holds one copy of the beginning and what comes
    behind it in each of them, see `training/packing.py`. Losses, gradients, metrics and all arguments are TRL's.

    So that rows about one picture meet in a micro-batch, they are put side by side, see [`SideBySide`].

    What cannot be packed (layers with a sliding window or a state, flash attention, sharded weights, a mixture of experts
    with a balancing loss) is computed as TRL does it. The log says so and why, once. So is a micro-batch that would not be
    faster, and one whose logits are asked for.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.aux_loss_enabled:
            self.read_anew("its experts are balanced over all tokens, the beginning's each time")
        elif self.is_deepspeed_enabled or self.is_fsdp_enabled:
            self.read_anew("its weights are sharded")
        elif why := why_unpackable(self.bare(self.model)):
            self.read_anew(why)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        """As in TRL, but for the order of rows that have a picture in common."""
        sampler = super()._get_train_sampler(train_dataset)
        rows = self.train_dataset if train_dataset is None else train_dataset
        most = min(self.args.train_batch_size, rows_a_step(self.args) // PICTURES)
        shuffled = self.reads_once and isinstance(sampler, RandomSampler)
        if not (shuffled and isinstance(rows, Dataset) and "image" in rows.column_names and most > 1):
            return sampler
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return SideBySide(_pictures(rows), most, seed)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As TRL does it, from packed rows."""
        needs_logits = return_outputs or self.compute_loss_func is not None or self.label_smoother is not None
        padded = "attention_mask" in inputs and not any(name in inputs for name in OTHER_BATCHES)
        if self.reads_once and padded and not needs_logits:
            model = partial(self._score, model)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _score(self, model: Any, **inputs: Any) -> FusedCausalLMOutput:
        """What `model(**inputs, fused_lm_head=True)` comes to."""
        bare = self.bare(model)
        packed = packed_batch(bare, inputs)
        if packed is None or not (self._tried or self._fits(bare, inputs, packed)):
            return model(**inputs)
        return self._unpacked(model, inputs, packed)

    def _unpacked(self, model: Any, inputs: dict[str, Any], packed: tuple[dict[str, Any], Tensor, Tensor]) -> Any:
        """The outputs of a packed batch, each (size, length - 1), as those of the batch itself."""
        given, labels, places = packed
        outputs = self.score(model, given, labels)
        scored = inputs["labels"][:, 1:] != -100
        log_probs, entropy, is_top1 = (
            values.flatten()[places].masked_fill(~scored, 0)
            for values in (outputs.log_probs, outputs.entropy, outputs.is_top1)
        )
        return FusedCausalLMOutput(log_probs=log_probs, entropy=entropy, is_top1=is_top1, label_mask=scored)

    @torch.no_grad()
    def _fits(
        self, bare: PreTrainedModel, inputs: dict[str, Any], packed: tuple[dict[str, Any], Tensor, Tensor]
    ) -> bool:
        """Compare the first packed batch with rows of their own: a family may read in a way that no setting tells."""
        self._tried = True
        training = bare.training
        bare.eval()  # without dropout
        expected, found = bare(**inputs), self._unpacked(bare, inputs, packed)
        bare.train(training)
        apart = (found.log_probs.float() - expected.log_probs.float())[expected.label_mask].abs().mean().item()
        self.read_anew_if_apart(apart, found.log_probs.dtype)
        return self.reads_once


class SideBySide(Sampler[int]):
    """Every row once, in a random order in which rows about one picture stand side by side, up to `most` of them.

    Which rows come together is drawn anew each epoch, and the parts are shuffled, so that a row is as likely to come early
    as late, whatever the others are about. What it costs: a step is about fewer pictures. Therefore the trainer puts no
    more than a quarter of a step's rows together.

    Args:
        pictures (`Sequence`): For each row what tells its picture from others.
        most (`int`): The most rows of one part.
        seed (`int`): Of the order; each epoch has another.
    """

    def __init__(self, pictures: Sequence[Hashable], most: int, seed: int):
        self.pictures, self.most, self.seed, self.epoch = pictures, most, seed, 0

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        parts: list[list[int]] = []
        unfinished: dict[Hashable, list[int]] = {}
        for row in torch.randperm(len(self), generator=generator).tolist():
            part = unfinished.get(self.pictures[row], [])
            if len(part) in (0, self.most):
                part = unfinished[self.pictures[row]] = []
                parts.append(part)
            part.append(row)
        return chain(*(parts[number] for number in torch.randperm(len(parts), generator=generator).tolist()))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def packed_batch(model: PreTrainedModel, inputs: dict[str, Any]) -> tuple[dict[str, Any], Tensor, Tensor] | None:
    """What the model's `forward` takes instead of a batch of TRL's.

    Args:
        model ([`~transformers.PreTrainedModel`]): The model itself, out of every wrapper.
        inputs (`dict`): `input_ids`, `labels` and `attention_mask`, each (size, length), padded on the right, and pictures.

    Returns:
        Its inputs, the labels, which are shifted already, and where in the flattened packed rows the batch's tokens are
        predicted, see [`Branched`]. `None` where the batch is read as fast as it is, or it cannot be told which row a
        picture belongs to.
    """
    texts = ("input_ids", "labels", "attention_mask", TOKEN_TYPES, "use_cache", "fused_lm_head")
    pictures = {name: value for name, value in inputs.items() if name not in texts and value is not None}
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    of_picture = ids == getattr(model.config, "image_token_id", -1)
    if pictures:
        counts = _pictures_of_rows(of_picture, pictures)
        if counts is None:
            return None
        pictures["num_images"] = counts
    last = of_picture * torch.arange(1, ids.shape[1] + 1, device=ids.device)
    firsts = equal_prompts(ids[:, :0], mask[:, :0], pictures)
    branched = branch(ids, mask, firsts, last.amax(1).tolist(), model.config.get_text_config().hidden_size)
    if branched is None:
        return None

    def taken(values: Tensor) -> Tensor:
        """`values` (..., size, length) of the batch for the packed rows, 0 in the padding."""
        return values[..., branched.rows, branched.columns].masked_fill(branched.segments == -1, 0)

    given = {name: value for name, value in pick(pictures, branched.seen).items() if name != "num_images"}
    in_space = getattr(model.base_model, "get_rope_index", None)
    if in_space is not None and "image_grid_thw" in pictures:
        fields = {name: inputs[name] for name in ("image_grid_thw", TOKEN_TYPES) if name in inputs}
        positions, _ = in_space(input_ids=ids, attention_mask=mask, **fields)
    else:
        positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
    given.update(
        input_ids=taken(ids),
        position_ids=taken(positions),
        attention_mask=packed_mask(model, branched.segments),
    )
    if inputs.get(TOKEN_TYPES) is not None:
        given[TOKEN_TYPES] = taken(inputs[TOKEN_TYPES])
    return given, branched.labels(inputs["labels"][:, 1:]), branched.places


def _pictures_of_rows(of_picture: Tensor, pictures: dict[str, Any]) -> list[int] | None:
    """How many pictures each row of a batch has, or `None`; TRL's collator does not say."""
    grid = pictures.get("image_grid_thw")
    if grid is None:
        rows = len(of_picture)
        return [1] * rows if of_picture.any() and len(pictures.get("pixel_values", ())) == rows else None
    patches = grid.prod(-1).cumsum(0)
    tokens = of_picture.sum(1).cumsum(0)
    # A picture has as many tokens as patches, but for a factor.
    ends = torch.searchsorted(patches * tokens[-1], tokens * patches[-1], right=True)
    return ends.diff(prepend=ends.new_zeros(1)).tolist()


def _pictures(rows: Dataset) -> list[Hashable]:
    """For each row what tells its picture from others, without decoding it."""
    files: Any = rows.select_columns("image").cast_column("image", Image(decode=False))["image"]
    return [hashlib.md5(file["bytes"]).digest() if file["bytes"] else file["path"] for file in files]
