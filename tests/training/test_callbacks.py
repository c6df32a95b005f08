import csv
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import TrainerState
from trl import GRPOConfig, GRPOTrainer

from diffusers_r1.bundles.planners import load_planner
from diffusers_r1.data.rows import fit
from diffusers_r1.plan import Edit
from diffusers_r1.rewards import ActionReward, GoalReward
from diffusers_r1.tags import write_decomposition
from diffusers_r1.training.arguments import (
    RewardArguments,
    as_prompts,
    load_training_rows,
    load_validation_rows,
    make_rewards,
)
from diffusers_r1.training.callbacks import (
    PATIENCE,
    GreedyValidation,
    LearningWatch,
    RewardBar,
    curve_rows,
    save_curves,
)
from diffusers_r1.training.validation import decompose_all


HISTORY = [
    {"step": 1, "reward": 0.5, "rewards/FormatReward/mean": 0.25, "note": "not a number"},
    {"step": 1, "val/exact": 0.1},
    {"step": 2, "reward": 0.75, "rewards/FormatReward/mean": 0.5},
]


def test_drawing_curves_leaves_a_notebook_its_figures(tmp_path):
    """pyplot, once imported, has chosen where all figures are shown."""
    program = (
        "import sys; from diffusers_r1.training.callbacks import save_curves\n"
        f"save_curves({HISTORY!r}, {str(tmp_path)!r}); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n" and (tmp_path / "training_curves.png").exists()


def test_curves_have_one_row_per_step(tmp_path):
    assert curve_rows(HISTORY) == [
        {"step": 1, "reward": 0.5, "rewards/FormatReward/mean": 0.25, "val/exact": 0.1},
        {"step": 2, "reward": 0.75, "rewards/FormatReward/mean": 0.5},
    ]
    save_curves(HISTORY, tmp_path)
    rows = list(csv.DictReader((tmp_path / "training_curves.csv").read_text().splitlines()))
    assert [float(row["reward"]) for row in rows] == [0.5, 0.75] and rows[1]["val/exact"] == ""
    with Image.open(tmp_path / "training_curves.png") as picture:
        assert picture.width > picture.height > 300


@pytest.mark.parametrize(("share", "warned"), [(1.0, True), (0.96, True), (0.5, False)])
def test_a_run_without_variance_is_warned_of_once(share, warned, caplog):
    watch = LearningWatch()
    with caplog.at_level(logging.WARNING):
        for _ in range(3 * PATIENCE):
            watch.on_log(None, TrainerState(), None, logs={"frac_reward_zero_std": share})
            watch.on_log(None, TrainerState(), None, logs={"loss": 0.0})
    assert len(caplog.records) == warned
    assert not warned or "--num_generations" in caplog.text


def logs_of(reward: float = 1.0, cut: float = 0.0, kept: float = 1.0) -> dict[str, float]:
    return {"reward": reward, "completions/clipped_ratio": cut, "rewards/format/mean": kept}


def marks(exact: float, f1: float = 0.5) -> dict[str, float]:
    return {"val/exact": exact, "val/action_f1": f1}


LOGS = {
    "all is well": ([logs_of()] * 9, None),
    "every answer is cut": ([logs_of(cut=1.0, kept=0.0)] * 9, "--max_completion_length"),
    "most are": ([logs_of(cut=0.99)] * 9, None),
    "only now and then": ([logs_of(cut=1.0), logs_of(cut=1.0), logs_of()] * 3, None),
    "no format": ([logs_of(kept=0.0)] * 9, "train_sft_planner.py"),
    "the reward is pleased": (
        [entry for step in range(8) for entry in (marks(0.2), logs_of(reward=step / 8))],
        "--log_completions",
    ),
    "one mark rises": (
        [entry for step in range(8) for entry in (marks(0.2, 0.5 + step / 20), logs_of(reward=step / 8))],
        None,
    ),
    "the reward stands still": ([entry for _ in range(8) for entry in (marks(0.2), logs_of())], None),
}


@pytest.mark.parametrize(("logs", "said"), LOGS.values(), ids=LOGS)
def test_what_cannot_be_learned_from_is_said_once(logs, said, caplog):
    watch = LearningWatch()
    with caplog.at_level(logging.WARNING):
        for entry in logs:
            watch.on_log(None, TrainerState(), None, logs=entry)
    assert len(caplog.records) == (said is not None)
    assert said is None or said in caplog.text


def test_the_bar_shows_reward_and_exact(capsys):
    bar = RewardBar()
    state = TrainerState(max_steps=4)
    bar.on_log(None, state, None, logs={"reward": 1.0})  # before there is a bar
    bar.on_train_begin(None, state, None)
    bar.on_log(None, state, None, logs={"reward": 2.75, "grad_norm": 3.0})
    bar.on_log(None, state, None, logs={"val/exact": 0.125})
    bar.on_train_end(None, state, None)
    said = capsys.readouterr().err
    assert "reward=2.75, exact=0.125" in said and "grad_norm" not in said


def test_a_step_without_a_single_reward_is_passed_over(caplog):
    """TRL logs `None` for it, as where the judge of pictures was away for a whole step."""
    nothing = {"reward": None, "rewards/format/mean": None, "frac_reward_zero_std": None}
    learning, bar = LearningWatch(), RewardBar()
    bar.on_train_begin(None, TrainerState(max_steps=1), None)
    for watch in (learning, bar):
        for entry in (nothing, {**nothing, "completions/clipped_ratio": 1.0}):
            watch.on_log(None, TrainerState(), None, logs=entry)
    assert (learning.cut, learning.rewards, learning.shares, bar.values) == (1, [], [], {})


NOT_TIMES = ("reward", "loss", "grad_norm", "entropy")


def train(folder, steps: int | None) -> GRPOTrainer:
    """Three steps of GRPO with the shipped planner, validated on five rows every `steps` steps, or never."""
    planner, processor, prompts = load_planner("imageedit-r1-scenes", dtype=torch.float32)
    arguments = RewardArguments("scenes:complex=1", dataset_limit=12, validation_rows=5)
    trainer = GRPOTrainer(
        model=planner,
        processing_class=processor,
        args=GRPOConfig(
            output_dir=str(folder),
            max_steps=3,
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=96,
            learning_rate=1e-4,
            logging_steps=1,
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=as_prompts(load_training_rows(arguments), processor, prompts, image_size=None),
        reward_funcs=make_rewards(arguments),
    )
    if steps is not None:
        rows = load_validation_rows(arguments)
        trainer.add_callback(GreedyValidation(trainer, prompts, rows, 64, steps, max_new_tokens=96, batch_size=2))
    trainer.train()
    return trainer


def test_validation_counts_as_the_rewards_do():
    goal = "turn the old rusty red car into a shiny blue convertible parked by the sea"
    rows = Dataset.from_list(
        [
            {"instruction": "zap the red car", "actions": ["remove"], "subjects": ["red car"], "goals": ["nothing"]},
            {"instruction": goal, "actions": ["replace"], "subjects": ["car"], "goals": ["a blue convertible"]},
        ]
    )
    answers = [
        write_decomposition([Edit("zap", "red car", "nothing")]),
        write_decomposition([Edit("replace", "car", goal)]),
    ]
    for synonyms in (None, {"zap": "remove"}):
        means = GreedyValidation(None, None, rows, None, 1, 96, synonyms=synonyms).means(answers)
        truth = {name: rows[name][:] for name in ("actions", "subjects", "goals", "instruction")}
        for name, reward in (("action_f1", ActionReward(synonyms)), ("goal_soft_f1", GoalReward(soft=True))):
            assert means[f"val/{name}"] == np.mean(reward([None] * 2, answers, **truth))


@pytest.mark.tiny
@pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing. is deprecated:FutureWarning")
def test_validation_does_not_disturb_training(tmp_path):
    watched, plain = train(tmp_path / "watched", steps=1), train(tmp_path / "plain", steps=None)
    curves = [
        [row[name] for row in curve_rows(trainer.state.log_history) for name in NOT_TIMES if name in row]
        for trainer in (watched, plain)
    ]
    assert len(curves[0]) == 12 and curves[0] == curves[1]
    for one, other in zip(watched.model.parameters(), plain.model.parameters()):
        assert torch.equal(one, other)


@pytest.mark.tiny
@pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing. is deprecated:FutureWarning")
def test_validation_is_logged_before_the_first_step_every_so_often_and_once_at_the_end(tmp_path):
    trainer = train(tmp_path, steps=2)
    marks = {row["step"]: row for row in curve_rows(trainer.state.log_history) if "val/exact" in row}
    assert list(marks) == [0, 2, 3]
    assert all(0 <= marks[0][f"val/{name}"] <= 1 for name in ("format", "action_f1", "subject_f1", "goal_f1", "exact"))
    validation = next(c for c in trainer.callback_handler.callbacks if isinstance(c, GreedyValidation))

    about = trainer.args, trainer.state, trainer.control
    before = list(trainer.state.log_history)
    validation.on_train_end(*about)  # of a checkpoint of the last step that is gone on from
    assert trainer.state.log_history == before
    (measured,) = (row for row in before if "val/exact" in row and row["step"] == 3)
    trainer.state.log_history.remove(measured)  # as in one of an earlier version
    validation.on_train_end(*about)
    assert trainer.state.log_history[-1] == measured

    rows = validation.rows
    about = list(rows["image"]), list(rows["instruction"])
    asked = decompose_all(trainer.model, trainer.processing_class, validation.prompts, *about, max_new_tokens=96)
    assert validation.answers() == asked and len(set(asked)) == 5


@pytest.mark.tiny
@pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing. is deprecated:FutureWarning")
def test_validation_shows_the_pictures_at_the_size_of_training(tmp_path):
    trainer = train(tmp_path, steps=2)
    validation = next(c for c in trainer.callback_handler.callbacks if isinstance(c, GreedyValidation))
    answers = validation.answers()
    wide = [fit(image, 96).crop((0, 0, 96, 48)) for image in validation.rows["image"]]
    columns = {**validation.rows.remove_columns("image").to_dict(), "image": wide}
    validation.rows = Dataset.from_dict(columns, validation.rows.features)
    about = trainer.model, trainer.processing_class, validation.prompts
    fitted, instructions = [fit(image, 64) for image in wide], list(validation.rows["instruction"])
    assert validation.answers() == decompose_all(*about, fitted, instructions, max_new_tokens=96) != answers
