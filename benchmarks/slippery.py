"""Resource Gathering where nothing can be repeated exactly: steps slip, or agents are lucky."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from sb3_rmdp.envs import REWARD_VECTOR, ResourceGatheringEnv, scalar_reward


class SlipperyGatheringEnv(ResourceGatheringEnv):
    """
    The same in the mean, or nearly so, and a sample in every episode. No k policies can have more than without chance: of
    whatever walks come about, k are k tours.

    :param slip: probability that a step goes anywhere
    :param luck: every agent gets what it is due twice, or not at all, by the flip of a coin of its own
    :param kwargs: of Resource Gathering
    """

    def __init__(self, slip: float = 0.0, luck: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.slip, self.luck = slip, luck

    def step(self, action: int | np.integer) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        :param action: direction
        :return: as in Resource Gathering
        """
        if self.np_random.random() < self.slip:
            action = self.np_random.integers(4)
        obs, reward, terminated, truncated, info = super().step(action)
        if self.luck and terminated:
            info[REWARD_VECTOR] = info[REWARD_VECTOR] * 2.0 * self.np_random.integers(2, size=self.n_agents).astype(np.float32)
            reward = scalar_reward(info[REWARD_VECTOR])
        return obs, reward, terminated, truncated, info


if "SlipperyGathering-v0" not in gym.registry:
    gym.register("SlipperyGathering-v0", entry_point=SlipperyGatheringEnv)
