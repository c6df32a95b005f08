import shutil

import pytest
import tiny_models

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.prompts import Prompts
from diffusers_r1.scenes import sample_task


pytestmark = pytest.mark.tiny


def test_stdout_is_the_plan_and_nothing_else(run, bundle, photo, caplog):
    code, printed, _ = run("plan", photo, "make it blue", "--model", bundle, "--max_new_tokens", 4)
    assert code == 0
    plan = EditPlan.from_json(printed)
    assert plan.requests == ("make it blue",) and plan.fallback
    assert "fell back" in caplog.text


def test_a_planner_that_is_a_part_of_the_editor_plans_alone_as_well(run, photo, tmp_path):
    editor = tiny_models.tiny_qwen_image_21()
    prompts = Prompts(decompose="{instruction}", sequence="in order")
    ImageEditR1Pipeline.from_editor(editor, prompts=prompts).save_pretrained(tmp_path)
    code, printed, said = run("plan", photo, "make it blue", "--model", tmp_path, "--max_new_tokens", 4)
    assert code == 0, said
    assert EditPlan.from_json(printed).instruction == "make it blue"


def test_the_shipped_bundle_says_what_it_was_made_for(run, photo, tmp_path, caplog):
    known = "was made for pictures of coloured shapes of 64 x 64 pixels and nothing else"
    assert run("plan", photo, "make the background teal", "--max_new_tokens", 4)[0] == 0
    assert caplog.text.count(known) == 1
    caplog.clear()
    sample_task(4).image.save(tmp_path / "scene.png")
    assert run("plan", tmp_path / "scene.png", "make the background teal")[0] == 0
    assert known not in caplog.text


@pytest.mark.parametrize(
    ("words", "component"),
    [
        (["plan", "make it blue"], "planner"),
        (["plan", "make it blue", "--model", "{other}", "--planner", "imageedit-r1-scenes-sft"], "planner"),
        (["edit", "--plan", "{plan}"], "editor"),
        (["edit", "make it blue", "--model", "imageedit-r1-scenes", "--planner", "{other}"], "editor"),
        (["edit", "make it blue", "--editor", "imageedit-r1-scenes", "--planner", "none"], "editor"),
        (["plan", "make it blue", "--planner", "imageedit-r1-scenes"], "planner"),
        (["edit-many", "make it blue", "--output", "{out}"], "planner"),
        (["edit-table", "--output", "{out}", "--model", "imageedit-r1-scenes", "--planner", "none"], "editor"),
    ],
)
def test_it_says_so_before_a_model_loads(monkeypatch, run, bundle, photo, tmp_path, caplog, words, component):
    seen = []

    def loading(*args, **kwargs):
        seen.append(caplog.text)
        raise OSError("not to be loaded")

    monkeypatch.setattr(ImageEditR1Pipeline, "from_pretrained", loading)
    monkeypatch.setattr("diffusers_r1.bundles.planners.load_planner", loading)
    monkeypatch.setattr("diffusers_r1.pipelines.nested.loading.load_editor", loading)
    plan = tmp_path / "plan.json"
    plan.write_text(EditPlan("make it blue", (), ("make it blue",)).to_json(), encoding="utf-8")
    photos, table = tmp_path / "photos", tmp_path / "photos.csv"
    photos.mkdir()
    shutil.copy(photo, photos)
    sample_task(4).image.save(photos / "a-scene.png")  # the first, and it fits
    table.write_text(f"file,instruction\n{photo},make it blue\nhttp://localhost:1/a.png,make it red\n")
    verb, *rest = (word.format(plan=plan, other=bundle, out=tmp_path / "out") for word in words)
    verb, _, many = verb.partition("-")
    assert run(verb, {"": photo, "many": photos, "table": table}[many], *rest)[0] == 2
    assert [f"The {component} was made for pictures of coloured shapes" in text for text in seen] == [True]


def test_sampling_follows_the_seed(run, bundle, photo):
    words = [
        "plan",
        photo,
        "make it blue",
        "--model",
        bundle,
        "--max_new_tokens",
        8,
        "--do_sample",
        "--temperature",
        2,
    ]
    first, again, other = (run(*words, "--seed", seed)[1] for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.png", "make it blue"], "missing.png"),
        (["{photo}", ""], "empty"),
        (["{photo}", "make it blue", "--temperature", "2"], "--temperature does nothing without --do_sample"),
        (["{photo}", "make it blue", "--model", "no-such-bundle"], "no-such-bundle"),
        (["{photo}", "make it blue", "--planner", "./no-such-folder"], "is neither a folder nor a bundle"),
        (["{photo}", "make it blue", "--planner", "localhost:8000"], "an address begins with http://"),
        (["{photo}", "make it blue", "--planner", "{folder}"], "has no config.json, so it is no planner"),
    ],
)
def test_bad_use_says_what_is_wrong(run, bundle, photo, tmp_path, words, said):
    words = [word.format(photo=photo, folder=tmp_path) for word in words]
    code, printed, error = run("plan", "--model", bundle, *words)
    line = error.splitlines()[-1]
    assert (code, printed) == (2, "")
    assert line.startswith("diffusers-r1 plan: error: ") and said in line
