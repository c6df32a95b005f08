"""The shipped planner for photos is an adapter: it fits its base, brings its own prompts, and is small."""

import pytest
import torch
from tiny_models import tiny_text_planner
from transformers import LlamaConfig, LlamaForCausalLM

from diffusers_r1.bundles.planners import base_of, load_planner
from diffusers_r1.names import resolve
from diffusers_r1.planners.adapters import adapters_off, has_adapter


NAME = "imageedit-r1-smollm2"
# As published in the configuration of HuggingFaceTB/SmolLM2-135M-Instruct, but for the vocabulary, which no adapter touches.
CONFIG = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    _, tokenizer = tiny_text_planner()
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**CONFIG, vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.tiny
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's way of asking
def test_every_weight_of_the_adapter_finds_its_place(base):
    planner, tokenizer, prompts = load_planner(NAME, base=base, dtype="float32")
    assert has_adapter(planner) and prompts.system == "You plan edits of photos."
    learned = [name for name, _ in planner.named_parameters() if "lora_" in name]
    assert len(learned) == 30 * 7 * 2
    assert all(planner.get_parameter(name).abs().max() > 0 for name in learned)
    ids = tokenizer("remove the dog", return_tensors="pt").input_ids
    with torch.no_grad():
        adapted = planner(ids).logits
        with adapters_off(planner):
            bare = planner(ids).logits
    assert not torch.allclose(adapted, bare, atol=1e-2)


def test_it_names_its_base_and_is_small():
    assert base_of(NAME) == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (resolve(NAME) / "adapter_model.safetensors").stat().st_size < 10e6
    folder = str(resolve(NAME).parent)
    assert all(folder not in file.read_text() for file in resolve(NAME).glob("*.json"))
