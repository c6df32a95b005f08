"""One call, opened and checked: who goes with whom, which seed is drawn from, and what two threads may not do at once."""

import dataclasses
import functools
import threading

import numpy as np
import pytest
import tiny_models
import torch
from comparing import same
from diffusers.callbacks import SDCFGCutoffCallback
from PIL import Image

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.belongings import set_belongings
from diffusers_r1.judging import Criticism
from diffusers_r1.pipelines.call import (
    MAX_BATCH,
    as_planned_on,
    check_settings,
    in_batches,
    made_for,
    share_out_generators,
    within_size,
)
from diffusers_r1.pipelines.exclusive import Interruption, one_at_a_time, with_callers_numbers
from diffusers_r1.plan import Fault, FaultKind
from diffusers_r1.planners.remote import RemotePlanner
from diffusers_r1.prompts import Prompts
from diffusers_r1.remote_editor import RemoteEditor


pytestmark = pytest.mark.tiny

PLAN = EditPlan("", (), ("make it blue", "add a hat"))
ONE_STEP = {"num_inference_steps": 1}
MADE_FOR = {"pictures": "pictures of one thing", "size": [32, 48]}
NOWHERE = "http://localhost:1/v1"
WAIT = 60  # seconds, for what has to come


def picture(seed: int = 0, size: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Which goes with which
# ---------------------


def test_generators_are_shared_out_in_the_order_of_the_pictures():
    one, several = gen(), [gen(seed) for seed in range(6)]
    assert share_out_generators(None, 2, 3) == []
    assert share_out_generators(one, 2, 3) == [[one] * 3] * 2
    assert share_out_generators(several, 2, 3) == [several[:3], several[3:]]
    assert share_out_generators(tuple(several), 6, 1) == [[one] for one in several]


def test_batches_hold_all_rows_in_order():
    assert [*in_batches(range(5), 2)] == [range(0, 2), range(2, 4), range(4, 5)]
    assert [*in_batches([], 2)] == [] and MAX_BATCH == 8


def test_plans_are_sampled_from_the_seed_of_the_first_generator_and_from_0_without_one(pipe):
    two = [picture(), picture(1)]
    several = [gen(seed) for seed in (5, 6, 7, 8)]
    for way, given in (
        (pipe.check_inputs, {"num_images_per_prompt": 2}),
        (pipe.check_planning, {}),
    ):
        for drawn, seed in ((None, 0), (gen(3), 3), (several, 5), (tuple(several), 5)):
            call = way(two, "a", generator=drawn, **given)
            assert getattr(call, "planning", call).seed == seed
    for one in (gen(4), [gen(4)]):
        assert pipe.check_planning(picture(), "a", generator=one).seed == 4
    assert pipe.check_planning(two, "a", generator=[gen(4), gen(5)]).seed == 4
    with pytest.raises(ValueError, match="3 generators do not go with 2 pictures, 1 of each"):
        pipe.check_planning(two, "a", generator=[gen()] * 3)


def test_a_call_takes_along_what_its_plans_are_asked_with(pipe):
    call = pipe.check_inputs([picture(), picture(1)], "a", generation={"top_k": 5}, max_new_tokens=np.int64(7))
    planning = call.planning
    assert planning.settings == {"max_new_tokens": 7, "num_plans": 1, "top_k": 5}
    assert planning.instructions == ["a", "a"] and planning.images == call.images
    alone = pipe.check_planning([picture(), picture(1)], "a", 7, generation={"top_k": 5})
    assert (alone.settings, alone.instructions) == (planning.settings, planning.instructions)
    assert not call.planned and pipe.check_inputs(picture(), plan=PLAN).planned


def test_lists_of_a_call_are_one_entry_for_each_source(pipe):
    call = pipe.check_inputs(
        [picture(), picture(1)], plan=PLAN, num_plans=1, num_images_per_plan=3, selector=lambda *_: 0, generator=gen()
    )
    assert [len(one) for one in call.each] == [len(one) for one in call.generators] == [3, 3]
    assert call.made_of_each == 3 and call.repeated("ab") == ["a", "a", "a", "b", "b", "b"]
    assert len(call.images) == len(call.references) == len(call.given) == 2


def test_a_stream_carries_out_calls_about_one_picture_each(pipe):
    calls, run = [], pipe.run_checked
    pipe.run_checked = lambda call: calls.append(call) or run(call)
    out = list(pipe.stream([picture(seed) for seed in range(3)], plan=PLAN, generator=[gen()] * 3, **ONE_STEP))
    assert len(out) == 3
    for call in calls:
        lists = (call.images, call.references, call.given, call.each, call.generators)
        assert [len(one) for one in lists] == [1] * 5


# What is refused, and what is not
# --------------------------------


def test_what_is_left_out_is_in_order(pipe):
    check_settings(pipe)
    check_settings(pipe, selector=lambda *_: 0)
    with pytest.raises(ValueError, match="tokens"):  # without a plan it is the planner that is asked
        check_settings(pipe, max_new_tokens=10, generation={"constrained": True})
    check_settings(pipe, max_new_tokens=10, generation={"constrained": True}, planned=True)


def test_who_plans_has_what_it_takes(pipe, text_planner):
    remote = RemotePlanner(NOWHERE, "m")
    for parts in (
        {"planner": remote},
        {"planner": remote, "sequencer": remote},
        {"planner": pipe.planner, "processor": pipe.processor, "sequencer": remote},
        {
            "planner": pipe.planner,
            "processor": pipe.processor,
            "sequencer": text_planner[0],
            "sequencer_processor": text_planner[1],
        },
    ):
        ImageEditR1Pipeline(**{"planner": None, **parts}).check_planning(picture(), "a")
    for processor in (None, pipe.processor):
        with pytest.raises(ValueError, match="no planner, so it needs a `plan`"):
            ImageEditR1Pipeline(None, processor).check_planning(picture(), "a")
    with pytest.raises(ValueError, match="a planner without its `processor`"):
        ImageEditR1Pipeline(pipe.planner).check_planning(picture(), "a")
    lacking = ImageEditR1Pipeline(pipe.planner, pipe.processor, sequencer=text_planner[0])
    with pytest.raises(ValueError, match="without its `sequencer_processor`"):
        lacking.check_planning(picture(), "a")


def test_a_stream_without_a_planner_refuses_instructions_at_once_and_carries_out_plans(pix2pix):
    pipe = ImageEditR1Pipeline(None, editor=pix2pix)
    with pytest.raises(ValueError, match="no planner"):
        pipe.stream(iter([picture()]), "a")
    assert len(list(pipe.stream(iter([picture()]), plan=PLAN, **ONE_STEP))) == 1


def test_functions_of_a_loaded_model_are_for_a_loaded_planner(pipe):
    given = {"logits_processor": []}
    assert pipe.check_planning(picture(), "a", generation=given).settings["logits_processor"] == []
    with pytest.raises(ValueError, match="behind an address takes no logits_processor"):
        ImageEditR1Pipeline(RemotePlanner(NOWHERE, "m")).check_planning(picture(), "a", generation=given)


def test_settings_are_checked_for_both_agents(pipe, text_planner):
    remote = RemotePlanner(NOWHERE, "m")
    own = {"planner": pipe.planner, "processor": pipe.processor}
    other = {"sequencer": text_planner[0], "sequencer_processor": text_planner[1]}
    for agents, given, said in (
        ({**own, "sequencer": remote}, {"logits_processor": []}, "behind an address takes no logits_processor"),
        ({**own, "sequencer": remote}, {"n": 2}, "`n` is no setting of the planner's `generate`"),
        ({"planner": remote, **other}, {"frequency_penalty": 0.5}, "`frequency_penalty` is no setting"),
        ({"planner": remote, **other}, {"use_cache": True}, "`use_cache` is not for the caller"),
        ({"planner": remote, **other}, {"constrained": True}, "needs `max_new_tokens` of 69 or more"),
    ):
        with pytest.raises((TypeError, ValueError), match=said):
            ImageEditR1Pipeline(**agents).check_planning(picture(), "a", 30, generation=given)


def test_beams_go_with_one_plan_of_each_instruction(pipe, monkeypatch):
    assert pipe.check_planning(picture(), "a", num_plans=1, generation={"num_beams": 2}).settings["num_beams"] == 2
    assert pipe.check_planning(picture(), "a", num_plans=2, generation={"num_beams": 1}).settings["num_plans"] == 2
    with pytest.raises(ValueError, match="goes without `num_beams`; there are 2"):
        pipe.check_planning(picture(), "a", num_plans=2, generation={"num_beams": 2})
    monkeypatch.setattr(pipe.planner.generation_config, "num_beams", 3)
    with pytest.raises(ValueError, match="goes without `num_beams`; there are 3"):
        pipe.check_planning(picture(), "a", num_plans=2)


def test_a_setting_that_is_none_is_as_left_out(pipe):
    given = {"num_beams": None, "retries": None, "top_k": 5}
    call = pipe.check_inputs(picture(), "a", generation=given, max_new_tokens=4)
    assert call.generation == {"top_k": 5}
    assert pipe.check_planning(picture(), "a", 4, generation=given).settings == call.planning.settings
    assert pipe.plan(picture(), "a", max_new_tokens=4, **given).fallback


def test_belongings_of_what_is_not_there_are_left_out(pipe):
    lacking = ImageEditR1Pipeline(
        None,
        prompts=Prompts(decompose="Own: {instruction}"),
        editor_defaults={"num_inference_steps": 3},
        sequence_without_adapter=True,
    )
    assert (lacking.prompts, lacking.editor_defaults, lacking.sequence_without_adapter) == (Prompts(), {}, False)
    lacking.interrupt()  # nobody runs, and nobody has to be told


# At what size
# ------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((16, 16), (16, 16)),
        ((48, 32), (48, 32)),
        ((48, 48), (39, 39)),
        ((128, 48), (64, 24)),
        ((6144, 4), (1536, 1)),
        ((4, 6144), (1, 1536)),
    ],
)
def test_a_smaller_picture_stays_as_it_is_and_a_larger_one_keeps_its_aspect_ratio(size, expected):
    planner = RemotePlanner(NOWHERE, "m")
    image = Image.new("RGB", size)
    assert within_size(planner, size) == size and as_planned_on(planner, image) is image
    set_belongings(planner, made_for=MADE_FOR)
    assert made_for(planner) == MADE_FOR and made_for(None) == {}
    assert within_size(planner, size) == as_planned_on(planner, image).size == expected
    assert (as_planned_on(planner, image) is image) == (size == expected)


