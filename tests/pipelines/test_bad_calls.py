"""Calls that cannot work, by every way in: the same error from each that can express them, before any model runs."""

import asyncio
import json
import re
from dataclasses import asdict
from inspect import signature
from pathlib import Path

import hostile_uploads
import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image
from transformers import GenerationConfig

from diffusers_r1 import Edit, EditPlan, ImageEditR1Pipeline
from diffusers_r1.app.jobs import Refused
from diffusers_r1.app.service import EditService
from diffusers_r1.commands import edit as edit_command
from diffusers_r1.commands import main
from diffusers_r1.pipelines.call import check_call
from diffusers_r1.planners.conversation import SET_HERE


pytestmark = pytest.mark.tiny

PICTURE = Image.new("RGB", (16, 16), "red")
PLAN = EditPlan("", (), ("make it blue",))
NAN, INF = float("nan"), float("inf")
BAD_NUMBERS = [0, -1, 1.5, 2.0, "2", True, [], NAN, np.int64(0), np.float32(1)]


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def keep_first(*_):
    return 0


# The calls
# ---------
# Each is the arguments of a call; what is left out is a picture and "a" as its instruction.


def cases() -> list[tuple[str, dict]]:
    found: list[tuple[str, dict]] = []

    def add(kind: str, *calls: dict) -> None:
        found.extend((f"{kind}-{number}", call) for number, call in enumerate(calls))

    for name in ("num_images_per_prompt", "num_plans", "num_images_per_plan", "max_batch", "max_new_tokens"):
        add(name, *({name: number} for number in BAD_NUMBERS))
    add("turns", *({"turns": turns} for turns in ("both", "", None, 3, ["single"], "SINGLE", b"single")))
    add("output_type", *({"output_type": kind} for kind in ("latent", "PIL", None, 3, ["pil"])))
    for name in ("selector", "callback_on_plan", "upscale", "callback_on_step_end"):
        add(name, *({name: value} for value in ("x", 3, [], {"a": 1})))
    add("instruction", *({"instruction": text} for text in ("", " ", "\n\t", [], (), [""], ["a", ""], 3, ["a", 3])))
    add("instruction, more", *({"instruction": text} for text in (b"a", {"a": 1}, 1.5, ["a", None], PLAN, [PLAN])))
    add("half a surrogate pair", {"instruction": "a\ud800"}, {"instruction": ["a", "\udfff"]})
    add("nothing to do, or twice", {"instruction": None}, {"instruction": "a", "plan": PLAN})
    add(
        "plan", *({"plan": plan} for plan in ({}, {"requests": ["a"]}, "a", 3, [], [PLAN, {}], [PLAN, None], [[PLAN]]))
    )
    wrong = [
        EditPlan("", (), "remove"),
        EditPlan("", (), ("a\ud800",)),
        EditPlan("\udfff", (), ("a",)),
        EditPlan(3, (), ("a",)),
        EditPlan("", ("x",), ("a",)),
        EditPlan("", (Edit("a", "b", 3),), ("a",)),
        EditPlan("", (), ("a",), fallback="no"),
        EditPlan("", (), ("a",), raw=(None,)),
        EditPlan("", (), ("a",), faults=("x",)),
    ]
    add("what is in a plan", *({"plan": plan} for plan in wrong), {"plan": [PLAN, wrong[1]]})
    add("picture", *({"image": image} for image in (3, None, {"a": 1}, [], [[]], [None], [PICTURE, 3], [PICTURE, []])))
    floats = np.zeros((16, 16, 3), np.float32)
    arrays = [
        floats + np.float32(NAN),
        floats + np.float32(INF),
        floats + 2,
        floats - 1,
        floats.astype(np.int64),
        floats[0, 0],
        floats[:0],
        np.zeros((16, 16, 5), np.uint8),
        np.zeros((2, 402), np.uint8),
        np.broadcast_to(np.uint8(0), (9000, 9000, 3)),
        torch.full((3, 16, 16), NAN),
        torch.zeros(3, 16, 16, dtype=torch.int64),
        torch.zeros(16, 16, 7),
    ]
    add("pixels", *({"image": [array]} for array in arrays))
    add("no such file", {"image": ["nonesuch.png"]}, {"image": [Path("nonesuch.png")]})
    add(
        "file",
        *({"image": [name]} for name in ("truncated.png", "bomb.png", "long.png", "drawing.svg", "nothing.png")),
    )
    add("format", *({"image": [name]} for name in ("text.png", *hostile_uploads.OTHER_PROGRAMS)))
    add("references that are not read", {"image": [[PICTURE, PICTURE]]})
    two, three = [PICTURE] * 2, [PICTURE] * 3
    add("lengths", {"image": two, "instruction": ["a"] * 3}, {"image": three, "plan": [PLAN] * 2})
    add("generator", *({"generator": one} for one in (3, "x", [3], [gen(), None], np.random.default_rng(0))))
    add("generators", {"generator": [gen()] * 2}, {"image": two, "generator": [gen()] * 3})
    add("no generators", {"generator": []})
    add("generators of several", {"num_images_per_prompt": 2, "generator": [gen()]})
    add("generation", *({"generation": value} for value in (3, [], "x", [("do_sample", True)])))
    settings = [
        *({name: 2} for name in ("max_new_tokens", "num_plans", "num_return_sequences", "max_length", "inputs")),
        *({name: 2} for name in ("nonsense", "seed", "device", "references", "sequencer", "prompts")),
        *({"temperature": value} for value in (0, -1, "hot", NAN, INF, True, [])),
        *({"top_p": value} for value in (0, -0.5, 1.5, "x", NAN)),
        *({"top_k": value} for value in (-1, 1.5, "x")),
        *({"retries": value} for value in (-1, 1.5, "x")),
        *({"do_sample": value} for value in ("yes", 1)),
        *({"constrained": value} for value in ("yes", 1)),
        *({name: 2} for name in SET_HERE),
        *({"num_beams": value} for value in (0, 1.5, "x")),
        *({"repetition_penalty": value} for value in (0, -1, "x")),
        {"constrained": True, "logits_processor": [keep_first]},
        {"generation_config": GenerationConfig(num_beams=2, num_return_sequences=2)},
    ]
    add("setting", *({"generation": one} for one in settings))
    beams = {"generation": {"num_beams": 2}}
    add("beams", {**beams, "num_plans": 2, "selector": keep_first})
    add("too few tokens", {"generation": {"constrained": True}, "max_new_tokens": 325})
    add("not the caller's", *({name: "x"} for name in ("prompt", "prompt_embeds")))
    add(
        "not this editor's",
        *({name: 1} for name in ("nonsense", "true_cfg_scale", "strength", "height", "mask_image")),
    )
    add("not finite", *({"guidance_scale": number} for number in (NAN, INF, -INF, np.float32(NAN))))
    add("too large", {"guidance_scale": 10**400}, {"num_inference_steps": 10**400})
    add("no dict", *({"cross_attention_kwargs": value} for value in (3, "x", [])))
    add("negative prompt", *({"negative_prompt": text} for text in (3, {"a": 1}, [3], "a\ud800", ["\udfff"])))
    add("steps", *({"num_inference_steps": number} for number in (0, -1, 1.5, "2", True, {"a": 1})))
    add("nothing for a number", {"num_inference_steps": None}, {"guidance_scale": None})
    add("text for a number", {"guidance_scale": "high"}, {"image_guidance_scale": {"a": 1}})
    add("values", {"guidance_scale": [1.5, 2.5]}, {"negative_prompt": ["a", "b"]}, {"guidance_scale": []})
    shown = "callback_on_step_end_tensor_inputs"
    add("another kind", *({"guidance_scale": value} for value in (1 + 2j, {1}, range(2), np.array(["a"]), PICTURE)))
    add("no tensor", *({"latents": value} for value in ("x", 3, PICTURE)))
    add("nothing to show", *({shown: value} for value in (["nope"], "latents", 3, [3], None)))
    add("too large for 32 bits", {"guidance_scale": 1e39}, {"image_guidance_scale": np.array(-1e39)})
    add("a row of values", *({"guidance_scale": row} for row in (np.array([1.5, 2.5]), torch.tensor([1.5, 2.5]))))
    add("no adapter", *({"ip_adapter_image": value} for value in (PICTURE, [[PICTURE]], torch.zeros(1), 3)))
    add("max_pixels", *({"max_pixels": number} for number in (0, -5, 2.5, "x", True)))
    add(
        "candidates",
        {"num_plans": 2},
        {"num_images_per_plan": 2},
        {"selector": keep_first, "num_images_per_prompt": 2},
    )
    add("candidates of a plan", {"plan": PLAN, "num_plans": 2, "selector": keep_first})
    add("looks", *({"reflect": number, "critic": keep_first} for number in (-1, 0, 1.5, "2", True, [], NAN, None)))
    add("critic", *({"reflect": 1, "critic": value} for value in (None, "scenes", 3, [])), {"critic": keep_first})
    add("nothing to compose", {"turns": "composed", "guidance_scale": 1.0})
    return found


