"""The documentation keeps its word: code blocks and notebooks run, what is named is there, made parts are fresh."""

import ast
import os
import pkgutil
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from PIL import Image
from safetensors.torch import load_file

from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.commands import make_parser
from diffusers_r1.names import resolve


ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples" / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob(".ai/skills/*/SKILL.md")),
]
NOTEBOOKS = sorted(ROOT.glob("docs/notebooks/*.ipynb"))
LARGE = "<!-- large weights -->"


def blocks(large: bool) -> list:
    """The Python blocks of all pages, with the line at which each begins: those marked as of large weights, or the others."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for block in re.finditer(rf"({LARGE}\n)?```python\n(.*?)```", text, flags=re.DOTALL):
            if bool(block[1]) == large:
                line = text[: block.start(2)].count("\n") + 1
                found.append(pytest.param(page, block[2], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


# Blocks and notebooks
# --------------------


@pytest.mark.tiny
@pytest.mark.parametrize(("page", "code"), blocks(large=False))
def test_a_block_runs(page, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "gradio" in code:  # it leaves sockets and event loops open, which here would count as failures of later tests
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    else:
        exec(compile(code, str(page), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize(("page", "code"), blocks(large=True))
def test_what_a_block_of_large_weights_imports_is_there(page, code):
    imports = [node for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, type_ignores=[]), str(page), "exec"), {})


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Runs a notebook in a folder of its own, and returns the folder and the cells."""

    def executed(name: str) -> tuple[Path, list]:
        folder = tmp_path_factory.mktemp(name)
        notebook = nbformat.read(ROOT / "docs" / "notebooks" / f"{name}.ipynb", as_version=4)
        NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(folder)}}).execute()
        return folder, notebook.cells

    return executed


def printed(cells: list) -> str:
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output.text for output in outputs if output.get("name") == "stderr" and "Error" in output.text]
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert cells and not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.tiny
def test_the_quick_tour_runs(executed):
    _, cells = executed("quick_tour")
    said = printed(cells)
    assert "10 parts of the picture are right" in said and '"requests"' in said
    assert "True - no edit in the decomposition" in said
    pictures = [
        output for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 4


@pytest.mark.tiny
def test_the_training_notebook_trains(executed, monkeypatch):
    for name, value in {"STEPS": "2", "COMPLETIONS": "16", "HELD_OUT": "4"}.items():
        monkeypatch.setenv(name, value)
    folder, cells = executed("train_your_planner")
    assert re.search(r"exact +\d\.\d{3} -> \d\.\d{3}", printed(cells))
    before = load_file(resolve("imageedit-r1-scenes-sft") / "model.safetensors")
    after = load_file(folder / "runs" / "my-bundle" / "planner" / "model.safetensors")
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name].float(), after[name])}
    assert changed and not any("visual" in name for name in changed)
    card = (folder / "runs" / "my-bundle" / "README.md").read_text()
    assert "## A plan" in card
    assert ImageEditR1Pipeline.from_pretrained(folder / "runs" / "my-bundle").sequencer is not None


# Commands
# --------


def shell_commands() -> list:
    """Every `diffusers-r1 ...` in the shell blocks of all pages, its lines joined."""
    found = []
    for page in PAGES:
        for block in re.finditer(r"```(?:sh|bash)\n(.*?)```", page.read_text(), flags=re.DOTALL):
            for line in block[1].replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0].endswith("diffusers-r1"):
                    found.append(pytest.param(words[1:], id=f"{page.relative_to(ROOT)}: {line.strip()[:80]}"))
    return found


@pytest.mark.parametrize("words", shell_commands())
def test_a_command_has_verbs_and_options_that_are_there(words, capsys):
    ends = [number for number, word in enumerate(words) if word in ("|", ">", "&&", ";", "&")]
    try:
        make_parser().parse_args(words[: min(ends, default=None)])
    except SystemExit:
        pytest.fail(capsys.readouterr().err)


def test_the_skill_has_the_form_that_agents_read():
    (page,) = ROOT.glob(".ai/skills/*/SKILL.md")
    front = re.match(r"---\n(.*?)\n---\n", page.read_text(), flags=re.DOTALL)[1]
    assert f"name: {page.parent.name}\n" in front and "description: >\n" in front


