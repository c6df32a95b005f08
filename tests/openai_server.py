"""A small server that speaks the part of OpenAI's protocol that judges and remote editors need, as a process of its own.

    python tests/openai_server.py --fail_every 3

prints its port and answers until its stdin is closed. What a picture is worth follows from the question alone, so every run
hears the same. `GET /counts` says how often what was asked.
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
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image, ImageOps


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
        return {"model": f"{request['model']}-2026-01-01", "choices": [{"message": {"content": text}}]}

    def do_GET(self):
        server = self.server
        with server.lock:
            counts = {name: getattr(server, name) for name in ("calls", "failed", "most")}
            counts |= {"asked": list(server.asked.values()), "answered": list(server.answered.values())}
        self.answer(200, counts)

    def answer(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def inverted(body: bytes) -> bytes:
    """The picture in a form, as its negative and at twice its size."""
    start = body.index(PNG_START)
    with Image.open(io.BytesIO(body[start : body.index(PNG_END, start) + len(PNG_END)])) as picture:
        result = ImageOps.invert(picture.convert("RGB")).resize((picture.width * 2, picture.height * 2))
    file = io.BytesIO()
    result.save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fail_every", type=int, default=0)
    parser.add_argument("--garble", choices=("never", "once", "always"), default="never")
    parser.add_argument("--key", default="")
    parser.add_argument("--delay", type=float, default=0.0)
    server = Server(parser.parse_args())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
