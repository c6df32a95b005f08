"""How well does a planner understand what people type? Measured on words alone, against known edits, without a judge.

A planner gets instructions, pictures only where the benchmark has them, and answers with plans; its answers are kept in the run's folder as they come,
and the same call again goes on where it stopped:

    planner_rows.jsonl      the instructions and what is known of their truth
    planner_answers.jsonl   a line for each planner and instruction
    planners.json, .md      the figures
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import records
from ..endpoints import check_address, map_concurrently
from ..matching import action_f1, exact, multiset_f1, normalize, same_edits, soft_f1
from ..names import is_address
from ..plan import Edit, EditPlan
from ..planners.remote import RemotePlanner
from ..prompts import PHOTO_EXAMPLES, Prompts, prompts_of
from ..sentences import KINDS, TEST_SEEDS, sample_sentence
from ..tags import read_decomposition, read_sequence
from .photos import find_photo, open_photo
from .report import estimate
from .runs import digest


if TYPE_CHECKING:
    import torch


ROWS, ANSWERS, REPORT = "planner_rows.jsonl", "planner_answers.jsonl", "planners"
NAMES = (
    "sentences", "reworded", "everyday", "everyday-photos", "paraphrases", "complexbench-edit", "magicbrush-sessions",
)  # fmt: skip
SENTENCES_LIMIT = 400  # where no limit is given: sentences have no end
WORDINGS = 5  # of each of the reworded sentences
EXTRAS = ("few-shot", "constrained", "int8")  # NAME+few-shot
HAND_WRITTEN = {  # files of the package
    "everyday": "everyday_test.jsonl",
    "everyday-photos": "everyday_test.jsonl",
    "paraphrases": "paraphrases.jsonl",
}
FIGURES = (
    "format", "number", "action_f1", "subject_f1", "goal_f1", "exact", "same", "omitted", "invented", "order", "agreement",
    "seconds", "tokens",
)  # fmt: skip
JOINTS = (", ", ", and ", " and ", ". ", ", then ", " and then ")

# ComplexBench-Edit's names of what is done -> ours.
EDIT_TYPES = {
    "add object": "add",
    "chain two": "add",
    "delete object": "remove",
    "change object": "replace",
    "content": "replace",
    "color": "recolor",
    "change style": "restyle",
    "change background": "background",
    "material": "material",
    "text": "text",
    "pose": "pose",
}
WHOLE = {"background": "background", "restyle": "whole picture"}  # the subject of what is done to a whole picture


@dataclass(frozen=True)
class Row:
    """An instruction and what is known of its truth.

    Args:
        benchmark (`str`): One of `NAMES`.
        id (`str`): Names the row within its benchmark.
        instruction (`str`): What somebody types.
        number (`int`): How many edits it asks for.
        edits (`tuple` of [`Edit`]): What they are; empty where nobody knows. A goal that nobody knows is empty.
        requests (`tuple` of `str`): The true sub-requests; empty where nobody knows them.
        before (`tuple` of pairs of `int`): Edit i has to come before edit j, counted from 0.
        group (`str`, defaults to `""`): Rows of one group say the same in other words.
        picture (`str`, defaults to `""`): What [`open_photo`] opens for planners that see.
    """

    benchmark: str
    id: str
    instruction: str
    number: int
    edits: tuple[Edit, ...] = ()
    requests: tuple[str, ...] = ()
    before: tuple[tuple[int, int], ...] = ()
    group: str = ""
    picture: str = ""

    @property
    def key(self) -> str:
        return f"{self.benchmark}/{self.id}"


@dataclass(frozen=True)
class Planner:
    """What makes plans of instructions.

    Args:
        name (`str`): In tables.
        plan (`Callable`): From rows to each row's plan, seconds and tokens, in their order.
        settings (`Mapping`): What the plans depend on, ready for JSON.
        needs_truth (`bool`, defaults to `False`): Whether only rows whose edits are known have plans.
    """

    name: str
    plan: Callable[[Iterable[Row]], Iterator[tuple[Row, EditPlan, float, int | None]]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs_truth: bool = False


def evaluate_planners(
    output_dir: str | Path,
    benchmarks: Sequence[str],
    planners: Sequence[str],
    limit: int | None = None,
    seed: int = 0,
    max_new_tokens: int = 512,
    batch_size: int = 8,
    planner_model: str | None = None,
    planner_base: str | None = None,
    concurrency: int = 8,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Measures planners on instructions whose edits are known, and writes a report. The same call again goes on.

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
            [`~planners.int8.to_int8`]. They can be put together.
        limit (`int`, *optional*): The most rows of each benchmark; all by default, of sentences 400, reworded 500.
        seed (`int`, defaults to 0): Which sentences, and how steps are joined.
        max_new_tokens (`int`, defaults to 512): Of each answer.
        batch_size (`int`, defaults to 8): Instructions planned at once. Give 1 to measure the seconds of a single one.
        planner_model (`str`, *optional*): The model at an address that has several. The key is read from `OPENAI_API_KEY`.
        planner_base (`str`, *optional*): Of planners that are adapters: where their base is, see [`load_planner`].
        concurrency (`int`, defaults to 8): Requests to a server at once.
        device, dtype (*optional*): Of models loaded here; the CPU and float32 by default.

    Returns:
        `Path`: of `planners.md`.

    Raises:
        ValueError: If a name or a file is not there, or not what it should be. No model has run then.
        EndpointError: If the server refuses to work for us.
    """
    if not planners:
        raise ValueError("Name at least one planner: rule, truth, a folder, a name on the Hub or an address.")
    for name in planners:
        _check_planner(name, device)
    rows = [row for name in benchmarks for row in read_rows(name, limit, seed)]
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    _write_rows(folder, rows)
    called = []
    for name in planners:
        source, *extras = name.split("+")
        few, bound, int8 = (extra in extras for extra in EXTRAS)
        if source in ("rule", "truth"):
            planner = by_rule() if source == "rule" else truth()
        elif is_address(source):
            model = RemotePlanner(source, planner_model, concurrency=concurrency)
            planner = served("+".join([model.model, *extras]), model, few, bound, max_new_tokens)
        else:
            planner = local(name, source, planner_base, few, bound, int8, max_new_tokens, batch_size, device, dtype)
        called.append(planner.name)
        _answer(folder, planner, rows)
    return write_planner_report(folder, [row.key for row in rows], called)


