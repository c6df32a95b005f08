"""What `import diffusers_r1` costs beyond the interpreter, and whether it brings torch along.

python benchmarks/import_time.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from report import print_table


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    check = "import diffusers_r1, sys; assert 'torch' not in sys.modules"
    pairs = [(seconds("pass"), seconds(check)) for _ in range(21)]
    beyond = [with_import - bare for bare, with_import in pairs]
    print_table([{"runs": len(pairs), "median seconds beyond the interpreter": statistics.median(beyond)}])


if __name__ == "__main__":
    main()
