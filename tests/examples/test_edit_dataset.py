"""A data set is edited: workers and the whole run killed half-way, rows that fail, both formats, folders of other runs."""

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import datasets
import psutil
import pytest
from PIL import Image
from ray.cluster_utils import Cluster

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.data import load_rows
from diffusers_r1.records import append, read


SCRIPT = Path(__file__).parents[2] / "examples" / "edit_dataset.py"
SCENES = "imageedit-r1-scenes"


def load_script():
    spec = importlib.util.spec_from_file_location("edit_dataset", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


script = load_script()


def command(output_dir, *options) -> list[str]:
    return [sys.executable, str(SCRIPT), "--output_dir", str(output_dir), *map(str, options)]


def run(output_dir, *options, status=0) -> subprocess.CompletedProcess:
    done = subprocess.run(command(output_dir, *options), capture_output=True, text=True)
    assert done.returncode == status, done.stderr[-3000:]
    return done


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "data").iterdir())


def listed_rows(folder: Path) -> list[int]:
    return [row for line in read(folder / "files.jsonl") for row in line["rows"]]


@pytest.fixture(autouse=True)
def surroundings(own_cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def scenes(tmp_path):
    """A folder of 18 scenes as PNG files, of which row 5 is no picture and row 9 has no instruction."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    for index, row in enumerate(load_rows("scenes:simple=1", limit=18)):
        row["image"].save(folder / f"{index:02d}.png")
        instruction = "" if index == 9 else row["instruction"]
        append(folder / "metadata.jsonl", {"file_name": f"{index:02d}.png", "instruction": instruction})
    (folder / "05.png").write_bytes(b"no picture")
    return folder


def wait_for(condition, process: subprocess.Popen, log: Path):
    end = time.monotonic() + 300
    while not (found := condition()):
        assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.05)
    return found


def editors(process: subprocess.Popen) -> list[int]:
    """The editors among the processes that a run has started."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):  # it has ended since
            if "Editor" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


@pytest.fixture
def start():
    """Starts a process that is ended with the test, however that ends."""
    with ExitStack() as ends:

        def start(words: list[str], log: Path) -> subprocess.Popen:
            file = ends.enter_context(log.open("w"))
            process = ends.enter_context(subprocess.Popen(words, stdout=file, stderr=file))
            ends.callback(process.kill)
            return process

        yield start


@pytest.mark.tiny
def test_a_killed_run_goes_on_with_each_row_exactly_once(scenes, tmp_path, start):
    folder, log = tmp_path / "edited", tmp_path / "log"
    # Steps enough that the run does not end before it is killed.
    task = ["--dataset_name", scenes, "--shard_size", 3, "--editor_batch_size", 2, "--set", "num_inference_steps=20"]
    process = start(command(folder, *task), log)
    wait_for(lambda: read(folder / "files.jsonl"), process, log)
    os.kill(wait_for(lambda: editors(process), process, log)[0], signal.SIGKILL)
    survived = len(read(folder / "files.jsonl"))
    wait_for(lambda: len(read(folder / "files.jsonl")) > survived, process, log)  # another editor has taken over
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    kept = {name: (folder / "data" / name).read_bytes() for name in files(folder)}
    assert 0 < len(listed_rows(folder)) < 16
    (folder / "data" / ".half.tmp").write_bytes(b"half")

    done = run(folder, *task)
    assert f"{folder}: of 18 rows, 16 are edited and 2 have failed." in done.stdout
    assert kept == {name: (folder / "data" / name).read_bytes() for name in kept if (folder / "data" / name).exists()}
    assert files(folder) == sorted(line["file"] for line in read(folder / "files.jsonl"))
    failed = {line["row"]: line["error"] for line in read(folder / "failed.jsonl")}
    assert set(failed) == {5, 9} and len(read(folder / "failed.jsonl")) == 2
    assert failed[5].startswith("read: ") and failed[9] == "read: ValueError: the instruction is ''"
    rows = sorted(datasets.load_dataset(str(folder), split="train"), key=lambda row: row["row"])
    assert [row["row"] for row in rows] == [index for index in range(18) if index not in failed]
    assert sorted(listed_rows(folder)) == [row["row"] for row in rows]

    # The same pictures as the pipeline makes of the same rows, whatever was killed in between.
    pipe = ImageEditR1Pipeline.from_pretrained(SCENES)
    pipe.set_progress_bar_config(disable=True)
    for row in rows[:3]:
        source = Image.open(scenes / f"{row['row']:02d}.png")
        generator = script.generator_of(script.Row(row["row"]), 0)
        out = pipe(source, row["instruction"], generator=generator, num_inference_steps=20)
        assert generator.initial_seed() == row["seed"]
        assert json.loads(row["plan"]) == out.plans[0].to_dict()
        assert largest_difference(row["edited_image"], out.images[0]) <= 2  # batches are rounded otherwise

    before = (folder / "files.jsonl").read_bytes()
    again = run(folder, *task)
    assert again.stdout == done.stdout and (folder / "files.jsonl").read_bytes() == before


@pytest.fixture
def cluster():
    """Three nodes of three processors each: Ray's own, as on three machines, and here on one."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=3) for _ in range(2)]
    yield cluster, nodes
    cluster.shutdown()


@pytest.mark.tiny
def test_a_cluster_that_loses_a_machine_edits_each_row_once(cluster, tmp_path, start, monkeypatch):
    cluster, nodes = cluster
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    folder, log = tmp_path / "edited", tmp_path / "log"
    task = ["--dataset_name", "scenes:simple=1", "--dataset_limit", 24, "--shard_size", 2, "--editors", 2]
    process = start(command(folder, *task), log)
    wait_for(lambda: read(folder / "files.jsonl"), process, log)
    cluster.remove_node(nodes[0], allow_graceful=False)
    assert process.wait(300) == 0, log.read_text()[-3000:]
    assert "of 24 rows, 24 are edited and 0 have failed." in log.read_text()
    assert sorted(listed_rows(folder)) == list(range(24))
    assert sorted(row["row"] for row in datasets.load_dataset(str(folder), split="train")) == list(range(24))


def largest_difference(one: Image.Image, other: Image.Image) -> int:
    return max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True))


@pytest.mark.tiny
def test_webdataset_and_what_the_editor_does_not_take(tmp_path):
    folder = tmp_path / "edited"
    task = ["--dataset_name", "scenes:simple=1", "--dataset_limit", 4, "--output_format", "webdataset", "--seed", 7]
    done = run(folder, *task, "--set", "colour=1", status=1)
    assert "StableDiffusionInstructPix2PixPipeline takes no `colour`" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and not files(folder)

    done = run(tmp_path / "good", *task, "--turns", "multi")
    assert "4 are edited and 0 have failed" in done.stdout
    rows = datasets.load_dataset(str(tmp_path / "good"), split="train")
    assert [row["__key__"] for row in rows] == [f"{index:09d}" for index in range(4)]
    for row, source in zip(rows, load_rows("scenes:simple=1", limit=4)):
        assert row["png"].size == source["image"].size and row["json"]["instruction"] == source["instruction"]
        assert EditPlan.from_dict(row["json"]["plan"]).instruction == source["instruction"]
        assert row["json"]["seed"] == script.generator_of(script.Row(row["json"]["row"]), 7).initial_seed()


@pytest.fixture
def begun(tmp_path):
    """The folder of a run of three rows that stands before its first file."""
    folder = tmp_path / "begun"
    script.make_folder(parsed(folder))
    return folder


def parsed(folder, *options):
    return script.parse_args(command(folder, "--dataset_name", "scenes", "--dataset_limit", 3, *options)[2:])


INSTRUCTIONS = ["one", "two", "three"]


def write(folder: Path, *indices: int, output_format: str = "parquet", instructions=INSTRUCTIONS) -> dict:
    plan = EditPlan("x", (), ("x",))
    rows = [script.Row(i, instructions[i], plan=plan, edited=Image.new("RGB", (8, 8), (i, 0, 0))) for i in indices]
    (written,) = script.write_file({"row": rows}, folder, output_format, 0)["written"]
    return json.loads(written)


@pytest.mark.parametrize("output_format", ["parquet", "webdataset"])
def test_a_file_that_was_finished_just_before_a_crash_counts(begun, output_format):
    script.keep(begun, write(begun, 0, output_format=output_format))
    name = write(begun, 1, 2, output_format=output_format)["file"]
    assert script.edited_rows(begun, INSTRUCTIONS) == {0, 1, 2}
    assert read(begun / "files.jsonl")[-1] == {"file": name, "rows": [1, 2]}
    assert script.edited_rows(begun, INSTRUCTIONS) == {0, 1, 2} and len(read(begun / "files.jsonl")) == 2


def test_no_row_is_in_two_files(begun):
    script.keep(begun, write(begun, 0, 1))
    kept = files(begun)
    write(begun, 1, 2)  # of a worker that died after writing, its rows having come out otherwise
    assert len(files(begun)) == 2
    assert script.edited_rows(begun, INSTRUCTIONS) == {0, 1} and files(begun) == kept


def test_a_file_that_was_taken_away_is_made_again(begun):
    script.keep(begun, write(begun, 0, 1))
    (begun / "data" / files(begun)[0]).unlink()
    assert script.edited_rows(begun, INSTRUCTIONS) == set()


def test_a_batch_written_twice_is_one_file(begun):
    assert write(begun, 0, 1) == write(begun, 0, 1)
    assert len(files(begun)) == 1


def test_other_rows_in_the_same_folder_are_refused(begun):
    script.keep(begun, write(begun, 0, 1))
    with pytest.raises(SystemExit, match="is of other rows"):
        script.edited_rows(begun, ["one", "another", "three"])
    assert script.edited_rows(begun, ["one"]) == {0, 1}  # fewer of the same


def test_other_settings_in_the_same_folder_are_refused(begun):
    script.make_folder(parsed(begun, "--editors", 3, "--dataset_limit", 9))
    with pytest.raises(SystemExit, match="--turns was 'single', not 'multi'.*another --output_dir"):
        script.make_folder(parsed(begun, "--turns", "multi"))
    with pytest.raises(SystemExit, match="--set was {}, not {'guidance_scale': 2}"):
        script.make_folder(parsed(begun, "--set", "guidance_scale=2"))


def test_a_row_that_fails_takes_no_other_with_it():
    calls = []

    def work(rows):
        calls.append([row.index for row in rows])
        if any(row.index == 2 for row in rows):
            raise RuntimeError("too\nlarge")
        return [replace(row, instruction="done") for row in rows]

    rows = [script.Row(0), script.Row(1, error="read: gone"), script.Row(2), script.Row(3)]
    done = script.attempt("edit", work, rows)
    assert [row.index for row in done] == [0, 1, 2, 3] and calls == [[0, 2, 3], [0], [2], [3]]
    assert [row.instruction for row in done] == ["done", "", "", "done"]
    assert [row.error for row in done] == ["", "read: gone", "edit: RuntimeError: too large", ""]


def test_a_shard_that_kills_its_workers_fails(begun):
    class Dying(script.Worker):
        step = "edit"

        def __init__(self):
            self.args = parsed(begun)

        def work_through(self, rows):
            raise KeyboardInterrupt  # passes by as a death does

    (begun / "tries").mkdir()
    rows = [script.Row(4), script.Row(5, error="read: gone")]
    for _ in range(script.MOST_DEATHS):
        with pytest.raises(KeyboardInterrupt):
            Dying()({"row": rows})
    done = Dying()({"row": rows})["row"]
    assert done[0].error.startswith("edit: the worker died 3 times") and done[1] == rows[1]


def test_noise_of_a_row():
    seeds = [script.generator_of(script.Row(index), run).initial_seed() for run in (0, 1) for index in range(50)]
    assert len(set(seeds)) == 100 and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--planners", "0"], "0 is below 1"),
        (["--planner_gpus", "1.5"], "neither a part of a GPU nor a whole number"),
        (["--editor_gpus", "-1"], "neither a part of a GPU nor a whole number"),
        (["--set", "steps"], "not of the form NAME=VALUE"),
        (["--output_format", "csv"], "invalid choice: 'csv'"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        parsed(tmp_path / "out", *options)
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "photo.png").write_bytes(script.to_png(Image.new("RGB", (2, 2))))
    with pytest.raises(SystemExit):
        parsed(tmp_path)
    assert "is there and holds something else" in capsys.readouterr().err
    assert Image.open(io.BytesIO((tmp_path / "photo.png").read_bytes())).size == (2, 2)
