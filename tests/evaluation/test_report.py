import json

import numpy as np
import pytest
from PIL import Image

from diffusers_r1 import EditPlan, records
from diffusers_r1.evaluation import compare, estimate, write_report
from diffusers_r1.evaluation.report import bars, estimate_share, lines
from diffusers_r1.evaluation.runs import BENCHMARKS, EDITS, JUDGES, PLANS, SAMPLES, SCORES, VARIANTS
from diffusers_r1.plan import TURNS


@pytest.mark.parametrize("n", [50, 500, 5000])
def test_the_interval_of_a_mean_is_that_of_the_normal_approximation(n):
    values = np.random.default_rng(n).normal(7, 2, n)
    found = estimate([values])
    half = 1.959964 * values.std() / np.sqrt(n)
    assert (found["mean"], found["n"]) == (pytest.approx(values.mean()), n)
    assert found["low"] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found["high"] == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_the_interval_of_a_share():
    found = estimate([[1.0] * 320 + [0.0] * 180])
    half = 1.959964 * np.sqrt(0.64 * 0.36 / 500)
    assert found["low"] == pytest.approx(0.64 - half, abs=0.004)
    assert found["high"] == pytest.approx(0.64 + half, abs=0.004)


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [(10, 10, 0.722, 1.0), (0, 10, 0.0, 0.278), (15, 148, 0.0624, 0.1605), (30, 30, 0.8865, 1.0), (1, 1, 0.2065, 1.0)],
)
def test_the_wilson_interval_of_a_share(right, of, low, high):
    """Against figures worked out elsewhere (Newcombe, 1998, and tables)."""
    found = estimate_share([[1.0] * right + [0.0] * (of - right)])
    assert (found["mean"], found["n"]) == (right / of, of)
    assert (found["low"], found["high"]) == (pytest.approx(low, abs=6e-4), pytest.approx(high, abs=6e-4))


@pytest.mark.parametrize("n", [7, 148, 500, 2000])
def test_the_interval_of_a_share_is_one_of_shares(n):
    for value in (0.0, 1.0):
        found = estimate_share([[value] * n])
        assert 0 <= found["low"] <= found["high"] <= 1 and f"{found['low']:.3f}" != "-0.000"


def test_95_of_100_intervals_hold_a_true_share_and_an_average_of_shares():
    random = np.random.default_rng(0)
    for truths in ([0.97], [0.9, 0.99, 0.6]):
        found = [estimate_share([random.random(40) < truth for truth in truths]) for _ in range(500)]
        held = np.mean([one["low"] <= np.mean(truths) <= one["high"] for one in found])
        assert 0.92 <= held <= 0.985


def test_the_interval_of_an_average_of_means():
    random = np.random.default_rng(0)
    one, other = random.normal(2, 1, 300), random.normal(8, 3, 120)
    found = estimate([one, other])
    half = 1.959964 * np.sqrt(one.var() / 300 + other.var() / 120) / 2
    assert found["mean"] == pytest.approx((one.mean() + other.mean()) / 2) and found["n"] == 420
    assert found["high"] - found["low"] == pytest.approx(2 * half, rel=0.05)


def test_95_of_100_intervals_hold_the_truth():
    random = np.random.default_rng(1)
    intervals = [estimate([random.normal(0, 1, 60)]) for _ in range(200)]
    assert 0.90 <= np.mean([found["low"] <= 0 <= found["high"] for found in intervals]) <= 0.99


def test_equal_and_single_values():
    assert estimate([[3.0, 3.0, 3.0]]) == {"mean": 3, "low": 3, "high": 3, "n": 3}
    assert estimate([[3.0], [1.0, 2.0]]) == {"mean": 2.25, "low": None, "high": None, "n": 3}
    values = np.random.default_rng(0).normal(size=30)
    assert estimate([values]) == estimate([values])


