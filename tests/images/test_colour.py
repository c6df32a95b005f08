import io

import numpy as np
import pytest
from colour_profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    SRGB,
    cmyk_profile,
    grey_profile,
    rgb_profile,
    srgb_from_linear,
    srgb_of,
)
from PIL import Image, ImageCms

from diffusers_r1.images import load_picture
from diffusers_r1.images.colour import srgb_profile


RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
INKS = Image.frombytes("CMYK", (50, 40), RNG.integers(0, 256, (40, 50, 4), dtype=np.uint8).tobytes())


def values(picture):
    assert picture.mode == "RGB" and not picture.info
    return np.asarray(picture).astype(float)


def converted(picture, profile):
    """What LittleCMS makes of a picture, asked for directly."""
    target = ImageCms.createProfile("sRGB")
    return values_of(ImageCms.profileToProfile(picture, io.BytesIO(profile), target, outputMode="RGB"))


def values_of(picture):
    return np.asarray(picture).astype(float)


def furthest(one, other):
    return np.abs(one - other).max()


def tagged(picture, profile):
    picture = picture.copy()
    picture.info["icc_profile"] = profile
    return picture


@pytest.mark.parametrize("space", [ADOBE_RGB, DISPLAY_P3, SRGB], ids=["adobe", "p3", "srgb"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_rgb_is_converted(tmp_path, space, kind):
    profile, path = rgb_profile(space), tmp_path / "a"
    lossless = {"WEBP": {"lossless": True}}.get(kind, {})
    Image.fromarray(PIXELS).save(path, kind, icc_profile=profile, **lossless)
    with Image.open(path) as stored:
        before = stored.convert("RGB")
    after = values(load_picture(path))
    assert furthest(after, srgb_of(before, space)) < 1.1
    assert furthest(after, converted(before, profile)) <= 1
    assert (furthest(after, values_of(before)) > 50) == (space is not SRGB)


def test_cmyk_is_converted(tmp_path):
    INKS.save(tmp_path / "a.tif", icc_profile=cmyk_profile())
    after = values(load_picture(tmp_path / "a.tif"))
    assert furthest(after, converted(INKS, cmyk_profile())) <= 1
    assert furthest(after, values_of(INKS.convert("RGB"))) > 50
    INKS.save(tmp_path / "a.jpg", icc_profile=cmyk_profile(), quality=100)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert furthest(values(load_picture(tmp_path / "a.jpg")), converted(stored, cmyk_profile())) <= 1


@pytest.mark.parametrize("gamma", [1.8, 2.2])
def test_grey_of_8_and_16_bits_is_converted(tmp_path, gamma):
    profile, power = grey_profile(gamma), round(gamma * 256) / 256
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "a.png", icc_profile=profile)
    after = values(load_picture(tmp_path / "a.png"))
    expected = srgb_from_linear((PIXELS[..., :1] / 255) ** power)
    assert furthest(after, expected) <= 2 and furthest(after, PIXELS[..., :1].astype(float)) >= 3
    deep = RNG.integers(0, 65536, (40, 50)).astype(np.uint16)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(deep).save(tmp_path / name, icc_profile=profile)
        expected = srgb_from_linear((deep[..., None] / 65535) ** power)
        assert furthest(values(load_picture(tmp_path / name)), expected) <= 2


def test_transparency_palettes_and_rotation_go_with_it(tmp_path):
    profile = rgb_profile(ADOBE_RGB)
    clear = np.dstack([PIXELS, np.where(PIXELS[..., 0] > 128, 255, 0).astype(np.uint8)])
    shown = values(load_picture(tagged(Image.fromarray(clear), profile)))
    opaque = clear[..., 3] == 255
    assert furthest(shown[opaque], srgb_of(PIXELS[opaque], ADOBE_RGB)) < 1.1 and (shown[~opaque] == 255).all()

    few = Image.fromarray(PIXELS // 128 * 127).quantize(8)
    few.save(tmp_path / "a.png", icc_profile=profile)
    assert furthest(values(load_picture(tmp_path / "a.png")), srgb_of(few.convert("RGB"), ADOBE_RGB)) < 1.1
    few.save(tmp_path / "b.png", icc_profile=profile, transparency=0)
    shown, first = values(load_picture(tmp_path / "b.png")), np.asarray(few) == 0
    assert (shown[first] == 255).all() and furthest(
        shown[~first], srgb_of(few.convert("RGB"), ADOBE_RGB)[~first]
    ) < 1.1

    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(PIXELS).save(tmp_path / "c.png", icc_profile=profile, exif=exif)
    assert furthest(values(load_picture(tmp_path / "c.png")), srgb_of(np.rot90(PIXELS), ADOBE_RGB)) < 1.1


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", b"no profile"),
        ("RGB", rgb_profile(ADOBE_RGB)[:200]),
        ("RGB", rgb_profile(ADOBE_RGB)[:36] + b"xxxx" + rgb_profile(ADOBE_RGB)[40:]),
        ("RGB", grey_profile(1.8)),
        ("RGB", cmyk_profile()),
        ("L", rgb_profile(ADOBE_RGB)),
        ("RGBA", cmyk_profile()),
    ],
)
def test_a_profile_that_is_broken_or_meant_for_others_changes_nothing(mode, profile):
    picture = Image.fromarray(PIXELS).convert(mode)
    assert (values(load_picture(tagged(picture, profile))) == values(load_picture(picture))).all()


def test_a_profile_with_any_bytes_changed_never_costs_the_picture():
    for whole in (rgb_profile(ADOBE_RGB), cmyk_profile()):
        picture = INKS if whole == cmyk_profile() else Image.fromarray(PIXELS)
        for _ in range(30):
            damaged = bytearray(whole)
            for place in RNG.integers(0, min(len(whole), 600), 4):
                damaged[place] = RNG.integers(256)
            assert load_picture(tagged(picture, bytes(damaged))).size == picture.size


def test_our_own_profile_is_srgb_and_always_the_same():
    profile = ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))
    assert "sRGB" in profile.profile.profile_description
    srgb_profile.cache_clear()
    assert srgb_profile() == profile.tobytes()
    assert (converted(Image.fromarray(PIXELS), srgb_profile()) == PIXELS).all()
    assert (values(load_picture(tagged(Image.fromarray(PIXELS), srgb_profile()))) == PIXELS).all()
