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
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    AutoencoderKLWan,
    BriaFiboEditPipeline,
    BriaFiboTransformer2DModel,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxKontextAutoBlocks,
    FluxKontextInpaintPipeline,
    FluxKontextPipeline,
    FluxTransformer2DModel,
    JoyImageEditPipeline,
    JoyImageEditTransformer3DModel,
    LongCatImageEditPipeline,
    LongCatImageTransformer2DModel,
    ModularPipeline,
    ModularPipelineBlocks,
    OmniGenPipeline,
    OmniGenTransformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    QwenImageEditAutoBlocks,
    QwenImageEditInpaintPipeline,
    QwenImageEditPipeline,
    QwenImageEditPlusAutoBlocks,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from peft import LoraConfig, get_peft_model
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    GenerationConfig,
    LlamaTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    PixtralImageProcessor,
    PixtralProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolLM3Config,
    SmolLM3ForCausalLM,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from diffusers_r1.bundles.planners import load_planner, save_planner
from diffusers_r1.prompts import Prompts


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


def tiny_sliding_planner() -> tuple[MistralForCausalLM, Qwen2Tokenizer]:
    """Return a language model whose attention has a sliding window, and its tokenizer."""
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = MistralConfig(
        vocab_size=len(tokenizer), num_key_value_heads=1, sliding_window=8, head_dim=16, **sizes, **special
    )
    with _seeded(0):
        return MistralForCausalLM(config), tokenizer


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
            num_res_blocks=0,  # quick at a megapixel
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


def tiny_adapter(folder: Path, prompts: Prompts) -> Path:
    """Save a LoRA adapter of that editor's text encoder as the training scripts leave one, and return its folder.

    It was not trained: its weights are random, and large enough that the model plans otherwise with it.
    """
    editor = tiny_qwen_edit()
    save_planner(folder / "base", editor.text_encoder, editor.processor, prompts)
    base, processor, _ = load_planner(folder / "base", dtype=torch.float32)
    layers = r".*language_model.*(q_proj|v_proj)"
    with _seeded(0):
        settings = LoraConfig(r=2, lora_alpha=64, target_modules=layers, init_lora_weights=False)
        get_peft_model(base, settings).save_pretrained(folder / "adapter")
    processor.save_pretrained(folder / "adapter")
    prompts.save(folder / "adapter")
    return folder / "adapter"


def tiny_qwen_edit_plus(seed: int = 0) -> QwenImageEditPlusPipeline:
    """Return a Qwen-Image-Edit-Plus (2509) editor; one call makes one picture from one or several."""
    return QwenImageEditPlusPipeline(**_qwen_image_parts(seed))


def tiny_qwen_edit_inpaint(seed: int = 0) -> QwenImageEditInpaintPipeline:
    """Return a Qwen-Image-Edit editor that takes a mask, and always works at about one megapixel."""
    return QwenImageEditInpaintPipeline(**_qwen_image_parts(seed))


def _modular(blocks: ModularPipelineBlocks, parts: dict[str, object]) -> ModularPipeline:
    editor = blocks.init_pipeline()
    editor.update_components(**{name: part for name, part in parts.items() if name in editor.component_names})
    return editor


def tiny_qwen_edit_modular(seed: int = 0) -> ModularPipeline:
    """Return Qwen-Image-Edit as a modular pipeline."""
    return _modular(QwenImageEditAutoBlocks(), _qwen_image_parts(seed))


def tiny_qwen_edit_plus_modular(seed: int = 0) -> ModularPipeline:
    """Return Qwen-Image-Edit-Plus as a modular pipeline."""
    return _modular(QwenImageEditPlusAutoBlocks(), _qwen_image_parts(seed))


def tiny_kontext_modular(seed: int = 0) -> ModularPipeline:
    """Return FLUX.1 Kontext as a modular pipeline."""
    return _modular(FluxKontextAutoBlocks(), tiny_kontext(seed).components)


