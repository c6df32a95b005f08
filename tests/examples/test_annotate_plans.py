"""A teacher annotates rows: behind a real server, loaded by the script, killed half-way, and failing in every way."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image
from tiny_models import tiny_planner, tiny_text_planner

from diffusers_r1.bundles.planners import load_planner, save_planner
from diffusers_r1.data import EDIT_COLUMNS, load_rows
from diffusers_r1.plan import Edit
from diffusers_r1.prompts import Prompts
from diffusers_r1.records import read
from diffusers_r1.tags import read_decomposition, write_decomposition


pytestmark = pytest.mark.tiny

SCRIPT = Path(__file__).parents[2] / "examples" / "annotate_plans.py"
SCENES = "imageedit-r1-scenes"
RIGHT = write_decomposition([Edit("recolor", "coat", "red")], "a coat")


def command(output_dir, *options) -> list[str]:
    return [sys.executable, str(SCRIPT), "--output_dir", str(output_dir), *map(str, options)]


def run(output_dir, *options, status=0, **environment) -> subprocess.CompletedProcess:
    """The script, run to its end; `environment` is added to that of the tests."""
    settings = {"capture_output": True, "text": True, "env": {**os.environ, **environment}}
    done = subprocess.run(command(output_dir, *options), **settings)
    assert done.returncode == status or status is None, done.stderr[-3000:]
    return done


def scenes(kind: str, limit: int) -> list:
    return ["--dataset_name", f"scenes:{kind}=1", "--dataset_limit", limit]


@pytest.fixture(autouse=True)
def surroundings(own_cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The folder of the shipped planner, which knows the scenes."""
    folder = tmp_path_factory.mktemp("teacher")
    save_planner(folder, *load_planner(SCENES))
    return folder


@pytest.fixture(scope="module")
def babbler(tmp_path_factory):
    """The folder of a planner of random weights, which answers nothing that can be read."""
    folder = tmp_path_factory.mktemp("babbler")
    model, processor = tiny_planner()
    model.generation_config.do_sample = True  # `transformers serve` samples only if the model's own settings do
    save_planner(folder, model, processor, Prompts(decompose="{instruction}"))
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of a `transformers serve` process, which loads what folder a request names."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("served") / "log"
    serve = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with log.open("w") as file:
        process = subprocess.Popen([*serve, "--device", "cpu"], stdout=file, stderr=file, env=environment)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/health"), process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


def wait_for(condition, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 180
    while not condition():
        assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.05)


class Server(ThreadingHTTPServer):
    """Only HTTP: answers `reply(body)`, which is `(status, text, headers)`; in place of the text a whole answer."""

    daemon_threads = True

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.asked = reply, []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.headers.get("Authorization"), body))
        status, text, headers = self.server.reply(body)
        said = text if isinstance(text, dict) else {"choices": [{"message": {"content": text}}]}
        said = {"model": "exact-name", **said} if status == 200 else {"error": {"message": text}}
        content = json.dumps(said).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """Makes a server of a reply; the test's end ends it."""
    running = []

    def start(reply) -> Server:
        server = Server(reply)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


def instruction_of(body: dict) -> str:
    """The instruction that a request is about: the end of the default prompt."""
    *_, words = (part["text"] for part in body["messages"][-1]["content"] if part["type"] == "text")
    return words.rpartition("Instruction: ")[2]


