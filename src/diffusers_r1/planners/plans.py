"""From pictures and instructions to plans: what pipeline, validation and batch workers call."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from threading import RLock
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..plan import Edit, EditPlan, FaultKind, describe_faults
from ..prompts import Prompts
from ..tags import read_decomposition, read_sequence, writable
from .remote import RemotePlanner


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from .conversation import Conversation
    from .remote import RemoteConversation


logger = logging.getLogger(__name__)

_PLANNING = RLock()


def make_plans(
    model: PreTrainedModel | RemotePlanner,
    processor: ProcessorMixin | PreTrainedTokenizerBase | None,
    images: Sequence[Image.Image],
    instructions: Sequence[str],
    prompts: Prompts,
    sequencer: tuple[PreTrainedModel | RemotePlanner, ProcessorMixin | PreTrainedTokenizerBase | None] | None = None,
    sequence_without_adapter: bool = False,
    num_plans: int = 1,
    retries: int = 1,
    seed: int = 0,
    device: torch.device | None = None,
    references: Sequence[Sequence[Image.Image]] | None = None,
    plans: Sequence[EditPlan] | None = None,
    **generation: Any,
) -> list[EditPlan]:
    """Plan a batch: decompose every instruction, then write the edits out as ordered sub-requests.

    An answer that cannot be used whole (no edit in it, or an item that belongs to none) is asked for again, sampled, at most
    `retries` times. Of answers that all fall short the fullest one counts: its plan says in `faults` what was lost, and
    one without any edit hands the instruction to the editor as it is; see [`EditPlan`]'s `fallback`.

    Args:
        model, processor, images, instructions, prompts, device, references: See [`Conversation`]. Of a [`RemotePlanner`],
            which takes no part in the rest of this machine, the processor is `None`.
        sequencer (`tuple` of model and processor, *optional*): The sequencing agent; the planner answers both turns of
            one conversation if left out.
        sequence_without_adapter (`bool`, defaults to `False`): Switch the planner's adapters off for the second turn:
            the untrained sequencing agent of the paper on the same weights. It reads the picture anew, since what the
            trained agent keeps of it is another model's.
        num_plans (`int`, defaults to 1): How many plans are made of each instruction; more than one are sampled.
        retries (`int`, defaults to 1): How often an unusable decomposition is asked for again.
        seed (`int`, defaults to 0): Of all sampling; each retry draws from the next one. The global random state is left
            as it was, and is not touched as long as nothing is sampled.
        plans (sequence of [`EditPlan`], *optional*): What `decompose` and `sequence_plans` came to: then only what of it is to be
            asked again is.
        generation: Settings of `generate` and [`Conversation.decompose`], `max_new_tokens` and `constrained` among them;
            greedy by default.

    Raises:
        EndpointError: If the server of a remote planner fails, or refuses a row: that is no answer, so there is no plan.

    Returns:
        `list` of [`EditPlan`], `num_plans` of each instruction in turn.
    """

    loaded = _loaded_here(model, *(sequencer or ())[:1])

    def attempt(rows: Sequence[int], times: int, settings: dict[str, Any], seed: int) -> list[EditPlan]:
        def converse(model: Any, processor: Any, rows: Sequence[int]) -> Any:
            shown, asked = [images[row] for row in rows], [instructions[row] for row in rows]
            shown_too = [references[row] if references else () for row in rows]
            return _conversation(model, processor, shown, asked, prompts, shown_too, seed, device)

        # The random state comes first, as it does where an editor's callback plans: no two threads wait for each other.
        with _drawing_from(seed, loaded if settings.get("do_sample") else [], device), _one_at_a_time(loaded):
            conversation = converse(model, processor, rows)
            decompositions = conversation.decompose(num_answers=times, **settings)
            rows = [row for row in rows for _ in range(times)]
            if not any(read_decomposition(text).edits for text in decompositions):
                sequences = [""] * len(decompositions)
            elif sequencer is not None:
                sequences = converse(*sequencer, rows).sequence(decompositions, **settings)
            elif sequence_without_adapter:
                with _without(model):
                    sequences = converse(model, processor, rows).sequence(decompositions, **settings)
            else:
                sequences = conversation.sequence(**settings)
        asked = [instructions[row] for row in rows]
        return [to_plan(*texts) for texts in zip(asked, decompositions, sequences)]

    sampling = {"temperature": 1.0, **generation, "do_sample": True}
    first = sampling if num_plans > 1 else generation
    plans = list(attempt(range(len(instructions)), num_plans, first, seed) if plans is None else plans)
    for number in range(1, retries + 1):
        failed = [place for place, plan in enumerate(plans) if is_to_be_asked_again(plan)]
        if not failed:
            break
        again = attempt([place // num_plans for place in failed], 1, sampling, seed + number)
        for place, plan in zip(failed, again):
            before = plans[place]
            fuller = before if len(plan.edits) < len(before.edits) and is_to_be_asked_again(plan) else plan
            plans[place] = replace(fuller, raw=before.raw + plan.raw)
    return plans


def decompose(
    model: PreTrainedModel | RemotePlanner,
    processor: ProcessorMixin | PreTrainedTokenizerBase | None,
    images: Sequence[Image.Image],
    instructions: Sequence[str],
    prompts: Prompts,
    device: torch.device | None = None,
    references: Sequence[Sequence[Image.Image]] | None = None,
    seed: int = 0,
    **generation: Any,
) -> list[str]:
    """The decomposition agent's answers: the first half of `make_plans`, asked once.

    Takes what [`sequence_plans`] takes, and raises as it does.
    """
    shown_too = references or [()] * len(images)
    with _one_at_a_time(_loaded_here(model)):
        conversation = _conversation(model, processor, images, instructions, prompts, shown_too, seed, device)
        return conversation.decompose(**generation)


def sequence_plans(
    model: PreTrainedModel | RemotePlanner,
    processor: ProcessorMixin | PreTrainedTokenizerBase | None,
    images: Sequence[Image.Image],
    instructions: Sequence[str],
    decompositions: Sequence[str],
    prompts: Prompts,
    device: torch.device | None = None,
    references: Sequence[Sequence[Image.Image]] | None = None,
    without_adapter: bool = False,
    seed: int = 0,
    **generation: Any,
) -> list[EditPlan]:
    """Write out as ordered sub-requests what was decomposed: the second half of `make_plans`, asked once.

    Args:
        model, processor, images, instructions, prompts, device, references: See [`Conversation`]; the sequencing agent.
        decompositions (sequence of `str`): The decomposition agent's answers.
        without_adapter (`bool`, defaults to `False`): Switch the model's adapters off.
        seed (`int`, defaults to 0): What a server is told.
        generation: As in `make_plans`.

    Raises:
        EndpointError: If the server of a remote model fails, or refuses a row.
    """
    if not any(read_decomposition(text).edits for text in decompositions):
        return [to_plan(*texts, "") for texts in zip(instructions, decompositions)]
    shown_too = references or [()] * len(images)
    with _one_at_a_time(_loaded_here(model)), _without(model, without_adapter):
        conversation = _conversation(model, processor, images, instructions, prompts, shown_too, seed, device)
        sequences = conversation.sequence(decompositions, **generation)
    return [to_plan(*texts) for texts in zip(instructions, decompositions, sequences)]


def is_to_be_asked_again(plan: EditPlan) -> bool:
    """Whether the answers say less than was meant: no edit, or an item of a list that became part of nothing."""
    return not plan.edits or any(fault.kind is FaultKind.LOST_ITEM for fault in plan.faults)


def warn_of_fallbacks(plans: Sequence[EditPlan]) -> None:
    """Say which instructions could not be planned, or not whole."""
    for plan in plans:
        if plan.fallback:
            logger.warning(f"Planning fell back for {plan.instruction!r}: {plan.reason}.")
        elif is_to_be_asked_again(plan):
            said = describe_faults(plan.faults)
            logger.warning(f"A part of the plan for {plan.instruction!r} could not be read: {said}.")


def _conversation(
    model: PreTrainedModel | RemotePlanner,
    processor: Any,
    images: Sequence[Image.Image],
    instructions: Sequence[str],
    prompts: Prompts,
    references: Sequence[Sequence[Image.Image]],
    seed: int,
    device: torch.device | None,
) -> Conversation | RemoteConversation:
    if isinstance(model, RemotePlanner):
        return model.converse(images, instructions, prompts, references, seed)
    from .conversation import Conversation

    return Conversation(model, processor, images, instructions, prompts, device, references)


def _without(model: Any, adapter: bool = True) -> AbstractContextManager:
    """Within the block the model's adapters are off."""
    if not adapter:
        return nullcontext()
    from .adapters import adapters_off

    return adapters_off(model)


def _loaded_here(*models: PreTrainedModel | RemotePlanner) -> list[PreTrainedModel]:
    return [model for model in models if not isinstance(model, RemotePlanner)]


@contextmanager
def _one_at_a_time(loaded: Sequence[PreTrainedModel]) -> Iterator[None]:
    """Models loaded here plan one call at a time, whoever asks, and with the adapters on that rest otherwise.

    They draw from one global random state, keep a part of a conversation to themselves (Qwen-VL: how far pictures shift the
    positions), and switch their adapters on and off for all who ask.
    """
    if not loaded:
        yield
        return
    from .adapters import adapter_on

    with _PLANNING, ExitStack() as adapters:
        for model in loaded:
            adapters.enter_context(adapter_on(model))
        yield


def _drawing_from(seed: int, loaded: Sequence[PreTrainedModel], device: torch.device | None) -> AbstractContextManager:
    if not loaded:
        return nullcontext()
    from ..random_state import devices_of, seeded

    return seeded(seed, devices_of(*loaded) | ({device} if device else set()))


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
