"""Rows at the door: every layout that people have is read, or refused in one line that says what is there."""

import base64
import gzip
import io
import json
import logging
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import datasets
import pytest
from data_sets import picture

from diffusers_r1.data import check_apart, load_rows, to_prompts
from diffusers_r1.data.rows import true_edits
from diffusers_r1.plan import Edit
from diffusers_r1.prompts import Prompts
from diffusers_r1.rewards import ActionReward, GoalReward, SubjectReward
from diffusers_r1.tags import read_decomposition


TRUTH = {"actions": ["recolor", "remove"], "subjects": ["coat", "man"], "goals": ["red", "nothing"]}


def png(index: int) -> bytes:
    file = io.BytesIO()
    picture(index).save(file, format="PNG")
    return file.getvalue()


def text(index: int) -> str:
    return base64.b64encode(png(index)).decode()


class Pages(BaseHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self):
        self.asked.append(self.path)
        number = self.path.strip("/").removesuffix(".png")
        content = png(int(number)) if number.isdigit() else b"<html>not here</html>"
        self.send_response(200 if number != "gone" else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def net():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def table(kind, cells, column="image"):
    features = datasets.Features({column: kind, "instruction": datasets.Value("string")})
    return datasets.Dataset.from_dict(
        {column: cells, "instruction": [f"edit {i}" for i in range(len(cells))]}, features=features
    )


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def folder_of_pictures(folder, count=3, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        (folder / f"{i}.png").write_bytes(png(i))
        rows.append({"file_name": f"{i}.png", "instruction": f"edit {i}", **changes})
    lines(folder / "metadata.jsonl", rows)
    return folder


PICTURE, TEXT = datasets.Image(), datasets.Value("string")
LISTS = {"picture": datasets.List(PICTURE), "text": datasets.List(TEXT)}


def write_all(root, net):
    """Every layout of three rows whose pictures are 0, 1, 2; the bad ones differ in one thing."""
    three = table(PICTURE, [picture(i) for i in range(3)])
    three.save_to_disk(root / "saved")
    datasets.DatasetDict({"train": three, "validation": three.select([2])}).save_to_disk(root / "splits")
    datasets.DatasetDict({"a": three, "b": three.select([2])}).save_to_disk(root / "named")
    datasets.DatasetDict({"only": three}).save_to_disk(root / "only")
    folder_of_pictures(root / "folder")
    folder_of_pictures(root / "folder.with.dots")
    for name, part in (("train", slice(0, 3)), ("validation", slice(2, 3))):
        folder = folder_of_pictures(root / "parts" / name)
        rows = [{"file_name": f"{i}.png", "instruction": f"edit {i}"} for i in range(3)[part]]
        lines(folder / "metadata.jsonl", rows)
        for path in folder.glob("*.png"):
            if path.name not in {row["file_name"] for row in rows}:
                path.unlink()
    for i in range(3):
        (root / "loose").mkdir(exist_ok=True)
        (root / "loose" / f"{i}.png").write_bytes(png(i))
    cells = {
        "paths": [f"{i}.png" for i in range(3)],
        "absolute": [str(root / "loose" / f"{i}.png") for i in range(3)],
        "urls": [f"{net}/{i}.png" for i in range(3)],
        "upper": [f"{net}/{i}.png".replace("http://", "HTTP://") for i in range(3)],
        "dataurls": [f"data:image/png;base64,{text(i)}" for i in range(3)],
        "base64": [text(i) for i in range(3)],
        "mixed": ["0.png", f"{net}/1.png", f"data:image/png;base64,{text(2)}"],
        "wrapped": ["\n".join(text(i)[k : k + 76] for k in range(0, len(text(i)), 76)) for i in range(3)],
        # bad in row 1
        "missing": ["0.png", "none.png", "2.png"],
        "empty": ["0.png", "", "2.png"],
        "null": ["0.png", None, "2.png"],
        "page": [f"{net}/0.png", f"{net}/page", f"{net}/2.png"],
        "gone": [f"{net}/0.png", f"{net}/gone", f"{net}/2.png"],
        "cut": [text(0), text(1)[:101], text(2)],
        "cutdata": [f"data:image/png;base64,{text(i)[: None if i != 1 else 60]}" for i in range(3)],
        "plaindata": ["0.png", "data:image/png,abc", "2.png"],
        "letters": [text(0), "A" * 400_000, text(2)],
        "big": ["0.png", "x/" * 200_000, "2.png"],
    }
    for name, column in cells.items():
        lines(root / name / "rows.jsonl", [{"image": c, "instruction": f"edit {i}"} for i, c in enumerate(column)])
        for i in range(3):
            (root / name / f"{i}.png").write_bytes(png(i))
    listed = {
        "lists": (LISTS["picture"], [[picture(i)] for i in range(3)]),
        "textlists": (LISTS["text"], [[text(i)] for i in range(3)]),
        "twolists": (LISTS["picture"], [[picture(0)], [picture(1), picture(2)], [picture(2)]]),
        "twotexts": (LISTS["text"], [[text(0)], [text(1), text(2)], [text(2)]]),
        "nolists": (LISTS["picture"], [[picture(0)], [], [picture(2)]]),
        "nulllists": (LISTS["picture"], [[picture(0)], None, [picture(2)]]),
    }
    for name, (kind, column) in listed.items():
        (root / name).mkdir()
        table(kind, column, "images").to_parquet(root / name / "train.parquet")
    (root / "bytes").mkdir()
    table(datasets.Value("binary"), [png(i) for i in range(3)]).to_parquet(root / "bytes" / "train.parquet")
    (root / "csv").mkdir()
    (root / "csv" / "rows.csv").write_text(
        "file_name,instruction\n" + "".join(f"../loose/{i}.png,edit {i}\n" for i in range(3))
    )
    written_tables = {
        "comma": ("rows.csv", "file_name,instruction\n../loose/0.png,edit 0\n../loose/1.png,edit 1, and more\n"),
        "commas": ("rows.csv", "file_name,instruction\n../loose/0.png,edit 0, and more\n../loose/1.png,edit 1, too\n"),
        "commainfolder": ("metadata.csv", "file_name,instruction\n0.png,edit 0, and more\n1.png,edit 1, too\n"),
        "commabeside": ("rows.csv", "file_name,instruction\n0.png,edit 0, and more\n1.png,edit 1, too\n"),
        "openquote": ("rows.csv", 'file_name,instruction\n../loose/0.png,"edit 0\n../loose/1.png,edit 1\n'),
        "semicolons": ("rows.csv", "file_name;instruction\n" + "".join(f"../loose/{i}.png;edit {i}\n" for i in range(3))),
    }  # fmt: skip
    for name, (file, written) in written_tables.items():
        (root / name).mkdir()
        (root / name / file).write_text(written)
        if name in ("commainfolder", "commabeside"):
            for i in range(2):
                picture(i).save(root / name / f"{i}.png")
    head, plain, shifted = "file_name,instruction\n", "../loose/0.png,edit 0\n", "../loose/0.png,edit 0, and more\n"
    (root / "loud").mkdir()
    (root / "loud" / "rows.CSV").write_text(head + shifted)
    (root / "tabs").mkdir()
    (root / "tabs" / "rows.tsv").write_text((head + shifted).replace(",", "\t"))
    for name, rows in (("gzip", shifted), ("goodgzip", plain), ("torn", shifted), ("zstandard", shifted)):
        (root / name).mkdir()
        packed = gzip.compress((head + rows).encode())
        file = "rows.csv.zst" if name == "zstandard" else "rows.csv.gz"
        (root / name / file).write_bytes(packed[:-12] if name == "torn" else packed)
    for name, file, rows in (
        ("zip", "rows.csv.zip", shifted),
        ("goodzip", "rows.csv.zip", plain),
        ("archive", "all.zip", shifted),
    ):
        (root / name).mkdir()
        with zipfile.ZipFile(root / name / file, "w") as archive:
            archive.writestr("rows.csv", head + rows)
            archive.writestr("__MACOSX/._rows.csv", b"\x00\xff")
    for name in ("gz", "bz2", "xz"):
        (root / f"no{name}").mkdir()
        (root / f"no{name}" / f"rows.csv.{name}").write_text(head + plain)
    for name in ("meant", "meantbeside"):
        (root / name).mkdir()
        beside = name == "meantbeside"
        at = "" if beside else "../loose/"
        for table_name, i in (("metadata", 0), ("other", 1), ("another", 2)):
            lines(root / name / f"{table_name}.jsonl", [{"file_name": f"{at}{i}.png", "instruction": f"edit {i}"}])
    picture(0).save(root / "meantbeside" / "0.png")
    (root / "nothing").mkdir()
    (root / "notes").mkdir()
    (root / "notes" / "notes.txt").write_text("hm")
    (root / "notes" / "broken.json").write_text("{")
    folder_of_pictures(root / "nowords")
    lines(root / "nowords" / "metadata.jsonl", [{"file_name": f"{i}.png"} for i in range(3)])
    faults = {
        "odd": {"goals": ["red"]},
        "textgoals": {"goals": "red; nothing"},
        "noitem": {"goals": ["red", ""]},
        "longwords": {"instruction": {"a": "x" * 300_000}},
    }
    for name, change in faults.items():
        folder_of_pictures(root / name, **TRUTH)
        rows = [{"file_name": f"{i}.png", "instruction": f"edit {i}", **TRUTH} for i in range(3)]
        if name != "textgoals":
            rows[1] |= change
        else:
            rows = [{**row, **change} for row in rows]
        if name == "longwords":
            rows = [{"file_name": f"{i}.png", "instruction": f"edit {i}", **TRUTH, "reasoning": " "} for i in range(3)]
            rows[1] |= {"goals": ["x" * 300_000]}
        lines(root / name / "metadata.jsonl", rows)


@pytest.fixture(scope="module")
def root(tmp_path_factory, net):
    folder = tmp_path_factory.mktemp("layouts")
    write_all(folder, net)
    return folder


ALL, TWO, FIRST, LAST = [0, 1, 2], [0, 1], [0], [2]


@pytest.mark.parametrize(
    ("name", "arguments", "found"),
    [
        ("goodgzip", {}, FIRST),
        ("goodzip", {}, FIRST),
        ("meant/metadata.jsonl", {}, FIRST),
        ("meantbeside/metadata.jsonl", {}, FIRST),
        ("saved", {}, ALL),
        ("saved", {"split": "train"}, ALL),
        ("saved", {"split": "train[:2]"}, TWO),
        ("saved", {"split": "train[2:]"}, LAST),
        ("saved", {"split": "train[-1:]"}, LAST),
        ("saved", {"split": "train[:67%]"}, TWO),
        ("saved", {"split": "train[:1]+train[1:2]"}, TWO),
        ("saved", {"split": "train", "limit": 2}, TWO),
        ("splits", {}, ALL),
        ("splits", {"split": "validation"}, LAST),
        ("splits", {"split": "train[:2]"}, TWO),
        ("splits", {"split": "train[:1]+validation"}, [0, 2]),
        ("only", {}, ALL),
        ("only", {"split": "only[:2]"}, TWO),
        ("named", {"split": "b"}, LAST),
        ("folder", {}, ALL),
        ("folder", {"split": "train[:2]"}, TWO),
        ("folder", {"split": "train[:67%]"}, TWO),
        ("folder.with.dots", {}, ALL),
        ("folder/metadata.jsonl", {}, ALL),
        ("folder/metadata.jsonl", {"split": "train[2:]"}, LAST),
        ("parts", {}, ALL),
        ("parts", {"split": "validation"}, LAST),
        ("paths", {}, ALL),
        ("paths/rows.jsonl", {}, ALL),
        ("paths/rows.jsonl", {"split": "train[:2]"}, TWO),
        ("absolute", {}, ALL),
        ("absolute/rows.jsonl", {}, ALL),
        ("urls", {}, ALL),
        ("upper", {}, ALL),
        ("dataurls", {}, ALL),
        ("base64", {}, ALL),
        ("wrapped", {}, ALL),
        ("mixed", {}, ALL),
        ("lists", {}, ALL),
        ("lists/train.parquet", {}, ALL),
        ("textlists", {}, ALL),
        ("bytes", {}, ALL),
        ("csv", {}, ALL),
        ("csv/rows.csv", {}, ALL),
        ("semicolons", {"sep": ";"}, ALL),
    ],
)
def test_layouts_that_are_read(root, own_cache, name, arguments, found):
    rows = load_rows(str(root / name), **arguments)
    assert [row["image"].convert("RGB").getpixel((0, 0))[0] for row in rows] == found
    assert rows["instruction"][:] == [f"edit {index}" for index in found]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("saved", {"split": "validation"}, r"saved: Unknown split \"validation\". Should be one of \['train'\]"),
        ("saved", {"split": "train[:"}, "saved: "),
        ("splits", {"split": "tset"}, r"Unknown split \"tset\". Should be one of \['train', 'validation'\]"),
        ("named", {}, "named: it has the splits a, b; name one of them"),
        ("folder", {"split": "validation"}, r"folder: Unknown split \"validation\". Should be one of \['train'\]"),
        ("folder", {"streaming": True}, "they are not streamed: leave `streaming` out"),
        ("nowhere", {}, "There is no .*nowhere here"),
        ("nowhere.jsonl", {}, "There is no .*nowhere.jsonl here"),
        ("nothing", {}, "nothing holds nothing"),
        ("notes", {}, "notes"),
        ("notes/notes.txt", {}, "a file of .jsonl, .json, .csv, .parquet, .arrow, not .txt"),
        ("notes/broken.json", {}, "notes/broken.json"),
        ("comma", {}, r"comma/rows\.csv, row 2 \(line 3\): more cells than the table has columns"),
        ("commas", {}, r"commas/rows\.csv, row 1 \(line 2\): more cells"),
        ("commas/rows.csv", {}, r"commas/rows\.csv, row 1 \(line 2\): more cells"),
        ("loud", {}, r"loud/rows\.CSV, row 1 \(line 2\): more cells"),
        ("tabs", {}, r"tabs/rows\.tsv, row 1 \(line 2\): more cells"),
        ("gzip", {}, r"gzip/rows\.csv\.gz, row 1 \(line 2\): more cells"),
        ("gzip", {"data_files": "rows.csv.gz"}, r"gzip/rows\.csv\.gz, row 1 \(line 2\): more cells"),
        ("zip", {}, r"zip/rows\.csv\.zip, row 1 \(line 2\): more cells"),
        ("archive", {}, r"archive/all\.zip, row 1 \(line 2\): more cells"),
        ("torn", {}, r"torn/rows\.csv\.gz cannot be unpacked"),
        *((f"no{name}", {}, rf"no{name}/rows\.csv\.{name} cannot be unpacked") for name in ("gz", "bz2", "xz")),
        ("zstandard", {}, r"zstandard/rows\.csv\.zst is packed so that its rows cannot be checked"),
        ("commas", {"data_files": "rows.csv"}, r"commas/rows\.csv, row 1 \(line 2\): more cells"),
        ("commas", {"data_files": {"train": ["*.csv"]}}, r"commas/rows\.csv, row 1 \(line 2\): more cells"),
        ("commainfolder", {}, r"commainfolder/metadata\.csv, row 1 \(line 2\): more cells"),
        ("commabeside", {}, r"commabeside/rows\.csv, row 1 \(line 2\): more cells"),
        ("openquote", {}, r"openquote/rows\.csv cannot be read as a table"),
        ("loose", {}, "no column for instruction .*it has"),
        ("nowords", {}, "no column for instruction"),
        ("missing", {}, "Row 1 of .* its picture cannot be read: there is no file .*none.png"),
        ("empty", {}, "Row 1 of .* it has no picture"),
        ("null", {}, "Row 1 of .* it has no picture"),
        ("page", {}, "Row 1 of .*/page.* cannot be used"),
        ("gone", {}, "Row 1 of .*/gone.* cannot be used"),
        ("cut", {}, "Row 1 of .* its picture is broken base64"),
        ("cutdata", {}, "Row 1 of .* cannot be used"),
        ("plaindata", {}, "Row 1 of .* its picture is a data URL that is not base64"),
        ("letters", {}, "Row 1 of .* its picture is text that is neither a path nor a picture in base64"),
        ("big", {}, "Row 1 of .* neither a path nor a picture"),
        ("twolists", {}, "Row 1 of .* it has 2 pictures, and a row has one"),
        ("twotexts", {}, "Row 1 of .* it has 2 pictures, and a row has one"),
        ("nolists", {}, "Row 1 of .* it has no picture"),
        ("nulllists", {}, "Row 1 of .* it has no picture"),
        ("odd", {}, "Row 1 of .* there are 2 actions, 2 subjects and 1 goals"),
        ("textgoals", {}, "Row 0 of .* `goals` is no list of texts: 'red; nothing'"),
        ("noitem", {}, "Row 1 of .* `goals` is no list of texts"),
        ("longwords", {}, "Row 1 of .* there are 2 actions, 2 subjects and 1 goals"),
    ],
)
def test_layouts_that_are_refused(root, own_cache, name, arguments, said, caplog):
    with pytest.raises((ValueError, OSError), match=said) as caught:
        load_rows(str(root / name), **arguments)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1000 + 2 * len(str(root))
    if "Row 1" in said:
        with caplog.at_level(logging.WARNING):
            rows = load_rows(str(root / name), on_bad_row="skip", **arguments)
        assert rows["instruction"][:] == ["edit 0", "edit 2"]
        ours = [record.getMessage() for record in caplog.records if record.name.startswith("diffusers_r1")]
        assert len(ours) == 2 and all(len(line) < 1000 + 2 * len(str(root)) for line in ours)


