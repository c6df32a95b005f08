"""What a training script leaves behind: planner, prompts, curves, model card, and a whole pipeline where asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from huggingface_hub import upload_folder
from transformers import Trainer

from ..bundles.cards import TRAINING_KEY
from ..bundles.planners import PLANNER_FILES, base_of, load_planner, save_planner
from ..names import only_configs, resolve
from ..pipelines.nested.parts import read_index
from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline
from ..planners.adapters import has_adapter
from ..prompts import Prompts
from ..records import write_whole
from .callbacks import curve_rows, save_curves
from .diffusion_nft import EditorLearner


ADAPTER = "adapter"
BUNDLE = "bundle"
EDITOR_ADAPTER = "editor_adapter"
HELD_OUT = "held-out rows"  # how many, in the summary


def save_results(
    trainer: Trainer,
    prompts: Prompts,
    base: str,
    summary: dict[str, Any],
    bundle_editor: str | None = None,
) -> None:
    """Write all that a run leaves to its `output_dir`. Every process has to call this.

    - The planner with its processor and prompts, which [`load_planner`] and `from_pretrained` read. After a LoRA run it
      has the adapter merged into it, and `adapter/` holds the adapter alone.
    - `training_curves.csv` and `.png`, and `README.md`, the model card.
    - All of it on the Hub, where `push_to_hub` is set.
    - `bundle/`, an [`ImageEditR1Pipeline`] with this planner, where `bundle_editor` names an editor.

    Args:
        trainer ([`~transformers.Trainer`]): After training. Its logs are the curves.
        prompts ([`Prompts`]): The planner's words.
        base (`str`): What was trained: a name that [`load_planner`] takes. Of an adapter that was trained on, what counts
            is its own base.
        summary (`dict`): How it was trained, in a few words or numbers each; also written into the planner's config.
        bundle_editor (`str`, *optional*): A Hub name or folder of a diffusers pipeline, or a shipped bundle, whose editor
            it then is.
    """
    folder, base = Path(str(trainer.args.output_dir)), base_of(base)
    model: Any = trainer.model
    summary = {**summary, **last_validation(trainer.state.log_history)}
    if has_adapter(model):
        model.peft_config["default"].base_model_name_or_path = base
        trainer.save_model(str(folder / ADAPTER))
    else:
        setattr(model.config, TRAINING_KEY, summary)
        trainer.save_model(str(folder))
    if not trainer.is_world_process_zero():
        return
    if has_adapter(model):
        prompts.save(folder / ADAPTER)
        save_merged(base, folder, trainer.processing_class, prompts, summary)
    prompts.save(folder)
    save_curves(trainer.state.log_history, folder)
    write_whole(folder / "README.md", planner_card(folder.name, base, summary, trainer.state.log_history))
    if bundle_editor is not None:
        save_bundle(folder, bundle_editor, base)
    if trainer.args.push_to_hub:
        # Not by the trainer's own method, which would write a model card of its own over this one.
        upload_folder(
            repo_id=str(trainer.hub_model_id),
            folder_path=folder,
            commit_message="End of training",
            token=trainer.args.hub_token,
            ignore_patterns=["_*", "checkpoint-*"],
            # What an earlier run left there would be loaded beside this one's, or in place of it.
            delete_patterns=[*PLANNER_FILES, f"{ADAPTER}/*", f"{BUNDLE}/*", f"{EDITOR_ADAPTER}/*"],
        )


def save_merged(base: str, folder: Path, processor: Any, prompts: Prompts, summary: dict[str, Any]) -> None:
    """Merge `folder/adapter` into a fresh copy of the base model, which also works where training sharded or quantized."""
    from peft import PeftModel

    planner: Any = load_planner(base, dtype="auto")[0]
    merged = PeftModel.from_pretrained(planner, folder / ADAPTER).merge_and_unload()
    setattr(merged.config, TRAINING_KEY, summary)
    save_planner(folder, merged, processor, prompts)


def check_editor_name(name: str | None) -> None:
    """Refuse an editor that is not there, before hours of training.

    Raises:
        OSError: If no pipeline of that name can be found.
    """
    if name is not None:
        read_index(resolve(name, only_configs))


def save_bundle(folder: Path, editor_name: str, base: str) -> None:
    """Write `folder/bundle`: the planner in `folder` with an editor, as one pipeline.

    The sequencing agent, which the paper leaves untrained, is the model that training started from; where the editor
    comes from a shipped bundle that has one, that bundle's.
    """
    planner, processor, _ = load_planner(folder, dtype="auto")
    if read_index(resolve(editor_name, only_configs))["_class_name"][-1] == ImageEditR1Pipeline.__name__:
        pipeline = ImageEditR1Pipeline.from_pretrained(editor_name, planner=None, processor=None)
        pipeline.register_modules(planner=planner, processor=processor)
    else:
        editor = DiffusionPipeline.from_pretrained(editor_name, dtype=torch.float32)
        pipeline = ImageEditR1Pipeline(planner, processor, editor)
    if pipeline.sequencer is None:
        sequencer, sequencer_processor, _ = load_planner(base, dtype="auto")
        pipeline.register_modules(sequencer=sequencer, sequencer_processor=sequencer_processor)
    pipeline.save_pretrained(folder / BUNDLE)


def save_pair(trainer: Trainer, pipeline: ImageEditR1Pipeline, learner: EditorLearner | None = None) -> None:
    """Write planner and editor of joint training as one pipeline, after `save_results`.

    `bundle/` is the pipeline that made the pictures, its editor as it is now, with the planner in `output_dir`. It calls the
    editor as it was called in training. Where an adapter of the editor was trained, `editor_adapter/` holds it alone, for diffusers' `load_lora_weights`.
    """
    folder = Path(str(trainer.args.output_dir))
    planner, processor, prompts = load_planner(folder, dtype="auto")
    pipeline.register_modules(planner=planner, processor=processor)
    pipeline.prompts = prompts
    if learner is not None:
        pipeline.editor_defaults = learner.arguments
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
