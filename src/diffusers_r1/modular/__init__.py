"""The agents as blocks of diffusers' Modular Diffusers: they stand in front of any modular editor."""

from .editing import EditTurnsBlock
from .planning import DecomposeBlock, ImageEditR1Blocks, SequenceBlock, WritePromptsBlock
from .saving import as_modular, save_modular


__all__ = [
    "DecomposeBlock",
    "EditTurnsBlock",
    "ImageEditR1Blocks",
    "SequenceBlock",
    "WritePromptsBlock",
    "as_modular",
    "save_modular",
]
