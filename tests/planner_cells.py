"""What a planner of any family has to do, each compared with the plainest way to the same: one check a cell of the matrix.

Every check takes a planner, its processor and an empty folder, and raises where something is wrong. A `ValueError` from the
package is a refusal, whose words say why.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from PIL import Image
from tiny_models import tiny_text_planner

from diffusers_r1.bundles.planners import load_planner, save_planner
from diffusers_r1.planners.adapters import adapters_off
from diffusers_r1.planners.control_tokens import control_tokens
from diffusers_r1.planners.conversation import Conversation
from diffusers_r1.planners.encoded import with_pictures_encoded
from diffusers_r1.planners.plans import make_plans
from diffusers_r1.planners.templates import check_trainable
from diffusers_r1.prompts import Prompts
from diffusers_r1.tags import read_decomposition, read_sequence


WORDS = Prompts(decompose="Plan: {instruction}", sequence="Now order them.", system="You plan edits.")
INSTRUCTIONS = ["remove the star", "make it blue, then add a hat", "x"]


def pictures(number: int) -> list[Image.Image]:
    """Different pictures, of which the second is wider than the others."""
    drawn = np.random.default_rng(0)
    sides = [(40, 64) if place == 1 else (48, 48) for place in range(number)]
    return [Image.fromarray(drawn.integers(0, 256, (*side, 3), dtype=np.uint8)) for side in sides]


def printable(processor: Any, tokens: int = 10) -> dict[str, Any]:
    """Settings with which a random model writes text that survives being read and written again."""
    tokenizer = getattr(processor, "tokenizer", processor)
    letters = tokenizer("abcdefghijklmnopqrstuvwxyz/;", add_special_tokens=False)["input_ids"]
    keep = {*letters, tokenizer.eos_token_id}
    return {"max_new_tokens": tokens, "suppress_tokens": [i for i in range(len(tokenizer)) if i not in keep]}


def read_plainly(processor: Any, messages: list[dict[str, Any]], images: Any) -> dict[str, Any]:
    """A conversation as the processor itself encodes it, or its tokenizer where that has the template."""
    owner = processor if processor.chat_template else processor.tokenizer
    options = {"enable_thinking": False} if "enable_thinking" in str(owner.chat_template) else {}
    if owner is processor:
        options |= {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
        return dict(processor.apply_chat_template(messages, add_generation_prompt=True, **options))
    texts = [
        {"role": m["role"], "content": "".join(part.get("text", "<|image|>") for part in m["content"])}
        for m in messages
    ]
    text = owner.apply_chat_template(texts, add_generation_prompt=True, tokenize=False)
    return dict(processor(text=[text], images=images if isinstance(images, list) else [images], return_tensors="pt"))


class Ending:
    """Rows end one after the other, so that a cache holds more of some than they said. Remembers all scores."""

    def __init__(self, processor: Any, apart: int):
        self.end = getattr(processor, "tokenizer", processor).eos_token_id
        self.apart, self.steps, self.scores = apart, 0, []

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.scores.append(scores.clone())
        if self.apart:
            scores[torch.arange(len(ids)) * self.apart + 1 <= self.steps, self.end] = 1e4
        self.steps += 1
        return scores


def plan(model: Any, processor: Any, folder: Path) -> None:
    """The first answer is that of a plain `generate` of the processor's own encoding."""
    image, settings = pictures(1)[0], printable(processor)
    talk = Conversation(model, processor, [image], INSTRUCTIONS[:1], WORDS)
    answer = talk.decompose(**settings)
    inputs = read_plainly(processor, talk.first_turns[0], image)
    output = model.generate(**inputs, do_sample=False, **settings)[:, inputs["input_ids"].shape[1] :]
    assert answer == processor.batch_decode(output, skip_special_tokens=True)
    assert talk.sequence(**settings)[0]


def batch(model: Any, processor: Any, folder: Path) -> None:
    """Rows of different lengths and pictures say in a batch what they say alone."""
    images, settings = pictures(3), printable(processor)
    together = Conversation(model, processor, images, INSTRUCTIONS, WORDS)
    answers, sequences = together.decompose(**settings), together.sequence(**settings)
    for row, (image, instruction) in enumerate(zip(images, INSTRUCTIONS)):
        alone = Conversation(model, processor, [image], [instruction], WORDS)
        assert [alone.decompose(**settings), alone.sequence(**settings)] == [[answers[row]], [sequences[row]]]


