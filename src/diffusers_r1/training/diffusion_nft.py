"""DiffusionNFT (arXiv 2509.16117): an editor learns from clean pictures and what each of them earned.

No sampling trajectory and no log-probability is needed. A picture `x0` that the old policy made is noised by the forward
process, `xt = a x0 + s e`, and with its optimality `r` in [0, 1] the loss is

    r |v+ - v|^2 + (1 - r) |v- - v|^2,  v+ = (1 - beta) v_old + beta v_new,  v- = (1 + beta) v_old - beta v_new

Good pictures draw the editor to themselves; of bad ones the editor's mirror image, seen from the old policy, is drawn to
them, which pushes the editor away. Added to it is `penalty |v_new - v_start|^2`, so that the editor stays near what it was,
and a self-normalised weight, see [`nft_loss`].

Three parametrisations have one loss, since all is stated in velocities:

| model | a, s | what it predicts | velocity v | clean picture |
| --- | --- | --- | --- | --- |
| flow matching | 1 - sigma, sigma | e - x0 | the prediction | xt - s v |
| `v_prediction` | roots of alpha-bar and 1 - alpha-bar | a e - s x0 | the prediction | a xt - s v |
| `epsilon` | the same | e | (e - s xt) / a | a xt - s v |

The velocity of the last row follows from `x0 = (xt - s e) / a` and `a^2 + s^2 = 1`:
`a e - s x0 = a e - s xt / a + s^2 e / a = (e - s xt) / a`. It is affine in the prediction, and `v+` and `v-` mix predictions
with weights that add up to 1, so that it does not matter whether predictions or velocities are mixed; only the weight of a
noise level differs, by `1 / a^2`. In all three rows an error of the clean picture is `s` times that of the velocity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from ..editors.positions import with_positions
from ..random_state import devices_of, seeded
from .editor_families import Encoded, family_of


FLOW, VELOCITY, EPSILON = "flow matching", "v_prediction", "epsilon"
LEAST_ERROR = 1e-5  # by which a squared error is divided at the least
LEAST_SPREAD = 1e-4


@dataclass(frozen=True)
class NFTSettings:
    """Settings of DiffusionNFT; the defaults are the field's.

    Args:
        beta (`float`, defaults to 1.0): How far the implicit policies lie from the old one. At 1, the positive one is the
            editor itself.
        clip (`float`, defaults to 5.0): The advantage, in standard deviations, at which a picture counts as all good
            or all bad.
        penalty (`float`, defaults to 1e-4): On the squared distance of the velocity from the start's.
        decay (`float`, defaults to 0.5): What the old policy keeps of itself after a step, once it has ramped up from 0.
        ramp (`float`, defaults to 0.001): How much of that is added a step, as in the paper.
        levels (`int`, defaults to 4): At how many of the steps that it was sampled in each picture is noised.
        self_normalised (`bool`, defaults to `True`): Whether errors are divided by their own size, see [`nft_loss`].
        batch_size (`int`, defaults to 8): The most noised pictures in one call of the denoiser.
        max_grad_norm (`float`, defaults to 1.0): To which the gradient is clipped.

    Raises:
        ValueError: If a value is out of its range.
    """

    beta: float = 1.0
    clip: float = 5.0
    penalty: float = 1e-4
    decay: float = 0.5
    ramp: float = 0.001
    levels: int = 4
    self_normalised: bool = True
    batch_size: int = 8
    max_grad_norm: float = 1.0

    def __post_init__(self):
        for name, fits in (
            ("beta", self.beta > 0),
            ("clip", self.clip > 0),
            ("penalty", self.penalty >= 0),
            ("decay", 0 <= self.decay < 1),
            ("ramp", self.ramp >= 0),
            ("levels", self.levels >= 1),
            ("batch_size", self.batch_size >= 1),
            ("max_grad_norm", self.max_grad_norm > 0),
        ):
            if not fits:
                raise ValueError(f"`{name}` of DiffusionNFT cannot be {getattr(self, name)}.")


@dataclass(frozen=True)
class JudgedPicture:
    """A picture that the old policy made, and what it earned.

    Args:
        source (`PIL.Image.Image`): What was edited, at the size that the editor was given.
        prompt (`str`): What the editor was asked.
        edited (`PIL.Image.Image`): What it made.
        reward (`float`): Any number; only differences within a group count.
        group (`int`): Pictures of one group were made of one source and one prompt.
    """

    source: Image.Image
    prompt: str
    edited: Image.Image
    reward: float
    group: int


def optimality(rewards: Tensor, groups: Tensor, clip: float = 5.0) -> Tensor:
    """How good each picture is among those of its group: its advantage, clipped and brought to [0, 1].

    The advantage is the distance from the group's mean in standard deviations of the group. 0.5 is the mean, 1.0 lies
    `clip` standard deviations above it; where all rewards of a group are equal, all are 0.5.

    Args:
        rewards, groups (`torch.Tensor`): Of shape `(n,)`; `groups` of integers.
        clip (`float`, defaults to 5.0): See [`NFTSettings`].

    Returns:
        `torch.Tensor`, of shape `(n,)`, from 0.0 to 1.0.
    """
    result = torch.full_like(rewards, 0.5)
    for group in groups.unique():
        of_group = groups == group
        values = rewards[of_group]
        if values.max() > values.min():
            advantages = (values - values.mean()) / (values.std() + LEAST_SPREAD)
            result[of_group] = 0.5 + (advantages / clip).clamp(-1, 1) / 2
    return result


def old_policy_decay(step: int, settings: NFTSettings) -> float:
    """What the old policy keeps of itself after step `step`, counted from 0: `min(ramp * step, decay)`.

    At the beginning it follows the editor at once, later it lags behind: first quick, then steady.
    """
    return min(settings.ramp * step, settings.decay)


def nft_loss(
    predicted: Tensor, old: Tensor, velocity: Tensor, optimal: Tensor, noise: Tensor, settings: NFTSettings
) -> Tensor:
    """The loss of each noised picture: `r w+ |v+ - v|^2 + (1 - r) w- |v- - v|^2`.

    The weights `w` are 1, or, with `self_normalised`, those of the paper's section on adaptive weighting: the error is
    that of the clean picture, which is `s` times the velocity's, and its square is divided by its own mean absolute value,
    through which no gradient flows. So no noise level outweighs the others, whatever the model predicts.

    Args:
        predicted, old, velocity (`torch.Tensor`): Velocities of one shape `(batch, ...)`: of the editor, of the old policy,
            and the true one.
        optimal (`torch.Tensor`): Of shape `(batch,)`: the optimality of each picture.
        noise (`torch.Tensor`): Of shape `(batch,)`: `s`.
        settings ([`NFTSettings`]): Of which `beta` and `self_normalised` are read.

    Returns:
        `torch.Tensor`, of shape `(batch,)`: squares are averaged over the values of a picture.
    """
    beta = settings.beta

    def error(implicit: Tensor) -> Tensor:
        apart = (implicit - velocity).flatten(1)
        if not settings.self_normalised:
            return apart.square().mean(1)
        apart = apart * noise[:, None]
        return apart.square().mean(1) / apart.detach().abs().mean(1).clamp(min=LEAST_ERROR)

    positive = (1 - beta) * old + beta * predicted
    negative = (1 + beta) * old - beta * predicted
    return optimal * error(positive) + (1 - optimal) * error(negative)


class ForwardProcess:
    """How an editor's scheduler noises pictures, and what its denoiser's predictions mean.

    Args:
        scheduler ([`~diffusers.SchedulerMixin`]): One of flow matching, or one with `alphas_cumprod` whose
            `prediction_type` is `v_prediction` or `epsilon`.

    Raises:
        ValueError: If it is another one, or `epsilon` is to be read from noise alone.
    """

    def __init__(self, scheduler: Any):
        self.scheduler = scheduler
        name, config = type(scheduler).__name__, scheduler.config
        if "FlowMatch" in name:
            self.kind = FLOW
        elif hasattr(scheduler, "alphas_cumprod") and config.get("prediction_type") in (VELOCITY, EPSILON):
            self.kind = config.prediction_type
        else:
            raise ValueError(
                f"DiffusionNFT is defined here for flow matching, `v_prediction` and `epsilon`; {name} is of none of them."
            )
        if self.kind == EPSILON and float(scheduler.alphas_cumprod.min()) < 1e-6:
            raise ValueError("At a signal of 0 (`rescale_betas_zero_snr`) the noise says nothing about the picture.")

    def levels(self, generator: torch.Generator, pictures: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """`count` different steps of the schedule that was sampled last, drawn for each picture.

        Returns:
            `tuple` of three `torch.Tensor` of shape `(pictures, count)`: timesteps as the scheduler counts them, `a`, `s`.
        """
        steps = self.scheduler.timesteps.cpu().float()
        drawn = torch.stack([torch.randperm(len(steps), generator=generator)[:count] for _ in range(pictures)])
        timesteps = steps[drawn]
        if self.kind == FLOW:
            noise = self.scheduler.sigmas.cpu().float()[drawn]
            return timesteps, 1 - noise, noise
        timesteps = timesteps.round().long()
        kept = self.scheduler.alphas_cumprod.cpu().float()[timesteps]
        return timesteps, kept.sqrt(), (1 - kept).sqrt()

    def velocity(self, clean: Tensor, drawn: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
        """The true velocity of clean latents under the noise that was drawn; `a` and `s` are broadcast."""
        return drawn - clean if self.kind == FLOW else signal * drawn - noise * clean

    def as_velocity(self, prediction: Tensor, noisy: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
        """A denoiser's prediction as a velocity; see the table above."""
        return (prediction - noise * noisy) / signal if self.kind == EPSILON else prediction


