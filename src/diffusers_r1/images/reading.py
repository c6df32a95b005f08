"""A picture opened and checked once for all: whatever it came as, an upright RGB picture or a clear refusal leaves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from ..records import Failure
from .colour import to_srgb
from .metadata import Metadata, metadata_of


# What people send. Pillow knows forty more, and for some of them it starts another program: for EPS Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM")
MAX_PIXELS = 2**26  # 8192 x 8192, below the size at which Pillow begins to warn of a decompression bomb
MAX_UPLOAD_PIXELS = 2**25  # of what others send: a camera's 24 megapixels fit
MAX_ASPECT = 200  # the longest picture that Qwen2-VL's processor takes

_HEIC = tuple(b"ftyp" + kind for kind in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_TAKEN = "a PIL picture, a numpy array, a torch tensor, a path, a URL or an open binary file"
_STEPS = {"L;2": 85, "L;4": 17}  # between the greys of a PNG, by the depth as Pillow calls it
_TURNED = (5, 6, 7, 8)  # orientations of EXIF that make the height the width
_TOLERANCE = 1e-3  # how far rounding may carry a float picture outside of 0..1


class Unreachable(ValueError):
    """A picture on the web cannot be had now, which says nothing about the picture."""

    kind = Failure.OUTAGE


def load_picture(source: Any, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture as a new, upright RGB picture without metadata.

    The EXIF rotation is applied, colours are converted to sRGB by the ICC profile where there is one, transparency is
    laid on white, and deep pictures are scaled to 8 bits. Of an animation the first frame is taken.

    Args:
        source (`PIL.Image.Image`, `numpy.ndarray`, `torch.Tensor`, `str`, `pathlib.Path` or `BinaryIO`): One picture.

            - PIL: any mode that has a way to RGB. Modes `I` and `I;16` count from 0 to 65535, mode `F` from 0 to 1.
            - array: `[height, width]` or `[height, width, channels]`, 1 to 4 channels (grey, grey and alpha, RGB,
              RGBA); `uint8`, `uint16`, `bool`, or floats from 0 to 1.
            - tensor: the same with the channels in front, `[channels, height, width]`.
            - array or tensor with a leading axis of length 1: the one picture in it.
            - text that begins with `http://` or `https://`: downloaded, up to 134 MB; any other text is a path.
            - an open binary file: read from its beginning.
        max_pixels (`int`, defaults to 2**26): The largest width x height that is decoded.

    Returns:
        `PIL.Image.Image`: mode RGB, the size of the source (turned, if its EXIF data says so).

    Raises:
        TypeError: If `source` is none of these, or an array of another number type.
        ValueError: If it cannot be read as a picture, its format is none of `FORMATS`, it is too large or longer than
            200:1, or has values out of range. Its `kind` is `OUTAGE` where the server of a URL is down or busy.
    """
    return load_with_metadata(source, max_pixels)[0]


def load_with_metadata(source: Any, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, Metadata]:
    """The picture as [`load_picture`] returns it, and what its file says besides: hand that on to [`write_picture`].

    Args:
        source: One picture, as in [`load_picture`]. An array has no metadata.
        max_pixels (`int`, defaults to 2**26): The largest width x height that is decoded.

    Raises:
        TypeError, ValueError: As in [`load_picture`].
    """
    name = "The picture"
    if isinstance(source, (str, Path)):
        name = f"The picture {_short(source)}"
    elif _is_array(source):
        source = _from_array(_to_numpy(source), max_pixels)
    elif not isinstance(source, Image.Image) and not hasattr(source, "read"):
        raise TypeError(f"A picture is {_TAKEN}, not {type(source).__name__}.")

    try:
        if isinstance(source, Image.Image):
            return _to_rgb(source, max_pixels), metadata_of(source)
        # A file that the caller has opened is the caller's to close.
        with (
            _file(source) if isinstance(source, (str, Path)) else nullcontext(source) as file,
            _opened(file) as picture,
        ):
            return _to_rgb(picture, max_pixels), metadata_of(picture)
    # Pillow answers a damaged file with OSError, SyntaxError, EOFError, struct.error and others of its own.
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        kind = Unreachable if isinstance(error, Unreachable) else ValueError
        raise kind(f"{name} cannot be used: {reason}") from error


