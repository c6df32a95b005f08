import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from colour_profiles import grey_profile
from PIL import ExifTags, Image

from diffusers_r1.images import MAX_PIXELS, MAX_UPLOAD_PIXELS, load_picture, load_pictures, load_samples, picture_sizes


RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def pixels(picture):
    assert picture.mode == "RGB"
    return np.asarray(picture)


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bytes(array=PIXELS, **settings):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", **settings)
    return buffer.getvalue()


@pytest.fixture
def file(tmp_path):
    def write(content, name="picture.png"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


CHW = torch.from_numpy(PIXELS).permute(2, 0, 1)


@pytest.mark.parametrize(
    "source",
    [
        Image.fromarray(PIXELS),
        PIXELS,
        PIXELS / 255,
        (PIXELS / 255).astype(np.float32),
        PIXELS[None],
        PIXELS.astype(np.uint16) * 257,
        (PIXELS.astype(np.uint16) * 257).astype(">u2"),
        (PIXELS / 255).astype(">f4"),
        np.dstack([PIXELS, np.full((5, 7), 255, np.uint8)]),
        CHW,
        CHW / 255,
        (CHW / 255)[None],
        (CHW / 255).requires_grad_(),
    ],
)
def test_every_kind_of_source_gives_the_same_pixels(source):
    assert (pixels(load_picture(source)) == PIXELS).all()


def test_a_path_as_text_or_path(file):
    path = file(png_bytes())
    assert (pixels(load_picture(path)) == PIXELS).all()
    assert (pixels(load_picture(str(path))) == PIXELS).all()


def test_bfloat16_tensors_and_rounding_outside_the_range():
    values = torch.tensor([[[-0.0005, 1.0005]]], dtype=torch.bfloat16).expand(3, 1, 2)
    assert pixels(load_picture(values)).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_the_source_is_left_alone_and_not_shared():
    source = Image.fromarray(PIXELS)
    source.info["dpi"] = (72, 72)
    result = load_picture(source)
    result.putpixel((0, 0), (1, 2, 3))
    assert (np.asarray(source) == PIXELS).all() and source.info and not result.info


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
def test_grey(shape):
    grey = PIXELS[..., :1].reshape(shape)
    expected = np.repeat(PIXELS[..., :1], 3, axis=2)
    assert (pixels(load_picture(grey)) == expected).all()
    assert (pixels(load_picture(torch.from_numpy(grey.reshape(1, 5, 7)))) == expected).all()


def test_masks():
    assert pixels(load_picture(np.array([[True, False]])))[0, :, 0].tolist() == [255, 0]
    assert pixels(load_picture(Image.new("1", (1, 1), 1)))[0, 0].tolist() == [255] * 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_files_are_scaled_not_clipped(tmp_path, kind):
    path = tmp_path / f"deep.{kind.lower()}"
    Image.fromarray(np.array([[0, 257, 32768, 65535]], np.uint16)).save(path, kind)
    assert pixels(load_picture(path))[0, :, 0].tolist() == [0, 1, 128, 255]


def grey_tiff(bits, white_is_zero, values, floats=False, profile=b""):
    """A TIFF of one row, as scanners and microscopes write it and Pillow does not."""
    if floats:
        data = struct.pack(f"<{len(values)}f", *values)
    elif bits == 16:
        data = struct.pack(f"<{len(values)}H", *values)
    else:
        digits = "".join(f"{value:0{bits}b}" for value in values)
        data = bytes(int(digits[place : place + 8], 2) for place in range(0, len(digits), 8))
    place = 8 + 2 + 12 * 12 + 4
    tags = {256: len(values), 257: 1, 258: bits, 259: 1, 262: 1 - white_is_zero, 273: place}
    tags |= {274: 3, 277: 1, 278: 1, 279: len(data), 339: 3 if floats else 1}  # 274: upside down
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    entries += struct.pack("<HHII", 34675, 7, len(profile), place + len(data))
    return b"II*\0" + struct.pack("<IH", 8, len(tags) + 1) + entries + struct.pack("<I", 0) + data + profile


@pytest.mark.parametrize(
    ("bits", "white_is_zero", "values", "floats"),
    [
        (12, False, [0, 16, 2056, 4095], False),
        (16, False, [0, 257, 32896, 65535], False),
        (16, True, [65535, 65278, 32639, 0], False),
        (8, True, [255, 254, 127, 0], False),
        (32, True, [1, 1 - 1 / 255, 1 - 128 / 255, 0], True),
    ],
)
def test_grey_tiffs_count_as_their_tags_say(file, bits, white_is_zero, values, floats):
    path = file(grey_tiff(bits, white_is_zero, values, floats), "deep.tiff")
    assert pixels(load_picture(path))[0, :, 0].tolist() == [255, 128, 1, 0]
    tagged = file(grey_tiff(bits, white_is_zero, values, floats, grey_profile(2.2)), "tagged.tiff")
    assert pixels(load_picture(tagged))[0, :, 0].tolist() == [255, 129, 0, 0]
    with Image.open(path) as opened:
        assert pixels(load_picture(opened))[0, :, 0].tolist() == [255, 128, 1, 0]


def test_deep_pil_modes():
    values = np.array([[0, 0.5, 1]])
    assert pixels(load_picture(Image.fromarray(values.astype(np.float32))))[0, :, 0].tolist() == [0, 128, 255]
    assert pixels(load_picture(Image.fromarray((values * 65535).astype(np.int32))))[0, :, 0].tolist() == [0, 127, 255]


def test_exif_rotation_is_applied_once(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees, clockwise
    Image.new("RGB", (20, 10)).save(path, exif=exif)
    with Image.open(path) as stored:
        assert stored.size == (20, 10)
    assert load_picture(path).size == load_picture(load_picture(path)).size == (10, 20)


@pytest.mark.parametrize("data", [b"", b"no TIFF header at all", b"MM\x00\x2a\xff\xff\xff\xff", b"II"])
def test_broken_exif_data_does_not_cost_the_picture(file, data):
    whole = png_bytes()
    path = file(whole[:33] + png_chunk(b"eXIf", data) + whole[33:])
    assert (pixels(load_picture(path)) == PIXELS).all()
    with Image.open(path) as opened:
        assert (pixels(load_picture(opened)) == PIXELS).all()


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA", "La", "RGBa"])
def test_transparency_is_laid_on_white(mode):
    clear = Image.new("RGBA", (3, 2), (0, 0, 0, 0))
    if mode in ("LA", "RGBA", "PA", "RGBa"):
        clear = clear.convert(mode)
    else:
        clear = clear.convert("LA").convert(mode)
    assert (pixels(load_picture(clear)) == 255).all()


@pytest.mark.parametrize(
    ("depth", "colours", "row", "clear"),
    [
        (2, 0, b"\x1f", struct.pack(">H", 0)),
        (2, 0, b"\x5f", struct.pack(">H", 1)),
        (4, 0, b"\x1f", struct.pack(">H", 1)),
        (16, 0, struct.pack(">2H", 1000, 65535), struct.pack(">H", 1000)),
        (16, 2, struct.pack(">6H", 1000, 2000, 3000, 65535, 65535, 65535), struct.pack(">3H", 1000, 2000, 3000)),
    ],
)
def test_a_clear_colour_is_laid_on_white_whatever_the_depth(depth, colours, row, clear):
    def opened(*chunks):
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, colours, 0, 0, 0))
        body = png_chunk(b"IDAT", zlib.compress(b"\0" + row)) + png_chunk(b"IEND", b"")
        return Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body))

    assert pixels(load_picture(opened()))[0, 0].max() < 100
    profile = png_chunk(b"iCCP", b"grey\0\0" + zlib.compress(grey_profile(2.2)))
    for picture in (opened(png_chunk(b"tRNS", clear)), opened(profile, png_chunk(b"tRNS", clear))):
        for _ in range(2):
            assert pixels(load_picture(picture))[0, 0].min() == 255


