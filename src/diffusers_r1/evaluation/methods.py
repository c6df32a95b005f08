"""Methods: how an instruction becomes a plan, and how editors, here or behind an address, make pictures of plans."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from PIL import Image

from ..endpoints import EndpointError, map_concurrently
from ..images import resized
from ..judging import ChecklistCritic, Critic, Criticism, ScenesCritic
from ..names import local
from ..plan import EditPlan, Turns
from ..records import Failure, kind_of
from ..remote_editor import RemoteEditor, check_remote_editor, remote_prompts, remote_working_size
from .benchmarks import Sample


if TYPE_CHECKING:
    from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline


Item = TypeVar("Item")
Result = TypeVar("Result")

REFLECT = "+reflect"  # after a method's name: what its editor makes is looked at again
NAMES = (
    "base",
    "untrained",
    "r1",
    "oracle",
    "remote",
    *(f"{name}{REFLECT}" for name in ("untrained", "r1", "oracle")),
)
WEIGHTS_AND_WORDS = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.txt")


# From an instruction to a plan
# -----------------------------


@dataclass(frozen=True)
class Method:
    """How an instruction becomes a plan.

    Args:
        name (`str`): In tables.
        plan (`Callable`): From samples to each sample with its plan, or with why a server made none, in their order.
        settings (`Mapping`): All that the plans depend on beside the sample, ready for JSON.
        plans (`bool`, defaults to `True`): Whether the instruction is taken apart at all. Without that there is nothing
            to do in several turns.
        needs_truth (`bool`, defaults to `False`): Whether only samples with true sub-requests have plans.
    """

    name: str
    plan: Callable[[Iterable[Sample]], Iterator[tuple[Sample, EditPlan | Exception]]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    plans: bool = True
    needs_truth: bool = False

    def applies_to(self, sample: Mapping[str, Any]) -> bool:
        """Whether a sample, as a line of the run's `samples.jsonl`, can be planned."""
        return bool(sample["requests"]) or not self.needs_truth


def bare(name: str = "base") -> Method:
    """The instruction goes straight to the editor."""

    def plan(samples: Iterable[Sample]) -> Iterator[tuple[Sample, EditPlan]]:
        for sample in samples:
            yield sample, EditPlan(sample.instruction, (), (sample.instruction,))

    return Method(name, plan, plans=False)


def oracle() -> Method:
    """The true plan: the best that a planner could do for the editor."""

    def plan(samples: Iterable[Sample]) -> Iterator[tuple[Sample, EditPlan]]:
        for sample in samples:
            yield sample, EditPlan(sample.instruction, sample.edits, sample.requests)

    return Method("oracle", plan, needs_truth=True)


def agents(
    name: str,
    load: Callable[[], ImageEditR1Pipeline],
    settings: Mapping[str, Any],
    batch_size: int = 8,
    max_new_tokens: int = 512,
) -> Method:
    """The two planning agents of a pipeline, greedy.

    Args:
        name (`str`): Such as `"r1"`, or `"untrained"` where the pipeline's planner is.
        load (`Callable`): Gives the pipeline once there is something to plan; it is let go of after that.
        settings (`Mapping`): What tells its weights from others, see [`fingerprint`].
        batch_size (`int`, defaults to 8): Instructions planned at once.
        max_new_tokens (`int`, defaults to 512): The most tokens of each agent's answer.
    """

    def plan(samples: Iterable[Sample]) -> Iterator[tuple[Sample, EditPlan | Exception]]:
        pipe = load()

        def plan_batch(batch: Sequence[Sample]) -> Sequence[EditPlan]:
            images, instructions = [sample.image for sample in batch], [sample.instruction for sample in batch]
            plans: Any = pipe.plan(images, instructions, max_new_tokens=max_new_tokens)
            return plans

        return _in_batches(plan_batch, samples, batch_size)

    return Method(name, plan, {**settings, "max_new_tokens": max_new_tokens})


class ModelFailed(RuntimeError):
    """A model that is loaded here raised `error`; without its traceback, which holds the memory of what failed."""

    def __init__(self, error: Exception):
        super().__init__(f"{type(error).__name__}: {error}")
        self.kind = kind_of(error)


