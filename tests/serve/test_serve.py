"""`diffusers-r1 serve`, asked by the `openai` client, by our own remote editor and by the command line."""

import base64
import io
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import openai
import pytest
import tiny_models
from openai_server import REQUESTS, editor_reply, planner_replies, scripted
from PIL import Image

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.commands import main
from diffusers_r1.remote_editor import RemoteEditor


pytestmark = pytest.mark.tiny

PROGRAM = "import sys; from diffusers_r1.commands import main; sys.exit(main(sys.argv[1:]))"
PICTURE = Image.linear_gradient("L").convert("RGB").resize((72, 64))
KEY = "a key of our own"


@contextmanager
def serving(log, *words, **environment):
    """The address at which the command says that it serves, and its process."""
    import os

    command = [sys.executable, "-c", PROGRAM, "serve", "--port", "0", *map(str, words)]
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=file, text=True, env={**os.environ, **environment}
        )
    try:
        address = process.stdout.readline().strip()
        assert address.startswith(("http://127.0.0.1:", "http://[::1]:")), log.read_text()[-3000:]
        yield address, process
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, planner, prompts):
    folder = tmp_path_factory.mktemp("bundle")
    editor = tiny_models.tiny_pix2pix()
    pipe = ImageEditR1Pipeline(*planner, editor, prompts=prompts, editor_defaults={"num_inference_steps": 1})
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def local(bundle, tmp_path_factory):
    """A server whose planner and editor are models loaded in it."""
    words = ("--model", bundle, "--name", "tiny", "--max_pixels", 10_000, "--max_steps", 3)
    with serving(tmp_path_factory.mktemp("log") / "log", *words, DIFFUSERS_R1_API_KEY=KEY) as (address, _):
        yield address


def test_an_address_of_ipv6_is_one_that_clients_take(tmp_path):
    elsewhere = ("--planner", "http://x/v1", "--planner_model", "m", "--editor", "http://x/v1", "--editor_model", "m")
    with serving(tmp_path / "log", *elsewhere, "--host", "::1") as (address, _):
        with openai.OpenAI(base_url=address, api_key=KEY) as client:
            assert [model.id for model in client.models.list()] == ["imageedit-r1"]


@pytest.fixture
def client(local):
    with openai.OpenAI(base_url=local, api_key=KEY, max_retries=0) as client:
        yield client


def png(picture=PICTURE):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return ("photo.png", file.getvalue(), "image/png")


def pixels(data) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(data.b64_json))) as picture:
        return np.asarray(picture.convert("RGB"))


def expected(bundle, seed, **call):
    import torch

    pipe = ImageEditR1Pipeline.from_pretrained(bundle)
    return np.asarray(pipe(PICTURE, generator=torch.Generator().manual_seed(seed), **call).images[0])


def test_a_picture_is_edited_as_the_pipeline_does(client, bundle):
    plan = EditPlan("", (), ("remove it", "make it blue"))
    arguments = {"seed": 5, "turns": "multi", "guidance_scale": 2.0, "plan": plan.to_json()}
    answer = client.images.edit(image=png(), prompt="not looked at", model="tiny", extra_body=arguments)
    assert answer.created > 0 and len(answer.data) == 1
    assert np.array_equal(pixels(answer.data[0]), expected(bundle, 5, plan=plan, turns="multi", guidance_scale=2.0))
    assert EditPlan.from_dict(answer.plan) == plan


