"""What a sentence is about: edits that go together, drawn from a seed, before a word of it is said."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ..plan import Edit
from . import things, trades
from .things import definite, is_plural, with_article
from .wordings import FORMS
from .words import Dice


@dataclass(frozen=True)
class Thing:
    """Something in a photo, or the photo.

    Args:
        name (`str`): What the true edits call it: as it is said, without "the" or "my".
        said (`tuple` of `str`): The ways to say it, each with whatever stands before it.
        kind (`str`): What can be done to it.
        pronoun, possessive (`str`): "it" and "its", and so on.
        part (`str`, defaults to `""`): Of what belongs to somebody, the name without the owner's: "beard".
    """

    name: str
    said: tuple[str, ...]
    kind: str
    pronoun: str = "it"
    possessive: str = "its"
    part: str = ""


@dataclass(frozen=True)
class Idea:
    """One edit, and how it hangs together with the one before.

    Args:
        form (`str`): A key of `FORMS`.
        subject ([`Thing`]): What is edited; the new thing where one is added.
        goal (`str`): What the true edit says.
        wordings (`tuple` of `str`): Keys of `WORDINGS` that say this.
        link (`str`): How it hangs on the idea before: `"it"` (about the same thing), `"owned"` (about a part of it),
            `"there"` (its goal names it), `"twin"` (the same for another thing), `"contrast"` (another goal for another
            thing), or `""`.
        fills (mapping): What else the wordings have places for: texts, or ways to say a thing.
        left (`Thing`, *optional*): What a following sentence can call "it".
    """

    form: str
    subject: Thing
    goal: str
    wordings: tuple[str, ...]
    link: str = ""
    fills: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    left: Thing | None = None

    @property
    def edit(self) -> Edit:
        action = FORMS[self.form][0]
        return Edit(action, self.subject.name, f'"{self.goal}"' if action == "text" else self.goal)

    @property
    def request(self) -> str:
        """The edit as an image editor is asked for it, which has read nothing else."""
        new = self.form in ("add", "wear")
        subject = with_article(self.subject.name) if new else definite(self.subject.name.removeprefix("whole "))
        goal = with_article(self.goal) if self.form == "replace" else self.goal
        return f"{FORMS[self.form][1].format(s=subject, g=goal)}."


PHOTO = Thing(
    "whole picture", tuple(f"the {name}" for name in things.PHOTO) + ("this photo", "my photo", "this"), "photo"
)
BACKGROUND = Thing("background", ("the background",), "background")

# Kind -> nouns, attributes, and whether a person or an animal.
NOUNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "man": (things.MEN, things.PERSON_LOOKS),
    "woman": (things.WOMEN, things.PERSON_LOOKS),
    "person": (things.OTHERS, things.PERSON_LOOKS),
    "people": (things.GROUPS, things.PERSON_LOOKS),
    "animal": (things.ANIMALS, things.FUR),
    "herd": (things.HERDS, things.FUR),
    "vehicle": (things.VEHICLES, things.COLORS + things.LOOKS),
    "furniture": (things.FURNITURE, things.COLORS + things.LOOKS),
    "device": (things.DEVICES, things.COLORS + things.LOOKS),
    "object": (things.OBJECTS, things.COLORS + things.LOOKS),
    "food": (things.FOOD + things.FOODS, things.SIZES),
    "plant": (things.PLANTS, things.SIZES),
    "outside": (things.OUTSIDE, things.COLORS + things.LOOKS),
    "area": (things.AREAS, ()),
    "house part": (things.HOUSE_PARTS, things.COLORS),
    "clothes": (things.CLOTHES + things.PAIRS, things.COLORS + things.LOOKS),
    "readable": (things.READABLE, things.COLORS + things.SIZES),
}
LIVING = ("man", "woman", "person", "people", "animal", "herd")
BEINGS = {"man": 3, "woman": 3, "person": 3, "people": 2, "animal": 4, "herd": 1}
GOODS = {"vehicle": 3, "furniture": 3, "device": 2, "object": 4, "food": 2, "plant": 2, "outside": 2, "clothes": 3}
PRONOUNS = {"man": ("him", "his"), "woman": ("her", "her"), "person": ("them", "their")}

# How things are called, in each kind of sentence: name of the way -> share.
PLAIN_WAYS = {"bare": 50, "look": 18, "side": 6, "where": 8, "near": 3, "owner": 12, "count": 3}
REFERRING_WAYS = {
    "bare": 4, "look": 10, "side": 14, "where": 18, "near": 12, "owner": 16, "count": 5, "compare": 8, "order": 6,
    "doing": 12, "wearing": 10,
}  # fmt: skip

SHARES = {
    "add": 2.4, "wear": 0.9, "remove": 3.2, "replace": 2.2, "content": 0.8, "recolor": 2.2, "restyle": 1.2, "background": 1.4,
    "light": 0.6, "brightness": 0.7, "switch": 0.15, "material": 0.9, "text": 1.2, "pose": 1.0, "state": 0.4, "move": 0.8,
    "resize": 0.8, "look": 1.0, "give": 0.5, "crop": 0.6,
}  # fmt: skip
ONCE = ("restyle", "background", "light", "brightness", "give", "crop")  # of the whole photo
TWINS = ("remove", "recolor", "resize", "material", "add", "look")
CONTRASTS = ("recolor", "replace", "resize", "move", "material")


class Muse:
    """Draws ideas that do not get in each other's way: no two of them are about things of the same noun, unless they
    hang together.

    Args:
        dice ([`Dice`]): Decides.
        ways (mapping of `str` to `float`): How things are called, `PLAIN_WAYS` or `REFERRING_WAYS`.
        trade (`str`, defaults to `""`): Whose errands three in four ideas are, one of `TRADES`.
    """

    def __init__(self, dice: Dice, ways: Mapping[str, float], trade: str = ""):
        self.dice = dice
        self.ways = dict(ways)
        self.trade = trade
        self.errands: set[int] = set()
        self.nouns: set[str] = set()
        self.forms: set[str] = set()

    def ideas(self, count: int, linked: float) -> tuple[Idea, ...]:
        """So many ideas, of which the share `linked` hangs on the one before it."""
        found: list[Idea] = []
        while len(found) < count:
            idea = self._linked(found[-1]) if found and self.dice.chance(linked) else None
            found.append(idea or self._fresh())
        return tuple(found)

    def thing(self, kind: str) -> Thing:
        """Something of that kind, called in one of the ways."""
        nouns, looks = NOUNS[kind]
        noun = self._unused(nouns)
        way = self.dice.weighted(self.ways)
        plural = is_plural(noun)
        pronoun, possessive = ("them", "their") if plural else PRONOUNS.get(kind, ("it", "its"))

        def called(name: str, *said: str, part: str = "") -> Thing:
            return Thing(name, said or (f"the {name}",), kind, pronoun, possessive, part)

        if way == "owner" and kind in ("clothes", "animal", "vehicle", "device", "object"):
            return self._owned(noun, kind, pronoun, possessive)
        if kind == "area" or way in ("bare", "owner"):
            mine = (f"my {noun}", f"our {noun}", f"this {noun}", f"that {noun}") if self.dice.chance(0.1) else ()
            if plural:
                mine = (f"the {noun}", f"these {noun}", f"those {noun}") if mine else ()
            return called(noun, *((f"the {noun}",) * 4 + mine))
        if way == "look" and looks:
            return called(self._described(noun, kind))
        if way == "side" or (way in ("compare", "order") and plural):
            side = self.dice.pick([side for side in things.SIDES if not noun.startswith(side)])
            if plural or side in ("foreground", "background"):
                return called(f"{side} {noun}")
            return called(
                f"{side} {noun}", f"the {side} {noun}", f"the {side} one of the two {_many(noun)}",
                f"the {noun}, the {side} one,",
            )  # fmt: skip
        if way == "compare":
            size = self.dice.pick(("smaller", "bigger", "larger", "taller", "older", "darker", "shorter", "closer"))
            return called(
                f"{size} {noun}", f"the {size} {noun}", f"the {size} of the two {_many(noun)}",
                f"the {size} one of the {_many(noun)}",
            )  # fmt: skip
        if way == "order":
            return called(f"{self.dice.pick(things.ORDINALS)} {noun} from the {self.dice.pick(('left', 'right'))}")
        if way == "count":
            if plural and " " not in noun and kind in ("people", "herd"):
                number = self.dice.pick(("two", "three", "four"))
                name = self.dice.pick((f"{number} {noun}", f"all {noun}"))
                return called(name, *((name, f"all the {noun}", f"all of the {noun}") if name[0] == "a" else ()))
            if not plural and kind not in ("food", "area"):
                return Thing(
                    f"both {_many(noun)}", (f"both {_many(noun)}", f"both of the {_many(noun)}"), kind, "them", "their"
                )
            return called(noun)
        if way == "doing" and kind in ("man", "woman", "person"):
            return called(f"{noun} {self.dice.pick(things.DOING)}")
        if way == "wearing" and kind in ("man", "woman", "person"):
            clothes = f"{self.dice.pick(things.COLORS)} {self.dice.pick(things.CLOTHES)}"
            name = f"{noun} {self.dice.pick(('in the', 'with the', 'wearing the', 'in'))} {clothes}"
            return called(name)
        if way in ("near", "compare"):
            beside = self.dice.pick(things.BESIDE + things.UPON[:2] + things.INSIDE)
            return called(f"{noun} {beside} the {self._unused(self._some(GOODS))}")
        return called(f"{noun} {self.dice.pick(things.WHERE)}")

    def new_thing(self, kind: str) -> Thing:
        """Something that is not there yet: said with "a"."""
        noun = self._unused(things.NEW_THINGS if kind == "" else NOUNS[kind][0])
        looks = NOUNS[kind][1] if kind else ()
        name = self._described(noun, kind) if looks and self.dice.chance(0.35) else noun
        if is_plural(noun):
            said = (name, f"some {name}", f"a few {name}")
            if self.dice.chance(0.2):
                name = f"{self.dice.pick(('two', 'three', 'five'))} {name}"
                said = (name,)
            return Thing(name, said, kind, "them", "their")
        pronoun, possessive = PRONOUNS.get(kind, ("it", "its"))
        said = (with_article(name),) * 4 + (f"another {name}", f"the {name}")
        return Thing(name, said if with_article(name) != name else (name, f"some {name}"), kind, pronoun, possessive)

    def _described(self, noun: str, kind: str) -> str:
        """The noun with an attribute before it, or with several: "small brown leather purse"."""
        name = f"{self.dice.pick(NOUNS[kind][1])} {noun}"
        if kind in GOODS and self.dice.chance(0.25):
            stuff = self.dice.pick(("leather", "wooden", "metal", "ceramic", "glass", "plastic", "striped", "velvet"))
            name = f"{self.dice.pick(things.COLORS)} {stuff} {noun}"
        if kind not in LIVING and self.dice.chance(0.15):
            name = f"{self.dice.pick(things.SIZES)} {name}"
        return name

    def _some(self, shares: Mapping[str, float]) -> tuple[str, ...]:
        return NOUNS[self.dice.weighted(dict(shares))][0]

    def _unused(self, nouns: tuple[str, ...]) -> str:
        """One of the nouns whose last word has not been used."""
        for _ in range(50):
            noun = self.dice.pick(nouns)
            if _head(noun) not in self.nouns:
                break
        self.nouns.add(_head(noun))
        return noun

    def _being(self) -> Thing:
        return self.thing(self.dice.weighted(BEINGS))

    def _good(self) -> Thing:
        return self.thing(self.dice.weighted(GOODS))

    def _owned(self, noun: str, kind: str, pronoun: str, possessive: str, owner: Thing | None = None) -> Thing:
        """What belongs to somebody; without an `owner`, to somebody new."""
        if owner is None and self.dice.chance(0.25):
            name = f"{self.dice.pick(things.OWNERS)}'s {noun}"
            return Thing(name, (f"my {name}", name, f"my {name}", f"our {name}"), kind, pronoun, possessive, noun)
        if owner is None:
            whose = self.dice.weighted({"man": 3, "woman": 4, "person": 4, "animal": 1})
            side = f"{self.dice.pick(things.SIDES[:8])} " if self.dice.chance(0.25) else ""
            owner = Thing(side + self._unused(NOUNS[whose][0]), (), whose)
        if owner.name.count(" ") > 1:  # "the cape of the man in the red coat"
            name = f"{noun} of {definite(owner.name)}"
            return Thing(name, (f"the {name}",), kind, pronoun, possessive, noun)
        name = f"{owner.name}'" if owner.name.endswith("s") else f"{owner.name}'s"
        said = (definite(f"{name} {noun}"),) * 3 + (f"the {noun} of {definite(owner.name)}",)
        return Thing(f"{name} {noun}", said, kind, pronoun, possessive, noun)

    def _part(self, owner: Thing | None = None) -> Thing:
        """A part of a person or an animal, or something worn."""
        animal = owner.kind in ("animal", "herd") if owner else self.dice.chance(0.15)
        if animal:
            kind, noun = "part", self._unused(things.ANIMAL_PARTS + things.ANIMAL_PAIRS)
        elif self.dice.chance(0.65):
            kind, noun = "clothes", self._unused(things.CLOTHES + things.PAIRS)
        else:
            kind, noun = "part", self._unused(things.BODY + things.BODY_PAIRS)
        pronoun, possessive = ("them", "their") if is_plural(noun) else ("it", "its")
        if owner is None and animal:
            owner = Thing(self._unused(things.ANIMALS), (), "animal")
        if owner is None and kind == "part" and self.dice.chance(0.4):
            said = (f"my {noun}", f"the {noun}", f"her {noun}", f"his {noun}")
            return Thing(noun, said[:2], kind, pronoun, possessive, noun)
        return self._owned(noun, kind, pronoun, possessive, owner)

    def _place(self) -> tuple[str, str]:
        """Where something new goes: as the true edit says it, and the same."""
        way = self.dice.weighted({"corner": 4, "beside": 4, "upon": 3, "inside": 1})
        if way == "corner":
            corner = self.dice.pick(things.CORNERS)
            return corner, corner
        prepositions = {"beside": things.BESIDE, "upon": things.UPON, "inside": things.INSIDE}[way]
        preposition = self.dice.pick(prepositions)
        other = self.thing(self.dice.weighted(BEINGS | GOODS if way == "beside" else GOODS))
        return f"{preposition} {definite(other.name)}", f"{preposition} {self.dice.pick(other.said)}"

    def _fresh(self) -> Idea:
        """An idea that stands for itself."""
        if self.trade and self.dice.chance(0.75):
            return self._errand()
        shares = {form: share for form, share in SHARES.items() if form not in self.forms or form not in ONCE}
        form = self.dice.weighted(shares)
        self.forms.add(form)
        return getattr(self, f"_{form}")()

    def _errand(self) -> Idea:
        """One of the trade's errands, none of them twice."""
        errands = trades.ERRANDS[self.trade]
        left = [number for number in range(len(errands)) if number not in self.errands] or list(range(len(errands)))
        number = self.dice.pick(left)
        self.errands.add(number)
        form, subject, goal, _ = errands[number]
        drawn = {
            blank: self._unused(trades.BLANKS[blank.rstrip("2")])
            for blank in re.findall(r"{(\w+)}", f"{subject} {goal} {' '.join(errands[number][3])}")
            if blank.rstrip("2") in trades.BLANKS
        }
        said, goal = subject.format_map(drawn), goal.format_map(drawn)
        name = _without_article(said)
        fills: dict[str, str | tuple[str, ...]] = dict(drawn)
        if form in ("text", "caption"):
            fills |= {"q": _quoted(goal), "at": f"at the {subject.split()[0]}"}
        elif form == "wear":
            goal = goal if goal == "her" or self.trade == "retouching" else definite(_without_article(goal))
            fills["o"], goal = goal, f"on {goal.removeprefix('my ')}"
        elif form in ("replace", "restyle", "crop"):
            whole, goal = goal, _without_article(goal)
            fills |= {"g": with_article(whole) if form == "replace" else whole, "g-": goal}
        new = form in ("add", "wear")
        own = said != name or new or subject.startswith("{kin}")
        these = (f"those {name}", f"these {name}") if is_plural(name) else (f"that {name}", f"this {name}")
        ways_to_say = (said,) if own else (f"the {name}",) * 6 + (name,) * 4 + these + (f"my {name}",)
        if name == PHOTO.name:
            thing = PHOTO
        else:
            pronoun, possessive = ("them", "their") if is_plural(name) else ("it", "its")
            kind = "readable" if form in ("text", "caption") else "animal" if form == "pose" else "object"
            thing = Thing(name, ways_to_say, kind, pronoun, possessive)
        stays = form not in ("remove", "replace", "crop", "light", "restyle", "background") and thing is not PHOTO
        return Idea(
            form, thing, goal, (trades.ways_of(self.trade, number),), fills=fills, left=thing if stays else None
        )

    # One method for each form: draws the subject where none is given, and the goal.

    def _add(self, near: Thing | None = None) -> Idea:
        new = self.new_thing(self.dice.weighted({"": 5, **BEINGS, **GOODS}))
        if near is not None:
            preposition = self.dice.pick(things.BESIDE + things.UPON[:2])
            goal = f"{preposition} {definite(near.name)}"
            fills = {"g": f"{preposition} {definite(near.name)}", "it": f"{preposition} {near.pronoun}"}
            return Idea("add", new, goal, ("add",), "there", fills, new)
        if self.dice.chance(0.3):
            return Idea("add", new, "in the picture", ("add here",), left=new)
        goal, said = self._place()
        return Idea("add", new, goal, ("add",), fills={"g": said}, left=new)

    def _wear(self, owner: Thing | None = None) -> Idea:
        noun = self._unused(things.WEARABLE)
        name = f"{self.dice.pick(things.COLORS)} {noun}" if self.dice.chance(0.4) else noun
        pronoun = "them" if is_plural(noun) else "it"
        new = Thing(name, (with_article(name),), "clothes", pronoun)
        wearer = owner or self._being()
        fills = {"o": (definite(wearer.name),) if owner else wearer.said, "it": wearer.pronoun}
        return Idea("wear", new, f"on {definite(wearer.name)}", ("wear",), "there" if owner else "", fills, new)

    def _remove(self) -> Idea:
        way = self.dice.weighted({"flaw": 3, "being": 4, "good": 5, "part": 1.5, "text": 0.3})
        if way == "flaw":
            noun = self._unused(things.FLAWS)
            where = self.dice.weighted({"": 4, "on": 3, "where": 2})
            if where == "on":
                other = self.dice.pick((self._part, self._good))()
                preposition = self.dice.pick(("on", "from", "on", "in"))
                kept = "on" if preposition == "from" else preposition
                name = f"{noun} {kept} the {other.name}"
                said = tuple(f"the {noun} {preposition} {each}" for each in other.said)
            else:
                name = f"{noun} {self.dice.pick(things.WHERE)}" if where else noun
                said = (
                    f"the {name}",
                    f"the {name}",
                    *((f"those {name}", f"all the {name}") if is_plural(noun) else (f"that {name}",)),
                )
            return Idea("remove", Thing(name, said, "flaw"), "nothing", ("remove", "remove", "remove flaw"))
        if way == "text":
            other = self.thing("readable")
            name = f"text on the {other.name}"
            return Idea("remove", Thing(name, (f"the {name}",), "flaw"), "nothing", ("remove",))
        if way == "being" and self.dice.chance(0.08):
            name = self.dice.pick(
                ("everyone in the background", "everybody else", "everyone behind us", "everyone else")
            )
            return Idea("remove", Thing(name, (name,), "people"), "nothing", ("remove",))
        if way == "good" and self.dice.chance(0.12):
            noun, other = self._unused(NOUNS[self.dice.pick(("food", "object"))][0]), self._good()
            where = self.dice.pick(("in", "on"))
            said = (
                f"the {noun} {where} {other.said[0]}",
                f"the {noun} from {other.said[0]}",
                f"the {noun} {where} {other.said[0]}",
            )
            return Idea(
                "remove", Thing(f"{noun} {where} {definite(other.name)}", said, "flaw"), "nothing", ("remove",)
            )
        subject = {"being": self._being, "good": self._good, "part": self._part}[way]()
        return Idea("remove", subject, "nothing", ("remove",))

    def _replace(self, subject: Thing | None = None) -> Idea:
        if subject is None and self.dice.chance(0.08):
            sky = Thing("sky", ("the sky",), "area")
            goal = f"{self.dice.pick(('sunset', 'starry', 'dramatic', 'clear blue', 'cloudy', 'stormy', 'pink'))} sky"
            return Idea("replace", sky, goal, ("replace",), fills={"g": with_article(goal), "g-": goal})
        kind = self.dice.weighted({"animal": 3, "man": 1, "woman": 1, "person": 1} | GOODS)
        subject = subject or (self._part() if self.dice.chance(0.1) else self.thing(kind))
        new_kind = kind if subject.kind not in NOUNS or self.dice.chance(0.3) else subject.kind
        new = self.new_thing(new_kind)
        if self.dice.chance(0.3) and NOUNS[new_kind][1]:
            new = replace(new, name=f"{self.dice.pick(NOUNS[new_kind][1])} {new.name}") if " " not in new.name else new
        new = replace(new, said=(f"the {new.name}",))
        words = [with_article(new.name)] * 3 + [new.name]
        fills = {"g": tuple(words), "g-": new.name}
        if (
            subject.kind != "part"
            and not is_plural(subject.name)
            and new.name.count(" ") == 1
            and self.dice.chance(0.12)
        ):
            look = new.name.split()[0]
            noun = (subject.part or subject.name).split()[-1]
            if (
                subject.name.endswith(noun) and look in NOUNS.get(new_kind, ((), ()))[1]
            ):  # "swap the sofa for a green one"
                goal = f"{look} {noun}"
                left = replace(new, name=goal, said=(f"the {goal}",))
                return Idea(
                    "replace",
                    subject,
                    goal,
                    ("replace",),
                    fills={"g": with_article(f"{look} one"), "g-": goal},
                    left=left,
                )
        return Idea("replace", subject, new.name, ("replace",), fills=fills, left=new)

    def _content(self, subject: Thing | None = None) -> Idea:
        what = self.dice.weighted({"screen": 4, "clock": 2, "pattern": 4, "filling": 1})
        if what == "screen":
            noun = self._unused(
                ("laptop", "computer", "tv", "phone", "tablet", "painting", "monitor", "picture", "billboard", "box")
            )
            subject = Thing(noun, (f"the {noun}",), "device")
            if self.dice.chance(0.3):
                side = self.dice.pick(things.SIDES[:7])
                subject = Thing(f"{side} {noun}", (f"the {side} {noun}",), "device")
            fills = {"k": self.dice.pick(("content", "content", "screen", "display", "picture"))}
            return Idea("content", subject, self.dice.pick(things.SIGHTS), ("content", "content screen"), fills=fills)
        if what == "clock":
            noun = self.dice.pick(("clock", "watch", "wall clock", "microwave"))
            subject = Thing(noun, (f"the {noun}",), "device")
            fills = {"k": "display" if noun == "microwave" else "time"}
            return Idea("content", subject, self.dice.pick(things.TIMES), ("content",), fills=fills)
        if what == "filling":
            noun = self._unused(("pizza", "sandwich", "cake", "burger", "bowl", "salad", "taco"))
            fills = {"k": self.dice.pick(("topping", "filling", "content"))}
            return Idea(
                "content",
                Thing(noun, (f"the {noun}",), "food"),
                self.dice.pick(things.FILLINGS),
                ("content",),
                fills=fills,
            )
        subject = (
            self._part() if self.dice.chance(0.4) else self.thing(self.dice.pick(("clothes", "furniture", "object")))
        )
        fills = {"k": self.dice.pick(("pattern", "pattern", "print", "content", "design"))}
        return Idea("content", subject, self.dice.pick(things.PATTERNS), ("content",), fills=fills)

    def _recolor(self, subject: Thing | None = None) -> Idea:
        if subject is None and "photo recolor" not in self.forms and self.dice.chance(0.05):
            self.forms |= {"photo recolor", "restyle"}
            return Idea("recolor", PHOTO, "full color", ("recolor photo",))
        if subject is None:
            way = self.dice.weighted({"part": 4, "good": 6, "animal": 1, "area": 1.2, "house part": 1})
            subject = self._part() if way == "part" else self._good() if way == "good" else self.thing(way)
        how = self.dice.weighted({"": 10, "open": 0.7, "alike": 1.2, "shade": 0.5})
        if how == "open":
            return Idea("recolor", subject, "another color", ("recolor openly",), left=subject)
        if how == "alike":
            other = self._good() if self.dice.chance(0.7) else self._part()
            return Idea(
                "recolor",
                subject,
                f"the color of {definite(other.name)}",
                ("recolor alike",),
                fills={"m": other.said},
                left=subject,
            )
        shades = things.HAIR_COLORS if subject.part in ("hair", "beard", "moustache") else things.COLORS
        goal = self.dice.pick(things.SHADES if how == "shade" else shades)
        return Idea("recolor", subject, goal, ("recolor",), left=subject)

    def _restyle(self) -> Idea:
        goal = self.dice.pick(things.STYLES)
        nouns = {"painting", "watercolor", "sketch", "cartoon", "drawing", "mosaic", "photograph", "polaroid", "novel",
                 "postcard", "render", "tale"}  # fmt: skip
        style = with_article(goal) if goal.split()[-1] in nouns else f"{goal} style"
        fills = {"g style": style, "g look": with_article(f"{goal} look")}
        return Idea("restyle", PHOTO, goal, ("restyle",), fills=fills)

    def _background(self) -> Idea:
        if self.dice.chance(0.3):
            goal = self.dice.pick(things.PLAIN_GROUNDS)
            said = (goal,) * 3 + (with_article(f"{goal} background") if not goal.startswith("a ") else goal,)
        else:
            goal = self.dice.pick(things.SCENERY)
            if self.dice.chance(0.25):
                goal = f"{goal} {self.dice.pick(things.SCENERY_TIMES)}"
            said = (with_article(goal), with_article(goal), goal, f"the {goal}")
        fills = {"g": said, "on": self.dice.pick(("in", "in", "on", "at", "in front of")),
                 "him": self.dice.pick(("it", "everything", "us", "them", "me", "him", "her"))}  # fmt: skip
        return Idea("background", BACKGROUND, goal, ("background",), fills=fills)

    def _lit(self) -> Thing:
        """What light falls on: mostly the whole photo."""
        if self.dice.chance(0.8):
            return PHOTO
        name = self._unused(
            ("face", "faces", "room", "sky", "foreground", "scene", "bride", "kitchen", "shadows", "product")
        )
        return Thing(name, (f"the {name}",), "area")

    def _light(self) -> Idea:
        return Idea("light", PHOTO, self.dice.pick(things.LIGHTS), ("light",))

    def _brightness(self) -> Idea:
        how = self.dice.weighted({"": 5, "better": 3, "brighten": 2, "darken": 1})
        subject = PHOTO if how == "better" else self._lit()
        if how:
            goal, key = {
                "better": ("better", "better light"),
                "brighten": ("brighter", "brighten"),
                "darken": ("darker", "darken"),
            }[how]
            return Idea("brightness", subject, goal, (key,))
        return Idea("brightness", subject, self.dice.pick(things.BRIGHTNESS), ("brightness",))

    def _switch(self) -> Idea:
        name = self._unused(
            ("lights", "lamp", "tv", "headlights", "ceiling light", "street lamps", "candles", "fireplace")
        )
        return Idea("switch", Thing(name, (f"the {name}",), "device"), self.dice.pick(("on", "off")), ("switch",))

    def _material(self, subject: Thing | None = None) -> Idea:
        kinds = {kind: share for kind, share in GOODS.items() if kind not in ("plant",)}
        subject = subject or self.thing(self.dice.weighted(kinds | {"animal": 0.7, "house part": 0.7}))
        return Idea("material", subject, self.dice.pick(things.MATERIALS), ("material",), left=subject)

    def _text(self, subject: Thing | None = None) -> Idea:
        goal = self.dice.pick(things.WORDS_SHOWN)
        if self.dice.chance(0.15):
            goal = goal.lower()
        how = self.dice.weighted({"": 7, "at": 1.5, "from": 1.5})
        if how == "at" and subject is None:
            spot = self._unused(("top", "bottom", "top left corner", "bottom right corner", "center", "left side"))
            preposition = "in" if "corner" in spot or spot == "center" else "on" if "side" in spot else "at"
            at = (f"{preposition} the {spot}", f"{preposition} the {spot} of the photo")
            subject = Thing(f"{spot} of the picture", (f"the {spot}",), "photo")
            return Idea("caption", subject, goal, ("text at",), fills={"at": at, "q": _quoted(goal)})
        if subject is None and self.dice.chance(0.2):
            subject = self._owned(
                self._unused(("shirt", "t-shirt", "jersey", "hat", "cap", "jacket")), "clothes", "it", "its"
            )
        subject = subject or self.thing("readable")
        if how == "from":
            old = self.dice.pick(things.WORDS_SHOWN)
            return Idea(
                "text", subject, goal, ("text from",), fills={"q": _quoted(goal), "old": _quoted(old)}, left=subject
            )
        return Idea("text", subject, goal, ("text",), fills={"q": _quoted(goal)}, left=subject)

    def _pose(self, subject: Thing | None = None) -> Idea:
        subject = subject or self._being()
        animal = subject.kind in ("animal", "herd")
        all_poses = things.poses(things.ANIMAL_POSES if animal else things.PERSON_POSES)
        do, goal = self.dice.pick(all_poses)
        if self.dice.chance(0.12):  # one pose of two halves, which is one edit
            other = self.dice.pick([pose for pose in all_poses if pose[1] != goal])
            do, goal = f"{do} and {other[0]}", f"{goal} and {other[1]}"
        for owner in (" his ", " its "):
            do = do.replace(owner, f" {subject.possessive} ")
            goal = goal.replace(owner, f" {subject.possessive} ")
        return Idea("pose", subject, goal, ("pose",), fills={"do": do}, left=subject)

    def _state(self, subject: Thing | None = None) -> Idea:
        if subject is None and self.dice.chance(0.5):
            kinds = "door window microwave laptop umbrella box curtains gate book suitcase oven fridge".split()
            noun = self._unused((self.dice.pick(kinds),))
            goal = self.dice.pick(("open", "closed"))
            subject = Thing(noun, (f"the {noun}",), "outside", "them" if is_plural(noun) else "it")
            return Idea("state", subject, goal, ("state", f"state {goal}"), left=subject)
        subject = subject or self._good()
        return Idea("state", subject, self.dice.pick(things.STATES), ("state",), left=subject)

    def _move(self, subject: Thing | None = None) -> Idea:
        subject = subject or (self._being() if self.dice.chance(0.4) else self._good())
        if self.dice.chance(0.55):
            return Idea("move", subject, self.dice.pick(things.TARGETS), ("move",), left=subject)
        preposition = self.dice.pick(things.BESIDE + things.UPON[:2])
        other = self._good()
        said = tuple(f"{preposition} {each}" for each in other.said)
        return Idea(
            "move", subject, f"{preposition} {definite(other.name)}", ("move",), fills={"g": said}, left=subject
        )

    def _resize(self, subject: Thing | None = None) -> Idea:
        if subject is None:
            way = self.dice.pick(("good", "good", "being", "part", "logo"))
            makers: dict[str, Callable[[], Thing]] = {"good": self._good, "being": self._being, "part": self._part}
            subject = makers.get(way, self._logo)()
        goal = self.dice.pick(things.BIGGER)
        other = {"bigger": ("enlarge",), "larger": ("enlarge",), "smaller": ("shrink",)}.get(goal, ())
        return Idea("resize", subject, goal, ("resize", *other), left=subject)

    def _logo(self) -> Thing:
        name = self._unused(("logo", "text", "title", "headline", "head", "moon", "sign"))
        return Thing(name, (f"the {name}",), "object")

    def _look(self) -> Idea:
        of_all = {"photo": 4, "part": 3, "blur": 1.5, "sharpen": 1, "smooth": 1}
        of_some = {"whiten": 0.6, "straighten": 1, "hair": 1, "saturate": 0.5, "contrast": 0.8}
        how = self.dice.weighted(of_all | of_some)
        if how == "photo" and "photo look" not in self.forms:
            self.forms.add("photo look")
            return Idea("look", PHOTO, self.dice.pick(things.PHOTO_LOOKS), ("look",))
        if how in ("saturate", "contrast") and how not in self.forms:
            self.forms.add(how)
            goal = {"saturate": "more saturated colors", "contrast": "more contrast"}[how]
            return Idea("give", PHOTO, goal, (how,))
        if how == "hair":
            subject = self._owned(self._unused(("hair",)), "part", "it", "its")
            goal = self.dice.pick(things.HAIR_LOOKS)
            return Idea("resize" if goal in things.HAIR_LENGTHS else "restyle", subject, goal, ("look",), left=subject)
        if how in ("blur", "smooth", "whiten", "straighten", "sharpen"):
            nouns, goal = {
                "blur": (("background", "license plate", "faces", "people in the background", "foreground", "kids' faces", "logo", "house number"), "blurred"),
                "sharpen": (("eyes", "face", "photo", "text", "foreground", "faces", "product", "label"), "sharper"),
                "smooth": (("skin", "face", "water", "shadows", "wall", "complexion"), "smoother"),
                "whiten": (("teeth", "shirt", "walls", "plate", "eyes", "smile", "paper"), "whiter"),
                "straighten": (("photo", "horizon", "tie", "building", "picture frame", "document", "bottle", "tower"), "straight"),
            }[how]  # fmt: skip
            noun = self._unused(nouns)
            if noun == "photo":
                return Idea("look", PHOTO, goal, (how,))
            pronoun = "them" if is_plural(noun) else "it"
            mine = (f"my {noun}",) if noun in ("teeth", "skin", "face", "eyes", "smile", "tie", "complexion") else ()
            return Idea("look", Thing(noun, (f"the {noun}",) * 3 + mine, "area", pronoun), goal, (how,))
        subject = (
            self.thing("area") if self.dice.chance(0.3) else self._part() if self.dice.chance(0.5) else self._good()
        )
        return Idea("look", subject, self.dice.pick(things.PART_LOOKS), ("look",), left=subject)

    def _give(self) -> Idea:
        return Idea("give", PHOTO, self.dice.pick(things.PHOTO_GIVEN), ("give",))

    def _crop(self) -> Idea:
        if self.dice.chance(0.55):
            return Idea("crop", PHOTO, self.dice.pick(things.SHAPES), ("crop",))
        subject = self._being() if self.dice.chance(0.6) else self._good()
        return Idea("crop", PHOTO, subject.name, ("crop around",), fills={"g": subject.said})

    def _linked(self, before: Idea) -> Idea | None:
        """An idea that hangs on the one before, or `None` where nothing can."""
        links: dict[str, float] = {}
        left = before.left
        if left is not None:
            links |= {"it": 4} if before.form == "wear" else {"it": 4, "there": 1}
        if left is not None and left.kind in LIVING and left.kind != "herd":
            links |= {"owned": 2}
        if before.form in TWINS and before.subject.kind not in ("photo", "background") and before.link in ("", "twin"):
            links |= {"twin": 2.5}
        if before.form in CONTRASTS and before.link in ("", "contrast") and before.wordings[0] == before.form:
            links |= {"contrast": 2}
        if not links:
            return None
        link = self.dice.weighted(links)
        if link == "twin":
            return self._twin(before)
        if link == "contrast" or left is None:  # of nothing left there is neither more nor a part
            idea = getattr(self, f"_{before.form}")()
            fits = idea.wordings[0] == before.form and idea.goal != before.goal
            return replace(idea, link="contrast") if fits else idea
        if link == "it":
            return self._more(before, left)
        if link == "there":
            if left.kind in LIVING and self.dice.chance(0.5):
                return self._wear(left)
            return self._add(left)
        part = self._part(left)
        forms = ("recolor", "resize", "replace", "remove") if part.kind == "clothes" else ("recolor", "resize", "look")
        form = self.dice.pick(forms)
        if form == "remove":
            idea = Idea("remove", part, "nothing", ("remove",))
        elif form == "look":
            idea = Idea("look", part, self.dice.pick(things.PART_LOOKS), ("look",), left=part)
        else:
            idea = getattr(self, f"_{form}")(part)
        return replace(idea, link="owned", fills={**idea.fills, "owner": left.possessive})

    def _twin(self, before: Idea) -> Idea:
        """The same for another thing of the same sort."""
        if before.form == "add":
            new = self.new_thing(before.subject.kind)
            return replace(before, subject=new, left=new, link="twin")
        same = before.subject.kind if before.subject.kind in NOUNS else "object"
        part = bool(before.subject.part) or before.subject.kind == "part"
        subject = self._part() if part else self.thing(same)
        return replace(before, subject=subject, left=before.left and subject, link="twin")

    def _more(self, before: Idea, left: Thing) -> Idea | None:
        """Something else about the thing that the idea before was about, or left behind."""
        thing = replace(left, said=(f"the {left.name}",)) if before.form in ("add", "wear") else left
        forms = {"recolor": 3, "resize": 2, "material": 1.5, "move": 1}
        if thing.kind in LIVING:
            forms = {"pose": 4, "resize": 1, "move": 1, "recolor": 0.6}
        elif thing.kind in ("part", "area"):
            forms = {"recolor": 3, "resize": 1}
        elif thing.kind == "readable":
            forms = {"text": 3, "recolor": 2, "resize": 1}
        forms.pop(before.form, None)
        if before.form == "add":
            forms.pop("move", None)
        idea = getattr(self, f"_{self.dice.weighted(forms)}")(thing)
        return replace(idea, link="it") if idea.subject is thing else idea


def _without_article(said: str) -> str:
    return re.sub(r"^(a|an|the|my|some) ", "", said)


def _head(noun: str) -> str:
    return noun.split(" of ")[0].split()[-1].removesuffix("s")


def _quoted(text: str) -> tuple[str, ...]:
    marks = (f'"{text}"', f"“{text}”", f'"{text}"')
    return marks + ((f"'{text}'", f"'{text}'") if "'" not in text else ()) + (text,)


def _many(noun: str) -> str:
    """The plural of a noun."""
    *before, head = noun.split()
    odd = {"man": "men", "woman": "women", "person": "people", "child": "children", "knife": "knives", "goose": "geese",
           "shelf": "shelves", "bookshelf": "bookshelves", "wolf": "wolves", "calf": "calves", "mouse": "mice"}  # fmt: skip
    if head in odd or head in ("sheep", "fish", "deer"):
        many = odd.get(head, head)
    elif head.endswith(("s", "x", "ch", "sh")):
        many = f"{head}es"
    elif head.endswith("y") and head[-2] not in "aeiou":
        many = f"{head[:-1]}ies"
    elif head.endswith("man"):
        many = f"{head[:-3]}men"
    else:
        many = f"{head}s"
    return " ".join([*before, many])
