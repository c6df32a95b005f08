"""How long the recipes for Qwen2.5-VL take and what that costs: computed from counted work, not measured.

    python benchmarks/training_time.py --teraflops 989 --price 3.0

Counted: a token that is trained on takes 6 operations a parameter, 8 with gradient checkpointing, which computes forwards
twice; a token that is only read takes 2. A picture is read once for all completions of its prompt. Assumed, each by an option:
the card's dense bfloat16 operations a second (by default an H100 SXM's), the share of them that a run gets, the seconds that
transformers' `generate` takes for one token of a whole batch (vLLM takes less), and what an hour of the card costs. Loading,
validation and saving are not in it.
"""

from __future__ import annotations

import argparse

from report import print_table
from training_memory import MODELS, build


PICTURE, INSTRUCTION, ANSWER = 484, 200, 150  # tokens: a picture of 616 x 616, the prompt's words, a mean answer
GRPO_STEPS, PROMPTS, COMPLETIONS = 500, 8, 8  # as in examples/recipes/qwen2_5_vl_*.yaml
SFT_ROWS = 10_000
LONGEST = 2 * ANSWER  # a batch is done when its longest answer is


def sft_work(parameters: float) -> float:
    """Operations of one pass over the rows."""
    return 8 * parameters * SFT_ROWS * (PICTURE + INSTRUCTION + ANSWER)


def grpo_work(parameters: float, reference: bool) -> float:
    """Operations of all updates: packed rows trained on, and read once more by a reference model where there is one."""
    packed = PROMPTS * (PICTURE + INSTRUCTION + COMPLETIONS * ANSWER)
    return GRPO_STEPS * packed * parameters * (8 + 2 * reference)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--teraflops", type=float, default=989, help="of the card, dense bfloat16 (default: %(default)s)"
    )
    parser.add_argument(
        "--utilization", type=float, default=0.3, help="share of the operations (default: %(default)s)"
    )
    parser.add_argument("--token_seconds", type=float, default=0.03, help="in generation (default: %(default)s)")
    parser.add_argument("--price", type=float, default=3.0, help="of one card for an hour (default: %(default)s)")
    args = parser.parse_args()
    operations = args.teraflops * 1e12 * args.utilization
    generation = GRPO_STEPS * LONGEST * args.token_seconds
    rows = []
    for name in MODELS:
        parameters = sum(weight.numel() for weight in build(name).parameters())
        for what, hours in {
            f"supervised, {SFT_ROWS:,} rows once": sft_work(parameters) / operations / 3600,
            f"GRPO, {GRPO_STEPS} steps of {PROMPTS * COMPLETIONS}": (
                grpo_work(parameters, reference=True) / operations + generation
            )
            / 3600,
        }.items():
            cost = f"{hours * args.price:.0f}"
            rows.append({"planner": name, "run": what, "hours of one card": f"{hours:.1f}", "price": cost})
    print_table(rows)


if __name__ == "__main__":
    main()
