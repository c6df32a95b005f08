"""Whose folder it is: what is gone on from, what is refused, what is left alone."""

import json
from pathlib import Path

import pytest
import torch
from cached_hub import keep
from safetensors.torch import save_file
from trl import GRPOConfig, ModelConfig

from diffusers_r1.prompts import Prompts
from diffusers_r1.records import LOCK, only_one_in
from diffusers_r1.training.arguments import RewardArguments
from diffusers_r1.training.folders import differences, identity, run_folder
from diffusers_r1.training.prints import content_print, fingerprint, place_of_rows


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


def test_a_run_that_was_killed_in_its_first_checkpoint_begins_anew(tmp_path, caplog):
    with run_folder(*start(tmp_path)):
        (leave_checkpoint(tmp_path, 2) / "trainer_state.json").unlink()
    said = refusal(tmp_path, *start(tmp_path, resume_from_checkpoint="true", learning_rate=0.5))
    assert "learning_rate: 1e-06, now 0.5" in said
    assert "go on with it by --resume_from_checkpoint true" in refusal(tmp_path, *start(tmp_path))
    with run_folder(*start(tmp_path, resume_from_checkpoint="true")) as checkpoint:
        assert checkpoint is None and not (tmp_path / "checkpoint-2").exists()
    assert "checkpoint-2 is taken away: the run begins at its first step again" in caplog.text


@pytest.mark.parametrize("left", ["another run", "a finished run", "a model without its optimizer"])
def test_what_is_not_plainly_cut_off_is_not_taken_away(left, tmp_path):
    with run_folder(*start(tmp_path)):
        path = leave_checkpoint(tmp_path, 2)
    (path / ("optimizer.pt" if "optimizer" in left else "trainer_state.json")).unlink()
    if left == "another run":
        (tmp_path / ".run.json").unlink()
    if left == "a finished run":
        (tmp_path / "training_curves.csv").write_text("step\n1\n")
    said = refusal(tmp_path, *start(tmp_path, resume_from_checkpoint="true"))
    assert "of which no checkpoint is whole" in said and "--resume_from_checkpoint" not in said


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


@pytest.mark.parametrize(
    ("option", "place"),
    [
        ("model_name_or_path", "adapter"),
        ("model_name_or_path", "checkpoint-10"),
        ("model_name_or_path", "bundle/planner"),
        ("picture_editor", "bundle"),
        ("bundle_editor", "bundle"),
        ("prompts", "adapter"),
    ],
)
def test_starting_afresh_does_not_take_away_what_the_run_starts_from(option, place, run):
    (run / place).mkdir(parents=True, exist_ok=True)
    Prompts().save(run / place)
    given = {option: str(run / place)}
    model, rows = (given, {}) if option == "model_name_or_path" else ({}, given)
    said = refusal(run, *start(run, model=model, rows={**rows, "overwrite_output_dir": True}))
    assert f"take away {run / place.partition('/')[0]}, which --{option}" in said


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_does_not_end_in_the_folder_that_it_starts_from(overwrite, tmp_path):
    (tmp_path / "planner").mkdir()
    (tmp_path / "planner" / "config.json").write_text("{}")
    base = str(tmp_path / "here" / ".." / "planner")
    (tmp_path / "here").mkdir()
    given = start(tmp_path / "planner", model={"model_name_or_path": base}, rows={"overwrite_output_dir": overwrite})
    said = refusal(tmp_path / "planner", *given)
    assert "would write to" in said and f"which --model_name_or_path {base} needs" in said


