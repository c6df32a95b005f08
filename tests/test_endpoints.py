import base64
import io
import json
import logging
import pickle
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from openai_server import PASSING_FAULTS, SOON, hang_up, said, scripted, stall
from PIL import Image

from diffusers_r1 import endpoints
from diffusers_r1.endpoints import (
    ChatCompletion,
    Endpoint,
    EndpointError,
    check_address,
    key_env_for,
    map_concurrently,
    map_in_order,
)
from diffusers_r1.installing import install_line
from diffusers_r1.records import Failure


KEY = "sk-secret-key"
HELLO = [{"role": "user", "content": "Hello"}]
PICTURE = Image.new("RGB", (2, 2))


def png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def picture_of(picture):
    return {"data": [{"b64_json": base64.b64encode(png(picture)).decode()}]}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def server():
    with scripted() as server:
        yield server


@pytest.fixture
def endpoint(server):
    with Endpoint(server.url, "judge", timeout=30) as endpoint:
        yield endpoint


def sent(server, number=-1):
    return json.loads(server.requests[number][2])


# What is asked and answered
# --------------------------


def test_chat(server, endpoint):
    completion = endpoint.chat(HELLO, temperature=0, max_tokens=5, top_p=0.5)
    assert completion == [
        ChatCompletion(
            "Hi", "judge-2025-01-01", finish_reason="stop", usage={"prompt_tokens": 3, "completion_tokens": 7}
        ),
    ]
    path, headers, body = server.requests[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {KEY}"
    expected = {"model": "judge", "messages": HELLO, "temperature": 0, "max_tokens": 5, "top_p": 0.5}
    assert json.loads(body) == expected


def test_what_is_not_said_is_not_sent(server, endpoint):
    endpoint.chat(HELLO, temperature=None)
    assert sent(server) == {"model": "judge", "messages": HELLO}


def test_a_format_is_handed_on(server, endpoint):
    endpoint.chat(HELLO, structured={"structured_outputs": {"regex": "a+"}})
    assert sent(server)["structured_outputs"] == {"regex": "a+"}


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "ELSEWHERE", None])
def test_which_key_is_sent(server, monkeypatch, name):
    monkeypatch.setenv("ELSEWHERE", " sk-other\n")
    Endpoint(server.url, "judge", api_key_env=name).chat(HELLO)
    expected = {"OPENAI_API_KEY": f"Bearer {KEY}", "ELSEWHERE": "Bearer sk-other", None: None}[name]
    assert server.requests[0][1].get("Authorization") == expected


def test_local_servers_need_no_key(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert Endpoint(server.url, "judge").chat(HELLO)[0].text == "Hi"
    assert "Authorization" not in server.requests[0][1]


@pytest.mark.parametrize("key", ["sk-\u2026secret", "sk-sec\nret"])
def test_a_key_that_no_request_can_hold(server, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(EndpointError, match="The key in OPENAI_API_KEY has letters") as caught:
        Endpoint(server.url, "judge").chat(HELLO)
    assert caught.value.kind is Failure.HOPELESS and not server.requests


def test_azure_gets_its_version_and_its_key(server):
    Endpoint(f"{server.url}?api-version=2024-10-21", "judge").chat(HELLO)
    path, headers, _ = server.requests[0]
    assert path == "/v1/chat/completions?api-version=2024-10-21" and headers["api-key"] == KEY


def test_pictures_are_sent_as_png(server, endpoint):
    picture = Image.effect_noise((5, 4), 80).convert("RGB")
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "What is it?"}]
    messages = [{"role": "user", "content": content}]
    endpoint.chat(messages)
    first, second = sent(server)["messages"][0]["content"]
    head, _, data = first["image_url"]["url"].partition(",")
    assert (head, first["type"], second) == ("data:image/png;base64", "image_url", content[1])
    with Image.open(io.BytesIO(base64.b64decode(data))) as read:
        assert read.mode == "RGB" and read.tobytes() == picture.tobytes()
    assert messages[0]["content"][0]["image"] is picture


