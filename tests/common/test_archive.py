"""What is remembered of a training's episodes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_rmdp.common.archive import Archive, Episode, undominated
from sb3_rmdp.common.trajectories import Observations, Trajectory


def episode(
    returns: list[float], actions: int = 0, moment: list[float] | None = None, observations: Observations | None = None
) -> Episode:
    """An episode of three steps in which one thing is done, and which agents are compared by as they are."""
    seen = np.zeros((3, 2)) if observations is None else observations
    trajectory = Trajectory(seen, np.full((3, 1), float(actions)), np.ones((3, len(returns)), dtype=np.float32))
    paid = np.array(returns, dtype=np.float64)
    return Episode(paid, trajectory, paid.copy(), np.array(returns if moment is None else moment, dtype=np.float32))


def utilities(archive: Archive) -> list[list[float]]:
    return [one.utilities.tolist() for one in archive.episodes]


def test_only_episodes_that_are_best_for_somebody_are_kept() -> None:
    archive = Archive(size=10)
    archive.add([episode([1.0, 1.0], actions=0), episode([2.0, 0.0], actions=1), episode([0.0, 3.0], actions=2)])
    assert utilities(archive) == [[1.0, 1.0], [2.0, 0.0], [0.0, 3.0]]
    # As good as one that is known, whose place it takes, and better than another
    archive.add([episode([2.0, 0.0], actions=3), episode([1.0, 2.0], actions=4)])
    assert utilities(archive) == [[0.0, 3.0], [2.0, 0.0], [1.0, 2.0]]
    assert [float(one.trajectory.actions[0, 0]) for one in archive.episodes] == [2.0, 3.0, 4.0]
    archive.add([])
    assert len(archive) == 3
    empty = Archive(size=1)
    empty.add([])
    assert len(empty) == 0


def test_what_is_done_again_is_worth_the_mean() -> None:
    archive = Archive(size=10)
    archive.add([episode([4.0, 0.0], actions=7)])
    (known,) = archive.episodes
    # Within one call as well as later
    archive.add([episode([0.0, 0.0], actions=7), episode([0.0, 0.0], actions=7), episode([0.0, 4.0], actions=7)])
    assert archive.episodes == [known] and known.n_samples == 4
    assert known.utilities.tolist() == known.returns.tolist() == [1.0, 1.0]
    # The luck of the first time is gone: what was less then is more now
    archive.add([episode([2.0, 2.0], actions=8)])
    assert utilities(archive) == [[2.0, 2.0]]


def test_chance_is_noticed() -> None:
    """In what an episode pays, or in what is seen in it; rounding is none."""

    def varies(*episodes: Episode) -> bool:
        archive = Archive(size=10)
        for one in episodes:
            archive.add([one])
        return archive.varies

    others = episode([1.0, 2.0], actions=1)
    elsewhere = np.full((3, 2), 0.5)
    assert not varies(episode([3.0, 1.0]), others, episode([3.0, 1.0 + 1e-9]))
    assert varies(episode([3.0, 1.0]), others, episode([3.0, 1.1]))
    assert varies(others, episode([3.0, 1.0], observations=elsewhere))
    # An aim that is in the archive no more is told as well
    archive, aim = Archive(size=10), episode([3.0, 1.0])
    archive.add([episode([2.0, 1.0])], [aim])
    assert archive.varies and aim.returns.tolist() == [2.5, 1.0] and utilities(archive) == [[2.0, 1.0]]


def test_the_mean_is_that_of_many_samples() -> None:
    samples = np.random.default_rng(0).normal(size=(50, 3))
    archive = Archive(size=1)
    for sample in samples:
        archive.add([episode(sample.tolist())])
    (known,) = archive.episodes
    np.testing.assert_allclose(known.returns, samples.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(known.utilities, samples.mean(axis=0), rtol=1e-12, atol=1e-12)


def test_returns_of_a_caller_are_left_alone() -> None:
    returns = np.array([4.0, 0.0])
    first = Episode(returns, Trajectory(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 2))), returns, np.zeros(2))
    first.add_sample(episode([0.0, 0.0]))
    assert first.returns.tolist() == [2.0, 0.0] and returns.tolist() == [4.0, 0.0]


def test_rewards_of_every_step_are_not_kept() -> None:
    one = episode([3.0, 2.0], moment=[1.0, 0.5])
    assert one.trajectory.reward_vectors.shape == (0, 2)
    one.own_memory()
    assert one.moment.tolist() == [1.0, 0.5] and one.moment.dtype == np.float64


def test_memory_is_bounded_by_the_best_scores() -> None:
    archive = Archive(size=2)
    archive.add([episode([float(i), float(-i)], actions=i) for i in range(5)])
    assert len(archive) == 5
    archive.keep_best(np.array([0.0, 3.0, 1.0, 5.0, 2.0]))
    assert [row[0] for row in utilities(archive)] == [1.0, 3.0]
    archive.keep_best(np.array([1.0, 0.0]))
    assert len(archive) == 2
    # Of equal ones those that are older
    archive.add([episode([9.0, -9.0], actions=9)])
    archive.keep_best(np.zeros(3))
    assert [row[0] for row in utilities(archive)] == [1.0, 3.0]


def test_memory_is_bounded_by_the_length_of_episodes() -> None:
    one = episode([0.0, 0.0])
    one.own_memory()
    each = one.nbytes
    for room, left in ((10 * each, [0.0, 1.0, 2.0, 3.0]), (2 * each, [1.0, 3.0]), (2 * each - 1, [3.0]), (1, [3.0])):
        archive = Archive(size=10, nbytes=room)
        archive.add([episode([float(i), float(-i)], actions=i) for i in range(4)])
        assert archive.is_full == (len(left) < 4)
        archive.keep_best(np.array([0.0, 3.0, 1.0, 5.0]))
        assert [row[0] for row in utilities(archive)] == left


def test_forgetting() -> None:
    archive = Archive(size=5)
    archive.add([episode([float(i), float(-i)], actions=i) for i in range(4)])
    archive.forget(np.array([True, False, False, True]))
    assert [row[0] for row in utilities(archive)] == [1.0, 2.0]
    with pytest.raises(ValueError, match="shorter"):
        archive.forget(np.array([True]))
    # What was forgotten may come back, as if for the first time
    archive.add([episode([3.0, -3.0], actions=3)])
    assert archive.episodes[-1].n_samples == 1 and len(archive) == 3


def walk(seen: list[float], actions: list[float], returns: list[float]) -> Episode:
    observations = np.array(seen, dtype=np.float32)[:, None]
    trajectory = Trajectory(observations, np.array(actions)[:, None], np.ones((len(seen), 2), dtype=np.float32))
    return Episode(np.array(returns), trajectory, np.array(returns), np.ones(2))


@pytest.mark.parametrize("as_dict", [False, True])
def test_detours_lead_on_from_wherever_good_episodes_have_been(as_dict: bool) -> None:
    walks = [
        walk([0, 1, 2], [10, 11, 12], [9, 0]),
        walk([0, 3, 4], [20, 23, 24], [8, 1]),
        # Again where another has been, which was better; and twice at 5, where only the last action led on
        walk([0, 3, 5, 6, 5, 7], [20, 33, 35, 36, 55, 37], [7, 2]),
        walk([8, 1, 9], [40, 41, 49], [6, 3]),
        walk([0, 10], [50, 60], [5, 4]),
    ]
    if as_dict:
        for one in walks:
            seen = one.trajectory.observations
            both = {"b": np.zeros((len(one.trajectory.actions), 1)), "a": seen}
            one.trajectory = one.trajectory._replace(observations=both)  # type: ignore[arg-type]
    archive, first = Archive(size=9), np.array([True, False])
    archive.add(walks[::-1])
    found = archive.detours(first, walks[0].trajectory, 5)
    assert found is not None and found.reward_vectors.shape == (0, 2)
    observations = found.observations["a"] if isinstance(found.observations, dict) else found.observations
    steps = dict(zip(observations[:, 0].tolist(), found.actions[:, 0].tolist(), strict=True))
    assert steps == {3: 23, 4: 24, 5: 55, 6: 36, 7: 37, 10: 60} and len(found.actions) == 6
    for count, expected in ((4, 5), (2, 2), (1, None), (0, None)):
        fewer = archive.detours(first, walks[0].trajectory, count)
        assert (None if fewer is None else len(fewer.actions)) == expected
    # Whoever sees noise never sees the same again
    for one in walks[1:]:
        one.trajectory = walk(*np.random.default_rng(0).random((2, 3)).tolist(), [0, 0]).trajectory  # type: ignore[arg-type]
    if not as_dict:
        assert archive.detours(first, walks[0].trajectory, 5) is None


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_levels", [2, 4, 1000])
def test_undominated_rows_are_found_as_by_looking_at_all_pairs(n_levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, n_levels - 1, size=(60, 4)).astype(float)
    expected = []
    for i, row in enumerate(rows):
        better = (rows >= row).all(axis=1) & (rows > row).any(axis=1)
        equal_before = (rows[:i] == row).all(axis=1).any()
        if not better.any() and not equal_before:
            expected.append(i)
    assert undominated(rows) == expected


@pytest.mark.parametrize(
    "observations",
    [
        np.arange(6, dtype=np.float32).reshape(3, 2),
        np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1),
        {"a": np.arange(6, dtype=np.float32).reshape(3, 2), "b": np.array([[2], [0], [1]], dtype=np.int64)},
    ],
    ids=["vectors", "images", "dict"],
)
def test_an_episode_survives_a_file_of_tensors(observations: Any) -> None:
    one = episode([3.0, 2.0], actions=5, moment=[1.0, 0.5], observations=observations)
    one.add_sample(episode([1.0, 1.0], actions=5))
    file = io.BytesIO()
    th.save(one.state(), file)
    file.seek(0)
    again = Episode.of_state(th.load(file, weights_only=True))
    assert again.key == one.key and again.n_samples == 2
    for name in ("returns", "utilities", "moment"):
        found, expected = getattr(again, name), getattr(one, name)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    np.testing.assert_array_equal(again.trajectory.actions, one.trajectory.actions)
    assert again.trajectory.actions.dtype == one.trajectory.actions.dtype
    assert again.trajectory.reward_vectors.shape == (0, 2)
    seen, expected_seen = again.trajectory.observations, one.trajectory.observations
    if isinstance(expected_seen, dict):
        assert isinstance(seen, dict) and seen.keys() == expected_seen.keys()
        for key, array in expected_seen.items():
            np.testing.assert_array_equal(seen[key], array)
            assert seen[key].dtype == array.dtype
    else:
        assert isinstance(seen, np.ndarray) and seen.dtype == expected_seen.dtype
        np.testing.assert_array_equal(seen, expected_seen)
    # It goes on counting where it was
    again.add_sample(episode([2.0, 0.0], actions=5))
    np.testing.assert_allclose(again.returns, [2.0, 1.0])
