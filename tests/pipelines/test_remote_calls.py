"""A pipeline of addresses alone at work: what is sent, in which order, and what comes back of it."""

import io
import json
import re
from inspect import signature

import pytest
import torch
from openai_server import PNG_END, PNG_START, REQUESTS, editor_reply, planner_replies, scripted
from PIL import Image, ImageOps

from diffusers_r1 import Edit, EditPlan, ImageEditR1Pipeline
from diffusers_r1.belongings import set_belongings
from diffusers_r1.endpoints import Endpoint
from diffusers_r1.judging import Criticism
from diffusers_r1.pipelines.remote import RemotePipeline
from diffusers_r1.planners.plans import make_plans
from diffusers_r1.planners.remote import GIVEN_BY_THE_CONVERSATION, RemoteConversation, RemotePlanner
from diffusers_r1.remote_editor import RemoteEditor, remote_working_size


PLAN = EditPlan("tidy up", (Edit("remove", "star", "nothing"),), ("remove the star", "make it teal"))
FIRST, SECOND = Image.new("RGB", (6, 4), (10, 20, 30)), Image.new("RGB", (3, 8), (200, 100, 0))


def answer(handler) -> None:
    """The planner's two answers, and of a picture the negative at twice its size."""
    path, _, body = handler.server.requests[-1]
    handler.answer(200, planner_replies(body) if path.endswith("/chat/completions") else editor_reply(body), {})


@pytest.fixture
def server():
    with scripted(answer) as server:
        yield server


@pytest.fixture
def pipe(server):
    return RemotePipeline(RemotePlanner(server.url, "p", concurrency=1), RemoteEditor(server.url, "e"))


def questions(server) -> list[dict]:
    return [json.loads(body) for path, _, body in server.requests if path.endswith("/chat/completions")]


def edits(server) -> list[dict[str, str]]:
    """The fields of each request for an edit that are text."""
    field = re.compile(rb'name="([^"]+)"\r\n\r\n(.*?)\r\n--', re.DOTALL)
    bodies = [body for path, _, body in server.requests if path.endswith("/images/edits")]
    return [{name.decode(): value.decode() for name, value in field.findall(body)} for body in bodies]


def pictures(server) -> list[list[Image.Image]]:
    """The pictures in each request for an edit."""
    png = re.compile(re.escape(PNG_START) + rb".*?" + re.escape(PNG_END), re.DOTALL)
    bodies = [body for path, _, body in server.requests if path.endswith("/images/edits")]
    return [[Image.open(io.BytesIO(data)) for data in png.findall(body)] for body in bodies]


def test_an_instruction_is_planned_and_done_turn_by_turn(pipe, server):
    out = pipe(FIRST, "make it winter", turns="multi")
    assert [plan.requests for plan in out.plans] == [tuple(REQUESTS)] and out.plans[0].instruction == "make it winter"
    assert [(one["max_tokens"], one["seed"]) for one in questions(server)] == [(512, 0)] * 2
    assert [one["prompt"] for one in edits(server)] == REQUESTS and "seed" not in edits(server)[0]
    assert [turn.prompt for turn in out.turns[0]] == REQUESTS
    assert [turn.requests for turn in out.turns[0]] == [(request,) for request in REQUESTS]
    assert {turn.size_given for turn in out.turns[0]} == {(6, 4)}
    assert {turn.size_returned for turn in out.turns[0]} == {turn.image.size for turn in out.turns[0]} == {(12, 8)}
    assert not out.interrupted and out.images[0].size == (6, 4)
    assert out.images[0].getpixel((0, 0)) == FIRST.getpixel((0, 0))  # the negative of the negative
    assert pictures(server)[1][0].size == (6, 4)


def test_seeds_count_on_from_picture_to_picture(pipe, server):
    out = pipe([FIRST, SECOND], "a", num_images_per_prompt=2, seed=7, max_new_tokens=40)
    assert {(one["max_tokens"], one["seed"]) for one in questions(server)} == {(40, 7)}
    assert [one["seed"] for one in edits(server)] == ["7", "8", "9", "10"]
    assert [image.size for image in out.images] == [(6, 4), (6, 4), (3, 8), (3, 8)]
    assert len(out.plans) == 2 and [len(record) for record in out.turns] == [1] * 4
    assert all(record[0].requests == tuple(REQUESTS) for record in out.turns)
    assert out.images[2].getpixel((0, 0)) == ImageOps.invert(SECOND).getpixel((0, 0))


@pytest.fixture
def local(pipe):
    """The pipeline that takes models, too, of the same parts."""
    return ImageEditR1Pipeline(pipe.planner, editor=pipe.editor)


