"""How well does a planner understand what people type? Measured on words alone, against known edits, without a judge.

A planner gets instructions, pictures only where the benchmark has them, and answers with plans; its answers are kept in the run's folder as they come,
and the same call again goes on where it stopped:

    planner_rows.jsonl      the instructions and what is known of their truth
    planner_answers.jsonl   a line for each planner, with its settings, and instruction; what went wrong in the place of a plan
    planners.json, .md      the figures
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import records, schema
from ..belongings import belongings
from ..bundles.planners import base_of_adapter, place_of_planner
from ..endpoints import check_address, map_concurrently
from ..grammar import decomposition_grammar
from ..matching import action_f1, exact, multiset_f1, normalize, same_edits, soft_f1
from ..names import ADAPTER_INDEX, PIPELINE_INDEX, is_address, only_configs, resolve
from ..plan import Edit, EditPlan
from ..planners.remote import CONFIG_NAME, RemotePlanner
from ..prompts import PHOTO_EXAMPLES, Prompts, prompts_of
from ..tags import read_decomposition, read_sequence
from .photos import open_photo
from .report import estimate
from .runs import digest, failure
from .stages import check_numbers
from .word_rows import NAMES, WHOLE, Row, read_rows


if TYPE_CHECKING:
    import torch


ROWS, ANSWERS, REPORT = "planner_rows.jsonl", "planner_answers.jsonl", "planners"
ANSWER_FIELDS = {
    "planner": str, "settings": str, "key": str, "plan": EditPlan | None, "seconds": float | None, "tokens": int | None,
}  # fmt: skip
BATCH_SIZE, CONCURRENCY = 8, 8  # instructions planned at once, requests to a server at once
EXTRAS = ("few-shot", "constrained", "int8")  # NAME+few-shot
CONFIG = "config.json"
UNKNOWN = "the edits of its rows are not known"
FIGURES = (
    "format", "number", "action_f1", "subject_f1", "goal_f1", "exact", "same", "omitted", "invented", "order", "agreement",
    "seconds", "tokens",
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """A plan, and the seconds and tokens that it took; `None` where nobody counted the tokens."""

    plan: EditPlan
    seconds: float
    tokens: int | None = None


@dataclass(frozen=True)
class Planner:
    """What makes plans of instructions.

    Args:
        name (`str`): In tables.
        plan (`Callable`): From rows to each row with its answer, or with what a server made none for.
        settings (`Mapping`): What the plans and their seconds depend on, ready for JSON.
        needs_truth (`bool`, defaults to `False`): Whether only rows whose edits are known have plans.
    """

    name: str
    plan: Callable[[Iterable[Row]], Iterator[tuple[Row, Answer | Exception]]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs_truth: bool = False

    def applies_to(self, row: Row) -> bool:
        """Whether the row can be planned."""
        return bool(row.edits) or not self.needs_truth


def evaluate_planners(
    output_dir: str | Path,
    benchmarks: Sequence[str],
    planners: Sequence[str],
    limit: int | None = None,
    seed: int = 0,
    max_new_tokens: int = 512,
    batch_size: int = BATCH_SIZE,
    planner_model: str | None = None,
    planner_base: str | None = None,
    concurrency: int = CONCURRENCY,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Measures planners on instructions whose edits are known, and writes a report. The same call again goes on: what a
    server refused or failed at is asked for again.

    Args:
        output_dir (`str` or `Path`): The run's folder; made if not there.
        benchmarks (sequence of `str`): Among

            - `"sentences"`: the world of sentences, its five kinds in turn, from the seeds kept for reporting;
            - `"reworded"`: a hundred of them in five wordings each, for the agreement of a planner with itself;
            - `"everyday"`: the hand-written instructions of the package, those for reporting; or `"everyday=FILE"`;
            - `"everyday-photos"`: those of them that are about a picture, which planners that see are shown. The
              pictures come with scikit-image and scikit-learn; or `"everyday-photos=FILE"`, whose rows have a `picture`
              beside it;
            - `"paraphrases"`: a hundred hand-written ones in five wordings each; or `"paraphrases=FILE"`;
            - `"complexbench-edit=FILE"`: its steps, joined to one sentence; a file or folder of the original layout, or
              a list of rows with `steps` and `edits`. Of most of its goals nothing is known;
            - `"magicbrush-sessions"`, from the Hub, or `"...=FILE"`: the turns about one picture, joined to one sentence.
              Only their number is known.
        planners (sequence of `str`): Among `"rule"` (a splitter that knows commas and verbs), `"truth"`, and names that
            [`load_planner`] takes, addresses too: what is behind one is called by its model's name. `NAME+few-shot`
            shows the worked examples that ship first, which others are asked without, `NAME+constrained` lets it write
            nothing but the declared format, and `NAME+int8`, on the CPU, gives it weights of 8 bits, see
            [`~planners.int8.to_int8`]. They can be put together. No two may be called the same.
        limit (`int`, *optional*): The most rows of each benchmark; all by default, of sentences 400, reworded 500.
        seed (`int`, defaults to 0): Which sentences, and how steps are joined.
        max_new_tokens (`int`, defaults to 512): Of each answer.
        batch_size (`int`, defaults to 8): Instructions planned at once. Give 1 to measure the seconds of a single one. With
            another one, or another `device` or `concurrency`, which seconds depend on as well, rows are answered again.
        planner_model (`str`, *optional*): The model at an address that has several. The key is read from `OPENAI_API_KEY`.
        planner_base (`str`, *optional*): Of planners that are adapters: where their base is, see [`load_planner`].
        concurrency (`int`, defaults to 8): Requests to a server at once.
        device, dtype (*optional*): Of models loaded here; the CPU and float32 by default.

    Returns:
        `Path`: of `planners.md`.

    Raises:
        OSError, ValueError: If a name or a file is not there, or not what it should be, or another run is at work in the
            folder (`BlockingIOError`). No model has run then.
        EndpointError: If a server refuses to work for us, or is out of order ten times in a row. What it fails at otherwise
            is recorded, and counted by the report's first line, see [`unanswered`].
    """
    # 1. Refuse what cannot work
    check_numbers(limit=limit, batch_size=batch_size, concurrency=concurrency, max_new_tokens=max_new_tokens)
    batch_size, concurrency, max_new_tokens = (
        int(batch_size),
        int(concurrency),
        int(max_new_tokens),
    )  # of numpy as well
    if not benchmarks:
        raise ValueError(f"Name at least one benchmark: {', '.join(NAMES)}.")
    _check_once("benchmarks", [name.partition("=")[0] for name in benchmarks])
    _check_names(planners, planner_model, planner_base)
    for name in planners:
        _check_extras(name, max_new_tokens, device)
    rows = [row for name in benchmarks for row in read_rows(name, limit, seed)]
    for name in planners:
        _check_there(name, planner_base)
    measured = []
    for name in planners:
        source, *extras = name.split("+")
        few, bound, int8 = (extra in extras for extra in EXTRAS)
        if source in BUILT_IN:
            planner = BUILT_IN[source]()
        elif is_address(source):
            model = RemotePlanner(source, planner_model, concurrency=concurrency)
            planner = served("+".join([model.model, *extras]), model, few, bound, max_new_tokens)
        else:
            planner = local(name, source, planner_base, few, bound, int8, max_new_tokens, batch_size, device, dtype)
        measured.append(planner)
    _check_once("planners", [planner.name for planner in measured])
    _check_work(measured, rows)

    # 2. Have them plan, one model at a time
    folder = Path(output_dir)
    with records.only_one_in(folder):
        _write_rows(folder, rows)
        for planner in measured:
            _answer(folder, planner, rows)
        return write_planner_report(folder, [row.key for row in rows], measured)


