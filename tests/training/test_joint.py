"""What joint training refuses, how pictures pay plans and editor, and what a contact sheet shows."""

from __future__ import annotations

import io
import json

import pytest
import torch
from PIL import Image
from trl import GRPOConfig

from diffusers_r1.pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline
from diffusers_r1.plan import EditPlan
from diffusers_r1.remote_editor import RemoteEditor
from diffusers_r1.scenes import sample_task
from diffusers_r1.training.diffusion_nft import JudgedPicture
from diffusers_r1.training.joint import JointArguments, JointReward, called_with, check_joint, contact_sheet
from diffusers_r1.training.pictures import Renderer


EDITOR = "imageedit-r1-scenes"
pytestmark = pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")

GIVEN = {"dataset_name": "scenes", "picture_editor": EDITOR, "picture_judge": "scenes"}


def settings(**options) -> GRPOConfig:
    return GRPOConfig(use_cpu=True, bf16=False, report_to="none", **options)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"train": "both"}, "`train` must be one of joint, planner, editor, not "),
        ({"rewards": ["format", "action"]}, "`picture` is among"),
        ({"pictures_per_plan": 1}, "`pictures_per_plan` is at least 2"),
        ({"pictures_per_plan": 0, "train": "planner"}, "`pictures_per_plan` is at least 1"),
        ({"samples_every": 0}, "`samples_every` is at least 1"),
        ({"max_pictures": 0}, "`max_pictures` is at least 1"),
        ({"editor_lora_r": 0}, "`editor_lora_r`"),
        ({"editor_learning_rate": 0.0}, "`editor_learning_rate`"),
        ({"bundle_editor": EDITOR}, "leave out `bundle_editor`"),
        ({"nft_decay": 1.0}, "`decay`"),
        ({"editor_batch_size": 0}, "`batch_size`"),
        ({"picture_editor_dtype": "bfloat16"}, "in single precision"),
        ({"picture_judge": None}, "needs an editor and a judge"),
    ],
)
def test_arguments_that_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        JointArguments(**{**GIVEN, **wrong})


def test_one_picture_a_plan_is_enough_for_the_planner():
    assert JointArguments(**GIVEN, train="planner", pictures_per_plan=1).rewards == ["format", "picture"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"picture_editor": "http://localhost:1/v1", "picture_editor_model": "x"},
            "behind an address cannot be trained",
        ),
        ({"picture_editor_arguments": json.dumps({"guidance_scale": 7.5})}, "`guidance_scale` is 1.0, not 7.5"),
    ],
)
def test_editors_that_are_refused_before_one_is_loaded(given, said):
    with pytest.raises(ValueError, match=said):
        check_joint(JointArguments(**{**GIVEN, **given}), settings())


def test_classes_that_are_refused_by_their_index(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "OmniGenPipeline"}))
    with pytest.raises(ValueError, match="OmniGenPipeline cannot be trained"):
        check_joint(JointArguments(**{**GIVEN, "picture_editor": str(tmp_path)}), settings())
    check_joint(JointArguments(**{**GIVEN, "picture_editor": str(tmp_path), "train": "planner"}), settings())


def test_several_processes_are_refused():
    with pytest.raises(ValueError, match="in one process"):
        check_joint(JointArguments(**GIVEN), settings(), processes=2)
    check_joint(JointArguments(**GIVEN), settings())


def test_a_bundle_whose_editor_is_behind_an_address_is_refused(tmp_path):
    ImageEditR1Pipeline(None, None, RemoteEditor("http://localhost:1/v1", "x")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="behind an address cannot be trained"):
        check_joint(JointArguments(**{**GIVEN, "picture_editor": str(tmp_path)}), settings())


@pytest.mark.parametrize("wrong", [{"save_only_model": True}, {"learning_rate": 0.0}])
def test_options_of_trl_without_which_the_editor_is_lost(wrong):
    with pytest.raises(ValueError, match=f"--{next(iter(wrong))}"):
        check_joint(JointArguments(**GIVEN, train="editor"), settings(**wrong))


def test_an_editor_is_called_alike_whoever_learns():
    renderer = Renderer(EDITOR, EDITOR, arguments={"num_inference_steps": 2})
    renderer.pipeline.editor_defaults = {"eta": 0.5, "num_inference_steps": 9}
    unguided = {"guidance_scale": 1.0, "image_guidance_scale": 1.0}
    assert called_with(renderer) == {**unguided, "eta": 0.5, "num_inference_steps": 2}


class Told:
    """A judge that says what it is told, one picture after the other, and remembers the pictures."""

    concurrency = 1

    def __init__(self, said):
        self.said, self.seen = list(said), []

    def __call__(self, source, edited, row):
        self.seen.append(edited)
        return self.said.pop(0)


