"""A data set is edited: workers and the whole run killed half-way, rows that fail, folders of other runs."""

import importlib.util
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
import numpy as np
import psutil
import pytest
import ray
import tiny_models
import torch
from openai_server import EDITS, planner_replies, planning, scripted
from PIL import Image
from ray.cluster_utils import Cluster

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.bundles import AGENTS
from diffusers_r1.bundles.planners import load_planner, save_planner
from diffusers_r1.data import load_rows
from diffusers_r1.endpoints import EndpointError
from diffusers_r1.images.reading import Unreachable
from diffusers_r1.many import RowFailed, Settings, edit_data_set, engine, folder, vllm, workers
from diffusers_r1.many.shards import RowState, attempt, generator_of, read_row
from diffusers_r1.prompts import Prompts
from diffusers_r1.records import Failure, append, only_one_in, patiently, read
from diffusers_r1.scenes import sample_task
from diffusers_r1.tags import write_decomposition, write_sequence


SCRIPT = Path(__file__).parents[2] / "examples" / "edit_dataset.py"
SCENES = "imageedit-r1-scenes"


def load_script():
    spec = importlib.util.spec_from_file_location("edit_dataset", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()


def command(output_dir, *options) -> list[str]:
    return [sys.executable, str(SCRIPT), "--output_dir", str(output_dir), *map(str, options)]


def run(output_dir, *options, status=0) -> subprocess.CompletedProcess:
    done = subprocess.run(command(output_dir, *options), capture_output=True, text=True)
    assert done.returncode == status, done.stderr[-3000:]
    return done


def files(output_dir: Path) -> list[str]:
    return sorted(path.name for path in (output_dir / "data").iterdir())


def listed_rows(output_dir: Path) -> list[int]:
    return [row for line in read(output_dir / "files.jsonl") for row in line["rows"]]


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
            if "EditWorker" in " ".join(child.cmdline()):
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
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)  # which a run takes as a kill, since Ray's farewell would take long
    assert process.wait(30) == 130 and time.monotonic() - begun < 2
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
        generator = generator_of(RowState(row["row"]), 0)
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
def test_multi_turn_and_what_the_editor_does_not_take(tmp_path):
    task = ["--dataset_name", "scenes:simple=1", "--dataset_limit", 4, "--seed", 7]
    done = run(tmp_path / "bad", *task, "--set", "colour=1", status=1)
    assert "StableDiffusionInstructPix2PixPipeline takes no `colour`" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and not files(tmp_path / "bad")

    done = run(tmp_path / "good", *task, "--turns", "multi")
    assert "4 are edited and 0 have failed" in done.stdout
    rows = sorted(datasets.load_dataset(str(tmp_path / "good"), split="train"), key=lambda row: row["row"])
    for row, source in zip(rows, load_rows("scenes:simple=1", limit=4), strict=True):
        assert row["edited_image"].size == source["image"].size and row["instruction"] == source["instruction"]
        assert EditPlan.from_dict(json.loads(row["plan"])).instruction == source["instruction"]
        assert row["seed"] == generator_of(RowState(row["row"]), 7).initial_seed()


def settings(output_dir, **options):
    return Settings(output_dir, {"dataset_name": "scenes"}, "imageedit-r1-scenes", **options)


@pytest.fixture
def begun(tmp_path):
    """The folder of a run of three rows that stands before its first file."""
    begun = tmp_path / "begun"
    folder.make_folder(settings(begun))
    return begun


def test_a_run_is_gone_on_with_on_the_same_base_of_its_planner(begun):
    with pytest.raises(ValueError, match="planner_base was None, not 'another'"):
        folder.make_folder(settings(begun, planner_base="another"))


INSTRUCTIONS = ["one", "two", "three"]


def write(begun: Path, *indices: int, instructions=INSTRUCTIONS) -> dict:
    plan = EditPlan("x", (), ("x",))
    rows = [RowState(i, instructions[i], plan=plan, edited=Image.new("RGB", (8, 8), (i, 0, 0))) for i in indices]
    (written,) = folder.write_file({"row": rows}, begun, 0)["written"]
    return json.loads(written)


