import socket
import subprocess
import sys

import pytest

from diffusers_r1.installing import install_line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "many"], "--port"),
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


def test_mcp_clients_do_not_get_round_a_password(run, monkeypatch):
    monkeypatch.setenv("DIFFUSERS_R1_PASSWORD", "correct horse")
    code, printed, error = run("app", "--mcp", "--user", "ann")
    assert (code, printed) == (2, "") and "without the password" in error.splitlines()[-1]


def test_without_gradio_it_says_what_to_install():
    code = "import sys; sys.modules['gradio'] = None; from diffusers_r1.commands import main; sys.exit(main(['app']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and install_line("app") in done.stderr.splitlines()[-1]


@pytest.mark.tiny
def test_a_port_that_is_taken_is_said_to_be(bundle):
    code = "import sys; from diffusers_r1.commands import main; sys.exit(main(sys.argv[1:]))"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ["app", "--model", str(bundle), "--port", str(taken.getsockname()[1])]
        # In a process of its own: Gradio leaves the sockets open with which it looks for a port.
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "") and "empty port" in done.stderr.splitlines()[-1]
