"""What the tests of docs/first_hour.md share: its commands as they stand there, with the addresses of servers of a test."""

import json
import re
import sys
from contextlib import contextmanager
from pathlib import Path

from openai_server import editor_reply, planner_replies, scripted


PAGE = Path(__file__).parents[1] / "docs" / "first_hour.md"
LIST = {"object": "list", "data": [{"id": "the only one"}]}


@contextmanager
def two_servers():
    """A planner and an editor, each with one model."""
    with scripted((200, planner_replies, {})) as planner, scripted((200, editor_reply, {})) as editor:
        for server in (planner, editor):
            server.files["/v1/models"] = json.dumps(LIST).encode()
        yield planner, editor


def typed(heading, servers):
    """The commands under a heading."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    lines = re.search(r"```sh\n(.*?)```", section, flags=re.DOTALL)[1]
    for number, server in enumerate(servers):
        lines = lines.replace(f"http://localhost:800{number}/v1", server.url)
    return [
        re.sub(r"(^|\s)diffusers-r1 ", rf'\1"{sys.executable}" -m diffusers_r1 ', line) for line in lines.splitlines()
    ]
