"""A conversation of the two agents with a model that is loaded here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from .. import grammar
from ..prompts import Prompts
from .encoded import with_pictures_encoded
from .sampling import GREEDY


class Conversation:
    """A conversation of two turns with one model about a batch of pictures; it lives for one call.

    Asking `decompose` first and `sequence` after it encodes the pictures once: the second turn continues the key/value
    cache of the first. Equal pictures of the batch are encoded once as well.

    Args:
        model ([`~transformers.PreTrainedModel`]): An image-text-to-text model, or a causal language model.
        processor ([`~transformers.ProcessorMixin`] or a tokenizer): With a tokenizer alone the picture is left out of
            the conversation.
        images (`list` of `PIL.Image.Image`): RGB, any sizes; the processor resizes them.
        instructions (`list` of `str`): One for each picture.
        prompts ([`Prompts`]): The words of the user turns.
        device (`torch.device`, *optional*): Where the inputs go; the model's device by default.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin | PreTrainedTokenizerBase,
        images: Sequence[Image.Image],
        instructions: Sequence[str],
        prompts: Prompts,
        device: torch.device | None = None,
    ):
        self.model = model
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.sees = hasattr(processor, "image_processor")
        self.images = list(images)
        self.prompts = prompts
        self.device = device or model.device
        self.first_turns = [
            prompts.first_turn(self._plain(instruction), image if self.sees else None)
            for image, instruction in zip(self.images, instructions)
        ]
        self._ids = self._mask = self._cache = None

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
        output, answers = self._generate(inputs, max_new_tokens, {**generation, **bound})
        # An answer ends before its first control token. What follows, that token included, stays in the cache but is
        # hidden from the second turn, which brings its own.
        control = torch.isin(answers, torch.tensor(self.tokenizer.all_special_ids, device=answers.device))
        said = (control.cumsum(dim=1) == 0).to(inputs["attention_mask"].dtype)
        self._ids = output.sequences
        self._mask = torch.cat([inputs["attention_mask"], said], dim=1)
        self._cache = _cache_of(output)
        return self.tokenizer.batch_decode(answers, skip_special_tokens=True)

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
        if decompositions is None:
            inputs = self._continued()
        else:
            turns = [self.prompts.second_turn(turn, text) for turn, text in zip(self.first_turns, decompositions)]
            inputs = self._encode(turns)
        _, answers = self._generate(inputs, max_new_tokens, {**generation, **bound})
        return self.tokenizer.batch_decode(answers, skip_special_tokens=True)

    def _plain(self, text: str) -> str:
        """The user's words without what the tokenizer would read as a control token."""
        for token in self.tokenizer.all_special_tokens:
            text = text.replace(token, " ")
        return text

    def _render(self, messages: list[dict[str, Any]]) -> str:
        if not self.sees:
            messages = [{**m, "content": "".join(part["text"] for part in m["content"])} for m in messages]
        return self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    def _encode(self, conversations: list[list[dict[str, Any]]]) -> dict[str, Any]:
        pictures = {"images": [[image] for image in self.images]} if self.sees else {}
        texts = [self._render(messages) for messages in conversations]
        encoded = self.processor(
            text=texts, **pictures, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt"
        )
        return dict(encoded.to(self.device))

    def _read_once(self, inputs: dict[str, Any], times: int) -> dict[str, Any]:
        """The inputs of `times` answers for each row, in a cache that holds all of them but the last token."""
        length = inputs["input_ids"].shape[1]
        shorter = {
            name: value[:, :-1] if isinstance(value, torch.Tensor) and value.shape[1:] == (length,) else value
            for name, value in inputs.items()
        }
        cache = _cache_of(self._run(shorter, max_new_tokens=1))
        (values,) = cache.values()
        rows = torch.arange(len(inputs["input_ids"]), device=self.device).repeat_interleave(times)
        values.reorder_cache(rows)
        # Qwen-VL keeps a part of what belongs in the cache to itself: how far pictures shift the positions.
        for module in self.model.modules():
            if getattr(module, "rope_deltas", None) is not None:
                module.rope_deltas = module.rope_deltas[rows]
        return {name: inputs[name][rows] for name in ("input_ids", "attention_mask")} | cache

    def _continued(self) -> dict[str, Any]:
        """The inputs of the second question: what was said, which the cache holds, and the question after it."""
        answered = "\N{OBJECT REPLACEMENT CHARACTER}"  # a mark that templates which strip an answer leave
        rendered = self._render(self.prompts.second_turn(self.first_turns[0], answered))
        question = self.tokenizer(rendered.rpartition(answered)[2], add_special_tokens=False)["input_ids"]
        question = torch.tensor([question], device=self.device).expand(len(self._ids), -1)
        return {
            "input_ids": torch.cat([self._ids, question], dim=1),
            "attention_mask": torch.cat([self._mask, torch.ones_like(question)], dim=1),
            **self._cache,
        }

    def _bound_to(self, form: str) -> dict[str, Any]:
        return {"logits_processor": [grammar.GrammarProcessor(form, self.tokenizer)]}

    def _generate(
        self, inputs: dict[str, Any], max_new_tokens: int, generation: dict[str, Any]
    ) -> tuple[Any, torch.Tensor]:
        """What `generate` returns, and the tokens of the answers in it."""
        output = self._run(inputs, max_new_tokens=max_new_tokens, **generation)
        return output, output.sequences[:, inputs["input_ids"].shape[1] :]

    @torch.no_grad()
    def _run(self, inputs: dict[str, Any], **settings: Any) -> Any:
        own = self.model.generation_config.eos_token_id
        own = own if isinstance(own, list) else [own] if own is not None else []
        return self.model.generate(
            **with_pictures_encoded(self.model, inputs),
            **{**GREEDY, **settings},
            # A row that has come to any control token has answered; without this it would go on to `max_new_tokens`.
            eos_token_id=sorted({*own, *self.tokenizer.all_special_ids}),
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
            return_dict_in_generate=True,
        )


def _cache_of(output: Any) -> dict[str, Any]:
    name = "cache" if "cache" in output else "past_key_values"  # the latter before transformers 5.24
    return {name: output[name]}
