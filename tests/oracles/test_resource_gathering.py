"""Optima of Resource Gathering: published values, brute force on small grids, and tours that are what they claim."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from sb3_rmdp.oracles import OptimalTours, resource_gathering_optimum


def outcomes(shape, home, max_episode_steps):
    """Reward vectors of all episodes, bumps included, by simulating the rules: breadth-first over (tile, visited)."""
    rows, cols = shape
    frontier, seen, rewards = {(home, frozenset([home]))}, set(), set()
    for steps in range(1, max_episode_steps + 1):
        reached = set()
        for (row, col), visited in frontier:
            for d_row, d_col in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                tile = (min(max(row + d_row, 0), rows - 1), min(max(col + d_col, 0), cols - 1))
                if tile == home:
                    rewards.add(tuple(100 - steps if (r, c) in visited else 0 for r in range(rows) for c in range(cols)))
                else:
                    reached.add((tile, visited | {tile}))
        frontier = reached - seen  # reached again later: the same with a longer way
        seen |= frontier
    vectors = np.array(sorted(rewards)).reshape(-1, rows * cols)
    dominated = [any((other >= own).all() and (other > own).any() for other in vectors) for own in vectors]
    return vectors[~np.array(dominated, dtype=bool)]


def brute_force(vectors, k):
    if k == vectors.shape[1]:
        return vectors.max(axis=0).mean()  # everyone has a representative
    choices = combinations(range(len(vectors)), min(k, len(vectors)))
    return max(vectors[list(choice)].max(axis=0).sum() for choice in choices) / vectors.shape[1]


def check_tours(result: OptimalTours, k, shape, home, max_episode_steps=40):
    """Every tour is a legal episode, and the assignment collects the welfare that is claimed."""
    n_agents = shape[0] * shape[1]
    assert 1 <= len(result.tours) <= k
    assert result.assignment.shape == (n_agents,) and result.assignment.dtype == np.int64
    assert set(result.assignment.tolist()) == set(range(len(result.tours)))
    values = np.zeros((n_agents, len(result.tours)))
    for index, tour in enumerate(result.tours):
        assert tour[0] == tour[-1] == home and home not in tour[1:-1]
        assert len(tour) - 1 <= max_episode_steps
        assert all(0 <= row < shape[0] and 0 <= col < shape[1] for row, col in tour)
        distances = [abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in pairwise(tour)]
        on_border = home[0] in (0, shape[0] - 1) or home[1] in (0, shape[1] - 1)
        assert set(distances) == {1} or (distances == [0] and on_border)
        for row, col in tour:
            values[row * shape[1] + col, index] = 100 - (len(tour) - 1)
    served = values[np.arange(n_agents), result.assignment]
    assert np.array_equal(served, values.max(axis=1))
    assert result.welfare == pytest.approx(served.mean(), abs=1e-12)


@pytest.mark.parametrize(("k", "welfare"), [(1, 74.0), (2, 86.0), (3, 89.28), (5, 91.04), (10, 92.32), (25, 93.56)])
def test_default_grid(k, welfare):
    result = resource_gathering_optimum(k)
    assert result.welfare == pytest.approx(welfare, abs=1e-9)
    check_tours(result, k, (5, 5), (4, 2))


@pytest.mark.parametrize(
    ("shape", "home", "max_episode_steps"),
    [
        ((2, 3), (1, 1), 40),
        ((2, 3), (0, 0), 40),
        ((2, 3), (0, 2), 5),
        ((1, 6), (0, 2), 40),  # home cuts the grid in two
        ((3, 3), (2, 1), 40),
        ((3, 3), (0, 0), 40),
        ((3, 3), (1, 1), 40),  # no bump at home
        ((3, 3), (2, 1), 6),
        ((3, 3), (2, 0), 3),  # some tiles are out of reach
    ],
)
def test_equals_brute_force(shape, home, max_episode_steps):
    vectors = outcomes(shape, home, max_episode_steps)
    n_agents = shape[0] * shape[1]
    for k in (1, 2, 3, 4, n_agents):
        if k < n_agents and len(vectors) ** k > 1e6:
            continue  # too many choices to go through
        result = resource_gathering_optimum(k, shape, home, max_episode_steps)
        assert result.welfare == pytest.approx(brute_force(vectors, k), abs=1e-9), f"k={k}"
        if vectors.max(axis=0).all():  # all tiles are within reach
            check_tours(result, k, shape, home, max_episode_steps)


def test_more_representatives_never_hurt():
    welfare = [resource_gathering_optimum(k, (3, 4), (2, 1)).welfare for k in range(1, 13)]
    assert np.all(np.diff(welfare) >= 0)


def test_thirty_tiles():
    result = resource_gathering_optimum(1, (6, 5), (5, 2))
    assert result.welfare == 70.0  # the grid has a closed walk that enters every tile once
    check_tours(result, 1, (6, 5), (5, 2))


def test_home_of_the_only_agent():
    result = resource_gathering_optimum(1, (1, 1), (0, 0))
    assert result.welfare == 99.0 and result.tours == (((0, 0), (0, 0)),)


def test_no_episode_gets_home_in_time():
    result = resource_gathering_optimum(2, (3, 3), (1, 1), max_episode_steps=1)
    assert result.welfare == 0.0 and result.tours == () and not result.assignment.any()


def test_cached_result_cannot_be_changed():
    result = resource_gathering_optimum(2, (2, 2), (1, 0))
    with pytest.raises(ValueError, match="read-only"):
        result.assignment[0] = 1
    assert resource_gathering_optimum(2, (2, 2), (1, 0)) is result


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, r"k=0 .*\[1, 25\]"),
        ({"k": 26}, r"k=26 .*\[1, 25\]"),
        ({"k": 1, "shape": (6, 6)}, r"\(6, 6\) has 36 tiles: .*at most 30"),
        ({"k": 1, "shape": (0, 3)}, r"\(0, 3\) .*positive"),
        ({"k": 1, "home": (5, 2)}, r"home=\(5, 2\) .*\[0, 5\)"),
        ({"k": 1, "home": (0, -1)}, r"home=\(0, -1\) .*\[0, 5\)"),
        ({"k": 1, "max_episode_steps": 0}, r"max_episode_steps=0 .*at least 1"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        resource_gathering_optimum(**arguments)
