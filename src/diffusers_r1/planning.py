"""The two agents that plan: functions of a model and a processor, shared by pipeline, validation and batch workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from . import grammar
from .plan import Edit, EditPlan, FaultKind, describe_faults
from .prompts import Prompts
from .tags import read_decomposition, read_sequence, writable
from .vision import encode_pictures_once


GREEDY = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


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
        return self._generate(inputs, max_new_tokens, {**generation, **bound}, keep_cache=True)

    def sequence(
        self,
        max_new_tokens: int = 512,
        constrained: bool = False,
        prompt_lookup_num_tokens: int | None = None,
        **generation: Any,
    ) -> list[str]:
        """Ask the second question, in the same conversation; `decompose` must have been asked before.

        Args:
            max_new_tokens, constrained, generation: As in `decompose`.
            prompt_lookup_num_tokens (`int`, *optional*): How many tokens at a time are drafted from what was said before,
                which the second answer repeats a good part of. The text stays the same. `generate` drafts for one row
                only; a batch is answered without.
        """
        answered = "\N{SYMBOL FOR RECORD SEPARATOR}"
        rendered = self._render(self.prompts.second_turn(self.first_turns[0], answered))
        question = self.tokenizer(rendered.rpartition(answered)[2], add_special_tokens=False)["input_ids"]
        question = torch.tensor([question], device=self.device).expand(len(self._ids), -1)
        inputs = {
            "input_ids": torch.cat([self._ids, question], dim=1),
            "attention_mask": torch.cat([self._mask, torch.ones_like(question)], dim=1),
            **self._cache,
        }
        return self._ask_second(inputs, max_new_tokens, constrained, prompt_lookup_num_tokens, generation)

    def replay(
        self,
        decompositions: Sequence[str],
        max_new_tokens: int = 512,
        constrained: bool = False,
        prompt_lookup_num_tokens: int | None = None,
        **generation: Any,
    ) -> list[str]:
        """Ask the second question of a model that has not answered the first: it is shown `decompositions` instead."""
        turns = [self.prompts.second_turn(turn, text) for turn, text in zip(self.first_turns, decompositions)]
        inputs = self._encode(turns)
        return self._ask_second(inputs, max_new_tokens, constrained, prompt_lookup_num_tokens, generation)

    def _plain(self, text: str) -> str:
        """The user's words without what the tokenizer would read as a control token."""
        for token in self.tokenizer.all_special_tokens:
            text = text.replace(token, " ")
        return text

    def _render(self, messages: list[dict[str, Any]]) -> str:
        if not self.sees:
            messages = [{**m, "content": "".join(part["text"] for part in m["content"])} for m in messages]
        return self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    def _encode(self, conversations: list[list[dict[str, Any]]]) -> dict[str, torch.Tensor]:
        pictures = {"images": [[image] for image in self.images]} if self.sees else {}
        texts = [self._render(messages) for messages in conversations]
        encoded = self.processor(
            text=texts, **pictures, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt"
        )
        return dict(encoded.to(self.device))

    def _read_once(self, inputs: dict[str, torch.Tensor], times: int) -> dict[str, Any]:
        """The inputs of `times` answers for each row, in a cache that holds all of them but the last token."""
        with encode_pictures_once(self.model):
            output = self._run(inputs, max_new_tokens=1)
        cache = self._cache_of(output)
        (values,) = cache.values()
        values.crop(-1)
        values.batch_repeat_interleave(times)
        # Qwen-VL keeps a part of what belongs in the cache to itself: how far pictures shift the positions.
        for module in self.model.modules():
            if getattr(module, "rope_deltas", None) is not None:
                module.rope_deltas = module.rope_deltas.repeat_interleave(times, dim=0)
        return {name: inputs[name].repeat_interleave(times, dim=0) for name in ("input_ids", "attention_mask")} | cache

    def _ask_second(
        self,
        inputs: dict[str, Any],
        max_new_tokens: int,
        constrained: bool,
        prompt_lookup_num_tokens: int | None,
        generation: dict[str, Any],
    ) -> list[str]:
        bound = self._bound_to(grammar.sequence_grammar(max_new_tokens)) if constrained else {}
        alone = len(inputs["input_ids"]) == 1
        drafted = {"prompt_lookup_num_tokens": prompt_lookup_num_tokens} if prompt_lookup_num_tokens and alone else {}
        return self._generate(inputs, max_new_tokens, {**generation, **drafted, **bound})

    def _bound_to(self, form: str) -> dict[str, Any]:
        return {"logits_processor": [grammar.GrammarProcessor(form, self.tokenizer)]}

    def _generate(
        self, inputs: dict[str, Any], max_new_tokens: int, generation: dict[str, Any], keep_cache: bool = False
    ) -> list[str]:
        drafting = "prompt_lookup_num_tokens" in generation
        with encode_pictures_once(self.model), _uncached_inputs_only(self.model) if drafting else nullcontext():
            output = self._run(inputs, max_new_tokens=max_new_tokens, **generation)
        answers = output.sequences[:, inputs["input_ids"].shape[1] :]
        if keep_cache:
            # An answer ends before its first control token. What follows, that token included, stays in the cache but is
            # hidden from the second turn, which brings its own.
            control = torch.isin(answers, torch.tensor(self.tokenizer.all_special_ids, device=answers.device))
            said = (control.cumsum(dim=1) == 0).to(inputs["attention_mask"].dtype)
            self._ids = output.sequences
            self._mask = torch.cat([inputs["attention_mask"], said], dim=1)
            self._cache = self._cache_of(output)
        return self.tokenizer.batch_decode(answers, skip_special_tokens=True)

    def _run(self, inputs: dict[str, Any], **settings: Any) -> Any:
        own = self.model.generation_config.eos_token_id
        own = own if isinstance(own, list) else [own] if own is not None else []
        return self.model.generate(
            **inputs,
            **{**GREEDY, **settings},
            # A row that has come to any control token has answered; without this it would go on to `max_new_tokens`.
            eos_token_id=sorted({*own, *self.tokenizer.all_special_ids}),
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
            return_dict_in_generate=True,
        )

    @staticmethod
    def _cache_of(output: Any) -> dict[str, Any]:
        name = "cache" if "cache" in output else "past_key_values"  # the latter before transformers 5.24
        return {name: output[name]}


