"""Small represented MDPs for reports, and models that have learned nothing but whom they serve."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.envs import REWARD_FEATURES
from tests.probes import Probe

SMALL: dict[str, Any] = dict(n_steps=16, batch_size=16, n_epochs=1, seed=3, device="cpu", normalize_observations=False)


class Noisy(Probe):
    """Episodes of 1 to 6 steps from random start states, with random rewards that the action and the agent move."""

    n_agents = 6
    action_space = spaces.Discrete(2)
    start = 0.0

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        super().reset(**kwargs)
        self.horizon = int(self.np_random.integers(1, 7))
        self.start = self.np_random.normal()
        return self.observe(), {}

    def observe(self) -> np.ndarray:
        return np.array([self.start, self.time / 6], dtype=np.float32).clip(-1.0, 1.0)

    def rewards(self, action: int) -> np.ndarray:
        return self.np_random.normal(size=self.n_agents) + np.arange(self.n_agents) * (action + 1.0)


class NoisyFactored(Noisy):
    """The same with two features that seven agents weigh."""

    n_agents = 7
    reward_weights = np.random.default_rng(1).normal(size=(7, 2)).astype(np.float32)

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        features = (self.np_random.normal(size=2) + [action, 1.0]).astype(np.float32)
        self.time += 1
        reward = float((self.reward_weights.mean(axis=0) * features).sum())
        return self.observe(), reward, self.over(action), False, {REWARD_FEATURES: features}


class Painted(Noisy):
    """The same, in colours: a picture with the time in it."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (as in gymnasium.Env)

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def render(self) -> Any:
        return np.full((20, 30, 3), 10 * self.time, dtype=np.uint8)


class Forgetful(Painted):
    """Copies do not repeat an episode: every one of them pays something else."""

    copies = 0

    def __init__(self, render_mode: str | None = None):
        super().__init__(render_mode)
        Forgetful.copies += 1
        self.number = Forgetful.copies

    def rewards(self, action: int) -> np.ndarray:
        return super().rewards(action) + self.number


def make_model(env: Any, representatives: list[int], k: int | None = None) -> RepresentedPPO:
    """
    :param env: an environment
    :param representatives: who serves each agent
    :param k: number of representatives, as many as there are in that list by default
    :return: a model
    """
    fixed: dict[str, Any] = dict(assignment="fixed", assignment_kwargs=dict(representatives=representatives))
    return RepresentedPPO("MlpPolicy", env, k=k or max(representatives) + 1, **fixed, **SMALL)
