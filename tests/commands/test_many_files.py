"""A folder of pictures, or a table of files and instructions: results under the files' names, gone on with, failures listed."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from openai_server import editor_reply, planner_replies, scripted
from PIL import Image

from diffusers_r1 import EditPlan, records
from diffusers_r1.scenes import sample_task


pytestmark = pytest.mark.tiny

PROGRAM = "import sys; from diffusers_r1.commands import main; sys.exit(main(sys.argv[1:]))"
SHORT = ("--max_new_tokens", 4, "--seed", 3)


@pytest.fixture
def photos(tmp_path, photo):
    """Two that can be edited, of which one lies deeper, and two that cannot; what is hidden, and no picture, besides."""
    folder = tmp_path / "photos"
    (folder / "2024").mkdir(parents=True)
    with Image.open(photo) as picture:
        picture.save(folder / "beach.jpg", quality=90)
        picture.transpose(Image.Transpose.ROTATE_90).save(folder / "2024" / "hill.png")
        picture.save(folder / ".hidden.png")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "notes.txt").write_text("not one either")
    return folder


def edited(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".png", ".jpg", ".JPG")
    )


def test_a_folder_is_edited_under_its_names(run, bundle, photos, tmp_path):
    output = photos / "edited"  # inside of what is edited: results are no sources
    words = ("edit", photos, "make it blue", "--output", output, "--model", bundle, *SHORT)
    code, printed, said = run(*words)
    assert code == 1
    assert printed == f"{output / '2024/hill.png'}\n{output / 'beach.jpg'}\n"
    assert edited(output) == ["2024/hill.png", "beach.jpg"]
    assert "2 of 4 edited, 2 failed, 0 left" in said
    assert "failed: broken.png: " in said and "failed: phone.HEIC: " in said and "export it as JPEG" in said
    with Image.open(output / "beach.jpg") as after, Image.open(photos / "beach.jpg") as before:
        assert (after.size, after.format, after.quantization) == (before.size, "JPEG", before.quantization)

    # Each is what it is alone, by the same seed.
    alone = tmp_path / "alone.png"
    assert (
        run("edit", photos / "2024" / "hill.png", "make it blue", "--output", alone, "--model", bundle, *SHORT)[0] == 0
    )
    assert alone.read_bytes() == (output / "2024" / "hill.png").read_bytes()

    # The same again has nothing to do, and loads nothing to find out.
    before = (output / "beach.jpg").stat().st_mtime_ns
    code, printed, said = run(*words, "--device", "abacus")
    assert (code, printed) == (1, "") and "2 of 4 edited, 2 failed, 0 left" in said
    assert (output / "beach.jpg").stat().st_mtime_ns == before

    # What was mended is tried again if asked to; what was deleted is made again in any case.
    shutil.copy(photos / "beach.jpg", photos / "broken.png")
    (output / "beach.jpg").unlink()
    code, printed, said = run(*words, "--retry_failed")
    assert edited(output) == ["2024/hill.png", "beach.jpg", "broken.png"] and "3 of 4 edited, 1 failed" in said


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_table_has_an_instruction_for_each_file(run, bundle, photos, tmp_path, kind):
    rows = [
        ("beach.jpg", "make it blue"),
        ("beach.jpg", "remove the sea, and the sky"),
        ("2024/hill.png", "brighten it"),
    ]
    table = photos / f"rows.{kind}"
    if kind == "csv":  # as a spreadsheet writes it
        lines = ["file,instruction", *(f'{file},"{text}"' for file, text in rows)]
        table.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    else:
        table.write_text("".join(json.dumps({"file_name": f, "instruction": t}) + "\n" for f, t in rows))
    output = tmp_path / "out"
    code, _, said = run("edit", table, "--output", output, "--model", bundle, *SHORT)
    assert code == 0, said
    assert edited(output) == ["2024/hill.png", "beach-2.jpg", "beach.jpg"]
    lines = records.read(output / "edited.jsonl")
    assert [(line["file"], line["instruction"]) for line in lines] == rows
    assert EditPlan.from_dict(lines[0]["plan"]).requests == ("make it blue",)


def test_each_picture_of_a_folder_is_looked_at_again(run, bundle, tmp_path, photo):
    folder, output = tmp_path / "scenes", tmp_path / "out"
    folder.mkdir()
    for number in (1, 2):
        sample_task(number, "simple").image.save(folder / f"{number}.png")
    shutil.copy(photo, folder / "photo.png")
    words = ("edit", folder, "make it blue", "--output", output, "--model", bundle, *SHORT)
    code, _, said = run(*words, "--reflect", 1)
    assert code == 1 and "2 of 3 edited, 1 failed" in said
    assert "failed: photo.png: The picture shows no scene" in said
    code, _, said = run(*words)  # not with the results of another way
    assert code == 2 and "reflect" in said


def test_one_plan_for_all(run, bundle, photos, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(EditPlan("", (), ("remove it",)).to_json())
    code, _, said = run("edit", photos, "--plan", plan, "--output", tmp_path / "out", "--model", bundle)
    assert code == 1 and edited(tmp_path / "out") == ["2024/hill.png", "beach.jpg"], said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{photos}"], '"what to do with each picture" --output FOLDER'),
        (["{photos}", "make it blue"], "--output FOLDER"),
        (["{photos}", "--output", "out"], "say what to do with each picture"),
        (["{photos}", "make it blue", "--output", "{photos}"], "go to a folder beside"),
        (["{photos}/2024", "make it blue", "--output", "{photos}"], "go to a folder beside"),
        (["{photos}", "make it blue", "--output", "out", "--num_images_per_prompt", "2"], "one result"),
        (["{photos}/rows.csv", "make it blue", "--output", "out"], "leave out INSTRUCTION"),
        (["{photos}/rows.csv", "--output", "out"], "row 2: no `instruction` for beach.jpg"),
        (["{empty}", "make it blue", "--output", "out"], "holds no picture"),
        (["{photos}", " ", "--output", "out"], "its text is empty"),
    ],
)
def test_bad_use_says_what_to_type(run, bundle, photos, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (photos / "rows.csv").write_text("file,instruction\nbeach.jpg,blue\nbeach.jpg,\n")
    words = [word.format(photos=photos, empty=tmp_path / "empty") for word in words]
    code, printed, error = run("edit", "--model", bundle, *words)
    assert (code, printed) == (2, "") and said in error.splitlines()[-1]
    assert not (tmp_path / "out").exists() and len(edited(tmp_path)) == len(edited(photos))


def test_a_folder_belongs_to_one_run(run, bundle, photos, tmp_path):
    words = ("edit", photos, "make it blue", "--output", tmp_path / "out", "--model", bundle, *SHORT)
    with records.only_one_in(tmp_path / "out"):
        code, _, error = run(*words)
        assert code == 2 and "in use by process" in error.splitlines()[-1]
    assert run(*words)[0] == 1
    code, _, error = run(*words[:2], "make it red", *words[3:])
    assert code == 2 and "instruction was 'make it blue', not 'make it red'" in error.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "num_inference_steps=0"), "`num_inference_steps` must be 1 or more"),
        (("--turns", "composed", "--set", "guidance_scale=1"), "adds up guidance, which is off"),
    ],
)
def test_what_the_editor_cannot_do_for_any_picture_begins_no_run(run, bundle, photos, tmp_path, words, message):
    code, _, error = run(
        "edit", photos, "make it blue", "--output", tmp_path / "out", "--model", bundle, *SHORT, *words
    )
    assert code == 2 and message in error.splitlines()[-1] and not (tmp_path / "out" / "run.json").exists()


def test_an_editor_behind_an_address_cannot_be_composed(run, photos, tmp_path):
    words = ("--planner", "none", "--editor", "http://localhost:1/v1", "--editor_model", "x", "--turns", "composed")
    code, _, error = run("edit", photos, "make it blue", "--output", tmp_path / "out", *words)
    assert code == 2 and "composed" in error.splitlines()[-1] and not (tmp_path / "out" / "run.json").exists()


def test_a_name_that_was_mistyped_begins_no_run(run, bundle, photos, tmp_path):
    words = ("edit", photos, "make it blue", "--output", tmp_path / "out", *SHORT)
    code, _, error = run(*words, "--planner", "localhost:8000", "--editor", bundle)
    assert code == 2 and "an address begins with http://" in error.splitlines()[-1]
    assert run(*words, "--model", bundle)[0] == 1 and len(edited(tmp_path / "out")) == 2


def test_stopped_and_gone_on_with(bundle, photos, tmp_path, run):
    """Ctrl-C in the middle: what is done stays, and the same command does the rest."""
    output = tmp_path / "out"
    for number in range(40):
        shutil.copy(photos / "beach.jpg", photos / f"more-{number:02}.jpg")
    words = ["edit", photos, "make it blue", "--output", output, "--model", bundle, *SHORT]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    first = process.stdout.readline()
    assert first.strip().startswith(str(output))
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on with the rest" in said
    assert time.monotonic() - begun < 20
    done = edited(output)
    assert 1 <= len(done) < 42
    stamps = {name: (output / name).stat().st_mtime_ns for name in done}
    assert run(*words)[0] == 1
    assert len(edited(output)) == 42
    assert all((output / name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())


def test_behind_addresses_pictures_go_side_by_side(photos, tmp_path, run):
    Image.new("RGB", (16_500, 100)).save(photos / "wide.webp", "JPEG")  # more than a WebP holds: nobody is asked
    with scripted((200, planner_replies, {})) as planner, scripted((200, editor_reply, {})) as editor:
        parts = (
            "--planner",
            planner.url,
            "--planner_model",
            "eyes",
            "--editor",
            editor.url,
            "--editor_model",
            "brush",
        )
        code, printed, said = run("edit", photos, "tidy up", "--output", tmp_path / "out", *parts)
        assert code == 1 and edited(tmp_path / "out") == ["2024/hill.png", "beach.jpg"], said
        assert len(editor.requests) == 2
        with (
            Image.open(tmp_path / "out" / "2024" / "hill.png") as after,
            Image.open(photos / "2024/hill.png") as before,
        ):
            assert np.abs(255 - np.asarray(before, int) - np.asarray(after, int)).max() <= 1


def test_a_wrong_key_ends_the_run_at_once(photos, tmp_path, run):
    with (
        scripted((200, planner_replies, {})) as planner,
        scripted((401, {"error": {"message": "no key"}}, {})) as editor,
    ):
        parts = (
            "--planner",
            planner.url,
            "--planner_model",
            "eyes",
            "--editor",
            editor.url,
            "--editor_model",
            "brush",
        )
        code, printed, said = run("edit", photos, "tidy up", "--output", tmp_path / "out", *parts)
    assert (code, printed) == (1, "") and "401" in said.splitlines()[-1] and not edited(tmp_path / "out")


def test_a_full_disk_ends_the_run_and_keeps_what_is_done(bundle, photos, tmp_path, run):
    """The limit on a file's size that the system has is what a full disk is to a program that writes."""
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "noise.png")
    words = ["edit", photos, "make it blue", "--output", tmp_path / "out", "--model", bundle, *SHORT]
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));"
    command = [sys.executable, "-c", limit + PROGRAM, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "File too large" in done.stderr.splitlines()[-1]
    assert (
        edited(tmp_path / "out") == ["2024/hill.png", "beach.jpg"]
        and len(list((tmp_path / "out").glob(".*.tmp"))) == 0
    )
    assert run(*words)[0] == 1
    assert edited(tmp_path / "out") == ["2024/hill.png", "beach.jpg", "noise.png"]
