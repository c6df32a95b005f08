"""DiffusionNFT against the paper's formulas, written out with numbers, and against what it is for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny_loras
import tiny_models
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, LCMScheduler
from PIL import Image
from safetensors.torch import load_file
from tiny_editors import picture
from torch.nn import functional as F

from diffusers_r1.training.diffusion_nft import (
    EPSILON,
    FLOW,
    VELOCITY,
    EditorLearner,
    ForwardProcess,
    JudgedPicture,
    NFTSettings,
    nft_loss,
    old_policy_decay,
    optimality,
)


SETTINGS = NFTSettings(levels=2, batch_size=4)
EDITORS = {
    "pix2pix": (tiny_models.tiny_pix2pix, {}),
    "kontext": (tiny_models.tiny_kontext, {"guidance_scale": 2.5}),
    "klein": (tiny_models.tiny_flux2_klein, {}),
    "qwen": (tiny_models.tiny_qwen_edit, {}),
}


def judged(group: int, reward: float, seed: int) -> JudgedPicture:
    return JudgedPicture(picture((64, 64)), "make it red", picture((64, 64), seed), reward, group)


def learner(name: str = "pix2pix", settings: NFTSettings = SETTINGS, steps: int = 2, **options) -> EditorLearner:
    build, arguments = EDITORS[name]
    editor = build()
    editor.set_progress_bar_config(disable=True)
    if "FlowMatch" in type(editor.scheduler).__name__:
        editor.scheduler.set_timesteps(steps, mu=0.5)
    else:
        editor.scheduler.set_timesteps(steps)
    return EditorLearner(editor, settings, options.pop("learning_rate", 1e-3), arguments=arguments, **options)


def test_optimality_by_hand():
    rewards, groups = torch.tensor([0.0, 1.0, 0.2, 0.2, 1.0, 0.0, 0.0]), torch.tensor([0, 0, 1, 1, 2, 2, 2])
    # group 0: mean 0.5, deviation 0.7071: advantages -+0.7071; group 2: mean 1/3, deviation 0.57735: 1.1547, -0.57735
    expected = [0.5 - 0.07071, 0.5 + 0.07071, 0.5, 0.5, 0.5 + 0.11547, 0.5 - 0.057735, 0.5 - 0.057735]
    assert optimality(rewards, groups).tolist() == pytest.approx(expected, abs=1e-4)
    assert optimality(rewards, groups, clip=0.6).tolist() == pytest.approx(
        [0, 1, 0.5, 0.5, 1, 0.0189, 0.0189], abs=1e-3
    )


def test_loss_by_hand():
    """beta 0.5, old 2, editor 4, truth 1: v+ = 3, v- = 1; squares 4 and 0."""
    one = torch.ones(1, 1)
    plain = NFTSettings(beta=0.5, self_normalised=False)
    for optimal, expected in ((1.0, 4.0), (0.0, 0.0), (0.25, 1.0)):
        loss = nft_loss(4 * one, 2 * one, one, torch.tensor([optimal]), torch.tensor([0.5]), plain)
        assert loss.tolist() == [expected]
    # s = 0.5: errors of the clean picture 1 and 0; 1 ** 2 / 1 and 0 / 1e-5
    weighted = nft_loss(4 * one, 2 * one, one, torch.tensor([0.25]), torch.tensor([0.5]), NFTSettings(beta=0.5))
    assert weighted.tolist() == [0.25]


def test_at_beta_one_a_good_picture_is_plain_supervised_training():
    predicted, old, true = torch.randn(3, 2, 5)
    sure = torch.ones(2)
    loss = nft_loss(predicted, old, true, sure, sure, NFTSettings(self_normalised=False))
    assert torch.allclose(loss, (predicted - true).square().mean(1))


def test_the_gradient_at_the_old_policy_is_the_advantage_times_the_supervised_one():
    """Where editor and old policy are one, good and bad pictures pull by `2 r - 1`: equation 5 differentiated."""
    old, true = torch.randn(2, 4, 6)
    optimal = torch.tensor([0.0, 0.3, 0.5, 1.0])
    predicted = old.clone().requires_grad_()
    nft_loss(predicted, old, true, optimal, optimal, NFTSettings(self_normalised=False)).sum().backward()
    expected = (2 * optimal[:, None] - 1) * 2 * (old - true) / 6
    assert torch.allclose(predicted.grad, expected, atol=1e-6)


def test_three_parametrisations_of_one_prediction():
    """A denoiser that believes in one clean picture has one velocity, whether it says so by velocity or by noise, and one
    clean picture, under flow matching as well."""
    clean, drawn, believed = torch.randn(3, 2, 4)
    for a, s in ((0.8, 0.6), (0.28, 0.96)):
        signal, noise = torch.full((2, 1), a), torch.full((2, 1), s)
        noisy = a * clean + s * drawn
        epsilon = (noisy - a * believed) / s
        forward = {
            kind: ForwardProcess(DDIMScheduler(prediction_type=kind, clip_sample=False))
            for kind in (VELOCITY, EPSILON)
        }
        said = a * epsilon - s * believed
        assert torch.allclose(forward[EPSILON].as_velocity(epsilon, noisy, signal, noise), said, atol=1e-5)
        assert torch.equal(forward[VELOCITY].as_velocity(said, noisy, signal, noise), said)
        truths = [one.velocity(clean, drawn, signal, noise) for one in forward.values()]
        assert torch.equal(*truths)
        # an error of the clean picture is s times that of the velocity, in all of them
        assert torch.allclose(noise * (said - truths[0]), -(believed - clean), atol=1e-5)

        flow = ForwardProcess(FlowMatchEulerDiscreteScheduler())
        level = torch.full((2, 1), s)
        noisy = (1 - s) * clean + s * drawn
        said = (noisy - believed) / s
        assert torch.allclose(
            level * (said - flow.velocity(clean, drawn, 1 - level, level)), -(believed - clean), atol=1e-5
        )


def test_the_loss_of_two_parametrisations_of_one_model_is_one():
    clean, drawn, old, new = torch.randn(4, 3, 8)
    optimal = torch.tensor([0.1, 0.5, 0.9])
    signal, noise = torch.full((3, 1), 0.6), torch.full((3, 1), 0.8)
    noisy = 0.6 * clean + 0.8 * drawn
    losses = []
    for kind in (VELOCITY, EPSILON):
        forward = ForwardProcess(DDIMScheduler(prediction_type=kind, clip_sample=False))
        as_noise = [(noisy - 0.6 * believed) / 0.8 for believed in (new, old)]
        said = as_noise if kind == EPSILON else [0.6 * e - 0.8 * x for e, x in zip(as_noise, (new, old))]
        velocities = [forward.as_velocity(one, noisy, signal, noise) for one in said]
        true = forward.velocity(clean, drawn, signal, noise)
        losses.append(nft_loss(*velocities, true, optimal, noise[:, 0], NFTSettings()))
    assert torch.allclose(*losses, atol=1e-5)


@pytest.mark.parametrize("kind", [VELOCITY, EPSILON, FLOW])
def test_noise_levels_are_those_of_the_schedule(kind):
    """What the forward process calls noisy is what the scheduler's own function makes of the picture."""
    clean, drawn = torch.randn(2, 1, 4, 8, 8)
    if kind == FLOW:
        scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
        scheduler.set_timesteps(5, mu=0.7)
    else:
        scheduler = DDIMScheduler(prediction_type=kind, timestep_spacing="trailing")
        scheduler.set_timesteps(5)
    timesteps, signal, noise = ForwardProcess(scheduler).levels(torch.Generator().manual_seed(0), 3, 5)
    assert timesteps.shape == (3, 5)
    for row in range(3):
        assert sorted(timesteps[row].tolist()) == pytest.approx(sorted(scheduler.timesteps.tolist()))
        for time, a, s in zip(timesteps[row], signal[row], noise[row]):
            mine = a * clean + s * drawn
            its = (
                scheduler.scale_noise(clean, time[None], drawn)
                if kind == FLOW
                else scheduler.add_noise(clean, drawn, time[None])
            )
            assert torch.allclose(mine, its, atol=1e-5)


