"""Files that somebody could upload to do harm, or by mistake, and what the refusal says of each."""

import io
import struct
import zlib

from PIL import Image


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claiming(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes that claims a size."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(bytes(1000))) + _chunk(b"IEND", b"")


def png() -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").save(buffer, "PNG")
    return buffer.getvalue()


FILES = {
    "truncated.png": (png()[:-40], "truncated"),
    "bomb.png": (claiming(60_000, 60_000), "decompression bomb"),
    "large.png": (claiming(5000, 5000), "more than 16,777,216 pixels"),
    "long.png": (claiming(5000, 3), "longer than 200:1"),
    "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "SVG is a drawing"),
    "hidden_drawing.png": (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "SVG is a drawing"),
    "nothing.png": (b"", "the file is empty"),
    "text.png": (b"hello " * 100, "no picture of a known format"),
    "page.html": (b"<html><script>alert(1)</script></html>", "no picture of a known format"),
    "..%2f..%2fetc%2fpasswd.png": (b"root", "no picture of a known format"),
}