def test_several_answers(server, endpoint):
    two = {**said("a"), "choices": [said(text)["choices"][0] for text in "ab"]}
    server.replies = [(200, two, {}), (200, said("c"), {})]
    assert [completion.text for completion in endpoint.chat(HELLO, n=3, seed=5)] == ["a", "b", "c"]
    # A server that gives fewer is asked again, and not for the same sample.
    assert [(body.get("n"), body["seed"]) for body in (sent(server, 0), sent(server, 1))] == [(3, 5), (None, 7)]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (said("x", finish_reason="length"), ("x", "", "length", "")),
        (said(None, finish_reason="length"), ("", "", "length", "")),
        (said("", finish_reason="content_filter"), ("", "", "content_filter", "")),
        ({"choices": [{"message": {"content": "x"}}]}, ("x", "", "", "")),
        (said(None, message={"role": "assistant", "content": None, "refusal": "No."}), ("", "", "stop", "No.")),
        (said(None, message={"content": "x", "reasoning_content": "y"}), ("x", "y", "stop", "")),
        (said(None, message={"content": "x", "reasoning": "y"}), ("x", "y", "stop", "")),
        (said([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), ("ab", "", "stop", "")),
    ],
)
def test_how_an_answer_ended_is_kept(server, endpoint, reply, expected):
    server.replies = [(200, reply, {})]
    (one,) = endpoint.chat(HELLO)
    assert (one.text, one.reasoning, one.finish_reason, one.refusal) == expected


@pytest.mark.parametrize(
    ("text", "reasoning", "whole"),
    [
        ("<think>a</think>b", "", "<think>a</think>b"),
        ("a</think>b", "", "<think>a</think>b"),
        ("\na <action>no</action>\n</think>b", "", "<think>a  no</think>b"),
        ("b", "a", "<think>a</think>b"),
        ("b", "see <action>", "<think>see</think>b"),
        ("</think>b", "", "b"),
        ("<think>a</think>b", "hidden", "<think>a</think>b"),
        ("b", "", "b"),
        ("", "", ""),
    ],
)
def test_reasoning_wherever_the_server_puts_it(text, reasoning, whole):
    assert ChatCompletion(text, reasoning=reasoning).with_reasoning() == whole


# What goes wrong
# ---------------


@pytest.mark.parametrize("name", PASSING_FAULTS)
def test_passing_faults_are_tried_again(server, monkeypatch, name):
    monkeypatch.setattr(endpoints, "FIRST_WAIT", 0.01)
    server.replies = [PASSING_FAULTS[name], PASSING_FAULTS[name], (200, said("Hi"), {})]
    begun = time.monotonic()
    with Endpoint(server.url, "judge", max_retries=2, timeout=0.3) as endpoint:
        (completion,) = endpoint.chat(HELLO)
    assert (completion.text, completion.failed_calls) == ("Hi", 2)
    assert len(server.requests) == 3 and time.monotonic() - begun < 5


@pytest.mark.parametrize("name", ["starting", "JSON that is cut", "hangs up", "drips", "stalls"])
def test_it_gives_up_after_the_last_try(server, monkeypatch, name):
    monkeypatch.setattr(endpoints, "FIRST_WAIT", 0.01)
    server.replies = [PASSING_FAULTS[name]]
    with Endpoint(server.url, "judge", max_retries=1, timeout=0.2) as endpoint:
        with pytest.raises(EndpointError, match=r"/v1/chat/completions, model 'judge': .*\(after 2 tries") as caught:
            endpoint.chat(HELLO)
    assert caught.value.kind is Failure.OUTAGE and len(server.requests) == 2
    assert caught.value.status == (503 if name == "starting" else None)


def test_all_tries_count_together(server, monkeypatch):
    """Those that the client makes and those after an answer that cannot be used."""
    monkeypatch.setattr(endpoints, "FIRST_WAIT", 0.01)
    busy, cut = PASSING_FAULTS["busy"], PASSING_FAULTS["JSON that is cut"]
    server.replies = [busy, cut, busy, cut]
    with Endpoint(server.url, "judge", max_retries=3) as endpoint:
        with pytest.raises(EndpointError, match="after 4 tries"):
            endpoint.chat(HELLO)
    assert len(server.requests) == 4


@pytest.mark.parametrize("header", ["86400", "3600"])
def test_a_wait_of_hours_is_an_error(server, endpoint, header):
    server.replies = [(429, {}, {"Retry-After": header})]
    with pytest.raises(EndpointError, match=f"asks to wait for {header}"):
        endpoint.chat(HELLO)
    assert len(server.requests) == 1


def test_nobody_listens(server):
    with Endpoint("http://127.0.0.1:9/v1", "judge", max_retries=1) as endpoint:
        with pytest.raises(EndpointError, match="127.0.0.1:9.*ConnectError.*2 tries") as caught:
            endpoint.chat(HELLO)
    assert caught.value.kind is Failure.OUTAGE


