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


# As other programs write them: Pillow knows all but PDF, and starts Ghostscript for the first three.
EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 20 10
%%EndComments
0 0 20 10 rectfill showpage
%%EOF
"""
OTHER_PROGRAMS = {
    "eps.png": EPS,
    "ps.jpg": EPS.replace(b" EPSF-3.0", b""),
    "dos_eps.tif": b"\xc5\xd0\xd3\xc6" + struct.pack("<IIIIIIH", 30, len(EPS), 0, 0, 0, 0, 0xFFFF) + EPS,
    "pdf.png": b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n",
    "wmf.png": struct.pack("<IHhhhhHIH", 0x9AC6CDD7, 0, 0, 0, 200, 100, 72, 0, 0) + b"\x01\x00\t\x00" + bytes(40),
    "emf.png": struct.pack("<II4i4i", 1, 88, 0, 0, 20, 10, 0, 0, 20, 10) + b" EMF" + bytes(60),
    "psd.png": b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 10, 20, 8, 3) + bytes(12) + bytes(602),
    "grib.png": b"GRIB" + bytes(3) + b"\x01" + bytes(20),
}

FILES = {
    "truncated.png": (png()[:-40], "truncated"),
    "bomb.png": (claiming(60_000, 60_000), "decompression bomb"),
    "large.png": (claiming(8000, 5000), "more than 33,554,432 pixels"),
    "long.png": (claiming(5000, 3), "longer than 200:1"),
    "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "SVG is a drawing"),
    "hidden_drawing.png": (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "SVG is a drawing"),
    "nothing.png": (b"", "the file is empty"),
    "text.png": (b"hello " * 100, "no picture of a known format"),
    "page.html": (b"<html><script>alert(1)</script></html>", "no picture of a known format"),
    **{name: (content, "no picture of a known format") for name, content in OTHER_PROGRAMS.items()},
    "..%2f..%2fetc%2fpasswd.png": (b"root", "no picture of a known format"),
}