def seeds(server) -> list[int]:
    return sorted(int(one["seed"]) for one in edits(server))


def test_each_picture_keeps_its_seed_through_batches_turns_and_looks(pipe, local, server):
    def gen():
        return torch.Generator().manual_seed(7)

    local(FIRST, plan=PLAN, num_images_per_prompt=10, generator=gen())
    assert seeds(server) == [*range(7, 17)]  # in two batches
    server.requests.clear()
    local.edit([FIRST] * 3, [PLAN] * 3, generators=[gen()] * 3, max_batch=2)
    assert seeds(server) == [7, 8, 9]
    server.requests.clear()
    short, long = EditPlan("", (), ("short",)), EditPlan("", (), ("long", "longer"))
    local([FIRST, SECOND], plan=[short, long], turns="multi", generator=gen())
    assert sorted((one["prompt"], one["seed"]) for one in edits(server)) == [
        ("long", "8"),
        ("longer", "8"),
        ("short", "7"),
    ]
    server.requests.clear()
    local([FIRST, SECOND], plan=short, generator=torch.Generator().manual_seed(2**64 - 1))
    assert seeds(server) == [0, 2**31 - 1]  # of as many as servers take
    server.requests.clear()
    for stream in ([FIRST, SECOND], iter([FIRST, SECOND])):
        list(local.stream(stream, plan=short, generator=gen(), num_images_per_prompt=2))
        assert seeds(server) == [7, 8, 9, 10]
        server.requests.clear()

    def critic(source, picture, plan, instruction):
        return Criticism((source.size == FIRST.size,))  # the second is not as it was asked for

    local([FIRST, SECOND], plan=short, generator=gen(), reflect=1, critic=critic)
    assert seeds(server) == [7, 8, 8]
    server.requests.clear()
    second = {"num_images_per_plan": 2, "selector": lambda *_: 1, "reflect": 1}
    local(SECOND, plan=short, generator=gen(), critic=critic, **second)
    assert seeds(server) == [7, 8, 8]


def test_what_the_conversation_gives_is_refused_before_anything_is_sent(pipe, local, server):
    for name in GIVEN_BY_THE_CONVERSATION:
        for one in (pipe, local):
            if name != "seed" or one is local:  # the other one takes it as an argument of its own
                with pytest.raises(TypeError, match=f"`{name}` is not for the caller to give to the planner"):
                    one.plan(FIRST, "a", **{name: 2})
    ways = make_plans, RemoteConversation.decompose, RemoteConversation.sequence, Endpoint.chat_many, Endpoint.chat
    names = {
        name for way in ways for name, one in signature(way).parameters.items() if one.kind is not one.VAR_KEYWORD
    }
    callers = {"self", "retries", "num_plans", "max_new_tokens", "constrained", "temperature"}
    assert names <= {*GIVEN_BY_THE_CONVERSATION, *callers}
    assert not server.requests


def test_a_setting_that_is_none_is_as_left_out(pipe, local):
    for one in (pipe, local):
        assert one.plan(FIRST, "a", retries=None, top_p=None).requests == tuple(REQUESTS)


def test_plans_alone(pipe, server):
    assert pipe.check_planning(FIRST, "a").seed == 0
    assert pipe.plan(FIRST, "a").requests == tuple(REQUESTS)
    assert {(one["max_tokens"], one["seed"], one["temperature"]) for one in questions(server)} == {(512, 0, 0.0)}
    assert [plan.instruction for plan in pipe.plan(FIRST, ["a", "b"])] == ["a", "b"]
    assert [plan.instruction for plan in pipe.plan([FIRST], "a")] == ["a"]
    server.requests.clear()
    pipe.plan(FIRST, "a", seed=3, max_new_tokens=9, do_sample=True, temperature=0.5)
    assert {(one["max_tokens"], one["seed"], one["temperature"]) for one in questions(server)} == {(9, 3, 0.5)}


def test_what_is_given_beside_the_picture_is_sent(pipe, server):
    set_belongings(pipe.editor, defaults={"quality": "low", "steps": 3})
    mask = Image.new("L", (3, 2))
    mask.putpixel((0, 0), 255)
    pipe([[FIRST, SECOND]], plan=PLAN, mask_image=mask, quality="high")
    assert {key: edits(server)[0][key] for key in ("quality", "steps")} == {"quality": "high", "steps": "3"}
    source, other, sent = pictures(server)[0]
    assert (source.size, other.size, sent.size) == (FIRST.size, SECOND.size, FIRST.size)
    assert [sent.getpixel((x, 0))[0] for x in range(6)] == [255, 255, 0, 0, 0, 0]  # black and white are all there is
    pipe(FIRST, plan=PLAN)
    assert len(pictures(server)[1]) == 1


