"""Make the adapter of a training run ready to share: half the bytes, and its base by the name that others know it by.

    python examples/smollm2/share_adapter.py --adapter runs/smollm2-grpo/adapter --output imageedit-r1-smollm2

The weights are rounded from float32 to bfloat16, as the base has them; of several adapters that went on from one another it is
their mean (a model soup, arXiv 2203.05482). What the base brings along, such as the tokenizer, is left out. `load_planner` reads
the folder, and so does `--planner` on the command line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from diffusers_r1.names import ADAPTER_INDEX
from diffusers_r1.prompts import Prompts
from diffusers_r1.records import write_whole


BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
WEIGHTS = "adapter_model.safetensors"


def main(adapters: list[Path], output: Path, base: str) -> None:
    output.mkdir(parents=True)
    index = json.loads((adapters[0] / ADAPTER_INDEX).read_text(encoding="utf-8"))
    index["base_model_name_or_path"] = base
    parts = [load_file(adapter / WEIGHTS) for adapter in adapters]
    weights = {name: (sum(part[name] for part in parts) / len(parts)).to(torch.bfloat16) for name in parts[0]}
    save_file(weights, output / WEIGHTS, metadata={"format": "pt"})
    Prompts.load(adapters[0]).save(output)
    write_whole(output / ADAPTER_INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")
    print(f"{output}: {(output / WEIGHTS).stat().st_size / 1e6:.1f} MB, an adapter of {base}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--adapter", type=Path, nargs="+", required=True, help="what a run left, with its prompts; or several"
    )
    parser.add_argument("--output", type=Path, required=True, help="the folder to write; must not be there")
    parser.add_argument("--base", default=BASE, help="the base's name (default: %(default)s)")
    args = parser.parse_args()
    main(args.adapter, args.output, args.base)
