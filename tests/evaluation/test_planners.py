import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import tiny_models
from openai_server import Scripted, ScriptedHandler, planning
from PIL import Image

from diffusers_r1 import records
from diffusers_r1.bundles.planners import save_planner
from diffusers_r1.commands import main
from diffusers_r1.endpoints import EndpointError
from diffusers_r1.evaluation import evaluate_planners, planners
from diffusers_r1.evaluation.photos import find_photo, open_photo
from diffusers_r1.evaluation.planners import (
    Row,
    _check_there,
    agreement,
    counterparts,
    marks,
    order,
    read_rows,
    split_by_rule,
)
from diffusers_r1.evaluation.word_rows import join
from diffusers_r1.images.reading import load_picture
from diffusers_r1.plan import Edit, EditPlan
from diffusers_r1.planners import int8
from diffusers_r1.planners.plans import make_plans
from diffusers_r1.planners.remote import RemotePlanner
from diffusers_r1.sentences import KINDS, TEST_SEEDS
from diffusers_r1.tags import write_decomposition, write_sequence


HAT, MAN = Edit("recolor", "the hat", "red"), Edit("remove", "man on the left", "nothing")
CUP = Edit("add", "cup", "on the table")
STEPS = ["change the dog to white cat", "remove the lamp", "change the color of car to blue"]
PAIRS = [
    {"edit_type": "change object", "ori obj": "dog", "new_obj": "cat"},
    {"edit_type": "delete object", "ori obj": "lamp", "new_obj": "nothing"},
    {"edit_type": "color", "ori obj": "car", "new_obj": "nothing"},
]


def plan(*edits: Edit, requests: tuple[str, ...] = (), raw: tuple[str, ...] = ()) -> EditPlan:
    return EditPlan("x", edits, requests or ("do it",), raw=raw)


# Rows
# ----


def test_sentences_are_of_every_kind_and_of_the_seeds_for_reporting():
    rows = read_rows("sentences", limit=10)
    assert [row.id.split("-")[0] for row in rows] == [*KINDS, *KINDS]
    assert all(int(row.id.split("-")[1]) >= TEST_SEEDS for row in rows)
    assert all(row.number == len(row.edits) == len(row.requests) for row in rows)
    assert read_rows("sentences", limit=10) == rows != read_rows("sentences", limit=10, seed=100)


def test_reworded_sentences_say_the_same():
    rows = read_rows("reworded", limit=20)
    groups = {row.group: [other for other in rows if other.group == row.group] for row in rows}
    assert len(groups) == 4
    for group in groups.values():
        assert len({row.edits for row in group}) == 1 and len({row.instruction for row in group}) > 1


@pytest.mark.parametrize("layout", ["original", "folder", "list"])
def test_complexbench_edit_in_every_layout(layout, tmp_path):
    original = {"81": {"img_path": "81.jpg", "new_ins": "\n".join(STEPS), "edit pair": PAIRS}}
    path = tmp_path / "instructions" / "three" / "final_update_v2.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([{"id": "81", "steps": STEPS, "edits": PAIRS}] if layout == "list" else original))
    (row,) = read_rows(f"complexbench-edit={tmp_path if layout == 'folder' else path}")
    assert row.edits == (Edit("replace", "dog", "cat"), Edit("remove", "lamp", "nothing"), Edit("recolor", "car", ""))
    assert row.number == 3 and all(step in row.instruction for step in STEPS)


def test_files_of_complexbench_edit_may_be_about_one_picture(tmp_path):
    for place in ("two", "three", "four"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "final_update_v2.json").write_text(
            json.dumps([{"id": "81", "steps": STEPS, "edits": PAIRS}])
        )
    assert [row.id for row in read_rows(f"complexbench-edit={tmp_path}")] == ["81-1", "81-2", "81-3"]


@pytest.mark.parametrize(
    ("step", "pair", "edit"),
    [
        ("add a bird on the roof", ("add object", "nothing", "bird"), Edit("add", "bird", "")),
        (
            "change the background to park",
            ("change background", "nothing", "nothing"),
            Edit("background", "background", ""),
        ),
        ("change the style to anime", ("change style", "nothing", "nothing"), Edit("restyle", "whole picture", "")),
        ("change the content of tv to a cartoon", ("content", "tv", "nothing"), Edit("replace", "tv", "")),
        ("change the content of tv to the text Hi", ("content", "tv", "nothing"), Edit("text", "tv", "")),
    ],
)
def test_what_complexbench_edit_calls_an_edit(step, pair, edit, tmp_path):
    names = ("edit_type", "ori obj", "new_obj")
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"id": "1", "steps": [step], "edits": [dict(zip(names, pair))]}]))
    assert read_rows(f"complexbench-edit={path}")[0].edits == (edit,)


