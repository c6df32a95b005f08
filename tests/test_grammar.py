import sys

import pytest
import tiny_models
import torch
from transformers import AutoProcessor

from diffusers_r1 import names
from diffusers_r1.grammar import MAX_EDITS, GrammarProcessor, decomposition_grammar, sequence_grammar
from diffusers_r1.plan import Edit
from diffusers_r1.tags import read_decomposition, read_sequence, write_decomposition, write_sequence


EDITS = [Edit("recolor", "coat", "red, like the car"), Edit("remove", "man", "nothing")]
AGENTS = {
    "decomposition": (decomposition_grammar, read_decomposition, 326),
    "sequence": (sequence_grammar, read_sequence, 69),
}


@pytest.fixture(params=["bytes", "whole words"], scope="module")
def tokenizer(request):
    """One in which every token is a byte, and one in which a tag or a word is a token."""
    if request.param == "bytes":
        return tiny_models.tiny_tokenizer()
    return AutoProcessor.from_pretrained(names.resolve("imageedit-r1-scenes") / "processor").tokenizer


def write(grammar: str, tokenizer, limit: int, seed: int) -> tuple[str, bool]:
    """What a model of random taste, that likes neither tags nor semicolons, writes under a grammar; whether it ended."""
    generator = torch.Generator().manual_seed(seed)
    taste = 3 * torch.randn(len(tokenizer), generator=generator)
    for text in ("<", ";", "</think>", "</action>", "</subject>", "</goal>", "</sequence>"):
        if text in tokenizer.get_vocab():
            taste[tokenizer.convert_tokens_to_ids(text)] += 12 if text == ";" and seed % 2 else -20
    processor, ids = GrammarProcessor(grammar, tokenizer), torch.zeros(1, 0, dtype=torch.long)
    while ids.shape[1] < limit:
        scores = processor(ids, (taste + torch.randn(len(tokenizer), generator=generator))[None])
        ids = torch.cat([ids, scores.softmax(-1).multinomial(1, generator=generator)], dim=1)
        if ids[0, -1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids[0], skip_special_tokens=True), bool(ids[0, -1] == tokenizer.eos_token_id)


def takes(grammar: str, tokenizer, text: str) -> bool:
    """Whether a model that is bound to a grammar could write a text, token by token as the tokenizer has it, and end."""
    processor = GrammarProcessor(grammar, tokenizer)
    prompt = tokenizer("edit", return_tensors="pt")["input_ids"]
    answer = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    for length, token in enumerate(answer):
        ids = torch.cat([prompt, torch.tensor([answer[:length]], dtype=torch.long)], dim=1)
        if processor(ids, torch.zeros(1, len(tokenizer)))[0, token].isinf():
            return False
    return True


@pytest.mark.parametrize("agent", AGENTS)
def test_every_answer_has_the_format_and_ends_in_time(tokenizer, agent):
    grammar_of, read, least = AGENTS[agent]
    for seed in range(8):
        text, ended = write(grammar_of(least), tokenizer, least, seed)
        assert ended and read(text).faults == (), text


def test_answers_with_the_format_can_be_written(tokenizer):
    for count in (1, 2):
        assert takes(decomposition_grammar(2048), tokenizer, write_decomposition(EDITS[:count], "a coat; a man"))
    assert takes(decomposition_grammar(2048), tokenizer, write_decomposition(EDITS * (MAX_EDITS // 2)))
    assert takes(sequence_grammar(2048), tokenizer, write_sequence(["remove the man", "make the coat red"]))


def test_what_the_writer_escapes_can_be_written(tokenizer):
    edit = Edit("write", "sign; <b>left</b>", r"\ C:\; </goal> <action>")
    assert takes(decomposition_grammar(4096), tokenizer, write_decomposition([edit], r"a; <think> \b"))
    assert takes(sequence_grammar(4096), tokenizer, write_sequence([";", "a; b\\", "<sequence>"]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I would remove the man.",
        write_decomposition(EDITS).replace("; nothing", ""),
        write_decomposition(EDITS).replace("recolor", ""),
        write_decomposition(EDITS) + " there",
        write_decomposition(EDITS).replace("coat", "<b>coat"),
        write_decomposition(EDITS * MAX_EDITS),
        write_sequence(["remove the man"]),
    ],
)
def test_other_answers_cannot(tokenizer, text):
    assert not takes(decomposition_grammar(2048), tokenizer, text)


def test_a_draft_that_was_dropped_leaves_no_trace(tokenizer):
    grammar, scores = sequence_grammar(100), torch.zeros(1, len(tokenizer))
    said = tokenizer("<sequence>remove", return_tensors="pt")["input_ids"]
    draft = torch.cat([said, tokenizer(" it</sequence><goal>", return_tensors="pt")["input_ids"]], dim=1)
    fresh, stepped_back = GrammarProcessor(grammar, tokenizer), GrammarProcessor(grammar, tokenizer)
    start = torch.zeros(1, 0, dtype=torch.long)
    for length in (0, said.shape[1]):
        expected = fresh(torch.cat([start, said[:, :length]], dim=1), scores)
    for length in range(draft.shape[1] + 1):
        stepped_back(draft[:, :length], scores)
    assert torch.equal(stepped_back(said, scores), expected)
    assert expected.isfinite().any() and expected.isinf().any()


@pytest.mark.parametrize("agent", AGENTS)
def test_too_little_room_is_refused(agent):
    grammar_of, _, least = AGENTS[agent]
    with pytest.raises(ValueError, match=f"`max_new_tokens` of {least} or more, not {least - 1}"):
        grammar_of(least - 1)


def test_without_the_library_the_error_says_what_to_install(monkeypatch, tokenizer):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ImportError, match=r"needs llguidance: .*\[constrained\]"):
        GrammarProcessor(sequence_grammar(100), tokenizer)
