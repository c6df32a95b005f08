"""A modular pipeline as the editor: saved with the bundle, moved with it, and refused where it cannot take part."""

import json
import os
from copy import deepcopy

import pytest
import tiny_models
import torch
from diffusers import FluxKontextAutoBlocks
from diffusers.quantizers import PipelineQuantizationConfig
from PIL import Image

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.modular import as_modular
from diffusers_r1.pipelines.nested.loading import _of_modular, load_editor
from diffusers_r1.pipelines.nested.parts import components_in


pytestmark = pytest.mark.tiny

PARTS = {
    "image_encoder",
    "scheduler",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
    "transformer",
    "vae",
}


def pipeline(editor=None) -> ImageEditR1Pipeline:
    return ImageEditR1Pipeline(None, editor=editor or tiny_models.tiny_kontext_modular())


@pytest.fixture(scope="module")
def pipe():
    return pipeline()


@pytest.fixture(scope="module")
def bundle(pipe, tmp_path_factory):
    """A bundle that was moved after it was saved."""
    folder = tmp_path_factory.mktemp("modular")
    pipe.save_pretrained(folder / "before")
    os.rename(folder / "before", folder / "bundle")
    return folder / "bundle"


def test_its_index_names_the_folder_that_it_was_saved_to(bundle):
    index = json.loads((bundle / "editor/modular_model_index.json").read_text())
    said = {name: entry[-1] for name, entry in index.items() if isinstance(entry, list)}
    place = str(bundle.parent / "before" / "editor")
    assert said and all(
        one["pretrained_model_name_or_path"] == place and one["subfolder"] == name for name, one in said.items()
    )


