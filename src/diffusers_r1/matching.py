"""How alike two lists of edits are: lists in, numbers out. Rewards, validation and evaluation all count with these.

What counts as the same word is data, in `languages.py`. An action is one of a few names: `erase`, `taking out` and `entferne`
are all `remove`. A subject or goal is a noun and what describes it: `the man in the red jacket` is a `man`, and no `jacket`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache

from .languages import PACKS, Language
from .plan import Edit


ARTICLES = frozenset(word for pack in PACKS.values() for word in pack.articles.split())

# What people write for an action -> the name that counts. A pack that comes earlier goes before a later one.
ACTION_SYNONYMS: dict[str, str] = {
    phrase.strip(): name
    for pack in reversed(PACKS.values())
    for name, phrases in pack.actions.items()
    for phrase in phrases.split(",")
    if phrase.strip() != name
}
ACTIONS = frozenset(ACTION_SYNONYMS.values())

# In an action: words that name what every edit is about, and those that lead to what it is done to.
GENERIC = frozenset(
    "object objects element elements item items thing things please it them its his her their something of image photo picture".split()
)
PARTICLES = frozenset("of to with in into from on onto as by for at over out".split())
ASPECTS = frozenset(
    "background lighting material text pose color style texture hue light size position backdrop shade".split()
)
# What is looked up in the dictionaries of other languages: an action, not what a model says before it has learned to.
MOST_LEMMAS, LONGEST_LEMMA = 4, 20
# What is turned up or down -> the action that this is.
QUANTITIES = {
    **dict.fromkeys(("brightness", "exposure", "light"), "lighting"),
    **{name: f"adjust {name}" for name in ("contrast", "saturation", "sharpness")},
    "size": "resize",
}
# Verbs that mean nothing certain without what follows: "turn around" and "turn red".
LIGHT_VERBS = frozenset(
    "turn make change set bring give take cut draw get put switch dress fill hang letter color style".split()
)

_SYMBOLS = frozenset("#%@&§‰′″")  # of what Unicode calls punctuation, the marks that say something
_UNIT = re.compile(
    r"(?<=\d)(?=(?:cm|mm|km|m|px|pt|in|ft|kg|g|mb|gb|dpi|k|ev|f|c)\b|x\s?\d)|(?<=\dx)(?=\d)|(?<=\d x)(?=\d)"
)
_QUOTED = re.compile(r"[\"“”„«»「」『』]([^\"“”„«»「」『』]+)[\"“”„«»「」『』]")
_SKIN_TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))
_SPELLED = str.maketrans(
    {"\N{VARIATION SELECTOR-16}": "", "\N{MINUS SIGN}": "-", "\N{FRACTION SLASH}": "/", "&": " and "}
)


def normalize(item: str) -> str:
    """The item without what does not change its meaning: case, articles, punctuation and surplus spaces.

    Numbers, their signs and decimals, units, symbols and emoji stay.

    Args:
        item (`str`): An action, a subject or a goal, in any language.

    Returns:
        `str`: words in lower case with single spaces between them. An item that is nothing but articles or
        punctuation keeps them, so that it does not equal an empty one.

    Example:
        >>> normalize("  The top-left  Coat, and the driver's hat. ")
        'top left coat and drivers hat'
        >>> normalize("-1.5 stops"), normalize("C#"), normalize("100 %")
        ('-1.5 stops', 'c #', '100 %')
    """
    words = _words(item)
    kept = [word for word, after in zip(words, [*words[1:], ""]) if word not in ARTICLES or not _is_word(after)]
    return " ".join(kept or words or item.casefold().split())


def _words(item: str) -> list[str]:
    """The item's words, articles among them, and its symbols."""
    apart = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", item)
    lower = unicodedata.normalize("NFKC", apart).casefold().translate(_SPELLED)
    lower = re.sub(r"\b[ld]['’](?=\w)", "", lower)  # l'arbre
    lower = re.sub(r"['’]", "", lower)
    lower = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", lower)  # 1,000
    lower = re.sub(r"(?<=\d),(?=\d)", ".", lower)  # 1,5
    lower = _UNIT.sub(" ", lower)
    return "".join(_marks_apart(lower)).split()


