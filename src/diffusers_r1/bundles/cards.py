"""What a bundle says about itself: its model card, and the file that lets plain `DiffusionPipeline` load it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml, hf_hub_download
from huggingface_hub.constants import EVAL_RESULTS_FOLDER
from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import yaml_dump

from .. import schema
from ..belongings import belongings, set_belongings
from ..names import name_of_snapshot
from ..plan import EditPlan


# The module that `_class_name` in model_index.json points to. diffusers' refusal to run it without
# `trust_remote_code=True` quotes this name and nothing else of ours.
PIPELINE_MODULE = "pip_install_diffusers_r1"

# Where a planner's training is written down, in its own config, so that it survives saving and loading:
# `planner.config.imageedit_r1_training = {"method": "GRPO", "steps": 120}`.
TRAINING_KEY = "imageedit_r1_training"

# A card with this line is written anew with every save; without it it is the user's.
MARK = "<!-- Written by diffusers-r1. Remove this line to keep what you change. -->"

# `license`, and where the Hub knows no such license, its name; of the base models that the documentation names.
LICENSES: dict[str, tuple[str, str | None]] = {
    "black-forest-labs/FLUX.1-Kontext-dev": ("other", "flux-1-dev-non-commercial-license"),
    "Qwen/Qwen-Image-Edit": ("apache-2.0", None),
    "Qwen/Qwen-Image-Edit-2509": ("apache-2.0", None),
    "timbrooks/instruct-pix2pix": ("mit", None),
    "Qwen/Qwen2.5-VL-3B-Instruct": ("other", "qwen-research"),
    "Qwen/Qwen2.5-VL-7B-Instruct": ("apache-2.0", None),
    "Qwen/Qwen2.5-VL-32B-Instruct": ("apache-2.0", None),
    "Qwen/Qwen2.5-VL-72B-Instruct": ("other", "qwen"),
}

_RESULTS_MARK = "# Written by diffusers-r1. Remove this line to keep what you change."
_AGENTS = {"planner": "decomposition", "sequencer": "sequencing", "editor": "editing"}
_TASK = "image-to-image"


@dataclass(frozen=True)
class Score:
    """One figure of an evaluation.

    Args:
        benchmark (`str`): What it was measured on: `"psr"`, `"scenes:complex"`.
        method (`str`): How the pictures were made: `"pipeline, single-turn"`, `"bare editor"`.
        metric (`str`): What was measured, with its scale where that is not plain: `"judge, 0 to 10"`.
        mean (`float`): Over the samples.
        n (`int`): How many samples.
        low, high (`float`, *optional*): The 95% interval of the mean, where it is known.
    """

    benchmark: str
    method: str
    metric: str
    mean: float
    n: int
    low: float | None = None
    high: float | None = None

    def __post_init__(self):
        if (self.low is None) != (self.high is None):
            raise ValueError(f"An interval has both ends or none: {self}")


@dataclass(frozen=True)
class Scores:
    """Figures of one evaluation, and where they come from.

    Args:
        source (`str`): What somebody has to look up or run to get them again: a command, a commit, the address of a report.
        scores (`tuple` of [`Score`]): At least one.
    """

    source: str
    scores: tuple[Score, ...]

    @classmethod
    def read(cls, report: str | os.PathLike | Mapping[str, Any]) -> Scores:
        """The scores in an evaluation's report: `source`, and `scores`, a list with the fields of [`Score`].

        Args:
            report (`str`, `os.PathLike` or `Mapping`): A JSON file, or what it holds. Whatever else is in it is left alone.

        Raises:
            OSError: If the file cannot be opened.
            ValueError: If there is no source or no score, or a score lacks a field, or has something else there.
        """
        name, data = "the report", report
        if not isinstance(report, Mapping):
            name, data = str(report), schema.read_file(Path(report))
        kinds = {"source": str | None, "scores": list[dict[str, Any]] | None}
        data = schema.read_fields(kinds, data, name)
        if not data["source"] or not data["scores"]:
            raise ValueError("A report for a model card has a `source` and `scores`, and neither is empty.")
        fields = Score.__dataclass_fields__
        rows = [{field: row[field] for field in fields if field in row} for row in data["scores"]]
        return schema.read(cls, {"source": data["source"], "scores": rows}, name)


def base_models(pipeline: DiffusionPipeline) -> dict[str, str]:
    """The Hub names of the models that the agents' models come from, by component; only where known.

    A component loaded from a bundle is named after that bundle's folder. What it came from is then what is kept with it.
    """
    found = {}
    for name in _AGENTS:
        component = getattr(pipeline, name, None)
        origin = str(getattr(component, "name_or_path", None) or "")
        is_hub_name = re.fullmatch(r"[\w.-]+/[\w.-]+", origin) is not None and not Path(origin).exists()
        base = origin if is_hub_name else name_of_snapshot(origin) or belongings(component).get("base_model")
        if base:
            found[name] = base
    return found


def keep_base_models(components: Mapping[str, Any], bases: Mapping[str, str]) -> None:
    """Keep with each component, if it is there, what a bundle's index says that it comes from."""
    for name, base in bases.items():
        if components.get(name) is not None:
            set_belongings(components[name], base_model=base)


