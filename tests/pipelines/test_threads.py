"""One pipeline used by several threads at once, ended early, or given an editor that makes no picture."""

import asyncio
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from comparing import same
from diffusers import FirstBlockCacheConfig
from PIL import Image

import diffusers_r1
from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.app.jobs import Refused
from diffusers_r1.app.service import EditService
from diffusers_r1.commands import edit as edit_command
from diffusers_r1.commands import main
from diffusers_r1.pipelines.exclusive import Interruption


pytestmark = pytest.mark.tiny

PLAN = EditPlan("", (), ("remove the red star", "make the background teal", "add a hat"))
THREADS, CALLS, DIFFERENT = 8, 20, 12


def picture(seed: int = 0, size: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def pipe(prompts):
    pipe = ImageEditR1Pipeline(*tiny_models.tiny_planner(), tiny_models.tiny_pix2pix(), prompts=prompts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def planned(pipe):
    """A mark for each time that the planner ran."""
    marks = []
    pipe.planner.register_forward_pre_hook(lambda *_: marks.append(1))
    return marks


# Threads
# -------


def state_of(*pipes: ImageEditR1Pipeline) -> dict[str, object]:
    """Whatever could be left behind on a model: attributes, hooks, replaced methods, settings of a scheduler."""
    found: dict[str, object] = {}
    for number, pipe in enumerate(pipes):
        models = {"planner": pipe.planner, **{f"editor.{name}": part for name, part in pipe.editor.components.items()}}
        for name, model in models.items():
            for path, module in model.named_modules() if isinstance(model, torch.nn.Module) else []:
                hooks = [
                    len(vars(module)[key]) for key in vars(module) if key.endswith("_hooks") and vars(module)[key]
                ]
                found[f"{number}.{name}.{path}"] = (sorted(vars(module)), hooks, module.training)
        found[f"{number}.scheduler"] = dict(pipe.editor.scheduler.config)
        found[f"{number}.editor"] = {name for name in vars(pipe.editor) if not name.startswith("_")}
    return found


def arguments(number: int) -> dict:
    """The calls differ in all that a shared state could mix up; answers of this planner are asked for again, sampled."""
    return {
        "image": picture(number, 16 + 8 * (number % 2)),
        "instruction": f"make it {number}",
        "generator": generator(number),
        "num_inference_steps": 1 + number % 4,
        "guidance_scale": 1.0 + number % 3,
        "turns": ("single", "multi")[number % 2],
        "max_new_tokens": 3,
        **({"generation": {"do_sample": True, "temperature": 2.0}} if number % 3 == 0 else {}),
    }


@pytest.mark.parametrize("shared", ["pipeline", "editor", "parts of the editor"])
def test_every_picture_and_plan_is_that_of_the_call_alone(pipe, prompts, shared):
    pipes = [pipe]
    if shared != "pipeline":
        editor = pipe.editor if shared == "editor" else type(pipe.editor)(**pipe.editor.components)
        editor.set_progress_bar_config(disable=True)
        pipes.append(ImageEditR1Pipeline(*tiny_models.tiny_planner(seed=1), editor, prompts=prompts))
    before, random = state_of(*pipes), torch.get_rng_state()
    alone = [pipes[number % len(pipes)](**arguments(number)) for number in range(DIFFERENT)]
    assert all(len(out.plans[0].raw) == 2 for out in alone)
    assert len({out.plans[0].raw for out in alone}) > DIFFERENT / 2
    sampled = [out.plans[0].raw for number, out in enumerate(alone) if number % 3 == 0]
    assert all(first != second for first, second in sampled)  # the retry draws from another seed

    def work(thread: int) -> int:
        for turn in range(CALLS):
            number = (thread * 7 + turn * 5) % DIFFERENT
            out = pipes[number % len(pipes)](**arguments(number))
            assert out.plans == alone[number].plans
            difference = np.asarray(out.images[0], dtype=int) - np.asarray(alone[number].images[0], dtype=int)
            assert not difference.any(), (number, np.abs(difference).max())
        return CALLS

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(work, range(THREADS))) == THREADS * CALLS
    assert state_of(*pipes) == before
    assert torch.equal(torch.get_rng_state(), random)


def test_plans_alone_are_right_in_threads_too(pipe):
    def plan(number: int) -> EditPlan:
        sampling = {"do_sample": True, "temperature": 2.0} if number % 2 else {}
        return pipe.plan(picture(number), f"a{number}", generator(number), max_new_tokens=4, **sampling)

    alone = [plan(number) for number in range(8)]
    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(plan, [*range(8)] * 5)) == alone * 5