def planner(folder: Path, value: float = 0.0, base: Path | None = None) -> Path:
    """A planner as far as a run's folder looks at it, or an adapter of one, with words of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weight": torch.full((64,), value)}, folder / "model.safetensors")
    Prompts(decompose=f"{value} {{instruction}}").save(folder)
    if base is not None:
        settings = {"base_model_name_or_path": str(base), "r": 8}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("option", "named", "output"),
    [
        ("model_name_or_path", "adapter", "base"),
        ("model_name_or_path", "adapter-of-bundle", "bundle/editor/transformer"),
        ("model_name_or_path", "bundle", "bundle/planner"),
        ("model_name_or_path", "run/adapter", "run"),
        ("picture_editor", "bundle", "bundle/editor"),
        ("picture_editor", "run/bundle", "run"),
        ("bundle_editor", "bundle", "bundle"),
    ],
)
def test_a_run_writes_over_nothing_that_it_starts_from(option, named, output, tmp_path):
    base = planner(tmp_path / "base")
    planner(tmp_path / "adapter", base=base)
    planner(tmp_path / "run" / "adapter", base=base)
    planner(tmp_path / "run" / "bundle")
    bundle = planner(tmp_path / "bundle" / "planner").parent
    planner(tmp_path / "adapter-of-bundle", base=bundle)
    for folder, part in ((bundle, "editor"), (bundle / "editor", "transformer")):
        (folder / part).mkdir()
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "X", "planner": [], part: []}))
    given = {option: str(tmp_path / named)}
    model, rows = (given, {}) if option == "model_name_or_path" else ({}, given)
    said = refusal(tmp_path / output, *start(tmp_path / output, model=model, rows=rows))
    assert "would write to" in said and f"which --{option} {tmp_path / named} needs" in said
    with run_folder(*start(tmp_path / "bundle" / "other", model=model, rows=rows)):
        pass


@pytest.mark.parametrize(("overwrite", "output"), [(False, "."), (True, "."), (True, "red")])
@pytest.mark.parametrize("named", [".", "metadata.jsonl"])
def test_a_run_leaves_its_rows_alone(named, overwrite, output, tmp_path):
    pictures = tmp_path / output / "samples"
    pictures.mkdir(parents=True)
    (pictures / "0.png").write_bytes(b"of the user's")
    (tmp_path / "README.md").write_text("of the data set")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "samples/0.png", "instruction": "x"}\n')
    rows = {"dataset_name": str(tmp_path / named), "overwrite_output_dir": overwrite}
    assert "which --dataset_name" in refusal(tmp_path / output, *start(tmp_path / output, rows=rows))


def test_a_run_among_the_rows_is_started_afresh(files):
    folder = Path("rows/run")
    with run_folder(*start(folder, rows=files)):
        leave_checkpoint(folder, 1)
    (folder / "README.md").write_text("a card")
    with run_folder(*start(folder, rows={**files, "overwrite_output_dir": True})):
        assert not (folder / "README.md").exists()
    Path("words").mkdir()
    Prompts().save(Path("words"))
    Path("words/README.md").write_text("the user's own")
    rows = {"prompts": "words", "overwrite_output_dir": True}
    assert "words/README.md, which --prompts words" in refusal(Path("words"), *start(Path("words"), rows=rows))


@pytest.mark.parametrize("place", [".", "planner"])
def test_starting_afresh_does_not_take_away_the_base_of_an_adapter(place, run, tmp_path):
    """Of a planner that is one, or of a bundle whose planner is."""
    adapter = tmp_path / "elsewhere" / place
    adapter.mkdir(parents=True)
    (run / "bundle" / "planner").mkdir(parents=True)
    settings = {"base_model_name_or_path": str(run / "bundle"), "r": 8}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    model = {"model_name_or_path": str(tmp_path / "elsewhere")}
    assert f"take away {run / 'bundle'}" in refusal(run, *start(run, model=model, rows={"overwrite_output_dir": True}))


def test_starting_afresh_from_a_model_that_is_not_there_takes_nothing_away(run):
    before = content(run)
    given = start(run, model={"model_name_or_path": "no-such-planner"}, rows={"overwrite_output_dir": True})
    with pytest.raises(OSError, match="no-such-planner"), run_folder(*given):
        pass
    assert content(run) == before


def test_a_yaml_file_says_whether_a_run_goes_on_in_words_of_its_own(run):
    with run_folder(*start(run, resume_from_checkpoint=True)) as checkpoint:
        assert checkpoint == str(run / "checkpoint-10")
    assert "(checkpoint-10)" in refusal(run, *start(run, resume_from_checkpoint=False))


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
    [
        ("trainer_state.json", None),
        ("trainer_state.json", 8),
        ("trainer_state.json", 0),
        ("model.safetensors", 20),
        ("model.safetensors", -4),
        ("model.safetensors", 0),
        ("optimizer.pt", 100),
    ],
)
def test_a_cut_off_checkpoint_is_not_gone_on_from(run, name, cut):
    path = run / "checkpoint-10" / name
    path.unlink() if cut is None else path.write_bytes(path.read_bytes()[:cut])
    with run_folder(*start(run, resume_from_checkpoint="true")) as checkpoint:
        assert checkpoint == str(run / "checkpoint-9")
    said = refusal(run, *start(run, resume_from_checkpoint=str(run / "checkpoint-10")))
    assert "cut off" in said and name in said


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", b"\xff" * 100, "model.safetensors is cut off"),
        ("trainer_state.json", b"{}", "does not say at which step"),
        ("trainer_state.json", b"[1]", "does not say at which step"),
        ("model.safetensors", None, "it has no weights"),
        ("optimizer.pt", None, "it has no state of the optimizer"),
    ],
)
def test_a_broken_checkpoint_is_not_gone_on_from(name, content, said, run):
    path = run / "checkpoint-10" / name
    path.unlink() if content is None else path.write_bytes(content)
    asked = {"resume_from_checkpoint": str(path.parent)}
    assert said in refusal(run, *start(run, **asked))
    if name == "optimizer.pt":  # which a run need not save
        with run_folder(*start(run, save_only_model=True, **asked)) as checkpoint:
            assert checkpoint == str(path.parent)


def test_a_trainer_may_have_logged_what_is_no_number(run):
    (run / "checkpoint-10" / "trainer_state.json").write_text('{"global_step": 10, "log_history": [{"loss": NaN}]}')
    with run_folder(*start(run, resume_from_checkpoint="true")) as checkpoint:
        assert checkpoint == str(run / "checkpoint-10")


def test_what_a_run_says_of_itself_is_named_where_it_cannot_be_read(run):
    (run / ".run.json").write_text("{")
    assert f"{run / '.run.json'} cannot be read" in refusal(run, *start(run, resume_from_checkpoint="true"))


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
    settings = {"r": 8, "base_model_name_or_path": "imageedit-r1-scenes"}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
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


@pytest.mark.parametrize("index", ["config.json", "adapter_config.json", "model_index.json"])
def test_a_repository_that_has_changed_is_noticed(index, tmp_path, monkeypatch):
    """A model, an adapter, a bundle: each has another file at its top."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / index).write_text("{}")
    commits = keep(tmp_path, "org/model", main=tmp_path / "model", v1=tmp_path / "model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert fingerprint("org/model") == commits["main"] != commits["v1"] == fingerprint("org/model", "v1")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("base/model.safetensors", "weights of the adapter's base: "),
        ("adapter/prompts.json", "content of the prompts: "),
        ("base/prompts.json", "content of the prompts: "),
    ],
)
def test_what_a_run_reads_without_its_being_named_is_noticed(changed, said, tmp_path):
    adapter = planner(tmp_path / "adapter", base=planner(tmp_path / "base"))
    other = planner(tmp_path / "other", value=1.0)
    model, folder = {"model_name_or_path": str(adapter)}, tmp_path / "run"
    with run_folder(*start(folder, model=model)):
        leave_checkpoint(folder, 1, rank=8)
    (tmp_path / changed).write_bytes((other / Path(changed).name).read_bytes())
    asked = {"resume_from_checkpoint": "true", "dataloader_drop_last": True}
    refused = refusal(folder, *start(folder, model=model, **asked))
    assert said in refused and "dataloader_drop_last: False, now True" in refused
    # A run of a version that took none of these prints.
    kept = json.loads((folder / ".run.json").read_text())
    del kept["weights of the adapter's base"], kept["dataloader_drop_last"]
    (folder / ".run.json").write_text(json.dumps({**kept, "content of the prompts": None}))
    with run_folder(*start(folder, model=model, **asked)) as checkpoint:
        assert checkpoint == str(folder / "checkpoint-1")


