"""The list of a run's files, and the files themselves."""

import pytest
from PIL import Image

from diffusers_r1 import EditPlan
from diffusers_r1.many.folder import begin, edited_rows, failed_rows, record_shard, summarize, write_file
from diffusers_r1.many.shards import RowState


@pytest.mark.parametrize("listed", [False, True])
def test_a_file_counts_for_the_rows_it_was_made_of_alone(tmp_path, listed):
    """Also one that was finished just before a crash, which nobody has listed yet."""
    (tmp_path / "data").mkdir()
    plan = EditPlan("make it red", (), ("make it red",))
    row = RowState(0, "make it red", plan=plan, edited=Image.new("RGB", (4, 4), "red"))
    write_file({"row": [row]}, tmp_path, run_seed=0)
    if listed:
        assert edited_rows(tmp_path, ["make it red"]) == {0}
    with pytest.raises(ValueError, match="is of other rows"):
        edited_rows(tmp_path, ["make it blue"])
    assert edited_rows(tmp_path, ["make it red"]) == {0}


def test_a_row_that_a_server_failed_at_has_no_result_yet(tmp_path):
    rows = [("refused", "outage"), ("outage", "refused"), ("hopeless",), ("fault",), (None,)]
    for row, kinds in enumerate(rows):
        for kind in kinds:
            record_shard(tmp_path, {"rows": [], "failed": [{"row": row, "error": "gone", "kind": kind}]})
    assert failed_rows(tmp_path).keys() == {1, 3, 4}
    done = summarize(tmp_path, 6, {5})
    assert (done.edited, done.failed, done.missing) == (1, 3, 2)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("run.json", "[]", "run.json must be an object"),
        ("run.json", '{"a"', "run.json cannot be read as JSON"),
        ("files.jsonl", '{"rows": [0]}\n', "files.jsonl, line 1: `file` is missing"),
        ("files.jsonl", '{"file": "x", "rows": 3}\n', "files.jsonl, line 1: `rows` must be a list"),
        (
            "failed.jsonl",
            '{"row": 0, "error": "x"}\n{"row": [1]}\n',
            "failed.jsonl, line 2: `row` is missing, or no int",
        ),
    ],
)
def test_a_file_that_is_not_what_we_wrote_is_named(tmp_path, name, text, said):
    (tmp_path / "data").mkdir()
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        begin(tmp_path, {})
        edited_rows(tmp_path, [])
        failed_rows(tmp_path)