def _in_batches(
    work: Callable[[Sequence[Item]], Sequence[Result | Exception]], items: Iterable[Item], size: int
) -> Iterator[tuple[Item, Result | Exception]]:
    """Each item with its result. Where a model or a server fails, the batch's are tried each alone: only those at fault fail."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield from zip(batch, _one_by_one(work, batch))


def _one_by_one(
    work: Callable[[Sequence[Item]], Sequence[Result | Exception]], batch: Sequence[Item]
) -> Sequence[Result | Exception]:
    failed: EndpointError | ModelFailed
    try:
        return work(batch)
    except EndpointError as error:
        failed = error
    except Exception as error:
        failed = ModelFailed(error)
    if len(batch) == 1 or failed.kind is Failure.HOPELESS:
        return [failed] * len(batch)
    return [_one_by_one(work, [item])[0] for item in batch]


# From a plan to a picture
# ------------------------


@dataclass(frozen=True)
class Job:
    """One picture to be made.

    Args:
        sample ([`Sample`]): With its picture.
        plan ([`EditPlan`]): What the editor is asked.
        seed (`int`): Of the editor's noise.
    """

    sample: Sample
    plan: EditPlan
    seed: int


class MeasuredEditor(Protocol):
    """What makes pictures: a name for tables, where it is, all that the pictures depend on beside the job, and `make`."""

    name: str
    source: str
    settings: Mapping[str, Any]

    def asked(self, plan: EditPlan, turns: Turns) -> list[Any]:
        """What it is asked, an entry for each turn, ready for JSON: equal for plans and turns that come to the same."""
        ...

    def make(self, jobs: Iterable[Job], turns: Turns) -> Iterator[tuple[Job, Image.Image | Exception]]:
        """Every job with its picture, RGB and of the source's size, or with why there is none; in any order."""
        ...


class LocalEditor:
    """The editor of a pipeline that is loaded here.

    Args:
        name (`str`): In tables.
        pipe ([`ImageEditR1Pipeline`]): Its planner, if it has one, is not asked for anything.
        settings (`Mapping`): What tells its weights from others, see [`fingerprint`].
        batch_size (`int`, defaults to 8): Pictures edited at once, as far as the editor's class takes several.
        source (`str`): The folder or the Hub name that it came from, see [`place_of`].
        reflect (`int`, defaults to 0), critic ([`~judging.Critic`], *optional*): As in the pipeline's call. The critic's
            `settings` say all that its verdicts depend on.
        arguments: The editor's own, such as `num_inference_steps`.

    Raises:
        TypeError, ValueError: If the editor does not take one of `arguments`, or not with this value.
    """

    def __init__(
        self,
        name: str,
        pipe: ImageEditR1Pipeline,
        settings: Mapping[str, Any],
        batch_size: int = 8,
        source: str = "",
        reflect: int = 0,
        critic: ScenesCritic | ChecklistCritic | None = None,
        **arguments: Any,
    ):
        from ..editors import check_given

        self.name, self.source, self.pipe = name, source, pipe
        self.batch_size, self.arguments = batch_size, arguments
        self.reflect, self.critic = reflect, critic
        given = {**pipe.editor_defaults, **arguments}
        check_given(pipe.editor, given)
        settings_of_looks = {} if critic is None else {"looks": {"reflect": reflect, **critic.settings}}
        self.settings: Mapping[str, Any] = {**settings, "arguments": given, **settings_of_looks}

    def asked(self, plan: EditPlan, turns: Turns) -> list[Any]:
        from ..editors import asked_of

        told = asked_of(self.pipe.editor, plan, turns, self.settings["arguments"])
        return [{"composed": one.requests} if one.composed else one.prompt for one in told]

    def make(self, jobs: Iterable[Job], turns: Turns) -> Iterator[tuple[Job, Image.Image | Exception]]:
        return _in_batches(partial(self._make_batch, turns), jobs, self.batch_size)

    def _make_batch(self, turns: Turns, batch: Sequence[Job]) -> list[Image.Image | Exception]:
        import torch

        # A generator for each picture: its noise then does not depend on the batch that it is in.
        generators = [torch.Generator().manual_seed(job.seed) for job in batch]
        images, plans = [job.sample.image for job in batch], [job.plan for job in batch]
        failed: dict[bytes, EndpointError] = {}
        critic = _noting(self.critic, failed) if isinstance(self.critic, ChecklistCritic) else self.critic
        looks = {"reflect": self.reflect, "critic": critic, "max_batch": self.batch_size}
        made: Any = self.pipe(images, plan=plans, turns=turns, generator=generators, **looks, **self.arguments)
        return [failed.get(_looked_at(*job)) or picture for job, picture in zip(zip(images, plans), made.images)]


