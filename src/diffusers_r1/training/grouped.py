"""TRL's GRPO with every prompt read once for all of its completions: in generation, in log-probabilities, in the update."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType
from torch import Tensor
from trl import GRPOTrainer
from trl.extras.profiling import profiling_context
from trl.models import unwrap_model_for_generation
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import pad, split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from ..grammar import GrammarProcessor, decomposition_grammar
from .generation import WHOLE, generate_from_one_reading
from .packing import PackingTrainer, equal_prompts, pack, packed_inputs, pick, why_unpackable


class GroupedGRPOTrainer(PackingTrainer, GRPOTrainer):
    """[`~trl.GRPOTrainer`] that reads every prompt once for all of its completions.

    A picture and its instruction are often ten times as long as an answer. TRL reads them anew for each of the
    `num_generations` answers; here an answer costs no more than its own tokens:

    - generation reads a prompt once and samples all of its completions from copies of one key/value cache;
    - log-probabilities, entropies and gradients come from rows that hold one prompt with all of its completions behind
      it, see `training/packing.py`. A micro-batch holds whole groups, as many as fit; of a larger group, a part;
    - completions of a prompt that are equal are computed once;
    - completions whose advantage is 0 are left out of the update, unless `beta`, an entropy bonus or a share of entropies
      makes something of them. The logged `entropy` is that of the others then.

    Losses, their normalisation, all other metrics and all arguments are TRL's. What cannot be packed (layers with a
    sliding window or a state, flash attention, tools, a mixture of experts with a balancing loss) is computed as TRL does
    it. The log says so and why, once.

    Args:
        constrained (`bool`, defaults to `False`): Let the planner write nothing but the declared format while it trains, see
            [`~grammar.decomposition_grammar`]. What is learned is the planner without the grammar: a token that the grammar
            forced counts as one that was chosen, so that a planner that is paid learns the format as well.

    Raises:
        ImportError: If `constrained`, and llguidance is not installed.
        ValueError: If `constrained`, and an answer of `max_completion_length` tokens has no room for the format, or
            completions are not made from one reading.
    """

    args: Any  # a `GRPOConfig`, whose optional settings are filled in by now
    num_generations: int
    _tokenizer: Any

    def __init__(self, *args: Any, constrained: bool = False, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.constrained = constrained
        self._readings: list[int] = []
        self._left_out: Tensor | None = None
        if self.tools:
            self.read_anew("tools write into the completions")
        elif self.aux_loss_enabled:
            self.read_anew("its experts are balanced over all tokens, the prompt's each time")
        elif why := why_unpackable(self.bare(self.model)):
            self.read_anew(why)
        self._form()

    def _form(self) -> GrammarProcessor | None:
        """What holds the completions of one batch to the format, where something does."""
        if not self.constrained:
            return None
        if not self._generates_from_one_reading:
            raise ValueError("`constrained` is for completions that are made here from one reading of their prompt.")
        return GrammarProcessor(decomposition_grammar(self.args.max_completion_length), self._tokenizer)

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """As TRL does it, but for the order: groups are shuffled, not their completions."""
        if not (self.reads_once and self.model.training):
            return super()._prepare_inputs(generation_batch)
        steps = self.args.steps_per_generation
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            parts: Any = split_tensor_dict(shuffle_groups(batch, self.num_generations), steps)
            self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in parts]
        return self._buffered_inputs[self._step % steps]

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], list[Any] | None, dict[str, Any]]:
        """As TRL does it, but only once for completions of one prompt, which stand side by side.

        What comes back about pictures is that of the different prompts: no other method than `_generate_single_turn`
        makes use of it as long as there are no tools.
        """
        if not self._generates_from_one_reading:
            return super()._tokenize_prompts(prompts)
        new = [True, *(one != other for one, other in pairwise(prompts))]
        self._readings = (np.cumsum(new) - 1).tolist()
        ids, images, fields = super()._tokenize_prompts([prompt for prompt, is_new in zip(prompts, new) if is_new])
        again = self._readings
        return [ids[one] for one in again], images and [images[one] for one in again], fields

    def _generate_single_turn(
        self,
        prompt_ids: list[list[int]],
        images: list[Any] | None,
        multimodal_fields: dict[str, Any],
        num_generations: int,
        has_tool_images: bool = False,
    ) -> tuple[list[list[int]], Any]:
        """As TRL does it, but from one reading of each prompt."""
        form = self._form()
        if not self._generates_from_one_reading:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        different = [prompt_ids[self._readings.index(one)] for one in range(self._readings[-1] + 1)]
        inputs: Any = self._prepare_input({**self._padded(different), **self._as_tensors(multimodal_fields)})
        with (
            profiling_context(self, "transformers.generate"),
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=self.generation_kwargs,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            torch.no_grad(),
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
        ):
            return generate_from_one_reading(
                model,
                inputs,
                torch.tensor(self._readings, device=inputs["input_ids"].device),
                self.generation_config,
                set(self.eos_token_ids),
                # Where weights are sharded, all processes have to make the same calls.
                in_stages=not (
                    self.is_deepspeed_enabled or self.is_fsdp_enabled or set(self.generation_kwargs) & set(WHOLE)
                ),
                bound_by=form,
            ), None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """As TRL does it, without the completions that nothing is learned from."""
        has_other_uses = self.beta != 0 or self._entropy_bonus_enabled or self.top_entropy_quantile < 1
        if not self.reads_once or has_other_uses:
            return super()._compute_loss(model, inputs)
        # TRL hands the advantages to no method that is called from here.
        self._left_out = left_out = inputs["advantages"] == 0
        if "old_per_token_logps" in inputs:  # what is left out has log-probabilities of 0, before and now
            inputs = {**inputs, "old_per_token_logps": inputs["old_per_token_logps"].masked_fill(left_out[:, None], 0)}
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._left_out = None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **pictures: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """As TRL does it, from packed rows."""
        pictures = {name: value for name, value in pictures.items() if value is not None}
        if self.reads_once and not self._tried:
            self._try_packing(model, input_ids, attention_mask, logits_to_keep, pictures)
        if not self.reads_once:
            batch = input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss
            return super()._get_per_token_logps_and_entropies(model, *batch, **pictures)
        logps, entropies = [], []
        for rows in torch.arange(len(input_ids)).split(batch_size or len(input_ids)):
            left_out = None if self._left_out is None else self._left_out[rows]
            part = input_ids[rows], attention_mask[rows], logits_to_keep, pick(pictures, rows.tolist()), left_out
            for values, found in zip((logps, entropies), self._score(model, *part)):
                values.append(found)
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None

    def _score(
        self,
        model: Any,
        ids: Tensor,
        mask: Tensor,
        length: int,
        pictures: dict[str, Any],
        left_out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities and entropies, each (size, length), of the last `length` tokens of the rows."""
        alone = self.accelerator.distributed_type == DistributedType.NO
        if left_out is not None and left_out.all() and not alone:
            left_out = torch.arange(len(ids), device=ids.device) > 0  # the processes wait for each other in the model
        firsts = equal_prompts(ids[:, :-length], mask[:, :-length], pictures)
        width = self.bare(model).config.get_text_config().hidden_size
        packed = pack(ids, mask, length, firsts, left_out, width)
        if not packed.prompts:
            if not alone:
                return super()._get_per_token_logps_and_entropies(model, ids, mask, length, **pictures)[:2]
            return self._score_nothing(model, torch.zeros(len(ids), length, device=ids.device))
        inputs = packed_inputs(self.bare(model), packed, mask[:, :-length], pictures)
        with self.accelerator.autocast():
            outputs = self.score(model, inputs, packed.labels)
        logps = packed.unpack(outputs.log_probs)
        if outputs.entropy is None:  # the reference model has none
            return logps, None
        entropies = packed.unpack(outputs.entropy)
        if left_out is not None:  # so that the mean over all is that over those that are computed
            mean = outputs.entropy.detach()[packed.labels != -100].mean()
            entropies = torch.where(left_out[:, None], mean, entropies)
        return logps, entropies

    def _score_nothing(self, model: Any, zeros: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros whose gradients are 0 for every weight, as TRL would come to, and entropies that no mean counts."""
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        nothing = torch.stack([weight.reshape(-1)[0].to(zeros) for weight in weights]).sum() * 0
        return zeros + nothing, zeros + torch.nan

    @torch.no_grad()
    def _try_packing(self, model: Any, ids: Tensor, mask: Tensor, length: int, pictures: dict[str, Any]) -> None:
        """Compare two packed completions with rows of their own: a family may read rows in a way that no setting tells."""
        self._tried = True
        pair = [0, _another_completion(ids, mask, length)]
        part = ids[pair], mask[pair], length
        shown = pick(pictures, pair)
        training = model.training
        model.eval()  # without dropout
        with disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            expected = super()._get_per_token_logps_and_entropies(model, *part, **shown)[0]
            found = self._score(model, *part, shown)[0]
        model.train(training)
        apart = (found.float() - expected.float())[mask[pair, -length:].bool()].abs().mean().nan_to_num(0)
        everywhere: Any = self.accelerator.gather(apart.reshape(1))
        self.read_anew_if_apart(everywhere.max().item(), found.dtype)

    @property
    def _generates_from_one_reading(self) -> bool:
        """Unless the user has chosen another engine or cache."""
        elsewhere = self.use_vllm or self.use_transformers_continuous_batching or self.args.cache_implementation
        return self.reads_once and not elsewhere

    def _padded(self, prompts: list[list[int]]) -> dict[str, Tensor]:
        rows = [torch.tensor(prompt) for prompt in prompts]
        how = {"padding_side": "left", "pad_to_multiple_of": self.pad_to_multiple_of}
        return {
            "input_ids": pad(rows, padding_value=self._tokenizer.pad_token_id, **how),
            "attention_mask": pad([torch.ones_like(row) for row in rows], padding_value=0, **how),
        }

    def _as_tensors(self, fields: dict[str, Any]) -> dict[str, Tensor]:
        """What the processor says about pictures: one list of numbers a prompt, or values for all pictures."""
        how = {"padding_value": 0, "padding_side": "left", "pad_to_multiple_of": self.pad_to_multiple_of}
        by_token = {name for name, value in fields.items() if isinstance(value, list) and isinstance(value[0], list)}
        return {
            name: pad([torch.tensor(row) for row in value], **how)
            if name in by_token
            else torch.as_tensor(np.array(value) if isinstance(value, list) else value)
            for name, value in fields.items()
        }


def shuffle_groups(batch: dict[str, Any], group: int) -> dict[str, Any]:
    """The rows of a batch, `group` by `group` in another order; the rows of a group stay side by side.

    Args:
        batch (`dict`): Tensors and lists with one entry a row; single numbers are left as they are.
        group (`int`): How many rows have one prompt. Where a process has parts of groups, parts are shuffled.
    """
    rows = torch.arange(len(batch["advantages"]))
    # Shuffled as TRL shuffles rows, and then put behind the first of its group, so that equal seeds stay equal runs.
    first = dict.fromkeys((torch.randperm(len(rows)) // group).tolist())
    order = torch.cat([rows[number * group : (number + 1) * group] for number in first])

    def reordered(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[order.to(value.device)] if value.ndim else value
        return value if value is None else [value[row] for row in order]

    return {name: reordered(value) for name, value in batch.items()}


def _another_completion(ids: Tensor, mask: Tensor, length: int) -> int:
    """A row with the first row's prompt and another completion; the last row if there is none."""
    same_prompt = (ids[:, :-length] == ids[0, :-length]).all(1) & (mask[:, :-length] == mask[0, :-length]).all(1)
    same_completion = (ids[:, -length:] == ids[0, -length:]).all(1)
    others = (same_prompt & ~same_completion).nonzero().flatten().tolist()
    return others[0] if others else len(ids) - 1