def unanswered(folder: Path) -> tuple[int, int]:
    """How many rows of the last report are without an answer, and how many there are; each counts once for each planner."""
    return _unanswered(schema.read_file(folder / f"{REPORT}.json", dict[str, dict[str, dict[str, Any]]]))


def _unanswered(tables: Mapping[str, Mapping[str, Any]]) -> tuple[int, int]:
    found = [table for planners in tables.values() for table in planners.values()]
    return sum(table["unanswered"] for table in found), sum(table["rows"] for table in found)


# What is refused before anything runs
# ------------------------------------


def _is_loaded(source: str) -> bool:
    return source not in BUILT_IN and not is_address(source)


def _check_once(what: str, names: Sequence[str]) -> None:
    """Refuse two of one name, of which one would stand for both."""
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Two of the {what} are called {', '.join(repeated)}; give them runs of their own.")


def _check_names(planners: Sequence[str], model: str | None, base: str | None) -> None:
    """Refuse planners that are none, or two of one name, and what none of them has a use for."""
    if not planners:
        raise ValueError("Name at least one planner: rule, truth, a folder, a name on the Hub or an address.")
    _check_once("planners", planners)
    sources = [name.partition("+")[0] for name in planners]
    for source in filter(is_address, sources):
        check_address(source)
    if model is not None and not any(map(is_address, sources)):
        raise ValueError("`planner_model` goes with an address, which begins with http://; no planner is one.")
    if base is not None and not any(map(_is_loaded, sources)):
        raise ValueError("`planner_base` goes with a LoRA adapter; no planner is one.")


