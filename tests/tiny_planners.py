"""Tiny random planners of the vision-language classes in transformers, each with its own control tokens and chat template.

    planner, processor = build("qwen3_vl")

Every character is one token, a picture few. A template is written in the way of its family: what it calls the roles, whether
it has a system role, whether it strips answers, thinks by default or forgets earlier reasoning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tiny_models import (
    CHAT_TEMPLATE,
    _byte_alphabet,
    _generation_config,
    _seeded,
    tiny_planner,
    tiny_tokenizer,
)
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Glm46VConfig,
    Glm46VForConditionalGeneration,
    Glm46VImageProcessor,
    Glm46VProcessor,
    Glm46VVideoProcessor,
    GotOcr2ImageProcessor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    Phi4MultimodalConfig,
    Phi4MultimodalFeatureExtractor,
    Phi4MultimodalForCausalLM,
    Phi4MultimodalImageProcessor,
    Phi4MultimodalProcessor,
    PixtralImageProcessor,
    PixtralProcessor,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SiglipImageProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)


TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 4096,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
SIDE = {"height": 32, "width": 32}

THINKING_TEMPLATE = """\
{%- for message in messages -%}
{%- set text = message['content'] if message['content'] is string else '' -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is not string -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif message['role'] == 'assistant' and '</think>' in part['text'] -%}
{{ part['text'].split('</think>')[-1].lstrip('\\n') }}
{%- else -%}{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}{{ text }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false -%}<think>

</think>

{% else -%}<think>
{% endif -%}
{% endif -%}"""

GENERATION_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}{{ message['content'][0]['text'] }}<|im_end|>{%- endgeneration -%}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}<image>{{ '\\n' }}{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}<|im_end|>
{%- endif -%}{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant{{ '\\n' }}{%- endif -%}"""

GEMMA_TEMPLATE = """\
{{- bos_token -}}
{%- if messages[0]['role'] == 'system' -%}
{%- set prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}{%- set turns = messages[1:] -%}
{%- else -%}
{%- set prefix = '' -%}{%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant') }}
{%- endif -%}
<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}{{ '\\n' }}
{{- prefix if loop.first else '' -}}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}<start_of_image>{%- else -%}{{ part['text'] | trim }}{%- endif -%}
{%- endfor -%}<end_of_turn>{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}<start_of_turn>model{{ '\\n' }}{%- endif -%}"""

MISTRAL_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('After the optional system message, conversation roles must alternate user/assistant') }}
{%- endif -%}
{%- if message['role'] == 'user' -%}[INST]
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}[IMG]{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}[/INST]
{%- else -%}{{ message['content'][0]['text'] }}{{ eos_token }}{%- endif -%}
{%- endfor -%}"""

SMOL_TEMPLATE = """\
<|im_start|>
{%- for message in messages -%}
{{ message['role'] | capitalize }}{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}<image>{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}<end_of_utterance>{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}Assistant:{%- endif -%}"""

GLM_TEMPLATE = """\
[gMASK]<sop>
{%- for message in messages -%}
<|{{ message['role'] }}|>{{ '\\n' }}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}<|begin_of_image|><|image|><|end_of_image|>
{%- else -%}{{ part['text'].split('</think>')[-1].strip() if message['role'] == 'assistant' else part['text'] }}{%- endif -%}
{%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>
{{ '<think></think>\\n' if (enable_thinking is defined and not enable_thinking) else '' }}{%- endif -%}"""

PHI_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"""


def byte_tokenizer(control: list[str], end: str, template: str | None = None, **named: str) -> Qwen2Tokenizer:
    """A tokenizer of 256 bytes and these control tokens.

    Args:
        control (`list` of `str`): Only among the added tokens, as those of many tokenizers are.
        end (`str`): What ends a turn.
        template (`str`, *optional*): The chat template.
        named: Control tokens that have an attribute of their own, such as `image_token`.
    """
    special = list(dict.fromkeys(["<pad>", end, *named.values(), *control]))
    tokenizer = Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(special + _byte_alphabet())},
        merges=[],
        eos_token=end,
        pad_token="<pad>",
        unk_token="<pad>",
        extra_special_tokens=named,
        chat_template=template,
        model_max_length=8192,
    )
    tokenizer.add_tokens([token for token in control if token not in named.values()], special_tokens=True)
    return tokenizer


