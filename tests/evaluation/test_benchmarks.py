import json

import pytest
from data_sets import write_data_set
from PIL import Image

from diffusers_r1.evaluation import SPLITS, read_samples
from diffusers_r1.evaluation.benchmarks import expand, short_name
from diffusers_r1.plan import Edit
from diffusers_r1.scenes import TEST_SEEDS, sample_task


@pytest.mark.parametrize("name", SPLITS)
def test_a_benchmark_of_the_hub_in_its_own_columns(name, tmp_path):
    folder = write_data_set(name, tmp_path / "copy", count=6)
    samples = list(read_samples(f"{name}={folder}"))
    assert sorted(sample.row for sample in samples) == list(range(6))
    for sample in samples:
        assert sample.id == f"{name}/{sample.row}"
        assert sample.image.mode == "RGB" and sample.image.getpixel((0, 0))[0] == sample.row
        assert sample.edits == sample.requests == ()
        assert (sample.target is None) == (name in ("gedit", "complexedit"))
    if name != "complexedit":
        assert samples[0].instruction.endswith(f" {samples[0].row}")


def test_a_limit_and_a_seed_choose_the_sample(tmp_path):
    name = f"ultraedit={write_data_set('ultraedit', tmp_path / 'copy', count=20)}"

    def rows(**options):
        return [sample.row for sample in read_samples(name, **options)]

    assert rows(limit=5) == rows(limit=5) == rows(limit=8)[:5]
    assert len(set(rows(limit=8))) == 8 and rows(limit=8) != rows(limit=8, seed=1)
    assert sorted(rows()) == list(range(20))


def test_rows_that_cannot_be_read_are_left_out(tmp_path):
    for index in range(3):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / f"{index}.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    edit = {"actions": ["recolor"], "subjects": ["coat"], "goals": ["red"]}
    lines = [{"file_name": f"{i}.png", "instruction": f"edit {i}", **edit} for i in range(3)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    samples = {sample.row: sample for sample in read_samples(str(tmp_path))}
    assert set(samples) == {0, 2}
    assert samples[2].edits == (Edit("recolor", "coat", "red"),)
    assert samples[2].requests == ("recolor coat: red",) and samples[2].benchmark == tmp_path.name


def test_rows_with_further_pictures_are_refused(tmp_path):
    for name in ("0", "other"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    row = {"file_name": "0.png", "references_file_names": ["other.png"], "instruction": "red like the other"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match="`references`, further pictures"):
        list(read_samples(str(tmp_path)))


def test_scenes_are_unseen_tasks_of_one_kind_with_their_truth():
    samples = list(read_samples("scenes-indirect", limit=3, seed=7))
    assert [sample.row for sample in samples] == [TEST_SEEDS + 7 + i for i in range(3)]
    for sample in samples:
        task = sample_task(sample.row, "indirect")
        assert (sample.instruction, sample.edits, sample.requests) == (task.instruction, task.edits, task.sub_requests)
        assert sample.image.tobytes() == task.image.tobytes()
        assert sample.target.tobytes() == task.target_image.tobytes()


def test_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    kinds = ["scenes-simple", "scenes-chained", "scenes-indirect", "scenes-complex"]
    assert expand(["scenes", "psr"]) == [*kinds, "psr"]
    assert expand([f"psr={tmp_path}", "org/name", "a=b"]) == [f"psr={tmp_path}", "org/name", "a=b"]
    assert [short_name(name) for name in ("psr", f"psr={tmp_path}", "org/name", "a=b")] == [
        "psr",
        "psr",
        "name",
        "a=b",
    ]
    for names, message in (
        (["psr", f"psr={tmp_path}"], "Two benchmarks are called psr"),
        (["scenes", "scenes-simple"], "Two benchmarks are called scenes-simple"),
        (["coco"], "'coco' is no benchmark"),
        (["psr=nowhere"], "no nowhere, where psr should be"),
    ):
        with pytest.raises(ValueError, match=message):
            expand(names)


@pytest.mark.parametrize("name", ["scenes-simple", "scenes-pointed"])
def test_a_folder_that_is_called_like_scenes_is_refused(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="rename the folder"):
        expand([str(tmp_path / name)])


def test_a_folder_is_called_by_its_name_however_it_is_reached(tmp_path, monkeypatch):
    (tmp_path / "mine" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine")
    assert short_name(".") == "mine" and short_name("inner/..") == "mine" and short_name("..") == tmp_path.name
