"""A run is killed, gone on with, and asks servers that fail: nothing is lost, nothing is made or judged twice."""

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from data_sets import write_data_set
from openai_server import said, scripted
from PIL import Image

from diffusers_r1 import endpoints, records
from diffusers_r1.endpoints import Endpoint, EndpointError
from diffusers_r1.evaluation import (
    LocalEditor,
    Pixels,
    ScenesExact,
    ServedEditor,
    VIEScore,
    bare,
    oracle,
    read_samples,
    write_pictures,
    write_plans,
    write_report,
    write_samples,
    write_scores,
)
from diffusers_r1.evaluation.runs import (
    EDITS,
    SAMPLES,
    SCORES,
    digest,
    open_sample,
    read_benchmarks,
    read_edits,
    read_lines,
    read_scores,
    read_variants,
    unscored,
)
from diffusers_r1.remote_editor import RemoteEditor


pytestmark = pytest.mark.tiny


@pytest.fixture
def run(edited, tmp_path):
    return shutil.copytree(edited, tmp_path / "run")


def judged(folder, url, **options):
    """The folder's values by picture, once a judge at `url` has scored it."""
    with Endpoint(url, "judge", max_retries=10) as endpoint:
        write_scores(folder, VIEScore(endpoint, concurrency=8, **options))
    return {row["picture"]: row["values"] for row in read_scores(folder)}


def command(folder, url):
    words = ["evaluate", "--stage", "judge", "--judge", "viescore", "--judge_url", url, "--judge_model", "judge"]
    code = "import sys; from diffusers_r1.commands import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", code, *words, "--output_dir", str(folder)]


def test_samples_are_written_with_their_pictures_and_once(tmp_path):
    name = f"psr={write_data_set('psr', tmp_path / 'copy', count=6)}"
    run = tmp_path / "run"
    run.mkdir()
    write_samples(run, name, limit=3)
    written = (run / SAMPLES).read_bytes()
    write_samples(run, name, limit=3)
    assert (run / SAMPLES).read_bytes() == written
    expected = list(read_samples(name, limit=3))
    assert list(read_lines(run)) == [sample.id for sample in expected]
    for line, sample in zip(read_lines(run).values(), expected):
        opened = open_sample(run, line)
        assert (opened.id, opened.instruction) == (sample.id, sample.instruction)
        assert opened.image.tobytes() == sample.image.tobytes() and opened.target.tobytes() == sample.target.tobytes()

    write_samples(run, name, limit=5)
    assert len(read_lines(run)) == 5 and len(records.read(run / SAMPLES)) == 5
    write_samples(run, name, limit=2)
    assert list(read_lines(run)) == [sample.id for sample in expected[:2]]


