import base64
import io
import json
import pickle
import re
import subprocess
import sys

import pytest
import torch
from openai_server import PASSING_FAULTS, scripted
from PIL import Image, ImageOps

from diffusers_r1 import endpoints
from diffusers_r1.editors import call_editor
from diffusers_r1.endpoints import EndpointError
from diffusers_r1.images import MOST_PIXELS_SENT
from diffusers_r1.records import Failure
from diffusers_r1.remote_editor import (
    RemoteEditor,
    check_remote_editor,
    remote_working_size,
)


KEY = "sk-secret-key"
COLORS = ("red", "green", "blue", "teal", "black", "white")
PICTURES = [Image.new("RGB", (3, 2), color) for color in COLORS]


def png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def fields_of(body):
    """Of a form, each field's values in order."""
    fields = {}
    mark = body.partition(b"\r\n")[0]
    for part in body.split(mark)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        fields.setdefault(re.search(rb'name="([^"]+)"', head)[1].decode(), []).append(content[:-2])
    return fields


def negative(body):
    """What the server answers: the first picture's negative, so that a picture of another row would be seen."""
    fields = fields_of(body)
    with Image.open(io.BytesIO((fields.get("image") or fields["image[]"])[0])) as picture:
        return {"data": [{"b64_json": base64.b64encode(png(ImageOps.invert(picture))).decode()}]}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def server():
    with scripted((200, negative, {})) as server:
        yield server


@pytest.fixture
def editor(server):
    return RemoteEditor(server.url, "closed", concurrency=3)


def test_one_edit(server, editor):
    mask = Image.new("L", (3, 2), 0)
    mask.putpixel((1, 1), 255)
    result = editor.edit(
        PICTURES[0],
        "make it red",
        references=PICTURES[1:3],
        mask=mask,
        seed=2**40 + 5,
        num_inference_steps=20,
        guidance_scale=2.5,
        width=64,
        height=32,
    )
    assert result.tobytes() == ImageOps.invert(PICTURES[0]).tobytes()
    sent = fields_of(server.requests[0][2])
    assert sent["image[]"] == [png(picture) for picture in PICTURES[:3]]
    plain = {name: value[0].decode() for name, value in sent.items() if name not in ("image[]", "mask")}
    assert plain == {
        "prompt": "make it red",
        "model": "closed",
        "seed": "5",
        "num_inference_steps": "20",
        "guidance_scale": "2.5",
        "size": "64x32",
    }
    with Image.open(io.BytesIO(sent["mask"][0])) as read:
        # White and transparent where it may change, black and opaque elsewhere.
        assert (read.getpixel((1, 1)), read.getpixel((0, 0))) == ((255, 255, 255, 0), (0, 0, 0, 255))


def test_many_at_once_in_order_with_what_is_theirs(server, editor):
    results = editor.edit_many(PICTURES, COLORS, seeds=range(6), quality="high")
    assert [result.tobytes() for result in results] == [ImageOps.invert(picture).tobytes() for picture in PICTURES]
    asked = {fields_of(body)["prompt"][0].decode(): fields_of(body) for _, _, body in server.requests}
    for row, color in enumerate(COLORS):
        assert asked[color]["seed"] == [str(row).encode()] and asked[color]["image"] == [png(PICTURES[row])]
        assert asked[color]["quality"] == [b"high"]


def test_one_that_is_refused_takes_no_other_along(server, editor):
    def choosy(handler):
        body = handler.server.requests[-1][2]
        refused = b"green" in fields_of(body)["prompt"][0]
        handler.answer(400 if refused else 200, {"error": {"message": "no"}} if refused else negative(body), {})

    server.replies = [choosy]
    editor.endpoint.concurrency = 1
    results = editor.edit_many(PICTURES, COLORS)
    assert [isinstance(result, EndpointError) for result in results] == [False, True, False, False, False, False]
    assert results[1].kind is Failure.REFUSED
    with pytest.raises(EndpointError, match="400"):
        call_editor(editor, PICTURES, COLORS)


@pytest.mark.parametrize("name", PASSING_FAULTS)
def test_no_fault_of_a_server_loses_or_mixes_a_picture(server, monkeypatch, name):
    monkeypatch.setattr(endpoints, "FIRST_WAIT", 0.01)
    server.replies = [PASSING_FAULTS[name]] * 2 + [(200, negative, {})]
    results = RemoteEditor(server.url, "closed", concurrency=2, timeout=0.3).edit_many(PICTURES[:3], COLORS[:3])
    assert [result.tobytes() for result in results] == [ImageOps.invert(picture).tobytes() for picture in PICTURES[:3]]


