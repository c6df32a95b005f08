"""Which vision-language models can plan: tiny random planners of the real classes, each tried in every way.

    python benchmarks/planner_families.py                       # prints the table
    python benchmarks/planner_families.py --write docs/planners.md
    python benchmarks/planner_families.py --families qwen3_vl gemma3 --cells "num_plans" "GRPO step"

`yes`: the check passed, see `tests/planner_cells.py` for what each compares. A number stands for the reason, given below the
table, why it was refused or what goes wrong. A crash that no row explains fails the script.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import transformers


ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from planner_cells import CELLS  # noqa: E402
from tiny_planners import FAMILIES, build  # noqa: E402


START, END = "<!-- families: start -->\n", "<!-- families: end -->"


def result(family: str, cell: str) -> str:
    """`"yes"`, or why not; `"crash: ..."` where nobody has looked into it."""
    model, processor = build(family)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with redirect_stdout(sys.stderr):  # trainers print their logs
                CELLS[cell](model, processor, Path(folder))
        except ValueError as error:
            return str(error).split(". ")[0].rstrip(".")
        except Exception as error:  # whatever a class makes of it
            traceback.print_exc()
            return f"crash: {type(error).__name__}: {str(error)[:120]}"
    return "yes"


def table(results: dict[str, dict[str, str]]) -> str:
    """The results as Markdown: a row a family, and the reasons below."""
    reasons: list[str] = []
    lines = []
    for family, cells in results.items():
        shown = []
        for said in cells.values():
            if said != "yes" and said not in reasons:
                reasons.append(said)
            shown.append(said if said == "yes" else str(1 + reasons.index(said)))
        lines.append(f"| `{family}` | {' | '.join(shown)} |")
    names = list(next(iter(results.values())))
    head = [f"| family | {' | '.join(names)} |", f"|{' --- |' * (1 + len(names))}"]
    notes = [f"{number}. {reason}." for number, reason in enumerate(reasons, 1)]
    return "\n".join([*head, *lines, "", f"transformers {transformers.__version__}.", "", *notes]).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--write", type=Path, help="the page whose table is replaced")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    results = {family: {cell: result(family, cell) for cell in args.cells} for family in args.families}
    text = table(results)
    print(text)
    if args.write:
        before, _, rest = args.write.read_text(encoding="utf-8").partition(START)
        args.write.write_text(f"{before}{START}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    crashed = [f"{family}, {cell}" for family, cells in results.items() for cell in cells if "crash" in cells[cell]]
    if crashed:
        raise SystemExit(f"crashed: {'; '.join(crashed)}")


if __name__ == "__main__":
    main()
