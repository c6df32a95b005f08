"""What is asked of the pipeline reaches the editor, a pipeline inside it; on real tiny classes."""

import json
import logging

import numpy as np
import pytest
import tiny_models
import torch
from accelerate.hooks import AlignDevicesHook, CpuOffload
from diffusers import DiffusionPipeline, FluxKontextPipeline, StableDiffusionInstructPix2PixPipeline
from diffusers.models.attention_processor import SlicedAttnProcessor
from diffusers.quantizers import PipelineQuantizationConfig
from openai_server import scripted
from PIL import Image

from diffusers_r1 import ImageEditR1Pipeline, names
from diffusers_r1.names import files_to_load
from diffusers_r1.pipelines.nested import settings
from diffusers_r1.pipelines.nested.loading import load_editor
from diffusers_r1.planners.remote import RemotePlanner
from diffusers_r1.prompts import Prompts
from diffusers_r1.remote_editor import RemoteEditor


pytestmark = pytest.mark.tiny

SHORT = Prompts(decompose="{instruction}", sequence="in order")


def build(**components) -> ImageEditR1Pipeline:
    """A pipeline whose models no other test has touched."""
    planner, processor = tiny_models.tiny_planner()
    parts = {"planner": planner, "processor": processor, "editor": tiny_models.tiny_pix2pix(), "prompts": SHORT}
    pipe = ImageEditR1Pipeline(**{**parts, **components})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def edited(pipe: ImageEditR1Pipeline) -> np.ndarray:
    source = Image.new("RGB", (64, 64), "red")
    generator = torch.Generator().manual_seed(0)
    out = pipe(source, "make it blue", max_new_tokens=4, num_inference_steps=2, generator=generator)
    return np.asarray(out.images[0], dtype=int)


def models(pipe: ImageEditR1Pipeline) -> dict[str, torch.nn.Module]:
    parts = {"planner": pipe.planner, "sequencer": pipe.sequencer, **(pipe.editor.components if pipe.editor else {})}
    return {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}


def dtypes(pipe: ImageEditR1Pipeline) -> dict[str, torch.dtype]:
    return {name: model.dtype for name, model in models(pipe).items()}