CASES = cases()


# The ways in
# -----------
# Each makes the call, or returns `False` where it has no words for it.


def by_call(pipe, kind, call, room):
    pipe(**call)


def by_plan(pipe, kind, call, room):
    not_of_plan = ("candidates", "generators", "references that are not read")
    own = {"image", "instruction", "generator", "max_new_tokens", "num_plans", "generation"}
    generation = call.get("generation", {})
    # `plan` has no selector and no editor, takes settings by name, and several generators as they come.
    if not set(call) <= own or not isinstance(generation, dict) or kind in not_of_plan:
        return False
    if call["instruction"] is None or {"max_new_tokens", "num_plans"} & set(generation):
        return False
    pipe.plan(**{name: value for name, value in call.items() if name != "generation"}, **generation)


def by_stream(pipe, kind, call, room):
    pipe.stream(**call)


def by_stream_of_an_iterator(pipe, kind, call, room):
    several = isinstance(call.get("instruction", call.get("plan")), (list, tuple))
    one = isinstance(call["image"], list) and len(call["image"]) == 1
    if several or not one or isinstance(call.get("generator"), list) or call.get("instruction", "") is None:
        return False  # where the number of pictures is not known, there is none that it could not go with
    list(pipe.stream(**{**call, "image": iter(call["image"])}))


