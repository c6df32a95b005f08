"""The tokens that GLM-Image's language model writes are drawn from the generator's seed, and nothing else is seeded."""

import torch
from tiny_editors import glm_image, picture

from diffusers_r1.editors.glm import prior_tokens


def test_tokens_are_drawn_from_the_seed_and_no_other_device_is_seeded(monkeypatch):
    editor = glm_image()
    given = {"prompt": "make it red", "image": [picture((64, 64))], "height": 64, "width": 64}
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state()
    one, same, other = (
        prior_tokens(editor, {**given, "generator": torch.Generator().manual_seed(seed)})["prior_token_ids"]
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state()) and not seeded
