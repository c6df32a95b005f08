import numpy as np
import pytest
import torch
from comparing import same
from PIL import Image

from diffusers_r1 import EditPlan


pytestmark = pytest.mark.tiny

PLAN = EditPlan("tidy up", (), ("remove the red star", "make the background teal"))
FAST = {"num_inference_steps": 1, "max_new_tokens": 4}


@pytest.fixture
def source() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def brightest(source, instruction, candidates):
    return [float(np.asarray(candidate).mean()) for candidate in candidates]


def test_the_best_of_all_pictures_comes_out(pipe, source):
    shown = []

    def selector(*arguments):
        shown.append(arguments)
        return brightest(*arguments)

    settings = {"num_plans": 3, "num_images_per_plan": 2, "selector": selector, **FAST}
    out = pipe([source, source.rotate(180)], ["one", "two"], generator=generator(), **settings)
    assert len(out.images) == len(out.plans) == len(out.turns) == len(out.candidates) == len(shown) == 2
    for row, (picture, instruction, pictures) in enumerate(shown):
        candidates = out.candidates[row]
        assert same(picture, [source, source.rotate(180)][row]) and instruction == ["one", "two"][row]
        assert len(candidates) == len(pictures) == 6 and {image.size for image in pictures} == {source.size}
        assert [candidate.score for candidate in candidates] == brightest(picture, instruction, pictures)
        assert candidates[0].plan == candidates[1].plan != candidates[2].plan
        best = max(candidates, key=lambda candidate: candidate.score)
        assert out.images[row] is best.image and out.plans[row] == best.plan and out.turns[row] == best.turns
    again = pipe([source, source.rotate(180)], ["one", "two"], generator=generator(), **settings)
    assert again.plans == out.plans and same(again.images[0], out.images[0])


def test_best_of_a_plan_that_is_there(pipe, source):
    every = pipe(source, plan=PLAN, num_images_per_prompt=3, generator=generator(), num_inference_steps=1).images
    out = pipe(
        source,
        plan=PLAN,
        num_images_per_plan=3,
        selector=lambda source, instruction, candidates: 2 if instruction == "tidy up" else 0,
        generator=[*map(generator, range(3))],
        turns="multi",
        output_type="np",
        num_inference_steps=1,
    )
    assert out.images.shape == (1, 50, 70, 3) and len(out.turns[0]) == 2 and out.plans == [PLAN]
    assert [candidate.score for candidate in out.candidates[0]] == [None] * 3
    alone = pipe(source, plan=PLAN, turns="multi", generator=generator(2), num_inference_steps=1).images[0]
    assert np.abs(out.images[0] * 255 - np.asarray(alone)).max() <= 1
    kept = pipe(
        source,
        plan=PLAN,
        num_images_per_plan=3,
        selector=brightest,
        generator=generator(),
        num_inference_steps=1,
    )
    assert all(same(candidate.image, image) for candidate, image in zip(kept.candidates[0], every))


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (1, 1),
        (np.int64(2), 2),
        ([0.1, 0.7, 0.7], 1),
        (np.array([3.0, 1.0, 2.0]), 0),
        (torch.tensor([1.0, 2.0, 3.0]), 2),
        ([None, -5, None], 1),
        ([float("nan"), None, None], 0),
    ],
)
def test_a_selector_answers_with_an_index_or_scores(pipe, source, answer, kept):
    out = pipe(source, plan=PLAN, num_images_per_plan=3, selector=lambda *_: answer, num_inference_steps=1)
    assert out.images[0] is out.candidates[0][kept].image


@pytest.mark.parametrize(
    ("answer", "said"),
    [(3, "candidate 3 of 3"), (-1, "candidate -1 of 3"), ([0.5], "1 scores for 3"), ([1, 2, 3, 4], "4 scores for 3")],
)
def test_an_answer_that_fits_nothing_is_refused(pipe, source, answer, said):
    with pytest.raises(ValueError, match=said):
        pipe(source, plan=PLAN, num_images_per_plan=3, selector=lambda *_: answer, num_inference_steps=1)


@pytest.mark.parametrize("answer", [None, 0.5, "ab"])
def test_an_answer_that_is_neither_is_refused(pipe, source, answer):
    with pytest.raises(TypeError, match="an index, or a score for each picture"):
        pipe(source, plan=PLAN, num_images_per_plan=3, selector=lambda *_: answer, num_inference_steps=1)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"instruction": "a", "num_plans": 2}, ValueError, "`num_plans` makes candidates"),
        ({"plan": PLAN, "num_images_per_plan": 2}, ValueError, "`num_images_per_plan` makes candidates"),
        ({"plan": PLAN, "num_plans": 2, "selector": brightest}, ValueError, "a `plan` is there already"),
        ({"plan": PLAN, "num_images_per_plan": 0, "selector": brightest}, ValueError, "must be 1 or more"),
        ({"plan": PLAN, "num_images_per_prompt": 2, "selector": brightest}, ValueError, "keeps one picture"),
        ({"plan": PLAN, "selector": "vie"}, TypeError, "str cannot be"),
        (
            {"instruction": "a", "num_plans": 2, "selector": brightest, "generator": [generator()]},
            ValueError,
            "1 generators do not go with 1 pictures, 2 of each",
        ),
    ],
)
def test_numbers_that_do_not_fit_are_refused_before_any_model_runs(pipe, monkeypatch, source, arguments, error, said):
    def fail(*args, **kwargs):
        raise AssertionError("a model ran")

    monkeypatch.setattr(type(pipe.planner), "forward", fail)
    monkeypatch.setattr(type(pipe.editor.unet), "forward", fail)
    with pytest.raises(error, match=said):
        pipe(source, **arguments)


def test_several_plans_without_editing(pipe, source):
    plans = pipe.plan(source, "a", generator(), max_new_tokens=4, num_plans=3)
    assert len(plans) == 3 and len({plan.raw for plan in plans}) > 1
    assert pipe.plan([source] * 2, ["a", "b"], max_new_tokens=4, num_plans=2)[2].instruction == "b"


@pytest.mark.parametrize("selector", [brightest, lambda *_: 0])
def test_one_candidate_is_the_best(pipe, source, selector):
    out = pipe(source, plan=PLAN, selector=selector, num_inference_steps=1)
    assert len(out.candidates[0]) == 1 and out.images[0] is out.candidates[0][0].image
