"""The report of a run: tables with intervals, paired comparisons, charts and examples. It reads files and nothing else."""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import records
from ..images import load_picture
from .runs import (
    PLANS,
    content_of,
    read,
    read_benchmarks,
    read_edits,
    read_judges,
    read_lines,
    read_scores,
    read_variants,
    unscored,
)


if TYPE_CHECKING:
    from matplotlib.figure import Figure


RESAMPLES = 10_000
RESAMPLES_AT_ONCE = 10_000_000  # values drawn, so that a large benchmark fits in memory
BASE = "base"
MOST_REQUESTS = 4  # more sub-requests than these are counted together
OTHER_JUDGE = " (other settings)"  # after the name of a judge that was not the same in two runs
EXAMPLES = 8
EXAMPLES_CHART = "examples.png"
STYLES = {
    "single": ("-", "o"),
    "multi": ("--", "x"),
    "auto": (":", "^"),
    "composed": ("-.", "s"),
}  # of lines in a chart

Values = dict[str, dict[str, float]]  # benchmark -> sample's id -> figure


def write_report(folder: str | Path) -> Path:
    """Writes `report.json`, `report.md`, the charts and `examples.png` to a run's folder.

    Returns:
        `Path`: of `report.md`.

    Raises:
        ValueError: If the folder has no scores.
    """
    folder = Path(folder)
    results = Results(folder)
    figures = summarize(results)
    charts = {_chart(table): bars(table) for table in figures["tables"] if table["main"]}
    charts |= {_turns_chart(table): lines(table) for table in figures["by_requests"]}
    charts[EXAMPLES_CHART] = examples(results)
    for name, figure in charts.items():
        records.write_whole(folder / name, _png(figure))
    records.write_whole(folder / "report.json", json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    records.write_whole(folder / "report.md", markdown(figures, list(charts)))
    return folder / "report.md"


def compare(one: str | Path, other: str | Path) -> str:
    """Two runs side by side, as a Markdown table: what the second gains over the first on the samples that both have.

    Variants are paired by method, editor, turns and seed; where that pairs nothing and each run has one editor, by method, turns
    and seed. A judge whose settings were not the same is marked.

    Raises:
        ValueError: If a folder has no scores, the two have nothing in common, or one id stands for two samples.
    """
    runs = Results(Path(one)), Results(Path(other))
    _check_same_samples(*runs)
    keys = [("method", "editor", "turns", "seed"), ("method", "turns", "seed")]
    if any(len({variant["editor"] for variant in run.variants}) > 1 for run in runs):
        keys.pop()
    rows = next(filter(None, (_common(runs, key) for key in keys)), [])
    if not rows:
        raise ValueError(f"{one} and {other} have no judge, method and sample in common.")
    head = ("judge", "metric", "method", "editor", "turns", "benchmark", "n", "first", "second", "second - first")
    page = f"First: {one}\nSecond: {other}\n\n{_table(head, rows)}"
    if any(row[0].endswith(OTHER_JUDGE) for row in rows):
        page += f"\n\n{OTHER_JUDGE.strip()}: the runs' judges.jsonl say which; their figures may not compare."
    return page


# Figures
# -------


def estimate(samples: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The mean of one sample, or of the means of several, with its 95% bootstrap interval.

    Each sample is drawn from anew, with replacement, 10,000 times by a fixed seed; the interval is that of the percentiles.

    Args:
        samples (sequence of sequences of `float`): None of them empty.

    Returns:
        `dict`: `mean`; `low` and `high`, `None` where a sample has a single value; `n`, of values in all.
    """
    from scipy.stats import bootstrap

    arrays = [np.asarray(sample, dtype=float) for sample in samples]
    n = sum(map(len, arrays))
    low = high = None
    if min(map(len, arrays)) > 1:
        interval = bootstrap(
            arrays,
            lambda *drawn, axis: np.mean([one.mean(axis=axis) for one in drawn], axis=0),
            n_resamples=RESAMPLES,
            batch=max(1, RESAMPLES_AT_ONCE // n),
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return {"mean": float(np.mean([array.mean() for array in arrays])), "low": low, "high": high, "n": n}


def estimate_share(samples: Sequence[Sequence[float]]) -> dict[str, Any]:
    """As `estimate`, of values that are 0 or 1, with their 95% Wilson interval: where all are right, a bootstrap has none.

    The interval of an average of shares is put together from theirs (MOVER; Zou and Donner, 2008).

    Args:
        samples (sequence of sequences of `float`): None of them empty; 0 or 1.
    """
    shares, counts = np.array([np.mean(sample) for sample in samples]), np.array([len(sample) for sample in samples])
    z = 1.959964
    centres = (shares + z**2 / (2 * counts)) / (1 + z**2 / counts)
    halves = z * np.sqrt(shares * (1 - shares) / counts + z**2 / (4 * counts**2)) / (1 + z**2 / counts)
    below, above = (np.sqrt(np.sum((shares - centres + side * halves) ** 2)) / len(shares) for side in (1, -1))
    mean = float(shares.mean())
    low, high = np.clip([mean - below, mean + above], 0, 1).tolist()  # rounding leaves them at times
    return {"mean": mean, "low": low, "high": high, "n": int(counts.sum())}


class Results:
    """A run as it lies in its folder.

    Args:
        folder (`Path`): Of a run.

    Raises:
        ValueError: If it has no scores.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.lines = read_lines(folder)
        self.benchmarks = {line["benchmark"]: line for line in read_benchmarks(folder)}
        self.variants, self.judges = read_variants(folder), read_judges(folder)
        self.edits: dict[tuple, dict[str, dict]] = {_key(variant): {} for variant in self.variants}
        for row in read_edits(folder):
            self.edits[_key(row)][row["sample"]] = row
        self.scores: dict[str, dict[str, dict]] = {judge["judge"]: {} for judge in self.judges}
        for row in read_scores(folder):
            self.scores[row["judge"]][row["picture"]] = row
        if not any(self.scores.values()):
            raise ValueError(f"{folder} has no scores; `evaluate` writes them.")
        plans = {(row["sample"], row["method"], row["settings"]): row["plan"] for row in read(folder, PLANS)}
        self.plans = {
            key: {
                sample: plans[sample, row["method"], row["plans"]]
                for sample, row in rows.items()
                if (sample, row["method"], row["plans"]) in plans  # a server may have refused to make one
            }
            for key, rows in self.edits.items()
        }

    def values(self, variant: Mapping[str, Any], judge: str, metric: str) -> Values:
        """The figures that there are of a variant, by benchmark and sample."""
        values: Values = {}
        rows = self.edits[_key(variant)]
        for sample, line in self.lines.items():
            verdict = self.scores[judge].get(rows[sample]["picture"]) if sample in rows else None
            if verdict and verdict["values"]:
                values.setdefault(line["benchmark"], {})[sample] = verdict["values"][metric]
        return values

    def interval(self, judge: str, metric: str) -> Callable[[Sequence[Sequence[float]]], dict[str, Any]]:
        """How a figure's mean is estimated."""
        shares = {one["judge"]: one["shares"] or () for one in self.judges}
        return estimate_share if metric in shares[judge] else estimate

    def base_of(self, variant: Mapping[str, Any]) -> dict[str, Any] | None:
        """The bare editor that a variant is compared with; `None` for the bare editor, or where it was not run."""
        same = [one for one in self.variants if (one["editor"], one["seed"]) == (variant["editor"], variant["seed"])]
        return next((one for one in same if one["method"] == BASE and one is not variant), None)

    def failures(self, variant: Mapping[str, Any], judge: str) -> int:
        """How many samples have no figure, since the editor made no picture or the judge's answers could not be read."""
        rows, verdicts = self.edits[_key(variant)].values(), self.scores[judge]
        return sum(
            row["picture"] is None or (row["picture"] in verdicts and verdicts[row["picture"]]["values"] is None)
            for row in rows
        )

    def counts(self, variant: Mapping[str, Any]) -> dict[str, Any]:
        """How many samples a variant has, and what went wrong on the way to their figures."""
        rows = self.edits[_key(variant)]
        pictures = [row["picture"] for row in rows.values() if row["picture"]]
        counts = {
            "samples": variant["samples"],
            "not edited yet": variant["samples"] - len(rows),
            "editor failed": len(rows) - len(pictures),
            "plan fell back": sum(plan.fallback for plan in self.plans[_key(variant)].values()),
        }
        for judge, scores in self.scores.items():
            verdicts = [scores[picture] for picture in pictures if picture in scores]
            counts[f"{judge} failed"] = sum(verdict["values"] is None for verdict in verdicts)
            if any("failed_calls" in verdict for verdict in verdicts):
                counts[f"{judge}: failed calls"] = sum(verdict.get("failed_calls", 0) for verdict in verdicts)
                counts[f"{judge}: unreadable answers"] = sum(verdict.get("unreadable", 0) for verdict in verdicts)
        return counts


def summarize(results: Results) -> dict[str, Any]:
    """All figures of the report, ready for JSON."""
    tables, paired, by_requests = [], [], []
    for judge in results.judges:
        main = next(iter(judge["metrics"]))
        for metric, more_is_better in judge["metrics"].items():
            figure = {"judge": judge["judge"], "metric": metric, "more is better": more_is_better}
            figure["interval"] = "Wilson" if metric in (judge["shares"] or ()) else "bootstrap"
            rows = table_rows(results, judge["judge"], metric)
            if not rows:
                continue
            tables.append({**figure, "main": metric == main, "rows": rows})
            if metric == main:
                paired.append({**figure, "rows": paired_rows(results, judge["judge"], metric, more_is_better)})
                if rows := request_rows(results, judge["judge"], metric):
                    by_requests.append({**figure, "rows": rows})
    missing, expected = unscored(results.folder)
    return {
        "results": expected,
        "unscored": missing,
        "benchmarks": [
            {**{name: line[name] for name in ("benchmark", "limit", "sample_seed")}, "samples": len(line["ids"])}
            for line in results.benchmarks.values()
        ],
        "tables": tables,
        "paired": paired,
        "by_requests": by_requests,
        "counts": [{**_label(variant), **results.counts(variant)} for variant in results.variants],
        "variants": results.variants,
        "judges": [{name: value for name, value in judge.items() if name != "samples"} for judge in results.judges],
    }


def table_rows(results: Results, judge: str, metric: str) -> list[dict[str, Any]]:
    """A row for each variant: an estimate for each benchmark, their average, and how much that is above the bare editor's."""
    interval = results.interval(judge, metric)
    each = [(variant, results.values(variant, judge, metric)) for variant in results.variants]
    columns = [name for name in results.benchmarks if any(name in values for _, values in each)]
    rows = []
    for variant, values in each:
        if not values:
            continue
        by_benchmark = {name: interval([list(values[name].values())]) for name in columns if name in values}
        complete = set(by_benchmark) == set(columns)
        average = interval([list(values[name].values()) for name in columns]) if complete else None
        failed = results.failures(variant, judge)
        rows.append(
            {**_label(variant), "benchmarks": by_benchmark, "average": average, "gain": None, "failed": failed}
        )
    averages = {tuple(row[name] for name in _label(row)): row["average"] for row in rows}
    for row in rows:
        base = averages.get((row["editor"], BASE, "single", row["seed"]))
        if base and row["average"] and row["method"] != BASE:
            row["gain"] = row["average"]["mean"] - base["mean"]
    return rows


def paired_rows(results: Results, judge: str, metric: str, more_is_better: bool) -> list[dict[str, Any]]:
    """Sample by sample, what a variant gains over the bare editor, for each benchmark and, as `average`, over all of them."""
    rows = []
    for variant in results.variants:
        base = results.base_of(variant)
        if base is None:
            continue
        values, others = results.values(variant, judge, metric), results.values(base, judge, metric)
        gains = {
            name: [
                figure - others[name][sample] for sample, figure in figures.items() if sample in others.get(name, {})
            ]
            for name, figures in values.items()
        }
        gains = {name: gain for name, gain in gains.items() if gain}
        groups = {name: [gain] for name, gain in gains.items()}
        if len(gains) > 1:
            groups["average"] = list(gains.values())
        for name, group in groups.items():
            signs = np.sign(np.concatenate(group)) * (1 if more_is_better else -1)
            counts = {"better": signs > 0, "equal": signs == 0, "worse": signs < 0}
            counts = {word: int(count.sum()) for word, count in counts.items()}
            rows.append({**_label(variant), "benchmark": name, **estimate(group), **counts})
    return rows


def request_rows(results: Results, judge: str, metric: str) -> list[dict[str, Any]]:
    """Single-turn against each other way, sample by sample, by the number of sub-requests in the plan."""
    rows = []
    ways = [
        (single, other)
        for single in results.variants
        for other in results.variants
        if single["turns"] == "single" != other["turns"] and {**_label(other), "turns": "single"} == _label(single)
    ]
    for variant, other in ways:
        single, second = (
            {
                sample: figure
                for figures in results.values(a, judge, metric).values()
                for sample, figure in figures.items()
            }
            for a in (variant, other)
        )
        groups: dict[int, list[str]] = {}
        for sample in single:
            if sample in second and sample in results.plans[_key(variant)]:
                count = min(len(results.plans[_key(variant)][sample].requests), MOST_REQUESTS)
                groups.setdefault(count, []).append(sample)
        for count, samples in sorted(groups.items()):
            row = {
                "editor": variant["editor"],
                "method": variant["method"],
                "seed": variant["seed"],
                "against": other["turns"],
                "sub-requests": count,
            }
            for name, values in (("single", single), ("other", second)):
                row[name] = results.interval(judge, metric)([[values[sample] for sample in samples]])
            row["single - other"] = estimate([[single[sample] - second[sample] for sample in samples]])
            rows.append(row)
    return rows


def _common(runs: tuple[Results, Results], key: Sequence[str]) -> list[list[Any]]:
    """What two runs have in common, as rows of `compare`'s table."""
    rows = []
    metrics = [{judge["judge"]: judge["metrics"] for judge in run.judges} for run in runs]
    settings = [{judge["judge"]: judge["settings"] for judge in run.judges} for run in runs]
    for judge in (judge for judge in metrics[0] if judge in metrics[1]):
        called = judge if settings[0][judge] == settings[1][judge] else judge + OTHER_JUDGE
        for metric in (metric for metric in metrics[0][judge] if metric in metrics[1][judge]):
            for variant in runs[0].variants:
                other = next((o for o in runs[1].variants if all(o[name] == variant[name] for name in key)), None)
                if other is None:
                    continue
                values = runs[0].values(variant, judge, metric), runs[1].values(other, judge, metric)
                for benchmark in values[0]:
                    first, second = values[0][benchmark], values[1].get(benchmark, {})
                    shared = [sample for sample in first if sample in second]
                    if shared:
                        means = [f"{np.mean([side[sample] for sample in shared]):.3f}" for side in (first, second)]
                        gain = estimate([[second[sample] - first[sample] for sample in shared]])
                        editor = " / ".join(dict.fromkeys((variant["editor"], other["editor"])))
                        place = [called, metric, variant["method"], editor, variant["turns"], benchmark]
                        rows.append([*place, len(shared), *means, _figure(gain, sign="+")])
    return rows


def _check_same_samples(one: Results, other: Results) -> None:
    for id, line in one.lines.items():
        if id in other.lines and content_of(one.folder, line) != content_of(other.folder, other.lines[id]):
            raise ValueError(
                f"{id} is one sample in {one.folder} and another in {other.folder}: two data sets of one name, or its rows "
                "have changed."
            )


def _key(row: Mapping[str, Any]) -> tuple:
    return row["method"], row["editor"], row["turns"], row["seed"]


def _label(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("editor", "method", "turns", "seed")}


# Markdown
# --------


def markdown(figures: Mapping[str, Any], charts: Sequence[str]) -> str:
    """The report as a page; `charts` are file names beside it."""
    seeds = {variant["seed"] for variant in figures["variants"]}
    who = ["editor", "method", "turns", *(["seed"] if len(seeds) > 1 else [])]
    missing, of_all = figures["unscored"], f"{figures['results']} results"
    scored = f"{missing} of {of_all} have no score" if missing else f"all {of_all} have a score"
    parts = [f"# Evaluation: {scored}", _records_table(figures["benchmarks"])]
    for table in figures["tables"]:
        columns = _columns(table)
        rows = [
            [
                *(row[name] for name in who),
                *(_figure(row["benchmarks"].get(name), count=True) for name in columns),
                _figure(row["average"]),
                "-" if row["gain"] is None else f"{row['gain']:+.3f}",
                row["failed"],
            ]
            for row in table["rows"]
        ]
        better = "more is better" if table["more is better"] else "less is better"
        parts += [f"## {table['judge']}: {table['metric']}", f"Mean (95% {table['interval']} interval, n); {better}."]
        parts += [_table([*who, *columns, "average", "gain over base", "failed"], rows)]
        parts += _shown(_chart(table), charts)
    for table in figures["paired"]:
        head = [*who, "benchmark", "n", "gain", "better", "equal", "worse"]
        rows = [[_figure(row, sign="+") if name == "gain" else row[name] for name in head] for row in table["rows"]]
        if rows:
            parts += [f"## {table['judge']}: {table['metric']}, against base sample by sample", _table(head, rows)]
    for table in figures["by_requests"]:
        who_plans = [name for name in who if name != "turns"]
        rows = [
            [
                *(row[name] for name in who_plans),
                row["against"],
                f"{row['sub-requests']}{' or more' if row['sub-requests'] == MOST_REQUESTS else ''}",
                row["single"]["n"],
                _figure(row["single"]),
                _figure(row["other"]),
                _figure(row["single - other"], sign="+"),
            ]
            for row in table["rows"]
        ]
        parts += [f"## {table['judge']}: {table['metric']}, single-turn against the other ways"]
        head = [*who_plans, "against", "sub-requests", "n", "single", "other", "single - other"]
        parts += [_table(head, rows)]
        parts += _shown(_turns_chart(table), charts)
    parts += ["## What went wrong", _records_table(figures["counts"]), "## Examples", *_shown(EXAMPLES_CHART, charts)]
    return "\n\n".join(parts) + "\n"


def _figure(value: Mapping[str, Any] | None, sign: str = "", count: bool = False) -> str:
    """`"0.664 (0.622 to 0.704, n 500)"`."""
    if value is None:
        return "-"
    inside = [] if value["low"] is None else [f"{value['low']:{sign}.3f} to {value['high']:{sign}.3f}"]
    inside += [f"n {value['n']}"] if count else []
    return f"{value['mean']:{sign}.3f}" + (f" ({', '.join(inside)})" if inside else "")


def _columns(table: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for row in table["rows"] for name in row["benchmarks"]))


def _records_table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = list(dict.fromkeys(name for row in rows for name in row))
    return _table(head, [[row.get(name, "-") for name in head] for row in rows])


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)