def test_as_the_pipeline_calls_it(server, editor):
    editor.endpoint.concurrency = 1
    one, other = torch.Generator().manual_seed(7), torch.Generator().manual_seed(100)
    results = call_editor(editor, PICTURES[:4], COLORS[:4], [one, one, other, one], guidance_scale=3)
    assert [result.tobytes() for result in results] == [ImageOps.invert(picture).tobytes() for picture in PICTURES[:4]]
    # Pictures of one generator do not all get the same noise.
    assert [fields_of(body)["seed"] for _, _, body in server.requests] == [[b"7"], [b"8"], [b"100"], [b"9"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": 1}, "`image` is not for the caller"),
        ({"seed": 1}, "`seed` is not for the caller"),
        ({"callback_on_step_end": print}, "`callback_on_step_end` cannot be sent"),
        ({"latents": torch.zeros(1)}, "`latents` cannot be sent to a server: it is a Tensor"),
        ({"width": 64}, "go together"),
    ],
)
def test_arguments_that_no_request_can_hold(arguments, message):
    with pytest.raises(TypeError, match=message):
        check_remote_editor(arguments)


def test_a_number_that_json_has_not():
    with pytest.raises(ValueError, match="`guidance_scale` must be a finite number, not nan"):
        check_remote_editor({"guidance_scale": float("nan")})


def test_arguments_that_a_server_may_take():
    check_remote_editor(
        {"num_inference_steps": 4, "mask_image": PICTURES[0], "width": 64, "height": 64, "size": "auto"}
    )


@pytest.mark.parametrize("size", [(64, 48), (6000, 4000), (100_000, 10), (1, 1)])
def test_large_pictures_are_sent_smaller(size):
    width, height = remote_working_size(size)
    assert width * height <= MOST_PIXELS_SENT and (width, height) <= size
    if size[0] * size[1] <= MOST_PIXELS_SENT:
        assert (width, height) == size
    else:
        assert width * height > 0.95 * MOST_PIXELS_SENT and abs(width / height - size[0] / size[1]) < 0.01


def test_saved_and_loaded(tmp_path, editor):
    editor.save_pretrained(tmp_path / "editor")
    loaded = RemoteEditor.from_pretrained(tmp_path / "editor", concurrency=2)
    assert repr(loaded) == repr(editor) and loaded.endpoint.concurrency == 2
    assert loaded.endpoint.api_key_env == "OPENAI_API_KEY"  # it is this machine
    (file,) = (tmp_path / "editor").iterdir()
    assert KEY not in file.read_text() and set(json.loads(file.read_text())) == {"_class_name", "base_url", "model"}
    assert loaded.edit(PICTURES[0], "x").tobytes() == ImageOps.invert(PICTURES[0]).tobytes()
    for text in (repr(loaded), str(vars(loaded.endpoint)), str(pickle.dumps(loaded))):
        assert KEY not in text


def test_a_key_does_not_go_to_an_address_that_a_file_names(tmp_path):
    RemoteEditor("http://models.example.org/v1", "m").save_pretrained(tmp_path)
    assert RemoteEditor.from_pretrained(tmp_path).endpoint.api_key_env is None
    assert RemoteEditor.from_pretrained(tmp_path, api_key_env="MINE").endpoint.api_key_env == "MINE"


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"base_url": 1, "model": "m"}', '{"base_url": "x", "model": "m"}', '{"base_url": "http://x"}']
    + [json.dumps({"base_url": f"http://me:{KEY}@x/v1", "model": "m"})],
)
def test_a_file_that_names_no_editor(tmp_path, content):
    (tmp_path / "remote_editor.json").write_text(content)
    with pytest.raises(ValueError, match="remote_editor.json names no model") as caught:
        RemoteEditor.from_pretrained(tmp_path)
    assert KEY not in str(caught.value)
    with pytest.raises(OSError, match="remote_editor.json"):
        RemoteEditor.from_pretrained(tmp_path / "nowhere")


def test_importing_it_stays_light():
    program = "import sys, diffusers_r1.remote_editor; sys.exit(bool({'torch', 'openai'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True)
