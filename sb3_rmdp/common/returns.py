"""Returns while episodes run, what was last seen of each representative, and what a rollout counts in moving averages."""

from __future__ import annotations

import numpy as np
import torch as th

#: Weight of the newest rollout in the usual number of episodes
USUAL_MIXING = 0.3


def rollout_weights(counts: th.Tensor, usual: th.Tensor) -> th.Tensor:
    """
    What the mean return of a rollout counts in a moving average over rollouts: its number of episodes, in proportion to the
    usual number. If all rollouts counted alike, returns of short episodes, of which many end in some rollouts and none in
    others, would be underrated: whoever fails early would seem better than it is.

    The usual number is that of the rollouts before, so that it does not depend on how the episodes of this one went; and it
    follows soon, or policies that have learned not to fail would be judged by their many failures for long.

    :param counts: episodes that each representative finished in a rollout, (k,)
    :param usual: usual numbers, float64 (k,), 0 where there is none yet; they are brought up to date
    :return: float64 (k,): 1 for the usual number and for the first rollout, 0 for one without episodes
    """
    counts = counts.to(usual)
    finished = counts > 0
    before = th.where(usual > 0, usual, counts)
    usual.copy_(th.where(finished, before + USUAL_MIXING * (counts - before), usual))
    return th.where(finished, counts / before.clamp(min=1.0), 0.0)


class ReturnTracker:
    """
    Adds up reward vectors per environment and keeps the mean return of each representative.

    Running episodes belong to the environments they run in, and go on only with these. The means outlive them: they are what
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
        #: Usual number of episodes in a rollout, (k,), 0 before any
        self.usual = th.zeros(k, dtype=th.float64)
        #: Episodes of each representative in the rollout of the last call of :meth:`utilities`, and what that rollout counts
        self.counts, self.weights = np.zeros(k, dtype=np.int64), np.zeros(k)
        #: What each representative adds to the welfare of that rollout, (k,), which is their sum
        self.shares = np.full(k, np.nan)
        #: Mean returns last seen of each representative, nan before any: float32, so that none of it is lost in a file
        self.means = th.full((k, n_rewards), th.nan) if means is None else means

    def get_state(self) -> dict[str, np.ndarray]:
        """
        :return: sums of running episodes, and of those that ended since the last call of :meth:`utilities`; usual numbers
        """
        ended = {"sums": self._sums.copy(), "counts": self._counts.copy(), "usual": self.usual.numpy().copy()}
        return {"running": self._running.copy(), **ended}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """
        :param state: from :meth:`get_state`, of as many environments
        """
        self._running[:], self._sums[:], self._counts[:] = state["running"], state["sums"], state["counts"]
        self.usual[:] = th.from_numpy(state["usual"])

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
        self.weights = rollout_weights(th.from_numpy(self._counts), self.usual).numpy()
        self.counts = self._counts.copy()
        self._sums[:] = 0.0
        self._counts[:] = 0
        return self.means.numpy().T.astype(np.float64)
