"""What the server refuses of clients, asked without a socket: no text of theirs opens a file, and no number is an outage."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient
from tiny_editors import editor_of, picture

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.pipelines.remote import RemotePipeline
from diffusers_r1.remote_editor import RemoteEditor
from diffusers_r1.serve.server import Service


KONTEXT = "FluxKontextInpaintPipeline"  # takes a mask, and a second picture
PLAN = EditPlan("", (), ("make it blue",))
PHOTO, COAT, MASK = picture((32, 24)), picture((16, 16), 1), Image.new("L", (32, 24), 255)
LIMIT = 10_000


def png(image=PHOTO):
    file = io.BytesIO()
    image.save(file, "PNG")
    return ("photo.png", file.getvalue(), "image/png")


def pipeline(editor):
    return ImageEditR1Pipeline(None, editor=editor_of(editor), editor_defaults={"num_inference_steps": 1})


def client(pipe, **settings):
    return TestClient(Service(pipe, "tiny", max_pixels=LIMIT, **settings).app(), raise_server_exceptions=False)


def behind_an_address():
    return RemotePipeline(editor=RemoteEditor("http://127.0.0.1:9/v1", "brush"))


def edit(asked, files=(), **fields):
    sent = [("image", png()), ("mask", png(MASK)), *files]
    return asked.post("/v1/images/edits", files=sent, data={"plan": PLAN.to_json(), **fields})


def refused(answer, param):
    error = answer.json()["error"]
    assert answer.status_code == 400, error
    assert error["type"] == "invalid_request_error" and error["param"] == param
    return error["message"]


@pytest.fixture
def private(tmp_path):
    COAT.save(tmp_path / "private.png")
    return str(tmp_path / "private.png")


@pytest.mark.tiny
@pytest.mark.parametrize("nested", [lambda path: path, lambda path: json.dumps([[path]]), lambda path: "[1, 2]"])
@pytest.mark.parametrize("name", ["image_reference", "ip_adapter_image", "negative_ip_adapter_image"])
def test_no_other_picture_is_opened_here_for_a_client(private, name, nested):
    said = refused(edit(client(pipeline(KONTEXT)), **{name: nested(private)}), name)
    assert said == f"`{name}` is sent as a file."


@pytest.mark.tiny
def test_another_picture_is_sent_as_a_file():
    pipe = pipeline(KONTEXT)
    answer = edit(client(pipe), [("image_reference", png(COAT))], seed=3, n=2)
    expected = pipe(
        PHOTO,
        plan=PLAN,
        mask_image=MASK,
        image_reference=COAT,
        num_images_per_prompt=2,
        generator=torch.Generator().manual_seed(3),
    ).images
    for made, image in zip(answer.json()["data"], expected, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(made["b64_json"]))) as opened:
            assert np.array_equal(np.asarray(opened.convert("RGB")), np.asarray(image))
    large = edit(client(pipe), [("image_reference", png(COAT.resize((200, 100))))])
    assert "more than 10,000 pixels" in refused(large, "image_reference")


@pytest.mark.tiny
def test_what_is_no_picture_of_the_editor_is_no_file():
    said = refused(edit(client(pipeline(KONTEXT)), [("guidance_scale", png())]), "guidance_scale")
    assert "no picture of this editor's" in said


@pytest.mark.tiny
def test_text_is_for_words_alone():
    """FIBO 2 opens fonts by their paths."""
    refused(edit(client(pipeline("BriaFibo2Pipeline")), fonts='["/usr/share/fonts/none.ttf"]'), "fonts")
    kontext = client(pipeline(KONTEXT))
    refused(edit(kontext, joint_attention_kwargs='{"ip_adapter_masks": ["/etc/hostname"]}'), "joint_attention_kwargs")
    assert edit(kontext, joint_attention_kwargs='{"scale": 1}', negative_prompt="blurry").status_code == 200


@pytest.mark.parametrize("field", [{"lora": '{"local_path": "/models"}'}, {"url": "http://127.0.0.1/private.png"}])
def test_a_server_behind_this_one_opens_nothing_for_a_client_either(field):
    refused(edit(client(behind_an_address()), **field), *field)


@pytest.mark.tiny
@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("size", {"size": "12000x12000"}),
        ("size", {"size": "99999x99999"}),
        ("width", {"width": "160", "height": "160"}),
        ("width", {"height": "160"}),
        ("width", {"width": "[160]"}),
        ("max_area", {"max_area": "25600"}),
    ],
)
def test_nothing_is_made_that_is_larger_than_pictures_may_be(param, fields):
    assert "more than 10,000 pixels" in refused(edit(client(pipeline(KONTEXT)), **fields), param)


def test_a_server_behind_this_one_makes_nothing_larger_either():
    refused(edit(client(behind_an_address()), width="160", height="160"), "width")


@pytest.mark.tiny
def test_what_the_server_is_set_to_is_not_the_clients_fault():
    pipe = pipeline(KONTEXT)
    pipe.editor_defaults = {**pipe.editor_defaults, "width": 128, "height": 96}
    assert edit(client(pipe), size="100x100").status_code == 200


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("seed", {"seed": "9" * 5000}),
        ("n", {"n": "9" * 5000}),
        ("guidance_scale", {"guidance_scale": "[" * 100_000}),
        ("guidance_scale", {"guidance_scale": "[" * 200 + "]" * 200}),
        ("guidance_scale", {"guidance_scale": "NaN"}),
        ("guidance_scale", {"guidance_scale": "9" * 5000}),
        ("stream", {"stream": "[" * 100_000}),
    ],
)
def test_a_number_that_is_none_is_the_clients_to_mend(param, fields):
    refused(edit(client(behind_an_address()), **fields), param)


@pytest.mark.tiny
def test_a_number_that_no_float_holds_is_the_clients_to_mend():
    refused(edit(client(pipeline(KONTEXT)), guidance_scale="9" * 400), None)


@pytest.mark.parametrize("charset", ["punycode", "unicode_escape"])
def test_a_form_is_in_utf_8(charset):
    headers = {"Content-Type": f"multipart/form-data; boundary=B; charset={charset}"}
    body = b'--B\r\nContent-Disposition: form-data; name="\\ud800"\r\n\r\n.\r\n--B--\r\n'
    answer = client(behind_an_address()).post("/v1/images/edits", content=body, headers=headers)
    assert answer.status_code == 415 and "UTF-8" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("schlüssel".encode(), 200),
        ("schlüssel".encode("latin-1"), 200),
        (b"schl?ssel", 401),
        (b"schlssel", 401),
        (b"", 401),
    ],
)
def test_a_key_may_have_letters_of_any_language(sent, status):
    asked = client(behind_an_address(), key="schlüssel")
    assert asked.get("/v1/models", headers={"Authorization": b"Bearer " + sent}).status_code == status


def test_a_key_beyond_latin_1_is_let_in():
    asked = client(behind_an_address(), key="ключ")
    assert asked.get("/v1/models", headers={"Authorization": b"Bearer " + "ключ".encode()}).status_code == 200
