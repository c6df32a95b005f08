import pickle
import random
import subprocess
import sys

import numpy as np
import pytest

from diffusers_r1.plan import Edit
from diffusers_r1.rewards import ActionReward, FormatReward, GoalReward, SubjectReward, answer_text, is_hack, marks
from diffusers_r1.tags import read_decomposition, write_decomposition


INSTRUCTION = "Turn the coat red and get rid of the man behind it"
TRUTH = {"actions": ["recolor", "remove"], "subjects": ["coat", "man"], "goals": ["red", "nothing"]}
COLUMNS = {"instruction": INSTRUCTION, **TRUTH}
REWARDS = (FormatReward(), ActionReward(), SubjectReward(), GoalReward())


def answer(actions: str, subjects: str, goals: str, think: str = "a coat; a man") -> str:
    return f"<think>{think}</think><action>{actions}</action><subject>{subjects}</subject><goal>{goals}</goal>"


def score(reward, *completions, log_extra=None, **columns):
    rows = {name: [value] * len(completions) for name, value in {**COLUMNS, **columns}.items()}
    trl = {"log_extra": log_extra, "log_metric": None, "trainer_state": None}
    return reward(prompts=[None] * len(completions), completions=list(completions), **trl, **rows)


RIGHT = answer("recolor; remove", "coat; man", "red; nothing")
LISTS = RIGHT.split("</think>")[1]
ALL_ACTIONS = ("recolor", "remove", "add", "replace", "background")


@pytest.mark.parametrize(
    ("completion", "format_", "action", "subject", "goal"),
    [
        # good
        (RIGHT, 1, 1, 1, 1),
        (answer("remove; recolor", "man; coat", "nothing; red"), 1, 1, 1, 1),
        (answer("Erase; re-colour; recolour", "the man; coat; hat", "nothing; red; blue"), 1, 0.8, 0.8, 0.8),
        (answer("delete; paint", "The man.; a Coat", "Nothing; RED"), 1, 1, 1, 1),
        (answer("recolor", "coat", "red"), 1, 2 / 3, 2 / 3, 2 / 3),
        (answer("recolor; remove", "coat; dog", "blue; nothing"), 1, 1, 0.5, 0.5),
        (answer("add; blur", "hat; sky", "top; soft"), 1, 0, 0, 0),
        # slips, read as far as they go
        (LISTS, 0, 1, 1, 1),
        (RIGHT.removesuffix("</goal>"), 0, 1, 1, 1),
        (RIGHT.removeprefix("<think>"), 1, 1, 1, 1),  # the chat template has opened it
        ("</think>" + LISTS, 1, 1, 1, 1),
        (answer("recolor; ", "coat; man", "red; nothing"), 0, 2 / 3, 2 / 3, 2 / 3),
        ("<subject>coat; man</subject>" + RIGHT.replace("<subject>coat; man</subject>", ""), 0, 1, 1, 1),
        # broken
        ("", 0, 0, 0, 0),
        ("I would recolor the coat and remove the man.", 0, 0, 0, 0),
        ("<think>coat</think><action>recolor; remove</action>", 0, 0, 0, 0),
        (answer("", "", ""), 0, 0, 0, 0),
        (RIGHT.replace("coat; man</subject>", "coat</subject>"), 0, 0, 0, 0),
        (RIGHT + " Done!", 0, 0, 0, 0),
        ("Sure: " + RIGHT, 0, 0, 0, 0),
        (RIGHT + "</goal>", 0, 0, 0, 0),
        (RIGHT + "<sequence>make the coat red</sequence>", 0, 0, 0, 0),
        # tags inside <think>, tags again and again
        (f"<think>{LISTS}</think>", 0, 0, 0, 0),
        (answer("recolor; remove", "coat; man", "red; nothing", think=LISTS), 0, 0, 0, 0),
        (RIGHT + LISTS, 0, 0, 0, 0),
        (RIGHT + RIGHT, 0, 0, 0, 0),
        (RIGHT.replace("<action>", "<action>add</action><action>"), 0, 0, 0, 0),
        ("<action><subject><goal>" * 50 + RIGHT, 0, 0, 0, 0),
        # the same edit again, all of it or worded anew
        (answer("remove; remove", "man; man", "nothing; nothing"), 1, 0, 0, 0),
        (answer("remove; remove; recolor", "man; the man; coat", "nothing; Nothing.; red"), 1, 0, 0, 0),
        (answer("; ".join(["recolor"] * 40), "; ".join(["coat"] * 40), "; ".join(["red"] * 40)), 1, 0, 0, 0),
        (answer("remove; erase", "man; man", "nothing; gone"), 1, 0, 0, 0),
        (answer("Taking out; deleting; recolor", "man; the man; coat", "nothing; nothing; red"), 1, 0, 0, 0),
        # every action at once, on one subject each or in one item
        (answer("; ".join(ALL_ACTIONS), "; ".join(["coat"] * 5), "; ".join(["red"] * 5)), 1, 0, 0, 0),
        (answer(" ".join(ALL_ACTIONS), "coat", "red"), 1, 0, 2 / 3, 2 / 3),
        (answer("; ".join(ALL_ACTIONS[:4]), "; ".join(["coat"] * 4), "; ".join(["red"] * 4)), 1, 2 / 3, 1 / 3, 1 / 3),
        # the instruction copied whole
        (answer("recolor", INSTRUCTION, INSTRUCTION), 1, 0, 0, 0),
        (answer(INSTRUCTION, INSTRUCTION, INSTRUCTION), 1, 0, 0, 0),
        (answer("recolor; remove", f"coat; please {INSTRUCTION}!", "red; nothing"), 1, 0, 0, 0),
    ],
)
def test_what_an_answer_scores(completion, format_, action, subject, goal):
    assert [score(reward, completion)[0] for reward in REWARDS] == pytest.approx([format_, action, subject, goal])
    soft = [score(reward, completion)[0] for reward in (SubjectReward(soft=True), GoalReward(soft=True))]
    assert all(0 <= strict <= partly + 1e-9 for strict, partly in zip((subject, goal), soft))
    if is_hack(read_decomposition(completion), [Edit(*items) for items in zip(*TRUTH.values())], INSTRUCTION):
        assert soft == [0, 0]


