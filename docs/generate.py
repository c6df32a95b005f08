"""Write the parts of the documentation that are made from code: `python docs/generate.py`. A test fails when stale."""

from __future__ import annotations

import inspect
import runpy
from collections.abc import Callable
from pathlib import Path

from diffusers_r1.editors import TRAITS, Traits
from diffusers_r1.records import write_whole


DOCS = Path(__file__).parent
START, END = "<!-- made by docs/generate.py -->", "<!-- end -->"

GUIDANCE = ("guidance_scale", "image_guidance_scale", "img_guidance_scale", "true_cfg_scale", "strength")


def editors_table() -> str:
    """The rows of `TRAITS` as a Markdown table."""
    lines = [
        "| class | a list of pictures is read as | a batch is | works at | prompt | mask | guidance | tested with |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, traits in TRAITS.items():
        batch = "one call" if traits.lists == "a batch of pictures, each with its prompt" else "a call per picture"
        works_at = inspect.getdoc(traits.size).split("\n")[0].rstrip(".")
        prompt = inspect.getdoc(traits.prompt).split("\n")[0].rstrip(".")
        cells = (f"`{name}`", traits.lists, batch, works_at, prompt, _mask(traits), _guidance(name), _tested(name))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def memory_table() -> str:
    """What `benchmarks/memory_table.py` computes."""
    return runpy.run_path(str(DOCS.parent / "benchmarks" / "memory_table.py"))["table"]()


PAGES: dict[str, Callable[[], str]] = {"editors.md": editors_table, "memory.md": memory_table}


def with_table(page: str, table: str) -> str:
    """`page` with the table between its marks made anew."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{table}\n{END}{after}"


def _mask(traits: Traits) -> str:
    if traits.mask is None:
        return "-"
    return f"`{traits.mask}`, needed" if traits.mask_needed else f"`{traits.mask}`"


def _guidance(name: str) -> str:
    import diffusers

    if name.endswith("ModularPipeline"):
        return "its guider"
    arguments = inspect.signature(getattr(diffusers, name).__call__).parameters
    return ", ".join(f"`{argument}`" for argument in GUIDANCE if argument in arguments)


def _tested(name: str) -> str:
    """Tiny random weights of the class, where `tests/pipelines/test_editors_by_name.py` has a case of that name."""
    cases = (DOCS.parent / "tests" / "pipelines" / "test_editors_by_name.py").read_text(encoding="utf-8")
    return "tiny random weights" if f'"{name}": Case(' in cases else "-"


if __name__ == "__main__":
    for name, table in PAGES.items():
        write_whole(DOCS / name, with_table((DOCS / name).read_text(encoding="utf-8"), table()))
