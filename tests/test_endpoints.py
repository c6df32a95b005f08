import base64
import io
import json
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from diffusers_r1 import endpoints
from diffusers_r1.endpoints import Answer, Endpoint, EndpointError, map_concurrently


KEY = "secret-key"
HELLO = [{"role": "user", "content": "Hello"}]
SAID = {
    "model": "judge-2025-01-01",
    "choices": [{"message": {"role": "assistant", "content": "Hi"}}],
    "usage": {"prompt_tokens": 3},
}
HANG_UP = "hang up"


def png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Answers with `replies`, one after the other, the last one for ever: `(status, body, headers)` or `HANG_UP`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = [(200, SAID, {})]
        self.requests = []
        self.files = {}
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), body))
        replies = self.server.replies
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        if reply == HANG_UP:
            self.close_connection = True
            return
        status, content, headers = reply
        if callable(content):
            content = content(body)
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        self.server.requests.append((self.path, dict(self.headers), b""))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.files[self.path])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def endpoint(server):
    with Endpoint(server.url + "/", "judge", api_key=KEY, timeout=5) as endpoint:
        yield endpoint


@pytest.fixture
def waits(monkeypatch):
    waits = []
    monkeypatch.setattr(endpoints, "sleep", waits.append)
    return waits


def test_chat(server, endpoint):
    answer = endpoint.chat(HELLO, temperature=0, max_tokens=8)
    assert answer == Answer("Hi", "judge-2025-01-01", {"prompt_tokens": 3})
    path, headers, body = server.requests[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {KEY}"
    assert json.loads(body) == {"model": "judge", "messages": HELLO, "temperature": 0, "max_tokens": 8}


def test_no_key_no_header(server):
    with Endpoint(server.url, "judge") as endpoint:
        endpoint.chat(HELLO)
    assert "Authorization" not in server.requests[0][1]


def test_pictures_are_sent_as_data_urls(server, endpoint):
    picture = Image.new("RGB", (3, 2), "teal")
    text = {"type": "text", "text": "What is it?"}
    messages = [{"role": "user", "content": [{"type": "image", "image": picture}, text]}]
    endpoint.chat(messages)
    part, same_text = json.loads(server.requests[0][2])["messages"][0]["content"]
    assert same_text == text and part["type"] == "image_url"
    head, _, data = part["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
        assert sent.tobytes() == picture.tobytes()
    assert messages[0]["content"][0]["image"] is picture


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, ""), ("", ""), ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab")],
)
def test_odd_but_usable_answers(server, endpoint, content, text):
    server.replies = [(200, {"choices": [{"message": {"content": content}}]}, {})]
    assert endpoint.chat(HELLO) == Answer(text, "judge", {})


@pytest.mark.parametrize("body", [b"<html>", b"", {}, [], {"choices": []}, {"error": {"message": "no"}}, b"\xff", 7])
def test_unusable_answers(server, endpoint, body):
    server.replies = [(200, body, {})]
    for call in (lambda: endpoint.chat(HELLO), lambda: endpoint.edit(Image.new("RGB", (2, 2)), "x")):
        with pytest.raises(EndpointError, match="answer cannot be used") as caught:
            call()
        assert caught.value.status is None


@pytest.mark.parametrize(
    "fault", [(429, {}, {}), (500, b"oops", {}), (502, b"", {}), (503, {}, {}), (529, {}, {}), (408, {}, {}), HANG_UP]
)
def test_passing_faults_are_tried_again(server, endpoint, waits, fault):
    server.replies = [fault, fault, fault, (200, SAID, {})]
    answer = endpoint.chat(HELLO)
    assert (answer.text, answer.failed_calls) == ("Hi", 3)
    assert len(server.requests) == 4 and len(waits) == 3
    assert all(0.25 * 2**n <= wait <= 0.5 * 2**n for n, wait in enumerate(waits))


def test_it_gives_up_after_the_last_try(server, waits):
    server.replies = [(503, {"error": {"message": "overloaded"}}, {})]
    with Endpoint(server.url, "judge", max_retries=2) as endpoint:
        with pytest.raises(EndpointError, match=r"503 Service Unavailable: overloaded \(after 3 tries\)") as caught:
            endpoint.chat(HELLO)
    assert caught.value.status == 503 and len(server.requests) == 3 and len(waits) == 2