def _shown(chart: str, charts: Sequence[str]) -> list[str]:
    return [f"![{chart.removesuffix('.png').replace('_', ', ')}]({chart})"] if chart in charts else []


# Pictures
# --------


def bars(table: Mapping[str, Any]) -> Figure:
    """A chart of a table: for each benchmark and the average, a bar for each variant with its interval."""
    columns = _columns(table)
    figure, axis = _axes(max(6, 0.35 * (len(columns) + 1) * (len(table["rows"]) + 1)))
    width = 0.85 / len(table["rows"])
    for number, row in enumerate(table["rows"]):
        shown = [*(row["benchmarks"].get(name) for name in columns), row["average"]]
        places = [place + (number + 0.5) * width - 0.425 for place, value in enumerate(shown) if value]
        style = {"label": _name(row, table["rows"]), "width": width, "error_kw": {"lw": 0.8}}
        _marks(axis.bar, places, list(filter(None, shown)), **style)
    axis.set_xticks(range(len(columns) + 1), [*columns, "average"])
    axis.set_ylabel(f"{table['judge']}: {table['metric']}")
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def lines(table: Mapping[str, Any]) -> Figure:
    """A chart of single-turn against the other ways by the number of sub-requests."""
    figure, axis = _axes(6)
    variants = dict.fromkeys((row["editor"], row["method"], row["seed"]) for row in table["rows"])
    for number, variant in enumerate(variants):
        rows = [row for row in table["rows"] if (row["editor"], row["method"], row["seed"]) == variant]
        drawn: dict[str, dict[int, Mapping[str, Any]]] = {}  # way -> number of sub-requests -> figure
        for row in rows:
            drawn.setdefault("single", {})[row["sub-requests"]] = row["single"]
            drawn.setdefault(row["against"], {})[row["sub-requests"]] = row["other"]
        for turns, values in drawn.items():
            line, marker = STYLES[turns]
            name = _name({**rows[0], "turns": turns}, table["rows"])
            style = {"label": name, "color": f"C{number}", "ls": line, "marker": marker}
            _marks(axis.errorbar, list(values), list(values.values()), capsize=2, **style)
    axis.set_xticks(sorted({row["sub-requests"] for row in table["rows"]}))
    axis.set(xlabel="sub-requests", ylabel=f"{table['judge']}: {table['metric']}")
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def examples(results: Results) -> Figure:
    """A sheet of samples, evenly spread over the run and not chosen: before, what each variant made of it and was asked, and
    the target where there is one."""
    ids = list(results.lines)
    ids = [ids[place] for place in np.linspace(0, len(ids) - 1, min(EXAMPLES, len(ids))).round().astype(int)]
    has_target = any(results.lines[id]["target"] for id in ids)
    called = [_name(variant, results.variants) for variant in results.variants]
    titles = ["before", *called, *(["target"] if has_target else [])]
    figure, grid = _axes(1.9 * len(titles), 2.6 * len(ids), len(ids), len(titles))
    for id, row in zip(ids, grid):
        line = results.lines[id]
        shown = [(line["image"], line["instruction"])]
        for variant in results.variants:
            edit = results.edits[_key(variant)].get(id)
            asked = [
                " + ".join(turn["composed"]) if isinstance(turn, dict) else turn
                for turn in (edit or {}).get("asked", ())
            ]
            shown.append((edit and edit["picture"], "\n".join(f"{n}. {prompt}" for n, prompt in enumerate(asked, 1))))
        if has_target:
            shown.append((line["target"], ""))
        for axis, title, (picture, text) in zip(row, titles, shown):
            axis.axis("off")
            axis.set_title(title, fontsize=7)
            if picture and (results.folder / picture).exists():
                image = load_picture(results.folder / picture)
                image.thumbnail((512, 512))
                axis.imshow(np.asarray(image), interpolation="nearest" if image.width < 256 else None)
            wrapped = [part for said in text.splitlines() for part in textwrap.wrap(said, 34)]
            axis.text(
                0, -0.04, "\n".join(wrapped[:9]), fontsize=5, va="top", transform=axis.transAxes, parse_math=False
            )
    return figure


