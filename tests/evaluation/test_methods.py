import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from openai_server import PNG_START, editor_reply, said, scripted
from PIL import Image, ImageOps

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.endpoints import Endpoint, EndpointError
from diffusers_r1.evaluation import (
    Job,
    LocalEditor,
    Sample,
    ServedEditor,
    agents,
    bare,
    fingerprint,
    oracle,
    read_samples,
)
from diffusers_r1.evaluation.methods import editor_names, place_of
from diffusers_r1.judging import Checklist, ChecklistCritic
from diffusers_r1.records import Failure
from diffusers_r1.remote_editor import RemoteEditor


PLAN = EditPlan("tidy up", (), ("remove the red star", "make the background teal"))


def noise(seed: int, size=(64, 64)) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def jobs(count: int, size=(64, 64)) -> list[Job]:
    return [Job(Sample("photos", i, noise(i, size), f"edit {i}"), PLAN, seed=i) for i in range(count)]


def test_plans_that_need_no_planner():
    sample = next(read_samples("scenes-complex", limit=1))
    ((_, plan),) = bare().plan([sample])
    assert plan.prompts("single") == plan.prompts("multi") == [sample.instruction]
    ((_, plan),) = oracle().plan([sample])
    assert plan.requests == sample.requests and plan.edits == sample.edits
    assert not oracle().applies_to({"requests": []}) and oracle().applies_to({"requests": ["x"]})
    assert bare().applies_to({"requests": []})


@pytest.mark.tiny
def test_agents_plan_in_batches_and_load_only_when_asked(pipe):
    loaded = []
    method = agents("r1", lambda: loaded.append(1) or pipe, {"weights": 1}, batch_size=2, max_new_tokens=4)
    samples = list(read_samples("scenes-simple", limit=3))
    assert not loaded
    planned = list(method.plan(samples))
    assert loaded == [1] and [sample for sample, _ in planned] == samples
    alone = [pipe.plan(sample.image, sample.instruction, max_new_tokens=4) for sample in samples]
    assert [plan.requests for _, plan in planned] == [plan.requests for plan in alone]
    assert method.settings == {"weights": 1, "max_new_tokens": 4}


@pytest.mark.tiny
@pytest.mark.parametrize("turns", ["single", "multi"])
def test_a_local_editor_makes_what_the_pipeline_makes(pipe, turns):
    import torch

    editor = LocalEditor("tiny", pipe, {"weights": 1}, batch_size=3, guidance_scale=2.0)
    made = dict((job.sample.row, image) for job, image in editor.make(jobs(4), turns))
    for job in jobs(4):
        generator = torch.Generator().manual_seed(job.seed)
        alone = pipe(job.sample.image, plan=PLAN, turns=turns, generator=generator, guidance_scale=2.0).images[0]
        difference = np.abs(np.asarray(made[job.sample.row], dtype=int) - np.asarray(alone, dtype=int))
        assert difference.max() <= 2  # a batch is added up in another order
    assert editor.settings == {"weights": 1, "arguments": {"num_inference_steps": 1, "guidance_scale": 2.0}}


@pytest.mark.tiny
def test_as_many_pictures_are_edited_at_once_as_were_asked_for(pipe):
    seen = []
    hook = pipe.editor.unet.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    list(LocalEditor("tiny", pipe, {}, batch_size=9).make(jobs(9), "single"))
    hook.remove()
    assert seen == [3 * 9]  # under text and picture, under the picture, under neither


