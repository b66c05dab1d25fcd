"""Episodes cut out of rollouts are those that were played."""

from __future__ import annotations

import numpy as np
import pytest

from sb3_rmdp.common.trajectories import KEPT_ROWS, Trajectory, TrajectoryRecorder


@pytest.mark.parametrize("n_steps", [1, 7, 40])
@pytest.mark.parametrize("is_dict", [False, True])
def test_episodes_come_as_they_were_whatever_rollouts_they_run_through(n_steps: int, is_dict: bool) -> None:
    rng = np.random.default_rng(0)
    n_envs, total = 3, 280
    dones = rng.random((total, n_envs)) < 0.06
    dones[-1] = True
    limits = dones & (rng.random(dones.shape) < 0.5)
    observations, actions = rng.normal(size=(total, n_envs, 2)), rng.normal(size=(total, n_envs, 1))
    rewards = rng.normal(size=(total, n_envs, 4))
    starts = np.concatenate([np.ones((1, n_envs), dtype=bool), dones[:-1]])
    recorder, episodes = TrajectoryRecorder(n_envs), []
    for begin in range(0, total, n_steps):
        steps = slice(begin, begin + n_steps)
        # Buffers are written again
        buffers = [array[steps].copy() for array in (observations, actions, rewards)]
        seen = {"a": buffers[0], "b": buffers[0] + 1.0} if is_dict else buffers[0]
        timeouts = [tuple(place) for place in np.argwhere(limits[steps]).tolist()]
        last = dones[min(begin + n_steps, total) - 1]
        episodes += recorder.cut(seen, buffers[1], buffers[2], starts[steps], last, timeouts)
        for buffer in buffers:
            buffer[:] = np.nan
    ends = np.argwhere(dones)
    assert len(episodes) == len(ends) > 20
    begun = np.zeros(n_envs, dtype=int)
    for (step, env), episode in zip(ends, episodes, strict=True):
        steps = slice(begun[env], step + 1)
        own = episode.observations["a"] if isinstance(episode.observations, dict) else episode.observations
        np.testing.assert_array_equal(own, observations[steps, env])
        if isinstance(episode.observations, dict):
            np.testing.assert_array_equal(episode.observations["b"], observations[steps, env] + 1.0)
        np.testing.assert_array_equal(episode.actions, actions[steps, env])
        assert episode.truncated is bool(limits[step, env])
        # Rollouts are short here, so that all rewards are kept
        np.testing.assert_array_equal(episode.reward_vectors, rewards[steps, env])
        assert episode.nbytes == sum(array.nbytes for array in (own, episode.actions, episode.reward_vectors)) + (
            own.nbytes if is_dict else 0
        )
        begun[env] = step + 1


@pytest.mark.parametrize(
    ("seen", "done", "agrees"),
    [
        ([0, 1, 2], [5, 6, 7], True),
        ([0, 1, 2 + 1e-9], [5, 6, 7], True),
        ([0, 1, 3], [5, 6, 7], False),  # the same was done, and it led elsewhere
        ([0, 1, 2], [5, 6, 8], True),
        ([0, 1, 9], [5, 7, 7], True),  # what is seen after another action says nothing
        ([0, 2, 2], [5, 7, 7], False),
        ([1, 1, 2], [7, 7, 7], False),  # it began elsewhere
        ([0, 1], [5, 6], False),  # it was over sooner
        ([0, 1], [5, 9], True),
    ],
)
def test_chance_shows_where_the_same_is_done(seen: list[float], done: list[int], agrees: bool) -> None:
    def episode(seen: list[float], done: list[int], is_dict: bool) -> Trajectory:
        observations = np.array(seen, dtype=np.float64)[:, None]
        same = np.zeros((len(seen), 2, 2))
        told = {"a": observations, "b": same} if is_dict else observations
        return Trajectory(told, np.array(done)[:, None], np.zeros((0, 1), dtype=np.float32))

    for is_dict in (False, True):
        one, other = episode([0, 1, 2], [5, 6, 7], is_dict), episode(seen, done, is_dict)
        assert one.agrees_with(other) is other.agrees_with(one) is agrees


def test_an_episode_that_never_ends_does_not_fill_the_memory() -> None:
    recorder = TrajectoryRecorder(2, nbytes=1000)
    obs, actions, rewards = (np.zeros((10, 2, width), dtype=np.float32) for width in (3, 1, 2))
    starts = np.zeros((10, 2), dtype=bool)

    def cut(first_ends: bool) -> list[Trajectory | None]:
        return recorder.cut(obs, actions, rewards, starts, np.array([first_ends, True]))

    for _ in range(50):
        (other,) = cut(first_ends=False)
        assert other is not None and len(other.actions) == 10
    kept = [len(pieces) for pieces in recorder._begun if pieces is not None]
    assert kept == [0]
    # It is left out, and the next one is not
    assert [None if one is None else len(one.actions) for one in cut(first_ends=True)] == [None, 10]
    assert [None if one is None else len(one.actions) for one in cut(first_ends=True)] == [10, 10]


def test_rewards_of_long_rollouts_are_thinned_out_until_the_episode_ends() -> None:
    recorder, steps = TrajectoryRecorder(1), 1000
    rewards = np.arange(2.0 * steps).reshape(-1, 1, 1)
    zeros = np.zeros((steps, 1, 1))
    starts = np.zeros((steps, 1), dtype=bool)
    assert recorder.cut(zeros, zeros, rewards[:steps], starts, np.array([False])) == []
    (episode,) = recorder.cut(zeros, zeros, rewards[steps:], starts, np.array([True]))
    assert len(episode.actions) == 2 * steps
    kept = episode.reward_vectors[:, 0]
    np.testing.assert_array_equal(kept[-steps:], rewards[steps:, 0, 0])
    assert len(kept) - steps <= KEPT_ROWS and set(kept[:-steps]) <= set(rewards[:steps, 0, 0])