def rewarded(said, steps=(0,)):
    """Marks of three plans of one task, of which the first and last are in the same words, two pictures each."""
    task = sample_task(0, "simple")
    row = {"image": task.image, "instruction": task.instruction}
    plans = [EditPlan(task.instruction, (), (text,)) for text in ("remove the star", "do nothing", "remove the star")]
    judge = Told(said)
    arguments = {"num_inference_steps": 2, "eta": 1.0}
    reward = JointReward(Renderer(EDITOR, EDITOR, arguments=arguments), judge, pictures_per_plan=2)
    logged = {}
    for step in steps:
        reward.step = step
        marks = reward.marks_of([row] * 3, plans, logged.__setitem__)
    return reward, marks, judge, logged


def test_a_plan_earns_the_mean_of_its_pictures():
    reward, marks, judge, logged = rewarded([0.2, 0.6, 1.0, 0.0])
    assert [one.reward for one in marks] == pytest.approx([0.4, 0.5, 0.4])
    assert [(one.prompt, one.reward, one.group) for one in reward.judged] == [
        ("remove the star", 0.2, 0),
        ("remove the star", 0.6, 0),
        ("do nothing", 1.0, 1),
        ("do nothing", 0.0, 1),
    ]
    assert logged["picture/rendered"] == 4 and logged["picture/judge_failed"] == 0
    assert reward.rendered == 4
    assert logged["picture/spread"] == pytest.approx((0.2 + 0.5) / 2)
    assert all(one.source.size == one.edited.size == (64, 64) for one in reward.judged)
    pixels = [picture.tobytes() for picture in judge.seen]
    assert pixels[0] != pixels[1]  # of other noise


def test_pictures_that_nobody_judged_are_left_out():
    reward, marks, _, logged = rewarded([0.2, None, None, None])
    assert marks[0].reward == 0.2 and marks[1] is None and marks[2].reward == 0.2
    assert [one.reward for one in reward.judged] == [0.2]
    assert logged["picture/judge_failed"] == 3


def test_noise_is_that_of_the_step():
    first, again = (rewarded([0.0] * 4, steps=[step])[2].seen for step in (3, 3))
    other = rewarded([0.0] * 4, steps=[4])[2].seen
    assert [one.tobytes() for one in first] == [one.tobytes() for one in again]
    assert first[0].tobytes() != other[0].tobytes()


def test_the_bare_instruction_teaches_the_editor_nothing():
    reward, _, judge, _ = rewarded([0.2, 0.6, 1.0, 0.0])
    judged = list(reward.judged)
    judge.said = [0.5, 0.7]
    task = sample_task(0, "simple")
    marks = reward.of_instructions([{"image": task.image, "instruction": task.instruction}])
    assert marks[0].reward == pytest.approx(0.6)
    assert reward.judged == judged


def test_a_plan_that_could_not_be_put_into_words():
    task = sample_task(0, "simple")
    row = {"image": task.image, "instruction": task.instruction}
    reward = JointReward(Renderer(EDITOR, EDITOR), Told([]), pictures_per_plan=2)
    logged = {}
    assert reward.marks_of([row], [RuntimeError("no words")], logged.__setitem__) == [None]
    assert reward.judged == [] and logged["picture/editor_failed"] == 1


def test_a_contact_sheet_shows_source_and_pictures():
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    pictures = [JudgedPicture(red, f"prompt {group}", blue, 0.5, group) for group in (0, 0, 0, 1, 1, 1)]
    with Image.open(io.BytesIO(contact_sheet(pictures))) as sheet:
        colours = {colour: count for count, colour in sheet.convert("RGB").getcolors(10_000)}
    assert colours[(255, 0, 0)] == 2 * 64 * 64 and colours[(0, 0, 255)] == 6 * 64 * 64
    Image.open(io.BytesIO(contact_sheet([]))).verify()


def test_the_old_policy_makes_the_pictures():
    """What is learned later does not show in what the old policy makes."""
    from diffusers_r1.training.diffusion_nft import EditorLearner, NFTSettings

    task = sample_task(0, "simple")
    plan = EditPlan(task.instruction, (), task.sub_requests)
    reward = JointReward(Renderer(EDITOR, EDITOR), Told([0.0] * 6), pictures_per_plan=2)
    row = {"image": task.image, "instruction": task.instruction}
    reward.marks_of([row], [plan], None)
    before = reward.judged[0].edited.tobytes()
    reward.learner = learner = EditorLearner(reward.renderer.pipeline.editor, NFTSettings(), 1e-3)
    with torch.no_grad():
        for weight in learner.weights:
            weight.mul_(0.5)
    reward.marks_of([row], [plan], None)
    assert reward.judged[0].edited.tobytes() == before
    reward.learner = None
    reward.marks_of([row], [plan], None)
    assert reward.judged[0].edited.tobytes() != before