def by_page(pipe, kind, call, room):
    if call.get("turns", "") is None:
        return False  # nothing to edit after it
    picture = call["image"][0] if isinstance(call["image"], list) and len(call["image"]) == 1 else None
    if not set(call) <= {"image", "instruction", "plan", "turns"} or not isinstance(picture, (str, Image.Image)):
        return False
    service, upload = (
        EditService(pipe, 2**24, 1),
        {"path": str(room / (picture if isinstance(picture, str) else "photo.png"))},
    )
    try:
        if {"instruction", "plan"} <= set(call):
            return False
        if "plan" in call:
            if not isinstance(call["plan"], EditPlan):
                return False  # a program sends a plan as JSON: what is no plan elsewhere is one here
            finish(service.edit(upload, service.read_plan(asdict(call["plan"])), call.get("turns", "single"), 0))
        elif isinstance(call["instruction"], str):
            finish(service.plan(upload, call["instruction"], call.get("turns", "single")))
        else:
            return False
    except Refused as error:
        raise error.__cause__ from None
    finally:
        service._folder.cleanup()


def finish(job):
    async def steps():
        async for _ in job.steps():
            pass

    asyncio.run(steps())


def by_command_line(pipe, kind, call, room, capsys):
    call, words = dict(call), ["edit"]
    image = call.pop("image")
    picture = image[0] if isinstance(image, list) and len(image) == 1 else None
    if kind == "nothing to do, or twice" or not isinstance(picture, (str, Image.Image)):
        return False
    words.append(str(room / (picture if isinstance(picture, str) else "photo.png")))
    if isinstance(call.get("plan"), EditPlan):
        path = room / "plan.json"
        path.write_text(json.dumps(asdict(call.pop("plan"))), encoding="utf-8")
        words += ["--plan", str(path)]
    elif "plan" in call:
        return False
    elif isinstance(call.get("instruction"), str):
        words.append(call.pop("instruction"))
    else:
        words.append("a")
    if set(call) & set(signature(check_call).parameters):
        return False  # `--set` is for the editor, and other options have types of their own
    try:
        words += [word for name, value in call.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    except TypeError:
        return False  # no JSON
    code = main([*words, "--output", str(room / "out.png")])
    said = capsys.readouterr().err.strip()
    assert code == 2 and said.startswith("diffusers-r1 edit: error: "), said
    return said.removeprefix("diffusers-r1 edit: error: ")


IN_PYTHON = [by_call, by_plan, by_stream, by_stream_of_an_iterator, by_page]


@pytest.fixture(scope="module")
def pipe():
    return ImageEditR1Pipeline(*tiny_models.tiny_planner(), tiny_models.tiny_pix2pix())


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """Where the files lie that are sent."""
    folder = tmp_path_factory.mktemp("room")
    for name, (content, _) in hostile_uploads.FILES.items():
        if "%" not in name:
            (folder / name).write_bytes(content)
    PICTURE.save(folder / "photo.png")
    return folder


@pytest.fixture
def still(monkeypatch, pipe, room):
    """No model may run; the command line has this pipeline, and the page finds its uploads."""

    def fail(*args, **kwargs):
        raise AssertionError("a model ran")

    monkeypatch.setattr(torch.nn.Module, "__call__", fail)
    monkeypatch.setattr(edit_command, "load_pipeline", lambda args, **components: pipe)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(room))
    monkeypatch.chdir(room)