def test_max_pixels_takes_the_place_of_what_the_editor_was_made_for(pipe):
    source = picture(0, (64, 64))

    def worked_at(**given) -> set[tuple[int, int]]:
        return {turn.size_given for turn in pipe(source, plan=PLAN, turns="multi", **ONE_STEP, **given).turns[0]}

    assert worked_at() == {(64, 64)}
    set_belongings(pipe.editor, made_for={"pictures": "small ones", "size": [16, 16]})
    assert worked_at() == {(16, 16)} and worked_at(max_pixels=32 * 32) == {(32, 32)}


# What the editor sees and reads
# ------------------------------


def test_the_editor_sees_the_references_in_every_turn_and_look(planner, prompts, monkeypatch):
    pipe = ImageEditR1Pipeline(*planner, tiny_models.tiny_flux2_klein(), prompts=prompts)
    pipe.set_progress_bar_config(disable=True)
    shown, original = [], type(pipe.editor).__call__

    @functools.wraps(original)
    def record(self, *args, **kwargs):
        shown.append(kwargs["image"])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(pipe.editor), "__call__", record)
    said = [Criticism((True, False)), Criticism((True, True))]
    given = {"plan": PLAN, "reflect": 1, "critic": lambda *_: said.pop(0), "height": 64, "width": 64, **ONE_STEP}
    photo, coat = picture(0, (64, 64)), picture(1, (64, 64))
    out = pipe([[photo, coat]], **given)
    assert len(out.turns[0]) == len(shown) == 2
    assert all(len(images) == 2 and same(images[1], coat) for images in shown)


