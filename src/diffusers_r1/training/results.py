"""What a training script leaves behind: planner, prompts, curves, model card, and a whole pipeline where asked for."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import create_branch, upload_folder
from transformers import Trainer

from .. import schema
from ..bundles.cards import TRAINING_KEY
from ..bundles.planners import PLANNER_FILES, load_planner, save_planner
from ..names import ADAPTER_INDEX
from ..planners.adapters import has_adapter
from ..prompts import Prompts
from ..records import write_whole
from .callbacks import curve_rows, save_curves
from .diffusion_nft import EditorLearner
from .models import Start
from .pictures import Renderer, load_around_editor


if TYPE_CHECKING:
    from datasets import Dataset

ADAPTER = "adapter"
BUNDLE = "bundle"
EDITOR_ADAPTER = "editor_adapter"
HELD_OUT = "held-out rows"  # how many, in the summary
# Seconds: where a process ends while a thread of gloo's still lets go of the last message, C++ aborts it, and with it the run.
SETTLING = 1.0


def save_results(
    trainer: Trainer,
    prompts: Prompts,
    start: Start,
    summary: dict[str, Any],
    bundle_editor: str | None = None,
    held_out: Dataset | None = None,
) -> None:
    """Write all that a run leaves to its `output_dir`. It uploads nothing, see [`push_results`].

    Every process has to call this, after all that they do together: they part here, and the main one goes on alone.

    - The planner with its processor and prompts, which [`load_planner`] and `from_pretrained` read. After a LoRA run it
      has the adapter merged into it, and `adapter/` holds the adapter alone.
    - `training_curves.csv` and `.png`, and `README.md`, the model card.
    - `bundle/`, an [`ImageEditR1Pipeline`] with this planner, where `bundle_editor` names an editor.

    Args:
        trainer ([`~transformers.Trainer`]): After training. Its logs are the curves.
        prompts ([`Prompts`]): The planner's words.
        start ([`Start`]): What was trained. Of an adapter that was trained on, what counts is its own base.
        summary (`dict`): How it was trained, in a few words or numbers each; also written into the planner's config.
        bundle_editor (`str`, *optional*): A Hub name or folder of a diffusers pipeline, or a shipped bundle, whose editor
            it then is.
        held_out (`datasets.Dataset`, *optional*): The rows that were validated on.
    """
    folder = Path(str(trainer.args.output_dir))
    model: Any = trainer.model
    held = {} if held_out is None else {HELD_OUT: len(held_out)}
    summary = {**summary, **held, **last_validation(trainer.state.log_history)}
    if has_adapter(model):
        # PEFT looks at the base's settings; by its name these would be of another revision, or out of reach.
        model.peft_config["default"].base_model_name_or_path = str(start.base_folder)
        trainer.save_model(str(folder / ADAPTER), _internal_call=True)  # else it uploads what is in the folder so far
    else:
        setattr(model.config, TRAINING_KEY, summary)
        trainer.save_model(str(folder), _internal_call=True)
    # What follows is for the main process alone.
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    if not trainer.is_world_process_zero():
        time.sleep(SETTLING)
        return
    if has_adapter(model):
        name_base(folder / ADAPTER, start)
        prompts.save(folder / ADAPTER)
        save_merged(start, folder, trainer.processing_class, prompts, summary)
    prompts.save(folder)
    save_curves(trainer.state.log_history, folder)
    write_whole(folder / "README.md", planner_card(folder.name, start.base, summary, trainer.state.log_history))
    if bundle_editor is not None:
        save_bundle(folder, bundle_editor, start)


def name_base(adapter: Path, start: Start) -> None:
    """Write into the settings of an adapter what it is an adapter of: a name and, of a repository, the commit."""
    path = adapter / ADAPTER_INDEX
    settings = schema.read_file(path, dict[str, Any])
    named = {**settings, "base_model_name_or_path": start.base, "revision": start.commit}
    write_whole(path, json.dumps(named, indent=2) + "\n")


def push_results(trainer: Trainer) -> None:
    """Upload all that a run has left, where `push_to_hub` is set, to the branch `hub_revision`, which is made if it is not there.

    A script's last step: what an earlier run left there and this one has not written yet would be gone.
    """
    args = trainer.args
    if not args.push_to_hub or not trainer.is_world_process_zero():
        return
    repo_id = str(trainer.hub_model_id)
    if args.hub_revision is not None and not args.hub_revision.startswith("refs/"):  # a pull request's
        create_branch(repo_id, branch=args.hub_revision, token=args.hub_token, exist_ok=True)
    # Not by the trainer's own method, which would write a model card of its own over this one.
    upload_folder(
        repo_id=repo_id,
        folder_path=str(args.output_dir),
        commit_message="End of training",
        token=args.hub_token,
        revision=args.hub_revision,
        ignore_patterns=["_*", "checkpoint-*"],
        # What an earlier run left there would be loaded beside this one's, or in place of it.
        delete_patterns=[*PLANNER_FILES, f"{ADAPTER}/*", f"{BUNDLE}/*", f"{EDITOR_ADAPTER}/*"],
    )


def save_merged(start: Start, folder: Path, processor: Any, prompts: Prompts, summary: dict[str, Any]) -> None:
    """Merge `folder/adapter` into a fresh copy of the base model, which also works where training sharded or quantized."""
    from peft import PeftModel

    planner = start.load_base(dtype="auto")[0]
    merged = PeftModel.from_pretrained(planner, folder / ADAPTER).merge_and_unload()
    setattr(merged.config, TRAINING_KEY, summary)
    save_planner(folder, merged, processor, prompts)


def save_bundle(folder: Path, editor_name: str, start: Start) -> None:
    """Write `folder/bundle`: the planner in `folder` with an editor, as one pipeline.

    The sequencing agent, which the paper leaves untrained, is the model that training started from; where the editor
    comes from a shipped bundle that has one, that bundle's.
    """
    planner, processor, _ = load_planner(folder, dtype="auto")
    pipeline = load_around_editor(editor_name)
    pipeline.register_modules(planner=planner, processor=processor)
    if pipeline.sequencer is None:
        sequencer, sequencer_processor, _ = start.load_sequencer(dtype="auto")
        pipeline.register_modules(sequencer=sequencer, sequencer_processor=sequencer_processor)
    pipeline.save_pretrained(folder / BUNDLE)


def save_pair(trainer: Trainer, renderer: Renderer, learner: EditorLearner | None = None) -> None:
    """Write planner and editor of joint training as one pipeline, after `save_results`.

    `bundle/` is the pipeline that made the pictures, its editor as it is now, with the planner in `output_dir`. It calls the
    editor as it was called in training. Where an adapter of the editor was trained, `editor_adapter/` holds it alone, for diffusers' `load_lora_weights`.
    """
    folder = Path(str(trainer.args.output_dir))
    planner, processor, prompts = load_planner(folder, dtype="auto")
    pipeline = renderer.pipeline
    pipeline.register_modules(planner=planner, processor=processor)
    pipeline.prompts, pipeline.editor_defaults = prompts, renderer.arguments
    pipeline.save_pretrained(folder / BUNDLE)
    if learner is not None and learner.is_lora:
        learner.save_adapter(folder / EDITOR_ADAPTER)


def last_validation(log_history: list[dict[str, Any]]) -> dict[str, float]:
    """The last metrics on the held-out rows, `{"val/exact": 0.97, ...}`; empty where there were none."""
    marks = [{k: round(v, 4) for k, v in row.items() if k.startswith("val/")} for row in curve_rows(log_history)]
    return next((row for row in reversed(marks) if row), {})


def marks_table(log_history: list[dict[str, Any]], rows: int) -> str:
    """The metrics of `rows` held-out rows before and after, as a Markdown table; empty where there are none.

    The interval is Wilson's of 95% around the metric after training. For metrics between 0 and 1, as F1 has them, it is on the
    wide side.
    """
    first = next((row for row in curve_rows(log_history) if any(name.startswith("val/") for name in row)), {})
    lines = [
        "| {} | {:.3f} | {:.3f} | {:.3f} to {:.3f} |".format(name[4:], first[name], mark, *_wilson(mark, rows))
        for name, mark in last_validation(log_history).items()
    ]
    return "\n".join(["| metric | before | after | interval |", "| --- | --- | --- | --- |", *lines]) if lines else ""


def outlook(folder: str | Path, bundle_editor: str | None = None) -> str:
    """Where what a run makes will be, in one line."""
    bundle = f", {BUNDLE}/ (a whole pipeline)" if bundle_editor else ""
    return f"Will be in {folder}: the planner, training_curves.png and .csv, README.md (the card){bundle}."


def planner_card(name: str, base: str, summary: dict[str, Any], log_history: list[dict[str, Any]]) -> str:
    """The model card of a planner: how to load it, how it was trained, and what held-out rows said before and after."""
    last = last_validation(log_history)
    settings = "\n".join(f"| {key} | {value} |" for key, value in summary.items() if key not in last)
    marks = marks_table(log_history, summary.get(HELD_OUT, 1))
    known_base = f"base_model: {base}\n" if "/" in base and not Path(base).exists() else ""
    return f"""---
library_name: transformers
pipeline_tag: image-text-to-text
{known_base}tags: [diffusers-r1, imageedit-r1, trl, "arxiv:2603.08059"]
---

# {name}

The decomposition agent of [ImageEdit-R1](https://arxiv.org/abs/2603.08059): it takes a picture and an instruction apart
into actions, subjects and goals.

```python
from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.bundles.planners import load_planner

planner, processor, prompts = load_planner("path/to/this/folder")
pipe = ImageEditR1Pipeline(planner=planner, processor=processor, prompts=prompts, editor=your_editor)
```

## Training

| what | value |
| --- | --- |
{settings}

![Rewards and validation over the steps](training_curves.png)

""" + (f"Held-out rows, decomposed greedily:\n\n{marks}\n" if last else "")


def _wilson(share: float, rows: int) -> tuple[float, float]:
    z = 1.96
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z * (share * (1 - share) / rows + z * z / (4 * rows * rows)) ** 0.5 / (1 + z * z / rows)
    return max(0.0, middle - half), min(1.0, middle + half)
