"""A planner between the shipped one and a real one: Qwen2.5-VL with about 100 M random weights, in its real proportions.

Picture tokens are those of the real model (28 x 28 pixels each); text tokens are bytes, so that what a random model
writes survives being read and written again.
"""

from __future__ import annotations

import torch
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from diffusers_r1.bundles.planners import load_planner
from diffusers_r1.scenes import sample_task


def midsize_planner(seed: int = 0) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A random planner and its processor, on CPU, in float32."""
    _, shipped, _ = load_planner("imageedit-r1-scenes")
    control = shipped.tokenizer.all_special_tokens
    vocabulary = {token: number for number, token in enumerate([*control, *sorted(ByteLevel.alphabet())])}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=[token for token in control if token != "<|endoftext|>"],
    )
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(max_pixels=2048 * 28 * 28),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=shipped.chat_template,
    )
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 32_000,
            "hidden_size": 640,
            "intermediate_size": 2560,
            "num_hidden_layers": 10,
            "num_attention_heads": 10,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 1e6},
        },
        vision_config={
            "depth": 8,
            "hidden_size": 384,
            "intermediate_size": 1024,
            "num_heads": 6,
            "out_hidden_size": 640,
            "fullatt_block_indexes": [1, 3, 5, 7],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig(eos_token_id=ids("<|im_end|>"), pad_token_id=ids("<|endoftext|>"))
    return model, processor


def without_end(processor: ProcessorMixin) -> dict[str, list[int]]:
    """Settings of `generate` with which a random model writes plain letters, and exactly as many as it may."""
    letters = set(processor.tokenizer("abcdefghijklmnopqrstuvwxyz ,")["input_ids"])
    return {"suppress_tokens": [number for number in range(32_000) if number not in letters]}


def picture_of_1000_tokens(seed: int = 0) -> Image.Image:
    """1120 x 700 pixels, 40 x 25 tokens."""
    return sample_task(seed).image.resize((1120, 700), Image.Resampling.NEAREST)
