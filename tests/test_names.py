"""A name becomes a folder. The Hub's own side is tested in tests/pipelines/test_hub.py."""

import json
from pathlib import Path

import pytest

from diffusers_r1.names import only_configs, planner_files, resolve, shipped


COMMIT = "7e27bd9f95328f0f3b08261d1252705110c806f8"


def test_a_folder_comes_before_a_shipped_bundle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve("imageedit-r1-scenes").parent.name == "bundles"
    (tmp_path / "imageedit-r1-scenes").mkdir()
    assert resolve("imageedit-r1-scenes") == Path("imageedit-r1-scenes")


def test_a_cache_that_another_program_filled_is_enough(tmp_path):
    """transformers fetches files one by one, and keeps no list of what else the repository has."""
    cached = tmp_path / "models--org--base"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(COMMIT)
    folder = cached / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert resolve("org/base", cache_dir=tmp_path, local_files_only=True) == folder


def test_a_name_that_nothing_has_is_refused_with_those_that_are_there():
    with pytest.raises(OSError, match="neither a folder nor a bundle") as error:
        resolve("imageedit-r1-scene")
    assert shipped() and all(name in str(error.value) for name in shipped())


def test_configs_alone_come_without_weights(tmp_path):
    files = [
        "model_index.json",
        "planner/config.json",
        "planner/model.safetensors",
        "editor/unet/config.json",
        "x.bin",
    ]
    assert only_configs(tmp_path, files) == ["model_index.json", "planner/config.json", "editor/unet/config.json"]


def test_of_an_editor_that_has_the_planner_in_it_that_part_comes_alone(tmp_path):
    parts = ["editor/text_encoder/config.json", "editor/text_encoder/model.safetensors", "processor/tokenizer.json"]
    others = ["editor/model_index.json", "editor/text_encoder_2/model.safetensors", "editor/transformer/x.safetensors"]
    for index, brought in (({"planner": "editor.text_encoder"}, parts), ({}, parts[2:])):
        (tmp_path / "model_index.json").write_text(json.dumps({"planner": [None, None], "_shared": index}, indent=1))
        assert sorted(planner_files(tmp_path, [*parts, *others])) == brought


def test_a_repository_that_cannot_be_had_is_named(tmp_path):
    with pytest.raises(OSError, match=r"'org/nothing' at revision 'v2' is not in the cache of huggingface_hub"):
        resolve("org/nothing", revision="v2", cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(OSError, match="'org/nothing' is not in the cache of huggingface_hub"):
        resolve("org/nothing", cache_dir=tmp_path, local_files_only=True)