def test_nobody_listens(waits):
    with Endpoint("http://127.0.0.1:9/v1", "judge", max_retries=1) as endpoint:
        with pytest.raises(EndpointError, match="127.0.0.1:9.*ConnectError.*2 tries") as caught:
            endpoint.chat(HELLO)
    assert caught.value.status is None and len(waits) == 1


def test_a_server_that_is_too_slow(server, waits):
    def late(_):
        time.sleep(0.5)
        return SAID

    server.replies = [(200, late, {}), (200, SAID, {})]
    with Endpoint(server.url, "judge", timeout=0.1) as endpoint:
        assert endpoint.chat(HELLO).text == "Hi"
    assert len(waits) == 1


def test_waits_do_not_grow_for_ever(server, waits):
    server.replies = [(500, {}, {})] * 12 + [(200, SAID, {})]
    with Endpoint(server.url, "judge", max_retries=12) as endpoint:
        endpoint.chat(HELLO)
    assert max(waits) <= endpoints.LONGEST_WAIT


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("7", 7.25, 7.5),
        ("1.5", 1.75, 2),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 0.25, 0.5),
        ("-3", 0.25, 0.5),
        ("nonsense", 0.25, 0.5),
        ("Mon, 99 Foo 2001 00:00:00 GMT", 0.25, 0.5),
    ],
)
def test_retry_after(server, endpoint, waits, header, low, high):
    server.replies = [(429, {}, {"Retry-After": header}), (200, SAID, {})]
    endpoint.chat(HELLO)
    assert low <= waits[0] <= high


def test_retry_after_a_date(server, endpoint, waits):
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=100), usegmt=True)
    server.replies = [(503, {}, {"Retry-After": date}), (200, SAID, {})]
    endpoint.chat(HELLO)
    assert 90 < waits[0] < 101


@pytest.mark.parametrize("header", ["86400", "inf"])
def test_a_wait_of_hours_is_an_error(server, endpoint, waits, header):
    server.replies = [(429, {}, {"Retry-After": header})]
    with pytest.raises(EndpointError, match="asks to wait"):
        endpoint.chat(HELLO)
    assert not waits


@pytest.mark.parametrize(
    ("status", "hint"), [(400, ""), (401, "api_key"), (403, "api_key"), (404, "base_url"), (413, ""), (301, "")]
)
def test_lasting_faults_are_errors_at_once(server, endpoint, waits, status, hint):
    server.replies = [(status, {"error": {"message": f"no, {KEY} will not do"}}, {})]
    with pytest.raises(EndpointError, match=f"/v1/chat/completions, model 'judge': {status} .*no, .*{hint}") as caught:
        endpoint.chat(HELLO)
    assert caught.value.status == status and len(server.requests) == 1 and not waits
    assert KEY not in str(caught.value) and KEY not in repr(endpoint)


@pytest.mark.parametrize("body", [b"plain text", {"error": "plain text"}, {"detail": "plain text"}, ["plain text"]])
def test_error_messages_of_many_servers(server, endpoint, body):
    server.replies = [(400, body, {})]
    with pytest.raises(EndpointError, match="400 Bad Request: .*plain text"):
        endpoint.chat(HELLO)


def test_edit(server, endpoint):
    after = Image.new("RGB", (4, 4), "red")
    server.replies = [(200, {"data": [{"b64_json": base64.b64encode(png(after)).decode()}]}, {})]
    before = Image.new("RGB", (3, 2), "teal")
    result = endpoint.edit(before, "make it red", size="4x4", n=1, background=None)
    assert result.mode == "RGB" and result.tobytes() == after.tobytes()
    path, headers, body = server.requests[0]
    assert path == "/v1/images/edits" and headers["Content-Type"].startswith("multipart/form-data")
    for piece in (b'name="prompt"\r\n\r\nmake it red\r\n', b'name="n"\r\n\r\n1\r\n', b'name="model"\r\n\r\njudge\r\n'):
        assert piece in body
    assert png(before) in body and b"background" not in body


def test_edit_by_address(server, endpoint):
    after = Image.new("RGB", (4, 4), "red")
    server.files["/after.png"] = png(after)
    address = f"http://127.0.0.1:{server.server_port}/after.png"
    server.replies = [(200, {"data": [{"b64_json": None, "url": address}]}, {})]
    assert endpoint.edit(after, "x").tobytes() == after.tobytes()
    (_, asked, _), (path, downloaded, _) = server.requests
    assert path == "/after.png" and "Authorization" in asked and "Authorization" not in downloaded


