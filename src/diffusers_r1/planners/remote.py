"""A planner behind an OpenAI-compatible address, as a component like any other. Nothing is loaded here, and no torch is needed."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

from PIL import Image

from .. import grammar
from ..endpoints import ChatCompletion, RemoteModel, all_or_raise, check_field
from ..names import REMOTE_PLANNER_INDEX
from ..prompts import Prompts, plain_text
from ..tags import EDIT_LISTS, REASONING


logger = logging.getLogger(__name__)

CONFIG_NAME = REMOTE_PLANNER_INDEX

# What the templates of the families that servers host write. A server does not say which tokens its tokenizer takes for
# commands; in words that somebody wrote, none of these has a place.
CONTROL_TOKENS = tuple(
    """<|im_start|> <|im_end|> <|endoftext|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>
    <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> <|quad_start|> <|quad_end|> <tool_call> </tool_call>
    <|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|eom_id|> <|python_tag|> <|image|>
    <bos> <eos> <pad> <unk> <s> </s> <start_of_turn> <end_of_turn> <start_of_image> <end_of_image> <image_soft_token>
    [INST] [/INST] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [IMG] [IMG_BREAK] [IMG_END] [TOOL_CALLS] [AVAILABLE_TOOLS]
    [gMASK] [sMASK] <sop> <eop> <|user|> <|assistant|> <|system|> <|observation|> <|begin_of_image|> <|end_of_image|>
    <|begin_of_box|> <|end_of_box|> <|end|> <|start|> <|message|> <|channel|> <|return|> <|call|> <end_of_utterance>
    <image> <video> <fake_token_around_image> <global-img> <IMG_CONTEXT> <img> </img> <|audio|> <|eot|> <|header_start|>
    <|header_end|> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|turn> <turn|>""".split()
)

# Settings of transformers' `generate` under the names that servers have for them; the others are sent as they are.
RENAMED = {"max_new_tokens": "max_tokens"}
GIVEN_BY_THE_CONVERSATION = (
    # Fields of the request
    "model", "messages", "n", "seed", "stream", "max_tokens", "max_completion_tokens", "structured",
    # Arguments on the way to it
    "conversations", "num_answers", "decompositions", "processor", "images", "instructions", "prompts", "sequencer",
    "sequence_without_adapter", "device", "references", "plans",
)  # fmt: skip
LOCAL_ONLY = ("logits_processor", "stopping_criteria", "generation_config", "streamer", "prefix_allowed_tokens_fn")


class RemotePlanner(RemoteModel):
    """A vision-language model that a server has loaded. It answers both agents' questions.

    Made, saved and loaded as a [`~endpoints.RemoteModel`]; `concurrency` conversations are held at once.

    Example:
        >>> planner = RemotePlanner("http://localhost:8000/v1", "Qwen/Qwen2.5-VL-7B-Instruct")  # doctest: +SKIP
        >>> pipe = ImageEditR1Pipeline(planner=planner, editor=editor)  # doctest: +SKIP
    """

    config_name = CONFIG_NAME
    _warned = False

    def converse(
        self,
        images: Sequence[Image.Image],
        instructions: Sequence[str],
        prompts: Prompts,
        references: Sequence[Sequence[Image.Image]] | None = None,
        seed: int = 0,
    ) -> RemoteConversation:
        """A conversation about a batch of pictures; see [`RemoteConversation`]."""
        return RemoteConversation(self, images, instructions, prompts, references, seed)


class RemoteConversation:
    """The two turns with a remote planner about a batch of pictures, all rows at once; what a local `Conversation` is.

    Args:
        planner ([`RemotePlanner`]): Who answers.
        images (sequence of `PIL.Image.Image`): RGB, upright.
        instructions (sequence of `str`): One for each picture.
        prompts ([`Prompts`]): The words of the user turns.
        references (sequence of sequences of `PIL.Image.Image`, *optional*): What belongs to each picture.
        seed (`int`, defaults to 0): Of all sampling; servers take one of 63 bits.
    """

    def __init__(
        self,
        planner: RemotePlanner,
        images: Sequence[Image.Image],
        instructions: Sequence[str],
        prompts: Prompts,
        references: Sequence[Sequence[Image.Image]] | None = None,
        seed: int = 0,
    ):
        self.planner, self.prompts, self.seed = planner, prompts, seed
        of_each = references or [()] * len(images)
        self.first_turns = [
            prompts.first_turn(plain_text(instruction, CONTROL_TOKENS), image, others)
            for image, instruction, others in zip(images, instructions, of_each)
        ]
        self.usage: list[dict[str, Any]] = []  # what the server counted, an entry for each answer
        self._answers: list[str] = []

    def decompose(
        self, max_new_tokens: int = 512, num_answers: int = 1, constrained: bool = False, **generation: Any
    ) -> list[str]:
        """Ask the first question of all rows.

        Args:
            max_new_tokens (`int`, defaults to 512): The most tokens an answer may have.
            num_answers (`int`, defaults to 1): How many answers each row gives, in one request.
            constrained (`bool`, defaults to `False`): Ask the server to let the model write nothing but the format, as
                vLLM, SGLang and llama.cpp can; where an answer shows that it did not, a warning says so.
            generation: `do_sample`, `temperature`, `top_p` and further fields of the request; greedy by default.

        Returns:
            `list` of `str`: `num_answers` answers of each row in turn, each with its reasoning.

        Raises:
            EndpointError: If the server fails for one of the rows, or refuses one, or a setting.
            ValueError: If a setting is of use only where a model is loaded.
        """
        form = grammar.decomposition_regex() if constrained else None
        self._answers = self._ask(self.first_turns, num_answers, max_new_tokens, form, generation)
        self.first_turns = [turn for turn in self.first_turns for _ in range(num_answers)]
        return self._answers

    def sequence(
        self,
        decompositions: Sequence[str] | None = None,
        max_new_tokens: int = 512,
        constrained: bool = False,
        **generation: Any,
    ) -> list[str]:
        """Ask the second question; arguments, result and errors as in `decompose`.

        Args:
            decompositions (sequence of `str`, *optional*): The answers to the first question, if another model gave them.
        """
        said = self._answers if decompositions is None else decompositions
        turns = [
            self.prompts.second_turn(turn, plain_text(text, CONTROL_TOKENS))
            for turn, text in zip(self.first_turns, said)
        ]
        return self._ask(turns, 1, max_new_tokens, grammar.sequence_regex() if constrained else None, generation)

    def _ask(
        self,
        turns: Sequence[list[dict[str, Any]]],
        times: int,
        max_new_tokens: int,
        form: str | None,
        generation: dict[str, Any],
    ) -> list[str]:
        settings = request_fields({**generation, "max_new_tokens": max_new_tokens})
        structured = _structured(form) if form else None
        asked = {"n": times, "seed": self.seed % 2**63, "structured": structured, **settings}
        answers = [one for each in all_or_raise(self.planner.endpoint.chat_many(turns, **asked)) for one in each]
        self.usage += [answer.usage for answer in answers]
        if form:
            self._check_form(answers, form)
        return [_as_written(answer) or answer.refusal for answer in answers]

    def _check_form(self, answers: Sequence[ChatCompletion], form: str) -> None:
        """Warn, once a planner, of a server that was asked to keep to a format and did not."""
        # What was cut has no end, and reasoning that is handed over apart is not bound by the format.
        ended = [answer.text for answer in answers if answer.finish_reason != "length" and not answer.reasoning]
        if not self.planner._warned and not all(re.fullmatch(form, text.strip()) for text in ended):
            self.planner._warned = True
            logger.warning("%s does not keep to a format: `constrained` has no effect there.", self.planner.base_url)


def _as_written(answer: ChatCompletion) -> str:
    """What the model wrote, as nearly as can be told: the second question shows it to the model again.

    A server that hands reasoning over apart drops the space before it. A planner that begins its other items with a space
    has begun that one so, too.
    """
    text = answer.with_reasoning()
    begins_with_space = answer.reasoning and f"<{EDIT_LISTS[0]}> " in text
    return text.replace(f"<{REASONING}>", f"<{REASONING}> ", 1) if begins_with_space else text


def request_fields(generation: dict[str, Any]) -> dict[str, Any]:
    """Settings of transformers' `generate` as fields of a request: greedy is temperature 0, sampling is at 1 by default.

    Raises:
        ValueError: For settings that are functions of a loaded model, and texts and numbers that no request can hold.
        TypeError: For what is not the caller's to give, or no JSON.
    """
    local = sorted(name for name in generation if name in LOCAL_ONLY)
    if local:
        raise ValueError(f"A planner behind an address takes no {', '.join(local)}.")
    for name, value in generation.items():
        if name in GIVEN_BY_THE_CONVERSATION:
            raise TypeError(f"`{name}` is not for the caller to give to the planner: the conversation does.")
        check_field(name, value)
    fields = {RENAMED.get(name, name): value for name, value in generation.items() if value is not None}
    sampled = fields.pop("do_sample", False)
    if not sampled:
        fields = {name: value for name, value in fields.items() if name not in ("top_p", "top_k", "min_p")}
    return {**fields, "temperature": fields.get("temperature", 1.0) if sampled else 0.0}


def _structured(form: str) -> dict[str, Any]:
    """A regular expression as vLLM, SGLang and llama.cpp take it; each leaves what is for the others."""
    return {"structured_outputs": {"regex": form}, "regex": form, "grammar": grammar.as_gbnf(form)}
