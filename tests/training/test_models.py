from pathlib import Path

import pytest
import torch
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
from diffusers_r1.prompts import Prompts
from diffusers_r1.training.models import load_trainable, lora_settings, vision_towers, without_control_tokens


pytestmark = [
    pytest.mark.tiny,
    pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing. is deprecated:FutureWarning"),
]


def settings(folder: Path, **options) -> GRPOConfig:
    return GRPOConfig(output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", **options)


@pytest.fixture
def folder(tmp_path, planner, prompts):
    save_planner(tmp_path / "planner", *planner, prompts)
    return str(tmp_path / "planner")


@pytest.mark.parametrize("freeze", [True, False])
def test_the_vision_tower_is_frozen_by_choice(folder, tmp_path, prompts, freeze):
    training = settings(tmp_path, model_init_kwargs={"attn_implementation": "eager"})
    planner, _, words = load_trainable(ModelConfig(folder, dtype="bfloat16"), training, freeze)
    assert planner.dtype == torch.bfloat16 and planner.config._attn_implementation == "eager" and words == prompts
    tower = set(vision_towers(planner)["model.visual"].parameters())
    trained = {parameter for parameter in planner.parameters() if parameter.requires_grad}
    assert trained == set(planner.parameters()) - (tower if freeze else set())
    assert training.model_init_kwargs is None


def test_without_a_name_there_is_nothing_to_load(tmp_path):
    with pytest.raises(ValueError, match="--model_name_or_path"):
        load_trainable(ModelConfig(), settings(tmp_path), True)


@pytest.mark.parametrize("freeze", [True, False])
def test_lora_leaves_a_frozen_vision_tower_alone(folder, tmp_path, freeze):
    model = ModelConfig(folder, use_peft=True, lora_r=2, lora_target_modules=["all-linear"])
    planner, _, _ = load_trainable(model, settings(tmp_path), freeze)
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
    planner, _, words = load_trainable(ModelConfig(start, dtype="bfloat16"), settings(tmp_path), True)
    trained = {name: weight for name, weight in planner.named_parameters() if weight.requires_grad}
    assert trained and all("lora_" in name and weight.dtype == torch.float32 for name, weight in trained.items())
    assert words == prompts
    expected = adapted.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in trained.items())
    assert base_of(start) == str(tmp_path / "base") and base_of(tmp_path / "base") == str(tmp_path / "base")
    with pytest.raises(ValueError, match="leave out --use_peft"):
        load_trainable(ModelConfig(start, use_peft=True), settings(tmp_path), True)


def test_dropout_is_that_of_the_run_and_not_of_the_adapter(text_planner, tmp_path, prompts):
    """Neither a dropout that the adapter was trained with stays, nor does none."""
    save_planner(tmp_path / "base", *text_planner, Prompts())
    base, _, _ = load_planner(tmp_path / "base")
    adapted = get_peft_model(base, LoraConfig(target_modules=["q_proj"], lora_dropout=0.3))
    adapted.save_pretrained(tmp_path / "adapter")
    prompts.save(tmp_path / "adapter")
    for asked in (0.0, 0.1):
        model = ModelConfig(str(tmp_path / "adapter"), dtype="bfloat16", lora_dropout=asked)
        planner, _, _ = load_trainable(model, settings(tmp_path), True)
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