def _check_planner(name: str, device: str | torch.device | None) -> None:
    source, *extras = name.split("+")
    if unknown := set(extras) - set(EXTRAS):
        raise ValueError(f"A planner can be NAME+{' or NAME+'.join(EXTRAS)}, not +{', +'.join(sorted(unknown))}.")
    if is_address(source):
        check_address(source)
    if "int8" in extras and (is_address(source) or not str(device or "cpu").startswith("cpu")):
        raise ValueError(f"{name}: +int8 is for a planner that is loaded here, on the CPU.")


# Rows
# ----


def is_planner_benchmark(name: str) -> bool:
    """Whether a benchmark is one of words alone, measured by [`evaluate_planners`]."""
    return name.partition("=")[0] in NAMES


def read_rows(name: str, limit: int | None = None, seed: int = 0) -> list[Row]:
    """The rows of a benchmark, see [`evaluate_planners`]. The same arguments give the same rows.

    Raises:
        ValueError: If the benchmark or its file is not there, or the file is not laid out as it should be.
    """
    source, _, path = name.partition("=")
    if source not in NAMES:
        raise ValueError(f"{source!r} is no benchmark of planners: {', '.join(NAMES)}.")
    if path and not Path(path).exists():
        raise ValueError(f"There is no {path}, where {source} should be.")
    if source == "complexbench-edit" and not path:
        raise ValueError("ComplexBench-Edit is read from a file: complexbench-edit=FILE.")
    rows = {
        "sentences": lambda: _sentences(limit or SENTENCES_LIMIT, seed),
        "reworded": lambda: _reworded(limit or 100 * WORDINGS, seed),
        "everyday": lambda: _everyday(_hand_written(source, path)),
        "everyday-photos": lambda: _with_photos(_hand_written(source, path)),
        "paraphrases": lambda: _paraphrases(_hand_written(source, path)),
        "complexbench-edit": lambda: _complexbench(Path(path), seed),
        "magicbrush-sessions": lambda: _magicbrush(Path(path) if path else None, seed),
    }[source]()
    return list(islice(rows, limit))