def write_run(folder, scores, requests=None, failed_calls=0, metrics=None):
    """A run as its files are: `scores[method, turns][benchmark]` has a figure for each sample, `None` where the judge
    failed, `"no picture"` where the editor did."""
    folder.mkdir()
    (folder / "pictures").mkdir()
    Image.new("RGB", (8, 8), "teal").save(folder / "source.png")
    counts = {name: len(figures) for by_name in scores.values() for name, figures in by_name.items()}
    for name, count in counts.items():
        ids = [f"{name}/{i}" for i in range(count)]
        records.append(folder / BENCHMARKS, {"benchmark": name, "limit": count, "sample_seed": 0, "ids": ids})
        for i, id in enumerate(ids):
            line = {"id": id, "benchmark": name, "row": i, "instruction": f"edit $ {i}", "edits": [], "requests": []}
            records.append(folder / SAMPLES, {**line, "category": None, "image": "source.png", "target": None})
    judge = {"judge": "viescore", "settings": "j"}
    records.append(folder / JUDGES, {**judge, "metrics": metrics or {"overall": True}})
    for (method, turns), by_name in scores.items():
        variant = {"method": method, "editor": "flux", "turns": turns, "seed": 0, "settings": method}
        records.append(
            folder / VARIANTS, {**variant, "plans": "p", "samples": sum(map(len, by_name.values())), "details": {}}
        )
        for name, figures in by_name.items():
            for i, figure in enumerate(figures):
                id = f"{name}/{i}"
                asked = ("a", "b", "c", "d", "e", "f")[: (requests or {}).get(id, 1)]
                plan = EditPlan(f"edit {i}", (), asked, fallback=method == "r1" and i == 0)
                records.append(
                    folder / PLANS, {"sample": id, "method": method, "settings": "p", "plan": plan.to_dict()}
                )
                picture = None if figure == "no picture" else f"pictures/{name}-{i}-{method}-{turns}.png"
                records.append(
                    folder / EDITS, {"sample": id, **variant, "plans": "p", "asked": [*asked], "picture": picture}
                )
                if picture:
                    Image.new("RGB", (8, 8), "red").save(folder / picture)
                    values = None if figure is None else dict.fromkeys(metrics or ["overall"], figure)
                    evidence = {"failed_calls": failed_calls, "unreadable": 3 * (figure is None)}
                    records.append(
                        folder / SCORES, {"sample": id, "picture": picture, **judge, "values": values, **evidence}
                    )
    return folder


SCORED = {
    ("base", "single"): {"psr": [1.0, 2.0, 3.0, 4.0], "ultra": [5.0, 5.0]},
    ("r1", "single"): {"psr": [2.0, 2.0, None, 8.0], "ultra": [6.0, "no picture"]},
    ("r1", "multi"): {"psr": [0.0, 2.0, 3.0, 8.0], "ultra": [6.0, 7.0]},
}


@pytest.fixture
def run(tmp_path):
    requests = {"psr/0": 2, "psr/1": 2, "psr/2": 1, "psr/3": 6, "ultra/0": 1, "ultra/1": 4}
    return write_run(tmp_path / "run", SCORED, requests, failed_calls=2)


def report(folder):
    text = write_report(folder).read_text()
    return text, json.loads((folder / "report.json").read_text())


def test_the_table(run):
    text, figures = report(run)
    (table,) = figures["tables"]
    base, single, multi = table["rows"]
    assert [base["benchmarks"][name]["mean"] for name in ("psr", "ultra")] == [2.5, 5]
    assert (base["average"]["mean"], base["gain"], base["failed"]) == (3.75, None, 0)
    assert single["benchmarks"]["psr"]["mean"] == 4 and single["benchmarks"]["psr"]["n"] == 3  # not 3: never 0
    assert single["benchmarks"]["ultra"] == {"mean": 6, "low": None, "high": None, "n": 1}
    assert (single["average"]["mean"], single["gain"], single["failed"]) == (5, 1.25, 2)
    assert multi["benchmarks"]["psr"]["mean"] == 3.25 and multi["failed"] == 0
    assert "| editor | method | turns | psr | ultra | average | gain over base | failed |" in text
    assert "| 6.000 (n 1) | 5.000 | +1.250 | 2 |" in text


def test_the_comparison_with_base_is_sample_by_sample(run):
    _, figures = report(run)
    rows = {(row["turns"], row["benchmark"]): row for row in figures["paired"][0]["rows"]}
    assert set(rows) == {(t, b) for t in ("single", "multi") for b in ("psr", "ultra", "average")}
    psr = rows["single", "psr"]
    assert (psr["n"], psr["mean"]) == (3, pytest.approx(5 / 3))
    assert (psr["better"], psr["equal"], psr["worse"]) == (2, 1, 0)
    assert rows["multi", "psr"]["worse"] == 1 and rows["multi", "average"]["mean"] == pytest.approx((0.75 + 1.5) / 2)


def test_single_against_multi_by_the_number_of_sub_requests(run):
    text, figures = report(run)
    rows = {row["sub-requests"]: row for row in figures["by_requests"][0]["rows"]}
    assert {count: row["single"]["n"] for count, row in rows.items()} == {1: 1, 2: 2, 4: 1}
    assert {row["against"] for row in rows.values()} == {"multi"}
    assert (rows[2]["single"]["mean"], rows[2]["other"]["mean"], rows[2]["single - other"]["mean"]) == (2, 1, 1)
    assert "| 4 or more |" in text


