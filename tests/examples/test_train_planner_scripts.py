"""The scripts that train planners, started as a user starts them: what they leave, how they go on, what they refuse."""

import csv
import json
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
import tiny_models
import torch
from accelerate.commands.config.config_args import load_config_from_file
from openai_server import serving
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from warm_python import run_script

from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.bundles.planners import base_of, load_planner, save_planner
from diffusers_r1.names import resolve
from diffusers_r1.planners.conversation import Conversation
from diffusers_r1.prompts import Prompts
from diffusers_r1.scenes import sample_task
from diffusers_r1.tags import read_decomposition
from diffusers_r1.training.validation import decompose_all


pytestmark = pytest.mark.tiny

EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = EXAMPLES / "recipes"
LAUNCHERS = EXAMPLES / "accelerate_configs"
GRPO, SFT = EXAMPLES / "train_grpo_planner.py", EXAMPLES / "train_sft_planner.py"
START, SUPERVISED = "imageedit-r1-scenes", "imageedit-r1-scenes-sft"
START_WEIGHTS = resolve(START) / "planner"
OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "1"}

GRPO_FEW = {
    "config": RECIPES / "scenes.yaml",
    "model_name_or_path": START,
    "max_steps": 8,
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "learning_rate": 3e-4,
    "validation_rows": 4,
    "validation_steps": 4,
    "save_steps": 1,
}
PICTURE_FEW = {**GRPO_FEW, "config": RECIPES / "scenes_picture.yaml", "max_steps": 4, "save_steps": 2}
# All rows in every step, and plain gradient descent: then it does not matter in which order the rows come.
SFT_FEW = {
    "config": RECIPES / "scenes_sft.yaml",
    "model_name_or_path": START,
    "dataset_name": "scenes:chained=1",
    "dataset_limit": 8,
    "max_steps": 6,
    "per_device_train_batch_size": 8,
    "optim": "sgd",
    "learning_rate": 0.05,
    "lr_scheduler_type": "constant",
    "validation_rows": 4,
    "validation_steps": 3,
    "logging_steps": 1,
    "save_steps": 3,
}


def words_of(options: dict) -> list[str]:
    return [
        str(part)
        for name, value in options.items()
        for part in (f"--{name}", *(value if isinstance(value, list) else [value]))
    ]


def command(script: Path, launcher: str | None, **options) -> list[str]:
    """The command line; `launcher` names an accelerate config, without one Python runs the script itself."""
    launch = ["-m", "accelerate.commands.accelerate_cli", "launch", "--config_file", LAUNCHERS / f"{launcher}.yaml"]
    return [*map(str, [sys.executable, *(launch if launcher else []), script]), *words_of(options)]


def run(script: Path, launcher: str | None = None, **options) -> Path:
    if launcher:
        done = subprocess.run(command(script, launcher, **options), capture_output=True, text=True, env=OFFLINE)
    else:
        done = run_script(script, *words_of(options), env=OFFLINE)
    assert done.returncode == 0, done.stderr[-3000:]
    return Path(options["output_dir"])


def curves(folder: Path, *names: str) -> dict[int, list[str]]:
    """Step -> the cells of these columns, as they are written."""
    with (folder / "training_curves.csv").open() as file:
        return {int(row["step"]): [row[name] for name in names] for row in csv.DictReader(file)}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def flat_change(folder: Path, start: Path = START_WEIGHTS) -> torch.Tensor:
    """What training added to the weights, as one vector."""
    before, after = weights(start), weights(folder)
    assert before.keys() == after.keys()
    return torch.cat([(after[name].double() - before[name].double()).flatten() for name in sorted(before)])


def completions(folder: Path) -> dict[int, list[str]]:
    tables = [pyarrow.parquet.read_table(path) for path in (folder / "completions").glob("*.parquet")]
    return {table["step"][0].as_py(): [str(c) for c in table["completion"].to_pylist()] for table in tables}


@pytest.fixture(scope="module")
def grpo(tmp_path_factory):
    output = tmp_path_factory.mktemp("grpo") / "planner"
    return run(GRPO, "one_process", output_dir=output, **GRPO_FEW)


@pytest.fixture(scope="module")
def sft(tmp_path_factory):
    return run(SFT, output_dir=tmp_path_factory.mktemp("sft") / "planner", **SFT_FEW)