def test_a_file_that_was_finished_just_before_a_crash_counts(begun):
    folder.record_shard(begun, write(begun, 0))
    name = write(begun, 1, 2)["file"]
    assert folder.edited_rows(begun, INSTRUCTIONS) == {0, 1, 2}
    assert read(begun / "files.jsonl")[-1] == {"file": name, "rows": [1, 2]}
    assert folder.edited_rows(begun, INSTRUCTIONS) == {0, 1, 2} and len(read(begun / "files.jsonl")) == 2


def test_no_row_is_in_two_files(begun):
    folder.record_shard(begun, write(begun, 0, 1))
    kept = files(begun)
    write(begun, 1, 2)  # of a worker that died after writing, its rows having come out otherwise
    assert len(files(begun)) == 2
    assert folder.edited_rows(begun, INSTRUCTIONS) == {0, 1} and files(begun) == kept


def test_a_file_that_was_taken_away_is_made_again(begun):
    folder.record_shard(begun, write(begun, 0, 1))
    (begun / "data" / files(begun)[0]).unlink()
    assert folder.edited_rows(begun, INSTRUCTIONS) == set()


def test_a_batch_written_twice_is_one_file(begun):
    assert write(begun, 0, 1) == write(begun, 0, 1)
    assert len(files(begun)) == 1


def test_other_rows_in_the_same_folder_are_refused(begun):
    folder.record_shard(begun, write(begun, 0, 1))
    with pytest.raises(ValueError, match="is of other rows"):
        folder.edited_rows(begun, ["one", "another", "three"])
    assert folder.edited_rows(begun, ["one"]) == {0, 1}  # fewer of the same
    with pytest.raises(ValueError, match="is of other rows"):  # the first is gone, and others have moved up
        folder.edited_rows(begun, ["two"])


def test_rows_that_have_moved_to_where_another_one_failed_are_refused(begun):
    failed = RowState(0, "one", error="read: no picture", failure=Failure.REFUSED)
    unread = RowState(1, error="read: the instruction is None", failure=Failure.REFUSED)
    (written,) = folder.write_file({"row": [failed, unread]}, begun, 0)["written"]
    folder.record_shard(begun, json.loads(written))
    assert folder.edited_rows(begun, INSTRUCTIONS) == folder.edited_rows(begun, []) == set()
    with pytest.raises(ValueError, match="failed.jsonl is of other rows.* Row 0 was 'one', not 'two'"):
        folder.edited_rows(begun, ["two", "three"])


def test_other_settings_in_the_same_folder_are_refused(begun):
    folder.make_folder(settings(begun, editors=3, shard_size=9))
    with pytest.raises(ValueError, match="turns was 'single', not 'multi'.*another folder"):
        folder.make_folder(settings(begun, turns="multi"))
    with pytest.raises(ValueError, match="editor_arguments was {}, not {'guidance_scale': 2}"):
        folder.make_folder(settings(begun, editor_arguments={"guidance_scale": 2}))


def test_a_second_run_in_the_same_folder_is_refused(begun):
    with only_one_in(begun), pytest.raises(BlockingIOError, match="is in use by process"):
        edit_data_set(load_rows("scenes:simple=1", limit=1), settings(begun))


def outcomes(monkeypatch, tmp_path, written):
    """The rows that a run hands on before it gives up, or all of them, when its workers have answered this."""
    monkeypatch.setattr(engine, "shards", lambda *_: iter(written))
    seen = []
    with engine.tqdm(disable=True) as bar:
        try:
            for row, _ in patiently(engine.edited_or_failed(None, [], settings(tmp_path), bar)):
                seen.append(row)
        except RowFailed as error:
            return seen, str(error)
    return seen, None


def shard(rows=(), kind="fault", failed=()):
    lines = [{"row": row, "instruction": "x", "error": "edit: gone", "kind": kind} for row in failed]
    return {"file": f"{rows}.parquet", "rows": [*rows], "failed": lines}