def photos(folder, *rows):
    """A folder of pictures, each of one shade, with what is asked of them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"file_name": f"{number}.png", "instruction": said} for number, (_, said) in enumerate(rows)]
    for line, (shade, _) in zip(lines, rows):
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(folder / line["file_name"])
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return str(folder)


def without_content(path):
    """The file as it was written before lines had `content`."""
    lines = [{name: value for name, value in line.items() if name != "content"} for line in records.read(path)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("second", [(2, "green"), (3, "blue")])
def test_another_data_set_under_the_same_name_is_refused(older, second, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    write_samples(run, photos(tmp_path / "a" / "photos", (1, "red"), (2, "blue")))
    if older:
        without_content(run / SAMPLES)
    before = (run / SAMPLES).read_bytes(), read_benchmarks(run)
    with pytest.raises(ValueError, match="photos/1, .*another data set of that name, or its rows have changed"):
        write_samples(run, photos(tmp_path / "b" / "photos", (1, "red"), second, (9, "new")))
    assert before == ((run / SAMPLES).read_bytes(), read_benchmarks(run))


def test_rows_that_were_added_are_read(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    write_samples(run, photos(tmp_path / "photos", (1, "red"), (2, "blue")))
    without_content(run / SAMPLES)
    write_samples(run, photos(tmp_path / "photos", (1, "red"), (2, "blue"), (3, "green")))
    asked = {id: line["instruction"] for id, line in read_lines(run).items()}
    assert asked == {"photos/0": "red", "photos/1": "blue", "photos/2": "green"}
    assert len(records.read(run / SAMPLES)) == 3


def test_the_same_request_is_carried_out_once(tmp_path, pipe):
    run, editor = tmp_path, LocalEditor("tiny", pipe, {}, batch_size=4)
    write_samples(run, "scenes-simple", limit=4)
    for method in (oracle(), bare()):
        write_plans(run, method)
    for turns in ("single", "multi"):
        write_pictures(run, oracle(), editor, turns)
    rows = read_edits(run)
    assert len(rows) == 8 and len({row["picture"] for row in rows}) == 4  # one request: single is multi
    assert len(list((run / "pictures").rglob("*.png"))) == 4
    write_pictures(run, bare(), editor)
    write_pictures(run, bare(), editor, seed=1)
    assert len({row["picture"] for row in read_edits(run) if row["method"] == "base"}) == 8
    assert [(variant["method"], variant["turns"], variant["seed"]) for variant in read_variants(run)] == [
        ("oracle", "single", 0),
        ("oracle", "multi", 0),
        ("base", "single", 0),
        ("base", "single", 1),
    ]


def test_editing_goes_on_where_it_stopped_after_a_torn_line(tmp_path, pipe):
    run, editor = tmp_path, LocalEditor("tiny", pipe, {}, batch_size=2)
    write_samples(run, "scenes-simple", limit=6)
    write_plans(run, bare())

    class Stopped(Exception):
        pass

    class StopsHalfway(LocalEditor):
        def make(self, jobs, turns):
            for number, made in enumerate(super().make(jobs, turns)):
                if number == 3:
                    raise Stopped
                yield made

    with pytest.raises(Stopped):
        write_pictures(run, bare(), StopsHalfway("tiny", pipe, {}, batch_size=2))
    times = {path: path.stat().st_mtime_ns for path in (run / "pictures").rglob("*.png")}
    assert len(times) == 3
    with (run / EDITS).open("ab") as file:
        file.write(b'{"sample": "scenes-si')
    write_pictures(run, bare(), editor)
    rows = records.read(run / EDITS)
    assert len(rows) == 6 == len({row["sample"] for row in rows})
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert all((run / row["picture"]).exists() for row in rows)


def test_other_weights_make_other_pictures_and_the_old_ones_do_not_count(tmp_path, pipe):
    write_samples(tmp_path, "scenes-simple", limit=2)
    write_plans(tmp_path, bare())
    for weights in (1, 2):
        write_pictures(tmp_path, bare(), LocalEditor("tiny", pipe, {"weights": weights}))
    assert len(records.read(tmp_path / EDITS)) == 4 and len(read_edits(tmp_path)) == 2
    assert {row["settings"] for row in read_edits(tmp_path)} == {read_variants(tmp_path)[0]["settings"]}


def test_200_pictures_are_judged_eight_at_a_time(run, server):
    judge = server(delay=0.01)
    values = judged(run, judge.url)
    counts = judge.counts()
    assert len(values) == 200 and None not in values.values()
    assert counts["calls"] == 400 and 2 <= counts["most"] <= 8
    row = read_scores(run)[0]
    assert row["model"] == "judge-2026-01-01" and len(row["raw"]) == 2 and len(row["prompts"]) == 64
    judged(run, judge.url)
    assert judge.counts()["calls"] == 400


def test_what_a_server_refuses_for_good_is_recorded_and_passed_over(run, server):
    """A third of all pictures, in whatever order: one start is enough for the rest."""
    judge = server(refuse_every=3)
    assert judged(run, judge.url)
    rows = read_scores(run)
    refused = [row for row in rows if row.get("kind") == "refused"]
    assert len(rows) == 200 and 60 < len(refused) < 160 and all("400" in row["error"] for row in refused)
    assert all(row["values"] for row in rows if row not in refused)
    assert unscored(run) == (len(refused), 200)


def test_a_killed_run_goes_on_and_nothing_is_judged_twice(run, edited, tmp_path, server):
    judge = server(delay=0.05)
    with subprocess.Popen(command(run, judge.url), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + 300
        while len(records.read(run / SCORES)) < 40:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    before = records.read(run / SCORES)
    assert 40 <= len(before) < 200
    done = subprocess.run(command(run, judge.url), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    after = records.read(run / SCORES)
    assert after[: len(before)] == before
    assert len(after) == 200 == len({row["picture"] for row in after})
    assert judge.counts()["calls"] <= 400 + 2 * 8  # those that were under way
    whole = shutil.copytree(edited, tmp_path / "whole")
    assert judged(whole, server().url) == {row["picture"]: row["values"] for row in after}


def test_a_server_that_fails_a_third_of_its_calls_changes_no_score(run, edited, tmp_path, server):
    flaky, steady = server(fail_every=3), server()
    expected = judged(shutil.copytree(edited, tmp_path / "steady"), steady.url)
    assert judged(run, flaky.url) == expected
    counts = flaky.counts()
    assert counts["failed"] == counts["calls"] // 3 and counts["calls"] - counts["failed"] == 400
    assert sum(row["failed_calls"] for row in read_scores(run)) == counts["failed"]
    assert len(records.read(run / SCORES)) == 200


def test_a_server_that_breaks_a_third_of_its_answers_leaves_no_picture_without_a_figure(
    run, edited, tmp_path, server, monkeypatch
):
    monkeypatch.setattr(endpoints, "FIRST_WAIT", 0.01)
    breaking = server(break_every=3)
    assert judged(run, breaking.url) == judged(shutil.copytree(edited, tmp_path / "steady"), server().url)
    assert breaking.counts()["failed"] > 190 and unscored(run) == (0, 200)


def test_answers_that_cannot_be_read_have_no_figure_and_are_not_asked_for_at_the_next_start(run, server):
    judge = server(garble="always")
    assert set(judged(run, judge.url).values()) == {None}
    assert judge.counts()["calls"] == 200 * 3 and unscored(run) == (200, 200)
    judged(run, judge.url)
    assert judge.counts()["calls"] == 200 * 3


def test_a_wrong_key_ends_the_run_with_one_line(run, server):
    key = "sk-secret-7"
    judge = server(key=key)
    done = subprocess.run(command(run, judge.url), capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 1
    last = done.stderr.replace("\r", "\n").splitlines()[-1]
    assert "401" in last and "OPENAI_API_KEY" in last
    assert judge.counts()["calls"] <= 8 * 2 and not (run / SCORES).exists()
    rightly = subprocess.run(
        command(run, judge.url), capture_output=True, text=True, env={**os.environ, "OPENAI_API_KEY": key}
    )
    assert rightly.returncode == 0 and len(records.read(run / SCORES)) == 200
    assert key not in done.stderr + rightly.stdout + rightly.stderr
    assert not [path for path in run.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]


def test_a_server_that_is_down_ends_the_run_and_what_failed_is_asked_again(run, server):
    with Endpoint(server(fail_every=1).url, "judge", max_retries=0) as endpoint:
        with pytest.raises(EndpointError, match="429|503"):
            write_scores(run, VIEScore(endpoint, concurrency=2))
    rows = read_scores(run)
    assert len(rows) == 10 and all(row["values"] is None and row["error"] for row in rows)
    assert None not in judged(run, server().url).values()
    assert len(read_scores(run)) == 200


def test_what_a_remote_editor_fails_at_is_tried_at_the_next_start(tmp_path, server):
    write_samples(tmp_path, "scenes-simple", limit=6)
    write_plans(tmp_path, bare("remote"))
    flaky = RemoteEditor(server(fail_every=2).url, "closed", concurrency=1, max_retries=0)
    write_pictures(tmp_path, bare("remote"), ServedEditor(flaky))
    rows = read_edits(tmp_path)
    assert [row["picture"] is None for row in rows] == [False, True] * 3
    assert all(("error" in row) == (row["picture"] is None) for row in rows)
    assert unscored(tmp_path) == (3, 6)
    steady = server()
    write_pictures(tmp_path, bare("remote"), ServedEditor(RemoteEditor(steady.url, "closed", concurrency=1)))
    assert steady.counts()["calls"] == 3 and all(row["picture"] for row in read_edits(tmp_path))
    assert unscored(tmp_path) == (0, 6)
    write_samples(tmp_path, "scenes-simple", limit=4)  # of which another method may have pictures only
    assert unscored(tmp_path) == (0, 4)
    write_samples(tmp_path, "scenes-simple", limit=2)  # asked of fewer, which are there
    write_pictures(tmp_path, bare("remote"), ServedEditor(RemoteEditor(steady.url, "closed", concurrency=1)))
    write_samples(tmp_path, "scenes-simple", limit=6)
    assert unscored(tmp_path) == (0, 6) and read_variants(tmp_path)[0]["samples"] == 6


def test_figures_do_not_count_where_only_pictures_were_made(run, server):
    judged(run, server(refuse_every=3).url)
    assert unscored(run)[0] > 30 and unscored(run, judged=False) == (0, 200)


def test_a_second_run_in_the_same_folder_is_refused(run, server):
    with records.only_one_in(run):
        done = subprocess.run(command(run, server().url), capture_output=True, text=True)
    assert done.returncode == 2 and "is in use by process" in done.stderr.splitlines()[-1]
    assert not (run / SCORES).exists()


def test_pictures_without_a_figure_are_said_first_and_by_the_exit_code(run, server):
    done = subprocess.run(command(run, server(refuse_every=3).url), capture_output=True, text=True)
    missing = unscored(run)[0]
    assert done.returncode == 1 and f"{missing} of 200 results have no score" in done.stderr
    first, *_ = (run / "report.md").read_text().splitlines()
    assert first == f"# Evaluation: {missing} of 200 results have no score" and missing > 30
    done = subprocess.run(command(run, server().url), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (run / "report.md").read_text().startswith("# Evaluation: all 200 results have a score\n")


def test_ctrl_c_ends_an_evaluation(run, server):
    judge = server(delay=30)
    with subprocess.Popen(command(run, judge.url), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while judge.counts()["calls"] < 8:
            assert process.poll() is None
            time.sleep(0.05)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130 and time.monotonic() - begun < 2


def test_judging_by_a_server_needs_no_torch(run, server):
    words = command(run, server().url)
    words[2] = words[2].replace(
        "sys.exit(main(sys.argv[1:]))", "assert main(sys.argv[1:]) == 0; print('torch' in sys.modules)"
    )
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False", done.stderr[-2000:]


def test_equal_settings_have_one_digest():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
    assert len(digest("ä\ud800")) == 16


def test_a_picture_that_was_deleted_is_made_and_judged_again(tmp_path, pipe):
    editor = LocalEditor("tiny", pipe, {}, batch_size=1)
    write_samples(tmp_path, "scenes-simple", limit=2)
    write_plans(tmp_path, bare())
    write_pictures(tmp_path, bare(), editor)
    gone, kept = sorted((tmp_path / "pictures").rglob("*.png"))
    before, at = gone.read_bytes(), kept.stat().st_mtime_ns
    gone.unlink()
    write_scores(tmp_path, ScenesExact())  # of what there is
    assert len(read_scores(tmp_path)) == 1 and unscored(tmp_path) == (1, 2)
    write_report(tmp_path)
    write_pictures(tmp_path, bare(), editor)
    assert gone.read_bytes() == before and kept.stat().st_mtime_ns == at
    write_scores(tmp_path, ScenesExact())
    assert unscored(tmp_path) == (0, 2)


def test_another_picture_of_a_name_is_judged_again(tmp_path):
    """By a server that takes no seed."""
    replies = []
    for shade in (0, 100, 200):
        png = io.BytesIO()
        Image.new("RGB", (64, 64), (shade,) * 3).save(png, "PNG")
        replies.append((200, {"data": [{"b64_json": base64.b64encode(png.getvalue()).decode()}]}, {}))
    write_samples(tmp_path, "scenes-simple", limit=1)
    write_plans(tmp_path, bare())
    figures = []
    with scripted(*replies) as server:
        editor = ServedEditor(RemoteEditor(server.url, "closed"))
        for made in range(3):
            write_pictures(tmp_path, bare(), editor)
            assert unscored(tmp_path) == (made > 0, 1)
            for _ in range(2):
                write_scores(tmp_path, Pixels())
            (row,) = read_scores(tmp_path)
            figures.append(row["values"]["l1"])
            assert len(set(figures)) == len(figures) == len(records.read(tmp_path / SCORES))
            if made == 1:  # goes on from a run of before
                without_content(tmp_path / EDITS)
                without_content(tmp_path / SCORES)
                assert unscored(tmp_path) == (0, 1)
            next((tmp_path / "pictures").rglob("*.png")).unlink()


def test_a_picture_that_one_of_the_judges_has_not_seen_has_no_score(tmp_path, pipe, server):
    write_samples(tmp_path, "scenes-simple", limit=3)
    write_samples(tmp_path, photos(tmp_path / "photos", (1, "red")))
    write_plans(tmp_path, bare())
    write_pictures(tmp_path, bare(), LocalEditor("tiny", pipe, {}))
    write_scores(tmp_path, ScenesExact())
    assert unscored(tmp_path) == (1, 4)
    answers = [(200, said('{"score": [7, 5]}'), {})] * 2
    with scripted(*answers, (401, {"error": {"message": "wrong key"}}, {})) as judge:
        with Endpoint(judge.url, "judge") as endpoint, pytest.raises(EndpointError):
            write_scores(tmp_path, VIEScore(endpoint, concurrency=1))
    assert unscored(tmp_path) == (3, 4)
    judged(tmp_path, server().url)
    assert unscored(tmp_path) == (0, 4)  # the scenes' judge has nothing to say of a photo


def test_a_line_that_we_did_not_write_is_named_with_its_file(tmp_path, pipe):
    write_samples(tmp_path, "scenes-simple", limit=2)
    write_plans(tmp_path, bare())
    write_pictures(tmp_path, bare(), LocalEditor("tiny", pipe, {}))
    write_scores(tmp_path, ScenesExact())
    for name, field, value, message in (
        ("samples.jsonl", "instruction", 3, "`instruction` must be text, not a number"),
        ("samples.jsonl", "edits", [{"verb": "add"}], r"`edits\[0\]` has no `verb`"),
        ("benchmarks.jsonl", "ids", 3, "`ids` must be a list of text"),
        ("plans.jsonl", "plan", None, "`plan` must be an object"),
        ("variants.jsonl", "samples", "two", "`samples` must be a whole number"),
        ("edits.jsonl", "picture", 3, "`picture` must be text, not a number"),
        ("judges.jsonl", "metrics", 3, "`metrics` must be an object"),
        ("scores.jsonl", "values", {"exact": "yes"}, "`values.exact` must be a finite number"),
    ):
        whole = (tmp_path / name).read_text()
        first, *rest = records.read(tmp_path / name)
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in [{**first, field: value}, *rest]))
        with pytest.raises(ValueError, match=f"{name}, line 1: {message}"):
            write_report(tmp_path)
        (tmp_path / name).write_text(whole)
    (tmp_path / "samples.jsonl").write_text(whole_of_last(tmp_path / "samples.jsonl"))
    with pytest.raises(ValueError, match="samples.jsonl has no line of scenes-simple/"):
        write_report(tmp_path)


def whole_of_last(path):
    return path.read_text().splitlines(keepends=True)[-1]
