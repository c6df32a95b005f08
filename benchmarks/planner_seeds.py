"""How far planners trained one way are from those trained another way, row by row, in the mean over their seeds.

    diffusers-r1 evaluate --benchmark everyday --planners runs/reward-1 runs/reward-2 runs/rows-1 runs/rows-2 --output_dir runs/seeds
    python benchmarks/planner_seeds.py runs/seeds --benchmark everyday \\
        --planners runs/reward-1 runs/reward-2 --beside runs/rows-1 runs/rows-2

Of each figure of `evaluate --benchmark`: the mean of the planners, that of those beside them, and the difference with its 95%
bootstrap interval over the rows; then the smallest and the largest difference of one planner from the mean of the others.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from report import print_table

from diffusers_r1 import records
from diffusers_r1.evaluation.planners import ANSWERS, FIGURES, marks
from diffusers_r1.evaluation.report import estimate
from diffusers_r1.evaluation.word_rows import read_rows
from diffusers_r1.plan import EditPlan


def main(folder: Path, benchmark: list[str], planners: list[str], beside: list[str]) -> None:
    table = []
    for name in benchmark:
        values = figures(folder, name)
        for figure in FIGURES:
            ours, theirs = ([values[planner, figure] for planner in group] for group in (planners, beside))
            keys = sorted(set.intersection(*map(set, ours + theirs)))
            if keys:
                table.append({"benchmark": name.partition("=")[0], "figure": figure, **compared(keys, ours, theirs)})
    print_table(table)


def figures(folder: Path, benchmark: str) -> dict[tuple[str, str], dict[str, float]]:
    """Planner and figure -> row -> value."""
    rows = {row.key: row for row in read_rows(benchmark)}
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for line in records.read(folder / ANSWERS):
        if line["key"] in rows and line["plan"] is not None:
            for figure, value in marks(rows[line["key"]], EditPlan.from_dict(line["plan"])).items():
                if value is not None:
                    found[line["planner"], figure][line["key"]] = value
    return found


def compared(keys: list[str], ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> dict[str, float]:
    base = {key: fmean(values[key] for values in theirs) for key in keys}
    difference = estimate([[fmean(values[key] for values in ours) - base[key] for key in keys]])
    each = [fmean(values[key] - base[key] for key in keys) for values in ours]
    return {
        "rows": len(keys),
        "planners": fmean(base.values()) + difference["mean"],
        "beside": fmean(base.values()),
        "difference": difference["mean"],
        "low": difference["low"],
        "high": difference["high"],
        "least": min(each),
        "most": max(each),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of `evaluate --benchmark`, with all these planners")
    parser.add_argument("--benchmark", nargs="+", required=True, help="as `evaluate` was asked for them")
    parser.add_argument("--planners", nargs="+", required=True, help="by name")
    parser.add_argument("--beside", nargs="+", required=True, help="what they are compared with")
    main(**vars(parser.parse_args()))