def test_what_passes_rows_on_needs_no_torch():
    """Ray starts a process for each step; with models in each of them a laptop is full."""
    code = "import sys, diffusers_r1.many; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_when_a_run_gives_up(monkeypatch, tmp_path):
    # Ten rows in a row, in two shards.
    seen, error = outcomes(monkeypatch, tmp_path, [shard([0], failed=range(1, 7)), shard(failed=range(7, 40))])
    assert seen == list(range(11)) and error == "Row 10: edit: gone"
    # What cannot be read is passed over, and one that works begins the count anew.
    seen, error = outcomes(monkeypatch, tmp_path, [shard(failed=range(40), kind="refused")])
    assert len(seen) == 40 and error is None
    seen, error = outcomes(
        monkeypatch, tmp_path, [shard([9 * n], failed=range(9 * n + 1, 9 * n + 9)) for n in range(9)]
    )
    assert len(seen) == 81 and error is None
    # A shard whose workers died is one failure.
    dead = [shard(failed=range(4 * n, 4 * n + 4), kind=None) for n in range(12)]
    assert len(outcomes(monkeypatch, tmp_path, dead[:9])[0]) == 9
    seen, error = outcomes(monkeypatch, tmp_path, dead)
    assert len(seen) == 10 and error is not None
    assert outcomes(monkeypatch, tmp_path, [shard(failed=range(9), kind="hopeless")])[0] == []
    assert len(read(tmp_path / "failed.jsonl")) > 40  # all were recorded before


def test_a_row_that_fails_takes_no_other_with_it():
    calls = []

    def work(rows):
        calls.append([row.index for row in rows])
        if any(row.index == 2 for row in rows):
            raise RuntimeError("too\nlarge")
        return [replace(row, instruction="done") for row in rows]

    rows = [RowState(0), RowState(1, error="read: gone", failure=Failure.REFUSED), RowState(2), RowState(3)]
    done = attempt("edit", work, rows)
    assert [row.index for row in done] == [0, 1, 2, 3] and calls == [[0, 2, 3], [0], [2], [3]]
    assert [row.instruction for row in done] == ["done", "", "", "done"]
    assert [row.error for row in done] == ["", "read: gone", "edit: RuntimeError: too large", ""]
    assert [row.failure for row in done] == [None, Failure.REFUSED, Failure.FAULT, None]


@pytest.mark.parametrize(
    ("step", "error", "failure"),
    [
        ("read", OSError("gone"), Failure.REFUSED),
        ("read", Unreachable("the server answers 503"), Failure.OUTAGE),
        ("edit", RuntimeError("too large"), Failure.FAULT),
        ("edit", OSError("gone"), Failure.OUTAGE),
        ("edit", torch.OutOfMemoryError("full"), Failure.OUTAGE),
        ("plan", EndpointError("wrong key", Failure.HOPELESS), Failure.HOPELESS),
        ("plan", EndpointError("filtered", Failure.REFUSED), Failure.REFUSED),
    ],
)
def test_what_a_failure_says_about_other_rows(step, error, failure):
    def work(rows):
        raise error

    (done,) = attempt(step, work, [RowState(0)])
    assert done.failure is failure and done.error == f"{step}: {type(error).__name__}: {error}"


def test_a_shard_that_kills_its_workers_fails(begun):
    class Dying(workers.Worker):
        step = "edit"

        def __init__(self):
            self.settings = settings(begun)

        def work_through(self, rows):
            raise KeyboardInterrupt  # passes by as a death does

    (begun / "tries").mkdir()
    rows = [RowState(4), RowState(5, error="read: gone", failure=Failure.REFUSED)]
    for _ in range(workers.MOST_DEATHS):
        with pytest.raises(KeyboardInterrupt):
            Dying()({"row": rows})
    done = Dying()({"row": rows})["row"]
    assert done[0].error.startswith("edit: the worker died 3 times") and done[1] == rows[1]
    assert done[0].failure is None


def test_noise_of_a_row():
    seeds = [generator_of(RowState(index), run).initial_seed() for run in (0, 1) for index in range(50)]
    assert len(set(seeds)) == 100 and all(0 <= seed < 2**63 for seed in seeds)


