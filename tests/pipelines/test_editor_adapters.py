"""LoRA adapters of the editor: saved apart from the base, and back again, active and as strong as they were."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from peft import IA3Config, LoHaConfig, LoraConfig, OFTConfig
from PIL import Image
from tiny_loras import ADAPTERS, BUILDERS, SMALL, adapters_of, layered, with_loras

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.pipelines.nested.loading import load_editor


pytestmark = [
    pytest.mark.tiny,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # PEFT's way of asking
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`"),  # of `load_lora_weights`, for a second one
]

PLAN = EditPlan("", (), ("make it blue",))
SOURCE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


def edited(pipe: ImageEditR1Pipeline, kind: str) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    out = pipe(SOURCE, plan=PLAN, generator=generator, output_type="np", **SMALL[kind])
    return out.images[0]


def weight_files(folder) -> dict[str, str]:
    """Of the editor's own models, by path: a digest of each file of weights, and what each config says."""
    files = [p for p in (folder / "editor").rglob("*") if p.suffix == ".safetensors" or p.name == "config.json"]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if "adapter-" not in str(path)
    }


@pytest.fixture(scope="module")
def loras(tmp_path_factory):
    return tmp_path_factory.mktemp("loras")


@pytest.fixture(scope="module", params=list(BUILDERS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def saved(loras, kind):
    """A folder with a bundle without LoRA, one with two, and what the second one's pipeline makes of a picture."""
    folder = loras / f"saved-{kind}"
    ImageEditR1Pipeline(None, None, BUILDERS[kind]()).save_pretrained(folder / "plain")
    pipe = ImageEditR1Pipeline(None, None, with_loras(loras, kind))
    pipe.save_pretrained(folder / "adapted")
    # Saving left the editor as it was, too.
    return folder, adapters_of(pipe.editor), edited(pipe, kind)


def test_the_adapters_do_something(loras, kind, saved):
    folder, state, expected = saved
    assert {name: state["text_encoder"][name][:2] for name in ADAPTERS} == {"ink": (True, True), "oil": (True, True)}
    assert len({state["text_encoder"][name][2] for name in ADAPTERS}) == 2
    bare = edited(ImageEditR1Pipeline.from_pretrained(folder / "plain"), kind)
    assert not np.array_equal(bare, expected)
    assert np.array_equal(edited(ImageEditR1Pipeline(None, None, with_loras(loras, kind)), kind), expected)


@pytest.mark.parametrize(
    "load",
    [
        ImageEditR1Pipeline.from_pretrained,
        lambda folder: DiffusionPipeline.from_pretrained(folder, trust_remote_code=True),
        lambda folder: ImageEditR1Pipeline(None, None, load_editor(folder / "editor")),
    ],
    ids=["ours", "plain", "editor alone"],
)
def test_they_come_back(saved, kind, load):
    folder, state, expected = saved
    pipe = load(folder / "adapted")
    assert adapters_of(pipe.editor) == state
    assert pipe.editor.get_active_adapters() == list(ADAPTERS)
    assert np.array_equal(edited(pipe, kind), expected)
    assert not any(weight.requires_grad for weight in pipe.editor.text_encoder.parameters())

    pipe.editor.unload_lora_weights()
    assert adapters_of(pipe.editor) == {}
    assert np.array_equal(edited(pipe, kind), edited(ImageEditR1Pipeline.from_pretrained(folder / "plain"), kind))


def test_the_base_is_what_it_was_without_them(saved):
    folder, _, _ = saved
    assert weight_files(folder / "adapted") == weight_files(folder / "plain")
    assert sorted(p.name for p in (folder / "adapted/editor").glob("adapter*")) == [
        "adapter-0",
        "adapter-1",
        "adapter-2",
        "adapter-3",
        "adapters.json",
    ]


def test_what_came_back_can_be_saved_again(saved, kind, tmp_path):
    folder, state, expected = saved
    ImageEditR1Pipeline.from_pretrained(folder / "adapted").save_pretrained(tmp_path)
    pipe = ImageEditR1Pipeline.from_pretrained(tmp_path)
    assert adapters_of(pipe.editor) == state
    first, second = (weight_files(place) for place in (folder / "plain", tmp_path))
    assert all(second[file] == digest for file, digest in first.items() if file.endswith(".safetensors"))
    assert np.array_equal(edited(pipe, kind), expected)


def test_in_half_precision(saved):
    folder, state, _ = saved
    pipe = ImageEditR1Pipeline.from_pretrained(folder / "adapted", dtype=torch.bfloat16)
    models = [part for part in pipe.editor.components.values() if isinstance(part, torch.nn.Module)]
    assert {weight.dtype for model in models for weight in model.parameters()} == {torch.bfloat16}
    assert adapters_of(pipe.editor) == state


def test_one_that_is_off_comes_back_off(loras, tmp_path):
    editor = with_loras(loras, "pix2pix")
    editor.disable_lora()
    pipe = ImageEditR1Pipeline(None, None, editor)
    pipe.save_pretrained(tmp_path)
    again = ImageEditR1Pipeline.from_pretrained(tmp_path)
    assert adapters_of(again.editor) == adapters_of(editor)
    assert np.array_equal(edited(again, "pix2pix"), edited(pipe, "pix2pix"))
    again.editor.enable_lora()
    editor.enable_lora()
    assert np.array_equal(edited(again, "pix2pix"), edited(pipe, "pix2pix"))


def test_one_of_two_that_is_active(loras, tmp_path):
    editor = with_loras(loras, "pix2pix")
    editor.set_adapters("oil", 0.5)
    pipe = ImageEditR1Pipeline(None, None, editor)
    pipe.save_pretrained(tmp_path)
    again = ImageEditR1Pipeline.from_pretrained(tmp_path)
    assert again.editor.get_active_adapters() == ["oil"]
    assert adapters_of(again.editor) == adapters_of(editor)
    assert np.array_equal(edited(again, "pix2pix"), edited(pipe, "pix2pix"))


@pytest.mark.parametrize("names", [["ink", "attn1"], ["to_q", "ink"], ["q_proj", "to_q"]])
def test_they_may_be_called_as_layers_are(names, tmp_path):
    editor = BUILDERS["pix2pix"]()
    for seed, name in enumerate(names):
        layered(editor, name, LoraConfig, seed, r=2, lora_alpha=16)
    editor.set_adapters(names, [0.5, 0.7])
    pipe = ImageEditR1Pipeline(None, None, editor)
    pipe.save_pretrained(tmp_path)
    again = ImageEditR1Pipeline.from_pretrained(tmp_path)
    assert adapters_of(again.editor) == adapters_of(editor)
    assert np.array_equal(edited(again, "pix2pix"), edited(pipe, "pix2pix"))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (LoraConfig, {"r": 2, "use_dora": True}),
        (LoraConfig, {"r": 2, "init_lora_weights": "pissa"}),
        (LoraConfig, {"r": 2, "init_lora_weights": "olora"}),
        (LoHaConfig, {"r": 2}),
    ],
)
def test_other_kinds_come_back(kind, settings, tmp_path):
    pipe = ImageEditR1Pipeline(None, None, layered(BUILDERS["pix2pix"](), "ink", kind, **settings))
    pipe.save_pretrained(tmp_path)
    again = ImageEditR1Pipeline.from_pretrained(tmp_path)
    assert np.array_equal(edited(again, "pix2pix"), edited(pipe, "pix2pix"))


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (LoraConfig, {"r": 2, "modules_to_save": ["conv_out"]}, "whole layers or tokens of its own"),
        (OFTConfig, {"r": 0, "oft_block_size": 4}, "'ink' on `unet` is of the kind OFT"),
        (IA3Config, {"feedforward_modules": []}, "'ink' on `unet` is of the kind IA3"),
    ],
)
def test_what_would_not_come_back_is_refused_before_anything_is_written(kind, settings, said, tmp_path):
    editor = BUILDERS["pix2pix"]()
    editor.unet.add_adapter(kind(target_modules=["to_q", "to_v"], **settings), adapter_name="ink")
    with pytest.raises(ValueError, match=said):
        ImageEditR1Pipeline(None, None, editor).save_pretrained(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_fused_ones_are_refused_before_anything_is_written(loras, tmp_path):
    editor = with_loras(loras, "pix2pix")
    pipe = ImageEditR1Pipeline(None, None, editor)
    editor.fuse_lora()
    with pytest.raises(
        ValueError, match=r"`(unet|text_encoder)` is fused.*`unfuse_lora\(\)`.*`unload_lora_weights\(\)`"
    ):
        pipe.save_pretrained(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    editor.unfuse_lora()
    pipe.save_pretrained(tmp_path / "bundle")
    # What is fused for good is a base of its own.
    editor.fuse_lora()
    editor.unload_lora_weights()
    pipe.save_pretrained(tmp_path / "fused")
    again = ImageEditR1Pipeline.from_pretrained(tmp_path / "fused")
    assert adapters_of(again.editor) == {}
    assert np.array_equal(edited(again, "pix2pix"), edited(pipe, "pix2pix"))


def test_a_bundle_saved_over_one_with_adapters_has_none(loras, tmp_path):
    pipe = ImageEditR1Pipeline(None, None, with_loras(loras, "pix2pix"))
    pipe.save_pretrained(tmp_path)
    pipe.editor.unload_lora_weights()
    pipe.save_pretrained(tmp_path)
    assert adapters_of(ImageEditR1Pipeline.from_pretrained(tmp_path).editor) == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"component": "prior"}, "no model 'prior'"),
        ({"folder": "../elsewhere"}, "name of a folder beside the file"),
        ({"scales": {"down": "x"}}, "`\\[0\\].scales.down` must be a finite number"),
        ({"active": 1}, "`\\[0\\].active` must be true or false"),
        ({"name": None}, "`\\[0\\].name` must be text"),
    ],
)
def test_a_file_that_is_wrong_is_named(saved, tmp_path, change, said):
    folder, _, _ = saved
    shutil.copytree(folder / "adapted", tmp_path / "bundle")
    file = tmp_path / "bundle/editor/adapters.json"
    entries = json.loads(file.read_text())
    file.write_text(json.dumps([{**entries[0], **change}, *entries[1:]]))
    with pytest.raises(ValueError, match=f"adapters.json.*{said}"):
        ImageEditR1Pipeline.from_pretrained(tmp_path / "bundle")