def test_magicbrush_sessions_from_a_file_and_from_a_data_set(tmp_path):
    sessions = [{"img_id": "7", "turns": ["let there be a cup.", "make it red"]}, {"img_id": "8", "turns": ["one"]}]
    path = tmp_path / "sessions.json"
    path.write_text(json.dumps(sessions))
    (row,) = read_rows(f"magicbrush-sessions={path}")
    assert (row.number, row.edits) == (2, ()) and "let there be a cup" in row.instruction

    turns = [{"img_id": "7", "turn_index": 2, "instruction": "make it red"},
             {"img_id": "7", "turn_index": 1, "instruction": "let there be a cup."}]  # fmt: skip
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "train.jsonl").write_text("\n".join(map(json.dumps, turns)))
    assert read_rows(f"magicbrush-sessions={tmp_path / 'hub'}") == [row]


def test_everyday_rows(tmp_path):
    line = {"id": "a1", "trade": "food", "instruction": "no crumbs", "edits": [vars(MAN), vars(HAT)],
            "requests": ["remove them", "make it red"], "before": [[0, 1]]}  # fmt: skip
    path = tmp_path / "everyday.jsonl"
    path.write_text(json.dumps(line) + "\n" + json.dumps({**line, "id": "a2", "before": None}))
    first, second = read_rows(f"everyday={path}")
    assert first.edits == (MAN, HAT) and first.before == ((0, 1),) and second.before == ()


@pytest.fixture
def photo_rows(tmp_path):
    """Two rows about pictures and one about none, as a file."""
    line = {"trade": "food", "instruction": "no crumbs", "edits": [vars(MAN)], "requests": ["remove them"]}
    for name, color in (("one.png", "red"), ("two.png", "blue")):
        Image.new("RGB", (64, 48), color).save(tmp_path / name)
    lines = [{**line, "id": "a", "picture": "one.png"}, {**line, "id": "b"}, {**line, "id": "c", "picture": "two.png"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_rows_with_photos(photo_rows):
    rows = read_rows(f"everyday-photos={photo_rows}")
    assert [(row.id, row.picture) for row in rows] == [
        ("a", str(photo_rows.parent / "one.png")), ("c", str(photo_rows.parent / "two.png")),
    ]  # fmt: skip
    assert [row.picture for row in read_rows(f"everyday={photo_rows}")] == ["", "", ""]
    assert open_photo(rows[0].picture).getpixel((0, 0)) == (255, 0, 0)
    (photo_rows.parent / "two.png").unlink()
    with pytest.raises(ValueError, match="There is no picture .*two.png"):
        read_rows(f"everyday-photos={photo_rows}")


def test_photos_of_the_rows_of_the_package_come_with_other_packages(monkeypatch, tmp_path):
    """A package of that name that is made here, so that neither the large one nor the network is needed."""
    monkeypatch.setattr("diffusers_r1.evaluation.photos.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="comes with scikit-.*: pip install scikit-"):
        read_rows("everyday-photos")
    monkeypatch.undo()
    (tmp_path / "skimage").mkdir()
    (tmp_path / "skimage" / "__init__.py").write_text("")
    (tmp_path / "skimage" / "data.py").write_text(
        "import numpy as np\n"
        "horse = lambda: np.eye(4, dtype=bool)\n"
        "stereo_motorcycle = lambda: (np.zeros((2, 6, 3), np.uint8), None, None)\n"
        "def rocket(): raise ModuleNotFoundError('pooch is missing')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "skimage"]:
        monkeypatch.delitem(sys.modules, name)
    names = [find_photo(f"skimage.data.{name}", tmp_path) for name in ("horse", "stereo_motorcycle", "rocket")]
    assert open_photo(names[0]).getpixel((1, 1)) == (255, 255, 255) and open_photo(names[1]).size == (6, 2)
    with pytest.raises(ValueError, match="skimage.data.rocket cannot be had: pooch is missing"):
        open_photo(names[2])
    with pytest.raises(ValueError, match="scikit-image has no picture skimage.data.hose"):
        find_photo("skimage.data.hose", tmp_path)


def test_a_planner_that_sees_is_shown_the_photos(photo_rows, planner, prompts, tmp_path):
    model, processor = planner
    save_planner(tmp_path / "seeing", model, processor, prompts)
    both = ["everyday", "everyday-photos"]
    evaluate_planners(tmp_path / "run", [f"{name}={photo_rows}" for name in both], [str(tmp_path / "seeing")],
                      max_new_tokens=12)  # fmt: skip
    answers = {line["key"]: line["plan"]["raw"] for line in records.read(tmp_path / "run" / "planner_answers.jsonl")}
    for key, name in (("everyday-photos/a", "one.png"), ("everyday-photos/c", "two.png"), ("everyday/a", None)):
        image = name and load_picture(photo_rows.parent / name)
        (alone,) = make_plans(model, processor if name else processor.tokenizer, [image], ["no crumbs"], prompts,
                              retries=0, max_new_tokens=12)  # fmt: skip
        assert answers[key] == list(alone.raw)


def test_paraphrases_are_a_row_each(tmp_path):
    path = tmp_path / "paraphrases.jsonl"
    path.write_text(
        json.dumps({"id": "p1", "trade": "food", "wordings": ["no crumbs", "crumbs out"], "edits": [vars(MAN)]})
    )
    first, second = read_rows(f"paraphrases={path}")
    assert (first.id, second.instruction, second.edits) == ("p1-0", "crumbs out", (MAN,))
    assert first.group == second.group == "p1"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("psr", "no benchmark of planners"),
        ("everyday=no/such/file", "no no/such/file"),
        ("complexbench-edit", "complexbench-edit=FILE"),
    ],
)
def test_rows_that_are_not_there(name, message):
    with pytest.raises(ValueError, match=message):
        read_rows(name)


def test_a_file_of_another_layout_is_refused(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"id": "5", "steps": STEPS, "edits": PAIRS[:2]}]))
    with pytest.raises(ValueError, match="rows.json: row 1: `steps` has 3 steps, `edits` 2 edits"):
        read_rows(f"complexbench-edit={path}")