def test_nothing_beats_the_right_answer():
    rng = random.Random(0)
    words = ["coat", "man", "red", "nothing", "recolor", "remove", "add", INSTRUCTION]
    right = sum(score(reward, RIGHT)[0] for reward in REWARDS)
    for _ in range(500):
        count = rng.randint(1, 6)
        lists = ["; ".join(rng.choices(words, k=count)) for _ in range(3)]
        assert sum(score(reward, answer(*lists))[0] for reward in REWARDS) <= right


@pytest.mark.parametrize(
    "completion",
    [
        RIGHT,
        [{"role": "assistant", "content": RIGHT}],
        [
            {
                "role": "assistant",
                "content": [{"type": "text", "text": RIGHT[:30]}, {"type": "text", "text": RIGHT[30:]}],
            }
        ],
        [{"role": "assistant", "content": "thinking ..."}, {"role": "assistant", "content": RIGHT}],
    ],
)
def test_forms_of_a_completion(completion):
    assert answer_text(completion) == RIGHT
    assert [score(reward, completion) for reward in REWARDS] == [[1.0]] * 4


@pytest.mark.parametrize(
    "completion", [[], [{}], None, 3, [{"role": "assistant", "content": None}], [{"content": [3, {"text": 4}]}], b"x"]
)
def test_a_completion_without_text_is_a_wrong_answer(completion):
    assert answer_text(completion) == ""
    assert [score(reward, completion) for reward in REWARDS] == [[0.0]] * 4


def test_no_completion_raises():
    rng = random.Random(1)
    pieces = [RIGHT, "<think>", "</goal>", "<action>", ";", "\x00", "漢", "a" * 500, "<", INSTRUCTION]
    texts = ["".join(rng.choices(pieces, k=rng.randint(0, 8))) for _ in range(300)]
    for reward in (*REWARDS, SubjectReward(soft=True)):
        assert all(0.0 <= value <= 1.0 for value in score(reward, *texts))


