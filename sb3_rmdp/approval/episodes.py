"""What evaluation episodes tell beside utilities: how long they were, how they ended, what observations looked like."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm
from sb3_rmdp.common.population import agent_weights_of, reward_key, reward_vectors


@dataclass(frozen=True)
class Episodes:
    """
    The episodes of one evaluation, in the order in which they ended: e = k * n_eval_episodes.

    :param representative: who acted, (e,) int64
    :param length: steps, (e,) int64
    :param timed_out: ended by a time limit, (e,) bool
    :param own_mean: mean return over the agents that the representative serves, (e,); nan where it serves nobody
    :param best: the highest return that each agent had in any of these episodes, (n_agents,)
    """

    representative: np.ndarray
    length: np.ndarray
    timed_out: np.ndarray
    own_mean: np.ndarray
    best: np.ndarray


class ObservationSpread:
    """
    Standard deviation of each dimension of the observations that policies were given (Chan's update of Welford's moments).

    :param space: of one observation
    """

    def __init__(self, space: spaces.Box):
        self._count = 0
        self._mean = np.zeros(space.shape)
        self._squares = np.zeros(space.shape)

    def add(self, observations: np.ndarray) -> None:
        """
        :param observations: (n, *shape)
        """
        n, mean = len(observations), observations.mean(axis=0, dtype=np.float64)
        squares = np.square(observations - mean).sum(axis=0)
        total, delta = self._count + n, mean - self._mean
        self._squares += squares + np.square(delta) * (self._count * n / total)
        self._mean += delta * (n / total)
        self._count = total

    def std(self) -> np.ndarray:
        """Standard deviations, of the shape of an observation."""
        return np.sqrt(self._squares / max(self._count, 1))


class EpisodeRecorder(VecEnvWrapper):
    """
    Watches an evaluation: wrapped around the environment that ``evaluate_welfare`` is given.

    :param venv: the environment
    :param model: the model that is evaluated
    :param n_eval_episodes: episodes per representative
    :param spread: gathers observations, if these are wanted
    """

    def __init__(
        self,
        venv: VecEnv,
        model: RepresentedOnPolicyAlgorithm,
        n_eval_episodes: int,
        spread: ObservationSpread | None = None,
    ):
        super().__init__(venv)
        self._k, self._n_episodes, self._spread = model.k, model.k * n_eval_episodes, spread
        representatives = model.assignment.representatives
        self._served = [np.flatnonzero(representatives == j) for j in range(model.k)]
        self._weights = agent_weights_of(venv, model.n_agents)
        self._rows: list[tuple[int, int, bool, float]] = []
        self._best = np.full(model.n_agents, -np.inf)

    def reset(self) -> VecEnvObs:
        # Episodes are numbered as evaluate_welfare does it: number m belongs to representative m mod k
        self._numbers = np.arange(self.num_envs)
        self._started = self.num_envs
        self._returns = np.zeros((self.num_envs, self._weights.size))
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)
        obs = self.venv.reset()
        self._look(obs)
        return obs

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, dones, infos = self.venv.step_wait()
        self._returns += reward_vectors(infos, self._weights.size, reward_key(self._weights))
        self._lengths += 1
        for i in np.flatnonzero(dones):
            if self._numbers[i] < self._n_episodes:
                self._add(int(self._numbers[i] % self._k), int(i), bool(infos[i].get("TimeLimit.truncated", False)))
            self._returns[i], self._lengths[i] = 0.0, 0
            self._numbers[i] = self._started
            self._started += 1
        self._look(obs)
        return obs, rewards, dones, infos

    def _look(self, obs: VecEnvObs) -> None:
        if self._spread is not None:
            assert isinstance(obs, np.ndarray)
            self._spread.add(obs)

    def _add(self, j: int, i: int, timed_out: bool) -> None:
        returns = self._weights.of_agents(th.as_tensor(self._returns[i])[:, None])[:, 0].numpy()
        served = self._served[j]
        own = float(returns[served].mean()) if len(served) else np.nan
        self._rows.append((j, int(self._lengths[i]), timed_out, own))
        np.maximum(self._best, returns, out=self._best)

    def episodes(self) -> Episodes:
        """What was seen so far."""
        representative, length, timed_out, own_mean = (np.array(column) for column in zip(*self._rows, strict=True))
        return Episodes(representative, length, timed_out, own_mean, self._best)


@contextmanager
def frozen(env: VecEnv) -> Iterator[None]:
    """
    Leave the statistics of a VecNormalize as they are, whatever is stepped in the meantime.

    :param env: any vec env
    """
    normalizer = unwrap_vec_normalize(env)
    if normalizer is None:
        yield
        return
    training, normalizer.training = normalizer.training, False
    try:
        yield
    finally:
        normalizer.training = training
