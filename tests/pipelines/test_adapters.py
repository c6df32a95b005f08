"""Plan with a LoRA adapter on, put the parts in order with it off: two agents on one copy of the weights."""

import json
import shutil
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model

from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.bundles.planners import load_planner, save_planner
from diffusers_r1.planners.adapters import adapters_off, has_adapter
from diffusers_r1.planners.conversation import Conversation
from diffusers_r1.scenes import sample_task
from diffusers_r1.tags import read_decomposition, read_sequence


pytestmark = [
    pytest.mark.tiny,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # PEFT's way of asking
]

TASK = sample_task(3, "chained")


def logits(model, processor) -> torch.Tensor:
    with torch.no_grad():
        return model(**processor(text=["remove the star"], return_tensors="pt")).logits


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The shipped planner as a base, and an adapter with which it still decomposes but words the parts otherwise."""
    folder = tmp_path_factory.mktemp("lora")
    planner, processor, prompts = load_planner("imageedit-r1-scenes", dtype="float32")
    save_planner(folder / "base", planner, processor, prompts)
    about = (processor, [TASK.image], [TASK.instruction], prompts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for seed in range(40):
            base, _, _ = load_planner(folder / "base", dtype="float32")
            torch.manual_seed(seed)
            settings = LoraConfig(
                r=4, lora_alpha=4 + seed % 5, target_modules=["q_proj", "v_proj"], init_lora_weights=False
            )
            adapted = get_peft_model(base, settings)
            decomposition = Conversation(adapted, *about).decompose(max_new_tokens=128)
            said = Conversation(adapted, *about).sequence(decomposition, max_new_tokens=64)
            plain = Conversation(planner, *about).sequence(decomposition, max_new_tokens=64)
            if read_decomposition(decomposition[0]).edits and said != plain and read_sequence(plain[0]).requests:
                break
        adapted.save_pretrained(folder / "adapter")
    processor.save_pretrained(folder / "adapter")
    prompts.save(folder / "adapter")
    return folder


def test_an_adapter_is_loaded_onto_its_base(folders):
    base, processor, _ = load_planner(folders / "base", dtype="float32")
    adapted, _, prompts = load_planner(folders / "adapter", dtype="float32")
    assert has_adapter(adapted) and not has_adapter(base) and prompts.decompose == " {instruction}"
    plain = logits(base, processor)
    assert not torch.allclose(logits(adapted, processor), plain, atol=1e-2)
    with pytest.raises(RuntimeError, match="inside"), adapters_off(adapted):
        assert torch.equal(logits(adapted, processor), plain)
        raise RuntimeError("inside")
    assert not torch.allclose(logits(adapted, processor), plain, atol=1e-2)


@pytest.mark.filterwarnings("ignore:Could not find a config file in org")  # PEFT asks the Hub, which is not there
def test_the_base_of_an_adapter_may_lie_elsewhere(folders, tmp_path, monkeypatch):
    adapter = tmp_path / "adapter"
    shutil.copytree(folders / "adapter", adapter)
    index = adapter / "adapter_config.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "base_model_name_or_path": "org/base"}))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OSError, match=r"an adapter of org/base, which cannot be had[\s\S]*--planner_base"):
        load_planner(adapter)
    expected, processor, _ = load_planner(folders / "adapter", dtype="float32")
    adapted, _, prompts = load_planner(adapter, base=folders / "base", dtype="float32")
    assert torch.equal(logits(adapted, processor), logits(expected, processor))
    assert prompts.decompose == " {instruction}"
    bundle = tmp_path / "bundle"
    ImageEditR1Pipeline(adapted, processor).save_pretrained(bundle)
    bundled, _, prompts = load_planner(bundle, base=folders / "base", dtype="float32")
    assert torch.equal(logits(bundled, processor), logits(expected, processor))
    assert prompts.decompose == " {instruction}"
    for none in (folders / "base", "http://localhost:1/v1"):
        with pytest.raises(ValueError, match="`base` goes with a LoRA adapter"):
            load_planner(none, base=folders / "base")


@pytest.mark.filterwarnings("ignore:Unable to fetch remote file")  # PEFT, which saves, asks the Hub
@pytest.mark.filterwarnings("ignore:Could not find a config file in")
@pytest.mark.parametrize("agent", ["planner", "sequencer"])
@pytest.mark.parametrize("base", ["imageedit-r1-scenes", "org/private"])
def test_a_bundle_may_hold_an_adapter_of_another_bundle_or_of_the_hub(folders, tmp_path, monkeypatch, base, agent):
    adapter, hub = tmp_path / "adapter", tmp_path / "hub"
    shutil.copytree(folders / "adapter", adapter)
    index = adapter / "adapter_config.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "base_model_name_or_path": base}))
    repository = hub / "models--org--private"
    shutil.copytree(folders / "base", repository / "snapshots" / "0123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    settings = {"cache_dir": hub, "local_files_only": True}
    adapted, processor, prompts = load_planner(adapter, dtype="float32", **settings)
    components = {"planner": adapted, "processor": processor}
    if agent == "sequencer":
        components = {f"sequencer{kind}": part for kind, part in zip(("", "_processor"), components.values())}
        components = {**components, "planner": None}
    ImageEditR1Pipeline(**components).save_pretrained(tmp_path / "bundle")
    assert not list((tmp_path / "bundle" / agent).glob("model*.safetensors"))

    with monkeypatch.context() as patched:
        patched.setattr("socket.socket.connect", lambda *args: pytest.fail("the net was asked"))
        loaded = ImageEditR1Pipeline.from_pretrained(tmp_path / "bundle", **settings)
    assert torch.equal(logits(getattr(loaded, agent), processor), logits(adapted, processor))
    assert agent == "sequencer" or loaded.prompts == prompts
    loaded.save_pretrained(tmp_path / "again")  # what was loaded so is saved so
    again = ImageEditR1Pipeline.from_pretrained(tmp_path / "again", dtype=torch.bfloat16, **settings)
    assert getattr(again, agent).dtype == torch.bfloat16 and has_adapter(getattr(again, agent))
    dtypes = {agent: torch.float16, "default": torch.bfloat16}
    by_name = ImageEditR1Pipeline.from_pretrained(tmp_path / "again", dtype=dtypes, **settings)
    assert getattr(by_name, agent).dtype == torch.float16


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
@pytest.mark.filterwarnings("ignore:Adapter second was active")
def test_of_several_adapters_none_is_lost_in_silence(folders, tmp_path):
    adapted, processor, _ = load_planner(folders / "adapter", dtype="float32")
    adapted.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]), "second")
    pipe = ImageEditR1Pipeline(adapted, processor)
    with pytest.raises(
        ValueError, match=r"The planner has 2 adapters \(default, second\), of which a bundle keeps one"
    ):
        pipe.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    adapted.delete_adapter("second")
    pipe.save_pretrained(tmp_path)
    assert has_adapter(ImageEditR1Pipeline.from_pretrained(tmp_path).planner)


def test_where_and_how_the_hub_is_asked_holds_for_the_base_as_well(folders, tmp_path, monkeypatch):
    adapter, hub = tmp_path / "adapter", tmp_path / "hub"
    shutil.copytree(folders / "adapter", adapter)
    index = adapter / "adapter_config.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "base_model_name_or_path": "org/base"}))
    repository = hub / "models--org--base"
    shutil.copytree(folders / "base", repository / "snapshots" / "0123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("the net was asked"))
    adapted, processor, _ = load_planner(adapter, cache_dir=hub, local_files_only=True, dtype="float32")
    expected, _, _ = load_planner(folders / "adapter", dtype="float32")
    assert torch.equal(logits(adapted, processor), logits(expected, processor))


def test_without_peft_an_adapter_is_refused_before_its_base_is_loaded(folders, monkeypatch):
    monkeypatch.setattr("transformers.utils.is_peft_available", lambda: False)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", pytest.fail)
    with pytest.raises(ImportError, match=r"is a LoRA adapter, which takes PEFT: .*\[lora\]"):
        load_planner(folders / "adapter")


def test_the_second_question_goes_to_the_model_without_its_adapter(folders, tmp_path):
    base, processor, prompts = load_planner(folders / "base", dtype="float32")
    adapted, _, _ = load_planner(folders / "adapter", dtype="float32")
    editor = ImageEditR1Pipeline.from_pretrained("imageedit-r1-scenes", planner=None, processor=None).editor
    pipe = ImageEditR1Pipeline(adapted, processor, editor, prompts=prompts, sequence_without_adapter=True)
    about = (processor, [TASK.image], [TASK.instruction], prompts)
    plan = pipe.plan(TASK.image, TASK.instruction)
    decomposition, sequence = plan.raw
    assert [decomposition] == Conversation(adapted, *about).decompose()
    assert [sequence] == Conversation(base, *about).sequence([decomposition])
    assert [sequence] != Conversation(adapted, *about).sequence([decomposition])

    pipe.save_pretrained(tmp_path)
    assert not list((tmp_path / "planner").glob("model*.safetensors"))  # the base is named, not copied
    again = ImageEditR1Pipeline.from_pretrained(tmp_path, dtype=torch.float32)
    assert again.sequence_without_adapter and again.plan(TASK.image, TASK.instruction) == plan


def test_without_an_adapter_there_is_nothing_to_switch_off():
    pipe = ImageEditR1Pipeline.from_pretrained("imageedit-r1-scenes")
    pipe.sequence_without_adapter = True
    with pytest.raises(ValueError, match="no adapter"):
        pipe.plan(TASK.image, TASK.instruction)
