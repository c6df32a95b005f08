"""What makes denoisers faster reaches each of them."""

from __future__ import annotations

import pytest
import torch
from diffusers import FirstBlockCacheConfig
from tiny_editors import CASES, SMALL, difference, editor_of, picture, seeded

from diffusers_r1.editors import TRAITS, call_editor
from diffusers_r1.editors.speed import (
    compile_repeated_blocks,
    denoisers_of,
    disable_cache,
    enable_cache,
    set_attention_backend,
)


@pytest.mark.parametrize("name", TRAITS)
def test_every_editor_has_a_denoiser(name):
    assert set(denoisers_of(editor_of(name))) in ({"unet"}, {"transformer"})


@pytest.mark.tiny
def test_a_cache_of_the_first_block():
    editor = CASES["FluxKontextPipeline"].build()
    editor.set_progress_bar_config(disable=True)
    with torch.no_grad():
        for weight in editor.transformer.parameters():
            weight.mul_(1.5)
    given = {**SMALL, "num_inference_steps": 4}

    def edited():
        return call_editor(editor, [picture((64, 64))], ["make it blue"], [seeded(1)], **given)[0]

    calls = []
    hook = editor.transformer.single_transformer_blocks[-1].attn.register_forward_hook(lambda *_: calls.append(1))
    before = edited()
    assert len(calls) == 4
    enable_cache(editor, FirstBlockCacheConfig(threshold=100.0))  # everything after the first step is left out
    calls.clear()
    edited()
    assert editor.transformer.is_cache_enabled and len(calls) < 4
    disable_cache(editor)
    calls.clear()
    assert difference(edited(), before) == 0 and len(calls) == 4
    hook.remove()


def test_a_unet_takes_no_cache():
    editor = editor_of("StableDiffusionInstructPix2PixPipeline")
    with pytest.raises(ValueError, match="`unet`.*takes no cache"):
        enable_cache(editor, FirstBlockCacheConfig(threshold=0.1))
    disable_cache(editor)


def test_the_backend_of_attention():
    editor = CASES["FluxKontextPipeline"].build()
    set_attention_backend(editor, "native")
    used = {
        str(part.processor._attention_backend) for part in editor.transformer.modules() if hasattr(part, "processor")
    }
    assert len(used) == 1 and "native" in used.pop().lower()


def test_compiled_blocks(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **settings: compiled.append((self, settings)))
    editor = editor_of("FluxKontextPipeline")
    compile_repeated_blocks(editor, fullgraph=True)
    blocks = [*editor.transformer.transformer_blocks, *editor.transformer.single_transformer_blocks]
    assert {id(block) for block, _ in compiled} == {id(block) for block in blocks}
    assert all(settings == {"fullgraph": True} for _, settings in compiled)
