"""A run: a folder in which samples, plans, pictures and scores are kept as they come, and gone on with after a stop.

    samples.jsonl, samples/     what was asked, with the pictures before (and after, where they are known)
    benchmarks.jsonl            which samples each benchmark was measured on
    plans.jsonl                 what each method made of each instruction
    variants.jsonl              method x editor x turns x seed, with all that its pictures depend on
    edits.jsonl, pictures/      a line for each result, with what the editor was asked, and the pictures
    judges.jsonl, scores.jsonl  the judges, and a line for each verdict

Later lines count more than earlier ones. A picture's name says by which editor it was made, from which prompts and which
noise; methods and turns that come to the same share it, and it is made once and judged once. `content` tells a sample, or a
picture that was made, from others of its name; runs of before have none.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from .. import __version__, records
from ..endpoints import map_concurrently
from ..images import load_picture, to_png
from ..plan import Edit, EditPlan, Turns
from .benchmarks import SAMPLE_SEED, Sample, read_samples, short_name
from .judges import Judge, Verdict
from .methods import Job, MeasuredEditor, Method


SAMPLES, BENCHMARKS = "samples.jsonl", "benchmarks.jsonl"
PLANS, VARIANTS, EDITS = "plans.jsonl", "variants.jsonl", "edits.jsonl"
JUDGES, SCORES = "judges.jsonl", "scores.jsonl"
# What is read of their lines. What else is there, such as a server's words, is kept and not looked at.
_NAMED = {"method": str, "editor": str, "turns": Turns, "seed": int, "settings": str}
FIELDS: dict[str, dict[str, Any]] = {
    SAMPLES: {
        "id": str,
        "benchmark": str,
        "row": int,
        "instruction": str,
        "edits": tuple[Edit, ...],
        "requests": tuple[str, ...],
        "category": str | None,
        "image": str,
        "target": str | None,
        "content": str | None,
    },
    BENCHMARKS: {"benchmark": str, "limit": int | None, "sample_seed": int, "ids": list[str]},
    PLANS: {"sample": str, "method": str, "settings": str, "plan": EditPlan},
    VARIANTS: {**_NAMED, "plans": str, "samples": int, "details": dict[str, Any]},
    EDITS: {**_NAMED, "sample": str, "plans": str, "picture": str | None, "content": str | None},
    JUDGES: {
        "judge": str,
        "settings": str,
        "metrics": dict[str, bool],
        "shares": list[str] | None,
        "samples": list[str] | None,
    },
    SCORES: {
        "judge": str,
        "settings": str,
        "picture": str,
        "content": str | None,
        "values": dict[str, float] | None,
    },
}
VARIANT = ("method", "editor", "turns", "seed", "settings")
PACKAGES = ("torch", "diffusers", "transformers")


# What is done, in the order in which it is done
# ----------------------------------------------


def write_samples(folder: Path, name: str, limit: int | None = None, seed: int = SAMPLE_SEED) -> None:
    """Writes the samples of a benchmark down, pictures included: all that follows reads them here. Those that are there are
    compared with what the data set has now.

    Args:
        folder (`Path`): Of the run; there.
        name, limit, seed: See [`read_samples`].

    Raises:
        ValueError: If the folder has other samples under the same ids. Nothing has been written then.
    """
    benchmark = short_name(name)
    known = {line["id"]: line for line in read(folder, SAMPLES) if line["benchmark"] == benchmark}

    def samples() -> Iterable[Sample]:
        return tqdm(read_samples(name, limit, seed), f"reading {benchmark}", unit="sample")

    # All are compared before one is written: what is refused leaves nothing behind under the other data set's name.
    ids = [_same_id(folder, known, sample) for sample in samples()] if known else []
    if not known or set(ids) - known.keys():
        ids = []
        for sample in samples():
            ids.append(sample.id)
            if sample.id not in known:
                _write_sample(folder, sample)
    line = {"benchmark": benchmark, "limit": limit, "sample_seed": seed, "ids": ids}
    if line not in read_benchmarks(folder):
        records.append(folder / BENCHMARKS, line)


def write_plans(folder: Path, method: Method) -> None:
    """Has a method plan the run's samples, those that it has no plan of yet.

    Raises:
        EndpointError: If a server that plans refuses to work for us, or is out of order ten times in a row. What it fails at
            otherwise has no plan, and is tried again at the next start.
    """
    settings = digest(method.settings)
    planned = read_plans(folder, method.name, settings)
    left = [line for line in read_lines(folder).values() if method.applies_to(line) and line["id"] not in planned]
    if not left:
        return
    samples = (open_sample(folder, line) for line in left)
    bar = tqdm(method.plan(samples), f"{method.name}: planning", len(left), unit="plan")
    for sample, plan in records.patiently(bar):
        if isinstance(plan, Exception):
            bar.write(f"{method.name} has no plan of {sample.id}: {plan}", file=sys.stderr)
            continue
        row = {"sample": sample.id, "method": method.name, "settings": settings, "plan": plan.to_dict()}
        records.append(folder / PLANS, row)


def write_pictures(
    folder: Path, method: Method, editor: MeasuredEditor, turns: Turns = "single", seed: int = 0
) -> None:
    """Has an editor carry out a method's plans, those that were not carried out yet.

    Args:
        folder (`Path`): Of the run, in which `write_plans` has been.
        method, editor: Whose plans, and who carries them out.
        turns (`"single"`, `"multi"`, `"auto"` or `"composed"`): How the plans are carried out.
        seed (`int`, defaults to 0): With the sample's id it makes the noise, which is the same for all methods.

    Raises:
        EndpointError: If a remote editor refuses to work for us, or is out of order ten times in a row. What it fails at
            otherwise is written down, and tried again at the next start.
    """
    variant = {"method": method.name, "editor": editor.name, "turns": turns, "seed": seed}
    plans_from = digest(method.settings)
    variant |= {"settings": digest([plans_from, editor.settings]), "plans": plans_from}
    lines = {id: line for id, line in read_lines(folder).items() if method.applies_to(line)}
    details = {"method": dict(method.settings), "editor": dict(editor.settings), "source": editor.source}
    records.append(folder / VARIANTS, {**variant, "samples": len(lines), "details": details, "versions": _versions()})

    mine = [row for row in read_edits(folder) if row["picture"] and _variant_of(row) == _variant_of(variant)]
    done = {row["sample"] for row in mine if (folder / row["picture"]).exists()}  # one that was deleted is made again
    plans = read_plans(folder, method.name, plans_from)
    left = {id: line for id, line in lines.items() if id not in done and id in plans}
    for id in lines.keys() - plans.keys():
        records.append(folder / EDITS, {"sample": id, **variant, "asked": [], "picture": None, "error": "no plan"})
    asked = {id: editor.asked(plans[id], turns) for id in left}
    names = {id: _picture_name(id, editor, asked[id], seed) for id in left}
    there = {id for id, name in names.items() if (folder / name).exists()}
    contents = _contents(folder)
    for id in there:
        # What is known of a picture stays, also that nothing is, so that the verdicts on it still count.
        content = contents[names[id]] if names[id] in contents else _content_of_file(folder / names[id])
        row = {"sample": id, **variant, "asked": asked[id], "picture": names[id], "content": content}
        records.append(folder / EDITS, row)

    jobs = (
        Job(open_sample(folder, line), plans[id], _noise_seed(seed, id))
        for id, line in left.items()
        if id not in there
    )
    title = f"{method.name}, {editor.name}, {turns}: editing"
    for job, result in _watched(editor.make(jobs, turns), title, len(lines), len(done) + len(there)):
        row = {"sample": job.sample.id, **variant, "asked": asked[job.sample.id], "picture": None}
        if isinstance(result, Exception):
            row |= failure(result)
        else:
            row["picture"] = names[job.sample.id]
            # The picture first: a line is the promise that its picture is there.
            _write_picture(folder / row["picture"], result)
            row["content"] = _content_of_file(folder / row["picture"])
        records.append(folder / EDITS, row)


def write_scores(folder: Path, judge: Judge) -> None:
    """Has a judge score the pictures that it has not judged yet.

    Raises:
        EndpointError: If a server refuses to work for us, or is out of order ten times in a row. What it fails at
            otherwise is written down, counted as failed, and tried again at the next start.
    """
    by = {"judge": judge.name, "settings": digest(judge.settings)}
    lines = {id: line for id, line in read_lines(folder).items() if judge.applies_to(line)}
    identity = {
        **by,
        "metrics": dict(judge.metrics),
        "shares": [*judge.shares],
        "samples": list(lines),
        "details": dict(judge.settings),
        "versions": _versions(),
    }
    records.append(folder / JUDGES, identity)
    edits = [row for row in read_edits(folder) if row["picture"] and row["sample"] in lines]
    pictures, contents = {row["picture"]: lines[row["sample"]] for row in edits}, _contents(folder)
    done = {row["picture"] for row in read_scores(folder) if row["judge"] == judge.name and "error" not in row}
    left = [picture for picture in pictures if picture not in done and (folder / picture).exists()]

    def ask(picture: str) -> Verdict:
        return judge(open_sample(folder, pictures[picture]), load_picture(folder / picture))

    verdicts = map_concurrently(ask, left, judge.concurrency)
    for picture, verdict in _watched(verdicts, f"{judge.name}: judging", len(pictures), len(pictures) - len(left)):
        row = {"sample": pictures[picture]["id"], "picture": picture, "content": contents[picture], **by}
        if isinstance(verdict, Exception):
            row |= {"values": None, **failure(verdict)}
        else:
            row |= {"values": verdict.values, **verdict.evidence}
        records.append(folder / SCORES, row)


# What is there
# -------------


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    """The lines of one of the run's files, all that were ever written.

    Raises:
        ValueError: If one of them is not what we write; the message names file, line and field.
    """
    return records.read_fields(folder / name, FIELDS[name])


def read_benchmarks(folder: Path) -> list[dict[str, Any]]:
    """Each benchmark with the samples that it has now."""
    return _last(folder, BENCHMARKS, "benchmark")


def read_lines(folder: Path) -> dict[str, dict[str, Any]]:
    """The samples that the run's benchmarks have now, as lines by id.

    Raises:
        ValueError: If one of them has no line.
    """
    lines = {line["id"]: line for line in read(folder, SAMPLES)}
    ids = [id for benchmark in read_benchmarks(folder) for id in benchmark["ids"]]
    if lost := [id for id in ids if id not in lines]:
        raise ValueError(f"{folder / SAMPLES} has no line of {lost[0]}, which {BENCHMARKS} names.")
    return {id: lines[id] for id in ids}


def open_sample(folder: Path, line: Mapping[str, Any]) -> Sample:
    """A sample with its pictures, from its line."""
    return Sample(
        line["benchmark"],
        line["row"],
        load_picture(folder / line["image"]),
        line["instruction"],
        line["edits"],
        line["requests"],
        line["target"] and load_picture(folder / line["target"]),
        line["category"],
    )


def content_of(folder: Path, line: Mapping[str, Any]) -> str:
    """What tells a sample, from its line, from others of its id: its instruction and its pictures."""
    return line["content"] or _content(open_sample(folder, line))


def read_plans(folder: Path, method: str, settings: str) -> dict[str, EditPlan]:
    """The plans that a method has made under these settings, by the sample's id."""
    return {
        row["sample"]: row["plan"]
        for row in read(folder, PLANS)
        if (row["method"], row["settings"]) == (method, settings)
    }