def _made(model_class: type, config: Any, tokenizer: Qwen2Tokenizer, seed: int) -> PreTrainedModel:
    with _seeded(seed):
        model = model_class(config).eval()
    model.generation_config = _generation_config(tokenizer)
    return model


def _ids(tokenizer: Qwen2Tokenizer, **tokens: str) -> dict[str, int]:
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}


def _qwen_ids(tokenizer: Qwen2Tokenizer) -> dict[str, int]:
    return _ids(
        tokenizer,
        image_token_id="<|image_pad|>",
        video_token_id="<|video_pad|>",
        vision_start_token_id="<|vision_start|>",
        vision_end_token_id="<|vision_end|>",
    )


def _text(tokenizer: Qwen2Tokenizer, **more: Any) -> dict[str, Any]:
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return {**TEXT, "vocab_size": len(tokenizer), **ends, **more}


def _qwen_pictures(patch_size: int = 8) -> dict[str, Any]:
    return {
        "patch_size": patch_size,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": (4 * patch_size) ** 2, "longest_edge": (8 * patch_size) ** 2},
    }


def qwen2_vl(seed: int) -> tuple[PreTrainedModel, ProcessorMixin]:
    tokenizer = tiny_tokenizer()
    config = Qwen2VLConfig(
        text_config=_text(tokenizer, rope_parameters=MROPE),
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 32,
            "mlp_ratio": 2,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        **_qwen_ids(tokenizer),
    )
    pictures = _qwen_pictures()
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(**pictures), tokenizer, Qwen2VLVideoProcessor(**pictures), chat_template=CHAT_TEMPLATE
    )
    return _made(Qwen2VLForConditionalGeneration, config, tokenizer, seed), processor


def _qwen3_vision(**more: Any) -> dict[str, Any]:
    return {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 8,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 64,
        **more,
    }


def _qwen3_processor(tokenizer: Qwen2Tokenizer, template: str) -> ProcessorMixin:
    pictures = _qwen_pictures()
    return Qwen3VLProcessor(
        Qwen2VLImageProcessor(**pictures), tokenizer, Qwen3VLVideoProcessor(**pictures), chat_template=template
    )


def qwen3_vl(seed: int) -> tuple[PreTrainedModel, ProcessorMixin]:
    tokenizer = tiny_tokenizer()
    config = Qwen3VLConfig(
        text_config=_text(tokenizer, rope_parameters=MROPE),
        vision_config=_qwen3_vision(deepstack_visual_indexes=[0, 1]),
        **_qwen_ids(tokenizer),
    )
    return _made(Qwen3VLForConditionalGeneration, config, tokenizer, seed), _qwen3_processor(tokenizer, CHAT_TEMPLATE)


def qwen3_5(seed: int) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Every other layer keeps a running state in place of keys and values; thinks by default."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<think>", "</think>"])
    config = Qwen3_5Config(
        text_config=_text(
            tokenizer,
            rope_parameters={**MROPE, "partial_rotary_factor": 1.0},
            layer_types=["linear_attention", "full_attention"],
            linear_num_key_heads=2,
            linear_num_value_heads=2,
            linear_key_head_dim=16,
            linear_value_head_dim=16,
        ),
        vision_config=_qwen3_vision(),
        **_qwen_ids(tokenizer),
    )
    processor = _qwen3_processor(tokenizer, THINKING_TEMPLATE)
    return _made(Qwen3_5ForConditionalGeneration, config, tokenizer, seed), processor


def internvl(seed: int) -> tuple[PreTrainedModel, ProcessorMixin]:
    tokenizer = byte_tokenizer(
        ["<|im_start|>", "<box>", "</box>", "<ref>", "</ref>"],
        "<|im_end|>",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = InternVLConfig(
        text_config={"model_type": "qwen2", **_text(tokenizer)},
        vision_config={**VISION, "image_size": [32, 32], "patch_size": [8, 8]},
        image_seq_length=4,
        **_ids(tokenizer, image_token_id="<IMG_CONTEXT>"),
    )
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=SIDE, crop_to_patches=True, max_patches=2),
        tokenizer,
        InternVLVideoProcessor(size=SIDE),
        image_seq_length=4,
        chat_template=CHAT_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n"),
    )
    return _made(InternVLForConditionalGeneration, config, tokenizer, seed), processor


