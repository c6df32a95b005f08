"""Small servers that speak the part of OpenAI's protocol that planners, judges and remote editors need.

    python tests/openai_server.py --fail_every 3

is one as a process of its own: it prints its port and answers until its stdin is closed. What a picture is worth follows from
the question alone, so every run hears the same. `GET /counts` says how often what was asked.

[`Scripted`] is one inside of a test, which answers with what it is given; `PASSING_FAULTS` is what servers do for a while.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image, ImageOps

from diffusers_r1.plan import Edit
from diffusers_r1.tags import write_decomposition, write_sequence


PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


class Running:
    """A server process."""

    def __init__(self, **options: object):
        words = [f"--{name}={value}" for name, value in options.items()]
        command = [sys.executable, __file__, *words]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"
        self.url = f"{self.address}/v1"

    def counts(self) -> dict:
        """`calls`, of which `failed`; `most` at once; how often each question was `asked` and `answered`."""
        with urllib.request.urlopen(f"{self.address}/counts") as answer:
            return json.load(answer)

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


# Answers that are written down
# -----------------------------


def said(text: object, **details: object) -> dict:
    """A chat completion; `details` are further fields of its choice."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **details}
    return {
        "id": "1",
        "model": "judge-2025-01-01",
        "choices": [choice],
        "usage": {"prompt_tokens": 3, "completion_tokens": 7},
    }


EDITS = (Edit("recolor", "coat", "the car's red"), Edit("remove", "man behind the car", "nothing"))
REQUESTS = ["make the coat red", "remove the man behind the car"]


def planner_replies(body: bytes) -> dict:
    """The decomposition to the first question, the sequence to the second."""
    messages = json.loads(body)["messages"]
    second = messages[-2]["role"] == "assistant" and "<goal>" in json.dumps(messages[-2])
    return said(write_sequence(REQUESTS) if second else write_decomposition(EDITS, "a coat"))


def editor_reply(body: bytes) -> dict:
    return {"data": [{"b64_json": base64.b64encode(inverted(body)).decode()}]}


class Scripted(ThreadingHTTPServer):
    """Answers with `replies`, one after the other, the last one for ever.

    A reply is `(status, body, headers)`, the body bytes, JSON, or a function of the request's body; or a function of the
    handler, which then does it all. `requests` are `(path, headers, body)`, the headers whatever their case.
    """

    daemon_threads = True

    def __init__(self, *replies: object):
        super().__init__(("127.0.0.1", 0), ScriptedHandler)
        self.replies: list = list(replies) or [(200, said("Hi"), {})]
        self.requests: list[tuple[str, Message, bytes]] = []
        self.files: dict[str, bytes] = {}  # answers to GET, by path
        self.ended = threading.Event()
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.url = f"{self.address}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is no fault of the server."""


class ScriptedHandler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        replies = self.server.replies
        self.server.requests.append((self.path, self.headers, body))
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        if callable(reply):
            return reply(self)
        status, content, headers = reply
        self.answer(status, content(body) if callable(content) else content, headers)

    def do_GET(self):
        self.server.requests.append((self.path, self.headers, b""))
        content = self.server.files.get(self.path)
        self.answer(404 if content is None else 200, content or b"", {})

    def answer(self, status: int, content: object, headers: dict) -> None:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def scripted(*replies: object) -> Iterator[Scripted]:
    """A [`Scripted`] that runs in a thread of the test."""
    server = Scripted(*replies)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def planning(answers: Mapping[str, tuple[str, str]]) -> Iterator[Scripted]:
    """A planner that knows what to say to each instruction, first and second; `answers[""]` is for all others.

    Worked examples, of which each is two questions and two answers, may stand before the question.
    """

    def reply(body: bytes) -> dict:
        messages = json.loads(body)["messages"]
        is_second = len(messages) % 4 == 3
        asked = json.dumps(messages[-3 if is_second else -1], ensure_ascii=False)
        quoted = {json.dumps(text, ensure_ascii=False)[1:-1]: both for text, both in answers.items()}
        return said(next(both for text, both in quoted.items() if text in asked)[is_second])

    with scripted((200, reply, {})) as server:
        yield server


def hang_up(handler: ScriptedHandler) -> None:
    handler.close_connection = True


def stall(handler: ScriptedHandler) -> None:
    """Nothing, for as long as the test takes."""
    handler.server.ended.wait(60)
    handler.close_connection = True


