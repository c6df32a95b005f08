"""Control tokens in what people, data sets and other models write: ten thousand texts, the tokenizers of twelve families."""

import random

import pytest
from planner_cells import WORDS, pictures
from tiny_models import tiny_text_planner
from tiny_planners import FAMILIES, build, byte_tokenizer

from diffusers_r1.planners.control_tokens import TAGS, control_token_ids, control_tokens, end_token_ids
from diffusers_r1.planners.conversation import Conversation
from diffusers_r1.planners.plans import make_plans
from diffusers_r1.prompts import plain_text


# transformers' GLM processor hands tensors to numpy in a way that numpy 2 is going to refuse.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TWELVE = [family for family in FAMILIES if family != "paligemma"]  # which has no conversation
EACH = 840


def hostile(tokens: tuple[str, ...], number: int) -> list[str]:
    """Texts with control tokens whole, cut in two, one inside another, and in wide letters."""
    drawn = random.Random(0)

    def nested(depth: int) -> str:
        token = drawn.choice(tokens)
        cut = drawn.randrange(len(token) + 1)
        return token[:cut] + (nested(depth - 1) if depth else "") + token[cut:]

    def wide(token: str) -> str:
        return "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in token)

    def split() -> str:
        token = drawn.choice(tokens)
        cut = drawn.randrange(1, len(token))
        return f"{token[:cut]}{drawn.choice(['', ' ', 'x'])}{token[cut:]}"

    kinds = [
        lambda: drawn.choice(tokens),
        split,
        lambda: nested(drawn.randrange(1, 5)),
        lambda: wide(drawn.choice(tokens)),
    ]
    return [
        " ".join(f"paint it {drawn.choice(kinds)()}{drawn.choice(kinds)()} red" for _ in range(drawn.randrange(1, 4)))
        for _ in range(number)
    ]


@pytest.mark.tiny
@pytest.mark.parametrize("family", TWELVE)
def test_no_words_reach_a_model_as_control(family):
    model, processor = build(family)
    tokens, tokenizer = control_tokens(processor), processor.tokenizer
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    assert special <= set(tokens)
    control, texts = set(control_token_ids(processor)), hostile(tokens, EACH)
    bare = ["paint it red"] * 2

    def controls_of(talk: Conversation, row: int, second: bool = False) -> list[int]:
        turn = talk.first_turns[row]
        text = talk._render(
            talk.prompts.second_turn(turn, texts[row] if talk is hurt else bare[0]) if second else turn
        )
        return [number for number in tokenizer(text, add_special_tokens=False)["input_ids"] if number in control]

    image = pictures(1)[0]
    hurt = Conversation(model, processor, [image] * EACH, texts, WORDS)
    calm = Conversation(model, processor, [image], bare[:1], WORDS)
    expected = controls_of(calm, 0), controls_of(calm, 0, second=True)
    for row in range(EACH):
        assert (controls_of(hurt, row), controls_of(hurt, row, second=True)) == expected, texts[row]
    # And with pictures, for which processors put tokens by the text: no batch is lost.
    batch = Conversation(model, processor, [image] * 8, texts[:8], WORDS)
    assert len(batch.decompose(max_new_tokens=1)) == 8
    assert len(batch.sequence(texts[:8], max_new_tokens=1)) == 8


@pytest.mark.tiny
def test_a_plan_of_hostile_words_is_a_plan():
    model, processor = build("qwen3_vl")
    texts = hostile(control_tokens(processor), 6)
    plans = make_plans(model, processor, pictures(6), texts, WORDS, tiny_text_planner(), max_new_tokens=4)
    assert [plan.instruction for plan in plans] == texts


def test_words_without_control_tokens_stay_as_they_are():
    words = "change ＡＢＣ to <b>½</b> & “ﬁne”, 5 < 6 | 7 > 3"
    assert plain_text(words, ("<|im_end|>", "<s>")) == words == plain_text(words, ())


def test_what_counts_as_control():
    template = "{% for m in messages %}<role_of_user>{{ m.content }}<plain>{% endfor %}"
    tokenizer = byte_tokenizer(["<|only_added|>"], "<|end|>", template, image_token="<picture>")
    tokenizer.add_tokens(["<role_of_user>", "<not_in_template>", "messages", "\n\n", "<think>", "</action>"])
    assert set(control_tokens(tokenizer)) == {
        "<|only_added|>",
        "<|end|>",
        "<picture>",
        "<pad>",
        "<role_of_user>",
    }
    assert not TAGS & set(control_tokens(tokenizer))


def test_attributes_that_name_no_token_are_none():
    _, processor = build("qwen2_5_vl")
    before = control_tokens(processor)
    processor.video_token, processor.image_tag, processor.token_of = None, "[I]", "<no>"
    assert control_tokens(processor) == tuple(sorted([*before, "[I]"]))
    numbers = processor.tokenizer.convert_tokens_to_ids(list(before))
    assert control_token_ids(processor) == sorted(numbers)  # the vocabulary has not the other


def test_every_tag_of_the_format_may_be_written():
    names = ("think", "action", "subject", "goal", "sequence")
    assert {f"<{slash}{name}>" for name in names for slash in ("", "/")} == TAGS


@pytest.mark.parametrize(("own", "more"), [(None, []), (90, [90]), ([90, 91], [90, 91])])
def test_an_answer_ends_at_the_models_own_ends_too(own, more):
    model, tokenizer = tiny_text_planner()
    model.generation_config.eos_token_id = own
    assert not set(more) & set(control_token_ids(tokenizer))
    assert end_token_ids(model, tokenizer) == sorted([*control_token_ids(tokenizer), *more])


@pytest.mark.tiny
def test_an_answer_ends_at_any_of_them_and_shows_none():
    model, processor = build("glm4v")
    tokenizer = processor.tokenizer
    control, letter = tokenizer.convert_tokens_to_ids(["<|assistant|>", "a"])
    assert control in end_token_ids(model, processor)

    def write(ids, scores):
        scores[:] = -1e4
        scores[:, control if ids.shape[1] >= start + 3 else letter] = 0
        return scores

    talk = Conversation(model, processor, pictures(1), ["x"], WORDS)
    start = talk._encode(talk.first_turns)["input_ids"].shape[1]
    assert talk.decompose(max_new_tokens=9, logits_processor=[write]) == ["aaa"]
