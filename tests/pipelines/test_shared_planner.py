"""The editor's text encoder plans: one module, one copy on disk, and pictures that do not change by it."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tiny_models
import torch
from accelerate.hooks import CpuOffload
from diffusers import DiffusionPipeline
from peft import LoraConfig
from PIL import Image
from safetensors import safe_open

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.bundles.planners import ADAPTER_FOLDER, load_planner, save_planner
from diffusers_r1.pipelines.nested.adapters import adapters_taken_out
from diffusers_r1.planners.adapters import STATE_FILE, adapter_layers, adapter_on, adapters_off
from diffusers_r1.prompts import Prompts


pytestmark = [
    pytest.mark.tiny,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # PEFT's way of asking
]

SHORT = Prompts(decompose="{instruction}", sequence="in order")
PLAN = EditPlan("", (), ("make it blue",))
SMALL = {"height": 64, "width": 64, "num_inference_steps": 1}
SOURCE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return tiny_models.tiny_adapter(tmp_path_factory.mktemp("adapter"), SHORT)


def build(adapter=None, **kwargs) -> ImageEditR1Pipeline:
    editor = tiny_models.tiny_qwen_edit()
    pipe = ImageEditR1Pipeline.from_editor(editor, planner_adapter=adapter, **kwargs)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def answer(pipe: ImageEditR1Pipeline) -> str:
    return pipe.plan(SOURCE, "make it blue", max_new_tokens=12).raw[0]


def edited(editor) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return np.asarray(editor(SOURCE, "make it blue", negative_prompt=" ", generator=generator, **SMALL).images[0])


def switch_off(model: torch.nn.Module) -> None:
    for layer in adapter_layers(model).values():  # as `model.disable_adapters()` does, with any PEFT
        layer.enable_adapters(False)


def parameters(*models: torch.nn.Module) -> int:
    return sum({id(p): p.numel() for model in models for p in model.parameters()}.values())


def models_of(pipe: ImageEditR1Pipeline) -> list[torch.nn.Module]:
    parts = [*pipe.components.values(), *pipe.editor.components.values()]
    return [part for part in parts if isinstance(part, torch.nn.Module)]


def size_of_weights(folder) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def names_of_weights(folder) -> list[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return list(file.keys())


@pytest.fixture(scope="module")
def bare():
    """What the editor makes, and what its text encoder answers, before any of this."""
    editor = tiny_models.tiny_qwen_edit()
    editor.set_progress_bar_config(disable=True)
    return edited(editor), answer(build(prompts=SHORT))


def test_the_editors_pictures_are_the_same_bit_by_bit(adapter, bare):
    pipe = build(adapter)
    assert pipe.planner is pipe.editor.text_encoder and pipe.planner_in_editor == "text_encoder"
    assert pipe.prompts == SHORT
    assert answer(pipe) != bare[1]  # the adapter plans otherwise
    assert np.array_equal(edited(pipe.editor), bare[0])
    out = pipe(SOURCE, plan=PLAN, generator=torch.Generator().manual_seed(0), **SMALL)
    assert np.array_equal(np.asarray(out.images[0]), bare[0])


def test_without_an_adapter_the_text_encoder_plans_as_it_is(bare):
    pipe = build(prompts=SHORT)
    assert answer(pipe) == bare[1] and pipe.processor is pipe.editor.processor


def test_the_adapter_is_the_only_weight_that_is_added(adapter):
    pipe, editor = build(adapter), tiny_models.tiny_qwen_edit()
    of_editor = parameters(*[part for part in editor.components.values() if isinstance(part, torch.nn.Module)])
    of_adapter = sum(
        p.numel()
        for layer in adapter_layers(pipe.planner).values()
        for name, p in layer.named_parameters()
        if "lora_" in name
    )
    assert of_adapter > 0 and parameters(*models_of(pipe)) == of_editor + of_adapter


def test_the_adapter_plans_what_it_plans_on_its_own(adapter):
    planner, processor, prompts = load_planner(adapter, dtype=torch.float32)
    apart = ImageEditR1Pipeline(planner, processor, tiny_models.tiny_pix2pix(), prompts=prompts)
    assert answer(apart) == answer(build(adapter))


@pytest.mark.parametrize("without", [False, True])
def test_an_adapter_that_the_user_switched_off_stays_off(adapter, bare, without):
    planner, processor, prompts = load_planner(adapter, dtype=torch.float32)
    apart = ImageEditR1Pipeline(planner, processor, prompts=prompts, sequence_without_adapter=without)
    said = answer(apart)
    switch_off(planner)
    assert answer(apart) == bare[1] != said
    assert all(layer.disable_adapters for layer in adapter_layers(planner).values())


def test_so_does_one_that_came_with_the_editor(adapter, bare):
    editor = tiny_models.tiny_qwen_edit()
    editor.text_encoder.load_adapter(str(adapter))
    pipe = ImageEditR1Pipeline.from_editor(editor, prompts=SHORT)
    said = answer(pipe)
    switch_off(editor.text_encoder)
    assert answer(pipe) == bare[1] != said
    assert answer(ImageEditR1Pipeline.from_editor(editor, prompts=SHORT)) == bare[1]


def test_and_comes_back_off_as_strong_as_it_was(adapter, bare, tmp_path):
    planner, processor, prompts = load_planner(adapter, dtype=torch.float32)
    for layer in adapter_layers(planner).values():
        layer.scaling["default"] *= 1.5
    apart = ImageEditR1Pipeline(planner, processor, prompts=prompts)
    said = answer(apart)
    assert said not in (bare[1], answer(build(adapter)))
    switch_off(planner)
    apart.save_pretrained(tmp_path / "bundle")
    save_planner(tmp_path / "planner", planner, processor, prompts)
    whole = ImageEditR1Pipeline.from_pretrained(tmp_path / "bundle")
    alone = ImageEditR1Pipeline(*load_planner(tmp_path / "planner")[:2])
    in_editor = build(tmp_path / "planner")
    for loaded in (whole, alone, in_editor):
        assert answer(loaded) == bare[1]
        for layer in adapter_layers(loaded.planner).values():
            layer.enable_adapters(True)
        assert answer(loaded) == said


def test_a_file_of_its_state_that_is_wrong_is_named(adapter, tmp_path):
    save_planner(tmp_path, *load_planner(adapter))
    (tmp_path / STATE_FILE).write_text('{"on": "never", "scales": {}}')
    with pytest.raises(ValueError, match=r"adapter_state\.json: `on` must be"):
        load_planner(tmp_path)


@pytest.mark.parametrize("is_on", [False, True])
def test_one_that_does_not_rest_comes_back_so(adapter, is_on, tmp_path):
    editor = tiny_models.tiny_qwen_edit()
    editor.text_encoder.load_adapter(str(adapter))
    if not is_on:
        switch_off(editor.text_encoder)
    pipe = ImageEditR1Pipeline.from_editor(editor, prompts=SHORT)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(tmp_path)
    again = ImageEditR1Pipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert answer(again) == answer(pipe) and np.array_equal(edited(again.editor), edited(pipe.editor))


def test_one_with_whole_layers_of_its_own_is_refused(tmp_path):
    editor = tiny_models.tiny_qwen_edit()
    editor.text_encoder.add_adapter(LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]))
    with pytest.raises(ValueError, match="on `planner` has whole layers"):
        ImageEditR1Pipeline.from_editor(editor, prompts=SHORT).save_pretrained(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_one_that_is_for_another_base_is_refused_before_anything_changes(bare, tmp_path):
    model = tiny_models.tiny_qwen_edit().text_encoder
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="pissa"))
    model.save_pretrained(tmp_path / "adapter")
    editor = tiny_models.tiny_qwen_edit()
    editor.set_progress_bar_config(disable=True)
    with pytest.raises(ValueError, match="began as 'pissa'.*path_initial_model_for_weight_conversion"):
        ImageEditR1Pipeline.from_editor(editor, planner_adapter=tmp_path / "adapter")
    assert np.array_equal(edited(editor), bare[0])

    editor.text_encoder = model
    with pytest.raises(ValueError, match="on `planner`, a part of the editor, began as 'pissa'"):
        ImageEditR1Pipeline.from_editor(editor, prompts=SHORT).save_pretrained(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_without_adapters_is_no_reason_to_switch_them_on(adapter):
    planner, _, _ = load_planner(adapter, dtype=torch.float32)
    with adapters_off(planner):
        pass
    assert not any(layer.disable_adapters for layer in adapter_layers(planner).values())
    switch_off(planner)
    with adapters_off(planner):
        pass
    assert all(layer.disable_adapters for layer in adapter_layers(planner).values())


def test_the_bundle_has_the_shared_weights_once(adapter, bare, tmp_path):
    pipe = build(adapter)
    said = answer(pipe)
    pipe.save_pretrained(tmp_path / "bundle")
    pipe.editor = None  # what was saved is the whole
    tiny_models.tiny_qwen_edit().save_pretrained(tmp_path / "editor")
    bundle = tmp_path / "bundle"
    assert not (bundle / "planner").exists()
    adapter_bytes = size_of_weights(bundle / ADAPTER_FOLDER)
    assert adapter_bytes > 0
    assert size_of_weights(bundle) == size_of_weights(tmp_path / "editor") + adapter_bytes
    assert names_of_weights(bundle / "editor/text_encoder") == names_of_weights(tmp_path / "editor/text_encoder")
    assert json.loads((bundle / "model_index.json").read_text())["planner"] == [None, None]

    again = ImageEditR1Pipeline.from_pretrained(bundle)
    again.set_progress_bar_config(disable=True)
    assert again.planner is again.editor.text_encoder and again.prompts == SHORT
    assert answer(again) == said and np.array_equal(edited(again.editor), bare[0])
    again.save_pretrained(tmp_path / "twice")
    assert size_of_weights(tmp_path / "twice") == size_of_weights(bundle)
    again.save_pretrained(bundle)  # whose text encoder is the adapter's base, and is saved with it
    assert answer(ImageEditR1Pipeline.from_pretrained(bundle)) == said


def test_saving_leaves_the_pipeline_as_it_was(adapter, tmp_path):
    pipe = build(adapter)
    said = answer(pipe)
    pipe.save_pretrained(tmp_path)
    assert answer(pipe) == said and pipe.planner_in_editor == "text_encoder"
    assert tuple(pipe.config.planner) == ("transformers", "Qwen2_5_VLForConditionalGeneration")


def test_a_bundle_without_an_adapter(tmp_path):
    build(prompts=SHORT).save_pretrained(tmp_path)
    again = ImageEditR1Pipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert again.planner is again.editor.text_encoder and again.planner.dtype == torch.bfloat16
    assert not (tmp_path / ADAPTER_FOLDER).exists()


@pytest.mark.parametrize("has_adapter", [False, True])
def test_plain_diffusers_shares_it_as_well(adapter, has_adapter, tmp_path):
    pipe = build(adapter) if has_adapter else build(prompts=SHORT)
    pipe.sequence_without_adapter = has_adapter
    said = answer(pipe)
    pipe.save_pretrained(tmp_path)
    plain = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    assert plain.planner is plain.editor.text_encoder and plain.prompts == SHORT
    assert plain.sequence_without_adapter == has_adapter and answer(plain) == said
    own = {"planner": tiny_models.tiny_planner()[0]}
    assert DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True, **own).planner is own["planner"]
    half = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True, dtype=torch.bfloat16)
    assert half.planner is half.editor.text_encoder and half.planner.dtype == torch.bfloat16


def test_plain_diffusers_shares_it_with_an_editor_that_is_given(adapter, tmp_path, caplog):
    pipe = build(adapter)
    pipe.sequence_without_adapter = True
    pipe.save_pretrained(tmp_path)
    other = tiny_models.tiny_qwen_edit()
    plain = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True, editor=other)
    assert plain.planner is other.text_encoder and len(adapter_layers(plain.planner)) > 0
    assert plain.prompts == SHORT and plain.sequence_without_adapter and answer(plain) == answer(pipe)
    has_none = {"editor": tiny_models.tiny_pix2pix()}  # its text encoder writes no text
    plain = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True, **has_none)
    assert plain.planner is None and "StableDiffusionInstructPix2PixPipeline does not have" in caplog.text
    with pytest.raises(ValueError, match="StableDiffusionInstructPix2PixPipeline does not have"):
        ImageEditR1Pipeline.from_pretrained(tmp_path, **has_none)


def test_another_editor_at_load(adapter, tmp_path):
    build(adapter).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="OmniGenPipeline does not have"):
        ImageEditR1Pipeline.from_pretrained(tmp_path, editor=tiny_models.tiny_omnigen())
    assert (
        ImageEditR1Pipeline.from_pretrained(tmp_path, editor=tiny_models.tiny_pix2pix(), planner=None).planner is None
    )
    other = tiny_models.tiny_qwen_edit_plus()
    assert ImageEditR1Pipeline.from_pretrained(tmp_path, editor=other).planner is other.text_encoder


def test_another_editor_later(adapter):
    pipe = build(adapter)
    said = answer(pipe)
    pipe.editor = tiny_models.tiny_pix2pix()
    assert pipe.planner_in_editor is None and answer(pipe) == said
    assert answer(ImageEditR1Pipeline.from_pipe(pipe)) == said


def test_moving_keeps_it_one(adapter):
    pipe = build(adapter).to(torch.bfloat16)
    assert pipe.planner is pipe.editor.text_encoder and pipe.planner.dtype == torch.bfloat16
    pipe.to("meta")
    assert pipe.planner is pipe.editor.text_encoder
    assert {p.device.type for p in pipe.planner.parameters()} == {"meta"}


def test_model_offload(adapter, bare):
    pipe = build(adapter)
    said = answer(pipe)
    pipe.enable_model_cpu_offload(device="cpu")
    assert isinstance(pipe.planner._hf_hook, CpuOffload) and pipe.planner is pipe.editor.text_encoder
    assert answer(pipe) == said
    out = pipe(SOURCE, plan=PLAN, generator=torch.Generator().manual_seed(0), **SMALL)
    assert np.array_equal(np.asarray(out.images[0]), bare[0])
    assert answer(pipe) == said


def test_model_offload_is_asked_for_again_with_another_editor(adapter):
    pipe = build(adapter)
    pipe.enable_model_cpu_offload(device="cpu")
    pipe.editor = None
    pipe.editor = tiny_models.tiny_pix2pix()
    pipe.enable_model_cpu_offload(device="cpu")
    assert all(isinstance(model._hf_hook, CpuOffload) for model in (pipe.planner, pipe.editor.unet, pipe.editor.vae))
    out = pipe(SOURCE, "make it blue", max_new_tokens=4, num_inference_steps=1)
    assert out.images[0].size == SOURCE.size


def test_sequential_offload(adapter):
    pipe = build(adapter)
    said = answer(pipe)
    pipe.enable_sequential_cpu_offload(device="cpu")
    assert {p.device.type for p in pipe.planner.parameters()} == {"meta"}
    pipe.remove_all_hooks()
    assert answer(pipe) == said


def test_group_offload(adapter, bare):
    pipe = build(adapter)
    said = answer(pipe)
    pipe.enable_group_offload("cpu", num_blocks_per_group=1)
    assert hasattr(pipe.planner.model.visual.patch_embed.proj, "_diffusers_hook")
    assert answer(pipe) == said
    assert np.array_equal(edited(pipe.editor), bare[0])


def test_the_second_question_without_the_adapter(adapter):
    pipe = build(adapter, sequence_without_adapter=True)
    said = answer(pipe)
    assert all(layer.disable_adapters for layer in adapter_layers(pipe.planner).values())  # off again after planning
    with adapter_on(pipe.planner):
        assert not any(layer.disable_adapters for layer in adapter_layers(pipe.planner).values())
    assert answer(pipe) == said


def test_the_adapter_comes_back_where_it_was(adapter):
    pipe = build(adapter)
    names = list(pipe.planner.state_dict())
    with pytest.raises(RuntimeError, match="inside"), adapters_taken_out(pipe.planner):
        assert list(pipe.planner.state_dict()) == list(tiny_models.tiny_qwen_edit().text_encoder.state_dict())
        raise RuntimeError("inside")
    assert list(pipe.planner.state_dict()) == names


def test_editors_that_cannot_plan_say_so():
    with pytest.raises(ValueError, match="no text encoder that can plan"):
        ImageEditR1Pipeline.from_editor(tiny_models.tiny_pix2pix())
    with pytest.raises(ValueError, match="no text encoder that can plan"):
        ImageEditR1Pipeline.from_editor(tiny_models.tiny_omnigen())
    with pytest.raises(ValueError, match="no processor"):
        ImageEditR1Pipeline.from_editor(tiny_models.tiny_flux2_klein())


@pytest.mark.parametrize("name", ["tiny_longcat", "tiny_joyimage_edit", "tiny_qwen_image_21", "tiny_flux2"])
def test_other_editors_with_a_model_that_can(name):
    pipe = ImageEditR1Pipeline.from_editor(getattr(tiny_models, name)(), prompts=SHORT)
    assert pipe.planner_in_editor == "text_encoder"
    assert isinstance(answer(pipe), str)


def test_the_processor_is_the_one_given_or_else_the_adapters_or_else_the_editors(adapter):
    own = tiny_models.tiny_planner()[1]
    assert build(adapter, processor=own).processor is own and build(processor=own).processor is own
    pipe = build(adapter)
    assert pipe.processor is not pipe.editor.processor is not None
    pipe = build()
    assert pipe.processor is pipe.editor.processor


@pytest.mark.parametrize("at_work", ["a plan", "a picture"])
def test_in_threads_too_the_adapter_is_on_for_every_plan_and_no_picture(adapter, bare, at_work):
    pipe, others = build(adapter), []
    said = answer(pipe)

    def plan_beside(*args):
        if not others:
            others.append(pool.submit(answer, pipe))
            time.sleep(0.5)  # the other thread comes as far as it may

    with ThreadPoolExecutor(1) as pool:
        pipe.planner.model.visual.register_forward_pre_hook(plan_beside)
        if at_work == "a plan":
            assert answer(pipe) == said
        else:
            out = pipe(SOURCE, plan=PLAN, generator=torch.Generator().manual_seed(0), **SMALL)
            assert np.array_equal(np.asarray(out.images[0]), bare[0])
        assert others[0].result() == said
