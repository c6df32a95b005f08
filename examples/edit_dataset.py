"""Edit all rows of a data set, on a laptop or on many machines, with Ray Data.

    python examples/edit_dataset.py --dataset_name scenes --dataset_limit 50 --output_dir runs/edited
    RAY_ADDRESS=auto python examples/edit_dataset.py --dataset_name psr --output_dir /shared/psr-edited \\
        --model org/imageedit-r1-flux --dtype bfloat16 --planners 2 --planner_gpus 0.5 --editors 7 --editor_gpus 1

`output_dir` becomes a data set of its own. Started again with the same folder, the run goes on with the rows that are in no file.
The work is done by `diffusers_r1.many`; see docs/many_pictures.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from diffusers_r1.commands.shared import add_bundle_arguments, add_editor_arguments, add_planner_arguments, seed
from diffusers_r1.data.options import add_row_options, check_row_options, positive, rows_of
from diffusers_r1.many import RowFailed, Settings, edit_data_set, is_ours
from diffusers_r1.plan import TURNS


ROWS = ("dataset_name", "dataset_path", "dataset_split", "dataset_columns", "dataset_seed")
KEPT_APART = (*ROWS, "dataset_limit", "set")  # all other options are fields of `Settings`


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments, checked as far as that goes without a cluster and a model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    add_row_options(parser)
    models = parser.add_argument_group("models")
    add_bundle_arguments(models)
    add_planner_arguments(models)
    models.add_argument(
        "--vllm", metavar="PLANNER", help="plan with vLLM engines of this planner, not the bundle's own"
    )
    models.add_argument(
        "--max_new_tokens", type=positive, default=512, help="of an agent's answer (default: %(default)s)"
    )
    models.add_argument(
        "--turns", choices=TURNS, default="single", help="how plans are carried out (default: %(default)s)"
    )
    models.add_argument(
        "--seed", type=seed, default=0, help="of the noise, with each row's number (default: %(default)s)"
    )
    add_editor_arguments(models)
    workers = parser.add_argument_group("workers")
    workers.add_argument("--planners", type=positive, default=1, help="how many (default: %(default)s)")
    workers.add_argument("--editors", type=positive, default=1, help="how many (default: %(default)s)")
    for kind in ("planner", "editor"):
        workers.add_argument(f"--{kind}_gpus", type=share, help="GPUs for each (default: 0.5; 0 if there are none)")
    workers.add_argument("--planner_batch_size", type=positive, default=8, help="rows at once (default: %(default)s)")
    workers.add_argument(
        "--editor_batch_size", type=positive, default=4, help="pictures at once (default: %(default)s)"
    )
    kept = parser.add_argument_group("result")
    kept.add_argument("--output_dir", type=Path, required=True, help="new, or of a run that is gone on with")
    kept.add_argument(
        "--shard_size", type=positive, default=32, help="rows of a file, and the most that a dead worker costs"
    )
    kept.add_argument("--retry_failed", action="store_true", help="try the rows again that failed before")
    args = parser.parse_args(argv)

    check_row_options(parser, args)
    if args.output_dir.exists() and not is_ours(args.output_dir):
        parser.error(f"--output_dir: {args.output_dir} is there and holds something else")
    return args


def share(text: str) -> float:
    """The type of a number of GPUs: a part of one, or whole ones."""
    number = float(text)
    if number < 0 or (number > 1 and not number.is_integer()):
        raise argparse.ArgumentTypeError(f"{text} is neither a part of a GPU nor a whole number of them")
    return number


def settings_of(args: argparse.Namespace) -> Settings:
    options = {name: value for name, value in vars(args).items() if name not in KEPT_APART}
    options["output_dir"] = args.output_dir.absolute()  # workers run in folders of their own
    return Settings(rows={name: getattr(args, name) for name in ROWS}, editor_arguments=dict(args.set), **options)


def main() -> int:
    args = parse_args()
    # What is done is on the disk, as after a kill; Ray's processes end with this one, while its farewell takes long.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        done = edit_data_set(rows_of(args, on_bad_row="keep"), settings_of(args))
    except (OSError, ValueError, RuntimeError, RowFailed) as error:
        sys.exit(f"{Path(__file__).name}: error: {' '.join(str(error).split())}")
    rows = done.edited + done.failed + done.missing
    print(f"{args.output_dir}: of {rows} rows, {done.edited} are edited and {done.failed} have failed.")
    if done.failed:
        common = "; ".join(f"{error} ({count})" for error, count in done.errors.most_common(3))
        print(f"Errors: {common}. See {args.output_dir / 'failed.jsonl'}.")
    if done.missing:
        print(f"Without a result: {done.missing}. Start again to go on with them.")
    return int(done.missing > 0 or done.edited == 0)


if __name__ == "__main__":
    sys.exit(main())
