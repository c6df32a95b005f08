"""GRPO when some of its rewards come from pictures, which can fail to be made or to be judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .grouped import GroupedGRPOTrainer
from .pictures import PictureReward


class PictureGRPOTrainer(GroupedGRPOTrainer):
    """[`GroupedGRPOTrainer`] that leaves out completions whose picture nobody has judged.

    TRL adds up the rewards that a completion has. One that kept the format, and whose judge failed, would have its reward for
    the format alone, which is what the worst of pictures earns. Here it has none: it is not in the group's mean and spread,
    and moves nothing.
    """

    def _calculate_rewards(
        self, inputs: Sequence[dict[str, Any]], prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        pictures = [number for number, reward in enumerate(self.reward_funcs) if isinstance(reward, PictureReward)]
        unknown = rewards[:, pictures].isnan().any(dim=1)
        return torch.where(unknown[:, None], torch.nan, rewards)
