"""A run knows whose folder it is in: what it goes on from is its own, and nobody else writes there meanwhile."""

from __future__ import annotations

import hashlib
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
from huggingface_hub import try_to_load_from_cache
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..names import ADAPTER_INDEX, local, resolve
from ..records import only_one_in, write_whole


if TYPE_CHECKING:
    from trl import GRPOConfig, ModelConfig, SFTConfig

    from .arguments import DataArguments


logger = logging.getLogger(__name__)

IDENTITY = ".run.json"  # hidden, so that `datasets` takes it for no rows where the folder is among them
QUESTIONS = "checklist.jsonl"  # those of the judge of pictures
WEIGHTS = "weights of the base"
# What a run leaves beside its checkpoints; where it is started afresh, all of it goes.
LEFT_BEHIND = (
    IDENTITY,
    "completions",
    "checklist.jsonl",
    "editor_adapter",
    "samples",
    "training_curves.csv",
    "training_curves.png",
    "README.md",
    "adapter",
    "bundle",
)
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
    *("dataloader_", "dataset_num_proc", "ddp_", "local_rank", "debug", "skip_memory", "torch_empty_cache"),
    *("gradient_checkpointing", "activation_checkpointing", "ignore_data_skip", "restore_callback_states"),
    *("picture_batch_size", "picture_judge_concurrency"),
    *("vllm_server_", "vllm_group_port", "vllm_gpu_memory", "vllm_tensor_parallel", "vllm_enable_sleep"),
)


def identity(
    method: str, script: DataArguments, training: GRPOConfig | SFTConfig, model: ModelConfig
) -> dict[str, Any]:
    """What makes a run this run: method, base model with a print of its weights, rows, rewards, settings that matter."""
    options = {
        field.name: getattr(group, field.name)
        for group in (model, script, training)
        for field in fields(group)
        if not field.name.startswith(WITHOUT_EFFECT)
    }
    known = {
        "method": method,
        WEIGHTS: fingerprint(model.model_name_or_path, model.model_revision),
        "processes": training.world_size,
        **options,
    }
    return json.loads(json.dumps(known, default=str))  # as it is read again


def fingerprint(name: str | None, revision: str | None = None) -> str | None:
    """Tells two models of one name apart: a Hub commit, or a hash of what the folder's files of weights begin and end with.

    `None` where nothing is on this machine yet.
    """
    folder = local(str(name))
    if folder is None:
        config = name and try_to_load_from_cache(name, "config.json", revision=revision)
        return Path(config).parent.name if isinstance(config, str) else None
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        if not any(part.startswith(PREFIX_CHECKPOINT_DIR) for part in path.relative_to(folder).parts):
            with path.open("rb") as file:
                found.update(file.read(2**20))
                file.seek(max(0, path.stat().st_size - 2**20))
                found.update(file.read())
            found.update(str((path.relative_to(folder), path.stat().st_size)).encode())
    return found.hexdigest()[:16]


@contextmanager
def run_folder(
    method: str, script: DataArguments, training: GRPOConfig | SFTConfig, model: ModelConfig
) -> Iterator[str | None]:
    """Hold `output_dir` for this run; what comes is the checkpoint that it goes on from, or `None`.

    Every process has to call this; the first one looks.

    Raises:
        BlockingIOError: If another run is in the folder.
        ValueError: In one line, if the folder holds another run's checkpoints or results; if what is resumed was started
            with other settings, another base or adapter; if a checkpoint that is named is not there or cut off.
    """
    folder = Path(str(training.output_dir))
    state = PartialState()
    with only_one_in(folder) if state.is_main_process else nullcontext():
        with state.main_process_first():
            checkpoint = resume_point(training)
            if state.is_main_process:
                _settle(folder, checkpoint, identity(method, script, training, model), script, model)
        yield checkpoint


