"""The button "Look again": a critic looks at a result, and a better one takes its place if one can be made."""

import asyncio
import json

import openai_server
import pytest
from PIL import Image

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.app.jobs import Refused, Stopped
from diffusers_r1.app.results import keep
from diffusers_r1.app.service import EditService, Order
from diffusers_r1.judging import ChecklistCritic, ScenesCritic
from diffusers_r1.planners.remote import RemotePlanner
from diffusers_r1.remote_editor import RemoteEditor
from diffusers_r1.scenes import TEST_SEEDS, sample_task, score


pytestmark = pytest.mark.tiny


def result_of(job):
    async def last():
        return [step async for step in job.steps()][-1]

    return asyncio.run(last())


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def serve():
    """Makes services; their folders go at the end."""
    made = []

    def serve(pipe, critic=None):
        made.append(EditService(pipe, 2**20, 1, critic))
        return made[-1]

    yield serve
    for service in made:
        service._folder.cleanup()


@pytest.fixture(scope="module")
def scenes():
    pipe = ImageEditR1Pipeline.from_pretrained("imageedit-r1-scenes", planner=None, processor=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_what_was_left_out_of_a_scene_is_mended_and_what_is_right_is_left(scenes, serve, uploads):
    task = sample_task(TEST_SEEDS, "complex")
    task.image.save(uploads / "scene.png")
    service = serve(scenes)
    assert isinstance(service.critic, ScenesCritic)
    plan = EditPlan(task.instruction, task.edits, task.sub_requests)
    order = Order({"path": str(uploads / "scene.png")}, plan, "multi", 3)
    looked = result_of(service.look(order, uploads / "scene.png", "nothing"))  # as if nothing had been done
    assert looked.words.startswith(f"The critic found missing: {plan.requests[0]}; ")
    assert looked.words.endswith("That is mended.") and all(score(looked.edited.after, task))
    assert [turn.prompt for turn in looked.edited.turns] == ["nothing", *plan.requests]

    made = keep(uploads, looked.edited)
    again = result_of(service.look(made.order, made.picture, plan.requests[-1]))
    assert again.words == "The critic finds all of it there." and again.edited is None


def test_what_nothing_better_came_of_stays(pix2pix, serve, uploads):
    task = sample_task(TEST_SEEDS, "simple")
    task.image.save(uploads / "scene.png")
    service = serve(ImageEditR1Pipeline(None, None, pix2pix), ScenesCritic())  # an editor that makes noise
    order = Order({"path": str(uploads / "scene.png")}, EditPlan("x", (), task.sub_requests), "single", 0)
    looked = result_of(service.look(order, uploads / "scene.png", "nothing"))
    assert looked.words == f"The critic found missing: {task.sub_requests[0]}. Nothing better came of it."
    assert looked.edited is None


def test_a_planner_behind_an_address_is_asked_about_photos(serve, uploads):
    def answer(body: bytes) -> dict:
        if openai_server.PNG_START in body:
            return openai_server.editor_reply(body)
        question = json.loads(body)["messages"][0]["content"][-1]["text"]
        return openai_server.said("no" if "gone" in question and not server.edits else "yes")

    photo = uploads / "photo.png"
    Image.linear_gradient("L").convert("RGB").save(photo)
    plan = EditPlan("x", tuple(openai_server.EDITS), tuple(openai_server.REQUESTS))
    with openai_server.scripted((200, answer, {})) as server:
        type(server).edits = property(lambda it: [path for path, *_ in it.requests if path.endswith("edits")])
        pipe = ImageEditR1Pipeline(planner=RemotePlanner(server.url, "eyes"), editor=RemoteEditor(server.url, "brush"))
        service = serve(pipe)
        assert isinstance(service.critic, ChecklistCritic)
        looked = result_of(service.look(Order({"path": str(photo)}, plan, "single", 0), photo, "both"))
        assert looked.words == f"The critic found missing: {plan.requests[1]}. That is mended."
        assert [turn.prompt for turn in looked.edited.turns] == ["both", plan.requests[1]]
        server.replies[0] = (200, openai_server.said("who knows"), {})
        unknown = result_of(service.look(Order({"path": str(photo)}, plan, "single", 0), photo, "both"))
        assert unknown.words == "The critic could not tell what is there." and unknown.edited is None


def test_what_was_spoilt_is_had_back_from_the_source(serve, uploads):
    def answer(body: bytes) -> dict:
        if openai_server.PNG_START in body:
            return openai_server.editor_reply(body)
        return openai_server.said("yes" if any(path.endswith("edits") for path, *_ in server.requests) else "no")

    photo = uploads / "photo.png"
    Image.linear_gradient("L").convert("RGB").save(photo)
    order = Order({"path": str(photo)}, EditPlan("x", (), ("make it warmer", "remove the dog")), "single", 0)
    with openai_server.scripted((200, answer, {})) as server:
        pipe = ImageEditR1Pipeline(planner=RemotePlanner(server.url, "eyes"), editor=RemoteEditor(server.url, "brush"))
        service = serve(pipe)
        looked = result_of(service.look(order, photo, "both"))
        assert "; spoilt: " in looked.words and looked.words.endswith("That is mended.")
        [again] = looked.edited.turns  # the first picture was no source of it
        assert "make it warmer" in again.prompt


def test_a_look_that_is_stopped_before_the_critic_was_asked_has_no_result(scenes, serve, uploads):
    class Stopping(ScenesCritic):
        def check(self, source):
            job.stop()

    task = sample_task(TEST_SEEDS, "simple")
    task.image.save(uploads / "scene.png")
    order = Order({"path": str(uploads / "scene.png")}, EditPlan("x", (), task.sub_requests), "single", 0)
    job = serve(scenes, Stopping()).look(order, uploads / "scene.png", "nothing")
    with pytest.raises(Stopped):
        result_of(job)


def test_without_a_critic_it_is_said_how_to_name_one(planner, prompts, pix2pix, serve, uploads):
    service = serve(ImageEditR1Pipeline(*planner, pix2pix, prompts=prompts))
    with pytest.raises(Refused, match="--critic_model"):
        service.look(Order({"path": "x"}, EditPlan("x", (), ("y",)), "single", 0), uploads / "x.png", "y")
