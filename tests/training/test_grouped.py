"""GRPO that reads a prompt once comes to what TRL's own trainer comes to."""

import copy
import hashlib
import inspect
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer

from diffusers_r1.bundles.planners import save_planner
from diffusers_r1.prompts import Prompts
from diffusers_r1.rewards import answer_text
from diffusers_r1.scenes import sample_task
from diffusers_r1.tags import read_decomposition
from diffusers_r1.training.grouped import GroupedGRPOTrainer, shuffle_groups


pytestmark = [
    pytest.mark.tiny,
    pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing(_kwargs)?. is deprecated:FutureWarning"),
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
    own = {"constrained": settings.pop("constrained")} if "constrained" in settings else {}
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
        **own,
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


def test_nothing_to_learn_is_a_gradient_of_zeros(saved, tmp_path):
    """Not no gradient: the optimizer goes on with what it remembers, as it does in TRL."""
    bare, ours = (make(cls, *saved, tmp_path) for cls in (GRPOTrainer, GroupedGRPOTrainer))
    inputs = batch_of(bare)
    inputs["advantages"].zero_()
    loss, moved, _ = loss_and_gradients(bare, inputs)
    our_loss, our_moved, metrics = loss_and_gradients(ours, inputs)
    assert loss == our_loss == 0 and torch.equal(moved, our_moved) and not moved.any()
    assert torch.isnan(torch.tensor(metrics["entropy"]))  # which TRL keeps out of its logs


def test_what_earns_nothing_costs_nothing(saved, tmp_path):
    ours = make(GroupedGRPOTrainer, *saved, tmp_path)
    inputs = batch_of(ours)
    scores(ours, inputs)  # the first time is compared with rows of their own
    read = []
    watching = ours.model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    inputs["completion_mask"][:] = 1
    loss_and_gradients(ours, inputs)
    inputs["advantages"][GROUP:] = 0
    loss_and_gradients(ours, inputs)
    inputs["advantages"][:] = 0
    loss_and_gradients(ours, inputs)
    watching.remove()
    whole, one_group = read
    assert whole[0] == 4 and one_group[0] == 1
    prompt = int(inputs["prompt_mask"][0].sum())
    assert one_group[1] == prompt - 1 + 3 * LENGTH  # two of the four completions are equal


# Other planners
# --------------


def several_pictures(tmp_path):
    return (*tiny_models.tiny_planner(), rows(pictures=2))


def deepstack(tmp_path):
    return (*tiny_models._qwen3_vl(0), rows())


def eager(tmp_path):
    model, processor = tiny_models.tiny_planner()
    model.set_attn_implementation("eager")
    return model, processor, rows()


def text_only(tmp_path):
    return (*tiny_models.tiny_text_planner(), rows(pictures=0))


@pytest.mark.parametrize("build", [several_pictures, deepstack, eager, text_only])
def test_every_planner_that_can_be_packed(build, tmp_path):
    model, processor, data = build(tmp_path)
    settings = {"frozen": False, "data": data}
    bare, ours = (make(cls, model, processor, tmp_path, **settings) for cls in (GRPOTrainer, GroupedGRPOTrainer))
    inputs = batch_of(bare)
    for found, expected in zip(scores(ours, inputs), scores(bare, inputs)):
        assert_close(found, expected)
    _, moved, _ = loss_and_gradients(bare, inputs)
    _, our_moved, _ = loss_and_gradients(ours, inputs)
    assert_close(our_moved, moved)
    assert ours.reads_once


def test_half_precision_is_as_near_as_it_can_be(saved, tmp_path):
    model, processor = copy.deepcopy(saved[0]).to(torch.bfloat16), saved[1]
    exact = make(GRPOTrainer, *saved, tmp_path)
    inputs = batch_of(exact)
    bare, ours = (make(cls, model, processor, tmp_path, bf16=True) for cls in (GRPOTrainer, GroupedGRPOTrainer))
    (truth, _), (found, _), (expected, _) = (scores(trainer, inputs) for trainer in (exact, ours, bare))
    assert (found - truth).norm() <= 1.5 * (expected - truth).norm()
    assert ours.reads_once


def test_a_sliding_window_is_read_as_trl_reads_it(tmp_path, caplog):
    model, tokenizer = tiny_models.tiny_sliding_planner()
    data = rows(pictures=0)
    bare = make(GRPOTrainer, model, tokenizer, tmp_path, data=data)
    with caplog.at_level(logging.WARNING):
        ours = make(GroupedGRPOTrainer, model, tokenizer, tmp_path, data=data)
    assert not ours.reads_once
    assert [record.message for record in caplog.records if "beginning" in record.message] == [
        "MistralForCausalLM reads every row from its beginning, as in TRL: its attention has a sliding window."
    ]
    inputs = batch_of(bare)
    assert torch.equal(loss_and_gradients(bare, inputs)[1], loss_and_gradients(ours, inputs)[1])


# Whole runs
# ----------

LOGGED = ("reward", "reward_std", "frac_reward_zero_std", "grad_norm", "loss", "completions/mean_length", "num_tokens")


def logged(trainer: GRPOTrainer) -> list[dict[str, float]]:
    trainer.train()
    return [{name: row[name] for name in LOGGED} for row in trainer.state.log_history if "reward" in row]


@pytest.mark.parametrize("build", [several_pictures, text_only])
def test_a_run_goes_as_trls_does(build, tmp_path):
    """The same completions are sampled, the same steps are taken."""
    model, processor, data = build(tmp_path)
    settings = {"learning_rate": 1e-2, "max_steps": 3, "loss_type": "dapo", "data": data}
    bare, ours = (
        logged(make(cls, model, processor, tmp_path, **settings)) for cls in (GRPOTrainer, GroupedGRPOTrainer)
    )
    assert len(bare) == 3 and bare[0]["grad_norm"] > 0
    for found, expected in zip(ours, bare):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_long_completions_are_generated_in_stages(saved, tmp_path, monkeypatch):
    """Greedily, so that nothing but the cache tells one way from the other."""
    model, processor = copy.deepcopy(saved[0]), saved[1]
    # An end that is as likely as not somewhere along the way: completions of very different lengths.
    settings = {"max_completion_length": 40, "generation_kwargs": {"do_sample": False, "temperature": None}}
    bare, ours = (make(cls, model, processor, tmp_path, **settings) for cls in (GRPOTrainer, GroupedGRPOTrainer))
    asked = [row for row in bare.train_dataset for _ in range(2)]
    first = bare._generate_and_score_completions(asked)
    ends = sorted({int(row[place]) for row, place in zip(first["completion_ids"][::2], (2, 8, 20, 30))})
    for trainer in (bare, ours):
        trainer.eos_token_ids = trainer.generation_config.eos_token_id = ends
    monkeypatch.setattr("diffusers_r1.training.generation.STAGE", 5)
    expected, found = (trainer._generate_and_score_completions(asked) for trainer in (bare, ours))
    assert len(set(expected["completion_mask"].sum(1).tolist())) > 1
    for name in ("prompt_ids", "completion_ids", "completion_mask"):
        assert torch.equal(found[name], expected[name])


def test_another_cache_generates_as_it_does_in_trl(saved, tmp_path):
    settings = {"cache_implementation": "static", "generation_kwargs": {"do_sample": False, "temperature": None}}
    bare, ours = (make(cls, *saved, tmp_path, **settings) for cls in (GRPOTrainer, GroupedGRPOTrainer))
    asked = [row for row in bare.train_dataset for _ in range(GROUP)]
    expected, found = (trainer._generate_and_score_completions(asked)["completion_ids"] for trainer in (bare, ours))
    assert torch.equal(found, expected)


def test_a_group_stays_in_one_micro_batch(saved, tmp_path):
    settings = {"per_device_train_batch_size": GROUP, "gradient_accumulation_steps": 4, "learning_rate": 1e-2}
    bare = logged(make(GRPOTrainer, *saved, tmp_path, **settings))
    ours = make(GroupedGRPOTrainer, *saved, tmp_path, **settings)
    read = []
    ours.model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs.get("shift_labels")), with_kwargs=True
    )
    # Averages over the micro-batches of a step, whose order and cut differ.
    assert logged(ours)[0] == pytest.approx(bare[0], rel=1e-3)
    packed = [labels for labels in read if labels is not None]
    assert len(packed[1:]) == 4  # the first is the comparison with rows of their own
    assert all(len(labels) == 1 for labels in packed[1:])
    assert all(labels[0, 0] != -100 for labels in packed)  # the vocabulary is not asked about the prompt


