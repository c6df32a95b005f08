import threading
import time

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.pipelines.streaming import one_ahead


pytestmark = pytest.mark.tiny

BOUND = {"constrained": True}
SETTINGS = {"num_inference_steps": 1, "generation": BOUND, "max_new_tokens": 326}
INSTRUCTIONS = ["remove the star", "make it blue", "x"]
PLAN = EditPlan("", (), ("make it blue",))
WAIT = 60


@pytest.fixture
def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (40 + 8 * n, 64, 3), dtype=np.uint8)) for n in range(3)]


@pytest.fixture(autouse=True)
def nothing_is_left_planning():
    """A plan that nobody waits for any more is made to its end, by a planner that the next test shares."""
    yield
    for thread in threading.enumerate():
        if thread.name == "plans-ahead":
            thread.join(WAIT)


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(3)]


@pytest.fixture
def planned_in(planner):
    """The threads in which the planner ran."""
    threads = []
    hook = planner[0].register_forward_pre_hook(lambda *args: threads.append(threading.current_thread()))
    yield threads
    hook.remove()


def assert_equal(out, expected) -> None:
    assert out.plans == expected.plans
    assert [turn.prompt for turn in out.turns[0]] == [turn.prompt for turn in expected.turns[0]]
    assert np.array_equal(np.asarray(out.images[0]), np.asarray(expected.images[0]))


def test_each_result_is_that_of_the_picture_alone_in_order(pipe, pictures, planned_in):
    results = list(pipe.stream(pictures, INSTRUCTIONS, generators(), turns="multi", **SETTINGS))
    assert planned_in and threading.main_thread() not in planned_in
    assert [out.plans[0].instruction for out in results] == INSTRUCTIONS
    assert not any(out.plans[0].fallback for out in results)
    for out, *given, generator in zip(results, pictures, INSTRUCTIONS, generators()):
        assert_equal(out, pipe(*given, turns="multi", generator=generator, **SETTINGS))


def test_what_cannot_be_planned_falls_back_as_it_would_alone(pipe, pictures):
    settings = {"num_inference_steps": 1, "max_new_tokens": 4}
    for out, *given, generator in zip(
        pipe.stream(pictures, INSTRUCTIONS, generators(), **settings), pictures, INSTRUCTIONS, generators()
    ):
        assert out.plans[0].fallback and len(out.plans[0].raw) == 2
        assert_equal(out, pipe(*given, generator=generator, **settings))


def test_the_next_plan_is_under_way_while_the_editor_works(pipe, pictures):
    begun = threading.Semaphore(0)
    asked = pipe.planner.model.visual.register_forward_pre_hook(lambda *args: begun.release())
    under_way = []

    def step(editor, number, timestep, values):
        under_way.append(begun.acquire(timeout=WAIT))
        return values

    results = pipe.stream(pictures, INSTRUCTIONS, callback_on_step_end=step, **SETTINGS)
    assert begun.acquire(blocking=False) is False  # nothing runs before the first result is asked for
    begun.release()
    begun.acquire()
    first = next(results)
    assert first and under_way == [True]
    assert begun.acquire(timeout=WAIT)
    results.close()
    asked.remove()


def test_the_first_result_does_not_wait_for_the_second_plan(pipe, pictures):
    first_is_here, ended = threading.Event(), []

    def pause(*args):
        ended.append(len(ended) == 0 or first_is_here.wait(WAIT))

    asked = pipe.planner.model.visual.register_forward_pre_hook(pause)
    results = pipe.stream(pictures, INSTRUCTIONS, **SETTINGS)
    assert next(results).plans[0].instruction == INSTRUCTIONS[0]
    first_is_here.set()
    assert len(list(results)) == 2 and ended == [True] * 3
    asked.remove()


def test_an_interruption_before_the_first_result_ends_it(pipe, pictures, planned_in):
    for given in (pictures, iter(pictures)):
        results = pipe.stream(given, INSTRUCTIONS, **SETTINGS)
        pipe.interrupt()
        assert list(results) == []
    assert planned_in == []


def test_a_caller_that_stops_early_leaves_no_thread(pipe, pictures):
    before = threading.active_count()
    results = pipe.stream(pictures, INSTRUCTIONS, **SETTINGS)
    next(results)
    closed_at = time.monotonic()
    results.close()
    assert time.monotonic() - closed_at < 2  # it does not wait for the plan that is under way
    while threading.active_count() > before and time.monotonic() - closed_at < WAIT:
        time.sleep(0.05)
    assert threading.active_count() == before


def test_sampled_plans_are_made_between_edits_and_follow_the_seed(pipe, pictures, planned_in):
    settings = {**SETTINGS, "num_plans": 2, "selector": lambda *_: 1}
    before = torch.get_rng_state()
    first, again = (
        list(pipe.stream(pictures[:2], "a", [one for one in generators()[:2] for _ in range(2)], **settings))
        for _ in range(2)
    )
    assert set(planned_in) == {threading.main_thread()}
    assert torch.equal(before, torch.get_rng_state())
    for one, other in zip(first, again):
        assert_equal(one, other)
        assert len(one.candidates[0]) == 2


