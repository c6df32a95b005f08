"""The page under load: clients in and round the queue, clients that cancel or go away, large and broken uploads.

    python benchmarks/page_load.py --clients 50 --seconds 120

Every picture that comes back is compared with the one that a client gets alone, every answer that is none counts as lost, and
the memory that the page's process has taken for itself is looked at each second, swapped out or not (Linux says so). The script fails if a picture is wrong, an answer is lost, or, in runs
of two minutes or more, memory at the end of the last minute is more than a twentieth above that at its beginning. Who is told
that too many wait asks again. The models are those of the shipped bundle, and one request at a time works with them.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from threading import Event, Lock, Thread
from typing import Any
from uuid import uuid4

import httpx
import psutil
from PIL import Image
from report import print_table

from diffusers_r1.images.reading import FORMATS
from diffusers_r1.scenes import TEST_SEEDS, sample_task


sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from app_server import serve  # noqa: E402


PLANS = [{"requests": [f"make the background {colour}"]} for colour in ("pink", "teal", "brown")]
WAYS = ("queue", "queue", "round the queue", "round the queue", "cancels", "goes away", "large", "broken")
BUSY, PATIENCE = "people are waiting already", 600


class Client:
    """One person, or program, of the crowd."""

    def __init__(self, address: str, edit: int, files: dict[str, bytes]):
        self.http = httpx.Client(base_url=f"{address}gradio_api/", timeout=PATIENCE)
        self.edit, self.files = edit, files

    def upload(self, name: str) -> dict[str, Any]:
        [path] = self.http.post("upload", files={"files": (name, self.files[name])}).raise_for_status().json()
        return {"path": path, "meta": {"_type": "gradio.FileData"}}

    def straight(self, data: list[Any]) -> tuple[bytes | None, str]:
        """The edited picture, or what was said instead; past the queue."""
        answer = self.http.post("run/edit", json={"data": data})
        body = answer.json()
        return (self.picture(body["data"][0]), "") if answer.status_code == 200 else (None, str(body["error"]))

    def queued(self, data: list[Any]) -> tuple[bytes | None, str]:
        """The same by way of the queue."""
        event = self.http.post("call/edit", json={"data": data}).raise_for_status().json()["event_id"]
        lines = self.http.get(f"call/edit/{event}").text.splitlines()
        kind = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")][-1]
        body = json.loads([line.removeprefix("data: ") for line in lines if line.startswith("data: ")][-1])
        return (self.picture(body[0]), "") if kind == "complete" else (None, str(body))

    def cancelled(self, data: list[Any]) -> None:
        session = uuid4().hex
        join = {"data": data, "fn_index": self.edit, "session_hash": session}
        event = self.http.post("queue/join", json=join).raise_for_status().json()["event_id"]
        with self.http.stream("GET", f"queue/data?session_hash={session}") as lines:
            next(lines.iter_lines())
            cancel = {"session_hash": session, "fn_index": self.edit, "event_id": event}
            self.http.post("cancel", json=cancel).raise_for_status()

    def gone(self, data: list[Any]) -> None:
        """Asks, and does not wait for the answer."""
        try:
            self.http.post("run/edit", json={"data": data}, timeout=0.2)
        except httpx.TimeoutException:
            pass

    def picture(self, file: dict[str, Any]) -> bytes:
        return self.http.get(file["url"]).raise_for_status().content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=120)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder) / "log") as address:
        [server] = psutil.Process().children()
        config = httpx.get(f"{address}config", timeout=PATIENCE).json()
        edit = next(one["id"] for one in config["dependencies"] if one["api_name"] == "edit")
        files = make_files()
        alone = Client(address, edit, files)
        jobs = [(number, seed) for number in range(len(PLANS)) for seed in range(4)]
        truth = {
            job: pixels(alone.queued([alone.upload("scene.png"), PLANS[job[0]], "single", job[1]])[0]) for job in jobs
        }
        counts, memory = crowd(args, address, edit, files, truth, server)
    report(args, counts, memory)


def make_files() -> dict[str, bytes]:
    scene, large = io.BytesIO(), io.BytesIO()
    sample_task(TEST_SEEDS).image.save(scene, "PNG")
    Image.linear_gradient("L").resize((5800, 4350)).convert("RGB").save(large, "JPEG")
    return {"scene.png": scene.getvalue(), "large.jpg": large.getvalue(), "broken.png": scene.getvalue()[:300]}


def pixels(content: bytes | None) -> bytes:
    assert content is not None
    with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
        return picture.tobytes()


def crowd(args, address, edit, files, truth, server) -> tuple[Counter, list[float]]:
    """What came of all requests, and the server's memory in MiB, second by second."""
    counts, lock, over, memory = Counter(), Lock(), Event(), []
    end = time.monotonic() + args.seconds

    def watch() -> None:
        while not over.wait(1):
            memory.append(taken(server.pid))

    def live(number: int) -> None:
        client, dice = Client(address, edit, files), random.Random(number)
        while time.monotonic() < end:
            way = dice.choice(WAYS)
            job = dice.choice(list(truth))
            try:
                outcome = act(client, way, job, truth)
            except Exception as error:
                outcome = f"lost: {type(error).__name__}: {error}"
            with lock:
                counts[way, outcome] += 1
            if outcome == "busy":
                time.sleep(dice.uniform(0.5, 2))

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    with ThreadPoolExecutor(args.clients) as pool:
        list(pool.map(live, range(args.clients)))
    over.set()
    watcher.join()
    return counts, memory


