"""Planner and editor behind addresses, on the command line: no model is loaded here, and torch is not even imported."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from openai_server import REQUESTS, editor_reply, planner_replies, said, scripted, stall
from PIL import Image


PROGRAM = """
import sys
from diffusers_r1.commands import main
code = main(sys.argv[1:])
print("torch" in sys.modules, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def servers():
    with scripted((200, planner_replies, {})) as planner, scripted((200, editor_reply, {})) as editor:
        yield planner, editor


def run_apart(*words: object) -> subprocess.CompletedProcess:
    """The command line in a process of its own, which says last on stderr whether torch came in."""
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), dtype=int)


@pytest.mark.parametrize(("turns", "calls"), [("single", 1), ("multi", 2)])
def test_a_photo_is_edited_without_torch(servers, photo, tmp_path, turns, calls):
    planner, editor = servers
    output = tmp_path / "edited.png"
    done = run_apart(
        *("edit", photo, "coat like the car, and lose the man", "--output", output, "--turns", turns, "--seed", 7),
        *("--planner", planner.url, "--planner_model", "eyes", "--editor", editor.url, "--editor_model", "brush"),
        *("--set", "num_inference_steps=20"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{output}\n" and done.stderr.splitlines()[-1] == "False"
    shown = ["planning", "1. make the coat red", "2. remove the man behind the car", "editing"]
    assert done.stderr.splitlines()[:4] == shown
    assert len(planner.requests) == 2 and len(editor.requests) == calls
    body = editor.requests[0][2]
    asked = "make the coat red. remove the man behind the car" if turns == "single" else "make the coat red"
    assert asked.encode() in body and b"num_inference_steps" in body and b"brush" in body
    expected = pixels(photo) if calls == 2 else 255 - pixels(photo)
    assert pixels(output).shape == expected.shape and np.abs(pixels(output) - expected).max() <= 12  # resized twice


def test_what_a_critic_behind_an_address_finds_missing_is_asked_for_again(servers, photo, tmp_path, run):
    planner, editor = servers

    def answer(body: bytes) -> dict:
        question = json.loads(body)["messages"][0]["content"][-1]["text"]
        return said("no" if "gone" in question and len(editor.requests) == 1 else "yes")

    output = tmp_path / "edited.png"
    with scripted((200, answer, {})) as critic:
        words = ("edit", photo, "coat like the car, and lose the man", "--output", output, "--reflect", 2)
        code, printed, error = run(
            *(*words, "--planner", planner.url, "--planner_model", "eyes", "--editor", editor.url),
            *("--editor_model", "brush", "--critic_url", critic.url, "--critic_model", "judge"),
        )
        assert critic.requests and {json.loads(body)["model"] for *_, body in critic.requests} == {"judge"}
    assert (code, printed) == (0, f"{output}\n"), error
    first, again = (body for *_, body in editor.requests)
    assert b"make the coat red" in first and b"make the coat red" not in again and b"remove the man" in again
    assert np.abs(pixels(output) - pixels(photo)).max() <= 12  # inverted twice, resized twice


@pytest.mark.parametrize("planned", ["by a server", "by hand, beside a bundle"])
@pytest.mark.parametrize("done", [0, 1])
def test_ctrl_c_keeps_the_turns_that_a_server_has_done(servers, bundle, photo, tmp_path, done, planned):
    planner, editor = servers
    editor.replies[done:] = [stall]
    output = tmp_path / "edited.png"
    options = ["--output", output, "--turns", "multi", "--editor", editor.url, "--editor_model", "brush"]
    if planned == "by a server":
        words = ["coat like the car, and lose the man", "--planner", planner.url, "--planner_model", "eyes"]
    else:
        plan = tmp_path / "plan.json"
        plan.write_text(json.dumps({"instruction": "", "requests": REQUESTS}), encoding="utf-8")
        words = ["--plan", plan, "--model", bundle]
    command = [sys.executable, "-m", "diffusers_r1", *map(str, ["edit", photo, *words, *options])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len(editor.requests) <= done:  # it is kept waiting by the next one
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    if not done:
        assert printed == "" and not output.exists()
        return
    assert printed == f"{output}\n" and f"Stopped: {output} has the first 1 of 2 sub-requests." in error
    assert np.abs(pixels(output) - (255 - pixels(photo))).max() <= 12  # inverted once, resized twice


def test_a_plan_is_printed_without_torch(servers, photo):
    planner, _ = servers
    done = run_apart(
        "plan", photo, "coat like the car, and lose the man", "--planner", planner.url, "--planner_model", "eyes"
    )
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == "False"
    plan = json.loads(done.stdout)
    assert plan["requests"] == REQUESTS and not plan["fallback"] and len(plan["edits"]) == 2


def test_a_server_that_is_not_there_is_a_failure_and_no_plan(photo, tmp_path, run, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    nowhere = ("--planner", "http://127.0.0.1:9/v1", "--planner_model", "eyes")
    code, printed, error = run("plan", photo, "make it blue", *nowhere)
    assert (code, printed) == (1, "") and "http://127.0.0.1:9/v1" in error.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--planner", "http://x/v1"], "name the --editor too"),
        (["--editor", "http://x/v1", "--editor_model", "m"], "name the --planner too"),
        (["--editor", "http://x/v1"], "or --planner none to send the instruction as it is"),
        (["--planner", "somewhere", "--planner_model", "m", "--editor", "a"], "--planner_model goes with"),
        (["--model", "{bundle}", "--editor_model", "m"], "--editor_model goes with"),
        (["--model", "{bundle}", "--planner_base", "x"], "--planner_base goes with"),
        (["--planner", "http://x/v1", "--planner_base", "x", "--editor", "http://x/v1"], "--planner_base goes with"),
    ],
)
def test_parts_that_make_no_whole(run, bundle, photo, tmp_path, words, said):
    words = [word.format(bundle=bundle) for word in words]
    code, printed, error = run("edit", photo, "make it blue", "--output", tmp_path / "out.png", *words)
    assert (code, printed) == (2, "") and said in error.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["app", "serve"])
def test_who_cannot_do_without_a_planner_does_not_advise_it(run, verb):
    code, _, error = run(verb, "--editor", "http://x/v1")
    assert code == 2 and "name the --planner too" in error.splitlines()[-1] and "--planner none" not in error
    helps = {name: " ".join(run(name, "--help")[1].split()) for name in (verb, "edit")}
    assert [name for name, words in helps.items() if "none: the instruction goes" in words] == ["edit"]


def test_bad_calls_are_refused_before_anything_is_sent(servers, photo, tmp_path, run):
    planner, editor = servers
    parts = ("--planner", planner.url, "--planner_model", "m", "--editor", editor.url, "--editor_model", "m")
    for words, expected in [
        (["make it blue", "--turns", "composed"], "needs an editor that is loaded here"),
        (["make it blue", "--num_images_per_prompt", "0"], "must be 1 or more"),
        ([" "], "empty"),
        (["make it blue", "--set", 'prompt="x"'], "not for the caller"),
        (["make it blue", "--set", "width=3"], "go together"),
        (["make it blue", "--max_new_tokens", "0"], "must be 1 or more"),
    ]:
        code, printed, error = run("edit", photo, *words, "--output", tmp_path / "out.png", *parts)
        assert (code, printed) == (2, "") and expected in error.splitlines()[-1], error
    assert not planner.requests and not editor.requests and not list(tmp_path.iterdir())


def test_a_bundles_planner_with_an_editor_behind_an_address(servers, bundle, photo, tmp_path, run):
    _, editor = servers
    output = tmp_path / "out.png"
    options = ("--model", bundle, "--editor", editor.url, "--editor_model", "brush", "--max_new_tokens", 4)
    code, printed, error = run("edit", photo, "make it blue", "--output", output, *options)
    assert (code, printed) == (0, f"{output}\n"), error
    assert b"make it blue" in editor.requests[0][2] and pixels(output).shape == (64, 72, 3)
