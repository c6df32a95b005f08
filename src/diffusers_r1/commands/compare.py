"""Print what the second run of `evaluate` gains over the first, sample by sample, as a Markdown table."""

from __future__ import annotations

import argparse
from pathlib import Path

from .shared import checking


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs=2, type=Path, metavar="FOLDER", help="that --output_dir of evaluate was")


def run(args: argparse.Namespace) -> None:
    from ..evaluation import compare

    with checking():
        print(compare(*args.runs))
