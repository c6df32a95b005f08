"""Real model classes with tiny random weights, built in code: nothing is downloaded, and a seed gives equal weights.

Each builder takes well under a second. Every picture becomes at most 16 planner tokens (64x64 pixels of 8x8 patches,
merged 2x2), every character one to four tokens (byte-level, no merges), so any text can be encoded. All VAEs shrink by
8 and all editors keep the size rules of the real models; at `num_inference_steps=1` and 64 pixels an editor answers in
about a second.

    planner, processor = tiny_planner()
    editor = tiny_pix2pix()
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    FluxTransformer2DModel,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)


SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]

# ChatML; content is a string or a list of parts, as in Qwen2.5-VL's own template (without its default system message).
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part['type'] == 'text' -%}{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw weights from `seed` and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _byte_alphabet() -> list[str]:
    return sorted(ByteLevel.alphabet())


# The planner and a text-only planner
# -----------------------------------


def tiny_tokenizer() -> Qwen2Tokenizer:
    """Return a byte-level `Qwen2Tokenizer` of 256 bytes and Qwen's special tokens, with the chat template above."""
    vocab = {token: index for index, token in enumerate(SPECIAL_TOKENS + _byte_alphabet())}
    return Qwen2Tokenizer(
        vocab=vocab,
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=SPECIAL_TOKENS[1:],
        chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
    )


def _processor(processor_class: type, tokenizer: Qwen2Tokenizer):
    # min and max pixels: every picture becomes 4 to 16 tokens
    vision = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2, "min_pixels": 32 * 32, "max_pixels": 64 * 64}
    return processor_class(
        image_processor=Qwen2VLImageProcessor(**vision),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**vision),
        chat_template=CHAT_TEMPLATE,
    )


def _generation_config(tokenizer: Qwen2Tokenizer) -> GenerationConfig:
    return GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )


def _vision_language_model(tokenizer: Qwen2Tokenizer, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    token_id = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 32,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 32,
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
    )
    with _seeded(seed):
        model = Qwen2_5_VLForConditionalGeneration(config).eval()
    model.generation_config = _generation_config(tokenizer)
    return model


def tiny_planner(seed: int = 0) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]:
    """Return a vision-language planner of about 90,000 parameters and its processor."""
    tokenizer = tiny_tokenizer()
    return _vision_language_model(tokenizer, seed), _processor(Qwen2_5_VLProcessor, tokenizer)


def tiny_text_planner(seed: int = 0) -> tuple[Qwen2ForCausalLM, Qwen2Tokenizer]:
    """Return a language model (no pictures) and its tokenizer: a sequencer of its own."""
    tokenizer = tiny_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with _seeded(seed):
        model = Qwen2ForCausalLM(config).eval()
    model.generation_config = _generation_config(tokenizer)
    return model, tokenizer


# Editors
# -------


def _clip(seed: int) -> tuple[CLIPTextModel, CLIPTokenizer]:
    letters = _byte_alphabet()
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=77
    )
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with _seeded(seed):
        return CLIPTextModel(config).eval(), tokenizer


def _t5(seed: int) -> tuple[T5EncoderModel, T5Tokenizer]:
    """T5 without SentencePiece: a unigram vocabulary of single printable characters; others are `<unk>`."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in string.ascii_letters + string.digits + string.punctuation]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        relative_attention_num_buckets=8,
        feed_forward_proj="gated-gelu",
    )
    with _seeded(seed):
        return T5EncoderModel(config).eval(), tokenizer


def _autoencoder(latent_channels: int, seed: int, **config) -> AutoencoderKL:
    with _seeded(seed):
        return AutoencoderKL(
            block_out_channels=(4, 4, 4, 4),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            norm_num_groups=2,
            latent_channels=latent_channels,
            sample_size=64,
            **config,
        ).eval()


def tiny_pix2pix(seed: int = 0) -> StableDiffusionInstructPix2PixPipeline:
    """Return an InstructPix2Pix editor; its output has the input's size, which must be a multiple of 8."""
    text_encoder, tokenizer = _clip(seed)
    with _seeded(seed):
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=8,
            out_channels=4,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=4,
            cross_attention_dim=32,
        ).eval()
    return StableDiffusionInstructPix2PixPipeline(
        vae=_autoencoder(4, seed),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tiny_kontext(seed: int = 0) -> FluxKontextPipeline:
    """Return a FLUX.1 Kontext editor.

    It resizes its input to about one megapixel, like the real one, which is what takes time here: pass
    `_auto_resize=False, max_area=64 * 64, height=64, width=64` to stay small.
    """
    text_encoder, tokenizer = _clip(seed)
    text_encoder_2, tokenizer_2 = _t5(seed)
    with _seeded(seed):
        transformer = FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=True,
            axes_dims_rope=(4, 4, 8),
        ).eval()
    return FluxKontextPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_autoencoder(
            4, seed, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.0609, scaling_factor=1.5035
        ),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2,
        transformer=transformer,
    )


def _qwen_image_parts(seed: int) -> dict[str, object]:
    tokenizer = tiny_tokenizer()
    with _seeded(seed):
        transformer = QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(4, 6, 6),
        ).eval()
        vae = AutoencoderKLQwenImage(
            base_dim=2,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ).eval()
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": vae,
        "text_encoder": _vision_language_model(tokenizer, seed),
        "tokenizer": tokenizer,
        "processor": _processor(Qwen2VLProcessor, tokenizer),
        "transformer": transformer,
    }


def tiny_qwen_edit(seed: int = 0) -> QwenImageEditPipeline:
    """Return a Qwen-Image-Edit editor; like the real one it encodes every picture at about one megapixel."""
    return QwenImageEditPipeline(**_qwen_image_parts(seed))


def tiny_qwen_edit_plus(seed: int = 0) -> QwenImageEditPlusPipeline:
    """Return a Qwen-Image-Edit-Plus (2509) editor; one call makes one picture from one or several."""
    return QwenImageEditPlusPipeline(**_qwen_image_parts(seed))
