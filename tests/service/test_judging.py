"""Choices, intervals and numbers of episodes: by brute force, and by simulation where truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sb3_rmdp.service import judging
from sb3_rmdp.service.judging import NewUsers, judge
from tests.service.worlds import drawn

SIMULATIONS = 2000


def simulated(means: list[float], errors: list[float], n_episodes: int, seed: int = 0) -> NewUsers:
    """
    :param means: expected return under each representative
    :param errors: standard deviations of returns
    :param n_episodes: of each
    :param seed: of the draw
    :return: what is said of as many users as there are simulations, each of whom has episodes of its own
    """
    shape = (len(means), n_episodes, SIMULATIONS)
    noise = np.random.default_rng(seed).normal(size=shape)
    returns = np.array(means)[:, None, None] + np.array(errors)[:, None, None] * noise
    return judge(returns, np.eye(SIMULATIONS))


def test_numbers_are_those_of_textbooks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    episodes = drawn(rng, rng.normal(size=(4, 3)).tolist(), [0.1, 0.5, 1.0, 2.0], 9)
    users = rng.normal(size=(30, 3)).astype(np.float32)
    monkeypatch.setattr(judging, "BLOCK", 4 * 9 * 7)  # seven users at a time
    result = judge(episodes.returns, users, confidence=0.9)
    for user, weights in enumerate(users.astype(np.float64)):
        returns = episodes.returns.astype(np.float64) @ weights  # (4, 9)
        means = returns.mean(axis=1)
        chosen, second = np.argsort(-means)[:2]
        assert (result.representative[user], result.runner_up[user]) == (chosen, second)
        np.testing.assert_allclose(result.expected_returns[user], means, atol=1e-12)
        np.testing.assert_allclose(result.standard_errors[user], stats.sem(returns, axis=1), atol=1e-12)
        own, variances = returns[chosen], returns.var(axis=1, ddof=1)
        # The same with a variance that is not below the mean of all
        own = own.mean() + (own - own.mean()) * (max(variances[chosen], variances.mean()) / variances[chosen]) ** 0.5
        # Two-sided intervals of scipy: one at 90 %, one so wide that those of all four hold
        upper = stats.ttest_1samp(own, 0.0).confidence_interval(0.9).high
        lower = stats.ttest_1samp(own, 0.0).confidence_interval(1 - 0.1 / 4).low
        np.testing.assert_allclose([result.lower[user], result.upper[user]], [lower, upper], atol=1e-10)
        tests = [stats.ttest_ind(own, returns[j], equal_var=False, alternative="greater") for j in range(4) if j != chosen]
        # Degrees of freedom are rounded down
        p_values = [stats.t.sf(test.statistic, np.floor(test.df + 1e-9)) for test in tests]
        assert result.confident[user] == (max(p_values) < 0.1 / 3)
        even, odd = returns[:, ::2].mean(axis=1), returns[:, 1::2].mean(axis=1)
        both = (odd[even.argmax()] + even[odd.argmax()]) / 2
        np.testing.assert_allclose(result.cross_validated[user], both, atol=1e-12)
        np.testing.assert_allclose(result.best_possible[user], returns.max(), atol=1e-12)
    assert 0 < result.confident.sum() < 30
    np.testing.assert_array_equal(result.group_sizes, np.bincount(result.representative, minlength=4))
    np.testing.assert_array_equal(result.regret, result.best_possible - result.expected_return)
    np.testing.assert_array_equal(result.regret_lower, result.best_possible - result.upper)
    np.testing.assert_array_equal(result.regret_upper, result.best_possible - result.lower)
    whole = judge(episodes.returns, users, 0.9)
    monkeypatch.undo()
    for name in ("representative", "confident", "episodes_needed"):
        np.testing.assert_array_equal(getattr(judge(episodes.returns, users, 0.9), name), getattr(whole, name))


@pytest.mark.parametrize(
    ("means", "errors"),
    [
        ([0.0], [1.0]),
        ([0.0] * 5, [1.0] * 5),  # the choice is all luck
        ([0.0] * 20, [1.0] * 20),
        ([0.0, 0.1, 0.2, 0.3, 0.4], [1.0] * 5),
        ([0.0, 0.0, 0.0, 0.0, 3.0], [1.0] * 5),  # there is no choice
        ([0.0, 0.0, 0.0], [0.1, 1.0, 3.0]),
        ([0.0] * 6, [0.1] * 5 + [3.0]),
    ],
)
def test_intervals_cover_what_they_say(means: list[float], errors: list[float]) -> None:
    result = simulated(means, errors, 20)
    truth = np.array(means)[result.representative]
    covered = np.mean((result.lower <= truth) & (truth <= result.upper))
    error = 3 * np.sqrt(0.05 * 0.95 / SIMULATIONS)
    assert covered > 0.95 - error
    if len(means) == 1:
        assert covered < 0.95 + error
    # No wider than the care for the choice makes it: ends of the mean of all variances, and of all representatives at once
    pooled = np.sqrt(np.square(result.standard_errors).mean(axis=1))
    widest = np.maximum(result.standard_error, pooled) * stats.t.ppf([[1 - 0.05 / 2 / len(means)], [0.975]], 19)
    np.testing.assert_allclose(result.expected_return - widest[0], result.lower)
    np.testing.assert_allclose(result.expected_return + widest[1], result.upper)
    # The mean of the chosen one flatters itself where there is a choice; what was cross-validated does not
    bias, honest = (result.expected_return - truth).mean(), (result.cross_validated - truth).mean()
    if len(means) > 1 and max(means) == min(means):
        assert bias > 0.15
    assert abs(honest) < 0.05


@pytest.mark.parametrize(("k", "n_episodes"), [(5, 20), (5, 50), (10, 10), (20, 20)])
def test_intervals_know_of_failures_that_others_had(k: int, n_episodes: int) -> None:
    # Every representative gives 100, or 0 in one of twenty episodes: whoever has not failed yet is chosen
    returns = 100.0 * (np.random.default_rng(0).random((k, n_episodes, SIMULATIONS)) < 0.95)
    result = judge(returns, np.eye(SIMULATIONS))
    assert np.mean(result.standard_error == 0.0) > 0.3
    assert np.mean((result.lower <= 95.0) & (95.0 <= result.upper)) > 0.95
    # Nor is such a representative called the best, where one more that pays 99 every time is better
    steady = np.concatenate([returns, np.full((1, n_episodes, SIMULATIONS), 99.0)])
    assert np.mean((found := judge(steady, np.eye(SIMULATIONS))).confident & (found.representative < k)) < 0.05


def test_claims_are_wrong_as_rarely_as_they_say() -> None:
    # As good as equal, so that any claim is as likely right as wrong: the worst case
    for means in ([0.0, 1e-6], [0.0, 0.0, 0.0, 1e-6]):
        result = simulated(means, [1.0] * len(means), 10)
        wrong = np.mean(result.confident & (result.representative != len(means) - 1))
        assert wrong < 0.05 + 3 * np.sqrt(0.05 * 0.95 / SIMULATIONS)
    assert np.mean(simulated([0.0, 1e-6], [1.0, 1.0], 10).confident) > 0.05  # some are made


@pytest.mark.parametrize(("means", "errors"), [([0.0, 0.5], [1.0, 2.0]), ([0.3, 0.0, 1.0, -1.0], [0.5] * 4)])
def test_as_many_episodes_as_needed_are_enough(means: list[float], errors: list[float]) -> None:
    # What is needed is exact if gaps and variances are: standardised returns have those that were asked for
    k, n = len(means), 400
    noise = np.random.default_rng(2).normal(size=(k, n, 1))
    noise = (noise - noise.mean(axis=1, keepdims=True)) / noise.std(axis=1, ddof=1, keepdims=True)
    known = judge(np.array(means)[:, None, None] + np.array(errors)[:, None, None] * noise, np.ones((1, 1)))
    assert known.confident[0]
    needed = int(known.episodes_needed[0])
    assert 4 < needed < n
    assert abs(simulated(means, errors, needed).confident.mean() - 0.8) < 0.05
    assert simulated(means, errors, needed // 3).confident.mean() < 0.5


def test_what_does_not_vary_is_known() -> None:
    returns = np.repeat(np.array([[[1.0, 5.0]], [[2.0, 5.0]], [[0.1, 5.0]]], np.float32), 6, axis=1)
    result = judge(returns, np.eye(2))
    assert result.representative.tolist() == [1, 0]
    assert not result.standard_errors.any() and result.lower.tolist() == result.upper.tolist() == [2.0, 5.0]
    # Who is paid the same by all is served by any, and no number of episodes will tell
    assert result.confident.tolist() == [True, False]
    assert result.episodes_needed.tolist() == [2.0, np.inf]
    assert result.regret.tolist() == [0.0, 0.0]


def test_a_single_representative_is_the_best() -> None:
    result = judge(np.random.default_rng(0).normal(size=(1, 8, 2)), np.eye(2))
    assert result.confident.all() and result.runner_up.tolist() == [-1, -1] and not result.episodes_needed.any()
    assert (result.lower < result.expected_return).all() and (result.regret > 0).all()
    np.testing.assert_allclose(result.expected_return - result.lower, result.upper - result.expected_return)


def test_a_line_about_it() -> None:
    one = simulated([0.0, 9.0], [1.0, 1.0], 5)
    assert str(one).startswith(f"{SIMULATIONS} users: mean return 9.0") and "100.0 % confident" in str(one)
    returns = np.array([[[0.0], [2.0]], [[0.5], [2.5]]])
    assert "representative 1 (not confident, " in str(judge(returns, np.ones((1, 1))))
    assert "no number of episodes would tell" in str(judge(np.ones((2, 2, 1)), np.ones((1, 1))))


def test_a_hundred_thousand_users() -> None:
    rng = np.random.default_rng(0)
    episodes = drawn(rng, rng.normal(size=(4, 11)).tolist(), 1.0, 10)
    users = rng.normal(size=(100_000, 11)).astype(np.float32)
    result = judge(episodes.returns, users)
    some = rng.integers(0, 100_000, 50)
    means = users[some].astype(np.float64) @ episodes.returns.mean(axis=1, dtype=np.float64).T
    np.testing.assert_allclose(result.expected_returns[some], means, atol=1e-9)
    np.testing.assert_array_equal(result.representative[some], means.argmax(axis=1))
