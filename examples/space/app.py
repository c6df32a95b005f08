"""A Hugging Face Space: the page of what the Space's variables name, by default of the shipped bundle of scenes.

With PLANNER, EDITOR and EDITOR_MODEL it edits photos: the planner runs here, or behind an address, and the editor behind one.
"""

from __future__ import annotations

import os

from diffusers.utils.torch_utils import get_device

from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.app.page import launch, make_page
from diffusers_r1.bundles.planners import load_planner
from diffusers_r1.remote_editor import RemoteEditor


SCENES = "imageedit-r1-scenes"


def load() -> ImageEditR1Pipeline:
    if "PLANNER" not in os.environ:  # EDITOR is many a shell's own
        return ImageEditR1Pipeline.from_pretrained(os.environ.get("MODEL", SCENES))
    planner, processor, _ = load_planner(os.environ["PLANNER"], os.environ.get("PLANNER_MODEL"))
    editor = RemoteEditor(os.environ["EDITOR"], os.environ["EDITOR_MODEL"])
    return ImageEditR1Pipeline(planner=planner, processor=processor, editor=editor)


def main() -> None:
    page = make_page(load().to(get_device()))
    print(launch(page), flush=True)
    page.block_thread()


if __name__ == "__main__":
    main()
