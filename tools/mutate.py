"""How many small faults in the source the tests find: a seeded random sample of them, room by room.

python tools/mutate.py plan tags matching --sample 60 --seed 1

A mutant is a module with one comparison, operator, number, truth value, condition or return changed. The tests of its room run once
unchanged, and note which lines each test comes by. A mutant then meets the tests that come by its line, the fastest first, in
a fork of a process that has loaded torch and its like already; it is killed by a test that fails or by the clock, and has survived
otherwise. What only a program started by a test runs, and what a fixture of several tests runs for later ones, is not seen: the
share is a lower bound. Needs a system with `fork`.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.machinery
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import coverage


ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "diffusers_r1"
LIGHT = ("pytest", "numpy", "PIL.Image")
HEAVY = (*LIGHT, "torch", "torchvision", "transformers", "diffusers")
# What a room is, the tests nearest to it, and what is imported before the forks.
PROGRAMS = "--ignore=tests/pipelines/test_hub.py"  # its tests start programs, which have the module as it is
ROOMS = {
    "plan": (["plan.py"], ["--noconftest", "tests/test_plan.py"], LIGHT),
    "tags": (["tags.py"], ["--noconftest", "tests/test_tags.py"], LIGHT),
    "matching": (["matching.py"], ["--noconftest", "tests/test_matching.py", "tests/test_wordings.py"], LIGHT),
    "rewards": (["rewards.py"], ["--noconftest", "tests/test_rewards.py"], LIGHT),
    "records": (["records.py"], ["--noconftest", "tests/test_records.py"], LIGHT),
    "images": (["images"], ["tests/images"], HEAVY),
    "planners": (["planners"], ["tests/planners"], HEAVY),
    "editors": (["editors"], ["tests/editors"], HEAVY),
    "pipelines": (["pipelines"], ["tests/pipelines", PROGRAMS], HEAVY),
}
COMPARISONS = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


LOG = Path(tempfile.gettempdir()) / "mutate.log"
UNCHANGED = -1  # the number of a mutant that is none
BROKEN = 255  # this tool has failed, not a test


@dataclass(frozen=True)
class Mutant:
    """One change: `number` counts the changes that a module offers, in the order of its nodes."""

    path: Path
    number: int
    line: int
    said: str


# From a module to its mutants
# ----------------------------


def changes(tree: ast.Module) -> Iterator[tuple[ast.AST, str, Callable[[], None]]]:
    """Each change that a module offers: its place, what it is called, and what makes it."""
    for node in evaluated(tree):
        if isinstance(node, ast.Compare):
            for place, operator in enumerate(node.ops):
                if other := COMPARISONS.get(type(operator)):
                    yield node, f"{type(operator).__name__} -> {other.__name__}", _setter(node.ops, place, other())
        elif isinstance(node, ast.BoolOp):
            other = ast.Or if isinstance(node.op, ast.And) else ast.And
            yield node, f"{type(node.op).__name__} -> {other.__name__}", _setter(node, "op", other())
        elif isinstance(node, (ast.BinOp, ast.AugAssign)):
            if other := OPERATORS.get(type(node.op)):
                yield node, f"{type(node.op).__name__} -> {other.__name__}", _setter(node, "op", other())
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield node, "not x -> x", _setter(node, "operand", ast.UnaryOp(ast.Not(), node.operand))
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            yield node, f"{node.value} -> {not node.value}", _setter(node, "value", not node.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            yield node, f"{node.value} -> {node.value + 1}", _setter(node, "value", node.value + 1)
        elif isinstance(node, (ast.If, ast.IfExp, ast.While)) and not _for_types(node):
            yield node, "condition negated", _setter(node, "test", ast.UnaryOp(ast.Not(), node.test))
        elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
            yield node, "return None", _setter(node, "value", ast.Constant(None))
        elif isinstance(node, ast.Continue):
            yield node, "continue -> break", _become(node, ast.Break)
        elif isinstance(node, ast.Break):
            yield node, "break -> continue", _become(node, ast.Continue)


def evaluated(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all below it that run: no annotations, and nothing that is there for type checkers."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns") or (isinstance(node, ast.If) and _for_types(node)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from evaluated(child)


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _setter(holder: Any, place: Any, value: Any) -> Callable[[], None]:
    def change() -> None:
        if isinstance(holder, list):
            holder[place] = value
        else:
            setattr(holder, place, value)

    return change


def _become(node: ast.AST, kind: type) -> Callable[[], None]:
    def change() -> None:
        node.__class__ = kind

    return change


def mutants_of(path: Path) -> list[Mutant]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = enumerate(changes(tree))
    return [Mutant(path, number, node.lineno, said) for number, (node, said, _) in found if hasattr(node, "lineno")]


def mutated(mutant: Mutant) -> ast.Module:
    """The module with the change; as it is, where the number belongs to none."""
    tree = ast.parse(mutant.path.read_text(encoding="utf-8"))
    for number, (_, _, change) in enumerate(changes(tree)):
        if number == mutant.number:
            change()
            break
    return ast.fix_missing_locations(tree)


# Tests in a fork
# ---------------


def in_fork(work: Callable[[], int], seconds: float) -> int | None:
    """The number from 0 to 255 that `work` returns in a fork of this process; `None` if it takes longer."""
    child = os.fork()
    if child == 0:
        os.setsid()
        quiet = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(quiet, descriptor)
        code = BROKEN
        try:
            code = work()
        except BaseException:
            LOG.write_text(traceback.format_exc(), encoding="utf-8")
        finally:
            os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) & 0xFF
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run_tests(tests: list[str], *plugins: Any) -> int:
    import pytest

    random.seed()  # not the state of the sampling
    os.chdir(ROOT)
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    options += [
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
    ]  # of plugins that what is loaded already has imported
    return int(pytest.main([*options, *tests], plugins=list(plugins)))


class Watch:
    """A plugin of pytest that notes by which lines of a room each test comes, and how long it takes."""

    def __init__(self, paths: list[Path], result: Path):
        self.coverage = coverage.Coverage(data_file=None, include=[str(path) for path in paths], config_file=False)
        self.result = result
        self.seconds: dict[str, float] = {}

    def pytest_sessionstart(self) -> None:
        self.coverage.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.failed:
            LOG.write_text(f"{report.nodeid}\n{report.longreprtext}", encoding="utf-8")

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()
        data = self.coverage.get_data()
        lines = {
            f"{path}:{line}": tests
            for path in data.measured_files()
            for line, tests in data.contexts_by_lineno(path).items()
        }
        self.result.write_text(json.dumps({"lines": lines, "seconds": self.seconds}), encoding="utf-8")


def watched(room: str, paths: list[Path], tests: list[str]) -> dict[str, Any]:
    """What the tests of a room come by; they have to pass."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "watched.json"
        LOG.write_text("", encoding="utf-8")
        code = in_fork(lambda: run_tests(tests, Watch(paths, result)), 7200)
        if code != 0:
            raise SystemExit(f"{room}: its tests do not pass as they are: {code}, {LOG.read_text(encoding='utf-8')}")
        return json.loads(result.read_text(encoding="utf-8"))


