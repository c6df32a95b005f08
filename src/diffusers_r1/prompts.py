"""What the agents are told: one conversation of two turns, the same for training, planning and annotation."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import records, schema
from .belongings import belongings
from .plan import Edit, EditPlan
from .tags import write_decomposition, write_sequence


FILE_NAME = "prompts.json"

DECOMPOSE = """\
Look at the picture and decompose the editing instruction below into single edits. Resolve everything that is said \
indirectly: name each subject so that somebody who has not read the instruction finds it in the picture, and write each \
goal out in full.

Answer in exactly this form, with three lists of the same length, separated by semicolons, item i of each belonging to \
edit i:
<think>what the picture shows and what the instruction refers to</think><action>one verb for each edit, such as add, \
remove, recolor, replace, move, restyle</action><subject>what is edited</subject><goal>what it is afterwards</goal>
Within an item, write \\: for a semicolon and \\[ for a less-than sign.

Instruction: {instruction}"""

EDITED = "Picture {number}, the one to edit:"
REFERENCE = "Picture {number}, for reference:"

SEQUENCE = """\
Now write each edit as one short, self-contained request to an image editor that sees the picture but has read none of \
this. Put them in the order in which they should be carried out: large changes such as the background first, details \
last. Answer in exactly this form, with \\: for a semicolon within a request:
<sequence>first request; second request</sequence>"""


def plain_text(text: str, control_tokens: Sequence[str]) -> str:
    """Somebody's words with a space in place of every control token, however it is hidden.

    Found are also those that appear once another one is gone (`<|im_<|im_end|>end|>`), and those in letters that some
    tokenizers take for others (a full-width `＜`): such words come out in plain letters.

    Args:
        text (`str`): An instruction, an answer of another model, an example: whatever a planner is shown.
        control_tokens (sequence of `str`): Of the planner's tokenizer; see [`~planners.control_tokens.control_tokens`].
    """
    if not control_tokens:
        return text
    control = re.compile("|".join(re.escape(token) for token in sorted(control_tokens, key=len, reverse=True)))
    normal = unicodedata.normalize("NFKC", text)
    text = normal if control.search(normal) else text
    while control.search(text):
        text = control.sub(" ", text)
    return text


@dataclass(frozen=True)
class Example:
    """A worked example, which a planner that was not trained for this is shown before it is asked.

    Args:
        instruction (`str`): What somebody asked for.
        edits (`tuple` of [`Edit`]): What a good decomposition of it is.
        requests (`tuple` of `str`): The sub-requests, in a good order.
        reasoning (`str`, defaults to `""`): What the picture shows and what the words refer to, as the answer begins.

    Raises:
        ValueError: If the edits or requests cannot be written in the agents' format.
    """

    instruction: str
    edits: tuple[Edit, ...]
    requests: tuple[str, ...]
    reasoning: str = ""

    def __post_init__(self):
        self.answers()

    def answers(self) -> tuple[str, str]:
        """What the two agents answer."""
        return write_decomposition(self.edits, self.reasoning), write_sequence(self.requests)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Example:
        """What `dataclasses.asdict` made of an example; a `ValueError` says what is wrong with it."""
        plan = EditPlan.from_dict(dict(data))
        return cls(plan.instruction, plan.edits, plan.requests, plan.reasoning)


@dataclass(frozen=True)
class Prompts:
    """The words of the two user turns.

    Args:
        decompose (`str`): The first turn; `{instruction}` in it stands for the user's instruction.
        sequence (`str`): The second turn, which follows the decomposition.
        system (`str`, defaults to `""`): A system message before both; left out when empty.
        edited, reference (`str`): What stands before the picture that is edited and before each of the others, where there
            are others; `{number}` stands for the picture's place, from 1. A picture alone is shown without words.
        examples (sequence of [`Example`], defaults to `()`): Worked examples, as a conversation before the question.

    Raises:
        ValueError: If one of them is no text, or `decompose` has no `{instruction}`.
    """

    decompose: str = DECOMPOSE
    sequence: str = SEQUENCE
    system: str = ""
    edited: str = EDITED
    reference: str = REFERENCE
    examples: tuple[Example, ...] = ()

    def __post_init__(self):
        for name in ("decompose", "sequence", "system", "edited", "reference"):
            schema.read(str, getattr(self, name), f"`{name}`")
        if "{instruction}" not in self.decompose:
            raise ValueError("The decomposition prompt has no {instruction} in it.")
        examples = (one if isinstance(one, Example) else Example.from_dict(one) for one in self.examples)
        object.__setattr__(self, "examples", tuple(examples))

    def first_turn(self, instruction: str, image: Any = None, references: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The messages that ask for a decomposition, as chat templates of `transformers` take them.

        Args:
            instruction (`str`): The user's instruction.
            image (*optional*): The picture, in whatever form the receiver takes; left out for a text-only planner.
            references (sequence, *optional*): Pictures that belong to it, in the same form. All are numbered then, and
                the planner is told that the first is the one to edit.
        """
        system = [{"role": "system", "content": [_text(self.system)]}] if self.system else []
        asked = _text(self.decompose.replace("{instruction}", instruction))
        shown = [] if image is None else self._pictures([image, *references])
        return [*system, *self._examples(), {"role": "user", "content": [*shown, asked]}]

    def second_turn(self, messages: list[dict[str, Any]], decomposition: str) -> list[dict[str, Any]]:
        """The messages that ask for the sub-requests: the first turn, its answer, and the question after it."""
        return [
            *messages,
            {"role": "assistant", "content": [_text(decomposition)]},
            {"role": "user", "content": [_text(self.sequence)]},
        ]

    def _pictures(self, pictures: list[Any]) -> list[dict[str, Any]]:
        parts = [{"type": "image", "image": picture} for picture in pictures]
        if len(parts) == 1:
            return parts
        words = [self.edited, *(self.reference for _ in parts[1:])]
        texts = [_text(word.replace("{number}", str(number))) for number, word in enumerate(words, 1)]
        return [part for both in zip(texts, parts) for part in both]

    def _examples(self) -> list[dict[str, Any]]:
        turns: list[dict[str, Any]] = []
        for example in self.examples:
            decomposition, sequence = example.answers()
            asked = {"role": "user", "content": [_text(self.decompose.replace("{instruction}", example.instruction))]}
            turns = self.second_turn([*turns, asked], decomposition)
            turns.append({"role": "assistant", "content": [_text(sequence)]})
        return turns

    def to_dict(self) -> dict[str, Any]:
        """The prompts as plain text and lists, ready for JSON; what is as it is by default is left out."""
        values = json.loads(json.dumps(asdict(self)))
        optional = {
            name for name in ("edited", "reference", "examples") if getattr(self, name) == getattr(Prompts, name)
        }
        return {name: value for name, value in values.items() if name not in optional}

    def save(self, folder: str | Path) -> None:
        """Write `folder/prompts.json`."""
        records.write_whole(Path(folder) / FILE_NAME, json.dumps(self.to_dict(), indent=2, ensure_ascii=False))

    @classmethod
    def load(cls, folder: str | Path) -> Prompts:
        """What `save` wrote to `folder`; the default prompts where there is no `prompts.json`.

        Raises:
            ValueError: If the file is no JSON object of texts, or what it says cannot be asked; see [`schema.read`].
        """
        path = Path(folder) / FILE_NAME
        return schema.read_file(path, cls) if path.exists() else cls()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], name: str = "prompts") -> Prompts:
        """The prompts that `to_dict` made; checked as `load` does, `name` is the file's for the error."""
        return schema.read(cls, data, name)


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _photo(
    instruction: str, reasoning: str, edits: Sequence[tuple[str, str, str]], requests: Sequence[str]
) -> Example:
    return Example(instruction, tuple(Edit(*edit) for edit in edits), tuple(requests), reasoning)


