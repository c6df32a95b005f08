"""The planning blocks in front of modular editors: the same plans and pixels as the pipeline, and repositories that diffusers reads."""

import json
import logging
import shutil
import sys

import numpy as np
import pytest
import torch
from diffusers import FluxKontextAutoBlocks, ModularPipeline, SequentialPipelineBlocks
from diffusers.commands import diffusers_cli
from diffusers.modular_pipelines.mellon_node_utils import MellonPipelineConfig
from openai_server import REQUESTS, planner_replies, scripted
from peft import LoraConfig
from PIL import Image
from tiny_editors import CASES
from tiny_models import tiny_adapter, tiny_kontext_modular, tiny_planner, tiny_qwen_edit_modular

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.belongings import set_belongings
from diffusers_r1.images import load_picture
from diffusers_r1.modular import ImageEditR1Blocks, as_modular, save_modular
from diffusers_r1.planners.adapters import adapter_layers
from diffusers_r1.planners.int8 import to_int8
from diffusers_r1.planners.remote import RemotePlanner
from diffusers_r1.prompts import PHOTO_EXAMPLES, Prompts
from diffusers_r1.scenes import TEST_SEEDS, sample_task


pytestmark = [
    pytest.mark.tiny,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # PEFT's way of asking
]

EDITORS = ("FluxKontextModularPipeline", "Flux2KleinModularPipeline", "QwenImageEditModularPipeline")
TASK = sample_task(TEST_SEEDS + 16, "complex")
PLAN = EditPlan(TASK.instruction, TASK.edits, TASK.sub_requests)
FEW = {"num_inference_steps": 2, "height": 64, "width": 64}


@pytest.fixture(scope="module")
def agents():
    """Agents that were trained, with a sequencer of their own."""
    pipe = ImageEditR1Pipeline.from_pretrained("imageedit-r1-scenes", editor=None)
    return pipe.planner, pipe.processor, pipe.sequencer, pipe.sequencer_processor


def with_agents(agents, editor, **settings):
    planner, processor, sequencer, sequencer_processor = agents
    return ImageEditR1Pipeline(planner, processor, editor, sequencer, sequencer_processor, **settings)


@pytest.fixture(scope="module")
def pipe(agents):
    return with_agents(agents, tiny_kontext_modular(), editor_defaults={"num_inference_steps": 2})


@pytest.fixture(scope="module")
def modular(pipe):
    return as_modular(pipe)


