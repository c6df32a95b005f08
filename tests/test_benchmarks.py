"""Every benchmark runs, as small as it can be asked to: what a figure in the docs was made with must not rot."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from warm_python import run_script

from diffusers_r1.evaluation.planners import evaluate_planners
from diffusers_r1.names import resolve


pytestmark = pytest.mark.tiny

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
EVERYDAY = ROOT / "src" / "diffusers_r1" / "sentences" / "data" / "everyday_dev.jsonl"
HELPERS = {"midsize.py", "report.py"}
OF_A_RUN = {"planner_seeds.py"}  # which a test makes first
STARTS_PYTEST = "first_hour.py"  # which has to import its plugins itself
SMALL = {
    "best_of_n.py": "--tasks 1 --plans 2 --kinds chained",
    "constrained_planning.py": "--tasks 2 --batch_size 2 --vocabulary 2000",
    "edit_dataset_speed.py": "--editors 1 --rows 4 --shard_size 2 --rounds 1 --steps 1",
    "first_hour.py": "--only key",
    "grpo_speed.py": "photo --small",
    "import_time.py": "",
    "joint.py": "--editor imageedit-r1-scenes --tasks 2 --swap_tasks 2",
    "large_photo.py": "--size 600 400",
    "memory_table.py": "",
    "page_load.py": "--clients 3 --seconds 5",
    "parse_broken_answers.py": "",
    "pipeline_overhead.py": "--tasks 2",
    "planner_families.py": "--families qwen2_vl --cells plan",
    "planning_speed.py": "batch --rounds 1",
    "composed_turns.py": "--tasks 2 --edits 2",
    "reflect.py": "--tasks 2",
    "remote_planning.py": "speed --latency 0.01 --pictures 2",
    "picture_hacks.py": "--tasks 2",
    "scenes_editing.py": "--tasks 2",
    "scenes_planner.py": "imageedit-r1-scenes --tasks 2 --samples 2",
    "second_reader.py": "",
    "sft_speed.py": "--rounds 1 --rows 2 --side 112",
    "stream.py": "--pictures 2 --rounds 1",
    "training_memory.py": "",
    "training_time.py": "",
}


def test_all_of_them_are_here():
    assert SMALL.keys() | HELPERS | OF_A_RUN == {path.name for path in BENCHMARKS.glob("*.py")}


def run(script: str, words: str) -> str:
    if script == STARTS_PYTEST:
        command = [sys.executable, BENCHMARKS / script, *words.split()]
        done = subprocess.run(command, capture_output=True, text=True)
    else:
        done = run_script(BENCHMARKS / script, *words.split())
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("script", SMALL)
def test_a_benchmark_prints_its_table(script):
    lines = run(script, SMALL[script]).splitlines()
    assert sum(line.startswith("|") for line in lines) >= 3
    if lines[-1].startswith("{"):
        assert json.loads(lines[-1])["rows"]


def test_plans_of_two_pictures_beside_what_one_allows():
    lines = run("scenes_planner.py", "imageedit-r1-scenes --tasks 2 --samples 0 --kinds reference").splitlines()
    assert sum("another second one" in line for line in lines) >= 1
    assert lines[-1].startswith("The first picture alone allows 0.1")


@pytest.mark.parametrize("case", ["scenes --small --completions 16", "picture --small --completions 16"])
def test_grpo_speed_of_the_shipped_planner(case):
    row, other = json.loads(run("grpo_speed.py", f"{case} --steps 1").splitlines()[-1])["rows"]
    assert row["whole, times as fast"] == row["update, times as fast"] == row["memory, share"] == 1.0
    assert row["whole, s"] > row["update, s"] > 0 and other["whole, s"] > other["rewards, s"] > 0


def test_the_swap_table_of_joint_training(tmp_path):
    for name in ("planner", "editor", "joint"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bundle").symlink_to(resolve("imageedit-r1-scenes"))
    asked = f"--editor imageedit-r1-scenes --runs {tmp_path} --tasks 3 --swap_tasks 2 --kept {tmp_path / 'marks.json'}"
    printed = run("joint.py", asked)
    assert len(json.loads((tmp_path / "marks.json").read_text())) == 3 * 2 + 3 * 3
    assert run("joint.py", asked) == printed
    rows = json.loads(printed.splitlines()[-1])["rows"]
    pairs = [(row["planner"], row["editor"]) for row in rows if row["planner"] != "true plans"]
    assert sorted(pairs) == sorted(product(("start", "planner", "joint"), ("start", "editor", "joint")))
    assert {
        row["n"] for row in rows if (row["planner"], row["editor"]) in (("start", "start"), ("joint", "joint"))
    } == {3}
    assert {
        row["n"] for row in rows if row["planner"] == "true plans" or row["editor"] != row["planner"] == "joint"
    } == {2}
    assert all(row["joint ahead"] == "+0.000 (+0.000 to +0.000)" for row in rows if row["planner"] == "joint")


def test_planners_beside_others_in_the_mean_of_their_seeds(tmp_path):
    benchmark = "everyday=" + str(EVERYDAY)
    evaluate_planners(tmp_path, [benchmark], ["truth", "rule"], limit=6)
    told = json.loads((tmp_path / "planners.json").read_text())["everyday"]["rule"]["difference"]

    def compared(planners: str, beside: str) -> dict:
        lines = run("planner_seeds.py", f"{tmp_path} --benchmark {benchmark} --planners {planners} --beside {beside}")
        return {row["figure"]: row for row in json.loads(lines.splitlines()[-1])["rows"]}

    of_one, of_two = compared("rule", "truth"), compared("rule truth", "truth")
    for figure, row in of_one.items():
        assert [row[name] for name in ("difference", "low", "high")] == [
            told[figure][n] for n in ("mean", "low", "high")
        ]
        assert row["planners"] - row["beside"] == pytest.approx(row["difference"])
        assert of_two[figure]["difference"] == pytest.approx(row["difference"] / 2)
        ends = sorted((0.0, row["difference"]))
        assert [of_two[figure]["least"], of_two[figure]["most"]] == pytest.approx(ends)
    assert of_one["action_f1"]["rows"] == 6 and of_one["action_f1"]["difference"] < 0


def test_planning_speed_with_the_middling_planner():  # `plans`, of the same planner, takes minutes however small
    assert "speed, ratio" in run("planning_speed.py", "cache --rounds 1 --tokens 2")