def _smol_tokenizer() -> Qwen2Tokenizer:
    cells = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    return byte_tokenizer(
        ["<|im_start|>", "<fake_token_around_image>", "<image>", "<global-img>", *cells], "<end_of_utterance>"
    )


def _smol_config(config_class: type, tokenizer: Qwen2Tokenizer) -> Any:
    return config_class(
        text_config={"model_type": "llama", **_text(tokenizer)},
        vision_config=VISION,
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
        **_ids(tokenizer, image_token_id="<image>"),
    )


SMOL_PICTURES = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}


def smolvlm(seed: int) -> tuple[PreTrainedModel, ProcessorMixin]:
    tokenizer = _smol_tokenizer()
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**SMOL_PICTURES),
        tokenizer,
        SmolVLMVideoProcessor(**SMOL_PICTURES),
        image_seq_len=4,
        chat_template=SMOL_TEMPLATE,
    )
    model = _made(SmolVLMForConditionalGeneration, _smol_config(SmolVLMConfig, tokenizer), tokenizer, seed)
    return model, processor


def idefics3(seed: int) -> tuple[PreTrainedModel, ProcessorMixin]:
    tokenizer = _smol_tokenizer()
    processor = Idefics3Processor(
        Idefics3ImageProcessor(**SMOL_PICTURES), tokenizer, image_seq_len=4, chat_template=SMOL_TEMPLATE
    )
    model = _made(Idefics3ForConditionalGeneration, _smol_config(Idefics3Config, tokenizer), tokenizer, seed)
    return model, processor


def llava_onevision(seed: int) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The template marks what the model generates."""
    tokenizer = byte_tokenizer(["<|im_start|>"], "<|im_end|>", image_token="<image>", video_token="<video>")
    grid = [[32, 64], [64, 32]]
    config = LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **_text(tokenizer)},
        vision_config={"model_type": "siglip_vision_model", **VISION, "vision_use_head": False},
        vision_feature_select_strategy="full",
        image_grid_pinpoints=grid,
        **_ids(tokenizer, image_token_index="<image>", video_token_index="<video>"),
    )
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=SIDE, image_grid_pinpoints=grid),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=SIDE),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=GENERATION_TEMPLATE,
    )
    return _made(LlavaOnevisionForConditionalGeneration, config, tokenizer, seed), processor


def gemma3(seed: int) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Every other layer sees a window that is shorter than a conversation; answers are stripped."""
    tokenizer = byte_tokenizer(
        ["<bos>", "<start_of_turn>"],
        "<end_of_turn>",
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
    )
    tokenizer.bos_token = "<bos>"
    config = Gemma3Config(
        text_config=_text(tokenizer, sliding_window=64, layer_types=["sliding_attention", "full_attention"]),
        vision_config={**VISION, "vision_use_head": False},
        mm_tokens_per_image=4,
        **_ids(
            tokenizer,
            boi_token_index="<start_of_image>",
            eoi_token_index="<end_of_image>",
            image_token_index="<image_soft_token>",
        ),
    )
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size=SIDE), tokenizer, chat_template=GEMMA_TEMPLATE, image_seq_length=4
    )
    return _made(Gemma3ForConditionalGeneration, config, tokenizer, seed), processor