def test_groups_are_shuffled_whole():
    torch.manual_seed(0)
    batch = {
        "advantages": torch.arange(12.0),
        "names": [str(number) for number in range(12)],
        "items": torch.tensor(3),
    }
    shuffled = shuffle_groups({**batch, "absent": None}, 4)
    order = [int(number) for number in shuffled["advantages"]]
    assert sorted(order) == list(range(12)) and order != list(range(12))
    assert all(order[start : start + 4] == list(range(order[start], order[start] + 4)) for start in (0, 4, 8))
    assert shuffled["names"] == [str(number) for number in order]
    assert shuffled["items"] == 3 and shuffled["absent"] is None


# Two processes
# -------------

IN_TWO = """
import sys
import tempfile
import time
from pathlib import Path

import tiny_models
import torch
from test_grouped import GROUP, assert_close, batch_of, make
from trl import GRPOTrainer

from diffusers_r1.training.grouped import GroupedGRPOTrainer

planner = tiny_models.tiny_planner()
inputs, moved = None, []
for cls in (GRPOTrainer, GroupedGRPOTrainer):
    trainer = make(cls, *planner, sys.argv[1], loss_type=sys.argv[2])
    rank = trainer.accelerator.process_index
    model = trainer.accelerator.prepare(trainer.model)
    if inputs is None:
        inputs = batch_of(trainer, seed=rank)
        if rank == 1:
            inputs["advantages"][:] = 0
    trainer._compute_loss(model, inputs).backward()
    moved.append(torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.requires_grad]))
assert moved[0].norm() > 0
assert_close(moved[1], moved[0])
Path(sys.argv[1], f"{rank}.done").touch()
time.sleep(1)  # see `training.results.SETTLING`
"""


