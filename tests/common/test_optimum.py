"""Bounds that grow with the length of episodes are those of the episodes that there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from sb3_rmdp.approval.own_policy import own_policy_bounds
from sb3_rmdp.common.evaluation import welfare_optimum
from sb3_rmdp.envs import HalfCheetahVelocityEnv, VectorReward
from sb3_rmdp.vec_env import make_represented_vec_env

CHEETAH = "rmdp/HalfCheetahVelocity-v0"
#: Half of the agents want 1 m/s, half 3 m/s: a single policy serves half of them
TARGETS = [1.0, 1.0, 3.0, 3.0]


def cheetah(**kwargs: Any) -> gym.Env:
    return gym.make(CHEETAH, targets=TARGETS, **kwargs)


def dummy(*fns: Callable[[], gym.Env]) -> VecEnv:
    return DummyVecEnv(list(fns))


MADE: dict[str, tuple[Callable[[], VecEnv], int | None]] = {
    "the paper's": (lambda: dummy(cheetah), 1000),
    "500": (lambda: dummy(lambda: cheetah(max_episode_steps=500)), 500),
    "2000": (lambda: dummy(lambda: cheetah(max_episode_steps=2000)), 2000),
    "a shorter limit around": (lambda: dummy(lambda: TimeLimit(cheetah(), 50)), 50),
    "a longer limit around": (lambda: dummy(lambda: TimeLimit(cheetah(max_episode_steps=500), 900)), 500),
    "around a monitor": (lambda: dummy(lambda: TimeLimit(Monitor(cheetah()), 200)), 200),
    "no spec": (lambda: dummy(lambda: TimeLimit(HalfCheetahVelocityEnv(targets=TARGETS), 300)), 300),
    "no limit": (lambda: dummy(lambda: HalfCheetahVelocityEnv(targets=TARGETS)), None),
    "several": (lambda: dummy(cheetah, lambda: TimeLimit(cheetah(), 50)), 1000),
    "stepped together": (
        lambda: make_represented_vec_env(CHEETAH, 2, env_kwargs=dict(targets=TARGETS, max_episode_steps=10)),
        10,
    ),
    "features": (lambda: dummy(lambda: cheetah(n_features=221, max_episode_steps=500)), 500),
}


@pytest.mark.parametrize("name", MADE)
def test_bounds_of_velocity_tasks_are_of_episodes_as_long_as_the_time_limit(name: str) -> None:
    make, steps = MADE[name]
    env = make()
    own = own_policy_bounds(env, np.arange(4))
    if steps is None:
        assert welfare_optimum(env, 1) is None and own is None
        return
    assert welfare_optimum(env, 1) == pytest.approx(0.1 * steps / 2)
    assert welfare_optimum(env, 2) == pytest.approx(0.1 * steps)
    np.testing.assert_allclose(own, 0.1 * steps)  # type: ignore[arg-type]


def test_worker_processes_tell_their_time_limit() -> None:
    env = SubprocVecEnv([lambda: TimeLimit(cheetah(), 50)], start_method="fork")
    assert welfare_optimum(env, 2) == pytest.approx(5.0)
    env.close()


@pytest.mark.parametrize("steps", [500, 2000])
def test_the_method_of_an_environment_knows_the_limit_of_its_spec(steps: int) -> None:
    assert cheetah(max_episode_steps=steps).get_wrapper_attr("welfare_bound")(2) == pytest.approx(0.1 * steps)


def test_the_bound_of_a_wrapper_is_its_own() -> None:
    def make() -> gym.Env:
        return TimeLimit(VectorReward(cheetah(), lambda *_: np.zeros(2), n_agents=2, welfare_bound=lambda k: 7.0 * k), 50)

    assert welfare_optimum(dummy(make), 2) == 14.0
