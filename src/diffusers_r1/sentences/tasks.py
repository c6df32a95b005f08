"""Sentences: an instruction about a photo as somebody would type it, and what it means. Everything follows from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..plan import Edit
from .ideas import PHOTO, PLAIN_WAYS, REFERRING_WAYS, Idea, Muse
from .trades import TRADES
from .words import Dice
from .writer import Manner, Writer


TEST_SEEDS = (
    1_000_000_000  # seeds from here on are for reporting only: never for training, never for choosing settings
)
SEPARATOR = " | "  # between the clauses of the reasoning


@dataclass(frozen=True)
class _Kind:
    counts: Mapping[int, float]  # number of edits -> share
    linked: float
    ways: Mapping[str, float]
    manner: Manner


_KINDS = {
    "plain": _Kind(
        {1: 2, 2: 3, 3: 4, 4: 2},
        0.0,
        PLAIN_WAYS,
        Manner(terse=0.3, polite=0.08),
    ),
    "chained": _Kind(
        {2: 3, 3: 4, 4: 3, 5: 1, 6: 0.5},
        0.75,
        PLAIN_WAYS,
        Manner(pronouns=0.75, sharing=0.85, terse=0.15, polite=0.08, lists=0.05),
    ),
    "referring": _Kind(
        {1: 1, 2: 3, 3: 3, 4: 2, 5: 1},
        0.25,
        REFERRING_WAYS,
        Manner(pronouns=0.6, sharing=0.6, terse=0.1, polite=0.1, keeps=0.25, slips=0.12),
    ),
    "noisy": _Kind(
        {1: 1, 2: 2, 3: 3, 4: 3, 5: 2, 6: 1.5, 7: 1, 8: 0.7, 9: 0.4, 10: 0.4},
        0.4,
        {way: PLAIN_WAYS.get(way, 0) / 2 + share for way, share in REFERRING_WAYS.items()},
        Manner(
            pronouns=0.7, sharing=0.7, polite=0.2, keeps=0.3, slips=0.1, chatter=0.45, typos=0.4, loose=0.2, lists=0.15
        ),
    ),
    "trade": _Kind(
        {1: 3, 2: 4, 3: 4, 4: 2, 5: 1, 6: 0.5, 8: 0.3},
        0.2,
        REFERRING_WAYS,
        Manner(
            pronouns=0.7,
            sharing=0.5,
            polite=0.15,
            keeps=0.3,
            slips=0.08,
            chatter=0.5,
            typos=0.2,
            loose=0.1,
            lists=0.15,
        ),
    ),
}
KINDS = tuple(_KINDS)


@dataclass(frozen=True)
class Sentence:
    """An instruction about a photo that nobody has to see, with its truth.

    Args:
        kind (`str`): One of `KINDS`, see [`sample_sentence`].
        instruction (`str`): What somebody types.
        edits (`tuple` of [`Edit`]): The true decomposition, in the order of the instruction.
        requests (`tuple` of `str`): The true sub-requests, in the order in which they are to be carried out.
        before (`tuple` of pairs of `int`): Where the order matters: edit i has to come before edit j, counted from 0.
        clauses (`tuple` of `str`): Each edit as it was said, in full: nothing left out, no pronouns.
        seed (`int`): Where it came from.
    """

    kind: str
    instruction: str
    edits: tuple[Edit, ...]
    requests: tuple[str, ...]
    before: tuple[tuple[int, int], ...]
    clauses: tuple[str, ...]
    seed: int

    @property
    def reasoning(self) -> str:
        """What is to be thought before the edits are written down: the clauses, one by one."""
        return SEPARATOR.join(self.clauses)


def sample_sentence(seed: int, kind: str | None = None, wording: int = 0) -> Sentence:
    """The sentence of a seed.

    Args:
        seed (`int`): Not negative. Seeds of 1,000,000,000 and above are kept for reporting.
        kind (`str`, *optional*): One of

            - `"plain"`: 1 to 4 edits, each with words of its own;
            - `"chained"`: 2 to 6 edits that hang together: pronouns, shared verbs, "the van too", things just added;
            - `"referring"`: 1 to 5 edits of things that are told apart by owner, place, looks or comparison, with
              corrections and with things to keep;
            - `"noisy"`: 1 to 10 edits, all of the above, and chatter, purposes, typos, missing punctuation, lists;
            - `"trade"`: 1 to 8 edits as people of one of ten trades put them: "fork out, soup brighter, for the menu".

            Left out: drawn from the seed, each equally often.
        wording (`int`, defaults to 0): Another number is another way to say the same: `edits` stay as they are.

    Returns:
        [`Sentence`]: the same on every machine.

    Raises:
        ValueError: If `kind` is none of these, or `seed` is below 0.
    """
    if seed < 0:
        raise ValueError(f"`seed` must be 0 or more, not {seed}.")
    if kind is None:
        kind = kind_of(seed)
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, not {kind!r}.")
    traits = _KINDS[kind]
    meaning = Dice(f"{seed} {kind}")
    trade = meaning.pick(TRADES) if kind == "trade" else ""
    ideas = Muse(meaning, traits.ways, trade).ideas(meaning.weighted(traits.counts), traits.linked)
    text, clauses = Writer(Dice(f"{seed} {kind} {wording}"), traits.manner, trade).write(ideas)
    order = sorted(range(len(ideas)), key=lambda number: _phase(ideas[number]))
    edits = tuple(idea.edit for idea in ideas)
    return Sentence(kind, text, edits, tuple(ideas[number].request for number in order), _before(ideas), clauses, seed)


def kind_of(seed: int, shares: dict[str, float] | None = None) -> str:
    """The kind that a seed draws, as often as `shares` says (default: the kinds, equally often)."""
    return Dice(f"{seed} shares").weighted(shares or dict.fromkeys(KINDS, 1.0))


def _phase(idea: Idea) -> int:
    """When an edit is carried out: first the background, then things, then the look of the whole photo, last its frame."""
    if idea.form == "background":
        return 0
    if idea.form == "crop":
        return 3
    return 2 if idea.subject is PHOTO else 1


def _before(ideas: tuple[Idea, ...]) -> tuple[tuple[int, int], ...]:
    """The pairs of edits whose order matters: by phase, and where an edit is about what another one makes."""
    pairs = []
    for second, later in enumerate(ideas):
        for first, earlier in enumerate(ideas):
            made = earlier.left if earlier.form in ("add", "wear", "replace") and first < second else None
            said = f" {later.subject.name} {later.goal} ".replace("'s ", " ")
            needs = made is not None and f" {made.name} " in said
            if _phase(earlier) < _phase(later) or (needs and _phase(earlier) == _phase(later)):
                pairs.append((first, second))
    return tuple(pairs)
