"""The whole evaluation as one function, of two stages that may run apart: pictures are made, then they are judged."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import NoneType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..belongings import belongings
from ..bundles import AGENTS
from ..bundles.planners import shared_in
from ..endpoints import Endpoint, check_address
from ..installing import install_line
from ..judging import ScenesCritic, find_critic
from ..names import PIPELINE_INDEX, is_address, local, only_configs, resolve
from ..pipelines.checks import check_count, check_seed
from ..plan import TURNS, Turns
from ..records import only_one_in
from ..remote_editor import CONFIG_NAME, RemoteEditor
from ..schema import check_text
from . import judges as known_judges
from . import methods as known_methods
from .benchmarks import SAMPLE_SEED, SCENES, SCENES_OF_RUNS, expand, short_name
from .judges import Judge, LocalModel, Pixels, ScenesExact, VIEScore
from .methods import (
    REFLECT,
    LocalEditor,
    MeasuredEditor,
    Method,
    ServedEditor,
    agents,
    bare,
    editor_names,
    fingerprint,
    oracle,
    place_of,
)
from .report import write_report
from .runs import read_edits, read_lines, read_variants, write_pictures, write_plans, write_samples, write_scores


if TYPE_CHECKING:
    import torch

    from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline


EXTRA = ("datasets", "matplotlib", "openai", "scipy", "torchmetrics")
TIMEOUT = 600  # seconds; behind the queue of a busy server an answer takes minutes
MAX_RETRIES = 10
SUPERVISED = "-sft"  # what a shipped bundle's name with this is: its planner before it was trained by reward


def evaluate(
    output_dir: str | Path,
    benchmarks: Sequence[str] = (),
    methods: Sequence[str] = ("base", "untrained", "r1"),
    turns: Sequence[Turns] = ("single",),
    judges: Sequence[str] = ("scenes",),
    stage: Literal["edit", "judge"] | None = None,
    model: str = "imageedit-r1-scenes",
    planner: str | None = None,
    planner_model: str | None = None,
    planner_base: str | None = None,
    untrained: str | None = None,
    editors: Sequence[str] = (),
    editor_arguments: Mapping[str, Any] | None = None,
    limit: int | None = None,
    sample_seed: int = SAMPLE_SEED,
    seed: int = 0,
    max_new_tokens: int = 512,
    batch_size: int = 8,
    remote_url: str | None = None,
    remote_model: str | None = None,
    judge_url: str | None = None,
    judge_model: str | None = None,
    clip_model: str | None = None,
    reflect: int = 2,
    critic_url: str | None = None,
    critic_model: str | None = None,
    concurrency: int = 8,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Measures methods on benchmarks, and writes a report. The same call again goes on where it stopped.

    Keys of servers are read from the environment, `OPENAI_API_KEY`. Calls with other methods, benchmarks or judges add to
    what the folder has.

    Args:
        output_dir (`str` or `Path`): The run's folder; made if not there.
        benchmarks (sequence of `str`): Names in [`benchmarks.SPLITS`], `"psr=FOLDER"` for a copy of one, folders, Hub names,
            or `"scenes"`. Needed unless there is nothing but judging to do.
        methods (sequence of `str`): Among

            - `"base"`: the instruction goes straight to the editor;
            - `"untrained"`: the agents, with the planner `untrained`;
            - `"r1"`: the agents of `model`, or `planner`;
            - `"oracle"`: the true plan, where it is known;
            - `"remote"`: the instruction goes straight to the editor behind `remote_url`;
            - `"r1+reflect"`, `"untrained+reflect"`, `"oracle+reflect"`: the same plans, and what the editor makes of them is
              looked at and edited again.
        turns (sequence of `"single"`, `"multi"`, `"auto"` and `"composed"`): How the plans are carried out; see
            `ImageEditR1Pipeline`.
        judges (sequence of `str`): Among `"scenes"` (exact), `"pixels"` (against a target) and `"viescore"`.
        stage (`"edit"` or `"judge"`, *optional*): Only make the pictures, or only judge those that the folder has, for
            which neither the data sets nor the models that made them are needed.
        model (`str`): A bundle: trained planner, sequencer if it has one of its own, and editor.
        planner (`str`, *optional*): What answers both questions of the method r1, in place of the bundle's agents: as
            [`load_planner`] takes it, the address of a server too.
        planner_model (`str`, *optional*): The model at an address that has several.
        planner_base (`str`, *optional*): Of a planner that is an adapter, where its base is.
        untrained (`str`, *optional*): The planner to compare with, in that bundle's place for it; of a shipped bundle the one
            before it was trained by reward.
        editors (sequence of `str`, *optional*): Pipelines, in a folder or on the Hub; the bundle's own by default. One at a
            time is loaded. Those whose folders have one name are called by as much of the path as tells them apart.
        editor_arguments (`Mapping`, *optional*): Such as `num_inference_steps`; for all editors that are loaded here, or,
            where `"remote"` is the only method, further fields of its requests.
        limit (`int`, *optional*): The most samples of each benchmark; all of them, of scenes 500, by default.
        sample_seed (`int`, defaults to 260308059): Which samples these are.
        seed (`int`, defaults to 0): Of the editors' noise.
        max_new_tokens (`int`, defaults to 512): Of each agent's answer.
        batch_size (`int`, defaults to 8): Instructions planned, and pictures edited, at once.
        remote_url, remote_model (`str`, *optional*): An OpenAI-compatible server with `images/edits`, and a model there.
        judge_url, judge_model (`str`, *optional*): VIEScore's judge: a model on such a server, or without a URL one that is
            loaded here.
        reflect (`int`, defaults to 2): How often, at most, a picture of a method with `+reflect` is edited again.
        critic_url, critic_model (`str`, *optional*): Who looks at it, see [`~judging.find_critic`]; the exact critic, which
            is for scenes, if both are left out.
        clip_model (`str`, *optional*): For `clip_i` among the pixel figures.
        concurrency (`int`, defaults to 8): How many requests to a server are under way at once.
        device, dtype (*optional*): Of the models that are loaded here; an accelerator if there is one, and float32. What was
            made in another type is made again.

    Returns:
        `Path`: of `report.md`; of the folder after `stage="edit"`.

    Raises:
        ModuleNotFoundError: Without the packages of the extra `eval`.
        OSError, TypeError, ValueError: If something does not fit together, or another run is at work in the folder
            (`BlockingIOError`). No model has run then.
        EndpointError: If a server refuses to work for us, or is out of order ten times in a row.
    """
    # 1. Refuse what cannot work
    _check_installed()
    folder = Path(output_dir)
    _check_choices("methods", methods, known_methods.NAMES)
    _check_choices("turns", turns, TURNS)
    _check_choices("judges", judges, known_judges.NAMES)
    _check_choices("stage", [stage], (None, "edit", "judge"))
    check_numbers(limit=limit, batch_size=batch_size, concurrency=concurrency, max_new_tokens=max_new_tokens)
    check_seed(seed)
    check_seed(sample_seed, "sample_seed")
    # numpy's numbers are whole numbers too, which no line of JSON can hold.
    limit, max_new_tokens = limit and int(limit), int(max_new_tokens)
    seed, sample_seed = int(seed), int(sample_seed)
    names, local = expand(benchmarks), {"device": device, "dtype": dtype}
    if stage != "judge" and not names:
        raise ValueError("Name at least one benchmark.")
    if stage == "judge" and not read_edits(folder):
        raise ValueError(f"{folder} has no pictures to judge; make them first.")

    scorers: list[Judge] = []
    if stage != "edit":
        judge_server = _server(judge_url, judge_model) if judge_url else None
        scorers = [_judge(name, judge_server, judge_model, clip_model, concurrency, local) for name in judges]
    if stage != "judge":
        if planner is not None or planner_model is not None:
            _check_planner(planner, planner_model, methods)
        for name in (planner, planner_base, untrained):
            if name is not None and not is_address(name):
                resolve(name, only_configs)  # before the first method has planned for hours
        bundle = _Bundle(model, **local)
        given: dict[str, Any] = {"name": planner, "model_name": planner_model, "base": planner_base}
        given |= {"concurrency": concurrency} if is_address(planner) else {}
        plans = {name: _method(name, bundle, given, untrained, batch_size, max_new_tokens) for name in methods}
        # The bundle by another spelling of its path is still the bundle.
        others = [model if place_of(editor) == place_of(model) else editor for editor in editors]
        sources = (others or [model]) if set(plans) - {"remote"} else []
        arguments = editor_arguments or {}
        _check_editors(sources, arguments, "composed" in turns, bundle.dtype)
        arguments = _plain(arguments)
        served = []
        if "remote" in plans:
            fields = {} if sources else arguments
            served.append(_served(remote_url, remote_model, concurrency, fields))
        looking = [name for name in plans if name.endswith(REFLECT)]
        looks: dict[str, Any] = {}
        if looking:
            check_count("reflect", reflect)
            critic = find_critic(critic_model, critic_url, **local)
            before = [line for line in read_lines(folder).values() if line["benchmark"] not in SCENES_OF_RUNS]
            photos = any(plans[name].applies_to(line) for name in looking for line in before)
            if isinstance(critic, ScenesCritic) and (photos or not all(name in SCENES for name in names)):
                raise ValueError("The exact critic is for scenes; for photos give `critic_model` or `critic_url`.")
            looks = {"reflect": int(reflect), "critic": critic}

    folder.mkdir(parents=True, exist_ok=True)
    with only_one_in(folder):
        # 2. Make the pictures, with one large model at a time: a planner goes before an editor comes, which goes before
        # the next one does
        if stage != "judge":
            for name in names:
                write_samples(folder, name, limit, sample_seed)
            if stage is None:
                _check_judged(folder, names, scorers)
            for method in plans.values():
                write_plans(folder, method)
                _free_memory()
            weights = {source: bundle.editor_fingerprint(source) for source in sources}
            called = editor_names(weights, read_variants(folder), [editor.name for editor in served])
            for name, source in zip(called, sources):
                at_once = [plan for key, plan in plans.items() if key != "remote" and key not in looking]
                made_by = {**weights[source], **bundle.precision}
                editor = bundle.editor(name, source, made_by, batch_size, arguments)
                _carry_out(folder, at_once, editor, turns, seed)
                if looking:
                    place = place_of(source)
                    editor = LocalEditor(name, editor.pipe, made_by, batch_size, place, **looks, **arguments)
                    _carry_out(folder, [plans[key] for key in looking], editor, turns, seed)
                del editor
                _free_memory()
            for editor in served:
                _carry_out(folder, [plans["remote"]], editor, turns, seed)

        # 3. Judge them
        for scorer in scorers:
            write_scores(folder, scorer)
        return folder if stage == "edit" else write_report(folder)


