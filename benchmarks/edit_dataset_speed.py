"""Pictures a second of `edit_dataset.py` with one editor worker and with several, as a ratio within one run.

    python benchmarks/edit_dataset_speed.py               # the editor class's own number of steps, 100
    python benchmarks/edit_dataset_speed.py --steps 20    # planning takes a larger part

Counted from when each worker has made a first file to the last file, so that starting Ray and loading models is left out.
Workers compute on one thread each; the numbers alternate. What bounds the ratio is that planner and driver need a part of
the same cores: the fewer steps a picture takes, the larger theirs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from report import print_table

from diffusers_r1 import records


SCRIPT = Path(__file__).parents[1] / "examples" / "edit_dataset.py"
CLOCK_TICK = 0.01  # seconds: two files made within one may bear the same time


def pictures_a_second(editors: int, rows: int, shard_size: int, steps: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        output_dir = Path(folder) / "edited"
        options = ["--dataset_name", "scenes:chained=1", "--dataset_limit", rows, "--shard_size", shard_size]
        options += ["--editors", editors, "--set", f"num_inference_steps={steps}", "--output_dir", output_dir]
        # Ray's workers would make way for everything else that runs on the machine.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
        subprocess.run([sys.executable, SCRIPT, *map(str, options)], check=True, env=environment)
        listed = records.read(output_dir / "files.jsonl")
        if sum(len(line["rows"]) for line in listed) != rows:
            raise SystemExit(f"{rows} rows went in, and {listed} came out.")
        times = sorted((output_dir / "data" / line["file"]).stat().st_mtime for line in listed)
        # From when each editor has made its first file: the shards before that began with loading models.
        return (rows - editors * shard_size) / max(times[-1] - times[editors - 1], CLOCK_TICK)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--editors", type=int, default=2)
    parser.add_argument("--rows", type=int, default=144)
    parser.add_argument("--shard_size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100, help="of the editor, for each picture")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    paces: dict[int, list[float]] = {1: [], args.editors: []}
    for _ in range(args.rounds):
        for editors, measured in paces.items():
            measured.append(pictures_a_second(editors, args.rows, args.shard_size, args.steps))
    print_table(
        [
            {
                "steps": args.steps,
                "editors": editors,
                "runs": args.rounds,
                "median pictures a second": statistics.median(measured),
                "spread": f"{min(measured):.2f} to {max(measured):.2f}",
                "ratio": statistics.median(measured) / statistics.median(paces[1]),
            }
            for editors, measured in paces.items()
        ]
    )


if __name__ == "__main__":
    main()