@pytest.mark.parametrize(
    ("status", "kind", "hint"),
    [
        (400, Failure.REFUSED, ""),
        (413, Failure.REFUSED, ""),
        (422, Failure.REFUSED, ""),
        (401, Failure.HOPELESS, "OPENAI_API_KEY"),
        (403, Failure.HOPELESS, "OPENAI_API_KEY"),
        (404, Failure.HOPELESS, "/v1"),
        (402, Failure.HOPELESS, ""),
        (405, Failure.HOPELESS, ""),
        (304, Failure.HOPELESS, ""),
    ],
)
def test_lasting_faults_are_errors_at_once(server, endpoint, caplog, status, kind, hint):
    caplog.set_level(logging.DEBUG)
    server.replies = [(status, b"" if status == 304 else {"error": {"message": f"no, {KEY} will not do"}}, {})]
    with pytest.raises(EndpointError, match=f"/v1/chat/completions, model 'judge': {status} .*{hint}") as caught:
        endpoint.chat(HELLO)
    error = caught.value
    assert (error.status, error.kind) == (status, kind) and len(server.requests) == 1
    assert "\n" not in str(error) and error.__context__ is None and error.__cause__ is None
    for text in (str(error), repr(error), repr(endpoint), caplog.text, str(pickle.dumps(endpoint))):
        assert KEY not in text
    assert pickle.loads(pickle.dumps(error)).kind is kind


@pytest.mark.parametrize("body", [b"plain text", {"error": "plain text"}, {"detail": "plain text"}, ["plain text"]])
def test_error_messages_of_many_servers(server, endpoint, body):
    server.replies = [(400, body, {})]
    with pytest.raises(EndpointError, match="400 Bad Request: .*plain text"):
        endpoint.chat(HELLO)


def test_a_redirect_at_home_is_followed(server, endpoint):
    server.replies = [(307, b"", {"Location": "/v2/chat/completions"}), (200, said("Hi"), {})]
    assert endpoint.chat(HELLO)[0].text == "Hi"
    assert server.requests[1][0] == "/v2/chat/completions" and server.requests[1][2] == server.requests[0][2]


@pytest.mark.parametrize("status", [301, 307, 308])
def test_a_redirect_to_somebody_else_is_not(server, endpoint, status):
    with scripted() as other:
        server.replies = [(status, b"", {"Location": f"{other.url}/chat/completions"})]
        with pytest.raises(EndpointError, match=f"redirects to http://127.0.0.1:{other.server_port}") as caught:
            endpoint.chat(HELLO)
        assert caught.value.kind is Failure.HOPELESS and not other.requests and len(server.requests) == 1


def test_redirects_without_end(server):
    server.replies = [(307, b"", {"Location": "/v1/chat/completions"})]
    with pytest.raises(EndpointError, match="TooManyRedirects"):
        Endpoint(server.url, "judge", max_retries=0).chat(HELLO)


REASONER = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    "temperature": "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is supported.",
}


@pytest.mark.parametrize("fault", ["failing", "page of HTML"])
def test_that_a_server_is_asked_again_is_said_once(server, endpoint, caplog, fault):
    bad, good = PASSING_FAULTS[fault], (200, said("Hi"), {})
    server.replies = [bad, bad, good, bad, good]
    assert [endpoint.chat(HELLO)[0].text for _ in range(2)] == ["Hi", "Hi"]
    [record] = [record for record in caplog.records if "asked again" in record.message]
    assert server.url in record.message and "up to 5 times" in record.message


def test_a_page_of_html_is_its_title_and_no_model_is_none(server):
    page = b"<!DOCTYPE HTML><html><head><title>Nothing\nhere</title><style>p {}</style></head><body>404</body></html>"
    server.replies = [(404, page, {"Content-Type": "text/html"})]
    with pytest.raises(EndpointError, match=r"/v1/chat/completions: 404 Not Found: Nothing here Check the address"):
        Endpoint(server.url, "").chat(HELLO)