def pipeline_file(pipeline_class: type) -> str:
    """The text of the Python file in a bundle that plain `DiffusionPipeline` runs with `trust_remote_code=True`."""
    module, name = pipeline_class.__module__, pipeline_class.__name__
    if module.startswith("diffusers_r1."):
        module = "diffusers_r1"
    return f'''"""Loads this bundle into `DiffusionPipeline.from_pretrained(..., trust_remote_code=True)`.

The code is not here but in the package diffusers-r1: pip install -e . in a clone of it. With it there is a way that needs
no flag and takes every setting to the editor as well, not the dtype alone:

    from {module} import {name}

    pipe = {name}.from_pretrained(...)
"""

import sys


try:
    from diffusers import DiffusionPipeline  # noqa: F401

    from {module} import {name}  # noqa: F401
    from diffusers_r1.pipelines.nested import NestedPipeline, PlainRemoteEditor, PlainRemotePlanner  # noqa: F401
except ImportError as error:
    raise ImportError("To load this bundle, install diffusers-r1: pip install -e . in a clone of it") from error

# What the bundle's index calls them.
RemotePlanner, RemoteEditor = PlainRemotePlanner, PlainRemoteEditor

# Here diffusers looks for the class of a component that is given in place of the bundle's own.
sys.modules.setdefault("{PIPELINE_MODULE}", sys.modules[__name__])
'''


