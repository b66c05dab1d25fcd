"""Swaps and greedy choices against all sets there are."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from sb3_rmdp.common.facility_location import exchange, greedy_choice, searches, swap_gains


def value(utilities: np.ndarray, chosen: np.ndarray) -> float:
    return float(utilities[chosen].max(axis=0).sum())


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_gains_are_differences_of_values(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Few different numbers, so that there are ties; negative ones among them
    utilities = rng.integers(-3, 6, size=(9, 12)).astype(float)
    chosen = rng.choice(9, size=k, replace=False)
    gains, losses = swap_gains(utilities, chosen)
    for candidate in range(9):
        for place in range(k):
            swapped = chosen.copy()
            swapped[place] = candidate
            assert gains[candidate, place] == pytest.approx(value(utilities, swapped) - value(utilities, chosen))
    if k == 1:
        assert np.isinf(losses).all()
    else:
        for place in range(k):
            assert losses[place] == pytest.approx(value(utilities, chosen) - value(utilities, np.delete(chosen, place)))


@pytest.mark.parametrize("seed", range(5))
def test_exchanges_end_where_no_swap_helps_and_near_the_best_set(seed: int) -> None:
    rng = np.random.default_rng(seed)
    utilities = np.maximum(rng.normal(size=(12, 20)), 0.0)
    best = max(value(utilities, np.array(chosen)) for chosen in combinations(range(12), 3))
    chosen = exchange(utilities, np.arange(3))
    assert len(set(chosen)) == 3
    assert (swap_gains(utilities, chosen)[0] < 1e-9).all()
    assert value(utilities, chosen) >= 0.9 * best
    assert value(utilities, greedy_choice(utilities, 3)) >= (1.0 - 1.0 / np.e) * best


def test_a_swap_has_to_be_worth_its_cost() -> None:
    # Candidate 2 would add 1 in the place of 0, candidate 3 would add 2 in the place of 1
    utilities = np.array([[4.0, 0.0], [0.0, 4.0], [5.0, 0.0], [0.0, 6.0]])
    assert exchange(utilities, np.arange(2)).tolist() == [2, 3]
    assert exchange(utilities, np.arange(2), least=1.5).tolist() == [0, 3]
    costs = np.zeros((4, 2))
    costs[:, 1] = 3.0
    assert exchange(utilities, np.arange(2), costs).tolist() == [2, 1]
    costs[:, 1] = np.inf
    assert exchange(utilities, np.arange(2), costs).tolist() == [2, 1]


def test_all_candidates_may_be_chosen() -> None:
    utilities = np.eye(3)
    assert sorted(greedy_choice(utilities, 3)) == [0, 1, 2]
    assert sorted(exchange(utilities, np.arange(3))) == [0, 1, 2]


@pytest.mark.parametrize(("k", "restarts", "expected"), [(3, 0, 1), (3, 4, 6), (1, 4, 1), (9, 4, 1)])
def test_searches_begin_with_what_there_is_and_elsewhere_if_they_may(k: int, restarts: int, expected: int) -> None:
    rng = np.random.default_rng(0)
    utilities = rng.random((9, 12))
    costs = np.full((9, k), np.inf)
    found = list(searches(utilities, costs, restarts, rng))
    assert len(found) == expected and all(len(set(chosen.tolist())) == k for chosen in found)
    # What costs too much stays where it is; from elsewhere nothing is asked for, and no swap is left that helps
    assert found[0].tolist() == list(range(k))
    for chosen in found[1:]:
        gains, _ = swap_gains(utilities, chosen)
        assert np.delete(gains, chosen, axis=0).max() <= 1e-9
