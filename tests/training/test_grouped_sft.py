"""Supervised training that reads once what rows begin with comes to what TRL's own trainer comes to."""

import copy
import hashlib
import inspect
from collections import Counter
from itertools import groupby

import pytest
import tiny_models
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from diffusers_r1.scenes import sample_task
from diffusers_r1.training.grouped_sft import GroupedSFTTrainer, SideBySide


pytestmark = [
    pytest.mark.tiny,
    pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing(_kwargs)?. is deprecated:FutureWarning"),
]

ASKED = ["make the coat red", "make the car blue, and the big tree brighter please", "remove it", "make the coat red"]
SAID = ["yes", "a long answer of many words, longer than all others", "no", "another"]


def rows(sees: bool = True, alone: int = 2) -> Dataset:
    """Four instructions about one picture, and others about pictures of their own, two of them of other sizes."""
    made = []
    for number in range(4 + alone):
        parts = [{"type": "image"}, {"type": "text", "text": ASKED[number % 4]}]
        answer = SAID[number % 4]
        row = {
            "prompt": [{"role": "user", "content": parts if sees else ASKED[number % 4]}],
            "completion": [{"role": "assistant", "content": [{"type": "text", "text": answer}] if sees else answer}],
        }
        picture = sample_task(max(number - 3, 0)).image.resize((64, 64) if number < 5 else (32, 64))
        made.append({**row, "image": picture} if sees else row)
    return Dataset.from_list(made)