def _sentences(limit: int, seed: int) -> Iterator[Row]:
    for number in range(limit):
        sentence = sample_sentence(TEST_SEEDS + seed + number, KINDS[number % len(KINDS)])
        yield Row(
            "sentences", f"{sentence.kind}-{sentence.seed}", sentence.instruction, len(sentence.edits), sentence.edits,
            sentence.requests, sentence.before,
        )  # fmt: skip


def _reworded(limit: int, seed: int) -> Iterator[Row]:
    for number in range(limit):
        place, wording = divmod(number, WORDINGS)
        said = sample_sentence(TEST_SEEDS + 500_000 + seed + place, KINDS[place % len(KINDS)], wording)
        group = f"{said.kind}-{said.seed}"
        yield Row(
            "reworded", f"{group}-{wording}", said.instruction, len(said.edits), said.edits, said.requests,
            said.before, group,
        )  # fmt: skip


def _hand_written(name: str, path: str) -> Path:
    file = Path(path) if path else Path(__file__).parents[1] / "sentences" / "data" / HAND_WRITTEN[name]
    if not file.exists():
        raise ValueError(f"There is no {file.name} in the package; give a file: {name}=FILE.")
    return file


def _everyday(path: Path) -> Iterator[Row]:
    """Rows of `{"id", "trade", "instruction", "edits": [{"action", "subject", "goal"}], "requests", "before"}`."""
    for line in records.read(path):
        edits = tuple(Edit(**edit) for edit in line["edits"])
        before = tuple((first, second) for first, second in line.get("before") or ())
        yield Row("everyday", str(line["id"]), line["instruction"], len(edits), edits, tuple(line["requests"]), before)


def _with_photos(path: Path) -> Iterator[Row]:
    """The rows of [`_everyday`] that name a `picture`."""
    for row, line in zip(_everyday(path), records.read(path)):
        if "picture" in line:
            yield replace(row, benchmark="everyday-photos", picture=find_photo(line["picture"], path.parent))


def _paraphrases(path: Path) -> Iterator[Row]:
    """Rows of `{"id", "trade", "wordings": [...], "edits"}`: one row for each wording."""
    for line in records.read(path):
        edits = tuple(Edit(**edit) for edit in line["edits"])
        for number, wording in enumerate(line["wordings"]):
            yield Row("paraphrases", f"{line['id']}-{number}", wording, len(edits), edits, group=str(line["id"]))


def _complexbench(path: Path, seed: int) -> Iterator[Row]:
    files = sorted(path.glob("**/final_update_v2.json")) if path.is_dir() else [path]
    seen: set[str] = set()
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        lines = content if isinstance(content, list) else [{"id": id, **line} for id, line in content.items()]
        for line in lines:
            try:
                steps = line["steps"] if "steps" in line else line["new_ins"].splitlines()
                pairs = line["edits"] if "edits" in line else line["edit pair"]
                steps = [step.strip().rstrip(".") for step in steps if step.strip()]
                edits = tuple(_complexbench_edit(*both) for both in zip(steps, pairs, strict=True))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{file} is not ComplexBench-Edit: row {line.get('id')} has no {error}.") from error
            # One picture can have several rows, and a picture's number several files.
            id = next(id for number in range(1, len(lines) + 2) if (id := f"{line['id']}-{number}") not in seen)
            seen.add(id)
            yield Row("complexbench-edit", id, join(steps, f"{id} {seed}"), len(edits), edits)


def _complexbench_edit(step: str, pair: Mapping[str, str]) -> Edit:
    action = EDIT_TYPES[pair["edit_type"]]
    if pair["edit_type"] == "content" and re.search(r"\b(text|words?|letters?|numbers?|logo)\b|['\"]", step):
        action = "text"
    if action == "add":
        return Edit("add", pair["new_obj"].strip(), "")
    goal = {"remove": "nothing", "replace": pair["new_obj"].strip()}.get(action, "")
    subject = WHOLE.get(action) or pair["ori obj"].strip()
    return Edit(action, subject, "" if pair["edit_type"] == "content" else goal)