def tiny_kontext_inpaint(seed: int = 0) -> FluxKontextInpaintPipeline:
    """Return a FLUX.1 Kontext editor that takes a mask."""
    return FluxKontextInpaintPipeline(**tiny_kontext(seed).components)


def _flux2_transformer(seed: int, text_width: int) -> Flux2Transformer2DModel:
    with _seeded(seed):
        return Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=text_width,
            timestep_guidance_channels=32,
            axes_dims_rope=(4, 4, 4, 4),
        ).eval()


def _flux2_autoencoder(seed: int) -> AutoencoderKLFlux2:
    with _seeded(seed):
        return AutoencoderKLFlux2(
            block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2, latent_channels=4, sample_size=64
        ).eval()


def tiny_flux2(seed: int = 0) -> Flux2Pipeline:
    """Return a FLUX.2 editor; its text encoder has the 31 layers of which the pipeline reads 10, 20 and 30."""
    tokenizer = tiny_tokenizer()
    processor = PixtralProcessor(
        image_processor=PixtralImageProcessor(patch_size=8, size={"longest_edge": 64}),
        tokenizer=tokenizer,
        patch_size=8,
        spatial_merge_size=2,
        chat_template=CHAT_TEMPLATE,
        image_token="<|image_pad|>",
        image_break_token="<|vision_start|>",
        image_end_token="<|vision_end|>",
    )
    config = Mistral3Config(
        text_config={
            "model_type": "mistral",
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 31,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "head_dim": 8,
            "image_size": 64,
            "patch_size": 8,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
    )
    with _seeded(seed):
        text_encoder = Mistral3ForConditionalGeneration(config).eval()
    return Flux2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_flux2_autoencoder(seed),
        text_encoder=text_encoder,
        tokenizer=processor,
        transformer=_flux2_transformer(seed, text_width=3 * 16),
    )


def tiny_flux2_klein(seed: int = 0) -> Flux2KleinPipeline:
    """Return a FLUX.2 Klein editor, not distilled; it reads the layers 9, 18 and 27 of its text encoder."""
    tokenizer = tiny_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=28,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=tokenizer.pad_token_id,
    )
    with _seeded(seed):
        text_encoder = Qwen3ForCausalLM(config).eval()
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_flux2_autoencoder(seed),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=_flux2_transformer(seed, text_width=3 * 16),
    )


def _qwen3_vl(seed: int) -> tuple[Qwen3VLForConditionalGeneration, Qwen3VLProcessor]:
    tokenizer = tiny_tokenizer()
    token_id = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
    )
    with _seeded(seed):
        model = Qwen3VLForConditionalGeneration(config).eval()
    vision = {"patch_size": 16, "merge_size": 2, "temporal_patch_size": 2}
    vision["size"] = {"shortest_edge": 32 * 32, "longest_edge": 1024 * 1024}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**vision),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**vision),
        chat_template=CHAT_TEMPLATE,
    )
    return model, processor


def tiny_qwen_image_21(seed: int = 0) -> QwenImage21Pipeline:
    """Return a Qwen-Image 2.1 editor; pass `output_resolution=64` with `height` and `width` to stay small."""
    text_encoder, processor = _qwen3_vl(seed)
    with _seeded(seed):
        transformer = QwenImage21Transformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            context_in_dim=32,
            axes_dims_rope=(4, 6, 6),
        ).eval()
        vae = AutoencoderKLQwenImage21(
            base_dim=4,
            decoder_base_dim=4,
            z_dim=4,
            dim_mult=[1, 1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ).eval()
    return QwenImage21Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=text_encoder,
        processor=processor,
        transformer=transformer,
    )


