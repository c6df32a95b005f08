"""Components behind an address: saved in a bundle as what is said of them, an address and a model's name, and no weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...belongings import FILE_NAME, belongings, read_belongings
from ...planners.remote import RemotePlanner
from ...remote_editor import RemoteEditor


REMOTE = {kind.__name__: kind for kind in (RemotePlanner, RemoteEditor)}


def is_remote(component: Any) -> bool:
    """Whether a component is behind an address."""
    return isinstance(component, tuple(REMOTE.values()))


def save_remote(component: RemotePlanner | RemoteEditor, folder: Path) -> None:
    """Write a component behind an address, and what belongs to it; never a key."""
    component.save_pretrained(folder)
    (folder / FILE_NAME).write_text(json.dumps(belongings(component), indent=2) + "\n", encoding="utf-8")


def load_remote(kind: str, folder: Path) -> Any:
    """What `save_remote` wrote: a component of the class that `kind` names.

    Raises:
        OSError: If a file is missing.
        ValueError: If a file is not what it should be; the message names it.
    """
    component = REMOTE[kind].from_pretrained(folder)
    read_belongings(component, folder)
    return component


class PlainRemotePlanner:
    """How plain `DiffusionPipeline` loads a planner behind an address."""

    @classmethod
    def from_pretrained(cls, folder: str, **_: Any) -> RemotePlanner:
        """The planner that `save_remote` wrote."""
        return load_remote(RemotePlanner.__name__, Path(folder))


class PlainRemoteEditor:
    """How plain `DiffusionPipeline` loads an editor behind an address."""

    @classmethod
    def from_pretrained(cls, folder: str, **_: Any) -> RemoteEditor:
        """The editor that `save_remote` wrote."""
        return load_remote(RemoteEditor.__name__, Path(folder))
