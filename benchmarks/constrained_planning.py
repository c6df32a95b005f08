"""Constrained decoding with a planner that has learned nothing: how often the format is right, and what a token costs more.

    python benchmarks/constrained_planning.py

The shipped planner's architecture with random weights, on scenes tasks. Free and constrained planning alternate, a batch
of each at a time; a token of the free way, which mostly runs on to the limit, is compared with one of the constrained way.
Last, the time of the grammar alone for one row's token in a vocabulary of a large model's size.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from report import print_table
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from diffusers_r1.bundles.planners import load_planner
from diffusers_r1.grammar import GrammarProcessor, decomposition_grammar
from diffusers_r1.planners.conversation import Conversation
from diffusers_r1.scenes import TEST_SEEDS, sample_task
from diffusers_r1.tags import read_decomposition, read_sequence


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--batch_size", type=int, default=50)
    parser.add_argument("--max_new_tokens", type=int, default=326)
    parser.add_argument("--vocabulary", type=int, default=150_000)
    args = parser.parse_args()
    trained, processor, prompts = load_planner("imageedit-r1-scenes")
    torch.manual_seed(0)
    planner = Qwen2_5_VLForConditionalGeneration(trained.config).eval()
    planner.generation_config = trained.generation_config

    right = {"free": 0, "constrained": 0}
    milliseconds: dict[str, list[float]] = {name: [] for name in right}
    for start in range(0, args.tasks, args.batch_size):
        tasks = [sample_task(TEST_SEEDS + start + i) for i in range(min(args.batch_size, args.tasks - start))]
        for name in right:
            steps: list[int] = []
            count = planner.register_forward_hook(lambda *_: steps.append(1))  # noqa: B023
            about = [task.image for task in tasks], [task.instruction for task in tasks]
            talk = Conversation(planner, processor, *about, prompts)
            settings = {"max_new_tokens": args.max_new_tokens, "constrained": name == "constrained", "do_sample": True}
            begin = time.perf_counter()
            answers = talk.decompose(**settings), talk.sequence(**settings)
            milliseconds[name].append(1000 * (time.perf_counter() - begin) / len(steps) / len(tasks))
            count.remove()
            right[name] += sum(
                not read_decomposition(a).faults and not read_sequence(b).faults for a, b in zip(*answers)
            )
    print_table(
        [
            {
                "planner": name,
                "n": args.tasks,
                "format right": right[name] / args.tasks,
                "ms a token and row": statistics.median(milliseconds[name]),
                "spread": f"{min(milliseconds[name]):.3f} to {max(milliseconds[name]):.3f}",
            }
            for name in right
        ]
        + [
            {
                "planner": f"the grammar alone, {args.vocabulary} tokens",
                "n": 200,
                "format right": "",
                "ms a token and row": statistics.median(times := grammar_times(args.vocabulary)),
                "spread": f"{min(times):.3f} to {max(times):.3f}",
            }
        ]
    )
    if right["constrained"] != args.tasks:
        raise SystemExit("an answer of the constrained planner has not the format")


def grammar_times(vocabulary: int) -> list[float]:
    """Milliseconds that the grammar adds to each of 200 tokens of one row, random tokens of the allowed ones."""
    letters = sorted(ByteLevel.alphabet())
    generator = torch.Generator().manual_seed(0)
    words = {"<|im_end|>": 0, "<|endoftext|>": 1, **{letter: 2 + place for place, letter in enumerate(letters)}}
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    while len(words) < vocabulary:
        drawn = torch.randint(26, (8,), generator=generator).tolist()
        words.setdefault("Ġ" + "".join(alphabet[place] for place in drawn[: 3 + drawn[0] % 6]), len(words))
    tokenizer = Qwen2Tokenizer(
        vocab=words, merges=[], eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token="<|endoftext|>"
    )
    processor, ids, times = GrammarProcessor(decomposition_grammar(512), tokenizer), torch.zeros(1, 0).long(), []
    processor(ids, torch.zeros(1, vocabulary))  # makes llguidance's tokenizer, once a model
    while len(times) < 200 and 0 not in ids:
        start = time.perf_counter()
        scores = processor(ids, torch.zeros(1, vocabulary))
        times.append(1000 * (time.perf_counter() - start))
        ids = torch.cat([ids, scores.softmax(-1).multinomial(1, generator=generator)], dim=1)
    return times


if __name__ == "__main__":
    main()
