import re
import subprocess
import sys

import pytest

from diffusers_r1 import __version__, commands
from diffusers_r1.commands import demo


@pytest.mark.parametrize("verb", [None, *commands.VERBS])
def test_help_answers_without_torch_and_diffusers(verb):
    words = ["--help"] if verb is None else [verb, "--help"]
    code = (
        "import sys; from diffusers_r1.commands import main; code = main(sys.argv[1:]);"
        "print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert done.stdout.startswith("usage: diffusers-r1")


def test_help_lists_every_verb(run):
    _, printed, _ = run("--help")
    assert all(re.search(rf"^ +{verb} +{line}$", printed, re.MULTILINE) for verb, line in commands.VERBS.items())


def test_version(run):
    assert run("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["fly"],
        ["edit"],
        ["edit", "photo.png", "make it blue", "and red"],
        ["edit", "photo.png", "make it blue", "--turns", "double"],
        ["edit", "photo.png", "make it blue", "--seed", "-1"],
        ["plan", "photo.png"],
        ["plan", "photo.png", "make it blue", "--dtype", "int8"],
    ],
)
def test_bad_use_is_one_line_and_2(run, words):
    code, printed, error = run(*words)
    assert (code, printed) == (2, "")
    assert error.startswith("diffusers-r1") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (commands.UsageError("no such file"), 2, "diffusers-r1 demo: error: no such file\n"),
        (RuntimeError("out of\nmemory"), 1, "diffusers-r1 demo: error: out of memory\n"),
        (MemoryError(), 1, "diffusers-r1 demo: error: MemoryError\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_happens_in_a_verb_decides_the_exit_code(run, monkeypatch, error, code, said):
    def fail(args):
        raise error

    monkeypatch.setattr(demo, "run", fail)
    assert run("demo") == (code, "", said)


def test_a_file_name_that_is_no_text_is_printed_as_it_is_and_written_out_in_a_message():
    code = (
        "import sys; from diffusers_r1.commands import demo, main\n"
        "def run(args):\n    print('caf\\udce9.png')\n    raise ValueError('no caf\\udce9.png')\n"
        "demo.run = run; sys.exit(main(['demo']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert (done.returncode, done.stdout.split()) == (1, [b"caf\xe9.png"]), done.stderr
    assert done.stderr.split() == rb"diffusers-r1 demo: error: no caf\udce9.png".split()


def test_traceback_lets_an_error_through(run, monkeypatch):
    def fail(args):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(demo, "run", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        run("--traceback", "demo")
