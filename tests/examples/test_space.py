"""The Space's folder is what the Hub expects, and its script serves the page."""

import re
import socket
from pathlib import Path

import httpx
import pytest
from app_server import serve_script
from gradio_client import Client, handle_file
from huggingface_hub import metadata_load

from diffusers_r1.scenes import TEST_SEEDS, sample_task


SPACE = Path(__file__).parents[2] / "examples" / "space"


def test_the_front_matter_names_the_script_and_an_sdk_that_the_extra_allows():
    settings = metadata_load(SPACE / "README.md")
    assert (settings["sdk"], settings["license"]) == ("gradio", "apache-2.0")
    assert (SPACE / settings["app_file"]).is_file()
    assert int(settings["sdk_version"].split(".")[0]) >= 6  # as setup.py asks of Gradio
    assert len(settings["short_description"]) <= 60
    assert re.fullmatch(r"diffusers-r1\[app,remote\]\n", (SPACE / "requirements.txt").read_text())


@pytest.mark.tiny
def test_the_script_serves_the_shipped_bundle(tmp_path):
    task = sample_task(TEST_SEEDS, "simple")
    task.image.save(tmp_path / "scene.png")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serve_script(tmp_path / "log", [SPACE / "app.py"], GRADIO_SERVER_PORT=str(port)) as address:
        assert address == f"http://127.0.0.1:{port}/"
        client = Client(address, verbose=False)
        plan = client.predict(handle_file(tmp_path / "scene.png"), task.instruction, api_name="/plan")
    assert plan["requests"] == list(task.sub_requests)


@pytest.mark.tiny
def test_with_planner_and_editor_it_is_a_page_for_photos(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    names = {
        "PLANNER": "http://127.0.0.1:1/v1",
        "PLANNER_MODEL": "p",
        "EDITOR": "http://127.0.0.1:1/v1",
        "EDITOR_MODEL": "e",
    }
    with serve_script(tmp_path / "log", [SPACE / "app.py"], GRADIO_SERVER_PORT=str(port), **names) as address:
        page = httpx.get(f"{address}config", timeout=60).text
    assert "asks e at http://127.0.0.1:1/v1 for a picture" in page and "shapes" not in page
