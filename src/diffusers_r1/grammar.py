"""The agents' text format as a grammar, and a logits processor that lets a model write nothing else.

The grammar is made of the tags that `tags.py` declares; [llguidance](https://github.com/guidance-ai/llguidance) says which
tokens may come next. A model that is bound to it has the format by construction, trained or not.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .installing import install_line
from .tags import DECOMPOSITION, EDIT_LISTS, REASONING, SEPARATOR, SEQUENCE


if TYPE_CHECKING:
    import torch
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

MAX_EDITS = 8
LONGEST_CHARACTER = 4  # bytes, in UTF-8
SHORTEST = LONGEST_CHARACTER + 1  # tokens that every item has room for: a space and a character

# An item begins with a character that can be seen, since the parser strips the others, and ends before a tag or separator.
# The escapes of `tags.py` are plain characters here: none has a separator or the beginning of a tag in it.
ITEM = rf"/ ?[^<{SEPARATOR}\p{{Z}}\p{{C}}][^<{SEPARATOR}\p{{C}}]*/"
TEXT = "/[^<]*/"


def decomposition_grammar(max_tokens: int) -> str:
    """The decomposition agent's format: reasoning, and three lists of one length, of 1 to `MAX_EDITS` items.

    Reasoning gets half of the tokens that the tags leave, and each item its share of the rest, so that every answer is
    complete after `max_tokens`. The fewer actions were named, the longer a subject and a goal may be.

    Args:
        max_tokens (`int`): The most tokens an answer may have, the one that ends it included.

    Returns:
        `str`: A grammar in llguidance's Lark syntax.

    Raises:
        ValueError: If `max_tokens` has no room for `MAX_EDITS` edits.
    """
    room = {n: max_tokens - _fixed_tokens(DECOMPOSITION, len(EDIT_LISTS) * (n - 1)) for n in range(1, MAX_EDITS + 1)}
    items = len(EDIT_LISTS) * MAX_EDITS
    _check(max_tokens, max_tokens - room[MAX_EDITS] + 2 * items * SHORTEST)
    reasoning = room[MAX_EDITS] // 2
    action = (room[MAX_EDITS] - reasoning) // items
    first, *others = EDIT_LISTS
    rules = [_rule("reasoning", TEXT, reasoning), _rule(first, ITEM, action)]
    forms = []
    for n, left in room.items():
        rules.append(_rule(f"item_{n}", ITEM, (left - reasoning - n * action) // (len(others) * n)))
        forms.append(" ".join([_list(first, first, n), *(_list(name, f"item_{n}", n) for name in others)]))
    return "\n".join([f"start: {_tagged(REASONING, 'reasoning')} ({' | '.join(forms)})", *rules])


def sequence_grammar(max_tokens: int) -> str:
    """The sequencing agent's format: one list of 1 to `MAX_EDITS` requests; otherwise as `decomposition_grammar`."""
    fixed = _fixed_tokens(SEQUENCE, MAX_EDITS - 1)
    _check(max_tokens, fixed + MAX_EDITS * SHORTEST)
    forms = " | ".join(_list(SEQUENCE[0], "item", n) for n in range(1, MAX_EDITS + 1))
    return f"start: {forms}\n{_rule('item', ITEM, (max_tokens - fixed) // MAX_EDITS)}"


def decomposition_regex() -> str:
    """The decomposition agent's format as a regular expression, for servers; its lists are of one length, too."""
    forms = ("".join(_regex(name, n) for name in EDIT_LISTS) for n in range(1, MAX_EDITS + 1))
    return f"<{REASONING}>[^<]*</{REASONING}>({'|'.join(forms)})"


def sequence_regex() -> str:
    """The sequencing agent's format as a regular expression."""
    item = _regex_item()
    return f"<{SEQUENCE[0]}>{item}({SEPARATOR} {item}){{0,{MAX_EDITS - 1}}}</{SEQUENCE[0]}>"


def as_gbnf(regex: str) -> str:
    """One of these expressions in llama.cpp's grammar language, which has the same parts but for literal text in quotes."""
    parts = re.split(r"(\[[^\]]*\][*+]?|[()|]|\{[^}]*\})", regex)
    return "root ::= " + " ".join(part if place % 2 else json.dumps(part) for place, part in enumerate(parts) if part)


def _regex(tag: str, length: int) -> str:
    return f"<{tag}>{f'{SEPARATOR} '.join([_regex_item()] * length)}</{tag}>"


