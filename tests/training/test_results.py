import json
import re

import pytest
import tiny_loras
import tiny_models
import torch
from cached_hub import keep
from diffusers import ModularPipeline
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from diffusers_r1.bundles.planners import load_planner, save_planner
from diffusers_r1.pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline
from diffusers_r1.scenes import sample_task
from diffusers_r1.training.models import Start
from diffusers_r1.training.pictures import Renderer, check_editor_name
from diffusers_r1.training.results import (
    ADAPTER,
    BUNDLE,
    last_validation,
    planner_card,
    save_bundle,
    save_results,
)


HISTORY = [
    {"step": 0, "val/exact": 0.25, "val/format": 0.5},
    {"step": 1, "reward": 2.0},
    {"step": 2, "val/exact": 0.75, "val/format": 1.0},
    {"step": 2, "reward": 3.0},
]


def test_the_last_marks_are_the_last_that_were_given():
    assert last_validation(HISTORY) == {"val/exact": 0.75, "val/format": 1.0}
    assert last_validation([{"step": 1, "reward": 2.0}]) == {}


def test_the_card_shows_settings_and_marks(tmp_path):
    summary = {"method": "GRPO", "steps": 2, "held-out rows": 92, **last_validation(HISTORY)}
    card = planner_card("mine", "Qwen/Qwen2.5-VL-7B-Instruct", summary, HISTORY)
    assert "base_model: Qwen/Qwen2.5-VL-7B-Instruct\n" in card and "# mine\n" in card
    assert (
        "| steps | 2 |" in card and "| exact | 0.250 | 0.750 | 0.653 to 0.827 |" in card and "| val/exact" not in card
    )
    assert "base_model" not in planner_card("mine", "imageedit-r1-scenes", summary, HISTORY)
    assert "base_model" not in planner_card("mine", str(tmp_path), summary, HISTORY)
    assert "Held-out" not in planner_card("mine", "a/b", {"steps": 2}, HISTORY[1:2])


def test_what_the_card_imports_is_there():
    code = re.search(r"```python\n(.*?)```", planner_card("mine", "a/b", {}, []), re.DOTALL)[1]
    imports = [line for line in code.splitlines() if line.startswith("from ")]
    assert len(imports) == 2
    exec("\n".join(imports), {})


def test_an_editor_is_looked_for_before_training(tmp_path, pix2pix):
    check_editor_name(None)
    check_editor_name("imageedit-r1-scenes")
    pix2pix.save_pretrained(tmp_path)
    check_editor_name(str(tmp_path))
    with pytest.raises(OSError, match="model_index.json"):
        check_editor_name(str(tmp_path / "unet"))


def test_a_bundle_without_an_editor_is_refused_before_training(tmp_path):
    ImageEditR1Pipeline(None, None, None).save_pretrained(tmp_path)
    for check in (check_editor_name, lambda name: Renderer(name, "imageedit-r1-scenes")):
        with pytest.raises(ValueError, match="has no editor"):
            check(str(tmp_path))


@pytest.mark.tiny
def test_a_modular_pipeline_is_an_editor_as_well(tmp_path, planner, prompts):
    tiny_models.tiny_kontext_modular().save_pretrained(str(tmp_path / "editor"), overwrite_modular_index=True)
    check_editor_name(str(tmp_path / "editor"))
    save_planner(tmp_path / "planner", *planner, prompts)
    save_bundle(tmp_path / "planner", str(tmp_path / "editor"), Start(str(tmp_path / "planner")))
    assert isinstance(ImageEditR1Pipeline.from_pretrained(tmp_path / "planner" / BUNDLE).editor, ModularPipeline)


@pytest.mark.tiny
@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")  # of `load_lora_weights`, for a second one
def test_the_adapters_of_an_editor_come_into_the_bundle(tmp_path, planner, prompts):
    editor = tiny_loras.with_loras(tmp_path / "loras", "pix2pix")
    ImageEditR1Pipeline(None, None, editor).save_pretrained(tmp_path / "other")
    save_planner(tmp_path / "planner", *planner, prompts)
    save_bundle(tmp_path / "planner", str(tmp_path / "other" / "editor"), Start(str(tmp_path / "planner")))
    saved = ImageEditR1Pipeline.from_pretrained(tmp_path / "planner" / BUNDLE).editor
    assert tiny_loras.adapters_of(saved) == tiny_loras.adapters_of(editor)


