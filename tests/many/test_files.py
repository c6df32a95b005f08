"""Tables of files and instructions as they are read, and whose picture a file of the results is."""

from pathlib import Path
from time import process_time

import pytest
from picture_server import serving
from PIL import Image

from diffusers_r1 import EditPlan
from diffusers_r1.endpoints import EndpointError
from diffusers_r1.images import Metadata, load_with_metadata
from diffusers_r1.many.files import FileFailed, FileRow, Outcome, edit_files, rows_of_folder, rows_of_table
from diffusers_r1.records import Failure, read


COLOURS = ("teal", "pink", "lime")


class Painter:
    """Edits by painting the whole picture in the colour that is asked for, and keeps what it was asked."""

    def __init__(self):
        self.asked = []
        self.plan = EditPlan("", (), ("paint it",))

    def __call__(self, row):
        self.asked.append(row.instruction)
        return Image.new("RGB", (8, 8), row.instruction), Metadata(), self.plan

    def load(self):
        return self, 1


@pytest.fixture
def painter():
    return Painter()


@pytest.fixture
def edited(tmp_path, painter):
    """The outcome for the rows of a table that asks for colours of one picture, one after the other."""

    def edited(*colours):
        table = tmp_path / "table.csv"
        table.write_text("file,instruction\n" + "".join(f"x.png,{colour}\n" for colour in colours))
        return edit_files(rows_of_table(table), tmp_path / "out", {}, painter.load)

    return edited


