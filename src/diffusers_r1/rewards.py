"""What GRPO pays for: reward functions as TRL calls them, each a thin cover of `tags` and `matching`.

What an answer scores, from 0.0 to 1.0:

| answer | format | action, subject, goal |
|---|---|---|
| the declared format | 1 | F1 against the true list |
| a slip: no `<think>`, a tag not closed, tags out of order, an empty item | 0 | F1 of what could be read |
| any other fault: a tag twice, tags inside `<think>`, lists of unequal length, no edit, text outside the tags, stray tags | 0 | 0 |
| the same edit twice (subject, goal and action, which may have two names; a removal has no goal), unless it truly is there twice | 1 | 0 |
| more than `MOST_SURPLUS` times as many edits as there are true ones: every action word at once | 1 | 0 |
| a subject or goal that has the whole instruction in it, unless the true one has it as well, or it is no sentence: "brighter" | 1 | 0 |
| nothing readable | 0 | 0 |

The last rows are what a planner under reward tries first, since each buys some F1 without an understanding of the
picture. Where an answer is surplus but within these bounds, F1 itself makes it worth less than the right one.

Item i of the three lists belongs to edit i; in which order the edits stand does not matter. Where a row has no truth a
reward is `None`, which TRL leaves out of the mean; 0 is for wrong answers only. No completion makes a reward raise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from .matching import ACTIONS, LIGHT_VERBS, action_f1, action_name, exact, multiset_f1, normalize, soft_f1
from .plan import Edit, Fault, FaultKind, describe_faults
from .tags import REASONING, Decomposition, read_decomposition


MOST_SURPLUS = 2
LONGEST_ITEM = 3  # words: an instruction that is no longer may be what an honest item says ("more contrast")

Completion = str | Sequence[Mapping[str, Any]]
Similarity = Callable[[list[str], list[str]], Any]

_SLIPS = {FaultKind.UNCLOSED_TAG, FaultKind.TAG_ORDER, FaultKind.EMPTY_ITEM, FaultKind.LOST_ITEM}
_COLUMNS = {"action": "actions", "subject": "subjects", "goal": "goals"}


def answer_text(completion: Completion) -> str:
    """The text of a completion; empty where there is none. Never raises.

    Args:
        completion (`str` or `list` of messages): Plain, or conversational as TRL has it, of which the last message
            counts; its content is text or a list of parts.
    """
    if isinstance(completion, str):
        return completion
    try:
        content = completion[-1]["content"]
        if isinstance(content, str):
            return content
        return "".join(part["text"] for part in content if isinstance(part.get("text"), str))
    except (AttributeError, IndexError, KeyError, TypeError):
        return ""


def is_hack(
    found: Decomposition,
    truth: Sequence[Edit],
    instruction: str = "",
    synonyms: Mapping[str, str] | None = None,
) -> bool:
    """Whether an answer is built to be paid for without being right; see the table at the top of the module.

    Args:
        found ([`Decomposition`]): The answer.
        truth (sequence of [`Edit`]): The true edits. What is not known of them is empty text.
        instruction (`str`, defaults to `""`): What the user typed; empty: copies of it are not looked for.
        synonyms (`Mapping` of `str` to `str`, *optional*): As in [`ActionReward`].
    """
    if not all(map(_is_slip, found.faults)):
        return True
    if len(found.edits) > MOST_SURPLUS * len(truth):
        return True
    true = [_meant(edit, synonyms) for edit in truth]
    for answered, count in Counter(_meant(edit, synonyms) for edit in found.edits).items():
        if count > max(1, sum(_as_far_as_known(answered, one) for one in true)):
            return True
    whole = normalize(instruction)
    return _is_sentence(whole) and _holds(whole, found.edits) and not _holds(whole, truth)


class FormatReward:
    """1.0 if the answer has the declared format, else 0.0: the four tags, once each, in order, nothing outside of
    them, and three lists of one length, at least 1, without empty items.

    Logged beside each completion: `format/faults`.
    """

    def __init__(self):
        self.__name__ = "format"

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Completion],
        log_extra: Callable[[str, list], None] | None = None,
        **columns: Any,
    ) -> list[float]:
        """One reward for each of `completions`. The other arguments are those that TRL passes to every reward."""
        faults = [read_decomposition(answer_text(completion)).faults for completion in completions]
        if log_extra is not None:
            log_extra(f"{self.__name__}/faults", [describe_faults(each) for each in faults])
        return [float(not each) for each in faults]


class _ListReward:
    """F1 of one of the three lists. `self.field` is a field of [`Edit`], `self.__name__` the metric's name in TRL's logs.

    Logged beside each completion: `<name>/answered` and `<name>/true`. The names begin with the metric's, since TRL
    adds up what two rewards log under one name.
    """

    field: str
    __name__: str
    synonyms: Mapping[str, str] = MappingProxyType({})

    def score(self, answered: list[str], true: Sequence[str]) -> float:
        """How alike the two lists are, from 0.0 to 1.0; `true` is not empty."""
        raise NotImplementedError

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Completion],
        log_extra: Callable[[str, list], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward for each of `completions`, `None` where its row has no truth.

        Args:
            prompts (`list`): Not used.
            completions (`list`): Plain or conversational, see [`answer_text`].
            log_extra (`Callable`, *optional*): TRL's, for columns of the table of completions.
            columns: The rows' columns, a value for each completion: `actions`, `subjects` and `goals` (lists of `str`,
                or `None`) and `instruction`, whichever there are. What else TRL passes is not used.

        Raises:
            TypeError: If a row's truth is a single string in place of a list.
        """
        found = [read_decomposition(answer_text(completion)) for completion in completions]
        answered = [[getattr(edit, self.field) for edit in each.edits] for each in found]
        truths = columns.get(_COLUMNS[self.field]) or [None] * len(found)
        if log_extra is not None:
            log_extra(f"{self.__name__}/answered", ["; ".join(items) for items in answered])
            log_extra(f"{self.__name__}/true", ["; ".join(items or []) for items in truths])
        instructions = columns.get("instruction") or [""] * len(found)
        rewards: list[float | None] = []
        for row, truth in enumerate(truths):
            if not truth:
                rewards.append(None)
            elif is_hack(found[row], _true_edits(columns, row, len(truth)), instructions[row] or "", self.synonyms):
                rewards.append(0.0)
            else:
                rewards.append(float(self.score(answered[row], truth)))
        return rewards


