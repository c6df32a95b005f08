"""Weights of 8 bits for a planner on a processor, where memory decides: each new token takes all weights past the core once."""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from ..belongings import belongings
from .adapters import adapter_layers


STEP = 32  # both sides of a matrix that torch's kernel reads whole; of others it would read what lies behind them
FEW_ROWS = 16  # beyond them, one large product of unpacked weights is faster


class Int8Linear(torch.nn.Module):
    """A linear layer with weights in [-127, 127], and a scale for each output: weight-only, by the largest of a row.

    Args:
        linear (`torch.nn.Linear`): Weights of any floating dtype, both sides multiples of 32. It is left as it is.
    """

    weight: torch.Tensor
    scale: torch.Tensor

    def __init__(self, linear: torch.nn.Linear):
        super().__init__()
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.to(torch.bfloat16))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = inputs.reshape(-1, self.in_features).to(self.scale.dtype)  # some models pass float32 on here and there
        if len(rows) <= FEW_ROWS:
            outputs = torch._weight_int8pack_mm(rows.contiguous(), self.weight, self.scale)
        else:
            outputs = functional.linear(rows, self.weight.to(rows.dtype)) * self.scale
        outputs = outputs.reshape(*inputs.shape[:-1], self.out_features)
        return outputs if self.bias is None else outputs + self.bias


@torch.no_grad()
def to_int8(model: PreTrainedModel) -> PreTrainedModel:
    """Give a planner on the CPU linear layers of 8 bits, in place; the rest of it becomes bfloat16.

    For answering only: it can be neither trained nor saved after that. LoRA adapters of PEFT are merged into the weights,
    but for those that are switched off at times: of a planner that is a part of its editor, and where the sequencing agent is
    the planner without them. Layers whose sides are no multiples of 32 stay as they are. An editor that the planner is a part
    of encodes with the same weights and gets bfloat16 from them, so it has to be of bfloat16 itself.

    Args:
        model (`PreTrainedModel`): On the CPU.

    Returns:
        `PreTrainedModel`: the same model.
    """
    switched = belongings(model).get("sequence_without_adapter", False)
    for name, module in adapter_layers(model).items():
        if not (switched or module.disable_adapters):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
    if not adapter_layers(model):  # what is merged cannot be switched off
        for noted in ("_hf_peft_config_loaded", "peft_config"):
            vars(model).pop(noted, None)
    for name, module in list(model.named_modules()):
        if type(module) is torch.nn.Linear and ".lora_" not in name and fits(module):
            model.set_submodule(name, Int8Linear(module))
    torch.nn.Module.to(model, torch.bfloat16)
    return model


def fits(linear: torch.nn.Linear) -> bool:
    """Whether torch's kernel reads the layer's weights and nothing beyond them."""
    return not (linear.in_features % STEP or linear.out_features % STEP)
