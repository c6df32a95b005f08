"""A pipeline of addresses alone keeps the rules of the one that loads models; nothing is sent for what is refused."""

from inspect import signature

import pytest
from PIL import Image

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.pipelines.call import check_call, check_planning, check_settings
from diffusers_r1.pipelines.remote import LOCAL_ONLY, RemotePipeline
from diffusers_r1.planners.remote import RemotePlanner
from diffusers_r1.remote_editor import GIVEN_BY_THE_PLAN, RemoteEditor


PICTURE, PLAN = Image.new("RGB", (16, 16)), EditPlan("", (), ("make it blue",))
NOWHERE = "http://localhost:1/v1"


@pytest.fixture
def pipe():
    return RemotePipeline(RemotePlanner(NOWHERE, "m"), RemoteEditor(NOWHERE, "m"))


def test_what_the_other_pipeline_takes_by_name_is_no_field_of_a_request(pipe):
    named = set(signature(check_call).parameters) - {"pipeline", "editor_arguments"}
    taken = set(signature(pipe.check_inputs).parameters)
    assert named - taken <= {*LOCAL_ONLY, *GIVEN_BY_THE_PLAN}
    for name in LOCAL_ONLY:
        with pytest.raises(ValueError, match=f"`{name}` is for `ImageEditR1Pipeline`"):
            pipe(PICTURE, plan=PLAN, **{name: 2})


@pytest.mark.parametrize("seed", [-1, 1.5, "1", True])
def test_a_bad_seed(pipe, seed):
    with pytest.raises(ValueError, match="`seed` must be a whole number"):
        pipe(PICTURE, plan=PLAN, seed=seed)
    with pytest.raises(ValueError, match="`seed` must be a whole number"):
        pipe.plan(PICTURE, "make it blue", seed=seed)


def test_a_callback_that_is_none_or_gives_no_plan(pipe):
    with pytest.raises(TypeError, match="`callback_on_plan` is called; str cannot be"):
        pipe(PICTURE, plan=PLAN, callback_on_plan="x")
    with pytest.raises(TypeError, match="gives an `EditPlan` or None, not dict"):
        pipe(PICTURE, plan=PLAN, callback_on_plan=lambda plan: {"requests": ["a"]})
    with pytest.raises(ValueError, match="requests"):
        pipe(PICTURE, plan=PLAN, callback_on_plan=lambda plan: EditPlan("", (), "remove"))


def test_a_planner_behind_an_address_takes_the_place_of_all_agents():
    planner = RemotePlanner(NOWHERE, "m")
    pipe = ImageEditR1Pipeline.from_pretrained("imageedit-r1-scenes", planner=planner, editor=None)
    assert pipe.planner is planner
    assert pipe.processor is pipe.sequencer is pipe.sequencer_processor is None


def test_what_is_left_out_is_the_same_in_both(pipe):
    ways = {
        check_call: (pipe.check_inputs, pipe.__call__, ImageEditR1Pipeline.__call__, check_settings),
        check_planning: (pipe.check_planning,),
        ImageEditR1Pipeline.plan: (pipe.plan,),
    }
    for ours, others in ways.items():
        for other in others:
            for name, parameter in signature(other).parameters.items():
                mine = signature(ours).parameters.get(name, parameter)
                assert (parameter.default, parameter.kind) == (mine.default, mine.kind), (other, name)
