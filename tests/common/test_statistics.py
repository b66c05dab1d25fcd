"""What is said of those who were chosen: by simulation, where truth is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from sb3_rmdp import WelfareEvaluation
from sb3_rmdp.budget.curve import BudgetRow
from sb3_rmdp.common.report import best_representative, better_elsewhere, own_utility, summarize, worst_off

SIMULATIONS = 500
#: Of a share that should be 0.95
TOLERANCE = 3 * (0.95 * 0.05 / SIMULATIONS) ** 0.5

Draw = Callable[[np.random.Generator, int, int], np.ndarray]


def evaluation(returns: np.ndarray, assignment: np.ndarray, with_halves: bool = True) -> WelfareEvaluation:
    """
    :param returns: (n_episodes, n_agents, k)
    :param assignment: (n_agents,)
    :param with_halves: whether halves of the episodes are known, as they are by ``evaluate_welfare``
    """
    n = len(returns)
    utilities = returns.mean(axis=0)
    own = utilities[np.arange(len(assignment)), assignment]
    return WelfareEvaluation(
        utilities=utilities,
        utilities_standard_error=returns.std(axis=0, ddof=1) / n**0.5,
        assignment=assignment,
        greedy=np.where(own == utilities.max(axis=1), assignment, utilities.argmax(axis=1)),
        social_welfare=float(own.mean()),
        standard_error=0.0,
        greedy_social_welfare=float(utilities.max(axis=1).mean()),
        n_eval_episodes=n,
        half_utilities=np.stack([returns[half::2].mean(axis=0) for half in (0, 1)]) if with_halves else None,
    )


def normal(rng: np.random.Generator, n: int, n_agents: int) -> np.ndarray:
    """Everybody truly has 50; half of the variance is shared."""
    return 50.0 + 7.0 * rng.normal(size=(n, 1)) + 7.0 * rng.normal(size=(n, n_agents))


def alone(rng: np.random.Generator, n: int, n_agents: int) -> np.ndarray:
    """Nothing is shared."""
    return 50.0 + 7.0 * rng.normal(size=(n, n_agents))


@pytest.mark.parametrize("with_halves", [True, False])
@pytest.mark.parametrize("n_agents", [2, 5, 100])
@pytest.mark.parametrize("n", [2, 3, 10, 60])
@pytest.mark.parametrize("draw", [normal, alone])
def test_the_worst_off_agent_has_what_is_said(draw: Draw, n: int, n_agents: int, with_halves: bool) -> None:
    rng, who = np.random.default_rng(n_agents * n), np.zeros(n_agents, int)
    rows = []
    for _ in range(SIMULATIONS):
        result = evaluation(draw(rng, n, n_agents)[:, :, None], who, with_halves)
        rows.append(BudgetRow.of_evaluation(result, seed=0))
        assert (rows[-1].worst_utility, rows[-1].worst_error) == (result.worst_utility, result.worst_error)
        if with_halves:
            row, agent = summarize(result)[0], int(worst_off(result, 1)[0])
            assert row.worst_agent == agent == result.worst_agent
            assert row.worst_utility == result.worst_utility == own_utility(result, agent)[0]
    told, errors = (np.array([getattr(row, name) for row in rows]) for name in ("worst_utility", "worst_error"))
    inside = np.abs(told - 50.0) < stats.t.ppf(0.975, n - 1) * errors
    assert inside.mean() > 0.95 - TOLERANCE
    if with_halves or (n_agents == 100 and n >= 10):  # else neither noise nor what agents differ by is known well
        assert told.mean() == pytest.approx(50.0, abs=4 * told.std() / SIMULATIONS**0.5)


def test_an_agent_that_is_truly_worst_off_is_found_and_has_what_it_has() -> None:
    rng, who = np.random.default_rng(0), np.zeros(100, int)
    true = np.append(np.full(99, 50.0), 10.0)
    for with_halves in (True, False):
        found = [evaluation((normal(rng, 10, 100) - 50 + true)[..., None], who, with_halves) for _ in range(SIMULATIONS)]
        assert {one.worst_agent for one in found} == {99}
        told = np.array([one.worst_utility for one in found])
        assert told.mean() == pytest.approx(10.0, abs=4 * told.std() / SIMULATIONS**0.5)


def test_without_noise_the_worst_off_agent_has_the_lowest_utility() -> None:
    returns = np.repeat(np.random.default_rng(0).normal(size=(1, 20, 3)), 5, axis=0)
    for with_halves in (True, False):
        result = evaluation(returns, np.arange(20) % 3, with_halves)
        assert result.worst_utility == result.agent_utilities.min()
        assert result.worst_agent == result.agent_utilities.argmin() and result.worst_error == pytest.approx(0.0, abs=1e-9)


def test_a_single_episode_cannot_be_split_and_has_no_error() -> None:
    who = np.zeros(2, int)
    result = WelfareEvaluation(np.array([[3.0], [1.0]]), np.full((2, 1), np.nan), who, who, 2.0, np.nan, 2.0, 1)
    assert (result.worst_agent, result.worst_utility) == (1, 1.0) and np.isnan(result.worst_error)
    assert np.isnan(result.greedy_cross_validated)


def test_the_best_of_equal_representatives_is_no_better() -> None:
    rng, told, inside, welfare, flattered = np.random.default_rng(0), [], [], [], []
    for _ in range(SIMULATIONS):
        result = evaluation(50.0 + 7.0 * rng.normal(size=(10, 20, 5)), rng.integers(0, 5, 20))
        for others in (False, True):
            found = best_representative(result, 0, others)
            assert found is not None and not (others and found[0] == result.assignment[0])
            told.append(found[1])
            inside.append(abs(found[1] - 50.0) < stats.t.ppf(0.975, 9) * found[2])
        welfare.append(result.greedy_cross_validated)
        flattered.append(result.greedy_social_welfare)
    assert np.mean(told) == pytest.approx(50.0, abs=4 * np.std(told) / SIMULATIONS**0.5)
    assert np.mean(inside) > 0.95 - TOLERANCE
    assert np.mean(welfare) == pytest.approx(50.0, abs=4 * np.std(welfare) / SIMULATIONS**0.5)
    assert np.mean(flattered) > 52.0


@pytest.mark.parametrize("n", [2, 3, 10, 60])
@pytest.mark.parametrize("k", [2, 5, 20])
def test_hardly_anybody_is_called_better_off_elsewhere_by_chance(n: int, k: int) -> None:
    rng = np.random.default_rng(n * k)
    called = [len(better_elsewhere(evaluation(rng.normal(size=(n, 50, k)), rng.integers(0, k, 50)))) for _ in range(200)]
    # All representatives are the same: whoever is called is called by chance
    assert np.mean(np.array(called) > 0) < 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5
    assert np.mean(called) < 0.5


def test_failures_that_did_not_happen_yet_make_nobody_better_off() -> None:
    # Every representative pays 100, or 0 in one of twenty episodes; in ten episodes the best one has no failure
    rng, called = np.random.default_rng(0), 0
    for _ in range(200):
        returns = 100.0 * (rng.random((10, 50, 5)) < 0.95) + 1e-3 * rng.normal(size=(10, 50, 5))
        called += len(better_elsewhere(evaluation(returns, rng.integers(0, 5, 50)))) > 0
    assert called / 200 < 0.05


def test_who_is_clearly_better_off_elsewhere_is_found() -> None:
    rng, assignment = np.random.default_rng(0), np.zeros(50, int)
    gain = np.zeros((50, 5))
    gain[:10, 3] = 3.0
    found, right = 0, 0
    for _ in range(100):
        called = better_elsewhere(evaluation(rng.normal(size=(10, 50, 5)) + gain, assignment))
        found, right = found + len(called), right + int((called < 10).sum())
    # With ten episodes the difference is 3 with an error of 0.45; at most 5 % of those who are called are others
    assert right > 0.9 * 1000 and found - right < 0.05 * found + 4 * (0.05 * found) ** 0.5
