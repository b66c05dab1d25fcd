"""Velocity tasks with factored rewards: the paper's windows, interpolated on a grid of speeds."""

import gc
import tracemalloc

import gymnasium as gym
import numpy as np
import pytest

from sb3_rmdp.envs import (
    REWARD_FEATURES,
    REWARD_VECTOR,
    HalfCheetahVelocityEnv,
    HopperVelocityEnv,
    check_represented_env,
    velocity,
    velocity_features,
    velocity_rewards,
)
from tests.envs.test_velocity import CLASSES

TARGETS = np.array([0.0, 0.3, 1.0, 2.47, 3.999])


def interpolated(speed, env):
    """(n_agents,) rewards at a speed, by numpy's interpolation of each agent's window."""
    return np.array(
        [
            np.interp(speed, env.feature_speeds, velocity_rewards(env.feature_speeds, target, env.max_velocity))
            for target in env.targets
        ]
    )


@pytest.mark.parametrize("env_class", CLASSES)
def test_rewards_are_interpolated(env_class):
    env, plain = env_class(n_agents=300, n_features=40), env_class(n_agents=300)
    np.testing.assert_array_equal(env.reset(seed=0)[0], plain.reset(seed=0)[0])
    env.action_space.seed(0)
    paid = 0
    for _ in range(50):
        action = env.action_space.sample()
        observation, reward, terminated, truncated, info = env.step(action)
        other, _, *flags, other_info = plain.step(action)
        np.testing.assert_array_equal(observation, other)
        assert [terminated, truncated] == flags
        rewards = env.reward_weights @ info[REWARD_FEATURES]
        np.testing.assert_allclose(rewards, interpolated(info["x_velocity"], env), atol=1e-7)
        np.testing.assert_allclose(rewards, other_info[REWARD_VECTOR], atol=0.1 * 11 / 39 + 1e-7)
        assert type(reward) is float
        assert reward == pytest.approx(rewards.mean(dtype=np.float64), abs=1e-8)
        paid += np.count_nonzero(rewards)
        assert info.pop(REWARD_FEATURES).dtype == np.float32
        del other_info[REWARD_VECTOR]
        assert info == other_info  # what the base env reports, and no reward vector
        if terminated:
            env.reset(), plain.reset()
    assert paid > 100, "random actions should have served some agents"


def test_features_are_hats():
    speeds = np.linspace(-1.0, 3.0, 5)
    assert velocity_features(2.0, speeds).tolist() == [0, 0, 0, 1, 0]
    assert velocity_features(0.25, speeds).tolist() == [0, 0.75, 0.25, 0, 0]
    assert velocity_features(3.25, speeds).tolist() == [0, 0, 0, 0, 0.75]
    for far in (-2.0, 4.5, -1e9):
        assert not velocity_features(far, speeds).any()
    many = np.random.default_rng(0).uniform(-1, 3, (50, 1))
    np.testing.assert_allclose(velocity_features(many, speeds).sum(axis=1), 1.0)
    np.testing.assert_allclose(velocity_features(many, speeds) @ speeds, many[:, 0])


@pytest.mark.parametrize(
    ("kwargs", "low", "high"),
    [
        ({}, -0.2, 4.2),
        ({"targets": TARGETS}, -0.2, 4.2),
        ({"targets": [-1.0, 1.0]}, -1.2, 4.2),
        ({"targets": [5.0]}, -0.2, 5.2),
    ],
)
def test_grid_covers_whatever_is_paid(kwargs, low, high):
    env = HalfCheetahVelocityEnv(n_features=60, **kwargs)
    assert (env.feature_speeds[0], env.feature_speeds[-1]) == pytest.approx((low, high))
    assert env.reward_weights.shape == (env.n_agents, 60)
    np.testing.assert_allclose(env.reward_weights[:, [0, -1]], 0.0, atol=1e-9)
    # Behind the ends nobody is paid, as by the paper's window
    for speed in (low - 0.01, high + 0.01, -50.0):
        assert env.pay(speed)[0] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("n_features", [23, 45, 111, 221])
def test_how_far_rewards_are_from_the_paper(n_features):
    targets = np.random.default_rng(0).uniform(0, 4, 200)
    distance = 4.4 / (n_features - 1)
    targets[0] = -0.2 + 10.5 * distance  # between two speeds of the grid: nothing is worse
    env = HalfCheetahVelocityEnv(targets=targets, n_features=n_features)
    speeds = np.append(np.linspace(-0.4, 4.4, 4001), targets)[:, None]
    errors = env.pay(speeds)[1] @ env.reward_weights.T - velocity_rewards(speeds, targets, 4.0)
    worst = 0.1 * 11 / (n_features - 1)
    assert np.abs(errors).max() == pytest.approx(worst, abs=1e-6)
    assert env.pay(targets[0])[1] @ env.reward_weights[0] == pytest.approx(0.1 - worst, abs=1e-6)
    # On the grid all is exact, and everybody has a speed there that pays half at least
    np.testing.assert_allclose(
        env.reward_weights.T, velocity_rewards(env.feature_speeds[:, None], env.targets, 4.0), rtol=1e-6, atol=1e-9
    )
    assert env.reward_weights.max(axis=1).min() >= 0.05 - 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_welfare_bound_is_that_of_the_interpolated_rewards(seed):
    rng = np.random.default_rng(seed)
    env = HalfCheetahVelocityEnv(targets=rng.uniform(0, 1.5, 12), n_features=rng.integers(23, 60))
    speeds = np.append(np.linspace(-0.2, 2.0, 300), env.feature_speeds)[:, None]
    rewards = 1000 * env.pay(speeds)[1] @ env.reward_weights.T  # (speeds, agents)
    assert env.welfare_bound(1) == pytest.approx(rewards.mean(axis=1).max(), rel=1e-5)
    pairs = np.maximum(rewards[:, None], rewards[None])
    assert env.welfare_bound(2) == pytest.approx(pairs.mean(axis=2).max(), rel=1e-5)
    # Everybody the best speed for himself
    assert env.welfare_bound(12) == pytest.approx(rewards.max(axis=0).mean(), rel=1e-5)


def test_bounds_approach_that_of_the_paper():
    # Grids that contain the one before
    bounds = [HopperVelocityEnv(n_features=n_features).welfare_bound(5) for n_features in (23, 111, 1101, 11001)]
    assert bounds == sorted(bounds)
    assert bounds[-1] == pytest.approx(HopperVelocityEnv().welfare_bound(5), abs=0.05)


def test_checker_accepts_it():
    check_represented_env(gym.make("rmdp/HopperVelocity-v0", n_features=30), n_steps=200)
    assert HopperVelocityEnv().reward_weights is None


def test_many_agents_are_held_once():
    kwargs = {"n_agents": 300_000, "n_features": 23, "population_seed": 5}
    weights_size = 300_000 * 23 * 4
    tracemalloc.start()
    try:
        envs = [gym.make("rmdp/HopperVelocity-v0", **kwargs).unwrapped for _ in range(4)]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    first = envs[0]
    assert all(env.reward_weights is first.reward_weights and env.targets is first.targets for env in envs)
    assert weights_size < held < 1.3 * weights_size
    assert first.targets[:100].tolist() == HopperVelocityEnv(population_seed=5).targets.tolist()
    name = first.population_id
    assert name in velocity._WEIGHTS
    del envs, first
    gc.collect()
    assert name not in velocity._WEIGHTS