@pytest.mark.tiny
def test_a_picture_that_the_critic_could_not_be_asked_about_is_no_result(pipe):
    plans = [EditPlan(f"edit {number}", (), (f"edit {number}",)) for number in range(3)]
    work = [replace(job, plan=plan) for job, plan in zip(jobs(3), plans)]

    def reply(handler):
        refused = b"edit 1" in server.requests[-1][2]
        handler.answer(*((400, {"error": {"message": "filtered"}}) if refused else (200, said("Yes."))), {})

    with scripted(reply) as server, Endpoint(server.url, "eyes", max_retries=0) as endpoint:
        critic = ChecklistCritic(Checklist(endpoint, concurrency=1))
        editor = LocalEditor("tiny", pipe, {}, batch_size=3, reflect=1, critic=critic)
        made = list(editor.make(work, "single"))
        asked = len(server.requests)
    assert [job for job, _ in made] == work and asked == 3 * 2  # so no batch is made twice
    assert [getattr(picture, "kind", None) for _, picture in made] == [None, Failure.REFUSED, None]


@pytest.mark.tiny
def test_a_picture_that_a_server_refuses_takes_no_other_of_its_batch_along(pipe):
    plans = [EditPlan("", (), (f"edit {number}",)) for number in range(3)]
    work = [replace(job, plan=plan) for job, plan in zip(jobs(3), plans)]

    def reply(handler):
        body = server.requests[-1][2]
        refused = b"edit 1" in body
        handler.answer(*((400, {"error": {"message": "filtered"}}) if refused else (200, editor_reply(body))), {})

    with scripted(reply) as server:
        remote = RemoteEditor(server.url, "closed", concurrency=1)
        editor = LocalEditor("closed", ImageEditR1Pipeline(None, None, remote), {}, batch_size=3)
        made = list(editor.make(work, "single"))
        server.replies[:] = [(401, {"error": {"message": "wrong key"}}, {})]
        asked = len(server.requests)
        ended = list(editor.make(work, "single"))
        assert len(server.requests) == asked + 3
    assert [getattr(picture, "kind", None) for _, picture in made] == [None, Failure.REFUSED, None]
    assert {error.kind for _, error in ended} == {Failure.HOPELESS}


def test_an_argument_that_the_editor_does_not_take_is_refused(pipe):
    with pytest.raises(TypeError, match="takes no `strength`"):
        LocalEditor("tiny", pipe, {}, strength=1)


@pytest.mark.parametrize(("turns", "times"), [("single", 1), ("multi", 2)])
def test_a_remote_editor_edits_turn_by_turn_at_the_size_of_the_source(server, turns, times):
    remote = server()
    editor = ServedEditor(RemoteEditor(remote.url, "closed-editor", concurrency=2), quality="high")
    source = Image.linear_gradient("L").convert("RGB").resize((30, 20))
    work = [Job(Sample("photos", i, source, f"edit {i}"), PLAN, seed=i) for i in range(3)]
    made = [image for _, image in editor.make(work, turns)]
    assert editor.name == "closed-editor" and remote.counts()["calls"] == 3 * times
    expected = (
        ImageOps.invert(source) if times == 1 else source
    )  # the server answers with a negative of twice the size
    for image in made:
        assert image.mode == "RGB" and image.size == source.size
        assert np.abs(np.asarray(image, dtype=int) - np.asarray(expected, dtype=int)).max() < 20


def test_a_remote_editor_is_shown_a_picture_of_the_size_that_it_is_told():
    with scripted((200, editor_reply, {})) as remote:
        ((_, made),) = ServedEditor(RemoteEditor(remote.url, "m"), width=16, height=8).make(jobs(1), "single")
        body = remote.requests[0][2]
    assert b"16x8" in body and made.size == jobs(1)[0].sample.image.size
    assert Image.open(io.BytesIO(body[body.index(PNG_START) :])).size == (16, 8)


def test_what_a_remote_editor_fails_at_is_handed_over(server):
    editor = RemoteEditor(server(fail_every=1).url, "closed-editor", max_retries=0)
    ((_, error),) = ServedEditor(editor).make(jobs(1), "single")
    assert isinstance(error, EndpointError)