def words_of(message: str, room: Path) -> str:
    """A message without what differs by the way in: where a file lies, how it came, and of how many a picture is one."""
    message = " ".join(message.replace(f"{room}/", "").split())
    message = re.sub(r"^Picture \d+ of \d+: ", "", message)
    return re.sub(r"^plan\.json", "plan", message).replace("PosixPath(", "").replace("')", "'")


@pytest.mark.parametrize(("name", "call"), CASES, ids=[name for name, _ in CASES])
@pytest.mark.usefixtures("still")
def test_the_same_error_from_every_way_in(pipe, room, capsys, name, call):
    kind = name.rpartition("-")[0]
    call = {"image": [PICTURE], **({} if "plan" in call else {"instruction": "a"}), **call}
    errors = {}
    for way in IN_PYTHON:
        try:
            expressed = way(pipe, kind, call, room)
        except (TypeError, ValueError) as error:
            errors[way.__name__] = type(error), words_of(str(error), room)
        else:
            assert expressed is False, f"{way.__name__} does not refuse it"
    kind_of_error, message = errors["by_call"]
    assert set(errors.values()) == {(kind_of_error, message)}
    assert len(message) > 20
    said = by_command_line(pipe, kind, call, room, capsys)
    assert said is False or words_of(said, room) == message


def test_there_are_enough():
    assert len(CASES) >= 200
    assert len({name for name, _ in CASES}) == len(CASES)


@pytest.mark.usefixtures("still")
def test_the_page_refuses_a_bad_seed_before_it_plans(pipe, room):
    service, upload = EditService(pipe, 2**24, 1), {"path": str(room / "photo.png")}
    for seed in (None, "1", -1, 0.5, NAN):
        with pytest.raises(Refused, match="seed is a whole number"):
            service.plan(upload, "a", "single", seed)
    service._folder.cleanup()


@pytest.mark.usefixtures("still")
def test_every_way_in_is_asked_often_enough(pipe, room):
    """Ways that have no words for most of it would make the table an empty one."""
    asked = dict.fromkeys((way.__name__ for way in IN_PYTHON), 0)
    for name, call in CASES:
        call = {"image": [PICTURE], **({} if "plan" in call else {"instruction": "a"}), **call}
        for way in IN_PYTHON:
            try:
                way(pipe, name.rpartition("-")[0], call, room)
            except (TypeError, ValueError):
                asked[way.__name__] += 1
    assert asked["by_call"] == asked["by_stream"] == len(CASES)
    assert asked["by_plan"] >= 80 and asked["by_stream_of_an_iterator"] >= 150 and asked["by_page"] >= 30


def test_masks_are_checked_before_any_model_runs(planner, prompts, monkeypatch):
    pipe = ImageEditR1Pipeline(*planner, tiny_models.tiny_kontext_inpaint(), prompts=prompts)

    def fail(*args, **kwargs):
        raise AssertionError("a model ran")

    monkeypatch.setattr(torch.nn.Module, "__call__", fail)
    mask = Image.new("L", (16, 16), 255)
    bad = [
        (None, "needs a `mask_image`"),
        ([mask, mask], "2 values of `mask_image` do not go with 1 pictures"),
        ([], "empty"),
        (3, "not int"),
        ("nonesuch.png", "no such file"),
        (np.full((16, 16), NAN), "NaN"),
        ([mask, 3], "Picture 1 of 2"),
    ]
    for value, said in bad:
        for call in (pipe, pipe.stream, lambda image, **given: list(pipe.stream(iter([image]), **given))):
            with pytest.raises((TypeError, ValueError), match=said):
                call(PICTURE, plan=PLAN, mask_image=value)


