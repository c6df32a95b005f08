"""A pipeline of addresses alone keeps the rules of the one that loads models; nothing is sent for what is refused."""

import json
from inspect import signature

import numpy as np
import pytest
from openai_server import editor_reply, planner_replies, said, scripted
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


@pytest.mark.parametrize("text", ["\ud800", {"a": ["\udfff"]}])
def test_half_of_a_surrogate_pair_is_refused_before_anything_is_sent(pipe, text):
    for other in (pipe, ImageEditR1Pipeline(pipe.planner, editor=pipe.editor)):
        with pytest.raises(ValueError, match="`quality.* holds half of a surrogate pair"):
            other(PICTURE, "make it blue", quality=text)
        with pytest.raises(ValueError, match="`stop.* holds half of a surrogate pair"):
            other.plan(PICTURE, "make it blue", stop=text)
    with pytest.raises(ValueError, match="`prompts`|`system` holds half of a surrogate pair"):
        ImageEditR1Pipeline(pipe.planner, prompts={"system": "\ud800"})


def test_what_is_no_json_is_refused_before_anything_is_sent(pipe):
    for other in (pipe, ImageEditR1Pipeline(pipe.planner, editor=pipe.editor)):
        for value in (print, np.zeros(2), {"a": Image}):
            with pytest.raises(TypeError, match="`quality` cannot be sent to a server"):
                other(PICTURE, plan=PLAN, quality=value)
            with pytest.raises(TypeError, match="`stop` cannot be sent to a server"):
                other.plan(PICTURE, "make it blue", stop=value)
        with pytest.raises(ValueError, match="`quality` must be a finite number"):
            other(PICTURE, plan=PLAN, quality=float("inf"))


def test_numbers_of_numpy_are_numbers():
    settings = {
        "num_inference_steps": np.int64(3),
        "width": np.int64(32),
        "height": np.int64(16),
        "sure": np.bool_(True),
    }
    lists = {"scales": [np.float32(0.5)]}
    with scripted((200, editor_reply, {})) as server:
        editor = RemoteEditor(server.url, "m")
        RemotePipeline(editor=editor)(
            PICTURE, plan=PLAN, seed=np.uint8(255), num_images_per_prompt=np.int64(2), **settings, **lists
        )
        ImageEditR1Pipeline(None, editor=editor)(PICTURE, plan=PLAN, **settings)
        sent = [body for _, _, body in server.requests]
    for body in sent:
        assert all(field in body for field in (b'"num_inference_steps"\r\n\r\n3\r\n', b"32x16", b"true"))
    assert b'"seed"\r\n\r\n255\r\n' in sent[0] and b'"seed"\r\n\r\n256\r\n' in sent[1] and b"0.5" in sent[0]
    with scripted((200, planner_replies, {})) as server:
        pipe = RemotePipeline(RemotePlanner(server.url, "m"))
        settings = {"temperature": np.float32(0.5), "top_k": np.int32(5), "do_sample": True}
        pipe.plan(PICTURE, "make it blue", seed=np.int64(7), max_new_tokens=np.int64(400), **settings)
        first = json.loads(server.requests[0][2])
    with scripted((200, said("no plan"), {})) as server:
        pipe = RemotePipeline(RemotePlanner(server.url, "m"))
        for seed, again in ((np.uint8(255), 256), (None, 1)):
            assert pipe.plan(PICTURE, "make it blue", seed=seed).fallback
            assert json.loads(server.requests[-1][2])["seed"] == again
    assert [first[name] for name in ("seed", "max_tokens", "temperature", "top_k")] == [7, 400, 0.5, 5]


def test_a_batch_has_a_plan_of_each_picture():
    with scripted((200, planner_replies, {})) as server:
        planner = RemotePlanner(server.url, "m")
        for pipe in (RemotePipeline(planner), ImageEditR1Pipeline(planner)):
            for number in (1, 2):
                assert len(pipe.plan(np.zeros((number, 16, 16, 3), np.uint8), "make it blue")) == number
            assert not pipe.plan(np.zeros((16, 16, 3), np.uint8), "make it blue").fallback


def test_a_plan_that_fell_back_is_said(caplog):
    with scripted((200, said("no plan"), {})) as server:
        planner = RemotePlanner(server.url, "m")
        for pipe in (RemotePipeline(planner), ImageEditR1Pipeline(planner)):
            assert pipe.plan(PICTURE, "make it blue").fallback
            assert [one.getMessage() for one in caplog.records if "Planning fell back" in one.getMessage()]
            caplog.clear()


def test_an_interruption_before_the_first_turn_asks_for_no_picture(pipe):
    out = pipe(PICTURE, plan=PLAN, callback_on_plan=lambda plan: pipe.interrupt())
    assert out.interrupted and out.turns == [[]] and out.images[0].size == PICTURE.size


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


@pytest.mark.parametrize("tokens", [0, -3, 1.5, None, "many"])
def test_a_number_of_tokens_is_looked_at_beside_a_plan_too(tokens):
    pipe = RemotePipeline(editor=RemoteEditor("http://localhost:1/v1", "m"))
    with pytest.raises((TypeError, ValueError), match="`max_new_tokens`"):
        pipe.check_inputs(PICTURE, plan=EditPlan("a", (), ("a",)), max_new_tokens=tokens)
