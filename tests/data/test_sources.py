import io
import json
import logging
import pickle
import re
import sys
from itertools import islice

import datasets
import picture_server
import PIL.Image
import pyarrow.parquet
import pytest
from colour_profiles import ADOBE_RGB, rgb_profile
from data_sets import GEDIT, complex_edit, picture, write_parquet

from diffusers_r1.data import EDIT_COLUMNS, SOURCES, load_rows
from diffusers_r1.images import load_picture
from diffusers_r1.scenes import TEST_SEEDS, sample_task, sample_tasks
from diffusers_r1.sentences import sample_sentence


LOGGER = "diffusers_r1.data.sources"
NO_TRUTH = {name: None for name in EDIT_COLUMNS}


def as_bytes(index: int) -> dict:
    file = io.BytesIO()
    picture(index).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


def index_of(row: dict) -> int:
    return row["image"].convert("RGB").getpixel((0, 0))[0]


def test_psr(tmp_path):
    kinds = {
        **dict.fromkeys(("post_id", "instruction", "simplified_instruction", "model", "comment_id"), "string"),
        **dict.fromkeys(("source_image", "ai_edited_image", "human_edited_image"), "image"),
    }
    posts = ["p1", "p1", "p2", "p3", "p2", None, None]
    columns = {
        **{name: [f"{name} {post}" for post in posts] for name in kinds if kinds[name] == "string"},
        **{name: [picture(i) for i in range(len(posts))] for name in kinds if kinds[name] == "image"},
        "post_id": posts,
    }
    folder = write_parquet(tmp_path / "psr", "test", kinds, columns)
    rows = load_rows("psr", path=folder)
    assert rows.column_names == ["image", "instruction", *EDIT_COLUMNS, "reasoning"]
    assert [index_of(row) for row in rows] == [0, 2, 3, 5, 6]
    assert rows["instruction"][:3] == ["instruction p1", "instruction p2", "instruction p3"]
    assert {name: rows[0][name] for name in EDIT_COLUMNS} == NO_TRUTH
    simple = load_rows("PSRDataset/PSR-328", path=folder, columns={"instruction": "simplified_instruction"}, limit=2)
    assert simple["instruction"][:] == ["simplified_instruction p1", "simplified_instruction p2"]


def test_of_a_post_the_first_row_that_can_be_read_is_taken(tmp_path, caplog):
    kinds = {"post_id": "string", "instruction": "string", "source_image": "image"}
    columns = {"post_id": ["p", "p", "p"], "instruction": [None, "b", "c"], "source_image": map(picture, range(3))}
    folder = write_parquet(tmp_path / "psr", "test", kinds, {n: list(c) for n, c in columns.items()})
    with caplog.at_level(logging.WARNING, LOGGER):
        assert load_rows("psr", path=folder, on_bad_row="skip")["instruction"][:] == ["b"]
    with pytest.raises(ValueError, match="no column 'post_id'"):
        load_rows("psr", path=write_parquet(tmp_path / "other", "test", {"x": "string"}, {"x": ["y"]}))


def test_ultraedit(tmp_path):
    kinds = {
        "clip_sim_source": "float64",
        "source_caption": "string",
        "idx": "int64",
        "edit_prompt": "string",
        "edit_object": "null",
        "source_image": "image",
        "edited_image": "image",
    }
    columns = {
        "clip_sim_source": [0.5] * 3,
        "source_caption": ["a dog"] * 3,
        "idx": [7, 8, 9],
        "edit_prompt": ["add a hat", "make it night", "remove the dog"],
        "edit_object": [None] * 3,
        "source_image": [picture(i) for i in range(3)],
        "edited_image": [picture(100 + i) for i in range(3)],
    }
    folder = write_parquet(tmp_path / "ultra", "FreeForm_0", kinds, columns)
    write_parquet(folder, "FreeForm_1", kinds, {name: column[:1] for name, column in columns.items()})
    rows = load_rows("ultraedit", path=folder)
    assert rows["instruction"][:] == columns["edit_prompt"]
    assert [index_of(row) for row in rows] == [0, 1, 2]
    assert len(load_rows("ultraedit", path=folder, split="FreeForm_1")) == 1


