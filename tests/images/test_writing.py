import io
import os
import shutil
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import ExifTags, Image, JpegImagePlugin

from diffusers_r1.images import (
    Metadata,
    check_writable,
    load_picture,
    load_with_metadata,
    to_png,
    write_picture,
)
from diffusers_r1.images.colour import srgb_profile


RNG = np.random.default_rng(0)
# Smooth, as photos are: on noise JPEG says little about its quality.
PICTURE = Image.fromarray(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)
ORIENTATION, ARTIST, COPYRIGHT, EXIF, GPS = 0x0112, 0x013B, 0x8298, 0x8769, 0x8825
OWNER, DATUM = 0xA430, 0x0012  # texts of the two parts
TAKEN, MAKER_NOTE, COLOUR_SPACE, WIDTH, INTEROP = 0x9003, 0x927C, 0xA001, 0xA002, 0xA005
FIRST_THUMBNAIL = ExifTags.IFD.IFD1


def camera_exif(more=()):
    exif = Image.Exif()
    exif[ORIENTATION], exif[ARTIST], exif[0x0110] = 6, "Ann Other", "Camera 1"
    exif[EXIF] = {
        TAKEN: "2024:05:01 10:00:00",
        MAKER_NOTE: b"abc",
        COLOUR_SPACE: 0xFFFF,
        WIDTH: 160,
        INTEROP: {1: "R03"},
        **dict(more),
    }
    exif[GPS] = {1: "N", 2: (52.0, 30.0, 0.0)}
    return exif


def directory(start, values):
    """A directory of EXIF data with texts of any bytes, which Pillow itself does not write, and with further directories."""
    entries, rest, end = b"", b"", start + 2 + 12 * len(values) + 4
    for tag, value in sorted(values.items()):
        place = end + len(rest)
        part = isinstance(value, dict)
        rest += directory(place, value) if part else value + b"\0"
        entries += struct.pack("<HHII", tag, 4 if part else 2, 1 if part else len(value) + 1, place)
    return struct.pack("<H", len(values)) + entries + bytes(4) + rest


def texts_of(path):
    exif = stored(path).getexif()
    texts = exif[ARTIST], exif[COPYRIGHT], exif.get_ifd(EXIF)[OWNER], exif.get_ifd(GPS)[DATUM]
    return [text.encode("latin-1") for text in texts]  # as Pillow has read them; bytes would be of the wrong type


def stored(path):
    with Image.open(path) as picture:
        picture.load()
    return picture


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    PICTURE.save(path, quality=83, subsampling="4:2:2", dpi=(300, 240), exif=camera_exif())
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.png", "a.webp", "a.tif", "a.tiff", "a.avif"])
def test_what_a_photographer_expects_is_kept(tmp_path, photo, name):
    picture, metadata = load_with_metadata(photo)
    assert picture.size == (120, 160)
    write_picture(tmp_path / name, picture, metadata)
    after = stored(tmp_path / name)
    assert after.size == (120, 160) and after.info["icc_profile"] == srgb_profile()
    exif = after.getexif()
    assert exif[ARTIST] == "Ann Other" and exif[0x0110] == "Camera 1" and exif.get(ORIENTATION, 1) == 1
    taken = exif.get_ifd(EXIF)
    assert taken[TAKEN] == "2024:05:01 10:00:00" and taken[MAKER_NOTE] == b"abc" and taken[COLOUR_SPACE] == 1
    assert WIDTH not in taken and INTEROP not in taken and exif.get_ifd(GPS)[2] == (52.0, 30.0, 0.0)
    dpi = after.info.get("dpi") or (exif[0x011A], exif[0x011B])
    assert [round(float(value)) for value in dpi] == [300, 240] and exif[0x0128] == 2
    if not name.lower().endswith(("jpg", "jpeg", "webp", "avif")):
        assert after.tobytes() == picture.tobytes()
    # And once more: what was written is opened as it is.
    again, kept = load_with_metadata(tmp_path / name)
    assert again.size == (120, 160) and (kept.exif, kept.dpi) == (metadata.exif, metadata.dpi)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.avif"])
