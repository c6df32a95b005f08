"""Pictures as files: whole or not at all, in good quality, with their colour profile and what the source's file said."""

from __future__ import annotations

import io
import math
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from .. import records
from .colour import srgb_profile
from .metadata import Metadata, tags_of
from .reading import resized


MOST_PIXELS_SENT = 2**22  # a photo of a telephone as PNG is more than servers take

# What a file name's end stands for, and the longest side that the format can hold.
_FORMATS = {
    ".png": ("PNG", 2**31 - 1),
    ".jpg": ("JPEG", 65_500),
    ".jpeg": ("JPEG", 65_500),
    ".jpe": ("JPEG", 65_500),
    ".jfif": ("JPEG", 65_500),
    ".webp": ("WEBP", 16_383),
    ".tif": ("TIFF", 2**31 - 1),
    ".tiff": ("TIFF", 2**31 - 1),
    ".avif": ("AVIF", 65_536),
    ".bmp": ("BMP", 2**31 - 1),
    ".gif": ("GIF", 65_535),
    ".ppm": ("PPM", 2**31 - 1),
}
SUFFIXES = tuple(_FORMATS)
_BYTES = 3  # of a pixel: what a PNG of noise takes
_QUALITY = 95  # of 100, where a format loses something and the source does not say how much


def check_format(path: str | Path, size: tuple[int, int] | None = None) -> None:
    """Says whether a picture of that size can have this name, wherever it is to go.

    Raises:
        ValueError: If the name's end stands for no format, or the format cannot hold that size.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in _FORMATS:
        raise ValueError(f"no picture is written as {suffix or 'a file without suffix'!r}; take {', '.join(_FORMATS)}")
    name, longest = _FORMATS[suffix.lower()]
    if size and max(size) > longest:
        raise ValueError(f"{name} holds at most {longest} pixels along a side, and the picture has {max(size)}")


def check_writable(path: str | Path, size: tuple[int, int] | None = None) -> None:
    """Says whether [`write_picture`] can write a picture under this name, before anybody has worked for it.

    Args:
        path (`str` or `Path`): Where it is to go.
        size (`tuple` of two `int`, *optional*): Its width and height, where they are known.

    Raises:
        ValueError: If the name's end stands for no format, there is no such folder, the format cannot hold that size, or the
            disk has no room for it.
        IsADirectoryError: If a folder has that name.
    """
    path = Path(path)
    check_format(path, size)
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, and no file can take its name")
    free = shutil.disk_usage(path.parent).free
    if size and free < size[0] * size[1] * _BYTES:
        raise ValueError(
            f"the disk of {path.parent} has {free:,} bytes left, too few for {size[0]} x {size[1]} pixels"
        )


def write_picture(path: str | Path, picture: Image.Image, metadata: Metadata | None = None) -> None:
    """Writes a picture, whole or not at all, in the format that the name's end stands for.

    It is tagged as sRGB where the format has profiles. A JPEG has the quantization tables of the JPEG that the metadata
    are from, so that it is as good as that; JPEG, WebP and AVIF otherwise have a quality of 95.

    Args:
        path (`str` or `Path`): Its folder has to exist. A file that is there is replaced.
        picture (`PIL.Image.Image`): RGB, in sRGB: as [`load_picture`] returns it, and editors.
        metadata ([`Metadata`], *optional*): What the source's file said, from [`load_with_metadata`].

    Raises:
        ValueError: As in [`check_writable`].
        OSError: If it cannot be written; nothing is left behind then.
    """
    check_writable(path, picture.size)
    records.write_whole(path, content_of(path, picture, metadata))


def content_of(path: str | Path, picture: Image.Image, metadata: Metadata | None = None) -> bytes:
    """What [`write_picture`] would write under this name; nothing is written.

    Raises:
        ValueError: As in [`check_format`].
    """
    check_format(path, picture.size)
    metadata = metadata or Metadata()
    settings: dict[str, Any] = {"icc_profile": srgb_profile()}
    if metadata.dpi:
        settings["dpi"] = metadata.dpi
    file_format, _ = _FORMATS[Path(path).suffix.lower()]
    if metadata.exif and file_format == "TIFF":
        settings["tiffinfo"] = tags_of(metadata.exif)
    elif metadata.exif:
        settings["exif"] = metadata.exif
    if file_format == "JPEG" and metadata.tables:
        # Where it is not known, as of a grey photo, Pillow would halve the colours' resolution.
        settings.update(qtables=metadata.tables, subsampling=max(metadata.subsampling, 0))
    elif file_format == "JPEG":
        settings.update(quality=_QUALITY, subsampling=0)  # fine coloured lines stay
    elif file_format in ("WEBP", "AVIF"):
        settings.update(quality=_QUALITY)
    file = io.BytesIO()
    picture.save(file, file_format, **settings)
    return file.getvalue()


def size_to_send(size: tuple[int, int]) -> tuple[int, int]:
    """The size, width and height in pixels, at which a server gets a picture: its own, or smaller down to 4 megapixels."""
    scale = min(1.0, math.sqrt(MOST_PIXELS_SENT / (size[0] * size[1])))
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def to_send(picture: Image.Image) -> Image.Image:
    """The picture in its [`size_to_send`].

    Raises:
        TypeError: If it is no PIL picture.
    """
    _check_picture(picture)
    return resized(picture, size_to_send(picture.size))


def to_png(picture: Image.Image) -> bytes:
    """The picture as the content of a PNG file, without loss.

    Args:
        picture (`PIL.Image.Image`): Modes other than L, RGB and RGBA are converted to RGB.

    Raises:
        TypeError: If it is no PIL picture.
    """
    _check_picture(picture)
    file = io.BytesIO()
    (picture if picture.mode in ("L", "RGB", "RGBA") else picture.convert("RGB")).save(file, "PNG")
    return file.getvalue()


def _check_picture(picture: object) -> None:
    if not isinstance(picture, Image.Image):
        raise TypeError(f"A picture is sent as a PIL picture, not as {type(picture).__name__}; see `load_picture`.")