def test_a_row_without_truth_is_left_out():
    for reward in REWARDS[1:]:
        assert reward(prompts=["p"], completions=[RIGHT]) == [None]
        assert score(reward, RIGHT, actions=None, subjects=None, goals=None) == [None]
        assert score(reward, RIGHT, actions=[], subjects=[], goals=[]) == [None]
    columns = {"actions": [["recolor", "remove"], None], "subjects": [None, None], "goals": [None, None]}
    assert ActionReward()(prompts=["p"] * 2, completions=[RIGHT, ""], **columns) == [1.0, None]
    assert SubjectReward()(prompts=["p"] * 2, completions=[RIGHT, ""], **columns) == [None, None]


def test_a_truth_that_holds_an_edit_twice_or_the_instruction_can_be_answered():
    two_birds = {"actions": ["add", "add"], "subjects": ["bird", "bird"], "goals": ["sky", "sky"]}
    completion = answer("add; add", "bird; bird", "sky; sky")
    assert [score(reward, completion, **two_birds) for reward in REWARDS[1:]] == [[1.0]] * 3
    assert score(SubjectReward(), answer("add", "bird", "sky"), **two_birds) == [2 / 3]
    for unknown in ("subjects", "goals"):
        known = {**two_birds, unknown: None}
        paid = [one for reward in REWARDS[1:] for one in score(reward, completion, **known) if one is not None]
        assert paid == [1.0, 1.0]
    assert score(
        SubjectReward(), answer("add; " * 2 + "add", "bird; " * 2 + "bird", "sky; " * 2 + "sky"), **two_birds
    ) == [0]
    said = {"instruction": "sharper", "actions": ["sharpen"], "subjects": ["photo"], "goals": ["Sharper"]}
    assert [score(reward, answer("sharpen", "photo", "sharper"), **said) for reward in REWARDS[1:]] == [[1.0]] * 3


def test_a_further_name_of_an_action_does_not_hide_that_it_is_the_same_edit():
    twice = answer("zap; remove", "man; man", "nothing; nothing")
    assert score(ActionReward(), twice) != [0]
    assert score(ActionReward({"zap": "remove"}), twice) == [0]


@pytest.mark.parametrize(
    ("instruction", "copied"),
    [
        ("brighter", False),
        ("Brighter!", False),
        ("golden hour", False),
        ("much more contrast", False),
        ("更亮", False),
        ("remove dog", True),
        ("make it brighter", True),
        ("the sky quite a lot bluer", True),
        ("把外套变成红色", True),
    ],
)
def test_a_few_words_that_are_no_sentence_may_be_what_the_honest_answer_says(instruction, copied):
    row = {"instruction": instruction, "actions": ["lighting"], "subjects": ["photo"], "goals": ["some other goal"]}
    assert score(ActionReward(), answer("lighting", "photo", instruction), **row) == [0.0 if copied else 1.0]
    assert score(ActionReward(), answer("lighting", "photo", f"so {instruction} then"), **row) == [
        0.0 if copied else 1.0
    ]


def test_marks_are_what_the_rewards_pay():
    truth = [Edit(*items) for items in zip(*TRUTH.values())]
    texts = [RIGHT, LISTS, answer("erase; dyeing", "men; red coats", "gone; red"), answer("add", INSTRUCTION, "x"), ""]
    rewards = (*REWARDS, SubjectReward(soft=True), GoalReward(soft=True))
    for text in texts:
        found = marks(text, truth, INSTRUCTION)
        assert set(found) == {*(reward.__name__ for reward in rewards), "exact"}
        assert all(found[reward.__name__] == score(reward, text)[0] for reward in rewards)
    assert [marks(text, truth)["exact"] for text in texts] == [1, 1, 0, 0, 0]
    reworded = marks(answer("erase; dyeing", "man; coat", "nothing; red"), truth)
    assert all(value == 1.0 for value in reworded.values())
    zapped = answer("zap; recolor", "man; coat", "nothing; red")
    assert marks(zapped, truth, synonyms={"zap": "remove"})["exact"] == 1.0 == 1.0 - marks(zapped, truth)["exact"]


@pytest.mark.parametrize(("true", "most"), [(1, 2), (3, 6)])
def test_twice_as_many_edits_as_there_are_is_the_most_that_is_paid(true, most):
    letters = "abcdefgh"
    row = {"actions": list(letters[:true]), "subjects": list(letters[:true]), "goals": list(letters[:true])}
    for count in (most, most + 1):
        found = score(ActionReward(), answer(*["; ".join(letters[:count])] * 3), **row)
        assert found == [pytest.approx(2 * true / (true + count)) if count == most else 0.0]