def test_single_against_every_other_way(tmp_path):
    scores = {("r1", turns): {"psr": [figure] * 2} for figure, turns in enumerate(TURNS)}
    folder = write_run(tmp_path / "run", scores, {"psr/0": 2, "psr/1": 3})
    lines = records.read(folder / EDITS)
    for line in lines:
        if line["turns"] == "composed":
            line["asked"] = [{"composed": ["make it red", "remove it"]}]
    (folder / EDITS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    text, figures = report(folder)
    rows = figures["by_requests"][0]["rows"]
    against = [turns for turns in TURNS if turns != "single"]
    assert [(row["against"], row["sub-requests"]) for row in rows] == [(turns, n) for turns in against for n in (2, 3)]
    assert [row["single - other"]["mean"] for row in rows] == [-1, -1, -2, -2, -3, -3]
    assert "| r1 | composed | 2 |" in text


def test_what_went_wrong_is_counted(run):
    text, figures = report(run)
    base, single, _ = figures["counts"]
    assert (single["editor failed"], single["viescore failed"], single["plan fell back"]) == (1, 1, 2)
    assert (single["viescore: failed calls"], single["viescore: unreadable answers"]) == (10, 3)
    assert (base["samples"], base["not edited yet"], base["viescore failed"]) == (6, 0, 0)


def test_less_can_be_better(tmp_path):
    scores = {("base", "single"): {"psr": [0.3, 0.3]}, ("r1", "single"): {"psr": [0.1, 0.5]}}
    text, figures = report(write_run(tmp_path / "run", scores, metrics={"l1": False}))
    row = figures["paired"][0]["rows"][0]
    assert (row["better"], row["worse"]) == (1, 1) and "less is better" in text


def test_pictures_of_the_report_can_be_opened(run):
    text, _ = report(run)
    for name in ("viescore_overall.png", "viescore_turns.png", "examples.png"):
        assert f"({name})" in text
        with Image.open(run / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 5


@pytest.mark.parametrize(("name", "value"), [("editor", "qwen"), ("seed", 1)])
def test_charts_tell_editors_and_seeds_apart(run, name, value):
    _, figures = report(run)
    for chart, (table, *_) in ((bars, figures["tables"]), (lines, figures["by_requests"])):
        alone, both = (
            [text.get_text() for text in chart({**table, "rows": rows}).axes[0].get_legend().get_texts()]
            for rows in (table["rows"], [*table["rows"], *({**row, name: value} for row in table["rows"])])
        )
        assert len(set(both)) == len(both) == 2 * len(alone) and f"{name} {value}" in both[-1]
        assert "r1, single" in alone  # as short as it can be


def test_what_was_not_judged_is_no_failure(run):
    lines = records.read(run / SCORES)
    (run / SCORES).write_text("".join(json.dumps(line) + "\n" for line in lines[:5]))
    _, figures = report(run)
    assert [row["method"] for row in figures["tables"][0]["rows"]] == ["base"]
    assert figures["counts"][1]["viescore failed"] == 0


def test_a_folder_without_scores_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no scores"):
        write_report(tmp_path)


def test_two_runs_are_compared_on_what_both_have(run, tmp_path):
    better = {("r1", "single"): {"psr": [3.0, 3.0, 9.0, 9.0]}, ("oracle", "single"): {"psr": [9.0] * 4}}
    text = compare(run, write_run(tmp_path / "other", better))
    assert "| viescore | overall | r1 | flux | single | psr | 3 | 4.000 | 5.000 | +1.000 (+1.000 to +1.000) |" in text
    assert text.count("\n| viescore") == 1
    with pytest.raises(ValueError, match="no judge, method and sample in common"):
        compare(run, write_run(tmp_path / "third", {("oracle", "multi"): {"psr": [1.0, 2.0]}}))


def test_an_id_that_is_two_samples_is_not_compared(run, tmp_path):
    other = write_run(tmp_path / "other", SCORED)
    (other / SAMPLES).write_text((other / SAMPLES).read_text().replace('"edit $ 3"', '"another"'))
    with pytest.raises(ValueError, match="psr/3 is one sample in .*run and another in .*other"):
        compare(run, other)
    other = write_run(tmp_path / "pictures", SCORED)
    Image.new("RGB", (8, 8), "red").save(other / "source.png")
    with pytest.raises(ValueError, match="psr/0 is one sample"):
        compare(run, other)


def test_a_judge_that_was_not_the_same_is_marked(run, tmp_path):
    other = write_run(tmp_path / "other", SCORED)
    assert "(other settings)" not in compare(run, other)
    for name in (JUDGES, SCORES):
        (other / name).write_text((other / name).read_text().replace('"j"', '"k"'))
    assert "| viescore (other settings) | overall | base | flux |" in compare(run, other)


def test_runs_of_different_editors_are_compared_by_method(run, tmp_path):
    other = write_run(tmp_path / "other", {("base", "single"): {"psr": [2.0, 3.0, 4.0, 5.0]}})
    variants = (other / VARIANTS).read_text().replace('"flux"', '"qwen"')
    (other / VARIANTS).write_text(variants)
    (other / EDITS).write_text((other / EDITS).read_text().replace('"flux"', '"qwen"'))
    assert "| base | flux / qwen | single | psr | 4 | 2.500 | 3.500 | +1.000" in compare(run, other)