class ActionReward(_ListReward):
    """Multiset F1 of the actions, see [`action_f1`]; `recolour` counts as `recolor`, `deleting` as `remove`.

    Args:
        synonyms (`Mapping` of `str` to `str`, *optional*): Further names of actions, stronger than those in `languages.py`:
            `{"zap": "remove"}`.
    """

    field = "action"

    def __init__(self, synonyms: Mapping[str, str] | None = None):
        self.__name__ = "action_f1"
        self.synonyms = dict(synonyms or {})

    def score(self, answered: list[str], true: Sequence[str]) -> float:
        return action_f1(answered, true, self.synonyms)


class SubjectReward(_ListReward):
    """Multiset F1 of the subjects after normalisation, see [`multiset_f1`]: an item is right or wrong as a whole.

    Args:
        soft (`bool`, defaults to `False`): Count items that are alike in part, under the best pairing, see
            [`soft_f1`]: for subjects in free text. The metric is then called `subject_soft_f1`.
    """

    field = "subject"

    def __init__(self, soft: bool = False):
        self.__name__ = "subject_soft_f1" if soft else "subject_f1"
        self.soft = soft

    def score(self, answered: list[str], true: Sequence[str]) -> float:
        return (soft_f1 if self.soft else multiset_f1)(answered, true)


