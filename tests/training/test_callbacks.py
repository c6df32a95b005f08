import csv
import logging

import pytest
from PIL import Image
from transformers import TrainerState

from diffusers_r1.training.callbacks import PATIENCE, VarianceWatch, curve_rows, save_curves


HISTORY = [
    {"step": 1, "reward": 0.5, "rewards/FormatReward/mean": 0.25, "note": "not a number"},
    {"step": 1, "val/exact": 0.1},
    {"step": 2, "reward": 0.75, "rewards/FormatReward/mean": 0.5},
]


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
    watch = VarianceWatch()
    with caplog.at_level(logging.WARNING):
        for _ in range(PATIENCE + 5):
            watch.on_log(None, TrainerState(), None, logs={"frac_reward_zero_std": share})
            watch.on_log(None, TrainerState(), None, logs={"loss": 0.0})
    assert len(caplog.records) == warned
    assert not warned or "--num_generations" in caplog.text