def mistral3(seed: int) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The template has no system role."""
    tokenizer = byte_tokenizer(["<s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"], "</s>")
    tokenizer.bos_token = "<s>"
    config = Mistral3Config(
        text_config={"model_type": "mistral", **_text(tokenizer)},
        vision_config={"model_type": "pixtral", **VISION, "head_dim": 16},
        **_ids(tokenizer, image_token_index="[IMG]"),
    )
    processor = PixtralProcessor(
        PixtralImageProcessor(patch_size=8, size={"longest_edge": 64}),
        tokenizer,
        patch_size=8,
        spatial_merge_size=2,
        chat_template=MISTRAL_TEMPLATE,
    )
    return _made(Mistral3ForConditionalGeneration, config, tokenizer, seed), processor


def glm4v(seed: int) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Thinks by default, and ends a turn with the next one's role."""
    tokenizer = byte_tokenizer(
        ["[gMASK]", "<sop>", "<|system|>", "<|assistant|>", "<|begin_of_image|>", "<|end_of_image|>", "<|image|>"]
        + ["<|video|>", "<|begin_of_video|>", "<|end_of_video|>"],
        "<|user|>",
    )
    config = Glm46VConfig(
        text_config=_text(tokenizer, rope_parameters={**MROPE, "partial_rotary_factor": 1.0}),
        vision_config={
            **{name: value for name, value in VISION.items() if not name.startswith("num_")},
            "depth": 2,
            "num_heads": 2,
            "out_hidden_size": 32,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        **_ids(
            tokenizer,
            image_token_id="<|image|>",
            video_token_id="<|video|>",
            image_start_token_id="<|begin_of_image|>",
            image_end_token_id="<|end_of_image|>",
            video_start_token_id="<|begin_of_video|>",
            video_end_token_id="<|end_of_video|>",
        ),
    )
    pictures = _qwen_pictures()
    processor = Glm46VProcessor(
        Glm46VImageProcessor(**pictures), tokenizer, Glm46VVideoProcessor(**pictures), chat_template=GLM_TEMPLATE
    )
    return _made(Glm46VForConditionalGeneration, config, tokenizer, seed), processor


def paligemma(seed: int) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Has no chat template: it was made for one question."""
    tokenizer = byte_tokenizer(["<bos>"], "<eos>", image_token="<image>")
    tokenizer.bos_token = "<bos>"
    pictures = SiglipImageProcessor(size=SIDE)
    pictures.image_seq_length = 16
    processor = PaliGemmaProcessor(pictures, tokenizer)
    config = PaliGemmaConfig(
        text_config={"model_type": "gemma", **_text(tokenizer)},
        vision_config={"model_type": "siglip_vision_model", **VISION, "vision_use_head": False},
        projection_dim=32,
        **_ids(tokenizer, image_token_index="<image>"),
    )
    return _made(PaliGemmaForConditionalGeneration, config, tokenizer, seed), processor


def phi4_multimodal(seed: int) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Only the tokenizer has a template, which takes text."""
    tokenizer = byte_tokenizer(
        ["<|user|>", "<|assistant|>", "<|system|>"],
        "<|end|>",
        PHI_TEMPLATE,
        image_token="<|image|>",
        audio_token="<|audio|>",
    )
    image, audio = _ids(tokenizer, image="<|image|>", audio="<|audio|>").values()
    config = Phi4MultimodalConfig(
        **{name: value for name, value in _text(tokenizer).items() if name not in ("head_dim", "bos_token_id")},
        bos_token_id=tokenizer.pad_token_id,
        original_max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
        vision_config={**VISION, "image_size": 448, "patch_size": 14, "crop_size": 448, "image_token_id": image},
        audio_config={
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_blocks": 1,
            "num_attention_heads": 2,
            "ext_pw_out_channel": 32,
            "nemo_conv_channels": 32,
            "depthwise_separable_out_channel": 32,
            "input_size": 80,
            "audio_token_id": audio,
        },
    )
    processor = Phi4MultimodalProcessor(
        Phi4MultimodalImageProcessor(dynamic_hd=1),  # of 448 pixels: the processor counts on 256 tokens
        Phi4MultimodalFeatureExtractor(),
        tokenizer,
    )
    model = _made(Phi4MultimodalForCausalLM, config, tokenizer, seed)
    model.set_attn_implementation("eager")
    return model, processor


FAMILIES: dict[str, Callable[[int], tuple[PreTrainedModel, ProcessorMixin]]] = {
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": tiny_planner,
    "qwen3_vl": qwen3_vl,
    "qwen3_5": qwen3_5,
    "internvl": internvl,
    "smolvlm": smolvlm,
    "idefics3": idefics3,
    "llava_onevision": llava_onevision,
    "gemma3": gemma3,
    "mistral3": mistral3,
    "glm4v": glm4v,
    "paligemma": paligemma,
    "phi4_multimodal": phi4_multimodal,
}
REQUIRED = ("qwen2_5_vl", "qwen3_vl", "gemma3", "internvl", "smolvlm")  # those that must do everything


def build(family: str, seed: int = 0) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A planner of the family and its processor; equal seeds give equal weights."""
    return FAMILIES[family](seed)


def parameters(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())