@pytest.fixture(scope="module")
def repository(modular, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository") / "planned-kontext"
    save_modular(modular, folder)
    return folder


def seeded():
    return torch.Generator().manual_seed(5)


def pixels(images):
    return np.asarray(images[0])


def edited(modular, image=TASK.image, **given):
    state = modular(image=image, generator=seeded(), **given)
    return state.get("plan"), pixels(state.get("images"))


@pytest.mark.parametrize("turns", ["single", "multi"])
@pytest.mark.parametrize("name", EDITORS)
def test_pixels_are_those_of_the_pipeline(agents, name, turns):
    pipe = with_agents(agents, CASES[name].build())
    out = pipe(TASK.image, TASK.instruction, turns=turns, generator=seeded(), **FEW)
    plan, shown = edited(as_modular(pipe), instruction=TASK.instruction, turns=turns, **FEW)
    assert plan == out.plans[0] and plan.requests == TASK.sub_requests
    assert np.array_equal(shown, pixels(out.images))


def test_a_picture_of_another_size_comes_back_at_its_own_with_others_beside_it(agents):
    pipe = with_agents(agents, CASES["Flux2KleinModularPipeline"].build())
    large, beside = Image.linear_gradient("L").convert("RGB").resize((300, 200)), TASK.image
    given = {"plan": PLAN, "max_pixels": 64 * 64, "num_inference_steps": 2}
    out = pipe([[large, beside]], generator=seeded(), **given)
    state = as_modular(pipe)(image=[large, beside], generator=seeded(), **given)
    assert state.get("images")[0].size == (300, 200) and len(state.get("turn_images")) == 1
    assert np.array_equal(pixels(state.get("images")), pixels(out.images))


def test_an_answer_that_cannot_be_used_is_asked_again_as_in_the_pipeline(planner, prompts):
    pipe = ImageEditR1Pipeline(*planner, tiny_kontext_modular(), prompts=prompts)  # of random weights
    out = pipe(TASK.image, "make it blue", generator=seeded(), max_new_tokens=8, **FEW)
    plan, shown = edited(as_modular(pipe), instruction="make it blue", max_new_tokens=8, **FEW)
    assert plan == out.plans[0] and plan.fallback and len(plan.raw) == 2
    assert np.array_equal(shown, pixels(out.images))


def test_a_planner_behind_an_address_plans_too():
    with scripted((200, planner_replies, {})) as server:
        pipe = ImageEditR1Pipeline(
            RemotePlanner(server.url, "eyes"), editor=tiny_kontext_modular(), prompts=Prompts(examples=PHOTO_EXAMPLES)
        )
        state = as_modular(pipe)(image=TASK.image, instruction="lose the man", **FEW)
        assert state.get("plan").requests == tuple(REQUESTS) and len(server.requests) == 2
        assert state.get("prompt") == EditPlan("", (), tuple(REQUESTS)).prompts("single")[0]


def test_a_plan_is_carried_out_in_place_of_an_instruction(modular, pipe):
    out = pipe(TASK.image, plan=PLAN, generator=seeded(), height=64, width=64)
    for plan in (PLAN, PLAN.to_dict()):
        carried_out, shown = edited(modular, plan=plan, height=64, width=64)
        assert carried_out == PLAN and np.array_equal(shown, pixels(out.images))


@pytest.mark.parametrize("steps", [50, 3, None])
def test_what_the_caller_gives_goes_before_the_editors_defaults(modular, repository, steps):
    loaded = ModularPipeline.from_pretrained(str(repository), trust_remote_code=True)
    loaded.load_components()
    assert {one.name: one.default for one in FluxKontextAutoBlocks().inputs}["num_inference_steps"] == 50
    given = {} if steps is None else {"num_inference_steps": steps}
    for one in (modular, loaded):
        assert one.default_call_parameters["num_inference_steps"] == 2  # the editor's, which schema and Mellon show
        taken = []
        hook = one.transformer.register_forward_pre_hook(lambda *_, taken=taken: taken.append(1))
        one(image=TASK.image, plan=PLAN, height=64, width=64, **given)
        hook.remove()
        assert len(taken) == (steps or 2)


def test_a_list_of_one_is_that_one(modular):
    one = {"instruction": TASK.instruction, "height": 64, "width": 64}
    plan, shown = edited(modular, **one)
    assert edited(modular, **{**one, "instruction": [TASK.instruction]})[0] == plan
    state = modular(image=TASK.image, plan=[plan], generator=[seeded()], height=64, width=64)
    assert state.get("plan") == plan and np.array_equal(pixels(state.get("images")), shown)


def test_an_editor_works_at_the_size_that_it_was_made_for(agents, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("diffusers_r1"), "propagate", True)
    editor = CASES["FluxModularPipeline"].build()
    set_belongings(editor, made_for={"pictures": "scenes", "size": [32, 32]})
    pipe = with_agents(agents, editor)
    large, call = TASK.image.resize((128, 128)), {"plan": PLAN, "num_inference_steps": 2}
    out = pipe(large, generator=seeded(), **call)
    made = as_modular(pipe)
    save_modular(made, tmp_path / "made-for")
    loaded = ModularPipeline.from_pretrained(str(tmp_path / "made-for"), trust_remote_code=True)
    loaded.load_components()
    for one in (made, loaded):
        caplog.clear()
        for _ in range(2):
            state = one(image=large, generator=seeded(), **call)
        assert caplog.text.count("The planner was made for") == 1
        assert [turn.size for turn in state.get("turn_images")] == [(32, 32)] == [out.turns[0][0].size_given]
        assert abs(pixels(state.get("images")).astype(int) - pixels(out.images)).max() <= 1
    state = made(image=large, generator=seeded(), max_pixels=64 * 64, **call)
    assert [turn.size for turn in state.get("turn_images")] == [(64, 64)]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """Its planner is the editor's text encoder, with an adapter that is on while it plans."""
    adapter = tiny_adapter(tmp_path_factory.mktemp("adapter"), Prompts(decompose="{instruction}", sequence="in order"))
    return ImageEditR1Pipeline.from_editor(tiny_qwen_edit_modular(), planner_adapter=adapter)


def test_a_planner_that_is_a_part_of_the_editor_plans_with_its_adapter(adapted):
    call = {"instruction": "make it blue", "max_new_tokens": 8}
    own = adapted.plan(TASK.image, **call)
    bare = ImageEditR1Pipeline.from_editor(tiny_qwen_edit_modular(), prompts=adapted.prompts).plan(TASK.image, **call)
    modular = as_modular(adapted)
    seen = []
    layers = adapter_layers(modular.text_encoder)
    hook = modular.transformer.register_forward_pre_hook(
        lambda *_: seen.append(all(layer.disable_adapters for layer in layers.values()))
    )
    plan = modular(image=TASK.image, **call, **FEW).get("plan")
    hook.remove()
    assert plan.raw == own.raw != bare.raw
    assert layers and seen and all(seen)


def test_what_the_agents_made_can_be_changed_between_two_blocks(modular):
    changed = modular.blocks
    words = changed.sub_blocks["plan"].sub_blocks
    assert list(words) == ["decompose", "sequence", "write_prompts"]
    state = modular(image=TASK.image, instruction=TASK.instruction)
    again = modular(state=state, plan=EditPlan("", (), ("remove everything",)))
    assert [one.prompt for one in again.get("prompts")] == ["remove everything"]


def test_in_a_plain_sequence_the_prompt_reaches_an_editors_blocks(agents):
    blocks = SequentialPipelineBlocks.from_blocks_dict({"plan": ImageEditR1Blocks(), "edit": FluxKontextAutoBlocks()})
    assert "prompt" not in [one.name for one in blocks.inputs]
    editor = tiny_kontext_modular()
    pipe = type(editor)(blocks=blocks)
    pipe.register_components(**{name: getattr(editor, name) for name in editor.component_names})
    given = {"plan": PLAN, "image": TASK.image, **FEW, "max_area": 64 * 64, "_auto_resize": False}
    planned = pipe(**given, generator=seeded()).get("images")
    alone = editor(
        prompt=PLAN.prompts("single")[0],
        generator=seeded(),
        **{name: value for name, value in given.items() if name != "plan"},
    )
    assert np.array_equal(pixels(planned), pixels(alone.get("images")))


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        ({}, ValueError, "Give either `instruction`"),
        ({"instruction": " "}, ValueError, "There is no instruction yet"),
        ({"instruction": ["a", "b"]}, ValueError, "One instruction at a time, not 2"),
        ({"instruction": [3]}, TypeError, "An instruction is text, not int"),
        ({"plan": [PLAN, PLAN]}, ValueError, "One plan at a time, not 2"),
        ({"plan": []}, ValueError, "`plan` is an empty list"),
        ({"plan": PLAN, "generator": 3}, TypeError, "A generator is a `torch.Generator`, not int"),
        ({"instruction": "a", "generator": [torch.Generator()] * 2}, ValueError, "2 generators do not go with 1 pic"),
        ({"plan": PLAN, "turns": "composed"}, ValueError, 'cannot be asked with turns="composed"'),
        ({"instruction": "a", "turns": "double"}, ValueError, "`turns` must be one of"),
        ({"instruction": "a", "max_new_tokens": 0}, ValueError, "`max_new_tokens`"),
        ({"instruction": "a", "num_inference_steps": 0}, ValueError, "num_inference_steps"),
        ({"instruction": "a", "max_pixels": 0}, ValueError, "max_pixels"),
        ({"plan": {"requests": 3}}, ValueError, "requests"),
        ({"instruction": "a", "image": "nowhere.png"}, ValueError, "nowhere.png"),
        ({"instruction": "a", "image": [TASK.image, TASK.image]}, ValueError, "takes one picture per result"),
    ],
)
def test_a_bad_call_is_refused_before_any_model_runs(modular, monkeypatch, call, error, said):
    for part in (modular.planner, modular.transformer, modular.vae):
        monkeypatch.setattr(part, "forward", lambda *_, **__: pytest.fail("a model has run"))
    with pytest.raises(error, match=said):
        modular(**{"image": TASK.image, **call})