def drip(handler: ScriptedHandler) -> None:
    """A byte now and then, so that no single one is late."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    try:
        while not handler.server.ended.wait(0.05):
            handler.wfile.write(b" ")
            handler.wfile.flush()
    except OSError:
        pass
    handler.close_connection = True


SOON = {"Retry-After": "0.01"}
ROLE = {"message": {"role": "user", "content": "<action>of the wrong role</action>"}}
WHOLE = json.dumps(said("Hi")).encode()

# What a server does for a while: asked again, it answers.
PASSING_FAULTS = {
    "busy": (429, {"error": {"message": "busy"}}, SOON),
    "failing": (500, b"oops", SOON),
    "gateway": (502, b"<html><body>Bad gateway</body></html>", SOON),
    "starting": (503, {}, SOON),
    "gateway timeout": (504, b"", SOON),
    "overloaded": (529, {}, SOON),
    "request timeout": (408, {}, SOON),
    "locked": (409, {}, SOON),
    "hangs up": hang_up,
    "stalls": stall,
    "drips": drip,
    "JSON that is cut": (200, WHOLE[:40], {}),
    "body that is cut": (200, WHOLE, {"Content-Length": str(len(WHOLE) + 10)}),
    "empty body": (200, b"", {}),
    "page of HTML": (200, b"<html><body>Please log in</body></html>", {"Content-Type": "text/html"}),
    "no content": (204, b"", {}),
    "no choices": (200, {"id": "1", "choices": []}, {}),
    "no message": (200, {"choices": [{"finish_reason": "stop"}]}, {}),
    "empty answer": (200, said(""), {}),
    "null answer": (200, said(None), {}),
    "wrong role": (200, said(None, **ROLE), {}),
    "an error as an answer": (200, {"error": {"message": "out of memory"}}, {}),
    "a list": (200, [], {}),
    "a number": (200, 7, {}),
    "not UTF-8": (200, b"\xff\xfe", {}),
    "not what its encoding says": (200, b"{}", {"Content-Encoding": "gzip"}),
    "nested without end": (200, b"[" * 100_000, {}),
}


BROKEN = [
    content
    for _, content, headers in (
        PASSING_FAULTS[name]
        for name in (
            "JSON that is cut",
            "empty body",
            "page of HTML",
            "no choices",
            "empty answer",
            "wrong role",
            "an error as an answer",
        )
    )
]


# A server that answers by itself
# -------------------------------


@contextmanager
def serving() -> Iterator[Callable[..., Running]]:
    started = []

    def start(**options: object) -> Running:
        started.append(Running(**options))
        return started[-1]

    try:
        yield start
    finally:
        for server in started:
            server.stop()


def scores_of(question: str) -> list[int]:
    """Two whole numbers from 0 to 10, equal for equal questions."""
    return [byte % 11 for byte in hashlib.sha256(question.encode()).digest()[:2]]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, options: argparse.Namespace):
        super().__init__(("127.0.0.1", 0), Handler)
        self.options, self.lock = options, threading.Lock()
        self.calls = self.failed = self.now = self.most = 0
        self.asked, self.answered = Counter(), Counter()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server, options = self.server, self.server.options
        with server.lock:
            server.calls += 1
            number = server.calls
            server.now += 1
            server.most = max(server.most, server.now)
        time.sleep(options.delay)
        with server.lock:
            server.now -= 1
        if options.key and self.headers.get("Authorization") != f"Bearer {options.key}":
            return self.answer(401, {"error": {"message": "wrong key"}})
        if options.fail_every and number % options.fail_every == 0:
            with server.lock:
                server.failed += 1
            return self.answer(429 if number % 2 else 503, {"error": {"message": "busy"}})
        if options.break_every and number % options.break_every == 0:
            with server.lock:
                server.failed += 1
            return self.answer(200, BROKEN[number % len(BROKEN)])
        if options.refuse_every and zlib.crc32(body) % options.refuse_every == 0:
            return self.answer(400, {"error": {"message": "content filter", "code": "content_filter"}})
        if self.path == "/v1/images/edits":
            return self.answer(200, {"data": [{"b64_json": base64.b64encode(inverted(body)).decode()}]})
        self.answer(200, self.said(json.loads(body)))

    def said(self, request: dict) -> dict:
        first, *again = request["messages"]
        question = json.dumps(first)
        with self.server.lock:
            self.server.asked[question] += 1
        garbled = (self.server.options.garble == "once" and not again) or self.server.options.garble == "always"
        text = "Ten out of ten!" if garbled else json.dumps({"reasoning": "{so so}", "score": scores_of(question)})
        if not garbled:
            with self.server.lock:
                self.server.answered[question] += 1
        assert request["temperature"] == 0
        return said(text) | {"model": f"{request['model']}-2026-01-01"}

    def do_GET(self):
        server = self.server
        with server.lock:
            counts = {name: getattr(server, name) for name in ("calls", "failed", "most")}
            counts |= {"asked": list(server.asked.values()), "answered": list(server.answered.values())}
        self.answer(200, counts)

    def answer(self, status: int, content: dict | bytes) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def picture_in(body: bytes) -> bytes:
    """The first picture in a form, as the PNG that it is."""
    start = body.index(PNG_START)
    return body[start : body.index(PNG_END, start) + len(PNG_END)]


def inverted(body: bytes) -> bytes:
    """The picture in a form, as its negative and at twice its size."""
    with Image.open(io.BytesIO(picture_in(body))) as picture:
        result = ImageOps.invert(picture.convert("RGB")).resize((picture.width * 2, picture.height * 2))
    file = io.BytesIO()
    result.save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fail_every", type=int, default=0)
    parser.add_argument("--break_every", type=int, default=0)
    parser.add_argument("--refuse_every", type=int, default=0)
    parser.add_argument("--garble", choices=("never", "once", "always"), default="never")
    parser.add_argument("--key", default="")
    parser.add_argument("--delay", type=float, default=0.0)
    server = Server(parser.parse_args())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
