"""What a picture's file says besides its pixels, as far as it still holds once the picture was edited."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image, JpegImagePlugin, TiffImagePlugin


# What stays true of an edited picture. What describes the file (sizes, places of its parts, orientation, thumbnail) does not.
_KEPT_TAGS = (
    *(ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software),
    *(ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.HostComputer, ExifTags.Base.Copyright),
    *(ExifTags.Base.Rating, ExifTags.Base.RatingPercent, ExifTags.Base.XPTitle, ExifTags.Base.XPComment),
    *(ExifTags.Base.XPAuthor, ExifTags.Base.XPKeywords, ExifTags.Base.XPSubject),
)
_KEPT_PARTS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
# The sizes may be those of the picture before it was turned; the last one can say that the colours are Adobe RGB.
_DROPPED = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight, ExifTags.IFD.Interop)
_SRGB = 1  # of the tag ColorSpace
_RESOLUTION = (ExifTags.Base.XResolution, ExifTags.Base.YResolution)
_INCH = 2  # of the tag ResolutionUnit
_PER_INCH = {_INCH: 1, 3: 2.54}  # 3: in a centimetre
_JFIF_UNITS = (1, 2)  # of the head of a JPEG, where it has a resolution
_MAX_EXIF = 65_000  # bytes: what fits into a JPEG
_MAX_DPI = 65_535  # likewise


@dataclass(frozen=True)
class Metadata:
    """What a file says of its picture besides the pixels, fit to be written with an edited picture.

    Args:
        dpi (`tuple` of two `float`, *optional*): Dots an inch, across and down.
        exif (`bytes`, defaults to `b""`): Who took it when, where and how. Without the orientation, which was applied, and
            without the thumbnail, which shows the picture before.
        tables (`tuple` of `tuple` of `int`, defaults to `()`): The quantization tables of a JPEG, which are its quality.
        subsampling (`int`, defaults to -1): How its colours are stored, in Pillow's numbers; -1 where that is not known.
    """

    dpi: tuple[float, float] | None = None
    exif: bytes = b""
    tables: tuple[tuple[int, ...], ...] = ()
    subsampling: int = -1


def metadata_of(picture: Image.Image) -> Metadata:
    """What is worth keeping of the file that a picture was opened from; what cannot be read of it is left out.

    Args:
        picture (`PIL.Image.Image`): As Pillow opened it. One that comes from no file has no metadata.
    """
    dpi = _dpi(picture)
    if not isinstance(picture, JpegImagePlugin.JpegImageFile):
        return Metadata(dpi, _exif(picture, dpi))
    tables = tuple(tuple(table) for _, table in sorted(picture.quantization.items()))
    return Metadata(dpi, _exif(picture, dpi), tables, JpegImagePlugin.get_sampling(picture))


def tags_of(content: bytes) -> dict[int, Any]:
    """The tags of EXIF data, those of its parts as dicts: so Pillow writes them into a TIFF with their text unchanged.

    Args:
        content (`bytes`): As in [`Metadata`].
    """
    exif = Image.Exif()
    exif.load(content)
    return _tags(exif)


class _Text(str):
    """Text of EXIF data, written with the bytes that it was read from, whatever encoding they are of.

    Pillow reads them as Latin-1, and writes them as ASCII, with a question mark for each that is not. Bytes in place of text
    would not do: it writes those as numbers wherever it does not know the tag.
    """

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        try:
            return super().encode("latin-1")
        except UnicodeEncodeError:  # no file's: a program has set it
            return super().encode()


def _dpi(picture: Image.Image) -> tuple[float, float] | None:
    try:
        found = None if _made_up(picture) else picture.info.get("dpi")
        if found is None:  # WebP and AVIF have no place for it but their EXIF data
            exif = picture.getexif()
            unit = _PER_INCH[exif.get(ExifTags.Base.ResolutionUnit, _INCH)]
            found = [exif[tag] * unit for tag in _RESOLUTION]
        across, down = (round(float(value), 2) for value in found)
    # As for all that is read of EXIF data: broken ones answer with KeyError, struct.error, SyntaxError and others.
    except Exception:
        return None
    # A file may hold any number, fractions of zero among them.
    usable = all(math.isfinite(value) and 1 <= value <= _MAX_DPI for value in (across, down))
    return (across, down) if usable else None


def _made_up(picture: Image.Image) -> bool:
    """Whether Pillow has a resolution of 1 or 72 for the picture, should its tags have none. Those of a TIFF are its EXIF data."""
    if isinstance(picture, JpegImagePlugin.JpegImageFile):
        return picture.info.get("jfif_unit") not in _JFIF_UNITS
    return isinstance(picture, TiffImagePlugin.TiffImageFile)


def _exif(picture: Image.Image, dpi: tuple[float, float] | None) -> bytes:
    try:
        own = copy(picture.getexif())
        own._ifds = own._ifds.copy()  # reading its parts would write them into the picture's own
        tags = _still_true(_tags(own), dpi)
        content = _content(tags)
        if len(content) > _MAX_EXIF:
            tags[ExifTags.IFD.Exif].pop(ExifTags.Base.MakerNote, None)  # the camera's own, and the largest part by far
            content = _content(tags)
    except Exception:
        return b""
    return content if len(content) <= _MAX_EXIF else b""


def _tags(exif: Image.Exif) -> dict[int, Any]:
    """Those of its parts as dicts, where it has such parts."""
    tags = {tag: exif[tag] for tag in exif if tag not in _KEPT_PARTS}
    for part in _KEPT_PARTS:
        held = exif.get(part)  # its place in the file, or what a program has set
        if values := held if isinstance(held, dict) else exif.get_ifd(part):
            tags[part] = values
    return _as_read(tags)


def _as_read(value: Any) -> Any:
    if isinstance(value, dict):
        return {tag: _as_read(each) for tag, each in value.items()}
    return _Text(value) if isinstance(value, str) else value


def _still_true(tags: dict[int, Any], dpi: tuple[float, float] | None) -> dict[int, Any]:
    kept: dict[int, Any] = {tag: tags[tag] for tag in _KEPT_TAGS if tag in tags}
    for part in _KEPT_PARTS:
        values = {tag: value for tag, value in tags.get(part, {}).items() if tag not in _DROPPED}
        if values:
            kept[part] = values
    if ExifTags.IFD.Exif in kept:
        kept[ExifTags.IFD.Exif][ExifTags.Base.ColorSpace] = _SRGB
    if dpi:
        kept.update(zip(_RESOLUTION, dpi))
        kept[ExifTags.Base.ResolutionUnit] = _INCH
    return kept


def _content(tags: dict[int, Any]) -> bytes:
    exif = Image.Exif()
    exif.update(tags)
    return exif.tobytes() if tags else b""
