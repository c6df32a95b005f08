"""Write rows written by hand several times over, each time a little otherwise, for training that reads them more than once.

    python examples/smollm2/vary_rows.py --files examples/smollm2/everyday_train*.jsonl --copies 6 --output data/everyday.jsonl

The first copy is the rows as they are, in a shuffled order. In each further one a row may get other things in place of those it
names (a dog becomes a horse, in the instruction and in the labels), what is no edit (a greeting, something to keep), typos, no
punctuation, or another row of its trade behind it. Its edits stay true. The same arguments write the same file.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from diffusers_r1.records import write_whole
from diffusers_r1.sentences import things
from diffusers_r1.sentences.tasks import SEPARATOR
from diffusers_r1.sentences.trades import BLANKS, TALK
from diffusers_r1.sentences.wordings import CLOSERS, KEEPS, KEEPS_ALL, OPENERS
from diffusers_r1.sentences.words import Dice, with_typos


# Things of one kind stand for each other. Words that are in two kinds, or mean something else as well, stay.
KINDS = (
    things.ANIMALS, things.CLOTHES, things.PAIRS, things.VEHICLES, things.FURNITURE, things.DEVICES, things.OBJECTS,
    things.FOOD, things.PLANTS, things.COLORS,
)  # fmt: skip
SEVERAL_MEANINGS = frozenset(
    "glass glasses top watch fan screen ring key pot orange gold silver bronze copper black white gray grey golden"
    " ball suit mouse remote flag cape counter table shower mirror lamp camera book clock pen box".split()
) | {"black and white"}
MOST_EDITS = 9  # of two rows that become one
JOINTS = (". ", ". also ", " and ", ", then ", "\n", ". oh and ", ", ", ". and ")
Row = dict[str, Any]


def main(files: Sequence[Path], copies: int, output: Path) -> None:
    lines = chain.from_iterable(file.read_text(encoding="utf-8").splitlines() for file in files)
    rows: list[Row] = [json.loads(line) for line in lines]
    by_trade: dict[str, list[Row]] = {}
    for row in rows:
        by_trade.setdefault(row["trade"], []).append(row)
    varied: list[Row] = []
    for copy in range(copies):
        order = Dice(f"order {copy}")
        for row in sorted(rows, key=lambda _: order.below(1 << 30)):
            varied.append(vary(row, by_trade[row["trade"]], Dice(f"{copy} {row['instruction']}")) if copy else row)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in varied))
    print(f"{output}: {len(varied)} rows, {copies} times {len(rows)}")


def vary(row: Row, others: Sequence[Row], dice: Dice) -> Row:
    """The row, told and labelled otherwise, and perhaps with one of `others` behind it."""
    if dice.chance(0.5):
        row = with_other_things(row, dice)
    if dice.chance(0.2):
        other = with_other_things(dice.pick(others), dice)
        if len(row["edits"]) + len(other["edits"]) <= MOST_EDITS:
            row = joined(row, other, dice.pick(JOINTS))
    said = row["instruction"]
    if dice.chance(0.2):
        said = with_talk(said, row, dice)
    if dice.chance(0.15):
        said = without_punctuation(said)
    if dice.chance(0.25):
        shown = frozenset(word.strip("\"'.,") for text in re.findall(r'"[^"]*"', said) for word in text.split())
        said = with_typos(said, 1 + dice.below(1 + len(said) // 40), shown, dice)
    return {**row, "instruction": said}


def with_other_things(row: Row, dice: Dice) -> Row:
    """Up to two of the things that both the instruction and the labels name, replaced by others of their kind."""
    text = json.dumps(row, ensure_ascii=False)
    if '\\"' in text:  # quoted words are to be repeated
        return row
    said = row["instruction"].lower()
    labels = " ".join(f"{edit['subject']} {edit['goal']}" for edit in row["edits"]).lower()
    named = [
        (thing, kind)
        for kind in KINDS
        for thing in kind
        if thing not in SEVERAL_MEANINGS and has(said, thing) and has(labels, thing) and f"{thing}s" not in said
    ]
    # Of "hot dog" and "dog" the longer one is meant.
    named = [(thing, kind) for thing, kind in named if not any(has(other, thing) for other, _ in named if other != thing)]
    for _ in range(2):
        if not named:
            break
        thing, kind = named.pop(dice.below(len(named)))
        fitting = [
            other
            for other in kind
            if other not in SEVERAL_MEANINGS
            and things.is_plural(other) == things.is_plural(thing)
            and not has(text.lower(), other)
        ]
        new = dice.pick(fitting)
        text = re.sub(rf"\b(an?) {re.escape(thing)}\b", lambda found: _article(found, new), text, flags=re.IGNORECASE)
        text = re.sub(rf"\b{re.escape(thing)}\b", lambda found: _as_written(found[0], new), text, flags=re.IGNORECASE)
    return json.loads(text)


def joined(row: Row, other: Row, joint: str) -> Row:
    """One instruction that asks for what both ask for."""
    first, second = row["instruction"].rstrip(), other["instruction"].strip()
    first = first.rstrip(".") if joint[0] in ".,\n " else first
    if joint.startswith(".") and first.endswith(("!", "?")):
        joint = joint[1:]
    if not joint.endswith("\n") and second[:2].istitle() and not second.startswith("I "):
        second = second[0].lower() + second[1:]
    return {
        **row,
        "instruction": first + joint + second,
        "edits": row["edits"] + other["edits"],
        "requests": row["requests"] + other["requests"],
        "reasoning": row["reasoning"] + SEPARATOR + other["reasoning"],
    }


def with_talk(said: str, row: Row, dice: Dice) -> str:
    """The instruction with something before or behind it that is no edit."""
    way = dice.weighted({"before": 2, "behind": 2, "keep": 3})
    if way == "keep":
        kept = [thing for thing in things.OBJECTS + things.AREAS + things.ANIMALS + things.BODY if not has(said, thing)]
        keep = dice.pick(KEEPS).format(s=f"the {dice.pick(kept)}") if dice.chance(0.7) else dice.pick(KEEPS_ALL)
        return f"{said.rstrip('. ')}{dice.pick((', ', '. ', ' - '))}{keep}"
    talk = dice.pick(TALK[row["trade"]]).format_map({blank: dice.pick(words) for blank, words in BLANKS.items()})
    if way == "before":
        return f"{dice.pick((talk, dice.pick(OPENERS)))}{dice.pick((', ', '. ', ' - ', '! '))}{said}"
    return f"{said.rstrip('. ')}{dice.pick((', ', '. ', ' - ', '! '))}{dice.pick((talk, dice.pick(CLOSERS)))}"


def without_punctuation(said: str) -> str:
    """In small letters, without the commas and full stops between words; quoted words stay."""
    parts = re.split(r'("[^"]*")', said)
    return "".join(part if part.startswith('"') else re.sub(r"[.,!](?=\s|$)", "", part).lower() for part in parts)


def has(text: str, thing: str) -> bool:
    return re.search(rf"\b{re.escape(thing)}\b", text) is not None


def _article(found: re.Match[str], new: str) -> str:
    if things.is_plural(new):
        return found[0]
    article = "an" if new[0] in "aeiou" else "a"
    return f"{_as_written(found[1], article)} {new}"


def _as_written(old: str, new: str) -> str:
    return new[0].upper() + new[1:] if old[0].isupper() else new


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=Path, nargs="+", required=True, help="JSONL, as examples/smollm2/everyday_train.jsonl")
    parser.add_argument("--copies", type=int, required=True, help="how many times every row is written")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    main(args.files, args.copies, args.output)
