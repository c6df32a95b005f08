"""GRPO that reads a prompt once comes to what TRL's own trainer comes to."""

import copy
import hashlib

import pytest
import tiny_models
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer

from diffusers_r1.bundles.planners import save_planner
from diffusers_r1.prompts import Prompts
from diffusers_r1.scenes import sample_task
from diffusers_r1.training.grouped import GroupedGRPOTrainer


pytestmark = [
    pytest.mark.tiny,
    pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing. is deprecated:FutureWarning"),
]

GROUP, LENGTH = 4, 10


def chance(completions, **kwargs) -> list[float]:
    """A reward that tells completions apart and can be asked again."""
    return [hashlib.md5(str(said).encode()).digest()[0] / 255 for said in completions]


def rows(pictures: int = 1, count: int = 3) -> Dataset:
    """Prompts of uneven lengths about pictures of uneven sizes; the last two are equal but for the picture."""
    asked = ["make the coat red", "remove it", "what is left of the big tree, brighter please, and the car too"][
        :count
    ]
    asked.append(asked[-1])
    made = []
    for number, text in enumerate(asked):
        size = (64, 32) if number < count else (32, 32)
        shown = [sample_task(number + 10 * place).image.resize(size) for place in range(pictures)]
        parts = [*({"type": "image"} for _ in shown), {"type": "text", "text": text}]
        row = {"prompt": [{"role": "user", "content": parts if pictures else text}]}
        made.append({**row, "images": shown} if pictures else row)
    return Dataset.from_list(made)


def make(cls, model, processor, folder, data=None, **settings) -> GRPOTrainer:
    getattr(processor, "tokenizer", processor).padding_side = "left"
    peft = settings.pop("peft_config", None)
    frozen = settings.pop("frozen", True)
    tower = getattr(model.base_model, "visual", None)
    if tower is not None:
        tower.requires_grad_(not frozen)
    options = {
        "per_device_train_batch_size": 4 * GROUP,
        "num_generations": GROUP,
        "max_completion_length": LENGTH,
        "gradient_checkpointing": False,
        "learning_rate": 0.0,
        "logging_steps": 1,
        "max_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    trainer = cls(
        model=copy.deepcopy(model),
        processing_class=processor,
        args=GRPOConfig(output_dir=str(folder), **{**options, **settings}),
        train_dataset=rows() if data is None else data,
        reward_funcs=[chance],
        peft_config=peft,
    )
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    trainer.model.train()
    if peft is not None:  # a fresh adapter changes nothing
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            for name, weight in trainer.model.named_parameters():
                if "lora_B" in name:
                    weight.data.normal_(std=0.1)
    return trainer


def batch_of(trainer: GRPOTrainer, seed: int = 0) -> dict:
    """What the loss is computed of: uneven completions, two of them equal, one that is cut away, one that earns nothing."""
    torch.manual_seed(seed)
    asked = [row for row in trainer.train_dataset for _ in range(GROUP)]
    inputs = trainer._generate_and_score_completions(asked)
    size = len(asked)
    lengths = torch.randint(1, LENGTH + 1, (size,), generator=torch.Generator().manual_seed(seed))
    lengths[2] = 0
    inputs["completion_ids"] = torch.randint(10, 200, (size, LENGTH))
    inputs["completion_ids"][1] = inputs["completion_ids"][0]
    lengths[1] = lengths[0]
    inputs["completion_mask"] = (torch.arange(LENGTH) < lengths[:, None]).long()
    inputs["advantages"] = torch.randn(size)
    inputs["advantages"][5] = 0
    inputs["num_items_in_batch"] = inputs["completion_mask"].sum()
    return inputs


def loss_and_gradients(trainer: GRPOTrainer, inputs: dict) -> tuple[torch.Tensor, torch.Tensor, dict]:
    trainer._metrics["train"].clear()
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    moved = [weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None]
    return loss.detach(), torch.cat(moved), {name: values[-1] for name, values in trainer._metrics["train"].items()}


def assert_close(found: torch.Tensor, expected: torch.Tensor, most: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert (found.double() - expected.double()).norm() <= most * expected.double().norm()


def scores(trainer: GRPOTrainer, inputs: dict) -> tuple[torch.Tensor, torch.Tensor]:
    shown = {
        name: inputs[name]
        for name in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
        if name in inputs
    }
    with torch.no_grad():
        found = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            LENGTH,
            batch_size=6,  # groups of 4: one whole, one cut in two
            compute_entropy=True,
            **shown,
        )
    return found[0] * inputs["completion_mask"], found[1] * inputs["completion_mask"]


LORA = {"peft_config": LoraConfig(r=4, lora_dropout=0.0, target_modules="all-linear", exclude_modules=".*visual.*")}

COMBINATIONS = {
    "frozen tower": {},
    "trained tower": {"frozen": False},
    "gradient checkpointing": {"gradient_checkpointing": True, "frozen": False},
    "reentrant checkpointing": {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": True},
        **LORA,
    },
    "adapter": LORA,
    "adapter, reference without it": {**LORA, "beta": 0.1},
    "reference of its own": {"beta": 0.1},
    "temperature": {"temperature": 0.7},
    "entropy bonus": {"entropy_coef": 0.1},
    "share of entropies": {"top_entropy_quantile": 0.5},
    "sequences": {"importance_sampling_level": "sequence"},
    **{kind: {"loss_type": kind} for kind in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "vespo", "luspo")},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A planner with a folder, as a reference model of its own is read from there."""
    folder = tmp_path_factory.mktemp("planner")
    model, processor = tiny_models.tiny_planner()
    save_planner(folder, model, processor, Prompts(decompose="{instruction}"))
    model.config._name_or_path = str(folder)
    return model, processor


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("settings", COMBINATIONS.values(), ids=COMBINATIONS)
def test_loss_gradients_and_metrics_are_trls(settings, saved, tmp_path):
    bare = make(GRPOTrainer, *saved, tmp_path, **settings)
    ours = make(GroupedGRPOTrainer, *saved, tmp_path, **settings)
    inputs = batch_of(bare)
    if bare.beta:
        inputs["ref_per_token_logps"] = inputs["ref_per_token_logps"].clone()
    for found, expected in zip(scores(ours, inputs), scores(bare, inputs)):
        assert_close(found, expected)
    loss, moved, metrics = loss_and_gradients(bare, inputs)
    assert moved.norm() > 0
    our_loss, our_moved, our_metrics = loss_and_gradients(ours, inputs)
    assert_close(our_moved, moved)
    assert our_loss.item() == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
    assert our_metrics.keys() == metrics.keys()
    if ours.beta or "entropy" in "".join(settings):  # elsewhere, that of the completions that are learned from
        assert our_metrics["entropy"] == pytest.approx(metrics["entropy"], rel=1e-5)
    assert ours.reads_once