def test_what_the_editor_did_not_read_takes_the_place_of_what_another_one_did_not(pipe):
    lost, stale = Fault(FaultKind.LOST_ITEM, "subject", "coat"), Fault(FaultKind.UNREAD, detail="add a hat")
    given = dataclasses.replace(PLAN, faults=(lost, stale))
    assert pipe(picture(), plan=given, **ONE_STEP).plans[0].faults == (lost,)
    long = "make it blue " * 40
    out = pipe(picture(), plan=dataclasses.replace(given, requests=(long,)), **ONE_STEP)
    assert out.turns[0][0].unread == (long,)
    assert out.plans[0].faults == (lost, Fault(FaultKind.UNREAD, detail=long))


def test_functions_of_the_caller_reckon_by_the_callers_rules():
    def callback(*_) -> str:
        return np.geterr()["invalid"]

    name, of_diffusers = "callback_on_step_end", SDCFGCutoffCallback(cutoff_step_ratio=0.5)
    with np.errstate(invalid="ignore"):
        first, second, third, fourth = with_callers_numbers(
            [{name: callback, "guidance_scale": 2.0}, {name: callback}, {name: None}, {name: of_diffusers}]
        )
    with np.errstate(invalid="raise"):
        assert first[name]() == "ignore" and callback() == "raise"
    assert first[name] is second[name] and first["guidance_scale"] == 2.0
    assert third == {name: None} and fourth[name] is of_diffusers


