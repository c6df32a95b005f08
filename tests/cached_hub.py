"""A cache of huggingface_hub that holds repositories of several revisions, as if they had been fetched."""

from __future__ import annotations

import shutil
from hashlib import sha1
from pathlib import Path


def keep(cache: Path, name: str, **revisions: Path) -> dict[str, str]:
    """Put folders into the cache as revisions of the repository `name`; returns the commit of each."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    commits = {revision: sha1(f"{name} {revision}".encode()).hexdigest() for revision in revisions}
    for revision, folder in revisions.items():
        shutil.copytree(folder, repository / "snapshots" / commits[revision])
        (repository / "refs" / revision).write_text(commits[revision])
    return commits
