"""A reward from the edited picture, with the shipped editor of scenes and with an editor behind an address."""

import base64
import io
import json
import logging
import pickle
import random
import re
from pathlib import Path

import pytest
import torch
from openai_server import scripted
from warm_python import run_script

from diffusers_r1.judging import PictureMarks, ScenesJudge
from diffusers_r1.scenes import reason, sample_task
from diffusers_r1.tags import write_decomposition
from diffusers_r1.training.picture_trainer import with_bare_member
from diffusers_r1.training.pictures import PictureReward, Renderer


pytestmark = pytest.mark.tiny

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BUNDLE, START = "imageedit-r1-scenes", "imageedit-r1-scenes-sft"
TASKS = [sample_task(seed, "chained") for seed in range(4)]
MALFORMED = "<action>remove</action>"


def rows_of(tasks):
    """The columns that TRL hands to a reward."""
    return {
        "image": [task.image for task in tasks],
        "instruction": [task.instruction for task in tasks],
        "actions": [[edit.action for edit in task.edits] for task in tasks],
        "subjects": [[edit.subject for edit in task.edits] for task in tasks],
        "goals": [[edit.goal for edit in task.edits] for task in tasks],
    }


def answer(task, edits=None, more=""):
    """In the way of the shipped planner, whose sequencer has read nothing else."""
    edits = task.edits if edits is None else edits
    return re.sub(r"(<\w+>)", r"\1 ", write_decomposition(edits, reason(task, edits) + more))


def run_benchmark(script, *words):
    done = run_script(BENCHMARKS / script, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


class Counting:
    """A judge that remembers what it was shown."""

    concurrency = 1

    def __init__(self, judge=None):
        self.judge, self.seen = judge or ScenesJudge(), []

    def __call__(self, source, edited, row):
        self.seen.append(edited)
        return self.judge(source, edited, row)


class FailingInFive:
    """Fails at a fifth of the pictures, in each way that a judge can."""

    concurrency = 1

    def __init__(self, seed):
        self.judge, self.random, self.failed = ScenesJudge(), random.Random(seed), 0

    def __call__(self, source, edited, row):
        if self.random.random() < 0.2:
            self.failed += 1
            if self.failed % 3 == 0:
                return None
            if self.failed % 3 == 1:
                raise TimeoutError("no answer in time")
            return 7.0  # out of range
        return self.judge(source, edited, row)


@pytest.fixture(scope="module")
def renderer():
    return Renderer(BUNDLE, START)


def test_true_plans_are_worth_all_and_broken_answers_nothing(renderer):
    judge, logged = Counting(), {}
    reward = PictureReward(renderer, judge)
    answers = [*map(answer, TASKS), MALFORMED]
    earned = reward([None] * 5, answers, log_metric=logged.__setitem__, **rows_of([*TASKS, TASKS[0]]))
    assert earned == [1.0] * 4 + [0.0]
    assert len(judge.seen) == 4  # what has no format is not rendered
    assert logged == {
        "picture/rendered": 4,
        "picture/editor_failed": 0,
        "picture/judge_failed": 0,
        "picture/effect": 1.0,
        "picture/harm": 0.0,
        "picture/exact": 1.0,
    }


def test_equal_plans_have_one_picture_and_other_prompts_their_own(renderer):
    judge = Counting()
    reward = PictureReward(renderer, judge)
    first, second = TASKS[:2]
    fewer = answer(first, first.edits[:1])
    answers = [answer(first), answer(first, more="; that is all"), fewer, answer(second)]
    logged = {}
    columns = rows_of([first, first, first, second])
    earned = reward([None] * 4, answers, log_metric=logged.__setitem__, **columns)
    assert len(judge.seen) == logged["picture/rendered"] == 3
    assert logged["picture/exact"] == 3 / 4  # of the completions, not of the pictures
    assert earned[0] == earned[1] == earned[3] == 1.0 and earned[2] < 1.0
    again = reward([None] * 4, answers, **rows_of([first, first, first, second]))
    assert again == earned and len(judge.seen) == 3  # kept


def test_a_picture_depends_on_its_plan_and_prompt_alone(renderer):
    alone, together = Counting(), Counting()
    PictureReward(renderer, alone)([None], [answer(TASKS[0])], **rows_of(TASKS[:1]))
    PictureReward(renderer, together)([None] * 4, [*map(answer, TASKS)], **rows_of(TASKS))
    one, other = (torch.frombuffer(bytearray(j.seen[0].tobytes()), dtype=torch.uint8).int() for j in (alone, together))
    assert (one - other).abs().max() <= 1  # sums of batches differ in their last bits


def test_marks_do_not_touch_the_global_random_state(renderer):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    PictureReward(renderer, ScenesJudge())([None], [answer(TASKS[0])], **rows_of(TASKS[:1]))
    assert torch.equal(before, torch.get_rng_state())


def test_a_judge_that_fails_leaves_out_and_changes_no_other_reward(renderer, caplog):
    tasks = [sample_task(seed, "chained") for seed in range(20)]
    answers = [*map(answer, tasks)]
    sound = PictureReward(renderer, ScenesJudge())([None] * 20, answers, **rows_of(tasks))
    failing, logged = FailingInFive(seed=1), {}
    with caplog.at_level(logging.WARNING):
        earned = PictureReward(renderer, failing)(
            [None] * 20, answers, log_metric=logged.__setitem__, **rows_of(tasks)
        )
    assert failing.failed == earned.count(None) == logged["picture/judge_failed"] > 2
    assert [one for one in earned if one is not None] == [s for s, one in zip(sound, earned) if one is not None]
    said = " ".join(caplog.messages)
    assert "no answer in time" in said and "from 0 to 1, not 7.0" in said
    # What failed is asked again once it comes again.
    assert None not in PictureReward(renderer, ScenesJudge())([None] * 20, answers, **rows_of(tasks))


def edited_by_a_server(body: bytes) -> dict:
    """Whatever was sent comes back as the first task's true picture."""
    buffer = io.BytesIO()
    TASKS[0].target_image.save(buffer, "PNG")
    return {"data": [{"b64_json": base64.b64encode(buffer.getvalue()).decode()}]}


def test_an_editor_behind_an_address_that_dies(caplog):
    down = (400, {"error": {"message": "out of order"}}, {})
    answers = [answer(TASKS[0]), answer(TASKS[0], TASKS[0].edits[:1])]
    with scripted((200, edited_by_a_server, {}), down) as server:
        reward = PictureReward(Renderer(server.url, START, editor_model="editor"), ScenesJudge())
        logged = {}
        columns = rows_of(TASKS[:1] * 2)
        earned = reward([None] * 2, answers, log_metric=logged.__setitem__, **columns)
        assert sorted(earned, key=str) == [1.0, None]
        assert (logged["picture/rendered"], logged["picture/editor_failed"]) == (1, 1)
        server.replies[:] = [(200, edited_by_a_server, {})]
        assert reward([None] * 2, answers, **columns) == [1.0, 1.0]  # it is back
    assert reward([None] * 2, answers, **columns) == [1.0, 1.0]  # kept, though the server is gone
    other = rows_of([TASKS[1]])
    assert reward([None], [answer(TASKS[1])], **other) == [None]


def test_the_bare_instruction_goes_to_the_editor_as_it_is(renderer):
    rows = [dict(zip(rows_of([task]), (values[0] for values in rows_of([task]).values()))) for task in TASKS]
    marks = PictureReward(renderer, ScenesJudge()).of_instructions(rows)
    assert all(isinstance(one, PictureMarks) for one in marks)
    assert max(one.reward for one in marks) > 0.5  # explicit requests are what this editor reads


def test_a_pickled_reward_holds_names_and_earns_the_same(renderer):
    reward = PictureReward(renderer, ScenesJudge())
    earned = reward([None], [answer(TASKS[0])], **rows_of(TASKS[:1]))
    written = pickle.dumps(PictureReward(renderer, ScenesJudge()))
    assert len(written) < 10_000
    again = pickle.loads(written)
    assert again.__name__ == "picture"
    assert again([None], [answer(TASKS[0])], **rows_of(TASKS[:1])) == earned


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"editor": "no-such-editor"}, OSError, "no-such-editor"),
        ({"editor": "http://localhost:1/v1"}, ValueError, "model's name"),
        ({"editor": BUNDLE, "editor_model": "flux"}, ValueError, "model's name"),
        ({"editor": "http://me:secret@localhost/v1", "editor_model": "flux"}, ValueError, "holds no names"),
        ({"editor": "http://localhost:1/v1", "editor_model": "flux", "arguments": {"seed": 3}}, TypeError, "seed"),
    ],
)
def test_what_cannot_be_an_editor_is_refused_before_anything_is_loaded(given, error, message):
    with pytest.raises(error, match=message):
        Renderer(base="no/such-planner", **given)


