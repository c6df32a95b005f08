"""A second look: what a critic finds missing or spoilt is asked for again, and the picture with the fewest faults comes out."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_models
import torch
from comparing import same
from PIL import Image

from diffusers_r1 import Edit, EditPlan, ImageEditR1Pipeline
from diffusers_r1.endpoints import EndpointError
from diffusers_r1.judging import Criticism, ScenesCritic
from diffusers_r1.pipelines.exclusive import Interruption
from diffusers_r1.pipelines.reflection import LEAVE_THE_REST, last_whole
from diffusers_r1.pipelines.remote import RemotePipeline
from diffusers_r1.records import Failure
from diffusers_r1.remote_editor import RemoteEditor
from diffusers_r1.scenes import render, sample_task, score


pytestmark = pytest.mark.tiny

PLAN = EditPlan(
    "tidy up", (Edit("remove", "red star", "nothing"),), ("remove the red star", "make it teal", "add a hat")
)
FAST = {"num_inference_steps": 1, "max_new_tokens": 4}


def picture(seed: int = 0, size: tuple[int, int] = (70, 50)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Saying:
    """A critic that says one thing after the other, and notes what it was shown."""

    def __init__(self, *said: Criticism):
        self.said, self.shown = list(said), []

    def __call__(self, source, edited, plan, instruction):
        self.shown.append((source, edited, plan, instruction))
        return self.said.pop(0)


GOOD = Criticism((True, True, True))
NO_STAR, NO_HAT = Criticism((False, True, True)), Criticism((True, True, False))
SPOILT = Criticism((True, True, True), ("the sky: blue became green",))
BOTH = Criticism((False, True, True), ("the sky: blue became green",))


def looked(pipe, *said, looks=2, **call):
    critic = Saying(*said)
    out = pipe(
        picture(), plan=PLAN, generator=generator(), reflect=looks, critic=critic, num_inference_steps=1, **call
    )
    assert not critic.said
    return out, critic.shown


def test_a_good_picture_is_left_as_it_is(pipe):
    plain = pipe(picture(), plan=PLAN, generator=generator(), num_inference_steps=1)
    out, shown = looked(pipe, GOOD)
    assert same(out.images[0], plain.images[0])
    assert [replace(turn, criticism=None, image=None) for turn in out.turns[0]] == [
        replace(turn, image=None) for turn in plain.turns[0]
    ]
    assert out.turns[0][0].criticism == GOOD
    source, edited, plan, instruction = shown[0]
    assert same(source, picture()) and same(edited, out.images[0]) and (plan, instruction) == (PLAN, "tidy up")


def test_what_is_missing_is_asked_for_on_the_result(pipe):
    out, shown = looked(pipe, NO_STAR, GOOD)
    first, second = out.turns[0]
    assert (second.prompt, second.look, second.kept, second.criticism) == ("remove the red star", 1, True, GOOD)
    assert first.kept and first.size_given == second.size_given and same(out.images[0], shown[1][1])
    # The same as another call on the picture that came out of the first.
    alone = pipe.edit(
        [picture()],
        [replace(PLAN, requests=("remove the red star",))],
        generators=[generator(1)],
        begin=[first.image],
        num_inference_steps=1,
    )
    assert alone[0][0].prompt == second.prompt


def test_what_is_spoilt_is_had_back_from_the_source_in_another_order_then_in_other_words(pipe):
    out, _ = looked(pipe, BOTH, SPOILT, SPOILT, SPOILT, looks=3)
    requests = [turn.requests for turn in out.turns[0]]
    assert requests[0] == PLAN.requests
    assert requests[1] == ("make it teal", "add a hat", "remove the red star")
    assert requests[2] == ("make it teal", "add a hat", "remove the red star")  # from a new best it begins anew
    assert requests[3] == (*PLAN.requests, LEAVE_THE_REST)
    assert [turn.kept for turn in out.turns[0]] == [False, True, False, False]
    assert same(out.images[0], pipe_size(out.turns[0][1].image, picture()))


def pipe_size(image: Image.Image, source: Image.Image) -> Image.Image:
    return image if image.size == source.size else image.resize(source.size, Image.Resampling.LANCZOS)


def test_a_way_that_did_not_help_is_not_gone_again(pipe):
    out, _ = looked(pipe, NO_STAR, NO_STAR, NO_STAR, NO_STAR, looks=3)
    assert [turn.requests for turn in out.turns[0]] == [
        PLAN.requests,
        ("remove the red star",),
        ("make it teal", "add a hat", "remove the red star"),
        ("remove red star: nothing", "make it teal", "add a hat"),
    ]
    assert [turn.kept for turn in out.turns[0]] == [True, False, False, False]


def test_no_picture_gets_worse(pipe):
    plain = pipe(picture(), plan=PLAN, generator=generator(), num_inference_steps=1)
    worse = Criticism((False, False, None), ("a", "b"))
    out, _ = looked(pipe, NO_HAT, worse, worse)
    assert same(out.images[0], plain.images[0]) and len(out.turns[0]) == 3


def test_what_is_not_known_is_no_reason_to_look_again_and_no_better_picture(pipe):
    nothing = Criticism((None, None, None))
    assert len(looked(pipe, nothing)[0].turns[0]) == 1
    out, _ = looked(pipe, NO_STAR, nothing, looks=1)
    assert [turn.kept for turn in out.turns[0]] == [True, False]


def test_a_critic_that_cannot_be_asked_leaves_the_picture(pipe, caplog):
    def failing(*shown):
        raise EndpointError("busy")

    plain = pipe(picture(), plan=PLAN, generator=generator(), num_inference_steps=1)
    out = pipe(picture(), plan=PLAN, generator=generator(), num_inference_steps=1, reflect=2, critic=failing)
    assert same(out.images[0], plain.images[0]) and out.turns[0][0].criticism == Criticism((None,) * 3)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [("fine", TypeError, "gives a `Criticism`, not str"), (Criticism((True,)), ValueError, "spoke of 1 sub-requests")],
)
def test_an_answer_that_is_none_is_an_error(pipe, answer, error, words):
    with pytest.raises(error, match=words):
        pipe(picture(), plan=PLAN, reflect=1, critic=lambda *shown: answer, **FAST)


@pytest.mark.parametrize("turns", ["single", "multi"])
def test_several_pictures_as_one_by_one(pipe, turns):
    def critic(source, edited, plan, instruction):  # the first picture is good, the others are not
        missing = same(source, picture(0))
        return Criticism((missing, True, True))

    sources = [picture(0), picture(1), picture(2, (40, 60))]
    call = {"turns": turns, "num_images_per_prompt": 2, "num_inference_steps": 1, "reflect": 1, "critic": critic}
    seeds = [generator(seed) for seed in range(6)]
    together = pipe(sources, plan=PLAN, generator=seeds, **call)
    assert [max(turn.look for turn in record) for record in together.turns] == [0, 0, 1, 1, 1, 1]
    for row, source in enumerate(sources):
        alone = pipe(source, plan=PLAN, generator=[generator(2 * row), generator(2 * row + 1)], **call)
        for number in range(2):
            assert same(alone.images[number], together.images[2 * row + number])
    streamed = list(pipe.stream(sources, plan=PLAN, generator=[generator(seed) for seed in range(6)], **call))
    assert all(
        same(one, other)
        for one, other in zip((image for out in streamed for image in out.images), together.images, strict=True)
    )


def test_values_of_each_picture_go_with_it(pipe):
    given = []
    edit = pipe.edit

    def noted(*args, **kwargs):
        given.append(args[5])
        return edit(*args, **kwargs)

    pipe.edit = noted
    critic = lambda source, *shown: Criticism((same(source, picture(0)), True, True))  # noqa: E731
    pipe(
        [picture(0), picture(1)], plan=PLAN, guidance_scale=[2.0, 3.0], num_inference_steps=1, reflect=1, critic=critic
    )
    assert [[one["guidance_scale"] for one in each] for each in given] == [[2.0, 3.0], [3.0]]


def test_masks_and_the_working_size_hold(planner, prompts):
    pipe = ImageEditR1Pipeline(*planner, tiny_models.tiny_kontext_inpaint(), prompts=prompts)
    mask = Image.new("L", (64, 48), 0)
    mask.paste(255, (0, 0, 32, 48))
    source = picture(0, (64, 48))
    out = pipe(
        source,
        plan=PLAN,
        mask_image=mask,
        generator=generator(),
        num_inference_steps=2,
        max_sequence_length=16,
        reflect=1,
        critic=Saying(NO_STAR, GOOD),
    )
    assert len({turn.size_given for turn in out.turns[0]}) == 1 and out.images[0].size == source.size


def test_with_a_selector_the_chosen_picture_is_looked_at(pipe):
    critic = Saying(NO_STAR, GOOD)
    out = pipe(
        picture(),
        plan=PLAN,
        num_images_per_plan=3,
        selector=lambda source, instruction, candidates: 1,
        generator=[generator(seed) for seed in range(3)],
        num_inference_steps=1,
        reflect=1,
        critic=critic,
    )
    assert same(critic.shown[0][1], out.candidates[0][1].image) and len(out.turns[0]) == 2
    assert same(out.images[0], critic.shown[1][1])


def test_an_interruption_ends_it(pipe):
    def stopping(source, edited, plan, instruction):
        pipe.interrupt()
        return NO_STAR

    plain = pipe(picture(), plan=PLAN, generator=generator(), num_inference_steps=1)
    out = pipe(picture(), plan=PLAN, generator=generator(), num_inference_steps=1, reflect=2, critic=stopping)
    assert out.interrupted and same(out.images[0], plain.images[0]) and len(out.turns[0]) == 1

    calls = []

    def stop_in_the_second_look(editor, step, timestep, values):
        calls.append(step)
        if len(calls) == 4:  # two steps of the edit, and the second of the look
            pipe.interrupt()
        return values

    out = pipe(
        picture(),
        plan=PLAN,
        generator=generator(),
        num_inference_steps=2,
        reflect=2,
        critic=Saying(NO_STAR),
        callback_on_step_end=stop_in_the_second_look,
    )
    assert out.interrupted and [turn.kept for turn in out.turns[0]] == [True, False]
    assert same(out.images[0], pipe_size(out.turns[0][0].image, picture()))


def test_ctrl_c_while_the_critic_looks_keeps_the_edit(pipe):
    def stopped(source, edited, plan, instruction):
        pipe.interrupt()
        raise KeyboardInterrupt

    plain = pipe(picture(), plan=PLAN, generator=generator(), num_inference_steps=1)
    out = pipe(picture(), plan=PLAN, generator=generator(), num_inference_steps=1, reflect=2, critic=stopped)
    assert out.interrupted and same(out.images[0], plain.images[0]) and len(out.turns[0]) == 1

    def hit(source, edited, plan, instruction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipe(picture(), plan=PLAN, num_inference_steps=1, reflect=1, critic=hit)


def test_an_edit_that_was_ended_early_is_not_looked_at(pipe):
    def stop(editor, step, timestep, values):
        pipe.interrupt()
        return values

    asked = {"turns": "multi", "num_inference_steps": 2, "callback_on_step_end": stop}
    out = pipe(picture(), plan=PLAN, reflect=1, critic=Saying(), **asked)
    assert out.interrupted and len(out.turns[0]) == 1 and out.turns[0][0].criticism is None


def test_half_an_edit_is_not_looked_at_later(pipe):
    (turns,) = pipe.edit([picture()], [PLAN], num_inference_steps=1)
    half = [replace(turns[0], interrupted=True)]
    assert pipe.reflect([picture()] * 2, [PLAN] * 2, [half, []], Saying(), num_inference_steps=1) == [half, []]


def test_half_an_edit_keeps_no_other_from_being_looked_at(pipe):
    done = pipe.edit([picture()] * 2, [PLAN] * 2, num_inference_steps=1)
    half = [replace(done[0][0], interrupted=True)]
    story = pipe.reflect([picture()] * 2, [PLAN] * 2, [half, done[1]], Saying(GOOD), num_inference_steps=1)
    assert story[0] == half and [turn.criticism for turn in story[1]] == [GOOD]


def test_a_later_look_goes_on_where_the_one_before_ended(pipe):
    about = [picture()], [PLAN]
    story = pipe.edit(*about, num_inference_steps=1)
    for said in ((NO_STAR, NO_STAR), (NO_STAR, GOOD)):
        story = pipe.reflect(*about, story, Saying(*said), num_inference_steps=1)
    assert [turn.look for turn in story[0]] == [0, 1, 2]
    assert [turn.kept for turn in story[0]] == [True, False, True]
    assert [turn.criticism for turn in story[0]] == [NO_STAR, NO_STAR, GOOD]


def test_looks_end_by_whatever_ends_the_call(pipe):
    done = pipe.edit([picture()], [PLAN], num_inference_steps=1)

    def interrupting(*shown):
        pipe.interrupt()
        return NO_STAR

    assert len(pipe.reflect([picture()], [PLAN], done, interrupting, num_inference_steps=1)[0]) == 1
    interruption = Interruption(pipe)

    def stopping(*shown):
        interruption.stop()
        return NO_STAR

    call = pipe.check_inputs(picture(), plan=PLAN, reflect=2, critic=stopping, num_inference_steps=1)
    out = pipe.run_checked(call, interruption)
    assert out.interrupted and len(out.turns[0]) == 1


def test_a_critic_that_will_never_answer_is_an_error(pipe):
    def hopeless(*shown):
        raise EndpointError("wrong key", Failure.HOPELESS)

    with pytest.raises(EndpointError, match="wrong key"):
        pipe(picture(), plan=PLAN, num_inference_steps=1, reflect=1, critic=hopeless)


def test_values_that_are_no_numbers_raise_in_a_look_too(pipe):
    def spoiling(source, edited, plan, instruction):
        with torch.no_grad():
            pipe.editor.unet.conv_out.bias.fill_(float("nan"))
        return NO_STAR

    bias = pipe.editor.unet.conv_out.bias.detach().clone()
    try:
        with pytest.raises(FloatingPointError, match="no numbers"):
            pipe(picture(), plan=PLAN, num_inference_steps=1, reflect=1, critic=spoiling)
    finally:
        with torch.no_grad():
            pipe.editor.unet.conv_out.bias.copy_(bias)


def test_upscale_is_called_for_pictures_that_come_out(pipe):
    scaled = []

    def upscale(edited, source):
        scaled.append(edited)
        return edited.resize(source.size)

    source = picture(0, (300, 200))
    call = {"plan": PLAN, "num_inference_steps": 1, "max_pixels": 64 * 64, "upscale": upscale}
    pipe(source, **call, reflect=2, critic=Saying(GOOD))
    assert len(scaled) == 1
    pipe(source, **call, reflect=2, critic=Saying(NO_STAR, GOOD))
    assert len(scaled) == 3


def test_the_shipped_bundle_mends_what_was_dropped_and_spoilt():
    pipe = ImageEditR1Pipeline.from_pretrained("imageedit-r1-scenes", planner=None, processor=None)
    pipe.set_progress_bar_config(disable=True)
    mended = 0
    for seed in range(8):
        task = sample_task(seed, "chained")
        plan = EditPlan(task.instruction, task.edits, task.sub_requests)
        done = pipe.edit([task.image], [replace(plan, requests=plan.requests[1:])])
        place = next(
            place for place in range(9) if task.scene.cells[place] == task.target_scene.cells[place] is not None
        )
        cell = render(task.target_scene.with_cell(place, None))
        spoilt = done[0][-1].image.copy()
        row, column = divmod(place, 3)
        box = (8 + 16 * column, 8 + 16 * row, 24 + 16 * column, 24 + 16 * row)
        spoilt.paste(cell.crop(box), box)
        done = [[replace(done[0][-1], image=spoilt)]]
        assert not all(score(spoilt, task))
        story = pipe.reflect([task.image], [plan], done, ScenesCritic(), 2)
        mended += all(score(last_whole(task.image, story[0]), task))
    assert mended >= 7


def test_a_pipeline_of_addresses_alone_refuses_it():
    remote = RemotePipeline(None, RemoteEditor("http://localhost:1/v1", "closed"))
    with pytest.raises(ValueError, match="`reflect` is for `ImageEditR1Pipeline`"):
        remote.check_inputs(picture(), plan=PLAN, reflect=1, critic=ScenesCritic())