def test_a_url_is_fetched_once_and_only_where_it_is_needed(root, own_cache):
    Pages.asked.clear()
    assert len(load_rows(str(root / "urls"), limit=1)) == 1
    assert Pages.asked == ["/0.png"]
    rows = load_rows(str(root / "urls"))
    rows[0], rows[1]
    assert sorted(Pages.asked) == ["/0.png", "/1.png", "/2.png"]


def test_rows_kept_as_they_are_raise_when_they_are_read(root, own_cache):
    for name in ("missing", "page", "cut"):
        rows = load_rows(str(root / name), on_bad_row="keep")
        assert len(rows) == 3 and rows[2]["image"].size == (12, 9)
        with pytest.raises(Exception):  # noqa: B017 what Pillow or the file system says
            rows[1]["image"]


ODD = {
    "actions": ["text", "add"],
    "subjects": ["sign", "note <b>"],
    "goals": ["Open; ring twice", r"</goal> \; <action>"],
}


def test_any_text_can_be_a_truth(tmp_path, own_cache):
    folder_of_pictures(tmp_path / "odd", **ODD)
    rows = load_rows(str(tmp_path / "odd"))
    asked = to_prompts(rows, Prompts(), 16, sees=False, answered=True)
    answer = asked[0]["completion"][0]["content"]
    found = read_decomposition(answer)
    assert list(found.edits) == true_edits(rows[0]) == [Edit(*items) for items in zip(*ODD.values())]
    columns = {name: asked[name][:1] for name in (*ODD, "instruction")}
    for reward in (ActionReward(), SubjectReward(), GoalReward()):
        assert reward(prompts=[None], completions=[answer], **columns) == [1.0]


def test_rows_that_are_trained_on_and_measured_on(tmp_path, own_cache):
    rows = load_rows(str(folder_of_pictures(tmp_path / "a")))
    renamed = table(PICTURE, [picture(0), picture(9), picture(2)])
    check_apart(rows, None)
    check_apart(rows, renamed.select([1]))  # the same instruction about another picture
    check_apart(rows, table(PICTURE, [picture(5)] * 3))
    with pytest.raises(ValueError, match="^2 of the 3 held-out rows are among those .*the first is row 0"):
        check_apart(rows, renamed)
    with pytest.raises(ValueError, match="3 of the 3"):
        check_apart(rows, rows)
    check_apart(load_rows("scenes"), load_rows("scenes", split="validation", limit=2))