def test_an_argument_that_the_editor_does_not_take_is_refused_once_it_is_loaded():
    with pytest.raises(TypeError, match="no_such_argument"):
        Renderer(BUNDLE, START, arguments={"no_such_argument": 1}).load()


# The bare member
# ---------------


def test_a_bare_member_changes_mean_and_spread_alone():
    rewards, bare = torch.tensor([2.0, 1.0, 1.0, 1.0]), torch.tensor([1.5, 1.5, 0.0, 0.0])
    found = with_bare_member(rewards, bare, group=2)
    for group, own in enumerate(([2.0, 1.0, 1.5], [1.0, 1.0, 0.0])):
        members = torch.tensor(own)
        expected = (members - members.mean()) / (members.std() + 1e-4)
        assert torch.allclose(found[2 * group : 2 * group + 2], expected[:2])
    assert found[2] > 0  # two equal plans that are better than none are learned from


def test_a_bare_member_that_is_not_known_is_left_out():
    rewards = torch.tensor([2.0, 1.0, torch.nan, 1.0])
    found = with_bare_member(rewards, torch.full((4,), torch.nan), group=4)
    known = torch.tensor([2.0, 1.0, 1.0])
    assert torch.allclose(found[[0, 1, 3]], (known - known.mean()) / (known.std() + 1e-4))
    assert found[2] == 0


# What does not pay
# -----------------


def test_each_hack_earns_less_than_an_honest_try():
    table = json.loads(run_benchmark("picture_hacks.py", "--tasks", "24").splitlines()[-1])["rows"]
    earned = {row["attempt"]: row["reward"] for row in table}
    true, honest = earned.pop("true plan"), earned.pop("supervised start")
    assert len(earned) == 8 and true > 0.95
    for name, reward in earned.items():
        assert reward < (true if name.startswith("true plan") else honest), name
    assert earned["untouched picture"] == 0