def test_schedulers_that_are_refused():
    with pytest.raises(ValueError, match="DDIMScheduler is of none of them"):
        ForwardProcess(DDIMScheduler(prediction_type="sample"))
    with pytest.raises(ValueError, match="signal of 0"):
        ForwardProcess(DDIMScheduler(rescale_betas_zero_snr=True))
    assert ForwardProcess(EulerDiscreteScheduler()).kind == EPSILON
    assert ForwardProcess(LCMScheduler()).kind == EPSILON


@pytest.mark.parametrize(
    "wrong", [{"beta": 0}, {"clip": 0}, {"penalty": -1}, {"decay": 1.0}, {"levels": 0}, {"batch_size": 0}]
)
def test_settings_that_are_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        NFTSettings(**wrong)


def test_the_old_policy_follows_ever_more_slowly():
    decays = [old_policy_decay(step, NFTSettings(ramp=0.1)) for step in (0, 1, 4, 5, 100)]
    assert decays == pytest.approx([0, 0.1, 0.4, 0.5, 0.5])


@pytest.mark.parametrize("name", EDITORS)
def test_a_step_of_each_family_has_the_loss_of_the_formula(name):
    """The step's own loss, worked out again from three calls of the denoiser under three sets of weights."""
    one = learner(name, replace(SETTINGS, levels=1, self_normalised=False, penalty=0.1))
    with torch.no_grad():  # three policies that differ
        for index, weight in enumerate(one.weights):
            noise = torch.Generator().manual_seed(index)
            weight += 0.05 * torch.randn(weight.shape, generator=noise)
            one.old[index] += 0.05 * torch.randn(weight.shape, generator=noise)
    pictures = [judged(0, 1.0, seed=1), judged(0, 0.0, seed=2)]
    policies = {"new": [weight.detach().clone() for weight in one.weights], "old": one.old, "start": one.start}
    encoded = one._encoded(pictures)
    generator = torch.Generator().manual_seed(0)  # seed 0, step 0
    timesteps, signal, noise = one.forward_process.levels(generator, 2, 1)
    drawn = torch.randn(encoded.clean.shape, generator=generator)
    a, s = (values.view(-1, *[1] * (drawn.ndim - 1)) for values in (signal, noise))
    noisy = a * encoded.clean + s * drawn
    said = {}
    for policy, values in policies.items():
        with torch.no_grad(), one.holding([value.clone() for value in values]):
            said[policy] = encoded.predict(noisy, timesteps[:, 0])
    if one.forward_process.kind == FLOW:
        true = drawn - encoded.clean
    else:
        assert one.forward_process.kind == EPSILON
        true = a * drawn - s * encoded.clean
        said = {policy: (value - s * noisy) / a for policy, value in said.items()}
    r = torch.tensor([0.5 + 0.70710678 / 10, 0.5 - 0.70710678 / 10])
    positive = (said["new"] - true).square().flatten(1).mean(1)
    negative = (2 * said["old"] - said["new"] - true).square().flatten(1).mean(1)
    marks = one.learn(pictures)
    assert marks["loss"] == pytest.approx((r * positive + (1 - r) * negative).mean().item(), rel=1e-3)
    assert marks["penalty"] == pytest.approx(F.mse_loss(said["new"], said["start"]).item(), rel=1e-3)
    assert marks["learned_from"] == 1 and marks["grad_norm"] > 0
    assert any(not torch.equal(before, after) for before, after in zip(policies["new"], one.weights))