def parsed(output_dir, *options):
    return script.parse_args(command(output_dir, "--dataset_name", "scenes", "--dataset_limit", 3, *options)[2:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--planners", "0"], "0 is below 1"),
        (["--planner_gpus", "1.5"], "neither a part of a GPU nor a whole number"),
        (["--editor_gpus", "-1"], "neither a part of a GPU nor a whole number"),
        (["--set", "steps"], "not of the form NAME=VALUE"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        parsed(tmp_path / "out", *options)
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"planner": "http://me:secret@host/v1"}, "holds no names, keys"),
        ({"planner": "org/model", "planner_model": "m"}, "goes with a `planner` behind an address"),
        ({"vllm": "org/model", "planner": "http://host/v1"}, "`vllm` is a planner whose weights"),
        ({"vllm": "http://host/v1"}, "`vllm` is a planner whose weights"),
        ({"seed": -1}, "`seed` must be a whole number"),
        ({"editor_batch_size": 1.5}, "`editor_batch_size` must be 1 or more"),
        ({"max_new_tokens": True}, "`max_new_tokens` must be 1 or more"),
        ({"turns": "double"}, "`turns` must be one of"),
    ],
)
def test_settings_that_cannot_be(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        settings(tmp_path, **options)


@pytest.mark.tiny
def test_engines_ask_in_the_words_that_are_kept_with_the_planner(tmp_path):
    own = Prompts(decompose="Own: {instruction}")
    save_planner(tmp_path, *tiny_models.tiny_planner(), own)
    assert vllm.prompts_in(vllm.find_planner(str(tmp_path))) == own
    (tmp_path / "prompts.json").unlink()  # what transformers saves has none
    assert vllm.prompts_in(tmp_path) == own
    shipped = vllm.find_planner("imageedit-r1-scenes-sft")
    assert vllm.prompts_in(shipped) == load_planner("imageedit-r1-scenes-sft")[2] != Prompts()


def test_engines_load_whole_models(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    for name in (tmp_path, "imageedit-r1-scenes"):
        with pytest.raises(OSError, match="no bundle and no adapter"):
            vllm.find_planner(str(name))


def test_numbers_of_numpy_are_the_same_settings(tmp_path):
    plain = settings(tmp_path, seed=2, max_new_tokens=4, editor_arguments={"num_inference_steps": 1})
    of_numpy = settings(
        tmp_path, seed=np.int64(2), max_new_tokens=np.int64(4), editor_arguments={"num_inference_steps": np.int64(1)}
    )
    assert plain.identity() == of_numpy.identity()


@pytest.mark.tiny
def test_a_worker_refuses_values_that_no_editor_can_work_with(tmp_path):
    pipe = workers.load_part(settings(tmp_path, device="cpu"), **dict.fromkeys(AGENTS))
    with pytest.raises(ValueError, match="`num_inference_steps` must be 1 or more"):
        workers.check_editing(pipe, settings(tmp_path, editor_arguments={"num_inference_steps": 0}))
    with pytest.raises(TypeError, match="`guidance_scale` of .* is a number, not str"):
        workers.check_editing(pipe, settings(tmp_path, editor_arguments={"guidance_scale": "much"}))


@pytest.mark.tiny
def test_a_planner_behind_an_address_plans_in_the_workers(tmp_path):
    task = sample_task(7, "chained")
    with planning({"": (write_decomposition(task.edits), write_sequence(task.sub_requests))}) as server:
        args = parsed(tmp_path / "out", "--planner", server.url, "--planner_model", "served", "--turns", "auto")
        found = script.settings_of(args)
        plan = workers.load_planning_part(found).plan(task.image, task.instruction)
    assert (plan.edits, plan.requests, plan.fallback) == (task.edits, task.sub_requests, False)
    assert found.turns == "auto" and found.identity()["planner_model"] == "served"


@pytest.mark.tiny
def test_what_a_reference_shows_reaches_the_planner(tmp_path):
    rows = load_rows("scenes:reference=1", limit=3, on_bad_row="keep")
    read = [read_row(rows, RowState(index, rows["instruction"][index])) for index in range(3)]
    worker = object.__new__(workers.PlanWorker)  # which takes its data set from Ray
    with scripted((200, planner_replies, {})) as server:
        worker.settings = settings(tmp_path, device="cpu", planner=server.url, planner_model="eyes")
        worker.pipe = workers.load_planning_part(worker.settings)
        assert [row.plan.edits for row in worker.work(read)] == [EDITS] * 3
    shown = [
        body.count(b"data:image/png;base64,") for path, _, body in server.requests if path.endswith("completions")
    ]
    assert shown == [2] * 6  # two pictures with both questions of each row


@pytest.mark.tiny
def test_an_editor_that_reads_one_picture_refuses_rows_with_references_at_the_start(tmp_path):
    pipe = workers.load_part(settings(tmp_path, device="cpu"), **dict.fromkeys(AGENTS))
    with pytest.raises(ValueError, match="takes one picture per result. Several are read by: Flux2Pipeline"):
        workers.check_editing(pipe, settings(tmp_path), references=True)


@pytest.mark.tiny
def test_references_reach_an_editor_that_reads_them(tmp_path):
    (row,) = load_rows("scenes:reference=1", limit=1, on_bad_row="keep")
    plan = EditPlan("paint it", (), ("paint it",))
    worker = object.__new__(workers.EditWorker)  # which takes its data set from Ray
    worker.settings = settings(tmp_path, device="cpu", editor_arguments={"num_inference_steps": 1})
    worker.pipe = workers.load_part(worker.settings, **dict.fromkeys(AGENTS), editor=tiny_models.tiny_flux2_klein())
    shown = [(row["image"],), (row["image"], *row["references"])]
    alone, beside = worker.work([RowState(0, pictures=pictures, plan=plan) for pictures in shown])
    (again,) = worker.work([RowState(0, pictures=shown[1], plan=plan)])
    assert beside.edited.tobytes() == again.edited.tobytes() != alone.edited.tobytes()


@pytest.mark.tiny
def test_an_editor_is_given_as_many_pictures_as_were_asked_for(tmp_path):
    plan = EditPlan("paint it", (), ("paint it",))
    worker = object.__new__(workers.EditWorker)  # which takes its data set from Ray
    worker.settings = settings(tmp_path, editor_batch_size=9, editor_arguments={"num_inference_steps": 1})
    worker.pipe = ImageEditR1Pipeline(None, None, tiny_models.tiny_pix2pix())
    seen = []
    worker.pipe.editor.unet.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    worker.work([RowState(row, pictures=(Image.new("RGB", (32, 32)),), plan=plan) for row in range(9)])
    assert seen == [3 * 9]  # under text and picture, under the picture, under neither


@pytest.mark.tiny
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ray_is_left_as_it_was_found(tmp_path):
    rows = load_rows("scenes:simple=1", limit=1)
    for was_on in (False, True):
        if was_on:
            ray.init("local", num_cpus=4, include_dashboard=False)
        with pytest.raises(ValueError, match="want 64 GPUs"):
            edit_data_set(rows, settings(tmp_path / "out", editor_gpus=64))
        assert ray.is_initialized() is was_on
    ray.shutdown()


def test_engines_are_not_given_rows_with_references(tmp_path):
    rows = load_rows("scenes:reference=1", limit=1)
    with pytest.raises(ValueError, match="these rows have `references`"):
        edit_data_set(rows, settings(tmp_path / "out", vllm="org/model"))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "photo.png").write_bytes(b"mine")
    with pytest.raises(SystemExit):
        parsed(tmp_path)
    assert "is there and holds something else" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is there and holds something else"):
        folder.make_folder(settings(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_the_options_are_the_settings(tmp_path):
    args = parsed(
        tmp_path / "out", "--set", "guidance_scale=2", "--editors", 3, "--dtype", "bfloat16", "--retry_failed"
    )
    found = script.settings_of(args)
    assert found.rows["dataset_name"] == "scenes" and found.output_dir.is_absolute()
    assert (found.editor_arguments, found.editors, found.dtype) == ({"guidance_scale": 2}, 3, "bfloat16")
    assert found.retry_failed and found.identity()["model"] == "imageedit-r1-scenes"
