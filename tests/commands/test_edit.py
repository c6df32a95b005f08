import io
import os
import signal

import numpy as np
import pytest
import tiny_models
from colour_profiles import ADOBE_RGB, rgb_profile
from PIL import Image

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.commands import edit, plan
from diffusers_r1.commands.progress import Progress, follow, stoppable
from diffusers_r1.commands.shared import load_pipeline
from diffusers_r1.images.colour import srgb_profile
from diffusers_r1.judging import ScenesCritic
from diffusers_r1.scenes import sample_task


pytestmark = pytest.mark.tiny

PLAN = EditPlan("tidy up", (), ("remove the red star", "make the background teal"))


@pytest.fixture
def plan_file(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(PLAN.to_json(), encoding="utf-8")
    return path


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_picture_and_an_instruction_become_a_picture(run, bundle, photo, tmp_path):
    output = tmp_path / "out.png"
    words = ["edit", photo, "make it blue", "--model", bundle, "--max_new_tokens", 4, "--output", output, "--seed", 3]
    code, printed, said = run(*words)
    assert (code, printed) == (0, f"{output}\n")
    assert "1. make it blue" in said
    assert pixels(output).shape == (64, 72, 3)

    first = output.read_bytes()
    assert run(*words)[0] == 0
    assert output.read_bytes() == first
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("turns", ["single", "multi"])
def test_a_plan_is_carried_out_as_the_pipeline_would(run, bundle, photo, tmp_path, plan_file, turns):
    import torch

    output = tmp_path / "out.png"
    words = ["--plan", plan_file, "--turns", turns, "--output", output, "--seed", 0, "--set", "guidance_scale=2.0"]
    code, _, said = run("edit", photo, "--model", bundle, *words)
    assert code == 0
    assert "1. remove the red star\n2. make the background teal\n" in said

    pipe = ImageEditR1Pipeline.from_pretrained(bundle)
    generator = torch.Generator().manual_seed(0)
    expected = pipe(str(photo), plan=PLAN, turns=turns, generator=generator, guidance_scale=2.0).images[0]
    assert np.array_equal(pixels(output), np.asarray(expected))


def test_a_plan_needs_no_planner(monkeypatch, run, bundle, photo, tmp_path, plan_file):
    loaded = []

    def load_and_keep(*args, **kwargs):
        loaded.append(load_pipeline(*args, **kwargs))
        return loaded[-1]

    monkeypatch.setattr(edit, "load_pipeline", load_and_keep)
    assert run("edit", photo, "--plan", plan_file, "--model", bundle, "--output", tmp_path / "out.png")[0] == 0
    assert loaded[0].planner is None and loaded[0].processor is None


def test_a_plan_may_come_on_stdin(monkeypatch, run, bundle, photo, tmp_path):
    monkeypatch.setattr("sys.stdin", io.StringIO(PLAN.to_json()))
    assert run("edit", photo, "--plan", "-", "--model", bundle, "--output", tmp_path / "out.png")[0] == 0


def test_a_second_look_by_the_critic_that_is_named(run, bundle, tmp_path, monkeypatch):
    asked = []
    reflect = ImageEditR1Pipeline.reflect

    def noted(self, *args, **kwargs):
        asked.append((args[3], args[4]))
        return reflect(self, *args, **kwargs)

    monkeypatch.setattr(ImageEditR1Pipeline, "reflect", noted)
    task = sample_task(0, "simple")
    task.image.save(tmp_path / "scene.png")
    plan = tmp_path / "plan.json"
    plan.write_text(EditPlan("", task.edits, task.sub_requests).to_json(), encoding="utf-8")
    words = ["edit", tmp_path / "scene.png", "--plan", plan, "--model", bundle, "--output", tmp_path / "out.png"]
    assert run(*words, "--reflect", 2)[0] == 0
    ((critic, looks),) = asked
    assert isinstance(critic, ScenesCritic) and looks == 2
    photo = tmp_path / "photo.png"
    Image.effect_noise((64, 64), 80).save(photo)
    refused = [
        (["--reflect", -1], "0 or more"),
        (["--critic_model", "any"], "give --reflect"),
        (["--critic_url", "http://localhost:1/v1"], "give --reflect"),
        (["--reflect", 1, "--critic_url", "nowhere"], "nowhere"),
    ]
    words[1] = photo
    assert "no scene" in run(*words, "--reflect", 1)[2]
    for more, said in refused:
        code, _, error = run(*words, *more)
        assert code == 2 and said in error


def test_ctrl_c_ends_an_editor_that_cannot_be_told_to_stop_after_its_step():
    """InstructPix2Pix runs a turn to its end whoever asks it not to; the first turn is kept, the second given up."""

    class Pressed(Progress):
        steps = 0

        def step(self, editor, step, timestep, tensors):
            tensors = super().step(editor, step, timestep, tensors)
            self.steps += 1
            if self.turn == 2 and step == 0:
                os.kill(os.getpid(), signal.SIGINT)
            return tensors

    pipe = ImageEditR1Pipeline(None, editor=tiny_models.tiny_pix2pix())
    progress = Pressed(quiet=True, turns="multi")
    progress.begin(planned=True)
    with stoppable(pipe, progress):
        call = {"plan": EditPlan("", (), ("a", "b", "c")), "turns": "multi", "num_inference_steps": 20}
        out = pipe(Image.new("RGB", (16, 16)), **call, **follow(pipe, progress))
    assert out.interrupted and len(out.turns[0]) == 1
    assert 21 <= progress.steps <= 23


def test_several_pictures_are_numbered(run, bundle, photo, tmp_path, plan_file):
    output = tmp_path / "out.jpg"
    words = ["--plan", plan_file, "--num_images_per_prompt", 2, "--output", output]
    _, printed, _ = run("edit", photo, "--model", bundle, *words)
    assert printed == f"{tmp_path / 'out-1.jpg'}\n{tmp_path / 'out-2.jpg'}\n"
    with Image.open(tmp_path / "out-1.jpg") as image:
        assert image.format == "JPEG"
    assert not np.array_equal(pixels(tmp_path / "out-1.jpg"), pixels(tmp_path / "out-2.jpg"))


def test_what_a_photographer_expects_is_kept(run, bundle, tmp_path, plan_file):
    """An Adobe RGB photo that the camera wrote on its side: converted, tagged, upright, as good as it was, and still hers."""
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "Ann Other"
    picture = Image.linear_gradient("L").convert("RGB").resize((72, 64))
    settings = {"quality": 83, "dpi": (300, 300), "icc_profile": rgb_profile(ADOBE_RGB)}
    picture.save(tmp_path / "photo.jpg", exif=exif, **settings)
    words = ["--plan", plan_file, "--model", bundle, "--output", tmp_path / "out.jpg"]
    assert run("edit", tmp_path / "photo.jpg", *words)[0] == 0
    with Image.open(tmp_path / "photo.jpg") as before, Image.open(tmp_path / "out.jpg") as after:
        assert after.size == (64, 72) and after.info["dpi"] == (300, 300)
        assert after.info["icc_profile"] == srgb_profile() and after.quantization == before.quantization
        assert after.getexif()[0x013B] == "Ann Other" and 0x0112 not in after.getexif()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.png", "make it blue"], "missing.png"),
        (["{photo}"], "either INSTRUCTION or --plan"),
        (["{photo}", "--output", "x", "make it blue"], "--output x: no picture is written as"),
        (["{photo}", "make it blue", "--plan", "{plan}"], "either INSTRUCTION or --plan"),
        (["{photo}", "--plan", "missing.json"], "missing.json"),
        (["{photo}", "--plan", "{photo}"], "UTF-8"),
        (["{photo}", "make it blue", "--output", "out.xyz"], "'.xyz'"),
        (["{photo}", "make it blue", "--output", "out"], "without suffix"),
        (["{photo}", "make it blue", "--output", "out.pdf"], "no picture is written as '.pdf'; take .png, .jpg, "),
        (["{photo}", "make it blue", "--output", "nowhere/out.png"], "no folder nowhere"),
        (["{photo}", "make it blue", "--device", "abacus"], "abacus"),
        (["{photo}", "make it blue", "--model", "no-such-bundle"], "'no-such-bundle' is neither a folder nor"),
        (["{photo}", "make it blue", "--model", "a/b/c"], "a/b/c"),
        (["{photo}", "make it blue", "--model", "imageedit-r1-smollm2"], "looks like a planner"),
        (["{photo}", " "], "empty"),
        (["{photo}", "make it blue", "--num_images_per_prompt", "0"], "1 or more"),
        (["{photo}", "make it blue", "--set", "strength=1"], "takes no `strength`. It takes: "),
        (["{photo}", "make it blue", "--set", "image=1"], "not for the caller"),
        (["{photo}", "make it blue", "--set", "turns=1"], "takes no `turns`"),
        (["{photo}", "make it blue", "--set", "strength"], "NAME=VALUE"),
        (["{photo}", "make it blue", "--set", "negative_prompt=blurry"], "double quotes"),
    ],
)
def test_bad_use_says_what_is_wrong_and_writes_nothing(
    run, bundle, photo, tmp_path, plan_file, monkeypatch, words, said
):
    monkeypatch.chdir(tmp_path)
    words = [word.format(photo=photo, plan=plan_file) for word in words]
    code, printed, error = run("edit", "--model", bundle, *words)
    line = error.splitlines()[-1]
    assert (code, printed) == (2, "")
    assert line.startswith("diffusers-r1 edit: error: ") and said in line
    assert list(tmp_path.iterdir()) == [plan_file]