def _check_extras(name: str, max_new_tokens: int, device: str | torch.device | None) -> None:
    source, *extras = name.split("+")
    if unknown := set(extras) - set(EXTRAS):
        raise ValueError(f"A planner can be NAME+{' or NAME+'.join(EXTRAS)}, not +{', +'.join(sorted(unknown))}.")
    if source in BUILT_IN and extras:
        raise ValueError(f"{name}: {source} is no model, so there is no +{', +'.join(extras)} of it.")
    if "int8" in extras and (is_address(source) or not str(device or "cpu").startswith("cpu")):
        raise ValueError(f"{name}: +int8 is for a planner that is loaded here, on the CPU.")
    if "constrained" in extras and _is_loaded(source):
        decomposition_grammar(max_new_tokens)  # which says how many tokens it needs


def _check_there(name: str, base: str | None) -> None:
    """Refuse a planner that cannot be had, before another one has planned for hours. No weights are brought for that.

    Raises:
        OSError, ValueError
    """
    source = name.partition("+")[0]
    if not _is_loaded(source):
        return
    folder = _planner_folder(source)
    if (folder / ADAPTER_INDEX).is_file():
        below = base or base_of_adapter(folder)
        try:
            _planner_folder(below)
        except OSError as error:
            raise OSError(
                f"{source} is an adapter of {below}, which cannot be had: {error} Where it lies in a folder, say so: "
                "`planner_base`."
            ) from error
    elif base is not None:
        raise ValueError(f"`planner_base` goes with a LoRA adapter; {source} is none.")
    elif (folder / CONFIG_NAME).is_file():
        raise ValueError(f"{source} is a planner behind an address: give the address.")


def _planner_folder(name: str) -> Path:
    """Where what a planner says of itself lies: in a bundle, in the folder of its planner."""
    folder = resolve(name, only_configs)
    if (folder / PIPELINE_INDEX).is_file():
        folder /= place_of_planner(folder)
    if not any((folder / file).is_file() for file in (CONFIG, ADAPTER_INDEX, CONFIG_NAME)):
        raise OSError(f"{str(folder)!r} has no {CONFIG}, so it is no planner.")
    return folder


