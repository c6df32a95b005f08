"""A page of the shipped bundle, served by the command in a process of its own, and a browser to look at it."""

import os
import shutil
import subprocess

import pytest
from app_server import serve

from diffusers_r1.scenes import TEST_SEEDS, render, sample_task


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("served") / "log") as address:
        yield address


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


@pytest.fixture(scope="session")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root, whom containers run as.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
