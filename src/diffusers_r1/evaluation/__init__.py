"""Is a planner, or an editor, better than another, by how much, and how sure is that?

A benchmark yields samples, a method makes plans and an editor pictures of them, a judge scores: functions joined by the
samples' ids, in the files of a run.
"""

from .benchmarks import SPLITS, Sample, read_samples
from .judges import LocalModel, Pixels, ScenesExact, Verdict, VIEScore, selector_of, viescore
from .methods import Job, LocalEditor, Method, ServedEditor, agents, bare, fingerprint, oracle
from .planners import evaluate_planners, is_planner_benchmark
from .report import compare, estimate, write_report
from .runs import unscored, write_pictures, write_plans, write_samples, write_scores
from .stages import evaluate


__all__ = [
    "SPLITS",
    "Job",
    "LocalEditor",
    "LocalModel",
    "Method",
    "Pixels",
    "Sample",
    "ScenesExact",
    "ServedEditor",
    "VIEScore",
    "Verdict",
    "agents",
    "bare",
    "compare",
    "estimate",
    "evaluate",
    "evaluate_planners",
    "fingerprint",
    "is_planner_benchmark",
    "oracle",
    "read_samples",
    "selector_of",
    "unscored",
    "viescore",
    "write_pictures",
    "write_plans",
    "write_report",
    "write_samples",
    "write_scores",
]