@pytest.fixture
def files(tmp_path, monkeypatch) -> dict[str, str]:
    """Options that name files of one's own: rows with a picture, prompts, further names of actions."""
    monkeypatch.chdir(tmp_path)
    Path("rows").mkdir()
    Path("rows/metadata.jsonl").write_text('{"file_name": "0.png", "instruction": "remove the cat"}')
    Path("rows/0.png").write_bytes(bytes(200_000))
    Prompts().save(Path("rows"))
    Path("synonyms.json").write_text('{"zap": "remove"}')
    return {"dataset_name": "rows", "prompts": "rows", "action_synonyms": "synonyms.json"}


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("rows/metadata.jsonl", b'{"file_name": "0.png", "instruction": "remove the dog"}', "content of the rows"),
        ("rows/0.png", bytes(200_001), "content of the rows"),
        ("rows/prompts.json", b'{"decompose": "{instruction}!"}', "content of the prompts"),
        ("synonyms.json", b'{"zap": "recolor"}', "content of the action synonyms"),
    ],
)
def test_files_that_have_changed_under_one_name_are_noticed(name, changed, said, files, tmp_path):
    with run_folder(*start(tmp_path / "run", rows=files)):
        leave_checkpoint(tmp_path / "run", 1)
    Path(name).write_bytes(changed)
    asked = {"resume_from_checkpoint": "true"}
    assert f"{said}: " in refusal(tmp_path / "run", *start(tmp_path / "run", rows=files, **asked))
    with run_folder(*start(tmp_path / "run", rows={**files, "allow_changes": True}, **asked)):
        pass


def test_one_path_may_be_written_in_two_ways_and_runs_may_lie_among_the_rows(files, tmp_path):
    folder = Path("rows/run")
    with run_folder(*start(folder, rows=files)):
        leave_checkpoint(folder, 1)
    Path("rows/cache-0123.arrow").write_bytes(b"of datasets")
    absolute = {name: str(tmp_path / path) for name, path in files.items()}
    with run_folder(*start(folder, rows=absolute, resume_from_checkpoint="true")) as checkpoint:
        assert checkpoint == str(folder / "checkpoint-1")


def test_a_run_of_a_version_that_took_no_prints_of_files_is_gone_on_with(files, tmp_path):
    with run_folder(*start(tmp_path / "run", rows=files)):
        leave_checkpoint(tmp_path / "run", 1)
    path = tmp_path / "run" / ".run.json"
    kept = {name: value for name, value in json.loads(path.read_text()).items() if not name.startswith("content of")}
    path.write_text(json.dumps(kept))
    with run_folder(*start(tmp_path / "run", rows=files, resume_from_checkpoint="true")) as checkpoint:
        assert checkpoint == str(tmp_path / "run" / "checkpoint-1")


def test_a_print_of_files_is_of_what_a_data_set_reads(files):
    assert place_of_rows("rows", None) == place_of_rows("psr", "rows/metadata.jsonl") == Path("rows")
    assert content_print("rows") != content_print("rows/0.png")
    assert content_print("no/such/rows") is None is content_print(None)
