"""The everyday instructions: whole, within their conventions, none of them twice, and those to train on apart from the rest."""

import json
import re
from collections import Counter
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path

import pytest
import skimage.data
import sklearn.datasets


ROOT = Path(__file__).parents[2]
DATA = ROOT / "src" / "diffusers_r1" / "sentences" / "data"
TO_TRAIN_ON = ROOT / "examples" / "smollm2"
WORDINGS = ROOT / "tests" / "data_files" / "wordings.jsonl"
PAGE = ROOT / "docs" / "everyday.md"

ACTIONS = {
    *("add", "remove", "replace", "recolor", "restyle", "background", "lighting"),
    *("material", "text", "pose", "move", "resize", "adjust", "crop"),
}
TRADES = {
    *("retouching", "product", "interior", "portrait", "real estate"),
    *("food", "meme", "document", "travel", "restoration"),
}
# Of the files that are in equal parts of the trades.
COUNTS = {"everyday_dev": 150, "everyday_test": 250, "paraphrases": 100, "everyday_train": 4000}
TRAIN = tuple(f"everyday_train{part}" for part in ("", "_2", "_3", "_4", "_5", "_6"))
SEEN = {"everyday_dev": 24, "everyday_test": 36}
PICTURE = re.compile(r"skimage\.data\.\w+|sklearn\.datasets\.load_sample_image:(china|flower)\.jpg")
NOT_A_NAME = {"the", "a", "an", "it", "its", "his", "her", "their", "this", "that"}
MARKS = re.compile(r";|</?\w+>")  # what the format of answers uses itself


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def instructions(row):
    return row.get("wordings") or [row["instruction"]]


def squeezed(text):
    return " ".join(re.findall(r"\w+", text.casefold()))


def triples(text):
    words = squeezed(text).split()
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


ROWS = {
    name: read((TO_TRAIN_ON if name in TRAIN else DATA) / f"{name}.jsonl") for name in dict.fromkeys((*COUNTS, *TRAIN))
}
TRAINED_ON = [row for name in TRAIN for row in ROWS[name]]
EVERYDAY = [row for name in (*SEEN, *TRAIN) for row in ROWS[name]]
ALL = [row for rows in ROWS.values() for row in rows]


