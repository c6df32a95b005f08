"""What to type to install more of this package, and to run it: it may be on no index, and in an environment of its own.

Whatever message names an install line takes it from here.
"""

from __future__ import annotations

import json
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname


NAME = "diffusers-r1"


def install_line(extra: str) -> str:
    """The command that adds an extra to the environment of this process, from where the package itself came from.

    Args:
        extra (`str`): One of those in `setup.py`, such as `"app"`.

    Example:
        >>> install_line("app")  # doctest: +SKIP
        '/home/ann/diffusers-r1/.venv/bin/python -m pip install -e "/home/ann/diffusers-r1[app]"'
    """
    # `uv` makes environments without pip, and installs into them from outside.
    installer = "{} -m pip install" if find_spec("pip") else "uv pip install --python {}"
    return f"{installer.format(_quoted(sys.executable))} {_source(extra)}"


def program() -> str:
    """What starts the command line: its name where the shell finds this very one, or else its path."""
    here = Path(sys.executable).with_name(NAME)
    found = shutil.which(NAME)
    if found is not None and Path(found).resolve() == here.resolve():
        return NAME
    return _quoted(str(here)) if here.exists() else f"{_quoted(sys.executable)} -m diffusers_r1"


def _source(extra: str) -> str:
    """What pip is given. How a package was installed stands in its `direct_url.json` (PEP 610); of an index there is none."""
    try:
        metadata = distribution(NAME)
    except PackageNotFoundError:  # run from a folder of sources, as by PYTHONPATH
        root = Path(__file__).parents[2]
        return f'-e "{root}[{extra}]"' if (root / "setup.py").exists() else f'"{NAME}[{extra}]"'
    installed = metadata.read_text("direct_url.json")  # in UTF-8, always
    if installed is None:
        return f'"{NAME}[{extra}]"'
    origin = json.loads(installed)
    if "dir_info" in origin:
        folder = url2pathname(urlsplit(origin["url"]).path)
        return f'{"-e " if origin["dir_info"].get("editable") else ""}"{folder}[{extra}]"'
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        return f'"{NAME}[{extra}] @ {vcs["vcs"]}+{origin["url"]}@{vcs["commit_id"]}"'
    return f'"{NAME}[{extra}] @ {origin["url"]}"'


def _quoted(path: str) -> str:
    return f'"{path}"' if " " in path else path