class _Bundle:
    """The pipeline of that name, loaded in parts: for planning without its editor, for editing without its agents."""

    def __init__(self, model: str, device: str | torch.device | None, dtype: torch.dtype | None):
        import torch
        from diffusers.utils.torch_utils import get_device

        self.name, self.device, self.dtype = model, device or get_device(), dtype or torch.float32
        self.precision = _precision(dtype)

    def _load(self, **components: Any) -> ImageEditR1Pipeline:
        from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline

        return ImageEditR1Pipeline.from_pretrained(self.name, dtype=self.dtype, **components)

    def agents(self) -> ImageEditR1Pipeline:
        """The planning agents."""
        return self._load(editor=None).to(self.device)

    def with_planner(self, name: str) -> ImageEditR1Pipeline:
        """The planning agents with another planner, which brings its words along. A sequencer stays as it is."""
        from ..bundles.planners import load_planner

        planner, processor, _ = load_planner(name, dtype=self.dtype)
        return self._load(editor=None, planner=planner, processor=processor).to(self.device)

    def planned_by(self, **planner: Any) -> ImageEditR1Pipeline:
        """Another planner in the place of all agents; `name`, `model_name`, `base` and more as in [`load_planner`]."""
        from ..bundles.planners import load_agents

        return self._load(editor=None, **load_agents(**planner, dtype=self.dtype)).to(self.device)

    def agents_fingerprint(self) -> dict[str, Any]:
        """What tells the planning agents from others, also those that are parts of the editor."""
        own = fingerprint(self.name, lambda part: part != "editor")
        folder = local(self.name)
        shared = shared_in(folder) if folder else {}
        parts = {agent: fingerprint(Path(str(folder), *place.split("."))) for agent, place in shared.items()}
        return {"pipeline": own, "shared": parts} if parts else {"pipeline": own}

    def editor_fingerprint(self, source: str) -> dict[str, str]:
        return fingerprint(source, (lambda part: part == "editor") if source == self.name else (lambda part: True))

    def editor(
        self, name: str, source: str, weights: Mapping[str, str], batch_size: int, arguments: Mapping[str, Any]
    ) -> LocalEditor:
        """The bundle's own editor, or another pipeline, in a pipeline without agents."""
        from ..pipelines.nested.loading import load_editor
        from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline

        if source == self.name:
            pipe = self._load(**dict.fromkeys(AGENTS))
        else:
            pipe = ImageEditR1Pipeline(None, None, load_editor(source, dtype=self.dtype))
        pipe.set_progress_bar_config(disable=True)
        return LocalEditor(name, pipe.to(self.device), weights, batch_size, place_of(source), **arguments)