# What is saved
# -------------


def test_a_repository_gives_the_same_pixels_wherever_it_lies(modular, repository, tmp_path):
    moved = shutil.copytree(repository, tmp_path / "moved")
    loaded = ModularPipeline.from_pretrained(str(moved), trust_remote_code=True)
    loaded.load_components()
    assert type(loaded).__name__ == "FluxKontextModularPipeline" and loaded.config["editor_defaults"]
    call = {"instruction": TASK.instruction, "turns": "multi", "height": 64, "width": 64}
    plan, shown = edited(loaded, **call)
    expected = edited(modular, **call)
    assert plan == expected[0]
    assert (
        abs(shown.astype(int) - expected[1]).max() <= 1
    )  # of 255: weights elsewhere in memory are added up in another order
    with pytest.raises(ValueError, match="trust_remote_code"):
        ModularPipeline.from_pretrained(str(moved))


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["diffusers-cli", *map(str, words)])
    diffusers_cli.main()


def test_diffusers_cli_says_what_it_takes(monkeypatch, capsys, repository):
    command(monkeypatch, "--format", "json", "schema", "--model", repository, "--trust-remote-code")
    inputs = {one["name"]: one for one in json.loads(capsys.readouterr().out)["inputs"]}
    assert inputs["image"]["required"] and not inputs["instruction"]["required"]
    assert {"plan", "turns", "guidance_scale", "generator"} <= set(inputs) and "prompt" not in inputs


