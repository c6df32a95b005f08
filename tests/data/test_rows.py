import subprocess
import sys

import datasets
import numpy as np
import pytest
from PIL import Image
from trl.data_utils import is_conversational, prepare_multimodal_messages

from diffusers_r1.data import check_apart, load_rows, to_prompts
from diffusers_r1.data.rows import NEUTRAL_GREY, checked_texts, fit, row_features
from diffusers_r1.plan import Edit
from diffusers_r1.planners.conversation import Conversation
from diffusers_r1.prompts import Prompts
from diffusers_r1.rewards import ActionReward
from diffusers_r1.sentences import sample_sentence
from diffusers_r1.tags import read_decomposition, read_sequence, write_decomposition


LISTS = {"actions": ["recolor", "remove"], "subjects": ["coat", "man"], "goals": ["red", "nothing"]}
SYSTEM = Prompts(decompose="Plan: {instruction}", system="You plan.")


def rows(*sizes):
    made = [
        {"image": Image.new("RGB", size, (200, 10, index)), "instruction": f"edit {index}", **LISTS, "reasoning": "hm"}
        for index, size in enumerate(sizes)
    ]
    return datasets.Dataset.from_list(made, features=row_features())


@pytest.mark.parametrize(
    "width, height", [(64, 64), (100, 50), (50, 100), (7, 3), (1, 200), (200, 1), (64, 63), (32, 32)]
)
def test_a_picture_fits_undistorted(width, height):
    picture = fit(Image.new("RGB", (width, height), (255, 0, 0)), 64)
    assert picture.size == (64, 64) and picture.mode == "RGB"
    red = np.array(picture)[..., 1] == 0
    across, down = red.any(axis=0).sum(), red.any(axis=1).sum()
    assert max(across, down) == 64
    assert abs(min(across, down) - max(1, 64 * min(width, height) / max(width, height))) <= 0.5
    assert red.sum() == across * down and np.all(np.array(picture)[~red] == NEUTRAL_GREY)
    left, right = np.flatnonzero(red.any(axis=0))[[0, -1]]
    top, bottom = np.flatnonzero(red.any(axis=1))[[0, -1]]
    assert abs(left - (63 - right)) <= 1 and abs(top - (63 - bottom)) <= 1


def test_a_picture_of_the_right_size_is_left_alone():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    assert fit(noise, 64).tobytes() == noise.tobytes()


@pytest.mark.parametrize("size", [32, None])
def test_prompts_for_a_planner_that_sees(size):
    asked = to_prompts(rows((64, 32), (20, 40)), SYSTEM, size, sees=True)
    assert set(asked.column_names) == {"prompt", "image", "instruction", *LISTS, "reasoning"}
    assert [row["image"].size for row in asked] == ([(32, 32)] * 2 if size else [(64, 32), (20, 40)])
    assert asked[1]["prompt"] == [
        {"role": "system", "content": [{"type": "text", "text": "You plan."}]},
        {
            "role": "user",
            "content": [{"type": "image", "text": None}, {"type": "text", "text": "Plan: edit 1"}],
        },
    ]
    assert {name: asked[0][name] for name in LISTS} == LISTS


def test_prompts_for_a_planner_that_does_not_see():
    asked = to_prompts(rows((64, 32)), SYSTEM, 32, sees=False)
    assert set(asked.column_names) == {"prompt", "instruction", *LISTS, "reasoning"}
    assert asked[0]["prompt"] == [
        {"role": "system", "content": "You plan."},
        {"role": "user", "content": "Plan: edit 0"},
    ]


def with_references(dataset, *lists):
    column = datasets.Dataset.from_dict(
        {"references": list(lists)}, features=datasets.Features({"references": datasets.List(datasets.Image())})
    )
    return datasets.concatenate_datasets([dataset, column], axis=1)


def test_further_pictures_are_numbered_and_of_one_size():
    second = Image.new("RGB", (32, 64), (0, 255, 0))
    dataset = with_references(rows((64, 32), (20, 40)), [second, second], None)
    asked = to_prompts(dataset, SYSTEM, 16, sees=True)
    assert set(asked.column_names) == {"prompt", "images", "instruction", *LISTS, "reasoning"}
    assert [[picture.size for picture in row["images"]] for row in asked] == [[(16, 16)] * 3, [(16, 16)]]
    assert np.array(asked[0]["images"][1])[8, 8].tolist() == [0, 255, 0]
    parts = asked[0]["prompt"][1]["content"]
    assert [part["type"] for part in parts] == ["text", "image"] * 3 + ["text"]
    assert [part["text"] for part in parts if part["text"]] == [
        "Picture 1, the one to edit:",
        "Picture 2, for reference:",
        "Picture 3, for reference:",
        "Plan: edit 0",
    ]
    assert [part["type"] for part in asked[1]["prompt"][1]["content"]] == ["image", "text"]
    assert "references" not in to_prompts(dataset, SYSTEM, 16, sees=False).column_names


def test_rows_with_another_reference_are_other_rows():
    pictures = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    one, other = (with_references(rows((8, 8)), [picture]) for picture in pictures)
    check_apart(one, other)
    with pytest.raises(ValueError, match="1 of the 1 held-out rows"):
        check_apart(one, one)
    words = load_rows("sentences", limit=2)
    with pytest.raises(ValueError, match="2 of the 2 held-out rows"):
        check_apart(words, words)