def _precision(dtype: torch.dtype | None) -> dict[str, str]:
    """The type that models are loaded in, as one of the settings; none for float32, so that a run from before goes on."""
    return {} if str(dtype) in ("None", "torch.float32") else {"dtype": str(dtype)}


def _free_memory() -> None:
    """Of models that nobody holds any more."""
    from diffusers.utils.torch_utils import empty_device_cache

    gc.collect()
    empty_device_cache()


def _method(
    name: str,
    bundle: _Bundle,
    planner: Mapping[str, Any],
    untrained: str | None,
    batch_size: int,
    max_new_tokens: int,
) -> Method:
    if name.endswith(REFLECT):
        method = _method(name.removesuffix(REFLECT), bundle, planner, untrained, batch_size, max_new_tokens)
        return replace(method, name=name)
    if name in ("base", "remote"):
        return bare(name)
    if name == "oracle":
        return oracle()
    if name == "r1" and planner["name"] is not None:
        settings = {"planner": fingerprint(planner["name"]), "planner_model": planner["model_name"]}
        settings |= {"base": fingerprint(planner["base"])} if planner["base"] else {}
        settings |= {} if is_address(planner["name"]) else bundle.precision
        return agents(name, lambda: bundle.planned_by(**planner), settings, batch_size, max_new_tokens)
    settings = {**bundle.agents_fingerprint(), **bundle.precision}
    if name == "r1":
        return agents(name, bundle.agents, settings, batch_size, max_new_tokens)
    supervised = f"{bundle.name}{SUPERVISED}"
    other = untrained or (supervised if local(supervised) else None)
    if other is None:
        raise ValueError(
            f"The method untrained needs the name of a planner, `untrained`: {bundle.name} has none beside it."
        )
    settings["planner"] = fingerprint(other)
    return agents(name, lambda: bundle.with_planner(other), settings, batch_size, max_new_tokens)