@pytest.mark.parametrize("named", [True, False])
def test_models_that_reason(server, endpoint, caplog, named):
    """They name one field after the other, and the next call knows them all."""

    def reasoner(handler):
        body = json.loads(handler.server.requests[-1][2])
        for name, message in REASONER.items():
            if name in body:
                error = {"message": message, "param": name if named else None}
                return handler.answer(400, {"error": error}, {})
        handler.answer(200, said("Hi"), {})

    server.replies = [reasoner]
    for _ in range(2):
        assert endpoint.chat(HELLO, max_tokens=7, temperature=0)[0].text == "Hi"
    assert len(server.requests) == 4
    assert sent(server) == {"model": "judge", "messages": HELLO, "max_completion_tokens": 7}
    assert "takes no temperature" in caplog.text


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        ("'max_tokens' is too large for this context", {"max_tokens": 5}),
        ("top_p is not supported", {"top_p": 1, "temperature": 0}),
        ("Unsupported parameter: temperature", {}),
        ("Unsupported parameter: response_format", {"structured": {"response_format": {"type": "json_object"}}}),
    ],
)
def test_what_was_asked_for_is_not_dropped_in_silence(server, endpoint, message, settings):
    server.replies = [(400, {"error": {"message": message}}, {})]
    with pytest.raises(EndpointError, match="400"):
        endpoint.chat(HELLO, **settings)
    assert len(server.requests) == 1


def test_a_refusal_that_goes_on_is_asked_about_once(server, endpoint):
    server.replies = [(400, {"error": {"message": "temperature is not supported", "param": "temperature"}}, {})]
    with pytest.raises(EndpointError) as caught:
        endpoint.chat(HELLO, temperature=0)
    assert caught.value.kind is Failure.REFUSED and len(server.requests) == 2
    server.replies = [(200, said("Hi"), {})]
    endpoint.chat(HELLO, temperature=0)
    assert sent(server)["temperature"] == 0  # it was not that


# Pictures
# --------


def test_an_edit(server, endpoint):
    after = Image.new("RGB", (4, 4), "red")
    server.replies = [(200, picture_of(after), {})]
    before = Image.new("RGB", (3, 2), "teal")
    lists = {"sigmas": (1.0, 0.5), "options": {"steps": [4]}}
    result = endpoint.edit_images([before], "make it red", size="4x4", seed=3, background=None, **lists)
    assert result.mode == "RGB" and result.tobytes() == after.tobytes()
    path, headers, body = server.requests[0]
    assert path == "/v1/images/edits" and headers["Content-Type"].startswith("multipart/form-data")
    sent = {"prompt": "make it red", "seed": "3", "size": "4x4", "model": "judge"}
    for name, value in {**sent, "sigmas": "[1.0, 0.5]", "options": '{"steps": [4]}'}.items():
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in body
    assert png(before) in body and b"background" not in body and b'name="image"' in body


def test_an_edit_with_references_and_a_mask(server, endpoint):
    server.replies = [(200, picture_of(PICTURE), {})]
    images = [Image.new("RGB", (2, 2), color) for color in ("red", "green")]
    mask = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    endpoint.edit_images(images, "x", mask)
    body = server.requests[0][2]
    assert body.count(b'name="image[]"') == 2 and all(png(image) in body for image in images)
    assert body.index(png(images[0])) < body.index(png(images[1]))
    assert b'name="mask"' in body and png(mask) in body


def test_an_editor_that_takes_no_seed(server, endpoint):
    refusal = {"error": {"message": "Unknown parameter: 'seed'.", "param": "seed"}}
    server.replies = [(400, refusal, {}), (200, picture_of(PICTURE), {})]
    endpoint.edit_images([PICTURE], "x", seed=3)
    assert b'name="seed"' in server.requests[0][2] and b'name="seed"' not in server.requests[1][2]


def test_an_edit_by_address(server, endpoint):
    after = Image.new("RGB", (4, 4), "red")
    server.files["/after.png"] = png(after)
    server.replies = [(200, {"data": [{"b64_json": None, "url": f"{server.address}/after.png"}]}, {})]
    assert endpoint.edit_images([after], "x").tobytes() == after.tobytes()
    (_, asked, _), (path, downloaded, _) = server.requests
    assert path == "/after.png" and "Authorization" in asked and "Authorization" not in downloaded


def test_an_edit_in_a_data_url(server, endpoint):
    data = base64.b64encode(png(PICTURE)).decode()
    server.replies = [(200, {"data": [{"url": f"data:image/png;base64,{data}"}]}, {})]
    assert endpoint.edit_images([PICTURE], "x").size == (2, 2)


def test_a_large_picture_is_sent_to_a_planner_at_four_megapixels(server, endpoint):
    photo = Image.new("RGB", (4000, 3000), "teal")
    endpoint.chat([{"role": "user", "content": [{"type": "image", "image": photo}]}])
    url = sent(server)["messages"][0]["content"][0]["image_url"]["url"]
    width, height = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size
    assert 0.99 * 2**22 < width * height <= 2**22 and abs(width / height - 4 / 3) < 0.001


