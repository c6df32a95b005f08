"""Smaller weights, as `--quantize` says: the models that plan, and the editor's denoiser. Its text encoders stay as they are.

On the CPU the models that plan are made so after they are loaded, see `planners/int8.py`: torchao's way is slower there than
float32.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import schema
from ..bundles.planners import shared_in
from ..installing import install_line
from ..names import MODULAR_INDEX, PIPELINE_INDEX, only_configs, resolve


if TYPE_CHECKING:
    import torch
    from diffusers.quantizers import PipelineQuantizationConfig

    from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline

PACKAGES = {"int8": "torchao", "nf4": "bitsandbytes"}  # by what each is done
PLANNERS = ("planner", "sequencer")
DENOISERS = ("transformer", "transformer_2", "unet")  # of an editor, by far the largest part beside its text encoder


def add_quantizing_argument(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--quantize",
        choices=tuple(PACKAGES),
        help="weights of planner and denoiser in 8 bits, or, on an accelerator, in 4; see docs/memory.md",
    )


def check_quantizing(kind: str | None, device: torch.device, editing: bool) -> None:
    """Refuse what this machine cannot do.

    Args:
        editing (`bool`): Whether an editor is loaded here.

    Raises:
        ValueError: If the package is not installed, or needs an accelerator.
    """
    if kind is None:
        return
    if (editing or not _after_loading(kind, device)) and find_spec(PACKAGES[kind]) is None:
        raise ValueError(f"--quantize {kind} needs the package {PACKAGES[kind]}: {install_line('quantize')}")
    if kind == "nf4" and device.type == "cpu":
        raise ValueError("--quantize nf4 needs an accelerator, and the models are on the CPU; int8 does without")


def of_planner(kind: str | None, dtype: torch.dtype | None, device: torch.device) -> dict[str, Any]:
    """What a planner is loaded with for it."""
    if kind is None or _after_loading(kind, device):
        return {}
    import transformers

    return {"quantization_config": _configuration(transformers, kind, dtype)}


def of_editor(kind: str | None, name: str, dtype: torch.dtype | None) -> dict[str, Any]:
    """What an editor, or the editor of a bundle, is loaded with for it.

    Raises:
        UsageError: If it is modular.
    """
    if kind is None:
        return {}
    folder = resolve(name, only_configs)
    nested = folder / "editor"
    return _mapping(_denoisers(nested if nested.is_dir() else folder, kind, dtype))


def of_bundle(
    kind: str | None, name: str, dtype: torch.dtype | None, device: torch.device, own: set[str]
) -> dict[str, Any]:
    """What a bundle is loaded with for it.

    Args:
        own (`set` of `str`): The parts that are the bundle's, among `"planner"` and `"editor"`.

    Raises:
        UsageError: If the editor is modular, or a model that plans is to be made smaller and is a part of the editor.
    """
    if kind is None:
        return {}
    folder = resolve(name, only_configs)
    shared = shared_in(folder)
    if "planner" in own and _after_loading(kind, device):
        _refuse_shared(shared, name)
    parts = {}
    if "editor" in own:
        denoisers = _denoisers(folder / "editor", kind, dtype)
        parts = {f"editor.{part}": config for part, config in denoisers.items()}
    if "planner" in own and not _after_loading(kind, device):
        index = _index_in(folder)
        loaded = [name for name in PLANNERS if name in shared or (index.get(name) or [None])[0] == "transformers"]
        parts |= {name: of_planner(kind, dtype, device)["quantization_config"] for name in loaded}
    return _mapping(parts)


def make_smaller(kind: str | None, pipe: ImageEditR1Pipeline, device: torch.device) -> None:
    """What is left to do of it when the models are loaded."""
    if not _after_loading(kind, device):
        return
    from transformers import PreTrainedModel

    from ..planners.int8 import to_int8

    for name in PLANNERS:
        model = getattr(pipe, name)
        if isinstance(model, PreTrainedModel):
            to_int8(model)


def _after_loading(kind: str | None, device: torch.device) -> bool:
    return kind == "int8" and device.type == "cpu"


def _refuse_shared(shared: dict[str, str], name: str) -> None:
    """An editor's text encoder stays as it is, and so does a planner that is one."""
    for agent in PLANNERS:
        if agent in shared:
            raise _usage_error(
                f"--quantize int8 on the CPU is for a {agent} of its own, and that of {name} is a part of its editor,"
                f" {shared[agent]}: leave it out, or name another --planner"
            )


def _usage_error(message: str) -> Exception:
    from .shared import UsageError  # which imports this module

    return UsageError(message)


def _mapping(parts: dict[str, Any]) -> dict[str, PipelineQuantizationConfig]:
    from diffusers.quantizers import PipelineQuantizationConfig

    return {"quantization_config": PipelineQuantizationConfig(quant_mapping=parts)} if parts else {}


def _denoisers(editor: Path, kind: str, dtype: torch.dtype | None) -> dict[str, Any]:
    """How each denoiser of the editor in a folder is made smaller; none of one behind an address."""
    import diffusers

    if (editor / MODULAR_INDEX).is_file():
        raise _usage_error(f"--quantize {kind} is not for a modular pipeline, and the editor in {editor} is one")
    index = _index_in(editor)
    return {part: _configuration(diffusers, kind, dtype) for part in DENOISERS if part in index}


def _index_in(folder: Path) -> dict[str, Any]:
    path = folder / PIPELINE_INDEX
    return schema.read_file(path, dict[str, Any]) if path.is_file() else {}


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
