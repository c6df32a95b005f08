"""Many pictures: a folder of them on one machine (`files.py`), or a whole data set on many, with Ray Data (`engine.py`).

Rows of a data set go in shards through two pools of workers: planners, which turn instructions into plans, and editors, which
carry the plans out; what comes out of a shard becomes one file. Only row numbers, plans and edited pictures travel: each
worker opens the pictures itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .folder import is_ours
from .settings import Settings
from .shards import RowFailed


if TYPE_CHECKING:
    from .engine import edit_data_set

__all__ = ["RowFailed", "Settings", "edit_data_set", "is_ours"]


def __getattr__(name: str) -> Any:
    if name == "edit_data_set":  # which brings Ray; a folder is edited without
        from .engine import edit_data_set

        return edit_data_set
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
