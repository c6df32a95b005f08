"""A save is whole or not at all, and leaves nothing of what was there before in force."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from cached_hub import keep
from diffusers import StableDiffusionInstructPix2PixPipeline
from peft import LoraConfig, get_peft_model

from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.bundles.planners import load_planner, save_planner
from diffusers_r1.names import variant_of
from diffusers_r1.planners.int8 import to_int8
from diffusers_r1.planners.remote import RemotePlanner
from diffusers_r1.prompts import Prompts
from diffusers_r1.records import written_whole


pytestmark = [
    pytest.mark.tiny,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # PEFT's way of asking
]

PROMPTS = Prompts(decompose="Own: {instruction}")
ADDRESS = "http://localhost:1/v1"


def variants_in(folder: Path) -> set[str]:
    """Of the weights of all models in a folder the variants; `""` of those without."""
    return {variant_of(path.name) for path in folder.rglob("*.safetensors")}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pipeline(planner=None, editor=None) -> ImageEditR1Pipeline:
    own, processor = tiny_models.tiny_planner()
    return ImageEditR1Pipeline(planner or own, processor, editor or tiny_models.tiny_pix2pix(), prompts=PROMPTS)


def with_adapter(planner, base: Path, name: str = "default"):
    settings = LoraConfig(target_modules=["q_proj"], r=2, base_model_name_or_path=str(base))
    planner.add_adapter(settings, adapter_name=name)
    return planner


def test_a_folder_that_cannot_be_written_whole_stays_as_it_was(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "old").write_text("old")
    (tmp_path / "file").write_text("old")
    before = contents(tmp_path)
    with pytest.raises(RuntimeError), written_whole(tmp_path, ["*"]) as new:
        (new / "file").write_text("new")
        raise RuntimeError
    assert contents(tmp_path) == before
    with written_whole(tmp_path, ["k*"]) as new:
        (new / "file").write_text("new")
        (new / "folder").mkdir()
        (new / "folder" / "one").write_text("new")
    assert contents(tmp_path) == {"file": b"new", "folder/one": b"new"}


def test_a_bundle_that_cannot_be_saved_over_stays_as_it_was(tmp_path, monkeypatch):
    pipe = pipeline()
    pipe.save_pretrained(tmp_path)
    before = contents(tmp_path)

    def fail(*args):
        raise OSError("the disk is full")

    monkeypatch.setattr(ImageEditR1Pipeline, "_complete_index", fail)
    with pytest.raises(OSError, match="the disk is full"):
        pipeline(tiny_models.tiny_planner(seed=1)[0]).save_pretrained(tmp_path)
    assert contents(tmp_path) == before


def test_what_no_bundle_gives_back_is_refused_before_anything_is_written(tmp_path):
    bundle = tmp_path / "bundle"
    pipeline().save_pretrained(bundle)
    before = contents(bundle)
    planner, processor, _ = load_planner(bundle / "planner")
    cases = {
        "whose place it would take": with_adapter(planner, bundle / "planner"),
        "'q_proj' of a .* is called as one of its layers": with_adapter(
            tiny_models.tiny_planner()[0], bundle, "q_proj"
        ),
        "PeftModel": get_peft_model(tiny_models.tiny_planner()[0], LoraConfig(target_modules=["q_proj"], r=2)),
        "weights of 8 bits": to_int8(tiny_models.tiny_planner()[0]),
    }
    for said, agent in cases.items():
        with pytest.raises(ValueError, match=said):
            pipeline(agent).save_pretrained(bundle)
        assert contents(bundle) == before
    with pytest.raises(ValueError, match="'q_proj' of a .* is called"):
        save_planner(bundle / "planner", with_adapter(tiny_models.tiny_planner()[0], bundle, "q_proj"), None, PROMPTS)
    assert contents(bundle) == before


class OwnEditor(StableDiffusionInstructPix2PixPipeline):
    """A class of somebody's own, which diffusers does not have."""