def test_magicbrush(tmp_path):
    kinds = {
        "img_id": "string",
        "turn_index": "int32",
        "source_img": "image",
        "mask_img": "image",
        "instruction": "string",
        "target_img": "image",
    }
    columns = {
        "img_id": ["1", "1", "2"],
        "turn_index": [1, 2, 1],
        "instruction": ["a", "b", "c"],
        **{name: [picture(i) for i in range(3)] for name in ("source_img", "mask_img", "target_img")},
    }
    folder = write_parquet(tmp_path / "brush", "train", kinds, columns)
    write_parquet(folder, "dev", kinds, {name: column[2:] for name, column in columns.items()})
    assert load_rows("magicbrush", path=folder)["instruction"][:] == ["a", "b", "c"]
    assert load_rows("magicbrush", path=folder, split="dev")["instruction"][:] == ["c"]


@pytest.mark.parametrize("image_name", SOURCES["realedit"].image)
def test_realedit(tmp_path, image_name):
    folder = write_parquet(
        tmp_path / "realedit",
        "train",
        {image_name: "image", "edit_instruction": "string", "output_image": "image"},
        {image_name: [picture(3)], "edit_instruction": ["fix it"], "output_image": [picture(4)]},
    )
    row = load_rows("realedit", path=folder)[0]
    assert (index_of(row), row["instruction"]) == (3, "fix it")


def test_pictures_named_by_urls(tmp_path, monkeypatch):
    """With what the package installs: `aiohttp`, by which `datasets` reads URLs, is none of it."""
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    answers = {f"/{index}.png": picture_server.whole(as_bytes(index)["bytes"]) for index in range(2)}
    with picture_server.serving(answers) as server:
        # Text, and the type of `datasets` for pictures that lie elsewhere.
        urls = [f"{server.url}/0.png", server.url.replace("http", "HTTP") + "/1.png", f"{server.url}/none.png"]
        texts = write_parquet(
            tmp_path / "texts",
            "train",
            {"image": "string", "instruction": "string", "target": "string"},
            {"image": urls, "instruction": ["a", "b", "c"], "target": [urls[1]] * 3},
        )
        lying = {"image": [{"bytes": None, "path": url} for url in urls], "instruction": ["a", "b", "c"]}
        kinds = datasets.Features({"image": datasets.Image(), "instruction": datasets.Value("string")})
        (tmp_path / "pictures").mkdir()
        pyarrow.parquet.write_table(
            datasets.Dataset.from_dict(lying, features=kinds).with_format("arrow")[:],
            tmp_path / "pictures" / "a.parquet",
        )
        for folder in (texts, tmp_path / "pictures"):
            rows = load_rows(str(folder), limit=2)
            assert [index_of(row) for row in rows] == [index_of(row) for row in rows.map(lambda row: row)] == [0, 1]
            with pytest.raises(
                ValueError, match="Row 2 of .*none.png' cannot be used: the server answers 404 Not Found"
            ):
                load_rows(str(folder))
        (row,) = load_rows(str(texts), limit=1, measured=True)
        assert row["target"].getpixel((0, 0)) == (1, 100, 200)


