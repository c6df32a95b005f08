"""What `mkdocs build` adds to the pages in this folder: the reference, made from the code, and the project's own files."""

from __future__ import annotations

import ast
import io
import os
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "diffusers_r1"
# What most readers look for, in the order in which they do; all other modules follow by name.
FIRST = (
    "pipelines.pipeline_imageedit_r1",
    "pipelines.pipeline_output",
    "pipelines.turn",
    "plan",
    "prompts",
    "bundles.planners",
    "planners.remote",
    "remote_editor",
    "rewards",
    "scenes",
    "sentences",
    "evaluation",
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each public module, an index of them, the command line, and the project's own files."""
    modules = public_modules()
    made = {
        "api/index.md": index_of(modules),
        **{f"api/{name}.md": f"# {name}\n\n::: diffusers_r1.{name}\n" for name in modules},
        "command_line.md": command_line(),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    }
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave of a link to a file of the repository outside of this folder its text: the site has no such page."""

    def text_of(link: re.Match) -> str:
        return link[1] if (ROOT / "docs" / link[2]).exists() else link[0]

    return re.sub(r"\[([^\]]+)\]\((\.\./[^)#]+)[^)]*\)", text_of, markdown)


def public_modules() -> dict[str, str]:
    """Name, without the package's, and first line of the docstring of each module, the most important ones first."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        # The shipped bundles hold a file for plain diffusers users; verbs have their own page.
        if not name or not all(part.isidentifier() for part in parts) or parts[0] == "commands":
            continue
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        found[name] = docstring.split("\n\n")[0].replace("\n", " ")
    return {name: found[name] for name in (*FIRST, *(name for name in found if name not in FIRST))}


def index_of(modules: dict[str, str]) -> str:
    lines = [f"| [{name}]({name}.md) | {about} |" for name, about in modules.items()]
    return "\n".join(
        [
            "# The package, module by module\n",
            "`from diffusers_r1 import ...` gives the names of everyday use: `ImageEditR1Pipeline`,"
            " `ImageEditR1PipelineOutput`, `Turn`, `Edit`, `EditPlan`, `Fault`, `FaultKind`, `Prompts`, `load_planner`.\n",
            "| module | what it is for |\n| --- | --- |",
            *lines,
        ]
    )


def command_line() -> str:
    sys.path.insert(0, str(PACKAGE.parent))
    os.environ["COLUMNS"] = "100"  # the width to which argparse wraps
    from diffusers_r1.commands import VERBS, main

    sections = ["# The command line\n"]
    for verb in (None, *VERBS):
        printed = io.StringIO()
        with redirect_stdout(printed):
            main(["--help"] if verb is None else [verb, "--help"])
        title = "diffusers-r1" if verb is None else f"diffusers-r1 {verb}"
        sections.append(f"## {title}\n\n```text\n{printed.getvalue()}```\n")
    return "\n".join(sections)
