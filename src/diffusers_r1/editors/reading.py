"""How much of a prompt an editor's text encoder reads: what is longer is cut off by diffusers with a log line.

Each rule is `(editor, prompt, arguments) -> (tokens up to the end of the prompt, most tokens that are read)`. Editors that
read all of it (Qwen-Image-Edit, OmniGen, GLM-Image) have none. JoyImage cuts at 4,096 tokens, the picture's included.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from diffusers import ModularPipeline


def clip_tokens(editor: Any, prompt: str, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """77 tokens of CLIP, the first and the last of which are its own."""
    return _length(editor.tokenizer, prompt), editor.tokenizer.model_max_length


def t5_tokens(editor: Any, prompt: str, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """512 tokens of T5. CLIP, which FLUX.1 has beside it, gives one vector, and is cut at 77."""
    tokenizer = getattr(editor, "tokenizer_2", None) or editor.tokenizer
    return _length(tokenizer, prompt), _most(editor, arguments)


def sd3_tokens(editor: Any, prompt: str, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """256 tokens of T5, or 77 of CLIP where T5 is left out."""
    if editor.text_encoder_3 is None:
        return clip_tokens(editor, prompt, arguments)
    return _length(editor.tokenizer_3, prompt), _most(editor, arguments)


def chat_tokens(editor: Any, prompt: str, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """512 tokens, those that the chat has before the prompt included."""
    place, messages = "\N{REPLACEMENT CHARACTER}", []
    if getattr(editor, "system_message", None):
        messages.append({"role": "system", "content": [{"type": "text", "text": editor.system_message}]})
    messages.append({"role": "user", "content": [{"type": "text", "text": place}] if messages else place})
    before = editor.tokenizer.apply_chat_template(messages, tokenize=False).split(place)[0]
    tokenizer = getattr(editor.tokenizer, "tokenizer", editor.tokenizer)  # FLUX.2 has a processor in its place
    return _length(tokenizer, before + prompt, add_special_tokens=False), _most(editor, arguments)


def prompt_tokens(editor: Any, prompt: str, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """As many tokens of the prompt as `max_sequence_length` says."""
    tokenizer = getattr(editor.tokenizer, "tokenizer", editor.tokenizer)  # FLUX.3 has a processor in its place
    return _length(tokenizer, prompt), _most(editor, arguments)


def qwen_image_tokens(editor: Any, prompt: str, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """As many tokens of the prompt as `max_sequence_length` says, at most 1,024."""
    before = editor.prompt_template_encode.split("{}")[0]
    tokens = _length(editor.tokenizer, before + prompt) - editor.prompt_template_encode_start_idx
    return tokens, min(_most(editor, arguments), editor.tokenizer_max_length)


def modular_qwen_tokens(editor: Any, prompt: str, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """1,024 tokens of the prompt."""
    return _length(editor.tokenizer, prompt), 1024


def longcat_tokens(editor: Any, prompt: str, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """512 tokens of the prompt."""
    return _length(editor.tokenizer, prompt), editor.tokenizer_max_length


def kandinsky3_tokens(editor: Any, prompt: str, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """128 tokens of T5."""
    return _length(editor.tokenizer, prompt), 128


def kandinsky5_tokens(editor: Any, prompt: str, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """1,024 tokens, the picture's (of half its size) included. CLIP, beside it, gives one vector."""
    processor = editor.tokenizer.image_processor
    patches = max(
        processor.get_number_of_image_patches(height // 2, width // 2, {}) for width, height in editor.resolutions
    )
    ends = 3  # the tokens around the picture
    return _length(editor.tokenizer.tokenizer, prompt), _most(
        editor, arguments
    ) - patches // processor.merge_size**2 - ends


def _length(tokenizer: Any, text: str, **settings: Any) -> int:
    # `truncation=False` would still warn that the text is longer than the model reads, which is what is asked here.
    return len(tokenizer(text, truncation=False, verbose=False, **settings)["input_ids"])


def _most(editor: Any, arguments: Mapping[str, Any]) -> int:
    if "max_sequence_length" in arguments:
        return arguments["max_sequence_length"]
    if isinstance(editor, ModularPipeline):
        return editor.default_call_parameters["max_sequence_length"]
    return inspect.signature(type(editor).__call__).parameters["max_sequence_length"].default