def test_truths_are_told_apart_row_by_row():
    other = {"actions": ["add"], "subjects": ["hat"], "goals": ["top"]}
    columns = {name: [TRUTH[name], other[name]] for name in TRUTH}
    completions = [RIGHT, answer("add", "hat", "top")]
    for reward in REWARDS[1:]:
        assert reward(prompts=["p"] * 2, completions=completions, **columns) == [1.0, 1.0]
        assert reward(prompts=["p"] * 2, completions=completions[::-1], **columns) == [0.0, 0.0]


def test_a_truth_that_is_no_list_is_the_data_sets_fault():
    with pytest.raises(TypeError, match="single string"):
        score(ActionReward(), answer("r", "c", "r"), actions="recolor")


def test_a_user_adds_synonyms():
    completion = answer("zap; zing", "man; coat", "nothing; red")
    assert score(ActionReward(), completion) == [0.0]
    assert score(ActionReward({"zap": "erase", "Zing": "recolor"}), completion) == [1.0]


def test_soft_subjects():
    completion = answer("recolor; remove", "man; red coat", "red; nothing")
    assert score(SubjectReward(), completion) == [0.5]
    assert score(SubjectReward(soft=True), completion) == [pytest.approx((1 + 5 / 6) * 2 / 4)]


class ByLength:
    """Two texts are alike if they are of one length; half alike by one more or less."""

    def __call__(self, one, other):
        return np.array([[1 - abs(len(a) - len(b)) / 2 for b in other] for a in one])


def test_goals_by_meaning():
    reward = GoalReward(similarity=ByLength())
    assert score(reward, answer("recolor; remove", "coat; man", "nothinx; rex"), goals=["red", "nothing"]) == [1.0]
    assert score(reward, answer("recolor", "coat", "blue"), goals=["red", "nothing"]) == [pytest.approx(2 * 0.5 / 3)]
    assert score(reward, "", answer("recolor", "coat", "a" * 99)) == [0.0, 0.0]
    assert score(reward, answer("add; add", "a; b", f"{INSTRUCTION}; red")) == [0.0]
    broken = GoalReward(similarity=lambda one, other: [[float("nan")] * len(other)] * len(one))
    assert score(broken, RIGHT) == [0.0]
    assert reward.score([], ["red"]) == 0.0


@pytest.mark.parametrize(
    ("reward", "name"),
    [
        (FormatReward(), "format"),
        (ActionReward({"zap": "remove"}), "action_f1"),
        (SubjectReward(), "subject_f1"),
        (SubjectReward(soft=True), "subject_soft_f1"),
        (GoalReward(), "goal_f1"),
        (GoalReward(soft=True), "goal_soft_f1"),
        (GoalReward(similarity=ByLength()), "goal_similarity"),
    ],
)
def test_a_reward_has_a_name_and_can_be_sent_to_other_processes(reward, name):
    assert reward.__name__ == name
    copy = pickle.loads(pickle.dumps(reward))
    assert copy.__name__ == name and score(copy, RIGHT, "") == score(reward, RIGHT, "")


def test_what_is_logged_beside_the_completions():
    logged = {}
    for reward in (FormatReward(), ActionReward(), SubjectReward()):
        score(reward, RIGHT, LISTS, log_extra=logged.__setitem__)
    assert logged == {
        "format/faults": ["", "no <think>"],
        "action_f1/answered": ["recolor; remove"] * 2,
        "action_f1/true": ["recolor; remove"] * 2,
        "subject_f1/answered": ["coat; man"] * 2,
        "subject_f1/true": ["coat; man"] * 2,
    }


def test_importing_it_stays_light():
    program = "import sys, diffusers_r1.rewards; sys.exit(bool({'torch', 'scipy', 'numpy'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_the_writer_writes_is_paid_in_full():
    edits = (Edit("recolor", "coat", "red"), Edit("remove", "man", "nothing"))
    assert [score(reward, write_decomposition(edits)) for reward in REWARDS] == [[1.0]] * 4
