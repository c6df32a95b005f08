"""What the benchmark scripts print: a table for people, then one JSON line for programs."""

from __future__ import annotations

import json
from importlib.metadata import version


PACKAGES = ("torch", "diffusers", "transformers")


def wilson(successes: float, n: int) -> tuple[float, float]:
    """The 95% Wilson score interval of a share."""
    z = 1.959964
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * ((share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5) / (1 + z * z / n)
    return middle - half, middle + half


def print_table(rows: list[dict]) -> None:
    """Print rows of equal keys as a Markdown table, and all of them with the versions as one JSON line."""
    names = list(rows[0])
    print(f"| {' | '.join(names)} |\n|{' --- |' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(f'{v:.3f}' if isinstance(v, float) else str(v) for v in row.values())} |")
    print(json.dumps({"rows": rows, "versions": {package: version(package) for package in PACKAGES}}))