EVERYDAY = {"id": "1", "instruction": "no hat", "edits": [vars(HAT)], "requests": ["Remove the hat."]}
PARAPHRASE = {"id": "1", "wordings": ["no hat"], "edits": [vars(HAT)]}
COMPLEX = {"id": "1", "steps": STEPS, "edits": PAIRS}


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("benchmark", "content", "message"),
    [
        ("everyday", "", "rows has no rows"),
        ("everyday", json.dumps([EVERYDAY]), "rows: row 1 must be an object"),
        ("everyday", json.dumps([EVERYDAY], indent=1), "rows: row 1 cannot be read as JSON"),
        ("everyday", lines(EVERYDAY) + '{"id": "2"', "rows: row 2 cannot be read as JSON"),
        ("everyday", lines(EVERYDAY, {**EVERYDAY, "id": 1}), "rows: row 2: `id` is '1', as in row 1"),
        (
            "everyday",
            lines(EVERYDAY, {"id": "2", "instruction": "x", "edits": []}),
            "rows: row 2: `requests` is missing",
        ),
        (
            "everyday",
            lines({**EVERYDAY, "edits": [{**vars(HAT), "goal": None}]}),
            r"row 1: `edits\[0\].goal` must be text",
        ),
        ("everyday", lines({**EVERYDAY, "edits": [{**vars(HAT), "x": 1}]}), r"row 1: `edits\[0\]` has no `x`"),
        (
            "everyday",
            lines({**EVERYDAY, "edits": [{**vars(HAT), "subject": " "}]}),
            "row 1: `edits` has a text without",
        ),
        ("everyday", lines({**EVERYDAY, "befor": []}), "row 1 has no `befor`"),
        ("everyday", lines({**EVERYDAY, "before": [0, 1]}), r"row 1: `before\[0\]` must be a list of 2"),
        ("everyday", lines({**EVERYDAY, "before": [[0, 1]]}), r"row 1: `before` has \[0, 1\]"),
        ("everyday", lines({**EVERYDAY, "instruction": ""}), "row 1: `instruction` has a text without"),
        ("everyday", lines({**EVERYDAY, "requests": "Remove it."}), "row 1: `requests` must be a list of text"),
        ("everyday-photos", lines(EVERYDAY, {**EVERYDAY, "id": "2", "picture": None}), "no rows with a `picture`"),
        ("everyday-photos", lines({**EVERYDAY, "picture": "a.png"}), "row 1: `picture`: There is no picture"),
        ("paraphrases", lines({**PARAPHRASE, "wordings": "no hat"}), "row 1: `wordings` must be a list of text"),
        ("paraphrases", lines({**PARAPHRASE, "wordings": []}), "row 1: `wordings` is empty"),
        ("paraphrases", lines(PARAPHRASE, PARAPHRASE), "row 2: `id` is '1', as in row 1"),
        ("complexbench-edit", "[]", "rows has no rows"),
        ("complexbench-edit", lines(COMPLEX, COMPLEX), "rows cannot be read as JSON"),
        ("complexbench-edit", '{"81": 1}', "row 81 must be an object"),
        ("complexbench-edit", json.dumps([{"id": "1", "edits": PAIRS}]), "row 1: `steps` is missing"),
        (
            "complexbench-edit",
            json.dumps([{**COMPLEX, "edits": [{**PAIRS[0], "edit_type": "jump"}, *PAIRS[1:]]}]),
            r"row 1: `edits\[0\]`: `edit_type` must be one of .* not 'jump'",
        ),
        (
            "complexbench-edit",
            json.dumps([{**COMPLEX, "edits": [{**PAIRS[0], "ori obj": None}, *PAIRS[1:]]}]),
            r"row 1: `edits\[0\]`: `ori obj` must be text",
        ),
        ("magicbrush-sessions", '[{"img_id": 1}]', "row 1: `turns` is missing"),
        ("magicbrush-sessions", '[{"img_id": 1, "turns": "abc"}]', "row 1: `turns` must be a list of text"),
        ("magicbrush-sessions", '[{"img_id": 1, "turns": ["a", "."]}]', "row 1: `turns` has a text without"),
        ("magicbrush-sessions", '[{"img_id": 1, "turns": ["a"]}]', "no session of two turns"),
        (
            "magicbrush-sessions",
            '[{"img_id": 1, "turns": ["a", "b"]}, {"img_id": "1", "turns": ["c", "d"]}]',
            "row 2: `id` is '1', as in row 1",
        ),
    ],
)
def test_rows_of_ones_own_are_refused_by_file_and_row(benchmark, content, message, tmp_path):
    (tmp_path / "rows").write_text(content)
    with pytest.raises(ValueError, match=message):
        evaluate_planners(tmp_path / "run", [f"{benchmark}={tmp_path / 'rows'}"], ["rule"])
    assert not (tmp_path / "run").exists()