def model_card(
    pipeline: DiffusionPipeline,
    repo_id: str | None = None,
    training: dict[str, Any] | None = None,
    plan: EditPlan | None = None,
    scores: Scores | None = None,
) -> str:
    """The text of a bundle's README.md.

    Args:
        pipeline ([`ImageEditR1Pipeline`]): What the bundle holds; any component may be missing.
        repo_id (`str`, *optional*): Its name on the Hub.
        training (`dict`, *optional*): How the planner was trained, in a few words or numbers each. By default what the
            planner's config says under `imageedit_r1_training`. An entry `license` is the bundle's.
        plan ([`EditPlan`], *optional*): Shown as an example of what the agents make of an instruction.
        scores ([`Scores`], *optional*): Shown with their source, and told to the Hub as the card's `model-index`.
    """
    bases = base_models(pipeline)
    if training is None:
        training = getattr(getattr(pipeline.planner, "config", None), TRAINING_KEY, None)
    training = dict(training or {})
    license_id, license_name = _license_of_bundle(pipeline, bases, training.pop("license", None))
    title = repo_id.rpartition("/")[2] if repo_id else "ImageEdit-R1 bundle"
    data = ModelCardData(
        library_name="diffusers",
        pipeline_tag=_TASK,
        base_model=list(dict.fromkeys(bases.values())) or None,
        license=license_id,
        license_name=license_name,
        tags=["diffusers-r1", "imageedit-r1", "image-editing", "arxiv:2603.08059"],
        model_name=title if scores else None,
        eval_results=_eval_results(scores) if scores else None,
    )
    name = type(pipeline).__name__
    location = repo_id or "path/to/this/folder"
    sections = [
        f"---\n{data}\n---",
        MARK,
        f"# {title}",
        "Edits a picture as a many-part instruction says. Three agents in a row, after [ImageEdit-R1]"
        "(https://arxiv.org/abs/2603.08059): the planner takes the instruction apart, a sequencer puts the parts in"
        " order, a diffusion editor carries them out.",
        "## How to load",
        f"```bash\npip install -e .    # in a clone of diffusers-r1\n```\n\n```python\nfrom diffusers_r1 import {name}\n\n"
        f'pipe = {name}.from_pretrained("{location}")\n'
        'out = pipe("photo.png", "Make the coat red and remove the person behind it")\n'
        "out.images[0], out.plans[0]\n```",
        "With the package installed, plain diffusers loads it too, in the `dtype` that it is asked for; `variant`,"
        " `device_map` and quantization reach the editor by the class above only:",
        "```python\nfrom diffusers import DiffusionPipeline\n\n"
        f'pipe = DiffusionPipeline.from_pretrained("{location}", trust_remote_code=True)\n```',
        *(["## A plan", _plan_section(plan)] if plan else []),
        *(["## Scores", _scores_section(scores)] if scores else []),
        "## Components",
        _table(("component", "class", "base model", "licence of the base model"), _component_rows(pipeline, bases)),
        "## Training",
        _table(("what", "value"), training.items())
        if training
        else "How the planner was trained is not recorded. The editor is used as it is.",
    ]
    return "\n\n".join(sections) + "\n"


def write_card(
    pipeline: DiffusionPipeline,
    folder: Path,
    repo_id: str | None = None,
    token: str | None = None,
    subfolder: str | None = None,
    plan: EditPlan | None = None,
    scores: Scores | None = None,
) -> None:
    """Write README.md into a bundle's folder, unless a person has written one, there or in the repository's subfolder."""
    path = folder / "README.md"
    texts = [path.read_text(encoding="utf-8")] if path.is_file() else []
    if repo_id is not None:
        try:
            there = hf_hub_download(repo_id, "README.md", subfolder=subfolder, token=token)
            texts.append(Path(there).read_text(encoding="utf-8"))
        except (RemoteEntryNotFoundError, RepositoryNotFoundError):
            pass  # a new repository, or one without a card
    kept = next((text for text in texts if MARK not in text), None)
    path.write_text(kept or model_card(pipeline, repo_id, plan=plan, scores=scores), encoding="utf-8")


def write_eval_results(folder: Path, scores: Scores | None = None) -> None:
    """Write scores where the Hub collects them for a benchmark's leaderboard: `.eval_results/*.yaml` in a bundle's folder.

    A file for each benchmark and method, as the Hub wants it. There is one only for benchmarks that are data sets on the Hub:
    the names in `data.SOURCES`, and names such as `"org/name"`. What was written by an earlier save is removed.
    """
    place = folder / EVAL_RESULTS_FOLDER
    for path in place.glob("*.yaml"):
        if path.read_text(encoding="utf-8").startswith(_RESULTS_MARK):
            path.unlink()
    entries: dict[str, list[EvalResultEntry]] = {}
    if scores is not None:
        for score in scores.scores:
            if (dataset := _data_set_of(score.benchmark)) is not None:
                name = _slug(f"{score.benchmark.rpartition('/')[2]} {score.method}")
                entries.setdefault(name, []).append(_eval_result_entry(score, dataset, scores.source))
    for name, several in entries.items():
        place.mkdir(parents=True, exist_ok=True)
        text = f"{_RESULTS_MARK}\n{yaml_dump(eval_result_entries_to_yaml(several))}"
        (place / f"{name}.yaml").write_text(text, encoding="utf-8")