def test_so_is_an_editor_of_a_class_that_no_file_could_name(tmp_path):
    editor = OwnEditor(**tiny_models.tiny_pix2pix().components, requires_safety_checker=False)
    with pytest.raises(ValueError, match="The class of `editor`, OwnEditor, is none of diffusers' own"):
        pipeline(editor=editor).save_pretrained(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_another_kind_leaves_nothing_of_the_one_before_in_force(tmp_path):
    pipe = pipeline()
    modular = pipeline(editor=tiny_models.tiny_kontext_modular())
    modular.save_pretrained(tmp_path)
    assert type(ImageEditR1Pipeline.from_pretrained(tmp_path).editor) is type(modular.editor)
    pipe.save_pretrained(tmp_path)
    assert type(ImageEditR1Pipeline.from_pretrained(tmp_path).editor) is type(pipe.editor)

    remote = RemotePlanner(ADDRESS, "m")
    ImageEditR1Pipeline(remote, editor=pipe.editor, prompts=PROMPTS).save_pretrained(tmp_path)
    loaded, _, prompts = load_planner(tmp_path)
    assert isinstance(loaded, RemotePlanner) and prompts == PROMPTS
    pipe.save_pretrained(tmp_path)
    assert type(load_planner(tmp_path)[0]) is type(pipe.planner)
    ImageEditR1Pipeline(None, editor=pipe.editor).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no planner"):
        load_planner(tmp_path)


def test_pickles_in_shards_are_refused_since_diffusers_loads_none(tmp_path):
    pipeline().save_pretrained(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="would be pickled in shards.*`safe_serialization`.*`max_shard_size`"):
        pipeline().save_pretrained(tmp_path, safe_serialization=False, max_shard_size="20KB")
    assert contents(tmp_path) == before


def test_a_variant_stays_only_with_its_own_plain_weights(tmp_path):
    def save(seed: int, variant: str | None, dtype: torch.dtype = torch.float32) -> set[str]:
        planner, processor = tiny_models.tiny_planner(seed=seed)
        ImageEditR1Pipeline(planner.to(dtype), processor).save_pretrained(tmp_path, variant=variant)
        return variants_in(tmp_path)

    half, brain = ("fp16", torch.float16), ("bf16", torch.bfloat16)
    assert save(0, None) == {""} and save(0, *half) == {"", "fp16"} and save(0, *brain) == {"", "fp16", "bf16"}
    assert (
        save(0, None) == save(0, None, torch.bfloat16) == {"", "fp16", "bf16"}
    )  # the same, and the same but for rounding
    assert save(1, None) == {""}
    # What was written before the plain weights, or beside others, is judged by itself.
    assert save(0, *half) == {"", "fp16"} and save(0, None) == {"", "fp16"}
    with pytest.raises((OSError, ValueError), match="bf16"):
        ImageEditR1Pipeline.from_pretrained(tmp_path, variant="bf16")


def test_a_variant_stays_on_a_disk_without_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    planner, processor = tiny_models.tiny_planner()
    pipe = ImageEditR1Pipeline(planner, processor)
    pipe.save_pretrained(tmp_path)
    monkeypatch.setattr(os, "link", refuse)
    pipe.save_pretrained(tmp_path, variant="fp16")
    assert variants_in(tmp_path) == {"", "fp16"}
    assert ImageEditR1Pipeline.from_pretrained(tmp_path).planner is not None


def test_a_planner_takes_the_place_of_another_kind_of_planner(tmp_path):
    (planner, processor), base, place = tiny_models.tiny_planner(), tmp_path / "base", tmp_path / "planner"
    save_planner(base, planner, processor, PROMPTS)
    for other in (RemotePlanner(ADDRESS, "m"), with_adapter(load_planner(base)[0], base)):
        save_planner(place, other, None, PROMPTS)
        save_planner(place, planner, processor, PROMPTS)
        loaded, _, prompts = load_planner(place)
        assert prompts == PROMPTS
        for name, weight in planner.state_dict().items():
            assert torch.equal(weight, loaded.state_dict()[name])


def test_nothing_of_another_processor_stays(tmp_path):
    save_planner(tmp_path, *tiny_models.tiny_planner(), PROMPTS)
    save_planner(tmp_path, *tiny_models.tiny_text_planner(), PROMPTS)
    assert not hasattr(load_planner(tmp_path)[1], "image_processor")
    save_planner(tmp_path, tiny_models.tiny_text_planner()[0], None, PROMPTS)
    assert load_planner(tmp_path)[1] is None


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", ["org/base", "org/bundle", "imageedit-r1-scenes"])
def test_the_base_of_a_new_adapter_has_the_name_by_which_all_machines_find_it(tmp_path, name, whole):
    save_planner(tmp_path / "base", *tiny_models.tiny_planner(), PROMPTS)
    pipeline().save_pretrained(tmp_path / "bundle")
    cache = {"cache_dir": tmp_path / "cache", "local_files_only": True}
    commits = {
        f"org/{kind}": keep(tmp_path / "cache", f"org/{kind}", main=tmp_path / kind) for kind in ("base", "bundle")
    }
    planner, processor, prompts = load_planner(name, **cache)
    planner.add_adapter(LoraConfig(target_modules=["q_proj"], r=2))
    if whole:
        ImageEditR1Pipeline(planner, processor).save_pretrained(tmp_path / "new")
    else:
        save_planner(tmp_path / "new", planner, processor, prompts)
    settings = json.loads((tmp_path / "new" / ("planner" if whole else "") / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == name and settings["revision"] == commits.get(name, {}).get("main")
    again = load_planner(tmp_path / "new", **cache)[0]
    assert all(torch.equal(weight, again.state_dict()[key]) for key, weight in planner.state_dict().items())


def test_what_belongs_to_a_planner_that_is_an_adapter_comes_back(tmp_path):
    save_planner(tmp_path / "base", *tiny_models.tiny_planner(), PROMPTS)
    pipe = pipeline(with_adapter(load_planner(tmp_path / "base")[0], tmp_path / "base"))
    pipe.sequence_without_adapter = True
    save_planner(tmp_path / "new", pipe.planner, pipe.processor, pipe.prompts)
    again = ImageEditR1Pipeline(*load_planner(tmp_path / "new")[:2])
    assert again.sequence_without_adapter and again.prompts == PROMPTS


def test_an_adapter_without_prompts_leaves_those_of_its_base(tmp_path):
    base = tmp_path / "base"
    save_planner(base, *tiny_models.tiny_planner(), PROMPTS)
    with_adapter(load_planner(base)[0], base).save_pretrained(tmp_path / "adapter")
    assert load_planner(tmp_path / "adapter")[2] == PROMPTS


def test_defaults_are_plain_data_and_stay_those_of_the_editor_in_memory(tmp_path):
    pipe = pipeline()
    pipe.editor_defaults = {"num_inference_steps": np.int64(3), "guidance_scale": np.float32(1.5)}
    assert pipe.editor_defaults == {"num_inference_steps": 3, "guidance_scale": 1.5}
    for value in (torch.zeros(1), print, np.zeros(2)):
        with pytest.raises(TypeError, match=r"`defaults\.latents` is kept with its component and saved"):
            pipe.editor_defaults = {"latents": value}
    with pytest.raises(TypeError):
        pipe.editor_defaults["num_inference_steps"] = 7  # of a copy: it would be lost
    pipe.editor_defaults = {}
    pipe.save_pretrained(tmp_path)
    loaded = ImageEditR1Pipeline.from_pretrained(tmp_path)
    pipe.editor_defaults = {"num_inference_steps": 3}
    pipe.save_pretrained(tmp_path)
    assert loaded.editor_defaults == {}
    nothing = ImageEditR1Pipeline(None)
    for name, value in (("prompts", PROMPTS), ("editor_defaults", {}), ("sequence_without_adapter", True)):
        with pytest.raises(ValueError, match="This pipeline has no"):
            setattr(nothing, name, value)
