"""What a form of OpenAI's client means to the pipeline."""

import io

import pytest
from PIL import ExifTags, Image, ImageChops
from starlette.datastructures import FormData, UploadFile

from diffusers_r1.serve.form import Refused, check_work, read_edit


GREY = Image.linear_gradient("L").resize((8, 8))


def upload(picture: Image.Image) -> UploadFile:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return UploadFile(file)


def form(**fields) -> FormData:
    return FormData({"image": upload(GREY), "prompt": "make it blue", **fields})


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_a_mask_is_white_where_the_picture_may_change(mode):
    """OpenAI's clients send it clear there, those of other editors white."""
    mask = GREY if mode == "L" else Image.merge("RGBA", (GREY, GREY, GREY, ImageChops.invert(GREY)))
    read = read_edit(form(mask=upload(mask))).mask
    assert read.mode == "L" and ImageChops.difference(read, GREY).getextrema() == (0, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_mask_without_a_clear_pixel_is_white_where_the_picture_may_change(mode):
    """Many programs save every picture with transparency."""
    read = read_edit(form(mask=upload(GREY.convert(mode)))).mask
    assert ImageChops.difference(read, GREY).getextrema() == (0, 0)


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (100, 100), (100, 99)])
def test_a_mask_of_another_size_has_the_proportions_of_the_picture(size):
    assert read_edit(form(mask=upload(GREY.resize(size)))).mask.size == size
    with pytest.raises(Refused, match="proportions") as refused:
        read_edit(form(mask=upload(GREY.resize((16, 8)))))
    assert refused.value.param == "mask"


def test_a_mask_that_was_turned_is_read_upright():
    """Where it may change is the upper half, once it is turned as its EXIF data says."""
    half = Image.new("L", (8, 8), 255)
    half.paste(0, (0, 0, 4, 8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the left side is shown on top
    file = io.BytesIO()
    Image.merge("LA", (GREY, half)).save(file, "PNG", exif=exif)
    mask = read_edit(form(mask=UploadFile(file))).mask
    assert [mask.getpixel(place) for place in ((4, 1), (4, 6))] == [255, 0]


def test_other_fields_are_the_editors_and_openais_own_are_not_gone_by():
    asked = read_edit(form(seed="4", guidance_scale="2.5", negative_prompt="blurry", size="16x32", quality="high"))
    assert (asked.seed, asked.size, asked.n) == (4, (16, 32), 1)
    assert asked.arguments == {"guidance_scale": 2.5, "negative_prompt": "blurry"}


def test_several_files_of_one_name_are_all_read():
    fields = [("image", upload(GREY)), ("prompt", "x"), ("adapters", upload(GREY)), ("adapters", upload(GREY))]
    assert [one.size for one in read_edit(FormData(fields)).pictures["adapters"]] == [(8, 8), (8, 8)]
    with pytest.raises(Refused, match="sent as a file"):
        read_edit(FormData([*fields[:2], ("adapters", "private.png"), fields[2]]))


@pytest.mark.parametrize(
    "name", ["steps", "nsteps", "inferenceSteps", "tokens", "maxTokens", "contentlength", "NUM_IMAGES"]
)
def test_counts_are_bounded_however_a_server_behind_this_one_writes_them(name):
    with pytest.raises(Refused, match=f"`{name}` is at most"):
        check_work({name: 5000}, (8, 8), 64)
    check_work({"timesteps": [999, 500]}, (8, 8), 64)


@pytest.mark.parametrize("sent", [{"size": "17000x1700"}, {"image": upload(Image.new("L", (17000, 100)))}])
def test_a_picture_that_its_format_cannot_hold_is_refused_before_it_is_made(sent):
    wide = {"image": upload(GREY.resize((10, 1))), **sent}
    assert read_edit(form(**wide))
    with pytest.raises(Refused, match="holds at most 16383 pixels along a side") as refused:
        read_edit(form(**wide, output_format="webp"))
    assert refused.value.param == "output_format"


def test_a_picture_is_a_file_and_no_address():
    with pytest.raises(Refused, match="sent as a file") as refused:
        read_edit(form(image="http://127.0.0.1/private.png"))
    assert refused.value.param == "image"


@pytest.mark.parametrize(
    "asked",
    [
        *({"width": 90}, {"width": 10, "height": 700}, {"max_area": 6401.0}, {"output_resolution": 81}),
        *({"pixels": 6401}, {"imageSize": 81}),
    ],
)
def test_work_is_bounded_by_whatever_name_it_is_asked_for(asked):
    """The picture is twice as wide as high."""
    check_work({name: value // 2 for name, value in asked.items()}, (40, 20), 4100)
    with pytest.raises(Refused, match=r"more than 3,600 pixels"):
        check_work(asked, (40, 20), 3600)
