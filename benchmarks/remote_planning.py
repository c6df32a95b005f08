"""Planning behind an address: 16 pictures at once against one at a time, and a server's plans against the same model's here.

    python benchmarks/remote_planning.py speed --latency 0.5
    python benchmarks/remote_planning.py plans --tasks 100      # `transformers serve` with the shipped planner

speed: what a server that takes so long for an answer leaves of the difference; nothing is computed. plans: greedy, all must be
equal, or the script fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from PIL import Image
from report import print_table

from diffusers_r1.bundles.planners import load_planner, save_planner
from diffusers_r1.plan import Edit
from diffusers_r1.planners.plans import make_plans
from diffusers_r1.planners.remote import RemotePlanner
from diffusers_r1.prompts import Prompts
from diffusers_r1.scenes import TEST_SEEDS, sample_task
from diffusers_r1.tags import write_decomposition, write_sequence


sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
BOTH = write_decomposition([Edit("recolor", "coat", "red")]) + write_sequence(["make the coat red"])


class Slow(ThreadingHTTPServer):
    """Gives one answer that serves both agents, after a while."""

    daemon_threads, request_queue_size, latency = True, 64, 0.0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.server.latency)
        body = json.dumps({"choices": [{"message": {"content": BOTH}, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def speed(args: argparse.Namespace) -> list[dict[str, Any]]:
    server = Slow(("127.0.0.1", 0), Handler)
    server.latency = args.latency
    Thread(target=server.serve_forever, daemon=True).start()
    pictures = [Image.new("RGB", (64, 64))] * args.pictures
    seconds = {}
    for concurrency in (1, args.pictures):
        planner = RemotePlanner(f"http://127.0.0.1:{server.server_port}/v1", "m", None, concurrency)
        start = time.perf_counter()
        plans = make_plans(planner, None, pictures, ["make the coat red"] * args.pictures, Prompts())
        seconds[concurrency] = time.perf_counter() - start
        if any(plan.fallback for plan in plans):
            raise SystemExit("a plan is missing")
    return [
        {"at once": number, "pictures": args.pictures, "seconds": taken, "speed, ratio": seconds[1] / taken}
        for number, taken in seconds.items()
    ]


def plans(args: argparse.Namespace) -> list[dict[str, Any]]:
    from transformers_server import transformers_server

    planner, processor, prompts = load_planner(args.model, dtype="float32")
    tasks = [sample_task(TEST_SEEDS + number) for number in range(args.tasks)]
    task = [task.image for task in tasks], [task.instruction for task in tasks], prompts
    here = make_plans(planner, processor, *task, max_new_tokens=160)
    with tempfile.TemporaryDirectory() as folder:
        save_planner(Path(folder) / "planner", planner, processor, prompts)
        with transformers_server(Path(folder) / "log") as url:
            there = make_plans(
                RemotePlanner(url, f"{folder}/planner", None, args.concurrency), None, *task, max_new_tokens=160
            )
    different = [f"{one}\n{other}" for one, other in zip(here, there) if one != other]
    if different:
        raise SystemExit("\n\n".join([f"{len(different)} plans of {args.tasks} differ", *different]))
    return [{"planner": args.model, "tasks": args.tasks, "equal plans": len(here)}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("speed", "plans"))
    parser.add_argument("--latency", type=float, default=0.5, help="seconds of each answer")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--model", default="imageedit-r1-scenes")
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=8, help="conversations at once, of plans")
    args = parser.parse_args()
    print_table({"speed": speed, "plans": plans}[args.what](args))


if __name__ == "__main__":
    main()
