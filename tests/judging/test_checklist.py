import json
from contextlib import ExitStack

import pytest
from openai_server import said, scripted
from PIL import Image

from diffusers_r1.endpoints import Endpoint, EndpointError
from diffusers_r1.judging.checklist import (
    ANSWER_AGAIN,
    Checklist,
    Part,
    Question,
    checklist_marks,
    questions_of,
    read_questions,
    read_yes_or_no,
)
from diffusers_r1.plan import Edit


BEFORE, AFTER = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
WRITTEN = {
    "edits": [
        {"target": "Is it the coat that changed?", "effect": "Is the coat red?"},
        {"target": "Is it the lamp that changed?", "effect": "Is the lamp gone?"},
    ],
    "preservation": ["Is the face the same?"],
}


@pytest.fixture
def judge():
    """A server that answers as it is told, and a checklist that asks it."""
    with ExitStack() as stack:

        def serve(*replies):
            server = stack.enter_context(
                scripted(*((200, said(text), {}) if isinstance(text, str) else text for text in replies))
            )
            return server, Checklist(Endpoint(server.url, "judge", max_retries=0), concurrency=1)

        yield serve


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("yes", True),
        ("Yes.", True),
        ("**No**, it is still blue.", False),
        ("<think>yes or no? The coat is blue.</think>no", False),
        ("", None),
        ("I cannot tell; nothing is known.", None),
        ("Yes and no.", None),
        ("Yesterday", None),
    ],
)
def test_yes_and_no_are_read_and_nothing_is_guessed(text, answer):
    assert read_yes_or_no(text) is answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot see the picture.",
        '{"edits": [], "preservation": ["Same?"]}',
        '{"edits": [{"target": "?", "effect": ""}], "preservation": ["Same?"]}',
        '{"edits": [{"target": "Is it the coat?"}], "preservation": ["Same?"]}',
        '{"edits": [{"target": "Is it?", "effect": "Is it?"}], "preservation": []}',
        '{"edits": [{"target": "Is it?", "effect": 3}], "preservation": ["Same?"]}',
        '{"edits": "all", "preservation": ["Same?"]}',
        "[1, 2]",
    ],
)
def test_half_a_checklist_is_none(text):
    assert read_questions(text) is None


def test_a_checklist_is_read_with_words_around_it():
    thought = '<think>The form is {"edits": [...]}. So the coat comes first.</think>'
    questions = read_questions(f"{thought}Here it is:\n```json\n{json.dumps(WRITTEN)}\n```")
    assert [(question.part.value, question.edit) for question in questions] == [
        ("target", 0),
        ("effect", 0),
        ("target", 1),
        ("effect", 1),
        ("preservation", None),
    ]
    assert questions[3].text == "Is the lamp gone?"


def test_questions_of_a_plan_name_each_edit():
    edits = [Edit("remove", "lamp", "nothing"), Edit("recolor", "coat", "red"), Edit("add", "cat", "left")]
    questions = questions_of(edits)
    for number, edit in enumerate(edits):
        own = [question for question in questions if question.edit == number]
        assert [question.part for question in own] == [Part.TARGET, Part.EFFECT]
        assert all(edit.subject in question.text for question in own)
    rest = [question.text for question in questions if question.edit is None]
    assert rest and all(edit.subject in text for text in rest for edit in edits)
    assert "red" in questions[3].text


@pytest.mark.parametrize(
    ("action", "asked"),
    [
        ("delete", "Is the lamp gone from the second picture?"),
        ("Take out", "Is the lamp gone from the second picture?"),
        ("insert", "Does the second picture have the lamp that the first does not have: brass?"),
        ("change background", "Is the background of the second picture now: brass?"),
        ("polish", 'After the change "polish", does the second picture show the lamp like this: brass?'),
    ],
)
def test_an_action_is_asked_about_by_whatever_name_it_has(action, asked):
    assert questions_of([Edit(action, "lamp", "brass")])[1].text == asked


def test_marks_pay_for_nothing_done_nothing():
    questions = read_questions(json.dumps(WRITTEN))
    assert checklist_marks(questions, [True] * 5).reward == 1.0
    assert checklist_marks(questions, [False] * 4 + [True]).reward == 0.0
    half = checklist_marks(questions, [True, True, False, False, True])
    assert half.parts == {"target": 0.5, "effect": 0.5, "preservation": 1.0}
    assert half.reward == 0.5
    assert checklist_marks(questions, [True, True, None, None, True]).reward == 1.0
    assert checklist_marks(questions, [True, None, True, None, True]) is None


def test_the_model_writes_questions_from_the_picture_and_is_asked_again(judge):
    server, checklist = judge("Sorry?", json.dumps(WRITTEN))
    assert checklist.write(BEFORE, "make the coat red") == read_questions(json.dumps(WRITTEN))
    first, second = (json.loads(body) for _, _, body in server.requests)
    assert "make the coat red" in json.dumps(first)
    assert json.dumps(first).count("data:image/png") == 1
    assert len(second["messages"]) == 3


def test_each_question_is_answered_about_both_pictures(judge):
    server, checklist = judge("yes", "no", "maybe", "maybe", "maybe", "yes")
    questions = [Question(Part.EFFECT, f"Question {number}?") for number in range(4)]
    assert checklist.answers(BEFORE, AFTER, questions) == [True, False, None, True]
    bodies = [body.decode() for _, _, body in server.requests]
    assert all(body.count("data:image/png") == 2 for body in bodies)
    assert sum(ANSWER_AGAIN in body for body in bodies) == 2


def test_a_server_that_fails_is_an_error_and_no_answer(judge):
    _, checklist = judge("yes", (503, {"error": {"message": "down"}}, {}))
    with pytest.raises(EndpointError):
        checklist.answers(BEFORE, AFTER, [Question(Part.EFFECT, "One?"), Question(Part.EFFECT, "Two?")])


def test_numbers_are_checked():
    with pytest.raises(ValueError, match="1 or more"):
        Checklist(Endpoint("http://localhost:1/v1", "judge"), attempts=0)