def load_pictures(value: Any, max_pixels: int = MAX_PIXELS) -> list[Image.Image]:
    """Every picture of `value`, each as [`load_picture`] returns it.

    Args:
        value: One picture, a list or tuple of pictures, or an array `[n, height, width, channels]` or tensor
            `[n, channels, height, width]` of them.
        max_pixels (`int`, defaults to 2**26): The largest width x height of each.

    Returns:
        `list` of `PIL.Image.Image`: at least one picture, mode RGB.

    Raises:
        TypeError: If one of them is no picture; the message says which.
        ValueError: If one of them cannot be used (the message says which), or there is none.
    """
    is_batch = isinstance(value, (list, tuple)) or (_is_array(value) and len(value.shape) == 4)
    if not is_batch:
        return [load_picture(value, max_pixels)]
    if len(value) == 0:
        raise ValueError("At least one picture is needed; the list or batch is empty.")
    pictures = []
    for index, source in enumerate(value):
        try:
            pictures.append(load_picture(source, max_pixels))
        except (TypeError, ValueError) as error:
            raise type(error)(f"Picture {index} of {len(value)}: {error}") from error
    return pictures


def load_samples(value: Any) -> tuple[list[Image.Image], list[list[Image.Image]]]:
    """The pictures to edit, and for each of them the reference pictures that stand beside it.

    Args:
        value: What [`load_pictures`] takes, in which a list stands for a picture and its references:
            `[[photo, coat], other]` is two pictures, the first of which has one reference.

    Returns:
        `tuple` of two lists of one length: pictures, and a list of references for each, empty where it has none.

    Raises:
        TypeError, ValueError: As in [`load_pictures`].
    """
    if not isinstance(value, (list, tuple)):
        pictures = load_pictures(value)
        return pictures, [[] for _ in pictures]
    samples = [list(sample) if isinstance(sample, (list, tuple)) else [sample] for sample in value]
    if not all(samples):
        raise ValueError(f"Picture {samples.index([])} of {len(samples)} is an empty list.")
    pictures = load_pictures([picture for picture, *_ in samples])
    return pictures, [load_pictures(references) if references else [] for _, *references in samples]