def _magicbrush(path: Path | None, seed: int) -> Iterator[Row]:
    if path is not None and path.is_file():
        sessions = {str(line["img_id"]): line["turns"] for line in json.loads(path.read_text(encoding="utf-8"))}
    else:
        from datasets import load_dataset

        split: Any = load_dataset(str(path or "osunlp/MagicBrush"), split="dev" if path is None else "train")
        sessions = {}
        lines = split.select_columns(["img_id", "turn_index", "instruction"])
        for line in sorted(lines, key=lambda line: (line["img_id"], line["turn_index"])):
            sessions.setdefault(str(line["img_id"]), []).append(line["instruction"])
    for id, turns in sessions.items():
        if len(turns) > 1:
            steps = [turn.strip().rstrip(".") for turn in turns]
            yield Row("magicbrush-sessions", id, join(steps, f"{id} {seed}"), len(turns))


def join(steps: Sequence[str], seed: str) -> str:
    """Single instructions as one sentence, joined in a way that the seed chooses."""
    joint = JOINTS[int(digest(seed), 16) % len(JOINTS)]
    if joint in (", and ", " and then "):
        return ", ".join(steps[:-1]) + joint + steps[-1]
    return joint.join(steps)


# Planners
# --------


def truth() -> Planner:
    """The true plan, where it is known."""

    def plan(rows: Iterable[Row]) -> Iterator[tuple[Row, EditPlan, float, None]]:
        for row in rows:
            yield row, EditPlan(row.instruction, row.edits, row.requests or (row.instruction,)), 0.0, None

    return Planner("truth", plan, needs_truth=True)


def by_rule() -> Planner:
    """The splitter of [`split_by_rule`]: what a planner has to be better than."""

    def plan(rows: Iterable[Row]) -> Iterator[tuple[Row, EditPlan, float, None]]:
        for row in rows:
            start = time.perf_counter()
            made = split_by_rule(row.instruction)
            yield row, made, time.perf_counter() - start, None

    return Planner("rule", plan)


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
    batch_size: int = 8,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Planner:
    """A model loaded here, greedy. One that sees is shown the rows' pictures, where they have one.

    Args:
        name (`str`): In tables.
        source, base (`str`): What [`load_planner`] takes.
        few_shot, constrained, int8, max_new_tokens, batch_size, device, dtype: See [`evaluate_planners`].
    """

    def plan(rows: Iterable[Row]) -> Iterator[tuple[Row, EditPlan, float, int]]:
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
                max_new_tokens=max_new_tokens,
                constrained=constrained,
            )
            seconds = (time.perf_counter() - start) / len(batch)
            for row, made in zip(batch, plans):
                yield row, made, seconds, sum(len(tokenizer(text)["input_ids"]) for text in made.raw)

    from .methods import fingerprint

    settings = {"source": fingerprint(source), "few_shot": few_shot, "constrained": constrained}
    settings |= {} if base is None else {"base": fingerprint(base)}
    settings |= {"int8": True} if int8 else {}  # a run from before goes on
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

    def ask(row: Row) -> tuple[EditPlan, float, int | None]:
        from ..planners.plans import to_plan

        start = time.perf_counter()
        photo: Any = open_photo(row.picture) if row.picture else None
        conversation = planner.converse([photo], [row.instruction], prompts)
        (decomposition,) = conversation.decompose(**asked)
        (sequence,) = conversation.sequence(**asked) if read_decomposition(decomposition).edits else ("",)
        counted: list[Any] = [usage.get("completion_tokens") for usage in conversation.usage]
        tokens = None if None in counted else sum(counted)
        return to_plan(row.instruction, decomposition, sequence), time.perf_counter() - start, tokens

    def plan(rows: Iterable[Row]) -> Iterator[tuple[Row, EditPlan, float, int | None]]:
        for row, result in map_concurrently(ask, rows, planner.endpoint.concurrency):
            if isinstance(result, Exception):
                raise result
            yield row, *result

    settings = {"model": planner.model, "few_shot": few_shot, "constrained": constrained}
    return Planner(name, plan, {**settings, "max_new_tokens": max_new_tokens})


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


