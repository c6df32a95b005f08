"""Dice, and what fingers do to a text: draws that are the same on every machine, slips of the keyboard."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar


T = TypeVar("T")

NEIGHBOURS = dict(
    a="sq", b="vn", c="xv", d="sf", e="wr", f="dg", g="fh", h="gj", i="uo", j="hk", k="jl", l="k", m="n", n="bm",
    o="ip", p="o", q="w", r="et", s="ad", t="ry", u="yi", v="cb", w="qe", x="zc", y="tu", z="x",
)  # fmt: skip
SHORT_FORMS = {
    "please": "plz",
    "you": "u",
    "background": "bg",
    "picture": "pic",
    "photo": "pic",
    "and": "n",
    "with": "w/",
    "without": "w/o",
    "because": "cuz",
    "the": "teh",
    "people": "ppl",
}


def read_lists(name: str) -> dict[str, tuple[str, ...]]:
    """The lists in a text file of `data`: `[name]` begins one, each line under it is an entry, `#` begins a comment."""
    lists: dict[str, tuple[str, ...]] = {}
    for line in (Path(__file__).with_name("data") / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            lists[begun := line[1:-1]] = ()
        elif line and not line.startswith("#"):
            lists[begun] += (line,)
    return lists


class Dice:
    """Draws from a seed. Built on `random()` alone, whose sequence Python promises never to change.

    Args:
        seed (`str`): Anything; equal seeds draw equally.
    """

    def __init__(self, seed: str):
        self._random = random.Random(seed)

    def chance(self, share: float) -> bool:
        """True in `share` of the draws."""
        return self._random.random() < share

    def below(self, end: int) -> int:
        """A whole number from 0 to `end - 1`."""
        return int(self._random.random() * end)

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, each equally often."""
        return items[self.below(len(items))]

    def weighted(self, shares: Mapping[T, float]) -> T:
        """One of the keys, each as often as its share says."""
        left = self._random.random() * sum(shares.values())
        for item, share in shares.items():
            left -= share
            if left < 0:
                return item
        return list(shares)[-1]  # what rounding leaves


def with_typos(text: str, count: int, kept: frozenset[str], dice: Dice) -> str:
    """The text with up to `count` words mistyped. The first letter stays; words in `kept` stay as they are."""
    words = text.split(" ")
    for _ in range(count):
        place = dice.below(len(words))
        bare = words[place]
        if not bare.isalpha() or not bare.islower() or bare in kept:
            continue
        if bare in SHORT_FORMS and dice.chance(0.5):
            words[place] = SHORT_FORMS[bare]
        elif len(bare) >= 4:
            words[place] = _mistyped(bare, dice)
    return " ".join(words)


def _mistyped(word: str, dice: Dice) -> str:
    at = 1 + dice.below(len(word) - 2)
    slip = dice.below(4)
    if slip == 0:  # two letters change places
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if slip == 1:  # one is left out
        return word[:at] + word[at + 1 :]
    if slip == 2:  # one comes twice
        return word[:at] + word[at] + word[at:]
    return word[:at] + dice.pick(NEIGHBOURS.get(word[at], word[at])) + word[at + 1 :]
