"""What a tokenizer reads as a command: where a turn begins and ends, where a picture stands.

One list for all who need it. In words that somebody wrote, these have no place: [`~prompts.plain_text`] takes them out. In an
answer, the first of them is the end.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel, ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from ..tags import DECOMPOSITION, SEQUENCE


# A planner may have the format's tags as tokens of their own; they are what it is to write.
TAGS = {f"<{slash}{name}>" for name in (*DECOMPOSITION, *SEQUENCE) for slash in ("", "/")}


def control_tokens(processor: ProcessorMixin | PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The control tokens of a planner's processor or tokenizer, in alphabetical order.

    Those that are declared as special, wherever that stands (`all_special_tokens` lacks those that are only among the added
    tokens); those for which the processor puts pictures; and the added ones that the chat template writes, which mark roles.
    """
    tokenizer: Any = getattr(processor, "tokenizer", processor)
    added = tokenizer.added_tokens_decoder.values()
    templates = "".join(str(getattr(owner, "chat_template", "")) for owner in (processor, tokenizer))
    placeholders = [
        str(value) for name, value in vars(processor).items() if name.endswith(("_token", "_tag")) and value
    ]
    found = {
        *tokenizer.all_special_tokens,
        *placeholders,
        *(token.content for token in added if token.special or token.content in templates),
    }
    # Words and white space, which some tokenizers add as well, are what people write.
    return tuple(sorted(token for token in found - TAGS if not token.isalnum() and not token.isspace()))


def control_token_ids(processor: ProcessorMixin | PreTrainedTokenizerBase) -> list[int]:
    """The numbers of the control tokens that the vocabulary has."""
    tokenizer: Any = getattr(processor, "tokenizer", processor)
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary[token] for token in control_tokens(processor) if token in vocabulary)


def end_token_ids(model: PreTrainedModel, processor: ProcessorMixin | PreTrainedTokenizerBase) -> list[int]:
    """The tokens of which each ends an answer: the model's own, and every control token."""
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [own] if own is not None else []
    return sorted({*own, *control_token_ids(processor)})
