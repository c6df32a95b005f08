"""How a conversation becomes the text that a model reads: what chat templates do differently, in one place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jinja2 import TemplateError
from transformers import ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from ..prompts import Prompts
from ..tags import REASONING


def fitting_prompts(prompts: Prompts, processor: ProcessorMixin | PreTrainedTokenizerBase) -> Prompts:
    """The prompts for this planner: where its chat template has no system role, those words begin the first turn."""
    if not prompts.system:
        return prompts
    try:
        has_system_role = prompts.system.strip() in render(processor, prompts.first_turn(""))
    except TemplateError:
        has_system_role = False
    if has_system_role:
        return prompts
    return replace(prompts, system="", decompose=f"{prompts.system}\n\n{prompts.decompose}")


def render(processor: ProcessorMixin | PreTrainedTokenizerBase, messages: list[dict[str, Any]]) -> str:
    """The text of a conversation up to where the model's answer begins.

    A template that lets its model think by default is told not to, and an opening `<think>` that it puts before the answer
    is left out: the format has reasoning of its own, in the same tag, and the planner opens it.

    Raises:
        ValueError: If there is no chat template.
    """
    owner = template_owner(processor)
    if not hasattr(
        owner, "image_processor"
    ):  # a tokenizer's template takes text, in which a token stands for a picture
        messages = [{**m, "content": "".join(_as_text(processor, part) for part in m["content"])} for m in messages]
    settings: dict[str, Any] = {"enable_thinking": False} if "enable_thinking" in str(owner.chat_template) else {}
    text: Any = owner.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **settings)
    opened = text.rstrip("\n")
    return opened.removesuffix(f"<{REASONING}>") if opened.endswith(f"<{REASONING}>") else text


def template_owner(
    processor: ProcessorMixin | PreTrainedTokenizerBase,
) -> ProcessorMixin | PreTrainedTokenizerBase:
    """Who has the chat template: the processor, or, as of Phi-4-multimodal, its tokenizer alone.

    Raises:
        ValueError: If neither has.
    """
    for owner in (processor, getattr(processor, "tokenizer", processor)):
        if getattr(owner, "chat_template", None):
            return owner
    raise ValueError(
        f"{type(processor).__name__} has no chat template, so its model holds no conversation. Set its `chat_template`, or "
        "take a model that was tuned to follow instructions"
    )


def check_trainable(processor: ProcessorMixin | PreTrainedTokenizerBase) -> None:
    """Refuse what TRL's trainers cannot ask.

    Raises:
        ValueError: If there is no chat template, or only the tokenizer of a processor has one.
    """
    if template_owner(processor) is not processor:
        raise ValueError(
            f"{type(processor).__name__} leaves the chat template to its tokenizer, which knows no pictures: it plans, but "
            "TRL's trainers cannot ask it"
        )


def _as_text(processor: Any, part: dict[str, Any]) -> str:
    return part["text"] if part["type"] == "text" else processor.image_token
