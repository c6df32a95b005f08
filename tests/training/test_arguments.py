import json
import re

import pytest
from PIL import Image

from diffusers_r1.judging import ChecklistJudge, FunctionJudge, ScenesJudge, VIEScoreJudge
from diffusers_r1.scenes import sample_task
from diffusers_r1.tags import read_decomposition, write_decomposition
from diffusers_r1.training.arguments import (
    REWARDS,
    DataArguments,
    RewardArguments,
    as_prompts,
    load_training_rows,
    load_validation_rows,
    make_rewards,
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--dataset_name"),
        ({"dataset_name": "scenes", "validation_rows": 0}, "at least 1"),
        ({"dataset_name": "scenes", "validation_steps": 0}, "at least 1"),
        ({"dataset_name": "scenes", "image_size": 0}, "`image_size` is at least 1, not 0"),
        ({"dataset_name": "scenes", "dataset_limit": 0}, "`dataset_limit` is at least 1, not 0"),
        ({"dataset_name": "scenes", "dataset_seed": -1}, "`dataset_seed` is at least 0, not -1"),
        # A YAML file gets past the types and choices of the command line.
        ({"dataset_name": "scenes", "dataset_limit": 2.5}, "`dataset_limit` must be a whole number"),
        ({"dataset_name": "scenes", "on_bad_row": "keep"}, "`on_bad_row` must be one of error, skip"),
        ({"dataset_name": "scenes", "picture_editor_dtype": "int8"}, "`picture_editor_dtype` must be one of float32"),
        ({"dataset_name": "rows", "dataset_columns": "{"}, "`dataset_columns` cannot be read as JSON"),
        ({"dataset_name": "rows", "dataset_columns": "[1]"}, "`dataset_columns` must be an object"),
        (
            {"dataset_name": "rows", "dataset_columns": '{"instruction": 1}'},
            "`dataset_columns`: `instruction` must be text",
        ),
        ({"dataset_name": "rows", "picture_editor_arguments": "[1]"}, "`picture_editor_arguments` must be an object"),
        ({"dataset_name": "scenes", "rewards": ["format", "taste"]}, "not taste"),
        ({"dataset_name": "scenes", "rewards": []}, "not none"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RewardArguments(**options)


@pytest.mark.parametrize("written", ["{", "", "[1, 2]", "null", '{"zap": 1}', '\ufeff{"zap": "remove"}'])
def test_a_file_of_synonyms_that_holds_something_else_is_named(written, tmp_path):
    path = tmp_path / "synonyms.json"
    path.write_text(written, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(str(path))):
        RewardArguments("scenes", action_synonyms=str(path))


def test_prompts_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "prompts.json").write_text("[")
    with pytest.raises(ValueError, match=r"prompts.json cannot be read"):
        DataArguments("scenes", prompts=str(tmp_path))


def test_scenes_are_validated_on_rows_of_their_own():
    arguments = DataArguments(dataset_name="scenes:simple=1", dataset_limit=3, validation_rows=2)
    rows, held_out = load_training_rows(arguments), load_validation_rows(arguments)
    assert len(rows) == 3 and len(held_out) == 2
    assert rows[0]["instruction"] == sample_task(0, "simple").instruction != held_out[0]["instruction"]


def test_other_rows_are_validated_where_a_split_is_named(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    row = {
        "file_name": "0.png",
        "words": "remove the cat",
        "actions": ["remove"],
        "subjects": ["cat"],
        "goals": ["no"],
    }
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    named = {"dataset_name": str(tmp_path), "dataset_columns": '{"instruction": "words"}'}
    assert load_training_rows(DataArguments(**named))[0]["instruction"] == "remove the cat"
    assert load_validation_rows(DataArguments(**named)) is None
    assert len(load_validation_rows(DataArguments(**named, dataset_test_split="train"))) == 1


def test_rows_without_truth_need_a_teacher_first(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "instruction": "remove the cat"}))
    arguments = DataArguments(dataset_name=str(tmp_path), dataset_test_split="train")
    for load in (load_training_rows, load_validation_rows):
        with pytest.raises(ValueError, match="annotate_plans.py"):
            load(arguments)


