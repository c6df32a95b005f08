"""Tiny editors of the classes that `tiny_models` has no builder for, of the same parts and under the same rules.

editor = EDITORS["FluxInpaintPipeline"]()
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import diffusers
import numpy as np
import tiny_models
import torch
from diffusers import (
    AnimaAutoBlocks,
    AnimaTextConditioner,
    AutoencoderDC,
    AutoencoderTiny,
    BriaFibo2Pipeline,
    BriaFibo2Transformer2DModel,
    ChromaTransformer2DModel,
    CosmosTransformer3DModel,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DreamLiteUNetModel,
    FlowMatchEulerDiscreteScheduler,
    Flux2AutoBlocks,
    Flux2KleinAutoBlocks,
    Flux2KleinBaseAutoBlocks,
    Flux3AutoBlocks,
    Flux3DistilledAutoBlocks,
    Flux3Transformer2DModel,
    FluxAutoBlocks,
    FluxTransformer2DModel,
    GlmImagePipeline,
    GlmImageTransformer2DModel,
    JoyImageEditPlusPipeline,
    JoyImageEditPlusTransformer3DModel,
    Kandinsky3Img2ImgPipeline,
    Kandinsky3UNet,
    Kandinsky5I2IPipeline,
    Kandinsky5Transformer3DModel,
    LCMScheduler,
    ModularPipeline,
    PNDMScheduler,
    QwenImage21AutoBlocks,
    QwenImage21TurboAutoBlocks,
    QwenImageAutoBlocks,
    SanaSprintImg2ImgPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3AutoBlocks,
    StableDiffusionXLAutoBlocks,
    UNet2DConditionModel,
    VQModel,
    ZImageAutoBlocks,
    ZImageOmniPipeline,
    ZImageTransformer2DModel,
)
from PIL import Image
from transformers import (
    ByT5Tokenizer,
    CLIPTextModelWithProjection,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
    Gemma2Config,
    Gemma2Model,
    GlmImageConfig,
    GlmImageForConditionalGeneration,
    GlmImageImageProcessor,
    GlmImageProcessor,
    Qwen2VLProcessor,
    Qwen3Config,
    Qwen3ForCausalLM,
    Siglip2ImageProcessor,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    T5Config,
    T5EncoderModel,
)


def build(name: str, parts: dict[str, Any]) -> DiffusionPipeline:
    """The class of that name from those of the parts that it takes."""
    pipeline = getattr(diffusers, name)
    expected = inspect.signature(pipeline.__init__).parameters
    return pipeline(**{part: value for part, value in parts.items() if part in expected})


def _unet(seed: int, in_channels: int = 4, text_width: int = 32, **config: Any) -> UNet2DConditionModel:
    with tiny_models._seeded(seed):
        return UNet2DConditionModel(
            sample_size=8,
            in_channels=in_channels,
            out_channels=4,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=4,
            cross_attention_dim=text_width,
            **config,
        ).eval()


def stable_diffusion(name: str, in_channels: int = 4) -> Callable[[], DiffusionPipeline]:
    """A builder of a class that redraws with Stable Diffusion's parts; 9 channels for one that was made for masks."""

    def builder() -> DiffusionPipeline:
        parts = {**tiny_models.tiny_pix2pix().components, "unet": _unet(0, in_channels)}
        return getattr(diffusers, name)(**parts, requires_safety_checker=False)

    return builder


def stable_diffusion_xl(name: str, in_channels: int = 4) -> Callable[[], DiffusionPipeline]:
    """A builder of a class with the parts of SDXL."""

    def builder() -> DiffusionPipeline:
        parts = tiny_models.tiny_sdxl_pix2pix().components
        projection = parts["text_encoder_2"].config.projection_dim
        added = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + projection,
        }
        parts["unet"] = _unet(0, in_channels, text_width=64, **added)
        return getattr(diffusers, name)(**parts, add_watermarker=False)

    return builder


def depth_to_image() -> DiffusionPipeline:
    """Stable Diffusion with a depth estimator: its UNet sees the depth that the picture has, as a fifth channel."""
    config = DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        readout_type="project",
        reassemble_factors=[4, 2, 1, 0.5],
    )
    parts = tiny_models.tiny_pix2pix().components
    with tiny_models._seeded(0):
        parts["depth_estimator"] = DPTForDepthEstimation(config).eval()
    parts["feature_extractor"] = DPTImageProcessor(size={"height": 64, "width": 64})
    parts["scheduler"] = PNDMScheduler(skip_prk_steps=True)
    return build("StableDiffusionDepth2ImgPipeline", {**parts, "unet": _unet(0, in_channels=5)})


