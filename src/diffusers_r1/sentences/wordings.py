"""How people ask for each kind of edit, and what else they say while they do.

A form is an action with one kind of goal: its wordings have places for the subject as it is said, `{s}`, and for the
goal, `{g}`. What each form means does not depend on the wording. The words themselves are lists in `data/*.txt`.
"""

from __future__ import annotations

from .words import read_lists


# Form -> the action, and the one wording in which an image editor is asked for it.
FORMS: dict[str, tuple[str, str]] = {
    "add": ("add", "Add {s} {g}"),
    "wear": ("add", "Add {s} {g}"),
    "remove": ("remove", "Remove {s}"),
    "replace": ("replace", "Replace {s} with {g}"),
    "content": ("replace", "Replace what is on {s} with {g}"),
    "recolor": ("recolor", "Change the color of {s} to {g}"),
    "restyle": ("restyle", "Change the style of {s} to {g}"),
    "background": ("background", "Change the background to {g}"),
    "light": ("lighting", "Give {s} {g}"),
    "brightness": ("lighting", "Make the lighting of {s} {g}"),
    "switch": ("lighting", "Turn {g} {s}"),
    "material": ("material", "Change the material of {s} to {g}"),
    "caption": ("text", 'Write "{g}" at {s}'),
    "text": ("text", 'Change the text on {s} to "{g}"'),
    "pose": ("pose", "Change the pose of {s} to {g}"),
    "state": ("pose", "Make {s} {g}"),
    "move": ("move", "Move {s} {g}"),
    "resize": ("resize", "Make {s} {g}"),
    "look": ("adjust", "Make {s} {g}"),
    "give": ("adjust", "Give {s} {g}"),
    "crop": ("crop", "Crop {s} to {g}"),
}
ACTIONS = tuple(dict.fromkeys(action for action, _ in FORMS.values()))

WORDINGS = read_lists("wordings.txt")
# What is said beside: polite beginnings, greetings, reasons, what is to be kept, what is taken back.
CHATTER = read_lists("chatter.txt")

# Wordings that begin with a verb which a list can share: "make the car blue, the van red and the bus green".
SHARED_VERBS = "make turn paint replace swap move change put give color let add dye".split()
# A wording that begins with one of these can stand after "can you".
VERBS = frozenset(
    "add put place insert draw include throw stick photoshop edit give remove delete erase take get lose cut clean clear"
    " make crop wipe eliminate hide drop ditch replace change swap turn substitute exchange transform trade convert"
    " switch use set show paint recolor color dye tint colorize bring apply render redraw restyle light relight bathe"
    " enhance improve fix brighten lighten raise darken tone lower cover write print decorate correct open shut close"
    " move shift drag reposition relocate slide push resize scale enlarge increase blow shrink reduce blur defocus sharpen"
    " smooth soften even whiten bleach straighten level saturate boost trim zoom have let dress do bring label heal retouch touch".split()
)