def _marks_apart(text: str) -> Iterator[str]:
    """The characters, with spaces in place of punctuation and around symbols."""
    for place, mark in enumerate(text):
        before, after = text[place - 1 : place], text[place + 1 : place + 2]
        # By category, not by regular expression: the vowel signs of many scripts are no word characters to `re`.
        category = unicodedata.category(mark)
        if category[0] not in "PS":
            yield mark
        elif mark in ".:/-\N{EN DASH}" and before.isdigit() and after.isdigit():
            yield "-" if mark == "\N{EN DASH}" else mark
        elif mark in "-\N{EN DASH}" and after.isdigit() and not before.isalnum():
            yield "-"
        elif mark in _SYMBOLS or mark in _SKIN_TONES or (category[0] == "S" and category != "Sk"):
            yield f" {mark} "
        else:
            yield " "


def _is_word(text: str) -> bool:
    return any(character.isalnum() for character in text)


def action_name(action: str, synonyms: Mapping[str, str] | None = None) -> str:
    """The name by which an action counts: one of the fourteen of the prompts and a few more, or the words themselves.

    Args:
        action (`str`): What an agent or an annotator wrote.
        synonyms (`Mapping` of `str` to `str`, *optional*): Further names of actions, stronger than [`ACTION_SYNONYMS`].

    Example:
        >>> action_name("Taking out"), action_name("change the hair colour"), action_name("enlarge"), action_name("zap")
        ('remove', 'recolor', 'resize up', 'zap')
        >>> action_name("zap", {"Zap!": "delete"})
        'remove'
    """
    said = normalize(action)
    own = {normalize(word): normalize(meant) for word, meant in (synonyms or {}).items()}
    return _known_action(own.get(said, said))


@lru_cache(maxsize=4096)
def _known_action(said: str) -> str:
    whole = re.sub(r"\bre (?=\w)", "re", said).replace("colour", "color").split()
    shorter = [word for word in whole if word not in GENERIC]
    for words in (whole, shorter):
        while words:
            for form in _forms(words):
                if form in ACTIONS or form in ACTION_SYNONYMS:
                    return ACTION_SYNONYMS.get(form, form)
            words = words[:-1] if words[-1] in PARTICLES else []  # "swap with"
    return _by_its_verb(shorter) or said


def _forms(words: list[str]) -> Iterator[str]:
    """The words as they are, and with their inflections taken off."""
    yield " ".join(words)
    first, rest = words[0], [_stem(word, "en") for word in words[1:]]
    for verb in _verbs(first):
        yield " ".join([verb, *words[1:]])
        yield " ".join([verb, *rest])
    if len(words) <= MOST_LEMMAS and all(len(word) <= LONGEST_LEMMA for word in words):
        yield from _lemmas(tuple(words))


def _verbs(word: str) -> Iterator[str]:
    """What an English verb may be without its ending; only a known one is ever taken."""
    irregular = {"took": "take", "taken": "take", "got": "get", "made": "make", "gave": "give", "wrote": "write"}
    yield irregular.get(word, word)
    if word.endswith("ise"):
        yield word[:-3] + "ize"
    for ending in ("ing", "ed", "es", "s", "d", "er"):
        stem = word.removesuffix(ending)
        if stem != word:
            yield from (stem, stem + "e", stem[:-1] if stem[-2:-1] == stem[-1:] else stem)
            yield stem.replace("is", "iz") + "e"  # stylising
            if stem.endswith("i"):
                yield stem[:-1] + "y"  # applied


@lru_cache(maxsize=1024)
def _lemmas(words: tuple[str, ...]) -> list[str]:
    """The words' dictionary forms in each language, if `simplemma` is installed."""
    try:
        import simplemma
    except ImportError:
        return []
    return [" ".join(simplemma.lemmatize(word, lang=code).lower() for word in words) for code in PACKS if code != "zh"]