def latent_consistency() -> DiffusionPipeline:
    """LCM: its UNet takes the guidance scale as an embedding."""
    parts = {**tiny_models.tiny_pix2pix().components, "unet": _unet(0, time_cond_proj_dim=8)}
    parts["scheduler"] = LCMScheduler.from_config(DDIMScheduler().config)
    return diffusers.LatentConsistencyModelImg2ImgPipeline(**parts, requires_safety_checker=False)


def stable_diffusion_3(name: str, latent_channels: int = 4) -> Callable[[], DiffusionPipeline]:
    """A builder of a class with the parts of Stable Diffusion 3: two CLIP, one T5."""
    own = {"pag_applied_layers": ["blocks.0"]} if "PAG" in name else {}

    def builder() -> DiffusionPipeline:
        clip, tokenizer = tiny_models._clip(0)
        t5, tokenizer_3 = tiny_models._t5(0)
        with tiny_models._seeded(0):
            projected = [CLIPTextModelWithProjection(clip.config).eval() for _ in range(2)]
            transformer = SD3Transformer2DModel(
                sample_size=8,
                patch_size=2,
                in_channels=latent_channels,
                out_channels=latent_channels,
                num_layers=1,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=32,
                caption_projection_dim=16,
                pooled_projection_dim=2 * clip.config.projection_dim,
                pos_embed_max_size=96,
            ).eval()
        return getattr(diffusers, name)(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=tiny_models._autoencoder(latent_channels, 0, shift_factor=0.0609, scaling_factor=1.5305),
            text_encoder=projected[0],
            tokenizer=tokenizer,
            text_encoder_2=projected[1],
            tokenizer_2=tokenizer,
            text_encoder_3=t5,
            tokenizer_3=tokenizer_3,
            **own,
        )

    return builder


def flux1(name: str) -> Callable[[], DiffusionPipeline]:
    """A builder of a class with the parts of FLUX.1."""
    return lambda: build(name, tiny_models.tiny_kontext().components)


def flux_fill() -> DiffusionPipeline:
    """FLUX.1 Fill: its transformer also sees the masked picture's latents and, per latent, an 8x8 mask."""
    parts = tiny_models.tiny_kontext().components
    with tiny_models._seeded(0):
        parts["transformer"] = FluxTransformer2DModel(
            in_channels=16 + 16 + 4 * 64,
            out_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=True,
            axes_dims_rope=(4, 4, 8),
        ).eval()
    return build("FluxFillPipeline", parts)


def chroma(name: str) -> Callable[[], DiffusionPipeline]:
    """A builder of a class with the parts of Chroma, which has T5 alone."""

    def builder() -> DiffusionPipeline:
        text_encoder, tokenizer = tiny_models._t5(0)
        with tiny_models._seeded(0), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of a part of its own
            transformer = ChromaTransformer2DModel(
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                axes_dims_rope=(4, 4, 8),
                approximator_num_channels=8,
                approximator_hidden_dim=16,
                approximator_layers=1,
            ).eval()
        transformer.register_to_config(guidance_embeds=False)  # a checkpoint's file has it, and the class reads it
        parts = tiny_models.tiny_kontext().components
        own = {"text_encoder": text_encoder, "tokenizer": tokenizer, "transformer": transformer}
        return build(name, {**parts, **own, "scheduler": FlowMatchEulerDiscreteScheduler()})

    return builder


def qwen_image(name: str) -> Callable[[], DiffusionPipeline]:
    """A builder of a class with the parts of Qwen-Image."""
    return lambda: build(name, tiny_models._qwen_image_parts(0))


def _qwen3(hidden_size: int = 16, layers: int = 2) -> Qwen3ForCausalLM:
    tokenizer = tiny_models.tiny_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=tokenizer.pad_token_id,
    )
    with tiny_models._seeded(0):
        return Qwen3ForCausalLM(config).eval()


