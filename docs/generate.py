"""Write the parts of the documentation that are made from code: `python docs/generate.py`. A test fails when stale."""

from __future__ import annotations

import inspect
import runpy
import typing
from collections.abc import Callable, Sequence
from pathlib import Path

from diffusers_r1.editors import PAIRS, REFUSALS, TRAITS, Traits
from diffusers_r1.editors.composed import COMPOSERS
from diffusers_r1.editors.speed import keeps_passes_apart, takes_cache
from diffusers_r1.records import write_whole


DOCS = Path(__file__).parent
START, END = "<!-- made by docs/generate.py -->", "<!-- end -->"

GUIDANCE = ("guidance_scale", "image_guidance_scale", "img_guidance_scale", "true_cfg_scale", "strength")


def calls_table() -> str:
    """How the classes of `TRAITS` are called, as a Markdown table."""
    lines = [
        "| class | a prompt says | a list of pictures is read as | a batch is | mask | guidance |",
        f"|{' --- |' * 6}",
    ]
    for name, traits in TRAITS.items():
        batch = "one call" if traits.lists == PAIRS else "a call per picture"
        lines.append(_row(f"`{name}`", traits.asks, traits.lists, batch, _mask(traits), _guidance(name)))
    return "\n".join(lines)


def sizes_table() -> str:
    """What the classes of `TRAITS` work at and read, as a Markdown table."""
    lines = ["| class | works at | at most | prompt | reads | tested with |", f"|{' --- |' * 6}"]
    for name, traits in TRAITS.items():
        lines.append(
            _row(
                f"`{name}`",
                _summary(traits.size),
                _most(traits),
                _summary(traits.prompt),
                _summary(traits.reads) if traits.reads else "all of it",
                _tested(name),
            )
        )
    return "\n".join(lines)


def refusals_table() -> str:
    """The classes of `REFUSALS` by reason, as a Markdown table."""
    reasons: dict[str, list[str]] = {}
    for name, reason in REFUSALS.items():
        reasons.setdefault(reason, []).append(f"`{name}`")
    rows = [_row(f"{reason[0].upper()}{reason[1:]}", ", ".join(names)) for reason, names in reasons.items()]
    return "\n".join(["| why | classes |", "| --- | --- |", *rows])


def speed_table() -> str:
    """What makes each class of `TRAITS` faster, as a Markdown table."""
    import diffusers

    lines = [
        '| class | a batch in one call | `turns="composed"` | denoiser | `enable_cache` | `compile_repeated_blocks` |',
        f"|{' --- |' * 6}",
    ]
    for name, traits in TRAITS.items():
        denoiser = _denoiser(name)
        lines.append(
            _row(
                f"`{name}`",
                "yes" if traits.lists == PAIRS else "-",
                "yes" if name in COMPOSERS else "-",
                f"`{denoiser.__name__}`",
                "yes" if takes_cache(denoiser) and keeps_passes_apart(getattr(diffusers, name)) else "-",
                "yes" if denoiser._repeated_blocks else "-",
            )
        )
    return "\n".join(lines)


def memory_table() -> str:
    """What `benchmarks/memory_table.py` computes."""
    return runpy.run_path(str(DOCS.parent / "benchmarks" / "memory_table.py"))["table"]()


def _all_of(*tables: Callable[[], str]) -> Callable[[], list[str]]:
    return lambda: [table() for table in tables]


PAGES: dict[str, Callable[[], list[str]]] = {
    "editors.md": _all_of(calls_table, sizes_table, refusals_table, speed_table),
    "memory.md": _all_of(memory_table),
}


def with_tables(page: str, tables: Sequence[str]) -> str:
    """`page` with the tables between its marks made anew, in order."""
    first, *rest = page.split(START)
    after = [part.partition(END)[2] for part in rest]
    return first + "".join(f"{START}\n{table}\n{END}{text}" for table, text in zip(tables, after, strict=True))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _summary(rule: Callable) -> str:
    return inspect.getdoc(rule).split("\n")[0].rstrip(".")


def _most(traits: Traits) -> str:
    if traits.pixels is None:
        return "that size"
    if callable(traits.pixels):
        return traits.pixels_from
    return f"{traits.pixels:,} pixels ({traits.pixels_from})"


def _denoiser(name: str) -> type:
    """The class of the part that runs at every step, from the hints of the class's parts."""
    import diffusers

    pipeline = getattr(diffusers, name)
    if name.endswith("ModularPipeline"):
        parts = {
            part.name: part.type_hint
            for part in getattr(diffusers, pipeline.default_blocks_name)().expected_components
        }
    else:
        parts = typing.get_type_hints(pipeline.__init__)
    return parts.get("transformer") or parts["unet"]


def _mask(traits: Traits) -> str:
    if not traits.mask:
        return "-"
    return f"`{traits.mask}`, needed" if traits.mask_needed else f"`{traits.mask}`"


def _guidance(name: str) -> str:
    import diffusers

    if name.endswith("ModularPipeline"):
        return "its guider"
    arguments = inspect.signature(getattr(diffusers, name).__call__).parameters
    return ", ".join(f"`{argument}`" for argument in GUIDANCE if argument in arguments)


def _tested(name: str) -> str:
    """Tiny random weights of the class, where `tests/tiny_editors.py` has a case of that name."""
    cases = (DOCS.parent / "tests" / "tiny_editors.py").read_text(encoding="utf-8")
    return "tiny random weights" if f'"{name}": Case(' in cases else "-"


if __name__ == "__main__":
    for name, tables in PAGES.items():
        write_whole(DOCS / name, with_tables((DOCS / name).read_text(encoding="utf-8"), tables()))
