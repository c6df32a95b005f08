"""Part ComplexBench-Edit into rows to train on by reward, and rows to measure on.

    python examples/smollm2/complexbench_rows.py --file final_update_v2.json --output_dir data/complexbench

`train.jsonl` has every second row, its three steps joined to one sentence and its edits named as ours are, for
`--dataset_name sentences:...,file=0.6 --dataset_path`. `held_out.json` has the others as they are, for
`diffusers-r1 evaluate --benchmark complexbench-edit=...`. Pictures that occur in both are left out of the training rows.

With `--beside examples/smollm2/everyday_train_3.jsonl --each 4` the training rows are of two files, both shuffled by `--seed`: four of
that one, from `--skip` on, before each of ComplexBench-Edit, as long as there are enough.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from diffusers_r1.evaluation.planners import read_rows
from diffusers_r1.records import write_whole


def main(file: Path, output_dir: Path, beside: Path | None, skip: int, each: int, seed: int) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    lines = content if isinstance(content, list) else [{"id": id, **line} for id, line in content.items()]
    held_out = lines[1::2]
    measured = {line["id"] for line in held_out}
    left = [line for line in lines[::2] if line["id"] not in measured]
    if not left:
        raise SystemExit(f"{file}: no row is left to train on; each picture is among those to measure on.")
    output_dir.mkdir(parents=True, exist_ok=True)
    write_whole(output_dir / "held_out.json", json.dumps(held_out, indent=1))
    part = output_dir / "train.json"
    write_whole(part, json.dumps(left, indent=1))
    rows = [
        {"instruction": row.instruction, "edits": [vars(edit) for edit in row.edits]}
        for row in read_rows(f"complexbench-edit={part}")
    ]
    if beside is not None:
        others = [json.loads(line) for line in beside.read_text(encoding="utf-8").splitlines()[skip:]]
        rows = mixed([{key: row[key] for key in ("instruction", "edits")} for row in others], rows, each, seed)
    write_whole(output_dir / "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    print(f"{len(rows)} rows to train on, {len(held_out)} to measure on, in {output_dir}")


def mixed(many: list[Any], few: list[Any], each: int, seed: int) -> list[Any]:
    """`each` rows of the first list before one of the second, both shuffled, until one of them ends."""
    draw = random.Random(seed)
    draw.shuffle(many)
    draw.shuffle(few)
    rows = []
    while len(many) >= each and few:
        rows += [*(many.pop() for _ in range(each)), few.pop()]
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--file", type=Path, required=True, help="ComplexBench-Edit, or a list of its rows")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--beside", type=Path, metavar="FILE", help="rows written by hand, to train on as well")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="the first rows of them (default: none)")
    parser.add_argument("--each", type=int, default=1, metavar="N", help="of them before each other row (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of both orders (default: 0)")
    args = parser.parse_args()
    main(args.file, args.output_dir, args.beside, args.skip, args.each, args.seed)