def _z_image_parts(siglip_width: int | None = None) -> dict[str, Any]:
    with tiny_models._seeded(0):
        transformer = ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            siglip_feat_dim=siglip_width,
            axes_dims=[4, 6, 6],
            axes_lens=[1024, 512, 512],
        ).eval()
        # Tokens that pad a sequence are left uninitialised by the class.
        for name, weight in transformer.named_parameters():
            if name.endswith("pad_token"):
                weight.data.normal_()
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": tiny_models._autoencoder(4, 0, shift_factor=0.1159, scaling_factor=0.3611),
        "text_encoder": _qwen3(),
        "tokenizer": tiny_models.tiny_tokenizer(),
        "transformer": transformer,
    }


def z_image(name: str) -> Callable[[], DiffusionPipeline]:
    """A builder of a class with the parts of Z-Image."""
    return lambda: build(name, _z_image_parts())


def z_image_omni() -> ZImageOmniPipeline:
    """Z-Image Omni, which sees pictures through SigLIP 2 as well."""
    config = Siglip2VisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_patches=16, patch_size=8
    )
    with tiny_models._seeded(0):
        siglip = Siglip2VisionModel(config).eval()
    parts = _z_image_parts(siglip_width=16)
    parts["vae"].to(torch.bfloat16)  # the class gives it nothing else
    return ZImageOmniPipeline(
        **parts,
        siglip=siglip,
        siglip_processor=Siglip2ImageProcessor(patch_size=8, max_num_patches=16),
    )


def flux2_klein(name: str) -> Callable[[], DiffusionPipeline]:
    """A builder of a class with the parts of FLUX.2 Klein."""
    return lambda: build(name, tiny_models.tiny_flux2_klein().components)


def modular(blocks: type, parts: Callable[[], DiffusionPipeline]) -> Callable[[], ModularPipeline]:
    """A builder of a modular pipeline from the parts of a plain one."""
    return lambda: tiny_models._modular(blocks(), parts().components)


def flux3(blocks: type) -> Callable[[], ModularPipeline]:
    """A builder of FLUX.3 without its step that words the prompt anew; it reads two layers of its text encoder."""

    def builder() -> ModularPipeline:
        text_encoder, processor = tiny_models._qwen3_vl(0)
        with tiny_models._seeded(0):
            transformer = Flux3Transformer2DModel(
                in_channels=16,
                cond_in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=2 * 32,
                timestep_channels=32,
                axes_dims_rope=(4, 4, 4, 4),
                flow_map=blocks is Flux3DistilledAutoBlocks,
            ).eval()
        steps = blocks()
        steps.sub_blocks.pop("prompt_upsampler")
        parts = {
            "text_encoder": text_encoder,
            "tokenizer": processor,
            "vae": tiny_models._flux2_autoencoder(0),
            "transformer": transformer,
            "scheduler": FlowMatchEulerDiscreteScheduler(),
        }
        return tiny_models._modular(steps, parts)

    return builder


def anima() -> ModularPipeline:
    """Anima, which brings what Qwen3 reads into the form of T5's tokens."""
    parts = tiny_models._qwen_image_parts(0)
    _, t5_tokenizer = tiny_models._t5(0)
    with tiny_models._seeded(0):
        parts["text_conditioner"] = AnimaTextConditioner(
            source_dim=16,
            target_dim=16,
            model_dim=16,
            num_layers=1,
            num_attention_heads=2,
            target_vocab_size=len(t5_tokenizer),
        ).eval()
        parts["transformer"] = CosmosTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=1,
            text_embed_dim=16,
            adaln_lora_dim=4,
            rope_scale=(1.0, 4.0, 4.0),
            extra_pos_embed_type=None,
        ).eval()
    parts |= {
        "text_encoder": _qwen3().model,
        "tokenizer": tiny_models.tiny_tokenizer(),
        "t5_tokenizer": t5_tokenizer,
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }
    return tiny_models._modular(AnimaAutoBlocks(), parts)


def kandinsky3() -> DiffusionPipeline:
    """Kandinsky 3, which redraws."""
    text_encoder, tokenizer = tiny_models._t5(0)
    with tiny_models._seeded(0):
        unet = Kandinsky3UNet(
            in_channels=4,
            time_embedding_dim=4,
            groups=2,
            attention_head_dim=4,
            layers_per_block=3,
            block_out_channels=(32, 64),
            cross_attention_dim=4,
            encoder_hid_dim=32,
        ).eval()
        movq = VQModel(
            block_out_channels=(32, 32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
            up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
            latent_channels=4,
            norm_num_groups=32,
            norm_type="spatial",
            num_vq_embeddings=12,
            vq_embed_dim=4,
        ).eval()
    return Kandinsky3Img2ImgPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        unet=unet,
        scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="epsilon"),
        movq=movq,
    )