@pytest.fixture(scope="module")
def text_only(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text_only")
    save_planner(folder, *tiny_models.tiny_text_planner(), Prompts(decompose="{instruction}"))
    return folder


# What GRPO leaves
# ----------------


def test_the_planner_and_its_words_can_be_loaded(grpo):
    planner, processor, prompts = load_planner(grpo)
    assert json.loads((grpo / "prompts.json").read_text()) and prompts == load_planner(START)[2]
    assert flat_change(grpo).abs().max() > 1e-4
    tasks = [sample_task(seed, "indirect") for seed in range(4)]
    answers = decompose_all(
        planner, processor, prompts, [t.image for t in tasks], [t.instruction for t in tasks], max_new_tokens=96
    )
    assert all(read_decomposition(answer).edits for answer in answers)


def test_card_and_curves_say_what_happened(grpo):
    card = (grpo / "README.md").read_text()
    for line in ("| method | GRPO, rewards format + action + subject + goal |", f"| start | {START} |"):
        assert line in card
    assert "| steps | 8 |" in card and "| completions a step | 8 |" in card
    first, *_, last = curves(grpo, "val/exact").values()
    assert f"| exact | {float(first[0]):.3f} | {float(last[0]):.3f} |" in card
    assert load_planner(grpo)[0].config.imageedit_r1_training["val/exact"] == float(last[0])

    rewards = curves(grpo, "reward", "val/exact")
    assert list(rewards) == list(range(9))
    assert [step for step, (reward, _) in rewards.items() if reward] == list(range(1, 9))
    assert [step for step, (_, exact) in rewards.items() if exact] == [0, 4, 8]
    with Image.open(grpo / "training_curves.png") as picture:
        assert picture.format == "PNG" and picture.width > 500
    assert {step: len(texts) for step, texts in completions(grpo).items()} == dict.fromkeys(range(1, 9), 8)


def test_the_bundle_edits(grpo):
    pipe = ImageEditR1Pipeline.from_pretrained(grpo / "bundle")
    pipe.set_progress_bar_config(disable=True)
    trained = weights(grpo)
    assert all(torch.equal(value, trained[name]) for name, value in weights(grpo / "bundle" / "planner").items())
    task = sample_task(0, "indirect")
    out = pipe(task.image, task.instruction)
    assert out.plans[0].edits and out.images[0].size == task.image.size
    assert out.images[0].tobytes() != task.image.tobytes()


# Going on
# --------

DRAWN_FROM_CHANCE = ("reward", "loss", "grad_norm", "entropy", "learning_rate", "val/exact", "val/subject_f1")


def test_a_killed_run_goes_on_as_if_nothing_had_happened(grpo, tmp_path):
    output = tmp_path / "killed"
    started = command(GRPO, None, output_dir=output, **GRPO_FEW)
    with subprocess.Popen(
        started, start_new_session=True, env=OFFLINE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        while running.poll() is None and not (output / "checkpoint-2").exists():  # perhaps not whole yet
            time.sleep(0.01)
        time.sleep(random.uniform(0, 1))
        os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL
    saved = max(int(path.parent.name.split("-")[1]) for path in output.glob("checkpoint-*/trainer_state.json"))
    assert 1 <= saved < 8
    old = {path: path.stat().st_mtime_ns for path in (output / "completions").iterdir()}
    assert len(old) in (saved, saved + 1)

    run(GRPO, output_dir=output, resume_from_checkpoint="true", **GRPO_FEW)
    written_again = [path.name for path, when in old.items() if path.stat().st_mtime_ns != when]
    assert written_again in ([], [f"completions_{saved + 1:05d}.parquet"])
    assert curves(output, *DRAWN_FROM_CHANCE) == curves(grpo, *DRAWN_FROM_CHANCE)
    assert completions(output) == completions(grpo)
    assert torch.equal(flat_change(output), flat_change(grpo))


def test_a_run_paid_by_pictures_learns_logs_and_goes_on(tmp_path):
    whole = run(GRPO, output_dir=tmp_path / "whole", picture_bare_member=True, **PICTURE_FEW)
    names = (
        "rewards/picture/mean",
        "picture/rendered",
        "picture/judge_failed",
        "picture/editor_failed",
        "picture/exact",
    )
    cells = curves(whole, *names)
    for step in range(1, 5):
        reward, rendered, *failed, exact = map(float, cells[step])
        assert 0 < reward <= 1 and 0 < rendered <= 8 and failed == [0, 0] and 0 <= exact <= 1
    assert flat_change(whole).norm() > 0
    resumed = run(
        GRPO,
        output_dir=tmp_path / "resumed",
        resume_from_checkpoint=whole / "checkpoint-2",
        picture_bare_member=True,
        **PICTURE_FEW,
    )
    assert completions(resumed)[4] == completions(whole)[4]
    expected, found = weights(whole), weights(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_run_whose_editor_and_judge_are_behind_addresses_and_fail_now_and_then(tmp_path):
    with serving() as serve:
        server = serve(fail_every=2)
        output = run(
            GRPO,
            output_dir=tmp_path / "remote",
            picture_editor=server.url,
            picture_editor_model="editor",
            picture_judge="viescore",
            picture_judge_url=server.url,
            picture_judge_model="judge",
            **{**PICTURE_FEW, "max_steps": 2},
        )
        assert server.counts()["failed"] > 0
    cells = curves(output, "picture/rendered", "picture/overall", "rewards/picture/mean")
    assert all(float(rendered) > 0 for rendered, _, _ in (cells[1], cells[2]))
    assert any(0 < float(overall) <= 1 for _, overall, _ in (cells[1], cells[2]) if overall)


def test_supervised_training_goes_on_from_a_named_checkpoint(sft, tmp_path):
    output = run(SFT, output_dir=tmp_path / "on", resume_from_checkpoint=sft / "checkpoint-3", **SFT_FEW)
    assert curves(output, "loss", "grad_norm", "val/exact") == curves(sft, "loss", "grad_norm", "val/exact")
    assert torch.equal(flat_change(output), flat_change(sft))
    assert [path.name for path in output.glob("checkpoint-*")] == ["checkpoint-6"]


# Supervised
# ----------


def test_supervised_training_learns_its_rows(sft):
    losses = [float(loss) for loss, _ in curves(sft, "loss", "step").values() if loss]
    assert len(losses) == 6 and losses[-1] < 0.9 * losses[0]
    assert losses == sorted(losses, reverse=True)
    assert [step for step, (exact,) in curves(sft, "val/exact").items() if exact] == [0, 3, 6]
    assert (
        torch.load(sft / "checkpoint-3" / "training_args.bin", weights_only=False).max_length is None
    )  # nothing is cut
    card = (sft / "README.md").read_text()
    assert "| method | supervised |" in card and "| rows a step | 8 |" in card
    # A checkpoint is a planner, which is asked in its own words.
    words = load_planner(sft)[2]
    assert load_planner(sft / "checkpoint-3")[2] == words != Prompts()


# Two processes
# -------------


def test_two_processes_draw_as_many_completions(tmp_path):
    two = {
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "validation_rows": 3,
        "bundle_editor": START,
        "temperature": 2.0,
    }
    output = run(GRPO, "two_processes_cpu", output_dir=tmp_path / "two", **{**GRPO_FEW, **two})
    drawn = completions(output)
    assert {step: len(texts) for step, texts in drawn.items()} == {1: 8, 2: 8}
    for texts in drawn.values():
        assert texts[:4] != texts[4:]
    change = flat_change(output)
    assert change.isfinite().all() and change.abs().max() > 1e-5
    assert [step for step, (exact,) in curves(output, "val/exact").items() if exact] == [0, 2]
    assert (output / "checkpoint-2" / "rng_state_1.pth").exists()
    assert Prompts.load(output / "checkpoint-2") == Prompts.load(output)


def test_two_processes_learn_what_one_does(tmp_path):
    halves = {**SFT_FEW, "per_device_train_batch_size": 4}
    two = run(SFT, "two_processes_cpu", output_dir=tmp_path / "two", **halves)
    # Half after half: what a process averages over are its own answers' tokens (Qwen2.5-VL's `accepts_loss_kwargs = False`).
    one = run(SFT, output_dir=tmp_path / "one", gradient_accumulation_steps=2, **halves)
    change, expected = flat_change(two), flat_change(one)
    assert (change - expected).abs().max() < 1e-3 * expected.abs().max()
    assert curves(two, "val/exact", "val/subject_f1") == curves(one, "val/exact", "val/subject_f1")


@pytest.mark.parametrize("path", sorted(LAUNCHERS.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_knows_every_key_of_the_launchers(path):
    assert load_config_from_file(str(path)).num_processes >= 1


# Uneven rows
# -----------


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """A folder of four rows whose pictures and instructions are of four sizes and lengths."""
    folder = tmp_path_factory.mktemp("uneven")
    lines = []
    for number, (kind, size) in enumerate(
        {"simple": (64, 64), "indirect": (80, 64), "chained": (64, 48), "complex": (96, 96)}.items()
    ):
        task = sample_task(number, kind)
        task.image.resize(size).save(folder / f"{number}.png")
        edits = {f"{name}s": [getattr(edit, name) for edit in task.edits] for name in ("action", "subject", "goal")}
        lines.append(json.dumps({"file_name": f"{number}.png", "instruction": task.instruction, **edits}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_a_batch_of_uneven_rows_moves_the_weights_as_its_rows_do(uneven, tmp_path):
    """One step of plain gradient descent on the same 16 completions: whole, and row by row."""
    once = {
        **GRPO_FEW,
        "model_name_or_path": SUPERVISED,  # of which the completions to one prompt still differ
        "dataset_name": uneven,
        "max_steps": 1,
        "per_device_train_batch_size": 16,
        "temperature": 1.2,
        "freeze_vision": False,
        "optim": "sgd",
        "learning_rate": 1,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1e9,
    }
    whole = run(GRPO, output_dir=tmp_path / "whole", **once)
    rows = {**once, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 16}
    by_row = run(GRPO, output_dir=tmp_path / "by_row", **rows)
    assert completions(whole) == completions(by_row) and len(completions(whole)[1]) == 16
    assert float(curves(whole, "frac_reward_zero_std")[1][0]) <= 0.5  # else there is little to compare
    change, expected = flat_change(whole, resolve(SUPERVISED)), flat_change(by_row, resolve(SUPERVISED))
    assert expected.abs().max() > 1e-2
    assert (change - expected).abs().max() < 1e-4 * expected.abs().max()


# LoRA and planners that do not see
# ---------------------------------


def logits(planner, processor, prompts) -> torch.Tensor:
    task = sample_task(0, "chained")
    inputs = Conversation(planner, processor, [task.image], [task.instruction], prompts)
    with torch.no_grad():
        return planner(**inputs._encode(inputs.first_turns)).logits


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT asks for it
def test_an_adapter_is_the_merged_planner(tmp_path):
    start = tmp_path / "start"  # in single precision, as what is merged has the precision of what it is merged into
    save_planner(start, *load_planner(START, dtype=torch.float32))
    lora = {"use_peft": True, "lora_r": 8, "lora_target_modules": "all-linear", "max_steps": 3, "learning_rate": 0.01}
    output = run(GRPO, output_dir=tmp_path / "lora", **{**GRPO_FEW, **lora, "model_name_or_path": start})
    base, processor, prompts = load_planner(start)
    untrained = logits(base, processor, prompts)
    adapted = PeftModel.from_pretrained(base, output / "adapter").eval()
    layers = [name for name, _ in adapted.named_parameters() if "lora_" in name]
    assert any("q_proj" in name for name in layers) and not any("visual" in name for name in layers)
    merged = logits(*load_planner(output))
    torch.testing.assert_close(logits(adapted, processor, prompts), merged, atol=1e-4, rtol=1e-4)
    assert (merged - untrained).abs().max() > 0.01


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory):
    """An editor's text encoder, as the page on memory says to save it before an adapter is trained on it."""
    folder = tmp_path_factory.mktemp("text_encoder")
    editor = tiny_models.tiny_qwen_edit()
    save_planner(folder, editor.text_encoder, editor.processor, Prompts(decompose="{instruction}"))
    return folder


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize(("script", "options"), [(GRPO, GRPO_FEW), (SFT, {**SFT_FEW, "learning_rate": 0.5})])
def test_an_adapter_of_an_editors_text_encoder(script, options, text_encoder, tmp_path):
    short = {"max_steps": 2, "max_completion_length": 8, "validation_rows": 2} if script is GRPO else {"max_steps": 3}
    lora = {"use_peft": True, "lora_target_modules": ["q_proj", "v_proj"], "model_name_or_path": text_encoder}
    output = run(script, output_dir=tmp_path / "lora", **{**options, **short, **lora})
    editor = tiny_models.tiny_qwen_edit()
    pipe = ImageEditR1Pipeline.from_editor(editor, planner_adapter=output / "adapter")
    assert pipe.planner is editor.text_encoder and pipe.prompts == Prompts(decompose="{instruction}")
    layers = [weight for name, weight in pipe.planner.named_parameters() if "lora_B" in name]
    assert layers
    if script is SFT:  # noise earns GRPO nothing to learn from
        assert all(weight.any() for weight in layers)
    assert pipe.plan(sample_task(0).image, "make the background teal", max_new_tokens=4).fallback


def test_grpo_of_a_planner_that_does_not_see(text_only, tmp_path):
    short = {"max_steps": 1, "max_completion_length": 8, "validation_rows": 2, "steps_per_generation": 2}
    options = {**GRPO_FEW, **short, "model_name_or_path": text_only}
    output = run(GRPO, output_dir=tmp_path / "text", **options)
    assert len(completions(output)[1]) == 16  # for two steps
    assert "| completions a step | 8 |" in (output / "README.md").read_text()
    planner, tokenizer, _ = load_planner(output)
    assert type(planner).__name__ == "Qwen2ForCausalLM" and not hasattr(tokenizer, "image_processor")


def test_a_planner_of_two_pictures_by_both_scripts(tmp_path):
    """The recipes, shortened: rows with references, without end and of one step, and held-out rows with references."""
    short = {"max_steps": 1, "validation_rows": 2, "model_name_or_path": START}
    supervised = RECIPES / "scenes_references_sft.yaml"
    start = run(SFT, output_dir=tmp_path / "start", config=supervised, per_device_train_batch_size=2, **short)
    few = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 8}
    options = {**short, **few, "config": RECIPES / "scenes_references.yaml", "model_name_or_path": start}
    output = run(GRPO, output_dir=tmp_path / "planner", **options)
    assert len(completions(output)[1]) == 8
    assert flat_change(output, start).abs().max() > 0 or set(curves(output, "reward")[1]) == {"0.0"}
    assert set(curves(output, "val/exact")) == {0, 1} and all(curves(output, "val/exact")[1])


def test_supervised_training_of_a_planner_that_does_not_see(text_only, tmp_path):
    short = {"max_steps": 3, "model_name_or_path": text_only, "validation_rows": 2, "learning_rate": 0.5}
    lora = {"use_peft": True, "lora_target_modules": ["q_proj", "v_proj"]}
    output = run(SFT, output_dir=tmp_path / "text", **{**SFT_FEW, **short, **lora})
    losses = [float(loss) for (loss,) in curves(output, "loss").values() if loss]
    assert losses[-1] < losses[0]
    assert flat_change(output, text_only).abs().max() > 0


def test_a_planner_of_sentences_by_both_scripts_in_words_of_its_own(text_only, tmp_path):
    words = tmp_path / "words"
    words.mkdir()
    Prompts(decompose="Plan: {instruction}", sequence="In order:").save(words)
    short = {"prompts": words, "dataset_name": "sentences", "dataset_limit": 8, "validation_rows": 2}
    lora = {"use_peft": True, "lora_target_modules": ["q_proj", "v_proj"]}
    options = {**SFT_FEW, **short, **lora, "max_steps": 3, "model_name_or_path": text_only, "learning_rate": 0.5}
    started = run(SFT, output_dir=tmp_path / "sft", **options)
    losses = [float(loss) for (loss,) in curves(started, "loss").values() if loss]
    assert losses[-1] < losses[0]
    assert load_planner(started)[2] == Prompts(decompose="Plan: {instruction}", sequence="In order:")

    few = {"max_steps": 1, "max_completion_length": 8, "validation_rows": 2, "dataset_name": "sentences:plain=1"}
    output = run(GRPO, output_dir=tmp_path / "grpo", **{**GRPO_FEW, **few, "model_name_or_path": started / "adapter"})
    assert len(completions(output)[1]) == 8 and load_planner(output)[2].sequence == "In order:"
    assert base_of(started / "adapter") == base_of(output / "adapter") == str(text_only)  # one adapter, trained on


# Bad use
# -------

# In one process with the tests, where warnings are errors; the recipes name what older versions call it.
without_deprecation = pytest.mark.filterwarnings(
    "ignore:.gradient_checkpointing. is deprecated:FutureWarning",
    "ignore:The .local_dir_use_symlinks. argument:UserWarning",
)

PICTURE = {"config": RECIPES / "scenes_picture.yaml"}
NO_SUCH = {"model_name_or_path": "no/such-planner"}  # would be missed first, if it was looked for


@pytest.fixture
def without_truth(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "0.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "instruction": "make it nice"}))
    return tmp_path


def refusal(script: Path, output_dir: Path, monkeypatch, capsys, **options) -> str:
    monkeypatch.setattr(sys, "argv", command(script, None, output_dir=output_dir, **options)[1:])
    with pytest.raises((SystemExit, ValueError, OSError)) as stopped:
        runpy.run_path(str(script), run_name="__main__")
    assert getattr(stopped.value, "code", 1) != 0
    return f"{stopped.value} {capsys.readouterr().err}"


@without_deprecation
@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        (GRPO, {"dataset_name": ""}, "--dataset_name"),
        (SFT, {"dataset_name": ""}, "--dataset_name"),
        (SFT, {"prompts": RECIPES}, "recipes has none"),
        (GRPO, {"rewards": ["format", "taste"]}, "taste"),
        (GRPO, {"rewards": ["format", "action"], "reward_weights": [1, 2, 3]}, "3 `reward_weights` for 2 `rewards`"),
        (GRPO, {"bundle_editor": RECIPES}, "has no model_index.json"),
        (SFT, {"bundle_editor": RECIPES}, "has no model_index.json"),
        (GRPO, {"rewards": ["format", "picture"]}, "--picture_editor, --picture_judge"),
        (GRPO, {**PICTURE, "picture_editor": "no-such-editor"}, "no-such-editor"),
        (GRPO, {**PICTURE, "picture_editor": "http://localhost:1/v1"}, "a model's name there"),
        (GRPO, {**PICTURE, "picture_editor_arguments": "20"}, "`picture_editor_arguments`"),
        (GRPO, {**PICTURE, "picture_judge": "taste"}, "not 'taste'"),
        (GRPO, {**PICTURE, "picture_judge": "json:no_such_function"}, "no function of an importable module"),
        (GRPO, {**PICTURE, "picture_judge": "checklist"}, "--picture_judge_model"),
        (GRPO, {**PICTURE, "picture_judge_model": "judge"}, "--picture_judge_model"),
        (GRPO, {**PICTURE, "dataset_name": "sentences"}, "knows what is right of scenes only"),
        (GRPO, {**PICTURE, "picture_batch_size": 0}, "at least 1"),
        (GRPO, {**PICTURE, "dataset_name": "scenes:reference=1"}, "these rows have further ones"),
        (GRPO, {**PICTURE, "rewards": ["format", "picture", "goal"], "picture_bare_member": True}, "has no others"),
        (GRPO, {**PICTURE, "picture_bare_member": True, "scale_rewards": "batch"}, "in its group alone"),
        (
            GRPO,
            {**PICTURE, "picture_bare_member": True, "multi_objective_aggregation": "normalize_then_sum"},
            "in its group alone",
        ),
    ],
)
def test_bad_use_is_refused_before_a_model_is_loaded(script, options, message, tmp_path, monkeypatch, capsys):
    given = {**(GRPO_FEW if script == GRPO else SFT_FEW), **NO_SUCH, **options}
    assert message in refusal(script, tmp_path / "out", monkeypatch, capsys, **given)


@without_deprecation
@pytest.mark.parametrize("script", [GRPO, SFT], ids=["grpo", "sft"])
def test_rows_without_truth_are_refused(script, without_truth, tmp_path, monkeypatch, capsys):
    given = {**(GRPO_FEW if script == GRPO else SFT_FEW), **NO_SUCH, "dataset_name": without_truth}
    assert "annotate_plans.py" in refusal(script, tmp_path / "out", monkeypatch, capsys, **given)


@without_deprecation
def test_a_recipes_unknown_reward_is_refused(tmp_path, monkeypatch, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text((RECIPES / "scenes.yaml").read_text().replace("subject, goal]", "subject, taste]"))
    said = refusal(GRPO, tmp_path / "out", monkeypatch, capsys, **{**GRPO_FEW, **NO_SUCH, "config": recipe})
    assert "`rewards` are any of format, action" in said and "not taste" in said


def test_a_refusal_is_the_last_line_and_the_exit_code(tmp_path):
    given = {**GRPO_FEW, **NO_SUCH, "output_dir": tmp_path / "out", "bundle_editor": "no-such-editor"}
    done = subprocess.run(command(GRPO, None, **given), capture_output=True, text=True, env=OFFLINE)
    assert done.returncode != 0
    assert "no-such-editor" in done.stderr.splitlines()[-1]