def test_pictures_of_other_modes_are_sent_as_rgb(server, endpoint):
    server.replies = [(200, picture_of(PICTURE), {})]
    picture = Image.new("CMYK", (3, 2), (0, 0, 0, 0))
    endpoint.edit_images([picture], "x")
    assert png(picture.convert("RGB")) in server.requests[0][2]


def test_other_things_than_pictures_are_refused(server, endpoint):
    with pytest.raises(TypeError, match="PIL picture, not as str"):
        endpoint.chat([{"role": "user", "content": [{"type": "image", "image": "photo.png"}]}])
    with pytest.raises(TypeError, match="PIL picture, not as NoneType"):
        endpoint.edit_images([None], "x")
    assert not server.requests


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_server_cannot_ask_for_a_local_file(server, tmp_path, scheme):
    PICTURE.save(tmp_path / "private.png")
    server.replies = [(200, {"data": [{"url": f"{scheme}{tmp_path / 'private.png'}"}]}, {})]
    with pytest.raises(EndpointError, match="answer cannot be used"):
        Endpoint(server.url, "judge", max_retries=0).edit_images([PICTURE], "x")


CUT = png(Image.effect_noise((64, 64), 80))[:2000]
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("data", [b"!", b"\0\0\0", b"", EPS, CUT])
def test_an_edit_that_is_no_picture_is_asked_for_again(server, endpoint, monkeypatch, data):
    monkeypatch.setattr(endpoints, "FIRST_WAIT", 0.01)
    bad = {"data": [{"b64_json": base64.b64encode(data).decode()}]}
    server.replies = [(200, bad, {}), (200, picture_of(PICTURE), {})]
    assert endpoint.edit_images([PICTURE], "x").size == (2, 2)
    server.replies = [(200, bad, {})]
    with pytest.raises(EndpointError, match="answer cannot be used"):
        Endpoint(server.url, "judge", max_retries=0).edit_images([PICTURE], "x")


# Arguments and addresses
# -----------------------


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("localhost:8000", {}),
        ("", {}),
        ("http://", {}),
        ("ftp://x", {}),
        ("http://x", {"timeout": 0}),
        ("http://x", {"max_retries": -1}),
        ("http://x", {"concurrency": 0}),
    ],
)
def test_arguments_out_of_range(url, settings):
    with pytest.raises(ValueError, match="base_url|timeout"):
        Endpoint(url, "judge", **settings)


def test_a_missing_client_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(endpoints, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=re.escape(install_line("remote"))):
        Endpoint("http://x/v1", "judge")


@pytest.mark.parametrize(
    "url", ["http://localhost:8001v1", "http://localhost:99999/v1", "http://local host/v1", "http://[::1/v1"]
)
def test_what_is_no_address_is_said_before_it_is_asked(url):
    with pytest.raises(ValueError, match="names a host, and a port at most; got"):
        check_address(url)


def test_an_address_in_letters_of_its_own_language_is_the_one_that_is_asked():
    import httpx2

    request = httpx2.Request("POST", "http://münchen.de/v1/models")
    endpoints._stay_at("http://münchen.de/v1", request)
    with pytest.raises(EndpointError, match="redirects to"):
        endpoints._stay_at("http://muenchen.de/v1", request)


@pytest.mark.parametrize("url", [f"http://me:{KEY}@x/v1", f"http://x/v1?key={KEY}", f"http://x/v1#{KEY}"])
def test_an_address_with_a_key_in_it_is_refused(url):
    with pytest.raises(ValueError, match="read from the environment") as caught:
        check_address(url)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "home", "name"),
    [
        ("http://localhost:8000/v1", None, "OPENAI_API_KEY"),
        ("http://127.0.0.1:8000/v1", None, "OPENAI_API_KEY"),
        ("https://api.openai.com/v1", None, "OPENAI_API_KEY"),
        ("http://api.openai.com/v1", None, None),
        ("https://api.openai.com.example.org/v1", None, None),
        ("https://models.example.org/v1", None, None),
        ("https://models.example.org/v1", "https://models.example.org/v1", "OPENAI_API_KEY"),
        ("https://api.openai.com/v1", "https://models.example.org/v1", None),
    ],
)
def test_a_key_does_not_follow_an_address_from_a_file(monkeypatch, url, home, name):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    if home:
        monkeypatch.setenv("OPENAI_BASE_URL", home)
    assert key_env_for(url) == name


