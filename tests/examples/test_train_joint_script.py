"""The script that trains planner and editor together, run for a few steps: what it leaves, how it goes on, who learns."""

import csv
import importlib.util
import json
import os
import runpy
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from trl import GRPOConfig, ModelConfig, TrlParser

from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.names import resolve
from diffusers_r1.scenes import sample_task
from diffusers_r1.training.joint import JointArguments


pytestmark = [
    pytest.mark.tiny,
    pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning"),
]

EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = EXAMPLES / "recipes"
_hub_file = Path(__file__).parents[1] / "pipelines" / "test_hub.py"
_spec = importlib.util.spec_from_file_location("hub_on_loopback", _hub_file)
HUB = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(HUB)
START, BUNDLE = "imageedit-r1-scenes-sft", "imageedit-r1-scenes"
FEW = {
    "config": RECIPES / "joint_scenes.yaml",
    "picture_editor": BUNDLE,
    "picture_editor_arguments": '{"num_inference_steps": 2, "eta": 1.0}',
    "picture_judge": "red_judge:redness",
    "max_steps": 2,
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "pictures_per_plan": 2,
    "editor_learning_rate": 1e-3,
    "warmup_steps": 0,
    "lr_scheduler_type": "constant",
    "temperature": 1.2,
    "validation_rows": 2,
    "save_steps": 1,
    "samples_every": 1,
    "disable_tqdm": True,
    "log_completions": False,
}


def train(**options) -> Path:
    flags = [str(part) for name, value in {**FEW, **options}.items() for part in (f"--{name}", value)]
    parsed = TrlParser((JointArguments, GRPOConfig, ModelConfig)).parse_args_and_config(flags)
    runpy.run_path(str(EXAMPLES / "train_grpo_joint.py"))["main"](*parsed)
    return Path(options["output_dir"])


def planner_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def editor_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next((folder / "unet").glob("*.safetensors")))


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(value.float(), after[name].float()) for name, value in before.items())


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    return train(output_dir=tmp_path_factory.mktemp("joint") / "run")


def test_both_learn_and_are_one_pipeline(joint):
    assert moved(planner_of(resolve(START)), planner_of(joint))
    assert moved(editor_of(resolve(BUNDLE) / "editor"), editor_of(joint / "bundle" / "editor"))
    pipe = ImageEditR1Pipeline.from_pretrained(joint / "bundle")
    pipe.set_progress_bar_config(disable=True)
    task = sample_task(0, "simple")
    assert pipe(task.image, task.instruction).images[0].size == task.image.size


def test_what_is_left_says_what_happened(joint):
    card = (joint / "README.md").read_text()
    for line in ("who learns: joint", "| pictures a plan | 2 |", "| DiffusionNFT, penalty | 0.0001 |"):
        assert line in card
    with (joint / "training_curves.csv").open() as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file)}
    for step in (1, 2):
        assert float(rows[step]["picture/rendered"]) > 0
        assert 0 <= float(rows[step]["editor/learned_from"]) <= 1
    assert any(float(row["editor/grad_norm"] or 0) > 0 for row in rows.values() if row.get("editor/grad_norm"))
    for step in (0, 1):
        with Image.open(joint / "samples" / f"step-{step:05d}.png") as sheet:
            assert sheet.format == "PNG"


def test_training_ends_with_the_pictures(joint, tmp_path):
    """Of a run that goes on, those that were made before its checkpoint count."""
    made = json.loads((joint / "checkpoint-1" / "pictures.json").read_text())
    assert 0 < made < json.loads((joint / "checkpoint-2" / "pictures.json").read_text())
    once = train(output_dir=tmp_path / "once", max_pictures=1)
    assert "| steps | 1 |" in (once / "README.md").read_text()
    assert f"| pictures in all | {made} |" in (once / "README.md").read_text()
    twice = {"max_pictures": made + 1, "max_steps": 4}
    again = train(
        output_dir=tmp_path / "twice", resume_from_checkpoint=joint / "checkpoint-1", allow_changes=True, **twice
    )
    assert "| steps | 2 |" in (again / "README.md").read_text()


def test_going_on_is_exact(joint, tmp_path):
    """From the first step's checkpoint, the second step comes out as it did without a break."""
    again = train(output_dir=tmp_path / "again", resume_from_checkpoint=joint / "checkpoint-1")
    assert not moved(planner_of(joint), planner_of(again))
    assert not moved(editor_of(joint / "bundle" / "editor"), editor_of(again / "bundle" / "editor"))


def test_the_editor_alone(tmp_path):
    alone = train(output_dir=tmp_path / "alone", train="editor", editor_lora_r=2, max_steps=1)
    assert not moved(planner_of(resolve(START)), planner_of(alone))
    adapter = load_file(alone / "editor_adapter" / "pytorch_lora_weights.safetensors")
    assert any(value.abs().max() > 0 for name, value in adapter.items() if "lora_B" in name or "lora.up" in name)


class Branches(HUB.Answers):
    """A Hub on which a branch is another name of `main`; `asked` is all that was asked of it to be changed, in order."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:  # noqa: N802
        self.asked.append(self.path)
        if self.path.endswith("/branch/experiment"):
            self._body()
            self._json({})
            return
        self.path = self.path.replace("/experiment", "/main")
        super().do_POST()

    def do_GET(self) -> None:  # noqa: N802
        self.path = self.path.replace("/experiment", "/main")
        super().do_GET()


def test_planner_and_editor_are_uploaded_once_and_whole_to_the_branch_that_is_asked_for(tmp_path):
    pushed = {"push_to_hub": True, "hub_model_id": "somebody/run", "hub_revision": "experiment"}
    few = {"output_dir": tmp_path / "run", "max_steps": 1, "editor_lora_r": 2}
    flags = [str(part) for name, value in {**FEW, **pushed, **few}.items() for part in (f"--{name}", value)]
    with HUB.Hub() as hub:
        hub.RequestHandlerClass = Branches
        hub.commit("somebody/run", {"bundle/of_an_earlier_run.safetensors": b"weights"})
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            **{"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "HF_TOKEN": "x", "HF_HUB_DISABLE_XET": "1"},
            "PYTHONPATH": str(EXAMPLES.parent / "tests"),  # where the judge is
        }
        command = [sys.executable, EXAMPLES / "train_grpo_joint.py", *flags]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        hub.shutdown()
    assert done.returncode == 0, done.stderr[-3000:]
    files = set(hub.files("somebody/run"))
    assert {"README.md", "model.safetensors", "bundle/model_index.json"} <= files
    assert "editor_adapter/pytorch_lora_weights.safetensors" in files
    assert "bundle/of_an_earlier_run.safetensors" not in files
    changes = [path.removeprefix("/api/models/somebody/run/") for path in Branches.asked if "/api/models/" in path]
    assert changes[0] == "branch/experiment" and [each for each in changes if "commit" in each] == [
        "commit/experiment"
    ]


def test_the_planner_alone(joint, tmp_path):
    alone = train(output_dir=tmp_path / "alone", train="planner", max_steps=1)
    assert moved(planner_of(resolve(START)), planner_of(alone))
    assert not moved(editor_of(resolve(BUNDLE) / "editor"), editor_of(alone / "bundle" / "editor"))
    assert not (alone / "checkpoint-1" / "editor.pt").exists()
    called = [ImageEditR1Pipeline.from_pretrained(run / "bundle").editor_defaults for run in (alone, joint)]
    assert called[0] == called[1] and called[0]["num_inference_steps"] == 2
