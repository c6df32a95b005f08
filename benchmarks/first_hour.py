"""How long the tasks of docs/first_hour.md take, each typed as it stands there, with servers that answer at once.

    python benchmarks/first_hour.py

The seconds are those of our own programs, from the first word typed to the result, models' time left out; of training they are
two steps on scenes. A task that does not work fails the script. `--only` takes a word of one.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from report import print_table


ROOT = Path(__file__).parents[1]
TASKS = {
    "tests/commands/test_first_hour.py::test_a_photo_of_your_own": "a photo of your own, with remote parts",
    "tests/commands/test_first_hour.py::test_a_folder_stopped_and_gone_on_with": "a folder of 20 photos; stop, and go on",
    "tests/commands/test_first_hour.py::test_a_wrong_key": "a wrong key",
    "tests/commands/test_many_files.py::test_a_full_disk_ends_the_run_and_keeps_what_is_done": "no space left",
    "tests/commands/test_first_hour.py::test_a_plan_changed_by_hand": "a plan changed by hand",
    "tests/app/test_first_hour.py::test_on_a_phone": "on a phone",
    "tests/commands/test_first_hour.py::test_by_an_address": "by an address (API)",
    "tests/app/test_first_hour.py::test_from_an_assistant": "from an assistant (MCP)",
    "tests/test_docs.py::test_a_trained_planner_in_three_commands": "train a planner on scenes, two steps",
}


class Times:
    """What pytest tells of each test: whether it passed, and the seconds of the test itself."""

    def __init__(self):
        self.rows: list[dict] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            name = TASKS[report.nodeid.partition("[")[0]]
            self.rows.append({"task": name, "works": report.passed, "seconds": float(report.duration)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    times = Times()
    tests = [str(ROOT / test) for test, name in TASKS.items() if args.only in name]
    with redirect_stdout(sys.stderr):
        code = pytest.main(["-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *tests], plugins=[times])
    if code or not times.rows:
        raise SystemExit("a task does not work")
    print_table(times.rows)


if __name__ == "__main__":
    main()
