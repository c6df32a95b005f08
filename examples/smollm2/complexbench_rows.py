"""Part ComplexBench-Edit into rows to train on by reward, and rows to measure on.

    python examples/smollm2/complexbench_rows.py --file final_update_v2.json --output_dir data/complexbench

`train.jsonl` has every second row, its three steps joined to one sentence and its edits named as ours are, for
`--dataset_name sentences:...,file=0.6 --dataset_path`. `held_out.json` has the others as they are, for
`diffusers-r1 evaluate --benchmark complexbench-edit=...`. Pictures that occur in both are left out of the training rows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from diffusers_r1.evaluation.planners import read_rows
from diffusers_r1.records import write_whole


def main(file: Path, output_dir: Path) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    lines = content if isinstance(content, list) else [{"id": id, **line} for id, line in content.items()]
    held_out = lines[1::2]
    measured = {line["id"] for line in held_out}
    output_dir.mkdir(parents=True, exist_ok=True)
    write_whole(output_dir / "held_out.json", json.dumps(held_out, indent=1))
    part = output_dir / "train.json"
    write_whole(part, json.dumps([line for line in lines[::2] if line["id"] not in measured], indent=1))
    rows = [
        {"instruction": row.instruction, "edits": [vars(edit) for edit in row.edits]}
        for row in read_rows(f"complexbench-edit={part}")
    ]
    write_whole(output_dir / "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    print(f"{len(rows)} rows to train on, {len(held_out)} to measure on, in {output_dir}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--file", type=Path, required=True, help="ComplexBench-Edit, or a list of its rows")
    parser.add_argument("--output_dir", type=Path, required=True)
    args = parser.parse_args()
    main(args.file, args.output_dir)