def _plan_section(plan: EditPlan) -> str:
    parts = ["What the agents make of an instruction. Asked:", f"> {' '.join(plan.instruction.split())}"]
    if plan.edits:
        rows = [(edit.action, edit.subject, edit.goal) for edit in plan.edits]
        parts += ["Decomposed:", _table(("action", "subject", "goal"), rows)]
    requests = "\n".join(f"{number}. {request}" for number, request in enumerate(plan.requests, start=1))
    return "\n\n".join([*parts, "What the editor is asked, in order:", requests])


def _scores_section(scores: Scores) -> str:
    rows = []
    for score in scores.scores:
        interval = "" if score.low is None else f"{score.low:.3f} to {score.high:.3f}"
        rows.append((score.benchmark, score.method, score.metric, score.n, f"{score.mean:.3f}", interval))
    table = _table(("benchmark", "method", "metric", "n", "mean", "95% interval"), rows)
    return f"Measured by the bundle's author. Source: {scores.source}\n\n{table}"


def _eval_results(scores: Scores) -> list[EvalResult]:
    """The scores as the Hub reads them from a card's metadata. What it has no place for goes into `args`."""
    return [
        EvalResult(
            task_type=_TASK,
            dataset_type=_slug(score.benchmark),
            dataset_name=score.benchmark,
            metric_type=_slug(score.metric),
            metric_name=f"{score.metric} ({score.method})",
            metric_value=score.mean,
            metric_args={"n": score.n, "low": score.low, "high": score.high},
            source_url=scores.source if scores.source.startswith("https://") else None,
        )
        for score in scores.scores
    ]


def _eval_result_entry(score: Score, dataset: str, source: str) -> EvalResultEntry:
    interval = "" if score.low is None else f", 95% interval {score.low:.3f} to {score.high:.3f}"
    return EvalResultEntry(
        dataset_id=dataset,
        task_id=_slug(score.metric),
        value=score.mean,
        source_url=source if source.startswith("https://") else None,
        notes=f"{score.method}; {score.metric}; n = {score.n}{interval}",
    )


def _data_set_of(benchmark: str) -> str | None:
    """A benchmark's name on the Hub, `None` if it has none there."""
    from ..data import SOURCES

    known = SOURCES.get(benchmark.lower())
    if known is not None:
        return known.path
    return benchmark if re.fullmatch(r"[\w.-]+/[\w.-]+", benchmark) else None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())


def _component_rows(pipeline: DiffusionPipeline, bases: dict[str, str]) -> list[tuple[str, ...]]:
    rows = []
    for name, component in pipeline.components.items():
        agent = f"{name} ({_AGENTS[name]})" if name in _AGENTS else name
        if component is None:
            rows.append((agent, "none: the planner answers both questions" if name == "sequencer" else "none", "", ""))
            continue
        base = bases.get(name)
        license_id, license_name = LICENSES.get(base or "", (None, None))
        link = f"[{base}](https://huggingface.co/{base})" if base else ""
        unknown = ("not known" if base is None else "see there") if name in _AGENTS else ""
        rows.append((agent, f"`{type(component).__name__}`", link, license_name or license_id or unknown))
    return rows


def _license_of_bundle(
    pipeline: DiffusionPipeline, bases: dict[str, str], given: str | None
) -> tuple[str, str | None]:
    """The licence that all models with weights share; "other" where they differ or one is not known."""
    if given is not None:
        return given, None
    agents = [name for name in _AGENTS if getattr(pipeline, name, None) is not None]
    licenses = {LICENSES.get(bases.get(name, "")) for name in agents}
    only = licenses.pop() if len(licenses) == 1 else None
    return only or ("other", "that-of-the-components")


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |" for line in lines)
