"""Represented MDPs whose representatives do what they are told, and episodes with known returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.envs import FactoredReward, VectorReward
from sb3_rmdp.service import EvaluationEpisodes, Origin

SMALL: dict[str, Any] = dict(n_steps=8, batch_size=8, n_epochs=1, device="cpu", seed=1, normalize_observations=False)


class Walk(gym.Env):
    """
    A random walk with a drift that the action chooses, -1, 0 or 1; of 3 to 6 steps, then over, by a time limit on even seeds.

    ``info`` tells the drift and whether this is the third step; the latter not at first, so that not every step has it.
    """

    observation_space: spaces.Space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.place, self.time = 0.0, 0
        self.length = int(self.np_random.integers(3, 7))
        return self.observe(), {}

    def observe(self) -> Any:
        return np.array([self.place, self.time], dtype=np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        drift = float(int(action) - 1)
        self.place += drift + 0.5 * float(self.np_random.normal())
        self.time += 1
        over = self.time >= self.length
        limit = self.length % 2 == 0
        info: dict[str, Any] = {"drift": np.float64(drift), "name": "walk", "path": np.zeros(3)}
        if self.time > 1:
            info["third"] = self.time == 3
        return self.observe(), 0.0, over and not limit, over and limit, info


class DictWalk(Walk):
    """The same, observed as a Dict."""

    observation_space = spaces.Dict(
        {"place": spaces.Box(-np.inf, np.inf, (1,), np.float32), "time": spaces.Box(0, 10, (1,), np.uint8)}
    )

    def observe(self) -> Any:
        return {"place": np.array([self.place], np.float32), "time": np.array([self.time], np.uint8)}


def place_of(observation: Any) -> float:
    """
    :param observation: of one of the walks
    :return: where it is
    """
    return float(observation["place"][0] if isinstance(observation, dict) else observation[0])


def wanted_places(obs: Any, action: Any, next_obs: Any, info: dict[str, Any]) -> np.ndarray:
    """Rewards of five agents, who each want to be somewhere."""
    return -np.abs(place_of(next_obs) - np.linspace(-4.0, 4.0, 5)) + 0.1 * info["drift"]


def objectives(obs: Any, action: Any, next_obs: Any, info: dict[str, Any]) -> tuple[float, float, float]:
    """Three reward features."""
    return place_of(next_obs), place_of(next_obs) - place_of(obs), float(int(action) == 1)


#: Of seven agents, on the three features
WEIGHTS = np.random.default_rng(3).normal(size=(7, 3)).astype(np.float32)


def plain(env: gym.Env | None = None) -> gym.Env:
    """
    :param env: a walk
    :return: a represented MDP of five agents
    """
    return VectorReward(env or Walk(), wanted_places, n_agents=5, population_id="five-places")


def factored(env: gym.Env | None = None) -> gym.Env:
    """
    :param env: a walk
    :return: a represented MDP of seven agents with three reward features
    """
    return FactoredReward(env or Walk(), objectives, WEIGHTS)


def obedient(env: Any, k: int, policy: str = "MlpPolicy", **kwargs: Any) -> RepresentedPPO:
    """
    :param env: a represented walk, or a vec env of such
    :param k: number of representatives
    :param policy: name of the policy
    :param kwargs: of the model
    :return: a model whose representative j nearly always takes action j mod 3
    """
    model = RepresentedPPO(policy, env, k=k, **{**SMALL, **kwargs})
    with th.no_grad():
        heads: Any = model.policy.action_net
        heads.weight.zero_()
        heads.bias.zero_()
        for j in range(k):
            heads.bias[j, j % 3] = 9.0
    return model


def drawn(
    rng: np.random.Generator, means: Sequence[Sequence[float]], errors: float | Sequence[float], n_episodes: int
) -> EvaluationEpisodes:
    """
    :param rng: to draw with
    :param means: expected features (k, m)
    :param errors: standard deviations of all features, of all or of each representative
    :param n_episodes: of each representative
    :return: episodes with normally distributed features, of nine agents whose weights are of no concern
    """
    centres = np.asarray(means, dtype=np.float64)[:, None]
    spread = np.broadcast_to(np.asarray(errors, dtype=np.float64), (len(centres),))[:, None, None]
    returns = centres + spread * rng.normal(size=(len(centres), n_episodes, centres.shape[-1]))
    m = centres.shape[-1]
    return EvaluationEpisodes(
        returns.astype(np.float32), np.ones(returns.shape[:2], dtype=np.int64), Origin("none", 9, None, m), np.eye(m)
    )
