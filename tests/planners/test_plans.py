"""What is asked how often, of whom, and from which seed, on the way from an instruction to its plan."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from openai_server import said, scripted
from PIL import Image
from planning_server import INSTRUCTIONS, PICTURES, RIGHT, WORDS, plan_of, requests_of, text_of

from diffusers_r1.planners import plans
from diffusers_r1.planners.plans import decompose, make_plans, sequence_plans, to_plan
from diffusers_r1.planners.remote import RemotePlanner
from diffusers_r1.tags import write_decomposition


BLANK = Image.new("RGB", (8, 8))
TEXTS = ["remove the star", "make it blue"]
NEVER = (200, said("Never."), {})


@pytest.fixture
def server():
    with scripted(RIGHT) as running:
        yield running


@pytest.fixture
def remote(server):
    planner = RemotePlanner(server.url, "m", api_key_env=None, max_retries=0, timeout=10)
    yield planner
    planner.close()


def only(rows: int) -> tuple[list, list]:
    return PICTURES[:rows], INSTRUCTIONS[:rows]


def roles(request: dict) -> list[str]:
    return [message["role"] for message in request["messages"]]


def test_no_second_question_is_asked_where_no_row_has_an_edit(server, remote):
    server.replies = [NEVER]
    (plan,) = make_plans(remote, None, *only(1), WORDS, retries=1)
    assert plan.fallback and [roles(request) for request in requests_of(server)] == [["user"]] * 2
    assert sequence_plans(remote, None, *only(1), ["Never."], WORDS) == [to_plan(INSTRUCTIONS[0], "Never.", "")]
    assert len(requests_of(server)) == 2


def test_nothing_is_asked_again_unless_it_is_to_be(server, remote):
    assert make_plans(remote, None, *only(1), WORDS, retries=3) == [plan_of(INSTRUCTIONS[0])]
    assert len(requests_of(server)) == 2


@pytest.mark.parametrize(("number", "heat"), [(1, 0), (2, 1)])
def test_one_plan_is_greedy_and_two_are_sampled(server, remote, number, heat):
    assert make_plans(remote, None, *only(1), WORDS, num_plans=number) == [plan_of(INSTRUCTIONS[0])] * number
    assert {request["temperature"] for request in requests_of(server)} == {heat}


def test_halves_make_what_the_whole_makes(server, remote):
    beside = {"references": [PICTURES[1:2], PICTURES[2:4]], "seed": 5}
    answers = decompose(remote, None, *only(2), WORDS, max_new_tokens=7, **beside)
    assert answers == [plan_of(text).raw[0] for text in INSTRUCTIONS[:2]]
    assert sequence_plans(remote, None, *only(2), answers, WORDS, **beside) == [
        plan_of(text) for text in INSTRUCTIONS[:2]
    ]
    asked = requests_of(server)
    assert [request["seed"] for request in asked] == [5] * 4
    assert [request["max_tokens"] for request in asked] == [7, 7, 512, 512]
    shown = [sum(part["type"] == "image_url" for part in request["messages"][0]["content"]) for request in asked]
    assert sorted(shown[:2]) == sorted(shown[2:]) == [2, 3]


def test_without_references_both_halves_show_the_picture_alone(server, remote):
    answers = decompose(remote, None, *only(1), WORDS)
    sequence_plans(remote, None, *only(1), answers, WORDS)
    for request in requests_of(server):
        assert [part["type"] for part in request["messages"][0]["content"]].count("image_url") == 1
        assert request["seed"] == 0


def test_a_sequencer_is_asked_the_second_question_alone(server, remote):
    with scripted(RIGHT) as other:
        second = RemotePlanner(other.url, "other", api_key_env=None, max_retries=0)
        made = make_plans(remote, None, *only(2), WORDS, sequencer=(second, None), num_plans=2)
        second.close()
        assert made == [plan_of(text) for text in INSTRUCTIONS[:2] for _ in range(2)]
        assert [roles(request) for request in requests_of(other)] == [["user", "assistant", "user"]] * 4
        texts = [text_of(request["messages"][0]) for request in requests_of(other)]
        assert sorted(texts) == sorted(f"Plan: {text}" for text in INSTRUCTIONS[:2] for _ in range(2))
    assert [roles(request) for request in requests_of(server)] == [["user"]] * 2


def test_a_sequencer_that_is_loaded_here_draws_from_the_seed(server, remote, text_planner):
    """The planner is a server's, and yet the second answers are drawn here."""
    before = torch.get_rng_state()
    settings = {"sequencer": text_planner, "retries": 0, "max_new_tokens": 4, "do_sample": True}
    made = [make_plans(remote, None, *only(1), WORDS, seed=seed, **settings) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2] and torch.equal(before, torch.get_rng_state())


