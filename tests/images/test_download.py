import io
import itertools
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from picture_server import Answer, whole
from PIL import Image

from diffusers_r1.images import FORMATS, load_picture, load_pictures, load_with_metadata
from diffusers_r1.images import download as module
from diffusers_r1.images.download import download
from diffusers_r1.records import Failure


PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def saved(kind="PNG", pixels=PIXELS, **settings):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **settings)
    return buffer.getvalue()


@pytest.mark.parametrize("scheme", ["http", "HTTP", "Http"])
def test_a_url_in_any_case_is_downloaded(serve, scheme):
    serve.answers["/a.png"] = whole(saved())
    assert (np.asarray(load_picture(serve.url.replace("http", scheme, 1) + "/a.png")) == PIXELS).all()


def test_a_file_that_comes_in_chunks(serve):
    serve.answers["/a"] = Answer(lambda: (saved()[n : n + 10] for n in range(0, len(saved()), 10)))
    assert (np.asarray(load_picture(serve.url + "/a")) == PIXELS).all()


def test_rotation_and_metadata_come_along(serve):
    exif = Image.Exif()
    exif[0x0112] = 6
    serve.answers["/a"] = whole(saved("JPEG", exif=exif, dpi=(300, 300)))
    picture, metadata = load_with_metadata(serve.url + "/a")
    assert picture.size == (5, 7) and metadata.dpi == (300, 300) and metadata.tables


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>Not here</html>", "no picture of a known format"),
        (b"", "the file is empty"),
        (b"<svg/>", "SVG is a drawing"),
        (saved()[:60], "cannot be used"),
        (saved(pixels=np.zeros((1, 300, 3), np.uint8)), "longer than 200:1"),
        (saved(pixels=np.zeros((70, 70, 3), np.uint8)), "more than 4,096 pixels"),
    ],
)
def test_what_a_path_is_refused_for(serve, tmp_path, content, message):
    serve.answers["/a.png"] = whole(content)
    (tmp_path / "a.png").write_bytes(content)
    said = []
    for source in (serve.url + "/a.png", str(tmp_path / "a.png")):
        with pytest.raises(ValueError, match=message) as error:
            load_picture(source, max_pixels=4096)
        said.append(str(error.value).replace(source, ""))
    assert said[0] == said[1]


def test_what_the_server_says(serve):
    with pytest.raises(
        ValueError, match=r"The picture 'http://.*/a' cannot be used: the server answers 404 Not Found\."
    ):
        load_picture(serve.url + "/a")
    with pytest.raises(ValueError, match="cannot be used: the download failed: .*refused"):
        load_picture("http://127.0.0.1:9/picture.png")
    with pytest.raises(ValueError, match="cannot be used: the download failed"):
        load_picture("http://")


@pytest.mark.parametrize("status", [404, 403, 408, 429, 500, 503])
def test_a_server_that_is_busy_or_broken_says_nothing_about_the_picture(serve, status):
    serve.answers["/a"] = Answer(lambda: iter([b"no"]), status)
    with pytest.raises(ValueError, match=f"the server answers {status}") as error:
        load_pictures([PIXELS, serve.url + "/a"])
    assert getattr(error.value, "kind", None) is (Failure.OUTAGE if status > 404 else None)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://127.0.0.1:9/a.png", Failure.OUTAGE),
        ("http://no-such-host.invalid/a.png", Failure.OUTAGE),
        ("http://", None),
        ("http://a:b/c.png", None),
    ],
)
def test_whether_it_is_the_server_or_the_address(url, kind):
    with pytest.raises(ValueError, match="the download failed") as error:
        load_picture(url)
    assert getattr(error.value, "kind", None) is kind


def test_a_server_that_ends_in_the_middle_of_a_file_may_do_better_later(serve):
    serve.answers["/a"] = Answer(lambda: iter([saved()[:50]]), headers={"Content-Length": "1000"})
    with pytest.raises(ValueError, match="cannot be used") as error:
        load_picture(serve.url + "/a")
    assert getattr(error.value, "kind", None) is Failure.OUTAGE


@pytest.mark.parametrize("said", [True, False])
def test_a_file_that_is_too_long_is_left_after_the_limit(serve, said):
    """Whether the server says how long it is, or goes on for ever."""
    headers = {"Content-Length": str(2**40)} if said else {}
    serve.answers["/a"] = Answer(lambda: itertools.repeat(bytes(2**16)), headers=headers)
    with pytest.raises(ValueError, match="the file is longer than 1,000,000 bytes"):
        download(serve.url + "/a", max_bytes=1_000_000)
    assert serve.sent < 16_000_000  # what was on its way


def test_a_long_download_takes_little_memory(serve):
    """The whole limit of 134 MB, in a process of its own."""
    serve.answers["/a"] = Answer(lambda: itertools.repeat(bytes(2**16)))
    program = f"""
import resource, requests, sys
from diffusers_r1.images import load_picture
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load_picture("{serve.url}/a")
except ValueError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    message, megabytes = said.splitlines()
    assert "longer than 134,217,728 bytes" in message and int(megabytes) < 40


def test_what_comes_packed_is_not_unpacked(serve):
    serve.answers["/a"] = whole(b"\x1f\x8b" + bytes(100), **{"Content-Encoding": "gzip"})
    with pytest.raises(ValueError, match="no picture of a known format"):
        load_picture(serve.url + "/a")


def test_a_server_that_hardly_sends_is_left(serve, monkeypatch):
    def drops():
        while True:
            time.sleep(0.02)
            yield b"x"

    serve.answers["/a"] = Answer(drops)
    monkeypatch.setattr(module, "MAX_SECONDS", 0.2)
    with pytest.raises(ValueError, match=r"the download takes longer than 0\.2 seconds"):
        load_picture(serve.url + "/a")
    serve.answers["/b"] = Answer(lambda: time.sleep(1) or iter([b""]))
    monkeypatch.setattr(module, "_TIMEOUT", (0.2, 0.2))
    with pytest.raises(ValueError, match="the download failed: .*timed out"):
        load_picture(serve.url + "/b")


def test_redirects_are_followed_as_far_as_the_web_goes(serve):
    serve.answers["/a"] = whole(saved())
    for number in range(8):
        # What comes with a redirect is not waited for.
        answer = Answer(
            lambda: itertools.repeat(bytes(2**16)), 302, {"Location": "/a" if not number else f"/{number - 1}"}
        )
        serve.answers[f"/{number}"] = answer
    assert (np.asarray(load_picture(serve.url + "/4")) == PIXELS).all()
    with pytest.raises(ValueError, match="more than 5 times"):
        load_picture(serve.url + "/5")
    for target in ("file:///etc/hostname", "ftp://127.0.0.1/a"):
        serve.answers["/out"] = Answer(lambda: iter(()), 302, {"Location": target})
        with pytest.raises(ValueError, match="the server sends us to"):
            load_picture(serve.url + "/out")
    with pytest.raises(ValueError, match="the download failed"):
        download("file:///etc/hostname")


def test_nothing_stays_on_the_disk(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    serve.answers["/a"], serve.answers["/b"] = whole(saved()), whole(b"no picture")
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    load_picture(serve.url + "/a")
    with pytest.raises(ValueError, match=", ".join(FORMATS)):
        load_picture(serve.url + "/b")
    assert not list(tmp_path.iterdir())
    assert descriptors is None or len(os.listdir("/proc/self/fd")) == descriptors
