"""The scripts that train the shipped bundle run, go on where they stopped, and what they leave fits together."""

import csv
import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from warm_python import run_script

from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.scenes import sample_task
from diffusers_r1.tags import read_decomposition


pytestmark = pytest.mark.tiny

SCRIPTS = Path(__file__).parents[2] / "examples" / "scenes"


def run(script: str, *options) -> str:
    done = run_script(SCRIPTS / script, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def steps(path: Path) -> int:
    return torch.load(path / "checkpoint.pt", weights_only=True)["step"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    editor, planner = folder / "editor", folder / "planner"
    short = ["--vae_steps", 2, "--words_steps", 2, "--batch_size", 2, "--width", 32]
    run("train_editor.py", "--output_dir", editor, *short, "--steps", 2)
    assert steps(editor / "unet_training") == 2
    run("train_editor.py", "--output_dir", editor, *short, "--steps", 50)
    few = [
        "--sight_steps",
        2,
        "--form_steps",
        1,
        "--read_steps",
        2,
        "--point_steps",
        1,
        "--habit_steps",
        1,
        "--batch_size",
        2,
    ]
    run("train_planner.py", "--output_dir", planner, *few, "--literal", 0.6, 0, "--compose_steps", 1)
    assert steps(planner / "shared") == 5
    run("train_planner.py", "--output_dir", planner, *few, "--literal", 0.6, 0, "--compose_steps", 2)
    return editor, planner


def test_a_run_goes_on_where_it_stopped(trained):
    editor, planner = trained
    assert steps(editor / "unet_training") == 50 and steps(editor / "vae_training") == 2
    assert steps(planner / "shared") == 6
    logged = [int(row["step"]) for row in csv.DictReader((editor / "unet.csv").read_text().splitlines())]
    assert logged == [50]


def test_the_parts_make_a_bundle(trained, tmp_path):
    editor, planner = trained
    printed = run(
        "build_bundle.py",
        *["--editor", editor / "pipeline", "--planner", planner / "literal-0.6"],
        *["--supervised_planner", planner / "literal-0", "--output_dir", tmp_path],
    )
    assert "MB in all" in printed
    pipe = ImageEditR1Pipeline.from_pretrained(tmp_path / "imageedit-r1-scenes")
    assert pipe.prompts.decompose == " {instruction}" and pipe.editor_defaults["num_inference_steps"] == 1
    assert next(pipe.planner.parameters()).dtype == next(pipe.editor.unet.parameters()).dtype == torch.float32
    task = sample_task(0, "chained")
    out = pipe(task.image, task.instruction, max_new_tokens=8)
    assert out.images[0].size == (64, 64)


@pytest.fixture
def train_planner(monkeypatch):
    spec = importlib.util.spec_from_file_location("train_planner", SCRIPTS / "train_planner.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "train_planner", module)  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def test_the_form_is_learnt_from_answers_of_other_rows(train_planner):
    processor = train_planner.make_processor(0)
    tasks = [sample_task(seed, "simple") for seed in range(3)]
    stage = train_planner.Stage("form", {}, 1, (0.0, 0.0), both_turns=False, unrelated=True)
    batch = train_planner.make_batch(processor, tasks, stage, 0.0, np.random.default_rng(0))
    for row, (ids, labels) in enumerate(zip(batch["input_ids"], batch["labels"])):
        answer = processor.tokenizer.decode(labels[labels != -100], skip_special_tokens=True)
        assert read_decomposition(answer).edits == tasks[row - 1].edits
        assert tasks[row].instruction in processor.tokenizer.decode(ids)


def test_a_relabelled_task_is_the_same_task_in_other_words(train_planner):
    changed = 0
    for seed in range(200):
        task = sample_task(seed, "complex")
        other = train_planner.relabelled(task, np.random.default_rng(seed))
        assert [edit.action for edit in other.edits] == [edit.action for edit in task.edits]
        assert [part.pointer for part in other.parts] == [part.pointer for part in task.parts]
        assert all(part.text in other.instruction for part in other.parts)
        assert len(other.scene.items) == len(task.scene.items)
        assert len(other.target_scene.items) == len(task.target_scene.items)  # the edits name what is there
        assert not re.search(r"\ba orange|\ban (?!orange)", other.instruction)
        changed += other.instruction != task.instruction
    assert changed == 200
