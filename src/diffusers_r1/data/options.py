"""The options by which a script is told what rows to work on, and the rows that they name."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Literal, cast

from .sources import is_made, load_rows


if TYPE_CHECKING:
    from datasets import Dataset


def add_row_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds the options to the parser, and returns their group for those that are the script's own."""
    rows = parser.add_argument_group("rows")
    rows.add_argument(
        "--dataset_name",
        required=True,
        help="psr, realedit, ultraedit, magicbrush, a Hub name, a folder, scenes, or sentences",
    )
    rows.add_argument("--dataset_path", help="where the data set is, if not at its own place")
    rows.add_argument("--dataset_split", help="the data set's own by default")
    rows.add_argument(
        "--dataset_columns",
        type=columns,
        help="""what the data set calls our columns: '{"instruction": "edit_prompt"}'""",
    )
    rows.add_argument("--dataset_limit", type=positive, help="the most rows; scenes have no end without it")
    rows.add_argument("--dataset_seed", type=int, help="order of the rows; their own by default")
    return rows


def check_row_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program with the parser's error if the options do not go together."""
    if is_made(args.dataset_name) and args.dataset_limit is None:
        parser.error("scenes and sentences have no end: they need --dataset_limit")


def rows_of(args: argparse.Namespace, on_bad_row: Literal["error", "skip", "keep"]) -> Dataset:
    """The rows that the options name; raises as [`load_rows`] does."""
    rows = load_rows(
        args.dataset_name,
        args.dataset_split,
        on_bad_row=on_bad_row,
        limit=args.dataset_limit,
        seed=args.dataset_seed,
        columns=args.dataset_columns,
        path=args.dataset_path,
    )
    return cast("Dataset", rows)  # without an end are only scenes without a limit, which the options refuse


def positive(text: str) -> int:
    """The type of a number that is at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number


def columns(text: str) -> dict[str, str]:
    """The type of `--dataset_columns`."""
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object of names")
    return names
