import json
from pathlib import Path

import pytest
import tiny_models
import torch
from cached_hub import keep
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForImageTextToText,
    Idefics3Config,
    LlavaConfig,
    Mistral3Config,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
)
from trl import GRPOConfig, ModelConfig

from diffusers_r1.bundles.planners import base_of, load_planner, save_planner
from diffusers_r1.pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline
from diffusers_r1.prompts import Prompts
from diffusers_r1.training.models import (
    load_trainable,
    lora_settings,
    start_of,
    vision_towers,
    without_control_tokens,
)
from diffusers_r1.training.pictures import Renderer
from diffusers_r1.training.results import save_merged


pytestmark = [
    pytest.mark.tiny,
    pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing. is deprecated:FutureWarning"),
]


def settings(folder: Path, **options) -> GRPOConfig:
    return GRPOConfig(output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", **options)


def trainable(model: ModelConfig, training: GRPOConfig, freeze_vision: bool):
    return load_trainable(start_of(model, training), model, training, freeze_vision)


@pytest.fixture
def folder(tmp_path, planner, prompts):
    save_planner(tmp_path / "planner", *planner, prompts)
    return str(tmp_path / "planner")


@pytest.mark.parametrize("freeze", [True, False])
def test_the_vision_tower_is_frozen_by_choice(folder, tmp_path, prompts, freeze):
    training = settings(tmp_path, model_init_kwargs={"attn_implementation": "eager"})
    planner, _, words = trainable(ModelConfig(folder, dtype="bfloat16"), training, freeze)
    assert planner.dtype == torch.bfloat16 and planner.config._attn_implementation == "eager" and words == prompts
    tower = set(vision_towers(planner)["model.visual"].parameters())
    trained = {parameter for parameter in planner.parameters() if parameter.requires_grad}
    assert trained == set(planner.parameters()) - (tower if freeze else set())
    assert training.model_init_kwargs is None


def test_without_a_name_there_is_nothing_to_load(tmp_path):
    with pytest.raises(ValueError, match="--model_name_or_path"):
        trainable(ModelConfig(), settings(tmp_path), True)


@pytest.mark.parametrize("freeze", [True, False])
def test_lora_leaves_a_frozen_vision_tower_alone(folder, tmp_path, freeze):
    model = ModelConfig(folder, use_peft=True, lora_r=2, lora_target_modules=["all-linear"])
    planner, _, _ = trainable(model, settings(tmp_path), freeze)
    adapted = get_peft_model(planner, lora_settings(model, planner, freeze))
    layers = [name for name, _ in adapted.named_parameters() if "lora_A" in name]
    assert any("language_model" in name for name in layers)
    assert any("visual" in name for name in layers) == (not freeze)
    assert lora_settings(ModelConfig(folder), planner, freeze) is None


def test_no_completion_holds_a_control_token(planner, tmp_path):
    model, processor = planner
    training = settings(tmp_path, generation_kwargs={"top_k": 5})
    without_control_tokens(training, model, processor)
    suppressed = training.generation_kwargs.pop("suppress_tokens")
    assert training.generation_kwargs == {"top_k": 5}
    names = processor.tokenizer.convert_ids_to_tokens(suppressed)
    assert {"<|image_pad|>", "<|vision_start|>", "<|im_start|>"} <= set(names)
    assert not {"<|im_end|>", "<|endoftext|>"} & set(names)

    training.use_vllm, training.generation_kwargs = True, None
    without_control_tokens(training, model, processor)
    assert training.generation_kwargs == {"bad_words": names}
    training.use_vllm = False

    training.generation_kwargs = {"suppress_tokens": [7]}
    without_control_tokens(training, model, processor)
    assert training.generation_kwargs == {"suppress_tokens": [7]}


def test_an_adapter_is_trained_on(text_planner, tmp_path, prompts):
    save_planner(tmp_path / "base", *text_planner, Prompts())
    base, _, _ = load_planner(tmp_path / "base")
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    prompts.save(tmp_path / "adapter")
    start = str(tmp_path / "adapter")
    planner, _, words = trainable(ModelConfig(start, dtype="bfloat16"), settings(tmp_path), True)
    trained = {name: weight for name, weight in planner.named_parameters() if weight.requires_grad}
    assert trained and all("lora_" in name and weight.dtype == torch.float32 for name, weight in trained.items())
    assert words == prompts
    expected = adapted.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in trained.items())
    assert base_of(start) == str(tmp_path / "base") and base_of(tmp_path / "base") == str(tmp_path / "base")
    with pytest.raises(ValueError, match="leave out --use_peft"):
        trainable(ModelConfig(start, use_peft=True), settings(tmp_path), True)


