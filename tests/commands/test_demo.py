import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusers_r1 import Edit, EditPlan, __version__
from diffusers_r1.commands.demo import next_steps, side_by_side


EDIT = Edit("recolor", "red circle", "green")
WORDY = "please make the red circle the same color as the triangle " * 8


@pytest.mark.tiny
def test_demo_writes_pictures_and_plan_and_says_where(run, bundle, tmp_path):
    folder = tmp_path / "a" / "demo"
    code, printed, said = run("demo", "--model", bundle, "--output_dir", folder)
    assert code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["after.png", "before.png", "demo.png", "plan.json"]
    assert str(folder / "demo.png") in printed and str(folder / "plan.json") in printed

    # What it says to try next does, as it stands there.
    line = re.search(r"^  (.+ edit .+ --output edited\.png)$", said, re.MULTILINE)[1]
    words = [*line.split(" edit ")[0].split(), "--version"]
    assert subprocess.run(words, capture_output=True, text=True).stdout == f"{__version__}\n"
    assert (
        run(
            *shlex.split(line)[shlex.split(line).index("edit") :][:3], "--model", bundle, "--output", folder / "x.png"
        )[0]
        == 0
    )
    (folder / "x.png").unlink()

    plan = EditPlan.from_json((folder / "plan.json").read_text(encoding="utf-8"))
    assert plan.instruction in printed
    with Image.open(folder / "before.png") as before, Image.open(folder / "after.png") as after:
        assert before.size == after.size == (64, 64)


def test_what_to_try_next_is_what_a_shell_takes():
    folder = Path("my demo's")
    first, second = re.findall(r" edit (.+ --output \w+\.png)$", next_steps(folder), re.MULTILINE)
    assert shlex.split(first)[:2] == [str(folder / "before.png"), "make the background teal"]
    assert shlex.split(second)[:3] == [str(folder / "before.png"), "--plan", str(folder / "plan.json")]


@pytest.mark.parametrize(
    "plan",
    [
        EditPlan("make the red circle green", (EDIT,), ("make the red circle green",)),
        EditPlan(WORDY, (EDIT,) * 3, (WORDY, "remove it")),
        EditPlan("", (), ("remove it",) * 5, fallback=True, reason="the answer has no <action>"),
        EditPlan("x" * 300, (Edit("y" * 80, "", ""),), ("z",)),
    ],
    ids=["usual", "long", "fallback", "unbreakable"],
)
def test_side_by_side_shows_both_pictures_whole_on_clean_paper(plan):
    before, after = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "lime")
    sheet = np.asarray(side_by_side(before, after, plan))
    for color in ((255, 0, 0), (0, 255, 0)):
        assert (sheet == color).all(axis=-1).sum() == 256 * 256
    edges = [sheet[0], sheet[-1], sheet[:, 0]]
    assert all((edge == 255).all() for edge in edges)


def test_a_large_picture_is_not_made_larger():
    picture = Image.new("RGB", (400, 300), "red")
    sheet = np.asarray(side_by_side(picture, picture, EditPlan("", (), ("remove it",))))
    assert (sheet == (255, 0, 0)).all(axis=-1).sum() == 2 * 400 * 300