def test_a_planner_that_is_a_part_of_the_editor_does_not_run_beside_it(prompts, pictures, planner):
    editor = tiny_models.tiny_qwen_edit()
    editor.set_progress_bar_config(disable=True)
    threads = []
    editor.text_encoder.register_forward_pre_hook(lambda *args: threads.append(threading.current_thread()))
    pipe = ImageEditR1Pipeline(editor.text_encoder, planner[1], editor, prompts=prompts)
    list(pipe.stream(pictures[:2], "a", height=64, width=64, num_inference_steps=1, max_new_tokens=2))
    assert set(threads) == {threading.main_thread()}


def test_offloaded_models_take_turns(pipe, pictures, planned_in):
    pipe.enable_model_cpu_offload(device="cpu")
    list(pipe.stream(pictures[:2], "a", num_inference_steps=1, max_new_tokens=2))
    assert set(planned_in) == {threading.main_thread()}
    pipe.remove_all_hooks()


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"instruction": ["a"] * 2}, ValueError, "3 pictures do not go with 2"),
        ({"instruction": " "}, ValueError, "empty"),
        ({"instruction": "a", "turns": "both"}, ValueError, "single"),
        ({"instruction": "a", "true_cfg_scale": 4.0}, TypeError, "takes no `true_cfg_scale`"),
        ({"instruction": "a", "generator": [torch.Generator()]}, ValueError, "1 generators do not go with 3 pictures"),
    ],
)
def test_bad_input_is_refused_at_once(pipe, pictures, arguments, error, said):
    with pytest.raises(error, match=said):
        pipe.stream(pictures, **arguments)


def test_work_that_fails_raises_where_its_result_would_have_come():
    results = one_ahead(lambda number: 6 // number, [1, 2, 0, 3])
    assert [next(results), next(results)] == [6, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_what_comes_is_taken_one_ahead_of_what_is_waited_for():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = one_ahead(lambda number: number, items())
    for done in range(1, 4):
        assert next(results) == done - 1
        time.sleep(0.05)
        assert len(taken) <= done + 2  # one at work, and one in hand
    results.close()


def test_who_stops_early_waits_for_no_plan_and_nor_does_the_program():
    begun, go_on = threading.Event(), threading.Event()

    def work(number: int) -> int:
        if number > 0:
            begun.set()
            go_on.wait(WAIT)
        return number

    results = one_ahead(work, range(3))
    assert next(results) == 0 and begun.wait(WAIT)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "plans-ahead")
    closed_at = time.monotonic()
    results.close()
    assert time.monotonic() - closed_at < 1 and thread.is_alive() and thread.daemon
    go_on.set()
    thread.join(WAIT)
    assert not thread.is_alive()


def test_beside_the_editor_nothing_is_asked_for_again(pipe, pictures):
    asked = []
    hook = pipe.planner.model.visual.register_forward_pre_hook(lambda *_: asked.append(threading.current_thread()))
    out = list(pipe.stream(pictures, INSTRUCTIONS, num_inference_steps=1, max_new_tokens=4))
    hook.remove()
    assert all(one.plans[0].fallback and len(one.plans[0].raw) == 2 for one in out)
    assert [thread.name for thread in asked].count("plans-ahead") == len(pictures)


def test_an_iterator_gives_pairs_and_nothing_longer(pipe, pictures):
    with pytest.raises(ValueError, match="gives pairs"):
        next(pipe.stream(iter([(pictures[0], "a", "b")]), **SETTINGS))


@pytest.mark.parametrize(
    ("pairs", "given", "said"),
    [
        ([["a", "b"]], {}, "An instruction is text, not list"),
        ([[PLAN, PLAN]], {}, "not list; a plan is an `EditPlan`"),
        (None, {"instruction": [["a", "b"]]}, "An instruction is text, not list"),
        (None, {"plan": [[PLAN, PLAN]]}, "A plan is an `EditPlan`, not list"),
    ],
)
def test_each_picture_of_an_iterator_goes_with_one_thing_as_in_a_list(pipe, pictures, planned_in, pairs, given, said):
    coming = iter(pictures[:1] if pairs is None else zip(pictures, pairs))
    with pytest.raises(TypeError, match=said):
        list(pipe.stream(coming, **given, **SETTINGS))
    assert planned_in == []
    if pairs is None:
        with pytest.raises(TypeError, match=said):
            pipe.stream(pictures[:1], **given, **SETTINGS)


@pytest.mark.parametrize("several", [np.array, set, lambda texts: dict.fromkeys(texts).keys(), iter])
def test_instructions_and_plans_of_any_iterable_go_with_a_list_of_pictures(pipe, pictures, several):
    settings = {"num_inference_steps": 1, "max_new_tokens": 2}
    out = list(pipe.stream(pictures[:2], several(INSTRUCTIONS[:2]), **settings))
    assert {one.plans[0].instruction for one in out} == set(INSTRUCTIONS[:2])
    out = list(pipe.stream(pictures[:2], plan={"a": PLAN, "b": PLAN}.values(), num_inference_steps=1))
    assert [one.plans for one in out] == [[PLAN]] * 2
