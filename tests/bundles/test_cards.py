import importlib.util
import json
import shutil
import subprocess
import sys

import pytest
import tiny_models
import torch
import yaml
from diffusers import DiffusionPipeline
from huggingface_hub import ModelCard, parse_eval_result_entries

from diffusers_r1 import Edit, EditPlan, ImageEditR1Pipeline, names
from diffusers_r1.bundles import cards
from diffusers_r1.bundles.planners import load_agents
from diffusers_r1.pipelines.nested.loading import load_editor


pytestmark = pytest.mark.tiny

FLUX = "black-forest-labs/FLUX.1-Kontext-dev"
QWEN = "Qwen/Qwen2.5-VL-7B-Instruct"


@pytest.fixture
def build(pix2pix):
    """Builds a pipeline whose models say where they come from."""

    def build(planner_base: str = "", editor_base: str = "", **components) -> ImageEditR1Pipeline:
        planner, processor = tiny_models.tiny_planner()
        planner.name_or_path = planner_base
        if editor_base:
            pix2pix.register_to_config(_name_or_path=editor_base)
        parts = {"planner": planner, "processor": processor, "editor": pix2pix, **components}
        return ImageEditR1Pipeline(**parts)

    return build


PLAN = EditPlan(
    instruction="make the coat match the car\nand lose the man",
    edits=(Edit("recolor", "coat", "red | crimson"), Edit("remove", "man", "nothing")),
    requests=("make the coat red", "remove the man behind the coat"),
)
REPORT = {
    "source": "https://example.org/runs/7",
    "scores": [
        {
            "benchmark": "PSR",
            "method": "pipeline, single",
            "metric": "judge, 0 to 10",
            "mean": 8.2345,
            "low": 8.1,
            "high": 8.4,
        }
        | {"n": 120, "judge": "somebody/judge"},
        {"benchmark": "PSR", "method": "bare editor", "metric": "judge, 0 to 10", "mean": 7.5, "n": 120},
        {
            "benchmark": "scenes:complex",
            "method": "pipeline, single",
            "metric": "all cells right",
            "mean": 0.5,
            "n": 4,
        },
    ],
    "samples": 480,
}


def card_of(pipe: ImageEditR1Pipeline, **more) -> ModelCard:
    return ModelCard(cards.model_card(pipe, **more))


def test_metadata(build):
    data = card_of(build(QWEN, FLUX), repo_id="somebody/edits").data
    assert (data.library_name, data.pipeline_tag) == ("diffusers", "image-to-image")
    assert data.base_model == [QWEN, FLUX]
    assert "imageedit-r1" in data.tags


@pytest.mark.parametrize(
    ("planner_base", "editor_base", "license_id", "license_name"),
    [
        (QWEN, "Qwen/Qwen-Image-Edit", "apache-2.0", None),
        ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen-Image-Edit", "other", "that-of-the-components"),
        (QWEN, FLUX, "other", "that-of-the-components"),
        (QWEN, "somebody/editor", "other", "that-of-the-components"),
        ("", "", "other", "that-of-the-components"),
    ],
)
def test_the_license_is_the_one_that_all_models_share(build, planner_base, editor_base, license_id, license_name):
    data = card_of(build(planner_base, editor_base)).data
    assert (data.license, getattr(data, "license_name", None)) == (license_id, license_name)


def test_only_an_editor(build):
    pipe = build("", FLUX, planner=None, processor=None)
    data = card_of(pipe).data
    assert (data.license, data.license_name) == ("other", "flux-1-dev-non-commercial-license")


def test_how_to_load(build):
    text = card_of(build(), repo_id="somebody/edits").text
    assert 'ImageEditR1Pipeline.from_pretrained("somebody/edits")' in text
    assert 'DiffusionPipeline.from_pretrained("somebody/edits", trust_remote_code=True)' in text
    assert "pip install -e .    # in a clone of diffusers-r1" in text and "# edits" in text


