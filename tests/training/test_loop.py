import pytest
import torch

from diffusers_r1.training.loop import load_checkpoint, resumable, take_step


def train(folder, steps: int, stop_at: int | None = None) -> tuple[list[int], torch.nn.Module]:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    done = []
    for step in resumable(folder, steps, 2, model=model, optimizer=optimizer):
        if step == stop_at:
            raise InterruptedError
        rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        take_step(model(rows).square().mean(), optimizer, model)
        done.append(step)
    return done, model


def test_a_stopped_run_ends_as_one_that_was_not(tmp_path):
    steps, whole = train(tmp_path / "whole", 5)
    assert steps == [0, 1, 2, 3, 4] and load_checkpoint(tmp_path / "whole")["step"] == 5
    with pytest.raises(InterruptedError):
        train(tmp_path / "stopped", 5, stop_at=3)
    assert load_checkpoint(tmp_path / "stopped")["step"] == 2  # step 2 was done, but not saved
    steps, resumed = train(tmp_path / "stopped", 5)
    assert steps == [2, 3, 4]
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), resumed.parameters()))


def test_a_finished_run_has_no_steps_left(tmp_path):
    _, model = train(tmp_path, 3)
    steps, again = train(tmp_path, 3)
    assert steps == [] and torch.equal(model.weight, again.weight)
    assert train(tmp_path, 4)[0] == [3]


def test_the_gradient_is_clipped():
    model = torch.nn.Linear(2, 1, bias=False)
    before = model.weight.detach().clone()
    take_step(1000 * model(torch.ones(1, 2)).sum(), torch.optim.SGD(model.parameters(), lr=1.0), model)
    assert (before - model.weight).norm().item() == pytest.approx(1.0, abs=1e-3)
