"""What belongs to a component is kept with the component: whoever takes the one takes the other along.

The words in which a planner is asked are part of the planner, and the arguments that an editor is called with are part
of the editor. Both are written into the component's own config, which goes with the object from pipeline to pipeline, is
saved by whatever saves it, and comes back with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


_KEY = "_imageedit_r1"  # diffusers leaves a key alone, and warns of none, that begins with an underscore


def belongings(component: Any) -> dict[str, Any]:
    """What is kept with a component, plain data by name; empty where there is nothing, or no component."""
    config = getattr(component, "config", None)
    if isinstance(config, Mapping):  # a pipeline's. Its loader reads no key of ours, so the file is read here.
        return dict(config.get(_KEY) or _in_folder(config.get("_name_or_path")))
    return dict(getattr(component if config is None else config, _KEY, None) or {})


def keep(component: Any, **values: Any) -> None:
    """Keep values with a component, beside what is kept already; they have to be plain data."""
    kept = {**belongings(component), **values}
    if isinstance(getattr(component, "config", None), Mapping):
        component.register_to_config(**{_KEY: kept})
    else:
        setattr(getattr(component, "config", component), _KEY, kept)


def _in_folder(folder: str | None) -> dict[str, Any]:
    index = Path(folder or "", "model_index.json")
    return json.loads(index.read_text(encoding="utf-8")).get(_KEY) or {} if folder and index.is_file() else {}
