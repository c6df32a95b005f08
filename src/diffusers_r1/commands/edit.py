"""Edit a picture, or all pictures of a folder or a table, and print the paths of the results. Progress is shown on stderr."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, get_args

from PIL import Image

from .. import schema
from ..images import Metadata, check_format, check_writable, load_with_metadata, picture_sizes, write_picture
from ..pipelines.checks import check_count, check_generation, check_texts
from ..plan import EditPlan, Turns
from .progress import Progress, add_log_arguments, follow, stoppable
from .shared import (
    NO_PLANNER,
    UsageError,
    add_critic_arguments,
    add_editor_arguments,
    add_model_arguments,
    check_set,
    checking,
    find_looks,
    load_pipeline,
    seed,
    with_turns,
)


if TYPE_CHECKING:
    from ..many.files import Edited, FileRow

OUTPUT = Path("edited.png")
INTERRUPTED = 130
TABLES = (".csv", ".jsonl")

# What the results of many pictures depend on, and a second run has to have alike.
IDENTITY = ("image", "instruction", "model", "planner", "planner_model", "planner_base", "editor", "editor_model")
IDENTITY += ("dtype", "quantize", "turns", "seed", "max_new_tokens", "set")
IDENTITY += ("reflect", "critic_url", "critic_model")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "image",
        metavar="IMAGE",
        help="path or URL of the picture; or a folder of pictures, or a .csv or .jsonl of files and instructions",
    )
    parser.add_argument(
        "instruction", metavar="INSTRUCTION", nargs="?", help="what to do, in quotes; left out with --plan, or a table"
    )
    parser.add_argument("--plan", metavar="FILE", help="carry out this plan (JSON; - reads stdin), without planning")
    parser.add_argument(
        "--output",
        metavar="PATH",
        type=Path,
        help=f"the result, replaced if there (default: {OUTPUT}); of many pictures the folder of the results",
    )
    parser.add_argument(
        "--turns",
        choices=get_args(Turns),
        default="single",
        help="all sub-requests at once (default), one by one, as many at once as the editor reads, or each guiding apart",
    )
    parser.add_argument("--seed", type=seed, metavar="N", help="the same seed gives the same picture")
    parser.add_argument(
        "--num_images_per_prompt",
        type=int,
        default=1,
        metavar="N",
        help="more than one are numbered: edited-1.png, ...",
    )
    parser.add_argument("--max_new_tokens", type=int, default=512, metavar="N", help="of each agent's answer")
    parser.add_argument(
        "--retry_failed",
        action="store_true",
        help="of many pictures: those again that were refused, or at which a model raised",
    )
    parser.add_argument(
        "--reflect",
        type=int,
        default=0,
        metavar="N",
        help="let a critic look at the result, and ask again for what is missing, at most N times (default: %(default)s)",
    )
    add_critic_arguments(parser)
    add_editor_arguments(parser)
    add_model_arguments(parser, unplanned=True)
    add_log_arguments(parser)


def run(args: argparse.Namespace) -> int:
    source = Path(args.image)
    if source.is_dir() or (source.suffix.lower() in TABLES and source.is_file()):
        return edit_many(args, source)
    return edit_one(args)


def edit_one(args: argparse.Namespace) -> int:
    # 1. Everything that can be refused before a model is loaded
    if (args.instruction is None) == (args.plan is None):
        raise UsageError("give either INSTRUCTION or --plan FILE")
    output = args.output or OUTPUT
    with checking():
        _check_output(output, args.num_images_per_prompt)
        picture, metadata = load_with_metadata(args.image)
        _check_output(output, args.num_images_per_prompt, picture.size)
        _check_numbers_and_words(args)
        plan = _plan_of(args, args.instruction)
    looks = find_looks(args)
    progress = Progress(args.quiet, args.turns, args.num_images_per_prompt)

    # 2. Load, and check against what was loaded
    with redirect_stdout(sys.stderr):
        pipe = load_pipeline(args, planning=plan is None, sizes=[picture.size])
        pipe = with_turns(pipe) if looks else pipe
        told = follow(pipe, progress)
        with checking():
            checked: Any = pipe.check_inputs(**{**told, **looks, **_call(pipe, args, picture, args.instruction, plan)})

        # 3. Edit
        progress.begin(planned=plan is not None)
        with stoppable(pipe, progress):
            out: Any = pipe.run_checked(checked)

    # 4. Write
    for path, image, turns in zip(_paths(output, len(out.images)), out.images, out.turns, strict=True):
        whole = [turn for turn in turns if not turn.interrupted]
        if not whole:  # as of a picture that a server was not asked for before Ctrl-C
            continue
        _write(path, image, metadata)
        print(path)
        if not out.interrupted:
            continue
        if turns[-1].look:
            progress.say("Stopped while it was edited again: the picture is the best until then.")
        else:
            done, asked = sum(len(turn.requests) for turn in whole), len(out.plans[0].requests)
            progress.say(f"Stopped: {path} has the first {done} of {asked} sub-requests.")
    return INTERRUPTED if out.interrupted else 0


def edit_many(args: argparse.Namespace, source: Path) -> int:
    from ..many.files import edit_files, rows_of_folder, rows_of_table
    from ..pipelines.remote import RemotePipeline

    # 1. Everything that can be refused before a model is loaded
    what = "a folder" if source.is_dir() else "a table"
    if args.output is None:
        said = "" if args.instruction or not source.is_dir() else ' "what to do with each picture"'
        raise UsageError(
            f"{source} is {what}: diffusers-r1 edit {quote(str(source))}{said} --output FOLDER, which is made if not there"
        )
    if args.num_images_per_prompt != 1:
        raise UsageError(f"of {what} one result is made of each picture; leave out --num_images_per_prompt")
    if source.is_dir() and (args.instruction is None) == (args.plan is None):
        raise UsageError(f'{source} is a folder: say what to do with each picture, "in quotes", or give --plan FILE')
    if not source.is_dir() and args.instruction is not None:
        raise UsageError(f"{source} has an instruction for each picture; leave out INSTRUCTION")
    with checking():
        _check_numbers_and_words(args)
        plan = None if args.plan is None else read_plan(args.plan)
        if source.is_dir():
            rows = rows_of_folder(source, args.instruction or "", args.output)
        else:
            rows = rows_of_table(source, planned=plan is not None)
    looks = find_looks(args)
    identity = {**{name: getattr(args, name) for name in IDENTITY}, "image": str(source.resolve())}
    identity |= {"set": [list(pair) for pair in args.set], "plan": plan and plan.to_dict()}
    progress = Progress(args.quiet, args.turns, lines=False)
    reported = 0

    # 2. Load, once it is known that there is something to do
    def load() -> tuple[Callable[[FileRow], Edited], int]:
        planning = plan is None and args.planner != NO_PLANNER
        pipe = load_pipeline(args, planning, sizes=picture_sizes(row.source for row in rows))
        pipe = with_turns(pipe) if looks else pipe
        remote = isinstance(pipe, RemotePipeline)
        told = {} if remote else follow(pipe, progress)
        with checking():
            check_set(pipe, dict(args.set))
            _check_settings(pipe, args, remote)

        def edit(row: FileRow) -> Edited:
            picture, metadata = load_with_metadata(row.source)
            check_format(row.output, picture.size)
            own = plan or _plan_of(args, row.instruction)
            call: Any = pipe.check_inputs(**{**told, **looks, **_call(pipe, args, picture, row.instruction, own)})
            if not remote:
                progress.begin(f"{reported + 1}, {row.file}: ", own is not None)
            out: Any = pipe.run_checked(call)
            return out.images[0], metadata, out.plans[0]

        editor: Any = pipe.editor
        return edit, editor.endpoint.concurrency if remote else 1

    def report(row: FileRow, result: Path | Exception) -> None:
        nonlocal reported
        reported += 1
        if isinstance(result, Exception):
            progress.say(f"{row.file}: failed: {result}")
        else:
            progress.say(f"{row.file}: done")
            print(result, file=stdout, flush=True)

    # 3. Edit and write, one by one; what is behind addresses side by side
    stdout = sys.stdout
    with redirect_stdout(sys.stderr):
        try:
            done = edit_files(rows, args.output, identity, load, args.retry_failed, report)
        except KeyboardInterrupt:
            progress.say(f"Stopped. What is done is in {args.output}; the same command goes on with the rest.")
            raise
        except (BlockingIOError, ValueError) as error:  # the folder is another run's, or of another one
            raise UsageError(str(error)) from error
    progress.say(
        f"{args.output}: {done.edited} of {len(rows)} edited, {len(done.failed)} failed, {done.missing} left."
    )
    for file, error in done.failed:
        print(f"failed: {file}: {error}", file=sys.stderr)
    return int(done.edited < len(rows))


def _check_numbers_and_words(args: argparse.Namespace) -> None:
    check_count("num_images_per_prompt", args.num_images_per_prompt)
    check_generation(args.max_new_tokens, None)
    if args.instruction is not None:
        check_texts(args.instruction)


def read_plan(path: str) -> EditPlan:
    """The plan in a JSON file; `"-"` is stdin."""
    if path == "-":
        return EditPlan.from_json(sys.stdin.read(), "stdin")
    return EditPlan.from_dict(schema.read_file(path), path)


def _plan_of(args: argparse.Namespace, instruction: str | None) -> EditPlan | None:
    """The plan that is given, or the instruction itself where nobody plans; `None` if it is to be planned."""
    if args.plan is not None:
        return read_plan(args.plan)
    return EditPlan(instruction, (), (instruction,)) if args.planner == NO_PLANNER and instruction else None


def _call(
    pipe: Any, args: argparse.Namespace, picture: Image.Image, instruction: str | None, plan: EditPlan | None
) -> dict[str, Any]:
    """The arguments of the pipeline's call.

    Raises:
        TypeError, ValueError: If `--set` gives what is not the editor's.
    """
    from ..pipelines.remote import seed_for

    call = {
        "image": picture,
        "instruction": None if plan is not None else instruction,
        "plan": plan,
        "turns": args.turns,
        "num_images_per_prompt": args.num_images_per_prompt,
        "max_new_tokens": args.max_new_tokens,
        **seed_for(pipe, args.seed),
    }
    given = dict(args.set)
    check_set(pipe, given)
    if taken := sorted({*call, "callback_on_plan", "reflect", "critic"} & set(given)):
        raise ValueError(f"--set {taken[0]}: this is no argument of the editor")
    return {**call, **given}


def _check_settings(pipe: Any, args: argparse.Namespace, remote: bool) -> None:
    """Refuse what no picture could make right."""
    if remote:
        from ..remote_editor import remote_prompts

        remote_prompts(EditPlan("anything", (), ("anything",)), args.turns)
        return
    from ..editors import check_values, share_out
    from ..pipelines.call import check_settings

    check_settings(pipe, args.turns, planned=True, **dict(args.set))
    check_values(pipe.editor, *share_out(pipe.editor, {**pipe.editor_defaults, **dict(args.set)}, 1))


def _check_output(output: Path, count: int, size: tuple[int, int] | None = None) -> None:
    for path in _paths(output, count):
        try:
            check_writable(path, size)
        except (OSError, ValueError) as error:
            raise ValueError(f"--output {path}: {error}") from error


def _paths(output: Path, count: int) -> list[Path]:
    if count == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{number}") for number in range(1, count + 1)]


def _write(path: Path, image: Image.Image, metadata: Metadata) -> None:
    """Minutes of work are in the picture: where its place takes it no more, it goes to the folder for temporary files.

    Raises:
        OSError: That names both places.
    """
    try:
        write_picture(path, image, metadata)
    except (OSError, ValueError) as error:  # its folder has gone, among others
        rescued = Path(tempfile.mkdtemp(prefix="diffusers-r1-")) / path.name
        write_picture(rescued, image, metadata)
        raise OSError(f"{path} cannot be written: {error}. The picture is at {rescued}") from error
