"""The weights that come with the package: a folder each beside this file, found by name."""

from __future__ import annotations

from pathlib import Path


# The components that plan: carrying out a plan takes none of them.
AGENTS = ("planner", "processor", "sequencer", "sequencer_processor")

_HERE = Path(__file__).parent
_INDEXES = ("model_index.json", "config.json")  # of a whole pipeline; of a planner alone


def names() -> list[str]:
    """The names of the shipped bundles, in alphabetical order."""
    return sorted(folder.name for folder in _HERE.iterdir() if any((folder / index).is_file() for index in _INDEXES))


def find(name: str) -> Path | None:
    """The folder of the shipped bundle of that name, or `None` if there is none."""
    return _HERE / name if name in names() else None
