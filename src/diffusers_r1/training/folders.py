"""A run knows whose folder it is in: what it goes on from is its own, and nobody else writes there meanwhile."""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy

from .. import schema
from ..bundles.planners import adapter_in
from ..names import ADAPTER_INDEX, only_configs, resolve
from ..records import only_one_in, write_whole
from .prints import IDENTITY, PRINTS, place_of_rows, places_of, prints_of


if TYPE_CHECKING:
    from trl import GRPOConfig, ModelConfig, SFTConfig

    from .arguments import DataArguments


logger = logging.getLogger(__name__)

QUESTIONS = "checklist.jsonl"  # those of the judge of pictures
CURVES = "training_curves.csv"  # written at the end
# What a checkpoint consists of, and what it is called: of one process, of DeepSpeed, of FSDP.
WEIGHTS, OPTIMIZER = "weights", "state of the optimizer"
PARTS = {
    WEIGHTS: ("*.safetensors", "global_step*", "pytorch_model_fsdp*"),
    OPTIMIZER: ("optimizer*", "global_step*"),
}
MODELS = ("adapter", "bundle", "editor_adapter")  # beside the planner, which is written to the run's folder itself
# What a run leaves beside its checkpoints; where it is started afresh, all of it goes.
LEFT_BEHIND = (
    IDENTITY,
    "completions",
    QUESTIONS,
    "samples",
    CURVES,
    "training_curves.png",
    "README.md",
    *MODELS,
)
# Options that may name a file or a folder.
PATHS = ("model_name_or_path", "dataset_name", "dataset_path", "prompts", "action_synonyms", "picture_editor")
AMONG_WHICH = ("dataset_name", "dataset_path", "prompts")  # of these, those whose folder may hold what is the user's
OTHER_PATHS = ("chat_template_path", "deepspeed")  # of TRL and transformers
# How the names of options begin that change nothing about what is learned.
WITHOUT_EFFECT = (
    *(
        "output_dir",
        "overwrite_output_dir",
        "resume_from_checkpoint",
        "allow_changes",
        "bundle_editor",
        "samples_every",
    ),
    *("logging_", "log_", "num_completions_to_print", "disable_tqdm", "report_to", "run_name", "project", "trackio_"),
    *("eval_", "per_device_eval_", "validation_steps", "batch_eval_", "prediction_loss_only", "include_", "do_"),
    *("save_", "push_to_hub", "hub_", "enable_jit_checkpoint", "load_best_model", "metric_for_", "greater_is_better"),
    *("dataloader_num_", "dataloader_pin_", "dataloader_persistent_", "dataloader_prefetch_", "dataloader_multi"),
    *("dataloader_in_order", "dataset_num_proc", "ddp_", "local_rank", "debug", "skip_memory", "torch_empty_cache"),
    *("gradient_checkpointing", "activation_checkpointing", "ignore_data_skip", "restore_callback_states"),
    *("picture_batch_size", "picture_judge_concurrency"),
    *("vllm_server_", "vllm_group_port", "vllm_gpu_memory", "vllm_tensor_parallel", "vllm_enable_sleep"),
)
# Options that change what is learned, and that runs of earlier versions did not keep.
LATER = ("dataloader_drop_last",)


def identity(
    method: str, script: DataArguments, training: GRPOConfig | SFTConfig, model: ModelConfig
) -> dict[str, Any]:
    """What makes a run this run: method, base, rows, rewards, settings that matter, and prints of what lies in files."""
    options = {
        field.name: getattr(group, field.name)
        for group in (model, script, training)
        for field in fields(group)
        if not field.name.startswith(WITHOUT_EFFECT)
    }
    known = {
        "method": method,
        **prints_of(script, model),
        "processes": training.world_size,
        **options,
    }
    return json.loads(json.dumps(known, default=str), parse_constant=str)  # as it is read again


@contextmanager
def run_folder(
    method: str, script: DataArguments, training: GRPOConfig | SFTConfig, model: ModelConfig
) -> Iterator[str | None]:
    """Hold `output_dir` for this run; what comes is the checkpoint that it goes on from, or `None`.

    A run that was killed before its first checkpoint was whole begins anew, where the newest one is asked for. Nothing is
    uploaded before the end, unless `hub_strategy` asks for checkpoints.

    Every process has to call this; the first one looks.

    Raises:
        BlockingIOError: If another run is in the folder.
        ValueError: In one line, if the folder holds another run's checkpoints or results, or what this one reads: the planner
            or a base below it, a bundle, rows; if what is resumed was started with other settings, another base or adapter; if
            a checkpoint that is named is not there or cut off.
    """
    folder = Path(str(training.output_dir))
    state = PartialState()
    # TRL's default would put half a run, and without its words, over what an earlier run left in the repository.
    if training.hub_strategy == HubStrategy.EVERY_SAVE:
        training.hub_strategy = HubStrategy.END
    with only_one_in(folder) if state.is_main_process else nullcontext():
        with state.main_process_first():
            checkpoint = resume_point(training)
            if state.is_main_process:
                now = identity(method, script, training, model)
                _settle(folder, checkpoint, now, script, model, _asks_for_the_newest(training))
        yield checkpoint


