"""A photo at the real ceiling of each class: its own checks, encoders and latents, as far as the first step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_editors import CASES, MASK, editor_of, picture, seeded

from diffusers_r1.editors import TRAITS, call_editor, working_size
from diffusers_r1.editors.sizes import block_of
from diffusers_r1.editors.speed import denoisers_of


pytestmark = [
    pytest.mark.tiny,
    # The processor of FLUX.2's and GLM-Image's text encoder, as diffusers calls it.
    pytest.mark.filterwarnings("ignore:Kwargs passed to `processor.__call__`:UserWarning"),
    pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning"),
]


class FirstStep(Exception):
    """Denoising at a megapixel and more takes too long here; all that comes before it has happened."""


@pytest.mark.parametrize("name", CASES)
def test_a_photo_of_twelve_megapixels_gets_to_the_first_step(name):
    editor, seen = editor_of(name), []
    width, height = working_size(editor, (4032, 3024), {})
    given = {key: value for key, value in CASES[name].given.items() if key not in ("height", "width")}

    def stop(model: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        seen.extend(tensors((args, list(kwargs.values()))))
        raise FirstStep

    (denoiser,) = denoisers_of(editor).values()
    hook = denoiser.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        masked = {TRAITS[name].mask: MASK.resize((width, height))} if TRAITS[name].mask_needed else {}
        photo = picture((128, 96)).resize((width, height), Image.Resampling.LANCZOS)
        with pytest.raises(FirstStep):
            call_editor(editor, [photo], ["make it blue"], [seeded(1)], each=[{**given, **masked}])
    finally:
        hook.remove()
    places = width * height // block_of(editor) ** 2
    assert max(tensor.numel() for tensor in seen) >= places, "a latent for each block of the working size"


def tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from tensors(value)
