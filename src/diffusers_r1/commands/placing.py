"""Where the models run: device, dtype and offload, as the options say.

All of it is checked before a model is loaded.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import torch

    from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline

DTYPES = ("float32", "float16", "bfloat16")
AUTO = "auto"
OFFLOADS = {"model": "enable_model_cpu_offload", "sequential": "enable_sequential_cpu_offload"}


def add_placing_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--offload",
        choices=tuple(OFFLOADS),
        help="keep on the card one model at a time, or one layer at a time, which is slow; see docs/memory.md",
    )


def find_device(name: str | None) -> torch.device:
    """The device of that name, or an accelerator if there is one.

    Raises:
        ValueError: If this machine has no such device; the message says what there is.
    """
    import torch
    from diffusers.utils.torch_utils import get_device

    try:
        device = torch.device(name or get_device())
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
        ValueError: If offload has no accelerator to take off of.
    """
    if offload(args) and device.type == "cpu":
        raise ValueError(f"--offload {args.offload} is for models on an accelerator, and these are on the CPU")


def offload(args: argparse.Namespace) -> str | None:
    return getattr(args, "offload", None)


def place(pipe: ImageEditR1Pipeline, args: argparse.Namespace, device: torch.device) -> ImageEditR1Pipeline:
    """The pipeline on its device, whole or by turns."""
    kind = offload(args)
    if kind is None:
        pipe.to(device)
    else:
        getattr(pipe, OFFLOADS[kind])(device=device)
    return pipe