@pytest.mark.tiny
@pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing. is deprecated:FutureWarning")
def test_an_adapter_names_the_commit_of_its_base(tmp_path, text_planner, prompts):
    save_planner(tmp_path / "base", *text_planner, prompts)
    [commit] = keep(tmp_path / "cache", "org/base", main=tmp_path / "base").values()
    start = Start("org/base", {"cache_dir": str(tmp_path / "cache"), "local_files_only": True})
    base, tokenizer, _ = start.load_base()
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"]))
    arguments = TrainingArguments(str(tmp_path / "run"), use_cpu=True, report_to=[])
    trainer = Trainer(adapted, arguments, processing_class=tokenizer)
    trainer.state.log_history = HISTORY
    save_results(trainer, prompts, start, {"steps": 1})
    settings = json.loads((tmp_path / "run" / ADAPTER / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("org/base", commit)
    assert "base_model: org/base\n" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.tiny
def test_a_shipped_bundle_gives_its_editor_settings_and_sequencer(tmp_path, planner, prompts):
    save_planner(tmp_path / "planner", *planner, prompts)
    save_bundle(tmp_path / "planner", "imageedit-r1-scenes", Start(str(tmp_path / "planner")))
    pipe = ImageEditR1Pipeline.from_pretrained(tmp_path / "planner" / BUNDLE)
    shipped = ImageEditR1Pipeline.from_pretrained("imageedit-r1-scenes")
    assert pipe.editor_defaults == shipped.editor_defaults and pipe.prompts == prompts
    for name, value in shipped.sequencer.named_parameters():
        assert torch.equal(value, pipe.sequencer.get_parameter(name))


@pytest.mark.tiny
@pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["adapter", "only for planning", "on the editor's encoder"])
def test_the_sequencer_is_what_training_started_from(kind, tmp_path, prompts, pix2pix):
    """Also where that is an adapter, which is left out where the start itself puts edits in order without it."""
    adapter = tiny_models.tiny_adapter(tmp_path, prompts)
    base, processor, _ = load_planner(tmp_path / "base")
    bundle = ImageEditR1Pipeline(*load_planner(adapter)[:2], None, sequence_without_adapter=True)
    if "encoder" in kind:
        bundle = ImageEditR1Pipeline.from_editor(tiny_models.tiny_qwen_edit(), planner_adapter=adapter)
    bundle.save_pretrained(tmp_path / "bundle")
    if "encoder" in kind:
        (tmp_path / "base").rename(tmp_path / "elsewhere")
    start = Start(str(adapter if kind == "adapter" else tmp_path / "bundle"))
    pix2pix.save_pretrained(tmp_path / "editor")
    save_planner(tmp_path / "run", base, processor, prompts)
    save_bundle(tmp_path / "run", str(tmp_path / "editor"), start)
    pipe = ImageEditR1Pipeline.from_pretrained(tmp_path / "run" / BUNDLE)
    ids = torch.arange(10).unsqueeze(0)
    with torch.no_grad():
        found, untrained, started = (
            model(input_ids=ids).logits for model in (pipe.sequencer, base, start.load(dtype="auto")[0])
        )
    assert torch.allclose(found, untrained if kind == "only for planning" else started, atol=1e-5)
    assert not torch.allclose(untrained, started, atol=1e-2) and pipe.sequencer_processor is not None


@pytest.mark.tiny
def test_planner_and_editor_become_one_pipeline(tmp_path, planner, prompts, pix2pix):
    save_planner(tmp_path / "planner", *planner, prompts)
    pix2pix.save_pretrained(tmp_path / "editor")
    base, processor = tiny_models.tiny_planner(seed=1)
    save_planner(tmp_path / "base", base, processor, prompts)
    save_bundle(tmp_path / "planner", str(tmp_path / "editor"), Start(str(tmp_path / "base")))
    pipe = ImageEditR1Pipeline.from_pretrained(tmp_path / "planner" / BUNDLE)
    assert pipe.prompts == prompts and type(pipe.editor) is type(pix2pix)
    saved = dict(load_planner(tmp_path / "planner")[0].named_parameters())
    assert all(torch.equal(value, saved[name]) for name, value in pipe.planner.named_parameters())
    untrained = dict(base.named_parameters())
    assert all(torch.equal(value, untrained[name]) for name, value in pipe.sequencer.named_parameters())
    task = sample_task(0, "simple")
    assert pipe(task.image, task.instruction, max_new_tokens=4, num_inference_steps=1).images[0].size == (64, 64)