def survives(mutant: Mutant, known: dict[str, Any], options: list[str]) -> bool:
    """Whether no test that comes by its line, or without such a test no test at all, fails."""
    by_line = known["lines"].get(f"{mutant.path}:{mutant.line}", [])
    tests = sorted({test for test in by_line if test} or set(known["seconds"]), key=known["seconds"].__getitem__)
    seconds = 60 + 10 * sum(known["seconds"][test] for test in tests)

    def work() -> int:
        code = compile(mutated(mutant), str(mutant.path), "exec")
        load = importlib.machinery.SourceFileLoader.get_code

        def get_code(self: Any, name: str) -> Any:
            return code if self.path == str(mutant.path) else load(self, name)

        importlib.machinery.SourceFileLoader.get_code = get_code
        return run_tests([*options, *tests])

    result = in_fork(work, seconds)
    if result == BROKEN:
        raise SystemExit(f"{mutant}: {LOG.read_text(encoding='utf-8')}")
    if result is None:
        print(f"  ran out of time: {mutant.path.relative_to(SOURCE)}:{mutant.line}: {mutant.said}", flush=True)
    return result == 0


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95% Wilson score interval of a share."""
    z = 1.959964
    share, scale = successes / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return middle - half, middle + half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rooms", nargs="*", choices=ROOMS, default=list(ROOMS))
    parser.add_argument("--sample", type=int, default=40, help="mutants of a room; all, where it has fewer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="for a room; then its sample ends early")
    args = parser.parse_args()
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "benchmarks")]
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:3])
    for room in args.rooms:
        sources, tests, imported = ROOMS[room]
        paths = [
            path
            for source in sources
            for path in (sorted((SOURCE / source).rglob("*.py")) if (SOURCE / source).is_dir() else [SOURCE / source])
        ]
        for module in imported:
            importlib.import_module(module)
        known = watched(room, paths, tests)
        options = [word for word in tests if word.startswith("-")]
        every = [mutant for path in paths for mutant in mutants_of(path)]
        sample = random.Random(args.seed).sample(every, min(args.sample, len(every)))
        if not survives(replace(sample[0], number=UNCHANGED), known, options):
            raise SystemExit(f"{room}: the tests fail without any change, so that a killed mutant would mean nothing")
        end, survivors, tried = time.monotonic() + 60 * args.minutes, [], 0
        for mutant in sample:
            if time.monotonic() > end:
                break
            tried += 1
            if survives(mutant, known, options):
                survivors.append(mutant)
                print(f"  survived: {mutant.path.relative_to(SOURCE)}:{mutant.line}: {mutant.said}", flush=True)
        killed = tried - len(survivors)
        low, high = wilson(killed, tried)
        print(
            f"{room}: {killed} of {tried} killed ({killed / tried:.2f}, {low:.2f} to {high:.2f}); {len(every)} in all"
        )
        print(
            json.dumps({"room": room, "killed": killed, "n": tried, "all": len(every), "seed": args.seed}), flush=True
        )


if __name__ == "__main__":
    main()
