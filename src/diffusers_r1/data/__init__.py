"""Rows to train and to measure planners on: picture, instruction and, where somebody knows them, the true edits."""

from .rows import EDIT_COLUMNS, check_apart, to_prompts
from .sources import SOURCES, Source, is_made, load_rows


__all__ = ["EDIT_COLUMNS", "SOURCES", "Source", "check_apart", "is_made", "load_rows", "to_prompts"]
