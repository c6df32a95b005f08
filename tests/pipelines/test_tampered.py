"""Bundles that somebody, or a broken disk, has changed: each a ValueError or OSError that names the file."""

import json
import os
import shutil

import pytest
import tiny_models
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save
from tiny_loras import with_loras

from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.bundles.planners import load_planner, naming, save_planner
from diffusers_r1.planners.remote import RemotePlanner
from diffusers_r1.prompts import Prompts
from diffusers_r1.remote_editor import RemoteEditor


pytestmark = [
    pytest.mark.tiny,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # PEFT's way of asking
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`"),  # of `load_lora_weights`, for a second one
]

DEEP = "[" * 100_000
NO_JSON = {
    "null": "null",
    "a list": "[1, 2]",
    "text": '"x"',
    "a number": "3",
    "nothing": "",
    "cut": '{"a": ',
    "NaN": '{"a": NaN}',
    "deep": DEEP,
    "deep objects": '{"a":' * 100_000,
    "half a surrogate pair": '{"a": "\\ud800"}',
    "bytes": b"\xff\xfe\x00",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A bundle with adapters on its editor, and a planner that is an adapter."""
    folder = tmp_path_factory.mktemp("whole")
    save_planner(folder / "base", *tiny_models.tiny_planner(), Prompts())
    base, processor, _ = load_planner(folder / "base", dtype=torch.float32)
    settings = LoraConfig(r=2, target_modules=r".*language_model.*(q_proj|v_proj)")
    get_peft_model(base, settings).save_pretrained(folder / "adapter")
    processor.save_pretrained(folder / "adapter")
    Prompts().save(folder / "adapter")
    planner, processor, _ = load_planner(folder / "adapter", dtype=torch.float32)
    pipe = ImageEditR1Pipeline(planner, processor, with_loras(folder, "pix2pix"))
    pipe.editor_defaults = {"num_inference_steps": 1}
    pipe.save_pretrained(folder / "bundle")
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    def copy(name: str):
        # Files are replaced below, never written into.
        shutil.copytree(whole / name, tmp_path / name, copy_function=os.link)
        return tmp_path / name

    return copy


def replace(path, content) -> None:
    path.unlink()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def changed(path, change) -> str:
    """The JSON of a file with some of its fields changed."""
    data = json.loads(path.read_text())
    target = data[0] if isinstance(data, list) else data
    target.update(change)
    return json.dumps(data)


INDEX = [
    {"editor": 3},
    {"editor": None},
    {"editor": []},
    {"editor": ["diffusers"]},
    {"editor": {"a": 1}},
    {"planner": "x"},
    {"planner": [1, 2]},
    {"planner": ["transformers", "NoSuchClass"]},
    {"processor": [["x"], "y"]},
    {"_shared": []},
    {"_shared": {"planner": 3}},
    {"_shared": {"planner": "editor.nothing"}},
    {"_class_name": 3},
    {"_class_name": {"a": 1}},
    {"_base_models": ["x"]},
    {"prompts": []},
    {"prompts": {"decompose": 3}},
    {"prompts": {"decompose": "no place for the instruction"}},
    {"prompts": {"nonsense": "x"}},
    {"sequence_without_adapter": "yes"},
    {"editor_defaults": [1]},
]
EDITORS_INDEX = [
    {"unet": 3},
    {"unet": []},
    {"unet": [1, 2]},
    {"_class_name": None},
    {"_class_name": "NoSuchPipeline"},
    {"_imageedit_r1": 3},
    {"_imageedit_r1": {"defaults": [1]}},
    {"_imageedit_r1": {"made_for": "x"}},
    {"_imageedit_r1": {"made_for": {"pictures": "x", "size": [64]}}},
]
ADAPTER = [
    {"base_model_name_or_path": None},
    {"base_model_name_or_path": 3},
    {"base_model_name_or_path": ["x"]},
    {"r": "x"},
    {"r": 0},
    {"target_modules": 3},
    {"peft_type": "NOPE"},
    {"lora_alpha": [1]},
]
ADAPTERS = [
    {"folder": "../planner"},
    {"folder": "adapter-9"},
    {"component": "nothing"},
    {"scales": []},
    {"scales": {"x": None}},
    {"active": "yes"},
    {"name": 3},
    {"nonsense": 1},
]


def damage(file: str, changes: list[dict], texts: dict[str, str | bytes] = NO_JSON) -> list:
    whole_files = [pytest.param(file, text, id=f"{file}: {name}") for name, text in texts.items()]
    return whole_files + [pytest.param(file, change, id=f"{file}: {json.dumps(change)}") for change in changes]


def apply(folder, file: str, content) -> None:
    path = folder / file
    replace(path, changed(path, content) if isinstance(content, dict) else content)


SOME = {name: NO_JSON[name] for name in ("null", "a list", "cut", "deep", "half a surrogate pair", "bytes")}
OF_BUNDLES = [
    *damage("model_index.json", INDEX),
    *damage("editor/model_index.json", EDITORS_INDEX, SOME),
    *damage("editor/adapters.json", ADAPTERS, SOME),
    *damage("editor/adapter-0/adapter_config.json", [{"r": "x"}, {"peft_type": "NOPE"}], SOME),
    *damage(
        "editor/scheduler/scheduler_config.json", [], {name: NO_JSON[name] for name in ("null", "a list", "text")}
    ),
    *damage("processor/tokenizer.json", [], {"cut": '{"a": '}),
    *damage("editor/tokenizer/tokenizer.json", [], {name: NO_JSON[name] for name in ("null", "a list")}),
    *damage("planner/adapter_config.json", ADAPTER[:3], {"a list": "[1]", "deep": DEEP}),
    pytest.param("editor/adapter-0/adapter_model.safetensors", b"garbage", id="weights of an adapter"),
]


@pytest.mark.parametrize(("file", "content"), OF_BUNDLES)
def test_a_bundle_that_is_damaged(copy, file, content):
    folder = copy("bundle")
    apply(folder, file, content)
    with pytest.raises((OSError, ValueError)) as refused:
        ImageEditR1Pipeline.from_pretrained(folder)
    said = str(refused.value)
    assert type(refused.value) is not UnicodeDecodeError
    place = folder / file
    assert any(str(one) in said for one in (place, place.parent)), said
    assert len(said) < 3000


# diffusers, torch and huggingface_hub each have an error of their own for these.
OF_ANOTHER_KIND = [
    ("editor/scheduler/scheduler_config.json", {"beta_schedule": "x"}),
    ("editor/scheduler/scheduler_config.json", {"beta_start": -1}),
    ("editor/text_encoder/config.json", {"hidden_size": "x"}),
]


@pytest.mark.parametrize(("file", "change"), OF_ANOTHER_KIND, ids=str)
def test_what_a_library_answers_with_an_error_of_its_own(copy, file, change):
    folder = copy("bundle")
    apply(folder, file, change)
    with pytest.raises(ValueError, match=f"{folder / 'editor'} cannot be loaded: "):
        ImageEditR1Pipeline.from_pretrained(folder)


def test_weights_of_another_shape(copy):
    folder = copy("base")
    path = folder / "model.safetensors"
    weights = load_file(path)
    replace(path, save({**weights, "lm_head.weight": torch.zeros(3, 3)}, {"format": "pt"}))
    with pytest.raises(ValueError, match=f"{folder} cannot be loaded: RuntimeError: .*ignore_mismatched_sizes"):
        load_planner(folder)


def test_a_full_memory_is_no_fault_of_a_file(tmp_path):
    for error in (torch.OutOfMemoryError, torch.AcceleratorError, MemoryError, ImportError):
        with pytest.raises(error, match="^full$"), naming(tmp_path):
            raise error("full")


OF_PLANNERS = [
    *damage("adapter_config.json", ADAPTER, SOME),
    *damage("prompts.json", [{"decompose": 3}, {"decompose": "x"}, {"nonsense": 1}], SOME),
]


@pytest.mark.parametrize(("file", "content"), OF_PLANNERS)
def test_an_adapter_that_is_damaged(copy, file, content):
    folder = copy("adapter")
    apply(folder, file, content)
    with pytest.raises((OSError, ValueError)) as refused:
        load_planner(folder)
    assert str(folder) in str(refused.value)


OF_BASES = [
    *damage("config.json", [{"text_config": {"hidden_size": "x"}}], {}),
    *damage("tokenizer.json", [], {"a list": "[1]"}),
]


@pytest.mark.parametrize(("file", "content"), OF_BASES)
def test_a_planner_that_is_damaged(copy, file, content):
    folder = copy("base")
    apply(folder, file, content)
    with pytest.raises((OSError, ValueError), match=str(folder)):
        load_planner(folder)


@pytest.mark.parametrize("file", ["config.json", "model_index.json"])
def test_a_planner_of_a_bundle_that_is_damaged(copy, file):
    folder = copy("bundle" if file == "model_index.json" else "base")
    apply(folder, file, "[1, 2]")
    with pytest.raises((OSError, ValueError), match=str(folder)):
        load_planner(folder)


def test_adapters_that_name_each_other(copy, tmp_path):
    first = copy("adapter")
    second = tmp_path / "second"
    shutil.copytree(first, second)
    for names in ({first: first}, {first: second, second: first}):
        for folder, other in names.items():
            apply(folder, "adapter_config.json", {"base_model_name_or_path": str(other)})
        with pytest.raises(ValueError, match=r"adapter_config.json: `base_model_name_or_path`.*the adapter itself"):
            load_planner(first)
    bundle = copy("bundle")
    apply(bundle, "planner/adapter_config.json", {"base_model_name_or_path": str(bundle / "planner")})
    with pytest.raises((OSError, ValueError), match=str(bundle)):
        ImageEditR1Pipeline.from_pretrained(bundle)


@pytest.mark.parametrize("kind", [RemotePlanner, RemoteEditor])
@pytest.mark.parametrize("text", [*NO_JSON.values(), "{}", '{"base_url": 3, "model": "x"}', '{"base_url": "x"}'])
def test_an_address_that_is_damaged(tmp_path, kind, text):
    name = "remote_planner.json" if kind is RemotePlanner else "remote_editor.json"
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=name):
        kind.from_pretrained(tmp_path)


def test_an_undamaged_copy_loads(copy):
    pipe = ImageEditR1Pipeline.from_pretrained(copy("bundle"))
    assert pipe.editor_defaults == {"num_inference_steps": 1} and isinstance(pipe.editor, DiffusionPipeline)
