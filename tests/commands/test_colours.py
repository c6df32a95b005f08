"""Colours from file to file, by the command line: an editor that changes nothing gives what a colour-managed converter gives."""

import base64
import io

import numpy as np
import pytest
from colour_profiles import ADOBE_RGB, DISPLAY_P3, cmyk_profile, grey_profile, rgb_profile
from openai_server import picture_in, scripted
from PIL import Image, ImageCms

from diffusers_r1 import EditPlan
from diffusers_r1.images.colour import srgb_profile


RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)
SIDEWAYS = 6  # of EXIF: the camera was turned


def unchanged(body: bytes) -> dict:
    return {"data": [{"b64_json": base64.b64encode(picture_in(body)).decode()}]}


def managed(picture: Image.Image, profile: bytes) -> Image.Image:
    """What littleCMS makes of it, asked for directly."""
    target = ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(picture, io.BytesIO(profile), target, outputMode="RGB")


def adobe_rgb(path):
    picture, profile = Image.fromarray(PIXELS), rgb_profile(ADOBE_RGB)
    picture.save(path.with_suffix(".png"), icc_profile=profile)
    return path.with_suffix(".png"), managed(picture, profile)


def display_p3(path):
    """As a phone writes it: a JPEG."""
    profile = rgb_profile(DISPLAY_P3)
    Image.fromarray(PIXELS).save(path.with_suffix(".jpg"), quality=95, icc_profile=profile)
    with Image.open(path.with_suffix(".jpg")) as stored:
        return path.with_suffix(".jpg"), managed(stored.convert("RGB"), profile)


def cmyk(path):
    inks = Image.frombytes("CMYK", (64, 48), RNG.integers(0, 256, (48, 64, 4), dtype=np.uint8).tobytes())
    inks.save(path.with_suffix(".tif"), icc_profile=cmyk_profile())
    return path.with_suffix(".tif"), managed(inks, cmyk_profile())


def sixteen_bits(path):
    """Grey, of gamma 1.8: converted at 8 bits by Pillow, which has no 16 bits of colour."""
    deep = RNG.integers(0, 65536, (48, 64), dtype=np.uint16)
    Image.fromarray(deep).save(path.with_suffix(".png"), icc_profile=grey_profile(1.8))
    shallow = Image.fromarray(((deep.astype(int) + 128) // 257).astype(np.uint8))
    return path.with_suffix(".png"), managed(shallow, grey_profile(1.8))


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = SIDEWAYS
    profile = rgb_profile(ADOBE_RGB)
    Image.fromarray(PIXELS).save(path.with_suffix(".png"), exif=exif, icc_profile=profile)
    return path.with_suffix(".png"), managed(Image.fromarray(PIXELS), profile).transpose(Image.Transpose.ROTATE_270)


@pytest.mark.parametrize("make", [adobe_rgb, display_p3, cmyk, sixteen_bits, turned])
def test_colours_are_what_a_converter_gives(make, tmp_path, run):
    path, expected = make(tmp_path / "photo")
    plan, output = tmp_path / "plan.json", tmp_path / "out.png"
    plan.write_text(EditPlan("", (), ("leave it",)).to_json())
    with scripted((200, unchanged, {})) as editor:
        words = ("--plan", plan, "--output", output, "--editor", editor.url, "--editor_model", "brush")
        code, _, said = run("edit", path, *words)
    assert code == 0, said
    with Image.open(output) as picture:
        assert picture.size == expected.size and picture.info["icc_profile"] == srgb_profile()
        difference = np.abs(np.asarray(picture.convert("RGB"), int) - np.asarray(expected, int))
    assert difference.max() <= 2
