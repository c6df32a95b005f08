"""What belongs to a component is kept with the component: whoever takes the one takes the other along.

The words in which a planner is asked are part of the planner, and the arguments that an editor is called with are part
of the editor. Both are written into the component's own config, which goes with the object from pipeline to pipeline, is
saved by whatever saves it, and comes back with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import schema


_FIELDS = {
    "prompts": dict[str, Any] | None,
    "sequence_without_adapter": bool | None,
    "defaults": dict[str, Any] | None,
    "made_for": dict[str, Any] | None,
}
_MADE_FOR = {"pictures": str, "size": tuple[int, int]}
_KEY = "_imageedit_r1"  # diffusers leaves a key alone, and warns of none, that begins with an underscore


def belongings(component: Any) -> dict[str, Any]:
    """What is kept with a component, plain data by name; empty where there is nothing, or no component.

    Raises:
        ValueError: If a file holds something else; the message names it.
    """
    config = getattr(component, "config", None)
    if isinstance(config, Mapping):  # a pipeline's. Its loader reads no key of ours, so the file is read here.
        kept, file = config.get(_KEY), Path(config.get("_name_or_path") or "", "model_index.json")
        if not kept and config.get("_name_or_path") and file.is_file():
            kept = schema.read_file(file, dict[str, Any]).get(_KEY)
    else:
        kept = getattr(component if config is None else config, _KEY, None)
        file = Path(getattr(component, "name_or_path", None) or "", "config.json")
    name = f"{file}: `{_KEY}`"
    found = schema.read_fields(_FIELDS, {} if kept is None else kept, name)
    if found["made_for"]:
        schema.read_fields(_MADE_FOR, found["made_for"], f"{name}: `made_for`")
    return {key: value for key, value in found.items() if value is not None}


def set_belongings(component: Any, **values: Any) -> None:
    """Keep values with a component, beside what is kept already; they have to be plain data."""
    kept = {**belongings(component), **values}
    if isinstance(getattr(component, "config", None), Mapping):
        component.register_to_config(**{_KEY: kept})
    else:
        setattr(getattr(component, "config", component), _KEY, kept)