# Ended early
# -----------


@pytest.fixture(params=["kontext", "pix2pix"])
def stopping(request, pipe):
    """A pipeline with an editor that can stop between two steps, or with one that cannot; and arguments of a small call."""
    if request.param == "kontext":
        pipe.editor = tiny_models.tiny_kontext()
        return pipe, {"num_inference_steps": 4, "height": 16, "width": 16}
    return pipe, {"num_inference_steps": 4}


def at_step(pipe, turn: int, step: int, how: str):
    """A callback that ends the call at a step of a turn: by our method, from another thread, or as diffusers has it."""
    turns = iter(range(100))
    now = [-1]

    def callback(editor, number, timestep, tensors):
        if number == 0:
            now[0] = next(turns)
        if (now[0], number) == (turn, step):
            if how == "pipe.interrupt()":
                pipe.interrupt()
            elif how == "another thread":
                thread = threading.Thread(target=pipe.interrupt)
                thread.start()
                thread.join()
            else:
                editor._interrupt = True
        return tensors

    return callback


HOWS = ["pipe.interrupt()", "another thread", "_interrupt"]


@pytest.mark.parametrize("how", HOWS)
def test_what_is_done_comes_back_marked(stopping, how):
    pipe, small = stopping
    can_stop = hasattr(type(pipe.editor), "interrupt")
    source = picture()
    whole = pipe(source, plan=PLAN, turns="multi", generator=generator(), **small)
    assert not whole.interrupted and [turn.interrupted for turn in whole.turns[0]] == [False] * 3

    callback = at_step(pipe, 1, 1, how)
    out = pipe(source, plan=PLAN, turns="multi", generator=generator(), callback_on_step_end=callback, **small)
    assert out.interrupted and [turn.interrupted for turn in out.turns[0]] == [False, can_stop]
    last_whole = 0 if can_stop else 1
    assert same(out.images[0], whole.turns[0][last_whole].image.resize(source.size))
    assert same(out.turns[0][last_whole].image, whole.turns[0][last_whole].image)

    callback = at_step(pipe, 0, 1, how)
    out = pipe(source, plan=PLAN, generator=generator(), callback_on_step_end=callback, **small)
    assert out.interrupted and len(out.turns[0]) == 1 and out.turns[0][0].interrupted == can_stop
    if can_stop:
        assert same(out.images[0], source)  # no cut picture is a result

    again = pipe(source, plan=PLAN, turns="multi", generator=generator(), **small)  # and nothing of it stays
    assert not again.interrupted and same(again.images[0], whole.images[0])


@pytest.mark.parametrize("how", HOWS)
def test_further_pictures_and_a_stream_end_too(stopping, how):
    pipe, small = stopping
    can_stop = hasattr(type(pipe.editor), "interrupt")
    sources = [picture(seed) for seed in range(4)]
    generators = [generator(seed) for seed in range(4)]
    callback = at_step(pipe, 1, 0, how)
    out = pipe(sources, plan=PLAN, generator=generators, max_batch=1, callback_on_step_end=callback, **small)
    assert out.interrupted and [len(turns) for turns in out.turns] == [1, 1, 0, 0]
    assert out.turns[1][0].interrupted == can_stop
    assert not same(out.images[0], sources[0]) and all(same(*pair) for pair in zip(out.images[2:], sources[2:]))

    callback = at_step(pipe, 1, 0, how)
    marks = [out.interrupted for out in pipe.stream(sources, plan=PLAN, callback_on_step_end=callback, **small)]
    assert marks == [False, True]  # what is left of a stream is left undone


def test_a_call_that_begins_afterwards_is_not_ended(pipe):
    pipe.interrupt()
    out = pipe(picture(), plan=PLAN, num_inference_steps=1)
    assert not out.interrupted and not same(out.images[0], picture())


