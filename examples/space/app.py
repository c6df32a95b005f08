"""A Hugging Face Space: the page of the bundle that the Space's variable MODEL names, by default the shipped one."""

from __future__ import annotations

import os

from diffusers.utils.torch_utils import get_device

from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.app.page import SCENES_NOTICE, launch, make_page, scenes_examples


SCENES = "imageedit-r1-scenes"


def main() -> None:
    name = os.environ.get("MODEL", SCENES)
    pipe = ImageEditR1Pipeline.from_pretrained(name).to(get_device())
    page = make_page(pipe, *((scenes_examples(), SCENES_NOTICE) if name == SCENES else ()))
    print(launch(page), flush=True)
    page.block_thread()


if __name__ == "__main__":
    main()
