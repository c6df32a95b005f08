"""A name becomes a folder, once: a folder of one's own, a bundle that comes with the package, a repository on the Hub.

Everything that loads goes through `resolve` and sees only the folder, so that weights, processor, prompts and settings
are always those of one place and one revision.
"""

from __future__ import annotations

import glob
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeGuard


PIPELINE_INDEX = "model_index.json"
MODULAR_INDEX = "modular_model_index.json"  # of a modular pipeline
ADAPTER_INDEX = "adapter_config.json"
REMOTE_PLANNER_INDEX = "remote_planner.json"  # of a planner behind an address
ADDRESS = ("http://", "https://")
HUB_SETTINGS = ("revision", "token", "cache_dir", "force_download", "local_files_only")

_BUNDLES = Path(__file__).parent / "bundles"
_SHIPPED_INDEXES = (
    PIPELINE_INDEX,
    "config.json",
    ADAPTER_INDEX,
)  # of a whole pipeline, a planner, a planner's adapter
_CONFIGS = (PIPELINE_INDEX, MODULAR_INDEX, "config.json", ADAPTER_INDEX, REMOTE_PLANNER_INDEX)
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")  # no path such as ./name


def shipped() -> list[str]:
    """The names of the bundles and planners that come with the package, in alphabetical order."""
    folders = (
        folder for folder in _BUNDLES.iterdir() if any((folder / index).is_file() for index in _SHIPPED_INDEXES)
    )
    return sorted(folder.name for folder in folders)


def local(name: str | os.PathLike) -> Path | None:
    """The folder that a name stands for without asking the Hub: one's own, or a shipped bundle's; `None` if neither is."""
    if Path(name).is_dir():
        return Path(name)
    return _BUNDLES / str(name) if str(name) in shipped() else None


def is_address(name: str | os.PathLike | None) -> TypeGuard[str]:
    """Whether a name is the address of a server, which has a model loaded."""
    return str(name).lower().startswith(ADDRESS)


def is_hub_name(name: str | os.PathLike) -> bool:
    """Whether a name is that of a repository: `"org/name"`."""
    return _HUB_NAME.fullmatch(str(name)) is not None


def name_of_snapshot(folder: str | os.PathLike) -> str | None:
    """The repository, `"org/name"`, of which a folder is a copy in the cache of huggingface_hub; `None` if it is none."""
    repository = Path(folder).parent.parent.name
    kind, *name = repository.split("--")
    of_cache = Path(folder).parent.name == "snapshots" and kind == "models" and len(name) == 2
    return "/".join(name) if of_cache else None


def name_elsewhere(folder: str | os.PathLike) -> tuple[str, str | None] | None:
    """By what name, and as which commit, other machines have the planner in a folder, or of the bundle in it; `None` if by none."""
    place = Path(folder)
    place = place.parent if place.name == "planner" else place
    repository = name_of_snapshot(place)
    return (repository, place.name) if repository else (place.name, None) if place.parent == _BUNDLES else None


def only_configs(folder: Path, files: list[str]) -> list[str]:
    """For `resolve`: of a repository nothing but what it and its parts say of themselves, without weights."""
    return [file for file in files if file.rpartition("/")[2] in _CONFIGS]


def resolve(
    name: str | os.PathLike,
    choose: Callable[[Path, list[str]], Iterable[str]] | None = None,
    user_agent: dict[str, str] | None = None,
    **hub: Any,
) -> Path:
    """The folder that a name stands for. A folder of that name comes before a shipped bundle, and both before the Hub.

    Args:
        name (`str` or `os.PathLike`): A folder, a shipped bundle or planner, or a repository on the Hub (`"org/name"`).
        choose (callable, *optional*): `(folder, files) -> files`: of the files in a repository, as paths with "/", those
            that are brought. In `folder` the repository's indexes lie already. By default all that loading a planner takes.
        user_agent (`dict`, *optional*): What the Hub is told of who asks.
        hub: `revision`, `token`, `cache_dir`, `force_download`, `local_files_only`, as in huggingface_hub. They say which
            copy of a repository is meant; a folder has one.

    Raises:
        OSError: If nothing has that name; errors of huggingface_hub about a repository are of this kind.
    """
    text, folder = str(name), local(name)
    if folder is not None:
        return folder
    if is_address(name):
        raise OSError(
            f"{text} is an address. Here weights are needed: name a folder, a shipped bundle, or one on the Hub."
        )
    if not _HUB_NAME.fullmatch(text):
        raise OSError(
            f"{text!r} is neither a folder nor a bundle that comes with diffusers-r1 ({', '.join(shipped())})."
            ' A name on the Hub has the form "org/name", and an address begins with http://.'
        )
    return _download(text, choose or planner_files, user_agent, {key: hub[key] for key in HUB_SETTINGS if key in hub})