def test_half_transparent():
    assert pixels(load_picture(Image.new("RGBA", (1, 1), (0, 0, 0, 128))))[0, 0].tolist() == [127] * 3


def test_palettes_with_and_without_transparency(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    assert pixels(load_picture(picture)).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    for name, transparency in (("a.png", 1), ("b.png", b"\xff\x00"), ("c.gif", 1)):
        picture.save(tmp_path / name, transparency=transparency)
        assert pixels(load_picture(tmp_path / name)).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_cmyk(tmp_path):
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path, quality=100)
    red, green, blue = pixels(load_picture(path))[4, 4]
    assert red > 240 and green < 15 and blue < 15


def test_one_pixel():
    assert load_picture(np.zeros((1, 1, 3), np.uint8)).size == (1, 1)


def test_the_longest_pictures():
    assert load_picture(Image.new("RGB", (200, 1))).size == (200, 1)
    for size in ((201, 1), (2, 402)):
        with pytest.raises(ValueError, match="longer than 200:1"):
            load_picture(Image.new("RGB", size))


def test_a_cameras_photo_fits_and_nothing_that_pillow_warns_of():
    assert 6000 * 4000 < MAX_UPLOAD_PIXELS < MAX_PIXELS < Image.MAX_IMAGE_PIXELS


def test_size_limit(file):
    path = file(png_bytes())
    assert load_picture(path, max_pixels=35).size == (7, 5)
    for source in (path, PIXELS, CHW, Image.fromarray(PIXELS)):
        with pytest.raises(ValueError, match="7 x 5 is more than 34 pixels"):
            load_picture(source, max_pixels=34)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(file, side):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + png_chunk(b"IEND", b"")
    with pytest.raises(ValueError, match="pixels"):
        load_picture(file(bomb))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<?xml version='1.0'?>\n<svg width='9' height='9'></svg>", "SVG"),
        (b"plain text", "no picture of a known format"),
        (struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(100), "HEIC.*export it as JPEG"),
        (png_bytes()[:60], "cannot be used"),
        (png_bytes()[:20], "cannot be used"),
        (b"\x89PNG\r\n\x1a\n", "cannot be used"),
    ],
)
def test_broken_files_are_refused_by_name(file, content, message):
    with pytest.raises(ValueError, match=f"picture.png.*{message}|picture.png.*cannot be used.*{message}"):
        load_picture(file(content))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_files_cut_short_or_damaged_never_raise_an_internal_error(file, kind):
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, kind)
    whole = buffer.getvalue()
    damaged = [whole[: int(len(whole) * part)] for part in (0.01, 0.1, 0.5, 0.9)]
    for _ in range(20):
        content = bytearray(whole)
        for place in RNG.integers(0, min(len(whole), 400), 5):
            content[place] = RNG.integers(256)
        damaged.append(bytes(content))
    for content in damaged:
        try:
            load_picture(file(content))
        except ValueError as error:
            assert "picture.png" in str(error)