def write_planner_report(folder: Path, keys: Sequence[str], planners: Sequence[str]) -> Path:
    """Writes `planners.json` and `planners.md`: each planner's figures with their 95% intervals, and how far the planners
    are from the first of them, row by row, with the interval of the paired difference.

    Args:
        folder (`Path`): Of the run.
        keys (sequence of `str`): The rows that count.
        planners (sequence of `str`): The names of those that are compared, in the order of the table.
    """
    rows = {line["key"]: _row_of(line) for line in records.read(folder / ROWS) if line["key"] in set(keys)}
    answers = {(line["planner"], line["key"]): line for line in records.read(folder / ANSWERS)}
    tables: dict[str, dict[str, Any]] = {}
    for benchmark in dict.fromkeys(row.benchmark for row in rows.values()):
        mine = [row for row in rows.values() if row.benchmark == benchmark]
        values = {name: _values(name, mine, answers) for name in planners}
        values = {name: each for name, each in values.items() if each}
        first_name, first = next(iter(values.items()))
        tables[benchmark] = {
            name: {
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


def _values(
    planner: str, rows: Sequence[Row], answers: Mapping[tuple[str, str], Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """Figure -> key of a row, or name of a group -> value."""
    values: dict[str, dict[str, float]] = {figure: {} for figure in FIGURES}
    groups: dict[str, list[EditPlan]] = {}
    for row in rows:
        line = answers.get((planner, row.key))
        if line is None:
            continue
        plan = EditPlan.from_dict(line["plan"])
        for figure, value in {**marks(row, plan), "seconds": line["seconds"], "tokens": line["tokens"]}.items():
            if value is not None:
                values[figure][row.key] = value
        if row.group:
            groups.setdefault(row.group, []).append(plan)
    values["agreement"] = {group: agreement(plans) for group, plans in groups.items() if len(plans) > 1}
    return {figure: each for figure, each in values.items() if each}


def _markdown(tables: Mapping[str, Mapping[str, Any]]) -> str:
    blocks = [
        "# Planners\n\nMeans with 95% bootstrap intervals. What each figure is: `diffusers_r1.evaluation.planners.marks`."
    ]
    for benchmark, planners in tables.items():
        first = next(iter(planners))
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
    return "\n\n".join(blocks) + "\n"


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return ""
    interval = "" if figure["low"] is None else f" ({figure['low']:.2f} to {figure['high']:.2f})"
    return f"{figure['mean']:.3f}{interval}"


# The run's files
# ---------------


def _write_rows(folder: Path, rows: Sequence[Row]) -> None:
    there = {line["key"]: line for line in records.read(folder / ROWS)}
    for row in rows:
        line = {
            "key": row.key, **vars(row), "edits": [vars(edit) for edit in row.edits], "requests": list(row.requests),
            "before": [list(pair) for pair in row.before],
        }  # fmt: skip
        line = line if row.picture else {name: value for name, value in line.items() if name != "picture"}
        if row.key not in there:
            records.append(folder / ROWS, line)
        elif there[row.key] != line:
            raise ValueError(f"{row.key} is another row in {folder}: take another folder.")


def _row_of(line: Mapping[str, Any]) -> Row:
    fields = {name: value for name, value in line.items() if name != "key"}
    fields["edits"] = tuple(Edit(**edit) for edit in line["edits"])
    fields["requests"] = tuple(line["requests"])
    fields["before"] = tuple((first, second) for first, second in line["before"])
    return Row(**fields)


def _answer(folder: Path, planner: Planner, rows: Sequence[Row]) -> None:
    """Has a planner answer the rows that it has not answered yet under these settings."""
    from tqdm import tqdm

    settings = digest(planner.settings)
    answered = {
        line["key"]
        for line in records.read(folder / ANSWERS)
        if (line["planner"], line["settings"]) == (planner.name, settings)
    }
    left = [row for row in rows if row.key not in answered and (row.edits or not planner.needs_truth)]
    if not left:
        return
    for row, plan, seconds, tokens in tqdm(planner.plan(left), planner.name, len(left), unit="plan"):
        line = {"planner": planner.name, "settings": settings, "key": row.key, "plan": plan.to_dict()}
        records.append(folder / ANSWERS, {**line, "seconds": seconds, "tokens": tokens})


def _alike(one: str, other: str) -> float:
    return multiset_f1(normalize(one).split(), normalize(other).split()) if one.strip() and other.strip() else 0.0


def _paired(worths: list[list[float]]) -> list[tuple[int, int]]:
    """The best pairing of rows and columns, one to one, without the pairs that are worth nothing."""
    if not worths or not worths[0]:
        return []
    from scipy.optimize import linear_sum_assignment

    array = np.asarray(worths)
    return [(int(i), int(j)) for i, j in zip(*linear_sum_assignment(array, maximize=True)) if array[i, j] > 0]
