"""Trainings in which what an episode paid was luck."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_rmdp import RepresentedPPO

STEPS = 20


class Jackpot(gym.Env):
    """
    Two agents want action 0, two want action 1. The last gets 0.6 for action 1, and 2.5 for action 0 in one episode of ten.
    """

    n_agents = 5
    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.n_steps, self.lucky = 0, self.np_random.random() < 0.1
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        vector = np.zeros(5, np.float32)
        if action == 0:
            vector[:2], vector[4] = 1.0, 2.5 * self.lucky
        elif action == 1:
            vector[2:4], vector[4] = 1.0, 0.6
        obs = np.full(1, self.n_steps / STEPS, np.float32)
        return obs, float(vector.mean()), False, self.n_steps == STEPS, {"reward_vector": vector}


@pytest.mark.parametrize("seed", [1, 2])
def test_nobody_waits_for_luck(seed: int) -> None:
    few: dict[str, Any] = dict(n_steps=160, batch_size=40, n_epochs=5, learning_rate=1e-3, gamma=1.0, ent_coef=0.01)
    model = RepresentedPPO("MlpPolicy", Jackpot(), k=2, assignment="episodes", seed=seed, device="cpu", **few)
    model.learn(60 * 320)
    served = model.assignment.representatives
    assert served[0] == served[1] != served[2] == served[3] == served[4]