def leave_adapter(folder: Path, base: Path, words: str, seed: int = 0, **named) -> None:
    """An adapter of that base, whose settings name it as `named` says."""
    torch.manual_seed(seed)
    model, _, _ = load_planner(base)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)).save_pretrained(folder)
    Prompts(decompose=f"{words} {{instruction}}").save(folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **named}))


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two models answer alike."""
    ids = torch.arange(10).unsqueeze(0)
    with torch.no_grad():
        return torch.allclose(one.eval()(input_ids=ids).logits, other.eval()(input_ids=ids).logits, atol=1e-6)


@pytest.fixture
def hub(tmp_path) -> tuple[dict, dict]:
    """`org/base` and an adapter of it, of two revisions each: how they are had from the cache, and the commits of `org/base`."""
    for name, seed in {"old": 1, "new": 2}.items():
        save_planner(
            tmp_path / name, *tiny_models.tiny_text_planner(seed), Prompts(decompose=f"{name} {{instruction}}")
        )
    folders = {"v1": tmp_path / "old", "main": tmp_path / "new"}
    commits = keep(tmp_path / "cache", "org/base", **folders)
    named = {"base_model_name_or_path": "org/base", "revision": commits["v1"]}
    leave_adapter(tmp_path / "first", tmp_path / "old", "first", seed=1, **named)
    leave_adapter(tmp_path / "second", tmp_path / "old", "second", seed=2, **named)
    keep(tmp_path / "cache", "org/adapter", v1=tmp_path / "first", main=tmp_path / "second")
    return {"cache_dir": str(tmp_path / "cache"), "local_files_only": True}, commits


def test_all_that_is_loaded_of_a_start_is_of_its_revision(hub, tmp_path):
    had, commits = hub
    model = ModelConfig("org/base", model_revision="v1", dtype="float32")
    training = settings(tmp_path, model_init_kwargs=had)
    start = start_of(model, training)
    planner, tokenizer, words = load_trainable(start, model, training, True)
    old = load_planner(tmp_path / "old")[0]
    assert same(planner, old) and words.decompose == "old {instruction}"
    assert (start.base, start.commit) == ("org/base", commits["v1"])
    leave_adapter(tmp_path / "out" / "adapter", tmp_path / "old", "")
    save_merged(start, tmp_path / "out", tokenizer, words, {})
    expected = load_planner(tmp_path / "out" / "adapter", base=tmp_path / "old")[0]
    assert same(load_planner(tmp_path / "out")[0], expected) and same(start.load()[0], old)
    renderer = Renderer("imageedit-r1-scenes", start)
    assert same(renderer.base.load()[0], old)


@pytest.mark.parametrize(("revision", "words"), [("v1", "first"), ("main", "second")])
def test_an_adapter_of_a_revision_is_trained_on_with_the_base_of_its_own(revision, words, hub, tmp_path):
    had, commits = hub
    model = ModelConfig("org/adapter", model_revision=revision, dtype="float32")
    training = settings(tmp_path, model_init_kwargs=had)
    start = start_of(model, training)
    planner, _, prompts = load_trainable(start, model, training, True)
    assert (start.base, start.commit) == (
        "org/base",
        commits["v1"],
    )  # which is not what the adapter's revision is called
    expected = load_planner(tmp_path / words, base=tmp_path / "old")[0]
    assert same(planner, expected) and same(start.load()[0], expected)
    assert prompts.decompose == f"{words} {{instruction}}"
    assert same(load_planner("org/adapter", revision=revision, **had)[0], expected)


@pytest.mark.parametrize("kind", ["of a base", "of the editor's encoder"])
def test_the_adapter_of_a_bundle_is_trained_on(kind, tmp_path):
    words = Prompts(decompose="adapter: {instruction}")
    adapter = tiny_models.tiny_adapter(tmp_path, words)
    if kind == "of a base":
        model, processor, _ = load_planner(adapter, dtype="float32")
        pipe = ImageEditR1Pipeline(model, processor, None)
    else:
        pipe = ImageEditR1Pipeline.from_editor(tiny_models.tiny_qwen_edit(), planner_adapter=adapter)
    pipe.save_pretrained(tmp_path / "bundle")
    given = ModelConfig(str(tmp_path / "bundle"), dtype="float32")
    planner, _, prompts = trainable(given, settings(tmp_path), True)
    trained = [name for name, weight in planner.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name for name in trained) and prompts == words
    expected, tokenizer, _ = load_planner(tmp_path / "bundle", dtype="float32")
    assert same(planner, expected)
    part = {"of a base": tmp_path / "base", "of the editor's encoder": tmp_path / "bundle" / "editor" / "text_encoder"}
    assert base_of(tmp_path / "bundle") == str(part[kind])
    planner.save_pretrained(tmp_path / "out" / "adapter")
    save_merged(start_of(given, settings(tmp_path)), tmp_path / "out", tokenizer, prompts, {})
    assert same(load_planner(tmp_path / "out")[0], expected)
    with pytest.raises(ValueError, match="leave out --use_peft"):
        trainable(ModelConfig(str(tmp_path / "bundle"), use_peft=True), settings(tmp_path), True)


def test_dropout_is_that_of_the_run_and_not_of_the_adapter(text_planner, tmp_path, prompts):
    """Neither a dropout that the adapter was trained with stays, nor does none."""
    save_planner(tmp_path / "base", *text_planner, Prompts())
    base, _, _ = load_planner(tmp_path / "base")
    adapted = get_peft_model(base, LoraConfig(target_modules=["q_proj"], lora_dropout=0.3))
    adapted.save_pretrained(tmp_path / "adapter")
    prompts.save(tmp_path / "adapter")
    for asked in (0.0, 0.1):
        model = ModelConfig(str(tmp_path / "adapter"), dtype="bfloat16", lora_dropout=asked)
        planner, _, _ = trainable(model, settings(tmp_path), True)
        dropouts = [each for name, each in planner.named_modules() if name.endswith("lora_dropout.default")]
        assert {getattr(each, "p", 0.0) for each in dropouts} == {asked}
        assert any(weight.requires_grad for weight in planner.parameters())


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (Idefics3Config, ["model.vision_model"]),
        (Qwen2_5_VLConfig, ["model.visual"]),
        (Qwen3VLConfig, ["model.visual"]),
        (Mistral3Config, ["model.vision_tower"]),
        (LlavaConfig, ["model.vision_tower"]),
    ],
)
def test_the_tower_is_found_by_what_the_model_says(config, names):
    with torch.device("meta"):
        assert list(vision_towers(AutoModelForImageTextToText.from_config(config()))) == names


def test_a_tower_that_is_not_found_is_not_left_unfrozen_in_silence(text_planner):
    with pytest.raises(ValueError, match="--freeze_vision false"):
        vision_towers(text_planner[0])
