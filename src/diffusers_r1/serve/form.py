"""What a client sends, read and checked: a multipart form as OpenAI's `/v1/images/edits` has it, and the pipeline's own fields."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from PIL import Image, ImageChops, ImageOps
from starlette.datastructures import FormData, UploadFile

from .. import schema
from ..app.uploads import MAX_CHARACTERS, check_instruction, check_plan
from ..images import FORMATS as ALLOWED
from ..images import MAX_UPLOAD_PIXELS, check_format, load_picture
from ..plan import EditPlan, Turns


MAX_PICTURES = 16  # the one to edit and its references; OpenAI's limit
MAX_BYTES = 2**26  # of a whole request: a phone's photos are a tenth of that
MAX_IMAGES = 10  # of `n`; OpenAI's limit
MAX_STEPS = 100  # of denoising, unless the server is told otherwise; what the classes take by themselves
MAX_TOKENS = 4096  # of a text; no editor reads more by itself
FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}  # of `output_format`

# What OpenAI's clients may send and nothing here goes by.
IGNORED = ("user", "quality", "background", "input_fidelity", "moderation", "output_compression")
# What a number asks for, by the name of its argument, whoever's it is: a server behind this one has arguments of its own.
_STEPS = re.compile(r".*(?<!time)steps", re.IGNORECASE)  # of `timesteps` the values are moments
_TOKENS = re.compile(r".*(length|tokens)", re.IGNORECASE)
_COUNTED = re.compile(r"num_.*|batch_size|best_of", re.IGNORECASE)
_AREA = re.compile(r".*(area|pixels)", re.IGNORECASE)
_SIDE = re.compile(r".*(resolution|size)", re.IGNORECASE)
_SIZE = re.compile(r"([1-9]\d{1,4})x([1-9]\d{1,4})")


class Refused(Exception):
    """A request that is the client's to mend.

    Args:
        message (`str`): What is wrong.
        status (`int`, defaults to 400): Of HTTP.
        param (`str`, *optional*): The field that it is about.
        code (`str`, *optional*): OpenAI's word for it, such as `"model_not_found"`.
    """

    def __init__(self, message: str, status: int = 400, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


@dataclass(frozen=True)
class EditRequest:
    """A request to edit.

    Args:
        images (`list` of `PIL.Image.Image`): The one to edit, then references; RGB.
        prompt (`str`): The instruction; empty with a plan.
        plan ([`EditPlan`], *optional*): Carried out in place of an instruction.
        mask (`PIL.Image.Image`, *optional*): Mode L, white where the picture may change.
        n (`int`): How many pictures.
        size (`tuple`, *optional*): Width and height within which they are to fit.
        output_format (`str`): Of `FORMATS`.
        seed (`int`, *optional*): Of the noise.
        turns (`str`): As in the pipeline's call.
        arguments (`dict`): All other fields: the editor's, their values as JSON where they are that.
        pictures (`dict` of `str` to `list` of `PIL.Image.Image`): All other files: the editor's too.
    """

    images: list[Image.Image]
    prompt: str = ""
    plan: EditPlan | None = None
    mask: Image.Image | None = None
    n: int = 1
    size: tuple[int, int] | None = None
    output_format: str = "png"
    seed: int | None = None
    turns: Turns = "single"
    arguments: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, list[Image.Image]] = field(default_factory=dict)


def read_edit(form: FormData, max_pixels: int = MAX_UPLOAD_PIXELS) -> EditRequest:
    """The request to edit that a form holds.

    Raises:
        Refused
    """
    _check_once(form)
    rest: dict[str, Any] = {
        name: value for name, value in form.multi_items() if name not in (*_PICTURES, "mask", "model", *IGNORED)
    }
    plan = _plan(_text(rest, "plan")) if "plan" in rest else None
    prompt = _text(rest, "prompt") if plan is None else str(rest.pop("prompt", ""))
    if rest.pop("response_format", "b64_json") != "b64_json":
        raise Refused("Pictures are sent as b64_json; there are no addresses of them here.", param="response_format")
    if any(_json(name, rest.pop(name, "0")) for name in ("stream", "partial_images")):
        raise Refused("Pictures are not streamed here.", param="stream")
    turns = rest.pop("turns", "single")
    if turns not in get_args(Turns):
        raise Refused(f"`turns` is one of {', '.join(get_args(Turns))}.", param="turns")
    output_format = rest.pop("output_format", "png")
    if output_format not in FORMATS:
        raise Refused(f"`output_format` is one of {', '.join(FORMATS)}.", param="output_format")
    images = _pictures(form, max_pixels)
    size = _size(rest.pop("size", None), images[0].size, max_pixels)
    made = fitted(images[0].size, size) if size else images[0].size
    _checked("output_format", lambda ending: check_format(f"picture.{ending}", made), output_format)
    return EditRequest(
        images,
        _checked("prompt", check_instruction, prompt) if plan is None else "",
        plan,
        _mask(form, images[0].size, max_pixels),
        _whole(rest, "n", 1, MAX_IMAGES, 1) or 1,
        size,
        output_format,
        _whole(rest, "seed", 0, 2**63 - 1),
        turns,
        {name: _json(name, value) for name, value in rest.items() if isinstance(value, str)},
        {
            name: [_picture(name, one, max_pixels) for one in form.getlist(name)]
            for name, value in rest.items()
            if isinstance(value, UploadFile)
        },
    )


def read_plan_request(form: FormData, max_pixels: int = MAX_UPLOAD_PIXELS) -> tuple[list[Image.Image], str]:
    """The pictures, and the instruction to plan; raises as `read_edit` does."""
    _check_once(form)
    for name in form:
        if name not in (*_PICTURES, "prompt", "model", *IGNORED):
            raise Refused(f"`{name}` is no field of a request for a plan.", param=name)
    prompt = _checked("prompt", check_instruction, _text(dict(form.multi_items()), "prompt"))
    return _pictures(form, max_pixels), prompt


def fitted(size: tuple[int, int], within: tuple[int, int]) -> tuple[int, int]:
    """The largest width and height in the proportions of `size` that fit `within` others."""
    scale = min(within[0] / size[0], within[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def read_argument(name: str, value: Any, hint: Any) -> Any:
    """An editor's argument as its type hint has it, or a list of them, one for each result.

    Args:
        value: As JSON has it.
        hint: What JSON can hold of one value, but for null; `None` if that is nothing.

    Raises:
        Refused
    """
    if value is None:
        return None
    if hint is None:
        raise Refused(f"`{name}` cannot be sent: it is nothing that JSON can hold.", param=name)
    return _checked(name, lambda sent: schema.read(hint | list[hint], sent, f"`{name}`"), value)


def check_work(
    arguments: Mapping[str, Any], size: tuple[int, int], max_pixels: int, max_steps: int = MAX_STEPS
) -> None:
    """Refuse arguments of a client's that have an editor work longer than a server lets it, on a picture of `size`.

    Args:
        arguments (`Mapping`): What JSON can hold, under whatever names an editor, or a server behind this one, has.
        max_pixels (`int`): The most pixels of a picture that it works at.
        max_steps (`int`): The most steps of denoising, and values of a list, which may be a step each.

    Raises:
        Refused
    """
    largest = {name: max(_numbers(value), default=0) for name, value in arguments.items()}
    width, height = largest.get("width", 0), largest.get("height", 0)
    areas = {  # of a side alone the other follows, in the picture's proportions
        "width": (width or height * size[0] // size[1]) * (height or width * size[1] // size[0]),
        **{name: number for name, number in largest.items() if _AREA.fullmatch(name)},
        **{name: number * number for name, number in largest.items() if _SIDE.fullmatch(name)},
    }
    for name, area in areas.items():
        if area > max_pixels:
            raise Refused(
                f"`{name}` asks for more than {max_pixels:,} pixels, the most of a picture here.", param=name
            )
    for name, number in largest.items():
        most = _most(name, max_steps)
        if most is not None and number > most:
            raise Refused(f"`{name}` is at most {most:,} here.", param=name)
    for name, value in arguments.items():
        for inner in _inside(value):
            if isinstance(inner, (list, tuple)) and len(inner) > max_steps:
                raise Refused(f"`{name}` is a list of at most {max_steps:,} here.", param=name)
            if isinstance(inner, str) and len(inner) > MAX_CHARACTERS:
                raise Refused(f"`{name}` has at most {MAX_CHARACTERS:,} characters.", param=name)


def _most(name: str, max_steps: int) -> int | None:
    """The largest number of that name; `None` for any."""
    if _STEPS.fullmatch(name):
        return max_steps
    if _TOKENS.fullmatch(name):
        return MAX_TOKENS
    return MAX_IMAGES if _COUNTED.fullmatch(name) else None


def _inside(value: Any) -> Iterator[Any]:
    """The value, and all that is in it, however deep."""
    yield value
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    for part in parts:
        yield from _inside(part)


def _numbers(value: Any) -> Iterator[int | float]:
    return (inner for inner in _inside(value) if isinstance(inner, (int, float)))


_PICTURES = ("image", "image[]")


def _check_once(form: FormData) -> None:
    """Refuse a field that is there twice, of which one would be lost; of pictures there may be several."""
    words = Counter(name for name, value in form.multi_items() if isinstance(value, str) or name == "mask")
    for name, count in words.items():
        if count > 1:
            raise Refused(f"`{name}` is there {count} times.", param=name)


def _pictures(form: FormData, max_pixels: int) -> list[Image.Image]:
    uploads = [value for name in _PICTURES for value in form.getlist(name)]
    if not uploads:
        raise Refused("There is no picture: send it as `image`.", param="image")
    if len(uploads) > MAX_PICTURES:
        raise Refused(f"At most {MAX_PICTURES} pictures are taken.", param="image")
    return [_picture("image", upload, max_pixels) for upload in uploads]


def _picture(name: str, upload: Any, max_pixels: int) -> Image.Image:
    if not isinstance(upload, UploadFile):
        raise Refused(f"`{name}` is sent as a file.", param=name)
    return _checked(name, lambda file: load_picture(file, max_pixels), upload.file)


def _mask(form: FormData, size: tuple[int, int], max_pixels: int) -> Image.Image | None:
    """OpenAI's masks are clear where the picture may change, those of editors white there.

    What tells them apart is a pixel that is clear, not the mode: many programs save every picture as RGBA.
    """
    upload: Any = form.get("mask")
    if upload is None:
        return None
    white = _picture("mask", upload, max_pixels).convert("L")
    width, height = fitted(white.size, size)
    if abs(width - size[0]) > 1 or abs(height - size[1]) > 1:  # of a mask in another size a side may be rounded
        sides = f"{white.width} x {white.height}, and the picture {size[0]} x {size[1]}"
        raise Refused(f"`mask` has the picture's proportions; this one is {sides}.", param="mask")
    upload.file.seek(0)
    with Image.open(upload.file, formats=ALLOWED) as mask:  # of an allowed format, or it would have been refused above
        upright = ImageOps.exif_transpose(mask)
        alpha = upright.convert("RGBA").getchannel("A") if mask.has_transparency_data else None
    return white if alpha is None or alpha.getextrema() == (255, 255) else ImageChops.invert(alpha)


def _plan(text: str) -> EditPlan:
    return _checked("plan", lambda sent: check_plan(EditPlan.from_json(sent)), text)


def _checked(name: str, check: Any, value: Any) -> Any:
    try:
        return check(value)
    except (TypeError, ValueError) as error:
        raise Refused(str(error), param=name) from error


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.pop(name, None)
    if not isinstance(value, str) or not value.strip():
        raise Refused(f"There is no `{name}`.", param=name)
    return value


def _whole(fields: dict[str, Any], name: str, least: int, most: int, default: int | None = None) -> int | None:
    text = fields.pop(name, None)
    if text is None:
        return default
    short = isinstance(text, str) and len(text) <= len(str(most))  # `int` fails on thousands of digits
    if not short or not text.isdecimal() or not least <= int(text) <= most:
        raise Refused(f"`{name}` is a whole number from {least} to {most}.", param=name)
    return int(text)


def _size(text: Any, size: tuple[int, int], max_pixels: int) -> tuple[int, int] | None:
    """Width and height within which a picture of `size` is to fit."""
    if text in (None, "auto"):
        return None
    found = _SIZE.fullmatch(str(text))
    if found is None:
        raise Refused('`size` is "auto" or WIDTHxHEIGHT, such as "1024x1024".', param="size")
    within = int(found[1]), int(found[2])
    width, height = fitted(size, within)
    if width * height > max_pixels:
        raise Refused(f"`size`: {width} x {height} is more than {max_pixels:,} pixels, the most here.", param="size")
    return within


def _json(name: str, text: Any) -> Any:
    """A field's text as what it says in JSON; as it is where it is none."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise Refused(f"`{name}` is nested too deeply.", param=name) from None
    except (TypeError, ValueError):
        value = text
    return _checked(name, lambda read: schema.read(Any, read, name), value)


def about(error: Refused) -> Mapping[str, Any]:
    """The error as OpenAI's protocol has it."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    kind = kinds.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}
