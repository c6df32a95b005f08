"""ICC profiles made from published figures, and the sRGB that they stand for, reckoned without any library of colours."""

import struct

import numpy as np


# Red, green and blue in XYZ as the profile's connection space has it (white D50), a row for each, and gamma.
ADOBE_RGB = (((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)), 563 / 256)
DISPLAY_P3 = (((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)), None)
SRGB = (((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)), None)
D50 = (0.9642, 1.0, 0.8249)


def rgb_profile(space) -> bytes:
    primaries, gamma = space
    tags = {f"{name}XYZ": _xyz(colour) for name, colour in zip("rgb", primaries)}
    return _profile(b"RGB ", b"XYZ ", {**tags, **dict.fromkeys(("rTRC", "gTRC", "bTRC"), _curve(gamma))})


def grey_profile(gamma: float) -> bytes:
    return _profile(b"GRAY", b"XYZ ", {"kTRC": _curve(gamma)})


def cmyk_profile() -> bytes:
    """Of inks that print purer than those that Pillow supposes, on yellowish paper: a table from inks to Lab."""
    grid = 5
    inks = np.stack(np.meshgrid(*[np.linspace(0, 1, grid)] * 4, indexing="ij"), -1).reshape(-1, 4)
    cyan, magenta, yellow, black = inks.T
    lightness = 95 * (1 - 0.4 * cyan) * (1 - 0.5 * magenta) * (1 - 0.08 * yellow) * (1 - 0.9 * black)
    a = (-35 * cyan + 70 * magenta) * (1 - black)
    b = 5 + (-48 * cyan - 5 * magenta + 85 * yellow) * (1 - black)
    lab = np.stack([lightness * 2.55, a + 128, b + 128], -1).round().clip(0, 255).astype(np.uint8)
    identity = struct.pack(">9i", *(65536 * (i in (0, 4, 8)) for i in range(9)))
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, grid, 0]) + identity + ramp * 4 + lab.tobytes() + ramp * 3
    return _profile(b"CMYK", b"Lab ", {"A2B0": table}, b"prtr")


def srgb_of(values: np.ndarray, space) -> np.ndarray:
    """Values from 0 to 255 in a space, as those of sRGB: made linear, through XYZ, and coded again."""
    primaries, gamma = space
    coded = np.asarray(values) / 255
    linear = coded**gamma if gamma else _decoded(coded)
    inside = (linear @ np.array(primaries) @ np.linalg.inv(np.array(SRGB[0]))).clip(0, 1)
    return srgb_from_linear(inside)


def srgb_from_linear(linear: np.ndarray) -> np.ndarray:
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _decoded(coded):
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def _xyz(colour) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in colour))


def _curve(gamma: float | None) -> bytes:
    """A power, or the curve of sRGB as a table."""
    if gamma:
        return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    table = (_decoded(np.linspace(0, 1, 1024)) * 65535).round().astype(">u2")
    return b"curv" + bytes(4) + struct.pack(">I", len(table)) + table.tobytes()


def _profile(space: bytes, connection: bytes, tags: dict[str, bytes], kind: bytes = b"mntr") -> bytes:
    name = b"made for tests\0"
    described = b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78)
    tags = {"desc": described, "cprt": b"text" + bytes(4) + b"none\0", "wtpt": _xyz(D50), **tags}
    place = 128 + 4 + 12 * len(tags)
    index, content = struct.pack(">I", len(tags)), b""
    for tag, value in tags.items():
        index += tag.encode() + struct.pack(">II", place + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    size = place + len(content)
    header = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, kind, space, connection) + bytes(12) + b"acsp"
    header += bytes(28) + struct.pack(">3i", *(round(value * 65536) for value in D50)) + bytes(48)
    return header + index + content