# What a newcomer copies
# ----------------------


@pytest.fixture
def clone(tmp_path) -> Path:
    """A clone whose environment is made: the one of this test run, under the names that the commands have for it."""
    folder = tmp_path / "clone"
    shutil.copytree(
        ROOT,
        folder,
        ignore=shutil.ignore_patterns(".git", ".venv*", "site", "runs", "demo", "__pycache__", ".*_cache"),
    )
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, module in {
        "python": "",
        "accelerate": "-m accelerate.commands.accelerate_cli",
        "diffusers-r1": '-c "import sys; from diffusers_r1.commands import main; sys.exit(main())"',
    }.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        (programs / name).chmod(0o755)
    for made in ("pyvenv.cfg", "demo.stamp"):
        (folder / ".venv" / made).touch()
    return folder


def commands(page: str, heading: str) -> list[str]:
    """The lines of the first shell block under a heading, without comments."""
    section = (ROOT / page).read_text().partition(f"# {heading}\n")[2]
    block = re.search(r"```sh\n(.*?)```", section, flags=re.DOTALL)[1]
    return [line.partition(" #")[0].strip() for line in block.splitlines()]


def run(command: str, clone: Path) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(clone / "src")}
    done = subprocess.run(command, shell=True, cwd=clone, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def width_of_picture_named_in(said: str, clone: Path) -> int:
    with Image.open(clone / re.search(r"^Picture: (\S+\.png)", said, flags=re.MULTILINE)[1]) as picture:
        return picture.width


@pytest.mark.tiny
def test_a_picture_in_two_commands(clone):
    demo, _ = commands("README.md", "Two commands")
    assert width_of_picture_named_in(run(demo, clone), clone) > 500
    install, demo = commands("docs/index.md", "A picture in two commands")
    assert install == "python3 -m venv .venv && .venv/bin/pip install -e ."
    shutil.rmtree(clone / "demo")
    assert width_of_picture_named_in(run(demo, clone), clone) > 500


@pytest.mark.tiny
def test_a_trained_planner_in_three_commands(clone):
    install, train, look = commands("README.md", "Train the planner")
    assert install == 'python3 -m venv .venv && .venv/bin/pip install -e ".[train]"'
    few = "--max_steps 2 --per_device_train_batch_size 16 --validation_rows 4 --validation_steps 2"
    run(f"{train} {few}", clone)
    assert width_of_picture_named_in(run(look, clone), clone) > 500
    before = load_file(resolve("imageedit-r1-scenes-sft") / "model.safetensors")
    after = load_file(clone / "runs" / "scenes-grpo" / "bundle" / "planner" / "model.safetensors")
    assert any(not torch.equal(before[name].float(), after[name].float()) for name in before)


# What the pages name
# -------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_names_in_code_are_there(page):
    text = page.read_text()
    for path in re.findall(r"(?<![\w/.])((?:examples|benchmarks)/[\w/-]+\.\w+)", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`(diffusers_r1(?:\.\w+)+)`", text):
        pkgutil.resolve_name(name)


def test_every_recipe_and_launcher_is_explained():
    page = (ROOT / "docs" / "recipes.md").read_text()
    for path in (ROOT / "examples" / "recipes").glob("*.yaml"):
        assert f"| `{path.name}` |" in page
    for path in (ROOT / "examples" / "accelerate_configs").glob("*.yaml"):
        assert f"| `{path.stem}` |" in page


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's way of asking
@pytest.mark.parametrize("name", ["editors.md", "memory.md"])
def test_made_tables_are_fresh(name):
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    page = (ROOT / "docs" / name).read_text()
    assert generate["with_tables"](page, generate["PAGES"][name]()) == page, "run python docs/generate.py"
