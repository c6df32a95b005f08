"""Critics of edited pictures: what is there, what is missing, what was spoilt."""

import pytest
from PIL import Image

from diffusers_r1.endpoints import ChatCompletion
from diffusers_r1.judging import Checklist, ChecklistCritic, Criticism, ScenesCritic, edits_by_request
from diffusers_r1.judging.critics import questions_about
from diffusers_r1.plan import Edit, EditPlan
from diffusers_r1.scenes import (
    PLACES,
    apply_edits,
    contents,
    place_of_edit,
    read_request,
    render,
    sample_task,
    sub_request,
)
from diffusers_r1.scenes.language import EXPLICIT_WORDINGS


TASKS = [sample_task(seed, "complex") for seed in range(60)]
COAT, LAMP = Edit("recolor", "coat", "red"), Edit("remove", "lamp", "nothing")


def plan_of(task):
    return EditPlan(task.instruction, task.edits, task.sub_requests)


def test_requests_are_read_in_every_wording():
    edits = {edit for seed in range(300) for edit in sample_task(seed).edits}
    assert {edit.action for edit in edits} == set(EXPLICIT_WORDINGS)
    for edit in edits:
        for wording in EXPLICIT_WORDINGS[edit.action]:
            assert read_request(wording.format(subject=f"the {edit.subject}", goal=edit.goal)) == edit
        assert read_request(f" {sub_request(edit).capitalize()}. ") == edit


@pytest.mark.parametrize(
    "text",
    ["", "remove the coat", "make the red circle", "make the red circle teal", "remove everything but the red star"],
)
def test_what_is_no_request_about_scenes_is_none(text):
    assert read_request(text) is None


@pytest.mark.parametrize("task", TASKS[:20], ids=lambda task: str(task.seed))
def test_the_place_of_an_edit_is_what_it_changes(task):
    for edit in task.edits:
        before, after = contents(task.scene), contents(apply_edits(task.scene, [edit]))
        assert [number for number in range(10) if before[number] != after[number]] == [place_of_edit(task.scene, edit)]
    assert place_of_edit(task.scene, Edit("remove", "purple hexagon", "nothing")) is None


@pytest.mark.parametrize("task", TASKS, ids=lambda task: str(task.seed))
def test_scenes_are_judged_exactly(task):
    plan, critic, count = plan_of(task), ScenesCritic(), len(task.edits)
    assert critic(task.image, task.target_image, plan, "") == Criticism((True,) * count)
    assert critic(task.image, task.image, plan, "") == Criticism((False,) * count)
    for place in range(count):  # each edit left out is the one that is missing
        left = [edit for number, edit in enumerate(task.edits) if number != place]
        found = critic(task.image, render(apply_edits(task.scene, left)), plan, "")
        assert found.missing == (place,) and not found.spoilt and found.faults == 1
    was, should = contents(task.scene), contents(task.target_scene)
    for place in (place for place in range(9) if was[place] == should[place] != "nothing"):  # each item lost is spoilt
        found = critic(task.image, render(task.target_scene.with_cell(place, None)), plan, "")
        assert found == Criticism((True,) * count, (f"{PLACES[place]}: {was[place]} became nothing",))


def test_what_cannot_be_read_is_unknown_and_nothing_is_called_spoilt():
    task = TASKS[0]
    gone = next(edit for edit in sample_task(1, "simple").edits)
    for request in ("tidy up", sub_request(Edit("remove", "white star", "nothing"))):
        if task.scene.items and any(str(item) == "white star" for item in task.scene.items):
            continue
        found = ScenesCritic()(task.image, task.target_image, EditPlan("", (gone,), (request,)), "")
        assert found == Criticism((None,)) and not found.finds_fault and found.faults == 1


def test_a_photo_is_refused():
    with pytest.raises(ValueError, match="shows no scene"):
        ScenesCritic()(Image.effect_noise((64, 64), 90), TASKS[0].image, plan_of(TASKS[0]), "")


@pytest.mark.parametrize(
    ("edits", "requests", "belonging"),
    [
        ((COAT, LAMP), ("make the coat red", "remove the lamp"), [[COAT], [LAMP]]),
        ((COAT, LAMP), ("remove the lamp", "make the coat red"), [[LAMP], [COAT]]),
        ((COAT, LAMP), ("make the coat red and remove the lamp",), [[COAT, LAMP]]),
        ((COAT,), ("brighten it", "make the coat red"), [[], [COAT]]),
        ((LAMP, LAMP), ("remove the lamp", "remove the lamp"), [[LAMP], [LAMP]]),
        ((), ("make the coat red",), [[]]),
        ((COAT,), ("tidy up",), [[]]),
    ],
)
def test_edits_belong_to_the_requests_that_ask_for_them(edits, requests, belonging):
    assert edits_by_request(EditPlan("", edits, requests)) == belonging


class Answering:
    """A model's side of a conversation: yes, but to what is about `wrong`, and nonsense about `unclear`."""

    model = "answering"

    def __init__(self, wrong=(), unclear=()):
        self.wrong, self.unclear, self.asked = wrong, unclear, []

    def chat(self, messages, temperature, max_tokens):
        pictures = [part["image"] for part in messages[0]["content"] if part["type"] == "image"]
        question = messages[0]["content"][-1]["text"].split("\n\n")[1]
        self.asked.append((question, len(pictures)))
        unclear = any(word in question for word in self.unclear)
        return [
            ChatCompletion("well" if unclear else "no" if any(word in question for word in self.wrong) else "yes", "")
        ]


def criticism_of(plan, **answers):
    model = Answering(**answers)
    picture = Image.new("RGB", (8, 8))
    return ChecklistCritic(Checklist(model, concurrency=1, attempts=1))(picture, picture, plan, ""), model.asked


def test_a_checklist_says_what_is_missing_and_spoilt():
    plan = EditPlan("", (COAT, LAMP), ("remove the lamp", "make the coat red"))
    found, asked = criticism_of(plan)
    assert found == Criticism((True, True)) and len(asked) == 4 and {pictures for _, pictures in asked} == {2}
    assert criticism_of(plan, wrong=["the coat like"])[0] == Criticism((True, False))
    assert criticism_of(plan, unclear=["lamp gone"], wrong=["the coat like"])[0] == Criticism((None, False))
    spoilt, _ = criticism_of(plan, wrong=["smears"])
    assert spoilt.there == (True, True) and len(spoilt.spoilt) == 1 and "smears" in spoilt.spoilt[0]


def test_a_request_without_an_edit_is_asked_about_in_its_own_words():
    plan = EditPlan("", (), ("brighten it", "make the coat red"))
    questions = questions_about(plan)
    assert [question.edit for question in questions] == [0, 1, None]
    assert all(
        request in questions[number].text and request in questions[2].text
        for number, request in enumerate(plan.requests)
    )
    assert criticism_of(plan, wrong=['"brighten it"'])[0] == Criticism((False, True))


def test_what_is_unknown_counts_as_a_fault_but_is_not_asked_for_again():
    assert Criticism((None, True)).faults == 1 and not Criticism((None, True)).finds_fault
    assert Criticism((False, None), ("x",)).faults == 3 and Criticism((False, None), ("x",)).missing == (0,)