def test_text_keeps_its_bytes(tmp_path, name):
    """In UTF-8, as Lightroom writes it, or in Latin-1, as cameras do."""
    texts = ["Jörg Müller, 日本".encode(), "© Jörg".encode("latin-1"), "Zoë".encode(), "Nürnberg".encode("latin-1")]
    artist, copyright, owner, datum = texts
    tags = {ARTIST: artist, COPYRIGHT: copyright, EXIF: {OWNER: owner}, GPS: {DATUM: datum}}
    PICTURE.save(tmp_path / "photo.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0" + directory(8, tags))
    assert texts_of(tmp_path / "photo.jpg") == texts
    write_picture(tmp_path / name, *load_with_metadata(tmp_path / "photo.jpg"))
    assert texts_of(tmp_path / name) == texts
    write_picture(tmp_path / "again.jpg", *load_with_metadata(tmp_path / name))
    assert texts_of(tmp_path / "again.jpg") == texts


def test_what_a_program_has_set_is_kept_as_well(tmp_path):
    picture = PICTURE.copy()
    exif = picture.getexif()
    exif[ARTIST], exif[COPYRIGHT], exif[EXIF] = "日本", "Jörg", {OWNER: "Zoë"}
    exif.get_ifd(GPS)[DATUM] = "Nürnberg"
    write_picture(tmp_path / "a.tif", *load_with_metadata(picture))
    latin = [text.encode("latin-1") for text in ("Jörg", "Zoë", "Nürnberg")]
    assert texts_of(tmp_path / "a.tif") == ["日本".encode(), *latin]


def test_a_jpeg_has_the_quality_of_its_source(tmp_path, photo):
    picture, metadata = load_with_metadata(photo)
    write_picture(tmp_path / "a.jpg", picture, metadata)
    before, after = stored(photo), stored(tmp_path / "a.jpg")
    assert after.quantization == before.quantization
    assert JpegImagePlugin.get_sampling(after) == JpegImagePlugin.get_sampling(before) == 1


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_colours_are_as_fine_as_pixels_where_the_source_does_not_say(tmp_path, mode):
    PICTURE.convert(mode).save(tmp_path / "photo.jpg", quality=95)
    _, metadata = load_with_metadata(tmp_path / "photo.jpg")
    stripes = Image.new("RGB", (64, 64), "red")
    for column in range(0, 64, 2):
        stripes.paste("blue", (column, 0, column + 1, 64))
    write_picture(tmp_path / "out.jpg", stripes, metadata)
    assert JpegImagePlugin.get_sampling(stored(tmp_path / "out.jpg")) == 0
    assert np.abs(np.asarray(load_picture(tmp_path / "out.jpg")).astype(int) - np.asarray(stripes)).mean() < 2


@pytest.mark.parametrize("source", ["a.png", "a.jpg"])
def test_other_sources_make_jpegs_of_quality_95(tmp_path, source):
    PICTURE.save(tmp_path / source)
    metadata = load_with_metadata(tmp_path / source)[1] if source == "a.png" else Metadata()
    write_picture(tmp_path / "out.jpg", PICTURE, metadata)
    buffer = io.BytesIO()
    PICTURE.save(buffer, "JPEG", quality=95)
    assert stored(tmp_path / "out.jpg").quantization == stored(buffer).quantization
    assert JpegImagePlugin.get_sampling(stored(tmp_path / "out.jpg")) == 0  # of 4:4:4: each pixel has its own colour
    assert np.abs(np.asarray(load_picture(tmp_path / "out.jpg")).astype(int) - np.asarray(PICTURE)).mean() < 1


def test_the_thumbnail_of_the_picture_before_is_left_out(tmp_path):
    """It would show who was removed from the picture."""
    thumbnail = io.BytesIO()
    PICTURE.resize((16, 12)).save(thumbnail, "JPEG")
    # A second directory after the first, as cameras write it: Pillow only reads those.
    body = bytearray(camera_exif().tobytes()[6:])
    assert body[:2] == b"MM"
    entries = int.from_bytes(body[8:10], "big")
    body[10 + 12 * entries : 14 + 12 * entries] = struct.pack(">I", len(body))
    place = len(body) + 2 + 3 * 12 + 4
    tags = ((0x0103, 3, 6 << 16), (0x0201, 4, place), (0x0202, 4, len(thumbnail.getvalue())))
    body += struct.pack(">H", 3) + b"".join(struct.pack(">HHII", tag, kind, 1, value) for tag, kind, value in tags)
    PICTURE.save(tmp_path / "photo.jpg", exif=b"Exif\0\0" + bytes(body) + bytes(4) + thumbnail.getvalue())
    assert stored(tmp_path / "photo.jpg").getexif().get_ifd(FIRST_THUMBNAIL)
    assert thumbnail.getvalue() in (tmp_path / "photo.jpg").read_bytes()
    picture, metadata = load_with_metadata(tmp_path / "photo.jpg")
    write_picture(tmp_path / "out.jpg", picture, metadata)
    assert not stored(tmp_path / "out.jpg").getexif().get_ifd(FIRST_THUMBNAIL)
    assert thumbnail.getvalue() not in (tmp_path / "out.jpg").read_bytes()


