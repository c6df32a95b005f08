"""From ideas to what somebody types: wordings, shared verbs, pronouns, slips, chatter and typos. The meaning stays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from . import things
from .ideas import Idea
from .trades import BLANKS, TALK, WAYS
from .wordings import CHATTER, SHARED_VERBS, VERBS, WORDINGS
from .words import Dice, with_typos


@dataclass(frozen=True)
class Manner:
    """How somebody writes: the share of the places where each habit shows, from 0 to 1.

    Args:
        pronouns: "it" for what the sentence has just been about.
        sharing: One verb for several things.
        terse: No articles, the plainest verbs: the whole sentence or nothing of it.
        polite: "could you please ..."
        keeps: "don't touch the sky"
        slips: A word that is taken back for another.
        chatter: What is no edit: greetings, reasons, thanks.
        typos: Sentences with mistyped words.
        loose: Sentences without punctuation.
        lists: Sentences written as a list of lines.
    """

    pronouns: float = 0.0
    sharing: float = 0.0
    terse: float = 0.0
    polite: float = 0.0
    keeps: float = 0.0
    slips: float = 0.0
    chatter: float = 0.0
    typos: float = 0.0
    loose: float = 0.0
    lists: float = 0.0


@dataclass(frozen=True)
class Part:
    """A stretch of the sentence, and each of its edits said in full: nothing left out, no pronouns."""

    text: str
    clauses: tuple[str, ...]
    link: str = ""


SUBJECTS = {"them": "they", "him": "he", "her": "she"}
ALL_WORDINGS = WORDINGS | WAYS
TERSE_VERBS = ("change", "remove", "delete", "add", "replace", "make", "turn", "crop", "move", "put", "let", "have")


class Writer:
    """Writes ideas down.

    Args:
        dice ([`Dice`]): Decides about words, never about meaning: other dice, another wording of the same.
        manner ([`Manner`]): How.
        trade (`str`, defaults to `""`): Whose talk stands beside the edits.
    """

    def __init__(self, dice: Dice, manner: Manner, trade: str = ""):
        self.dice = dice
        self.manner = manner
        self.terse = dice.chance(manner.terse)
        self.loose = dice.chance(manner.loose)
        self.openers, self.closers = (CHATTER["openers"], CHATTER["closers"])
        if trade:
            talk = tuple(
                line.format_map({blank: dice.pick(words) for blank, words in BLANKS.items()}) for line in TALK[trade]
            )
            self.openers, self.closers = self.openers[:8] + talk * 3, self.closers[:9] + talk * 3
        self.shown: set[str] = set()  # the words of texts, which are never mistyped

    def write(self, ideas: Sequence[Idea]) -> tuple[str, tuple[str, ...]]:
        """The sentence, and each edit's clause in full, in the order of the ideas."""
        parts = self._parts(ideas)
        clauses = tuple(clause for part in parts for clause in part.clauses)
        texts = [part.text for part in parts]
        links = [part.link in ("it", "owned", "there", "too") for part in parts]
        self._add_chatter(texts, ideas)
        text = self._joined(texts, links)
        if self.dice.chance(self.manner.typos):
            text = with_typos(text, 1 + self.dice.below(1 + len(text) // 30), frozenset(self.shown), self.dice)
        if self.loose and self.dice.chance(0.6):
            text = text.replace("'", "")
        return text, clauses

    def _parts(self, ideas: Sequence[Idea]) -> list[Part]:
        parts: list[Part] = []
        at = 0
        while at < len(ideas):
            run = [ideas[at]]
            for idea in ideas[at + 1 :]:
                if (
                    idea.link not in ("twin", "contrast")
                    or idea.form != run[0].form
                    or idea.wordings != run[0].wordings
                ):
                    break
                if len(run) > 1 and idea.link != run[1].link:
                    break
                run.append(idea)
            if len(run) > 1 and self.dice.chance(self.manner.sharing):
                parts += self._shared(run)
            else:
                run = run[:1]
                parts.append(self._single(run[0]))
            at += len(run)
        return parts

    # One idea.

    def _single(self, idea: Idea) -> Part:
        wording = self._wording(idea)
        said = self._said(idea.subject.said, idea)
        full = self._filled(wording, idea, said)
        text = full
        if idea.link == "it" and self.dice.chance(self.manner.pronouns):
            text = self._filled(*_about(idea.subject.pronoun, wording, idea))
        elif idea.link == "owned" and self.dice.chance(self.manner.pronouns):
            text = self._filled(wording, idea, f"{idea.fills['owner']} {idea.subject.part}")
        elif idea.link == "there" and self.dice.chance(self.manner.pronouns):
            text = self._filled(wording, idea, said, pronoun=True)
        elif self.dice.chance(self.manner.slips):
            text = self._with_slip(wording, idea, said)
        if self.dice.chance(self.manner.polite) and text.split()[0] in VERBS:
            polite = self.dice.pick(CHATTER["polite"])
            text = polite.format(c=text.rstrip("?")) + ("?" if polite.startswith(("can", "could", "would")) else "")
        if self.dice.chance(self.manner.chatter * 0.25):
            text = f"{text.rstrip('?')}{self.dice.pick((' ', ', '))}{self.dice.pick(CHATTER['purposes'])}"
        return Part(text, (full.rstrip("?"),), idea.link)

    def _wording(self, idea: Idea) -> str:
        wordings = ALL_WORDINGS[self.dice.pick(idea.wordings)]
        if self.terse:
            plain = [wording for wording in wordings if wording.split()[0] in TERSE_VERBS]
            return self.dice.pick(plain or wordings)
        return self.dice.pick(wordings)

    def _said(self, said: tuple[str, ...], idea: Idea) -> str:
        words = self.dice.pick(said)
        if not self.terse or idea.subject.kind == "photo":
            return words
        return words.removeprefix("the ").removeprefix("a ").removeprefix("an ")

    def _filled(self, wording: str, idea: Idea, said: str, pronoun: bool = False, goal: str | None = None) -> str:
        """The wording with its places filled; with `pronoun`, the thing that the goal names is "it"."""
        fills = {"g": idea.goal, "s": said, "s-": _bare(said)}
        for name, value in idea.fills.items():
            fills[name] = value if isinstance(value, str) else self.dice.pick(value)
        if pronoun:
            fills["o" if "o" in fills else "g"] = _fitting(fills["it"], wording, "o")
        if goal is not None:
            fills |= {"g": goal, "g-": goal, "g style": goal, "g look": goal}
        for name in ("q", "old"):
            if name in fills:
                self.shown |= set(fills[name].strip("\"'“”").split())
        if self.terse:
            fills = {name: _bare(value) if name in ("g", "o", "m") else value for name, value in fills.items()}
        fills.setdefault("g-", _bare(fills["g"]))
        return wording.format_map(fills)

    def _with_slip(self, wording: str, idea: Idea, said: str) -> str:
        """The clause, with the wrong goal or the wrong thing named first."""
        slip = self.dice.pick(CHATTER["slips"])
        if idea.form == "remove" and wording.endswith("{s}"):
            wrong = f"the {self.dice.pick(things.OBJECTS + things.FURNITURE)}"
            return self._filled(wording, idea, slip.format(wrong=wrong, right=said))
        others = {
            "recolor": things.COLORS,
            "material": things.MATERIALS,
            "resize": things.BIGGER,
            "move": things.TARGETS,
            "restyle": things.STYLES,
            "background": things.PLAIN_GROUNDS + things.SCENERY,
        }.get(idea.form)
        if others is None or not wording.endswith(("{g}", "{g style}")):
            return self._filled(wording, idea, said)
        end = "{g style}" if wording.endswith("{g style}") else "{g}"
        right = self._filled(end, idea, said)
        wrong = self.dice.pick([other for other in others if other != idea.goal])
        return self._filled(wording, idea, said, goal=slip.format(wrong=wrong, right=right))

    # Several ideas in one breath.

    def _shared(self, run: list[Idea]) -> list[Part]:
        said = [self._said(idea.subject.said, idea) for idea in run]
        if run[1].link == "contrast":
            return self._contrasted(run, said)
        wording = self._wording(run[0])
        if self.dice.chance(0.25) and run[0].form not in ("remove", "add"):  # "the car blue, the van too"
            parts = [
                Part(
                    self._filled(wording, run[0], said[0]),
                    (self._filled(wording, run[0], said[0]).rstrip("?"),),
                    run[0].link,
                )
            ]
            for idea, each in zip(run[1:], said[1:]):
                full = self._filled(wording, idea, each).rstrip("?")
                parts.append(Part(self.dice.pick(CHATTER["too"]).format(s=each), (full,), "too"))
            return parts
        # Filled before the things are named, so that one place, one goal stands in all of them.
        frame = self._filled(wording.replace("{s-}", "{s}"), run[0], "\0")
        if "{s-}" in wording:
            said = [_bare(each) for each in said]
        listed = frame.replace("\0", self._listed(said))
        if self.dice.chance(self.manner.polite) and listed.split()[0] in VERBS:
            listed = self.dice.pick(CHATTER["polite"]).format(c=listed.rstrip("?"))
        return [Part(listed, tuple(frame.replace("\0", each).rstrip("?") for each in said), run[0].link)]

    def _contrasted(self, run: list[Idea], said: list[str]) -> list[Part]:
        """ "make the car blue, the van red and the bus green": what can be shared is the verb."""
        able = [
            wording
            for wording in WORDINGS[run[0].wordings[0]]
            if wording.split()[0] in SHARED_VERBS and wording.split()[1] == "{s}" and wording.endswith(("{g}", "{g-}"))
        ]
        wording = self.dice.pick(able)
        fulls = [self._filled(wording, idea, each) for idea, each in zip(run, said)]
        verb = wording.split()[0] + " "
        return [
            Part(self._listed([fulls[0], *(full.removeprefix(verb) for full in fulls[1:])]), tuple(fulls), run[0].link)
        ]

    def _listed(self, items: list[str]) -> str:
        last = self.dice.pick((" and ", " and ", ", ", ", and ", " & ", " as well as "))
        if len(items) > 2 and self.dice.chance(0.2):
            return " and ".join(items)
        return ", ".join(items[:-1]) + last + items[-1]

    # What is no edit, and how it all hangs together.

    def _add_chatter(self, texts: list[str], ideas: Sequence[Idea]) -> None:
        """Appends it to the parts, or puts it into one of them, so that the parts stay as many as they were."""
        if self.dice.chance(self.manner.keeps):
            texts[-1] = f"{texts[-1].rstrip('?')}{self.dice.pick((', ', ' but ', '. ', ', and '))}{self._keep(ideas)}"
        if self.dice.chance(self.manner.keeps * 0.4):
            texts[0] = f"{self._keep(ideas)}{self.dice.pick((', ', '. '))}{texts[0]}"
        if self.dice.chance(self.manner.slips * 0.5):
            noun = self.dice.pick([n for n in things.OBJECTS if not any(n in idea.subject.name for idea in ideas)])
            wording = self.dice.pick(("remove the {}", "make the {} bigger", "blur the {}", "paint the {} black"))
            taken_back = self.dice.pick(CHATTER["taken back"]).format(c=wording.format(noun))
            at = self.dice.below(len(texts))
            texts[at] = f"{texts[at]}. {taken_back}"
        if self.dice.chance(self.manner.chatter):
            texts[0] = f"{self.dice.pick(self.openers)}{self.dice.pick((', ', '. ', '! ', ' - ', ': '))}{texts[0]}"
        if self.dice.chance(self.manner.chatter):
            texts[-1] = (
                f"{texts[-1].rstrip('?')}{self.dice.pick((', ', '. ', ' - ', '! '))}{self.dice.pick(self.closers)}"
            )

    def _keep(self, ideas: Sequence[Idea]) -> str:
        if self.dice.chance(0.3):
            return self.dice.pick(CHATTER["keeps all"])
        taken = " ".join(f"{idea.subject.name} {idea.goal}" for idea in ideas)
        kept = [
            noun
            for noun in things.AREAS + things.OBJECTS + things.ANIMALS + things.WOMEN + things.CLOTHES + things.BODY
            if noun not in taken
        ]
        noun = self.dice.pick(kept)
        return self.dice.pick(CHATTER["keeps"]).format(s=f"{self.dice.pick(('the', 'the', 'my'))} {noun}")

    def _joined(self, texts: list[str], links: list[bool]) -> str:
        if len(texts) > 1 and self.dice.chance(self.manner.lists):
            return self._as_list(texts, links)
        if self.loose:
            texts = [text.rstrip("?") for text in texts]
            joint = self.dice.pick((" ", " and ", ", ", " then "))
            return joint.join(texts)
        way = self.dice.weighted({"comma": 3, "and": 1.5, "sentences": 3, "mixed": 3, "then": 1, "semicolons": 0.5})
        text, ends = texts[0], False
        for number, (each, linked) in enumerate(zip(texts[1:], links[1:]), start=2):
            last = number == len(texts)
            if way == "mixed":
                joint = self.dice.pick((", ", " and ", ". ", ", then ", ", and ", " and then "))
            elif way == "comma":
                joint = self.dice.pick((", ", " and ", ", and ")) if last else ", "
            elif way == "then":
                joint = f", {self.dice.pick(CHATTER['then'])} "
            else:
                joint = {"and": " and ", "sentences": ". ", "semicolons": "; "}[way]
            if linked and joint in (", ", "; "):
                joint = self.dice.pick((" and ", ", and ", ", then ", " and "))
            if joint == ". " and self.dice.chance(0.2):
                joint = f". {self.dice.pick(CHATTER['then'])} "
            ends = text.endswith("?")
            if ends and not joint.startswith("."):
                text = text.removesuffix("?")
            elif ends:
                joint = joint.replace(". ", " ")
            text += joint + each
        if self.dice.chance(0.55):
            text = _capitalised(text)
        if not text.endswith(("?", "!", '"')) and self.dice.chance(0.5):
            text += "."
        return text

    def _as_list(self, texts: list[str], links: list[bool]) -> str:
        items: list[str] = []
        for text, linked in zip(texts, links):
            if linked and items:
                items[-1] = f"{items[-1].removesuffix('?')} and {text}"
            else:
                items.append(text)
        style = self.dice.pick(("1. {} ", "1) {} ", "{}. ", "- {}\n", "1. {}\n", "{}\n", "* {}\n", "({}) ", "{}) "))
        big = self.dice.chance(0.4)
        lines = []
        for number, item in enumerate(items, start=1):
            item = item[:1].upper() + item[1:] if big else item
            if style in ("{}. ", "({}) ", "{}) "):
                lines.append(f"{style.format(number)}{item} ")
            else:
                lines.append(style.replace("1", str(number)).format(item))
        return "".join(lines).strip()


def _fitting(pronoun: str, wording: str, place: str) -> str:
    """The pronoun as it is said in that place of the wording: "they should be red", "make them red"."""
    does = re.match(rf"(could |can |what if )?\{{{place}\}}", wording)
    return SUBJECTS.get(pronoun, pronoun) if does else pronoun


def _about(pronoun: str, wording: str, idea: Idea) -> tuple[str, Idea, str]:
    """A wording that takes the pronoun, and the pronoun: "blow it up", "they should be red"."""
    pronoun = _fitting(pronoun, wording, "s")
    return re.sub(r"^(\w+) (up|out|down|back) \{s\}", r"\1 {s} \2", wording), idea, pronoun


def _bare(said: str) -> str:
    for article in ("the ", "a ", "an ", "some "):
        said = said.removeprefix(article)
    return said


def _capitalised(text: str) -> str:
    """The text as it is written with care: sentences begin large, and so does "I"."""
    sentences = [sentence[:1].upper() + sentence[1:] for sentence in text.split(". ")]
    text = ". ".join(sentences)
    for small in ("i", "i'd", "i'm", "i'll"):
        text = f" {text} ".replace(f" {small} ", f" I{small[1:]} ").strip()
    return text