def test_a_row_that_is_wrong_is_refused_beyond_the_limit_too(tmp_path):
    (tmp_path / "rows").write_text(lines(EVERYDAY, {}))
    with pytest.raises(ValueError, match="row 2: `id` is missing"):
        read_rows(f"everyday={tmp_path / 'rows'}", limit=1)


def test_rows_to_train_on_can_be_measured_on(tmp_path):
    (tmp_path / "rows").write_text(lines({**EVERYDAY, "trade": "food", "reasoning": "a hat", "picture": None}))
    assert [row.edits for row in read_rows(f"everyday={tmp_path / 'rows'}")] == [(HAT,)]


def test_steps_are_joined_by_seed():
    joined = {join(["a", "b", "c"], str(seed)) for seed in range(60)}
    assert joined == {"a, b, c", "a, b, and c", "a and b and c", "a. b. c", "a, then b, then c", "a, b and then c"}
    assert join(["a", "b"], "7") == join(["a", "b"], "7")


# Figures
# -------


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        (
            (HAT, MAN),
            {
                "number": 1,
                "action_f1": 1,
                "subject_f1": 1,
                "goal_f1": 1,
                "exact": 1,
                "same": 1,
                "omitted": 0,
                "invented": 0,
            },
        ),
        ((Edit("recolor", "man's hat", "red"), MAN), {"number": 1, "action_f1": 1, "exact": 0, "same": 1}),
        ((HAT,), {"number": 0, "action_f1": 2 / 3, "exact": 0, "omitted": 1, "invented": 0}),
        ((HAT, MAN, CUP), {"number": 0, "action_f1": 0.8, "exact": 0, "omitted": 0, "invented": 1}),
        ((Edit("recolour", "hat", "red"), MAN), {"number": 1, "action_f1": 1, "exact": 1}),
        ((Edit("recolor", "hat", "blue"), MAN), {"goal_f1": 0.5, "exact": 0, "same": 0, "omitted": 0, "invented": 0}),
        ((CUP, CUP), {"number": 1, "action_f1": 0, "subject_f1": 0, "omitted": 2, "invented": 2}),
        ((), {"number": 0, "action_f1": 0, "omitted": 2, "invented": 0}),
    ],
)
def test_marks(answered, expected):
    found = marks(Row("everyday", "1", "x", 2, (HAT, MAN)), plan(*answered))
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_what_is_not_known_is_not_marked():
    row = Row("complexbench-edit", "1", "x", 1, (Edit("recolor", "hat", ""),))
    found = marks(row, plan(HAT))
    assert found["action_f1"] == found["subject_f1"] == 1.0
    assert found["goal_f1"] is found["exact"] is found["same"] is found["order"] is None
    assert marks(Row("magicbrush-sessions", "1", "x", 1), plan(HAT))["action_f1"] is None


