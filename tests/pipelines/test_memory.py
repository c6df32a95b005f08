"""What saves memory and time reaches planner and editor through the outer pipeline; on real tiny classes."""

import gguf
import numpy as np
import pytest
import tiny_models
import torch
from diffusers import FluxTransformer2DModel, GGUFQuantizationConfig
from diffusers.quantizers import PipelineQuantizationConfig
from PIL import Image

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.prompts import Prompts


pytestmark = pytest.mark.tiny

SHORT = Prompts(decompose="{instruction}", sequence="in order")
PLAN = EditPlan("", (), ("remove the star", "make it blue"))
SMALL = {"height": 64, "width": 64}
SOURCE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


def build(editor) -> ImageEditR1Pipeline:
    planner, processor = tiny_models.tiny_planner()
    pipe = ImageEditR1Pipeline(planner, processor, editor, prompts=SHORT)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def edited(pipe: ImageEditR1Pipeline, **arguments) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    arguments = {"num_inference_steps": 2, "generator": generator, **arguments}
    return np.asarray(pipe(SOURCE, plan=PLAN, **arguments).images[0], dtype=int)


@pytest.fixture
def residents(monkeypatch):
    """Follows models: `residents(name=model, ...)` is a list that grows by who is on the device after each move there."""
    present: set[str] = set()
    history: list[frozenset[str]] = []

    def follow(**models: torch.nn.Module) -> list[frozenset[str]]:
        names = {id(model): name for name, model in models.items()}
        for kind in {
            type(model) for model in models.values()
        }:  # accelerate takes attributes off the models themselves
            monkeypatch.setattr(kind, "to", mover(names, kind.to))
        return history

    def mover(names, move):
        def to(self, *args, **kwargs):
            if id(self) in names and isinstance(args[0], (str, torch.device)):
                (present.add if str(args[0]) == "cpu:0" else present.discard)(names[id(self)])
                history.append(frozenset(present))
            return move(self, *args, **kwargs)

        return to

    return follow


class TestModelOffload:
    """With the CPU as the accelerator, under the name of "cpu:0"."""

    @pytest.mark.parametrize("build_editor", [tiny_models.tiny_pix2pix, tiny_models.tiny_flux2_klein])
    def test_planner_and_editor_are_never_there_together(self, residents, build_editor):
        pipe = build(build_editor())
        theirs = {name: part for name, part in pipe.editor.components.items() if isinstance(part, torch.nn.Module)}
        history = residents(planner=pipe.planner, **theirs)
        denoiser = getattr(pipe.editor, "unet", None) or pipe.editor.transformer
        at_steps = []
        pipe.enable_model_cpu_offload(device="cpu")
        denoiser.register_forward_pre_hook(lambda *_: at_steps.append(history[-1]))
        history.clear()
        pipe([SOURCE] * 2, "make it blue", turns="multi", max_new_tokens=4, num_inference_steps=2)
        assert frozenset({"planner"}) in history
        assert not [there for there in history if "planner" in there and len(there) > 1]
        assert at_steps and all("planner" not in there for there in at_steps)
        assert history[-1] == frozenset()  # and nobody at the end

    def test_a_shared_planner_leaves_after_planning_and_before_the_first_step(self, residents):
        pipe = ImageEditR1Pipeline.from_editor(tiny_models.tiny_qwen_image_21(), prompts=SHORT)
        pipe.set_progress_bar_config(disable=True)
        history = residents(planner=pipe.planner, transformer=pipe.editor.transformer, vae=pipe.editor.vae)
        pipe.enable_model_cpu_offload(device="cpu")
        history.clear()
        pipe.plan(SOURCE, "make it blue", max_new_tokens=4)
        assert history[0] == frozenset({"planner"}) and history[-1] == frozenset()
        # The transformer sends off what encoded for it. Accelerate asks the weights where they are before it does, and
        # here they say "cpu" either way, so this cannot be seen happen.
        assert pipe.editor.transformer._hf_hook.prev_module_hook.model is pipe.planner
        pipe(SOURCE, plan=PLAN, num_inference_steps=1, output_resolution=64, **SMALL)
        assert history[-1] == frozenset()


class TestAutoencoder:
    def test_tiling(self):
        pipe = build(tiny_models.tiny_kontext())
        before = edited(pipe, height=128, width=128)
        pipe.enable_vae_tiling()
        assert pipe.editor.vae.use_tiling
        assert not np.array_equal(edited(pipe, height=128, width=128), before)  # seams: a tile is 64 pixels here
        pipe.disable_vae_tiling()
        assert np.array_equal(edited(pipe, height=128, width=128), before)

    def test_slicing(self):
        pipe = build(tiny_models.tiny_pix2pix())
        sizes = []
        pipe.editor.vae.decoder.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
        pipe([SOURCE] * 2, plan=PLAN, num_inference_steps=1)
        pipe.enable_vae_slicing()
        pipe([SOURCE] * 2, plan=PLAN, num_inference_steps=1)
        pipe.disable_vae_slicing()
        pipe([SOURCE] * 2, plan=PLAN, num_inference_steps=1)
        assert sizes == [2, 1, 1, 2]

    def test_without_an_autoencoder_it_says_so(self):
        with pytest.raises(ValueError, match="no vae"):
            ImageEditR1Pipeline(None, None, None).enable_vae_tiling()


class TestAttention:
    def test_a_backend_reaches_the_denoiser(self):
        pipe = build(tiny_models.tiny_flux2_klein())
        expected = edited(pipe, **SMALL)
        pipe.set_attention_backend("native")
        processors = [module.processor for module in pipe.editor.transformer.modules() if hasattr(module, "processor")]
        assert processors and {str(processor._attention_backend.value) for processor in processors} == {"native"}
        assert np.array_equal(edited(pipe, **SMALL), expected)

    def test_a_backend_that_is_not_there(self):
        with pytest.raises(ValueError, match="backend"):
            build(tiny_models.tiny_flux2_klein()).set_attention_backend("telepathy")


