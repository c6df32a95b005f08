"""An MCP client finds the page's calls as tools, and calls them."""

import asyncio
import base64
import io
import json

import httpx
import pytest
from app_server import serve
from gradio_client import Client, handle_file
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

from diffusers_r1.images import load_picture, to_png
from diffusers_r1.plan import EditPlan
from diffusers_r1.scenes import score


pytestmark = pytest.mark.tiny


@pytest.fixture(scope="module")
def mcp_address(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("mcp") / "log", "--mcp") as address:
        yield address


@pytest.fixture(scope="module")
def picture(task):
    return f"data:image/png;base64,{base64.b64encode(to_png(task.image)).decode()}"


def talk(address, *calls, listed=False):
    """What an MCP client gets for calls, `(tool, arguments)`, all at once; or the tools."""

    async def session():
        async with streamable_http_client(f"{address}gradio_api/mcp/") as (read, write, _):
            async with ClientSession(read, write) as client:
                await client.initialize()
                if listed:
                    return (await client.list_tools()).tools
                return await asyncio.gather(*(client.call_tool(*call) for call in calls))

    return asyncio.run(asyncio.wait_for(session(), 300))


def pictures(result):
    return [Image.open(io.BytesIO(base64.b64decode(one.data))) for one in result.content if one.type == "image"]


def test_the_tools_say_what_they_do_and_take(mcp_address):
    tools = {tool.name: tool for tool in talk(mcp_address, listed=True)}
    assert set(tools) == {"plan", "edit", "plan_and_edit"}
    assert tools["plan"].description.startswith("Plan an edit of a picture without touching a pixel")
    taken = {name: tool.inputSchema["properties"] for name, tool in tools.items()}
    assert {name: list(arguments) for name, arguments in taken.items()} == {
        "plan": ["image", "instruction"],
        "edit": ["image", "plan", "turns", "seed"],
        "plan_and_edit": ["image", "instruction", "turns", "seed"],
    }
    assert all(argument["description"] for arguments in taken.values() for argument in arguments.values())
    assert taken["edit"]["plan"]["properties"]["requests"]["items"] == {"type": "string"}
    assert taken["edit"]["turns"]["enum"] == ["single", "multi"] and taken["edit"]["seed"]["type"] == "integer"
    assert tools["edit"].inputSchema["required"] == ["image", "plan"]


def test_a_client_plans_and_edits(mcp_address, picture, task):
    [planned] = talk(mcp_address, ("plan", {"image": picture, "instruction": task.instruction}))
    plan = json.loads(planned.content[0].text)
    assert EditPlan.from_dict(plan).edits == task.edits
    [edited] = talk(mcp_address, ("edit", {"image": picture, "plan": plan, "turns": "multi", "seed": 5}))
    assert not edited.isError
    assert score(load_picture(pictures(edited)[0]), task) == [True] * 10
    both = {"image": picture, "instruction": task.instruction, "seed": 5}
    [at_once] = talk(mcp_address, ("plan_and_edit", both))
    assert score(load_picture(pictures(at_once)[0]), task) == [True] * 10
    assert json.loads(at_once.content[-1].text)["requests"] == plan["requests"]


def test_errors_are_errors(mcp_address, picture):
    results = talk(
        mcp_address,
        ("plan", {"image": picture, "instruction": " "}),
        ("edit", {"image": picture, "plan": {"requests": [""]}}),
        ("edit", {"image": picture, "plan": {"requests": ["a"]}, "turns": "double"}),
        ("plan", {"image": "/etc/passwd", "instruction": "a"}),
        ("plan", {"image": "data:image/png;base64,aGVsbG8=", "instruction": "a"}),
    )
    assert all(result.isError for result in results)
    said = [result.content[0].text for result in results]
    expected = ("no instruction yet", "sub-request", "double", "Invalid file data", "cannot be used")
    assert all(words in text for words, text in zip(expected, said)), said


def test_twenty_at_once_get_each_their_own(mcp_address, picture):
    plan = {"requests": ["make the background pink"]}
    calls = [("edit", {"image": picture, "plan": plan, "seed": seed % 4}) for seed in range(20)]
    results = talk(mcp_address, *calls)
    assert not any(result.isError for result in results)
    made = [pictures(result)[0].tobytes() for result in results]
    assert all(made[number] == made[number % 4] for number in range(20)) and len(set(made)) == 4


def test_the_page_and_its_api_are_there_as_well(mcp_address, photo, task, tmp_path):
    assert httpx.get(mcp_address, timeout=60).status_code == 200
    client = Client(mcp_address, verbose=False, download_files=tmp_path)
    plan = client.predict(handle_file(photo), task.instruction, api_name="/plan")
    assert EditPlan.from_dict(plan).edits == task.edits