def same_picture_twice(model: Any, processor: Any, folder: Path) -> None:
    """Equal pictures of a batch change nothing, whether or not they are encoded once; nothing is left on the model."""
    one, other = pictures(2)
    images = [one, other, one.copy(), one.copy()]
    talk = Conversation(model, processor, images, [INSTRUCTIONS[0]] * 4, WORDS)
    inputs = talk._encode(talk.first_turns)
    shared = with_pictures_encoded(model, inputs)
    torch.testing.assert_close(model(**shared).logits, model(**inputs).logits, atol=1e-5, rtol=1e-4)
    answers = talk.decompose(**printable(processor))
    assert answers[0] == answers[2] == answers[3]
    alone = Conversation(model, processor, [other], [INSTRUCTIONS[0]], WORDS)
    assert alone.decompose(**printable(processor)) == [answers[1]]
    for module in model.modules():
        assert not {"forward", "get_image_features", "prepare_inputs_for_generation"} & set(vars(module))
        assert not module._forward_pre_hooks


def num_plans(model: Any, processor: Any, folder: Path) -> None:
    """Several answers of one reading are each what one would be; sampled plans follow the seed."""
    images, settings = pictures(2), printable(processor)
    one, many = (Conversation(model, processor, images, INSTRUCTIONS[:2], WORDS) for _ in range(2))
    answers, sequences = one.decompose(**settings), one.sequence(**settings)
    assert many.decompose(num_answers=3, **settings) == [answer for answer in answers for _ in range(3)]
    assert many.sequence(**settings) == [sequence for sequence in sequences for _ in range(3)]
    task = model, processor, images, INSTRUCTIONS[:2], WORDS
    sampled = [make_plans(*task, num_plans=3, seed=seed, max_new_tokens=6) for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2] and len(sampled[0]) == 6


def constrained(model: Any, processor: Any, folder: Path) -> None:
    """A planner that has learned nothing has the format."""
    task = model, processor, pictures(2), INSTRUCTIONS[:2], WORDS
    for made in make_plans(*task, constrained=True, max_new_tokens=326, do_sample=True, retries=0):
        first, second = made.raw
        assert not made.fallback and read_decomposition(first).faults == read_sequence(second).faults == ()


def two_turn_cache(model: Any, processor: Any, folder: Path) -> None:
    """The second question scores as if each row's conversation were read alone, in one go and without a cache."""
    images, settings = pictures(3), printable(processor)
    talk = Conversation(model, processor, images, INSTRUCTIONS, WORDS)
    answers = talk.decompose(logits_processor=[Ending(processor, 3)], **settings)
    assert [len(answer) for answer in answers] == [1, 4, 7]
    goes_on = talk._kept is not None
    second = talk._continued(*talk._kept) if goes_on else {}
    recorded = Ending(processor, 0)
    talk.sequence(logits_processor=[recorded], **settings)
    for row, image in enumerate(images):
        if goes_on:  # what the first question's encoding holds, what the row said, and the question
            inputs = read_plainly(processor, talk.first_turns[row], image)
            visible = second["input_ids"][row][second["attention_mask"][row].bool()]
            new = visible[inputs["input_ids"].shape[1] :][None]
            assert visible[: -new.shape[1]].tolist() == inputs["input_ids"][0].tolist()
            shape = inputs["input_ids"].shape
            for name, value in inputs.items():
                if isinstance(value, torch.Tensor) and value.shape == shape:
                    added = {"input_ids": new, "attention_mask": torch.ones_like(new)}.get(name, torch.zeros_like(new))
                    inputs[name] = torch.cat([value, added.to(value.dtype)], dim=1)
        else:
            inputs = read_plainly(processor, talk.prompts.second_turn(talk.first_turns[row], answers[row]), image)
        alone = Ending(processor, 0)
        model.generate(**inputs, do_sample=False, logits_processor=[alone], **settings)
        for one, other in zip(recorded.scores, alone.scores):
            torch.testing.assert_close(one[row], other[0], atol=1e-4, rtol=1e-4)


def sequencer_apart(model: Any, processor: Any, folder: Path) -> None:
    """A sequencer reads another model's answer, control tokens of its own in it being words; and the other way round."""
    hostile = " ".join(control_tokens(processor))
    settings = printable(processor)
    reader = Conversation(model, processor, pictures(2), INSTRUCTIONS[:2], WORDS)
    said = reader.sequence([f"<think>{hostile}</think><action>a</action>", "none"], **settings)
    again = Conversation(model, processor, pictures(2), INSTRUCTIONS[:2], WORDS)
    assert said == again.sequence(
        [f"<think>{' ' * (2 * hostile.count(' ') + 1)}</think><action>a</action>", "none"], **settings
    )
    text, tokenizer = tiny_text_planner()
    task = model, processor, pictures(2), INSTRUCTIONS[:2], WORDS
    plans = make_plans(
        *task, sequencer=(text, tokenizer), constrained=True, do_sample=True, max_new_tokens=326, retries=0
    )
    assert all(made.edits and not made.fallback for made in plans)


