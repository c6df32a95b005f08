import pytest
import torch
from PIL import Image

from diffusers_r1.planners.conversation import Conversation
from diffusers_r1.planners.encoded import _chosen, _split, encoder_of, first_of_equals, with_pictures_encoded
from diffusers_r1.scenes import sample_task


pytestmark = pytest.mark.tiny


@pytest.fixture
def batch(planner, prompts) -> dict[str, torch.Tensor]:
    """Six rows about three pictures of two sizes; the third differs from the first in one pixel."""
    first = sample_task(0, "simple").image
    almost = first.copy()
    almost.putpixel((0, 0), (255, 0, 255))
    small = sample_task(1, "simple").image.resize((48, 32), Image.Resampling.NEAREST)
    pictures = [first, small, first, almost, small, first]
    conversation = Conversation(*planner, pictures, [f"make it {n * 'very '}nice" for n in range(6)], prompts)
    return conversation._encode(conversation.first_turns)


def outcome(model, batch, once=False) -> tuple[torch.Tensor, dict[str, torch.Tensor], list[int]]:
    """Logits, gradients, and how many patches the tower was given in each call."""
    patches: list[int] = []
    hook = model.model.visual.patch_embed.register_forward_pre_hook(
        lambda module, inputs: patches.append(len(inputs[0]))
    )
    logits = model(**(with_pictures_encoded(model, batch) if once else batch)).logits
    logits[batch["attention_mask"] == 1].float().log_softmax(-1)[:, 7].mean().backward()
    hook.remove()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return logits.detach(), gradients, patches


def test_equal_pictures_are_encoded_once_and_nothing_else_changes(planner, batch):
    model, _ = planner
    logits, gradients, patches = outcome(model, batch)
    logits_once, gradients_once, patches_once = outcome(model, batch, once=True)
    per_picture = batch["image_grid_thw"].prod(-1).tolist()
    assert patches == [sum(per_picture)]
    assert patches_once == [per_picture[0] + per_picture[1] + per_picture[3]]
    assert torch.equal(logits_once, logits)
    assert gradients.keys() == gradients_once.keys()
    assert any(name.startswith("model.visual") and grad.abs().max() > 0 for name, grad in gradients.items())
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_once[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_different_pictures_are_all_encoded(planner, prompts):
    pictures = [sample_task(seed, "simple").image for seed in range(3)]
    conversation = Conversation(*planner, pictures, ["nicer"] * 3, prompts)
    batch = conversation._encode(conversation.first_turns)
    assert with_pictures_encoded(planner[0], batch) is batch


def test_pictures_are_told_apart_by_more_than_their_sums():
    ramp = torch.arange(12.0).reshape(3, 4)
    pictures = [{"pixel_values": one} for one in (ramp, ramp.flip(0), ramp.clone(), ramp.reshape(4, 3))]
    assert first_of_equals(pictures) == ([0, 1, 3], [0, 1, 0, 2])
    sized = [{"pixel_values": ramp, "image_sizes": torch.tensor([[side, side]])} for side in (8, 8, 9)]
    assert first_of_equals(sized) == ([0, 2], [0, 0, 1])


def test_the_innermost_module_that_takes_pictures_encodes_them(planner, text_planner):
    assert encoder_of(planner[0]) is planner[0].model
    assert encoder_of(text_planner[0]) is None


def test_what_belongs_to_which_picture_is_told_or_nothing_is_split():
    pixels, sizes = torch.arange(6.0).reshape(3, 2), torch.tensor([[1, 2], [1, 2], [3, 4]])
    pieces = _split({"pixel_values": pixels, "image_sizes": sizes})
    assert [[one.tolist() for one in piece.values()] for piece in pieces] == [
        [[pixels[row].tolist()], [sizes[row].tolist()]] for row in range(3)
    ]
    assert _split({"pixel_values": pixels, "image_sizes": sizes[:2]}) is None
    assert _split({"pixel_values": pixels, "image_sizes": sizes.tolist()}) is None


def test_pictures_that_cannot_be_told_apart_are_left_to_the_model(planner, batch):
    """A grid as a list of rows, and no pixels: neither is what a processor makes, and neither may be guessed at."""
    alone = {**batch, "pixel_values": None}
    assert with_pictures_encoded(planner[0], alone) is alone
    apart = {name: value for name, value in batch.items() if name != "image_grid_thw"}
    assert len(apart["pixel_values"].unique(dim=0)) < len(apart["pixel_values"])
    less = {**apart, "pixel_values": apart["pixel_values"][:1]}
    assert with_pictures_encoded(planner[0], less) is less


def test_features_are_handed_out_as_tensor_or_list():
    rows = torch.arange(6.0).reshape(3, 2)
    assert torch.equal(_chosen(rows, [2, 0, 2]), rows[[2, 0, 2]])
    assert _chosen(["a", "b"], [1, 0, 1]) == ["b", "a", "b"]


def test_a_planner_that_does_not_see_is_left_alone(text_planner):
    model, tokenizer = text_planner
    batch = dict(tokenizer("nicer", return_tensors="pt"))
    assert with_pictures_encoded(model, batch) is batch
