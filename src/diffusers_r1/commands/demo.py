"""Edit a shipped picture of coloured shapes with the shipped bundle; print the paths of the pictures and the plan."""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..images import write_picture
from ..installing import install_line, program
from ..plan import EditPlan
from ..records import write_whole
from ..scenes import TEST_SEEDS, sample_task
from .progress import add_log_arguments
from .shared import add_bundle_arguments, load_pipeline


TASK_SEED = TEST_SEEDS + 16  # of the seeds that are kept from training
COLUMNS = ("action", "subject", "goal", "sub-request")

INK, FAINT, LINE, PAPER = "#1f2328", "#656d76", "#d0d7de", "#ffffff"
MARGIN, GAP = 32, 24
SIDE = 256  # pixels, at least, of each of the two pictures
CELL = 190  # pixels, at most, of a table's column
TITLE, TEXT, SMALL = 22, 15, 13


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path("demo"),
        metavar="FOLDER",
        help="made if not there (default: %(default)s)",
    )
    add_bundle_arguments(parser)
    add_log_arguments(parser)


def run(args: argparse.Namespace) -> None:
    task = sample_task(TASK_SEED, "complex")
    with redirect_stdout(sys.stderr):
        import torch

        pipe = load_pipeline(args)
        out: Any = pipe(task.image, task.instruction, generator=torch.Generator().manual_seed(0))
    after, plan = out.images[0], out.plans[0]

    folder = args.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    write_picture(folder / "before.png", task.image)
    write_picture(folder / "after.png", after)
    write_picture(folder / "demo.png", side_by_side(task.image, after, plan))
    write_whole(folder / "plan.json", plan.to_json() + "\n")
    print(f"Asked:   {task.instruction}")
    print(f"Picture: {folder / 'demo.png'}  (before, after and the plan; before.png and after.png beside it)")
    print(f"Plan:    {folder / 'plan.json'}")
    print(next_steps(folder), file=sys.stderr)


def next_steps(folder: Path) -> str:
    """Three things to try next, as they are typed here: the program may not be on the shell's path."""
    before, plan = (shlex.quote(str(folder / name)) for name in ("before.png", "plan.json"))
    edit = f"{program()} edit"
    return f"""
Next:
  {edit} {before} "make the background teal" --output edited.png
  change a request in {folder / "plan.json"}, then: {edit} {before} --plan {plan} --output changed.png
  a photo of yours, by models behind addresses (first {install_line("remote")}):
    {edit} photo.jpg "match the coat to the car" --output edited.jpg \\
      --planner http://localhost:8000/v1 --editor http://localhost:8001/v1"""


def side_by_side(before: Image.Image, after: Image.Image, plan: EditPlan) -> Image.Image:
    """One picture of a whole run: the instruction as its title, below it before, after and the plan as a table.

    Args:
        before, after (`PIL.Image.Image`): Of one size. Small ones are enlarged without smoothing.
        plan ([`EditPlan`]): What led from one to the other.
    """
    scale = max(1, -(-SIDE // min(before.size)))
    pictures = [
        image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
        for image in (before, after)
    ]
    table = _table(plan)
    width = MARGIN + sum(part.width + GAP for part in (*pictures, table)) - GAP + MARGIN
    title = _wrapped(plan.instruction, TITLE, width - 2 * MARGIN)
    caption = _line_height(SMALL) + 6
    top = MARGIN + len(title) * _line_height(TITLE) + GAP
    height = top + max(pictures[0].height + caption, table.height) + MARGIN

    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(title):
        draw.text((MARGIN, MARGIN + number * _line_height(TITLE)), line, INK, _font(TITLE))
    x = MARGIN
    for name, picture in zip(("before", "after"), pictures, strict=True):
        sheet.paste(picture, (x, top))
        draw.rectangle((x - 1, top - 1, x + picture.width, top + picture.height), outline=LINE)
        draw.text((x, top + picture.height + 6), name, FAINT, _font(SMALL))
        x += picture.width + GAP
    sheet.paste(table, (x, top))
    return sheet


def _table(plan: EditPlan) -> Image.Image:
    """The edits and the sub-requests as rows; there can be more of the one than of the other."""
    count = max(len(plan.edits), len(plan.requests))
    rows = [["", "", "", ""] for _ in range(count)]
    for row, edit in zip(rows, plan.edits):
        row[:3] = edit.action, edit.subject, edit.goal
    for row, request in zip(rows, plan.requests):
        row[3] = request

    wrapped = [[_wrapped(text, TEXT, CELL) for text in row] for row in rows]
    widths = []
    for column, head in enumerate(COLUMNS):
        lines = [line for row in wrapped for line in row[column]]
        widths.append(round(max([_font(SMALL).getlength(head), *map(_font(TEXT).getlength, lines)])) + 20)
    heights = [max(map(len, row)) * _line_height(TEXT) + 14 for row in wrapped]
    note = _wrapped(f"Planning fell back: {plan.reason}.", SMALL, sum(widths)) if plan.fallback else []
    head_height = _line_height(SMALL) + 10

    size = (sum(widths), head_height + sum(heights) + 1 + len(note) * _line_height(SMALL) + 10)
    table = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(table)
    lefts = [sum(widths[:column]) for column in range(len(COLUMNS))]
    for left, head in zip(lefts, COLUMNS, strict=True):
        draw.text((left, 0), head, FAINT, _font(SMALL))
    y = head_height
    for row, height in zip(wrapped, heights, strict=True):
        draw.line((0, y, table.width, y), LINE)
        for left, lines in zip(lefts, row, strict=True):
            for number, line in enumerate(lines):
                draw.text((left, y + 7 + number * _line_height(TEXT)), line, INK, _font(TEXT))
        y += height
    draw.line((0, y, table.width, y), LINE)
    for number, line in enumerate(note):
        draw.text((0, y + 8 + number * _line_height(SMALL)), line, FAINT, _font(SMALL))
    return table


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _line_height(size: int) -> int:
    return round(size * 1.35)


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """The text in lines of at most `width` pixels; a word that is longer has a line of its own. At least one line."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font(size).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
