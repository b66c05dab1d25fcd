"""
"episodes" without one of its parts each, for ``benchmarks/sweeps/ablations_*.yml``.

Parts that have an argument, such as ``exploration=0`` for no promises, need no class.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sb3_rmdp.common.archive import Episode
from sb3_rmdp.common.assignment import EpisodeAssignment
from sb3_rmdp.common.facility_location import exchange
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


class WithoutRestarts(EpisodeAssignment):
    """Choices are looked for by swaps of one at a time from what there is."""

    def _searches(self, candidates: np.ndarray, costs: np.ndarray) -> Iterator[np.ndarray]:
        yield exchange(candidates, np.arange(self.k), costs)


class ByHeart(EpisodeAssignment):
    """What one does where actions are countable is done in any case: nothing is waited for, everything is imitated."""

    def _repeatable(self) -> bool:
        return True
