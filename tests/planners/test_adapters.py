"""Adapters that are on, off, and at rest: each layer answers as its place in the table says, and is left as it was."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from diffusers_r1.planners.adapters import adapter_layers, adapter_on, adapters_off, has_adapter, let_rest
from diffusers_r1.planners.plans import _without
from diffusers_r1.planners.remote import RemotePlanner


pytestmark = [
    pytest.mark.tiny,
    pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing. is deprecated:FutureWarning"),  # PEFT uses it
]
LORA = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)


@pytest.fixture
def adapted(text_planner):
    """A language model with an adapter in four layers, as `load_adapter` leaves it."""
    model = copy.deepcopy(text_planner[0])
    model.add_adapter(copy.deepcopy(LORA))
    return model


def on(model: torch.nn.Module) -> list[bool]:
    return [not layer.disable_adapters for layer in adapter_layers(model).values()]


def test_where_an_adapter_is(text_planner, adapted):
    plain = text_planner[0]
    wrapped = get_peft_model(copy.deepcopy(plain), copy.deepcopy(LORA))
    remote = RemotePlanner("http://localhost:1/v1", "m", api_key_env=None)
    linear = torch.nn.Linear(2, 2)  # knows nothing of adapters
    assert [has_adapter(model) for model in (wrapped, adapted, plain, linear, remote)] == [True, True] + [False] * 3
    assert all(value is not None for value in map(has_adapter, (plain, linear)))
    assert adapter_layers(plain) == adapter_layers(linear) == {}
    names = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(2) for name in "qv"]
    assert list(adapter_layers(adapted)) == names
    assert list(adapter_layers(wrapped)) == [f"base_model.model.{name}" for name in names]
    remote.close()


def test_within_the_block_they_are_off_and_after_it_as_before(adapted):
    assert on(adapted) == [True] * 4
    first = next(iter(adapter_layers(adapted).values()))
    first.enable_adapters(False)
    for block in (adapters_off, _without):
        with pytest.raises(KeyError), block(adapted):
            assert on(adapted) == [False] * 4
            raise KeyError
        assert on(adapted) == [False, True, True, True]
    with _without(adapted, False):
        assert on(adapted) == [False, True, True, True]


def test_at_rest_they_are_on_while_the_model_plans(adapted):
    let_rest(adapted)
    assert on(adapted) == [False] * 4
    with pytest.raises(KeyError), adapter_on(adapted):
        assert on(adapted) == [True] * 4
        raise KeyError
    assert on(adapted) == [False] * 4


def test_what_somebody_switched_on_or_off_stays_so_while_the_model_plans(adapted):
    first, *_ = adapter_layers(adapted).values()
    first.enable_adapters(False)
    with adapter_on(adapted):
        assert on(adapted) == [False, True, True, True]
    assert on(adapted) == [False, True, True, True]
    let_rest(adapted)
    first.enable_adapters(True)
    with adapter_on(adapted):
        assert on(adapted) == [True] * 4
    assert on(adapted) == [True, False, False, False]