def test_format_is_that_of_both_answers():
    row = Row("everyday", "1", "x", 1, (HAT,))
    good = write_decomposition([HAT], "think"), write_sequence(["do it"])
    assert marks(row, plan(HAT, raw=good))["format"] == 1.0
    assert marks(row, plan(HAT, raw=(good[0].replace("<goal>", ""), good[1])))["format"] == 0.0
    assert marks(row, plan(HAT, raw=(good[0], good[1] + "!")))["format"] == 0.0


def test_counterparts_are_one_to_one():
    other = Edit("recolor", "hat of the man", "blue")
    assert counterparts([other, HAT], [HAT, MAN]) == [(0, 1), (1, 0)]
    assert counterparts([], [HAT]) == counterparts([CUP], [HAT]) == []


def test_order_is_read_from_the_requests():
    row = Row("everyday", "1", "x", 2, (CUP, HAT), ("add a cup", "make the hat red"), before=((0, 1),))
    assert order(("put a cup on the table", "make the hat red"), row) == 1.0
    assert order(("make the hat red", "put a cup on the table"), row) == 0.0
    assert order(("make the hat red",), row) == 0.0


def test_agreement_is_of_pairs_and_in_meaning():
    assert agreement([plan(HAT, MAN), plan(MAN, HAT), plan(HAT)]) == pytest.approx(1 / 3)
    assert agreement([plan(HAT), plan(Edit("dye", "the man's hat", "red")), plan(Edit("recolor", "hat", "blue"))]) == (
        pytest.approx(1 / 3)
    )
    assert agreement([plan(), plan()]) == 0.0


def test_the_rule_knows_commas_and_verbs():
    made = split_by_rule("Remove the dog, change the color of the car to blue and then add a hat to the man. Crop it")
    assert made.edits == (
        Edit("remove", "dog", "nothing"),
        Edit("recolor", "car", "blue"),
        Edit("add", "hat", "the man"),
        Edit("crop", "it", "changed"),
    )
    assert split_by_rule("...").edits == ()


# A run
# -----


def test_a_run_says_how_far_the_rule_is_from_the_truth(tmp_path):
    report = evaluate_planners(tmp_path, ["sentences", "reworded"], ["truth", "rule"], limit=40)
    tables = json.loads((tmp_path / "planners.json").read_text())
    truth, rule = (tables["sentences"][name]["figures"] for name in ("truth", "rule"))
    assert all(truth[figure]["mean"] == 1.0 for figure in ("format", "number", "action_f1", "exact", "order"))
    assert truth["omitted"]["mean"] == truth["invented"]["mean"] == 0.0
    assert rule["exact"]["high"] < 0.5 and rule["number"]["n"] == 40
    difference = tables["sentences"]["rule"]["difference"]["action_f1"]
    assert difference["mean"] == pytest.approx(rule["action_f1"]["mean"] - 1) and difference["high"] < 0
    assert tables["reworded"]["truth"]["figures"]["agreement"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 8}
    assert "| rule | 40 |" in report.read_text()


def test_the_same_call_again_goes_on(tmp_path):
    evaluate_planners(tmp_path, ["sentences"], ["rule"], limit=6)
    evaluate_planners(tmp_path, ["sentences"], ["rule"], limit=10)
    keys = [line["key"] for line in records.read(tmp_path / "planner_answers.jsonl")]
    assert len(keys) == len(set(keys)) == 10


def test_rows_of_another_truth_under_one_name_are_refused(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"id": "1", "steps": STEPS, "edits": PAIRS}]))
    evaluate_planners(tmp_path / "run", [f"complexbench-edit={path}"], ["rule"])
    path.write_text(json.dumps([{"id": "1", "steps": STEPS[::-1], "edits": PAIRS}]))
    with pytest.raises(ValueError, match="take another folder"):
        evaluate_planners(tmp_path / "run", [f"complexbench-edit={path}"], ["rule"])


