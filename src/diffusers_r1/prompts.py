"""What the agents are told: one conversation of two turns, the same for training, planning and annotation."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import records


FILE_NAME = "prompts.json"

DECOMPOSE = """\
Look at the picture and decompose the editing instruction below into single edits. Resolve everything that is said \
indirectly: name each subject so that somebody who has not read the instruction finds it in the picture, and write each \
goal out in full.

Answer in exactly this form, with three lists of the same length, separated by semicolons, item i of each belonging to \
edit i:
<think>what the picture shows and what the instruction refers to</think><action>one verb for each edit, such as add, \
remove, recolor, replace, move, restyle</action><subject>what is edited</subject><goal>what it is afterwards</goal>

Instruction: {instruction}"""

SEQUENCE = """\
Now write each edit as one short, self-contained request to an image editor that sees the picture but has read none of \
this. Put them in the order in which they should be carried out: large changes such as the background first, details \
last. Answer in exactly this form:
<sequence>first request; second request</sequence>"""


@dataclass(frozen=True)
class Prompts:
    """The words of the two user turns.

    Args:
        decompose (`str`): The first turn; `{instruction}` in it stands for the user's instruction.
        sequence (`str`): The second turn, which follows the decomposition.
        system (`str`, defaults to `""`): A system message before both; left out when empty.

    Raises:
        ValueError: If `decompose` has no `{instruction}`.
    """

    decompose: str = DECOMPOSE
    sequence: str = SEQUENCE
    system: str = ""

    def __post_init__(self):
        if "{instruction}" not in self.decompose:
            raise ValueError("The decomposition prompt has no {instruction} in it.")

    def first_turn(self, instruction: str, image: Any = None) -> list[dict[str, Any]]:
        """The messages that ask for a decomposition, as chat templates of `transformers` take them.

        Args:
            instruction (`str`): The user's instruction.
            image (*optional*): The picture, in whatever form the receiver takes; left out for a text-only planner.
        """
        text = {"type": "text", "text": self.decompose.replace("{instruction}", instruction)}
        content = [text] if image is None else [{"type": "image", "image": image}, text]
        system = [{"role": "system", "content": [{"type": "text", "text": self.system}]}] if self.system else []
        return [*system, {"role": "user", "content": content}]

    def second_turn(self, messages: list[dict[str, Any]], decomposition: str) -> list[dict[str, Any]]:
        """The messages that ask for the sub-requests: the first turn, its answer, and the question after it."""
        return [
            *messages,
            {"role": "assistant", "content": [{"type": "text", "text": decomposition}]},
            {"role": "user", "content": [{"type": "text", "text": self.sequence}]},
        ]

    def save(self, folder: str | Path) -> None:
        """Write `folder/prompts.json`."""
        records.write_whole(Path(folder) / FILE_NAME, json.dumps(asdict(self), indent=2, ensure_ascii=False))

    @classmethod
    def load(cls, folder: str | Path) -> Prompts:
        """What `save` wrote to `folder`; the default prompts where there is no `prompts.json`."""
        path = Path(folder) / FILE_NAME
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else cls()