@pytest.mark.parametrize("ended", ["a call that waits", "a call that has not begun", "another pipeline"])
def test_ending_one_call_leaves_that_of_another_alone(pipe, ended):
    pipe.editor = tiny_models.tiny_kontext()
    small = {"num_inference_steps": 4, "height": 16, "width": 16}
    whole = pipe(picture(), plan=PLAN, generator=generator(), **small)
    waits, other = Interruption(pipe), ImageEditR1Pipeline(None, None, pipe.editor)
    with ThreadPoolExecutor(1) as pool:
        waiting = []

        def callback(editor, number, timestep, tensors):
            if number == 1 and ended == "a call that waits":
                call = pipe.check_inputs(picture(1), plan=PLAN, **small)
                waiting.append(pool.submit(pipe.run_checked, call, waits))
            if number == 1:
                other.interrupt() if ended == "another pipeline" else waits.stop()
            return tensors

        out = pipe(picture(), plan=PLAN, generator=generator(), callback_on_step_end=callback, **small)
        assert not out.interrupted and same(out.images[0], whole.images[0])
        assert [call.result().interrupted for call in waiting] == [True] * len(waiting)


def test_stopping_the_call_that_is_at_the_editor_cuts_it(pipe):
    pipe.editor = tiny_models.tiny_kontext()
    interruption = Interruption(pipe)

    def callback(editor, number, timestep, tensors):
        interruption.stop()
        return tensors

    small = {"num_inference_steps": 4, "height": 16, "width": 16, "callback_on_step_end": callback}
    out = pipe.run_checked(pipe.check_inputs(picture(), plan=PLAN, **small), interruption)
    assert out.interrupted and out.turns[0][0].interrupted


def test_candidates_of_an_interrupted_call(pipe):
    callback = at_step(pipe, 1, 0, "pipe.interrupt()")
    settings = {"num_images_per_plan": 3, "selector": lambda *_: 0, "max_batch": 1, "num_inference_steps": 2}
    out = pipe(picture(), plan=PLAN, callback_on_step_end=callback, **settings)
    assert out.interrupted and [len(one.turns) for one in out.candidates[0]] == [1, 1, 0]


# Called again by a callback
# --------------------------


@pytest.mark.parametrize("shared", ["pipeline", "scheduler of the editor", "models of the editor"])
def test_a_callback_of_the_editor_cannot_edit_with_it_and_may_plan(pipe, planned, shared):
    if shared == "pipeline":
        other = pipe
    else:
        parts = dict(pipe.editor.components)
        if shared == "models of the editor":  # on which a turn may have hooks, as a composed one has
            parts["scheduler"] = type(parts["scheduler"]).from_config(parts["scheduler"].config)
        other = ImageEditR1Pipeline(pipe.planner, pipe.processor, type(pipe.editor)(**parts))
    refused = []

    def callback(editor, number, timestep, tensors):
        ways = [
            lambda: other(picture(1), "a", num_inference_steps=1),
            lambda: other.edit([picture(1)], [PLAN], num_inference_steps=1),
            lambda: next(other.stream([picture(1)], plan=PLAN, num_inference_steps=1)),
        ]
        for way in ways:
            with pytest.raises(RuntimeError, match="is at work: a callback of its own steps cannot call it"):
                way()
        assert planned == []  # nothing has run
        refused.append(number)
        pipe.plan(picture(1), "a", max_new_tokens=2)
        planned.clear()
        return tensors

    settings = {"plan": PLAN, "num_inference_steps": 2}
    alone = pipe(picture(), generator=generator(), **settings)
    out = pipe(picture(), generator=generator(), callback_on_step_end=callback, **settings)
    assert refused == [0, 1] and same(out.images[0], alone.images[0])
    other(picture(1), **settings)  # and afterwards it is free


def test_a_planner_that_is_a_part_of_the_editor_may_plan_in_a_callback(pipe):
    editor = tiny_models.tiny_qwen_edit()
    editor.set_progress_bar_config(disable=True)
    pipe = ImageEditR1Pipeline(editor.text_encoder, pipe.processor, editor)

    def callback(editor, number, timestep, tensors):
        planned.append(pipe.plan(picture(1), "a", max_new_tokens=2))
        return tensors

    planned = []
    pipe(picture(), plan=PLAN, num_inference_steps=1, height=64, width=64, callback_on_step_end=callback)
    assert len(planned) == 1


