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
SMALL = {"width": "64", "height": "48"}  # of Kontext's own sizes all have a megapixel


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
    refused(edit(client(pipeline(KONTEXT)), guidance_scale="9" * 400), "guidance_scale")


@pytest.mark.tiny
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ip_adapter_image_embeds", "[1]"),
        ("negative_prompt_embeds", "[[0.5]]"),
        ("negative_prompt_embeds", '"x"'),
        ("latents", "[1]"),
        ("sigmas", "[null]"),
        ("sigmas", "[{}]"),
        ("guidance_scale", "[[1]]"),
        ("guidance_scale", "true"),
        ("negative_prompt", "[1]"),
        ("num_inference_steps", "2.5"),
        ("callback_on_step_end_tensor_inputs", "[1]"),
    ],
)
def test_only_what_json_can_hold_of_the_editors_arguments_is_taken(name, value):
    assert f"`{name}`" in refused(edit(client(pipeline(KONTEXT)), **{name: value}), name)


@pytest.mark.tiny
@pytest.mark.parametrize("name", ["generator", "callback_on_step_end", "prompt_embeds", "num_images_per_prompt"])
def test_what_the_server_gives_itself_is_no_field(name):
    answer = edit(client(pipeline(KONTEXT)), **{name: "[1]"})
    assert answer.status_code == 400 and f"`{name}`" in answer.json()["error"]["message"]


@pytest.mark.tiny
def test_tensors_that_a_class_calls_text_are_none():
    asked = client(pipeline("Flux2KleinPipeline"))
    answer = asked.post(
        "/v1/images/edits",
        files=[("image", png())],
        data={"plan": PLAN.to_json(), "negative_prompt_embeds": '"x"'},
    )
    refused(answer, "negative_prompt_embeds")


@pytest.mark.tiny
def test_a_value_for_each_result_is_taken():
    asked = client(pipeline(KONTEXT))
    sent = {"n": "2", "seed": "1", "strength": "1.0", **SMALL}
    each = edit(asked, **sent, negative_prompt='["blurry", "dark"]', true_cfg_scale="[1.5, 4]").json()["data"]
    same = edit(asked, **sent, negative_prompt="blurry", true_cfg_scale="1.5").json()["data"]
    assert len(each) == 2 and each[0] == same[0] and each[1] != same[1]


@pytest.mark.tiny
@pytest.mark.parametrize("fields", [{"max_sequence_length": "600"}, {"strength": "2"}])
def test_what_only_the_editors_class_knows_is_the_clients_to_mend_too(fields):
    refused(edit(client(pipeline(KONTEXT)), **fields), None)


@pytest.mark.tiny
def test_a_fault_of_the_servers_own_settings_is_no_clients():
    pipe = pipeline(KONTEXT)
    pipe.editor_defaults = {**pipe.editor_defaults, "strength": 2}
    assert edit(client(pipe)).status_code == 500


@pytest.mark.tiny
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_inference_steps", "6"),
        ("num_inference_steps", "[1, 1000000]"),
        ("sigmas", "[1, 1, 1, 1, 1, 1]"),
        ("max_sequence_length", "100000"),
        ("negative_prompt", "x" * 2001),
    ],
)
def test_work_is_bounded_before_a_model_runs(name, value):
    asked = client(pipeline(KONTEXT), max_steps=5)
    assert f"`{name}`" in refused(edit(asked, **{name: value}, n="2"), name)


@pytest.mark.tiny
def test_as_many_steps_as_the_server_lets_a_client_have():
    sent = {"num_inference_steps": "[5]", "max_sequence_length": "512", "strength": "1", **SMALL}
    assert edit(client(pipeline(KONTEXT), max_steps=5), **sent).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_inference_steps", "101"),
        ("steps", "[1000000]"),
        ("prior_num_inference_steps", "1e9"),
        ("num_outputs_per_prompt", "11"),
        ("batch_size", "64"),
        ("text_length", "5000"),
        ("resolution", "101"),
        ("sigmas", json.dumps([1.0] * 101)),
        ("nested", json.dumps({"sigmas": [1.0] * 101})),
    ],
)
def test_a_server_behind_this_one_is_asked_for_no_more_either(name, value):
    assert f"`{name}`" in refused(edit(client(behind_an_address()), **{name: value}), name)


@pytest.mark.parametrize(
    ("files", "fields", "param"),
    [
        ([("mask", png(MASK))], {}, "mask"),  # a second one
        ([], {"turns": ["single", "multi"]}, "turns"),
        ([], {"guidance_scale": ["1", "2"]}, "guidance_scale"),
    ],
)
def test_of_two_fields_of_one_name_none_is_lost(files, fields, param):
    assert "is there 2 times" in refused(edit(client(behind_an_address()), files, **fields), param)


def test_what_a_plan_does_not_depend_on_is_no_field_of_it():
    answer = client(behind_an_address()).post(
        "/v1/plans", files=[("image", png())], data={"prompt": "make it blue", "max_new_tokens": "9"}
    )
    assert "no field" in refused(answer, "max_new_tokens")


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
