"""Write the parts of the documentation that are made from code: `python docs/generate.py`. A test fails when stale."""

from __future__ import annotations

import inspect
from pathlib import Path

from diffusers_r1.editors import TRAITS
from diffusers_r1.records import write_whole


EDITORS = Path(__file__).parent / "editors.md"
START, END = "<!-- made by docs/generate.py -->", "<!-- end -->"


def editors_table() -> str:
    """The rows of `TRAITS` as a Markdown table."""
    lines = ["| class | lists are read as | always given | works at |", "| --- | --- | --- | --- |"]
    for name, traits in TRAITS.items():
        lists = "a batch of pairs" if traits.batched else "one picture a call"
        always = ", ".join(f"`{key}={value!r}`" for key, value in traits.always.items()) or "-"
        works_at = inspect.getdoc(traits.size).split("\n")[0].rstrip(".")
        lines.append(f"| `{name}` | {lists} | {always} | {works_at} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """`page` with the table between its marks made anew."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{editors_table()}\n{END}{after}"


if __name__ == "__main__":
    write_whole(EDITORS, with_table(EDITORS.read_text()))