class EditorLearner:
    """The editor's side of joint training: three policies in one model, an optimizer, and the step.

    What is trained (a LoRA adapter or all weights of the denoiser) is kept three times: as it is learned, as the old
    policy that makes the pictures, and as it was at the start. Only these weights are exchanged in the model.

    Args:
        editor ([`~diffusers.DiffusionPipeline`]): Of one of the families in `editor_families.py`. Its denoiser is changed.
        settings ([`NFTSettings`]): Of the loss.
        learning_rate (`float`): Of AdamW.
        lora_rank (`int`, *optional*): Train a new adapter of this rank in place of all weights, named `"joint"` (`"joint-1"`
            beside one that the denoiser has, ...). What is active there stays so, as it is.
        arguments (`Mapping`, *optional*): What the editor is called with when it makes pictures; of them the family reads
            what conditions the denoiser, such as `guidance_scale`.
        seed (`int`, defaults to 0): Of the noise.

    Raises:
        ValueError: If the editor's class or scheduler is none that can be trained, or it is sampled with guidance.
    """

    ADAPTER = "joint"

    def __init__(
        self,
        editor: DiffusionPipeline,
        settings: NFTSettings,
        learning_rate: float,
        lora_rank: int | None = None,
        arguments: dict[str, Any] | None = None,
        seed: int = 0,
    ):
        self.editor, self.settings, self.seed, self.step = editor, settings, seed, 0
        self.family = family_of(editor)
        self.arguments = self.family.unguided(arguments or {})
        self.forward_process = ForwardProcess(editor.scheduler)
        self.denoiser: Any = getattr(editor, self.family.denoiser)
        self.is_lora = lora_rank is not None
        self.denoiser.requires_grad_(False)
        if lora_rank is not None:
            from peft import LoraConfig

            targets = list(self.family.lora_targets)
            config = LoraConfig(
                r=lora_rank, lora_alpha=lora_rank, target_modules=targets, init_lora_weights="gaussian"
            )
            own = list(getattr(self.denoiser, "peft_config", ()))
            active = self.denoiser.active_adapters() if own else []
            self.adapter = f"{self.ADAPTER}-{len(own)}" if own else self.ADAPTER
            with seeded(seed, devices_of(self.denoiser)):
                self.denoiser.add_adapter(config, adapter_name=self.adapter)
            self.denoiser.set_adapter([*active, self.adapter])  # `add_adapter` has switched the others off
            self.denoiser.requires_grad_(False)
            named = self.denoiser.named_parameters()
            self.weights = [weight for name, weight in named if f".{self.adapter}." in name]
            for weight in self.weights:
                weight.data = weight.data.float()
                weight.requires_grad_(True)
        else:
            self.denoiser.requires_grad_(True)
            self.weights = list(self.denoiser.parameters())
        self.start = [weight.detach().clone() for weight in self.weights]
        self.old = [weight.detach().clone() for weight in self.weights]
        self.optimizer = torch.optim.AdamW(self.weights, lr=learning_rate, weight_decay=0.0)

    @contextmanager
    def holding(self, values: Sequence[Tensor]) -> Iterator[None]:
        """While it is open, the editor has these values in place of the trained weights: `old` or `start`."""
        kept = [weight.data for weight in self.weights]
        for weight, value in zip(self.weights, values):
            weight.data = value
        try:
            yield
        finally:
            for weight, value in zip(self.weights, kept):
                weight.data = value

    def sampling(self) -> Any:
        """While it is open, the editor is the old policy, which makes the pictures."""
        return self.holding(self.old)

    def learn(self, pictures: Sequence[JudgedPicture], learning_rate: float | None = None) -> dict[str, float]:
        """One step of the optimizer on pictures that `sampling` made since the last one.

        The noise levels are steps of the schedule that the editor sampled last. Groups whose rewards are all equal are
        left out: nothing is learned from them. Where all are, nothing happens.

        Args:
            pictures (sequence of [`JudgedPicture`]): Groups may lie in any order.
            learning_rate (`float`, *optional*): For this step, where it follows a schedule.

        Returns:
            `dict` of `float`: `loss` (without the penalty), `penalty`, `grad_norm`, `distance` (mean squared distance of
            the weights from the start), `learned_from` (share of the pictures), `decay`.
        """
        rewards = torch.tensor([picture.reward for picture in pictures], dtype=torch.float32)
        groups = torch.tensor([picture.group for picture in pictures])
        optimal = optimality(rewards, groups, self.settings.clip)
        spread = torch.tensor([bool((optimal[groups == group] != 0.5).any()) for group in groups.tolist()])
        chosen = spread.nonzero().flatten().tolist() if len(pictures) else []
        decay = old_policy_decay(self.step, self.settings)
        marks = {"learned_from": len(chosen) / max(1, len(pictures)), "decay": decay}
        if chosen:
            marks |= self._update([pictures[row] for row in chosen], optimal[chosen], learning_rate)
            with torch.no_grad():
                for old, weight in zip(self.old, self.weights):
                    old.lerp_(weight, 1 - decay)
        self.step += 1
        return marks

    def state_dict(self) -> dict[str, Any]:
        """All that the learner goes on from; of the model only what is trained."""
        weights = [weight.detach().cpu() for weight in self.weights]
        return {
            "weights": weights,
            "old": [value.cpu() for value in self.old],
            "start": [value.cpu() for value in self.start],
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, in the weights that the model has now."""
        for mine, saved in (
            ([weight.data for weight in self.weights], state["weights"]),
            (self.old, state["old"]),
            (self.start, state["start"]),
        ):
            for value, other in zip(mine, saved, strict=True):
                value.copy_(other)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def save_adapter(self, folder: str | Path) -> None:
        """Write the adapter as diffusers does, for `editor.load_lora_weights(folder)`."""
        from peft import get_peft_model_state_dict

        layers = get_peft_model_state_dict(self.denoiser, adapter_name=self.adapter)
        self.editor.save_lora_weights(folder, **{f"{self.family.denoiser}_lora_layers": layers})

    def _update(
        self, pictures: Sequence[JudgedPicture], optimal: Tensor, learning_rate: float | None
    ) -> dict[str, float]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        count = min(self.settings.levels, len(self.editor.scheduler.timesteps))
        timesteps, signal, noise = self.forward_process.levels(generator, len(pictures), count)
        total = len(pictures) * count
        losses = penalties = 0.0
        self.optimizer.zero_grad()
        for rows in _of_one_size(pictures, self.settings.batch_size):
            encoded = self._encoded([pictures[row] for row in rows])
            for level in range(count):
                drawn = (values[rows, level] for values in (timesteps, signal, noise))
                loss, penalty = self._losses(encoded, *drawn, optimal=optimal[rows], generator=generator)
                ((loss + self.settings.penalty * penalty).sum() / total).backward()
                losses, penalties = losses + loss.sum().item(), penalties + penalty.sum().item()
        norm = torch.nn.utils.clip_grad_norm_(self.weights, self.settings.max_grad_norm)
        if learning_rate is not None:
            self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        apart = sum((weight.detach() - start).square().sum() for weight, start in zip(self.weights, self.start))
        size = sum(weight.numel() for weight in self.weights)
        return {
            "loss": losses / total,
            "penalty": penalties / total,
            "grad_norm": float(norm),
            "distance": float(apart) / size,
        }

    def _encoded(self, pictures: Sequence[JudgedPicture]) -> Encoded:
        with torch.no_grad(), with_positions(self.editor):
            return self.family.encode(
                self.editor,
                [picture.source for picture in pictures],
                [picture.prompt for picture in pictures],
                [picture.edited for picture in pictures],
                self.arguments,
            )

    def _losses(
        self,
        encoded: Encoded,
        timesteps: Tensor,
        signal: Tensor,
        noise: Tensor,
        optimal: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """The loss and the penalty of each picture, noised once, each of shape `(batch,)`."""
        forward = self.forward_process
        clean = encoded.clean.float()
        # Drawn on the processor, so that every device sees the same noise.
        drawn = torch.randn(clean.shape, generator=generator).to(clean.device)
        wide = [values.to(clean.device).view(-1, *[1] * (clean.ndim - 1)) for values in (signal, noise)]
        noisy = wide[0] * clean + wide[1] * drawn
        true = forward.velocity(clean, drawn, *wide)
        counted = timesteps.to(clean.device)

        def velocity(predict: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
            return forward.as_velocity(predict(noisy, counted).float(), noisy, *wide)

        with torch.no_grad():
            with self.holding(self.old):
                old = velocity(encoded.predict)
            with self.holding(self.start):
                start = velocity(encoded.predict)
        predicted = velocity(encoded.predict)
        loss = nft_loss(predicted, old, true, optimal.to(clean.device), noise.to(clean.device), self.settings)
        return loss, (predicted - start).square().flatten(1).mean(1)


def _of_one_size(pictures: Sequence[JudgedPicture], most: int) -> Iterator[list[int]]:
    """Rows whose pictures are of one size, at most `most` together."""
    by_size: dict[Any, list[int]] = {}
    for row, picture in enumerate(pictures):
        by_size.setdefault((picture.source.size, picture.edited.size), []).append(row)
    for rows in by_size.values():
        yield from (rows[start : start + most] for start in range(0, len(rows), most))
