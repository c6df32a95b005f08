"""Have a teacher write down the edits that the instructions of a data set mean, so that a planner can be trained on it.

    python examples/annotate_plans.py --dataset_name psr --output_dir data/psr \
        --base_url https://api.openai.com/v1 --model gpt-4o --concurrency 16
    python examples/annotate_plans.py --dataset_name psr --output_dir data/psr \
        --planner Qwen/Qwen2.5-VL-32B-Instruct --batch_size 8

No public data set says which actions, subjects and goals an instruction means. The teacher is shown each picture with its
instruction, in the words that planners are asked in, and answers in the format that they answer in. It is a model behind
an OpenAI-compatible address (its key, if it needs one, in OPENAI_API_KEY), or one that is loaded here. Azure's address has its
version: `--base_url "https://NAME.openai.azure.com/openai/deployments/MODEL?api-version=2024-10-21"`.

`output_dir` becomes a data set of its own, `--dataset_name output_dir` to the training scripts: `pictures/`, and
`metadata.jsonl` with a line for each row. An answer that cannot be read is asked for again, sampled, `--attempts` times in
all; a row without any that can, or that the server refuses for good, goes to `failed.jsonl`. Every row is on the disk once it is answered: started again with the
same folder, the run goes on where it stopped. See docs/annotate.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from PIL import Image
from tqdm import tqdm

from diffusers_r1 import records, schema
from diffusers_r1.data.options import add_row_options, check_row_options, positive, rows_of
from diffusers_r1.data.rows import fit
from diffusers_r1.data.sources import edit_columns
from diffusers_r1.endpoints import KEY, Endpoint, EndpointError, check_address, map_concurrently
from diffusers_r1.images import load_picture, to_png
from diffusers_r1.names import is_address
from diffusers_r1.plan import Fault, FaultKind
from diffusers_r1.prompts import FILE_NAME, Prompts
from diffusers_r1.tags import REASONING, read_decomposition, writable


if TYPE_CHECKING:
    from datasets import Dataset


METADATA, FAILED, PICTURES = "metadata.jsonl", "failed.jsonl", "pictures"
REFERENCES = "references_file_names"  # which `datasets` reads as a column `references`, of lists of pictures
REPEAT_TEMPERATURE = 1.0
MAX_RETRIES = 10
TIMEOUT = 600  # seconds; behind the queue of a busy server an answer takes minutes
CUT, FILTERED, DECLINED, REFUSED = (
    "cut at --max_new_tokens",
    "filtered",
    "declined by the model",
    "refused by the server",
)
ENDINGS = {"length": CUT, "content_filter": FILTERED}  # of an answer, by its `finish_reason`

# Without it, `datasets` takes a folder of one picture and failed.jsonl for a data set of JSON files.
CARD = f"""\
---
configs:
- config_name: default
  data_files:
  - {METADATA}
  - {PICTURES}/*.png
---

Pictures, editing instructions, and the edits that these mean: written by a teacher, whose name is each row's `model` and
whose own words are its `raw`, with `examples/annotate_plans.py` of diffusers-r1.
"""


@dataclass(frozen=True)
class Question:
    """What the teacher is asked about; `index` is the row's place in the data set as it was loaded.

    `references` are the further pictures that belong to the row's; `None` where the data set has no such column.
    """

    index: int
    image: Image.Image
    instruction: str
    references: tuple[Image.Image, ...] | None = None


@dataclass(frozen=True)
class TeacherAnswer:
    """What the teacher said to a row once; `refusal` is in its own words, where it declines."""

    text: str
    model: str
    finish_reason: str = ""
    refusal: str = ""

    @property
    def faults(self) -> list[Fault]:
        """What is wrong with its format.

        That the reasoning is missing is none: servers of models that reason take it out of the answer.
        """
        missing = Fault(FaultKind.MISSING_TAG, REASONING)
        return [fault for fault in read_decomposition(self.text).faults if fault != missing]

    @property
    def is_truth(self) -> bool:
        """Whether it becomes a row's truth: it has the format, and no refusal beside it."""
        return not self.faults and not self.refusal

    @property
    def ending(self) -> str:
        """How it ended, where that is why it is no truth."""
        return "" if self.is_truth else DECLINED if self.refusal else ENDINGS.get(self.finish_reason, "")


Answers = tuple[TeacherAnswer, ...]  # to one row, in order: the last one counts


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments, checked as far as that goes without a network and a model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    data = add_row_options(parser)
    data.add_argument("--on_bad_row", choices=("error", "skip"), default="error")
    data.add_argument(
        "--image_size", type=positive, help="pixels a side that all pictures are fitted to; as they are by default"
    )
    teacher = parser.add_argument_group("teacher")
    which = teacher.add_mutually_exclusive_group(required=True)
    which.add_argument("--base_url", help=f"of an OpenAI-compatible server; the key is read from {KEY}")
    which.add_argument("--planner", help="a Hub name, a folder or a shipped planner, loaded here")
    teacher.add_argument("--model", help="with --base_url: the model's name there")
    teacher.add_argument("--concurrency", type=positive, help="with --base_url: requests at once (default: 8)")
    teacher.add_argument("--batch_size", type=positive, help="with --planner: rows at once (default: 8)")
    teacher.add_argument(
        "--prompts", type=Path, help=f"folder with the {FILE_NAME} to ask in; the planner's own by default"
    )
    teacher.add_argument("--max_new_tokens", type=positive, default=1024, help="of an answer (default: %(default)s)")
    teacher.add_argument(
        "--attempts", type=positive, default=3, help="answers to a row, the first one greedy (default: %(default)s)"
    )
    kept = parser.add_argument_group("result")
    kept.add_argument("--output_dir", type=Path, required=True, help="new, or of a run that is gone on with")
    kept.add_argument("--retry_failed", action="store_true", help="ask again about the rows that failed before")
    args = parser.parse_args(argv)

    remote, local = ("model", "concurrency"), ("batch_size",)
    for name in local if args.base_url else remote:
        if getattr(args, name) is not None:
            parser.error(f"--{name} goes with {'--planner' if args.base_url else '--base_url'}")
    if args.base_url:
        try:
            check_address(args.base_url)
        except ValueError as error:
            parser.error(f"--base_url: {error}")
    elif is_address(args.planner):
        parser.error("--planner is loaded here; a teacher behind an address is --base_url and --model")
    if args.base_url and not args.model:
        parser.error("--base_url needs the --model to ask there")
    if args.prompts:
        if not (args.prompts / FILE_NAME).is_file():
            parser.error(f"--prompts: there is no {args.prompts / FILE_NAME}")
        try:
            Prompts.load(args.prompts)
        except ValueError as error:
            parser.error(f"--prompts: {error}")
    check_row_options(parser, args)
    if args.output_dir.exists() and not is_ours(args.output_dir):
        parser.error(f"--output_dir: {args.output_dir} is there and holds something else")
    args.concurrency = args.concurrency or 8
    args.batch_size = args.batch_size or 8
    return args


def is_ours(folder: Path) -> bool:
    """Whether a folder is empty or holds what this script has written: appending to another data set would spoil it."""
    if not folder.is_dir():
        return False
    there = {path.name for path in folder.iterdir()} - {records.LOCK}
    return not there or (PICTURES in there and all("row" in line for line in records.read(folder / METADATA)))


def load_dataset(args: argparse.Namespace) -> Dataset:
    try:
        rows = rows_of(args, args.on_bad_row)
    except (OSError, ValueError) as error:
        stop(error)
    if "image" not in rows.column_names:
        stop(f"{args.dataset_name} has no pictures, and a teacher is shown them.")
    return rows


def kept_rows(folder: Path, dataset: Dataset) -> tuple[set[int], set[int]]:
    """The indices of the rows that are annotated, and of those that have failed and are not.

    Only the place of a row names it, so a folder that was begun with other rows, or in another order, is refused.
    """
    instructions = dataset["instruction"][:]
    kept = {name: records.read(folder / name) for name in (METADATA, FAILED)}
    for name, lines in kept.items():
        for line in lines:
            if line["row"] < len(instructions) and line["instruction"] != instructions[line["row"]]:
                stop(
                    f"row {line['row']} is {instructions[line['row']]!r} here and {line['instruction']!r} in "
                    f"{folder / name}: take the same rows in the same order, or another --output_dir."
                )
    annotated, failed = ({line["row"] for line in lines if line["row"] < len(instructions)} for lines in kept.values())
    return annotated, failed - annotated


def read_rows(dataset: Dataset, indices: Sequence[int], image_size: int | None) -> Iterator[Question]:
    """The rows at these places, read one after the other as they are asked for."""

    def shown(picture: Any) -> Image.Image:
        opened = load_picture(picture)
        return opened if image_size is None else fit(opened, image_size)

    for index in indices:
        cells = dataset[index]
        references = tuple(map(shown, cells["references"] or [])) if "references" in cells else None
        yield Question(index, shown(cells["image"]), cells["instruction"], references)


def ask_endpoint(rows: Iterator[Question], args: argparse.Namespace) -> Iterator[tuple[Question, Answers | Exception]]:
    """Each row with what the server's model answered, or why it did not, in the order in which they finish."""
    prompts = Prompts.load(args.prompts) if args.prompts else Prompts()
    endpoint = Endpoint(args.base_url, args.model, max_retries=MAX_RETRIES, timeout=TIMEOUT)

    def ask(row: Question) -> Answers:
        answers: list[TeacherAnswer] = []
        while not answers or (not answers[-1].is_truth and len(answers) < args.attempts):
            (said,) = endpoint.chat(
                prompts.first_turn(row.instruction, row.image, row.references or ()),
                max_tokens=args.max_new_tokens,
                temperature=REPEAT_TEMPERATURE if answers else 0,
            )
            text = writable(said.with_reasoning())
            answers.append(TeacherAnswer(text, said.model, said.finish_reason, writable(said.refusal)))
        return tuple(answers)

    yield from map_concurrently(ask, rows, args.concurrency)


def ask_planner(rows: Iterator[Question], args: argparse.Namespace) -> Iterator[tuple[Question, Answers]]:
    """Each row with what a planner loaded here answered, batch after batch."""
    # Here, so that asking a server needs no torch and begins at once.
    import torch
    from diffusers.utils.torch_utils import get_device

    from diffusers_r1.bundles.planners import load_planner

    device = get_device()
    try:
        # On a processor, half precision is slower than single.
        model, processor, prompts = load_planner(args.planner, dtype=torch.float32 if device == "cpu" else "auto")
    except (OSError, ValueError) as error:
        stop(error)
    if not hasattr(processor, "image_processor"):
        stop(f"{args.planner} does not see pictures.")
    model.to(device)
    prompts = Prompts.load(args.prompts) if args.prompts else prompts
    while batch := list(islice(rows, args.batch_size)):
        answers = ask_batch(model, processor, prompts, batch, args)
        yield from zip(batch, answers)


def ask_batch(
    model: Any, processor: Any, prompts: Prompts, batch: list[Question], args: argparse.Namespace
) -> list[Answers]:
    """Each row's answers: a greedy one, then sampled ones until one can be read, at most `attempts` in all."""
    from diffusers_r1.planners.conversation import Conversation
    from diffusers_r1.random_state import seeded

    answers: dict[int, list[TeacherAnswer]] = {row.index: [] for row in batch}
    waiting, sampling = batch, {}
    with seeded(batch[0].index):
        for _ in range(args.attempts):
            images, instructions = [row.image for row in waiting], [row.instruction for row in waiting]
            references = [row.references or () for row in waiting]
            conversation = Conversation(model, processor, images, instructions, prompts, references=references)
            for row, text in zip(waiting, conversation.decompose(args.max_new_tokens, **sampling)):
                answers[row.index].append(TeacherAnswer(writable(text), args.planner))
            waiting = [row for row in waiting if not answers[row.index][-1].is_truth]
            sampling = {"do_sample": True, "temperature": REPEAT_TEMPERATURE}
            if not waiting:
                break
    return [tuple(said) for said in answers.values()]


def record(folder: Path, row: Question, answers: Answers) -> bool:
    """Write the row down, and say whether it is annotated or has failed."""
    last = answers[-1]
    if not last.is_truth:
        line = {"row": row.index, "instruction": row.instruction, "model": last.model}
        line["raw"] = [answer.text for answer in answers]
        line["faults"] = [list(map(asdict, answer.faults)) for answer in answers]
        line["endings"] = [answer.ending for answer in answers]
        line["finish_reasons"] = [answer.finish_reason for answer in answers]
        line["refusals"] = [answer.refusal for answer in answers if answer.refusal]
        records.append(folder / FAILED, line)
        return False
    found = read_decomposition(last.text)
    name = f"{PICTURES}/{row.index:06d}.png"
    others = {f"{PICTURES}/{row.index:06d}-{place}.png": one for place, one in enumerate(row.references or (), 2)}
    # The pictures first: a line is the promise that they are there.
    for place, picture in {name: row.image, **others}.items():
        records.write_whole(folder / place, to_png(picture))
    line = {
        "file_name": name,
        **({} if row.references is None else {REFERENCES: list(others)}),
        "instruction": row.instruction,
        **edit_columns(found.edits),
        "reasoning": found.reasoning or None,
        "raw": last.text,
        "model": last.model,
        "finish_reason": last.finish_reason or None,
        "row": row.index,
    }
    records.append(folder / METADATA, line)
    return True


def record_refusal(folder: Path, row: Question, error: EndpointError, model: str) -> None:
    """Write down that the server refuses the row for good: it is not asked about at the next start."""
    line = {"row": row.index, "instruction": row.instruction, "model": model}
    why = {"raw": [], "faults": [], "endings": [REFUSED], "error": writable(str(error))}
    records.append(folder / FAILED, {**line, **why})


def annotate(dataset: Dataset, left: list[int], args: argparse.Namespace) -> int:
    """Ask about the rows that are left, keep what comes, and return how many got no answer at all."""
    rows = read_rows(dataset, left, args.image_size)
    teacher = ask_endpoint(rows, args) if args.base_url else ask_planner(rows, args)
    unanswered = failed = 0
    with tqdm(total=len(dataset), initial=len(dataset) - len(left), unit="row") as bar:
        try:
            for row, answers in records.patiently(teacher):
                if isinstance(answers, tuple):
                    failed += not record(args.output_dir, row, answers)
                elif answers.kind is records.Failure.REFUSED:
                    failed += 1
                    record_refusal(args.output_dir, row, answers, args.model)
                else:
                    unanswered += 1
                    bar.write(f"Row {row.index} got no answer: {answers}", file=sys.stderr)
                bar.set_postfix(failed=failed, unanswered=unanswered, refresh=False)
                bar.update()
        except EndpointError as error:
            bar.close()
            stop(error)
    return unanswered


def report(folder: Path, dataset: Dataset, unanswered: int) -> int:
    """Print how many rows are annotated, how many are not, and what the teacher got wrong; return the exit code."""
    annotated, failed = kept_rows(folder, dataset)
    print(f"{folder}: of {len(dataset)} rows, {len(annotated)} are annotated and {len(failed)} have failed.")
    if failed:
        last = {line["row"]: line for line in records.read(folder / FAILED)}
        endings = Counter(last[index]["endings"][-1] for index in failed)
        answers = [answer for index in failed for answer in last[index]["faults"][-1:]]
        faults = [schema.read(tuple[Fault, ...], answer, str(folder / FAILED)) for answer in answers]
        # Each kind counts once a row, and what is lost is told apart by its tag, not by its text.
        common = Counter(word for each in faults for word in dict.fromkeys(map(str, each))).most_common(3)
        # How answers ended first: it is not what they say that was wrong then.
        named = [*((ending, count) for ending, count in endings.most_common() if ending), *common]
        print(f"Faults: {', '.join(f'{fault} ({count})' for fault, count in named)}. See {folder / FAILED}.")
    if unanswered:
        print(f"Without an answer: {unanswered}. Start again to ask about them.")
    return int(unanswered > 0 or not annotated)


def stop(reason: Any) -> NoReturn:
    """End with one line that says why."""
    sys.exit(f"{Path(__file__).name}: error: {' '.join(str(reason).split())}")


def main() -> int:
    args = parse_args()
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # at once: what is done is on the disk, as after a kill
    dataset = load_dataset(args)
    (args.output_dir / PICTURES).mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(records.only_one_in(args.output_dir))
        except BlockingIOError as error:
            stop(error)
        return annotate_what_is_left(dataset, args)


def annotate_what_is_left(dataset: Dataset, args: argparse.Namespace) -> int:
    if not (args.output_dir / "README.md").exists():
        records.write_whole(args.output_dir / "README.md", CARD)
    annotated, failed = kept_rows(args.output_dir, dataset)
    skipped = annotated if args.retry_failed else annotated | failed
    left = [index for index in range(len(dataset)) if index not in skipped]
    unanswered = annotate(dataset, left, args) if left else 0
    return report(args.output_dir, dataset, unanswered)


if __name__ == "__main__":
    sys.exit(main())