def test_the_components_table(build):
    rows = [line for line in card_of(build(QWEN, FLUX)).text.splitlines() if line.startswith("| ")]
    planner = next(row for row in rows if row.startswith("| planner"))
    editor = next(row for row in rows if row.startswith("| editor"))
    assert "`Qwen2_5_VLForConditionalGeneration`" in planner and QWEN in planner and "apache-2.0" in planner
    assert "`StableDiffusionInstructPix2PixPipeline`" in editor and "flux-1-dev-non-commercial-license" in editor
    assert any(row.startswith("| sequencer ") and "none" in row for row in rows)


def test_training_is_shown_where_known(build):
    pipe = build()
    assert "not recorded" in card_of(pipe).text
    text = card_of(pipe, training={"method": "GRPO", "reward": "a|b"}).text
    assert "| method | GRPO |" in text and r"| reward | a\|b |" in text and "not recorded" not in text
    assert card_of(pipe, training={"license": "apache-2.0"}).data.license == "apache-2.0"


def test_a_plan_is_shown_as_an_example(build):
    text = card_of(build(), plan=PLAN).text
    assert "> make the coat match the car and lose the man\n" in text
    assert r"| recolor | coat | red \| crimson |" in text
    assert "1. make the coat red\n2. remove the man behind the coat" in text
    assert "| action |" not in card_of(build(), plan=EditPlan("as it is", (), ("as it is",))).text
    assert "## A plan" not in card_of(build()).text


def test_scores_stand_in_the_text_with_their_source(build):
    text = card_of(build(), scores=cards.Scores.read(REPORT)).text
    assert "Source: https://example.org/runs/7" in text
    assert "| PSR | pipeline, single | judge, 0 to 10 | 120 | 8.235 | 8.100 to 8.400 |" in text
    assert "| PSR | bare editor | judge, 0 to 10 | 120 | 7.500 |  |" in text
    assert "## Scores" not in card_of(build()).text


def test_scores_are_told_to_the_hub(build):
    data = card_of(build(), repo_id="somebody/edits", scores=cards.Scores.read(REPORT)).data
    (index,) = data.to_dict()["model-index"]
    assert index["name"] == "edits"
    psr, scenes = index["results"]
    assert psr["task"] == {"type": "image-to-image"}
    assert psr["dataset"] == {"name": "PSR", "type": "psr"} and scenes["dataset"]["type"] == "scenes-complex"
    assert psr["source"] == {"url": "https://example.org/runs/7"}
    first, second = psr["metrics"]
    assert first["value"] == 8.2345 and first["args"] == {"n": 120, "low": 8.1, "high": 8.4}
    assert (first["type"], first["name"]) == ("judge-0-to-10", "judge, 0 to 10 (pipeline, single)")
    assert second["args"] == {"n": 120}
    assert getattr(card_of(build()).data, "eval_results", None) is None