def sana_sprint() -> DiffusionPipeline:
    """SANA-Sprint, which redraws in few steps."""
    config = Gemma2Config(
        vocab_size=len(tiny_models.tiny_tokenizer()),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=0,
    )
    with tiny_models._seeded(0):
        transformer = SanaTransformer2DModel(
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=4,
            num_cross_attention_heads=2,
            cross_attention_head_dim=4,
            cross_attention_dim=8,
            caption_channels=8,
            sample_size=32,
            qk_norm="rms_norm_across_heads",
            guidance_embeds=True,
        ).eval()
        vae = AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "EfficientViTBlock"),
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            decoder_norm_types="rms_norm",
            decoder_act_fns="silu",
            scaling_factor=0.41407,
        ).eval()
        text_encoder = Gemma2Model(config).eval()
    return SanaSprintImg2ImgPipeline(
        tokenizer=tiny_models.tiny_tokenizer(),
        text_encoder=text_encoder,
        vae=vae,
        transformer=transformer,
        scheduler=SCMScheduler(),
    )


def flux2_klein_base() -> ModularPipeline:
    """FLUX.2 Klein, not distilled, as a modular pipeline; its blocks alone would make one of the distilled class."""
    editor = diffusers.Flux2KleinBaseModularPipeline(Flux2KleinBaseAutoBlocks())
    parts = tiny_models.tiny_flux2_klein().components
    editor.update_components(**{name: part for name, part in parts.items() if name in editor.component_names})
    return editor


def fibo2() -> BriaFibo2Pipeline:
    """FIBO 2; it reads the layers 3 to 36 of its text encoder, here two layers over and over."""
    text_encoder, processor = tiny_models._qwen3_vl(0)
    with tiny_models._seeded(0):
        transformer = BriaFibo2Transformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=6,
            n_refiner_layers=1,
            n_heads=2,
            cap_feat_dim=3 * 32,
            injection_layer_ids=(1, 2, 3, 4, 5),
            perceiver_num_layers=1,
            min_num_gist_tokens=4,
            max_num_gist_tokens=8,
            gist_step=4,
            axes_dims=(4, 6, 6),
        ).eval()
    editor = BriaFibo2Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=tiny_models._flux2_autoencoder(0),
        text_encoder=text_encoder,
        processor=processor,
    )
    editor.text_encoder_out_layers = ((0, 1, 2),) * 6
    return editor


def joyimage_edit_plus() -> JoyImageEditPlusPipeline:
    """JoyImage-Edit-Plus, which reads several pictures."""
    parts = tiny_models.tiny_joyimage_edit().components
    with tiny_models._seeded(0):
        parts["transformer"] = JoyImageEditPlusTransformer3DModel(
            in_channels=4, hidden_size=32, num_attention_heads=2, text_dim=32, num_layers=1, rope_dim_list=[4, 6, 6]
        ).eval()
    return JoyImageEditPlusPipeline(**parts)


