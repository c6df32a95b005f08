import pytest
import torch

from diffusers_r1.plan import Edit
from diffusers_r1.scenes import sample_task
from diffusers_r1.tags import write_decomposition
from diffusers_r1.training.loop import load_checkpoint, log_row, save_checkpoint, warmup_stable_decay
from diffusers_r1.training.validation import decompose_all, score_answers


def test_marks_of_answers():
    truth = [Edit("recolor", "red circle", "blue"), Edit("remove", "black star", "nothing")]
    answers = [write_decomposition(truth[::-1]), write_decomposition(truth[:1], "seen"), "no tags"]
    marks = score_answers(answers, [truth] * 3)
    assert marks["format"] == [1.0, 1.0, 0.0]
    assert marks["exact"] == [1.0, 0.0, 0.0]
    assert marks["action_f1"] == marks["goal_f1"] == pytest.approx([1.0, 2 / 3, 0.0])
    reworded = [Edit("dye", "red circles", "blue"), Edit("erasing", "black star", "gone")]
    marks = score_answers([write_decomposition(reworded, "seen")], [truth])
    assert marks["action_f1"] == marks["subject_soft_f1"] == marks["goal_soft_f1"] == [1.0]
    assert marks["subject_f1"] == marks["goal_f1"] == [0.5] and marks["exact"] == [0.0]
    asked = score_answers([write_decomposition(truth, "seen")], [truth], ["do it at once"], {"recolor": "zap"})
    assert asked["exact"] == asked["action_f1"] == [1.0]


@pytest.mark.tiny
def test_all_rows_are_decomposed_in_order_whatever_the_batch(planner, prompts):
    tasks = [sample_task(seed, "simple") for seed in range(5)]
    about = [task.image for task in tasks], [task.instruction for task in tasks]
    planner[0].train()
    one = decompose_all(*planner, prompts, *about, batch_size=1, max_new_tokens=6)
    assert planner[0].training
    planner[0].eval()
    assert one == decompose_all(*planner, prompts, *about, batch_size=3, max_new_tokens=6)


@pytest.mark.tiny
def test_further_pictures_go_with_their_rows_whatever_the_batch(planner, prompts):
    tasks = [sample_task(seed, "reference" if seed % 2 else "simple") for seed in range(5)]
    about = [task.image for task in tasks], [task.instruction for task in tasks]
    beside = [task.reference_images for task in tasks]
    one = decompose_all(*planner, prompts, *about, batch_size=1, references=beside, max_new_tokens=6)
    assert one == decompose_all(*planner, prompts, *about, batch_size=3, references=beside, max_new_tokens=6)
    assert one != decompose_all(*planner, prompts, *about, batch_size=3, max_new_tokens=6)


def test_the_learning_rate_rises_stays_and_falls():
    factors = [warmup_stable_decay(step, 100, warmup=10, decay=0.2) for step in range(100)]
    assert factors[0] == 0.1 and factors[9:80] == [1.0] * 71 and factors[-1] == pytest.approx(0.05)


def test_a_checkpoint_is_read_back_and_rows_pile_up(tmp_path):
    assert load_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path / "run", weights={"a": torch.ones(2)}, step=3)
    state = load_checkpoint(tmp_path / "run")
    assert state["step"] == 3 and torch.equal(state["weights"]["a"], torch.ones(2))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint.pt"]
    for step in (1, 2):
        log_row(tmp_path / "curve.csv", step=step, loss=0.5)
    assert (tmp_path / "curve.csv").read_text().split() == ["step,loss", "1,0.5", "2,0.5"]