def test_a_tiff_hands_on_no_places_in_its_file(tmp_path):
    PICTURE.save(tmp_path / "a.tif", compression="tiff_lzw", dpi=(200, 200), description="a view")
    picture, metadata = load_with_metadata(tmp_path / "a.tif")
    for name in ("b.jpg", "b.png", "b.tif"):
        write_picture(tmp_path / name, picture, metadata)
        exif = stored(tmp_path / name).getexif()
        assert exif[0x010E] == "a view"
        if name != "b.tif":
            assert set(exif) == {0x010E, 0x011A, 0x011B, 0x0128}
    assert stored(tmp_path / "b.tif").tobytes() == PICTURE.tobytes()


def test_a_long_maker_note_is_left_out_before_the_rest(tmp_path):
    PICTURE.save(tmp_path / "b.png", exif=camera_exif({MAKER_NOTE: bytes(70_000)}))
    picture, metadata = load_with_metadata(tmp_path / "b.png")
    write_picture(tmp_path / "b.jpg", picture, metadata)
    taken = stored(tmp_path / "b.jpg").getexif().get_ifd(EXIF)
    assert taken[TAKEN] == "2024:05:01 10:00:00" and MAKER_NOTE not in taken


def test_odd_metadata_never_cost_the_picture(tmp_path):
    """Whatever bytes a file's metadata hold: a result that took minutes is written."""
    PICTURE.save(tmp_path / "a.jpg", dpi=(300, 240), exif=camera_exif(), icc_profile=srgb_profile())
    whole = (tmp_path / "a.jpg").read_bytes()
    end = whole.index(b"ICC_PROFILE")
    opened = 0
    for _ in range(60):
        content = bytearray(whole)
        for place in RNG.integers(4, end, 6):
            content[place] = RNG.integers(256)
        (tmp_path / "b.jpg").write_bytes(content)
        try:
            picture, metadata = load_with_metadata(tmp_path / "b.jpg")
        except ValueError:
            continue
        opened += 1
        for name in ("c.jpg", "c.png", "c.tif", "c.webp"):
            write_picture(tmp_path / name, picture, metadata)
            assert load_picture(tmp_path / name).size == picture.size
    assert opened > 20


@pytest.mark.parametrize("dpi", [(0, 0), (float("nan"), 72), (65_536, 72), (-72, 72), 72, (None, None)])
def test_a_resolution_that_is_none_is_left_out(dpi):
    picture = PICTURE.copy()
    picture.info["dpi"] = dpi
    assert load_with_metadata(picture)[1].dpi is None


def test_a_resolution_that_pillow_makes_up_is_left_out(tmp_path):
    PICTURE.save(tmp_path / "a.tif")
    PICTURE.save(tmp_path / "a.jpg", exif=camera_exif())
    for name in ("a.tif", "a.jpg"):
        assert stored(tmp_path / name).info["dpi"] in ((1, 1), (72, 72))
        picture, metadata = load_with_metadata(tmp_path / name)
        assert metadata.dpi is None
        write_picture(tmp_path / "out.png", picture, metadata)
        assert "dpi" not in stored(tmp_path / "out.png").info


@pytest.mark.parametrize(("unit", "dpi"), [({0x0128: 2}, (300, 240)), ({}, (300, 240)), ({0x0128: 1}, None)])
def test_a_resolution_that_only_exif_data_have(tmp_path, unit, dpi):
    exif = Image.Exif()
    exif.update({0x011A: 300.0, 0x011B: 240.0, **unit})
    for name in ("a.jpg", "a.webp", "a.tif"):
        PICTURE.save(tmp_path / name, exif=exif)
        assert load_with_metadata(tmp_path / name)[1].dpi == dpi


def test_the_highest_resolution_of_a_jpeg(tmp_path):
    write_picture(tmp_path / "a.jpg", PICTURE, Metadata(dpi=(65_535, 1)))
    assert load_with_metadata(tmp_path / "a.jpg")[1].dpi == (65_535, 1)


def test_a_resolution_in_centimetres_is_turned_into_inches(tmp_path):
    exif = Image.Exif()
    exif[0x011A], exif[0x011B], exif[0x0128] = 100.0, 50.0, 3
    PICTURE.save(tmp_path / "a.webp", exif=exif)
    assert load_with_metadata(tmp_path / "a.webp")[1].dpi == (254, 127)