# Two threads, and a call that is ended
# -------------------------------------


def enters(editor) -> threading.Event:
    """Set once another thread is where one at a time uses the editor."""
    entered = threading.Event()

    def enter():
        with one_at_a_time(editor):
            entered.set()

    threading.Thread(target=enter, daemon=True).start()
    return entered


def test_an_editor_and_whoever_shares_its_scheduler_wait_for_each_other(pix2pix):
    sharing = type(pix2pix)(**pix2pix.components)
    others = (None, tiny_models.tiny_pix2pix(), RemoteEditor(NOWHERE, "m"))
    with one_at_a_time(pix2pix):
        waiting = [enters(editor) for editor in (pix2pix, sharing)]
        assert all(enters(editor).wait(WAIT) for editor in others)
        assert not any(entered.wait(0.1) for entered in waiting)
    assert all(entered.wait(WAIT) for entered in waiting)
    remote = RemoteEditor(NOWHERE, "m")
    with one_at_a_time(remote):  # an address answers several at once
        assert enters(remote).wait(WAIT)


@pytest.mark.parametrize("shared", [True, False])
def test_a_planner_that_is_a_part_of_the_editor_plans_while_nobody_else_uses_the_editor(prompts, pix2pix, shared):
    editor = tiny_models.tiny_qwen_edit()
    pipe = ImageEditR1Pipeline(editor.text_encoder, editor.processor, editor if shared else pix2pix, prompts=prompts)
    seen = []

    def look(*_):
        if not seen:
            seen.append(enters(pipe.editor).wait(0.2 if shared else WAIT))

    pipe.planner.register_forward_pre_hook(look)
    pipe.plan(picture(), "a", max_new_tokens=2)
    assert seen == [not shared]


def test_an_interruption_of_its_own_ends_one_call_alone(pipe):
    call = pipe.check_inputs(picture(), plan=PLAN, turns="multi", **ONE_STEP)
    interruption, other = Interruption(pipe), Interruption(pipe)
    assert not interruption and not interruption.cut()
    interruption.stop()
    assert interruption and not other
    out = pipe.run_checked(call, interruption)
    assert out.interrupted and out.turns == [[]] and same(out.images[0], picture())
    done = pipe.run_checked(call, other)
    assert not done.interrupted and len(done.turns[0]) == 2

    def stop_during_the_first_turn(editor, step, timestep, values):
        interruption.stop()
        return values

    interruption = Interruption(pipe)
    call = pipe.check_inputs(
        picture(), plan=PLAN, turns="multi", callback_on_step_end=stop_during_the_first_turn, **ONE_STEP
    )
    out = pipe.run_checked(call, interruption)
    assert out.interrupted and len(out.turns[0]) == 1


def test_a_stop_is_told_to_an_editor_that_is_loaded_here_and_at_this_call_and_to_no_other(pipe):
    working, waiting = Interruption(pipe), Interruption(pipe)
    with working.at_the_editor():
        waiting.stop()
        assert pipe.editor._interrupt is False
        working.stop()
        assert pipe.editor._interrupt is True
    remote = ImageEditR1Pipeline(None, editor=RemoteEditor(NOWHERE, "m"))
    interruption = Interruption(remote)
    interruption.stop()
    assert interruption and not interruption.cut()


def test_a_call_that_is_ended_while_it_plans_edits_nothing(pipe):
    out = pipe(picture(), plan=PLAN, callback_on_plan=lambda plan: pipe.interrupt(), **ONE_STEP)
    assert out.interrupted and out.turns == [[]] and same(out.images[0], picture())


@pytest.mark.parametrize("told", [True, False])
def test_ctrl_c_in_a_step_gives_up_the_turn_and_keeps_the_others_if_that_was_asked_for(pipe, told):
    steps = []

    def pressed(editor, step, timestep, values):
        steps.append(step)
        if len(steps) == 2:
            if told:
                pipe.interrupt()
            raise KeyboardInterrupt
        return values

    given = {"plan": PLAN, "turns": "multi", "callback_on_step_end": pressed, **ONE_STEP}
    if not told:
        with pytest.raises(KeyboardInterrupt):
            pipe(picture(), **given)
        return
    out = pipe(picture(), **given)
    assert out.interrupted and [turn.requests for turn in out.turns[0]] == [("make it blue",)]