def test_groups_of_one_reward_change_nothing():
    one = learner()
    before = [weight.detach().clone() for weight in one.weights]
    marks = one.learn([judged(0, 0.3, 1), judged(0, 0.3, 2), judged(1, 1.0, 3), judged(1, 1.0, 4)])
    assert marks == {"learned_from": 0.0, "decay": 0.0}
    assert one.learn([])["learned_from"] == 0
    assert all(torch.equal(*pair) for pair in zip(before, one.weights))
    mixed = one.learn([judged(0, 0.3, 1), judged(0, 0.3, 2), judged(1, 0.0, 3), judged(1, 1.0, 4)])
    assert mixed["learned_from"] == 0.5


def test_three_policies():
    """After the first step the old policy is the new one; later it keeps a part of itself; the start stays."""
    one = learner(settings=replace(SETTINGS, ramp=0.25))
    pictures = [judged(0, 1.0, 1), judged(0, 0.0, 2)]
    start = [weight.detach().clone() for weight in one.weights]
    one.learn(pictures)
    assert all(torch.equal(*pair) for pair in zip(one.old, one.weights))
    before = [value.clone() for value in one.old]
    one.learn(pictures)
    for old, kept, weight in zip(one.old, before, one.weights):
        assert torch.allclose(old, 0.25 * kept + 0.75 * weight, atol=1e-7)
    assert all(torch.equal(*pair) for pair in zip(one.start, start))
    learned = [weight.detach().clone() for weight in one.weights]
    with one.sampling():
        assert all(torch.equal(*pair) for pair in zip(one.weights, one.old))
    assert all(torch.equal(*pair) for pair in zip(one.weights, learned))


