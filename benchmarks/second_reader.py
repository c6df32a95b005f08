"""How far a second reader's edits of the everyday instructions agree with the labels: what a planner can be asked to reach.

    python benchmarks/second_reader.py

The second reader knew docs/everyday.md and at most 40 rows of those for choosing, not the labels of those for reporting, and wrote
`everyday_second_reader.jsonl` by that. The figures are those of `diffusers-r1 evaluate --benchmark everyday`, but for what the
file says nothing of.
"""

from __future__ import annotations

from pathlib import Path

from report import print_table

from diffusers_r1 import records
from diffusers_r1.evaluation.planners import marks
from diffusers_r1.evaluation.report import estimate
from diffusers_r1.evaluation.word_rows import read_rows
from diffusers_r1.plan import Edit, EditPlan


ANSWERS = Path(__file__).with_name("everyday_second_reader.jsonl")
FIGURES = ("number", "action_f1", "subject_f1", "goal_f1", "exact", "same", "omitted", "invented")


def main() -> None:
    rows = {row.id: row for row in read_rows("everyday")}
    found = []
    for line in records.read(ANSWERS):
        row, edits = rows[line["id"]], tuple(Edit(**edit) for edit in line["edits"])
        found.append(marks(row, EditPlan(row.instruction, edits, (row.instruction,))))
    table = []
    for figure in FIGURES:
        interval = estimate([[mark[figure] for mark in found]])
        table.append({"figure": figure, **{name: interval[name] for name in ("n", "mean", "low", "high")}})
    print_table(table)


if __name__ == "__main__":
    main()