def _regex_item() -> str:
    return f"[^<{SEPARATOR} \\n][^<{SEPARATOR}\\n]*"


def _check(max_tokens: int, needed: int) -> None:
    if max_tokens < needed:
        raise ValueError(f"Constrained decoding needs `max_new_tokens` of {needed} or more, not {max_tokens}.")


def _fixed_tokens(tags: tuple[str, ...], separators: int) -> int:
    """The most tokens that the tags, separators and the end can take: a token is a byte or more."""
    return sum(len(f"<{name}></{name}>") for name in tags) + separators * len(SEPARATOR) + 1


def _rule(name: str, terminal: str, tokens: int) -> str:
    """llguidance ends a terminal at its limit, but not within a character: its other bytes can be tokens as well."""
    return f"{name}[max_tokens={tokens - (LONGEST_CHARACTER - 1)}]: {terminal}"


def _list(tag: str, item: str, length: int) -> str:
    return _tagged(tag, f' "{SEPARATOR}" '.join([item] * length))


def _tagged(tag: str, content: str) -> str:
    return f'"<{tag}>" {content} "</{tag}>"'


class GrammarProcessor:
    """A logits processor that leaves every row of a batch only the tokens with which a grammar goes on.

    It serves one `generate` call: `logits_processor=[GrammarProcessor(grammar, tokenizer)]`. A decoder that steps back
    over what it drafted in vain may be used with it.

    Args:
        grammar (`str`): In llguidance's Lark syntax.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): Of the model; one of the tokenizers library's ("fast").

    Raises:
        ImportError: If llguidance is not installed.
    """

    def __init__(self, grammar: str, tokenizer: PreTrainedTokenizerBase):
        self.library = _llguidance()
        self.grammar = grammar
        self.tokenizer = tokenizer
        self.prompt_length: int | None = None
        self.rows: dict[int, tuple[list[int], Any]] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`, minus infinity where a token would leave the grammar. Shapes: `(rows, length)`, `(rows, tokens)`."""
        import numpy as np
        import torch

        if self.prompt_length is None:
            self.prompt_length = input_ids.shape[1]
        answers = input_ids[:, self.prompt_length :].tolist()
        matchers = [self._matcher(row, said, scores.shape[1]) for row, said in enumerate(answers)]
        allowed = np.stack([np.frombuffer(matcher.compute_logit_bias(), dtype=np.uint8) for matcher in matchers])
        allowed = torch.from_numpy(allowed[:, : scores.shape[1]] > 0).to(scores.device)
        return scores.masked_fill(~allowed, float("-inf"))

    def _matcher(self, row: int, said: list[int], vocabulary: int) -> Any:
        """The state of the grammar after what a row has said."""
        state = self.rows.get(row)
        if state is None or said[: len(state[0])] != state[0]:  # the first token, or a draft was dropped
            state = [], self._start(vocabulary)
        before, matcher = state
        new = said[len(before) :]
        # What a draft holds beyond the grammar is rejected by the tokens before it, and what follows the end is padding.
        taken = 0 if matcher.is_stopped() else matcher.try_consume_tokens(new)
        self.rows[row] = (before + new[:taken], matcher)
        return matcher

    def _start(self, vocabulary: int) -> Any:
        tokenizer, grammar = _tokenizer(self.tokenizer, vocabulary), self.grammar
        # A tag that is one token of the vocabulary is a control token to llguidance, which no text in a grammar matches.
        for tag in (f"<{slash}{name}>" for name in (*DECOMPOSITION, *SEQUENCE) for slash in ("", "/")):
            number = self.tokenizer.get_vocab().get(tag)
            if number is not None and tokenizer.is_special_token(number):
                grammar = grammar.replace(f'"{tag}"', f"<[{number}]>")
        return self.library.LLMatcher(tokenizer, self.library.LLMatcher.grammar_from_lark(grammar))


def _llguidance() -> Any:
    """The module of that name; an `ImportError` says how to install it."""
    try:
        import llguidance
    except ImportError:
        raise ImportError(f"Constrained decoding needs llguidance: {install_line('constrained')}") from None
    return llguidance


@lru_cache(maxsize=4)
def _tokenizer(tokenizer: Any, vocabulary: int) -> Any:
    """llguidance's form of a tokenizer, which takes a second to make for a large vocabulary."""
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer, n_vocab=vocabulary)