def test_the_source_is_left_alone(photo):
    with Image.open(photo) as opened:
        before, pixels = dict(opened.getexif()), opened.tobytes()
        load_with_metadata(opened)
        assert dict(opened.getexif()) == before and opened.getexif()[ORIENTATION] == 6
        assert opened.tobytes() == pixels


def test_the_source_gets_no_parts_that_it_has_not(tmp_path):
    exif = Image.Exif()
    exif[ARTIST] = "Ann Other"
    PICTURE.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        before = opened.getexif().tobytes()
        load_with_metadata(opened)
        assert opened.getexif().tobytes() == before


def test_arrays_and_plain_pictures_have_no_metadata():
    assert load_with_metadata(PICTURE)[1] == load_with_metadata(np.asarray(PICTURE))[1] == Metadata()


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.pdf", "a.eps", "a.heic", ".png"])
def test_what_stands_for_no_format_is_refused(tmp_path, name):
    for refuse in (check_writable, lambda path: write_picture(path, PICTURE)):
        with pytest.raises(ValueError, match="no picture is written as"):
            refuse(tmp_path / name)
    with pytest.raises(ValueError, match="there is no folder"):
        check_writable(tmp_path / "nowhere" / "a.png")
    assert not list(tmp_path.iterdir())


def test_the_name_of_a_folder_is_refused(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(IsADirectoryError, match="a.png is a folder"):
        check_writable(tmp_path / "a.png")


def test_sizes_that_a_format_cannot_hold_are_refused(tmp_path):
    check_writable(tmp_path / "a.png", (80_000, 400))
    for name, size in (("a.webp", (16_384, 100)), ("a.jpg", (400, 65_501))):
        check_writable(tmp_path / name)
        with pytest.raises(ValueError, match="pixels along a side"):
            check_writable(tmp_path / name, size)
    for name, size in (("a.webp", (16_383, 90)), ("a.jpg", (65_500, 330)), ("a.gif", (65_535, 330))):
        write_picture(tmp_path / name, Image.new("RGB", size))
        assert stored(tmp_path / name).size == size


LONGEST = {".webp": 16_383, ".avif": 65_536, ".gif": 65_535}
LONGEST |= dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), 65_500)
LONGEST |= dict.fromkeys((".png", ".tif", ".tiff", ".bmp", ".ppm"), 2**31 - 1)


@pytest.mark.parametrize("suffix", LONGEST)
def test_the_longest_side_of_each_format(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**40))
    check_writable(tmp_path / f"a{suffix}", (1, LONGEST[suffix]))
    with pytest.raises(ValueError, match=f"holds at most {LONGEST[suffix]} pixels along a side"):
        check_writable(tmp_path / f"a{suffix}", (1, LONGEST[suffix] + 1))


def test_a_disk_without_room(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=3 * 20 * 10))
    check_writable(tmp_path / "a.png", (20, 10))
    with pytest.raises(ValueError, match="has 600 bytes left, too few for 201 x 1 pixels"):
        check_writable(tmp_path / "a.png", (201, 1))


@pytest.mark.parametrize("name", ["a.bmp", "a.gif", "a.ppm", "a.jpe", "a.jfif"])
def test_the_other_formats_are_written(tmp_path, photo, name):
    picture, metadata = load_with_metadata(photo)
    write_picture(tmp_path / name, picture, metadata)
    assert load_picture(tmp_path / name).size == picture.size


def test_whole_or_not_at_all(tmp_path, monkeypatch):
    write_picture(tmp_path / "a.png", PICTURE)
    before = (tmp_path / "a.png").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_picture(tmp_path / "a.png", Image.new("RGB", (4, 4)))
    assert (tmp_path / "a.png").read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_the_same_picture_is_the_same_file(tmp_path, photo):
    picture, metadata = load_with_metadata(photo)
    for name in ("a.jpg", "b.jpg"):
        srgb_profile.cache_clear()
        write_picture(tmp_path / name, picture, metadata)
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()


def test_to_png():
    for mode in ("L", "RGB", "RGBA"):
        picture = PICTURE.convert(mode)
        assert stored(io.BytesIO(to_png(picture))).tobytes() == picture.tobytes()
    assert stored(io.BytesIO(to_png(PICTURE.convert("CMYK")))).mode == "RGB"
    with pytest.raises(TypeError, match="not as ndarray"):
        to_png(np.asarray(PICTURE))
