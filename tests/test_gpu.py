"""On a GPU, where there is one: the same trainings as on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.utils import set_random_seed

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.assignment import ASSIGNMENTS
from sb3_rmdp.common.welfare import WELFARES
from sb3_rmdp.represented_ppo.autograd_gradients import AutogradGradients
from sb3_rmdp.represented_ppo.manual_gradients import ManualGradients
from tests.probes import KnownAssignment, Spaces, time_limited, vectorized
from tests.represented_ppo.test_factored import factored
from tests.represented_ppo.test_is_ppo import Lonely, assert_same_weights, pair
from tests.represented_ppo.test_manual_gradients import CASES, filled_model, gradients_of

pytestmark = [
    pytest.mark.skipif(not th.cuda.is_available(), reason="there is no GPU"),
    # SB3's advice where networks are small
    pytest.mark.filterwarnings("ignore:You are trying to run PPO on the GPU:UserWarning"),
]

SMALL: dict[str, Any] = dict(n_steps=16, batch_size=8, n_epochs=2, seed=0, device="cuda")
OBS = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)


@pytest.mark.parametrize("kwargs", [{}, {"target_kl": 0.001}, {"use_sde": True, "sde_sample_freq": 4}], ids=str)
def test_with_one_agent_and_one_representative_it_is_ppo(kwargs: dict[str, Any]) -> None:
    stock, ours = pair(lambda: time_limited(Lonely()), 3, device="cuda", **kwargs)
    for model in (stock, ours):
        set_random_seed(3)
        model.env.seed(3)
        if model.use_sde:
            model.policy.reset_noise(3)
        model.learn(3 * 32 * 3)
    assert {parameter.device.type for parameter in ours.policy.parameters()} == {"cuda"}
    assert_same_weights(stock, ours)


@pytest.mark.parametrize("case", CASES)
def test_gradients_that_are_written_out_are_those_of_autograd(case: str) -> None:
    model = filled_model(case, device="cuda")
    assert ManualGradients.fits(model)
    by_autograd = AutogradGradients(model, 0.1, 0.01)
    set_random_seed(3)
    expected = [gradients_of(model) for _ in by_autograd.epoch()]
    by_hand = ManualGradients(model, 0.1, 0.01)
    set_random_seed(3)
    found = [gradients_of(model) for _ in by_hand.epoch()]
    for gradients, expected_gradients in zip(found, expected, strict=True):
        assert gradients.keys() == expected_gradients.keys()
        for name, gradient in expected_gradients.items():
            assert (gradients[name] - gradient).abs().max() <= 1e-6 + 1e-4 * gradient.abs().max(), name


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("assignment", sorted(set(ASSIGNMENTS) - {"fixed"}))
def test_files_go_from_one_device_to_the_other_and_back(assignment: str, tmp_path: Path) -> None:
    env = vectorized(KnownAssignment, 3)
    model = RepresentedPPO("MlpPolicy", env, k=3, assignment=assignment, **SMALL).learn(6 * 16 * 3)
    model.save(tmp_path / "model")
    on_cpu = RepresentedPPO.load(tmp_path / "model", env=env, device="cpu")
    np.testing.assert_allclose(on_cpu.assignment.probabilities, model.assignment.probabilities, rtol=1e-6)
    for representative in range(3):
        expected = model.predict(OBS, representative=representative, deterministic=True)[0]
        found = on_cpu.predict(OBS, representative=representative, deterministic=True)[0]
        np.testing.assert_array_equal(found, expected)
    on_cpu.learn(2 * 16 * 3, reset_num_timesteps=False).save(tmp_path / "model")
    back = RepresentedPPO.load(tmp_path / "model", env=env, device="cuda")
    back.learn(2 * 16 * 3, reset_num_timesteps=False)
    assert back.num_timesteps == 10 * 16 * 3
    assert {parameter.device.type for parameter in back.policy.parameters()} == {"cuda"}


@pytest.mark.parametrize("assignment", ["em", "episodes"])
def test_it_learns_what_the_probe_pays(assignment: str) -> None:
    env = vectorized(KnownAssignment, 6)
    model = RepresentedPPO("MlpPolicy", env, k=3, assignment=assignment, **SMALL | dict(learning_rate=0.01))
    model.learn(40 * 16 * 6)
    groups = [set(np.flatnonzero(model.assignment.representatives == j).tolist()) for j in range(3)]
    assert sorted(map(sorted, groups)) == sorted(map(sorted, KnownAssignment.partition))
    assert evaluate_welfare(model, env, 1, deterministic=True).social_welfare == pytest.approx(KnownAssignment.optimum)


@pytest.mark.parametrize("welfare", WELFARES)
@pytest.mark.parametrize("kwargs", [{}, {"critic_rank": 2}], ids=["a value each", "two values"])
def test_every_welfare(welfare: str, kwargs: dict[str, Any]) -> None:
    model = RepresentedPPO("MlpPolicy", vectorized(KnownAssignment, 3), k=3, welfare=welfare, **SMALL, **kwargs)
    model.learn(4 * 16 * 3)
    assert np.isfinite(evaluate_welfare(model, vectorized(KnownAssignment, 3), 1).social_welfare)


@pytest.mark.parametrize("assignment", sorted(set(ASSIGNMENTS) - {"fixed"}))
def test_factored_rewards(assignment: str) -> None:
    env = vectorized(factored, 3)
    model = RepresentedPPO("MlpPolicy", env, k=3, assignment=assignment, welfare="gini", **SMALL | dict(n_steps=24))
    model.learn(4 * 24 * 3)
    assert np.isfinite(evaluate_welfare(model, env, 2).social_welfare)


@pytest.mark.parametrize("assignment", ["em", "end_to_end", "episodes"])
def test_images(assignment: str) -> None:
    pixels = spaces.Box(0, 255, (36, 36, 1), np.uint8)
    env = vectorized(lambda: Spaces(pixels, spaces.Discrete(3), 5), 4)
    model = RepresentedPPO("CnnPolicy", env, k=2, assignment=assignment, **SMALL)
    model.learn(3 * 16 * 4)
    assert np.isfinite(evaluate_welfare(model, env, 2).social_welfare)