@pytest.mark.parametrize("other", [{"do_sample": True}, {"retries": 1}])
def test_a_callback_plans_beside_a_thread_that_samples(pipe, other):
    def plan(**settings) -> None:
        pipe.plan(picture(1), "a", max_new_tokens=2, **settings)

    def callback(editor, number, timestep, tensors):
        beside.start()
        time.sleep(0.5)  # the other thread comes as far as it may
        plan()
        return tensors

    beside = threading.Thread(target=plan, kwargs=other, daemon=True)
    settings = {"generator": generator(), "num_inference_steps": 1, "callback_on_step_end": callback}
    call = threading.Thread(target=pipe, args=[picture(), None, PLAN], kwargs=settings, daemon=True)
    call.start()
    for thread in (call, beside):
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("way", ["a cache", "offload of the editor", "offload of both"])
def test_a_plan_leaves_an_editor_alone_that_is_at_work(pipe, way):
    pipe.editor = editor = tiny_models.tiny_qwen_edit()
    pipe.set_progress_bar_config(disable=True)
    torch.manual_seed(0)
    editor.transformer = type(editor.transformer)(**{**editor.transformer.config, "num_layers": 2}).eval()
    if way == "a cache":
        pipe.enable_cache(FirstBlockCacheConfig(threshold=100.0))
    else:
        (editor if way == "offload of the editor" else pipe).enable_model_cpu_offload(device="cpu")

    def callback(editor, number, timestep, tensors):
        hook = getattr(editor.transformer, "_hf_hook", None)
        pipe.plan(picture(1), "a", max_new_tokens=2)
        assert getattr(editor.transformer, "_hf_hook", None) is hook
        return tensors

    calls = []  # of what a cache leaves out after the first step
    editor.transformer.transformer_blocks[-1].attn.register_forward_hook(lambda *_: calls.append(1))
    settings = {"plan": PLAN, "num_inference_steps": 3, "height": 64, "width": 64}
    alone = pipe(picture(), generator=generator(), **settings)
    number = len(calls)
    out = pipe(picture(), generator=generator(), callback_on_step_end=callback, **settings)
    assert same(out.images[0], alone.images[0]) and len(calls) == 2 * number


# No picture
# ----------


def make_nan(editor) -> None:
    """The autoencoder overflows, as many do in float16; only what it decodes."""
    with torch.no_grad():
        editor.vae.decoder.conv_out.bias.fill_(float("nan"))


def test_what_is_no_number_in_the_callers_own_callback_is_no_fault_of_the_editor(pipe):
    def count(editor, step, timestep, values):
        counted.append(np.float32("inf") - np.float32("inf"))
        return values

    counted, plan = [], EditPlan("", (), ("a", "b"))
    settings = {"callback_on_step_end": count, "num_inference_steps": 2}
    with np.errstate(invalid="ignore"):
        pictures = pipe([picture(1), picture(2)], plan=plan, turns="multi", **settings).images
    assert len(pictures) == 2 and len(counted) == 4  # two turns of two steps, the pictures together


@pytest.mark.parametrize("build", [tiny_models.tiny_pix2pix, tiny_models.tiny_kontext])
def test_a_picture_of_no_numbers_is_an_error_by_every_way_in(pipe, build, monkeypatch, tmp_path, capsys):
    pipe.editor = build()
    make_nan(pipe.editor)
    small = {} if build is tiny_models.tiny_pix2pix else {"height": 16, "width": 16}
    pipe.editor_defaults = {"num_inference_steps": 1, **small}
    said = f"{type(pipe.editor).__name__} made a picture with values that are no numbers"
    sources = []
    original = type(pipe.editor).__call__

    @functools.wraps(original)
    def record(self, *args, **kwargs):
        sources.append(kwargs["image"])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(pipe.editor), "__call__", record)
    ways = [
        lambda: pipe(picture(), plan=PLAN, turns="multi"),
        lambda: pipe([picture(1), picture(2)], plan=PLAN, turns="multi", output_type="np"),
        lambda: pipe(picture(), "a", max_new_tokens=2),
        lambda: pipe(picture(), plan=PLAN, num_images_per_plan=2, selector=lambda *_: 0),
        lambda: list(pipe.stream([picture(), picture(1)], plan=PLAN)),
        lambda: list(pipe.stream(iter([picture()]), "a", max_new_tokens=2)),
        lambda: pipe.edit([picture()], [PLAN]),
    ]
    for way in ways:
        with pytest.raises(FloatingPointError, match=said):
            way()
    given = [image for one in sources for image in (one if isinstance(one, list) else [one])]
    assert given and all(np.asarray(image).max() > 0 for image in given)  # no black picture was the source of a turn

    monkeypatch.setattr(edit_command, "load_pipeline", lambda args, **components: pipe)
    picture().save(tmp_path / "photo.png")
    (tmp_path / "plan.json").write_text(PLAN.to_json())
    words = [tmp_path / "photo.png", "--plan", tmp_path / "plan.json", "--output", tmp_path / "out.png"]
    assert main(["edit", *map(str, words)]) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "out.png").exists()

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    service = EditService(pipe, 2**24, 1)

    async def edit() -> None:
        async for _ in service.edit({"path": str(tmp_path / "photo.png")}, PLAN, "multi", 0).steps():
            pass

    with pytest.raises(Refused):
        asyncio.run(edit())
    service._folder.cleanup()