class TestCompile:
    @pytest.fixture
    def backend(self):
        """A compiler that runs what it is given as it is, and counts the graphs."""
        torch._dynamo.reset()
        graphs = []

        def compiler(graph, example_inputs):
            graphs.append(graph)
            return graph.forward

        compiler.graphs = graphs
        return compiler

    def test_a_denoiser_block_by_block(self, backend):
        pipe = build(tiny_models.tiny_kontext())
        expected = edited(pipe, **SMALL)
        pipe.compile("editor.transformer", backend=backend)
        assert np.abs(edited(pipe, **SMALL) - expected).max() <= 1
        assert backend.graphs

    def test_the_planner(self, backend):
        pipe = build(tiny_models.tiny_pix2pix())
        expected = pipe.plan(SOURCE, "make it blue", max_new_tokens=4)
        pipe.compile("planner", backend=backend)
        assert pipe.plan(SOURCE, "make it blue", max_new_tokens=4) == expected
        assert backend.graphs

    def test_what_is_compiled_by_default(self):
        pipe = build(tiny_models.tiny_kontext())
        pipe.compile(backend="eager")
        assert pipe.planner._compiled_call_impl is not None
        assert pipe.editor.transformer.transformer_blocks[0]._compiled_call_impl is not None
        assert pipe.editor.vae._compiled_call_impl is None

    def test_what_is_no_model(self):
        with pytest.raises(ValueError, match=r"no model 'transformer'; there are: planner, editor\..*"):
            build(tiny_models.tiny_kontext()).compile("transformer")


class TestQuantization:
    """By torchao and GGUF, which compute on the CPU; bitsandbytes needs an accelerator."""

    @pytest.fixture
    def int8(self):
        import diffusers
        import transformers
        from torchao.quantization import Int8WeightOnlyConfig

        return transformers.TorchAoConfig(Int8WeightOnlyConfig()), diffusers.TorchAoConfig(Int8WeightOnlyConfig())

    @staticmethod
    def quantized(model: torch.nn.Module) -> bool:
        return any("torchao" in type(p.data).__module__ for p in model.parameters())

    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
    @pytest.mark.parametrize("name", ["editor.transformer", "transformer"])
    def test_planner_and_denoiser(self, int8, tmp_path, name):
        build(tiny_models.tiny_kontext()).save_pretrained(tmp_path)
        config = PipelineQuantizationConfig(quant_mapping=dict(zip(("planner", name), int8)))
        pipe = ImageEditR1Pipeline.from_pretrained(tmp_path, quantization_config=config, dtype=torch.bfloat16)
        assert self.quantized(pipe.planner) and self.quantized(pipe.editor.transformer)
        assert not self.quantized(pipe.editor.text_encoder)
        pipe.set_progress_bar_config(disable=True)
        out = pipe(SOURCE, "make it blue", max_new_tokens=4, num_inference_steps=1, **SMALL)
        assert out.images[0].size == SOURCE.size

    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
    def test_a_shared_planner(self, int8, tmp_path):
        ImageEditR1Pipeline.from_editor(tiny_models.tiny_qwen_image_21(), prompts=SHORT).save_pretrained(tmp_path)
        config = PipelineQuantizationConfig(quant_mapping={"planner": int8[0]})
        pipe = ImageEditR1Pipeline.from_pretrained(tmp_path, quantization_config=config, dtype=torch.bfloat16)
        assert pipe.planner is pipe.editor.text_encoder and self.quantized(pipe.planner)
        assert isinstance(pipe.plan(SOURCE, "make it blue", max_new_tokens=4), EditPlan)

    def test_a_transformer_from_a_gguf_file(self, tmp_path):
        editor = tiny_models.tiny_kontext()
        editor.transformer.save_pretrained(tmp_path)
        writer = gguf.GGUFWriter(tmp_path / "transformer.gguf", "flux")
        for name, weight in editor.transformer.state_dict().items():
            blocks = weight.ndim == 2 and weight.shape[1] % 32 == 0  # which a quantized row consists of
            kind = gguf.GGMLQuantizationType.Q8_0 if blocks else gguf.GGMLQuantizationType.F32
            writer.add_tensor(name, gguf.quants.quantize(weight.numpy(), kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

        pipe = build(editor)
        plain = edited(pipe, **SMALL)
        pipe.editor.transformer = FluxTransformer2DModel.from_single_file(
            tmp_path / "transformer.gguf",
            config=str(tmp_path),
            quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
            torch_dtype=torch.float32,
        )
        assert any("GGUF" in type(weight).__name__ for weight in pipe.editor.transformer.parameters())
        quantized = edited(pipe, **SMALL)
        assert 0 < np.abs(quantized - plain).max() < 16  # of 255
        pipe.enable_model_cpu_offload(device="cpu")
        assert np.array_equal(edited(pipe, **SMALL), quantized)


def test_dtypes_by_component_name_both_levels(tmp_path):
    build(tiny_models.tiny_kontext()).save_pretrained(tmp_path)
    wanted = {"planner": torch.bfloat16, "editor.transformer": torch.float16, "default": torch.float32}
    pipe = ImageEditR1Pipeline.from_pretrained(tmp_path, dtype=wanted)
    found = (pipe.planner.dtype, pipe.editor.transformer.dtype, pipe.editor.vae.dtype)
    assert found == (torch.bfloat16, torch.float16, torch.float32)