def _carry_out(
    folder: Path, methods: Sequence[Method], editor: MeasuredEditor, turns: Sequence[Turns], seed: int
) -> None:
    for method in methods:
        for one in turns if method.plans else ("single",):
            write_pictures(folder, method, editor, one, seed)


def _judge(
    name: str,
    server: Endpoint | None,
    model: str | None,
    clip_model: str | None,
    concurrency: int,
    local: Mapping[str, Any],
) -> Judge:
    if name == "scenes":
        return ScenesExact()
    if name == "pixels":
        return Pixels(clip_model)
    if not model:
        raise ValueError("VIEScore needs `judge_model`, and `judge_url` unless that is a model to be loaded here.")
    if server:
        return VIEScore(server, concurrency)
    judge = VIEScore(LocalModel(model, **local), concurrency=1)
    judge.settings = {**judge.settings, **_precision(local["dtype"])}
    return judge


def _server(url: str | None, model: str | None) -> Endpoint:
    url, model = _checked_server(url, model)
    return Endpoint(url, model, max_retries=MAX_RETRIES, timeout=TIMEOUT)


def _served(url: str | None, model: str | None, concurrency: int, fields: Mapping[str, Any]) -> ServedEditor:
    url, model = _checked_server(url, model)
    editor = RemoteEditor(url, model, concurrency=concurrency, max_retries=MAX_RETRIES, timeout=TIMEOUT)
    return ServedEditor(editor, **fields)


def _checked_server(url: str | None, model: str | None) -> tuple[str, str]:
    if not url or not model:
        raise ValueError(
            "A server needs its URL and the name of a model there: `judge_url` and `judge_model`, `remote_url` and `remote_model`."
        )
    return url, model