def test_fingerprints_follow_the_weights(tmp_path):
    (tmp_path / "a" / "editor").mkdir(parents=True)
    (tmp_path / "a" / "weights.safetensors").write_bytes(b"1")
    (tmp_path / "a" / "editor" / "weights.safetensors").write_bytes(b"2")
    (tmp_path / "a" / "notes.md").write_text("x")
    shutil.copytree(tmp_path / "a", tmp_path / "copies" / "a")

    def only_editor(part):
        return part == "editor"

    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "copies" / "a")
    whole, editor = fingerprint(tmp_path / "a"), fingerprint(tmp_path / "a", only_editor)
    (tmp_path / "a" / "notes.md").write_text("y")
    assert fingerprint(tmp_path / "a") == whole
    (tmp_path / "a" / "weights.safetensors").write_bytes(b"3")
    assert fingerprint(tmp_path / "a") != whole and fingerprint(tmp_path / "a", only_editor) == editor
    assert fingerprint("org/name") == {"name": "org/name"}
    assert fingerprint("imageedit-r1-scenes")["sha256"] != fingerprint("imageedit-r1-scenes-sft")["sha256"]


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["x1/pipeline", "x2/pipeline"], ["x1/pipeline", "x2/pipeline"]),
        (["a/x/pipeline", "b/x/pipeline", "org/flux"], ["a/x/pipeline", "b/x/pipeline", "flux"]),
        (["pipeline", "x2/pipeline"], ["pipeline", "x2/pipeline"]),
        (["imageedit-r1-scenes"], ["imageedit-r1-scenes"]),
        (["/x1/pipeline/", "/x2/pipeline"], ["x1/pipeline", "x2/pipeline"]),
    ],
)
def test_no_two_editors_have_one_name(sources, names):
    assert editor_names({source: {} for source in sources}) == names


def test_an_editor_that_the_run_knows_keeps_its_name(tmp_path):
    folders = [tmp_path / place / "pipeline" for place in ("x1", "x2", "moved")]
    for folder in folders:
        folder.mkdir(parents=True)
    one, two, moved = map(str, folders)

    def variant(name, source, weights):
        return {
            "editor": name,
            "details": {"editor": {"sha256": weights, "arguments": {}}, "source": place_of(source)},
        }

    known = [variant("pipeline", one, "a")]
    # The second is another one, and the first is what it was, be it trained anew or moved.
    assert editor_names({two: {"sha256": "b"}}, known) == ["x2/pipeline"]
    assert editor_names({one: {"sha256": "a"}, two: {"sha256": "b"}}, known) == ["pipeline", "x2/pipeline"]
    assert editor_names({one: {"sha256": "c"}}, known) == ["pipeline"]
    assert editor_names({moved: {"sha256": "a"}}, known) == ["pipeline"]
    # A copy of the first is not the first.
    assert editor_names({one: {"sha256": "a"}, moved: {"sha256": "a"}}, known) == ["pipeline", "moved/pipeline"]
    assert editor_names({"org/pipeline": {}}, taken=["pipeline"]) == ["org/pipeline"]


def test_a_picture_at_which_a_model_raises_takes_no_other_along_and_a_full_card_is_an_outage(pipe, monkeypatch):
    editor = LocalEditor("tiny", pipe, {}, batch_size=3, num_inference_steps=1)
    work = jobs(3)
    bad = work[1].sample.image.tobytes()
    run = type(pipe).run_checked

    def raising(self, call, *args):
        if any(image.tobytes() == bad for image in call.images):
            raise torch.OutOfMemoryError("full") if full else FloatingPointError("NaN")
        return run(self, call, *args)

    monkeypatch.setattr(type(pipe), "run_checked", raising)
    for full, kind in ((False, Failure.FAULT), (True, Failure.OUTAGE)):
        made = list(editor.make(work, "single"))
        assert [getattr(picture, "kind", None) for _, picture in made] == [None, kind, None]
        assert ("OutOfMemoryError" if full else "FloatingPointError: NaN") in str(made[1][1])
