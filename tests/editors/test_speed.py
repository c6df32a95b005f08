"""What makes denoisers faster reaches each of them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from diffusers import FirstBlockCacheConfig
from diffusers.models.cache_utils import CacheMixin
from tiny_editors import CASES, SMALL, difference, editor_of, picture, seeded

from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.editors import TRAITS, call_editor
from diffusers_r1.editors.speed import denoisers_of, disable_cache, enable_cache


TABLE = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "generate.py"))["speed_table"]()


@pytest.mark.parametrize("name", TRAITS)
def test_every_editor_has_a_denoiser(name):
    assert set(denoisers_of(editor_of(name))) in ({"unet"}, {"transformer"})


@pytest.fixture
def qwen():
    """Qwen-Image with two blocks, of which a cache leaves out the second."""
    editor = CASES["QwenImageImg2ImgPipeline"].build()
    editor.set_progress_bar_config(disable=True)
    torch.manual_seed(0)
    editor.transformer = type(editor.transformer)(**{**editor.transformer.config, "num_layers": 2}).eval()
    return editor


@pytest.mark.tiny
def test_a_cache_of_the_first_block(qwen):
    """With guidance, so that there are two passes at each step, each with a state of its own."""
    given = {**SMALL, "num_inference_steps": 4, "strength": 1.0, "true_cfg_scale": 3.0}

    def edited():
        return call_editor(qwen, [picture((64, 64))], ["make it blue"], [seeded(1)], **given)[0]

    calls = []
    hook = qwen.transformer.transformer_blocks[-1].attn.register_forward_hook(lambda *_: calls.append(1))
    before = edited()
    assert len(calls) == 2 * 4
    enable_cache(qwen, FirstBlockCacheConfig(threshold=100.0))  # everything after the first step is left out
    calls.clear()
    edited()
    assert qwen.transformer.is_cache_enabled and len(calls) == 2
    disable_cache(qwen)
    calls.clear()
    assert difference(edited(), before) == 0 and len(calls) == 2 * 4
    hook.remove()


def test_a_class_that_would_mix_its_passes_takes_no_cache():
    with pytest.raises(ValueError, match="`transformer` .Flux2Transformer2DModel. takes no cache"):
        enable_cache(editor_of("Flux2KleinPipeline"), FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(ValueError, match="FluxKontextPipeline does not keep its passes apart"):
        enable_cache(editor_of("FluxKontextPipeline"), FirstBlockCacheConfig(threshold=0.1))
    assert not editor_of("FluxKontextPipeline").transformer.is_cache_enabled


def test_a_unet_takes_no_cache():
    editor = editor_of("StableDiffusionInstructPix2PixPipeline")
    with pytest.raises(ValueError, match="`unet`.*takes no cache"):
        enable_cache(editor, FirstBlockCacheConfig(threshold=0.1))
    disable_cache(editor)


@pytest.mark.tiny
def test_through_the_pipeline(planner, prompts, qwen):
    pipe = ImageEditR1Pipeline(*planner, qwen, prompts=prompts)
    pipe.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    assert qwen.transformer.is_cache_enabled
    pipe.disable_cache()
    assert not qwen.transformer.is_cache_enabled


@pytest.mark.tiny
@pytest.mark.parametrize("name", TRAITS)
def test_the_generated_table_says_what_the_models_can(name):
    """Of the class in the hints and of the model that is there."""
    (denoiser,) = denoisers_of(editor_of(name)).values()
    row = next(line for line in TABLE.splitlines() if line.startswith(f"| `{name}` |"))
    assert f"`{type(denoiser).__name__}`" in row
    assert isinstance(denoiser, CacheMixin) or row.split(" | ")[4] == "-"
