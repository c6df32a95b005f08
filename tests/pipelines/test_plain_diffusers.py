"""The second way in: plain `DiffusionPipeline` and diffusers' own command line, on the shipped bundle."""

import json
import sys

import huggingface_hub
import numpy as np
import pytest
import tiny_models
import torch
from diffusers import DiffusionPipeline
from diffusers.commands import diffusers_cli
from PIL import Image

from diffusers_r1 import ImageEditR1Pipeline, names
from diffusers_r1.bundles.planners import load_planner
from diffusers_r1.planners.adapters import adapter_layers
from diffusers_r1.prompts import Prompts
from diffusers_r1.remote_editor import RemoteEditor
from diffusers_r1.scenes import sample_task


pytestmark = pytest.mark.tiny

NAME = "imageedit-r1-scenes"
FOLDER = str(names.local(NAME))
TASK = sample_task(4)


def edited(pipe: ImageEditR1Pipeline) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    out = pipe(TASK.image, TASK.instruction, generator=torch.Generator().manual_seed(0))
    assert not out.plans[0].fallback
    return np.asarray(out.images[0])


def dtypes(pipe: ImageEditR1Pipeline) -> dict[str, set[torch.dtype]]:
    models = {**pipe.components, **{f"editor.{name}": part for name, part in pipe.editor.components.items()}}
    return {
        name: {value.dtype for value in model.state_dict().values() if value.is_floating_point()}
        for name, model in models.items()
        if isinstance(model, torch.nn.Module)
    }


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_pixels_are_those_of_our_class(dtype):
    settings = {} if dtype is None else {"dtype": dtype}
    ours = ImageEditR1Pipeline.from_pretrained(NAME, **settings)
    plain = DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True, **settings)
    assert type(plain) is ImageEditR1Pipeline and type(plain.editor) is type(ours.editor)
    assert set(dtypes(plain)) == {
        "planner",
        "sequencer",
        "editor.vae",
        "editor.text_encoder",
        "editor.unet",
    }
    for found in (dtypes(plain), dtypes(ours)):
        assert all(kinds == {dtype or torch.float32} for kinds in found.values()), found
    assert plain.editor_defaults == ours.editor_defaults and plain.prompts == ours.prompts
    assert np.array_equal(edited(plain), edited(ours))


@pytest.mark.filterwarnings("ignore:.*torch_dtype")
def test_the_older_name_of_dtype_and_dtypes_by_component():
    plain = DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True, torch_dtype=torch.bfloat16)
    assert {kind for kinds in dtypes(plain).values() for kind in kinds} == {torch.bfloat16}
    wanted = {"planner": torch.float16, "editor": torch.bfloat16, "default": torch.float32}
    found = dtypes(DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True, dtype=wanted))
    assert (found["planner"], found["editor.unet"], found["editor.vae"], found["sequencer"]) == (
        {torch.float16},
        {torch.bfloat16},
        {torch.bfloat16},
        {torch.float32},
    )


def test_components_can_be_given_or_left_out():
    ours = ImageEditR1Pipeline.from_pretrained(NAME)
    plain = DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True, editor=ours.editor)
    assert plain.editor is ours.editor
    assert np.array_equal(edited(plain), edited(ours))
    assert DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True, editor=None).editor is None
    with pytest.raises(ValueError, match="should be .*DiffusionPipeline"):
        DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True, editor=ours.planner)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return tiny_models.tiny_adapter(tmp_path_factory.mktemp("adapter"), Prompts(decompose="{instruction}"))


EDITORS = {
    "remote": (lambda: RemoteEditor("http://localhost:1/v1", "e"), {}),
    "absent": (lambda: None, {}),
    "given": (tiny_models.tiny_pix2pix, {"editor": tiny_models.tiny_pix2pix}),
    "left out": (tiny_models.tiny_pix2pix, {"editor": lambda: None}),
}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's way of asking
@pytest.mark.parametrize("editor", EDITORS)
def test_agents_are_as_our_class_loads_them_whatever_the_editor_is(adapter, editor, tmp_path):
    build, at_load = EDITORS[editor]
    planner, processor, _ = load_planner(adapter, dtype=torch.float32)
    for layer in adapter_layers(planner).values():
        layer.scaling["default"] = 8.0
        layer.enable_adapters(False)
    sequencer, tokenizer = tiny_models.tiny_text_planner()
    agents = {"sequencer": sequencer.to(torch.bfloat16), "sequencer_processor": tokenizer}
    ImageEditR1Pipeline(planner, processor, build(), **agents).save_pretrained(tmp_path)
    for dtype, settings in ((torch.float32, {}), (torch.bfloat16, {"dtype": torch.bfloat16})):
        given = {name: make() for name, make in at_load.items()}
        pipe = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True, **settings, **given)
        layers = adapter_layers(pipe.planner).values()
        assert {(layer.scaling["default"], layer.disable_adapters) for layer in layers} == {(8.0, True)}
        assert pipe.planner.dtype == pipe.sequencer.dtype == dtype
        assert type(pipe.planner) is type(planner) and type(pipe.sequencer) is type(sequencer)


def test_models_are_shared_out_among_devices(tmp_path):
    """diffusers makes each model without weights first; a machine without an accelerator has it made, and no more."""
    ImageEditR1Pipeline(*tiny_models.tiny_planner()).save_pretrained(tmp_path)
    pipe = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True, device_map="balanced")
    assert pipe.planner.device.type != "meta"


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """The main function of `diffusers-cli`, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def run(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["diffusers-cli", *words])
        diffusers_cli.main()

    return run


def test_the_command_line_of_diffusers_gives_the_same_picture(cli, tmp_path):
    TASK.image.save(tmp_path / "photo.png")
    call = {"image": "photo.png", "instruction": TASK.instruction}
    words = ["--model", FOLDER, "--trust-remote-code", "--device-map", "cpu", "--output", "edited.png", "--seed", "0"]
    cli("run", *words, "--pipeline-kwargs", json.dumps(call))
    expected = edited(ImageEditR1Pipeline.from_pretrained(NAME))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "edited.png")), expected)


def test_its_schema_does_not_know_classes_that_come_with_a_model(cli):
    """diffusers 0.42 takes `_class_name` for text; troubleshooting.md says so. Once this fails, it is mended there."""
    with pytest.raises(TypeError, match="attribute name must be string, not 'list'"):
        cli("schema", "--model", FOLDER)