def test_a_file_of_sentences_without_all_goals_is_named_before_training(tmp_path):
    file = tmp_path / "rows.jsonl"
    edits = [{"action": "recolor", "subject": "car", "goal": goal} for goal in ("red", "")]
    file.write_text("".join(json.dumps({"instruction": "x", "edits": edits[:n]}) + "\n" for n in (1, 2)))
    given = {"dataset_name": "sentences:file=1", "dataset_path": str(file)}
    for arguments in (DataArguments(**given), RewardArguments(**given, rewards=["format", "goal_soft"])):
        with pytest.raises(ValueError, match=f"Row 1 of {re.escape(str(file))} has an edit without a goal"):
            load_training_rows(arguments)
    assert next(iter(load_training_rows(RewardArguments(**given))))["goals"] == ["red"]


def test_rows_become_prompts_and_answers(planner, text_planner, prompts):
    rows = load_training_rows(DataArguments(dataset_name="scenes:chained=1", dataset_limit=2))
    for processor, sees in ((planner[1], True), (text_planner[1], False)):
        asked = as_prompts(rows, processor, prompts, image_size=32, answered=True)
        assert getattr(processor, "tokenizer", processor).padding_side == "left"
        assert ("image" in asked.column_names) == sees
        content = asked[0]["completion"][0]["content"]
        found = read_decomposition(content[0]["text"] if sees else content)
        assert not found.faults and [edit.action for edit in found.edits] == rows[0]["actions"]
    assert as_prompts(rows, planner[1], prompts, image_size=32)[0]["image"].size == (32, 32)


def test_rewards_come_in_the_order_asked_for(tmp_path):
    offline = [name for name in REWARDS if name != "goal_similarity"]  # that one loads a sentence encoder
    pictures = {"picture_editor": "imageedit-r1-scenes", "picture_judge": "scenes"}
    names = [reward.__name__ for reward in make_rewards(RewardArguments("scenes", rewards=offline[::-1], **pictures))]
    assert names == ["picture", "goal_soft_f1", "goal_f1", "subject_soft_f1", "subject_f1", "action_f1", "format"]

    (tmp_path / "synonyms.json").write_text('{"zap": "remove"}')
    asked = RewardArguments("scenes", rewards=["action"], action_synonyms=str(tmp_path / "synonyms.json"))
    edits = [edit for edit in sample_task(0, "simple").edits if edit.action == "remove"]
    zapped = write_decomposition(edits, "seen").replace("<action>remove", "<action>zap")
    truth = {"actions": [["remove"]], "subjects": [[edits[0].subject]], "goals": [[edits[0].goal]]}
    assert make_rewards(asked)[0](prompts=[None], completions=[zapped], **truth) == [1.0]
    assert make_rewards(RewardArguments("scenes", rewards=["action"]))[0]([None], [zapped], **truth) == [0.0]


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"picture_judge": "scenes"}, ScenesJudge),
        ({"picture_judge": "red_judge:redness"}, FunctionJudge),
        ({"picture_judge": "checklist", "picture_judge_model": "Qwen/Qwen2.5-VL-3B-Instruct"}, ChecklistJudge),
        (
            {
                "picture_judge": "viescore",
                "picture_judge_model": "judge",
                "picture_judge_url": "http://localhost:1/v1",
            },
            VIEScoreJudge,
        ),
    ],
    ids=lambda value: value["picture_judge"] if isinstance(value, dict) else "",
)
def test_a_judge_of_pictures_by_its_name(given, kind, tmp_path):
    asked = RewardArguments("scenes", rewards=["format", "picture"], picture_editor="imageedit-r1-scenes", **given)
    reward = make_rewards(asked, base="imageedit-r1-scenes-sft", folder=tmp_path)[1]
    assert type(reward.judge) is kind
    assert asked.needs_truth == (kind is ScenesJudge)
    if kind is ChecklistJudge:
        assert reward.judge.path == tmp_path / "checklist.jsonl"


def test_a_weight_for_each_reward():
    arguments = RewardArguments("scenes", rewards=["format", "action"])
    assert len(make_rewards(arguments, [1.0, 0.5])) == 2
    with pytest.raises(ValueError, match="3 `reward_weights` for 2 `rewards`"):
        make_rewards(arguments, [1.0, 0.5, 2.0])
