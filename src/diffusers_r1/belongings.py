"""What belongs to a component is kept with the component: whoever takes the one takes the other along.

The words in which a planner is asked are part of the planner, and the arguments that an editor is called with are part
of the editor. Both are written into the component's own config, which goes with the object from pipeline to pipeline, is
saved by whatever saves it, and comes back with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import try_to_load_from_cache

from . import schema
from .names import MODULAR_INDEX, PIPELINE_INDEX, is_hub_name, name_of_snapshot


FILE_NAME = "belongings.json"  # of a component that has no config which is saved with it

_CLASS = "defaults_of"  # the class whose arguments they are: `Other.from_pipe(editor)` takes the config over, too
_FIELDS = {
    "prompts": dict[str, Any] | None,
    "sequence_without_adapter": bool | None,
    "defaults": dict[str, Any] | None,
    "made_for": dict[str, Any] | None,
    "base_model": str | None,
    _CLASS: str | None,
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
        modular = getattr(component, "_pretrained_model_name_or_path", None)
        name = config.get("_name_or_path") or modular
        kept, file = config.get(_KEY), Path(name or "", MODULAR_INDEX if modular else PIPELINE_INDEX)
        if kept is None and name:
            found = belongings_in(
                file if file.is_file() or Path(name).is_dir() else _cached(component, name, file.name)
            )
        else:
            found = _read(kept, file)
        kinds = [kind.__name__ for kind in type(component).__mro__]
        foreign = found.pop(_CLASS, None) not in (None, *kinds)
        return {key: value for key, value in found.items() if not (foreign and key == "defaults")}
    else:
        kept = getattr(component if config is None else config, _KEY, None)
        file = Path(getattr(component, "name_or_path", None) or "", "config.json")
    return _read(kept, file)


def belongings_in(file: Path) -> dict[str, Any]:
    """What [`~belongings.belongings`] are of the component whose `config.json` or `model_index.json` this is, before it is loaded."""
    index = schema.read_file(file, dict[str, Any]) if file.is_file() else {}
    found, kind = _read(index.get(_KEY), file), index.get("_class_name")
    return {_CLASS: kind, **found} if "defaults" in found and isinstance(kind, str) else found


def read_belongings(component: Any, folder: Path) -> None:
    """Give a component without a config what `FILE_NAME` in its folder says, if it is there.

    Raises:
        ValueError: If the file is not what it should be; the message names it.
    """
    if (folder / FILE_NAME).is_file():
        file = folder / FILE_NAME
        set_belongings(component, **schema.read_fields(_FIELDS, schema.read_file(file), str(file)))


def _cached(pipeline: Any, name: str, index: str) -> Path:
    """Where the index of a repository lies that a pipeline was loaded from by its name: beside its models, in their revision."""
    for part in pipeline.components.values():
        folder = Path(getattr(getattr(part, "config", None), "_name_or_path", None) or "").parent
        if name_of_snapshot(folder) == name:
            return folder / index
    found = try_to_load_from_cache(name, index) if is_hub_name(name) else None
    return Path(found if isinstance(found, str) else index)


def _plain(name: str, value: Any) -> Any:
    """The value as JSON holds it; refused is what would be refused when it is read."""
    return schema.read(_FIELDS.get(name, Any), _without_numpy(name, value), f"`{name}`")


def _without_numpy(name: str, value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _without_numpy(f"{name}.{key}", one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_without_numpy(name, one) for one in value)
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise TypeError(
        f"`{name}` is kept with its component and saved, so it is text, numbers and lists of them; {value!r} is not."
    )


def _read(kept: Any, file: Path) -> dict[str, Any]:
    name = f"{file}: `{_KEY}`"
    found = schema.read_fields(_FIELDS, {} if kept is None else kept, name)
    if found["made_for"]:
        schema.read_fields(_MADE_FOR, found["made_for"], f"{name}: `made_for`")
    return {key: value for key, value in found.items() if value is not None}


def set_belongings(component: Any, **values: Any) -> None:
    """Keep values with a component, beside what is kept already.

    Raises:
        TypeError: If one is no plain data, which is what is saved.
        ValueError: If it is plain data that no file holds: a number that is not finite, half of a surrogate pair, a key that
            is no text.
    """
    kept = {**belongings(component), **{name: _plain(name, value) for name, value in values.items()}}
    if isinstance(getattr(component, "config", None), Mapping):
        if "defaults" in kept:
            kept[_CLASS] = type(component).__name__
        component.register_to_config(**{_KEY: kept})
    else:
        setattr(getattr(component, "config", component), _KEY, kept)


def not_made_for(name: str, known: Mapping[str, Any], sizes: Sequence[tuple[int, int]]) -> str:
    """What to say of pictures (width, height) that a component, `"planner"` or `"editor"`, was not made for; empty where it was.

    Args:
        known (`Mapping`): Its `made_for`, `{"pictures": "what they show", "size": [width, height]}`; empty for all.
    """
    others = [size for size in sizes if known and list(size) != list(known["size"])]
    if not others:
        return ""
    width, height = known["size"]
    return (
        f"The {name} was made for {known['pictures']} of {width} x {height} pixels and nothing else; a picture of"
        f" {others[0][0]} x {others[0][1]} is worked on at about that size. For photos, load others."
    )