def _chart(table: Mapping[str, Any]) -> str:
    return f"{table['judge']}_{table['metric']}.png"


def _turns_chart(table: Mapping[str, Any]) -> str:
    return f"{table['judge']}_turns.png"


def _axes(width: float, height: float = 4, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    # By the class: pyplot would keep every figure, and choose a window to show it in.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), constrained_layout=True)
    return figure, figure.subplots(rows, columns, squeeze=rows * columns == 1)


def _marks(draw: Any, places: Sequence[float], values: Sequence[Mapping[str, Any]], **style: Any) -> None:
    means = [value["mean"] for value in values]
    errors = [
        [mean - (mean if value["low"] is None else value["low"]) for mean, value in zip(means, values)],
        [(mean if value["high"] is None else value["high"]) - mean for mean, value in zip(means, values)],
    ]
    # An interval of percentiles may end a rounding error on the wrong side of the mean.
    draw(places, means, yerr=np.clip(errors, 0, None), **style)


def _name(row: Mapping[str, Any], among: Sequence[Mapping[str, Any]]) -> str:
    """What tells a variant from the others of a chart."""
    told = [f"{name} {row[name]}" for name in ("editor", "seed") if len({other[name] for other in among}) > 1]
    return ", ".join([row["method"], row["turns"], *told])


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