def test_an_instruction_is_planned(client):
    answer = client.images.edit(image=png(), prompt="make it blue", model="tiny", n=2, size="36x36")
    assert [pixels(one).shape for one in answer.data] == [(32, 36, 3)] * 2
    assert answer.plan["instruction"] == "make it blue" and answer.plan["fallback"]
    planned = client.post("/plans", cast_to=object, body={"prompt": "make it blue"}, files={"image": png()},
                          options={"headers": {"Content-Type": "multipart/form-data"}})  # fmt: skip
    assert planned["object"] == "plan"
    del planned["object"]
    assert EditPlan.from_dict(planned) == EditPlan.from_dict(answer.plan)


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("gpt-image-1")
    assert error.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("call", "kind", "param", "said"),
    [
        ({"model": "gpt-image-1"}, openai.NotFoundError, "model", "only 'tiny'"),
        ({"prompt": " "}, openai.BadRequestError, "prompt", "no `prompt`"),
        ({"prompt": "x" * 2001}, openai.BadRequestError, "prompt", "2,001 characters"),
        ({"image": ("a.png", b"no picture", "image/png")}, openai.BadRequestError, "image", "no picture of a known format"),
        ({"image": ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n", "image/png")}, openai.BadRequestError, "image", "known format"),
        ({"image": png(PICTURE.resize((200, 100)))}, openai.BadRequestError, "image", "more than 10,000 pixels"),
        ({"mask": png()}, openai.BadRequestError, "mask", "takes no mask"),
        ({"n": 99}, openai.BadRequestError, "n", "from 1 to 10"),
        ({"size": "1024"}, openai.BadRequestError, "size", "WIDTHxHEIGHT"),
        ({"response_format": "url"}, openai.BadRequestError, "response_format", "b64_json"),
        ({"extra_body": {"plan": "{}"}}, openai.BadRequestError, "plan", "requests"),
        ({"extra_body": {"guidance": 1}}, openai.BadRequestError, None, "takes no `guidance`"),
        ({"extra_body": {"num_inference_steps": 4}}, openai.BadRequestError, "num_inference_steps", "at most 3"),
        ({"extra_body": {"selector": "os.system"}}, openai.BadRequestError, "selector", "no field"),
        ({"extra_body": {"image_embeds": "/etc/passwd"}}, openai.BadRequestError, "image_embeds", "takes no text"),
    ],
)  # fmt: skip
def test_errors_are_errors_in_openais_form(client, call, kind, param, said):
    with pytest.raises(kind) as error:
        client.images.edit(**{"image": png(), "prompt": "make it blue", "model": "tiny", **call})
    assert said in error.value.body["message"]
    assert error.value.body["type"] == "invalid_request_error" and error.value.body["param"] == param


def test_the_key_is_asked_for(local):
    with openai.OpenAI(base_url=local, api_key="another", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as error:
            stranger.models.list()
        assert error.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            stranger.images.edit(image=png(), prompt="make it blue", model="tiny")


def test_what_is_no_form_and_what_is_too_long_is_refused(client, local):
    for body, headers, status in [
        ({"prompt": "x"}, {}, 415),
        ({}, {"Content-Type": "multipart/form-data; boundary=x"}, 400),
    ]:
        with pytest.raises(openai.APIStatusError) as error:
            client.post("/images/edits", cast_to=object, body=body, options={"headers": headers})
        assert error.value.status_code == status and error.value.body["message"]
    with pytest.raises(openai.APIStatusError) as error:
        client.images.edit(image=("a.png", bytes(2**26 + 1), "image/png"), prompt="x", model="tiny")
    assert error.value.status_code == 413
    with pytest.raises(openai.NotFoundError):
        client.get("/nothing", cast_to=object)


def test_twenty_at_once_are_all_answered(client, bundle):
    """Each with the picture that it gives alone."""
    plan = EditPlan("", (), ("make it blue",))
    alone = {seed: expected(bundle, seed, plan=plan) for seed in range(4)}
    assert len({picture.tobytes() for picture in alone.values()}) == 4

    def ask(number):
        body = {"seed": number % 4, "plan": plan.to_json()}
        return pixels(client.images.edit(image=png(), prompt="-", model="tiny", extra_body=body).data[0])

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(ask, range(20)))
    assert all(np.array_equal(answer, alone[number % 4]) for number, answer in enumerate(answers))


def test_our_own_remote_editor_and_command_line_work_on_it(local, bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert RemoteEditor(local).model == "tiny"
    PICTURE.save(tmp_path / "photo.png")
    output = tmp_path / "out.png"
    words = [
        "edit",
        tmp_path / "photo.png",
        "make it blue",
        "--output",
        output,
        "--planner",
        "none",
        "--editor",
        local,
    ]
    assert main([*map(str, words), "--seed", "3"]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    with Image.open(output) as picture:
        answer = expected(bundle, 3, instruction="make it blue")
        assert np.array_equal(np.asarray(picture), answer)


def test_a_taken_port_is_said_before_a_model_loads(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ["serve", "--port", str(taken.getsockname()[1]), "--model", "no-such-bundle"]
        assert main(words) == 2
    assert "Address already in use" in capsys.readouterr().err


def test_models_behind_addresses_without_torch(tmp_path):
    """Twenty at once over a planner and an editor elsewhere; a fault of theirs is one of the server, and Ctrl-C ends it."""
    with scripted((200, planner_replies, {})) as planner, scripted((200, editor_reply, {})) as editor:
        parts = (
            "--planner",
            planner.url,
            "--planner_model",
            "eyes",
            "--editor",
            editor.url,
            "--editor_model",
            "brush",
        )
        with (
            serving(tmp_path / "log", *parts) as (address, process),
            openai.OpenAI(base_url=address, api_key="x") as client,
        ):

            def ask(_):
                return client.images.edit(image=png(), prompt="tidy up", model="imageedit-r1")

            with ThreadPoolExecutor(20) as threads:
                answers = list(threads.map(ask, range(20)))
            assert all(answer.plan["requests"] == REQUESTS for answer in answers)
            negative = 255 - np.asarray(PICTURE, int)
            assert all(np.abs(pixels(answer.data[0]) - negative).max() <= 2 for answer in answers)  # resized twice

            editor.replies[:] = [(400, {"error": {"message": "not this content"}}, {})]
            with pytest.raises(openai.BadRequestError, match="not this content"):
                ask(0)
            editor.replies[:] = [(401, {"error": {"message": "no key"}}, {})]
            with pytest.raises(openai.InternalServerError) as error:
                client.with_options(max_retries=0).images.edit(image=png(), prompt="tidy up", model="imageedit-r1")
            assert error.value.status_code == 502

            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
    assert "Traceback" not in (tmp_path / "log").read_text()
