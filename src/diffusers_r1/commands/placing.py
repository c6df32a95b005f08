"""Where the models run and how small they are made: device, dtype, offload, quantization, as the options say.

All of it is checked before a model is loaded.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import schema
from ..names import PIPELINE_INDEX, only_indexes, resolve


if TYPE_CHECKING:
    import torch
    from diffusers.quantizers import PipelineQuantizationConfig

    from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline

DTYPES = ("float32", "float16", "bfloat16")
AUTO = "auto"
OFFLOADS = {"model": "enable_model_cpu_offload", "sequential": "enable_sequential_cpu_offload"}
QUANTIZATIONS = {"int8": "torchao", "nf4": "bitsandbytes"}  # and the package that does it
DENOISERS = ("transformer", "transformer_2", "unet")  # of an editor, by far the largest part beside its text encoder


def add_placing_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--offload",
        choices=tuple(OFFLOADS),
        help="keep on the card one model at a time, or one layer at a time, which is slow; see docs/memory.md",
    )
    parser.add_argument(
        "--quantize",
        choices=tuple(QUANTIZATIONS),
        help="weights of planner and denoiser in 8 bits (torchao) or 4 (bitsandbytes)",
    )


def find_device(name: str | None) -> torch.device:
    """The device of that name, or an accelerator if there is one.

    Raises:
        ValueError: If this machine has no such device; the message says what there is.
    """
    import torch
    from diffusers.utils.torch_utils import get_device

    device = torch.device(name or get_device())
    try:
        torch.empty(0, device=device)
    # A build of torch without CUDA answers with an AssertionError, others in their own ways.
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"--device {name}: there is none here; the best there is: {get_device()}") from error
    return device


def find_dtype(name: str | None, device: torch.device) -> torch.dtype | None:
    """The dtype of that name; `"auto"` is bfloat16 on an accelerator that computes in it, and float32 elsewhere."""
    import torch

    if name != AUTO:
        return None if name is None else getattr(torch, name)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if device.type in ("xpu", "npu") else torch.float32


def check_placing(args: argparse.Namespace, device: torch.device) -> None:
    """Refuse what this machine cannot do.

    Raises:
        ValueError: If offload has no accelerator to take off of, or a package is not installed.
    """
    if offload(args) and device.type == "cpu":
        raise ValueError(f"--offload {args.offload} is for models on an accelerator, and these are on the CPU")
    kind = quantization(args)
    if kind and find_spec(QUANTIZATIONS[kind]) is None:
        raise ValueError(f"--quantize {kind} needs the package {QUANTIZATIONS[kind]}: install it beside diffusers-r1")
    if kind == "nf4" and device.type == "cpu":
        raise ValueError("--quantize nf4 needs an accelerator; int8 does without")


def offload(args: argparse.Namespace) -> str | None:
    return getattr(args, "offload", None)


def quantization(args: argparse.Namespace) -> str | None:
    return getattr(args, "quantize", None)


def place(pipe: ImageEditR1Pipeline, args: argparse.Namespace, device: torch.device) -> ImageEditR1Pipeline:
    """The pipeline on its device, whole or by turns."""
    kind = offload(args)
    if kind is None:
        pipe.to(device)
    else:
        getattr(pipe, OFFLOADS[kind])(device=device)
    return pipe


def of_planner(args: argparse.Namespace, dtype: torch.dtype | None) -> dict[str, Any]:
    """What a planner is loaded with."""
    settings = _dtype(dtype)
    if quantization(args):
        import transformers

        settings["quantization_config"] = _configuration(transformers, args.quantize, dtype)
    return settings


def of_editor(args: argparse.Namespace, name: str, dtype: torch.dtype | None) -> dict[str, Any]:
    """What an editor is loaded with: only its denoiser is made smaller."""
    settings = _dtype(dtype)
    if quantization(args):
        folder = resolve(name, only_indexes)
        nested = folder / "editor"  # of a bundle
        parts = _denoisers(nested if nested.is_dir() else folder, args, dtype)
        settings["quantization_config"] = _mapping(parts)
    return settings


def of_bundle(args: argparse.Namespace, name: str, dtype: torch.dtype | None, own: set[str]) -> dict[str, Any]:
    """What a bundle is loaded with, of whose parts those in `own` are taken, `"planner"` and `"editor"`."""
    settings = _dtype(dtype)
    if quantization(args):
        parts = {}
        if "editor" in own:
            found = _denoisers(resolve(name, only_indexes) / "editor", args, dtype)
            parts = {f"editor.{part}": config for part, config in found.items()}
        if "planner" in own:
            parts["planner"] = of_planner(args, dtype)["quantization_config"]
        settings["quantization_config"] = _mapping(parts)
    return settings


def _dtype(dtype: torch.dtype | None) -> dict[str, Any]:
    return {} if dtype is None else {"dtype": dtype}


def _mapping(parts: dict[str, Any]) -> PipelineQuantizationConfig | None:
    from diffusers.quantizers import PipelineQuantizationConfig

    return PipelineQuantizationConfig(quant_mapping=parts) if parts else None


def _denoisers(editor: Path, args: argparse.Namespace, dtype: torch.dtype | None) -> dict[str, Any]:
    """How each denoiser of the editor in a folder is made smaller; none of one behind an address."""
    import diffusers

    path = editor / PIPELINE_INDEX
    index = schema.read_file(path, dict[str, Any]) if path.is_file() else {}
    return {part: _configuration(diffusers, args.quantize, dtype) for part in DENOISERS if part in index}


def _configuration(library: Any, kind: str, dtype: torch.dtype | None) -> Any:
    """`library` is diffusers or transformers, which have classes of the same names for it."""
    if kind == "int8":
        from torchao.quantization import Int8WeightOnlyConfig

        return library.TorchAoConfig(Int8WeightOnlyConfig())
    import torch

    return library.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype or torch.float32,
    )