def test_diffusers_cli_runs_it(monkeypatch, repository, modular, tmp_path):
    TASK.image.save(tmp_path / "scene.png")
    call = {"instruction": TASK.instruction, "height": 64, "width": 64}
    words = ("--trust-remote-code", "--device-map", "cpu", "--output-key", "images", "--seed", 5)
    given = json.dumps({**call, "image": str(tmp_path / "scene.png")})
    command(
        *(monkeypatch, "run", "--model", repository, *words),
        *("--output", tmp_path / "edited.png", "--pipeline-kwargs", given),
    )
    assert np.array_equal(np.asarray(load_picture(tmp_path / "edited.png")), edited(modular, **call)[1])


def test_diffusers_cli_packs_its_blocks_anew(monkeypatch, repository, tmp_path):
    shutil.copy(repository / "block.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.warns(FutureWarning, match="overwrite_modular_index"):  # the command's own call
        command(monkeypatch, "custom_blocks")
    assert json.loads((tmp_path / "modular_config.json").read_text()) == json.loads(
        (repository / "modular_config.json").read_text()
    )
    loaded = ModularPipeline.from_pretrained(str(tmp_path), trust_remote_code=True)
    assert "planner" in loaded.component_names and loaded.planner is None


def test_mellon_has_a_node(repository):
    (node,) = MellonPipelineConfig.load(repository).node_params.values()
    kinds = {name: entry["type"] for name, entry in node["params"].items()}
    assert kinds["image"] == "image" and kinds["instruction"] == kinds["turns"] == "string"
    assert kinds["num_inference_steps"] == "int" and kinds["plan"] == "custom"
    assert {"planner", "planner_processor", "transformer"} <= set(node["model_input_names"])
    assert "images" in node["output_names"]


def test_the_card_says_how_to_use_it(repository):
    card = (repository / "README.md").read_text()
    assert 'ModularPipeline.from_pretrained("planned-kontext", trust_remote_code=True)' in card


def test_what_cannot_be_a_repository_says_so(agents, pix2pix, tmp_path):
    with pytest.raises(TypeError, match="has none: load the editor by"):
        as_modular(with_agents(agents, pix2pix))
    with pytest.raises(ValueError, match="as_modular"):
        save_modular(tiny_kontext_modular(), tmp_path / "a")
    remote = ImageEditR1Pipeline(RemotePlanner("http://127.0.0.1:9/v1", "eyes"), editor=tiny_kontext_modular())
    with pytest.raises(ValueError, match="planner is behind an address"):
        save_modular(as_modular(remote), tmp_path / "b")
    eight_bits = to_int8(tiny_planner()[0])
    with pytest.raises(ValueError, match="planner has weights of 8 bits"):
        save_modular(as_modular(ImageEditR1Pipeline(eight_bits, agents[1], tiny_kontext_modular())), tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_a_model_with_an_adapter_is_refused_before_anything_is_written(agents, adapted, tmp_path):
    with pytest.raises(ValueError, match="LoRA adapter on `planner` and `text_encoder`, and a modular repository"):
        save_modular(as_modular(adapted), tmp_path / "a")
    editor = tiny_kontext_modular()
    settings = LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
    editor.transformer.add_adapter(settings)
    modular = as_modular(with_agents(agents, editor))
    with pytest.raises(ValueError, match="LoRA adapter on `transformer`"):
        save_modular(modular, tmp_path / "b")
    assert not list(tmp_path.iterdir())
    before = edited(modular, plan=PLAN, **FEW)[1]
    modular.fuse_lora()
    modular.unload_lora_weights()
    save_modular(modular, tmp_path / "c")
    loaded = ModularPipeline.from_pretrained(str(tmp_path / "c"), trust_remote_code=True)
    loaded.load_components()
    assert abs(edited(loaded, plan=PLAN, **FEW)[1].astype(int) - before).max() <= 1


def test_blocks_put_together_by_hand_are_refused(agents, tmp_path):
    editor = tiny_kontext_modular()
    by_hand = SequentialPipelineBlocks.from_blocks_dict(dict(editor.blocks.sub_blocks))
    own = type(editor)(blocks=by_hand)
    own.register_components(**{name: getattr(editor, name) for name in editor.component_names})
    pipe = with_agents(agents, own)
    with pytest.raises(ValueError, match="put together by hand"):
        save_modular(as_modular(pipe), tmp_path / "a")
    with pytest.raises(ValueError, match="none of diffusers' own"):
        pipe.save_pretrained(tmp_path / "b")
    assert not list(tmp_path.iterdir())


# A bundle with a modular editor
# ------------------------------


@pytest.fixture(scope="module")
def bundle(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    pipe.save_pretrained(folder)
    return folder


def test_a_bundle_with_a_modular_editor_gives_the_same_pixels(pipe, bundle, tmp_path):
    moved = shutil.copytree(bundle, tmp_path / "moved")
    loaded = ImageEditR1Pipeline.from_pretrained(moved)
    assert type(loaded.editor) is type(pipe.editor) and loaded.editor_defaults == {"num_inference_steps": 2}
    call = {"instruction": TASK.instruction, "height": 64, "width": 64}
    before, after = (pixels(one(TASK.image, generator=seeded(), **call).images) for one in (pipe, loaded))
    assert np.array_equal(before, after)
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "editor" / "modular_model_index.json").is_file()


def test_a_dtype_reaches_a_modular_editor(bundle):
    loaded = ImageEditR1Pipeline.from_pretrained(bundle, dtype=torch.bfloat16)
    assert loaded.planner.dtype == loaded.editor.transformer.dtype == loaded.editor.vae.dtype == torch.bfloat16
    parts = ImageEditR1Pipeline.from_pretrained(bundle, dtype={"planner": torch.float32, "transformer": torch.float16})
    assert (parts.planner.dtype, parts.editor.transformer.dtype) == (torch.float32, torch.float16)


def test_a_modular_editor_that_lacks_weights_is_an_error(bundle, tmp_path):
    broken = shutil.copytree(bundle, tmp_path / "broken")
    for file in (broken / "editor" / "transformer").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(OSError, match="could not be loaded: transformer"):
        ImageEditR1Pipeline.from_pretrained(broken)