def picture_sizes(sources: Iterable[str | Path]) -> Iterator[tuple[int, int]]:
    """Width and height of pictures in files, upright, without decoding them. Those on the web, and what is no picture, are left out."""
    for source in sources:
        if is_url(str(source)):
            continue
        try:
            with _file(source) as file, _opened(file) as picture:
                width, height = picture.size
                turned = picture.getexif().get(ExifTags.Base.Orientation) in _TURNED
        except Exception:  # of whatever kind Pillow raises: who loads the picture is told
            continue
        yield (height, width) if turned else (width, height)


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture in that size, width and height in pixels, by Lanczos; itself where it has it."""
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def is_url(text: str) -> bool:
    """Whether the text is the address of a file on the web, and no path."""
    return text[:8].lower().startswith(("http://", "https://"))


def _file(source: str | Path) -> BinaryIO:
    if is_url(str(source)):
        from .download import download

        return download(str(source))
    if str(source)[:5].lower() == "data:":
        raise ValueError("data URLs are not taken here; decode it, and give the bytes as an open file (`io.BytesIO`).")
    path = Path(source)
    if not path.is_file():
        raise ValueError("there is no such file.")
    return path.open("rb")


def _opened(file: BinaryIO) -> Image.Image:
    file.seek(0)
    head = file.read(1024)
    if not head:
        raise ValueError("the file is empty.")
    try:
        return Image.open(file, formats=FORMATS)
    except Image.UnidentifiedImageError:
        if b"<svg" in head.lower():
            raise ValueError("SVG is a drawing, not a picture; export it as PNG first.") from None
        if head[4:12] in _HEIC:
            raise ValueError("HEIC, in which phones store photos, is not read; export it as JPEG first.") from None
        raise ValueError(f"this is no picture of a known format: {', '.join(FORMATS)}.") from None


def _to_rgb(picture: Image.Image, max_pixels: int) -> Image.Image:
    _check_size(*picture.size, max_pixels)
    _check_format(picture)
    picture.info.update(_clear_colour(picture))  # of the picture itself: whoever loads it again finds it loaded
    picture.load()
    black_and_white = _black_and_white(picture)  # now, since only the file says so
    upright = _upright(picture)
    picture = to_srgb(_to_8_bits(upright, *black_and_white), upright.info.get("icc_profile"))
    if picture.mode == "La":
        picture = picture.convert("LA")  # the only way out that Pillow has
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    result = Image.new("RGB", picture.size)
    result.paste(picture.convert("RGB"))  # onto a new picture, so that no metadata comes along
    return result


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if min(width, height) < 1:
        raise ValueError(f"it has no pixels: {width} x {height}.")
    if width * height > max_pixels:
        raise ValueError(f"{width} x {height} is more than {max_pixels:,} pixels; make it smaller first.")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(f"{width} x {height} is longer than {MAX_ASPECT}:1; crop it first.")


def _check_format(picture: Image.Image) -> None:
    """Somebody else may have opened the file without decoding it yet, which is when Pillow starts other programs."""
    if isinstance(picture, ImageFile.ImageFile) and picture.format not in (*FORMATS, "MPO"):
        if picture.tile or isinstance(picture, ImageFile.StubImageFile):
            raise ValueError(f"{picture.format} is no picture of a known format: {', '.join(FORMATS)}.")


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    # The pixels are loaded: what fails here is broken EXIF data (a SyntaxError, for one), and the picture is fine.
    except Exception:
        return picture


def _clear_colour(picture: Image.Image) -> dict[str, Any]:
    """What `info` should say: Pillow brings the pixels of a PNG to 8 bits, and leaves the colour that is clear as it was."""
    clear = picture.info.get("transparency")
    if clear is None or not isinstance(picture, PngImageFile) or not picture.tile:
        return {}
    depth = picture.tile[0][3]
    if depth == "RGB;16B":
        return {"transparency": tuple(value >> 8 for value in clear)}
    return {"transparency": clear * _STEPS[depth]} if depth in _STEPS else {}


def _black_and_white(picture: Image.Image) -> tuple[int, int]:
    """The values of black and of white in a deep grey picture of whole numbers.

    Pillow gives 12 bits of a TIFF as 16, and turns one round that counts from white to black only if it has 8 bits or less.
    """
    if not isinstance(picture, TiffImageFile):
        return 0, 65535
    bits = picture.tag_v2.get(BITSPERSAMPLE, (1,))[0]
    most = 2 ** min(bits, 16) - 1
    return (most, 0) if picture.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0 else (0, most)


def _to_8_bits(picture: Image.Image, black: int, white: int) -> Image.Image:
    """Pillow's own conversion of deep grey pictures clips them to 255."""
    if picture.mode == "F":
        values = np.asarray(picture)
        return Image.fromarray(_bytes_of(values if black < white else 1 - values))
    if picture.mode.startswith("I"):
        values, most = np.asarray(picture), max(black, white)
        if values.min() < 0 or values.max() > most:
            raise ValueError(f"its values run from {values.min()} to {values.max()}, not within 0 to {most}.")
        values = values.astype(np.uint32) if black < white else most - values.astype(np.uint32)
        result = Image.fromarray(_bytes_of(((values * 65535 + most // 2) // most).astype(np.uint16)))
        if (clear := picture.info.get("transparency")) is not None:
            result.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
        return result
    return picture


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or _is_tensor(value)


def _is_tensor(value: Any) -> bool:
    return all(hasattr(value, name) for name in ("detach", "cpu", "is_floating_point", "shape"))


def _to_numpy(array: Any) -> np.ndarray:
    """Channels last, without a leading axis of length 1."""
    if not _is_tensor(array):
        return array[0] if array.ndim == 4 and len(array) == 1 else array
    tensor = array.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()  # numpy has no bfloat16
    values = tensor.numpy()
    if values.ndim == 4 and len(values) == 1:
        values = values[0]
    return np.moveaxis(values, 0, -1) if values.ndim == 3 else values


def _from_array(values: np.ndarray, max_pixels: int) -> Image.Image:
    if values.ndim == 4:
        raise ValueError(f"This is a batch of {len(values)} pictures where one is expected.")
    if values.ndim not in (2, 3) or (values.ndim == 3 and not 1 <= values.shape[2] <= 4):
        raise ValueError(
            f"An array has the shape [height, width] or [height, width, 1 to 4 channels], a tensor its channels in "
            f"front; with the channels last this one has the shape {list(values.shape)}."
        )
    try:
        _check_size(values.shape[1], values.shape[0], max_pixels)
        values = _bytes_of(values)
    except ValueError as error:
        raise ValueError(f"The picture cannot be used: {error}") from None
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    return Image.fromarray(np.ascontiguousarray(values))


def _bytes_of(values: np.ndarray) -> np.ndarray:
    """The values as `uint8`, scaled by what their type can hold (floats: 1)."""
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if not np.issubdtype(values.dtype, np.floating):
        raise TypeError(f"An array of a picture holds uint8, uint16, bool or floats from 0 to 1, not {values.dtype}.")
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinite values.")
    low, high = float(values.min()), float(values.max())
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise ValueError(f"floats count from 0 to 1, and these run from {low:g} to {high:g}.")
    return (values.clip(0, 1) * 255).round().astype(np.uint8)


def _short(source: str | Path) -> str:
    text = str(source)
    return repr(text if len(text) <= 200 else text[:200] + "...")