def _by_its_verb(words: list[str]) -> str | None:
    """The action of a verb that has its object with it: "remove person", "change hair color", "turn up saturation"."""
    if len(words) < 2:
        return None
    *verb, last = words
    if last in QUANTITIES:
        ways = {"up": "up", "down": "down", "adjust": "", "replace": ""}
        way = ways.get(_known_action(" ".join(verb)).split()[-1])
        return None if way is None else f"{QUANTITIES[last]} {way}".strip()
    if any(word in ACTIONS or word in ACTION_SYNONYMS for word in words[1:] if word not in ASPECTS):
        return None  # every action word in one item is none
    for form in _verbs(words[0]):
        if f"{form} {last}" in ACTION_SYNONYMS:
            return ACTION_SYNONYMS[f"{form} {last}"]
        if form not in LIGHT_VERBS and (form in ACTIONS or form in ACTION_SYNONYMS):
            return ACTION_SYNONYMS.get(form, form)
    return None


def action_f1(predicted: Sequence[str], true: Sequence[str], synonyms: Mapping[str, str] | None = None) -> float:
    """F1 of two lists of actions as multisets, counted by [`action_name`]: the order is free, repeats count.

    A name also equals one that it begins with: "enlarge" is a "resize", "shrink" is one, and they are not the same.

    Args:
        predicted (sequence of `str`): What an agent answered.
        true (sequence of `str`): What is right.
        synonyms (`Mapping` of `str` to `str`, *optional*): See [`action_name`].

    Returns:
        `float`: from 0.0 to 1.0, as [`multiset_f1`].

    Raises:
        TypeError: If a list is a single string.

    Example:
        >>> action_f1(["erase", "making bigger"], ["resize", "remove"])
        1.0
    """
    _check_lists(predicted, true)
    one, other = ([(action_name(action, synonyms), "") for action in actions] for actions in (predicted, true))
    return _f1(_common(one, other), len(predicted), len(true))


def multiset_f1(predicted: Sequence[str], true: Sequence[str]) -> float:
    """F1 of two lists as multisets of normalised items: the order is free, repeats count.

    With `common` the number of items that the lists share, each as often as in the list that has it less often,
    F1 is the harmonic mean of precision `common / len(predicted)` and recall `common / len(true)`:
    `2 * common / (len(predicted) + len(true))`.

    Args:
        predicted (sequence of `str`): What an agent answered.
        true (sequence of `str`): What is right.

    Returns:
        `float`: from 0.0 (nothing in common) to 1.0 (equal); 1.0 if both are empty, 0.0 if only one is.

    Raises:
        TypeError: If a list is a single string.

    Example:
        >>> multiset_f1(["the dog", "dog", "cat"], ["dog"])  # 2 * 1 / (3 + 1)
        0.5
    """
    _check_lists(predicted, true)
    one, other = Counter(map(normalize, predicted)), Counter(map(normalize, true))
    return _f1((one & other).total(), len(predicted), len(true))


def soft_f1(predicted: Sequence[str], true: Sequence[str]) -> float:
    """F1 of two lists in which two items that are alike count in part: for subjects and goals in free text.

    Each pair of a predicted and a true item is worth their [`likeness`]. Items are paired one to one so that the sum of
    these worths, `common`, is as large as can be; then the result is `2 * common / (len(predicted) + len(true))`, as in
    [`multiset_f1`], which it is never below.

    Args:
        predicted (sequence of `str`): What an agent answered.
        true (sequence of `str`): What is right.

    Returns:
        `float`: from 0.0 (no word in common) to 1.0 (equal but for order); 1.0 if both are empty, 0.0 if only one is.

    Raises:
        TypeError: If a list is a single string.

    Example:
        >>> soft_f1(["coats", "man"], ["the man", "coat"])
        1.0
        >>> soft_f1(["red jacket"], ["man in the red jacket"])  # (2 * 2 / (2 + 3)) / 2
        0.4
    """
    _check_lists(predicted, true)
    if not predicted or not true:
        return _f1(0, len(predicted), len(true))
    language = language_of([*predicted, *true])
    worths = [[likeness(one, other, language) for other in true] for one in predicted]
    return _f1(_best_sum(worths), len(predicted), len(true))