def tiny_longcat(seed: int = 0) -> LongCatImageEditPipeline:
    """Return a LongCat-Image-Edit editor; like the real one it works at about one megapixel."""
    tokenizer = tiny_tokenizer()
    with _seeded(seed):
        transformer = LongCatImageTransformer2DModel(
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=[4, 6, 6],
        ).eval()
    return LongCatImageEditPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_autoencoder(
            16,
            seed,
            use_quant_conv=False,
            use_post_quant_conv=False,
            mid_block_add_attention=False,  # small at a megapixel
            shift_factor=0.1,
        ),
        text_encoder=_vision_language_model(tokenizer, seed),
        tokenizer=tokenizer,
        text_processor=_processor(Qwen2VLProcessor, tokenizer),
        transformer=transformer,
    )


def tiny_sdxl_pix2pix(seed: int = 0) -> StableDiffusionXLInstructPix2PixPipeline:
    """Return an SDXL InstructPix2Pix editor."""
    text_encoder, tokenizer = _clip(seed)
    with _seeded(seed):
        text_encoder_2 = CLIPTextModelWithProjection(text_encoder.config).eval()
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
            cross_attention_dim=64,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + text_encoder_2.config.projection_dim,
        ).eval()
    return StableDiffusionXLInstructPix2PixPipeline(
        vae=_autoencoder(4, seed),
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False),
        add_watermarker=False,
    )


def tiny_omnigen(seed: int = 0) -> OmniGenPipeline:
    """Return an OmniGen editor; one transformer reads text and pictures, so there is no text encoder."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = LlamaTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[])
    with _seeded(seed):
        transformer = OmniGenTransformer2DModel(
            hidden_size=32,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=64,
            num_layers=1,
            pad_token_id=0,
            vocab_size=len(tokenizer),
            rope_scaling={"long_factor": [1.0] * 8, "short_factor": [1.0] * 8},
            pos_embed_max_size=64,
            time_step_dim=32,
        ).eval()
    return OmniGenPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True, num_train_timesteps=1),
        vae=_autoencoder(4, seed),
        tokenizer=tokenizer,
    )


def _wan_autoencoder(seed: int, patch_size: int, dim_mult: list[int], is_residual: bool) -> AutoencoderKLWan:
    with _seeded(seed):
        return AutoencoderKLWan(
            base_dim=4,
            z_dim=4,
            dim_mult=dim_mult,
            num_res_blocks=1,
            temperal_downsample=[False, True, True][: len(dim_mult) - 1],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
            is_residual=is_residual,
            in_channels=3 * patch_size**2,
            out_channels=3 * patch_size**2,
            patch_size=patch_size,
        ).eval()


def tiny_fibo_edit(seed: int = 0) -> BriaFiboEditPipeline:
    """Return a FIBO-Edit editor; its autoencoder shrinks by 16, as Wan 2.2's does."""
    tokenizer = tiny_tokenizer()
    config = SmolLM3Config(
        vocab_size=128_001,  # the pipeline writes an empty negative prompt as token 128000
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with _seeded(seed):
        transformer = BriaFiboTransformer2DModel(
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=[4, 6, 6],
            text_encoder_dim=16,
        ).eval()
        text_encoder = SmolLM3ForCausalLM(config).eval()
    return BriaFiboEditPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_wan_autoencoder(seed, patch_size=2, dim_mult=[1, 1, 1, 1], is_residual=True),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )


def tiny_joyimage_edit(seed: int = 0) -> JoyImageEditPipeline:
    """Return a JoyImage-Edit editor; like the real one it works at about one megapixel."""
    text_encoder, processor = _qwen3_vl(seed)
    with _seeded(seed):
        transformer = JoyImageEditTransformer3DModel(
            in_channels=4, hidden_size=32, num_attention_heads=2, text_dim=32, num_layers=1, rope_dim_list=[4, 6, 6]
        ).eval()
    return JoyImageEditPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_wan_autoencoder(seed, patch_size=4, dim_mult=[1, 1], is_residual=False),  # small at a megapixel
        text_encoder=text_encoder,
        tokenizer=processor.tokenizer,
        transformer=transformer,
        processor=processor,
    )
