"""Returns of all agents while episodes run, and what was last seen of each representative."""

from __future__ import annotations

import numpy as np


class ReturnTracker:
    """
    Adds up reward vectors per environment and keeps the mean return of each representative.

    :param n_envs: number of environments
    :param n_agents: number of agents
    :param k: number of representatives
    """

    def __init__(self, n_envs: int, n_agents: int, k: int):
        self._running = np.zeros((n_envs, n_agents))
        self._sums = np.zeros((k, n_agents))
        self._counts = np.zeros(k, dtype=np.int64)
        self._means = np.full((k, n_agents), np.nan)

    def add(self, reward_vectors: np.ndarray) -> None:
        """
        :param reward_vectors: rewards of one step, (n_envs, n_agents)
        """
        self._running += reward_vectors

    def finish(self, dones: np.ndarray, representatives: np.ndarray) -> np.ndarray:
        """
        Close the episodes that ended.

        :param dones: True where an episode ended, (n_envs,)
        :param representatives: who acted in every environment, (n_envs,)
        :return: undiscounted returns of the ended episodes, (dones.sum(), n_agents)
        """
        returns = self._running[dones]
        self._running[dones] = 0.0
        np.add.at(self._sums, representatives[dones], returns)
        np.add.at(self._counts, representatives[dones], 1)
        return returns

    def utilities(self) -> np.ndarray:
        """
        Mean returns (n_agents, k) over the episodes since the last call; for a representative that finished none, those of
        the last time it did; nan if it never has.
        """
        seen = self._counts > 0
        self._means[seen] = self._sums[seen] / self._counts[seen, None]
        self._sums[:] = 0.0
        self._counts[:] = 0
        return self._means.T