def read_variants(folder: Path) -> list[dict[str, Any]]:
    """Each method x editor x turns x seed, with its last settings, in the order in which they came first.

    `samples` is of how many of the samples that the run has now it was asked, or has a result of an earlier limit.
    """
    there, results = len(read_lines(folder)), Counter(map(_variant_of, read_edits(folder)))
    return [
        {**variant, "samples": max(min(variant["samples"], there), results[_variant_of(variant)])}
        for variant in _last(folder, VARIANTS, *VARIANT[:-1])
    ]


def read_edits(folder: Path) -> list[dict[str, Any]]:
    """The last result of each variant, under its last settings, for each sample that the run has now."""
    variants = set(map(_variant_of, _last(folder, VARIANTS, *VARIANT[:-1])))
    there = read_lines(folder)
    rows = _last(folder, EDITS, "sample", *VARIANT)
    return [row for row in rows if _variant_of(row) in variants and row["sample"] in there]


def read_judges(folder: Path) -> list[dict[str, Any]]:
    """Each judge with its last settings."""
    return _last(folder, JUDGES, "judge")


def read_scores(folder: Path) -> list[dict[str, Any]]:
    """The last verdict of each judge, under its last settings, on each picture as it is now: not on one of its name that was
    deleted and made again."""
    judges = {(judge["judge"], judge["settings"]) for judge in read_judges(folder)}
    contents = _contents(folder)
    rows = _last(folder, SCORES, "picture", "judge", "settings")
    rows = [row for row in rows if (row["judge"], row["settings"]) in judges]
    return [row for row in rows if row["content"] == contents.get(row["picture"])]