def test_importing_it_stays_light():
    heavy = "{'torch', 'diffusers', 'openai'}"
    program = f"import sys, diffusers_r1.endpoints; sys.exit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True)


# Many at once
# ------------


def echo(body):
    return said(json.loads(body)["messages"][0]["content"])


def test_many_at_once_in_order(server):
    now, most, lock = 0, 0, threading.Lock()

    def slow_echo(body):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.1 if json.loads(body)["messages"][0]["content"] in "02" else 0.02)
        with lock:
            now -= 1
        return echo(body)

    server.replies = [(200, slow_echo, {})]
    endpoint = Endpoint(server.url, "judge", concurrency=4)
    answers = endpoint.chat_many([[{"role": "user", "content": str(number)}] for number in range(20)])
    assert [answer[0].text for answer in answers] == [str(number) for number in range(20)]
    assert most == 4


def test_one_that_fails_takes_no_other_along(server, endpoint):
    def answer(handler):
        text = json.loads(handler.server.requests[-1][2])["messages"][0]["content"]
        handler.answer(400 if text == "1" else 200, said(text), {})

    server.replies = [answer]
    endpoint.concurrency = 1
    first, second, third = endpoint.chat_many([[{"role": "user", "content": text}] for text in "012"])
    assert (first[0].text, third[0].text) == ("0", "2") and second.kind is Failure.REFUSED


def test_results_come_as_they_finish_and_failures_among_them():
    first_may_end = threading.Event()

    def work(name):
        if name == "slow":
            assert first_may_end.wait(5)
        if name == "bad":
            raise KeyError(name)
        return name.upper()

    results = map_concurrently(work, ["slow", "quick", "bad"], limit=2)
    assert next(results) == ("quick", "QUICK")
    item, error = next(results)
    assert item == "bad" and isinstance(error, KeyError)
    first_may_end.set()
    assert list(results) == [("slow", "SLOW")]


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_than_the_limit_and_no_further_than_asked(limit):
    lock, running, most, read = threading.Lock(), 0, 0, 0

    def items():
        nonlocal read
        while True:
            read += 1
            yield read

    def work(item):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return item

    results = map_concurrently(work, items(), limit=limit)
    assert len([next(results) for _ in range(20)]) == 20
    results.close()
    time.sleep(0.05)
    assert most == limit and read <= 20 + limit and running == 0


def test_in_order_and_with_errors():
    assert map_in_order(str.upper, ["a", "b", "c"], 2) == ["A", "B", "C"]
    first, second = map_in_order({"b": 1}.__getitem__, ["a", "b"], 2)
    assert isinstance(first, KeyError) and second == 1


def test_no_items_and_no_limit():
    assert list(map_concurrently(len, [], limit=4)) == [] == map_in_order(len, [], 4)
    with pytest.raises(ValueError, match="limit"):
        map_concurrently(len, [], limit=0)


INTERRUPTED = """
import sys
from diffusers_r1.endpoints import Endpoint
endpoint = Endpoint(sys.argv[1], "judge", max_retries=50, timeout=60)
hello = [{"role": "user", "content": "Hello"}]
print("asking", flush=True)
endpoint.chat_many([hello] * 20) if sys.argv[2] == "many" else endpoint.chat(hello)
"""


def seconds_to_end(server, fault, many):
    """From Ctrl-C to the end of a program that asks."""
    command, asked = [sys.executable, "-c", INTERRUPTED, server.url, many], len(server.requests)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "asking\n"
    until = time.monotonic() + 30
    while len(server.requests) - asked < 2 - (fault is stall or many == "one") and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said_last = process.communicate(timeout=30)
    assert process.returncode != 0 and "KeyboardInterrupt" in said_last
    return time.monotonic() - begun


@pytest.mark.parametrize("many", ["one", "many"])
@pytest.mark.parametrize("fault", [stall, (503, {}, {"Retry-After": "60"}), hang_up, (200, b"cut", {})])
def test_ctrl_c_ends_the_program(server, many, fault):
    """With requests under way, and while it waits to ask again; once in three times, should the machine be busy."""
    server.replies = [fault]
    assert any(seconds_to_end(server, fault, many) < 2 for _ in range(3))


def test_an_endpoint_may_be_asked_again_after_an_interrupt(server, endpoint):
    calls = iter([(200, said("a"), SOON)] * 3)
    server.replies = list(calls)
    results = map_concurrently(lambda _: endpoint.chat(HELLO), range(3), 2)
    next(results)
    results.close()
    assert endpoint.chat(HELLO)[0].text == "a"