def test_an_adapter_is_drawn_from_its_seed_and_no_other_device_is_seeded(monkeypatch):
    editors = [tiny_models.tiny_pix2pix() for _ in range(3)]
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state()
    one, same, other = (
        EditorLearner(editor, SETTINGS, 1e-3, lora_rank=2, seed=seed) for editor, seed in zip(editors, (1, 1, 2))
    )
    assert all(map(torch.equal, one.weights, same.weights))
    assert not all(map(torch.equal, one.weights, other.weights))
    assert torch.equal(before, torch.get_rng_state()) and not seeded


@pytest.mark.parametrize("lora_rank", [None, 2])
def test_going_on_is_exact(lora_rank):
    pictures = [judged(0, 1.0, 1), judged(0, 0.0, 2), judged(0, 0.5, 3)]
    whole = learner(lora_rank=lora_rank)
    first = learner(lora_rank=lora_rank)
    for _ in range(4):
        whole.learn(pictures)
    for _ in range(2):
        first.learn(pictures)
    state = first.state_dict()
    again = learner(lora_rank=lora_rank)
    again.load_state_dict(state)
    for _ in range(2):
        marks = again.learn(pictures)
    assert again.step == whole.step == 4 and marks["learned_from"] == 1
    assert all(torch.equal(*pair) for pair in zip(again.weights, whole.weights))
    assert all(torch.equal(*pair) for pair in zip(again.old, whole.old))