@pytest.mark.parametrize("name", COUNTS)
def test_as_many_rows_as_promised_in_equal_parts_of_the_trades(name):
    rows = ROWS[name]
    assert len(rows) == COUNTS[name]
    start, digits = rows[0]["id"].rsplit("-", 1)
    assert [row["id"] for row in rows] == [f"{start}-{number:0{len(digits)}d}" for number in range(len(rows))]
    assert Counter(row["trade"] for row in rows) == dict.fromkeys(TRADES, len(rows) // len(TRADES))


def test_each_file_to_train_on_goes_on_after_the_one_before():
    assert [row["id"].rpartition("-")[2].lstrip("0") or "0" for row in TRAINED_ON] == [
        *map(str, range(len(TRAINED_ON)))
    ]
    assert all({row["trade"] for row in ROWS[name]} == TRADES for name in TRAIN)


def test_no_id_is_there_twice():
    ids = [row["id"] for row in [*ALL, *read(WORDINGS)]]
    assert len(set(ids)) == len(ids)


def test_no_instruction_is_there_twice():
    seen = Counter(squeezed(instruction) for row in ALL for instruction in instructions(row))
    assert [instruction for instruction, times in seen.items() if times > 1] == []


def test_the_keys_of_a_row():
    for row in EVERYDAY:
        assert {"id", "trade", "instruction", "edits", "requests"} <= set(row), row["id"]
        assert set(row) <= {"id", "trade", "picture", "instruction", "edits", "requests", "before", "reasoning"}, row[
            "id"
        ]
        assert len(row["requests"]) == len(row["edits"]), row["id"]
    for row in ROWS["paraphrases"]:
        assert set(row) - {"before"} == {"id", "trade", "wordings", "edits"}, row["id"]
        assert len(row["wordings"]) == 5, row["id"]


def test_one_to_ten_edits_mostly_two_to_four():
    sizes = Counter(len(row["edits"]) for name in SEEN for row in ROWS[name])
    assert min(sizes) == 1
    assert max(sizes) == 10
    assert sum(sizes[size] for size in (2, 3, 4)) > 0.75 * sizes.total()


def test_edits_keep_to_the_conventions():
    for row in ALL:
        for edit in row["edits"]:
            where = (row["id"], edit)
            assert list(edit) == ["action", "subject", "goal"], where
            action, subject, goal = edit.values()
            assert action in ACTIONS, where
            assert all(value == value.strip() != "" for value in edit.values()), where
            assert not MARKS.search(subject + goal), where
            assert (action == "remove") == (goal == "nothing"), where
            assert (action == "background") <= (subject == "background"), where
            assert (action == "crop") <= (subject == "whole picture"), where
            assert (action == "text") <= bool(re.match(r'".+"', goal)), where
            assert subject.split()[0].casefold() not in NOT_A_NAME, where


@pytest.mark.parametrize("name", [*SEEN, *TRAIN])
def test_every_action_is_there(name):
    assert {edit["action"] for row in ROWS[name] for edit in row["edits"]} == ACTIONS


def test_what_is_trained_on_shares_less_than_a_fifth_of_its_words_in_threes_with_any_other_row():
    others = [
        triples(instruction)
        for name in COUNTS
        if name not in TRAIN
        for row in ROWS[name]
        for instruction in instructions(row)
    ]
    having = {}
    for place, other in enumerate(others):
        for triple in other:
            having.setdefault(triple, []).append(place)
    for row in TRAINED_ON:
        own = triples(row["instruction"])
        shared = Counter(place for triple in own for place in having.get(triple, ()))
        close = [place for place, count in shared.items() if count >= 0.2 * len(own | others[place])]
        assert close == [], row["id"]


def test_the_reasoning_to_train_on_is_the_requests():
    for row in TRAINED_ON:
        clauses = [request[0].lower() + request[1:].rstrip(".") for request in row["requests"]]
        assert row["reasoning"] == " | ".join(clauses), row["id"]


def test_requests_are_sentences():
    for row in EVERYDAY:
        for request in row["requests"]:
            assert re.fullmatch(r'[A-Z].+\.("?)', request), (row["id"], request)
            assert not MARKS.search(request), (row["id"], request)
        assert len(set(row["requests"])) == len(row["requests"]), row["id"]


def test_the_order_that_matters_is_within_range_and_kept():
    for row in ALL:
        for first, second in row.get("before", []):
            assert 0 <= first < second < len(row["edits"]), row["id"]


def test_quoted_words_of_a_goal_stand_in_the_instruction():
    for row in EVERYDAY:
        for edit in row["edits"]:
            quoted = re.findall(r'"([^"]+)"', edit["goal"]) if edit["action"] == "text" else []
            # A price or a name may be written out in full, so that it is enough if its last word is there; or the word as it is
            # misspelt, where the edit is to mend it.
            missing = [words for words in quoted if words.split()[-1] not in row["instruction"]]
            missing = [
                words for words in missing if not get_close_matches(words.split()[-1], row["instruction"].split())
            ]
            assert missing == [], row["id"]


@pytest.mark.parametrize("name", SEEN)
def test_rows_about_pictures_name_one_that_can_be_had(name):
    pictures = [row["picture"] for row in ROWS[name] if "picture" in row]
    assert len(pictures) == SEEN[name]
    assert all(PICTURE.fullmatch(picture) for picture in pictures)


def test_the_pictures_are_in_the_packages():
    for picture in {row["picture"] for row in EVERYDAY if "picture" in row}:
        if picture.startswith("skimage"):
            assert callable(getattr(skimage.data, picture.removeprefix("skimage.data."))), picture
        else:
            assert sklearn.datasets.load_sample_image(picture.split(":")[1]).ndim == 3, picture


def test_the_page_explains_every_action_and_trade():
    text = PAGE.read_text(encoding="utf-8")
    assert [action for action in ACTIONS if f"| `{action}` |" not in text] == []
    assert [trade for trade in TRADES if f"`{trade}`" not in text] == []


def test_wordings_are_500_judged_pairs_about_half_of_them_right():
    rows = read(WORDINGS)
    assert len(rows) == 500
    assert 0.45 < sum(row["same"] for row in rows) / len(rows) < 0.55
    assert {row["field"] for row in rows} == {"action", "subject", "goal", "edits"}
    for row in rows:
        assert list(row) == ["id", "field", "answer", "truth", "same"], row["id"]
        assert isinstance(row["same"], bool), row["id"]
        for side in (row["answer"], row["truth"]):
            if row["field"] == "edits":
                assert all(list(edit) == ["action", "subject", "goal"] for edit in side), row["id"]
                assert side, row["id"]
            else:
                assert isinstance(side, str), row["id"]
                assert side.strip(), row["id"]


def test_no_wording_is_judged_twice_or_against_itself():
    rows = [json.dumps([row["field"], row["answer"], row["truth"]]) for row in read(WORDINGS)]
    assert [pair for pair, times in Counter(rows).items() if times > 1] == []
    judged = {
        (row["field"], json.dumps(row["answer"]), json.dumps(row["truth"])): row["same"] for row in read(WORDINGS)
    }
    for (field, answer, truth), same in judged.items():
        assert judged.get((field, truth, answer), same) == same, (answer, truth)


def test_wordings_of_one_instruction_differ():
    for row in ROWS["paraphrases"]:
        for one, other in combinations(row["wordings"], 2):
            assert squeezed(one) != squeezed(other), row["id"]
