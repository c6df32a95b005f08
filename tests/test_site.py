"""The site of the documentation: it is built without a warning, and nothing in it leads nowhere or elsewhere."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import diffusers_r1
from diffusers_r1.commands import VERBS


pytestmark = pytest.mark.tiny

ROOT = Path(__file__).parents[1]


class Page(HTMLParser):
    """What a page links to, what it loads, and the places in it that can be linked to."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.places.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        if tag == "link" and given.get("rel") in ("stylesheet", "preconnect"):
            self.loaded.add(given["href"])
        if given.get("src"):
            self.loaded.add(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> dict[Path, Page]:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {path: Page(path) for path in folder.rglob("*.html")}


def home(site: dict[Path, Page]) -> Path:
    return min((path for path in site if path.name == "index.html"), key=lambda path: len(path.parts))


def test_no_link_inside_the_site_is_broken(site):
    broken = []
    for path, page in site.items():
        for link in page.links | page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":  # its links begin at the site's own address
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file() or (parts.fragment and target in site and not _has(site[target], parts.fragment)):
                broken.append(f"{path.name}: {link}")
    assert not broken
    assert sum(len(page.links) for page in site.values()) > 1000


def _has(page: Page, fragment: str) -> bool:
    return unquote(fragment) in page.places


def test_nothing_is_loaded_from_elsewhere(site):
    assert not {loaded for page in site.values() for loaded in page.loaded if urlsplit(loaded).netloc}


def test_every_page_is_in_the_navigation(site):
    linked = {unquote(urlsplit(link).path) for link in site[home(site)].links}
    pages = [path.relative_to(home(site).parent).as_posix() for path in site]
    assert set(pages) - {"404.html"} <= linked
    sources = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.[mi][dp]*")]
    assert {source.as_posix() for source in sources} <= set(pages)


def test_every_public_name_is_in_the_reference(site):
    places = {place for page in site.values() for place in page.places}
    for name in set(diffusers_r1.__all__) - {"__version__"}:
        thing = getattr(diffusers_r1, name)
        assert f"{thing.__module__}.{name}" in places
    assert "diffusers_r1.pipelines.pipeline_imageedit_r1.ImageEditR1Pipeline.plan" in places


def test_every_verb_is_in_the_reference(site):
    command_line = home(site).parent / "command_line.html"
    assert {f"diffusers-r1-{verb}" for verb in VERBS} <= site[command_line].places
    assert "--num_images_per_prompt" in command_line.read_text()
