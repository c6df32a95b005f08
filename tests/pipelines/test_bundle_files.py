"""Which files a bundle has, which of them are brought from the Hub, and which settings go to which level."""

import glob
import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import tiny_models
import torch
from diffusers import DiffusionPipeline, GGUFQuantizationConfig
from diffusers.quantizers import PipelineQuantizationConfig
from tiny_loras import with_loras

from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.pipelines.nested.loading import load_editor
from diffusers_r1.pipelines.nested.parts import components_in, read_index
from diffusers_r1.pipelines.nested.settings import settings_of_agent, settings_of_nested, settings_of_outer
from diffusers_r1.prompts import Prompts


pytestmark = [
    pytest.mark.tiny,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # PEFT's way of asking
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`"),  # of `load_lora_weights`, for a second one
]

PROMPTS = Prompts(decompose="{instruction}", sequence="in order")


def contents(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle with adapters on its editor."""
    folder = tmp_path_factory.mktemp("files")
    planner, processor = tiny_models.tiny_planner()
    pipe = ImageEditR1Pipeline(planner, processor, with_loras(folder / "loras", "pix2pix"), prompts=PROMPTS)
    pipe.save_pretrained(folder / "bundle")
    return folder / "bundle"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A bundle whose planner, with an adapter, is its editor's text encoder."""
    folder = tmp_path_factory.mktemp("shared")
    adapter = tiny_models.tiny_adapter(folder / "adapter", PROMPTS)
    pipe = ImageEditR1Pipeline.from_editor(tiny_models.tiny_qwen_edit(), planner_adapter=adapter)
    pipe.save_pretrained(folder / "bundle")
    return folder / "bundle"


# What is written
# ---------------


@pytest.mark.parametrize("file", ["model_index.json", "editor/adapters.json"])
def test_what_is_written_of_ours_is_easily_read_and_compared(bundle, file):
    text = (bundle / file).read_text()
    said = json.loads(text)
    assert text == json.dumps(said, indent=2, sort_keys=isinstance(said, dict)) + "\n"


def test_words_are_written_into_the_index_only_where_the_planners_config_cannot_keep_them(bundle, shared):
    assert {"prompts", "sequence_without_adapter"}.isdisjoint(json.loads((bundle / "model_index.json").read_text()))
    index = json.loads((shared / "model_index.json").read_text())
    assert index["prompts"] == PROMPTS.to_dict() and index["sequence_without_adapter"] is False


def test_what_the_agents_models_come_from_is_known_after_loading_and_saving_again(tmp_path, caplog):
    planner, processor = tiny_models.tiny_planner()
    planner.config._name_or_path = planner.name_or_path = "org/planner"
    ImageEditR1Pipeline(planner, processor).save_pretrained(tmp_path / "first")
    for before, after in (("first", "second"), ("second", "third")):
        assert read_index(tmp_path / before)["_base_models"] == {"planner": "org/planner"}
        ImageEditR1Pipeline.from_pretrained(tmp_path / before).save_pretrained(tmp_path / after)
        assert read_index(tmp_path / after)["_base_models"] == {"planner": "org/planner"}


def text_pipeline(seed: int = 0) -> ImageEditR1Pipeline:
    return ImageEditR1Pipeline(*tiny_models.tiny_text_planner(seed))


def test_weights_of_another_variant_stay_whole_or_in_shards(tmp_path):
    pipe = text_pipeline()
    half = text_pipeline().to(torch.float16)
    half.save_pretrained(tmp_path, variant="fp16", max_shard_size="20KB")
    shards = {file for file in contents(tmp_path) if "fp16" in file}
    assert len(shards) > 2 and any(file.endswith(".json") for file in shards)
    pipe.save_pretrained(tmp_path)
    plain = "planner/model.safetensors"
    assert shards | {plain} <= contents(tmp_path)
    pipe.save_pretrained(tmp_path, variant="bf16")
    assert shards | {plain, "planner/model.bf16.safetensors"} <= contents(tmp_path)
    half.save_pretrained(tmp_path, variant="fp16")  # in one file now, which takes the place of the shards
    weights = {file for file in contents(tmp_path) if file.endswith(".safetensors") or ".index." in file}
    assert weights == {plain, "planner/model.bf16.safetensors", "planner/model.fp16.safetensors"}
    for variant in (None, "fp16"):
        loaded = ImageEditR1Pipeline.from_pretrained(tmp_path, variant=variant).planner
        expected = (half if variant else pipe).planner.state_dict()
        assert all(torch.equal(value, expected[key].float()) for key, value in loaded.state_dict().items())


def test_weights_of_another_class_of_model_go(tmp_path):
    ImageEditR1Pipeline(*tiny_models.tiny_planner()).save_pretrained(tmp_path)
    assert "planner/model.safetensors" in contents(tmp_path)
    text_pipeline().save_pretrained(tmp_path, variant="fp16")
    weights = {file for file in contents(tmp_path) if file.endswith(".safetensors")}
    assert weights == {"planner/model.fp16.safetensors"}


# What is brought from the Hub
# ---------------------------


@pytest.fixture
def asked_for(monkeypatch):
    """`asked_for(folder, files)`: the Hub has this one repository; the list that comes back holds what was asked for last."""

    def prepare(folder: Path, files: list[str] | None = None) -> list[str]:
        last: list[str] = []
        listing = [huggingface_hub.RepoFile(path=file, size=1, oid="0") for file in files or sorted(contents(folder))]

        def download(name, allow_patterns, **_):
            last[:] = [file.path for file in listing if file.path in map(unescaped, allow_patterns)]
            return str(folder)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        monkeypatch.setattr(huggingface_hub, "get_cached_repo_tree", lambda *args, **kwargs: listing)
        return last

    return prepare


def unescaped(pattern: str) -> str:
    return pattern if glob.escape(pattern) == pattern else ""


FILES = [
    "model_index.json",
    "README.md",
    "planner/config.json",
    "planner/model.safetensors",
    "planner/model.fp16.safetensors",
    "planner/pytorch_model.bin",
    "planner/checkpoint/model.safetensors",
    "processor/tokenizer.json",
    "sequencer/model.safetensors",
    "editor/model_index.json",
    "editor/one-file.safetensors",
    "editor/unet/diffusion_pytorch_model.safetensors",
    "editor/unet/deeper/diffusion_pytorch_model.safetensors",
    "planner_adapter/adapter_model.safetensors",
    "planner_adapter/deeper/adapter_model.safetensors",
    "_class_name/model.safetensors",
]
OF_PLANNER = {"planner/config.json", "planner/model.safetensors"}
OF_EDITOR = {"editor/model_index.json", "editor/unet/diffusion_pytorch_model.safetensors"}
REST = {"model_index.json", "processor/tokenizer.json"}


@pytest.mark.parametrize(
    ("settings", "index", "expected"),
    [
        ({}, {}, REST | OF_PLANNER | OF_EDITOR),
        ({"editor": None}, {}, REST | OF_PLANNER),
        ({"planner": None}, {}, REST | OF_EDITOR),
        ({"variant": "fp16"}, {}, REST | OF_EDITOR | {"planner/config.json", "planner/model.fp16.safetensors"}),
        (
            {"use_safetensors": False, "editor": None},
            {},
            REST | {"planner/config.json", "planner/pytorch_model.bin"},
        ),
        (
            {},
            {"_shared": {"planner": "editor.text_encoder"}, "planner": [None, None]},
            REST | OF_EDITOR | {"planner_adapter/adapter_model.safetensors"},
        ),
    ],
)
def test_only_what_is_loaded_is_brought(asked_for, tmp_path, settings, index, expected):
    said = {
        "_class_name": ["pipeline", "ImageEditR1Pipeline"],
        "planner": ["transformers", "Qwen2ForCausalLM"],
        "processor": ["transformers", "Qwen2Tokenizer"],
        "editor": ["pipeline", "NestedPipeline"],
        "sequencer": [None, None],
    }
    (tmp_path / "model_index.json").write_text(json.dumps({**said, **index}))
    last = asked_for(tmp_path, FILES)
    found = ImageEditR1Pipeline.download("org/bundle", **settings)
    assert found == str(tmp_path) and set(last) == expected


def test_an_editor_is_had_by_the_name_of_a_bundle_without_the_agents(asked_for, bundle):
    last = asked_for(bundle)
    editor = load_editor("org/bundle", dtype=torch.bfloat16)
    assert editor.unet.dtype == torch.bfloat16 and editor.get_active_adapters() == ["ink", "oil"]
    assert {"model_index.json", "editor/unet/diffusion_pytorch_model.safetensors"} <= set(last)
    assert not [file for file in last if file.startswith(("planner", "processor"))]


def test_an_editor_is_had_by_its_own_name_and_from_its_own_folder_with_its_adapters(bundle, tmp_path, monkeypatch):
    repository, commit = tmp_path / "hub" / "models--org--editor", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(bundle / "editor", repository / "snapshots" / commit)
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("the net was asked"))
    for name, settings in (
        ("org/editor", {"cache_dir": tmp_path / "hub", "local_files_only": True}),
        (repository / "snapshots" / commit, {}),
    ):
        editor = load_editor(name, **settings)
        assert type(editor).__name__ == "StableDiffusionInstructPix2PixPipeline" and editor.unet.dtype == torch.float32
        assert editor.get_active_adapters() == ["ink", "oil"]
        assert load_editor(name, dtype=torch.float16, **settings).vae.dtype == torch.float16


# What is read
# ------------


def test_a_folder_that_is_no_pipeline_says_what_it_may_be(tmp_path):
    with pytest.raises(OSError, match="so it is no pipeline.$"):
        read_index(tmp_path)
    for file in ("config.json", "adapter_config.json"):
        (tmp_path / file).write_text("{}")
        with pytest.raises(OSError, match="It looks like a planner"):
            read_index(tmp_path)
        (tmp_path / file).unlink()


def test_the_components_of_a_folder_are_the_lists_in_its_index(bundle):
    assert {"planner", "processor", "editor", "sequencer"} <= set(components_in(bundle))
    assert "_class_name" not in components_in(bundle)
    (named,) = {type(value) for value in read_index(bundle).values() if isinstance(value, list)}
    assert named is list and "unet" in components_in(bundle / "editor")


def test_without_its_editor_a_shared_planner_is_not_there(shared):
    pipe = ImageEditR1Pipeline.from_pretrained(shared, editor=None)
    assert pipe.editor is None and pipe.planner is None


def test_a_planner_that_is_given_leaves_a_broken_one_unread(tmp_path, bundle):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    shutil.rmtree(folder / "planner")
    (folder / "planner").mkdir()
    (folder / "planner" / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="adapter_config.json"):
        ImageEditR1Pipeline.from_pretrained(folder)
    planner, _ = tiny_models.tiny_planner()
    assert ImageEditR1Pipeline.from_pretrained(folder, planner=planner).planner is planner


def test_a_pipeline_that_plain_diffusers_loaded_forgets_that_no_dtype_was_asked_for(bundle):
    pipe = DiffusionPipeline.from_pretrained(bundle, trust_remote_code=True)
    again = ImageEditR1Pipeline(tiny_models.tiny_planner()[0].to(torch.bfloat16), editor=pipe.editor)
    assert again.planner.dtype == torch.bfloat16


# Which settings go where
# -----------------------


def eight_bits(*components: str) -> PipelineQuantizationConfig:
    return PipelineQuantizationConfig(
        quant_backend="bitsandbytes_8bit",
        quant_kwargs={"load_in_8bit": True},
        components_to_quantize=[*components] or None,
    )


def quantized(settings: dict) -> list[str] | str | None:
    config = settings["quantization_config"]
    return config and (config.components_to_quantize or "all")


@pytest.mark.parametrize(
    ("asked", "of_editor", "of_outer"),
    [
        (["planner", "unet"], ["unet"], ["planner"]),
        (["planner", "editor.unet", "editor.vae"], ["unet", "vae"], ["planner"]),
        (["editor"], "all", None),
        (["editor", "planner"], "all", ["planner"]),
        (["planner"], None, ["planner"]),
        (["unet"], ["unet"], None),
        ([], "all", "all"),
    ],
)
def test_each_level_quantizes_what_is_its_own(bundle, asked, of_editor, of_outer):
    config = {"quantization_config": eight_bits(*asked)}
    assert quantized(settings_of_nested("editor", bundle / "editor", config)) == of_editor
    assert quantized(settings_of_outer(bundle, ["editor"], config)) == of_outer
    assert config["quantization_config"].components_to_quantize == (asked or None)


def test_a_shared_planner_is_quantized_as_the_editors(shared):
    config, inside = {"quantization_config": eight_bits("planner", "transformer")}, {"planner": "text_encoder"}
    of_editor = quantized(settings_of_nested("editor", shared / "editor", config, inside))
    assert sorted(of_editor) == ["text_encoder", "transformer"]
    assert quantized(settings_of_outer(shared, ["editor"], config, inside)) is None
    mapped = PipelineQuantizationConfig(quant_mapping=dict.fromkeys(("planner", "vae"), GGUFQuantizationConfig()))
    found = settings_of_nested("editor", shared / "editor", {"quantization_config": mapped}, inside)
    assert list(found["quantization_config"].quant_mapping) == ["text_encoder", "vae"]
    found = settings_of_outer(shared, ["editor"], {"quantization_config": mapped}, inside)
    assert found["quantization_config"] is None


@pytest.mark.parametrize(
    ("having", "asked_outside"),
    [((), True), (("editor/unet",), False), (("planner",), True), (("planner", "editor/unet"), True)],
)
def test_a_variant_is_asked_of_the_level_that_has_it(tmp_path, having, asked_outside):
    for place in ("planner", "editor/unet"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "model.safetensors").touch()
    (tmp_path / "editor/model_index.json").write_text('{"_class_name": "X", "unet": ["diffusers", "Y"]}')
    for place in having:
        (tmp_path / place / "model.fp16.safetensors").touch()
    outside = settings_of_outer(tmp_path, ["editor"], {"variant": "fp16"})
    inside = settings_of_nested("editor", tmp_path / "editor", {"variant": "fp16"})
    assert ("variant" in outside) == asked_outside and ("variant" in inside) == ("editor/unet" in having)


def test_what_is_only_for_the_outer_pipeline_does_not_go_inside(bundle):
    settings = {"custom_pipeline": "x", "custom_revision": "y", "dtype": torch.float16, "variant": "fp16"}
    found = settings_of_nested("editor", bundle / "editor", settings)
    assert found == {"dtype": torch.float16, "quantization_config": None}  # of that variant there is nothing
    assert settings_of_outer(bundle, ["editor"], settings) == settings


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ({"editor": torch.float16}, {"default": torch.float16}),
        ({"editor": torch.float16, "unet": torch.float32}, {"unet": torch.float32, "default": torch.float16}),
        ({"unet": torch.float16}, {"unet": torch.float16}),
        ({"editor.unet": torch.float16, "default": torch.float32}, {"unet": torch.float16, "default": torch.float32}),
        ({"planner": torch.float16}, {"planner": torch.float16}),
    ],
)
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_dtypes_by_component_go_inside_under_the_names_that_these_have_there(bundle, key, dtype, expected):
    assert settings_of_nested("editor", bundle / "editor", {key: dtype})[key] == expected
    inside = settings_of_nested("editor", bundle / "editor", {key: dtype}, {"planner": "text_encoder"})[key]
    assert inside == ({"text_encoder": torch.float16} if "planner" in dtype else expected)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"dtype": None}),
        ({"dtype": torch.float16, "variant": "fp16"}, {"dtype": torch.float16}),
        ({"torch_dtype": torch.float16, "device_map": "cpu"}, {"dtype": torch.float16, "device_map": "cpu"}),
        ({"dtype": {"planner": torch.float16, "default": torch.bfloat16}}, {"dtype": torch.float16}),
        ({"dtype": {"unet": torch.float16, "default": torch.bfloat16}}, {"dtype": torch.bfloat16}),
        ({"dtype": {"unet": torch.float16}}, {"dtype": torch.float32}),
    ],
)
def test_an_agents_model_is_given_what_transformers_takes(settings, expected):
    assert settings_of_agent("planner", settings) == expected


def test_an_agents_model_is_quantized_if_it_is_named():
    for named, is_meant in ((["planner"], True), (["unet"], False), ([], True)):
        config = {"quantization_config": eight_bits(*named)}
        found = settings_of_agent("planner", config)["quantization_config"]
        assert type(found).__module__.startswith("transformers.") == is_meant == (found is not None)