def _noting(critic: Critic, failed: dict[bytes, EndpointError]) -> Critic:
    """The critic, whose failures are kept: a picture that nobody looked at is no result of a second look."""

    def look(source: Image.Image, edited: Image.Image, plan: EditPlan, instruction: str) -> Criticism:
        try:
            return critic(source, edited, plan, instruction)
        except EndpointError as error:
            failed[_looked_at(source, plan)] = error
            raise

    return look


def _looked_at(source: Image.Image, plan: EditPlan) -> bytes:
    """Which picture and plan: the pipeline's plan has more faults, for what its editor does not read."""
    return repr((source.size, plan.requests)).encode() + source.tobytes()


class ServedEditor:
    """An editor behind an address.

    Args:
        editor ([`~remote_editor.RemoteEditor`]): Where, and which model. A server that takes no seed draws its noise itself.
        arguments: Further fields of the request, such as `quality="high"`.
    """

    def __init__(self, editor: RemoteEditor, **arguments: Any):
        check_remote_editor(arguments)
        self.name, self.source, self.editor, self.arguments = editor.model, editor.base_url, editor, arguments
        self.settings: Mapping[str, Any] = {"model": editor.model, "arguments": arguments}

    def asked(self, plan: EditPlan, turns: Turns) -> list[Any]:
        return remote_prompts(plan, turns)

    def make(self, jobs: Iterable[Job], turns: Turns) -> Iterator[tuple[Job, Image.Image | Exception]]:
        yield from map_concurrently(partial(self._make_one, turns), jobs, self.editor.endpoint.concurrency)

    def _make_one(self, turns: Turns, job: Job) -> Image.Image:
        source = job.sample.image
        image = resized(source, remote_working_size(source.size, self.arguments))
        for prompt in remote_prompts(job.plan, turns):
            edited = self.editor.edit(image, prompt, seed=job.seed, **self.arguments)
            image = resized(edited, image.size)
        return resized(image, source.size)


def editor_names(
    editors: Mapping[str, Mapping[str, Any]], variants: Iterable[Mapping[str, Any]] = (), taken: Iterable[str] = ()
) -> list[str]:
    """What editors are called in tables: the last part of a folder or Hub name, and as many more as tell it from others.

    An editor that the run knows keeps its name: known by its place, or by its weights where the folder has moved.

    Args:
        editors (`Mapping`): Folders, Hub names or shipped bundles, each with what tells its weights from others, see
            [`fingerprint`].
        variants (`Iterable`): The run's, as `read_variants` reads them.
        taken (`Iterable` of `str`): Names that something else has.

    Example:
        >>> editor_names({"x1/pipeline": {}, "x2/pipeline": {}, "org/flux": {}})
        ['x1/pipeline', 'x2/pipeline', 'flux']
    """
    known = {variant["editor"]: variant["details"] for variant in variants}
    names: dict[str, str] = {}
    for source, weights in editors.items():
        same = (name for name, details in known.items() if details.get("source") == place_of(source))
        moved = (name for name, details in known.items() if weights and weights.items() <= details["editor"].items())
        found = next((name for name in (*same, *moved) if name not in names.values()), None)
        if found is not None:
            names[source] = found
    for source in [source for source in editors if source not in names]:
        others = {tail for other in editors if other != source for tail in _tails(other)}
        free = (tail for tail in _tails(source) if tail not in {*others, *known, *taken, *names.values()})
        names[source] = next(free, source)
    return [names[source] for source in editors]


def place_of(source: str) -> str:
    """A name as it is; of a folder a digest of its path, which is nobody else's business."""
    path = os.path.abspath(source)
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16] if Path(path).is_dir() else source


def _tails(source: str) -> list[str]:
    """`"a/b/c"` -> `["c", "b/c", "a/b/c"]`."""
    parts = PurePath(source).parts
    return ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)]


def fingerprint(name: str | Path, parts: Callable[[str], bool] = lambda part: True) -> dict[str, str]:
    """What tells the weights of that name from others, so that no run is gone on with after they have changed.

    Args:
        name (`str` or `Path`): A folder or a shipped bundle, known by what its files hold; or a name on the Hub, known by
            that name.
        parts (`Callable`): Whether a file or folder right inside of it counts; all do by default.
    """
    folder = local(name)
    if folder is None:
        return {"name": str(name)}
    digest = hashlib.sha256()
    for path in sorted({path for pattern in WEIGHTS_AND_WORDS for path in folder.rglob(pattern)}):
        inside = path.relative_to(folder)
        if parts(inside.parts[0]):
            digest.update(inside.as_posix().encode())
            with path.open("rb") as file:
                for block in iter(partial(file.read, 2**20), b""):
                    digest.update(block)
    return {"name": folder.name, "sha256": digest.hexdigest()}
