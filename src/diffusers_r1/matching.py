"""How alike two lists of edits are: lists in, numbers out. Rewards, validation and evaluation all count with these."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from .plan import Edit


ARTICLES = frozenset({"a", "an", "the"})

# What people write for an action -> the name that counts. Extend it with {**ACTION_SYNONYMS, "zap": "remove"}.
ACTION_SYNONYMS: dict[str, str] = {
    "color": "recolor",
    "colour": "recolor",
    "recolour": "recolor",
    "change color": "recolor",
    "change colour": "recolor",
    "change color of": "recolor",
    "change colour of": "recolor",
    "paint": "recolor",
    "repaint": "recolor",
    "delete": "remove",
    "erase": "remove",
    "take away": "remove",
    "get rid of": "remove",
    "insert": "add",
    "put": "add",
    "place": "add",
    "swap": "replace",
    "substitute": "replace",
}


def normalize(item: str) -> str:
    """The item without what does not change its meaning: case, articles, punctuation and surplus spaces.

    Args:
        item (`str`): An action, a subject or a goal, in any language.

    Returns:
        `str`: words in lower case with single spaces between them. An item that is nothing but articles or
        punctuation keeps them, so that it does not equal an empty one.

    Example:
        >>> normalize("  The top-left  Coat, and the driver's hat. ")
        'top left coat and drivers hat'
    """
    lower = unicodedata.normalize("NFKC", item).casefold()
    # By category, not by regular expression: the vowel signs of many scripts are no word characters to `re`.
    marks = {mark: " " for mark in lower if unicodedata.category(mark)[0] in "PS"}
    words = lower.translate(str.maketrans({**marks, "'": "", "’": ""})).split()
    return " ".join([word for word in words if word not in ARTICLES] or words or lower.split())


def multiset_f1(predicted: Sequence[str], true: Sequence[str], synonyms: Mapping[str, str] | None = None) -> float:
    """F1 of two lists as multisets of normalised items: the order is free, repeats count.

    With `common` the number of items that the lists share, each as often as in the list that has it less often,
    F1 is the harmonic mean of precision `common / len(predicted)` and recall `common / len(true)`:
    `2 * common / (len(predicted) + len(true))`.

    Args:
        predicted (sequence of `str`): What an agent answered.
        true (sequence of `str`): What is right.
        synonyms (`Mapping` of `str` to `str`, *optional*): Items that count as another, on both sides, such as
            [`ACTION_SYNONYMS`] for actions. None by default.

    Returns:
        `float`: from 0.0 (nothing in common) to 1.0 (equal); 1.0 if both are empty, 0.0 if only one is.

    Raises:
        TypeError: If a list is a single string.

    Example:
        >>> multiset_f1(["erase", "Recolor"], ["recolor", "remove"], ACTION_SYNONYMS)
        1.0
        >>> multiset_f1(["the dog", "dog", "cat"], ["dog"])  # 2 * 1 / (3 + 1)
        0.5
    """
    predicted, true = _normalized(predicted, synonyms), _normalized(true, synonyms)
    return _f1((Counter(predicted) & Counter(true)).total(), len(predicted), len(true))


def soft_f1(predicted: Sequence[str], true: Sequence[str]) -> float:
    """F1 of two lists in which two items that share words count in part: for subjects and goals in free text.

    Each pair of a predicted and a true item is worth the F1 of their words (as multisets, after [`normalize`]). Items
    are paired one to one so that the sum of these worths, `common`, is as large as can be; then the result is
    `2 * common / (len(predicted) + len(true))`, as in [`multiset_f1`], which it is never below.

    Args:
        predicted (sequence of `str`): What an agent answered.
        true (sequence of `str`): What is right.

    Returns:
        `float`: from 0.0 (no word in common) to 1.0 (equal but for order); 1.0 if both are empty, 0.0 if only one is.

    Raises:
        TypeError: If a list is a single string.

    Example:
        >>> soft_f1(["the red coat"], ["coat"])  # words: 2 * 1 / (2 + 1)
        0.6666666666666666
        >>> soft_f1(["coat", "man"], ["the man", "coat"])
        1.0
    """
    predicted, true = _normalized(predicted), _normalized(true)
    if not predicted or not true:
        return _f1(0, len(predicted), len(true))

    from scipy.optimize import linear_sum_assignment

    worths = [[multiset_f1(one.split(), other.split()) for other in true] for one in predicted]
    rows, columns = linear_sum_assignment(worths, maximize=True)
    return _f1(sum(worths[row][column] for row, column in zip(rows, columns)), len(predicted), len(true))


def exact(predicted: Sequence[Edit], true: Sequence[Edit], synonyms: Mapping[str, str] | None = None) -> bool:
    """Whether two decompositions ask for the same edits: equal multisets of normalised (action, subject, goal).

    Args:
        predicted (sequence of [`Edit`]): What an agent answered.
        true (sequence of [`Edit`]): What is right.
        synonyms (`Mapping` of `str` to `str`, *optional*): Actions that count as another, such as
            [`ACTION_SYNONYMS`]. None by default.

    Returns:
        `bool`: the order is free; an edit that is missing, surplus or repeated makes it False.

    Example:
        >>> hat, man = Edit("recolor", "the hat", "red"), Edit("remove", "man", "nothing")
        >>> exact([man, hat], [Edit("Recolor", "hat", "red"), man])
        True
        >>> exact([man, man, hat], [man, hat])
        False
    """
    return Counter(_triples(predicted, synonyms)) == Counter(_triples(true, synonyms))


def _triples(edits: Sequence[Edit], synonyms: Mapping[str, str] | None) -> list[tuple[str, str, str]]:
    actions = _normalized([edit.action for edit in edits], synonyms)
    return [(action, normalize(edit.subject), normalize(edit.goal)) for action, edit in zip(actions, edits)]


def _normalized(items: Sequence[str], synonyms: Mapping[str, str] | None = None) -> list[str]:
    if isinstance(items, str):
        raise TypeError(f"A list of items is needed, not the single string {items!r}.")
    names = {normalize(said): normalize(meant) for said, meant in (synonyms or {}).items()}
    return [names.get(item, item) for item in map(normalize, items)]


def _f1(common: float, predicted: int, true: int) -> float:
    return 2 * common / (predicted + true) if predicted + true else 1.0