def resume_point(training: GRPOConfig | SFTConfig) -> str | None:
    """The checkpoint that `--resume_from_checkpoint` asks for; `true` is the newest in `output_dir`, if there is one.

    A checkpoint that a killed run left unfinished does not count.

    Raises:
        ValueError: If one is named that is not there or cut off.
    """
    asked = training.resume_from_checkpoint
    if asked is None or str(asked).lower() == "false":  # a YAML file says it in a word of its own
        return None
    if not _asks_for_the_newest(training):
        if fault := what_is_missing(asked, training.save_only_model):
            raise ValueError(f"{asked} cannot be gone on from: {fault}.")
        return asked
    for folder in reversed(_checkpoints(str(training.output_dir))):
        if not (fault := what_is_missing(folder, training.save_only_model)):
            return str(folder)
        logger.warning("%s is passed over: %s.", folder, fault)
    return None


def _asks_for_the_newest(training: GRPOConfig | SFTConfig) -> bool:
    return str(training.resume_from_checkpoint).lower() == "true"


def what_is_missing(checkpoint: str | Path, save_only_model: bool = False) -> str | None:
    """In a few words what a checkpoint lacks to be whole; `None` if it lacks nothing.

    Args:
        checkpoint (`str` or `Path`): Its folder.
        save_only_model (`bool`, defaults to `False`): Whether the run wants none of the optimizer's state to be saved.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        return "there is no such folder"
    if not (folder / TRAINER_STATE_NAME).exists():  # what is written last
        return f"it is cut off, there is no {TRAINER_STATE_NAME}"
    for path in sorted(folder.iterdir()):
        if path.suffix in READERS and not READERS[path.suffix](path):
            return f"{path.name} is cut off"
    for part, patterns in PARTS.items():
        if not (part == OPTIMIZER and save_only_model) and not any(any(folder.glob(pattern)) for pattern in patterns):
            return f"it has no {part}"
    if not isinstance(_state_of(folder).get("global_step"), int):
        return f"{TRAINER_STATE_NAME} does not say at which step it was"
    return None


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two identities, `"learning_rate: 1e-05, now 2e-05"`.

    A print that is not known counts as equal: of a model that was fetched from the Hub only after the run began, or where
    the run is of a version that took no such print. So do two ways to write one path.
    """
    names = before.keys() | now.keys()
    names -= {name for name in (*PRINTS, *LATER) if before.get(name) is None}
    return [
        f"{name}: {before.get(name)}, now {now.get(name)}"
        for name in sorted(names)
        if before.get(name) != now.get(name) and not (name in PATHS and _is_one_place(before.get(name), now.get(name)))
    ]


def _is_one_place(one: Any, other: Any) -> bool:
    return isinstance(one, str) and isinstance(other, str) and Path(one).resolve() == Path(other).resolve()


def _settle(
    folder: Path,
    checkpoint: str | None,
    now: dict[str, Any],
    script: DataArguments,
    model: ModelConfig,
    newest_asked: bool,
) -> None:
    own = checkpoint is not None and Path(checkpoint).parent.resolve() == folder.resolve()
    left = []
    if script.overwrite_output_dir and not own:
        left = [*_checkpoints(folder), *(folder / name for name in LEFT_BEHIND)]
        _check_unneeded(folder, left, checkpoint, now, script, model)
    _check_apart(folder, now, script)
    for path in left:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    is_finished, has_identity = (folder / CURVES).exists(), (folder / IDENTITY).exists()
    if newest_asked and checkpoint is None and has_identity and not is_finished:
        _clear_unfinished(folder, now, script.allow_changes)
    held = [path.name for path in (*_checkpoints(folder), folder / CURVES) if path.exists()]
    if held and not own:
        way = ": go on with it by --resume_from_checkpoint true, "
        if newest_asked:
            way = ", of which no checkpoint is whole: "
        raise ValueError(
            f"{folder} holds an earlier run ({held[-1]}){way}name another --output_dir, or start afresh with "
            "--overwrite_output_dir."
        )
    if checkpoint is not None:
        _check_adapter(Path(checkpoint), model)
        _check_identity(Path(checkpoint), now, script.allow_changes)
    write_whole(folder / IDENTITY, json.dumps(now, indent=2) + "\n")


def _check_apart(folder: Path, now: Mapping[str, Any], script: DataArguments) -> None:
    """Refuse to write over what the run starts from, and among its rows.

    Raises:
        ValueError: If an option names what lies where the run will write, or an adapter of what lies there.
    """
    named = {
        "model_name_or_path": now["model_name_or_path"],
        "picture_editor": now.get("picture_editor"),
        "bundle_editor": script.bundle_editor,
        "dataset_name": place_of_rows(script.dataset_name, script.dataset_path),
    }
    written = [(folder / name).resolve() for name in MODELS]
    for name, value in named.items():
        for place in places_of(value) if value is not None else ():
            if place == folder.resolve() or any(place.is_relative_to(path) for path in written):
                raise ValueError(
                    f"The run would write to {place}, which --{name} {value} needs: name another --output_dir."
                )


