from hashlib import sha256

import numpy as np
import pytest

from diffusers_r1.scenes import (
    ALL_KINDS,
    BACKGROUNDS,
    COLORS,
    CONTENTS,
    KINDS,
    POINTERS,
    TWO_PICTURES,
    Item,
    Scene,
    apply_edits,
    describe,
    reason,
    render,
    sample_task,
    score,
    score_scene,
    sub_request,
    teacher,
)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_seed_gives_one_task(kind):
    assert sample_task(7, kind) == sample_task(7, kind)
    assert sample_task(7, kind) != sample_task(8, kind)
    assert np.array_equal(np.asarray(sample_task(7, kind).image), np.asarray(sample_task(7, kind).image))


@pytest.mark.parametrize(
    ("kind", "tasks"),
    [
        ("simple", "e4d53e2778cb8d8e"),
        ("chained", "c6b342ba300b115f"),
        ("indirect", "9c206db2a48b444d"),
        ("complex", "b018915a63287ab4"),
        ("reference", "9255743494a4ee8e"),
    ],
)
def test_the_tasks_that_figures_were_measured_on_stay_what_they_are(kind, tasks):
    drawn = [sample_task(seed, kind).instruction for seed in range(200)]
    assert sha256(repr(drawn).encode()).hexdigest().startswith(tasks)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_target_is_the_scene_after_the_edits_in_any_order(kind):
    for seed in range(200):
        task = sample_task(seed, kind)
        assert apply_edits(task.scene, task.edits) == task.target_scene
        assert apply_edits(task.scene, task.edits[::-1]) == task.target_scene
        assert all(score(task.target_image, task))
        assert not all(score(task.image, task))
        assert len(task.sub_requests) == len(task.edits)


def test_kinds_hold_what_they_promise():
    for seed in range(300):
        simple, chained, indirect, complex_ = (sample_task(seed, kind) for kind in KINDS)
        assert len(simple.edits) == 1 and 2 <= len(chained.edits) <= 4
        assert all(part.pointer == "explicit" for part in simple.parts + chained.parts)
        assert len(indirect.parts) == 1 and indirect.parts[0].pointer in POINTERS
        assert len(complex_.parts) >= 2 and 2 <= len(complex_.edits) <= 4
        assert all(part.pointer in POINTERS for part in complex_.parts)
    assert {sample_task(seed, "indirect").parts[0].pointer for seed in range(200)} == set(POINTERS)
    assert {sample_task(seed).kind for seed in range(50)} == set(KINDS)


def test_names_in_a_task_stay_clear():
    for seed in range(300):
        task = sample_task(seed, "complex")
        for scene in (task.scene, task.target_scene):
            assert len(set(scene.items)) == len(scene.items)
        cells = [before != after for before, after in zip(task.scene.cells, task.target_scene.cells)]
        assert sum(cells) + (task.scene.background != task.target_scene.background) == len(task.edits)


def test_every_content_is_told_from_every_other():
    for background in BACKGROUNDS:
        for content in CONTENTS:
            scene = Scene((content, *[None] * 8), background)
            assert score_scene(render(scene), scene) == [True] * 10
            for other in CONTENTS:
                if other != content:
                    assert not score_scene(render(Scene((other, *[None] * 8), background)), scene)[0]


def test_a_cell_of_noise_or_of_another_background_is_wrong():
    scene = sample_task(0).scene
    noise = render(scene).point(lambda value: 255 - value)
    assert not any(score_scene(noise, scene)[:9]) or score_scene(noise, scene).count(True) < 3
    other = Scene(scene.cells, next(b for b in BACKGROUNDS if b != scene.background))
    assert not score_scene(render(other), scene)[9]


def test_the_second_picture_alone_tells_the_color():
    likely = []
    for seed in range(1000):
        task = sample_task(seed, TWO_PICTURES)
        (edit,), (second,) = task.edits, task.references
        assert [item.color for item in second.items] == [edit.goal]
        assert edit.action == "recolor" and f"the {edit.subject}" in task.instruction
        assert not any(f" {color}" in task.instruction.replace(edit.subject, "") for color in COLORS)
        assert "second picture" in task.instruction and task.parts[0].literal[0].goal in task.instruction
        assert np.array_equal(np.asarray(task.reference_images[0]), np.asarray(render(second)))
        shape = edit.subject.split(" ")[1]
        open_colors = [color for color in COLORS if Item(color, shape) not in task.scene.items]
        likely.append(open_colors.index(edit.goal) / (len(open_colors) - 1))
    assert abs(np.mean(likely) - 0.5) < 0.05  # of the colors that are left open, none is likelier than another


def test_only_tasks_of_two_pictures_have_references_and_no_mixture_has_them_unasked():
    assert TWO_PICTURES not in KINDS
    for seed in range(50):
        assert sample_task(seed).references == () and sample_task(seed).kind in KINDS


def test_the_teacher_has_the_habits_asked_for():
    task = next(t for t in map(lambda s: sample_task(s, "complex"), range(100)) if len(t.parts) == len(t.edits) == 3)
    random = np.random.default_rng(0)
    assert teacher(task, random, literal=0) == task.edits
    assert teacher(task, random, literal=1) == tuple(edit for part in task.parts for edit in part.literal)
    drawn = [teacher(task, random) for _ in range(2000)]
    resolved = np.mean([edits[0] == task.edits[0] for edits in drawn])
    assert abs(resolved - 0.4) < 0.05
    explicit = sample_task(3, "chained")
    assert teacher(explicit, random, literal=1) == explicit.edits


def test_sub_requests_are_explicit():
    for seed in range(200):
        for edit in sample_task(seed, "complex").edits:
            request = sub_request(edit)
            assert edit.subject in request
            assert edit.action == "remove" or edit.goal in request


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="simple, chained, indirect, complex"):
        sample_task(0, "hard")


def test_reasoning_is_the_inventory_and_what_was_resolved():
    seen = set()
    for seed in range(200):
        for kind in KINDS:
            task = sample_task(seed, kind)
            indirect = [part for part in task.parts if part.pointer != "explicit"]
            assert reason(task, task.edits).count(" is ") == len(indirect)
            as_said = tuple(edit for part in task.parts for edit in part.literal)
            assert reason(task, as_said) == describe(task.scene)
            for part in indirect:
                said, meant = part.literal[0], part.edits[0]
                field = "subject" if said.subject != meant.subject else "goal"
                assert f"{getattr(said, field)} is {getattr(meant, field)}" in reason(task, task.edits)
                seen.add(part.pointer)
    assert seen == set(POINTERS)
