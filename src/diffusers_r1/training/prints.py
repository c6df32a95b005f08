"""What tells two models, data sets or files of one name apart: hashes that are cheap however large they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from huggingface_hub import try_to_load_from_cache
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from .. import schema
from ..bundles.planners import base_of_adapter
from ..data import is_made
from ..data.sources import SOURCES
from ..names import ADAPTER_INDEX, MODULAR_INDEX, PIPELINE_INDEX, is_hub_name, local
from ..prompts import FILE_NAME


if TYPE_CHECKING:
    from trl import ModelConfig

    from .arguments import DataArguments


IDENTITY = ".run.json"  # hidden, so that `datasets` takes it for no rows where the folder is among them
WEIGHTS = "weights of the base"
BASES = "weights of the adapter's base"
EDITOR = "weights of the picture editor"
ROWS, PROMPTS, SYNONYMS = "content of the rows", "content of the prompts", "content of the action synonyms"
PRINTS = (WEIGHTS, BASES, EDITOR, ROWS, PROMPTS, SYNONYMS)
WHOLE = {".jsonl", ".json", ".csv"}  # a word may change and the length stay; of the others, what they end with tells
NO_ROWS = (".", "cache-")  # hidden, or what `datasets` keeps beside rows of `save_to_disk`
CHUNK = 2**20
INDEXES = ("config.json", ADAPTER_INDEX, PIPELINE_INDEX, MODULAR_INDEX)  # one of which a repository has at its top


def prints_of(script: DataArguments, model: ModelConfig) -> dict[str, str | None]:
    """By their names in [`PRINTS`], the prints of all that a run reads from this machine; `None` or empty where that is nothing."""
    editor, synonyms = (getattr(script, name, None) for name in ("picture_editor", "action_synonyms"))
    start = local(str(model.model_name_or_path))
    places = sorted(places_of(start)) if start else []
    bases = [place for place in places if start and not place.is_relative_to(start.resolve())]
    asked_with = places if script.prompts is None else [Path(script.prompts)]
    return {
        WEIGHTS: fingerprint(model.model_name_or_path, model.model_revision),
        BASES: _joined(fingerprint(str(place)) for place in bases),
        EDITOR: fingerprint(editor),
        ROWS: content_print(place_of_rows(script.dataset_name, script.dataset_path)),
        PROMPTS: _joined(content_print(place / FILE_NAME) for place in asked_with),
        SYNONYMS: content_print(synonyms),
    }


def places_of(name: str | Path) -> set[Path]:
    """Where the file or folder of a name lies; of a bundle its parts as well, and of LoRA adapters their bases, and theirs."""
    found: set[Path] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        place = (local(name) or Path(name)).resolve()
        agents = () if place in found else (place, place / "planner", place / "sequencer")
        waiting += [base_of_adapter(agent) for agent in agents if (agent / ADAPTER_INDEX).is_file()]
        found |= {place, *_parts_of(place)}
    return found


def _parts_of(bundle: Path) -> Iterator[Path]:
    """The folders of a pipeline's parts, and of theirs; none of what is no pipeline."""
    index = bundle / PIPELINE_INDEX
    for name in schema.read_file(index, dict[str, Any]) if index.is_file() else ():
        if (bundle / name).is_dir():
            yield (bundle / name).resolve()
            yield from _parts_of(bundle / name)


def _joined(prints: Iterable[str | None]) -> str:
    return "+".join(one for one in prints if one is not None)


def fingerprint(name: str | None, revision: str | None = None) -> str | None:
    """Tells two models of one name apart: a Hub commit, or a hash of what the folder's files of weights begin and end with.

    `None` where nothing is on this machine yet.
    """
    folder = local(str(name))
    if folder is None:
        indexes = INDEXES if name and is_hub_name(name) else ()
        found = (try_to_load_from_cache(str(name), index, revision=revision) for index in indexes)
        return next((Path(path).parent.name for path in found if isinstance(path, str)), None)
    weights = [
        path
        for path in folder.rglob("*.safetensors")
        if not any(part.startswith(PREFIX_CHECKPOINT_DIR) for part in path.relative_to(folder).parts)
    ]
    return _print_of(weights, folder, ends=2**20)


def content_print(place: str | Path | None) -> str | None:
    """Tells a file or a folder from what it was: names, sizes, all of what is text, and of other files both ends.

    What is hidden or a cache does not count, nor the folders of runs, which may lie among the rows. `None` where nothing is on this machine.
    """
    if place is None or not Path(place).exists():
        return None
    path = Path(place)
    if path.is_file():
        return _print_of([path], path.parent, ends=2**16)
    return _print_of(_files_in(path), path, ends=2**16)


def place_of_rows(name: str, path: str | None) -> Path | None:
    """Where a data set is read from, if that is on this machine; see [`load_rows`]."""
    if path is None and is_made(name):
        return None
    place = Path(path or (SOURCES[name].path if name in SOURCES else name))
    is_table = place.is_file() and place.stem == "metadata"  # which speaks of pictures beside it
    return place.parent if is_table else place


def _files_in(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [
            name for name in folders if not name.startswith(NO_ROWS) and not (Path(place) / name / IDENTITY).exists()
        ]
        kept = [Path(place) / name for name in files if not name.startswith(NO_ROWS)]
        yield from (path for path in kept if path.is_file())  # a link may lead nowhere


def _print_of(paths: Iterable[Path], folder: Path, ends: int) -> str:
    found = hashlib.sha256()
    for path in sorted(paths):
        size = path.stat().st_size
        with path.open("rb") as file:
            for part in _chunks(file) if path.suffix in WHOLE else _both_ends(file, size, ends):
                found.update(part)
        found.update(str((path.relative_to(folder), size)).encode())
    return found.hexdigest()[:16]


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(CHUNK), b"")


def _both_ends(file: BinaryIO, size: int, ends: int) -> Iterator[bytes]:
    yield file.read(ends)
    file.seek(max(0, size - ends))
    yield file.read()
