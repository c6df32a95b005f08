import json
import pickle
from collections import Counter

import pytest
from openai_server import said, scripted
from PIL import Image

from diffusers_r1.endpoints import Endpoint
from diffusers_r1.judging import (
    Checklist,
    ChecklistJudge,
    FunctionJudge,
    PictureMarks,
    ScenesJudge,
    VIEScore,
    VIEScoreJudge,
)
from diffusers_r1.scenes import sample_task


TASK = sample_task(3, "complex")
ROW = {
    "instruction": TASK.instruction,
    "actions": [edit.action for edit in TASK.edits],
    "subjects": [edit.subject for edit in TASK.edits],
    "goals": [edit.goal for edit in TASK.edits],
}
CHECKLIST = json.dumps(
    {"edits": [{"target": "Is it the star?", "effect": "Is it red?"}], "preservation": ["Is the rest the same?"]}
)


def redness(source: Image.Image, edited: Image.Image, row: dict) -> float:
    return edited.getpixel((0, 0))[0] / 255


class Answering:
    """Writes the checklist where it is asked to, and says yes to the rest but where `no` stands in the question."""

    def __init__(self, no: str = "nowhere"):
        self.no, self.asked = no, Counter()

    def __call__(self, body: bytes) -> dict:
        text = json.loads(body)["messages"][0]["content"][-1]["text"]
        self.asked["written" if "Write questions" in text else "answered"] += 1
        return said(CHECKLIST if "Write questions" in text else "no" if self.no in text else "yes")


def test_scenes_follow_from_the_row():
    judge = ScenesJudge()
    assert judge(TASK.image, TASK.target_image, ROW).reward == 1.0
    assert judge(TASK.image, TASK.image, ROW).reward == 0.0


def test_a_checklist_is_written_once_for_a_row_and_kept_for_the_next_start(tmp_path):
    path = tmp_path / "run" / "checklist.jsonl"
    answering = Answering(no="Is it red?")
    with scripted((200, answering, {})) as server:
        endpoint = Endpoint(server.url, "judge", max_retries=0)
        judge = ChecklistJudge(Checklist(endpoint), path)
        marks = [judge(TASK.image, TASK.target_image, ROW) for _ in range(2)]
        again = ChecklistJudge(Checklist(endpoint), path)(TASK.image, TASK.target_image, ROW)
        other = {**ROW, "instruction": "something else"}
        judge(TASK.image, TASK.target_image, other)
    assert answering.asked == {"written": 2, "answered": 4 * 3}
    assert marks[0].parts == {"target": 1.0, "effect": 0.0, "preservation": 1.0}
    assert marks[0] == marks[1] == again


def test_a_checklist_that_cannot_be_written_is_no_mark(tmp_path):
    with scripted((200, said("I would rather not."), {})) as server:
        judge = ChecklistJudge(Checklist(Endpoint(server.url, "judge", max_retries=0)), tmp_path / "checklist.jsonl")
        assert judge(TASK.image, TASK.target_image, ROW) is None
    assert not (tmp_path / "checklist.jsonl").exists()


@pytest.mark.parametrize(("score", "reward"), [("[9, 4]", 0.4), ("[0, 10]", 0.0)])
def test_viescore_is_a_tenth_and_pays_nothing_for_an_untouched_picture(score, reward):
    answers = [(200, said(f'{{"score": {part}}}'), {}) for part in (score, "[4, 10]" if reward else "[10, 10]")]
    with scripted(*answers) as server:
        marks = VIEScoreJudge(VIEScore(Endpoint(server.url, "judge", max_retries=0)))(TASK.image, TASK.image, ROW)
    assert marks.reward == pytest.approx(reward)
    assert set(marks.parts) == {"overall", "semantics", "quality"}


def test_a_function_of_ones_own():
    judge = FunctionJudge(f"{__name__}:redness")
    assert judge(TASK.image, Image.new("RGB", (8, 8), "red"), ROW) == 1.0


@pytest.mark.parametrize("name", ["no_such_module:judge", "json:no_such_function", ":judge", "json:"])
def test_a_function_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match="importable"):
        FunctionJudge(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("os:path", "no function, but a module"),
        ("os:sep", "no function, but a str"),
        ("json:loads", "with three values"),
    ],
)
def test_what_cannot_judge_is_refused_before_there_is_a_picture(name, said):
    with pytest.raises(ValueError, match=said):
        FunctionJudge(name)


@pytest.mark.parametrize(
    "judge",
    [
        ScenesJudge(),
        FunctionJudge(f"{__name__}:redness"),
        ChecklistJudge(Checklist(Endpoint("http://localhost:1/v1", "judge"))),
        VIEScoreJudge(VIEScore(Endpoint("http://localhost:1/v1", "judge"))),
    ],
    ids=lambda judge: type(judge).__name__,
)
def test_judges_can_be_pickled(judge):
    assert type(pickle.loads(pickle.dumps(judge))) is type(judge)


def test_marks_are_plain_values():
    assert PictureMarks(0.5, {"effect": 0.5}) == pickle.loads(pickle.dumps(PictureMarks(0.5, {"effect": 0.5})))
