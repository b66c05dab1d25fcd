"""Rollouts that are told to an assignment by episodes, in the place of trainings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sb3_rmdp.common.assignment import EpisodeAssignment
from sb3_rmdp.common.trajectories import Trajectory

QUICK: dict[str, Any] = dict(mixing=1.0, warm_start=1, move_cost=0.0, stagnation=0)

#: What a step pays is chosen with the returns; by default all of it comes at the end
Told = tuple[int, Sequence[float] | np.ndarray, float]


def trajectory(
    action: float,
    steps: Sequence[Sequence[float]] | np.ndarray,
    countable: bool = True,
    truncated: bool = True,
    seen: Sequence[float] = (),
) -> Trajectory:
    rewards = np.asarray(steps, dtype=np.float32)
    actions = np.full((len(rewards), 1), action, dtype=np.int64 if countable else np.float32)
    observations = np.array(seen or [0.0] * len(rewards), dtype=np.float32)[:, None]
    return Trajectory(observations, actions, rewards, truncated)


def tell(
    assignment: EpisodeAssignment,
    told: Sequence[Told],
    progress: float = 0.0,
    steps: dict[float, Any] | None = None,
    countable: bool = True,
    fallen: Sequence[float] = (),
    seen: dict[float, Sequence[float]] | None = None,
) -> None:
    """
    A rollout.

    :param told: representative, returns and action of each episode; an action stands for all that is done in an episode
    :param steps: what steps pay in episodes of an action, where it does not all come at the end
    :param countable: whether actions are
    :param fallen: actions of the episodes that are ended by something else than a time limit
    :param seen: what is observed at the three steps of episodes of an action, where it is not always the same
    """
    trajectories = []
    for representative, returns, action in told:
        assignment.record_episodes(np.array([representative]), np.array([returns], dtype=np.float64))
        at_the_end = [np.zeros(len(returns)), np.zeros(len(returns)), returns]
        pays, observed = (steps or {}).get(action, at_the_end), (seen or {}).get(action, ())
        trajectories.append(trajectory(action, pays, countable, action not in fallen, observed))
    assignment.record_trajectories(trajectories, [np.array(returns, dtype=np.float64) for _, returns, _ in told])
    assignment.update(progress)


def aims(assignment: EpisodeAssignment) -> list[float | None]:
    """Actions of the episodes that representatives aim at."""
    return [None if aim is None else float(aim.trajectory.actions[0, 0]) for aim in assignment.aims]


def lessons(assignment: EpisodeAssignment) -> list[tuple[int, float, bool]]:
    return [(one.representative, float(one.trajectory.actions[0, 0]), one.new) for one in assignment.lessons()]


def obey(assignment: EpisodeAssignment, doing: list[float]) -> None:
    """Representatives learn everything at once."""
    for representative, action, _ in lessons(assignment):
        doing[representative] = action


def play(
    assignment: EpisodeAssignment,
    doing: list[float],
    pays: Callable[[float], Any],
    n_rollouts: int,
    progress: float = 0.0,
) -> None:
    """Rollouts in which each representative does one thing once, and learns what it is told to."""
    for _ in range(n_rollouts):
        tell(assignment, [(j, pays(action), action) for j, action in enumerate(doing)], progress)
        obey(assignment, doing)


NEAR = np.array([[10, 10, 0, 0, 0, 0], [0, 0, 3, 3, 0, 0]], dtype=float)
STRAY = np.array([0, 0, 0, 0, 1, 1], dtype=float)
WALKS = {0.0: [NEAR[0] / 10] * 10, 1.0: [NEAR[1] / 10] * 10, 2.0: [np.zeros(6), STRAY, np.zeros(6)]}


def with_a_stray(
    progress: float,
    walks: dict[float, Any] | None = None,
    fallen: Sequence[float] = (),
    cls: type[EpisodeAssignment] = EpisodeAssignment,
    **kwargs: Any,
) -> EpisodeAssignment:
    """The best representative keeps up ten moments; an episode had a single one of them, for agents that nobody serves."""
    assignment = cls(6, 2, **(QUICK | kwargs))
    own: list[Told] = [(j, NEAR[j], float(j)) for j in range(2)]
    tell(assignment, [*own, (0, STRAY, 2.0)], progress, walks, fallen=fallen)
    tell(assignment, own, progress, walks, fallen=fallen)
    return assignment


def near(k: int, progress: float, countable: bool, cls: type[EpisodeAssignment] = EpisodeAssignment) -> EpisodeAssignment:
    """Representative 0 does what an episode does somewhat better."""
    assignment = cls(4, k, **QUICK)
    own: list[Told] = [(0, [2, 2, 0, 0], 0.0), (1, [0, 0, 3, 3], 1.0)][:k]
    tell(assignment, [*own, (0, [3, 3, 0, 0], 2.0)], progress, countable=countable)
    tell(assignment, own, progress, countable=countable)
    # Who has found something near aims at it in any case
    assert aims(assignment)[0] == 2.0
    return assignment
