"""What stays of what a bundle's folder, or repository, held before: other variants of the weights that are written.

Everything else that lay in the folder of a component goes, or it would be loaded beside what is new, or in place of it.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.constants import EVAL_RESULTS_FOLDER
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash, sha_fileobj
from safetensors import safe_open

from ...bundles.planners import ADAPTER_FOLDER
from ...names import is_weights, variant_of


_CONFIG = "config.json"  # what makes a folder that of a model
_PLAIN = ""  # the variant of weights that are of none
_SMALLEST = 6e-8  # what float16 has between two numbers at 0


# In a folder
# -----------


def keep_other_variants(folder: Path, new: Path) -> None:
    """Bring into `new` the weights in `folder` of the same models in another variant, such as `"fp16"`.

    Beside plain weights a variant stays where it is one of them: where it says the same but for rounding, or lay beside plain
    weights that did. A variant is written beside whatever is there of a model of its class.
    """
    for config in new.rglob(_CONFIG):
        before = folder / config.parent.relative_to(new)
        written = _by_variant(config.parent)
        if not written or not (before / _CONFIG).is_file() or _class_in(before / _CONFIG) != _class_in(config):
            continue
        others = _by_variant(before)
        plain = written.get(_PLAIN)
        all_stay = plain is None or say_the_same(plain, others.get(_PLAIN, ()))
        for variant, files in others.items():
            if variant not in written and (all_stay or say_the_same(plain or (), files)):
                for file in files:
                    _link(file, config.parent / file.name)


def _link(file: Path, copy: Path) -> None:
    try:
        os.link(file, copy)
    except OSError:  # a disk without links, such as exFAT
        shutil.copyfile(file, copy)


def _by_variant(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if is_weights(path.name):
            found[variant_of(path.name)].append(path)
    return dict(found)


def _class_in(config: Path) -> tuple[Any, ...]:
    said = json.loads(config.read_text(encoding="utf-8"))
    return tuple(said.get(key) for key in ("_class_name", "architectures"))


def say_the_same(some: Iterable[Path], others: Iterable[Path]) -> bool:
    """Whether two sets of files of weights, each a file or its shards, have the same in them but for rounding.

    Of quantized weights what is not quantized is compared. Pickled ones are never the same as others: they are not opened.
    """
    with ExitStack() as stack:
        here, there = _tensors(some, stack), _tensors(others, stack)
        common = [name for name in here.keys() & there.keys() if _is_comparable(here[name], there[name], name)]
        return bool(common) and all(
            _is_rounded(here[name].get_tensor(name), there[name].get_tensor(name)) for name in common
        )


def _tensors(files: Iterable[Path], stack: ExitStack) -> dict[str, Any]:
    """The open file in which each tensor is, by the tensor's name."""
    opened = [stack.enter_context(safe_open(file, "pt")) for file in files if file.suffix == ".safetensors"]
    return {name: file for file in opened for name in file.keys()}  # noqa: SIM118, it is no mapping


def _is_comparable(one: Any, other: Any, name: str) -> bool:
    tensors = [file.get_slice(name) for file in (one, other)]
    shapes, kinds = [tensor.get_shape() for tensor in tensors], [tensor.get_dtype() for tensor in tensors]
    return shapes[0] == shapes[1] and all(kind in ("F64", "F32", "F16", "BF16") for kind in kinds)


def _is_rounded(one: torch.Tensor, other: torch.Tensor) -> bool:
    step = max(torch.finfo(tensor.dtype).eps for tensor in (one, other))
    return torch.allclose(one.float(), other.float(), rtol=step, atol=_SMALLEST, equal_nan=True)


# In a repository
# ---------------


def files_in(repo_id: str, token: str | None = None, subfolder: str | None = None) -> dict[str, RepoFile]:
    """The files of a repository, or in its `subfolder`, by their paths there."""
    inside = PurePosixPath(subfolder or "")
    listed = HfApi(token=token).list_repo_tree(repo_id, recursive=True)
    files = [file for file in listed if isinstance(file, RepoFile) and PurePosixPath(file.path).is_relative_to(inside)]
    return {str(PurePosixPath(file.path).relative_to(inside)): file for file in files}


def bring_results(folder: Path, repo_id: str, files: Mapping[str, RepoFile], token: str | None) -> None:
    """Bring what a repository has in `.eval_results` into `folder`, where `write_eval_results` takes away what is ours."""
    for path, file in files.items():
        if path.startswith(f"{EVAL_RESULTS_FOLDER}/") and not (folder / path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(hf_hub_download(repo_id, file.path, token=token), folder / path)


def left_behind(
    folder: Path, components: Iterable[str], repo_id: str, files: Mapping[str, RepoFile], token: str | None
) -> list[str]:
    """Patterns of those of a repository's `files` that go when the bundle in `folder` is uploaded over them.

    As in a folder, with one difference: what is there is not downloaded, so that beside plain weights a variant stays only where
    these are the very same.
    """
    replaced = {*components, ADAPTER_FOLDER, EVAL_RESULTS_FOLDER}
    gone = [path for path in files if path.partition("/")[0] in replaced and not (folder / path).is_file()]
    for place in {path.rpartition("/")[0] for path in gone if is_weights(path)}:
        written = _by_variant(folder / place) if (folder / place / _CONFIG).is_file() else {}
        if written and _stays(folder, place, written, repo_id, files, token):
            kept = {path for path in gone if path.rpartition("/")[0] == place and is_weights(path)}
            gone = [path for path in gone if path not in kept or variant_of(path) in written]
    return [glob.escape(path) for path in gone]


def _stays(
    folder: Path,
    place: str,
    written: Mapping[str, list[Path]],
    repo_id: str,
    files: Mapping[str, RepoFile],
    token: str | None,
) -> bool:
    """Whether weights of other variants than those `written` stay in the folder of a model."""
    if _PLAIN in written:
        return all(_is_file(path, files.get(f"{place}/{path.name}")) for path in written[_PLAIN])
    config = files.get(f"{place}/{_CONFIG}")
    if config is None:
        return False
    there = Path(hf_hub_download(repo_id, config.path, token=token))
    return _class_in(there) == _class_in(folder / place / _CONFIG)


def _is_file(path: Path, there: RepoFile | None) -> bool:
    """Whether a file in a repository has the content of one that is here. Weights and their index lie there in either way."""
    if there is None or there.size != path.stat().st_size:
        return False
    if there.lfs is None:
        return git_hash(path.read_bytes()) == there.blob_id
    with path.open("rb") as file:
        return sha_fileobj(file).hex() == there.lfs.sha256