@pytest.fixture
def photos(tmp_path):
    """A folder of 4 pictures of different sizes with instructions, and no truth."""
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = []
    for index in range(4):
        Image.new("RGB", (20 + index, 10), (index, 90, 200)).save(folder / f"{index}.jpg")
        lines.append(json.dumps({"file_name": f"{index}.jpg", "instruction": f"edit {index}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def truth(rows) -> dict[str, list]:
    return {row["instruction"]: [row[name] for name in EDIT_COLUMNS] for row in rows}


def test_a_served_planner_annotates_scenes_right(served, teacher, tmp_path):
    folder = tmp_path / "annotated"
    task = [*scenes("simple", 8), "--model", teacher, "--prompts", teacher, "--concurrency", 3]
    done = run(folder, *task, "--base_url", served)
    assert done.stdout == f"{folder}: of 8 rows, 8 are annotated and 0 have failed.\n"
    assert "8/8" in done.stderr

    rows, source = load_rows(str(folder)), load_rows("scenes:simple=1", limit=8)
    assert truth(rows) == truth(source) and len(rows) == 8
    lines = read(folder / "metadata.jsonl")
    assert sorted(line["row"] for line in lines) == list(range(8))
    for line, row in zip(lines, rows, strict=True):
        assert row["image"].tobytes() == source[line["row"]]["image"].tobytes()
        assert line["model"].startswith(str(teacher))
        assert [edit.goal for edit in read_decomposition(line["raw"]).edits] == line["goals"]
    assert not (folder / "failed.jsonl").exists()

    before = (folder / "metadata.jsonl").read_bytes()
    again = run(folder, *task, "--base_url", "http://127.0.0.1:9/v1")  # where nobody listens: nothing is asked
    assert again.stdout == done.stdout and (folder / "metadata.jsonl").read_bytes() == before


def test_answers_that_cannot_be_read_fail_after_so_many_attempts(served, babbler, teacher, tmp_path):
    folder = tmp_path / "annotated"
    rows = [*scenes("simple", 3), "--base_url", served]
    babble = [*rows, "--model", babbler, "--prompts", babbler, "--max_new_tokens", 12, "--attempts", 3]
    done = run(folder, *babble, status=1)
    assert f"{folder}: of 3 rows, 0 are annotated and 3 have failed." in done.stdout
    assert "no <action> (3)" in done.stdout
    lines = read(folder / "failed.jsonl")
    assert sorted(line["row"] for line in lines) == [0, 1, 2] and not (folder / "metadata.jsonl").exists()
    instructions = load_rows("scenes:simple=1", limit=3)["instruction"][:]
    for line in lines:
        assert line["instruction"] == instructions[line["row"]] and line["model"].startswith(str(babbler))
        assert len(line["raw"]) == len(set(line["raw"])) == 3  # the first greedy, the others sampled
        assert line["faults"] == [read_without_reasoning(text) for text in line["raw"]]
        assert line["endings"][0] == "cut at --max_new_tokens"  # a sampled one may end by itself
        assert len(line["endings"]) == 3 and set(line["endings"]) <= {"cut at --max_new_tokens", ""}

    assert run(folder, *babble, status=1).stdout == done.stdout
    assert len(read(folder / "failed.jsonl")) == 3
    run(folder, *babble, "--retry_failed", "--attempts", 1, status=1)
    assert [len(line["raw"]) for line in read(folder / "failed.jsonl")] == [3, 3, 3, 1, 1, 1]

    better = run(folder, *rows, "--model", teacher, "--prompts", teacher, "--retry_failed")
    assert "3 are annotated and 0 have failed" in better.stdout
    assert truth(load_rows(str(folder))) == truth(load_rows("scenes:simple=1", limit=3))


def read_without_reasoning(text: str) -> list[dict]:
    faults = [asdict(fault) for fault in read_decomposition(text).faults]
    return [fault for fault in faults if fault != {"kind": "missing_tag", "tag": "think", "detail": ""}]


def test_a_killed_run_goes_on_with_each_row_exactly_once(served, teacher, tmp_path):
    folder, log = tmp_path / "annotated", tmp_path / "log"
    task = [*scenes("simple", 40), "--base_url", served, "--model", teacher, "--prompts", teacher, "--concurrency", 2]
    with log.open("w") as file:
        process = subprocess.Popen(command(folder, *task), stdout=file, stderr=file)
    wait_for(lambda: len(read(folder / "metadata.jsonl")) >= 5, process, log)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    kept = read(folder / "metadata.jsonl")
    assert 5 <= len(kept) < 40
    with (folder / "metadata.jsonl").open("a") as file:
        file.write('{"file_name": "pictures/00')  # what a crash in the middle of a line leaves
    (folder / "pictures" / "000039.png").write_bytes(b"half")

    done = run(folder, *task)
    assert f"{len(kept)}/40" in done.stderr
    lines = read(folder / "metadata.jsonl")
    failed = [line["row"] for line in read(folder / "failed.jsonl")]
    assert lines[: len(kept)] == kept
    assert sorted([line["row"] for line in lines] + failed) == list(range(40))
    rows, source = load_rows(str(folder)), load_rows("scenes:simple=1", limit=40)
    for line, row in zip(lines, rows, strict=True):
        assert row["image"].tobytes() == source[line["row"]]["image"].tobytes()
        assert row["instruction"] == source[line["row"]]["instruction"]


def test_a_planner_that_is_loaded_here(tmp_path):
    folder = tmp_path / "annotated"
    done = run(folder, *scenes("simple", 7), "--planner", SCENES, "--batch_size", 3)
    assert "7 are annotated and 0 have failed" in done.stdout
    rows = load_rows(str(folder))
    assert truth(rows) == truth(load_rows("scenes:simple=1", limit=7))
    lines = read(folder / "metadata.jsonl")
    assert [line["row"] for line in lines] == list(range(7))
    assert all(line["model"] == SCENES and "<think>" in line["raw"] for line in lines)


def test_a_planner_that_is_loaded_here_and_babbles(babbler, photos, tmp_path):
    folder = tmp_path / "annotated"
    options = ["--dataset_name", photos, "--planner", babbler, "--batch_size", 3, "--max_new_tokens", 8]
    assert "0 are annotated and 4 have failed" in run(folder, *options, "--attempts", 2, status=1).stdout
    lines = read(folder / "failed.jsonl")
    assert [line["row"] for line in lines] == [0, 1, 2, 3]
    assert all(len(set(line["raw"])) == 2 for line in lines)


def test_a_planner_that_does_not_see_is_refused(photos, tmp_path):
    save_planner(tmp_path / "blind", *tiny_text_planner(), Prompts())
    done = run(tmp_path / "annotated", "--dataset_name", photos, "--planner", tmp_path / "blind", status=1)
    assert "blind does not see pictures." in done.stderr


def test_what_a_server_is_asked_and_what_is_kept(server, photos, tmp_path):
    busy = iter([(429, "slow down", {"Retry-After": "0"})])
    answering = server(lambda body: next(busy, (200, RIGHT, {})))
    folder = tmp_path / "annotated"
    options = ["--dataset_name", photos, "--base_url", answering.url, "--model", "big", "--image_size", 16]
    run(folder, *options, "--concurrency", 2, OPENAI_API_KEY="secret")
    assert len(answering.asked) == 5
    assert {key for key, _ in answering.asked} == {"Bearer secret"}
    assert {(body["model"], body["temperature"], body["max_tokens"]) for _, body in answering.asked} == {
        ("big", 0, 1024)
    }
    rows = load_rows(str(folder))
    assert truth(rows) == {f"edit {index}": [["recolor"], ["coat"], ["red"]] for index in range(4)}
    assert all(row["image"].size == (16, 16) for row in rows)
    line = next(line for line in read(folder / "metadata.jsonl") if line["row"] == 2)
    assert line == {
        **{"file_name": "pictures/000002.png", "instruction": "edit 2"},
        **{"actions": ["recolor"], "subjects": ["coat"], "goals": ["red"]},
        **{"reasoning": read_decomposition(RIGHT).reasoning, "raw": RIGHT, "model": "exact-name", "row": 2},
        "finish_reason": None,
    }


@pytest.fixture
def composed(photos):
    """Of the first two of the pictures, one has further pictures."""
    lines = [json.loads(line) for line in (photos / "metadata.jsonl").read_text().splitlines()[:2]]
    lines[0]["references"], lines[1]["references"] = ["2.jpg", "3.jpg"], []
    (photos / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return photos


def test_further_pictures_of_a_row_are_shown_and_kept(server, composed, tmp_path):
    folder, answering = tmp_path / "annotated", server(lambda body: (200, RIGHT, {}))
    options = ["--dataset_name", composed, "--image_size", 64, "--base_url", answering.url, "--model", "big"]
    run(folder, *options, "--concurrency", 1)
    parts = [[part["type"] for part in body["messages"][-1]["content"]] for _, body in answering.asked]
    assert [each.count("image_url") for each in parts] == [3, 1]
    shown = [[one.size for one in row["references"]] for row in load_rows(str(folder))]
    assert shown == [[(64, 64)] * 2, []]
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == [
        *("000000-2.png", "000000-3.png", "000000.png", "000001.png")
    ]


def test_further_pictures_are_shown_to_a_planner_that_is_loaded_here(composed, tmp_path):
    folder, options = tmp_path / "annotated", ["--dataset_name", composed, "--image_size", 64]
    run(folder, *options, "--planner", SCENES, "--attempts", 1, status=None)
    assert len(read(folder / "metadata.jsonl")) + len(read(folder / "failed.jsonl")) == 2


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("nothing", {"kind": "missing_tag", "tag": "action", "detail": ""}),
        ("<action></action><subject></subject><goal></goal>", {"kind": "no_edit", "tag": "", "detail": ""}),
        (
            "<action>add; add</action><subject>hat</subject><goal>on the head</goal>",
            {"kind": "unequal_lists", "tag": "", "detail": "2, 1 and 1"},
        ),
        (f"Of course! {RIGHT}", {"kind": "text_outside", "tag": "", "detail": ""}),
    ],
)
def test_answers_that_are_no_truth(server, photos, tmp_path, text, fault):
    """Row 0 is annotated, the others are not: a folder of one picture is read as pictures all the same."""
    answering = server(lambda body: (200, RIGHT if instruction_of(body) == "edit 0" else text, {}))
    folder = tmp_path / "annotated"
    run(folder, "--dataset_name", photos, "--base_url", answering.url, "--model", "big", "--attempts", 2)
    assert len(answering.asked) == 1 + 3 * 2
    assert sorted(body["temperature"] for _, body in answering.asked) == [0] * 4 + [1.0] * 3
    for line in read(folder / "failed.jsonl"):
        assert line["raw"] == [text] * 2 and all(fault in faults for faults in line["faults"])
    assert load_rows(str(folder))["instruction"][:] == ["edit 0"]


def test_letters_that_cannot_be_written(server, photos, tmp_path):
    text = write_decomposition([Edit("write", "sign", "caf\u00e9 \ud800")])
    answering = server(lambda body: (200, text, {}))
    run(tmp_path / "out", "--dataset_name", photos, "--base_url", answering.url, "--model", "big")
    assert load_rows(str(tmp_path / "out"))[0]["goals"] == ["caf\u00e9 ?"]


@pytest.mark.parametrize("begin", ["", "</think>", "a coat</think>\n"])
def test_reasoning_that_the_template_opened_or_the_server_took_out(server, photos, tmp_path, begin):
    answering = server(lambda body: (200, begin + RIGHT.split("</think>")[1], {}))
    done = run(tmp_path / "out", "--dataset_name", photos, "--base_url", answering.url, "--model", "big")
    assert "4 are annotated and 0 have failed" in done.stdout and len(answering.asked) == 4
    reasoning = begin.removesuffix("\n").removesuffix("</think>") or None
    assert {line["reasoning"] for line in read(tmp_path / "out" / "metadata.jsonl")} == {reasoning}


def test_a_wrong_key_stops_the_run(server, photos, tmp_path):
    closed = server(lambda body: (401, "no such key: secret", {}))
    folder = tmp_path / "annotated"
    options = ["--dataset_name", photos, "--base_url", closed.url, "--model", "big", "--concurrency", 2]
    done = run(folder, *options, status=1, OPENAI_API_KEY="secret")
    *_, line = done.stderr.strip().splitlines()
    assert re.fullmatch(r"annotate_plans.py: error: .* 401 Unauthorized: no such key.*OPENAI_API_KEY\.", line)
    assert "secret" not in done.stderr and "Traceback" not in done.stderr
    assert len(closed.asked) <= 4 and not read(folder / "metadata.jsonl") and not read(folder / "failed.jsonl")


SOON = {"Retry-After": "0.01"}


def test_a_row_without_an_answer_is_asked_about_again(server, photos, tmp_path):
    away = {"edit 1"}
    moody = server(lambda body: (503, "not now", SOON) if instruction_of(body) in away else (200, RIGHT, {}))
    folder = tmp_path / "annotated"
    options = ["--dataset_name", photos, "--base_url", moody.url, "--model", "big"]
    done = run(folder, *options, status=1)
    assert "3 are annotated and 0 have failed" in done.stdout and "Without an answer: 1." in done.stdout
    assert "Row 1 got no answer" in done.stderr and "not now" in done.stderr
    away.clear(), moody.asked.clear()
    assert "4 are annotated" in run(folder, *options).stdout
    assert [instruction_of(body) for _, body in moody.asked] == ["edit 1"]


def test_a_server_that_is_down_is_left(server, tmp_path):
    broken = server(lambda body: (500, "out of memory", SOON))
    options = [*scenes("simple", 30), "--base_url", broken.url, "--model", "big", "--concurrency", 1]
    done = run(tmp_path / "annotated", *options, status=1)
    assert "out of memory" in done.stderr.splitlines()[-1] and len(broken.asked) == 10 * 11
    assert not read(tmp_path / "annotated" / "failed.jsonl")


@pytest.fixture
def sixty(tmp_path):
    folder = tmp_path / "sixty"
    folder.mkdir()
    for index in range(60):
        Image.new("RGB", (8, 8), (index, 90, 200)).save(folder / f"{index:02}.png")
    lines = [json.dumps({"file_name": f"{index:02}.png", "instruction": f"edit {index}"}) for index in range(60)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("filtered", [range(25), range(0, 60, 3), range(40, 60)])
def test_rows_that_a_server_refuses_for_good_are_passed_over(server, sixty, tmp_path, filtered):
    """In one start all others are annotated, wherever the refused ones stand, and these are not asked about again."""
    refused = {f"edit {index}" for index in filtered}
    strict = server(lambda body: (400, "content policy", {}) if instruction_of(body) in refused else (200, RIGHT, {}))
    options = ["--dataset_name", sixty, "--base_url", strict.url, "--model", "big", "--concurrency", 2]
    done = run(tmp_path / "annotated", *options)
    assert f"{60 - len(refused)} are annotated and {len(refused)} have failed" in done.stdout
    assert f"refused by the server ({len(refused)})" in done.stdout and len(strict.asked) == 60
    lines = read(tmp_path / "annotated" / "failed.jsonl")
    assert {line["instruction"] for line in lines} == refused and all(
        "content policy" in line["error"] for line in lines
    )
    assert run(tmp_path / "annotated", *options).stdout == done.stdout and len(strict.asked) == 60
    refused.clear()
    assert "60 are annotated" in run(tmp_path / "annotated", *options, "--retry_failed").stdout


def test_nothing_annotated_is_a_failure(server, photos, tmp_path):
    strict = server(lambda body: (422, "not an image", {}))
    options = ["--dataset_name", photos, "--base_url", strict.url, "--model", "big"]
    assert "0 are annotated and 4 have failed" in run(tmp_path / "annotated", *options, status=1).stdout


ENDINGS = {
    "edit 0": {"message": {"content": "<action>recolor", "role": "assistant"}, "finish_reason": "length"},
    "edit 1": {"message": {"content": "", "role": "assistant"}, "finish_reason": "content_filter"},
    "edit 2": {"message": {"content": None, "refusal": "I will not.", "role": "assistant"}, "finish_reason": "stop"},
    "edit 3": {
        "message": {"content": RIGHT.partition("</think>")[2], "reasoning_content": "a coat"},
        "finish_reason": "stop",
    },
}


def test_a_teacher_that_reasons_and_how_its_answers_end(server, photos, tmp_path):
    def reasoner(body):
        for name in ("max_tokens", "temperature"):
            if name in body:
                return 400, f"Unsupported parameter: '{name}' is not supported with this model.", {}
        return 200, {"choices": [ENDINGS[instruction_of(body)]]}, {}

    answering = server(reasoner)
    folder = tmp_path / "annotated"
    address = f"{answering.url}?api-version=2024-10-21"
    options = ["--dataset_name", photos, "--base_url", address, "--model", "o9", "--concurrency", 1]
    done = run(folder, *options, "--attempts", 2)
    assert "1 are annotated and 3 have failed" in done.stdout
    assert "cut at --max_new_tokens (1), filtered (1), declined by the model (1), " in done.stdout
    # Each field is named once, and all later rows are asked without.
    assert len(answering.asked) == 2 + 3 * 2 + 1
    assert all(body["max_completion_tokens"] == 1024 for _, body in answering.asked[2:])
    failed = {line["instruction"]: line for line in read(folder / "failed.jsonl")}
    assert failed["edit 0"]["finish_reasons"] == ["length"] * 2
    assert failed["edit 1"]["finish_reasons"] == ["content_filter"] * 2
    assert failed["edit 2"]["refusals"] == ["I will not."] * 2
    (line,) = read(folder / "metadata.jsonl")
    assert (line["finish_reason"], line["reasoning"], line["raw"]) == ("stop", "a coat", RIGHT)


def test_a_key_is_in_no_file_and_no_line(server, photos, tmp_path):
    """Even if the server repeats it, and the clients tell all that they do."""
    loose = server(
        lambda body: (400, "bad key sk-secret", {}) if instruction_of(body) == "edit 1" else (200, RIGHT, {})
    )
    folder = tmp_path / "annotated"
    options = ["--dataset_name", photos, "--base_url", loose.url, "--model", "big"]
    done = run(folder, *options, OPENAI_API_KEY="sk-secret", OPENAI_LOG="debug")
    assert {key for key, _ in loose.asked} == {"Bearer sk-secret"}
    assert "sk-secret" not in done.stdout + done.stderr
    assert not [path for path in folder.rglob("*") if path.is_file() and b"sk-secret" in path.read_bytes()]


def test_ctrl_c_ends_it_and_a_second_run_in_the_folder_is_refused(server, photos, tmp_path):
    waiting = threading.Event()
    slow = server(lambda body: (waiting.wait(60), (200, RIGHT, {}))[1])
    options = ["--dataset_name", photos, "--base_url", slow.url, "--model", "big"]
    folder = tmp_path / "annotated"
    process = subprocess.Popen(command(folder, *options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(slow.asked) < 4:
        assert process.poll() is None
        time.sleep(0.02)
    second = run(folder, *options, status=1)
    assert re.fullmatch(
        f"annotate_plans.py: error: .* is in use by process {process.pid}\\. .*", second.stderr.splitlines()[-1]
    )
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130 and time.monotonic() - begun < 2
    waiting.set()
    assert "4 are annotated" in run(folder, *options).stdout  # the lock went with the run


def test_other_rows_in_the_same_folder_are_refused(server, photos, tmp_path):
    answering = server(lambda body: (200, RIGHT, {}))
    folder = tmp_path / "annotated"
    ask = ["--base_url", answering.url, "--model", "big"]
    run(folder, "--dataset_name", photos, "--dataset_limit", 2, *ask)
    done = run(folder, *scenes("simple", 2), *ask, status=1)
    assert re.search(r"error: row [01] is '.*' here and 'edit [01]' in .*another --output_dir", done.stderr)
    assert len(answering.asked) == 2
    run(folder, "--dataset_name", photos, *ask)  # more of the same rows
    assert len(answering.asked) == 4


def test_rows_that_cannot_be_read(server, photos, tmp_path):
    (photos / "2.jpg").write_bytes(b"no picture")
    answering = server(lambda body: (200, RIGHT, {}))
    options = ["--dataset_name", photos, "--base_url", answering.url, "--model", "big"]
    done = run(tmp_path / "annotated", *options, status=1)
    assert "error: Row 2 of" in done.stderr and not answering.asked
    assert "of 3 rows, 3 are annotated" in run(tmp_path / "annotated", *options, "--on_bad_row", "skip").stdout
    named = ["--dataset_columns", '{"instruction": "prompt"}']
    assert "no column for instruction" in run(tmp_path / "other", *options, *named, status=1).stderr


def test_rows_without_pictures_are_refused_before_anything_is_written(tmp_path):
    options = ["--dataset_name", "sentences", "--dataset_limit", 2, *ASK]
    done = run(tmp_path / "annotated", *options, status=1)
    assert "error: sentences has no pictures" in done.stderr and not (tmp_path / "annotated").exists()


def test_prompts_that_cannot_be_read_are_refused_before_anything_is_written(photos, tmp_path):
    (photos / "prompts.json").write_text("[")
    done = run(tmp_path / "annotated", "--dataset_name", photos, "--prompts", photos, *ASK, status=2)
    assert "--prompts: " in done.stderr and "prompts.json cannot be read" in done.stderr
    assert not (tmp_path / "annotated").exists()


ASK = ["--base_url", "http://127.0.0.1:9/v1", "--model", "big"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset_name", "psr"], "one of the arguments --base_url --planner is required"),
        (["--dataset_name", "psr", "--base_url", "http://x", "--planner", "y"], "not allowed with"),
        (["--dataset_name", "psr", "--base_url", "http://x"], "needs the --model"),
        (["--dataset_name", "psr", "--base_url", "x", "--model", "big"], "begins with http"),
        (["--dataset_name", "psr", *ASK, "--batch_size", "2"], "--batch_size goes with --planner"),
        (["--dataset_name", "psr", "--planner", "y", "--model", "big"], "--model goes with --base_url"),
        (["--dataset_name", "psr", "--planner", "y", "--concurrency", "2"], "--concurrency goes with --base_url"),
        (["--dataset_name", "psr", *ASK, "--attempts", "0"], "0 is below 1"),
        (["--dataset_name", "psr", *ASK, "--dataset_limit", "-1"], "-1 is below 1"),
        (["--dataset_name", "psr", *ASK, "--dataset_columns", "instruction"], "no JSON object"),
        (["--dataset_name", "psr", *ASK, "--dataset_columns", '{"instruction": 3}'], "no JSON object"),
        (["--dataset_name", "psr", *ASK, "--prompts", "nowhere"], "there is no nowhere/prompts.json"),
        (["--dataset_name", "scenes:simple=1", *ASK], "need --dataset_limit"),
        (ASK, "required: --dataset_name"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, options, message):
    done = run(tmp_path / "annotated", *options, status=2)
    assert message in done.stderr and not (tmp_path / "annotated").exists()


def test_a_folder_of_something_else_is_left_alone(photos, tmp_path):
    before = sorted(photos.iterdir())
    for folder in (photos, photos / "metadata.jsonl"):
        done = run(folder, "--dataset_name", photos, *ASK, status=2)
        assert "is there and holds something else" in done.stderr
    assert sorted(photos.iterdir()) == before