@contextmanager
def _uncached_inputs_only(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, no token that the cache holds is read again.

    transformers 5.23 sees to that itself, except in the first step of prompt lookup.
    """
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    prepare = model.prepare_inputs_for_generation

    def prepare_uncached(input_ids: torch.Tensor, next_sequence_length: int | None = None, **kwargs: Any) -> Any:
        cache = kwargs.get("cache", kwargs.get("past_key_values"))
        if next_sequence_length is None and cache is not None:
            next_sequence_length = input_ids.shape[1] - cache.get_seq_length()
        return prepare(input_ids, next_sequence_length=next_sequence_length, **kwargs)

    model.prepare_inputs_for_generation = prepare_uncached
    try:
        yield
    finally:
        del model.prepare_inputs_for_generation


def make_plans(
    model: PreTrainedModel,
    processor: ProcessorMixin | PreTrainedTokenizerBase,
    images: Sequence[Image.Image],
    instructions: Sequence[str],
    prompts: Prompts,
    sequencer: tuple[PreTrainedModel, ProcessorMixin | PreTrainedTokenizerBase] | None = None,
    sequence_without_adapter: bool = False,
    num_plans: int = 1,
    retries: int = 1,
    seed: int = 0,
    device: torch.device | None = None,
    prompt_lookup_num_tokens: int | None = None,
    **generation: Any,
) -> list[EditPlan]:
    """Plan a batch: decompose every instruction, then write the edits out as ordered sub-requests.

    An answer that cannot be used whole (no edit in it, or an item that belongs to none) is asked for again, sampled, at most
    `retries` times. Of answers that all fall short the fullest one counts: its plan says in `faults` what was lost, and
    one without any edit hands the instruction to the editor as it is; see [`EditPlan`]'s `fallback`.

    Args:
        model, processor, images, instructions, prompts, device: See [`Conversation`].
        sequencer (`tuple` of model and processor, *optional*): The sequencing agent; the planner answers both turns of
            one conversation if left out.
        sequence_without_adapter (`bool`, defaults to `False`): Switch the planner's adapters off for the second turn:
            the untrained sequencing agent of the paper on the same weights. It reads the picture anew, since what the
            trained agent keeps of it is another model's.
        num_plans (`int`, defaults to 1): How many plans are made of each instruction; more than one are sampled.
        retries (`int`, defaults to 1): How often an unusable decomposition is asked for again.
        seed (`int`, defaults to 0): Of all sampling; each retry draws from the next one. The global random state is left
            as it was, and is not touched as long as nothing is sampled.
        prompt_lookup_num_tokens (`int`, *optional*): See [`Conversation.sequence`].
        generation: Settings of `generate` and [`Conversation.decompose`], `max_new_tokens` and `constrained` among them;
            greedy by default.

    Returns:
        `list` of [`EditPlan`], `num_plans` of each instruction in turn.
    """

    def attempt(rows: Sequence[int], times: int, settings: dict[str, Any]) -> list[EditPlan]:
        shown, asked = [images[row] for row in rows], [instructions[row] for row in rows]
        conversation = Conversation(model, processor, shown, asked, prompts, device)
        decompositions = conversation.decompose(num_answers=times, **settings)
        shown, asked = ([one for one in each for _ in range(times)] for each in (shown, asked))
        about = shown, asked, prompts, device
        second = {"prompt_lookup_num_tokens": prompt_lookup_num_tokens, **settings}
        if not any(read_decomposition(text).edits for text in decompositions):
            sequences = [""] * len(decompositions)
        elif sequencer is not None:
            sequences = Conversation(*sequencer, *about).replay(decompositions, **second)
        elif sequence_without_adapter:
            with adapters_off(model):
                sequences = Conversation(model, processor, *about).replay(decompositions, **second)
        else:
            sequences = conversation.sequence(**second)
        return [to_plan(*texts) for texts in zip(asked, decompositions, sequences)]

    sampling = {"temperature": 1.0, **generation, "do_sample": True}
    first = sampling if num_plans > 1 else generation
    with seeded(seed) if first.get("do_sample") else nullcontext():
        plans = attempt(range(len(instructions)), num_plans, first)
    for number in range(1, retries + 1):
        failed = [place for place, plan in enumerate(plans) if is_to_be_asked_again(plan)]
        if not failed:
            break
        with seeded(seed + number):
            again = attempt([place // num_plans for place in failed], 1, sampling)
        for place, plan in zip(failed, again):
            fuller = plans[place] if len(plan.edits) < len(plans[place].edits) and is_to_be_asked_again(plan) else plan
            plans[place] = replace(fuller, raw=plans[place].raw + plan.raw)
    return plans


def is_to_be_asked_again(plan: EditPlan) -> bool:
    """Whether the answers say less than was meant: no edit, or an item of a list that became part of nothing."""
    return not plan.edits or any(fault.kind is FaultKind.LOST_ITEM for fault in plan.faults)


def has_adapter(model: Any) -> bool:
    """Whether a model has LoRA adapters, of PEFT or loaded by `model.load_adapter`."""
    return hasattr(model, "disable_adapter") or getattr(model, "_hf_peft_config_loaded", False)


@contextmanager
def adapters_off(model: Any) -> Iterator[None]:
    """Run a model with LoRA adapters, of PEFT or loaded by `model.load_adapter`, as if it had none."""
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    # By PEFT's own layers: transformers' switch refuses every PEFT but the newest.
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def to_plan(instruction: str, decomposition: str, sequence: str) -> EditPlan:
    """Read the two agents' answers, using whatever can be used. Never raises, whatever the answers are."""
    decomposition, sequence = writable(decomposition), writable(sequence)
    found = read_decomposition(decomposition)
    if not found.edits:
        reason = f"no edit in the decomposition: {describe_faults(found.faults)}"
        raw = (decomposition,)
        return EditPlan(instruction, (), (instruction,), found.reasoning, True, reason, raw, found.faults)
    listed = read_sequence(sequence)
    raw, faults = (decomposition, sequence), found.faults + listed.faults
    if not listed.requests:
        reason = f"no sub-request in the sequence: {describe_faults(listed.faults)}"
        written = tuple(request_by_rule(edit) for edit in found.edits)
        return EditPlan(instruction, found.edits, written, found.reasoning, True, reason, raw, faults)
    return EditPlan(instruction, found.edits, listed.requests, found.reasoning, raw=raw, faults=faults)


def request_by_rule(edit: Edit) -> str:
    """An edit in words when no agent has put it into any: `"recolor coat: red"`."""
    return f"{edit.action} {edit.subject}: {edit.goal}"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` inside the block, on every device, and leave the global random state as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
