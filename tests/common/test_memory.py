"""
Memory of trainings with many agents, in multiples of the arrays that there must be.

What numpy and Python take is traced, and torch's tensors are not: of those as large, these are tables (n_rewards, k) of an
assignment and the last layer of the critic.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import sklearn.cluster  # noqa: F401  (its import takes more than a training)
from gymnasium import spaces

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.archive import Archive, Episode
from sb3_rmdp.common.assignment import ASSIGNMENTS, EpisodeAssignment
from sb3_rmdp.common.trajectories import Trajectory, TrajectoryRecorder
from sb3_rmdp.envs import FactoredReward
from tests.probes import Probe, vectorized

MANY, MILLION, N_FEATURES = 50_000, 1_000_000, 3
N_STEPS, N_ENVS = 16, 2

KWARGS: dict[str, dict[str, Any]] = {
    "em": dict(warm_start=0),
    "episodes": dict(warm_start=0, patience=1),
    "clustering": dict(universal_fraction=0.5),
}

#: Bounds in multiples of rewards and values, where rewards are plain, and of agents' weights and probabilities, where they are
#: factored. Of all episodes that end in a rollout "episodes" is told the returns in double precision, and "clustering" keeps
#: a quarter of the rewards, of which K-means has a copy
PLAIN = dict.fromkeys(ASSIGNMENTS, 2.25) | {"episodes": 2.75, "clustering": 2.75}
FACTORED = dict.fromkeys(ASSIGNMENTS, 1.5) | {"clustering": 2.0}


class Crowd(Probe):
    """Episodes of four steps, which pay agents alternately, by two actions."""

    action_space = spaces.Discrete(2)
    horizon = 4

    def __init__(self) -> None:
        self.n_agents = MANY
        self._parity = (np.arange(MANY) % 2).astype(np.float32)

    def rewards(self, action: int) -> Any:
        return self._parity if action else 1.0 - self._parity


class Alone(Probe):
    n_agents = 1
    action_space = spaces.Discrete(2)
    horizon = 4

    def rewards(self, action: int) -> list[float]:
        return [0.0]


def features(observation: Any, action: int, next_observation: Any, info: dict) -> np.ndarray:
    return np.array([1.0, action, 1 - action], dtype=np.float32)


def peak_of_a_training(make: Any, assignment: str, n_agents: int) -> int:
    kwargs = dict(representatives=np.arange(n_agents) % 2) if assignment == "fixed" else KWARGS.get(assignment, {})
    env = vectorized(make, N_ENVS)
    small: dict[str, Any] = dict(n_steps=N_STEPS, batch_size=16, n_epochs=1, seed=0, device="cpu")
    tracemalloc.start()
    try:
        model = RepresentedPPO("MlpPolicy", env, k=2, assignment=assignment, assignment_kwargs=kwargs, **small)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        model.learn(4 * N_STEPS * N_ENVS)
        return tracemalloc.get_traced_memory()[1] - before + model.rollout_buffer.reward_vectors.nbytes * 2
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_a_training_of_many_agents_takes_a_few_times_rewards_and_values(assignment: str) -> None:
    must = 2 * N_STEPS * N_ENVS * MANY * 4
    assert peak_of_a_training(Crowd, assignment, MANY) < PLAIN[assignment] * must


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_a_training_of_a_million_agents_takes_a_few_times_their_weights(assignment: str) -> None:
    weights = np.random.default_rng(0).random((MILLION, N_FEATURES), dtype=np.float32)

    def make() -> gym.Env:
        return FactoredReward(Alone(), features, weights)

    must = weights.nbytes + MILLION * 2 * 4
    assert peak_of_a_training(make, assignment, MILLION) < FACTORED[assignment] * must


def told(i: int, n: int) -> tuple[Trajectory, np.ndarray]:
    paid = np.random.default_rng(i).random(n)
    return Trajectory(np.zeros((1, 1)), np.full((1, 1), i), paid[None].astype(np.float32), True), paid


def test_what_is_remembered_of_many_agents_is_counted() -> None:
    assignment = EpisodeAssignment(MANY, 2, seed=0)
    assignment.archive = Archive(1024, nbytes=2**22)
    for i in range(40):
        trajectory, paid = told(i, MANY)
        assignment.record_trajectories([trajectory], [paid])
        assert not assignment.archive.is_full  # not only when agents are reassigned
    episodes = assignment.archive.episodes
    held = sum(x.nbytes for episode in episodes for x in (episode.returns, episode.moment, episode.utilities))
    assert 2**21 < held <= 2**22 and len(episodes) == 2**22 // (8 * MANY + 8 * 1024 + 16)
    assert all(episode.returns.base is None and episode.moment.base is None for episode in episodes)
    assert sum(episode.nbytes for episode in episodes) == held + 16 * len(episodes)
    known = {int(episode.trajectory.actions[0, 0]): episode.returns for episode in episodes}
    for i, returns in known.items():
        np.testing.assert_allclose(returns, told(i, MANY)[1], rtol=1e-6)


def test_few_agents_keep_their_precision() -> None:
    one = Episode(np.full(3, 1 / 3), *told(0, 3)[:1], np.full(3, 1 / 3), np.full(3, 0.1, np.float32))  # type: ignore[misc]
    one.own_memory()
    assert one.returns.dtype == np.float64 and one.returns.tolist() == [1 / 3] * 3 and one.moment.dtype == np.float64


@pytest.mark.parametrize("copies", [True, False])
def test_rewards_of_episodes_are_copied_where_somebody_keeps_them(copies: bool) -> None:
    rewards, starts = np.random.default_rng(0).random((80, 2, 99), dtype=np.float32), np.zeros((80, 2))
    starts[::10] = 1
    recorder = TrajectoryRecorder(2, copies_rewards=copies)
    cut = recorder.cut(np.zeros((80, 2, 3)), np.zeros((80, 2, 1)), rewards, starts, np.array([True, False]))
    assert len(cut) == 15 and all(np.shares_memory(piece.reward_vectors, rewards) != copies for piece in cut if piece)
    # Those that go on are copies in any case: the next rollout is written over them
    begun = [piece for pieces in recorder._begun for piece in pieces or []]
    assert len(begun) == 1 and not np.shares_memory(begun[0].reward_vectors, rewards)


def test_a_sample_of_agents_misses_no_kind_of_them() -> None:
    """Kinds that alternate, twice as many agents as are compared: every second one would be of a single kind."""
    for n in (1024, 2048, 4096):
        kind, first, own = np.arange(n) % 2, np.arange(n) < n // 2, [np.zeros(n), np.ones(n)]
        paid = [100.0 * kind, np.where(first, 60.0, 50.0) * (kind == 0), np.where(first, 50.0, 60.0) * (kind == 0), *own]
        seen = [Trajectory(np.zeros((1, 1)), np.full((1, 1), i), x[None].astype(np.float32), True) for i, x in enumerate(paid)]
        assignment = EpisodeAssignment(n, 2, seed=0, warm_start=0)
        assignment.record_episodes(np.array([0, 1]), np.array(own))
        assignment.record_trajectories(seen, paid)
        assignment.update(0.01)
        assert np.bincount(kind[assignment._compared]).min() > 450
        best = np.max([aim.returns for aim in assignment.aims if aim is not None], axis=0)
        assert best.mean() == pytest.approx(77.5, rel=0.001)
        again = EpisodeAssignment(n, 2, seed=1)
        again.load_state_dict(assignment.state_dict())
        assert again._compared.tolist() == assignment._compared.tolist()