@pytest.mark.tiny
def test_a_retry_draws_from_the_next_seed(text_planner):
    about = *text_planner, [BLANK], TEXTS[:1], WORDS
    again = make_plans(*about, seed=3, retries=2, max_new_tokens=4)[0].raw[1:]
    sampled = [make_plans(*about, seed=seed, retries=0, max_new_tokens=4, do_sample=True)[0].raw for seed in (4, 5)]
    assert [(text,) for text in again] == sampled


@pytest.mark.tiny
def test_after_the_last_seed_comes_the_first(text_planner):
    about = *text_planner, [BLANK], TEXTS[:1], WORDS
    again = make_plans(*about, seed=2**64 - 1, retries=1, max_new_tokens=4)[0].raw[1:]
    assert again == make_plans(*about, seed=0, retries=0, max_new_tokens=4, do_sample=True)[0].raw


def test_a_server_is_sent_seeds_that_it_takes(server, remote):
    server.replies = [NEVER]
    make_plans(remote, None, *only(1), WORDS, seed=2**64 - 1)
    assert [request["seed"] for request in requests_of(server)] == [2**63 - 1, 0]


@pytest.mark.tiny
def test_each_row_is_asked_again_about_its_own_instruction(text_planner):
    made = make_plans(*text_planner, [BLANK] * 2, TEXTS, WORDS, num_plans=2, retries=1, max_new_tokens=2)
    assert [plan.instruction for plan in made] == [text for text in TEXTS for _ in range(2)]
    assert [plan.requests for plan in made] == [(text,) for text in TEXTS for _ in range(2)]
    assert [len(plan.raw) for plan in made] == [2] * 4


def short(lost: str) -> str:
    """Two edits, and a third of which a part is missing."""
    return f"<think>t</think><action>add; blur; {lost}</action><subject>hat; sky</subject><goal>red; soft</goal>"


def test_of_answers_that_fall_equally_short_the_last_counts():
    replies = [
        (200, said(text), {})
        for text in (short("crop"), "<sequence>a</sequence>", short("turn"), "<sequence>b</sequence>")
    ]
    with scripted(*replies) as server:
        planner = RemotePlanner(server.url, "m", api_key_env=None, max_retries=0, concurrency=1)
        (plan,) = make_plans(planner, None, *only(1), WORDS, retries=1)
        planner.close()
    assert plan.requests == ("b",) and plan.faults[-1].detail == "turn"
    assert plan.raw == (short("crop"), "<sequence>a</sequence>", short("turn"), "<sequence>b</sequence>")


def test_models_loaded_here_plan_one_at_a_time_and_servers_many(remote, text_planner):
    def is_free() -> bool:
        free = plans._PLANNING.acquire(blocking=False)
        if free:
            plans._PLANNING.release()
        return free

    with ThreadPoolExecutor(1) as other:
        for models, free in (([remote], True), ([text_planner[0]], False), ([remote, text_planner[0]], False)):
            with plans._one_at_a_time(plans._loaded_here(*models)):
                assert other.submit(is_free).result() == free
        assert other.submit(is_free).result()


def test_plans_that_were_made_before_are_only_mended(server, remote):
    good, bad = plan_of(INSTRUCTIONS[0]), to_plan(INSTRUCTIONS[1], "Never.", "")
    made = make_plans(remote, None, *only(2), WORDS, plans=(good, bad), seed=8)
    assert made[0] == good and made[1].requests == plan_of(INSTRUCTIONS[1]).requests
    assert made[1].raw == ("Never.", *plan_of(INSTRUCTIONS[1]).raw)
    assert [(request["seed"], request["temperature"]) for request in requests_of(server)] == [(9, 1.0)] * 2


def test_the_rule_in_place_of_a_sequence_is_said_to_be_one():
    (edit,) = plan_of(INSTRUCTIONS[0]).edits
    plan = to_plan("x", write_decomposition([edit], "so"), "")
    assert plan.fallback is True and plan.requests == ("paint red thing: gold",) and plan.reasoning == "so"
    assert to_plan("x", write_decomposition([edit], "so"), "<sequence>a</sequence>").fallback is False
