"""Weights of 8 bits: near the layer that they were made of, and a planner that answers as before, with its adapter merged."""

import copy

import pytest
import tiny_models
import torch
from planner_cells import pictures
from tiny_planners import REQUIRED, build

from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.belongings import set_belongings
from diffusers_r1.bundles.planners import load_planner
from diffusers_r1.planners.adapters import adapter_layers, adapters_off, has_adapter
from diffusers_r1.planners.int8 import FEW_ROWS, Int8Linear, to_int8
from diffusers_r1.planners.plans import make_plans


pytestmark = [
    pytest.mark.tiny,
    pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing. is deprecated:FutureWarning"),  # PEFT uses it
]


def scores(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.arange(1, 20)[None]).logits.float()


def likeness(one: torch.Tensor, other: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0).item()


@pytest.fixture
def adapted(tmp_path, prompts):
    """A planner with an adapter that changes what it says, and its processor."""
    model, processor, _ = load_planner(tiny_models.tiny_adapter(tmp_path, prompts), dtype=torch.float32)
    return model, processor


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, FEW_ROWS, FEW_ROWS + 1, 200])
def test_a_layer_is_near_the_one_it_was_made_of(rows, bias):
    generator = torch.Generator().manual_seed(rows)
    linear = torch.nn.Linear(96, 64, bias=bias).bfloat16()
    linear.weight.data[3] = 0  # an output that is always the same
    inputs = torch.randn(2, rows, 96, generator=generator).bfloat16()[:, ::2]
    small = Int8Linear(linear)
    assert small.weight.dtype is torch.int8 and small.weight.abs().max() == 127
    wanted = torch.nn.functional.linear(
        inputs.float(), linear.weight.float(), None if linear.bias is None else linear.bias.float()
    )
    found = small(inputs)
    assert found.shape == wanted.shape and found.dtype is torch.bfloat16
    assert (found - wanted).abs().max() < 0.02 * wanted.abs().max()
    torch.testing.assert_close(found[..., 3].float(), wanted[..., 3])


def test_a_planner_says_nearly_what_it_said(text_planner):
    model = copy.deepcopy(text_planner[0])
    before = scores(model)
    assert to_int8(model) is model and model.dtype is torch.bfloat16
    assert likeness(scores(model), before) > 0.999
    layers = dict(model.model.layers[0].named_modules())
    assert isinstance(layers["mlp.up_proj"], Int8Linear) and isinstance(layers["self_attn.q_proj"], Int8Linear)
    assert type(layers["self_attn.k_proj"]) is torch.nn.Linear  # to 16 outputs, which the kernel would overrun


@pytest.mark.parametrize("family", REQUIRED)
def test_one_that_sees_still_plans(family, prompts):
    model, processor = build(family)
    to_int8(model)
    assert any(isinstance(module, Int8Linear) for module in model.modules())
    (plan,) = make_plans(model, processor, pictures(1), ["make it blue"], prompts, max_new_tokens=4)
    assert len(plan.raw) == 2


def test_an_adapter_is_merged_and_costs_nothing_more(adapted):
    model, _ = adapted
    said = scores(model)
    with adapters_off(model):
        base = scores(model)
    to_int8(model)
    assert not adapter_layers(model) and not has_adapter(model)
    assert likeness(scores(model), said) > 0.999 > likeness(said, base)


def test_what_is_merged_cannot_be_switched_off(adapted):
    model, processor = adapted
    pipe = ImageEditR1Pipeline(to_int8(model), processor)
    pipe.sequence_without_adapter = True
    with pytest.raises(ValueError, match="the planner has no adapter to switch off"):
        pipe.check_planning(pictures(1)[0], "make it blue")


@pytest.mark.parametrize("why", ["sequence_without_adapter", "resting"])
def test_an_adapter_that_is_switched_off_at_times_stays(adapted, why):
    model, _ = adapted
    said = scores(model)
    with adapters_off(model):
        base = scores(model)
    if why == "resting":
        for layer in adapter_layers(model).values():
            layer.enable_adapters(False)
    else:
        set_belongings(model, sequence_without_adapter=True)
    to_int8(model)
    layers = adapter_layers(model).values()
    assert layers and any(isinstance(layer.base_layer, Int8Linear) for layer in layers)
    for layer in layers:
        layer.enable_adapters(True)
    assert likeness(scores(model), said) > 0.999
    with adapters_off(model):
        assert likeness(scores(model), base) > 0.999