def _download(name: str, choose: Callable, user_agent: dict[str, str] | None, hub: dict[str, Any]) -> Path:
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

    given = {key: value for key, value in hub.items() if value is not None}
    revision = given.pop("revision", None)
    indexes = [PIPELINE_INDEX, ADAPTER_INDEX]
    try:
        folder = Path(
            snapshot_download(name, revision=revision, allow_patterns=indexes, user_agent=user_agent, **given)
        )
    except LocalEntryNotFoundError as error:  # which names no repository
        at = f" at revision {revision!r}" if revision else ""
        raise FileNotFoundError(
            f"{name!r}{at} is not in the cache of huggingface_hub, and the Hub was not asked or not reached: {error}"
        ) from error
    # A branch may move between the two downloads; a commit does not.
    commit = folder.name
    try:
        listing = get_cached_repo_tree(name, revision=commit, cache_dir=given.get("cache_dir"))
    except CachedRepoTreeNotFoundError:
        # Offline, and another program filled the cache, file by file: what it holds of the commit is all that can be had.
        return folder
    wanted = choose(folder, [file.path for file in listing])
    patterns = [*indexes, *map(glob.escape, wanted)]
    return Path(snapshot_download(name, revision=commit, allow_patterns=patterns, user_agent=user_agent, **given))


# Which files are loaded
# ----------------------

_PICKLED = ".bin"
_SAFE = ".safetensors"
_NEVER_LOADED = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".ot", ".onnx", ".pb", ".gguf")
_SHARD = re.compile(r"-\d{5}-of-\d{5}")
_AGENT_FOLDERS = {"planner": 1, "processor": 1, "planner_adapter": 1}
_SHARED_PLANNER = re.compile(r'"planner"\s*:\s*"editor\.(\w+)"')  # in an index; who loads a damaged one is told


def planner_files(
    folder: Path, files: list[str], variant: str | None = None, use_safetensors: bool | None = None
) -> list[str]:
    """Of the files of a repository, those that its planner takes: all at its top, or the planner's in a bundle.

    Of a planner that is a part of the bundle's editor that part is brought, and no other of the editor's. `variant` and
    `use_safetensors`, see [`files_to_load`], are about whole weights: of an adapter they are its base's.
    """
    if {ADAPTER_INDEX, f"planner/{ADAPTER_INDEX}"} & set(files):
        variant = use_safetensors = None
    if not (folder / PIPELINE_INDEX).is_file():
        return files_to_load(files, {"": 0}, variant, use_safetensors)
    shared = _SHARED_PLANNER.search((folder / PIPELINE_INDEX).read_text(encoding="utf-8", errors="replace"))
    depths = dict(_AGENT_FOLDERS)
    if shared:
        depths["editor"] = 2
        files = [file for file in files if not file.startswith("editor/") or file.startswith(f"editor/{shared[1]}/")]
    return files_to_load(files, depths, variant, use_safetensors)


def variant_of(file: str) -> str:
    """`"fp16"` for `model.fp16-00001-of-00002.safetensors` or `model.safetensors.index.fp16.json`, `""` for none."""
    parts = _SHARD.sub("", file.rpartition("/")[2]).split(".")[1:]
    return ".".join(part for part in parts if part not in ("safetensors", "bin", "index", "json"))


def is_weights(file: str, kinds: Iterable[str] = (_SAFE, _PICKLED)) -> bool:
    """Whether a file holds weights of one of `kinds`, or is the index of their shards."""
    return any(
        file.endswith(kind) or (f"{kind}." in file and ".index." in file and file.endswith(".json")) for kind in kinds
    )


def has_variant(folder: Path, variant: str | None) -> bool:
    """Whether there are weights of a variant in a folder or below it."""
    files = [path.name for path in folder.rglob("*")] if variant else []
    return any(variant_of(file) == variant for file in files if is_weights(file))


def files_to_load(
    files: Iterable[str], depths: dict[str, int], variant: str | None = None, use_safetensors: bool | None = None
) -> list[str]:
    """Of the files of a repository, those that loading it takes.

    Args:
        files (iterable of `str`): Paths in the repository, with "/".
        depths (`dict`): How many folders deep the weights of each component lie: 1, or 2 for a nested pipeline; 0 for
            what lies at the top, whose name is `""`.
        variant (`str`, *optional*): Taken in each folder that has it; the others give their plain weights.
        use_safetensors (`bool`, *optional*): By default a folder gives pickled weights (`.bin`) only if it has no
            others. `True` refuses them, `False` asks for them.

    Raises:
        ValueError: If no folder has the variant.
        OSError: If `use_safetensors=True` and a folder has pickled weights only.
    """
    kinds = {None: (_SAFE, _PICKLED), True: (_SAFE,), False: (_PICKLED,)}[use_safetensors]
    wanted, weights = [], defaultdict(list)
    for file in files:
        component, depth = file.partition("/")[0] if "/" in file else "", file.count("/")
        if component not in depths or file.endswith(_NEVER_LOADED):
            continue
        if not is_weights(file):
            wanted.append(file)
        elif depth == depths[component]:
            weights[file.rpartition("/")[0]].append(file)

    found = False
    for folder, members in weights.items():
        taken = next((some for kind in kinds if (some := [m for m in members if is_weights(m, (kind,))])), None)
        if taken is None and use_safetensors:
            raise OSError(f"{folder} has no {_SAFE} weights, and `use_safetensors=True` refuses others.")
        asked = [file for file in taken or [] if variant and variant_of(file) == variant]
        found = found or bool(asked)
        wanted += asked or [file for file in taken or [] if not variant_of(file)]
    if variant and not found:
        raise ValueError(f"There are no weights of the variant {variant!r}.")
    return wanted