def _check_unneeded(
    folder: Path,
    left: list[Path],
    checkpoint: str | None,
    now: Mapping[str, Any],
    script: DataArguments,
    model: ModelConfig,
) -> None:
    """Refuse to take away what the run is to start from.

    Raises:
        OSError: If there is no such model to start from.
        ValueError: If an option names what lies in one of the paths `left`, or an adapter of what lies there; if no run has
            been here, and they are among the rows or prompts.
    """
    named = {
        **{name: now[name] for name in (*PATHS, *OTHER_PATHS) if isinstance(now.get(name), str)},
        "bundle_editor": script.bundle_editor,
        "resume_from_checkpoint": checkpoint,
    }
    start = resolve(str(model.model_name_or_path), only_configs, revision=model.model_revision)
    rows = place_of_rows(script.dataset_name, script.dataset_path)
    lies = {**named, "model_name_or_path": start, "dataset_name": rows}
    foreign = [] if (folder / IDENTITY).exists() else [path for path in left if path.exists()]
    for name, value in named.items():
        among = foreign if name in AMONG_WHICH else []
        for place in places_of(lies[name]) if lies[name] is not None else ():
            for path in left:
                if place.is_relative_to(path.resolve()) or (path in among and path.resolve().is_relative_to(place)):
                    raise ValueError(
                        f"--overwrite_output_dir would take away {path}, which --{name} {value} needs: copy it, or name "
                        "another --output_dir."
                    )


def _clear_unfinished(folder: Path, now: dict[str, Any], allow_changes: bool) -> None:
    """Take away the checkpoints of a run that was killed before one was whole: it begins at its first step again.

    One that lacks nothing but the optimizer's state is of use to somebody, and stays.
    """
    unfinished = [path for path in _checkpoints(folder) if what_is_missing(path, save_only_model=True)]
    for path in unfinished:
        _check_identity(path, now, allow_changes)
    for path in unfinished:
        shutil.rmtree(path)
        logger.warning("%s is taken away: the run begins at its first step again.", path)


def _check_adapter(checkpoint: Path, model: ModelConfig) -> None:
    saved = _rank(checkpoint)
    wanted = model.lora_r if model.use_peft else _rank_of_start(model)
    if (saved is None) != (wanted is None):
        kinds = {True: "a whole model", False: "a LoRA adapter"}
        raise ValueError(
            f"{checkpoint} holds {kinds[saved is None]}, and this run trains {kinds[wanted is None]} (--use_peft)."
        )
    if saved != wanted:
        raise ValueError(f"{checkpoint} holds an adapter of rank {saved}, and this run trains one of {wanted}.")


def _rank_of_start(model: ModelConfig) -> int | None:
    """Of the adapter that is trained on; `None` where the run starts from a whole model."""
    start = resolve(str(model.model_name_or_path), only_configs, revision=model.model_revision)
    adapter = adapter_in(start)
    return None if adapter is None else _rank(adapter)


def _rank(folder: Path) -> int | None:
    """Of the adapter that the folder holds; `None` where it holds a whole model."""
    path = folder / ADAPTER_INDEX
    return schema.read_fields({"r": int}, schema.read_file(path), str(path))["r"] if path.exists() else None


def _check_identity(checkpoint: Path, now: dict[str, Any], allow_changes: bool) -> None:
    path = checkpoint.parent / IDENTITY
    if path.exists():
        changes = differences(schema.read_file(path, dict[str, Any]), now)
        said = f"was started with other settings ({'; '.join(changes)})"
    else:
        changes, said = ["unknown"], f"does not say what it was started with: there is no {path}"
    if changes and not allow_changes:
        raise ValueError(f"The run of {checkpoint} {said}; --allow_changes goes on with what is asked for now.")
    if changes:
        logger.warning("The run of %s %s, and goes on with what is asked for now.", checkpoint, said)


def _checkpoints(folder: str | Path) -> list[Path]:
    """Whole or not, from the first step to the last."""
    found = [path for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.split("-")[-1].isdigit()]
    return sorted(found, key=lambda path: int(path.name.split("-")[-1]))


def _state_of(checkpoint: Path) -> dict[str, Any]:
    """What the trainer wrote of itself; its logs may hold NaN, which is no JSON."""
    state = json.loads((checkpoint / TRAINER_STATE_NAME).read_bytes())
    return state if isinstance(state, dict) else {}


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def _is_safetensors(path: Path) -> bool:
    try:
        with safe_open(path, "pt"):  # reads what the file says of itself, and compares it with the file's size
            return True
    except SafetensorError:
        return False


# Of a file in a checkpoint, by its suffix: whether it is all there.
READERS = {
    ".json": _is_json,
    ".safetensors": _is_safetensors,
    **dict.fromkeys((".pt", ".pth", ".bin"), zipfile.is_zipfile),
}
