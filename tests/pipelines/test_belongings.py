"""What belongs to a component goes and comes with it, by whatever way it is replaced: a table of ways and of things."""

import itertools

import pytest
import tiny_models
import torch
from diffusers import (
    DiffusionPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInstructPix2PixPipeline,
)
from diffusers.models.attention_processor import SlicedAttnProcessor
from peft import LoraConfig, get_peft_model
from PIL import Image
from tiny_loras import adapters_of, with_loras
from transformers import AutoProcessor

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.belongings import belongings, set_belongings
from diffusers_r1.bundles.planners import load_planner, save_planner
from diffusers_r1.pipelines.call import within_size
from diffusers_r1.pipelines.nested.loading import load_editor
from diffusers_r1.prompts import Prompts


pytestmark = [
    pytest.mark.tiny,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # PEFT's way of asking
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`"),  # of `load_lora_weights`, for a second one
]

PROMPTS = Prompts(decompose="Own: {instruction}", sequence="own order", system="own system")
DEFAULTS = {"num_inference_steps": 3, "guidance_scale": 2.5}
MADE_FOR = {"pictures": "pictures of one thing", "size": [32, 48]}


def others() -> dict[str, object]:
    """Components with belongings of their own, which none of the new ones may get."""
    planner, processor = tiny_models.tiny_planner(seed=7)
    set_belongings(
        planner,
        prompts=Prompts(decompose="Other: {instruction}").to_dict(),
        made_for={"pictures": "x", "size": [1, 1]},
    )
    editor = tiny_models.tiny_pix2pix(seed=7)
    set_belongings(editor, defaults={"num_inference_steps": 9, "image_guidance_scale": 7.0})
    return {"planner": planner, "processor": processor, "editor": editor}


# Each way brings the components of `pipe` into a pipeline. In `folder` there is room, and a bundle of others in `others`.


def argument_of_plain_diffusers(pipe, folder):
    components = {"planner": pipe.planner, "processor": pipe.processor, "editor": pipe.editor}
    return DiffusionPipeline.from_pretrained(folder / "others", trust_remote_code=True, **components)


def assignment(pipe, folder):
    target = ImageEditR1Pipeline(**others())
    target.planner, target.processor, target.editor = pipe.planner, pipe.processor, pipe.editor
    return target


def register_modules(pipe, folder):
    target = ImageEditR1Pipeline(**others())
    target.register_modules(planner=pipe.planner, processor=pipe.processor, editor=pipe.editor)
    return target


def argument_of_from_pretrained(pipe, folder):
    components = {"planner": pipe.planner, "processor": pipe.processor, "editor": pipe.editor}
    return ImageEditR1Pipeline.from_pretrained(folder / "others", **components)


def from_pipe(pipe, folder):
    return ImageEditR1Pipeline.from_pipe(pipe)


def argument_of_from_pipe(pipe, folder):
    components = {"planner": pipe.planner, "processor": pipe.processor, "editor": pipe.editor}
    return ImageEditR1Pipeline.from_pipe(ImageEditR1Pipeline(**others()), **components)


def components(pipe, folder):
    return ImageEditR1Pipeline(**pipe.components)


def saved(pipe, folder):
    pipe.save_pretrained(folder / "saved")
    return ImageEditR1Pipeline.from_pretrained(folder / "saved")


def saved_over_another(pipe, folder):
    pipe.save_pretrained(folder / "others")
    return ImageEditR1Pipeline.from_pretrained(folder / "others")


def saved_and_loaded_by_plain_diffusers(pipe, folder):
    pipe.save_pretrained(folder / "saved")
    return DiffusionPipeline.from_pretrained(folder / "saved", trust_remote_code=True)


def parts_of_a_saved_one(pipe, folder):
    """The folders in a bundle, each loaded by what reads such a folder alone."""
    pipe.save_pretrained(folder / "saved")
    bundle = ImageEditR1Pipeline.from_pretrained(folder / "saved", planner=None, processor=None)
    planner, processor, _ = load_planner(folder / "saved", dtype=torch.float32)
    return ImageEditR1Pipeline(planner, processor, bundle.editor)


WAYS = [
    assignment,
    register_modules,
    argument_of_from_pretrained,
    argument_of_plain_diffusers,
    from_pipe,
    argument_of_from_pipe,
    components,
    saved,
    saved_over_another,
    saved_and_loaded_by_plain_diffusers,
    parts_of_a_saved_one,
]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """The folder of a LoRA adapter of a tiny planner; the base lies beside it."""
    folder = tmp_path_factory.mktemp("adapted")
    planner, processor = tiny_models.tiny_planner()
    set_belongings(planner, made_for=MADE_FOR)  # of an adapter nothing is saved but what it adds
    save_planner(folder / "base", planner, processor, Prompts())
    base, processor, _ = load_planner(folder / "base", dtype=torch.float32)
    settings = LoraConfig(
        r=2, lora_alpha=64, target_modules=r".*language_model.*(q_proj|v_proj)", init_lora_weights=False
    )
    torch.manual_seed(0)
    get_peft_model(base, settings).save_pretrained(folder / "adapter")
    processor.save_pretrained(folder / "adapter")
    PROMPTS.save(folder / "adapter")
    return folder / "adapter"


@pytest.fixture(scope="module")
def loras(tmp_path_factory):
    return tmp_path_factory.mktemp("loras")


@pytest.fixture
def room(tmp_path):
    ImageEditR1Pipeline(**others()).save_pretrained(tmp_path / "others")
    return tmp_path


def facts(pipe: ImageEditR1Pipeline) -> dict[str, object]:
    """All that belongs to planner and editor, as a caller sees it."""
    return {
        "prompts": pipe.prompts,
        "sequence_without_adapter": pipe.sequence_without_adapter,
        "made_for of the planner": belongings(pipe.planner).get("made_for"),
        "editor_defaults": pipe.editor_defaults,
        "made_for of the editor": belongings(pipe.editor).get("made_for"),
        "adapters of the editor": adapters_of(pipe.editor),
    }


@pytest.mark.parametrize("planner", ["plain", "adapter"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_everything_goes_along(way, planner, adapted, loras, room):
    if planner == "plain":
        agent, processor = tiny_models.tiny_planner()
        pipe = ImageEditR1Pipeline(agent, processor, with_loras(loras, "pix2pix"), prompts=PROMPTS)
        set_belongings(pipe.planner, made_for=MADE_FOR)
    else:
        agent, processor, _ = load_planner(adapted, dtype=torch.float32)
        pipe = ImageEditR1Pipeline(agent, processor, with_loras(loras, "pix2pix"), sequence_without_adapter=True)
    pipe.editor_defaults = DEFAULTS
    set_belongings(pipe.editor, made_for=MADE_FOR)
    expected = facts(pipe)
    assert expected["prompts"] == PROMPTS and expected["editor_defaults"] == DEFAULTS
    assert expected["made_for of the planner"] == expected["made_for of the editor"] == MADE_FOR
    assert len(expected["adapters of the editor"]["unet"]) == 2
    assert expected["sequence_without_adapter"] == (planner == "adapter")
    image = Image.new("RGB", (48, 48), "red")
    plan = pipe.plan(image, "make it blue", max_new_tokens=6)

    result = way(pipe, room)
    assert facts(result) == expected
    assert result.plan(image, "make it blue", max_new_tokens=6) == plan
    assert facts(pipe) == expected  # and whoever gave loses nothing


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_another_component_had_stays_with_that(way, room):
    """A planner without prompts has the default ones, an editor without defaults has none; nothing is inherited."""
    agent, processor = tiny_models.tiny_planner()
    result = way(ImageEditR1Pipeline(agent, processor, tiny_models.tiny_pix2pix()), room)
    assert (result.prompts, result.editor_defaults, result.sequence_without_adapter) == (Prompts(), {}, False)
    assert not belongings(result.planner).get("made_for") and not belongings(result.editor).get("made_for")


def test_the_shipped_bundle_with_another_editor_keeps_no_defaults():
    editor = tiny_models.tiny_pix2pix()
    editor.set_progress_bar_config(disable=True)
    pipe = ImageEditR1Pipeline.from_pretrained("imageedit-r1-scenes", editor=editor)
    assert pipe.editor_defaults == {} and pipe.prompts.decompose == " {instruction}"
    steps = []
    count = lambda *args: steps.append(args[1]) or args[3]  # noqa: E731
    plan = EditPlan("", (), ("make it blue",))
    pipe(Image.new("RGB", (8, 8)), plan=plan, callback_on_step_end=count)
    assert len(steps) == 100  # InstructPix2Pix's own default, not the one step of the bundle's editor
    kontext = ImageEditR1Pipeline.from_pretrained(
        "imageedit-r1-scenes", planner=None, processor=None, editor=tiny_models.tiny_kontext()
    )
    kontext.check_inputs(Image.new("RGB", (32, 32)), plan=plan)  # no argument that nobody gave


def test_the_shipped_bundles_editor_has_its_defaults_everywhere():
    pipe = ImageEditR1Pipeline.from_pretrained("imageedit-r1-scenes")
    assert pipe.editor_defaults == {"num_inference_steps": 1, "guidance_scale": 1.0, "image_guidance_scale": 1.0}
    agent, processor = tiny_models.tiny_planner()
    assert ImageEditR1Pipeline(agent, processor, pipe.editor).editor_defaults == pipe.editor_defaults


# What was asked of the pipeline about its editor
# -----------------------------------------------

SETTINGS = {
    "progress bar": (
        lambda pipe: pipe.set_progress_bar_config(disable=True, desc="own"),
        lambda editor: getattr(editor, "_progress_bar_config", None) == {"disable": True, "desc": "own"},
    ),
    "tiling": (lambda pipe: pipe.enable_vae_tiling(), lambda editor: editor.vae.use_tiling),
    "slicing": (lambda pipe: pipe.enable_vae_slicing(), lambda editor: editor.vae.use_slicing),
    "attention slices": (
        lambda pipe: pipe.enable_attention_slicing(1),
        lambda editor: any(isinstance(p, SlicedAttnProcessor) for p in editor.unet.attn_processors.values()),
    ),
    "attention backend": (
        lambda pipe: pipe.set_attention_backend("native"),
        lambda editor: any(
            getattr(getattr(module, "processor", None), "_attention_backend", None)
            for module in editor.transformer.modules()
        ),
    ),
}


def replaced_by_assignment(pipe, editor):
    pipe.editor = editor
    return pipe


def replaced_by_register_modules(pipe, editor):
    pipe.register_modules(editor=editor)
    return pipe


def replaced_in_from_pipe(pipe, editor):
    return ImageEditR1Pipeline.from_pipe(pipe, editor=editor)


def replaced_after_from_pipe(pipe, editor):
    pipe = ImageEditR1Pipeline.from_pipe(pipe)
    pipe.editor = editor
    return pipe


REPLACED = [replaced_by_assignment, replaced_by_register_modules, replaced_in_from_pipe, replaced_after_from_pipe]


@pytest.mark.parametrize(
    ("name", "replace"),
    list(itertools.product(SETTINGS, REPLACED)),
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_was_asked_of_the_pipeline_holds_for_the_next_editor(name, replace):
    ask, holds = SETTINGS[name]
    # The processors of attention in InstructPix2Pix's unet have no backend to choose.
    build = tiny_models.tiny_kontext if name == "attention backend" else tiny_models.tiny_pix2pix
    pipe = ImageEditR1Pipeline(*tiny_models.tiny_planner(), build())
    editor = build(seed=1)
    assert not holds(pipe.editor) and not holds(editor)
    ask(pipe)
    assert holds(pipe.editor)
    assert holds(replace(pipe, editor).editor)


@pytest.mark.parametrize("of", ["memory", "folder", "bundle"])
def test_defaults_do_not_go_along_into_another_class_of_the_same_parts(of, tmp_path):
    editor = tiny_models.tiny_pix2pix()
    set_belongings(editor, defaults={"num_inference_steps": 3, "image_guidance_scale": 7.0}, made_for=MADE_FOR)
    if of == "folder":
        editor.save_pretrained(tmp_path)
        editor = DiffusionPipeline.from_pretrained(tmp_path)
    if of == "bundle":
        ImageEditR1Pipeline(None, None, editor).save_pretrained(tmp_path)
        editor = load_editor(tmp_path)
    pipe = ImageEditR1Pipeline(None, None, StableDiffusionImg2ImgPipeline.from_pipe(editor))
    assert pipe.editor_defaults == {} and belongings(pipe.editor)["made_for"] == MADE_FOR
    pipe.check_inputs(
        Image.new("RGB", (32, 48)), plan=EditPlan("", (), ("a",))
    )  # which no argument of another class fails
    pipe.editor = type("Own", (StableDiffusionInstructPix2PixPipeline,), {}).from_pipe(editor)
    assert pipe.editor_defaults == {"num_inference_steps": 3, "image_guidance_scale": 7.0}


@pytest.mark.parametrize(
    "value", [5, {}, torch.nn.Linear(1, 1), Image.new("RGB", (8, 8))], ids=lambda v: type(v).__name__
)
def test_an_editor_is_a_pipeline_by_every_way_in(value):
    said = f"`editor` is a pipeline of diffusers, or a `RemoteEditor`, not {type(value).__name__}"
    pipe = ImageEditR1Pipeline(None)
    ways = [
        lambda: setattr(pipe, "editor", value),
        lambda: pipe.register_modules(editor=value),
        lambda: ImageEditR1Pipeline(None, None, value),
        lambda: ImageEditR1Pipeline.from_pipe(pipe, editor=value),
        lambda: ImageEditR1Pipeline.from_pretrained("imageedit-r1-scenes", editor=value),
    ]
    for way in ways:
        with pytest.raises(TypeError, match=said):
            way()


@pytest.mark.parametrize("name", ["planner", "processor", "editor", "sequencer", "sequencer_processor"])
@pytest.mark.parametrize("before", ["built without", "set to None", "loaded without"])
def test_a_component_that_comes_where_there_was_none_is_saved(before, name, tmp_path):
    agent, processor = tiny_models.tiny_planner()
    other, tokenizer = tiny_models.tiny_text_planner()
    components = {"planner": agent, "processor": processor, "editor": tiny_models.tiny_pix2pix()}
    components |= {"sequencer": other, "sequencer_processor": tokenizer}
    if before == "built without":
        pipe = ImageEditR1Pipeline(**{**components, name: None})
    elif before == "set to None":
        pipe = ImageEditR1Pipeline(**components)
        setattr(pipe, name, None)
    else:
        ImageEditR1Pipeline(**components).save_pretrained(tmp_path)
        pipe = ImageEditR1Pipeline.from_pretrained(tmp_path, **{name: None})
    assert pipe.components[name] is None
    setattr(pipe, name, components[name])
    pipe.save_pretrained(tmp_path)
    loaded = ImageEditR1Pipeline.from_pretrained(tmp_path)
    assert {key: type(part) for key, part in loaded.components.items()} == {
        key: type(part) for key, part in components.items()
    }


class WithSetting(ImageEditR1Pipeline):
    """A pipeline of somebody's own, with a setting that is no component."""

    def __init__(
        self, planner, processor, editor: DiffusionPipeline, sequencer=None, sequencer_processor=None, looks: int = 3
    ):
        super().__init__(planner, processor, editor, sequencer, sequencer_processor)
        self.register_to_config(looks=looks)


def test_a_subclass_keeps_a_setting_of_its_own(tmp_path):
    WithSetting(None, None, tiny_models.tiny_pix2pix(), looks=5).save_pretrained(tmp_path)
    assert WithSetting.from_pretrained(tmp_path, planner=None, processor=None).config.looks == 5


@pytest.mark.parametrize(
    ("name", "value"), [("editor_defaults", [1]), ("prompts", "x"), ("prompts", {"decompose": 1})]
)
def test_what_the_caller_got_wrong_is_not_blamed_on_the_folder(name, value):
    with pytest.raises((TypeError, ValueError), match=f"^`?{name}") as error:
        ImageEditR1Pipeline.from_pretrained("imageedit-r1-scenes", **{name: value})
    assert "bundles" not in str(error.value)


def test_an_editor_or_a_planner_is_asked_for_where_it_can_be(tmp_path):
    ImageEditR1Pipeline(*tiny_models.tiny_planner()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no editor"):
        load_editor(tmp_path)
    with pytest.raises(ValueError, match="There is no `subfolder`"):
        load_planner(tmp_path, subfolder="planner")


def test_the_last_wish_counts():
    agent, processor = tiny_models.tiny_planner()
    pipe = ImageEditR1Pipeline(agent, processor, tiny_models.tiny_pix2pix())
    pipe.enable_vae_tiling()
    pipe.disable_vae_tiling()
    pipe.enable_attention_slicing()
    pipe.disable_attention_slicing()
    pipe.editor = tiny_models.tiny_pix2pix()
    assert not pipe.editor.vae.use_tiling
    assert not any(isinstance(p, SlicedAttnProcessor) for p in pipe.editor.unet.attn_processors.values())


def test_the_processor_of_a_bundle_is_the_planners(room):
    assert type(AutoProcessor.from_pretrained(room / "others/processor")) is type(others()["processor"])


def test_a_planner_saved_over_one_with_an_adapter_has_none(adapted, tmp_path):
    image = Image.new("RGB", (48, 48), "red")
    agent, processor, _ = load_planner(adapted, dtype=torch.float32)
    first = ImageEditR1Pipeline(agent, processor, None)
    second = ImageEditR1Pipeline(*tiny_models.tiny_planner(seed=3), None, prompts=PROMPTS)
    plans = [pipe.plan(image, "make it blue", max_new_tokens=12) for pipe in (first, second)]
    assert plans[0] != plans[1]
    for pipe, plan in zip((first, second, first), (*plans, plans[0])):
        pipe.save_pretrained(tmp_path)
        assert ImageEditR1Pipeline.from_pretrained(tmp_path).plan(image, "make it blue", max_new_tokens=12) == plan


def test_a_folder_of_ones_own_comes_before_a_shipped_bundle_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipe = ImageEditR1Pipeline(*tiny_models.tiny_planner(), tiny_models.tiny_pix2pix(), prompts=PROMPTS)
    pipe.save_pretrained("imageedit-r1-scenes")
    assert ImageEditR1Pipeline.from_pretrained("imageedit-r1-scenes").prompts == PROMPTS
    planner, _, prompts = load_planner("imageedit-r1-scenes")
    assert prompts == PROMPTS and planner.num_parameters() == pipe.planner.num_parameters()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((32, 48), (32, 48)),
        ((96, 16), (96, 16)),
        ((64, 96), (32, 48)),
        ((128, 48), (64, 24)),
        ((6144, 4), (1536, 1)),
    ],
)
def test_a_picture_is_worked_on_at_as_many_pixels_as_were_made_for(size, expected):
    editor = tiny_models.tiny_pix2pix()
    assert within_size(editor, size) == size
    set_belongings(editor, made_for=MADE_FOR)
    assert within_size(editor, size) == expected


def test_an_editor_that_is_there_already_is_asked_nothing_again():
    pipe = ImageEditR1Pipeline(None, editor=tiny_models.tiny_pix2pix())
    pipe.enable_vae_tiling()
    pipe.editor.vae.disable_tiling()
    pipe.editor = pipe.editor
    assert not pipe.editor.vae.use_tiling