def _check_work(planners: Sequence[Planner], rows: Sequence[Row]) -> None:
    """Refuse a benchmark that none of the planners has anything to do with."""
    for benchmark in dict.fromkeys(row.benchmark for row in rows):
        mine = [row for row in rows if row.benchmark == benchmark]
        if not any(planner.applies_to(row) for planner in planners for row in mine):
            names = " and ".join(planner.name for planner in planners)
            raise ValueError(f"{benchmark} has nothing for {names}: {UNKNOWN}.")


def is_planner_benchmark(name: str) -> bool:
    """Whether a benchmark is one of words alone, measured by [`evaluate_planners`]."""
    return name.partition("=")[0] in NAMES


# Planners
# --------


def truth() -> Planner:
    """The true plan, where it is known."""

    def plan(rows: Iterable[Row]) -> Iterator[tuple[Row, Answer]]:
        for row in rows:
            yield row, Answer(EditPlan(row.instruction, row.edits, row.requests or (row.instruction,)), 0.0)

    return Planner("truth", plan, needs_truth=True)


def by_rule() -> Planner:
    """The splitter of [`split_by_rule`]: what a planner has to be better than."""

    def plan(rows: Iterable[Row]) -> Iterator[tuple[Row, Answer]]:
        for row in rows:
            start = time.perf_counter()
            made = split_by_rule(row.instruction)
            yield row, Answer(made, time.perf_counter() - start)

    return Planner("rule", plan)


BUILT_IN = {"rule": by_rule, "truth": truth}


# The first word of a clause -> its action; what stands before its goal.
RULE_VERBS = {
    "add": "add", "put": "add", "place": "add", "insert": "add", "give": "add", "include": "add", "let": "add",
    "remove": "remove", "delete": "remove", "erase": "remove", "get": "remove", "take": "remove", "lose": "remove",
    "replace": "replace", "swap": "replace", "change": "replace", "turn": "replace", "substitute": "replace",
    "make": "recolor", "paint": "recolor", "recolor": "recolor", "color": "recolor", "move": "move", "shift": "move",
    "crop": "crop", "brighten": "lighting", "darken": "lighting", "write": "text", "blur": "adjust", "sharpen": "adjust",
    "resize": "resize", "have": "pose",
}  # fmt: skip
RULE_GOALS = re.compile(r" (?:to|with|into|for|on|in|at|by|next to) ")
RULE_WORDS = {"background": "background", "style": "restyle", "lighting": "lighting", "material": "material",
              "text": "text", "color": "recolor", "colour": "recolor", "pose": "pose"}  # fmt: skip


def split_by_rule(instruction: str) -> EditPlan:
    """A plan without understanding: clauses end at commas, full stops, "and" and "then"; the first word is the action."""
    clauses = re.split(r"[,.;\n!?]+(?:\s|$)|\band then\b|\band\b|\bthen\b|\b\d+[.)]", instruction)
    clauses = [clause for clause in (clause.strip(" -*()") for clause in clauses) if re.search(r"\w", clause)]
    edits = []
    for clause in clauses:
        verb, _, rest = clause.partition(" ")
        action = RULE_VERBS.get(verb.lower(), "remove")
        said = next((meant for word, meant in RULE_WORDS.items() if word in rest.split()), None)
        if action in ("replace", "recolor") and said is not None:
            action = said
            rest = re.sub(r"^the \w+ (?:of|on) ", "", rest)
        subject, *goal = RULE_GOALS.split(rest, maxsplit=1)
        if action == "recolor" and not goal:
            subject, _, last = subject.rpartition(" ")
            goal = [last]
        bare = re.sub(r"^(?:the|a|an|some|my) ", "", subject.strip().replace(";", ","))
        goal_said = "nothing" if action == "remove" else "".join(goal).replace(";", ",").strip()
        edits.append(Edit(action, bare or WHOLE["restyle"], goal_said or "changed"))
    if not edits:
        return EditPlan(instruction, (), (instruction,), fallback=True, reason="no clause")
    return EditPlan(instruction, tuple(edits), tuple(clauses))