def _check_planner(planner: str | None, model: str | None, methods: Sequence[str]) -> None:
    """Refuse a planner that plans nothing or cannot be, before anything is loaded.

    Raises:
        ValueError
    """
    if not {"r1", f"r1{REFLECT}"} & set(methods):
        raise ValueError("`planner` plans for the method r1, which is not among the `methods`.")
    if is_address(planner):
        check_address(planner)
    elif model is not None:
        raise ValueError(f"`planner_model` goes with an address, which begins with http://; {planner} is none.")


def _check_editors(
    sources: Sequence[str], arguments: Mapping[str, Any], is_composed: bool, dtype: torch.dtype
) -> None:
    """Refuse an editor that is not there, or cannot do what is asked, before anything is planned or loaded.

    Args:
        arguments (`Mapping`): With the values that the editors are to get.
        is_composed (`bool`): Whether one of the ways to carry plans out is `"composed"`.
        dtype (`torch.dtype`): That the editors will be loaded in.

    Raises:
        OSError, TypeError, ValueError
    """
    from ..editors import check_given

    places = [place_of(source) for source in sources]
    if repeated := sorted({source for source, place in zip(sources, places) if places.count(place) > 1}):
        raise ValueError(f"Named twice among the editors: {', '.join(repeated)}.")
    for source in sources:
        check_text(source, f"The name of {source!r}")  # its end stands in the run's files
        folder = resolve(source, only_configs)
        editor = _without_weights(folder / "editor" if (folder / "editor").is_dir() else folder, dtype)
        if editor is not None:
            given = {**belongings(editor).get("defaults", {}), **arguments}
            check_given(editor, given, is_composed=is_composed)


def _without_weights(folder: Path, dtype: torch.dtype) -> Any:
    """The editor in a folder as far as class and settings go; `None` where diffusers does not know the class.

    Raises:
        OSError
    """
    import diffusers

    from ..pipelines.nested.parts import is_modular
    from ..pipelines.nested.remote import load_remote

    if (folder / CONFIG_NAME).is_file():
        return load_remote(RemoteEditor.__name__, folder)
    if is_modular(folder) and not (folder / PIPELINE_INDEX).is_file():
        return diffusers.ModularPipeline.from_pretrained(str(folder))
    config: Any = diffusers.DiffusionPipeline.load_config(str(folder))
    kind = getattr(diffusers, str(config["_class_name"]), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)):
        return None
    editor = kind.__new__(kind)
    editor.register_to_config(**{name: value for name, value in config.items() if not _is_part(value)})
    editor.vae = SimpleNamespace(dtype=dtype)  # some classes need theirs in one type
    return editor


def _is_part(value: Any) -> bool:
    """Whether an entry of a pipeline's index is a component: where its class is, and what it is called."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(name, (str, NoneType)) for name in value)


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The editor's arguments as the run's files hold them, numpy's numbers as Python's.

    Raises:
        TypeError, ValueError: If one of them is nothing that JSON can hold.
    """
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in arguments.items()}
    for name, value in plain.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"`{name}` among the `editor_arguments` is written to the run's files: {error}."
            ) from None
    return plain


def check_numbers(limit: int | None, **counts: int) -> None:
    """Refuse what counts nothing; `limit` may be `None`."""
    if limit is not None:
        check_count("limit", limit)
    for name, number in counts.items():
        check_count(name, number)


def _check_installed() -> None:
    """Not after hours of editing."""
    missing = [package for package in EXTRA if find_spec(package) is None]
    if missing:
        raise ModuleNotFoundError(f"Evaluation needs {', '.join(missing)}: {install_line('eval')}")


def _check_choices(name: str, given: Sequence[Any], known: Sequence[Any]) -> None:
    for one in given:
        if one not in known:
            raise ValueError(f"`{name}` knows {', '.join(map(str, known))}, not {one!r}.")
    if repeated := sorted({one for one in given if given.count(one) > 1}):
        raise ValueError(f"Named twice among the `{name}`: {', '.join(repeated)}.")


def _check_judged(folder: Path, benchmarks: Sequence[str], scorers: Sequence[Judge]) -> None:
    """Refuse to edit for hours what nobody will judge."""
    lines = read_lines(folder).values()
    for name in map(short_name, benchmarks):
        mine = [line for line in lines if line["benchmark"] == name]
        if not any(scorer.applies_to(line) for scorer in scorers for line in mine):
            raise ValueError(f"None of the judges {[scorer.name for scorer in scorers]} can judge {name}.")