def test_both_pipelines_send_the_same(pipe, local, server):
    large = Image.new("RGB", (4200, 1000))
    mask = Image.new("L", (3, 2), 255)
    given = {"width": 9, "height": 8, "mask_image": mask, "loras": ["style"], "sigmas": [1.0, 0.5], "more": {"a": []}}
    for one in (pipe, local):
        out = one([[FIRST, large]], plan=PLAN, turns="multi", **given)
        assert out.images[0].size == FIRST.size and {turn.size_given for turn in out.turns[0]} == {(9, 8)}
    assert edits(server)[:2] == edits(server)[2:] and edits(server)[0]["size"] == "9x8"
    assert [edits(server)[0][name] for name in ("loras", "sigmas", "more")] == ['["style"]', "[1.0, 0.5]", '{"a": []}']
    sizes = [[picture.size for picture in one] for one in pictures(server)]
    assert sizes == [[(9, 8), remote_working_size(large.size), (9, 8)]] * 4 and sizes[0][1] < large.size


def test_sizes_that_are_none_are_refused_before_anything_is_sent(pipe, local, server):
    for one in (pipe, local):
        for side in ("64", [64, 64], 0, 1.5, True):
            with pytest.raises(ValueError, match="`width` must be 1 or more"):
                one(FIRST, "a", width=side, height=64)
    set_belongings(pipe.editor, defaults={"width": 64, "height": 64})
    for one in (pipe, local):
        with pytest.raises(TypeError, match="`width` and `height` go together"):
            one(FIRST, "a", height=None)
    for pixels in ("1000000", -1, 0, True):
        with pytest.raises(ValueError, match="`max_pixels` is a number of pixels"):
            local(FIRST, "a", max_pixels=pixels)
    assert not server.requests


def test_the_plan_can_be_changed_and_one_request_at_once_is_the_whole_plan(pipe, server):
    out = pipe(FIRST, plan=PLAN, callback_on_plan=lambda plan: EditPlan("", (), ("make it red",)))
    assert [one["prompt"] for one in edits(server)] == ["make it red"] == [*out.plans[0].requests]
    out = pipe(FIRST, plan=PLAN, turns="auto")
    assert len(out.turns[0]) == 1 and out.turns[0][0].requests == PLAN.requests
    assert out.plans == [PLAN]


def test_what_is_not_there_is_named(pipe, server):
    with pytest.raises(ValueError, match="no editor"):
        RemotePipeline(pipe.planner)(FIRST, plan=PLAN)
    with pytest.raises(ValueError, match="no planner"):
        RemotePipeline(editor=pipe.editor).plan(FIRST, "a")
    with pytest.raises(ValueError, match="needs an editor that is loaded here"):
        pipe(FIRST, plan=PLAN, turns="composed")
    with pytest.raises(ValueError, match="takes no logits_processor"):
        pipe.check_planning(FIRST, "a", generation={"logits_processor": []})
    assert server.requests == []


def test_an_interruption_leaves_what_is_done(pipe, server):
    def second(handler):
        if len(edits(server)) == 2:
            pipe.interrupt()
        answer(handler)

    server.replies = [second]
    out = pipe([FIRST, SECOND], plan=PLAN, turns="multi")
    assert out.interrupted and [len(record) for record in out.turns] == [2, 0]
    assert out.images[0].getpixel((0, 0)) == FIRST.getpixel((0, 0)) and out.images[1] is not None
    assert out.images[1].tobytes() == SECOND.tobytes() and len(edits(server)) == 2
    server.replies = [answer]
    assert not pipe(FIRST, plan=PLAN).interrupted  # a call that begins afterwards is not ended


class Pressed(RemoteEditor):
    """An editor at whose second request somebody presses Ctrl-C, after `before` was called."""

    before, asked = staticmethod(lambda: None), 0

    def edit(self, *args, **kwargs):
        self.asked += 1
        if self.asked == 2:
            self.before()
            raise KeyboardInterrupt
        return super().edit(*args, **kwargs)


def test_ctrl_c_gives_up_the_request_and_keeps_what_is_done_if_that_was_asked_for(server):
    pipe = RemotePipeline(editor=Pressed(server.url, "e"))
    with pytest.raises(KeyboardInterrupt):
        pipe(FIRST, plan=PLAN, turns="multi")
    pipe.editor = Pressed(server.url, "e")
    pipe.editor.before = pipe.interrupt
    out = pipe(FIRST, plan=PLAN, turns="multi")
    assert out.interrupted and [turn.prompt for turn in out.turns[0]] == ["remove the star"]
    assert out.images[0].getpixel((0, 0)) == ImageOps.invert(FIRST).getpixel((0, 0))