def local(
    name: str,
    source: str,
    base: str | None = None,
    few_shot: bool = False,
    constrained: bool = False,
    int8: bool = False,
    max_new_tokens: int = 512,
    batch_size: int = BATCH_SIZE,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Planner:
    """A model loaded here, greedy. One that sees is shown the rows' pictures, where they have one.

    Args:
        name (`str`): In tables.
        source, base (`str`): What [`load_planner`] takes.
        few_shot, constrained, int8, max_new_tokens, batch_size, device, dtype: See [`evaluate_planners`].
    """

    def plan(rows: Iterable[Row]) -> Iterator[tuple[Row, Answer]]:
        import torch

        from ..bundles.planners import load_planner
        from ..planners.int8 import to_int8
        from ..planners.plans import make_plans

        loaded: Any = load_planner(source, base=base, dtype=dtype or torch.float32)
        model, processor, _ = loaded
        model.to(device or "cpu")
        if int8:
            to_int8(model)
        tokenizer = getattr(processor, "tokenizer", processor)
        sees = hasattr(processor, "image_processor")
        prompts = prompts_of(model, examples=())
        prompts = replace(prompts, examples=PHOTO_EXAMPLES) if few_shot else prompts
        for batch, shown in _batches(rows, batch_size, sees):
            photos: list[Any] = [open_photo(row.picture) if shown else None for row in batch]
            start = time.perf_counter()
            plans = make_plans(
                model,
                processor if shown else tokenizer,
                photos,
                [row.instruction for row in batch],
                prompts,
                retries=0,
                sequence_without_adapter=not int8 and belongings(model).get("sequence_without_adapter", False),
                max_new_tokens=max_new_tokens,
                constrained=constrained,
            )
            seconds = (time.perf_counter() - start) / len(batch)
            for row, made in zip(batch, plans):
                yield row, Answer(made, seconds, sum(len(tokenizer(text)["input_ids"]) for text in made.raw))

    from .methods import fingerprint

    settings = {"source": fingerprint(source), "few_shot": few_shot, "constrained": constrained}
    settings |= {} if base is None else {"base": fingerprint(base)}
    settings |= {"int8": True} if int8 else {}  # a run from before goes on
    settings |= _if_other(batch_size=(batch_size, BATCH_SIZE), device=(str(device or "cpu"), "cpu"))
    return Planner(name, plan, {**settings, "max_new_tokens": max_new_tokens, "dtype": str(dtype)})


def _batches(rows: Iterable[Row], size: int, sees: bool) -> Iterator[tuple[list[Row], bool]]:
    """The rows in their order, and whether the planner is shown their pictures: in one batch all or none."""
    for shown, together in groupby(rows, key=lambda row: sees and bool(row.picture)):
        while batch := list(islice(together, size)):
            yield batch, shown


def served(
    name: str, planner: RemotePlanner, few_shot: bool = False, constrained: bool = False, max_new_tokens: int = 512
) -> Planner:
    """A model behind an address, greedy, asked the same two questions, and shown the rows' pictures where they have one.

    Args:
        name (`str`): In tables.
        planner ([`RemotePlanner`]): Where, and which model.
        few_shot, constrained, max_new_tokens: See [`evaluate_planners`].
    """
    prompts = Prompts(examples=PHOTO_EXAMPLES if few_shot else ())
    asked = {"max_new_tokens": max_new_tokens, "constrained": constrained}

    def ask(row: Row) -> Answer:
        from ..planners.plans import to_plan

        start = time.perf_counter()
        photo: Any = open_photo(row.picture) if row.picture else None
        conversation = planner.converse([photo], [row.instruction], prompts)
        (decomposition,) = conversation.decompose(**asked)
        (sequence,) = conversation.sequence(**asked) if read_decomposition(decomposition).edits else ("",)
        counted: list[Any] = [usage.get("completion_tokens") for usage in conversation.usage]
        tokens = None if None in counted else sum(counted)
        return Answer(to_plan(row.instruction, decomposition, sequence), time.perf_counter() - start, tokens)

    def plan(rows: Iterable[Row]) -> Iterator[tuple[Row, Answer | Exception]]:
        return map_concurrently(ask, rows, planner.endpoint.concurrency)

    # The address too, in which no key can be: two servers may call different models the same.
    settings = {"address": planner.base_url, "model": planner.model, "few_shot": few_shot, "constrained": constrained}
    settings |= _if_other(concurrency=(planner.endpoint.concurrency, CONCURRENCY))
    return Planner(name, plan, {**settings, "max_new_tokens": max_new_tokens})


def _if_other(**settings: tuple[Any, Any]) -> dict[str, Any]:
    """What only the seconds depend on, where it is not the default, so that a run from before goes on."""
    return {name: value for name, (value, default) in settings.items() if value != default}


# Figures
# -------


def marks(row: Row, plan: EditPlan) -> dict[str, float | None]:
    """What a plan is worth, figure by figure; `None` where the truth that it takes is not known.

    - `format`: 1.0 if no answer has a fault;
    - `number`: 1.0 if there are as many edits as there should be;
    - `action_f1`, `subject_f1`, `goal_f1`: F1, of the last two the soft one, see [`soft_f1`];
    - `exact`: 1.0 if the edits are the true ones to the word, in any order; `same`: 1.0 if they mean the true ones, see
      [`same_edits`];
    - `omitted`, `invented`: how many true edits have no counterpart in the plan, and the other way round. Two edits are
      counterparts if their subjects share a word, or action and a word of the goal;
    - `order`: the share of the pairs of edits whose order matters that the requests have in the right order.
    """
    faults = [*(read_decomposition(plan.raw[0]).faults if plan.raw else ())]
    if len(plan.raw) > 1:
        faults += read_sequence(plan.raw[1]).faults
    found = {"format": float(not faults and not plan.fallback), "number": float(len(plan.edits) == row.number)}
    unknown = dict.fromkeys(("action_f1", "subject_f1", "goal_f1", "exact", "same", "omitted", "invented", "order"))
    if not row.edits:
        return {**found, **unknown}
    goals_known = all(edit.goal for edit in row.edits)
    lists = {
        name: ([getattr(edit, name) for edit in plan.edits], [getattr(edit, name) for edit in row.edits])
        for name in ("action", "subject", "goal")
    }
    pairs = counterparts(plan.edits, row.edits)
    return {
        **found,
        "action_f1": action_f1(*lists["action"]),
        "subject_f1": soft_f1(*lists["subject"]),
        "goal_f1": soft_f1(*lists["goal"]) if goals_known else None,
        "exact": float(exact(plan.edits, row.edits)) if goals_known else None,
        "same": float(same_edits(plan.edits, row.edits)) if goals_known else None,
        "omitted": float(len(row.edits) - len(pairs)),
        "invented": float(len(plan.edits) - len(pairs)),
        "order": order(plan.requests, row) if row.before else None,
    }


def counterparts(answered: Sequence[Edit], true: Sequence[Edit]) -> list[tuple[int, int]]:
    """Which answered edit stands for which true one, one to one: places in the two lists."""

    def worth(one: Edit, other: Edit) -> float:
        same = action_f1([one.action], [other.action])
        subject, goal = _alike(one.subject, other.subject), _alike(one.goal, other.goal)
        return same + subject + goal if subject or (same and goal) else 0.0

    return _paired([[worth(one, other) for other in true] for one in answered])


def order(requests: Sequence[str], row: Row) -> float:
    """The share of `row.before` that the requests keep. A request stands for the edit whose words it has most of."""
    said = [f"{edit.action} {edit.subject} {edit.goal}" for edit in row.edits]
    place = {edit: request for request, edit in _paired([[_alike(one, other) for other in said] for one in requests])}
    kept = [first in place and second in place and place[first] < place[second] for first, second in row.before]
    return sum(kept) / len(kept)


def agreement(plans: Sequence[EditPlan]) -> float:
    """The share of the pairs of plans, of wordings of one instruction, whose edits mean the same, see [`same_edits`]."""
    pairs = list(combinations(plans, 2))
    same = [bool(one.edits) and same_edits(one.edits, other.edits) for one, other in pairs]
    return sum(same) / len(pairs)


def write_planner_report(folder: Path, keys: Sequence[str], planners: Sequence[Planner]) -> Path:
    """Writes `planners.json` and `planners.md`: each planner's figures with their 95% intervals, and how far the planners
    are from the first of them, row by row, with the interval of the paired difference.

    Args:
        folder (`Path`): Of the run.
        keys (sequence of `str`): The rows that count.
        planners (sequence of [`Planner`]): Those that are compared, in the order of the table. What they answered under
            other settings does not count.
    """
    asked_for = set(keys)
    rows = {line["key"]: _row_of(line, folder) for line in _read_rows(folder) if line["key"] in asked_for}
    answers = {planner.name: _read_answers(folder, planner) for planner in planners}
    tables: dict[str, dict[str, Any]] = {}
    for benchmark in dict.fromkeys(row.benchmark for row in rows.values()):
        mine = [row for row in rows.values() if row.benchmark == benchmark]
        asked = {planner.name: [row for row in mine if planner.applies_to(row)] for planner in planners}
        values = {name: _values(some, answers[name]) for name, some in asked.items()}
        first_name, first = next(((name, each) for name, each in values.items() if each), (None, {}))
        tables[benchmark] = {
            name: {
                "rows": len(asked[name]),
                "unanswered": sum(row.key not in answers[name] for row in asked[name]),
                "figures": {figure: estimate([list(each.values())]) for figure, each in mine_values.items()},
                "compared with": first_name,
                "difference": {
                    figure: estimate([[each[key] - first[figure][key] for key in each if key in first[figure]]])
                    for figure, each in mine_values.items()
                    if name != first_name and set(each) & set(first.get(figure, ()))
                },
            }
            for name, mine_values in values.items()
        }
    records.write_whole(folder / f"{REPORT}.json", json.dumps(tables, indent=2) + "\n")
    records.write_whole(folder / f"{REPORT}.md", _markdown(tables))
    return folder / f"{REPORT}.md"


def _values(rows: Sequence[Row], answers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Figure -> key of a row, or name of a group -> value. `answers` are lines by the row's key."""
    values: dict[str, dict[str, float]] = {figure: {} for figure in FIGURES}
    groups: dict[str, list[EditPlan]] = {}
    for row in rows:
        line = answers.get(row.key)
        if line is None:
            continue
        plan = line["plan"]
        for figure, value in {**marks(row, plan), "seconds": line["seconds"], "tokens": line["tokens"]}.items():
            if value is not None:
                values[figure][row.key] = value
        if row.group:
            groups.setdefault(row.group, []).append(plan)
    values["agreement"] = {group: agreement(plans) for group, plans in groups.items() if len(plans) > 1}
    return {figure: each for figure, each in values.items() if each}


def _markdown(tables: Mapping[str, Mapping[str, Any]]) -> str:
    missing, rows = _unanswered(tables)
    answered = f"{missing} of {rows} rows are without an answer" if missing else f"all {rows} rows are answered"
    blocks = [
        f"# Planners: {answered}",
        "Means with 95% bootstrap intervals. What each figure is: `diffusers_r1.evaluation.planners.marks`.",
    ]
    for benchmark, planners in tables.items():
        first = next(iter(planners.values()))["compared with"]
        titles = {"figures": benchmark, "difference": f"{benchmark}: difference from {first}, row by row"}
        for part, title in titles.items():
            shown = {name: each[part] for name, each in planners.items() if each[part]}
            names = [figure for figure in FIGURES if any(figure in each for each in shown.values())]
            if not shown:
                continue
            lines = [f"| planner | n | {' | '.join(names)} |", f"| --- | --- |{' --- |' * len(names)}"]
            for name, each in shown.items():
                cells = [_cell(each.get(figure)) for figure in names]
                lines.append(f"| {name} | {max(figure['n'] for figure in each.values())} | {' | '.join(cells)} |")
            blocks.append(f"## {title}\n\n" + "\n".join(lines))
        if idle := [name for name, each in planners.items() if not each["rows"]]:
            blocks.append(f"{benchmark} has nothing for {' and '.join(idle)}: {UNKNOWN}.")
    return "\n\n".join(blocks) + "\n"


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return ""
    interval = "" if figure["low"] is None else f" ({figure['low']:.2f} to {figure['high']:.2f})"
    return f"{figure['mean']:.3f}{interval}"


# The run's files
# ---------------


def _write_rows(folder: Path, rows: Sequence[Row]) -> None:
    there = {line["key"]: line for line in _read_rows(folder)}
    lines = [_line_of(row) for row in rows]
    for line in lines:
        if there.get(line["key"], line) != line:
            raise ValueError(f"{line['key']} is another row in {folder}: take another folder.")
    for line in lines:
        if line["key"] not in there:
            records.append(folder / ROWS, line)


def _line_of(row: Row) -> dict[str, Any]:
    line = {
        "key": row.key, **vars(row), "edits": [vars(edit) for edit in row.edits], "requests": list(row.requests),
        "before": [list(pair) for pair in row.before],
    }  # fmt: skip
    return line if row.picture else {name: value for name, value in line.items() if name != "picture"}


def _read_rows(folder: Path) -> list[dict[str, Any]]:
    return records.read_fields(folder / ROWS, {"key": str})


def _row_of(line: Mapping[str, Any], folder: Path) -> Row:
    fields = {name: value for name, value in line.items() if name != "key"}
    return schema.read(Row, fields, f"{folder / ROWS}, {line['key']}")


def _read_answers(folder: Path, planner: Planner) -> dict[str, dict[str, Any]]:
    """What a planner has answered under these settings, as lines by the row's key."""
    by = {"planner": planner.name, "settings": digest(planner.settings)}
    lines = records.read_fields(folder / ANSWERS, ANSWER_FIELDS)
    return {line["key"]: line for line in lines if by.items() <= line.items() and line["plan"] is not None}


def _answer(folder: Path, planner: Planner, rows: Sequence[Row]) -> None:
    """Has a planner answer the rows that it has not answered yet under these settings.

    Raises:
        EndpointError: If a server refuses to work for us, or is out of order ten times in a row. What it fails at otherwise
            is written down, and tried again at the next start.
    """
    from tqdm import tqdm

    answered = _read_answers(folder, planner)
    left = [row for row in rows if row.key not in answered and planner.applies_to(row)]
    if not left:
        return
    bar = tqdm(planner.plan(left), planner.name, len(left), unit="plan")
    for row, answer in records.patiently(bar):
        line = {"planner": planner.name, "settings": digest(planner.settings), "key": row.key}
        if isinstance(answer, Exception):
            bar.write(f"{planner.name} has no answer to {row.key}: {answer}", file=sys.stderr)
            line |= {"plan": None, **failure(answer)}
        else:
            line |= {"plan": answer.plan.to_dict(), "seconds": answer.seconds, "tokens": answer.tokens}
        records.append(folder / ANSWERS, line)


def _alike(one: str, other: str) -> float:
    return multiset_f1(normalize(one).split(), normalize(other).split()) if one.strip() and other.strip() else 0.0


def _paired(worths: list[list[float]]) -> list[tuple[int, int]]:
    """The best pairing of rows and columns, one to one, without the pairs that are worth nothing."""
    if not worths or not worths[0]:
        return []
    from scipy.optimize import linear_sum_assignment

    array = np.asarray(worths)
    return [(int(i), int(j)) for i, j in zip(*linear_sum_assignment(array, maximize=True)) if array[i, j] > 0]
