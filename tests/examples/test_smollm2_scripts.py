"""The scripts in `examples/smollm2`: a GGUF file read back as the model that it was, and rows that do not overlap."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tiny_models import tiny_text_planner
from transformers import LlamaConfig, LlamaForCausalLM

from diffusers_r1.bundles.planners import base_of, load_planner, save_planner
from diffusers_r1.prompts import Prompts


EXAMPLES = Path(__file__).parents[2] / "examples" / "smollm2"


@pytest.fixture(scope="module")
def convert():
    pytest.importorskip("gguf")
    return runpy.run_path(str(EXAMPLES / "convert_base.py"))


@pytest.fixture(scope="module")
def model():
    config = LlamaConfig(
        vocab_size=20, hidden_size=48, intermediate_size=32, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=True, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def reader(model, convert, tmp_path_factory):
    """The model as llama.cpp writes it: other names, and queries and keys with the halves of each head interleaved."""
    import gguf

    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(20)
    writer.add_context_length(64)
    writer.add_embedding_length(48)
    writer.add_block_count(2)
    writer.add_feed_forward_length(32)
    writer.add_head_count(3)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e5)
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "c", "ab", "abc", "1", "Ġ", "Ġa"]
    writer.add_token_list(tokens + [f"x{number}" for number in range(20 - len(tokens))])
    writer.add_token_types([3, 3, 3] + [1] * 17)
    writer.add_token_merges(["a b", "ab c", "Ġ a"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    weights = model.state_dict()
    for theirs, ours in convert["WEIGHTS"].items():
        for layer in range(2) if "{}" in theirs else [""]:
            values = weights[ours.format(layer)]
            for part, heads in (("attn_q", 3), ("attn_k", 1)):
                if part in theirs:
                    rows, columns = values.shape
                    values = values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2)
                    values = values.reshape(rows, columns)
            writer.add_tensor(theirs.format(layer), values.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return gguf.GGUFReader(path)


def test_a_gguf_file_is_the_model_that_it_was(model, convert, reader):
    facts = {name: field.contents() for name, field in reader.fields.items()}
    config = convert["read_config"](facts)
    read = LlamaForCausalLM(config).to(torch.bfloat16).eval()
    missing = read.load_state_dict(convert["read_weights"](reader, config), strict=False).missing_keys
    assert missing in ([], ["lm_head.weight"])
    read.tie_weights()
    ids = torch.tensor([[1, 3, 7, 9, 4, 2]])
    expected = model.to(torch.bfloat16)(ids).logits
    torch.testing.assert_close(read(ids).logits, expected, rtol=0, atol=0)


def test_its_tokenizer_splits_as_the_merges_say(convert, reader):
    facts = {name: field.contents() for name, field in reader.fields.items()}
    tokenizer = convert["read_tokenizer"](facts)
    assert tokenizer.tokenize("abc a11<|im_end|>") == ["abc", "Ġa", "1", "1", "<|im_end|>"]
    assert tokenizer.decode(tokenizer("abc a1")["input_ids"]) == "abc a1"
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    assert tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False) == "ab"


def test_rows_to_train_on_and_to_measure_on_do_not_overlap(tmp_path):
    pair = {"edit_type": "delete object", "ori obj": "dog", "new_obj": "nothing"}
    lines = [
        {"id": str(number // 3), "steps": [f"remove dog {number}"] * 2, "edits": [pair] * 2} for number in range(12)
    ]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(lines))
    command = [sys.executable, EXAMPLES / "complexbench_rows.py", "--file", file, "--output_dir", tmp_path / "out"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1 and "each picture is among those to measure on" in refused.stderr
    lines = [{**line, "id": str(number)} for number, line in enumerate(lines)]
    file.write_text(json.dumps(lines))
    subprocess.run(command, check=True, capture_output=True)
    assert json.loads((tmp_path / "out" / "held_out.json").read_text()) == lines[1::2]
    rows = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and rows[1]["edits"] == [{"action": "remove", "subject": "dog", "goal": "nothing"}] * 2
    assert "dog 2" in rows[1]["instruction"]
    beside = EXAMPLES / "everyday_train_2.jsonl"
    subprocess.run([*command, "--beside", beside, "--skip", "1980", "--each", "2"], check=True, capture_output=True)
    mixed = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    by_hand = {json.loads(line)["instruction"] for line in beside.read_text(encoding="utf-8").splitlines()[1980:]}
    assert [row["instruction"] in by_hand for row in mixed] == [True, True, False] * 3
    assert {row["instruction"] for row in mixed} >= by_hand and all(row in rows for row in mixed[2::3])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's way of asking
def test_a_shared_adapter_plans_as_the_one_that_was_trained(tmp_path):
    prompts = Prompts(system="You plan edits of photos.", decompose="{instruction}", sequence="In order:")
    planner, tokenizer = tiny_text_planner()
    save_planner(tmp_path / "base", planner, tokenizer, prompts)
    torch.manual_seed(0)
    settings = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(planner, settings).save_pretrained(tmp_path / "run")
    tokenizer.save_pretrained(tmp_path / "run")
    prompts.save(tmp_path / "run")
    command = [
        sys.executable,
        EXAMPLES / "share_adapter.py",
        "--adapter",
        tmp_path / "run",
        "--output",
        tmp_path / "shared",
    ]
    subprocess.run([*command, "--base", "org/base"], check=True, capture_output=True)
    assert {file.name for file in (tmp_path / "shared").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "prompts.json",
    }
    assert base_of(tmp_path / "shared") == "org/base"
    trained, _, _ = load_planner(tmp_path / "run", base=tmp_path / "base", dtype="float32")
    shared, _, words = load_planner(tmp_path / "shared", base=tmp_path / "base", dtype="float32")
    bare, _, _ = load_planner(tmp_path / "base", dtype="float32")
    ids = tokenizer("remove the dog", return_tensors="pt").input_ids
    with torch.no_grad():
        expected, said, without = (model(ids).logits for model in (trained, shared, bare))
    assert words == prompts
    torch.testing.assert_close(said, expected, rtol=0, atol=0.02 * float((expected - without).abs().max()))
    assert subprocess.run(command, capture_output=True).returncode != 0  # nothing is written over


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_several_adapters_are_shared_as_their_mean(tmp_path):
    planner, _ = tiny_text_planner()
    settings = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = get_peft_model(planner, settings)
    for number in range(3):
        for weight in adapted.parameters():
            weight.data.fill_(float(number**2))
        adapted.save_pretrained(tmp_path / str(number))
        Prompts(decompose="{instruction}").save(tmp_path / str(number))
    adapters = [tmp_path / str(number) for number in range(3)]
    share_adapter = runpy.run_path(str(EXAMPLES / "share_adapter.py"))["main"]
    share_adapter(adapters, tmp_path / "shared", "org/base")
    mean = torch.tensor(5 / 3).bfloat16()
    weights = load_file(tmp_path / "shared" / "adapter_model.safetensors")
    assert weights.keys() == load_file(adapters[0] / "adapter_model.safetensors").keys()
    assert all((value == mean).all() for value in weights.values())