def kandinsky5() -> Kandinsky5I2IPipeline:
    """Kandinsky 5 for pictures; it works at one of its own sizes of about one megapixel."""
    clip, tokenizer_2 = tiny_models._clip(0)
    tokenizer = tiny_models.tiny_tokenizer()
    with tiny_models._seeded(0):
        transformer = Kandinsky5Transformer3DModel(
            in_visual_dim=4,
            in_text_dim=32,
            in_text_dim2=32,
            time_dim=16,
            out_visual_dim=4,
            model_dim=32,
            ff_dim=32,
            num_text_blocks=1,
            num_visual_blocks=1,
            axes_dims=(4, 6, 6),
            visual_cond=True,
            attention_type="regular",
        ).eval()
    return Kandinsky5I2IPipeline(
        transformer=transformer,
        vae=tiny_models._autoencoder(4, 0, mid_block_add_attention=False),
        text_encoder=tiny_models._vision_language_model(tokenizer, 0),
        tokenizer=tiny_models._processor(Qwen2VLProcessor, tokenizer),
        text_encoder_2=clip,
        tokenizer_2=tokenizer_2,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def dreamlite(name: str) -> Callable[[], DiffusionPipeline]:
    """A builder of DreamLite, which lays source and result side by side."""

    def builder() -> DiffusionPipeline:
        text_encoder, processor = tiny_models._qwen3_vl(0)
        with tiny_models._seeded(0):
            unet = DreamLiteUNetModel(
                sample_size=8,
                in_channels=4,
                out_channels=4,
                block_out_channels=(8, 16, 16),
                layers_per_block=1,
                norm_num_groups=4,
                cross_attention_dim=32,
                attention_head_dim=8,
                addition_embed_type="time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=16,
                ff_mult=2,
            ).eval()
            vae = AutoencoderTiny(
                encoder_block_out_channels=(4, 4, 4, 4),
                decoder_block_out_channels=(4, 4, 4, 4),
                num_encoder_blocks=(1, 1, 1, 1),
                num_decoder_blocks=(1, 1, 1, 1),
            ).eval()
        return getattr(diffusers, name)(
            text_encoder=text_encoder,
            tokenizer=processor.tokenizer,
            processor=processor,
            vae=vae,
            unet=unet,
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        )

    return builder


def glm_image() -> GlmImagePipeline:
    """GLM-Image: a language model writes the tokens of the picture, which a transformer then draws."""
    tokenizer = tiny_models.tiny_tokenizer()
    special = {
        "image_token": "<|image_pad|>",
        "grid_bos_token": "<|vision_start|>",
        "grid_eos_token": "<|vision_end|>",
        "bos_token": "<|im_start|>",
    }
    for name, token in special.items():
        setattr(tokenizer, name, token)
    token_id = tokenizer.convert_tokens_to_ids
    codes = 64  # of the picture's vocabulary, of which the last two are start and end
    config = GlmImageConfig(
        text_config={
            "vocab_size": len(tokenizer) + codes,
            "vision_vocab_size": codes + 2,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": codes + 1,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "image_size": 64,
            "patch_size": 16,
        },
        vq_config={"embed_dim": 16, "num_embeddings": codes, "latent_channels": 16},
        image_token_id=token_id("<|image_pad|>"),
        image_start_token_id=codes,
        image_end_token_id=codes + 1,
    )
    text_config = T5Config(vocab_size=384, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    with tiny_models._seeded(0):
        language = GlmImageForConditionalGeneration(config).eval()
        language.generation_config.eos_token_id = None  # a trained one writes the whole picture before it ends
        glyphs = T5EncoderModel(text_config).eval()
        transformer = GlmImageTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            text_embed_dim=16,
            time_embed_dim=16,
            condition_dim=8,
            prior_vq_quantizer_codebook_size=codes,
        ).eval()
    processor = GlmImageProcessor(
        image_processor=GlmImageImageProcessor(
            patch_size=16,
            merge_size=1,
            temporal_patch_size=1,
            size={"shortest_edge": 32 * 32, "longest_edge": 4096 * 4096},
        ),
        tokenizer=tokenizer,
        chat_template=tiny_models.CHAT_TEMPLATE,
    )
    return GlmImagePipeline(
        tokenizer=ByT5Tokenizer(),
        processor=processor,
        text_encoder=glyphs,
        vision_language_encoder=language,
        vae=tiny_models._autoencoder(4, 0, latents_mean=[0.0] * 4, latents_std=[1.0] * 4),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


# Cases
# -----


@dataclass(frozen=True)
class Case:
    """How one editor is called, with the pipeline and without.

    Args:
        build: Makes it.
        given: What the caller gives, both ways.
        own: What one has to know to call the editor alone.
        prompt: How one has to write the prompt then.
        image: And where the picture goes.
        answer: And where the result is.
        slow: Whether it takes seconds, since it cannot be told to work at fewer than a megapixel.
    """

    build: Callable[[], Any]
    given: Mapping[str, Any] = field(default_factory=lambda: SMALL)
    own: Mapping[str, Any] = field(default_factory=dict)
    prompt: Callable[[str, int], str] = lambda prompt, pictures: prompt
    image: str = "image"
    answer: str = "images"
    slow: bool = False


def _placeholder(prompt: str, pictures: int) -> str:
    return "".join(f"<img><|image_{number + 1}|></img> " for number in range(pictures)) + prompt


def _edit_json(prompt: str, pictures: int) -> str:
    return json.dumps({"edit_instruction": prompt})


MASK = Image.new("L", (64, 64))
MASK.paste(255, (0, 0, 64, 32))
STEPS = {"num_inference_steps": 1}
SMALL = {"height": 64, "width": 64, **STEPS}
KONTEXT = {"_auto_resize": False, "max_area": 64 * 64}
MASKED = {**SMALL, "mask_image": MASK}
REDRAWN = {"num_inference_steps": 2, "strength": 0.9}  # one step is left of two
REDRAWN_SMALL = {**SMALL, **REDRAWN}
FLUX3 = {**SMALL, "text_encoder_out_layers": (1, 2)}
NEGATIVE = {"negative_prompt": " "}

CASES: dict[str, Case] = {
    "StableDiffusionInstructPix2PixPipeline": Case(tiny_models.tiny_pix2pix, STEPS),
    "StableDiffusionXLInstructPix2PixPipeline": Case(tiny_models.tiny_sdxl_pix2pix),
    "FluxKontextPipeline": Case(tiny_models.tiny_kontext, own=KONTEXT),
    "FluxKontextInpaintPipeline": Case(tiny_models.tiny_kontext_inpaint, MASKED, KONTEXT),
    "Flux2Pipeline": Case(tiny_models.tiny_flux2),
    "Flux2KleinPipeline": Case(tiny_models.tiny_flux2_klein),
    "Flux2KleinKVPipeline": Case(flux2_klein("Flux2KleinKVPipeline")),
    "Flux2KleinInpaintPipeline": Case(flux2_klein("Flux2KleinInpaintPipeline"), {**REDRAWN, "mask_image": MASK}),
    "QwenImageEditPipeline": Case(tiny_models.tiny_qwen_edit, own=NEGATIVE, slow=True),
    "QwenImageEditPlusPipeline": Case(tiny_models.tiny_qwen_edit_plus, own=NEGATIVE, slow=True),
    "QwenImageEditInpaintPipeline": Case(
        tiny_models.tiny_qwen_edit_inpaint,
        {**STEPS, "strength": 1.0, "true_cfg_scale": 1.0, "mask_image": MASK},
        slow=True,
    ),
    "QwenImage21Pipeline": Case(
        tiny_models.tiny_qwen_image_21, {**SMALL, "output_resolution": 64, "true_cfg_scale": 3.0}, NEGATIVE
    ),
    "LongCatImageEditPipeline": Case(
        tiny_models.tiny_longcat, {**STEPS, "guidance_scale": 1.0, "negative_prompt": "blur"}, slow=True
    ),
    "OmniGenPipeline": Case(tiny_models.tiny_omnigen, prompt=_placeholder, image="input_images"),
    "BriaFiboEditPipeline": Case(tiny_models.tiny_fibo_edit, prompt=_edit_json),
    "BriaFibo2Pipeline": Case(fibo2),
    "JoyImageEditPipeline": Case(tiny_models.tiny_joyimage_edit, {**STEPS, "guidance_scale": 1.0}, slow=True),
    "JoyImageEditPlusPipeline": Case(joyimage_edit_plus, image="images", slow=True),
    "GlmImagePipeline": Case(glm_image),
    "Kandinsky5I2IPipeline": Case(kandinsky5, {**STEPS, "guidance_scale": 1.0}, answer="image", slow=True),
    "DreamLitePipeline": Case(dreamlite("DreamLitePipeline")),
    "DreamLiteMobilePipeline": Case(dreamlite("DreamLiteMobilePipeline")),
    "ZImageOmniPipeline": Case(z_image_omni),
    "FluxKontextModularPipeline": Case(tiny_models.tiny_kontext_modular, own=KONTEXT),
    "Flux2ModularPipeline": Case(modular(Flux2AutoBlocks, tiny_models.tiny_flux2)),
    "Flux2KleinModularPipeline": Case(modular(Flux2KleinAutoBlocks, tiny_models.tiny_flux2_klein)),
    "Flux2KleinBaseModularPipeline": Case(flux2_klein_base),
    "QwenImageEditModularPipeline": Case(tiny_models.tiny_qwen_edit_modular, slow=True),
    "QwenImageEditPlusModularPipeline": Case(tiny_models.tiny_qwen_edit_plus_modular, slow=True),
    "QwenImage21ModularPipeline": Case(
        modular(QwenImage21AutoBlocks, tiny_models.tiny_qwen_image_21), {**SMALL, "output_resolution": 64}
    ),
    "QwenImage21TurboModularPipeline": Case(
        modular(QwenImage21TurboAutoBlocks, tiny_models.tiny_qwen_image_21), {**SMALL, "output_resolution": 64}
    ),
    "Flux3ModularPipeline": Case(flux3(Flux3AutoBlocks), FLUX3),
    "Flux3DistilledModularPipeline": Case(flux3(Flux3DistilledAutoBlocks), FLUX3),
    "AnimaModularPipeline": Case(anima, REDRAWN_SMALL),
    "Kandinsky3Img2ImgPipeline": Case(kandinsky3, REDRAWN),
    "SanaSprintImg2ImgPipeline": Case(sana_sprint, {**REDRAWN_SMALL, "use_resolution_binning": False}),
    "StableDiffusionImg2ImgPipeline": Case(stable_diffusion("StableDiffusionImg2ImgPipeline"), REDRAWN),
    "StableDiffusionXLImg2ImgPipeline": Case(stable_diffusion_xl("StableDiffusionXLImg2ImgPipeline"), REDRAWN),
    "StableDiffusion3Img2ImgPipeline": Case(stable_diffusion_3("StableDiffusion3Img2ImgPipeline"), REDRAWN_SMALL),
    "LatentConsistencyModelImg2ImgPipeline": Case(latent_consistency, REDRAWN),
    "FluxImg2ImgPipeline": Case(flux1("FluxImg2ImgPipeline"), REDRAWN_SMALL),
    "ChromaImg2ImgPipeline": Case(chroma("ChromaImg2ImgPipeline"), REDRAWN_SMALL),
    "QwenImageImg2ImgPipeline": Case(qwen_image("QwenImageImg2ImgPipeline"), REDRAWN_SMALL, NEGATIVE),
    "ZImageImg2ImgPipeline": Case(z_image("ZImageImg2ImgPipeline"), REDRAWN_SMALL),
    "StableDiffusionDepth2ImgPipeline": Case(depth_to_image, REDRAWN),
    "StableDiffusionPAGImg2ImgPipeline": Case(stable_diffusion("StableDiffusionPAGImg2ImgPipeline"), REDRAWN),
    "StableDiffusionXLPAGImg2ImgPipeline": Case(stable_diffusion_xl("StableDiffusionXLPAGImg2ImgPipeline"), REDRAWN),
    "StableDiffusion3PAGImg2ImgPipeline": Case(
        stable_diffusion_3("StableDiffusion3PAGImg2ImgPipeline"), REDRAWN_SMALL
    ),
    "FluxModularPipeline": Case(modular(FluxAutoBlocks, flux1("FluxImg2ImgPipeline")), REDRAWN_SMALL),
    "QwenImageModularPipeline": Case(
        modular(QwenImageAutoBlocks, qwen_image("QwenImageImg2ImgPipeline")), REDRAWN_SMALL
    ),
    "StableDiffusion3ModularPipeline": Case(
        modular(StableDiffusion3AutoBlocks, stable_diffusion_3("StableDiffusion3Img2ImgPipeline")), REDRAWN_SMALL
    ),
    "StableDiffusionXLModularPipeline": Case(
        modular(StableDiffusionXLAutoBlocks, stable_diffusion_xl("StableDiffusionXLImg2ImgPipeline")), REDRAWN_SMALL
    ),
    "ZImageModularPipeline": Case(modular(ZImageAutoBlocks, z_image("ZImageImg2ImgPipeline")), REDRAWN_SMALL),
    "StableDiffusionPAGInpaintPipeline": Case(
        stable_diffusion("StableDiffusionPAGInpaintPipeline", in_channels=9), {**MASKED, **REDRAWN}
    ),
    "StableDiffusionXLPAGInpaintPipeline": Case(
        stable_diffusion_xl("StableDiffusionXLPAGInpaintPipeline", in_channels=9), {**MASKED, **REDRAWN}
    ),
    "StableDiffusionInpaintPipeline": Case(
        stable_diffusion("StableDiffusionInpaintPipeline", in_channels=9), {**MASKED, **REDRAWN}
    ),
    "StableDiffusionXLInpaintPipeline": Case(
        stable_diffusion_xl("StableDiffusionXLInpaintPipeline", in_channels=9), {**MASKED, **REDRAWN}
    ),
    "StableDiffusion3InpaintPipeline": Case(
        stable_diffusion_3("StableDiffusion3InpaintPipeline", latent_channels=16), {**MASKED, **REDRAWN}
    ),
    "FluxInpaintPipeline": Case(flux1("FluxInpaintPipeline"), {**MASKED, **REDRAWN}),
    "FluxFillPipeline": Case(flux_fill, {**MASKED, **REDRAWN}),
    "ChromaInpaintPipeline": Case(chroma("ChromaInpaintPipeline"), {**MASKED, **REDRAWN}),
    "QwenImageInpaintPipeline": Case(qwen_image("QwenImageInpaintPipeline"), {**MASKED, **REDRAWN}, NEGATIVE),
    "ZImageInpaintPipeline": Case(z_image("ZImageInpaintPipeline"), {**MASKED, **REDRAWN}),
}
"""A case for each class that has a row in `TRAITS`."""


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """A picture of coarse noise."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def difference(first: Image.Image, second: Image.Image) -> int:
    """The largest of all channels of all pixels, from 0 to 255."""
    return int(np.abs(np.asarray(first, dtype=int) - np.asarray(second, dtype=int)).max())


@cache
def editor_of(name: str) -> Any:
    """The tiny editor of a case, built once."""
    editor = CASES[name].build()
    editor.set_progress_bar_config(disable=True)
    return editor


def alone(
    name: str,
    image: Image.Image,
    prompt: str,
    generator: torch.Generator,
    beside: Sequence[Image.Image] = (),
    **given: Any,
) -> Image.Image:
    """What the editor itself makes of a picture of its working size, called as its own documentation says.

    Args:
        beside: Further pictures that it sees.
        given: In place of what the case has.
    """
    case, editor = CASES[name], editor_of(name)
    arguments = {**case.given, **case.own, **given, "generator": generator}
    arguments["prompt"] = case.prompt(prompt, 1 + len(beside))
    in_list = beside or case.image != "image" or name == "GlmImagePipeline"
    arguments[case.image] = [image, *beside] if in_list else image
    if "max_area" in arguments:
        arguments["max_area"] = image.width * image.height
    for argument in ("mask_image", "mask"):
        if argument in arguments:
            arguments[argument] = arguments[argument].convert("L").resize(image.size, Image.Resampling.NEAREST)
    torch.manual_seed(generator.initial_seed())  # OmniGen and JoyImage draw from the global state too
    with _token_types_by_hand(editor), _features_one_by_one(editor):
        if isinstance(editor, ModularPipeline):
            return editor(**arguments, output="images")[0]
        return getattr(editor(**arguments), case.answer)[0]


@contextmanager
def _token_types_by_hand(editor: Any) -> Iterator[None]:
    """Give the text encoder what diffusers leaves out for Qwen-Image-Edit and LongCat."""
    encoder = editor.components.get("text_encoder")
    left_out = type(editor).__name__.startswith(("QwenImageEdit", "LongCat"))

    def give(encoder: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return args, {**kwargs, "mm_token_type_ids": (kwargs["input_ids"] == encoder.config.image_token_id).int()}

    hook = encoder.register_forward_pre_hook(give, with_kwargs=True) if left_out else None
    yield
    if hook is not None:
        hook.remove()


@contextmanager
def _features_one_by_one(editor: Any) -> Iterator[None]:
    """Give `GlmImagePipeline` the features of its pictures with an axis that counts them, as its own code joins them."""
    model = editor.components.get("vision_language_encoder")
    if model is None:
        yield
        return

    def counted(*args: Any, **kwargs: Any) -> Any:
        answer = type(model).get_image_features(model, *args, **kwargs)
        answer.pooler_output = [one[None] for one in answer.pooler_output]
        return answer

    original = model.generate

    def generate(**kwargs: Any) -> Any:
        model.__dict__.pop("get_image_features", None)  # `generate` wants them as they are
        return original(**kwargs)

    model.__dict__.update(get_image_features=counted, generate=generate)
    try:
        yield
    finally:
        model.__dict__.pop("get_image_features", None)
        model.__dict__.pop("generate", None)