@pytest.mark.parametrize(
    ("planners", "message"),
    [
        ([], "at least one"),
        (["x+fast"], r"not \+fast"),
        (["rule", "http://me:secret@host/v1"], "holds no names, keys"),
        (["http://host/v1+int8"], "loaded here, on the CPU"),
        (["rule+int8"], "rule is no model, so there is no \\+int8 of it"),
        (["truth+few-shot"], "truth is no model"),
        (["rule", "rule"], "Two of the planners are called rule"),
        (["rule", "no-such-planner"], "neither a folder nor a bundle"),
        (["rule", "imageedit-r1-scenes+constrained"], "needs `max_new_tokens` of"),
    ],
)
def test_planners_that_cannot_be(planners, message, tmp_path):
    with pytest.raises((OSError, ValueError), match=message):
        evaluate_planners(tmp_path / "run", ["sentences"], planners, limit=1, max_new_tokens=20)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("planner", "options", "message"),
    [
        ("imageedit-r1-smollm2", {"planner_base": "no/such+base"}, "adapter of no/such.base, which cannot be had"),
        ("imageedit-r1-scenes-sft", {"planner_base": "imageedit-r1-scenes"}, "imageedit-r1-scenes-sft is none"),
        ("truth", {"planner_base": "imageedit-r1-scenes"}, "no planner is one"),
        ("imageedit-r1-scenes", {"planner_model": "m"}, "`planner_model` goes with an address"),
        ("truth", {"limit": 0}, "`limit` must be 1 or more, not 0"),
        ("truth", {"limit": -1}, "`limit` must be 1 or more, not -1"),
        ("truth", {"batch_size": 0}, "`batch_size` must be 1 or more"),
        ("truth", {"concurrency": 0}, "`concurrency` must be 1 or more"),
        ("truth", {"max_new_tokens": 0}, "`max_new_tokens` must be 1 or more"),
        ("truth", {"max_new_tokens": 1.5}, "`max_new_tokens` must be 1 or more, not 1.5"),
        ("truth", {"seed": -600_000_000}, "`seed` must be a whole number, 0 or more"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_planner_plans(planner, options, message, tmp_path):
    with pytest.raises((OSError, ValueError), match=message):
        evaluate_planners(tmp_path / "run", ["sentences"], ["rule", planner], **options)
    assert not (tmp_path / "run").exists()


def test_folders_that_hold_no_planner(tmp_path):
    RemotePlanner("http://localhost:1/v1", "m").save_pretrained(tmp_path / "remote")
    (tmp_path / "empty").mkdir()
    for name, message in (("remote", "give the address"), ("empty", "has no config.json")):
        with pytest.raises((OSError, ValueError), match=message):
            evaluate_planners(tmp_path / "run", ["sentences"], ["rule", str(tmp_path / name)], limit=1)
    assert not (tmp_path / "run").exists()


def test_the_base_of_an_adapter_is_looked_for_in_the_end_that_the_adapter_names(tmp_path):
    """Nothing but what the folders say of themselves is read: there are no weights here."""
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "no such base"}))
    with pytest.raises(OSError, match="an adapter of no such base, which cannot be had"):
        _check_there(str(tmp_path / "adapter"), None)
    _check_there(str(tmp_path / "adapter"), "imageedit-r1-scenes")
    _check_there("imageedit-r1-scenes", None)


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "at least one benchmark"), (["everyday", "everyday"], "benchmarks are called everyday")],
)
def test_benchmarks_that_cannot_be(names, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        evaluate_planners(tmp_path / "run", names, ["rule"])


def test_a_benchmark_that_has_nothing_for_a_planner_is_named(tmp_path):
    (tmp_path / "rows").write_text('[{"img_id": 1, "turns": ["a", "b"]}]')
    names = ["sentences", f"magicbrush-sessions={tmp_path / 'rows'}"]
    with pytest.raises(ValueError, match="magicbrush-sessions has nothing for truth"):
        evaluate_planners(tmp_path / "run", names, ["truth"], limit=2)
    assert not (tmp_path / "run").exists()
    report = evaluate_planners(tmp_path / "run", names, ["truth", "rule"], limit=2).read_text()
    assert "all 5 rows are answered" in report and "magicbrush-sessions has nothing for truth" in report


def test_a_run_has_its_folder_for_itself(tmp_path):
    with records.only_one_in(tmp_path), pytest.raises(BlockingIOError, match="is in use"):
        evaluate_planners(tmp_path, ["sentences"], ["rule"], limit=1)
    assert not (tmp_path / "planner_rows.jsonl").exists()


@pytest.mark.tiny
@pytest.mark.parametrize("sees", [False, True])
def test_a_model_is_measured_whether_or_not_it_sees(sees, tmp_path, prompts, monkeypatch):
    model, processor = tiny_models.tiny_planner() if sees else tiny_models.tiny_text_planner()
    save_planner(tmp_path / "tiny", model, processor, prompts)
    name = str(tmp_path / "tiny")
    planners = [name, f"{name}+few-shot+constrained", f"{name}+int8"]
    made_smaller, to_int8 = [], int8.to_int8
    monkeypatch.setattr(int8, "to_int8", lambda model: made_smaller.append(model) or to_int8(model))
    evaluate_planners(tmp_path / "run", ["sentences"], planners, limit=2, max_new_tokens=330)
    assert len(made_smaller) == 1 and any(isinstance(part, int8.Int8Linear) for part in made_smaller[0].modules())
    tables = json.loads((tmp_path / "run" / "planners.json").read_text())["sentences"]
    assert tables[name]["figures"]["format"]["mean"] == 0.0
    assert tables[planners[1]]["figures"]["format"]["mean"] == 1.0
    for table in tables.values():
        assert table["figures"]["seconds"]["mean"] > 0 and 1 <= table["figures"]["tokens"]["mean"] <= 2 * 331


def true_answers(rows: list[Row]) -> dict[str, tuple[str, str]]:
    return {row.instruction: (write_decomposition(row.edits), write_sequence(row.requests)) for row in rows}


def test_a_planner_behind_an_address_is_asked_both_questions(tmp_path):
    answers = true_answers(read_rows("sentences", limit=3)[:2]) | {"": ("I cannot do that.", "")}
    with planning(answers) as server:
        server.files["/v1/models"] = json.dumps({"data": [{"id": "served"}]}).encode()
        evaluate_planners(tmp_path, ["sentences"], [server.url, f"{server.url}+few-shot"], limit=3, concurrency=1)
    tables = json.loads((tmp_path / "planners.json").read_text())["sentences"]
    assert list(tables) == ["served", "served+few-shot"]  # not by the address, which is nobody else's business
    for table in tables.values():
        figures = table["figures"]
        assert figures["format"]["mean"] == figures["exact"]["mean"] == pytest.approx(2 / 3)
        assert figures["tokens"]["mean"] == pytest.approx((14 + 14 + 7) / 3)
    assert server.url not in (tmp_path / "planners.json").read_text()


def test_what_counts_was_answered_under_the_settings_of_this_run(tmp_path):
    """Two servers that call their models the same, then the first one again, whose answers are there."""
    right, wrong = (
        true_answers(read_rows("sentences", limit=2)),
        {"": (write_decomposition([CUP]), write_sequence(["add a cup"]))},
    )
    with planning(right) as first, planning(wrong) as second:
        with pytest.raises(ValueError, match="Two of the planners are called m"):
            evaluate_planners(tmp_path, ["sentences"], [first.url, second.url], limit=2, planner_model="m")
        for server, exact in ((first, 1.0), (second, 0.0), (first, 1.0)):
            evaluate_planners(tmp_path, ["sentences"], [server.url], limit=2, planner_model="m")
            tables = json.loads((tmp_path / "planners.json").read_text())
            assert tables["sentences"]["m"]["figures"]["exact"]["mean"] == exact
        assert len(first.requests) == len(second.requests) == 4


def test_seconds_are_of_one_way_to_ask(tmp_path):
    """A run that is gone on with in another way has figures of that way alone."""
    with planning(true_answers(read_rows("sentences", limit=2))) as server:
        for concurrency, asked in ((8, 4), (1, 8), (1, 8), (8, 8)):
            evaluate_planners(tmp_path, ["sentences"], [server.url], 2, planner_model="m", concurrency=concurrency)
            assert len(server.requests) == asked
    settings = [
        planners.local("p", str(tmp_path), **given).settings
        for given in ({}, {"batch_size": 8, "device": "cpu"}, {"batch_size": 1}, {"device": "cuda"})
    ]
    assert settings[0] == settings[1] and len({str(one) for one in settings}) == 3


@contextmanager
def failing(server: Scripted, word: str, status: int) -> Iterator[None]:
    """Within the block the server answers with an error where it is asked about that word."""
    plain = server.replies[0]

    def reply(handler: ScriptedHandler) -> None:
        body = handler.server.requests[-1][2]
        if word.encode() in body:
            return handler.answer(status, {"error": {"message": "no"}}, {"Retry-After": "0.01"})
        return handler.answer(200, plain[1](body), {})

    server.replies[0] = reply
    yield
    server.replies[0] = plain


@pytest.fixture
def three_rows(tmp_path):
    (tmp_path / "rows").write_text(
        lines(*({**EVERYDAY, "id": word, "instruction": f"no {word}"} for word in ("one", "two", "three")))
    )
    return f"everyday={tmp_path / 'rows'}"


@pytest.mark.parametrize("status", [400, 503])
def test_a_row_that_fails_is_passed_over_and_asked_for_again(status, three_rows, tmp_path, capsys):
    answers = {"": (write_decomposition([HAT]), write_sequence(["Remove the hat."]))}
    with planning(answers) as server:
        call = ["evaluate", "--output_dir", str(tmp_path / "run"), "--benchmark", three_rows, "--concurrency", "1",
                "--planners", server.url, "--planner_model", "m"]  # fmt: skip
        with failing(server, "no two", status):
            assert main(call) == 1
        assert "1 of 3 rows are without an answer; planner_answers.jsonl says why" in capsys.readouterr().err
        report = (tmp_path / "run" / "planners.md").read_text()
        assert report.startswith("# Planners: 1 of 3 rows are without an answer\n") and "| m | 2 |" in report
        first, failed, third = records.read(tmp_path / "run" / "planner_answers.jsonl")
        assert failed["plan"] is None and failed["kind"] == ("refused" if status == 400 else "outage")
        asked = len(server.requests)
        assert main(call) == 0 and len(server.requests) == asked + 2
    report = (tmp_path / "run" / "planners.md").read_text()
    assert report.startswith("# Planners: all 3 rows are answered\n") and "| m | 3 |" in report


def test_a_report_of_no_answer_at_all(three_rows, tmp_path):
    with planning({"": ("", "")}) as server, failing(server, "no ", 400):
        report = evaluate_planners(tmp_path / "run", [three_rows], [server.url], planner_model="m", concurrency=1)
    assert report.read_text().startswith("# Planners: 3 of 3 rows are without an answer\n")


@pytest.mark.parametrize(("status", "recorded"), [(404, 0), (503, 10)])
def test_a_run_that_can_come_to_nothing_ends(status, recorded, tmp_path):
    with planning({"": ("", "")}) as server, failing(server, "", status):
        with pytest.raises(EndpointError, match=str(status)):
            evaluate_planners(tmp_path, ["sentences"], [server.url], limit=12, planner_model="m", concurrency=1)
    assert len(records.read(tmp_path / "planner_answers.jsonl")) == recorded


def test_a_server_is_shown_the_photos(photo_rows, tmp_path):
    names = [f"everyday={photo_rows}", f"everyday-photos={photo_rows}"]
    with planning({"no crumbs": (write_decomposition([MAN]), write_sequence(["remove them"]))}) as server:
        evaluate_planners(tmp_path / "run", names, [server.url], planner_model="m", concurrency=1)
        bodies = [body for _, _, body in server.requests]
    assert [b"data:image/" in body for body in bodies] == [False] * 6 + [True] * 4
    tables = json.loads((tmp_path / "run" / "planners.json").read_text())
    assert tables["everyday-photos"]["m"]["figures"]["exact"]["mean"] == 1.0


def test_a_server_is_asked_for_the_format(tmp_path):
    with planning(true_answers(read_rows("sentences", limit=2))) as server:
        name = f"{server.url}+constrained"
        evaluate_planners(tmp_path, ["sentences"], [name], limit=2, planner_model="m", concurrency=1)
        bodies = [json.loads(body) for _, _, body in server.requests]
    assert len(bodies) == 4 and all("regex" in body for body in bodies)


def test_from_the_command_line(tmp_path, capsys):
    arguments = ["evaluate", "--output_dir", str(tmp_path), "--benchmark", "sentences", "--limit", "4"]
    assert main([*arguments, "--planners", "rule", "truth"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "planners.md")
    with planning(true_answers(read_rows("sentences", limit=4))) as server:
        assert main([*arguments, "--planner", server.url, "--planner_model", "served"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "planners.md")
    assert "served" in (tmp_path / "planners.md").read_text()
    assert main(arguments) == 2 and "--planners" in capsys.readouterr().err
    assert main([*arguments, "scenes", "--planners", "rule"]) == 2
