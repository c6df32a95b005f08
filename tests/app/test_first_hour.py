"""The commands of docs/first_hour.md that serve a page, typed as they stand there; servers' addresses and the port are others."""

import asyncio
import base64
import os
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from first_hour import two_servers, typed
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from openai_server import REQUESTS
from PIL import Image
from playwright.sync_api import expect


pytestmark = pytest.mark.tiny
PATIENCE = 120_000  # milliseconds


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.linear_gradient("L").convert("RGB").resize((720, 540)).save(path)
    return path


@pytest.fixture
def start(tmp_path):
    """Starts what stands under a heading; gives its address on this machine."""
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path / "uploads")}
    started = []
    with two_servers() as servers, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()

        def start(heading):
            (command,) = typed(heading, servers)
            command = f"{command} --port {port}"
            started.append(
                subprocess.Popen(
                    command, shell=True, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
                )
            )
            assert started[0].stdout.readline().startswith("http://")
            return f"http://127.0.0.1:{port}/"

        yield start
        for process in started:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
            process.stdout.close()


def test_on_a_phone(start, picture, browser):
    address = start("On a phone")
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(address)
    page.get_by_label("username").fill("ann")
    page.get_by_label("password").fill("correct horse")
    page.get_by_role("button", name="Login").tap()
    page.set_input_files("#picture input[type=file]", picture)
    expect(page.locator("#picture img")).to_be_visible(timeout=PATIENCE)
    page.fill("#instruction textarea", "match the coat to the car, and lose the man behind it")
    page.tap("#plan-and-edit")
    result = page.locator("#result img.after")
    expect(result).to_be_visible(timeout=PATIENCE)
    page.wait_for_timeout(500)
    box = result.bounding_box()
    assert 0 <= box["y"] and box["y"] + box["height"] <= 844 and box["x"] + box["width"] <= 390
    context.close()


def test_from_an_assistant(start, picture):
    address = start("From an assistant")
    image = f"data:image/jpeg;base64,{base64.b64encode(picture.read_bytes()).decode()}"

    async def talk():
        async with streamable_http_client(f"{address}gradio_api/mcp/") as (read, write, _):
            async with ClientSession(read, write) as client:
                await client.initialize()
                instruction = "match the coat to the car, and lose the man behind it"
                return await client.call_tool("plan_and_edit", {"image": image, "instruction": instruction})

    with ThreadPoolExecutor(1) as apart:  # the browser of this file keeps an event loop in this thread
        result = apart.submit(asyncio.run, asyncio.wait_for(talk(), 300)).result()
    assert not result.isError
    assert any(one.type == "image" for one in result.content)
    assert any(one.type == "text" and REQUESTS[0] in one.text for one in result.content)