@pytest.mark.parametrize("name", EDITORS)
def test_an_adapter_of_each_family_starts_as_the_editor_and_learns(name):
    one = learner(name, replace(SETTINGS, levels=1), lora_rank=2)
    frozen = {key: value.clone() for key, value in one.denoiser.state_dict().items() if "lora" not in key}
    marks = one.learn([judged(0, 1.0, 1), judged(0, 0.0, 2)])
    assert marks["penalty"] == 0  # the adapter adds nothing yet
    assert marks["distance"] > 0
    assert all("lora" in key for key, value in one.denoiser.named_parameters() if value.requires_grad)
    assert len(one.weights) > 0
    after = one.denoiser.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in frozen.items())


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")  # of a second one
def test_the_editors_own_adapters_stay_as_they_are(tmp_path):
    editor = tiny_loras.with_loras(tmp_path, "pix2pix")
    editor.scheduler.set_timesteps(2)
    before = tiny_loras.adapters_of(editor)["unet"]
    for name in ("joint-2", "joint-3"):  # the second run goes on from the first one's editor
        own = {key: value.clone() for key, value in editor.unet.state_dict().items()}
        one = EditorLearner(editor, SETTINGS, 1e-3, lora_rank=2)
        assert tiny_loras.adapters_of(editor)["unet"].items() >= {**before, name: (True, True, 1.0)}.items()
        assert one.learn([judged(0, 1.0, 1), judged(0, 0.0, 2)])["penalty"] == 0
        after = editor.unet.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in own.items() if key in after)
        one.save_adapter(tmp_path / name)
        saved = load_file(tmp_path / name / "pytorch_lora_weights.safetensors")
        assert len(saved) == len(one.weights) and all(f".{name}" not in key for key in saved)


def fit_autoencoder(editor) -> None:
    """Teach the tiny autoencoder plain colours: with random weights, nothing of what was made would be in its pictures."""
    vae, random = editor.vae, torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(vae.parameters(), lr=5e-3)
    depth = (1,) if "Qwen" in type(vae).__name__ else ()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(150):
            colours = torch.rand(8, 3, *[1] * len(depth), 1, 1, generator=random) * 2 - 1
            pixels = colours.expand(-1, -1, *depth, 32, 32)
            latents = vae.encode(pixels).latent_dist.mode()
            blurred = latents + 0.3 * torch.randn(latents.shape, generator=random)
            error = F.mse_loss(vae.decode(blurred).sample, pixels)
            loss = error + 0.1 * (latents.std() - 1).square() + 0.1 * latents.mean().square()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def mean_red(image: Image.Image) -> float:
    red, green, blue = np.asarray(image.convert("RGB"), dtype=np.float32).reshape(-1, 3).mean(0) / 255
    return float(red - (green + blue) / 2)


# Not of tiny InstructPix2Pix: in which direction its random weights can be moved hangs on how a processor rounds. What it learns is
# shown where it has learnt something before, on scenes (benchmarks/joint.py).
RISES = [
    pytest.param("klein", {"height": 64, "width": 64}, 12, id="klein"),
    *(
        pytest.param(name, options, 50, id=f"{name}-50", marks=pytest.mark.slow)
        for name, options in {
            "kontext": {"height": 64, "width": 64, "_auto_resize": False, "max_area": 64 * 64},
            "klein": {"height": 64, "width": 64},
            "qwen": {"height": 64, "width": 64},
        }.items()
    ),
]


@pytest.mark.parametrize(("name", "options", "steps"), RISES)
def test_the_reward_rises(name, options, steps):
    """A toy target, red pictures: what the editor makes of other noise is redder afterwards than before."""
    one = learner(name, NFTSettings(levels=2, batch_size=8, ramp=0.02), learning_rate=3e-3)
    fit_autoencoder(one.editor)
    source = picture((64, 64))
    given = {**one.arguments, **options, "num_inference_steps": 2}

    def made(seeds: range) -> list[Image.Image]:
        with torch.no_grad(), one.sampling():
            return [
                one.editor(
                    image=source, prompt="make it red", generator=torch.Generator().manual_seed(seed), **given
                ).images[0]
                for seed in seeds
            ]

    def redness() -> float:
        return float(np.mean([mean_red(image) for image in made(range(1000, 1008))]))

    before = redness()
    for step in range(steps):
        pictures = made(range(step * 8, step * 8 + 8))
        one.learn([JudgedPicture(source, "make it red", image, mean_red(image), 0) for image in pictures])
    after = redness()
    print(f"{name}: {before:.3f} to {after:.3f} in {steps} steps")
    assert after > before + 0.03