def test_saving_leaves_it_as_it_was(tmp_path):
    tiny_models.tiny_kontext_modular().save_pretrained(str(tmp_path / "alone"), overwrite_modular_index=True)
    editor = load_editor(tmp_path / "alone")
    before = {name: deepcopy(editor.config[name]) for name in PARTS & {*editor.config}}
    pipeline(editor).save_pretrained(tmp_path / "bundle")
    assert {name: editor.config[name] for name in before} == before
    assert str(tmp_path / "alone") in str(before["vae"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_comes_back_from_a_folder_that_was_moved(pipe, bundle, dtype):
    again = ImageEditR1Pipeline.from_pretrained(bundle, dtype=dtype).editor
    assert type(again) is type(pipe.editor) and again is not pipe.editor
    for name in ("transformer", "text_encoder", "vae"):
        weights = getattr(pipe.editor, name).state_dict()
        for key, value in getattr(again, name).state_dict().items():
            assert value.dtype == dtype and torch.equal(value, weights[key].to(dtype)), f"{name}.{key}"


def test_its_components_are_those_that_lie_there(bundle, tmp_path):
    said = {"_class_name": "ModularPipeline", "vae": ["diffusers", "AutoencoderKL", {}], "prior": [None, None, {}]}
    (tmp_path / "modular_model_index.json").write_text(json.dumps(said))
    for name in ("vae", "notes"):
        (tmp_path / name).mkdir()
    assert components_in(tmp_path) == ["vae"]
    named = set(components_in(bundle / "editor"))
    assert {"transformer", "text_encoder", "vae", "scheduler", "tokenizer"} <= named <= PARTS
    assert named == {path.name for path in (bundle / "editor").iterdir() if path.is_dir()}


def test_weights_that_are_lacking_are_named(bundle, tmp_path):
    folder = tmp_path / "bundle"
    for path in bundle.rglob("*"):
        place = folder / path.relative_to(bundle)
        if path.is_file() and "vae" not in path.parent.name:
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, place)
    (folder / "editor" / "vae").mkdir()
    with pytest.raises(OSError, match=r"editor: these components could not be loaded: vae; the log says why"):
        ImageEditR1Pipeline.from_pretrained(folder)


def test_it_is_not_quantized_while_it_is_loaded(bundle):
    config = PipelineQuantizationConfig(
        quant_backend="bitsandbytes_8bit", quant_kwargs={"load_in_8bit": True}, components_to_quantize=["transformer"]
    )
    with pytest.raises(ValueError, match="editor is a modular pipeline, which is not quantized"):
        ImageEditR1Pipeline.from_pretrained(bundle, quantization_config=config)


@pytest.mark.parametrize("last", ["plain", "half"])
def test_each_component_is_loaded_from_the_files_of_the_variant(tmp_path, last):
    def first(editor) -> torch.Tensor:
        return next(iter(editor.transformer.state_dict().values()))

    whole = pipeline(tiny_models.tiny_kontext_modular())
    half = pipeline(tiny_models.tiny_kontext_modular()).to(torch.float16)
    whole.save_pretrained(tmp_path)
    half.save_pretrained(tmp_path, variant="fp16")
    if last == "plain":
        whole.save_pretrained(tmp_path)
    assert torch.equal(first(ImageEditR1Pipeline.from_pretrained(tmp_path).editor), first(whole.editor))
    again = ImageEditR1Pipeline.from_pretrained(tmp_path, variant="fp16").editor
    assert torch.equal(first(again), first(half.editor).float()) and not torch.equal(first(again), first(whole.editor))
    for path in tmp_path.rglob("*.fp16.safetensors"):
        if path.parent.name == "vae":
            path.unlink()  # which gives its plain weights then
    assert ImageEditR1Pipeline.from_pretrained(tmp_path, variant="fp16").editor.vae is not None
    with pytest.raises(ValueError, match="editor has no weights of the variant 'bf16'"):
        load_editor(tmp_path, variant="bf16")


def test_pickles_are_refused_where_safetensors_are_asked_for(pipe, tmp_path):
    pipe.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(OSError, match=r"could not be loaded: transformer, vae"):
        ImageEditR1Pipeline.from_pretrained(tmp_path, use_safetensors=True)
    assert ImageEditR1Pipeline.from_pretrained(tmp_path).editor.vae is not None


def test_a_folder_that_a_modular_pipeline_saved_is_an_editor(pipe, tmp_path):
    pipe.editor.save_pretrained(str(tmp_path / "first"), overwrite_modular_index=True)
    os.rename(tmp_path / "first", tmp_path / "modular")
    editor = load_editor(tmp_path / "modular")
    assert type(editor) is type(pipe.editor) and set(components_in(tmp_path / "modular")) <= PARTS
    weights = pipe.editor.transformer.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in editor.transformer.state_dict().items())
    snapshot = tmp_path / "models--org--modular" / "snapshots" / "0123"
    snapshot.parent.mkdir(parents=True)
    os.rename(tmp_path / "modular", snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0123")
    assert type(load_editor("org/modular", cache_dir=tmp_path, local_files_only=True)) is type(pipe.editor)


def test_of_a_modular_repository_the_weights_that_are_asked_for_are_brought(tmp_path):
    said = ["modular_model_index.json", "vae/config.json"]
    weights = ["vae/model.safetensors", "vae/model.fp16.safetensors", "vae/model.bin", "unet/model.safetensors"]
    brought = [*said, "vae/model.fp16.safetensors", "unet/model.safetensors"]
    assert _of_modular(tmp_path, [*said, *weights, "docs/a/b.safetensors"], variant="fp16") == brought


class OwnBlocks(FluxKontextAutoBlocks):
    """Blocks of somebody's own, which no file of diffusers names."""


def test_blocks_that_no_file_could_name_are_refused_before_anything_is_written(pipe, tmp_path):
    fewer = FluxKontextAutoBlocks()
    fewer.sub_blocks.pop(list(fewer.sub_blocks)[-1])
    for blocks in (fewer, OwnBlocks()):
        with pytest.raises(ValueError, match="The blocks of `editor`.* are none of diffusers' own"):
            pipeline(blocks.init_pipeline()).save_pretrained(tmp_path / "bundle")
        assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "offload", ["enable_model_cpu_offload", "enable_sequential_cpu_offload", "enable_group_offload"]
)
def test_it_takes_no_part_in_offloading(pipe, offload):
    with pytest.raises(ValueError, match=f"`{offload}` does not work with .*a modular pipeline, as `editor`"):
        getattr(pipe, offload)("cpu")


def test_what_is_asked_of_every_editor_passes_by_what_it_has_not():
    pipe = pipeline()
    assert pipe.to(torch.bfloat16) is pipe and pipe.editor.transformer.dtype == torch.bfloat16
    assert pipe.dtype == torch.bfloat16 and pipe.device.type == "cpu"
    pipe.maybe_free_model_hooks()
    pipe.reset_device_map()
    pipe.remove_all_hooks()
    pipe.set_progress_bar_config(disable=True)
    assert pipe.nested_pipelines == {"editor": pipe.editor}


def settled_before(pipe: ImageEditR1Pipeline):
    pipe.set_progress_bar_config(disable=True)
    return as_modular(pipe)


def settled_after(pipe: ImageEditR1Pipeline):
    modular = as_modular(pipe)
    modular.set_progress_bar_config(disable=True)
    return modular


def of_the_next_editor(pipe: ImageEditR1Pipeline):
    pipe.set_progress_bar_config(disable=True)
    pipe.editor = tiny_models.tiny_kontext_modular()
    return pipe


@pytest.mark.parametrize("way", [settled_before, settled_after, of_the_next_editor])
def test_no_bar_is_shown_where_none_is_asked_for(way, capfd):
    quiet = way(pipeline())
    call = {"plan": EditPlan("", (), ("a",)), "num_inference_steps": 1, "height": 64, "width": 64}
    quiet(image=Image.new("RGB", (64, 64)), **call)
    assert "1/1" not in capfd.readouterr().err