# How much at once
# ----------------


def count_calls(monkeypatch, editor) -> list[int]:
    sizes = []
    original = type(editor).__call__

    @functools.wraps(original)
    def count(self, *args, **kwargs):
        sizes.append(len(kwargs["prompt"]) if isinstance(kwargs["prompt"], list) else 1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(editor), "__call__", count)
    return sizes


def test_max_batch_bounds_the_editor_and_changes_no_pixel(pipe, monkeypatch):
    settings = {"num_plans": 8, "num_images_per_plan": 4, "selector": lambda *_: 0, "max_new_tokens": 2}
    settings |= {"num_inference_steps": 1}
    made, sizes = {}, count_calls(monkeypatch, pipe.editor)
    for most in (None, 1, 5, 32):
        sizes.clear()
        generators = [generator(seed) for seed in range(32)]
        given = {} if most is None else {"max_batch": most}
        out = pipe(picture(), "a", generator=generators, **settings, **given)
        made[most] = [np.asarray(candidate.image, dtype=int) for candidate in out.candidates[0]]
        most = most or 8
        assert sum(sizes) == 32 and max(sizes) <= most and len(sizes) == -(-32 // most)
    for most in (None, 5, 32):  # sums in a larger batch come out in another order: the last bit of a byte
        assert max(np.abs(one - other).max() for one, other in zip(made[most], made[1])) <= 1


def test_an_iterator_is_opened_two_pictures_ahead_at_most(pipe):
    pulled = []

    def million():
        for number in range(1_000_000):
            pulled.append(number)
            yield picture(number), PLAN if number % 2 else "make it blue"

    stream = pipe.stream(million(), num_inference_steps=1, max_new_tokens=2)
    assert pulled == []
    for done in range(1, 6):
        next(stream)
        time.sleep(0.1)
        assert len(pulled) <= done + 2
    stream.close()
    time.sleep(0.2)
    assert len(pulled) <= 8


# Run in a process of its own: a planner that is slow while the editor waits for it. Python then takes what time it needs to
# give torch's memory back, as it does at the end of any program; what ends here says so before that.
SLOW = """
import atexit, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background of a shell is born deaf to it
sys.path.insert(0, sys.argv[1])
import tiny_models
from PIL import Image
from diffusers_r1 import ImageEditR1Pipeline

pipe = ImageEditR1Pipeline(*tiny_models.tiny_planner(), tiny_models.tiny_pix2pix())
pipe.planner.register_forward_pre_hook(lambda *_: print("slow", flush=True) or [time.sleep(0.5) for _ in range(1000)])
atexit.register(lambda: print("ended", flush=True))
for _ in pipe.stream([Image.new("RGB", (16, 16))] * 3, "make it blue", num_inference_steps=1):
    pass
"""


def test_ctrl_c_ends_the_program_within_two_seconds():
    tests, source = Path(__file__).parents[1], Path(diffusers_r1.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SLOW, str(tests)]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "env": environment}
    with subprocess.Popen(command, **quiet) as process:
        try:
            assert process.stdout.readline() == "slow\n"
            pressed = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "ended\n"
            assert time.monotonic() - pressed < 2
            assert process.wait(timeout=120) == -signal.SIGINT
        finally:
            process.kill()