@pytest.fixture
def pipe():
    return build()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A saved pipeline that has its weights twice: plain and as the variant fp16."""
    folder = tmp_path_factory.mktemp("saved") / "bundle"
    pipe = build(editor_defaults={"num_inference_steps": 2})
    pipe.save_pretrained(folder)
    pipe.to(torch.float16).save_pretrained(folder, variant="fp16")  # the configs now say float16
    return folder


@pytest.fixture
def half(tmp_path):
    """Saves a pipeline of which only the planner, or only the editor, has weights of the variant fp16."""

    def save(component: str):
        pipe = build()
        pipe.save_pretrained(tmp_path / "half")
        part = tmp_path / "half" / component
        for file in part.rglob("*.safetensors"):
            file.unlink()
        getattr(pipe, component).save_pretrained(part, variant="fp16")
        return tmp_path / "half"

    return save


@pytest.fixture(scope="module")
def expected():
    """The picture that comes out when nothing is offloaded."""
    return edited(build())


class TestMoving:
    @pytest.mark.parametrize("move", [lambda p: p.to(torch.bfloat16), lambda p: p.to("cpu", torch.bfloat16)])
    def test_dtype(self, pipe, move):
        assert move(pipe) is pipe
        assert set(dtypes(pipe).values()) == {torch.bfloat16}
        assert pipe.dtype == torch.bfloat16

    def test_device(self, pipe):
        pipe.to("meta")  # the one device beside the CPU that every machine has
        assert {model.device.type for model in models(pipe).values()} == {"meta"}
        assert pipe.device.type == pipe.editor.device.type == "meta"

    def test_without_models_of_its_own_it_is_where_the_editor_is(self):
        pipe = build(planner=None, processor=None)
        pipe.to("meta", torch.bfloat16)
        assert (pipe.device.type, pipe.dtype, pipe._execution_device.type) == ("meta", torch.bfloat16, "meta")

    def test_without_an_editor(self):
        pipe = build(editor=None).to(torch.bfloat16)
        assert pipe.nested_pipelines == {} and pipe.planner.dtype == torch.bfloat16

    def test_progress_bar(self, pipe, capsys):
        pipe.set_progress_bar_config(desc="editing")
        edited(pipe)
        assert "editing" in capsys.readouterr().err
        pipe.set_progress_bar_config(disable=True)
        edited(pipe)
        assert "editing" not in capsys.readouterr().err

    def test_attention_slicing(self, pipe):
        pipe.enable_attention_slicing()
        assert any(isinstance(p, SlicedAttnProcessor) for p in pipe.editor.unet.attn_processors.values())
        pipe.disable_attention_slicing()
        assert not any(isinstance(p, SlicedAttnProcessor) for p in pipe.editor.unet.attn_processors.values())

    def test_xformers(self, pipe):
        with pytest.raises((ModuleNotFoundError, ValueError), match="xformers|GPU"):  # asked for by the editor's unet
            pipe.enable_xformers_memory_efficient_attention()
        pipe.disable_xformers_memory_efficient_attention()
        edited(pipe)


class TestOffloading:
    """With the CPU as the accelerator. It goes by the name of "cpu:0" then, which the hooks tell from "cpu"."""

    def test_model_offload(self, pipe, expected):
        pipe.enable_model_cpu_offload(device="cpu")
        hooks = {name: model._hf_hook for name, model in models(pipe).items()}
        assert all(isinstance(hook, CpuOffload) for hook in hooks.values()), hooks
        assert pipe._execution_device == pipe.editor._execution_device == torch.device("cpu:0")
        for _ in range(2):  # the hooks are renewed after each call
            assert np.array_equal(edited(pipe), expected)

    def test_the_planner_comes_before_its_vision_tower_and_goes_before_the_editor(self, pipe, monkeypatch):
        happened = []

        def record(model, name):
            move = type(model).to

            def to(self, *args, **kwargs):
                happened.append((name, str(args[0])))
                return move(self, *args, **kwargs)

            monkeypatch.setattr(type(model), "to", to)

        record(pipe.planner, "planner")
        record(pipe.editor.text_encoder, "editor")
        pipe.planner.model.visual.register_forward_pre_hook(lambda *_: happened.append(("planner", "sees")))
        pipe.enable_model_cpu_offload(device="cpu")
        happened.clear()
        edited(pipe)
        assert happened.index(("planner", "cpu:0")) < happened.index(("planner", "sees"))
        editing = happened.index(("editor", "cpu:0"))
        moves = [where for who, where in happened[:editing] if who == "planner" and where != "sees"]
        assert moves[-1] == "cpu"

    def test_model_offload_with_a_sequencer(self, expected):
        sequencer, tokenizer = tiny_models.tiny_text_planner()
        pipe = build(sequencer=sequencer, sequencer_processor=tokenizer)
        pipe.enable_model_cpu_offload(device="cpu")
        assert isinstance(sequencer._hf_hook, CpuOffload)
        assert sequencer._hf_hook.prev_module_hook.model is pipe.planner
        assert np.array_equal(edited(pipe), expected)

    def test_model_offload_without_a_planner(self):
        pipe = build(planner=None, processor=None)
        pipe.enable_model_cpu_offload(device="cpu")
        assert pipe._execution_device == torch.device("cpu:0")
        assert isinstance(pipe.editor.unet._hf_hook, CpuOffload)

    def test_planner_and_text_encoder_can_be_one_module(self):
        editor = tiny_models.tiny_qwen_edit()
        pipe = build(planner=editor.text_encoder, processor=editor.processor, editor=editor)
        pipe.enable_model_cpu_offload(device="cpu")
        plan = pipe.plan(Image.new("RGB", (64, 64)), "make it blue", max_new_tokens=2)
        assert plan.instruction == "make it blue"
        pipe.remove_all_hooks()
        assert not hasattr(pipe.planner, "_hf_hook")

    def test_sequential_offload(self, pipe, expected):
        pipe.enable_sequential_cpu_offload(device="cpu")
        assert {model.device.type for model in models(pipe).values()} == {"meta"}
        assert isinstance(pipe.editor.vae.decoder.conv_in._hf_hook, AlignDevicesHook)
        assert pipe._execution_device == pipe.editor._execution_device == torch.device("cpu:0")
        # accelerate cannot compute on "cpu:0": it takes the weights that it brought there for gone. So only this:
        pipe.remove_all_hooks()
        assert np.array_equal(edited(pipe), expected)

    @pytest.mark.parametrize("enable", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
    def test_hooks_are_removed(self, pipe, enable):
        getattr(pipe, enable)(device="cpu")
        pipe.remove_all_hooks()
        hooked = [m for model in models(pipe).values() for m in model.modules() if hasattr(m, "_hf_hook")]
        assert hooked == [] and "generate" not in vars(pipe.planner)
        assert pipe._execution_device == torch.device("cpu")

    @pytest.mark.parametrize(
        "kind", [{"offload_type": "leaf_level"}, {"num_blocks_per_group": 1}], ids=["leaf", "block"]
    )
    def test_group_offload(self, pipe, expected, kind):
        pipe.enable_group_offload("cpu", **kind)
        assert all(any(hasattr(m, "_diffusers_hook") for m in model.modules()) for model in models(pipe).values())
        assert np.array_equal(edited(pipe), expected)

    @pytest.mark.parametrize(("excluded", "left"), [("editor", {"unet", "vae", "text_encoder"}), (["unet"], {"unet"})])
    def test_group_offload_with_exceptions(self, pipe, excluded, left):
        pipe.enable_group_offload(torch.device("cpu"), offload_type="leaf_level", exclude_modules=excluded)
        without = {n for n, m in models(pipe).items() if not any(hasattr(x, "_diffusers_hook") for x in m.modules())}
        assert without == left

    def test_block_level_offload_brings_the_vision_tower_of_the_planner(self, pipe):
        # `generate` runs it before `forward`, where diffusers would bring it
        pipe.enable_group_offload(torch.device("cpu"), num_blocks_per_group=1)
        assert hasattr(pipe.planner.model.visual.patch_embed.proj, "_diffusers_hook")


class TestSavingAndLoading:
    def test_everything_is_saved(self, bundle):
        saved = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
        for weights in (
            "planner/model",
            "editor/text_encoder/model",
            "editor/unet/diffusion_pytorch_model",
            "editor/vae/diffusion_pytorch_model",
        ):
            assert {f"{weights}.safetensors", f"{weights}.fp16.safetensors"} <= saved
        assert {"README.md", "model_index.json", "editor/model_index.json", "processor/tokenizer.json"} <= saved
        assert not [name for name in saved if name.endswith((".bin", ".pt"))]

    def test_the_same_comes_back(self, bundle):
        pipe = ImageEditR1Pipeline.from_pretrained(bundle)
        pipe.set_progress_bar_config(disable=True)
        fresh = build()
        for name, model in models(pipe).items():
            weights = models(fresh)[name].state_dict()
            assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items()), name
        assert pipe.prompts == SHORT and pipe.editor_defaults == {"num_inference_steps": 2}
        assert pipe.name_or_path == str(bundle)
        assert np.array_equal(edited(pipe), edited(fresh))

    @pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
    @pytest.mark.filterwarnings("ignore:.*torch_dtype")
    def test_dtype(self, bundle, key):
        pipe = ImageEditR1Pipeline.from_pretrained(bundle, **{key: torch.bfloat16})
        assert set(dtypes(pipe).values()) == {torch.bfloat16}

    def test_dtype_by_component(self, bundle):
        wanted = {"planner": torch.bfloat16, "unet": torch.float16, "default": torch.float32}
        pipe = ImageEditR1Pipeline.from_pretrained(bundle, dtype=wanted)
        found = dtypes(pipe)
        assert (found["planner"], found["unet"], found["vae"]) == (torch.bfloat16, torch.float16, torch.float32)
        pipe = ImageEditR1Pipeline.from_pretrained(bundle, dtype={"editor": torch.bfloat16})
        assert (dtypes(pipe)["planner"], dtypes(pipe)["unet"]) == (torch.float32, torch.bfloat16)
        wanted = {"editor": torch.bfloat16, "editor.unet": torch.float16}
        found = dtypes(ImageEditR1Pipeline.from_pretrained(bundle, dtype=wanted))
        assert (found["planner"], found["unet"], found["vae"]) == (torch.float32, torch.float16, torch.bfloat16)

    @pytest.mark.parametrize("load", [ImageEditR1Pipeline.from_pretrained, load_editor])
    @pytest.mark.parametrize("dtype", ["bfloat16", "auto", {"unet": "float16"}], ids=str)
    def test_a_dtype_is_no_name(self, bundle, load, dtype):
        with pytest.raises(TypeError, match=r"`dtype` is a `torch\.dtype`, or a dict of them.*, not '"):
            load(bundle, dtype=dtype)

    @pytest.mark.parametrize("name", ["transformer", "editor.planner"])
    def test_a_dtype_of_no_component(self, bundle, name):
        with pytest.raises(
            ValueError, match=f"`dtype` names '{name}', which is no component; there are: .*, editor.unet,"
        ):
            ImageEditR1Pipeline.from_pretrained(bundle, dtype={name: torch.bfloat16})
        if name == "transformer":  # which the editor has that is given
            editor = tiny_models.tiny_kontext()
            assert ImageEditR1Pipeline.from_pretrained(bundle, dtype={name: torch.bfloat16}, editor=editor).planner

    def test_variant(self, bundle, tmp_path):
        pipe = ImageEditR1Pipeline.from_pretrained(bundle, variant="fp16")
        pipe.save_pretrained(tmp_path, variant="fp16")  # of this one only the variant is there
        again = ImageEditR1Pipeline.from_pretrained(tmp_path, variant="fp16", dtype=torch.float16)
        assert set(dtypes(again).values()) == {torch.float16}
        with pytest.raises(OSError, match="no file named"):
            ImageEditR1Pipeline.from_pretrained(tmp_path)

    def test_a_variant_that_is_not_there(self, bundle):
        with pytest.raises(ValueError, match="variant=int3"):
            ImageEditR1Pipeline.from_pretrained(bundle, variant="int3")

    @pytest.mark.parametrize("component", ["planner", "editor"])
    def test_a_variant_that_only_one_component_has(self, half, component):
        pipe = ImageEditR1Pipeline.from_pretrained(half(component), variant="fp16")
        assert pipe.planner is not None and pipe.editor.unet is not None

    def test_pickled_weights_when_asked_for(self, pipe, tmp_path):
        pipe.save_pretrained(tmp_path, safe_serialization=False)
        assert (tmp_path / "editor/unet/diffusion_pytorch_model.bin").is_file()
        assert ImageEditR1Pipeline.from_pretrained(tmp_path).editor.unet is not None

    def test_components_behind_addresses_in_place_of_its_own(self, bundle):
        planner, editor = RemotePlanner("http://localhost:1/v1", "p"), RemoteEditor("http://localhost:1/v1", "e")
        both = {
            "planner": planner,
            "processor": None,
            "sequencer": None,
            "sequencer_processor": None,
            "editor": editor,
        }
        pipe = ImageEditR1Pipeline.from_pretrained(bundle, **both)
        assert pipe.planner is planner and pipe.editor is editor and pipe.processor is None
        with scripted() as server:
            server.files["/v1/models"] = b'{"data": [{"id": "the only one"}]}'
            pipe = ImageEditR1Pipeline.from_pretrained(bundle, planner=server.url, editor=None)
            own = dict(zip(("sequencer", "sequencer_processor"), tiny_models.tiny_text_planner(), strict=True))
            beside = ImageEditR1Pipeline.from_pretrained(bundle, planner=server.url, editor=None, **own)
            assert beside.sequencer is own["sequencer"] and beside.sequencer_processor is own["sequencer_processor"]
        assert (pipe.planner.model, pipe.processor) == ("the only one", None)

    def test_a_component_is_replaced_without_a_fuss(self, bundle, caplog):
        editor = tiny_models.tiny_kontext()
        planner, processor = tiny_models.tiny_planner(seed=1)
        with caplog.at_level(logging.WARNING):
            pipe = ImageEditR1Pipeline.from_pretrained(bundle, editor=editor, planner=planner, processor=processor)
        assert (pipe.editor, pipe.planner, pipe.processor) == (editor, planner, processor)
        assert pipe.config.editor == ("flux", "FluxKontextPipeline")
        assert [record.getMessage() for record in caplog.records if "non-standard" in record.getMessage()] == []

    @pytest.mark.parametrize("left_out", [["editor"], ["planner", "processor"], ["planner", "processor", "editor"]])
    def test_components_are_left_out(self, bundle, tmp_path, left_out):
        pipe = ImageEditR1Pipeline.from_pretrained(bundle, **dict.fromkeys(left_out))
        pipe.save_pretrained(tmp_path)
        again = ImageEditR1Pipeline.from_pretrained(tmp_path)  # and stay left out
        for name in ("planner", "processor", "editor"):
            assert (getattr(again, name) is None) == (getattr(pipe, name) is None) == (name in left_out)
        assert not [name for name in left_out if (tmp_path / name).exists()]

    def test_the_index_follows_a_new_editor(self, pipe, tmp_path):
        pipe.editor = tiny_models.tiny_kontext()
        pipe.save_pretrained(tmp_path)
        assert isinstance(ImageEditR1Pipeline.from_pretrained(tmp_path).editor, FluxKontextPipeline)

    def test_a_sequencer_is_saved_too(self, tmp_path):
        sequencer, tokenizer = tiny_models.tiny_text_planner()
        build(sequencer=sequencer, sequencer_processor=tokenizer).save_pretrained(tmp_path)
        pipe = ImageEditR1Pipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert type(pipe.sequencer) is type(sequencer) and pipe.sequencer.dtype == torch.bfloat16
        assert type(pipe.sequencer_processor) is type(tokenizer)

    def test_device_map(self, bundle):
        pipe = ImageEditR1Pipeline.from_pretrained(bundle, device_map="cpu")
        assert pipe.hf_device_map == pipe.editor.hf_device_map == "cpu"
        pipe.reset_device_map()
        assert pipe.hf_device_map is None and pipe.editor.hf_device_map is None

    def test_a_balanced_device_map(self, bundle):
        pipe = ImageEditR1Pipeline.from_pretrained(bundle, device_map="balanced")  # nothing to balance, but no error
        pipe.reset_device_map()
        assert pipe.editor.hf_device_map is None

    def test_from_pipe(self, pipe):
        again = ImageEditR1Pipeline.from_pipe(pipe, dtype=torch.bfloat16)
        assert again is not pipe and again.editor is pipe.editor and again.planner is pipe.planner
        assert again.prompts == SHORT
        assert set(dtypes(again).values()) == {torch.bfloat16}

    def test_components(self, pipe):
        again = ImageEditR1Pipeline(**pipe.components)
        assert list(pipe.components) == ["planner", "processor", "editor", "sequencer", "sequencer_processor"]
        assert again.editor is pipe.editor

    def test_a_shipped_bundle_is_found_by_name(self, bundle, tmp_path, monkeypatch):
        monkeypatch.setattr(names, "_BUNDLES", bundle.parent)
        monkeypatch.chdir(tmp_path)
        pipe = ImageEditR1Pipeline.from_pretrained(bundle.name)
        assert pipe.editor is not None and pipe.name_or_path == bundle.name

    def test_names_that_nothing_has(self, tmp_path):
        with pytest.raises(OSError, match="'nonesuch' is neither a folder nor a bundle.*org/name"):
            ImageEditR1Pipeline.from_pretrained("nonesuch")
        with pytest.raises(OSError, match="model_index.json"):
            ImageEditR1Pipeline.from_pretrained(tmp_path)


def eight_bits(components: str | list[str] | None) -> PipelineQuantizationConfig:
    return PipelineQuantizationConfig(
        quant_backend="bitsandbytes_8bit", quant_kwargs={"load_in_8bit": True}, components_to_quantize=components
    )


class TestQuantization:
    """No backend of quantization runs everywhere, so these see where the wish arrives."""

    def test_it_reaches_the_editor(self, bundle):
        config = eight_bits(["unet"])
        with pytest.raises(Exception, match="bitsandbytes|GPU"):  # the package is missing or wants an accelerator
            ImageEditR1Pipeline.from_pretrained(bundle, quantization_config=config)
        assert list(config.config_mapping) == ["unet"]

    def test_each_level_gets_its_own_part(self, bundle):
        config = eight_bits(["planner", "unet"])
        asked = {"quantization_config": config}
        of_editor = settings.settings_of_nested("editor", bundle / "editor", asked)["quantization_config"]
        of_outer = settings.settings_of_outer(bundle, ["editor"], asked)["quantization_config"]
        assert (of_editor.components_to_quantize, of_outer.components_to_quantize) == (["unet"], ["planner"])
        assert config.components_to_quantize == ["planner", "unet"]

    def test_the_editor_as_a_whole(self, bundle):
        config = eight_bits("editor")
        asked = {"quantization_config": config}
        of_editor = settings.settings_of_nested("editor", bundle / "editor", asked)["quantization_config"]
        assert of_editor._resolve_quant_config(module_name="vae") is not None
        assert settings.settings_of_outer(bundle, ["editor"], asked)["quantization_config"] is None


class TestPlainDiffusers:
    def test_it_refuses_and_says_what_to_do(self, bundle):
        with pytest.raises(ValueError, match=r"pip_install_diffusers_r1(.|\n)*trust_remote_code=True"):
            DiffusionPipeline.from_pretrained(bundle)

    def test_it_loads_with_trust(self, bundle):
        pipe = DiffusionPipeline.from_pretrained(bundle, trust_remote_code=True)
        assert type(pipe) is ImageEditR1Pipeline
        assert isinstance(pipe.editor, StableDiffusionInstructPix2PixPipeline)
        assert pipe.editor_defaults == {"num_inference_steps": 2}

    def test_its_own_class_asks_for_no_trust(self, bundle):
        assert json.loads((bundle / "model_index.json").read_text())["_class_name"][1] == "ImageEditR1Pipeline"
        assert type(ImageEditR1Pipeline.from_pretrained(bundle)) is ImageEditR1Pipeline


class TestFilesToLoad:
    DEPTHS = {"planner": 1, "processor": 1, "editor": 2}

    @pytest.mark.parametrize(
        ("file", "loaded"),
        [
            ("planner/config.json", True),
            ("planner/model-00001-of-00002.safetensors", True),
            ("planner/model.safetensors.index.json", True),
            ("planner/model.fp16-00001-of-00002.safetensors", False),
            ("planner/model.safetensors.index.fp16.json", False),
            ("planner/pytorch_model.bin", False),
            ("planner/pytorch_model.bin.index.json", False),
            ("planner/training_args.bin", False),
            ("planner/optimizer.pt", False),
            ("planner/checkpoint-100/model.safetensors", False),
            ("processor/chat_template.jinja", True),
            ("processor/additional_chat_templates/other.jinja", True),
            ("processor/tokenizer.model", True),
            ("editor/model_index.json", True),
            ("editor/one-file.safetensors", False),
            ("editor/unet/diffusion_pytorch_model.safetensors", True),
            ("editor/unet/diffusion_pytorch_model.fp16.safetensors", False),
            ("editor/unet/diffusion_pytorch_model.bin", False),
            ("editor/unet/diffusion_pytorch_model.ckpt", False),
            ("editor/text_encoder/pytorch_model.bin", True),  # it has no others
            ("editor/text_encoder/pytorch_model.fp16.bin", False),
            ("editor/scheduler/scheduler_config.json", True),
            ("sequencer/model.safetensors", False),  # not among the components asked for
            ("README.md", False),
            ("picture.png", False),
        ],
    )
    def test_plain(self, file, loaded):
        others = [
            "planner/model-00002-of-00002.safetensors",
            "editor/unet/diffusion_pytorch_model.safetensors",
        ]
        assert (file in files_to_load({*others, file}, self.DEPTHS)) == loaded

    @pytest.mark.parametrize("kind", "pt pth ckpt pkl pickle h5 msgpack ot onnx pb gguf".split())
    @pytest.mark.parametrize("use_safetensors", [None, True, False])
    def test_what_runs_code_or_nobody_reads_is_never_brought(self, kind, use_safetensors):
        files = [f"planner/model.{kind}", f"processor/tokenizer.{kind}", f"editor/unet/weights.{kind}"]
        taken = "planner/pytorch_model.bin" if use_safetensors is False else "planner/model.safetensors"
        assert files_to_load([*files, taken], self.DEPTHS, use_safetensors=use_safetensors) == [taken]
        assert files_to_load([f"model.{kind}", "config.json"], {"": 0}) == ["config.json"]

    def test_variant(self):
        files = [
            "planner/model.safetensors",
            "planner/model.fp16-00001-of-00001.safetensors",
            "planner/model.safetensors.index.fp16.json",
            "editor/unet/diffusion_pytorch_model.safetensors",
            "editor/unet/diffusion_pytorch_model.fp16.safetensors",
            "editor/unet/diffusion_pytorch_model.ema.safetensors",
            "editor/vae/diffusion_pytorch_model.safetensors",
        ]
        assert files_to_load(files, self.DEPTHS, "fp16") == [files[1], files[2], files[4], files[6]]
        with pytest.raises(ValueError, match="'int3'"):
            files_to_load(files, self.DEPTHS, "int3")

    def test_safetensors_only(self):
        files = ["planner/model.safetensors", "planner/pytorch_model.bin", "editor/unet/diffusion_pytorch_model.bin"]
        assert files_to_load(files, self.DEPTHS) == [files[0], files[2]]
        assert files_to_load(files, self.DEPTHS, use_safetensors=False) == [files[1], files[2]]
        with pytest.raises(OSError, match="editor/unet"):
            files_to_load(files, self.DEPTHS, use_safetensors=True)
