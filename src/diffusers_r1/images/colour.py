"""Colours: from whatever profile a picture carries to sRGB, in which all models work."""

from __future__ import annotations

import io
from functools import cache

from PIL import Image, ImageCms


# The modes in which Pillow hands over pixels of a profile's colour space.
_MODES = {"RGB ": ("RGB", "RGBA"), "GRAY": ("L", "LA"), "CMYK": ("CMYK",)}
_CREATED = slice(24, 36)  # the date in a profile's header


@cache
def srgb_profile() -> bytes:
    """The ICC profile that says "these pixels are sRGB". Always the same bytes, so that equal pictures are equal files."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[_CREATED] = bytes.fromhex("07e8 0001 0001 0000 0000 0000")  # otherwise the second in which it was made
    return bytes(profile)


def to_srgb(picture: Image.Image, content: bytes | None) -> Image.Image:
    """The picture with an ICC profile applied, as LittleCMS does it with the perceptual intent: mode RGB, or RGBA.

    A picture without a profile comes back as it is, and so does one whose profile is broken or meant for other pixels.

    Args:
        picture (`PIL.Image.Image`): Loaded, in any mode; grey pixels have 8 bits.
        content (`bytes`, *optional*): The profile, as the picture's file has it.
    """
    if not content or content == srgb_profile():
        return picture
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        pixels = _without_palette(picture)
        space = profile.profile.xcolor_space  # pyright: ignore[reportAttributeAccessIssue] # taken for the file by Pillow's types
        if pixels.mode not in _MODES.get(space, ()):
            return picture
        alpha = pixels.getchannel("A") if pixels.mode in ("LA", "RGBA") else None
        pixels = pixels.convert(pixels.mode.removesuffix("A"))
        target = ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))
        result = ImageCms.buildTransform(profile, target, pixels.mode, "RGB").apply(pixels)
    except (ImageCms.PyCMSError, OSError, UnicodeDecodeError):  # the last, where the name of the colour space is none
        return picture
    if alpha is not None:
        result.putalpha(alpha)
    return result


def _without_palette(picture: Image.Image) -> Image.Image:
    """Each pixel with its own colour and transparency: a palette or a single clear colour means nothing after a conversion."""
    if picture.mode in ("P", "PA"):
        return picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    if picture.mode == "1":
        return picture.convert("L")
    if picture.mode in ("L", "RGB") and picture.has_transparency_data:
        return picture.convert(picture.mode + "A")
    return picture