def colour_of(path):
    with Image.open(path) as picture:
        return next(name for name in COLOURS if Image.new("RGB", (8, 8), name).tobytes() == picture.tobytes())


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "a.csv",
            "file,instruction\ny.png,blue\nx.png,make it red, and blue\n",
            r"a\.csv, row 2 \(line 3\): more cells than the table has",
        ),
        ("a.csv", "file,instruction\nx.png\n", "row 1: no `instruction` for x.png"),
        ("a.csv", "instruction,file\nmake it red\n", "row 1: no `file`"),
        ("a.csv", "file,instruction\nx.png,blue\n.,make it red\n", "row 2: . is no file"),
        ("a.csv", 'file,instruction\nx.png,"make it red\ny.png,blue\n', "cannot be read as a table: unexpected end"),
        ("a.csv", 'file,instruction\nx.png,"red" car to blue\n', "cannot be read as a table"),
        ("a.jsonl", '{"file": "x.png", "instruction": "blue"}\n{"file": "y.png", "instr', "row 2: no JSON object"),
        ("a.jsonl", '{"file": "x.png", "instruction": "blue"}\n[1]', "row 2: no JSON object"),
        ("a.jsonl", '{"file": "x.png", "instruction": 5}', "row 1: `instruction` is text, not 5"),
        ("a.jsonl", '{"file": 5, "instruction": "blue"}', "row 1: `file` is text, not 5"),
    ],
)
def test_a_row_that_would_be_cut_or_lost_is_refused(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        rows_of_table(tmp_path / name)


def test_text_in_quotes_has_commas_quotes_and_lines(tmp_path):
    (tmp_path / "a.csv").write_text('file,instruction\nx.png,"make ""it"" red,\nand blue"\n\ny.png,a 5" pipe\n')
    said = [row.instruction for row in rows_of_table(tmp_path / "a.csv")]
    assert said == ['make "it" red,\nand blue', 'a 5" pipe']


def test_a_table_that_is_changed_and_changed_back(tmp_path, painter, edited):
    results = tmp_path / "out"
    assert edited("teal") == Outcome(1, [], 0)
    assert edited("pink", "teal") == Outcome(2, [], 0)
    assert (colour_of(results / "x.png"), colour_of(results / "x-2.png")) == ("pink", "teal")
    assert edited("teal") == Outcome(1, [], 0)
    assert colour_of(results / "x.png") == "teal"
    # And the other row is not done any more, while the one that nobody touched is.
    painter.asked.clear()
    assert edited("pink", "teal") == Outcome(2, [], 0)
    assert painter.asked == ["pink"] and colour_of(results / "x.png") == "pink"


def test_stopped_while_the_result_of_another_row_is_replaced(tmp_path, painter, edited):
    sound = painter.plan
    edited("teal")
    painter.plan = EditPlan("", (), (b"what JSON cannot hold",))
    with pytest.raises(TypeError, match="not JSON serializable"):
        edited("pink")
    painter.plan = sound
    assert edited("teal") == Outcome(1, [], 0) and colour_of(tmp_path / "out" / "x.png") == "teal"


def test_a_folder_in_the_place_of_a_result_fails_before_the_model_runs(tmp_path, painter, edited):
    edited("lime")
    (tmp_path / "out" / "x-2.png").mkdir()
    painter.asked.clear()
    outcome = edited("lime", "pink", "teal")
    assert (outcome.edited, outcome.missing) == (2, 0) and "x-2.png is a folder" in outcome.failed[0][1]
    assert painter.asked == ["teal"]


def test_rows_of_one_name_have_results_of_their_own(tmp_path):
    (tmp_path / "a.csv").write_text("file,instruction\nx.png,red\nx.png,blue\n")
    rows = rows_of_table(tmp_path / "a.csv")
    assert rows == [
        FileRow("x.png", Path(tmp_path / "x.png"), "red", "x.png"),
        FileRow("x.png", Path(tmp_path / "x.png"), "blue", "x-2.png"),
    ]


def test_a_number_never_takes_the_name_of_another_row(tmp_path):
    files = ["x.png", "x.png", "x-2.png", "x.png", "x-2-2.png", "x.heic"]
    (tmp_path / "a.csv").write_text("file,instruction\n" + "".join(f"{file},red\n" for file in files))
    outputs = [row.output for row in rows_of_table(tmp_path / "a.csv")]
    assert outputs == ["x.png", "x-2.png", "x-2-2.png", "x-3.png", "x-2-2-2.png", "x-4.png"]


def test_a_picture_of_an_address_has_a_name_that_a_file_can_have(tmp_path):
    (tmp_path / "a.csv").write_text(f"file,instruction\nhttps://example.org/{'x' * 300}.png?size=1,red\n")
    (row,) = rows_of_table(tmp_path / "a.csv")
    assert row.output == "x" * 196 + ".png"


def test_names_of_many_rows_take_time_in_proportion(tmp_path):
    (tmp_path / "a.csv").write_text("file,instruction\n" + "x.png,red\n" * 20_000)
    begun = process_time()
    assert rows_of_table(tmp_path / "a.csv")[-1].output == "x-20000.png"
    assert process_time() - begun < 10  # or minutes


@pytest.mark.parametrize("suffix", ["heic", "HEIF"])
def test_a_photo_that_becomes_a_png_leaves_the_png_beside_it_its_name(tmp_path, suffix):
    photos, results = tmp_path / "photos", tmp_path / "results"
    photos.mkdir()
    Image.new("RGB", (8, 8), "teal").save(photos / f"a.{suffix}", "JPEG", quality=100)
    Image.new("RGB", (8, 8), "pink").save(photos / "a.png")
    edited = []

    def edit(row):
        edited.append(row.file)
        return *load_with_metadata(row.source), EditPlan(row.instruction, (), ("nothing",))

    for _ in range(2):
        rows = rows_of_folder(photos, "nothing", results)
        assert edit_files(rows, results, {}, lambda: (edit, 1)) == Outcome(2, [], 0)
    assert sorted(edited) == sorted([f"a.{suffix}", "a.png"])
    assert colour_of(results / "a.png") == "pink" and (results / "a-2.png").is_file()


def test_a_picture_that_its_format_cannot_hold_takes_no_other_row_along(tmp_path):
    (tmp_path / "a.csv").write_text("file,instruction\nwide.webp,red\nx.png,red\n")
    asked = []

    def edit(row):
        asked.append(row.file)
        size = (16_500, 100) if row.file == "wide.webp" else (8, 8)
        return Image.new("RGB", size), Metadata(), EditPlan("", (), ("paint it",))

    for _ in range(2):
        outcome = edit_files(rows_of_table(tmp_path / "a.csv"), tmp_path / "out", {}, lambda: (edit, 1))
        assert (outcome.edited, outcome.missing) == (1, 0) and "WEBP holds at most 16383" in outcome.failed[0][1]
    assert asked == ["wide.webp", "x.png"]


def test_pictures_of_a_server_that_is_down_are_tried_again(tmp_path):
    names = [f"{number}.png" for number in range(12)]
    with serving({}) as server:
        (tmp_path / "a.csv").write_text("file,instruction\n" + "".join(f"{server.url}/{name},red\n" for name in names))

    def edit(row):
        return *load_with_metadata(row.source), EditPlan(row.instruction, (), (row.instruction,))

    rows = rows_of_table(tmp_path / "a.csv")
    for start in (1, 2):
        with pytest.raises(FileFailed, match="/9.png' cannot be used: the download failed"):  # the tenth
            edit_files(rows, tmp_path / "out", {}, lambda: (edit, 1))
        assert [line["kind"] for line in read(tmp_path / "out" / "failed.jsonl")] == ["outage"] * 10 * start


@pytest.mark.parametrize(
    ("error", "kind", "times"),
    [
        (RuntimeError("too large"), "fault", 1),
        (ValueError("no such colour"), "refused", 1),
        (EndpointError("busy", Failure.OUTAGE), "outage", 2),
        (PermissionError("locked"), "outage", 2),
    ],
)
def test_what_failed_by_its_own_fault_stays_out(tmp_path, error, kind, times):
    asked = []

    def edit(row):
        asked.append(row.file)
        raise error

    (tmp_path / "a.csv").write_text("file,instruction\nx.png,red\n")
    for retry_failed in (False, False, True):
        edit_files(rows_of_table(tmp_path / "a.csv"), tmp_path / "out", {}, lambda: (edit, 1), retry_failed)
    assert len(asked) == times + 1 and read(tmp_path / "out" / "failed.jsonl")[0]["kind"] == kind


@pytest.mark.parametrize("name", ["edited.jsonl", "failed.jsonl"])
def test_a_list_that_we_did_not_write_is_named_with_its_line(tmp_path, edited, name):
    edited("teal", "no colour")
    whole = (tmp_path / "out" / name).read_text()
    (tmp_path / "out" / name).write_text(whole.replace('"instruction"', '"said"'))
    with pytest.raises(ValueError, match=f"{name}, line 1: `instruction` is missing"):
        edited("teal", "no colour")