def test_pil_pictures_that_cannot_be_decoded(file):
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with Image.open(file(png_bytes(noise)[:5000])) as opened, pytest.raises(ValueError, match="cannot be used"):
        load_picture(opened)
    with pytest.raises(ValueError, match="cannot be used"):
        load_picture(opened)  # closed by now


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.full((2, 2, 3), np.nan), "NaN"),
        (np.full((2, 2, 3), np.inf), "NaN or infinite"),
        (torch.full((3, 2, 2), float("nan")), "NaN"),
        (PIXELS.astype(np.float32), "0 to 1"),
        (CHW / 127.5 - 1, "0 to 1"),
        (np.zeros((3, 8, 9)), "shape"),
        (torch.zeros(8, 9, 3), "shape"),
        (np.zeros(3), "shape"),
        (np.zeros((0, 4, 3)), "no pixels"),
        (np.zeros((2, 4, 4, 3)), "batch of 2"),
        (Image.new("I", (2, 2), 70_000), "65535"),
        (Image.fromarray(np.full((2, 2), np.nan, np.float32)), "NaN"),
        (Image.new("RGB", (0, 4)), "no pixels"),
        ("no/such/file.png", "no such file"),
        (".", "no such file"),
        ("", "no such file"),
        ("a\0b", "cannot be used"),
        ("remove the dog " * 1000, "cannot be used"),
        ("data:image/png;base64," + "A" * 5000, "data URLs are not taken here"),
    ],
)
def test_what_is_refused_with_a_value_error(source, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_picture(source)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("source", [None, 3, b"bytes", {}, [PIXELS], np.zeros((2, 2), np.int64), np.array([["a"]])])
def test_what_is_refused_with_a_type_error(source):
    with pytest.raises(TypeError, match="picture"):
        load_picture(source)


def test_one_many_or_a_batch(file):
    assert len(load_pictures(PIXELS)) == len(load_pictures(CHW)) == len(load_pictures(str(file(png_bytes())))) == 1
    assert len(load_pictures([PIXELS, CHW])) == len(load_pictures((PIXELS, PIXELS[None]))) == 2
    for batch in (np.stack([PIXELS, PIXELS]), torch.stack([CHW, CHW]) / 255):
        assert all((pixels(picture) == PIXELS).all() for picture in load_pictures(batch))
        assert len(load_pictures(batch)) == 2


def test_pictures_with_their_references(file):
    path = file(png_bytes())
    assert load_samples(path) == ([load_picture(path)], [[]])
    pictures, references = load_samples([path, [PIXELS, path, path], [CHW]])
    assert [picture.size for picture in pictures] == [load_picture(source).size for source in (path, PIXELS, CHW)]
    assert references == [[], [load_picture(path)] * 2, []]
    with pytest.raises(ValueError, match="Picture 1 of 2 is an empty list"):
        load_samples([path, []])


def test_a_fault_among_many_is_named():
    with pytest.raises(ValueError, match="Picture 1 of 2.*no such file"):
        load_pictures([PIXELS, "no/such/file.png"])
    with pytest.raises(TypeError, match="Picture 0 of 1"):
        load_pictures([None])
    for empty in ([], (), np.zeros((0, 4, 4, 3))):
        with pytest.raises(ValueError, match="At least one picture"):
            load_pictures(empty)


def test_importing_it_stays_light():
    program = "import sys, diffusers_r1.images; sys.exit(bool({'torch', 'diffusers'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_sizes_are_upright_and_leave_out_what_is_no_picture(tmp_path):
    picture = Image.new("RGB", (6, 4))
    picture.save(tmp_path / "plain.png")
    turned = picture.getexif()
    turned[ExifTags.Base.Orientation] = 6
    picture.save(tmp_path / "turned.jpg", exif=turned)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8no picture")
    names = ("plain.png", "missing.png", "broken.jpg", "turned.jpg")
    sources = ["http://localhost:1/a.png", *(tmp_path / name for name in names)]
    assert list(picture_sizes(sources)) == [(6, 4), (4, 6)] == [(6, 4), load_picture(sources[-1]).size]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_loaded_picture_however_it_lies(tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", (6, 4)).save(tmp_path / "photo.jpg", exif=exif)
    assert list(picture_sizes([tmp_path / "photo.jpg"])) == [load_picture(tmp_path / "photo.jpg").size]
