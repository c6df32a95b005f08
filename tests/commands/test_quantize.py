"""`--quantize`: by torchao, which computes on the CPU; bitsandbytes needs an accelerator, so of it only what is asked for is seen."""

import importlib.util
import json
from pathlib import Path

import pytest
import tiny_models
import torch
from openai_server import scripted

from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.bundles.planners import save_planner
from diffusers_r1.commands import edit, quantizing
from diffusers_r1.commands.shared import load_pipeline
from diffusers_r1.installing import install_line
from diffusers_r1.names import only_configs
from diffusers_r1.planners.int8 import Int8Linear


pytestmark = [
    pytest.mark.tiny,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def kontext(tmp_path_factory, planner, prompts):
    """The editor's folder, the planner's, and that of a bundle of both."""
    folder = tmp_path_factory.mktemp("kontext")
    editor = tiny_models.tiny_kontext()
    editor.save_pretrained(folder / "editor")
    save_planner(folder / "planner", *planner, prompts)
    ImageEditR1Pipeline(*planner, editor, prompts=prompts).save_pretrained(folder / "bundle")
    return folder


@pytest.fixture
def loaded(monkeypatch):
    """The pipelines that `edit` has loaded."""
    pipes = []

    def load_and_keep(*args, **kwargs):
        pipes.append(load_pipeline(*args, **kwargs))
        return pipes[-1]

    monkeypatch.setattr(edit, "load_pipeline", load_and_keep)
    return pipes


def quantized(model: torch.nn.Module) -> bool:
    return any("torchao" in type(p.data).__module__ for p in model.parameters())


def has_int8(model: torch.nn.Module) -> bool:
    return any(isinstance(module, Int8Linear) for module in model.modules())


@pytest.mark.parametrize(
    "parts",
    [
        ["--model", "{0}/bundle"],
        ["--planner", "{0}/planner", "--editor", "{0}/editor"],
        ["--model", "{0}/bundle", "--editor", "{0}/bundle"],
    ],
)
def test_planner_and_denoiser_are_loaded_in_8_bits(run, photo, kontext, loaded, tmp_path, parts):
    output = tmp_path / "out.png"
    small = ["--max_new_tokens", 4, "--set", "num_inference_steps=1", "--set", "height=16", "--set", "width=16"]
    options = ["--quantize", "int8", "--dtype", "bfloat16", "--device", "cpu"]
    words = [part.format(kontext) for part in parts]
    code, printed, error = run("edit", photo, "make it blue", "--output", output, *words, *options, *small)
    assert (code, printed) == (0, f"{output}\n"), error
    (pipe,) = loaded
    assert has_int8(pipe.planner) and quantized(pipe.editor.transformer)
    assert not any(
        small(part) for small in (quantized, has_int8) for part in (pipe.editor.text_encoder, pipe.editor.vae)
    )


def test_planning_on_a_processor_takes_no_package(run, photo, kontext, monkeypatch):
    monkeypatch.setattr(quantizing, "find_spec", lambda name: None)
    words = ["plan", photo, "make it blue", "--planner", kontext / "planner", "--max_new_tokens", 4, "--device", "cpu"]
    code, printed, error = run(*words, "--quantize", "int8")
    assert code == 0 and json.loads(printed)["instruction"] == "make it blue", error


def test_a_bundle_beside_an_editor_behind_an_address(photo, bundle, run, monkeypatch):
    monkeypatch.setattr(quantizing, "find_spec", lambda name: None)  # takes no package: no editor is made smaller
    with scripted() as server:
        editor = ["--editor", server.url, "--editor_model", "brush"]
        words = ["edit", photo, " ", "--model", bundle, *editor, "--quantize", "int8", "--device", "cpu"]
        code, _, error = run(*words)  # loaded, and refused as what it is: no instruction
    assert code == 2 and "empty" in error.splitlines()[-1]


def test_a_planner_that_is_a_part_of_its_editor_is_refused_before_it_is_loaded(run, photo, loaded, prompts, tmp_path):
    ImageEditR1Pipeline.from_editor(tiny_models.tiny_qwen_edit(), prompts=prompts).save_pretrained(tmp_path)
    for weights in tmp_path.rglob("*.safetensors"):
        weights.unlink()
    words = ["edit", photo, "make it blue", "--model", tmp_path, "--quantize", "int8", "--device", "cpu"]
    code, _, error = run(*words, "--output", tmp_path / "out.png")
    assert code == 2 and "a part of its editor, editor.text_encoder" in error.splitlines()[-1] and not loaded


@pytest.mark.parametrize("parts", [["--model", "{0}"], ["--model", "imageedit-r1-scenes", "--editor", "{0}"]])
def test_a_modular_editor_is_refused_before_it_is_loaded(run, photo, loaded, planner, prompts, tmp_path, parts):
    editor = tiny_models.tiny_kontext_modular()
    ImageEditR1Pipeline(*planner, editor, prompts=prompts).save_pretrained(tmp_path)
    for weights in tmp_path.rglob("*.safetensors"):
        weights.unlink()
    words = ["edit", photo, "make it blue", *(part.format(tmp_path) for part in parts), "--device", "cpu"]
    code, _, error = run(*words, "--quantize", "int8", "--output", tmp_path / "out.png")
    assert code == 2 and "not for a modular pipeline" in error.splitlines()[-1] and not loaded


def test_the_hub_is_asked_for_what_tells_a_modular_editor():
    files = [
        "model_index.json",
        "editor/modular_model_index.json",
        "editor/vae/config.json",
        "editor/vae/model.safetensors",
    ]
    assert sorted(only_configs(Path(), files)) == sorted(files[:3])


def test_4_bits_are_asked_of_the_libraries_in_their_own_words(kontext):
    pytest.importorskip("bitsandbytes")
    config = quantizing.of_bundle(
        "nf4", str(kontext / "bundle"), torch.bfloat16, torch.device("cpu"), {"planner", "editor"}
    )
    asked = config["quantization_config"].quant_mapping
    assert {name: type(one).__module__.split(".")[0] for name, one in asked.items()} == {
        "planner": "transformers",
        "editor.transformer": "diffusers",
    }
    assert all(one.load_in_4bit and one.bnb_4bit_compute_dtype is torch.bfloat16 for one in asked.values())


def test_a_machine_that_cannot_says_so_before_anything_is_loaded(run, photo, monkeypatch):
    words = ["edit", photo, "make it blue", "--model", "no-such-bundle", "--device", "cpu", "--quantize"]
    find_spec = importlib.util.find_spec
    with monkeypatch.context() as missing:
        missing.setattr(quantizing, "find_spec", lambda name: None)
        for kind, package in quantizing.PACKAGES.items():
            code, _, error = run(*words, kind)
            assert code == 2 and f"needs the package {package}: {install_line('quantize')}" in error.splitlines()[-1]
    monkeypatch.setattr(quantizing, "find_spec", lambda name: find_spec("torchao"))
    code, _, error = run(*words, "nf4")
    assert code == 2 and "needs an accelerator" in error.splitlines()[-1]


@pytest.mark.parametrize("option", [["--quantize", "int8"], ["--offload", "model"]])
def test_nothing_is_made_smaller_behind_an_address(run, photo, option):
    parts = ["--planner", "http://127.0.0.1:9/v1", "--planner_model", "m", "--editor", "http://127.0.0.1:9/v1"]
    code, _, error = run("edit", photo, "make it blue", *parts, "--editor_model", "m", *option)
    assert code == 2 and f"{option[0]} is for models that are loaded here" in error.splitlines()[-1]
