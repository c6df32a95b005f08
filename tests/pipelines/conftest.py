import pytest

from diffusers_r1 import ImageEditR1Pipeline


@pytest.fixture
def pipe(planner, prompts, pix2pix):
    return ImageEditR1Pipeline(*planner, pix2pix, prompts=prompts)
