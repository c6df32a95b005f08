"""Put trained parts together as the shipped bundle, in half precision.

    python examples/scenes/build_bundle.py --editor runs/scenes-editor/pipeline \\
        --planner runs/scenes-grpo-2 --supervised_planner runs/scenes-planner/literal-0.6 \\
        --sequencer runs/scenes-planner/literal-0

Writes `imageedit-r1-scenes` (the whole pipeline) into the package; with `--supervised_planner` also that planner alone,
as `imageedit-r1-scenes-sft`. GRPO trains the first question only and spoils the second, so a planner trained by it goes with
a sequencer of its own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import StableDiffusionInstructPix2PixPipeline

from diffusers_r1 import ImageEditR1Pipeline, bundles
from diffusers_r1.bundles.cards import TRAINING_KEY
from diffusers_r1.bundles.planners import load_planner, save_planner
from diffusers_r1.records import write_whole


SHIPPED = Path(bundles.__file__).parent
TRAINING = {"data": "scenes, made from seeds", "scripts": "examples/scenes", "license": "apache-2.0"}
EDITOR_DEFAULTS = {"num_inference_steps": 1, "guidance_scale": 1.0, "image_guidance_scale": 1.0}


def forget_local_paths(folder: Path) -> None:
    """Take out of the configs where on this machine the parts were loaded from."""
    for path in folder.rglob("*.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.pop("_name_or_path", None):
            write_whole(path, json.dumps(config, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--planner", type=Path, required=True)
    parser.add_argument("--supervised_planner", type=Path)
    parser.add_argument("--sequencer", type=Path, help="answers the second question; left out, the planner does")
    parser.add_argument("--editor", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, default=SHIPPED)
    args = parser.parse_args()

    planner, processor, prompts = load_planner(args.planner, dtype=torch.float16)
    recorded = getattr(planner.config, TRAINING_KEY, None) or {}
    start = {"start": "imageedit-r1-scenes-sft"} if args.supervised_planner else {}
    setattr(planner.config, TRAINING_KEY, {**recorded, **start, **TRAINING})
    editor = StableDiffusionInstructPix2PixPipeline.from_pretrained(args.editor, dtype=torch.float16)
    pipeline = ImageEditR1Pipeline(planner, processor, editor, prompts=prompts, editor_defaults=EDITOR_DEFAULTS)
    if args.sequencer:
        sequencer, sequencer_processor, _ = load_planner(args.sequencer, dtype=torch.float16)
        pipeline.register_modules(sequencer=sequencer, sequencer_processor=sequencer_processor)
    pipeline.save_pretrained(args.output_dir / "imageedit-r1-scenes")
    forget_local_paths(args.output_dir / "imageedit-r1-scenes")
    if args.supervised_planner:
        planner, processor, prompts = load_planner(args.supervised_planner, dtype=torch.float16)
        setattr(planner.config, TRAINING_KEY, {"method": "supervised", **TRAINING})
        save_planner(args.output_dir / "imageedit-r1-scenes-sft", planner, processor, prompts)
        forget_local_paths(args.output_dir / "imageedit-r1-scenes-sft")
    size = sum(file.stat().st_size for file in args.output_dir.rglob("*") if file.is_file())
    print(f"{args.output_dir}: {size / 1e6:.1f} MB in all")


if __name__ == "__main__":
    main()
