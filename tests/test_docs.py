"""The documentation keeps its word: code blocks run, links lead somewhere, made parts are fresh."""

import re
import runpy
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LARGE = "<!-- large weights -->"


def blocks(page: Path) -> list[str]:
    """The Python blocks of a page that need no large weights."""
    found = re.findall(rf"({LARGE}\n)?```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    return [code for large, code in found if not large]


@pytest.mark.tiny
@pytest.mark.parametrize(
    ("page", "code"), [pytest.param(p, c, id=f"{p.name}-{i}") for p in PAGES for i, c in enumerate(blocks(p))]
)
def test_blocks_run(page, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(page), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_that_need_large_weights_compile(page):
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        compile(code, str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's way of asking
@pytest.mark.parametrize("name", ["editors.md", "memory.md"])
def test_made_tables_are_fresh(name):
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    page = (ROOT / "docs" / name).read_text()
    assert generate["with_table"](page, generate["PAGES"][name]()) == page, "run python docs/generate.py"
