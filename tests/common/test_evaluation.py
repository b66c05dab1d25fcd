"""Utilities, welfare and their standard errors."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from tests.probes import KnownAssignment, Probe, vectorized

SMALL: dict[str, Any] = dict(n_steps=16, batch_size=8, n_epochs=1, seed=0, device="cpu")
FIXED = [0, 1, 0, 1, 0, 0]


class Noisy(Probe):
    """Episodes of 1 to 6 steps; rewards are random, and larger in long episodes."""

    n_agents = 6
    action_space = spaces.Discrete(2)

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        out = super().reset(**kwargs)
        self.horizon = int(self.np_random.integers(1, 7))
        return out

    def rewards(self, action: int) -> np.ndarray:
        return self.np_random.normal(size=6) + np.arange(6) * (action + 1.0)


def make_model(env: Any, k: int = 2, representatives: list[int] = FIXED) -> RepresentedPPO:
    return RepresentedPPO(
        "MlpPolicy", env, k=k, assignment="fixed", assignment_kwargs=dict(representatives=representatives), **SMALL
    )


@pytest.mark.parametrize("n_envs", [1, 2, 3, 7])
def test_known_utilities_in_any_number_of_environments(n_envs: int) -> None:
    model = make_model(vectorized(KnownAssignment, 2))
    result = evaluate_welfare(model, vectorized(KnownAssignment, n_envs), n_eval_episodes=3)
    actions = [int(model.predict(np.zeros(2, dtype=np.float32), representative=j, deterministic=True)[0]) for j in range(2)]
    utilities = KnownAssignment.table[:, actions]
    np.testing.assert_allclose(result.utilities, utilities)
    np.testing.assert_allclose(result.agent_utilities, utilities[np.arange(6), FIXED])
    assert result.social_welfare == pytest.approx(utilities[np.arange(6), FIXED].mean())
    assert result.greedy_social_welfare == pytest.approx(utilities.max(axis=1).mean())
    assert result.assignment.tolist() == FIXED
    assert (utilities[np.arange(6), result.greedy] == utilities.max(axis=1)).all()
    assert result.standard_error == 0.0 and (result.utilities_standard_error == 0.0).all()
    assert result.optimum is None and result.share_of_optimum is None
    assert result.n_eval_episodes == 3


def test_greedy_keeps_the_model_s_choice_in_ties() -> None:
    result = evaluate_welfare(make_model(KnownAssignment(), 2), KnownAssignment(), 1)
    ties = result.utilities[:, 0] == result.utilities[:, 1]
    assert ties.any()
    np.testing.assert_array_equal(result.greedy[ties], np.array(FIXED)[ties])


def test_standard_errors_are_those_of_the_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    episodes: list[tuple[int, np.ndarray]] = []
    from sb3_rmdp.common import evaluation

    add = evaluation._Moments.add

    def spy(self: Any, representative: int, returns: np.ndarray) -> None:
        episodes.append((representative, returns.copy()))
        add(self, representative, returns)

    monkeypatch.setattr(evaluation._Moments, "add", spy)
    result = evaluate_welfare(make_model(Noisy()), vectorized(Noisy, 3), n_eval_episodes=11, deterministic=False)
    returns = [np.array([r for j, r in episodes if j == representative]) for representative in range(2)]
    assert [len(r) for r in returns] == [11, 11]
    groups = [np.array(FIXED) == 0, np.array(FIXED) == 1]
    variance = 0.0
    for j in range(2):
        np.testing.assert_allclose(result.utilities[:, j], returns[j].mean(axis=0))
        np.testing.assert_allclose(result.utilities_standard_error[:, j], returns[j].std(axis=0, ddof=1) / 11**0.5)
        variance += (returns[j][:, groups[j]].sum(axis=1) / 6).var(ddof=1) / 11
    assert result.standard_error == pytest.approx(variance**0.5)


def test_short_episodes_are_not_favoured() -> None:
    """Rewards grow with the length of an episode: counting whichever ends first would lower the mean."""

    class Long(Noisy):
        def rewards(self, action: int) -> np.ndarray:
            return np.ones(6)

    result = evaluate_welfare(make_model(Long()), vectorized(Long, 16), n_eval_episodes=400)
    # Lengths 1 to 6 with mean 3.5 and variance 35/12
    assert result.social_welfare == pytest.approx(3.5, abs=4 * (35 / 12 / 400) ** 0.5)


def test_a_single_episode_has_no_standard_error() -> None:
    result = evaluate_welfare(make_model(Noisy()), Noisy(), 1)
    assert np.isnan(result.standard_error) and np.isnan(result.utilities_standard_error).all()


def test_mean_scalar_reward_agrees_with_evaluate_policy() -> None:
    env = make_vec_env("rmdp/ResourceGathering-v0", 2, seed=0)
    model = RepresentedPPO("MlpPolicy", env, k=2, **SMALL)
    result = evaluate_welfare(model, env, 3)
    for j in range(2):
        mean, _ = evaluate_policy(model.representative(j), env, 3)
        assert result.utilities[:, j].mean() == pytest.approx(mean, abs=1e-4)


def test_share_of_the_optimum_and_text() -> None:
    env = VecMonitor(vectorized(lambda: gym.make("rmdp/ResourceGathering-v0"), 1))
    result = evaluate_welfare(RepresentedPPO("MlpPolicy", env, k=3, **SMALL), env, 2)
    assert result.optimum == pytest.approx(89.28)
    assert result.share_of_optimum == pytest.approx(result.social_welfare / 89.28)
    assert str(result).startswith(f"social welfare {result.social_welfare:.2f}") and "% of 89.28" in str(result)
