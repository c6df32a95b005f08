"""How people ask for edits in the scenes world, and how the agents write the same edits down.

An explicit request names its subject by colour and shape and can be carried out by the editor as it stands. An indirect
one points: by place, by colour, by shape, by elimination, by comparison, or it corrects itself half-way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ..plan import Edit
from .world import BACKGROUNDS, COLORS, PLACES, SHAPES, Item, Scene


ACTIONS = ("recolor", "remove", "add", "replace", "background")

EXPLICIT_WORDINGS = {
    "recolor": (
        "make {subject} {goal}",
        "recolor {subject} to {goal}",
        "change {subject} to {goal}",
        "paint {subject} {goal}",
        "turn {subject} {goal}",
    ),
    "remove": (
        "remove {subject}",
        "delete {subject}",
        "erase {subject}",
        "take away {subject}",
        "get rid of {subject}",
    ),
    "add": (
        "add {subject} at the {goal}",
        "put {subject} in the {goal}",
        "place {subject} at the {goal}",
        "draw {subject} in the {goal}",
    ),
    "replace": (
        "turn {subject} into a {goal}",
        "replace {subject} with a {goal}",
        "swap {subject} for a {goal}",
        "change {subject} into a {goal}",
    ),
    "background": (
        "make the background {goal}",
        "change the background to {goal}",
        "set the background to {goal}",
        "turn the background {goal}",
    ),
}
JOINTS = (", ", " and ", ", then ", ". ", ", and ")
CHATTER_BEFORE = (
    "hi there, could you please",
    "hello, i would love it if you could",
    "for my next post,",
    "quick favor:",
    "if you have a minute, please",
)
CHATTER_AFTER = (
    ", thanks a lot",
    ", that would be lovely",
    ", my friends will like it",
    ", thank you so much",
    ", please",
)
CORRECTIONS = ("{wrong}, no, {right}", "{wrong}, sorry, i mean {right}", "{wrong}, or better {right}")
POINTERS = ("place", "color", "shape", "elimination", "comparison", "correction")
IN_THE_SECOND_PICTURE = (
    "the color of the shape in the second picture",
    "the same color as the shape in the second picture",
)


@dataclass(frozen=True)
class Request:
    """One thing asked for: as it was said, what it means, and how it reads when nothing in it is resolved.

    Args:
        text (`str`): A part of the instruction.
        edits (`tuple` of [`Edit`]): What it means; more than one when it points by elimination.
        literal (`tuple` of [`Edit`]): The same with subject and goal as said; equal to `edits` for an explicit one.
        pointer (`str`): How it points, one of `POINTERS`, `"reference"` (at a second picture), or `"explicit"`.
    """

    text: str
    edits: tuple[Edit, ...]
    literal: tuple[Edit, ...]
    pointer: str = "explicit"


def sub_request(edit: Edit) -> str:
    """The sub-request that asks an editor for one edit: the canonical wording of its action."""
    return EXPLICIT_WORDINGS[edit.action][0].format(subject=_with_article(edit), goal=edit.goal)


def apply_edits(scene: Scene, edits: tuple[Edit, ...] | list[Edit]) -> Scene:
    """The scene after explicit edits, done one after the other.

    Raises:
        ValueError: If an edit names what the scene does not have.
    """
    for edit in edits:
        if edit.action == "background":
            scene = Scene(scene.cells, edit.goal)
            continue
        item = Item(*edit.subject.split(" "))
        if edit.action == "add":
            scene = scene.with_cell(PLACES.index(edit.goal), item)
            continue
        after = {
            "recolor": Item(edit.goal, item.shape),
            "replace": Item(item.color, edit.goal),
            "remove": None,
        }[edit.action]
        scene = scene.with_cell(scene.place_of(item), after)
    return scene


def read_request(text: str) -> Edit | None:
    """The explicit edit that a sub-request asks for, in any of its action's wordings: `read_request(sub_request(e)) == e`.

    Returns:
        [`Edit`], or `None` where the text is no explicit request about scenes.
    """
    said = " ".join(text.lower().rstrip(" .;,").split())
    for action, wordings in _READINGS.items():
        for wording in wordings:
            if found := wording.fullmatch(said):
                return Edit(action, **{"subject": "background", "goal": "nothing", **found.groupdict()})
    return None


def _readings() -> dict[str, list[re.Pattern[str]]]:
    """The wordings of each action as patterns that take nothing but names of the scenes world, so that no two fit one text."""
    color, shape, place, background = ("|".join(names) for names in (COLORS, SHAPES, PLACES, BACKGROUNDS))
    goals = {"recolor": color, "replace": shape, "add": place, "background": background}
    return {
        action: [
            re.compile(
                wording.format(
                    subject=rf"(?:the |an? )?(?P<subject>(?:{color}) (?:{shape}))",
                    goal=f"(?P<goal>{goals.get(action)})",
                )
            )
            for wording in wordings
        ]
        for action, wordings in EXPLICIT_WORDINGS.items()
    }


_READINGS = _readings()


def place_of_edit(scene: Scene, edit: Edit) -> int | None:
    """Which of the nine cells, in the order of `PLACES`, or with 9 the background, an explicit edit changes; `None` where the
    scene does not show its subject."""
    if edit.action == "background":
        return len(PLACES)
    if edit.action == "add":
        return PLACES.index(edit.goal)
    item = Item(*edit.subject.split(" "))
    return scene.place_of(item) if item in scene.cells else None


class Author:
    """Invents requests about one scene that do not get in each other's way.

    Each request is about cells of its own, and no edit makes an item of which the scene holds or held another one, so
    that every name stays clear whatever the order of the edits.

    Args:
        scene ([`Scene`]): What the requests are about.
        random (`numpy.random.Generator`): The source of all choices.
    """

    def __init__(self, scene: Scene, random: np.random.Generator):
        self.scene = scene
        self.random = random
        self.untouched = list(scene.items)
        self.empty = [place for place, item in zip(PLACES, scene.cells) if item is None]
        self.taken = set(scene.items)
        self.background_is_free = True

    def explicit(self) -> Request | None:
        """A request that names everything by name; `None` when the action drawn has no subject left."""
        edit = self._edit(self._pick(ACTIONS))
        return edit and Request(self._word(edit), (edit,), (edit,))

    def indirect(self, pointer: str, most_edits: int) -> Request | None:
        """A request that points as `pointer` says; `None` when the scene offers no such request of `most_edits` edits."""
        if pointer == "elimination":
            return self._everything_but(most_edits)
        if pointer == "comparison":
            return self._same_color_as()
        if pointer == "correction":
            return self._corrected()
        candidates = {item: said for item in self.untouched if (said := self._reference(item, pointer))}
        if not candidates:
            return None
        edit = self._edit(self._pick(("recolor", "remove", "replace")), subject=self._pick(list(candidates)))
        if edit is None:
            return None
        said = candidates[Item(*edit.subject.split(" "))]
        literal = Edit(edit.action, said, edit.goal)
        return Request(self._word(literal), (edit,), (literal,), pointer)

    def color_of_reference(self) -> Request | None:
        """A request to give a shape the color that a second picture will show; which color that is, the scene leaves open."""
        edit = self._edit("recolor")
        if edit is None:
            return None
        literal = Edit("recolor", edit.subject, self._pick(IN_THE_SECOND_PICTURE))
        return Request(self._word(literal), (edit,), (literal,), "reference")

    def _edit(self, action: str, subject: Item | None = None) -> Edit | None:
        if action == "background":
            if not self.background_is_free:
                return None
            self.background_is_free = False
            return Edit("background", "background", self._pick([b for b in BACKGROUNDS if b != self.scene.background]))
        if action == "add":
            fresh = [Item(c, s) for c in COLORS for s in SHAPES if Item(c, s) not in self.taken]
            if not self.empty:
                return None
            item, place = self._pick(fresh), self._pick(self.empty)
            self.empty.remove(place)
            self.taken.add(item)
            return Edit("add", str(item), place)
        if subject is None:
            if not self.untouched:
                return None
            subject = self._pick(self.untouched)
        if action == "remove":
            self.untouched.remove(subject)
            return Edit("remove", str(subject), "nothing")
        if action == "recolor":
            outcomes = [Item(color, subject.shape) for color in COLORS if Item(color, subject.shape) not in self.taken]
        else:
            outcomes = [Item(subject.color, shape) for shape in SHAPES if Item(subject.color, shape) not in self.taken]
        if not outcomes:
            return None
        outcome = self._pick(outcomes)
        self.untouched.remove(subject)
        self.taken.add(outcome)
        return Edit(action, str(subject), outcome.color if action == "recolor" else outcome.shape)

    def _reference(self, item: Item, pointer: str) -> str | None:
        """How `item` is pointed at, or `None` where the words would fit another item too."""
        if pointer == "place":
            return f"shape at the {PLACES[self.scene.place_of(item)]}"
        if pointer == "color":
            alone = sum(other.color == item.color for other in self.scene.items) == 1
            return f"{item.color} one" if alone else None
        alone = sum(other.shape == item.shape for other in self.scene.items) == 1
        return item.shape if alone else None

    def _everything_but(self, most_edits: int) -> Request | None:
        items = self.scene.items
        if not 2 <= len(items) <= most_edits + 1 or len(self.untouched) < len(items):
            return None
        kept = self._pick(items)
        edits = tuple(Edit("remove", str(item), "nothing") for item in items if item != kept)
        self.untouched.clear()
        said = f"everything but the {kept}"
        literal = Edit("remove", said, "nothing")
        return Request(self._word(literal), edits, (literal,), "elimination")

    def _same_color_as(self) -> Request | None:
        models = [item for item in self.scene.items if self._reference(item, "shape")]
        pairs = [
            (item, model)
            for item in self.untouched
            for model in models
            if Item(model.color, item.shape) not in self.taken
        ]
        if not pairs:
            return None
        item, model = pairs[self.random.integers(len(pairs))]
        self.untouched.remove(item)
        self.taken.add(Item(model.color, item.shape))
        edit = Edit("recolor", str(item), model.color)
        literal = Edit("recolor", str(item), f"the same color as the {model.shape}")
        return Request(self._word(literal), (edit,), (literal,), "comparison")

    def _corrected(self) -> Request | None:
        edit = self._edit(self._pick(("recolor", "replace", "background", "add")))
        if edit is None:
            return None
        choices = {"recolor": COLORS, "replace": SHAPES, "background": BACKGROUNDS, "add": PLACES}[edit.action]
        wrong = self._pick([choice for choice in choices if choice != edit.goal])
        said = self._pick(CORRECTIONS).format(wrong=wrong, right=edit.goal)
        literal = Edit(edit.action, edit.subject, said)
        return Request(self._word(literal), (edit,), (literal,), "correction")

    def _word(self, edit: Edit) -> str:
        return self._pick(EXPLICIT_WORDINGS[edit.action]).format(subject=_with_article(edit), goal=edit.goal)

    def _pick(self, options):
        options = list(options)
        return options[self.random.integers(len(options))]


def _with_article(edit: Edit) -> str:
    if edit.subject.startswith("everything"):
        return edit.subject
    if edit.action == "add":
        return f"an {edit.subject}" if edit.subject.startswith("orange") else f"a {edit.subject}"
    return f"the {edit.subject}"