def unscored(folder: Path, judged: bool = True) -> tuple[int, int]:
    """How many results of the run have no picture or lack a judge's figure, and how many results there are.

    A result is a sample of one variant. It needs the figures of every judge that has judged in this run and applies to its
    sample. Before any judge has been asked, it only needs its picture.

    Args:
        folder (`Path`): Of the run.
        judged (`bool`, defaults to `True`): Whether figures count; not after a stage that has only made pictures.
    """
    figures = {(row["judge"], row["picture"]): row["values"] is not None for row in read_scores(folder)}
    asked = {row["judge"] for row in read(folder, SCORES)} if judged else set()
    judges = {judge["judge"]: set(judge["samples"] or ()) for judge in read_judges(folder) if judge["judge"] in asked}

    def has_figures(row: Mapping[str, Any]) -> bool:
        found = [figures.get((judge, row["picture"]), row["sample"] not in mine) for judge, mine in judges.items()]
        return all(found) and any((judge, row["picture"]) in figures for judge in judges)

    scored = [row for row in read_edits(folder) if row["picture"] and (not judges or has_figures(row))]
    results = sum(variant["samples"] for variant in read_variants(folder))
    return results - len(scored), results


def digest(settings: Any) -> str:
    """Sixteen hexadecimal digits that tell settings, as JSON, from others."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False, default=dict)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def _variant_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in VARIANT)


def _last(folder: Path, name: str, *key: str) -> list[dict[str, Any]]:
    """The lines of a file, of several with one key the last, at the place of the first."""
    return list({tuple(row[field] for field in key): row for row in read(folder, name)}.values())


def _picture_name(sample_id: str, editor: MeasuredEditor, asked: list[Any], seed: int) -> str:
    recipe = {"editor": [editor.name, editor.settings], "prompts": asked, "seed": seed}
    return f"pictures/{sample_id}-{digest(recipe)}.png"


def _noise_seed(seed: int, sample_id: str) -> int:
    """Not the same noise for all samples, and for one sample the same whatever else is in the run."""
    return int(digest([seed, sample_id]), 16) >> 1


def _same_id(folder: Path, known: Mapping[str, Mapping[str, Any]], sample: Sample) -> str:
    """The sample's id.

    Raises:
        ValueError: If the run knows another sample by it.
    """
    line = known.get(sample.id)
    if line and (content_of(folder, line), line["edits"]) != (_content(sample), sample.edits):
        raise ValueError(
            f"{sample.id}, {sample.instruction!r}, is not what {folder} has by that name, {line['instruction']!r}: this is "
            "another data set of that name, or its rows have changed. Take another folder."
        )
    return sample.id


def _content(sample: Sample) -> str:
    pictures = [picture and [picture.size, _sum(picture.tobytes())] for picture in (sample.image, sample.target)]
    return digest([sample.instruction, *pictures])


def _contents(folder: Path) -> dict[str, str | None]:
    """The pictures that were made -> what tells each, as it is now, from others of its name; `None` in runs of before."""
    return {row["picture"]: row["content"] for row in read(folder, EDITS) if row["picture"]}


def _content_of_file(path: Path) -> str:
    return _sum(path.read_bytes())


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _write_sample(folder: Path, sample: Sample) -> None:
    image, target = f"samples/{sample.id}.png", f"samples/{sample.id}.target.png"
    _write_picture(folder / image, sample.image)
    if sample.target is not None:
        _write_picture(folder / target, sample.target)
    line = {
        "id": sample.id,
        "benchmark": sample.benchmark,
        "row": sample.row,
        "instruction": sample.instruction,
        "edits": [vars(edit) for edit in sample.edits],
        "requests": list(sample.requests),
        "category": sample.category,
        "image": image,
        "target": target if sample.target is not None else None,
        "content": _content(sample),
    }
    records.append(folder / SAMPLES, line)


def _write_picture(path: Path, picture: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    records.write_whole(path, to_png(picture))


def _watched(results: Iterable[tuple[Any, Any]], title: str, total: int, done: int) -> Iterator[tuple[Any, Any]]:
    """The results with a progress bar, up to where the run gives up."""
    failed = 0
    with tqdm(desc=title, total=total, initial=done, unit="picture") as bar:
        for item, result in records.patiently(results):
            failed += isinstance(result, Exception)
            yield item, result
            bar.set_postfix(failed=failed, refresh=False)
            bar.update()


def failure(error: Any) -> dict[str, str]:
    """What a line of a run says of a result that there is not."""
    return {"error": str(error), "kind": error.kind.value}


def _versions() -> dict[str, str]:
    return {"diffusers-r1": __version__, **{package: version(package) for package in PACKAGES}}
