import json
import os
import signal
import subprocess
import sys

import pytest

from diffusers_r1 import records


ROWS = [{"id": "a", "score": 1.5}, {"id": "b", "score": None}, {"id": "ü\u2028\n;", "deep": {"list": [1, "x"]}}]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.jsonl"


def test_what_is_appended_is_read(path):
    for row in ROWS:
        records.append(path, row)
    assert records.read(path) == records.read(str(path)) == ROWS
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") == len(ROWS) and "ü" in text  # people read it, too


def test_no_file_has_no_rows(path):
    assert records.read(path) == records.read_fields(path, {"id": str}) == []


def test_a_file_torn_anywhere_goes_on(path):
    for row in ROWS:
        records.append(path, row)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        kept = records.read(path)
        assert kept == ROWS[: len(kept)] and len(kept) >= whole[:length].count(b"\n")
        records.append(path, {"id": "next"})
        assert records.read(path) == [*kept, {"id": "next"}]


def test_a_long_torn_line_is_cut_off(path):
    records.append(path, {"id": "a"})
    with path.open("ab") as file:
        file.write(b'{"id": "' + b"x" * 200_000)
    records.append(path, {"id": "b"})
    assert records.read(path) == [{"id": "a"}, {"id": "b"}]


def test_zeros_that_a_power_cut_leaves_are_cut_off(path):
    path.write_bytes(b'{"id": "a"}\n' + bytes(100))
    assert records.read(path) == [{"id": "a"}]
    records.append(path, {"id": "b"})
    assert records.read(path) == [{"id": "a"}, {"id": "b"}]


def test_lone_surrogates_survive(path):
    records.append(path, {"text": "a\ud800b"})
    assert records.read(path) == [{"text": "a\ud800b"}]


@pytest.mark.parametrize("line", ["{'id': 1}", "[1]", "{", "7", "[" * 10**5])
def test_a_broken_line_in_the_middle_is_named(path, line):
    path.write_text('{"id": "a"}\n\n' + line + '\n{"id": "b"}\n')
    with pytest.raises(ValueError, match="Line 3 of .*rows.jsonl"):
        records.read(path)


@pytest.mark.parametrize(
    ("row", "error"),
    [({"a": float("nan")}, ValueError), ({"a": float("inf")}, ValueError), ({"a": object()}, TypeError)],
)
def test_what_json_cannot_hold_is_refused_and_leaves_the_file_alone(path, row, error):
    records.append(path, {"id": "a"})
    with pytest.raises(error):
        records.append(path, row)
    assert records.read(path) == [{"id": "a"}]


@pytest.mark.parametrize("content", ["", "ü\r\nline\n", b"\x00\xff", json.dumps(ROWS)])
def test_a_whole_file(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(b"old and longer than the new one" * 10)
    records.write_whole(str(path), content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path, monkeypatch):
    def fail(_):
        raise OSError("disk full")

    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        records.write_whole(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_new_file_has_the_usual_rights(tmp_path):
    records.write_whole(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


class Failed(Exception):
    def __init__(self, kind):
        self.kind = kind


REFUSED, FAULT, OUTAGE, HOPELESS = map(Failed, records.Failure)


@pytest.mark.parametrize(
    ("results", "handed_on"),
    [
        ([1, 2, 3], 3),
        ([OUTAGE] * 9 + [1] + [OUTAGE] * 9, 19),
        ([OUTAGE] * 9 + [REFUSED] + [OUTAGE] * 9, 19),
        ([REFUSED] * 40, 40),
        ([1, OUTAGE, 1] * 20, 60),
    ],
)
def test_a_run_that_goes_on(results, handed_on):
    assert len(list(records.patiently(enumerate(results)))) == handed_on


@pytest.mark.parametrize(
    ("results", "handed_on"),
    [
        ([1, *[OUTAGE] * 12, 1], 11),
        ([1, *[OUTAGE, FAULT] * 6, 1], 11),
        ([1, HOPELESS, 1], 1),
        ([OUTAGE, REFUSED, HOPELESS], 2),
        ([1, KeyError("a fault of the program"), 1], 1),
    ],
)
def test_a_run_that_gives_up(results, handed_on):
    seen = []
    with pytest.raises((Failed, KeyError)):
        for row, _ in records.patiently(enumerate(results)):
            seen.append(row)
    assert seen == list(range(handed_on))


HOLDER = """
import sys, time
from diffusers_r1.records import only_one_in
with only_one_in(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_belongs_to_one_process_until_it_ends_or_is_killed(tmp_path):
    folder = tmp_path / "new" / "run"
    with records.only_one_in(folder), pytest.raises(BlockingIOError, match=f"in use by process {os.getpid()}"):
        with records.only_one_in(folder):
            pass
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match=f"process {holder.pid}\\b"), records.only_one_in(folder):
            pass
        holder.send_signal(signal.SIGKILL)
    with records.only_one_in(folder):
        pass


def test_known_fields_are_checked_and_become_what_they_are(path):
    records.append(path, {"id": "a", "pair": [1, 2], "said": "\ud800"})
    with path.open("ab") as file:
        file.write(b"\n")
    records.append(path, {"id": "b", "pair": [1]})
    kinds = {"id": str, "pair": tuple[int, int]}
    with pytest.raises(ValueError, match=r"rows.jsonl, line 3: `pair` must be a list of 2"):
        records.read_fields(path, kinds)
    path.write_bytes(path.read_bytes().splitlines()[0])
    assert records.read_fields(path, kinds) == [{"id": "a", "pair": (1, 2), "said": "\ud800"}]
    with pytest.raises(ValueError, match="line 1: `other` is missing"):
        records.read_fields(path, {"other": int})
