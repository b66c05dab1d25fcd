"""The numbers of a report: those of evaluate_welfare, or counted by hand."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from scipy import stats
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.approval.findings import Findings, collect_findings
from sb3_rmdp.approval.own_policy import own_policy_bounds
from sb3_rmdp.approval.plan import make_plan
from sb3_rmdp.common import evaluation
from sb3_rmdp.common.seeds import seed_evaluation
from sb3_rmdp.envs import VectorReward
from sb3_rmdp.oracles import resource_gathering_optimum
from tests.approval.probes import SMALL, Noisy, NoisyFactored, make_model
from tests.probes import Drift, Probe, Waiting, time_limited, vectorized

GROUPS = [0, 1, 0, 1, 0, 0]
GRID = "rmdp/ResourceGathering-v0"


def collect(model: RepresentedPPO, env: VecEnv, n_eval_episodes: int, **kwargs: Any) -> Findings:
    plan = make_plan(env, model.n_agents, n_eval_episodes, **{"stress": False, "deterministic": False, **kwargs})
    return collect_findings(model, env, plan)


@pytest.mark.parametrize("n_envs", [1, 2, 5])
@pytest.mark.parametrize(("probe", "groups"), [(Noisy, GROUPS), (NoisyFactored, [0, 1, 2, 2, 0, 1, 0]), (Noisy, [0] * 6)])
def test_one_seed_gives_the_numbers_of_evaluate_welfare(probe: type[Noisy], groups: list[int], n_envs: int) -> None:
    model = make_model(vectorized(probe, 2), groups)
    findings = collect(model, vectorized(probe, n_envs), 7, seeds=[5])
    env = vectorized(probe, n_envs)
    seed_evaluation(env, 5)
    expected = evaluate_welfare(model, env, 7, deterministic=False)
    for name in ("utilities", "utilities_standard_error", "assignment", "greedy", "half_utilities"):
        np.testing.assert_array_equal(getattr(findings.result, name), getattr(expected, name))
    assert findings.result.social_welfare == expected.social_welfare
    assert findings.result.standard_error == expected.standard_error
    assert findings.by_seed == (findings.result,)
    for row in findings.representatives:
        own = expected.utilities[row.agents, row.index]
        even, odd = expected.half_utilities[:, row.agents, row.index]  # type: ignore[index]
        assert row.mean_utility == pytest.approx(own.mean())
        assert row.worst_utility == odd[even.argmin()] and row.worst_agent == row.agents[even.argmin()]
        # Three of seven episodes
        error = expected.utilities_standard_error[row.worst_agent, row.index] * (7 / 3) ** 0.5
        assert row.worst_half_width == pytest.approx(stats.t.ppf(0.975, 6) * error)
        assert row.mean_over_all == pytest.approx(expected.utilities[:, row.index].mean())
    if model.k == 1:
        # One representative serves all: its interval and that of welfare are the same
        assert findings.representatives[0].half_width == pytest.approx(findings.welfare_half_width)


def test_several_seeds_are_one_evaluation_of_all_their_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, np.ndarray]] = []
    halves: list[tuple[int, int, np.ndarray]] = []
    add, add_to_half = evaluation._Moments.add, evaluation._Moments.add_to_half

    def spy_halves(self: Any, half: int, representative: int, returns: np.ndarray) -> None:
        halves.append((half, representative, returns.copy()))
        add_to_half(self, half, representative, returns)

    def spy(self: Any, representative: int, returns: np.ndarray) -> None:
        seen.append((representative, returns.copy()))
        add(self, representative, returns)

    monkeypatch.setattr(evaluation._Moments, "add", spy)
    monkeypatch.setattr(evaluation._Moments, "add_to_half", spy_halves)
    model = make_model(vectorized(Noisy, 2), GROUPS)
    findings = collect(model, vectorized(Noisy, 3), 4, seeds=3)
    for half in (0, 1):
        for j in (0, 1):
            of_it = [one for of, representative, one in halves if (of, representative) == (half, j)]
            assert len(of_it) == 6 and findings.result.half_utilities is not None
            np.testing.assert_allclose(findings.result.half_utilities[half, :, j], np.mean(of_it, axis=0))
    returns = [np.array([r for j, r in seen if j == representative]) for representative in range(2)]
    assert [len(one) for one in returns] == [12, 12]
    result = findings.result
    variance = 0.0
    for j, one in enumerate(returns):
        np.testing.assert_allclose(result.utilities[:, j], one.mean(axis=0))
        np.testing.assert_allclose(result.utilities_standard_error[:, j], one.std(axis=0, ddof=1) / 12**0.5)
        for agent in range(6):
            low, high = stats.t.interval(0.95, 11, loc=one[:, agent].mean(), scale=stats.sem(one[:, agent]))
            assert findings.half_widths[agent, j] == pytest.approx((high - low) / 2)
        group = one[:, np.array(GROUPS) == j]
        low, high = stats.t.interval(0.95, 11, loc=0.0, scale=stats.sem(group.mean(axis=1)))
        assert findings.representatives[j].half_width == pytest.approx(high)
        variance += (group.sum(axis=1) / 6).var(ddof=1) / 12
    assert result.standard_error == pytest.approx(variance**0.5)
    assert findings.welfare_half_width == pytest.approx(variance**0.5 * stats.t.ppf(0.975, 11))
    assert result.n_eval_episodes == 12 and [one.n_eval_episodes for one in findings.by_seed] == [4, 4, 4]
    assert len({one.social_welfare for one in findings.by_seed}) == 3
    np.testing.assert_array_equal(findings.own_best, np.mean([one.greedy == GROUPS for one in findings.by_seed], axis=0))
    best = np.concatenate(returns).max(axis=0)
    for row in findings.worst_off:
        assert row.gain_seen == pytest.approx(best[row.agent] - row.utility)


def test_single_episodes_of_several_seeds_have_an_interval() -> None:
    model = make_model(vectorized(Noisy, 2), GROUPS)
    one = collect(model, vectorized(Noisy, 2), 1, seeds=1)
    assert np.isnan(one.half_widths).all() and np.isnan(one.welfare_half_width)
    several = collect(model, vectorized(Noisy, 2), 1, seeds=4)
    utilities = np.stack([one.utilities for one in several.by_seed])
    np.testing.assert_allclose(several.result.utilities_standard_error, utilities.std(axis=0, ddof=1) / 2)


class Luck(Probe):
    """One step that pays what the start has drawn: the true utility of everybody is 50 whatever is done."""

    n_agents = 40
    observation_space = spaces.Box(-9.0, 9.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        super().reset(**kwargs)
        self.start = self.np_random.normal(size=1)
        self.paid = 50.0 + 7.0 * self.start + 7.0 * self.np_random.normal(size=self.n_agents)
        return self.start.astype(np.float32).clip(-9.0, 9.0), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        return np.zeros(1, np.float32), float(self.paid.mean()), True, False, {"reward_vector": self.paid.astype(np.float32)}


@pytest.mark.parametrize(("k", "n_envs"), [(1, 8), (2, 2)])
def test_intervals_of_several_seeds_cover_what_is_true(k: int, n_envs: int) -> None:
    venv = DummyVecEnv([Luck] * n_envs)
    model = make_model(venv, [i % k for i in range(40)], k=k)
    covered, worst, worst_covered, n = [], [], [], 40
    for trial in range(n):
        found = collect(model, venv, 4, seeds=[100 * trial, 100 * trial + 1, 100 * trial + 2], deterministic=True)
        covered.append(abs(found.result.social_welfare - 50.0) < found.welfare_half_width)
        first = found.worst_off[0]
        worst.append(first.utility)
        worst_covered.append(abs(first.utility - 50.0) < first.half_width)
        assert found.result.worst_utility == first.utility and found.result.worst_agent == first.agent
    error = 3 * (0.95 * 0.05 / n) ** 0.5
    assert np.mean(covered) > 0.95 - error and np.mean(worst_covered) > 0.95 - error
    # The lowest of 40 means would be about 5 lower
    assert np.mean(worst) == pytest.approx(50.0, abs=4 * np.std(worst) / n**0.5)


def test_lengths_and_time_limits() -> None:
    model = make_model(vectorized(Waiting, 2), list(Waiting.representatives))
    findings = collect(model, vectorized(Waiting, 2), 5, seeds=2, deterministic=True)
    for row in findings.representatives:
        action = int(model.predict(np.zeros(2, np.float32), representative=row.index, deterministic=True)[0])
        assert row.lengths == (action + 1, action + 1, action + 1)
        assert row.timed_out == 0.0 and row.n_episodes == 10
        np.testing.assert_allclose(findings.result.utilities[:, row.index], Waiting.table[action] * (action + 1))
    env = vectorized(lambda: time_limited(Drift()), 2)
    rows = collect(make_model(env, [0, 1, 1]), env, 3).representatives
    assert [(row.lengths, row.timed_out) for row in rows] == [((5.0, 5, 5), 1.0)] * 2


def test_a_representative_that_serves_nobody() -> None:
    model = make_model(vectorized(Noisy, 2), [0, 2, 0, 2, 0, 0], k=3)
    idle = collect(model, vectorized(Noisy, 3), 3).representatives[1]
    assert idle.agents.size == 0 and idle.worst_agent is None
    assert np.isnan([idle.mean_utility, idle.half_width, idle.worst_utility]).all()
    assert np.isfinite(idle.mean_over_all) and idle.lengths[0] >= 1.0


def test_worst_off_agents() -> None:
    model = make_model(vectorized(Noisy, 2), GROUPS)
    known = np.array([9.0, np.nan, 1.0, 1.0, 1.0, 1.0])
    findings = collect(model, vectorized(Noisy, 2), 4, own_policy_utilities=known)
    halves, errors = findings.result.half_utilities, findings.result.utilities_standard_error
    assert halves is not None
    even, odd = halves[:, np.arange(6), GROUPS]
    # Chosen by six of twelve episodes, and measured in the others
    assert [row.agent for row in findings.worst_off] == np.argsort(even).tolist()
    for row in findings.worst_off:
        other = 1 - GROUPS[row.agent]
        assert (row.representative, row.elsewhere) == (GROUPS[row.agent], other)
        assert row.utility == odd[row.agent]
        assert row.half_width == pytest.approx(stats.t.ppf(0.975, 11) * 2**0.5 * errors[row.agent, row.representative])
        assert row.utility_elsewhere == halves[1, row.agent, other]
        np.testing.assert_equal(row.gain_given, known[row.agent] - row.utility)
        assert np.isnan(row.gain_bound)  # nobody knows one here
    alone = collect(make_model(vectorized(Noisy, 1), [0] * 6), vectorized(Noisy, 1), 2).worst_off[0]
    assert alone.elsewhere is None and np.isnan(alone.utility_elsewhere)


@pytest.mark.parametrize(
    ("shape", "home", "limit"), [((5, 5), (4, 2), 40), ((3, 3), (1, 1), 40), ((4, 5), (0, 0), 8), ((1, 3), (0, 1), 1)]
)
def test_bounds_in_resource_gathering_are_those_of_the_solver(shape: tuple, home: tuple, limit: int) -> None:
    env = make_vec_env(GRID, 1, env_kwargs=dict(shape=shape, home=home, max_episode_steps=limit))
    n = shape[0] * shape[1]
    bounds = own_policy_bounds(env, np.arange(n))
    assert bounds is not None
    optimum = resource_gathering_optimum(n, shape, home, limit)
    steps = np.array([len(tour) - 1 for tour in optimum.tours])
    visited = np.array([divmod(agent, shape[1]) in optimum.tours[j] for agent, j in enumerate(optimum.assignment)])
    np.testing.assert_array_equal(bounds, np.where(visited, 100 - steps[optimum.assignment], 0))


@pytest.mark.parametrize("n_features", [None, 23])
def test_bounds_of_velocity_tasks(n_features: int | None) -> None:
    env = make_vec_env("rmdp/HopperVelocity-v0", 1, env_kwargs=dict(n_agents=7, n_features=n_features))
    bounds = own_policy_bounds(env, np.arange(7))
    assert bounds is not None
    assert bounds.mean() == pytest.approx(env.env_method("welfare_bound", 7)[0])
    assert (bounds == 100.0).all() == (n_features is None)


def test_no_bounds_where_a_wrapper_has_put_other_agents() -> None:
    def other() -> gym.Env:
        return VectorReward(gym.make(GRID), lambda *_: np.ones(3), 3, population_id="others")

    assert own_policy_bounds(DummyVecEnv([other]), np.arange(3)) is None
    assert own_policy_bounds(vectorized(Noisy, 1), np.arange(3)) is None


def test_statistics_of_vec_normalize_stay_as_they_are() -> None:
    env = VecNormalize(make_vec_env(GRID, 2, seed=0, env_kwargs=dict(shape=(3, 3), home=(2, 1))), norm_reward=False)
    model = RepresentedPPO("MlpPolicy", env, k=2, **SMALL).learn(64)
    mean = env.obs_rms.mean.copy()  # type: ignore[union-attr]
    collect(model, env, 2, seeds=1, stress=True)
    np.testing.assert_array_equal(env.obs_rms.mean, mean)  # type: ignore[union-attr]
    assert env.training


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        (dict(n_eval_episodes=0), "n_eval_episodes=0"),
        (dict(seeds=0), "seeds=0"),
        (dict(seeds=[1, 1]), r"seeds=\[1, 1\]"),
        (dict(seeds=[-1]), r"seeds=\[-1\]"),
        (dict(own_policy_utilities=[1.0]), r"shape \(1,\)"),
    ],
)
def test_wrong_arguments(kwargs: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make_plan(vectorized(Noisy, 1), 6, **kwargs)
