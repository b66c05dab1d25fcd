"""
"episodes" without one of its parts each, for ``benchmarks/sweeps/ablations_*.yml``.

Parts that have an argument, such as ``exploration=0`` for no promises, need no class.
"""

from __future__ import annotations

import numpy as np

from sb3_rmdp.common import pace
from sb3_rmdp.common.archive import Episode
from sb3_rmdp.common.assignment import EpisodeAssignment
from sb3_rmdp.common.trajectories import Lesson, Trajectory


class WithoutImitation(EpisodeAssignment):
    """Episodes decide who is served by whom, and nobody is taught what they did."""

    def lessons(self) -> list[Lesson]:
        return []


class WithoutCopies(EpisodeAssignment):
    """Representatives that are sent far away begin as what they are."""

    def lessons(self) -> list[Lesson]:
        return [lesson._replace(new=False) for lesson in super().lessons()]


class FullPromises(EpisodeAssignment):
    """Promises count whether episodes last or not."""

    def record_trajectories(self, trajectories: list[Trajectory], returns: list[np.ndarray]) -> None:
        super().record_trajectories(trajectories, returns)
        self._falls = False


class SharedPromises(FullPromises):
    """Promises count by the share of the latest episodes that only a time limit ended."""

    _lasting = 0.0

    def record_trajectories(self, trajectories: list[Trajectory], returns: list[np.ndarray]) -> None:
        super().record_trajectories(trajectories, returns)
        if trajectories:
            self._lasting = sum(trajectory.truncated for trajectory in trajectories) / len(trajectories)

    def _promised_moments(self, own: np.ndarray, progress: float) -> float:
        return super()._promised_moments(own, progress) * self._lasting


class LastingOnly(FullPromises):
    """Episodes that only a time limit ended promise in full, and others nothing."""

    def _episode(self, returns: np.ndarray, trajectory: Trajectory) -> Episode:
        episode = super()._episode(returns, trajectory)
        if not trajectory.truncated:
            episode.moment = np.zeros_like(episode.moment)
        return episode


class Stretches(FullPromises):
    """
    Episodes that only a time limit ended promise to go on as in their best twentieth, and others nothing.

    A moment may be one in which a robot swings forward; what it keeps up for some time, it can keep up.
    """

    def _episode(self, returns: np.ndarray, trajectory: Trajectory) -> Episode:
        best_before = self._best_moment
        episode = super()._episode(returns, trajectory)
        rewards = self._utilities(trajectory.reward_vectors)[:, episode.utilities.argmax()]
        length = max(1, len(rewards) // 20)
        sums = np.concatenate([[0.0], np.cumsum(rewards.astype(np.float64))])
        means = (sums[length:] - sums[:-length]) / length
        best = int(means.argmax())
        stretch = trajectory.reward_vectors[best : best + length].mean(axis=0).astype(np.float64)
        episode.moment = stretch if trajectory.truncated else np.zeros_like(stretch)
        self._best_moment = max(best_before, float(means.max())) if trajectory.truncated else best_before
        return episode


class ByHeart(EpisodeAssignment):
    """What one does where actions are countable is done in any case: nothing is waited for, everything is imitated."""

    @property
    def _pace(self) -> pace.Pace:
        return pace.ByHeart(self.restarts, self.stagnation)