def test_numbers_of_numpy_are_numbers(pipe):
    one, two, steps = np.int64(1), np.int32(2), np.int64(1)
    call = {
        "image": PICTURE,
        "plan": PLAN,
        "num_images_per_prompt": two,
        "max_batch": one,
        "num_inference_steps": steps,
    }
    pipe.set_progress_bar_config(disable=True)
    out = pipe(**call, max_new_tokens=np.int64(4), max_pixels=np.int64(64), generator=[gen(1), gen(2)])
    plain = pipe(
        PICTURE, plan=PLAN, num_images_per_prompt=2, max_pixels=64, num_inference_steps=1, generator=[gen(1), gen(2)]
    )
    assert len(out.images) == 2 and all(
        np.array_equal(*map(np.asarray, pair)) for pair in zip(out.images, plain.images)
    )
    chosen = pipe(
        PICTURE,
        "a",
        num_plans=two,
        num_images_per_plan=np.uint8(2),
        selector=lambda *_: np.int64(3),
        num_inference_steps=steps,
        max_new_tokens=np.int64(2),
        generation={"top_k": np.int64(5), "temperature": np.float32(1), "do_sample": True},
    )
    assert len(chosen.candidates[0]) == 4
    assert len(pipe.plan(PICTURE, "a", max_new_tokens=np.int16(2), num_plans=two)) == 2


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (NAN, "must be a finite number"),
        (np.float32(INF), "must be a finite number"),
        ("a\ud800", "holds half of a surrogate pair"),
        ([{"a": "\udfff"}], "holds half of a surrogate pair"),
        ({1: 2}, "keys that are no text"),
    ],
)
def test_what_no_file_holds_is_no_default(pipe, value, said):
    before = dict(pipe.editor_defaults)
    with pytest.raises(ValueError, match=f"`defaults`: `negative_prompt.*{said}"):
        pipe.editor_defaults = {"negative_prompt": value}
    assert pipe.editor_defaults == before


def test_an_iterator_that_gives_too_little_or_too_much_is_refused(pipe):
    settings = {"plan": [PLAN, PLAN], "num_inference_steps": 1}
    with pytest.raises(ValueError, match="more pictures than values of `plan`"):
        list(pipe.stream(iter([PICTURE] * 3), **settings))
    with pytest.raises(ValueError, match="more values of `plan` than pictures"):
        list(pipe.stream(iter([PICTURE]), **settings))
    with pytest.raises(ValueError, match="gives pairs"):
        list(pipe.stream(iter([PICTURE]), num_inference_steps=1))
    with pytest.raises(ValueError, match="one generator"):
        pipe.stream(iter([PICTURE]), plan=PLAN, generator=[gen()])
    for given in ({"plan": PLAN, "generator": "x"}, {"instruction": 3}, {"plan": "abc"}, {"plan": 3}):
        with pytest.raises(TypeError):
            pipe.stream(iter([PICTURE]), **given)  # at once, though no picture has come
    with pytest.raises(ValueError, match="There is no instruction"):
        pipe.stream(iter([PICTURE]), "")
    done = list(pipe.stream([PICTURE] * 2, plan=iter([PLAN, PLAN]), num_inference_steps=1))
    assert len(done) == 2


def test_a_callback_that_gives_no_plan_is_refused_before_the_editor(pipe, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("the editor ran")

    monkeypatch.setattr(type(pipe.editor.unet), "forward", fail)
    for answer in ({"requests": ["a"]}, "a", 3, []):
        with pytest.raises(TypeError, match="`callback_on_plan` gives an `EditPlan` or None"):
            pipe(PICTURE, plan=PLAN, callback_on_plan=lambda plan, answer=answer: answer)
    with pytest.raises(ValueError, match="requests"):  # as it would be as `plan`
        pipe(PICTURE, plan=PLAN, callback_on_plan=lambda plan: EditPlan("", (), "remove"))


@pytest.mark.parametrize("component", ["planner", "processor", "editor", "sequencer"])
def test_a_name_is_no_component(pipe, component):
    parts = {"planner": None, "processor": None, "editor": None, component: "org/name"}
    refused = f"`{component}` is loaded before it is given, and 'org/name' is a name"
    with pytest.raises(TypeError, match=refused):
        ImageEditR1Pipeline(**parts)
    before = getattr(pipe, component)
    with pytest.raises(TypeError, match=refused):
        setattr(pipe, component, "org/name")
    assert getattr(pipe, component) is before


def test_a_pipeline_with_an_editor_is_no_editor(pipe):
    other = ImageEditR1Pipeline(None, None, pipe.editor)
    for refused in (other, pipe):
        with pytest.raises(TypeError, match=r"not a ImageEditR1Pipeline, which has one: give `other\.editor`"):
            pipe.editor = refused
    assert pipe.editor is other.editor
