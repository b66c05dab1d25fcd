"""Sampled actions of gSDE in evaluations: new noise for every episode, and the training's own afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.exploration import new_noise_per_episode
from sb3_rmdp.service import record_episodes
from tests.probes import Probe, vectorized

SMALL: dict[str, Any] = dict(n_steps=16, batch_size=8, n_epochs=1, seed=0, device="cpu", normalize_observations=False)


class Still(Probe):
    """Ten steps in one place, which pay the action: whatever varies between episodes is noise of the policy."""

    n_agents = 2
    action_space = spaces.Box(-100.0, 100.0, (1,), np.float32)
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    horizon = 10

    def observe(self) -> np.ndarray:
        return np.array([0.5, 0.5], np.float32)

    def rewards(self, action: np.ndarray) -> list[float]:
        return [float(action[0])] * 2


def model_of(**kwargs: Any) -> RepresentedPPO:
    groups = dict(representatives=[0, 1])
    return RepresentedPPO(
        "MlpPolicy", vectorized(Still, 2), k=2, use_sde=True, assignment="fixed", assignment_kwargs=groups, **SMALL, **kwargs
    )


@pytest.mark.parametrize("n_envs", [1, 2, 3])
def test_episodes_vary_by_what_their_noise_is_worth(n_envs: int) -> None:
    model = model_of()
    model.policy.reset_noise(2)
    episodes = record_episodes(model, vectorized(Still, n_envs), 40, deterministic=False, trajectories=False)
    returns = episodes.returns[..., 0]
    # The standard deviation of an action in this place, by the distribution itself; noise is the same in all ten steps
    obs = th.full((2, 2), 0.5)
    distribution: Any = model.policy.get_distribution(obs, th.tensor([0, 1])).distribution
    stds = distribution.stddev[:, 0].detach().numpy()
    np.testing.assert_allclose(returns.std(axis=1, ddof=1), 10 * stds, rtol=4 / 78**0.5)
    assert len(np.unique(returns)) == 80
    result = evaluate_welfare(model, vectorized(Still, n_envs), 40, deterministic=False)
    np.testing.assert_allclose(result.utilities_standard_error[0], 10 * stds / 40**0.5, rtol=4 / 78**0.5)


def test_noise_is_drawn_anew_within_episodes_as_often_as_in_training() -> None:
    model = model_of(sde_sample_freq=4)
    obs, seen = np.full((3, 2), 0.5, np.float32), []
    with new_noise_per_episode(model, 3, deterministic=False) as draw:
        for step in range(12):
            seen.append(model.predict(obs, representative=0)[0][:, 0])
            draw(np.array([False, step == 5, False]))
    changed = np.abs(np.diff(np.array(seen), axis=0)) > 1e-6
    # Every fourth step of an episode; that of the second env begins anew after six steps
    assert np.flatnonzero(changed[:, 0]).tolist() == np.flatnonzero(changed[:, 2]).tolist() == [3, 7]
    assert np.flatnonzero(changed[:, 1]).tolist() == [3, 5, 9]


def test_the_noise_of_a_training_goes_on_and_modes_have_none() -> None:
    model = model_of()
    model.policy.reset_noise(2)
    obs = np.full((2, 2), 0.5, np.float32)
    before = model.predict(obs, representative=1)[0]
    evaluate_welfare(model, vectorized(Still, 3), 2, deterministic=False)
    np.testing.assert_array_equal(model.predict(obs, representative=1)[0], before)
    state = th.get_rng_state()
    result = evaluate_welfare(model, vectorized(Still, 3), 2, deterministic=True)
    assert th.equal(th.get_rng_state(), state) and result.standard_error < 1e-6
