"""Edits all rows of a data set, on a laptop or on many machines, with Ray Data.

Rows go in shards through two pools of workers: planners, which turn instructions into plans, and editors, which carry the
plans out; what comes out of a shard becomes one file. Only row numbers, plans and edited pictures travel: each worker opens
the pictures itself. Start reading at `engine.py`.
"""

from .engine import edit_data_set
from .folder import is_ours
from .settings import Settings
from .shards import RowFailed


__all__ = ["RowFailed", "Settings", "edit_data_set", "is_ours"]
