"""A server on loopback that answers as a test asks: whole files, endless ones, slow ones, and ones that are elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Answer:
    """What is sent: a status, further headers, and the content piece by piece, chunked unless its length is given."""

    pieces: Callable[[], Iterator[bytes]]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def whole(content: bytes, **headers: str) -> Answer:
    return Answer(lambda: iter([content]), headers={"Content-Length": str(len(content)), **headers})


@contextmanager
def serving(answers: dict[str, Answer]) -> Iterator[ThreadingHTTPServer]:
    """A server with `url`, the answers by path, and `sent`: how many bytes of content left it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            answer = server.answers.get(self.path)
            if answer is None:
                self.send_error(404)
                return
            self.send_response(answer.status)
            chunked = "Content-Length" not in answer.headers
            headers = {
                **answer.headers,
                **({"Transfer-Encoding": "chunked"} if chunked else {}),
                "Connection": "close",
            }
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for piece in answer.pieces():
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                    server.sent += len(piece)
                if chunked:
                    self.wfile.write(b"0\r\n\r\n")
            except OSError:  # whoever asked has had enough
                self.close_connection = True

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.answers, server.sent = answers, 0
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