def likeness(one: str, other: str, language: str | None = None) -> float:
    """How alike two subjects or goals are. Above a half, they name the same thing, one of them perhaps with less detail.

    With F1 that of their words (inflections, articles and words that say nothing left aside):

    - 1 if noun and words are the same, or both are equal by [`normalize`];
    - `(1 + F1) / 2` if the noun is the same, and one says all that the other says and more;
    - `F1 / 2` if the nouns are different, or each has details that the other has not: "red car", "blue car". A detail that
      alone makes another thing of it ("with a hat", "without a hat") counts as one that the other has not.

    Args:
        one, other (`str`): In any language.
        language (`str`, *optional*): A key of `languages.PACKS`; found by their words if left out.

    Example:
        >>> likeness("the man in the red jacket", "men"), likeness("coat", "coats"), likeness("left dog", "right dog")
        (0.75, 1.0, 0.25)
    """
    if normalize(one) == normalize(other):
        return 1.0
    language = language or language_of([one, other])
    (noun, words), (other_noun, other_words) = _noun_and_words(one, language), _noun_and_words(other, language)
    quoted, other_quoted = ([word for word in side if word[0] == '"'] for side in (words, other_words))
    mine, theirs = (Counter(word.lstrip('"') for word in side) for side in (words, other_words))
    f1 = _f1((mine & theirs).total(), len(words), len(other_words))
    if quoted and other_quoted and quoted != other_quoted:  # what stands on a sign is right or wrong as a whole
        return f1 / 2
    if (noun == other_noun and mine == theirs) or "".join(words) == "".join(other_words):  # "table cloth"
        return 1.0
    more = set((mine - theirs) + (theirs - mine))
    contained = mine <= theirs or theirs <= mine
    if noun == other_noun and contained and not more <= set(PACKS[language].relations.split()):
        return (1 + f1) / 2
    return f1 / 2


def language_of(texts: Sequence[str]) -> str:
    """The pack whose common words are most frequent in the texts, English if none is ahead."""
    if any("\u4e00" <= character <= "\u9fff" for text in texts for character in text):
        return "zh"
    words = Counter(re.findall(r"\w+", " ".join(texts).casefold()))
    counts = {code: sum(words[word] for word in _hints(code)) for code in PACKS}
    return max(counts, key=counts.__getitem__)  # of equal counts, the first


@cache
def _hints(code: str) -> frozenset[str]:
    return frozenset(f"{PACKS[code].articles} {PACKS[code].hints}".split())


@lru_cache(maxsize=4096)
def _noun_and_words(text: str, language: str) -> tuple[str, tuple[str, ...]]:
    """The noun that a text is about, and all words of it that say something."""
    pack = PACKS[language]
    links, pronouns = set(pack.links.split()), set(pack.pronouns.split())
    fillers = {*pack.fillers.split(), *ARTICLES}
    said = [
        word for part, quoted in _parts(text, pack) for word in ([f'"{word}' for word in part] if quoted else part)
    ]
    if language == "zh":
        said = [character for word in said for character in word]
    words = tuple(_stem(word, language) for word in said if word not in fillers)

    described: list[str] = []  # the words before the first link
    for before, word, after in zip(["", *said], said, [*said[1:], ""]):
        chosen = before in pronouns or _stem(after, language).isdigit()  # "one of the dogs", "the smaller of two dogs"
        if word in links and described and not chosen:
            break
        if word not in fillers and word not in links:
            described.append(word)
    if not words:  # "the whole picture"
        words = tuple(_stem(word, language) for word in said[-1:])
    nouns = [word for word in described if not re.search(pack.participles, word)] or described or list(words) or [""]
    return _stem(nouns[-1 if pack.head == "last" else 0], language).lstrip('"'), words


def _parts(text: str, pack: Language) -> Iterator[tuple[list[str], bool]]:
    """The words of each part of a text, and whether it is quoted: of what stands on a sign every word counts, as it is."""
    for place, part in enumerate(_QUOTED.split(text)):
        said = " ".join(_words(part))
        for pattern, meant in () if place % 2 else pack.phrases:
            said = re.sub(pattern, meant, said)
        yield said.split(), bool(place % 2)


def _stem(word: str, language: str) -> str:
    """The word without its inflection: a key that its forms share, not always a word."""
    same = _same_words(language)
    bare = _bare(same.get(word, word), PACKS[language])
    return same.get(bare, bare)


