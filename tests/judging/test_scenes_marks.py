from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from diffusers_r1.judging import paid, scenes_marks
from diffusers_r1.scenes import (
    BACKGROUNDS,
    KINDS,
    UNREADABLE,
    contents,
    read_contents,
    read_scene,
    render,
    sample_task,
    score,
)


TASKS = [sample_task(seed, kind) for kind in KINDS for seed in range(25)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_rendered_scene_is_read_as_it_is(kind):
    for seed in range(50):
        task = sample_task(seed, kind)
        assert read_scene(task.image) == task.scene
        assert read_contents(task.target_image) == contents(task.target_scene)


def test_what_shows_nothing_of_a_scene_is_unreadable():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert set(read_contents(noise)) == {UNREADABLE}
    with pytest.raises(ValueError, match="no scene"):
        read_scene(noise)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.kind}-{task.seed}")
def test_the_true_picture_is_worth_all_and_the_source_nothing(task):
    true = scenes_marks(task.target_image, task.scene, task.target_scene)
    assert (true.reward, true.parts) == (1.0, {"effect": 1.0, "harm": 0.0, "exact": 1.0})
    untouched = scenes_marks(task.image, task.scene, task.target_scene)
    assert (untouched.reward, untouched.parts) == (0.0, {"effect": 0.0, "harm": 0.0, "exact": 0.0})


def test_exact_is_what_the_evaluation_calls_exact():
    random = np.random.default_rng(1)
    for task in TASKS:
        other = task.target_scene.with_cell(int(random.integers(9)), task.target_scene.items[0])
        picture = render(other)
        assert scenes_marks(picture, task.scene, task.target_scene).parts["exact"] == float(all(score(picture, task)))


def test_harm_costs_twice_and_what_was_done_is_worth_half():
    task = next(task for task in TASKS if len(task.edits) == 1 and task.edits[0].action == "recolor")
    place = next(place for place in range(9) if task.target_scene.cells[place] == task.scene.cells[place] is not None)
    spoilt = render(task.target_scene.with_cell(place, None))
    marks = scenes_marks(spoilt, task.scene, task.target_scene)
    assert marks.parts == {"effect": 1.0, "harm": pytest.approx(1 / 9), "exact": 0.0}
    assert marks.reward == pytest.approx((1 - 2 / 9) / 2)


def test_cells_are_read_on_the_background_that_the_picture_has():
    task = next(task for task in TASKS if any(edit.action == "background" for edit in task.edits))
    other = next(name for name in BACKGROUNDS if name not in (task.scene.background, task.target_scene.background))
    marks = scenes_marks(render(replace(task.target_scene, background=other)), task.scene, task.target_scene)
    assert marks.parts["harm"] == 0.0


@pytest.mark.parametrize(
    ("target", "effect", "preservation", "reward"),
    [(0, 0, 1, 0.0), (1, 1, 1, 1.0), (1, 1, 0, 2 / 3), (1, 0, 1, 1 / 3), (0.5, 0.5, 1, 0.5)],
)
def test_what_is_paid(target, effect, preservation, reward):
    assert paid(target, effect, preservation) == pytest.approx(reward)
