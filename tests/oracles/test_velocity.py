"""Bounds of the velocity tasks: known values, and brute force over partitions and fine grids of speeds."""

import doctest
import tracemalloc
from itertools import combinations, pairwise
from time import perf_counter

import numpy as np
import pytest

from sb3_rmdp.oracles import velocity, velocity_welfare_bound


def brute_force(targets, max_velocity, k):
    """All partitions of the sorted targets into at most k intervals, each with the best speed of a fine grid."""
    targets = np.sort(targets)
    window = max_velocity / 20
    grid = np.linspace(targets[0] - window, targets[-1] + window, 20001)
    speeds = np.concatenate([grid, targets, targets - window, targets + window])
    rewards = np.maximum(0.0, 1.0 - np.abs(speeds[:, None] - targets) / window)  # (speeds, n)
    best = 0.0
    for size in range(k):
        for cuts in combinations(range(1, len(targets)), size):
            edges = [0, *cuts, len(targets)]
            best = max(best, sum(rewards[:, start:stop].sum(axis=1).max() for start, stop in pairwise(edges)))
    return 100.0 * best / len(targets)


@pytest.mark.parametrize(("k", "welfare"), [(1, 9.5), (2, 17.5), (5, 37.4), (10, 61.2)])
def test_known_means_of_hundred_agents(k, welfare):
    populations = [np.random.RandomState(seed).uniform(0, 4, 100) for seed in range(10)]
    assert np.mean([velocity_welfare_bound(targets, 4.0, k) for targets in populations]) == pytest.approx(welfare, abs=0.05)


def test_known_mean_of_thousand_agents():
    start = perf_counter()
    populations = [np.random.RandomState(seed).uniform(0, 4, 1000) for seed in range(10)]
    bounds = [velocity_welfare_bound(targets, 4.0, 50) for targets in populations]
    assert np.mean(bounds) == pytest.approx(91.4, abs=0.05)
    assert perf_counter() - start < 20


@pytest.mark.parametrize(("generator", "welfare"), [(np.random.RandomState, 36.46), (np.random.default_rng, 33.18)])
def test_known_population(generator, welfare):
    targets = generator(0).uniform(0, 4, 100)
    assert velocity_welfare_bound(targets, 4, 5) == pytest.approx(welfare, abs=0.005)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("high", [0.5, 1.5, 4.0])  # dense targets share windows, spread ones do not
def test_equals_brute_force(seed, high):
    rng = np.random.default_rng(seed)
    targets = rng.uniform(0, high, rng.integers(2, 9))
    for k in range(1, min(len(targets), 4) + 1):
        assert velocity_welfare_bound(targets, 4.0, k) == pytest.approx(brute_force(targets, 4.0, k), abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_speeds_to_choose_from(seed):
    """All sets of k of the speeds, whatever they are."""
    rng = np.random.default_rng(seed)
    targets, speeds = rng.uniform(0, 2, rng.integers(4, 30)), rng.uniform(-0.5, 2.5, rng.integers(1, 10))
    targets[-1] = targets[0] = speeds[0]
    rewards = np.maximum(0.0, 1.0 - 20.0 * np.abs(speeds[:, None] - targets) / 4.0)
    for k in range(1, 5):
        best = max(
            rewards[list(chosen)].max(axis=0).mean() for chosen in combinations(range(len(speeds)), min(k, len(speeds)))
        )
        assert velocity_welfare_bound(targets, 4.0, k, speeds=speeds) == pytest.approx(100.0 * best)
        assert velocity_welfare_bound(targets, 4.0, k, speeds=targets) == pytest.approx(
            velocity_welfare_bound(targets, 4.0, k)
        )


@pytest.mark.parametrize("seed", range(6))
def test_every_predecessor_tried(seed):
    """The longest path, without fences around the candidates."""
    rng = np.random.default_rng(seed)
    positions, choices = np.sort(rng.uniform(0, 9, 400)), np.sort(rng.uniform(-1, 10, rng.integers(1, 200)))
    segments = velocity._Segments(positions, choices)
    best = segments.first()
    for _ in range(4):
        a, b = np.tril_indices(len(choices))[::-1]
        table = np.full((len(choices), len(choices)), -np.inf)
        table[a, b] = best[a] + segments.between(a, b)
        extended = velocity._extended(best, segments)
        np.testing.assert_allclose(extended, table.max(axis=0), rtol=1e-12)
        best = extended


def test_many_agents_take_little_memory():
    targets = np.random.RandomState(0).uniform(0, 4, 20_000)
    tracemalloc.start()
    try:
        bound = velocity_welfare_bound(targets, 4.0, 5)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    # The optimum is flat: a fine grid of speeds is as good
    assert velocity_welfare_bound(targets, 4.0, 5, speeds=np.linspace(0, 4, 4001)) == pytest.approx(bound, abs=0.02)


def test_equal_targets():
    targets = [1.0, 1.0, 1.0, 2.0, 2.0]
    assert velocity_welfare_bound(targets, 4.0, 1) == pytest.approx(60.0)
    for k in (2, 3, 5):
        assert velocity_welfare_bound(targets, 4.0, k) == pytest.approx(100.0)


def test_does_not_depend_on_scale_order_or_shift():
    targets = np.random.default_rng(3).uniform(0, 2.5, 60)
    bound = velocity_welfare_bound(targets, 2.5, 4)
    assert velocity_welfare_bound(targets[::-1] * 8, 20.0, 4) == pytest.approx(bound)
    assert velocity_welfare_bound(targets - 7.0, 2.5, 4) == pytest.approx(bound)


def test_no_speeds_beat_the_bound():
    rng = np.random.default_rng(5)
    targets = rng.uniform(0, 3, 50)
    bound = velocity_welfare_bound(targets, 3.0, 6)
    speeds = rng.uniform(0, 3, (20000, 1, 6))
    rewards = np.maximum(0.0, 1.0 - 20.0 * np.abs(targets[:, None] - speeds) / 3.0)
    assert 100.0 * rewards.max(axis=2).mean(axis=1).max() < bound
    assert velocity_welfare_bound(targets, 3.0, 50) == pytest.approx(100.0)


def test_examples_of_the_docstring():
    failed, run = doctest.testmod(velocity)
    assert run > 0 and failed == 0


@pytest.mark.parametrize(
    ("targets", "max_velocity", "k", "message"),
    [
        ([], 4.0, 1, r"shape \(0,\): .*\(n,\)"),
        ([[1.0, 2.0]], 4.0, 1, r"shape \(1, 2\): .*\(n,\)"),
        (1.0, 4.0, 1, r"shape \(\): .*\(n,\)"),
        ([1.0, np.nan], 4.0, 1, "1 entries that are not finite"),
        ([1.0], 0.0, 1, "max_velocity=0.0: .*above 0"),
        ([1.0], np.inf, 1, "max_velocity=inf: .*above 0"),
        ([1.0], 4.0, 0, r"k=0 .*\[1, 1\]"),
        ([1.0], 4.0, 2, r"k=2 .*\[1, 1\]"),
    ],
)
def test_bad_input(targets, max_velocity, k, message):
    with pytest.raises(ValueError, match=message):
        velocity_welfare_bound(targets, max_velocity, k)


def test_bad_speeds():
    with pytest.raises(ValueError, match=r"speeds has shape \(0,\): pass speeds to choose from"):
        velocity_welfare_bound([1.0], 4.0, 1, speeds=[])
    with pytest.raises(ValueError, match="speeds has 1 entries that are not finite"):
        velocity_welfare_bound([1.0], 4.0, 1, speeds=[1.0, np.inf])
