"""Whose folder it is: what is gone on from, what is refused, what is left alone."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from trl import GRPOConfig, ModelConfig

from diffusers_r1.records import LOCK, only_one_in
from diffusers_r1.training.arguments import RewardArguments
from diffusers_r1.training.folders import differences, fingerprint, identity, run_folder


pytestmark = pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing. is deprecated:FutureWarning")


def start(folder: Path, model: dict | None = None, rows: dict | None = None, **settings):
    """What `run_folder` is given."""
    return (
        "GRPO",
        RewardArguments(**{"dataset_name": "scenes", **(rows or {})}),
        GRPOConfig(output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", **settings),
        ModelConfig(**{"model_name_or_path": "imageedit-r1-scenes", **(model or {})}),
    )


def leave_checkpoint(folder: Path, step: int, rank: int | None = None) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"weight": torch.full((64,), float(step))}, path / "model.safetensors")
    torch.save({"step": step}, path / "optimizer.pt")
    if rank is not None:
        (path / "adapter_config.json").write_text(json.dumps({"r": rank}))
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK
    }


@pytest.fixture
def run(tmp_path) -> Path:
    """The folder of a run that was stopped after its tenth step."""
    folder = tmp_path / "run"
    with run_folder(*start(folder)) as checkpoint:
        assert checkpoint is None
        for step in (9, 10):
            leave_checkpoint(folder, step)
    return folder


def refusal(folder: Path, *given) -> str:
    """The one line that refuses a start, which leaves everything as it is."""
    before = content(folder)
    with pytest.raises((ValueError, BlockingIOError)) as refused, run_folder(*given):
        pass
    assert content(folder) == before
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_run_goes_on_from_its_newest_whole_checkpoint(run, caplog):
    (run / "checkpoint-11").mkdir()
    for asked, step in (("true", 10), (str(run / "checkpoint-9"), 9)):
        with run_folder(*start(run, resume_from_checkpoint=asked)) as checkpoint:
            assert checkpoint == str(run / f"checkpoint-{step}")
    assert "checkpoint-11 is passed over: it is cut off, there is no trainer_state.json" in caplog.text


def test_the_first_start_of_a_command_that_is_repeated(tmp_path):
    with run_folder(*start(tmp_path / "new", resume_from_checkpoint="true")) as checkpoint:
        assert checkpoint is None
    with run_folder(*start(tmp_path / "new", learning_rate=0.5)) as checkpoint:  # nothing was saved yet
        assert checkpoint is None


@pytest.mark.parametrize("settings", [{}, {"learning_rate": 0.5, "max_steps": 2}])
def test_a_new_run_does_not_go_into_another_ones_folder(settings, run):
    said = refusal(run, *start(run, **settings))
    for part in ("(checkpoint-10)", "--resume_from_checkpoint true", "--output_dir", "--overwrite_output_dir"):
        assert part in said


def test_a_finished_run_is_not_overwritten(tmp_path):
    (tmp_path / "training_curves.csv").write_text("step\n1\n")
    assert "training_curves.csv" in refusal(tmp_path, *start(tmp_path))


def test_starting_afresh_takes_away_what_the_other_run_left(run):
    (run / "notes.txt").write_text("the user's own")
    with run_folder(*start(run, rows={"overwrite_output_dir": True}, learning_rate=0.5)) as checkpoint:
        assert checkpoint is None
    assert sorted(path.name for path in run.iterdir()) == [".in_use", ".run.json", "notes.txt"]
    assert json.loads((run / ".run.json").read_text())["learning_rate"] == 0.5


def test_going_on_with_other_settings_names_them_and_asks(run):
    changed = {"resume_from_checkpoint": "true", "learning_rate": 0.5, "logging_steps": 7}
    rows = {"rewards": ["format"], "validation_steps": 3}
    said = refusal(run, *start(run, rows=rows, **changed))
    assert "(learning_rate: 1e-06, now 0.5; rewards: ['format', 'action', 'subject'], now ['format'])" in said
    assert "--allow_changes" in said and "logging_steps" not in said and "validation_steps" not in said
    with run_folder(*start(run, rows={**rows, "allow_changes": True}, **changed)) as checkpoint:
        assert checkpoint == str(run / "checkpoint-10")
    with run_folder(*start(run, rows=rows, **changed)):  # which are its settings now
        pass


def test_a_checkpoint_of_an_unknown_run_asks_as_well(run):
    (run / ".run.json").unlink()
    assert "does not say what it was started with" in refusal(run, *start(run, resume_from_checkpoint="true"))


def test_another_runs_checkpoint_is_gone_on_from_in_a_folder_of_its_own(run, tmp_path):
    asked = {"resume_from_checkpoint": str(run / "checkpoint-9")}
    with run_folder(*start(tmp_path / "on", **asked)) as checkpoint:
        assert checkpoint == str(run / "checkpoint-9")
    leave_checkpoint(tmp_path / "on", 12)
    assert "(checkpoint-12)" in refusal(tmp_path / "on", *start(tmp_path / "on", **asked))


def test_two_runs_are_not_in_one_folder(run):
    with only_one_in(run):
        assert "in use" in refusal(run, *start(run, resume_from_checkpoint="true"))


@pytest.mark.parametrize(
    ("name", "cut"),
    [("trainer_state.json", None), ("model.safetensors", 20), ("model.safetensors", -4), ("optimizer.pt", 100)],
)
def test_a_cut_off_checkpoint_is_not_gone_on_from(run, name, cut):
    path = run / "checkpoint-10" / name
    path.write_bytes(path.read_bytes()[:cut]) if cut else path.unlink()
    with run_folder(*start(run, resume_from_checkpoint="true")) as checkpoint:
        assert checkpoint == str(run / "checkpoint-9")
    said = refusal(run, *start(run, resume_from_checkpoint=str(run / "checkpoint-10")))
    assert "cut off" in said and name in said


def test_a_checkpoint_that_is_not_there_is_said_to_be(run):
    asked = str(run / "checkpoint-12")
    assert f"{asked} cannot be gone on from: there is no such folder" in refusal(
        run, *start(run, resume_from_checkpoint=asked)
    )


@pytest.mark.parametrize(
    ("saved", "model", "said"),
    [
        (8, {"use_peft": True, "lora_r": 4}, "an adapter of rank 8, and this run trains one of 4"),
        (8, {}, "holds a LoRA adapter, and this run trains a whole model"),
        (None, {"use_peft": True}, "holds a whole model, and this run trains a LoRA adapter"),
    ],
)
def test_another_kind_of_adapter_is_refused_whatever_is_allowed(saved, model, said, tmp_path):
    leave_checkpoint(tmp_path, 3, rank=saved)
    given = start(tmp_path, model=model, rows={"allow_changes": True}, resume_from_checkpoint="true")
    assert said in refusal(tmp_path, *given)


def test_a_run_that_started_from_an_adapter_is_gone_on_with(tmp_path):
    adapter = tmp_path / "start"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 8}))
    given = {"model": {"model_name_or_path": str(adapter)}, "rows": {"allow_changes": True}}
    for rank, said in ((4, "an adapter of rank 4, and this run trains one of 8"), (8, None)):
        folder = tmp_path / f"run-{rank}"
        checkpoint = leave_checkpoint(folder, 3, rank=rank)
        started = start(folder, resume_from_checkpoint="true", **given)
        if said:
            assert said in refusal(folder, *started)
        else:
            with run_folder(*started) as found:
                assert found == str(checkpoint)


def test_a_base_that_has_changed_is_noticed(run, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    prints = []
    for value in (0.0, 1.0):
        save_file({"weight": torch.full((64,), value)}, base / "model.safetensors")
        prints.append(fingerprint(str(base)))
    leave_checkpoint(base, 1)  # no part of the model
    assert prints[0] != prints[1] == fingerprint(str(base))
    assert fingerprint("no/such-planner") is None is fingerprint(None)
    before, now = ({**identity(*start(run)), "weights of the base": each} for each in prints)
    assert differences(before, now) == [f"weights of the base: {prints[0]}, now {prints[1]}"]
    assert differences({**before, "weights of the base": None}, now) == []