@pytest.mark.parametrize("words", [["--output", "out-2.png"], ["--output", "out.png", "--num_images_per_prompt", "2"]])
def test_a_result_that_has_the_name_of_a_folder(run, photo, tmp_path, monkeypatch, words):
    (tmp_path / "out-2.png").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(edit, "load_pipeline", pytest.fail)
    code, _, error = run("edit", photo, "make it blue", *words)
    assert code == 2 and "--output out-2.png: out-2.png is a folder" in error


@pytest.mark.parametrize(
    "words",
    [
        ["edit", ""],
        ["edit", "make it blue", "--num_images_per_prompt", "0"],
        ["edit", "make it blue", "--max_new_tokens", "-1"],
        ["plan", " "],
        ["plan", "make it blue", "--max_new_tokens", "0"],
        ["plan", "make it blue", "--do_sample", "--temperature", "0"],
    ],
)
def test_what_no_model_could_make_right_is_refused_before_one_loads(run, photo, monkeypatch, words):
    monkeypatch.setattr(edit, "load_pipeline", None)
    monkeypatch.setattr(plan, "load_pipeline", None)
    code, printed, error = run(words[0], photo, *words[1:])
    assert (code, printed, error.count("\n")) == (2, "", 1), error


def test_a_hub_that_cannot_be_reached_is_a_failure(run, photo, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    code, printed, error = run("edit", photo, "make it blue", "--model", "org/name")
    assert (code, printed) == (1, "")
    assert error.startswith("diffusers-r1 edit: error: ") and error.count("\n") == 1