def save_and_load(model: Any, processor: Any, folder: Path) -> None:
    """What was saved answers as before."""
    save_planner(folder / "saved", model, processor, WORDS)
    loaded, its_processor, words = load_planner(folder / "saved", dtype=torch.float32)
    assert words == WORDS
    talks = [
        Conversation(*pair, pictures(2), INSTRUCTIONS[:2], WORDS)
        for pair in ((model, processor), (loaded, its_processor))
    ]
    settings = printable(processor)
    answers = [(talk.decompose(**settings), talk.sequence(**settings)) for talk in talks]
    assert answers[0] == answers[1]


def lora(model: Any, processor: Any, folder: Path) -> None:
    """With an adapter it scores differently, without it as before; the adapter is saved and loaded."""

    def answers(planner: Any) -> tuple[list[str], torch.Tensor]:
        talk, heard = Conversation(planner, processor, pictures(2), INSTRUCTIONS[:2], WORDS), Ending(processor, 0)
        texts = talk.decompose(logits_processor=[heard], **printable(processor))
        return texts, torch.stack(heard.scores)

    def same(one: tuple[list[str], torch.Tensor], other: tuple[list[str], torch.Tensor]) -> bool:
        return one[0] == other[0] and torch.allclose(one[1], other[1], rtol=0, atol=1e-6)  # torch 2.9 rounds otherwise

    before = answers(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapted = get_peft_model(
            model, LoraConfig(target_modules=["q_proj", "o_proj", "qkv_proj"], init_lora_weights=False)
        )
    try:
        with_adapter = answers(adapted)
        with adapters_off(adapted):
            assert same(answers(adapted), before)
        assert not same(with_adapter, before)
        adapted.save_pretrained(folder / "adapter")
    finally:
        model = adapted.unload()
    model.load_adapter(str(folder / "adapter"))
    assert same(answers(model), with_adapter)
    with adapters_off(model):
        assert same(answers(model), before)


def sft_step(model: Any, processor: Any, folder: Path) -> None:
    """TRL's supervised trainer makes a step, and the language model's weights change."""
    from trl import SFTConfig, SFTTrainer

    check_trainable(processor)
    row = {"role": "assistant", "content": [{"type": "text", "text": "<action>a</action>"}]}
    columns = {"image": pictures(2), "prompt": [_asked(text) for text in INSTRUCTIONS[:2]], "completion": [[row]] * 2}
    rows = Dataset.from_dict(columns)
    before = _first_weight(model).clone()
    settings = SFTConfig(max_length=None, **_training(folder))
    SFTTrainer(model=model, processing_class=processor, args=settings, train_dataset=rows).train()
    assert not torch.equal(before, _first_weight(model))


def grpo_step(model: Any, processor: Any, folder: Path) -> None:
    """TRL's GRPO trainer makes a step, equal pictures being encoded once, and the language model's weights change."""
    from trl import GRPOConfig, GRPOTrainer

    check_trainable(processor)
    processor.tokenizer.padding_side = "left"
    rows = Dataset.from_dict({"image": pictures(1), "prompt": [_asked(INSTRUCTIONS[0])]})
    before = _first_weight(model).clone()
    settings = GRPOConfig(
        num_generations=4,
        max_completion_length=6,
        generation_kwargs=printable(processor) | {"max_new_tokens": 6},
        **{**_training(folder), "per_device_train_batch_size": 4},
    )
    settings.generation_kwargs.pop("max_new_tokens")
    trainer = GRPOTrainer(
        model=model,
        processing_class=processor,
        args=settings,
        train_dataset=rows,
        reward_funcs=[lambda completions, **_: [float(len(set(str(one)))) for one in completions]],
    )
    trainer.train()
    assert not torch.equal(before, _first_weight(model))


CELLS: dict[str, Callable[[Any, Any, Path], None]] = {
    "plan": plan,
    "batch": batch,
    "same picture twice": same_picture_twice,
    "num_plans": num_plans,
    "constrained": constrained,
    "two-turn cache": two_turn_cache,
    "sequencer apart": sequencer_apart,
    "save and load": save_and_load,
    "LoRA": lora,
    "SFT step": sft_step,
    "GRPO step": grpo_step,
}


def _asked(instruction: str) -> list[dict[str, Any]]:
    return [
        {
            "role": "user",
            "content": [{"type": "image", "text": None}, {"type": "text", "text": f"Plan: {instruction}"}],
        }
    ]


def _training(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder / "run"),
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
    }


def _first_weight(model: Any) -> torch.Tensor:
    """One of the language model, which learns from the first step, whatever its vision tower does."""
    names = ("language_model", "text_model", "model.layers")
    found = ((name, weight.detach()) for name, weight in model.named_parameters() if "_proj" in name)
    return next(weight for name, weight in found if any(part in name for part in names) and "vision" not in name)