@pytest.mark.parametrize("references", [0, 2])
@pytest.mark.parametrize("sees", [True, False])
def test_training_asks_as_planning_does(planner, text_planner, sees, references):
    model, processor = planner if sees else text_planner
    dataset = rows((64, 64))
    others = [Image.new("RGB", (64, 64), (0, 9, number)) for number in range(references)]
    row = to_prompts(with_references(dataset, others) if others else dataset, SYSTEM, 64, sees)[0]
    assert is_conversational(row)
    images = (row["images"] if others else [row["image"]]) if sees else None
    messages = prepare_multimodal_messages(row["prompt"], images=images) if sees else row["prompt"]
    trained = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    picture = dataset[0]["image"].convert("RGB")
    asked = [picture], [dataset[0]["instruction"]]
    conversation = Conversation(model, processor, *asked, SYSTEM, references=[others])
    planned = conversation._encode(conversation.first_turns)
    assert trained["input_ids"].tolist() == planned["input_ids"].tolist()
    if sees:
        assert trained["pixel_values"].equal(planned["pixel_values"])


def test_control_tokens_are_no_words():
    dataset = rows((8, 8)).map(lambda row: {"instruction": "a<|image_pad|>b"})
    plain = to_prompts(dataset, SYSTEM, None, sees=False, control_tokens=["<|image_pad|>", "<|im_end|>"])
    assert plain[0]["prompt"][1]["content"] == "Plan: a b"


def test_a_stream_of_rows_is_asked_like_a_table():
    table = rows((64, 32), (20, 40))
    for sees in (True, False):
        stream = to_prompts(table.to_iterable_dataset(), SYSTEM, 16, sees)
        assert stream.features == to_prompts(table, SYSTEM, 16, sees).features
        for one, other in zip(stream, to_prompts(table, SYSTEM, 16, sees), strict=True):
            if sees:
                assert one.pop("image").tobytes() == other.pop("image").tobytes()
            assert one == other


def test_columns_reach_the_rewards():
    asked = to_prompts(rows((8, 8)).add_column("number", [3]), SYSTEM, None, sees=True)
    assert asked[0]["number"] == 3
    completion = write_decomposition([Edit(*items) for items in zip(*LISTS.values())])
    columns = {name: asked[name][:] for name in asked.column_names if name != "prompt"}
    assert ActionReward()(prompts=asked["prompt"][:], completions=[completion], **columns) == [1.0]


@pytest.mark.parametrize("size", [0, -5])
def test_a_size_without_pixels_is_refused(size):
    with pytest.raises(ValueError, match="`image_size`"):
        to_prompts(rows((8, 8)), SYSTEM, size, sees=True)


def test_texts_of_a_row():
    cells = {
        "instruction": " do it ",
        "actions": [" add"],
        "subjects": ["hat "],
        "goals": ["top"],
        "reasoning": " hm ",
    }
    lists = {"actions": ["add"], "subjects": ["hat"], "goals": ["top"]}
    assert checked_texts(cells) == {"instruction": "do it", **lists, "reasoning": "hm"}
    unknown = {"actions": None, "subjects": None, "goals": None, "reasoning": None}
    assert checked_texts({"instruction": "x"}) == checked_texts({"instruction": "x", **unknown})
    assert checked_texts({"instruction": "x"}) == {"instruction": "x", **unknown}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"instruction": None}, "the instruction is None"),
        ({"instruction": "  "}, "the instruction is '  '"),
        ({"instruction": 7}, "the instruction is 7"),
        ({"goals": None}, "`goals` is no list of texts: None"),
        ({"goals": "red"}, "`goals` is no list of texts: 'red'"),
        ({"goals": ["red", ""]}, "`goals` is no list of texts"),
        ({"goals": ["red"]}, "2 actions, 2 subjects and 1 goals"),
        ({"reasoning": 3}, "the reasoning is 3"),
        ({"actions": [], "subjects": [], "goals": []}, "0 actions, 0 subjects and 0 goals"),
    ],
)
def test_texts_that_are_no_row(change, reason):
    with pytest.raises(ValueError, match=reason):
        checked_texts({"instruction": "x", **LISTS, **change})


def test_importing_it_brings_neither_datasets_nor_torch():
    program = "import sys, diffusers_r1.data; sys.exit(bool({'torch', 'datasets'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("sees", [True, False])
def test_the_true_answer_as_a_completion(sees):
    asked = to_prompts(rows((64, 32)), SYSTEM, 32, sees, answered=True)
    (message,) = asked[0]["completion"]
    answer = message["content"][0]["text"] if sees else message["content"]
    found = read_decomposition(answer)
    assert message["role"] == "assistant" and not found.faults and found.reasoning == "hm"
    assert [[edit.action, edit.subject, edit.goal] for edit in found.edits] == [list(e) for e in zip(*LISTS.values())]


@pytest.mark.parametrize("limit", [3, None])
def test_rows_with_requests_are_answered_twice(limit):
    sentence = sample_sentence(0, "chained")
    row = next(iter(to_prompts(load_rows("sentences:chained=1", limit=limit), SYSTEM, None, False, answered=True)))
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    first, question, second = row["completion"]
    assert [first["role"], question["role"], second["role"]] == ["assistant", "user", "assistant"]
    assert read_decomposition(first["content"]).edits == sentence.edits
    assert question["content"] == SYSTEM.sequence
    assert read_sequence(second["content"]).requests == sentence.requests
    assert "image" not in row


def test_a_planner_that_sees_is_refused_rows_without_pictures():
    with pytest.raises(ValueError, match="no pictures"):
        to_prompts(load_rows("sentences", limit=3), SYSTEM, None, sees=True)