def test_scores_stand_where_the_hub_collects_those_of_a_benchmark(tmp_path):
    of_own = {"benchmark": "somebody/photos", "method": "r1, multi", "metric": "ssim", "mean": 0.5, "n": 9}
    report = {**REPORT, "scores": [*REPORT["scores"], of_own]}
    (tmp_path / ".eval_results").mkdir()
    (tmp_path / ".eval_results" / "by-hand.yaml").write_text("- {}\n")
    cards.write_eval_results(tmp_path, cards.Scores.read(report))
    written = {path.name: yaml.safe_load(path.read_text()) for path in (tmp_path / ".eval_results").iterdir()}
    # Scenes are no data set on the Hub, so that no leaderboard waits for them.
    assert sorted(written) == [
        "by-hand.yaml",
        "photos-r1-multi.yaml",
        "psr-bare-editor.yaml",
        "psr-pipeline-single.yaml",
    ]
    (entry,) = parse_eval_result_entries(written["psr-pipeline-single.yaml"])
    assert (entry.dataset_id, entry.task_id, entry.value) == ("PSRDataset/PSR-328", "judge-0-to-10", 8.2345)
    assert entry.source_url == "https://example.org/runs/7"
    assert entry.notes == "pipeline, single; judge, 0 to 10; n = 120, 95% interval 8.100 to 8.400"
    (entry,) = parse_eval_result_entries(written["photos-r1-multi.yaml"])
    assert (entry.dataset_id, entry.value, entry.notes) == ("somebody/photos", 0.5, "r1, multi; ssim; n = 9")

    cards.write_eval_results(tmp_path)  # what an earlier save wrote is gone, what a person wrote is not
    assert [path.name for path in (tmp_path / ".eval_results").iterdir()] == ["by-hand.yaml"]


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ({**REPORT, "source": ""}, "`source`"),
        ({"source": "a run", "scores": []}, "neither is empty"),
        (
            {"source": "a run", "scores": [{"benchmark": "PSR", "mean": 1.0}]},
            r"the report: `scores\[0\].method` is missing",
        ),
        (
            {"source": "a run", "scores": [{**REPORT["scores"][1], "mean": None}]},
            r"`scores\[0\].mean` must be a finite number",
        ),
        ({"source": "a run", "scores": [{**REPORT["scores"][1], "low": 7.0}]}, "both ends or none"),
        (__file__, "test_cards.py cannot be read as JSON"),
    ],
)
def test_a_report_that_lacks_something_is_refused_before_anything_is_written(build, report, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build().save_pretrained(tmp_path / "bundle", scores=report)
    assert not (tmp_path / "bundle").exists()


def test_plan_and_scores_are_of_the_save_that_they_are_given_to(build, tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    build().save_pretrained(tmp_path / "bundle", plan=PLAN, scores=tmp_path / "report.json")
    card = ModelCard.load(tmp_path / "bundle" / "README.md")
    assert "## A plan" in card.text and len(card.data.eval_results) == 3
    results = tmp_path / "bundle" / ".eval_results"
    assert sorted(path.name for path in results.iterdir()) == ["psr-bare-editor.yaml", "psr-pipeline-single.yaml"]
    ImageEditR1Pipeline.from_pretrained(tmp_path / "bundle").save_pretrained(tmp_path / "bundle")
    assert not list(results.iterdir())
    ImageEditR1Pipeline.from_pretrained(tmp_path / "bundle").save_pretrained(tmp_path / "again")
    assert "## Scores" not in (tmp_path / "again" / "README.md").read_text()


def test_training_and_bases_survive_saving_and_loading(build, tmp_path):
    pipe = build(QWEN, FLUX)
    setattr(pipe.planner.config, cards.TRAINING_KEY, {"method": "GRPO", "steps": 120})
    pipe.save_pretrained(tmp_path / "once")
    once = ImageEditR1Pipeline.from_pretrained(tmp_path / "once")
    once.save_pretrained(tmp_path / "twice")
    twice = ImageEditR1Pipeline.from_pretrained(tmp_path / "twice")
    assert cards.base_models(twice) == {"planner": QWEN, "editor": FLUX}
    card = ModelCard.load(tmp_path / "twice" / "README.md")
    assert card.data.base_model == [QWEN, FLUX] and "| steps | 120 |" in card.text
    twice.editor = tiny_models.tiny_kontext()  # of this one nothing is known
    assert cards.base_models(twice) == {"planner": QWEN}


WAYS = {
    "parts": lambda folder: ImageEditR1Pipeline(**ImageEditR1Pipeline.from_pretrained(folder).components),
    "another pipeline": lambda folder: ImageEditR1Pipeline.from_pipe(ImageEditR1Pipeline.from_pretrained(folder)),
    "plain diffusers": lambda folder: DiffusionPipeline.from_pretrained(folder, trust_remote_code=True),
    "names": lambda folder: ImageEditR1Pipeline(**load_agents(folder), editor=load_editor(folder)),
}


# An older bundle has them in its index alone, which no loader of a component reads.
@pytest.mark.parametrize(
    ("way", "is_older"), [*((way, False) for way in WAYS), *((way, True) for way in WAYS if way != "names")]
)
def test_bases_go_with_the_components(build, tmp_path, way, is_older):
    build(QWEN, FLUX).save_pretrained(tmp_path / "first")
    if is_older:
        for file in ("planner/config.json", "editor/model_index.json"):
            said = json.loads((tmp_path / "first" / file).read_text())
            del said["_imageedit_r1"]
            (tmp_path / "first" / file).write_text(json.dumps(said))
    pipe = WAYS[way](tmp_path / "first")
    assert cards.base_models(pipe) == {"planner": QWEN, "editor": FLUX}
    pipe.save_pretrained(tmp_path / "second")
    again = ImageEditR1Pipeline.from_pretrained(tmp_path / "second", planner=tiny_models.tiny_planner()[0])
    assert cards.base_models(again) == {"editor": FLUX}
    other = build()
    other.editor = again.editor
    assert cards.base_models(other) == {"editor": FLUX}


def test_a_planner_that_was_loaded_by_its_name_is_a_base_model(tmp_path):
    repository = tmp_path / "models--org--base"
    shutil.copytree(names.local("imageedit-r1-scenes-sft"), repository / "snapshots" / "0123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    agents = load_agents("org/base", cache_dir=tmp_path, local_files_only=True)
    assert agents["planner"].dtype is torch.float32  # and not what it was saved in
    ImageEditR1Pipeline(**agents).save_pretrained(tmp_path / "bundle")
    assert ModelCard.load(tmp_path / "bundle" / "README.md").data.base_model == ["org/base"]


def test_folders_are_no_base_models(build, tmp_path, monkeypatch):
    (tmp_path / "runs" / "planner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert cards.base_models(build("runs/planner", str(tmp_path / "editor"))) == {}


def test_a_card_that_cannot_be_looked_at_is_not_written_over(build, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError):
        cards.write_card(build(), tmp_path, "somebody/edits")
    assert not list(tmp_path.iterdir())


def test_a_card_of_a_person_is_kept(build, tmp_path):
    pipe = build()
    pipe.save_pretrained(tmp_path)
    readme = tmp_path / "README.md"
    assert cards.MARK in readme.read_text()
    readme.write_text(f"{cards.MARK}\nOld.")
    pipe.save_pretrained(tmp_path)
    assert "Old." not in readme.read_text()
    readme.write_text("Mine.")
    pipe.save_pretrained(tmp_path)
    assert readme.read_text() == "Mine."


def test_the_pipeline_file_imports_the_class(tmp_path, monkeypatch):
    file = tmp_path / f"{cards.PIPELINE_MODULE}.py"
    file.write_text(cards.pipeline_file(ImageEditR1Pipeline))
    spec = importlib.util.spec_from_file_location(cards.PIPELINE_MODULE, file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, cards.PIPELINE_MODULE, module)  # the file enters itself there, for good
    spec.loader.exec_module(module)
    assert module.ImageEditR1Pipeline is ImageEditR1Pipeline


def test_the_pipeline_file_says_what_to_install(tmp_path):
    file = tmp_path / f"{cards.PIPELINE_MODULE}.py"
    file.write_text(cards.pipeline_file(ImageEditR1Pipeline))
    without_site_packages = [sys.executable, "-I", "-S", str(file)]
    done = subprocess.run(without_site_packages, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: To load this bundle, install diffusers-r1: pip install -e . in a clone of it"
    )


def test_a_subclass_is_imported_from_its_own_module():
    class Own(ImageEditR1Pipeline):
        pass

    assert f"from {Own.__module__} import Own" in cards.pipeline_file(Own)
