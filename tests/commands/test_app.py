import re
import socket
import subprocess
import sys

import httpx
import pytest
from app_server import serve

from diffusers_r1.installing import install_line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "many"], "--port"),
        (["--port", "70000"], "--port"),
        (["--max_pixels", "0"], "--max_pixels"),
        (["--max_waiting", "-1"], "--max_waiting"),
        (["--user", "ann"], "DIFFUSERS_R1_PASSWORD"),
        (["--model", "no-such-bundle"], "no-such-bundle"),
    ],
)
def test_bad_use_says_what_is_wrong(run, monkeypatch, words, said):
    monkeypatch.delenv("DIFFUSERS_R1_PASSWORD", raising=False)
    code, printed, error = run("app", *words)
    assert (code, printed) == (2, "")
    assert error.splitlines()[-1].startswith("diffusers-r1 app: error: ") and said in error


@pytest.mark.tiny
def test_a_page_at_an_address_of_ipv6_and_at_any_port(tmp_path):
    elsewhere = ("--planner", "http://x/v1", "--planner_model", "m", "--editor", "http://x/v1", "--editor_model", "m")
    with serve(tmp_path / "log", *elsewhere, "--host", "::1", "--port", "0") as address:
        assert re.fullmatch(r"http://\[::1\]:78\d\d/", address)
        assert httpx.get(address).is_success


def test_mcp_clients_do_not_get_round_a_password(run, monkeypatch):
    monkeypatch.setenv("DIFFUSERS_R1_PASSWORD", "correct horse")
    code, printed, error = run("app", "--mcp", "--user", "ann")
    assert (code, printed) == (2, "") and "without the password" in error.splitlines()[-1]


def test_without_gradio_it_says_what_to_install():
    code = "import sys; sys.modules['gradio'] = None; from diffusers_r1.commands import main; sys.exit(main(['app']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and install_line("app") in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("where", [["--port", "{taken}"], ["--host", "256.0.0.1"]])
def test_where_it_cannot_listen_is_said_before_a_model_loads(run, where):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = [word.format(taken=taken.getsockname()[1]) for word in where]
        code, printed, error = run("app", "--model", "no-such-bundle", *words)
    assert (code, printed) == (2, "") and " ".join(words) in error.splitlines()[-1]
