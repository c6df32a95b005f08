"""A conversation of the two agents with a model that is loaded here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin
from transformers.cache_utils import DynamicLayer
from transformers.generation import GenerateDecoderOnlyOutput
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from .. import grammar
from ..prompts import Prompts, plain_text
from .control_tokens import control_tokens, end_token_ids
from .encoded import with_pictures_encoded
from .families import check_family
from .sampling import GREEDY
from .templates import fitting_prompts, render


# Of `generate`, by `Conversation._run`.
SET_HERE = ("eos_token_id", "pad_token_id", "use_cache", "return_dict_in_generate", "num_return_sequences")


class Conversation:
    """A conversation of two turns with one model about a batch of pictures; it lives for one call.

    Asking `decompose` first and `sequence` after it encodes the pictures once: the second turn continues the key/value
    cache of the first, unless the model's layers do not allow it. Equal pictures of the batch are encoded once as well.

    Args:
        model ([`~transformers.PreTrainedModel`]): An image-text-to-text model, or a causal language model.
        processor ([`~transformers.ProcessorMixin`] or a tokenizer): With a tokenizer alone the picture is left out of
            the conversation.
        images (`list` of `PIL.Image.Image`): RGB, any sizes; the processor resizes them.
        instructions (`list` of `str`): One for each picture.
        prompts ([`Prompts`]): The words of the user turns.
        device (`torch.device`, *optional*): Where the inputs go; the model's device by default.
        references (sequence of sequences of `PIL.Image.Image`, *optional*): For each picture, those that belong to it: the
            planner sees them too, numbered, and is told which one is edited.

    Raises:
        ValueError: If the processor has no chat template, or the model would answer wrongly as it was loaded.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin | PreTrainedTokenizerBase,
        images: Sequence[Image.Image],
        instructions: Sequence[str],
        prompts: Prompts,
        device: torch.device | None = None,
        references: Sequence[Sequence[Image.Image]] | None = None,
    ):
        check_family(model)
        self.model: Any = model
        self.processor: Any = processor
        self.tokenizer: Any = getattr(processor, "tokenizer", processor)
        self.sees = hasattr(processor, "image_processor")
        of_each = references or [()] * len(images)
        self.pictures = [[image, *others] for image, others in zip(images, of_each)]
        self.prompts = fitting_prompts(prompts, processor)
        self.device = device or model.device
        self.first_turns = [
            self.prompts.first_turn(instruction, own[0], own[1:])
            if self.sees
            else self.prompts.first_turn(instruction)
            for own, instruction in zip(self.pictures, instructions)
        ]
        self._control = control_tokens(processor)
        self._ends = end_token_ids(model, processor)
        self._answers: list[str] = []
        self._kept: tuple[torch.Tensor, torch.Tensor, dict[str, Any]] | None = None  # tokens, their mask, the cache
        self._shifts: dict[torch.nn.Module, torch.Tensor] = {}

    def decompose(
        self, max_new_tokens: int = 512, num_answers: int = 1, constrained: bool = False, **generation: Any
    ) -> list[str]:
        """Ask the first question of all rows in one generate call, which ends as soon as the last row has answered.

        Args:
            max_new_tokens (`int`, defaults to 512): The most tokens an answer may have.
            num_answers (`int`, defaults to 1): How many answers each row gives. Picture and instruction are read once
                for all of them, so each costs no more than its own tokens. They differ if they are sampled.
            constrained (`bool`, defaults to `False`): Let the model write nothing but the declared format; see
                [`~grammar.decomposition_grammar`].
            generation: Further settings of `generate`; greedy by default.

        Returns:
            `list` of `str`: `num_answers` answers of each row in turn, without special tokens. After that the
            conversation has as many rows.
        """
        bound = self._bound_to(grammar.decomposition_grammar(max_new_tokens)) if constrained else {}
        inputs = self._encode(self.first_turns)
        if num_answers > 1:
            inputs = self._read_once(inputs, num_answers)
        output = self._run(inputs, max_new_tokens=max_new_tokens, **generation, **bound)
        said = self._said(output, inputs)
        self._answers = self._texts(output, said)
        self._keep(output, inputs["attention_mask"], said)
        rows = [row for row in range(len(self.pictures)) for _ in range(num_answers)]
        self.pictures = [self.pictures[row] for row in rows]
        self.first_turns = [self.first_turns[row] for row in rows]
        return self._answers

    def sequence(
        self,
        decompositions: Sequence[str] | None = None,
        max_new_tokens: int = 512,
        constrained: bool = False,
        **generation: Any,
    ) -> list[str]:
        """Ask the second question.

        Args:
            decompositions (sequence of `str`, *optional*): The answers to the first question, if another model gave them:
                this one reads the whole conversation. Left out, it goes on after what it answered to `decompose` itself.
            max_new_tokens, constrained, generation: As in `decompose`.

        Returns:
            `list` of `str`: an answer of each row, without special tokens.
        """
        bound = self._bound_to(grammar.sequence_grammar(max_new_tokens)) if constrained else {}
        if decompositions is None and self._kept is not None:
            inputs = self._continued(*self._kept)
        else:
            decompositions = self._answers if decompositions is None else decompositions
            turns = [self.prompts.second_turn(turn, text) for turn, text in zip(self.first_turns, decompositions)]
            inputs = self._encode(turns)
        output = self._run(inputs, max_new_tokens=max_new_tokens, **generation, **bound)
        return self._texts(output, self._said(output, inputs))

    def _render(self, messages: list[dict[str, Any]]) -> str:
        """The text of a conversation, in which the template alone writes control tokens, whoever said the rest."""
        plain = [
            {
                **message,
                "content": [
                    {**part, "text": plain_text(part["text"], self._control)} if part["type"] == "text" else part
                    for part in message["content"]
                ],
            }
            for message in messages
        ]
        return render(self.processor, plain)

    def _encode(self, conversations: list[list[dict[str, Any]]]) -> dict[str, Any]:
        pictures = {"images": self.pictures} if self.sees else {}
        texts = [self._render(messages) for messages in conversations]
        encoded = self.processor(
            text=texts, **pictures, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt"
        )
        return dict(encoded.to(self.device))

    def _read_once(self, inputs: dict[str, Any], times: int) -> dict[str, Any]:
        """The inputs of `times` answers for each row, in a cache that holds all of them but the last token."""
        of_tokens = inputs["input_ids"].shape
        shorter = {
            name: value[:, :-1] if isinstance(value, torch.Tensor) and value.shape == of_tokens else value
            for name, value in inputs.items()
        }
        cache = _cache_of(self._run(shorter, max_new_tokens=1))
        (values,) = cache.values()
        rows = torch.arange(len(inputs["input_ids"]), device=self.device).repeat_interleave(times)
        values.reorder_cache(rows)
        for module, shift in _position_shifts(self.model).items():
            module.rope_deltas = shift[rows]
        return {name: inputs[name][rows] for name in ("input_ids", "attention_mask")} | cache

    def _keep(self, output: Any, mask: torch.Tensor, said: torch.Tensor) -> None:
        """Keep what the second question goes on after, where it can go on.

        What a row holds after the end of its answer stays in the cache but is hidden from the second turn, which brings an
        end of its own. A layer with a window would count it, and one with a running state has taken it in: with these, the
        conversation is read again unless all rows ended at once. After a beam search it is always read again: the cache holds
        the beams that ran last, and not those that were chosen.
        """
        if not isinstance(output, GenerateDecoderOnlyOutput):
            return
        cache = _cache_of(output)
        (values,) = cache.values()
        said = said[:, : max(said.sum(dim=1).max(), values.get_seq_length() - mask.shape[1])]
        if said.all() or all(type(layer) is DynamicLayer for layer in values.layers):
            ids = output.sequences[:, : mask.shape[1] + said.shape[1]]
            self._kept = ids, torch.cat([mask, said.to(mask.dtype)], dim=1), cache
            self._shifts = _position_shifts(self.model)

    def _continued(self, ids: torch.Tensor, mask: torch.Tensor, cache: dict[str, Any]) -> dict[str, Any]:
        """The inputs of the second question: what was said, which the cache holds, and the question after it."""
        answered = "\N{OBJECT REPLACEMENT CHARACTER}"  # a mark that templates which strip an answer leave
        for module, shift in self._shifts.items():
            module.rope_deltas = shift
        rendered = self._render(self.prompts.second_turn(self.first_turns[0], answered))
        question = self.tokenizer(rendered.rpartition(answered)[2], add_special_tokens=False)["input_ids"]
        question = torch.tensor([question], device=self.device).expand(len(ids), -1)
        return {
            "input_ids": torch.cat([ids, question], dim=1),
            "attention_mask": torch.cat([mask, torch.ones_like(question)], dim=1),
            **cache,
        }

    def _bound_to(self, form: str) -> dict[str, Any]:
        return {"logits_processor": [grammar.GrammarProcessor(form, self.tokenizer)]}

    def _said(self, output: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Which of the new tokens, `(rows, tokens)`, belong to an answer: those before the first that ends it."""
        new = output.sequences[:, inputs["input_ids"].shape[1] :]
        return torch.isin(new, torch.tensor(self._ends, device=new.device)).cumsum(dim=1) == 0

    def _texts(self, output: Any, said: torch.Tensor) -> list[str]:
        new = output.sequences[:, output.sequences.shape[1] - said.shape[1] :]
        return self.tokenizer.batch_decode([row[: count.sum()] for row, count in zip(new, said)])

    @torch.no_grad()
    def _run(self, inputs: dict[str, Any], **settings: Any) -> Any:
        return self.model.generate(
            **with_pictures_encoded(self.model, inputs),
            **{**GREEDY, **settings},
            # A row that has come to any control token has answered; without this it would go on to `max_new_tokens`.
            eos_token_id=self._ends,
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
            return_dict_in_generate=True,
            num_return_sequences=1,
        )


def _position_shifts(model: PreTrainedModel) -> dict[torch.nn.Module, torch.Tensor]:
    """How far pictures shift the positions of each row: a part of the cache that Qwen-VL and its kin keep to themselves."""
    shifts = ((module, getattr(module, "rope_deltas", None)) for module in model.modules())
    return {module: shift for module, shift in shifts if shift is not None}


def _cache_of(output: Any) -> dict[str, Any]:
    name = "cache" if "cache" in output else "past_key_values"  # the latter before transformers 5.24
    return {name: output[name]}
