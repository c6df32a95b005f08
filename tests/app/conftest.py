"""A page of the shipped bundle, and one for photos, served by the command in processes of their own; a browser to look at them."""

import base64
import os
import shutil
import subprocess

import openai_server
import pytest
from app_server import serve
from PIL import Image

from diffusers_r1.plan import Edit
from diffusers_r1.scenes import TEST_SEEDS, render, sample_task
from diffusers_r1.tags import write_decomposition, write_sequence


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("served") / "log") as address:
        yield address


# What a planner might say about a photo, not all of it kind to a page.
EDITS = [
    Edit("recolor", "coat of the woman in front", "red like the car"),
    Edit("remove", "<img src=x onerror='window.attacked = 1'>", "nothing & nobody"),
]
REQUESTS = ["Make the coat of the woman in front as red as the car.", "Remove <b>the man</b> in the background."]
ANSWER = write_decomposition(EDITS, "a street") + write_sequence(REQUESTS)


class Models:
    """A planner and an editor behind one address. `before_answer(body)` is called with each question first."""

    def __init__(self):
        self.before_answer = lambda body: None

    def __call__(self, body):
        self.before_answer(body)
        if openai_server.PNG_START in body:
            return {"data": [{"b64_json": base64.b64encode(openai_server.inverted(body)).decode()}]}
        return openai_server.said(ANSWER)


@pytest.fixture(scope="session")
def models():
    """[`Models`], and the options that make the page use them."""
    models = Models()
    with openai_server.scripted((200, models, {})) as server:
        models.planner = ["--planner", server.url, "--planner_model", "plans"]
        models.editor = ["--editor", server.url, "--editor_model", "edits"]
        yield models


@pytest.fixture(scope="session")
def photo_page(models, tmp_path_factory):
    """The address of a page for photos."""
    with serve(tmp_path_factory.mktemp("photos") / "log", *models.planner, *models.editor) as address:
        yield address


@pytest.fixture(scope="session")
def large_photo(tmp_path_factory):
    """25 megapixels, as of a camera."""
    path = tmp_path_factory.mktemp("large") / "photo.jpg"
    Image.linear_gradient("L").resize((5800, 4350)).convert("RGB").save(path)
    return path


@pytest.fixture(scope="session")
def task():
    return sample_task(TEST_SEEDS, "simple")


@pytest.fixture(scope="session")
def photo(tmp_path_factory, task):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    render(task.scene).save(path)
    return path


@pytest.fixture(scope="session")
def chromium():
    """The path of a Chromium; where there is none it is installed, if that can be done."""
    found = find_chromium()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {"check": True, "stdout": subprocess.DEVNULL}
        subprocess.run(["apt-get", "update"], **quiet)
        subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", "chromium"], **quiet)
        found = find_chromium()
    if found is None:
        # Where the project is checked nothing may go untested; a contributor's machine may lack a browser.
        (pytest.fail if os.environ.get("CI") else pytest.skip)("there is no Chromium: apt-get install chromium")
    return found


def find_chromium():
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


@pytest.fixture(scope="module")  # an event loop runs as long as there is one, and no other one beside it
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root, whom containers run as.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