def make(cls, model, processor, folder, data, **settings) -> SFTTrainer:
    options = {
        "per_device_train_batch_size": 6,
        "per_device_eval_batch_size": 6,
        "max_steps": 2,
        "learning_rate": 0.0,
        "logging_steps": 1,
        "gradient_checkpointing": False,
        "max_length": None,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    peft = settings.pop("peft_config", None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        trainer = cls(
            model=copy.deepcopy(model),
            processing_class=processor,
            args=SFTConfig(output_dir=str(folder), **{**options, **settings}),
            train_dataset=data,
            eval_dataset=data,
            peft_config=peft,
        )
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:  # a fresh adapter changes nothing
            weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    trainer.model.train()
    return trainer


def in_order(trainer: SFTTrainer) -> SFTTrainer:
    """The rows in their own order, so that both trainers see the same batches."""
    trainer._get_train_sampler = lambda *args: torch.utils.data.SequentialSampler(trainer.train_dataset)
    return trainer


def loss_and_gradients(trainer: SFTTrainer, counted: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = trainer.data_collator([dict(row) for row in trainer.train_dataset])
    loss = trainer.compute_loss(trainer.model, dict(inputs), num_items_in_batch=counted)
    loss.backward()
    moved = [weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None]
    return loss.detach(), torch.cat(moved)


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found.double() - expected.double()).norm() <= 1e-5 * expected.double().norm()


def rows_read(trainer: SFTTrainer) -> list[int]:
    """How many rows the model is given, each time."""
    read = []
    trainer.model.register_forward_pre_hook(
        lambda module, args, given: read.append(len(given["input_ids"])), with_kwargs=True
    )
    return read


PLANNERS = {
    "pictures": (tiny_models.tiny_planner, True),
    "deepstack": (lambda: tiny_models._qwen3_vl(0), True),
    "text only": (tiny_models.tiny_text_planner, False),
}
COMBINATIONS = {
    "completions": {},
    "whole texts": {"completion_only_loss": False},
    "adapter": {"peft_config": LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"])},
    "dft": {"loss_type": "dft"},
    "gradient checkpointing": {"gradient_checkpointing": True},
}


@pytest.mark.parametrize("counted", [None, 1000])
@pytest.mark.parametrize("settings", COMBINATIONS.values(), ids=COMBINATIONS)
@pytest.mark.parametrize("planner", PLANNERS)
def test_loss_gradients_and_metrics_are_trls(planner, settings, counted, tmp_path):
    build, sees = PLANNERS[planner]
    bare, ours = (make(cls, *build(), tmp_path, rows(sees), **settings) for cls in (SFTTrainer, GroupedSFTTrainer))
    read = rows_read(ours)
    loss, moved = loss_and_gradients(bare, counted)
    our_loss, our_moved = loss_and_gradients(ours, counted)
    assert moved.norm() > 0 and ours.reads_once
    assert min(read) < 6
    assert_close(our_loss, loss)
    assert_close(our_moved, moved)
    for name, values in bare._metrics["train"].items():
        assert ours._metrics["train"][name] == pytest.approx(values, rel=1e-5)


def test_a_run_with_accumulation_and_evaluation_goes_as_trls_does(tmp_path):
    settings = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "eval_strategy": "steps",
        "eval_steps": 1,
    }
    logs = []
    for cls in (SFTTrainer, GroupedSFTTrainer):
        trainer = in_order(make(cls, *tiny_models.tiny_planner(), tmp_path, rows(alone=4), **settings))
        trainer.train()
        times = ("runtime", "per_second")
        logs.append(
            [
                {name: value for name, value in row.items() if not name.endswith(times)}
                for row in trainer.state.log_history
            ]
        )
    assert any("eval_loss" in row for row in logs[0]) and logs[0][0]["grad_norm"] > 0
    for found, expected in zip(logs[1], logs[0], strict=True):
        assert found == pytest.approx(expected, rel=1e-3)


def test_pictures_of_their_own_are_read_as_they_are(tmp_path):
    data = rows().select([0, 4, 5])
    ours = make(GroupedSFTTrainer, *tiny_models.tiny_planner(), tmp_path, data)
    read = rows_read(ours)
    loss_and_gradients(ours, None)
    assert read == [3]


def test_a_sliding_window_is_read_as_trl_reads_it(tmp_path, caplog):
    model, tokenizer = tiny_models.tiny_sliding_planner()
    bare, ours = (make(cls, model, tokenizer, tmp_path, rows(False)) for cls in (SFTTrainer, GroupedSFTTrainer))
    assert not ours.reads_once
    assert [record.message for record in caplog.records if "beginning" in record.message] == [
        "MistralForCausalLM reads every row from its beginning, as in TRL: its attention has a sliding window."
    ]
    assert torch.equal(loss_and_gradients(bare, None)[1], loss_and_gradients(ours, None)[1])


def test_rows_of_one_picture_stand_side_by_side():
    pictures = [number // 4 for number in range(40)]
    sampler = SideBySide(pictures, most=4, seed=1)
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    assert first == again != list(sampler)
    assert sorted(first) == list(range(40))
    together = Counter(len(list(part)) for _, part in groupby(pictures[row] for row in first))
    assert together == {4: 10}


def test_a_row_comes_early_or_late_whatever_its_picture():
    """The one row of its picture, and those of a picture that many share, stand in the middle on average."""
    pictures = [0] * 12 + list(range(1, 13))
    places = torch.zeros(24)
    epochs = 2000
    for seed in range(epochs):
        places[list(SideBySide(pictures, most=4, seed=seed))] += torch.arange(24.0) / epochs
    assert (places - 11.5).abs().max() < 0.8  # five standard errors


def test_no_more_than_a_quarter_of_a_step_is_put_together(tmp_path):
    planner = tiny_models.tiny_planner()
    small, large, one = (
        make(GroupedSFTTrainer, *planner, tmp_path, rows(), **settings)._get_train_sampler()
        for settings in (
            {"per_device_train_batch_size": 8},
            {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 8},
            {"per_device_train_batch_size": 4},
        )
    )
    assert (small.most, large.most) == (2, 4)
    assert not isinstance(one, SideBySide)
    assert [small.pictures.count(picture) for picture in dict.fromkeys(small.pictures)] == [4, 1, 1]


# What is overridden
# ------------------

# As in test_grouped.py.
OVERRIDDEN = {"compute_loss": "dd926adc", "_get_train_sampler": "1c8a2ac2"}


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_is_overridden_is_as_it_was(name):
    text = inspect.getsource(getattr(SFTTrainer, name))
    found = hashlib.md5(text.encode()).hexdigest()[:8]
    assert found == OVERRIDDEN[name], (
        f"TRL has changed `SFTTrainer.{name}`: see that `GroupedSFTTrainer` still fits it"
    )
