"""The commands of docs/first_hour.md, typed as they stand there; only the servers' addresses are others."""

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from first_hour import two_servers, typed
from openai_server import REQUESTS
from PIL import Image


@pytest.fixture
def servers():
    with two_servers() as servers:
        yield servers


@pytest.fixture
def desk(tmp_path):
    """A folder with a photo, and twenty more in another one."""
    (tmp_path / "photos").mkdir()
    picture = Image.linear_gradient("L").convert("RGB").resize((72, 64))
    for name in ("photo.jpg", *(f"photos/{number:02}.jpg" for number in range(20))):
        picture.save(tmp_path / name, quality=95)
    return tmp_path


def run(command: str, desk: Path) -> subprocess.CompletedProcess:
    return subprocess.run(command, shell=True, cwd=desk, capture_output=True, text=True, timeout=300)


def test_a_photo_of_your_own(servers, desk):
    (command,) = typed("A photo of your own", servers)
    done = run(command, desk)
    assert (done.returncode, done.stdout) == (0, "edited.jpg\n"), done.stderr
    with Image.open(desk / "edited.jpg") as after, Image.open(desk / "photo.jpg") as before:
        assert after.size == before.size and after.quantization == before.quantization


def test_a_folder_stopped_and_gone_on_with(servers, desk):
    planner, _ = servers
    (command,) = typed("A folder of 20 photos", servers)
    assert typed("Stop, and go on", servers) == [command]
    process = subprocess.Popen(
        f"exec {command}", shell=True, cwd=desk, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    first = process.stdout.readline()  # one is done
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert first.startswith("brighter/")
    assert process.returncode == 130 and "the same command goes on with the rest" in said, said
    done = {path.name: path.stat().st_mtime_ns for path in (desk / "brighter").glob("*.jpg")}
    assert 1 <= len(done) < 20
    again = run(command, desk)
    assert again.returncode == 0, again.stderr
    assert "20 of 20 edited, 0 failed, 0 left" in again.stderr
    assert sorted(path.name for path in (desk / "brighter").glob("*.jpg")) == [
        f"{number:02}.jpg" for number in range(20)
    ]
    assert all((desk / "brighter" / name).stat().st_mtime_ns == stamp for name, stamp in done.items())
    asked = len(planner.requests)
    assert run(command, desk).returncode == 0 and len(planner.requests) == asked  # nothing to do


def test_a_wrong_key(servers, desk):
    planner, editor = servers
    for server in servers:
        server.replies[:] = [(401, {"error": {"message": "that is no key"}}, {})]
    (command,) = typed("A wrong key", servers)
    done = run(command, desk)
    line = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (1, "") and "401" in line and planner.url in line
    assert "sk-not-ours" not in done.stderr and not (desk / "edited.png").exists()
    assert {path for path, _, _ in editor.requests} <= {
        "/v1/models"
    }  # asked for its models' names, and sent no picture


def test_a_plan_changed_by_hand(servers, desk):
    _, editor = servers
    plan, edit = typed("A plan changed by hand", servers)
    assert run(plan, desk).returncode == 0
    text = (desk / "plan.json").read_text(encoding="utf-8")
    (desk / "plan.json").write_text(text.replace(REQUESTS[0], "paint the coat green"), encoding="utf-8")
    done = run(edit, desk)
    assert (done.returncode, done.stdout) == (0, "changed.jpg\n"), done.stderr
    assert f"paint the coat green. {REQUESTS[1]}".encode() in editor.requests[-1][2]
    with Image.open(desk / "changed.jpg") as after, Image.open(desk / "photo.jpg") as before:
        assert np.abs(255 - np.asarray(before, int) - np.asarray(after, int)).mean() < 3


def test_by_an_address(servers, desk):
    import openai

    (command,) = typed("By an address", servers)
    process = subprocess.Popen(
        f"exec {command.replace('8002', '0')}",
        shell=True,
        cwd=desk,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "DIFFUSERS_R1_API_KEY": ""},
    )
    try:
        address = process.stdout.readline().strip()
        with openai.OpenAI(base_url=address, api_key="x") as client, (desk / "photo.jpg").open("rb") as photo:
            answer = client.images.edit(image=photo, prompt="tidy up", model="imageedit-r1")
        assert answer.plan["requests"] == REQUESTS and answer.data[0].b64_json
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        process.stdout.close()