def resume_point(training: GRPOConfig | SFTConfig) -> str | None:
    """The checkpoint that `--resume_from_checkpoint` asks for; `true` is the newest in `output_dir`, if there is one.

    A checkpoint that a killed run left unfinished does not count.

    Raises:
        ValueError: If one is named that is not there or cut off.
    """
    asked = training.resume_from_checkpoint
    if asked is None or asked.lower() == "false":
        return None
    if asked.lower() != "true":
        if fault := what_is_missing(asked):
            raise ValueError(f"{asked} cannot be gone on from: {fault}.")
        return asked
    for folder in reversed(_checkpoints(str(training.output_dir))):
        if not (fault := what_is_missing(folder)):
            return str(folder)
        logger.warning("%s is passed over: %s.", folder, fault)
    return None


def what_is_missing(checkpoint: str | Path) -> str | None:
    """In a few words what a checkpoint lacks to be whole; `None` if it lacks nothing."""
    folder = Path(checkpoint)
    if not folder.is_dir():
        return "there is no such folder"
    if not (folder / TRAINER_STATE_NAME).exists():  # what is written last
        return f"it is cut off, there is no {TRAINER_STATE_NAME}"
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors" and path.stat().st_size != _safetensors_size(path):
            return f"{path.name} is cut off"
        if path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):
            return f"{path.name} is cut off"
    return None


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two identities, `"learning_rate: 1e-05, now 2e-05"`.

    The print of a model that was fetched from the Hub only after the run began is not known; it counts as equal.
    """
    names = before.keys() | now.keys()
    if before.get(WEIGHTS) is None:
        names -= {WEIGHTS}
    return [
        f"{name}: {before.get(name)}, now {now.get(name)}"
        for name in sorted(names)
        if before.get(name) != now.get(name)
    ]


def _settle(
    folder: Path, checkpoint: str | None, now: dict[str, Any], script: DataArguments, model: ModelConfig
) -> None:
    own = checkpoint is not None and Path(checkpoint).parent.resolve() == folder.resolve()
    if script.overwrite_output_dir and not own:
        for path in (*_checkpoints(folder), *(folder / name for name in LEFT_BEHIND)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    held = [path.name for path in (*_checkpoints(folder), folder / "training_curves.csv") if path.exists()]
    if held and not own:
        raise ValueError(
            f"{folder} holds an earlier run ({held[-1]}): go on with it by --resume_from_checkpoint true, name another "
            "--output_dir, or start afresh with --overwrite_output_dir."
        )
    if checkpoint is not None:
        _check_adapter(Path(checkpoint), model)
        _check_identity(Path(checkpoint), now, script.allow_changes)
    write_whole(folder / IDENTITY, json.dumps(now, indent=2) + "\n")


def _check_adapter(checkpoint: Path, model: ModelConfig) -> None:
    saved = _rank(checkpoint)
    wanted = model.lora_r if model.use_peft else _rank(resolve(str(model.model_name_or_path)))  # which is trained on
    if (saved is None) != (wanted is None):
        kinds = {True: "a whole model", False: "a LoRA adapter"}
        raise ValueError(
            f"{checkpoint} holds {kinds[saved is None]}, and this run trains {kinds[wanted is None]} (--use_peft)."
        )
    if saved != wanted:
        raise ValueError(f"{checkpoint} holds an adapter of rank {saved}, and this run trains one of {wanted}.")


def _rank(folder: Path) -> int | None:
    """Of the adapter that the folder holds; `None` where it holds a whole model."""
    path = folder / ADAPTER_INDEX
    return json.loads(path.read_text(encoding="utf-8"))["r"] if path.exists() else None


def _check_identity(checkpoint: Path, now: dict[str, Any], allow_changes: bool) -> None:
    path = checkpoint.parent / IDENTITY
    if path.exists():
        changes = differences(json.loads(path.read_text(encoding="utf-8")), now)
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


def _safetensors_size(path: Path) -> int | None:
    """How large the file says it is, `None` if it is cut off before it says so."""
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
        try:
            entries = json.loads(file.read(header))
        except ValueError:
            return None
    ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    return 8 + header + max(ends, default=0)