def test_two_processes_share_their_gradients_as_trls_do(tmp_path):
    """One of them has nothing to learn from."""
    script = tmp_path / "in_two.py"
    script.write_text(IN_TWO)
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *sys.path])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, str(script), str(tmp_path), "dapo"],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(path.name for path in tmp_path.glob("*.done")) == ["0.done", "1.done"]


# What is overridden
# ------------------

# The methods of TRL's that are overridden or built on, and what they looked like when that was written. A change of one
# is no fault by itself: read what it does now, see that `GroupedGRPOTrainer` still fits, and put the new value here.
OVERRIDDEN = {
    "_prepare_inputs": "fefddf69",
    "_tokenize_prompts": "9e6b5bb9",
    "_generate_single_turn": "d4903eea",
    "_generate": "467c947c",
    "_compute_loss": "9359d9d8",
    "_get_per_token_logps_and_entropies": "5af5e8ba",
}


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_is_overridden_is_as_it_was(name):
    text = inspect.getsource(getattr(GRPOTrainer, name))
    found = hashlib.md5(text.encode()).hexdigest()[:8]
    assert found == OVERRIDDEN[name], (
        f"TRL has changed `GRPOTrainer.{name}`: see that `GroupedGRPOTrainer` still fits it"
    )


def test_a_planner_that_knows_nothing_is_held_to_the_format(saved, tmp_path):
    """In stages, with rows that end at different tokens; and every answer is complete within its tokens."""
    model, processor = saved
    settings = {"max_completion_length": 400, "temperature": 1.0}
    trainer = make(GroupedGRPOTrainer, model, processor, tmp_path, constrained=True, **settings)
    torch.manual_seed(0)
    trainer._generate_and_score_completions([row for row in trainer.train_dataset for _ in range(GROUP)])
    said = [answer_text(completion) for completion in trainer._logs["completion"]]
    assert len(set(said)) > GROUP
    assert not [fault for text in said for fault in read_decomposition(text).faults]


def test_constrained_is_refused_where_it_could_not_hold(saved, tmp_path):
    with pytest.raises(ValueError, match="no room|tokens"):
        make(GroupedGRPOTrainer, *saved, tmp_path, constrained=True)
    with pytest.raises(ValueError, match="from one reading"):
        make(
            GroupedGRPOTrainer,
            *saved,
            tmp_path,
            constrained=True,
            max_completion_length=400,
            cache_implementation="static",
        )
