"""Returns while episodes run, and what was last seen of each representative."""

from __future__ import annotations

import numpy as np
import torch as th


class ReturnTracker:
    """
    Adds up reward vectors per environment and keeps the mean return of each representative.

    Running episodes belong to the environments they run in and are never saved. The means outlive them: they are what
    social welfare is made of for a representative that finishes no episode in a rollout, so the model saves them.

    :param n_envs: number of environments
    :param n_rewards: length of a reward vector: one entry per agent, or per reward feature
    :param k: number of representatives
    :param means: means to go on with, float32 (k, n_rewards), on the CPU; by default nothing has been seen yet
    """

    def __init__(self, n_envs: int, n_rewards: int, k: int, means: th.Tensor | None = None):
        self._running = np.zeros((n_envs, n_rewards))
        self._sums = np.zeros((k, n_rewards))
        self._counts = np.zeros(k, dtype=np.int64)
        #: Mean returns last seen of each representative, nan before any: float32, so that none of it is lost in a file
        self.means = th.full((k, n_rewards), th.nan) if means is None else means

    def add(self, reward_vectors: np.ndarray) -> None:
        """
        :param reward_vectors: rewards of one step, (n_envs, n_rewards)
        """
        self._running += reward_vectors

    def finish(self, dones: np.ndarray, representatives: np.ndarray) -> np.ndarray:
        """
        Close the episodes that ended.

        :param dones: True where an episode ended, (n_envs,)
        :param representatives: who acted in every environment, (n_envs,)
        :return: undiscounted returns of the ended episodes, (dones.sum(), n_rewards)
        """
        returns = self._running[dones]
        self._running[dones] = 0.0
        np.add.at(self._sums, representatives[dones], returns)
        np.add.at(self._counts, representatives[dones], 1)
        return returns

    def utilities(self) -> np.ndarray:
        """
        Mean returns (n_rewards, k) over the episodes since the last call; for a representative that finished none, those of
        the last time it did; nan if it never has.
        """
        seen = np.flatnonzero(self._counts)
        self.means[seen] = th.from_numpy(self._sums[seen] / self._counts[seen, None]).float()
        self._sums[:] = 0.0
        self._counts[:] = 0
        return self.means.numpy().T.astype(np.float64)