def test_rows_hold_pictures_as_the_package_opens_them(tmp_path):
    """Upright, in sRGB and RGB, after whatever is done with the rows; saved they are ordinary pictures."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGBA", (9, 6), (200, 100, 50, 255)).save(
        tmp_path / "a.png", exif=exif, icc_profile=rgb_profile(ADOBE_RGB)
    )
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "instruction": "x"}', encoding="utf-8")
    rows = load_rows(str(tmp_path))
    expected = load_picture(tmp_path / "a.png")
    for changed in (
        rows,
        rows.select([0]),
        rows.filter(lambda _: True),
        rows.map(lambda _: {"y": 1}),
        rows.shuffle(0),
    ):
        assert changed[0]["image"].mode == "RGB" and changed[0]["image"].tobytes() == expected.tobytes()
    rows.save_to_disk(str(tmp_path / "saved"))
    assert type(datasets.load_from_disk(str(tmp_path / "saved")).features["image"]) is datasets.Image


def test_pictures_named_by_paths(tmp_path):
    (tmp_path / "pictures").mkdir()
    for index in range(2):
        picture(index).save(tmp_path / "pictures" / f"{index}.png")
    lines = ["input_image_name,instruction", "pictures/0.png,a", f"{tmp_path}/pictures/1.png,b", "none.png,c", ",d"]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    rows = load_rows("realedit", path=tmp_path, limit=2, data_files="train.csv")
    assert [index_of(row) for row in rows] == [0, 1]
    with pytest.raises(ValueError, match="Row 2 of realedit cannot be used: its picture cannot be read.*none.png"):
        load_rows("realedit", path=tmp_path, data_files="train.csv")


def test_pictures_as_bytes(tmp_path):
    folder = tmp_path / "bytes"
    folder.mkdir()
    datasets.Dataset.from_dict({"image": [as_bytes(5)], "instruction": ["a"]}).to_parquet(folder / "train.parquet")
    assert index_of(load_rows(str(folder))[0]) == 5


@pytest.fixture
def folder(tmp_path):
    """Pictures with `metadata.jsonl`: rows 0 and 2 are good, with true edits and without."""
    (tmp_path / "pictures").mkdir()
    for index in range(7):
        picture(index).save(tmp_path / "pictures" / f"{index}.png")
    whole = (tmp_path / "pictures" / "3.png").read_bytes()
    (tmp_path / "pictures" / "3.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "pictures" / "4.png").unlink()
    picture(5, size=(500, 1)).save(tmp_path / "pictures" / "5.png")
    truth = {"actions": ["recolor", "remove"], "subjects": ["coat", "man"], "goals": ["red", "nothing"]}
    rows = [{"file_name": f"pictures/{index}.png", "instruction": f"edit {index}", **truth} for index in range(7)]
    rows[1]["instruction"] = ""
    rows[2].update(NO_TRUTH)
    rows[6]["goals"] = ["red"]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


BAD = {
    1: "the instruction is ''",
    3: "cannot be used: this is no picture of a known format",
    4: "4.png.* cannot be used: there is no such file",
    5: "longer than 200:1",
    6: "2 actions, 2 subjects and 1 goals",
}


def test_a_bad_row_is_an_error_with_its_index(folder):
    with pytest.raises(ValueError, match=rf"^Row 1 of {folder} cannot be used: the instruction is ''\. .*on_bad_row"):
        load_rows(str(folder))


def test_bad_rows_are_skipped_by_choice_and_never_silently(folder, caplog):
    with caplog.at_level(logging.WARNING, LOGGER):
        rows = load_rows(str(folder), on_bad_row="skip")
    assert [index_of(row) for row in rows] == [0, 2]
    assert rows[0]["actions"] == ["recolor", "remove"] and rows[1]["actions"] is None
    *each, summary = caplog.messages
    assert [message.split()[1] for message in each] == [str(index) for index in BAD]
    for message, reason in zip(each, BAD.values()):
        assert re.search(reason, message)
    assert summary == f"5 rows of {folder} were left out, 2 remain. Left out: 1, 3, 4, 5, 6."


def test_rows_kept_as_they_are(folder):
    rows = load_rows(str(folder), on_bad_row="keep")
    assert len(rows) == 7 and rows[1]["instruction"] == "" and index_of(rows[2]) == 2
    assert set(rows["actions"]) == {None}
    for index in (3, 4):  # broken, and not there
        with pytest.raises(ValueError, match=f"{index}.png' cannot be used"):
            rows[index]
    assert load_rows(str(folder), on_bad_row="keep", limit=3)["instruction"][:] == rows["instruction"][:3]


@pytest.mark.parametrize("options", [{"limit": 0}, {"limit": "1"}, {"limit": 1.5}, {"seed": -1}, {"seed": "1"}])
@pytest.mark.parametrize("name", ["a folder", "scenes"])
def test_a_limit_or_a_seed_that_cannot_be_is_named(name, options):
    ((option, value),) = options.items()
    with pytest.raises(ValueError, match=f"`{option}` is a whole number of at least .*, not {value!r}"):
        load_rows(name, **options)


@pytest.mark.parametrize("name", ["a[1]", "a*", "a?"])
def test_what_is_a_pattern_to_datasets_is_a_name_here(tmp_path, name):
    """Or rows would be missing, or come from the folder beside it."""
    for index, folder in enumerate([tmp_path / name, tmp_path / "a1"]):
        folder.mkdir()
        picture(index).save(folder / "0.png")
        line = {"file_name": "0.png", "image": "0.png", "instruction": "x"}
        (folder / "metadata.jsonl").write_text(json.dumps(line))
    folder = tmp_path / name
    assert [index_of(row) for row in load_rows(str(folder / "metadata.jsonl"))] == [0]
    with pytest.raises(ValueError, match="give it another name"):
        load_rows(str(folder))
    (folder / "metadata.jsonl").rename(folder / "rows[1].jsonl")
    assert [index_of(row) for row in load_rows(str(folder / "rows[1].jsonl"))] == [0]
    assert [index_of(row) for row in load_rows(str(folder))] == [0]
    (folder / "rows[1].jsonl").unlink()
    (folder / "rows[1].csv").write_text("image,instruction\n0.png,x,y\n")
    for source in (folder, folder / "rows[1].csv"):
        with pytest.raises(ValueError, match="more cells than the table has columns"):
            load_rows(str(source))


def test_a_limit_and_an_order(folder, caplog):
    with caplog.at_level(logging.WARNING, LOGGER):
        assert len(load_rows(str(folder), limit=1)) == 1
        assert not caplog.messages
        orders = [[index_of(row) for row in load_rows(str(folder), "train", "skip", seed=seed)] for seed in range(6)]
    assert sorted(map(tuple, set(map(tuple, orders)))) == [(0, 2), (2, 0)]
    again = [[index_of(row) for row in load_rows(str(folder), "train", "skip", seed=seed)] for seed in range(6)]
    assert orders == again


def test_nothing_left_is_an_error(tmp_path):
    picture(0).save(tmp_path / "0.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "instruction": " "}))
    with pytest.raises(ValueError, match="no row that can be used"):
        load_rows(str(tmp_path), on_bad_row="skip")


def test_a_folder_that_was_saved_to_disk(folder, tmp_path_factory):
    saved = tmp_path_factory.mktemp("saved")
    rows = load_rows(str(folder), on_bad_row="skip")
    rows.save_to_disk(saved / "one")
    datasets.DatasetDict({"train": rows, "test": rows.select([1])}).save_to_disk(saved / "two")
    assert len(load_rows(str(saved / "one"))) == len(load_rows(str(saved / "two"))) == 2
    again = load_rows(str(saved / "two"), split="test")[0]
    assert (again["instruction"], again["goals"]) == ("edit 2", None)


def test_columns_by_other_names(tmp_path):
    columns = {"pic": [picture(1)], "ask": ["a"], "what": [["add"]], "who": [["hat"]], "how": [["top"]]}
    texts = datasets.List(datasets.Value("string"))
    features = datasets.Features(
        {"pic": datasets.Image(), "ask": datasets.Value("string"), "what": texts, "who": texts, "how": texts}
    )
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "train.parquet")
    named = {"image": "pic", "instruction": "ask", "actions": "what", "subjects": "who", "goals": "how"}
    row = load_rows(str(tmp_path), columns=named)[0]
    assert index_of(row) == 1 and row["instruction"] == "a"
    assert [row[name] for name in EDIT_COLUMNS] == [["add"], ["hat"], ["top"]]
    with pytest.raises(ValueError, match=r"no column for image \(image or .*it has \['pic', 'ask'"):
        load_rows(str(tmp_path))
    with pytest.raises(ValueError, match=r"no column for subjects \(subjects\), goals \(goals\)"):
        load_rows(str(tmp_path), columns={"image": "pic", "instruction": "ask", "actions": "what"})
    with pytest.raises(ValueError, match=r"no column for actions \(typo\)"):
        load_rows(str(tmp_path), columns={**named, "actions": "typo"})
    with pytest.raises(ValueError, match=r"`columns` names \['action'\]"):
        load_rows(str(tmp_path), columns={"action": "what"})


def test_scenes_from_seeds():
    rows = load_rows("scenes:complex=0.5,indirect=0.5", limit=5, seed=40)
    tasks = list(islice(sample_tasks(40, {"complex": 0.5, "indirect": 0.5}), 5))
    assert rows.column_names == ["image", "instruction", *EDIT_COLUMNS, "reasoning"]
    for row, task in zip(rows, tasks, strict=True):
        assert row["instruction"] == task.instruction and row["image"].tobytes() == task.image.tobytes()
        assert list(zip(*(row[name] for name in EDIT_COLUMNS))) == [(e.action, e.subject, e.goal) for e in task.edits]
    kinds = {sample_task(40 + i, "chained").instruction for i in range(20)}
    assert set(load_rows("scenes:chained=1", limit=20, seed=40)["instruction"][:]) == kinds


def test_scenes_with_a_second_picture():
    kinds = {"reference": 0.5, "simple": 0.5}
    rows = load_rows("scenes:reference=0.5,simple=0.5", limit=12, seed=40)
    tasks = list(islice(sample_tasks(40, kinds), 12))
    assert {len(task.references) for task in tasks} == {0, 1}
    for row, task in zip(rows, tasks, strict=True):
        assert row["instruction"] == task.instruction
        shown = [picture.tobytes() for picture in row["references"]]
        assert shown == [picture.tobytes() for picture in task.reference_images]
    first = next(iter(load_rows("scenes:reference=1", seed=40)))
    assert first["references"][0].tobytes() == sample_task(40, "reference").reference_images[0].tobytes()


def references_of(rows):
    return [[picture.getpixel((0, 0))[0] for picture in row["references"] or []] for row in rows]


@pytest.mark.parametrize("told", ["pictures", "paths"])
def test_references_of_a_data_set(tmp_path, told):
    for number in range(9):
        picture(number).save(tmp_path / f"{number}.png")
    lists = [[4, 5], [], [6]]
    cells = [[picture(n) if told == "pictures" else f"{n}.png" for n in numbers] for numbers in lists]
    kind = datasets.Image() if told == "pictures" else datasets.Value("string")
    features = {"image": kind, "instruction": datasets.Value("string"), "others": datasets.List(kind)}
    own = [picture(n) if told == "pictures" else f"{n}.png" for n in range(3)]
    table = {"image": own, "instruction": ["a", "b", "c"], "others": cells}
    datasets.Dataset.from_dict(table, features=datasets.Features(features)).to_parquet(tmp_path / "rows.parquet")
    read = load_rows(str(tmp_path / "rows.parquet"), columns={"references": "others"})
    assert references_of(read) == lists and read[0]["references"][0].mode == "RGB"
    one = load_rows(str(tmp_path / "rows.parquet"), limit=1, columns={"references": "others"})
    assert references_of(one) == [[4, 5]]
    assert "references" not in load_rows(str(tmp_path / "rows.parquet")).column_names


def test_references_beside_pictures_in_a_folder(tmp_path):
    for number in range(3):
        picture(number).save(tmp_path / f"{number}.png")
    row = {"file_name": "0.png", "instruction": "like the others", "references": ["1.png", "2.png"]}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    assert references_of(load_rows(str(tmp_path))) == [[1, 2]]


def test_references_that_cannot_be_read(tmp_path):
    picture(0).save(tmp_path / "0.png")
    path = tmp_path / "metadata.jsonl"
    row = {"file_name": "0.png", "instruction": "like the other", "references": ["gone.png"]}
    path.write_text(json.dumps(row))
    with pytest.raises(ValueError, match="Row 0 of .* one of its references .* no file .*gone.png"):
        load_rows(str(tmp_path))
    path.write_text(json.dumps({**row, "references": "0.png"}))
    with pytest.raises(ValueError, match="`references` is a list of pictures in each row"):
        load_rows(str(tmp_path))


def test_splits_of_scenes_do_not_overlap():
    test = load_rows("scenes:simple=1", split="test", limit=2)
    assert test["instruction"][:] == [sample_task(TEST_SEEDS + i, "simple").instruction for i in range(2)]
    instructions = [
        load_rows("scenes", split=split, limit=4)["instruction"][:] for split in ("train", "validation", "test")
    ]
    assert len({tuple(each) for each in instructions}) == 3
    with pytest.raises(ValueError, match="outside of the split 'train'"):
        load_rows("scenes", limit=20, seed=899_999_990)
    with pytest.raises(ValueError, match="outside of the split 'validation'"):
        load_rows("scenes", split="validation", seed=100_000_000)
    with pytest.raises(ValueError, match="train, validation, test"):
        load_rows("scenes", split="dev")


def test_scenes_without_end():
    stream = load_rows("scenes:complex=1", seed=7)
    assert isinstance(stream, datasets.IterableDataset)
    finite = load_rows("scenes:complex=1", seed=7, limit=6)
    assert [row["instruction"] for row in islice(stream, 6)] == finite["instruction"][:]
    assert [row["instruction"] for row in islice(stream.skip(3), 3)] == finite["instruction"][3:]
    assert stream.features == finite.features
    copy = pickle.loads(pickle.dumps(stream))
    assert next(iter(copy))["goals"] == finite[0]["goals"]


@pytest.mark.parametrize(
    "name", ["scenes:", "scenes:hard=1", "scenes:complex", "scenes:complex=x", "scenes:complex=-1", "scenes:complex=0"]
)
def test_scenes_asked_for_wrongly(name):
    with pytest.raises(ValueError, match='like "scenes:.*=0.5,.*=0.5"'):
        load_rows(name, limit=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_bad_row": "ignore"}, "`on_bad_row`"),
        ({"limit": 0}, "`limit`"),
        ({"columns": {"image": "pic"}}, "Scenes are made"),
        ({"path": "x"}, "Scenes are made"),
        ({"measured": True}, "Scenes are made"),
        ({"revision": "main"}, "Scenes are made"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_rows("scenes", **{"limit": 1, **arguments})


def test_the_table_has_no_name_twice():
    assert len({source.path for source in SOURCES.values()}) == len(SOURCES)


def test_gedit_in_english(tmp_path):
    kinds = dict(GEDIT)
    columns = {
        "key": ["a", "b", "c", "d"],
        "task_type": ["color_alter", "color_alter", "style_change", "style_change"],
        "instruction": ["make it red", "变红", "make it art", "变艺术"],
        "instruction_language": ["en", "cn", "en", "cn"],
        "input_image": [picture(i) for i in range(4)],
        "input_image_raw": [picture(10 + i) for i in range(4)],
        "Intersection_exist": [True] * 4,
    }
    folder = write_parquet(tmp_path / "gedit", "train", kinds, columns)
    rows = load_rows("gedit", path=folder, measured=True)
    assert rows["instruction"][:] == ["make it red", "make it art"]
    assert [index_of(row) for row in rows] == [10, 12]
    assert (rows["row"][:], rows["category"][:]) == ([0, 2], ["color_alter", "style_change"])
    assert rows["target"][:] == [None, None]
    del kinds["instruction_language"], columns["instruction_language"]
    with pytest.raises(ValueError, match="no column 'instruction_language'"):
        load_rows("gedit", path=write_parquet(tmp_path / "other", "train", kinds, columns))


def test_complex_edit_at_its_hardest_or_by_choice(tmp_path):
    folder = complex_edit(tmp_path / "complex", 8, 8)
    assert load_rows("complexedit", path=folder)["instruction"][:] == ["8 at once"] * 2
    third = {"instruction": "edit.compound.2.compound_instruction"}
    assert load_rows("complexedit", path=folder, columns=third)["instruction"][:] == ["3 at once"] * 2


def test_a_nested_column_that_ends_early_is_a_bad_row(tmp_path, caplog):
    folder = complex_edit(tmp_path / "complex", 8, 3)
    with pytest.raises(ValueError, match="Row 1 of complexedit cannot be used: it has no edit.compound.7"):
        load_rows("complexedit", path=folder)
    assert len(load_rows("complexedit", path=folder, on_bad_row="skip")) == 1


@pytest.mark.parametrize(
    ("name", "split", "columns"),
    [
        ("psr", "test", ("source_image", "instruction", "human_edited_image")),
        ("realedit", "train", ("input_image", "instruction", "output_image")),
        ("ultraedit", "FreeForm_0", ("source_image", "edit_prompt", "edited_image")),
        ("magicbrush", "train", ("source_img", "instruction", "target_img")),
    ],
)
def test_targets_and_places_for_measuring(tmp_path, name, split, columns):
    image, instruction, target = columns
    kinds = {image: "image", instruction: "string", target: "image", "post_id": "string"}
    cells = {
        image: [picture(i) for i in range(4)],
        instruction: [f"edit {i}" for i in range(4)],
        target: [picture(100 + i) for i in range(3)] + [None],
        "post_id": list("abcd"),
    }
    folder = write_parquet(tmp_path / name, split, kinds, cells)
    rows = load_rows(name, path=folder, measured=True, seed=3)
    assert sorted(rows["row"][:]) == [0, 1, 2, 3] != rows["row"][:]
    for row in rows:
        assert row["instruction"] == f"edit {row['row']}" and index_of(row) == row["row"]
        assert row["category"] is None
        assert (row["target"] is None) == (row["row"] == 3)
        assert row["target"] is None or row["target"].convert("RGB").getpixel((0, 0))[0] == 100 + row["row"]
    assert "target" not in load_rows(name, path=folder).column_names


def test_a_folder_with_targets(tmp_path, caplog):
    for index in range(2):
        picture(index).save(tmp_path / f"{index}.png")
        picture(100 + index).save(tmp_path / f"after-{index}.png")
    lines = [
        {"file_name": f"{i}.png", "target_file_name": f"after-{i}.png", "instruction": f"edit {i}"} for i in range(2)
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = load_rows(str(tmp_path), measured=True)
    assert [row["target"].convert("RGB").getpixel((0, 0))[0] for row in rows] == [100, 101]
    (tmp_path / "after-0.png").write_bytes((tmp_path / "after-0.png").read_bytes()[:40])
    rows = load_rows(str(tmp_path), on_bad_row="skip", measured=True)
    assert rows["instruction"][:] == ["edit 1"]
    assert "Row 0 of" in caplog.text and "of its target" in caplog.text


def test_sentences_have_their_truth_and_no_pictures():
    rows = load_rows("sentences:chained=1", limit=5)
    sentence = sample_sentence(3, "chained")
    assert rows[3] == {
        "instruction": sentence.instruction,
        "actions": [edit.action for edit in sentence.edits],
        "subjects": [edit.subject for edit in sentence.edits],
        "goals": [edit.goal for edit in sentence.edits],
        "reasoning": sentence.reasoning,
        "requests": list(sentence.requests),
    }
    stream = load_rows("sentences:chained=1", seed=1)
    assert [row["instruction"] for row in islice(stream, 4)] == rows["instruction"][1:]
    test = load_rows("sentences:noisy=1", split="test", limit=1)
    assert test["instruction"][0] == sample_sentence(TEST_SEEDS, "noisy").instruction


BIN = {"action": "remove", "subject": "bin", "goal": "nothing"}


def test_sentences_and_a_file_of_rows_in_turn(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"instruction": "no bin please", "edits": [BIN]}) + "\n")
    rows = load_rows("sentences:plain=0.5,file=0.5", limit=100, path=file)
    read = [row for row in rows if row["instruction"] == "no bin please"]
    assert 30 < len(read) < 70
    assert read[0] == {
        "instruction": "no bin please", "actions": ["remove"], "subjects": ["bin"], "goals": ["nothing"],
        "reasoning": None, "requests": None,
    }  # fmt: skip
    held_out = load_rows("sentences:plain=0.5,file=0.5", split="validation", limit=50, path=file)
    assert "no bin please" not in held_out["instruction"][:]


def test_training_draws_on_all_rows_of_a_file(tmp_path):
    """The data set without end that training reads, as well as the one of so many rows."""
    rows = [{"instruction": f"no {n}", "edits": [BIN], "requests": ["go"], "reasoning": "hm"} for n in range(5)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    drawn = list(islice(load_rows("sentences:file=1", path=file), 10))
    assert [row["instruction"] for row in drawn] == [f"no {n}" for n in range(5)] * 2
    assert drawn[0]["requests"] == ["go"] and drawn[0]["reasoning"] == "hm"
    assert load_rows("sentences:file=1", path=file, limit=10)["instruction"][:] == [
        row["instruction"] for row in drawn
    ]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("sentences", {"instruction": "x", "edits": []}, "no `path` but sentences"),
        ("sentences:file=1", {"instruction": "x"}, "Row 0 of .*: `edits` is missing"),
        ("sentences:file=1", {"instruction": "x", "edits": [{"verb": "add"}]}, "Row 0 of"),
        ("sentences:file=1", {"edits": []}, "`instruction` is missing"),
        ("sentences:file=1", {"instruction": None, "edits": []}, "`instruction` must be text, not null"),
        ("sentences:file=1", {"instruction": 5, "edits": []}, "`instruction` must be text"),
        ("sentences:file=1", {"instruction": " ", "edits": [BIN]}, "Row 0 of .* a text without words"),
        ("sentences:file=1", {"instruction": "x", "edits": []}, "Row 0 of .* has no edits"),
        ("sentences:file=1", {"instruction": "x", "edits": [{**BIN, "subject": ["a"]}]}, "subject` must be text"),
        ("sentences:file=1", {"instruction": "x", "edits": [{**BIN, "action": ""}]}, "a text without words"),
        ("sentences:file=1", {"instruction": "x", "edits": [BIN], "requests": "do it"}, "`requests` must be"),
        ("sentences:file=1", {"instruction": "x", "edits": [BIN], "requests": [""]}, "a text without words"),
        ("sentences:file=1", {"instruction": "x", "edits": [BIN], "reasoning": ["x"]}, "`reasoning` must be"),
        ("sentences:file=1", None, "no rows"),
    ],
)
def test_files_of_rows_that_cannot_be_read(name, line, message, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("" if line is None else json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=message):
        load_rows(name, limit=1, path=file)


def test_a_file_of_rows_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*rows.jsonl"):
        load_rows("sentences:file=1", path=tmp_path / "rows.jsonl")


def test_a_share_of_a_file_needs_the_file():
    with pytest.raises(ValueError, match="no `path` but sentences"):
        load_rows("sentences:file=1", limit=1)