# For planners that were not trained for this: about photos that are not there, so that what counts is the form, how words
# that point at something are resolved, that what is to be kept is no edit, and that one edit is enough. Four did better than
# two where it was measured, see docs/planners.md.
PHOTO_EXAMPLES = (
    _photo(
        "Make the jacket the colour of the bus and get rid of the guy behind her",
        "A woman in a white jacket stands in front of a red bus; a man in a cap stands behind her.",
        [("recolor", "white jacket of the woman", "red"), ("remove", "man in a cap behind the woman", "nothing")],
        ["remove the man in a cap behind the woman", "change the white jacket of the woman to red"],
    ),
    _photo(
        "it's too dark, and put a vase with tulips where the lamp is",
        "A dim living room with a floor lamp beside a sofa. The lamp gives way to a vase.",
        [
            ("brighten", "living room", "bright daylight"),
            ("replace", "floor lamp beside the sofa", "vase with tulips"),
        ],
        ["brighten the room to daylight", "replace the floor lamp beside the sofa with a vase of tulips"],
    ),
    _photo(
        "Remove the power lines, keep the birds. And warmer colours please, thanks!!",
        "Power lines with birds on them cross the sky above a street. The birds stay; thanks asks for nothing.",
        [("remove", "power lines", "nothing"), ("adjust", "whole picture", "warmer colours")],
        ["remove the power lines, with the birds left as they are", "make the colours of the whole picture warmer"],
    ),
    _photo(
        "brighter",
        "A dark photo. One edit, of the whole picture.",
        [("lighting", "whole picture", "brighter")],
        ["make the whole picture brighter"],
    ),
)
# From about this many parameters on, a model that was trained for something else does as worked examples show.
FOLLOWS_EXAMPLES = 1_000_000_000


def prompts_of(planner: Any, examples: Sequence[Example] = PHOTO_EXAMPLES) -> Prompts:
    """The words in which a planner is asked: those that are kept with it.

    Where none are, nobody has trained it for this. It is asked in the default words then, and shown `examples` first,
    unless it is too small to learn from them; of a model behind an address nobody knows how large it is.
    """
    kept = belongings(planner).get("prompts")
    if kept is not None:
        return Prompts.from_dict(kept, "the planner's prompts")
    return Prompts(examples=tuple(examples) if _follows_examples(planner) else ())


def _follows_examples(planner: Any) -> bool:
    if planner is None:
        return False
    if not hasattr(planner, "num_parameters"):
        return True
    # Quantized weights are buffers, several of them packed into one number: a byte holds one, or more.
    return planner.num_parameters() + sum(buffer.nbytes for buffer in planner.buffers()) >= FOLLOWS_EXAMPLES