def test_an_edit_keeps_its_transparency(server, endpoint):
    after = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    server.replies = [(200, {"data": [{"b64_json": base64.b64encode(png(after)).decode()}]}, {})]
    result = endpoint.edit(after, "x")
    assert result.mode == "RGBA" and result.tobytes() == after.tobytes()
    assert png(after) in server.requests[0][2]


def test_pictures_of_other_modes_are_sent_as_rgb(server, endpoint):
    server.replies = [(200, {"data": [{"b64_json": base64.b64encode(png(Image.new("RGB", (2, 2)))).decode()}]}, {})]
    picture = Image.new("CMYK", (3, 2), (0, 0, 0, 0))
    endpoint.edit(picture, "x")
    assert png(picture.convert("RGB")) in server.requests[0][2]


def test_other_things_than_pictures_are_refused(server, endpoint):
    with pytest.raises(TypeError, match="PIL picture, not as str"):
        endpoint.chat([{"role": "user", "content": [{"type": "image", "image": "photo.png"}]}])
    with pytest.raises(TypeError, match="PIL picture, not as NoneType"):
        endpoint.edit(None, "x")
    assert not server.requests


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_server_cannot_ask_for_a_local_file(server, endpoint, tmp_path, scheme):
    Image.new("RGB", (4, 4)).save(tmp_path / "private.png")
    server.replies = [(200, {"data": [{"url": f"{scheme}{tmp_path / 'private.png'}"}]}, {})]
    with pytest.raises(EndpointError, match="answer cannot be used"):
        endpoint.edit(Image.new("RGB", (2, 2)), "x")


@pytest.mark.parametrize("data", ["!", "AAAA", ""])
def test_an_edit_that_is_no_picture(server, endpoint, data):
    server.replies = [(200, {"data": [{"b64_json": data}]}, {})]
    with pytest.raises(EndpointError, match="answer cannot be used"):
        endpoint.edit(Image.new("RGB", (2, 2)), "x")


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [(("localhost:8000",), {}), (("",), {}), (("http://x",), {"timeout": 0}), (("http://x",), {"max_retries": -1})],
)
def test_arguments_out_of_range(arguments, settings):
    with pytest.raises(ValueError, match="base_url|timeout"):
        Endpoint(*arguments, "judge", **settings)


def test_streams_are_refused(endpoint):
    with pytest.raises(ValueError, match="stream"):
        endpoint.chat(HELLO, stream=True)


def test_many_at_once(server, endpoint):
    def echo(body):
        return {"choices": [{"message": {"content": json.loads(body)["messages"][0]["content"]}}]}

    server.replies = [(200, echo, {})]

    def ask(number):
        return endpoint.chat([{"role": "user", "content": str(number)}]).text

    assert dict(map_concurrently(ask, range(40), limit=8)) == {number: str(number) for number in range(40)}


def test_closing_waits_for_what_is_under_way_and_ends_what_waits_for_another_try(server, monkeypatch):
    slept, asked, close = threading.Event(), threading.Event(), threading.Event()
    monkeypatch.setattr(endpoints, "sleep", lambda seconds: (slept.set(), close.wait(10)))
    server.replies = [
        (503, {}, {}),
        (200, lambda body: (asked.set(), close.wait(10), json.dumps(SAID).encode())[2], {}),
    ]
    endpoint, results = Endpoint(server.url, "judge"), []
    asking = threading.Thread(target=lambda: results.extend(map_concurrently(endpoint.chat, [HELLO, HELLO], 2)))
    asking.start()
    assert slept.wait(10) and asked.wait(10)
    closing = threading.Thread(target=endpoint.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()  # an answer is still to come
    close.set()
    closing.join(10)
    asking.join(10)
    kinds = sorted(type(result).__name__ for _, result in results)
    assert kinds == ["Answer", "EndpointError"] and len(server.requests) == 2
    with pytest.raises(EndpointError, match="has been closed"):
        endpoint.chat(HELLO)


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


def test_no_more_than_the_limit_and_no_further_than_asked():
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

    results = map_concurrently(work, items(), limit=3)
    assert len([next(results) for _ in range(20)]) == 20
    results.close()
    assert most <= 3 and read <= 23 and running == 0


def test_no_items_and_no_limit():
    assert list(map_concurrently(len, [], limit=4)) == []
    with pytest.raises(ValueError, match="limit"):
        map_concurrently(len, [], limit=0)


def test_importing_it_stays_light():
    program = "import sys, diffusers_r1.endpoints; sys.exit(bool({'torch', 'diffusers'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True)