class GoalReward(_ListReward):
    """F1 of the goals, as [`SubjectReward`] counts subjects, or by their meaning.

    Args:
        soft (`bool`, defaults to `False`): Count items that are alike in part. The metric is then called
            `goal_soft_f1`.
        similarity (`Callable`, *optional*): Takes two lists of `str`, of lengths n and m, and returns how alike they
            are, pair by pair: an array `[n, m]` in [0, 1]; values outside are clipped. F1 is then
            `2 * common / (n + m)` with `common` the sum over the best pairing of items, one to one. Goes before
            `soft`; the metric is then called `goal_similarity`. With sentence embeddings:

                class Embedded:
                    def __init__(self, name):
                        self.model = SentenceTransformer(name)

                    def __call__(self, one, other):
                        encode = partial(self.model.encode, normalize_embeddings=True)
                        return encode(one) @ encode(other).T
    """

    field = "goal"

    def __init__(self, soft: bool = False, similarity: Similarity | None = None):
        self.__name__ = "goal_similarity" if similarity else "goal_soft_f1" if soft else "goal_f1"
        self.soft, self.similarity = soft, similarity

    def score(self, answered: list[str], true: Sequence[str]) -> float:
        if self.similarity is None:
            return (soft_f1 if self.soft else multiset_f1)(answered, true)
        if not answered:
            return 0.0

        import numpy as np
        from scipy.optimize import linear_sum_assignment

        worths = np.clip(np.nan_to_num(np.asarray(self.similarity(answered, list(true)), dtype=float)), 0.0, 1.0)
        return 2 * worths[linear_sum_assignment(worths, maximize=True)].sum() / (len(answered) + len(true))


def marks(
    answer: str, truth: Sequence[Edit], instruction: str = "", synonyms: Mapping[str, str] | None = None
) -> dict[str, float]:
    """What an answer would earn of each reward, under the reward's name, and `exact`: what validation and benchmarks report.

    Args:
        answer (`str`): What the decomposition agent wrote.
        truth (sequence of [`Edit`]): The true edits; at least one.
        instruction (`str`, defaults to `""`): As in [`is_hack`].
        synonyms (`Mapping` of `str` to `str`, *optional*): As in [`ActionReward`].

    Returns:
        `dict`: `format`, `action_f1`, `subject_f1`, `subject_soft_f1`, `goal_f1`, `goal_soft_f1` (0.0 to 1.0), and `exact`
        (1.0 if the edits that were found are the true ones, in any order, by [`~matching.exact`]).
    """
    rewards = (
        FormatReward(),
        ActionReward(synonyms),
        SubjectReward(),
        SubjectReward(soft=True),
        GoalReward(),
        GoalReward(soft=True),
    )
    columns: dict[str, Any] = {
        column: [[getattr(edit, field) for edit in truth]] for field, column in _COLUMNS.items()
    }
    earned: dict[str, Any] = {
        reward.__name__: reward([None], [answer], instruction=[instruction], **columns)[0] for reward in rewards
    }
    return {**earned, "exact": float(exact(read_decomposition(answer).edits, truth, synonyms))}


def _is_slip(fault: Fault) -> bool:
    return fault.kind in _SLIPS or fault == Fault(FaultKind.MISSING_TAG, REASONING)


def _is_sentence(instruction: str) -> bool:
    """Whether an instruction, normalised, says more than an item: one of a few words that begins with no verb says a goal."""
    words = [part for word in instruction.split() for part in (word if _is_chinese(word) else [word])]
    verb = bool(words) and (words[0] in LIGHT_VERBS or action_name(words[0]) in ACTIONS)
    return len(words) > LONGEST_ITEM or (verb and len(words) > 1)


def _is_chinese(word: str) -> bool:
    return "\u4e00" <= word[0] <= "\u9fff"


def _true_edits(columns: Mapping[str, Any], row: int, count: int) -> list[Edit]:
    known = [columns[name][row] if columns.get(name) else None for name in _COLUMNS.values()]
    return [Edit(*items) for items in zip(*(items or [""] * count for items in known))]


def _meant(edit: Edit, synonyms: Mapping[str, str] | None) -> tuple[str, str, str]:
    action = action_name(edit.action, synonyms)
    return action, normalize(edit.subject), "" if action == "remove" else normalize(edit.goal)


def _as_far_as_known(answered: tuple[str, ...], true: tuple[str, ...]) -> bool:
    return all(not known or said == known for said, known in zip(answered, true))


def _holds(whole: str, edits: Sequence[Edit]) -> bool:
    return any(f" {whole} " in f" {normalize(item)} " for edit in edits for item in (edit.subject, edit.goal))