def _bare(word: str, pack: Language) -> str:
    if word in pack.uninflected.split():
        return word
    word = word.translate(str.maketrans(pack.folds))
    for pair in pack.endings.split():
        ending, other = pair.split("=")
        if word.endswith(ending) and len(word) - len(ending) >= 2:
            return word.removesuffix(ending) + other
    return word


@cache
def _same_words(language: str) -> dict[str, str]:
    """What each word counts as, by the word itself and by what is left of its forms."""
    pack = PACKS[language]
    listed = dict(pair.split("=") for pair in pack.same.split())
    return {**{_bare(word, pack): _bare(other, pack) for word, other in listed.items()}, **listed}


def exact(predicted: Sequence[Edit], true: Sequence[Edit], synonyms: Mapping[str, str] | None = None) -> bool:
    """Whether two decompositions ask for the same edits: actions by [`action_name`], subjects and goals normalised.

    Args:
        predicted (sequence of [`Edit`]): What an agent answered.
        true (sequence of [`Edit`]): What is right.
        synonyms (`Mapping` of `str` to `str`, *optional*): See [`action_name`].

    Returns:
        `bool`: the order is free; an edit that is missing, surplus or repeated makes it False.

    Example:
        >>> hat, man = Edit("recolor", "the hat", "red"), Edit("remove", "man", "nothing")
        >>> exact([man, hat], [Edit("Dye", "hat", "red"), man])
        True
        >>> exact([man, man, hat], [man, hat])
        False
    """
    one, other = (
        [(action_name(edit.action, synonyms), f"{normalize(edit.subject)}\n{normalize(edit.goal)}") for edit in edits]
        for edits in (predicted, true)
    )
    return len(one) == len(other) == _common(one, other)


def same_edits(predicted: Sequence[Edit], true: Sequence[Edit], synonyms: Mapping[str, str] | None = None) -> bool:
    """Whether two decompositions mean the same edits, in whatever words: as [`exact`], with the [`likeness`] of subjects
    and goals above a half in place of equality.

    Example:
        >>> same_edits([Edit("take out", "men", "gone")], [Edit("remove", "man in the red jacket", "nothing")])
        True
    """
    if len(predicted) != len(true):
        return False
    if not predicted:
        return True
    language = language_of([text for edit in (*predicted, *true) for text in (edit.subject, edit.goal)])
    same = [
        [
            action_f1([one.action], [other.action], synonyms) == 1
            # What is added is no more than what is said of it; of what is there, a part of the description finds it.
            and likeness(one.subject, other.subject, language) > (0.99 if action_name(other.action) == "add" else 0.5)
            and likeness(one.goal, other.goal, language) > 0.5
            for other in true
        ]
        for one in predicted
    ]
    return _best_sum(same) == len(true)


def _common(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> float:
    """How many pairs of an action's name and what it is done to the lists share, each as often as the one that has it less.

    Equal pairs first. What is left of a name then goes with what is left of those that begin with it, "resize" with "resize up",
    so that as many as can be find a partner.
    """
    mine, theirs = Counter(one), Counter(other)
    shared = mine & theirs
    rows, columns = list((mine - shared).elements()), list((theirs - shared).elements())
    if not rows or not columns:
        return shared.total()
    return shared.total() + _best_sum([[_goes_with(row, column) for column in columns] for row in rows])


def _goes_with(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether one of two names is an action that begins with the other, done to the same."""
    (shorter, _), (longer, _) = sorted((one, other))
    return one[1] == other[1] and longer in ACTIONS and longer.startswith(f"{shorter} ")


def _best_sum(worths: Sequence[Sequence[float]]) -> float:
    """The largest sum of worths, a row for each item of one list and a column for each of another, that go one to one."""
    from scipy.optimize import linear_sum_assignment  # slow to import

    rows, columns = linear_sum_assignment(worths, maximize=True)
    return sum(worths[row][column] for row, column in zip(rows, columns))


def _check_lists(*lists: Sequence[str]) -> None:
    for items in lists:
        if isinstance(items, str):
            raise TypeError(f"A list of items is needed, not the single string {items!r}.")


def _f1(common: float, predicted: int, true: int) -> float:
    return 2 * common / (predicted + true) if predicted + true else 1.0
