"""The page, served by the command in a process of its own."""

import os
import subprocess
import sys
from contextlib import contextmanager


COMMAND = "import sys; from diffusers_r1.commands import main; sys.exit(main(sys.argv[1:]))"


@contextmanager
def serve(log, *options, **environment):
    """The address at which `diffusers-r1 app` answers."""
    with serve_script(log, ["-c", COMMAND, "app", *options], **environment) as address:
        yield address


@contextmanager
def serve_script(log, words, **environment):
    """The address that a Python script prints first; its stderr goes to `log`, and uploads beside it."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env={**os.environ, "GRADIO_TEMP_DIR": str(log.parent / "uploads"), **environment},
        )
    try:
        address = process.stdout.readline().strip()
        assert address.startswith(("http://127.0.0.1:", "http://[::1]:")), log.read_text()[-3000:]
        yield address
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
