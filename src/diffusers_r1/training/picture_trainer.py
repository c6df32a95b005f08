"""GRPO when some of its rewards come from pictures, which can fail to be made or to be judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate.utils import gather
from torch import Tensor
from trl.trainer.utils import nanstd

from .grouped import GroupedGRPOTrainer
from .pictures import PictureReward


if TYPE_CHECKING:
    from trl import GRPOConfig


SMALLEST_STD = 1e-4  # TRL's


class PictureGRPOTrainer(GroupedGRPOTrainer):
    """[`GroupedGRPOTrainer`] that leaves out completions whose picture nobody has judged.

    TRL adds up the rewards that a completion has. One that kept the format, and whose judge failed, would have its reward for
    the format alone, which is what the worst of pictures earns. Here it has none: it is not in the group's mean and spread,
    and moves nothing. Where no reward looks at pictures, nothing is different.

    Args:
        bare_member (`bool`, defaults to `False`): Count the bare instruction, given to the editor without a plan, as one more
            member of each group. It has all of the other rewards in full. It changes the group's mean and spread, and
            nothing is learned from it: where the editor does as well without a plan, plans earn less for being as good. A
            reward subtracted from all members of a group would change nothing. Rewards are added up, and scaled by the
            group's spread or not at all.

    Raises:
        ValueError: If `bare_member` does not go with the settings, see [`check_bare_member`].
    """

    def __init__(self, *args: Any, bare_member: bool = False, **kwargs: Any):
        super().__init__(*args, **kwargs)
        check_bare_member(bare_member, cast("GRPOConfig", self.args))
        self.bare_member = bare_member
        self._members: tuple[Tensor, Tensor] | None = None

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        pictures = {number: one for number, one in enumerate(self.reward_funcs) if isinstance(one, PictureReward)}
        unknown = rewards[:, list(pictures)].isnan().any(dim=1)
        rewards = torch.where(unknown[:, None], torch.nan, rewards)
        if self.bare_member and self.model.training:
            bare = torch.ones(len(inputs), len(self.reward_funcs), device=rewards.device)
            for number, reward in pictures.items():
                marks = reward.of_instructions(inputs)
                bare[:, number] = torch.tensor([torch.nan if one is None else one.reward for one in marks])
            self._members = rewards, cast(Tensor, gather(bare))
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super()._generate_and_score_completions(inputs)
        if self._members is not None:
            weights = self.reward_weights.to(self.accelerator.device)
            rewards, bare = ((values * weights).sum(dim=1) for values in self._members)
            advantages = with_bare_member(rewards, bare, self.num_generations, self.scale_rewards != "none")
            own = slice(*(len(inputs) * (self.accelerator.process_index + end) for end in (0, 1)))
            batch["advantages"] = advantages[own]
            logged = self._logs["advantages"]  # TRL's, of groups without the bare member
            for _ in range(min(len(advantages), len(logged))):
                logged.pop()
            logged.extend(advantages.tolist())
            self._members = None
        return batch


def check_bare_member(wanted: bool, training: GRPOConfig) -> None:
    """Refuse ways to scale or to add up rewards in which a bare member would have no part."""
    if wanted and (training.scale_rewards == "batch" or training.multi_objective_aggregation != "sum_then_normalize"):
        raise ValueError(
            "The bare member counts in its group alone: --picture_bare_member goes with --scale_rewards group or none and "
            "--multi_objective_aggregation sum_then_normalize."
        )


def with_bare_member(rewards: Tensor, bare: Tensor, group: int, scaled: bool = True) -> Tensor:
    """The advantages of completions in groups that have one more member: how far each is above the mean, in spreads.

    Args:
        rewards (`Tensor`): Of all completions, `(size,)`, those of a prompt side by side; NaN where not known.
        bare (`Tensor`): Of the bare instruction of each completion's prompt, `(size,)`.
        group (`int`): How many completions a prompt has.
        scaled (`bool`, defaults to `True`): Whether the distance is divided by the spread.

    Returns:
        `Tensor` `(size,)`: 0 where the reward is not known.

    Example:
        >>> with_bare_member(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0]), group=2).tolist()
        [0.0, 0.0]
        >>> with_bare_member(torch.tensor([1.0, 1.0]), torch.tensor([0.4, 0.4]), 2, scaled=False).tolist()
        [0.20000000298023224, 0.20000000298023224]
    """
    members = torch.cat([rewards.view(-1, group), bare.view(-1, group)[:, :1]], dim=1)
    advantages = members - members.nanmean(dim=1, keepdim=True)
    if scaled:
        advantages = advantages / (nanstd(members, dim=1, keepdim=True) + SMALLEST_STD)
    return advantages[:, :group].flatten().nan_to_num(0.0)
