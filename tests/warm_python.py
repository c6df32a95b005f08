"""A Python that has loaded torch and its like: scripts of tests run in forks of it, and do not load them once more.

A script that trains for a few steps spends most of its time on imports. In a fork it finds what it finds in a Python of its own:
its words, environment, folder, streams and exit code. What is read from the environment by an import is read once, when the first script
starts, and the Hub is out of reach then. What a test is about in starting a script, it starts by itself: launchers, kills, threads.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from unittest import mock


PYTHON = multiprocessing.get_context("forkserver")
PYTHON.set_forkserver_preload(
    [
        "diffusers_r1.evaluation",
        "diffusers_r1.training.grouped_sft",
        "diffusers_r1.training.picture_trainer",
        "diffusers_r1.training.results",
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_instruct_pix2pix",
        "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
        "transformers.models.qwen2_5_vl.processing_qwen2_5_vl",
    ]
)


def run_script(script: Path, *words: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `script` with these words to its end; `env` is that of the tests, where it is not given."""
    command = [str(script), *map(str, words)]
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("stdout", "stderr")]
        process = PYTHON.Process(target=_run, args=(command, dict(env or os.environ), streams))
        with mock.patch.dict(os.environ, HF_HUB_OFFLINE="1"):
            process.start()
        process.join()
        out, err = (stream.read_text(encoding="utf-8") for stream in streams)
    return subprocess.CompletedProcess(command, process.exitcode, out, err)


def _run(command: list[str], env: dict[str, str], streams: list[Path]) -> None:
    for descriptor, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[:] = command
    sys.path.insert(0, str(Path(command[0]).parent))
    runpy.run_path(command[0], run_name="__main__")
