"""A call is opened and checked once, by whatever way it comes: one file opened, one warning that it is no picture of scenes."""

from dataclasses import FrozenInstanceError

import pytest
from PIL import Image

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.commands import edit as edit_command
from diffusers_r1.commands import main
from diffusers_r1.commands import plan as plan_command


pytestmark = pytest.mark.tiny

PLAN = EditPlan("", (), ("make the background teal",))
SHORT = {"max_new_tokens": 4}


def by_call(pipe, path):
    pipe(path, "make the background teal", **SHORT)


def by_call_with_a_plan(pipe, path):
    pipe(path, plan=PLAN)


def by_plan(pipe, path):
    pipe.plan(path, "make the background teal", **SHORT)


def by_stream(pipe, path):
    list(pipe.stream([path], "make the background teal", **SHORT))


def by_stream_of_plans(pipe, path):
    list(pipe.stream([path], plan=PLAN))


def by_stream_of_an_iterator(pipe, path):
    list(pipe.stream(iter([path]), "make the background teal", **SHORT))


def by_stream_of_an_iterator_that_is_not_planned_ahead(pipe, path):
    list(pipe.stream(iter([path]), "make the background teal", generation={"do_sample": True}, **SHORT))


def by_edit_command(pipe, path):
    assert main(["edit", path, "make the background teal", "--max_new_tokens", "4", "--output", f"{path}.jpg"]) == 0


def by_plan_command(pipe, path):
    assert main(["plan", path, "make the background teal", "--max_new_tokens", "4"]) == 0


WAYS = [value for name, value in list(globals().items()) if name.startswith("by_")]


@pytest.fixture(scope="module")
def pipe():
    pipe = ImageEditR1Pipeline.from_pretrained("imageedit-r1-scenes")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])
def test_one_open_and_one_warning(pipe, way, tmp_path, monkeypatch, caplog):
    path = str(tmp_path / "photo.png")
    Image.linear_gradient("L").convert("RGB").resize((72, 66)).save(path)
    opened, open_file = [], Image.open

    def count(*args, **kwargs):
        opened.append(args)
        return open_file(*args, **kwargs)

    monkeypatch.setattr(Image, "open", count)
    for command in (edit_command, plan_command):
        monkeypatch.setattr(command, "load_pipeline", lambda *args, **kwargs: pipe)
    pipe.warned.clear()  # said once of a size, of which the ways before this one have told
    way(pipe, path)
    assert len(opened) == 1
    assert caplog.text.count("nothing else; a picture of 72 x 66 is worked on") == 1


def test_retries_are_the_callers_in_a_stream_too(pipe):
    scene = Image.new("RGB", (64, 64), "white")
    for retries in (0, 1):
        [output] = pipe.stream([scene], "make the background teal", generation={"retries": retries}, **SHORT)
        assert len(output.plans[0].raw) == 1 + retries


def test_what_was_checked_is_not_changed_afterwards(pipe):
    call = pipe.check_inputs(Image.new("RGB", (64, 64)), plan=PLAN)
    with pytest.raises(FrozenInstanceError):
        call.turns = "multi"