def taken(pid: int) -> float:
    """MiB that a process has taken for itself. Pages of files are left out: a busy system drops them and brings them back."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    said = dict(line.split(":", 1) for line in lines)
    return sum(int(said[name].split()[0]) for name in ("RssAnon", "VmSwap")) / 2**10


def act(client: Client, way: str, job: tuple[int, int], truth: dict[tuple[int, int], bytes]) -> str:
    name = {"large": "large.jpg", "broken": "broken.png"}.get(way, "scene.png")
    data = [client.upload(name), PLANS[job[0]], "single", job[1]]
    if way == "cancels":
        client.cancelled(data)
        return "gone"
    if way == "goes away":
        client.gone(data)
        return "gone"
    picture, said = client.straight(data) if way == "round the queue" else client.queued(data)
    if picture is not None:
        return "right" if name == "scene.png" and pixels(picture) == truth[job] else "wrong"
    if BUSY in said:
        return "busy"
    refusal = {"large.jpg": "5800 x 4350 pixels", "broken.png": "cannot be used"}.get(name)
    return "refused" if refusal and refusal in said else f"lost: {said}"


def report(args: argparse.Namespace, counts: Counter, memory: list[float]) -> None:
    kinds = ("right", "refused", "busy", "gone", "wrong")
    rows = []
    for way in dict.fromkeys(WAYS):
        found = {kind: counts[way, kind] for kind in kinds}
        lost = sum(n for (one, outcome), n in counts.items() if one == way and outcome.startswith("lost"))
        rows.append({"way": way, **found, "lost": lost})
    print_table(rows)
    last = memory[-60:]
    quarter = max(1, len(last) // 4)
    before, after = median(last[:quarter]), median(last[-quarter:])
    figures = {"MiB at first": memory[0], "MiB, most": max(memory), "last minute begins": before, "ends": after}
    print_table([{"clients": args.clients, "seconds": args.seconds, **figures}])
    for (way, outcome), number in counts.items():
        if outcome.startswith("lost"):
            print(f"{number} x {way}: {outcome[:300]}", file=sys.stderr)
    if any(row["wrong"] or row["lost"] for row in rows) or (args.seconds >= 120 and after > 1.05 * before):
        raise SystemExit("a picture is wrong, an answer is lost, or memory grows")


if __name__ == "__main__":
    main()
