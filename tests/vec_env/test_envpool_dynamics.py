"""EnvPool simulates the same task as gymnasium, bit for bit where both have one version of MuJoCo."""

from __future__ import annotations

import functools
import math
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import scipy.stats
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp.envs import REWARD_VECTOR, HalfCheetahVelocityEnv
from sb3_rmdp.vec_env import BatchInfos, EnvPoolVecEnv, VelocityVecEnv, make_represented_vec_env
from sb3_rmdp.vec_env.envpool import REPORTED
from sb3_rmdp.vec_env.robots import ROBOTS, Motion
from tests.vec_env.test_envpool import ANT, CHEETAH, HOPPER, WALKER, base_of, make, random_actions

pytest.importorskip("envpool")

#: All settings that EnvPool has, at other values than by default
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    (CHEETAH, {}),
    (CHEETAH, dict(frame_skip=3, reset_noise_scale=0.3, n_agents=7)),
    (ANT, {}),
    (ANT, dict(include_cfrc_ext_in_observation=True, contact_force_range=(-0.5, 0.4), main_body="torso")),
    (ANT, dict(healthy_z_range=(0.6, math.inf), frame_skip=2, targets=[0.0, 1.0])),
    (ANT, dict(healthy_z_range=(0.7, 0.8), terminate_when_unhealthy=False)),
    (HOPPER, {}),
    (HOPPER, dict(healthy_state_range=(-3.0, 4.0), healthy_angle_range=(-0.1, 0.15), healthy_z_range=(1.0, math.inf))),
    (WALKER, {}),
    (WALKER, dict(healthy_z_range=(1.0, 1.5), healthy_angle_range=(-0.2, 0.1), n_agents=300, reset_noise_scale=0.01)),
    (WALKER, dict(terminate_when_unhealthy=False, ctrl_cost_weight=0.0, healthy_reward=3.0, forward_reward_weight=2.0)),
]
EVERY_INFO, LAST_INFO = (REWARD_VECTOR, "TimeLimit.truncated"), ("episode", "terminal_observation")
PLACES = REPORTED[:3]
#: MuJoCo within EnvPool 1.2
VERSION = "3.6.0"


def states_of(env: VecEnv, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities in observations that have both."""
    model = base_of(env).model
    return observations[:, : model.nq], observations[:, model.nq : model.nq + model.nv]


@pytest.mark.parametrize(("env_id", "kwargs"), SETTINGS)
def test_from_equal_states(env_id: str, kwargs: dict[str, Any]) -> None:
    """Equal versions of MuJoCo agree in every bit; others for a step. Observations and bounds of health are the same."""
    kwargs = dict(exclude_current_positions_from_observation=False) | kwargs
    ours = make(env_id, 20, **kwargs)
    theirs = make_represented_vec_env(env_id, 1, n_envs=20, env_kwargs=kwargs)
    assert type(theirs) is VelocityVecEnv and ours.observation_space == theirs.observation_space
    theirs.reset()
    started = ours.reset()
    assert isinstance(started, np.ndarray) and started.shape == (20, *theirs.observation_space.shape)  # type: ignore[misc]
    for i, (qpos, qvel) in enumerate(zip(*states_of(ours, started), strict=True)):
        theirs.env_method("set_state", qpos.copy(), qvel.copy(), indices=i)
    exact = mujoco.__version__ == VERSION
    same: Any = np.testing.assert_array_equal if exact else functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-4)
    alive = list(range(20))  # in their first episodes; later ones begin elsewhere
    for actions in random_actions(ours, 60 if exact else 1):
        obs, rewards, dones, infos = ours.step(actions)
        expected, means, ends, others = theirs.step(actions)
        assert isinstance(obs, np.ndarray) and isinstance(expected, np.ndarray) and isinstance(infos, BatchInfos)
        assert rewards.dtype == means.dtype == np.float32 and infos.reward_vectors is not None
        np.testing.assert_array_equal(dones[alive], ends[alive])
        same(rewards[alive], means[alive])
        for i in alive:
            info, other = infos[i], others[i]
            same(infos.reward_vectors[i], other[REWARD_VECTOR])
            same(info.get("terminal_observation", obs[i]), other.get("terminal_observation", expected[i]))
            assert info.keys() - REPORTED == other.keys() & {*EVERY_INFO, *LAST_INFO} and info.keys() <= other.keys()
            for key in info.keys() & REPORTED:
                # The Ant's places are those one step of the simulation before
                np.testing.assert_allclose(info[key], other[key], atol=0.02 if key in PLACES and env_id == ANT else 1e-4)
        alive = [i for i in alive if not dones[i]]
    assert len(alive) < 20 or not exact or "Cheetah" in env_id or not base_of(ours)._terminate_when_unhealthy


@pytest.mark.parametrize(("env_id", "kwargs"), SETTINGS)
def test_episodes(env_id: str, kwargs: dict[str, Any]) -> None:
    """Speeds are those of the places; who is unhealthy terminates, and nobody else; limits; records; same-step resets."""
    limit = 40
    env = make(env_id, 6, exclude_current_positions_from_observation=False, max_episode_steps=limit, **kwargs)
    base, n_truncated, n_terminated = base_of(env), 0, 0
    kind = ROBOTS[type(base)]
    robot = kind(kind.read()(base))
    noise = base._reset_noise_scale
    before = np.asarray(env.reset())
    places = before[:, 0].copy()
    lengths, returns = np.zeros(6, dtype=int), np.zeros((6, base.n_agents))
    for actions in random_actions(env, 130):
        obs, rewards, dones, infos = env.step(actions)
        assert isinstance(obs, np.ndarray) and isinstance(infos, BatchInfos) and infos.reward_vectors is not None
        assert infos.looked_at() == np.flatnonzero(dones).tolist()  # the others are not even made
        last = np.stack(
            [info["terminal_observation"] if done else row for info, done, row in zip(infos, dones, obs, strict=True)]
        )
        now = np.array([info["x_position"] for info in infos])
        speeds = np.array([info["x_velocity"] for info in infos])
        np.testing.assert_allclose(speeds, (now - places) / base.dt, atol=1e-9)
        vectors = 0.1 * np.maximum(1.0 - 20 * np.abs(base.targets - speeds[:, None]) / base.max_velocity, 0.0)
        np.testing.assert_allclose(infos.reward_vectors, vectors, atol=1e-7)
        np.testing.assert_allclose(rewards, vectors.mean(axis=1), atol=1e-7)
        lengths, returns = lengths + 1, returns + vectors
        healthy = robot.healthy(Motion(actions, *states_of(env, last), speeds[:, None], None, None))
        fallen = np.zeros(6, dtype=bool) if healthy is None or not robot.falls() else ~healthy
        np.testing.assert_array_equal(dones, fallen | (lengths == limit))
        for i, (info, done) in enumerate(zip(infos, dones, strict=True)):
            assert info["TimeLimit.truncated"] == (done and not fallen[i])
            assert ("episode" in info) == done
            if done:
                assert info["episode"]["l"] == lengths[i] and info["episode"]["t"] > 0
                assert info["episode"]["r"] == pytest.approx(returns[i].mean(), abs=2e-6)
                qpos, _ = states_of(env, obs)
                np.testing.assert_allclose(qpos[i], base.init_qpos, atol=noise * 1.0001)
                assert not np.array_equal(last[i], obs[i])
                now[i], lengths[i], returns[i] = qpos[i, 0], 0, 0.0
        n_truncated += int((dones & ~fallen).sum())
        n_terminated += int(fallen.sum())
        places = now
    assert not np.shares_memory(before, obs) and n_truncated + n_terminated >= 3 * 6
    assert (n_terminated > 0) == robot.falls()


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [(CHEETAH, dict(reset_noise_scale=0.3)), (ANT, {}), (HOPPER, {}), (WALKER, dict(reset_noise_scale=0.01))],
)
def test_distribution_of_beginnings(env_id: str, kwargs: dict[str, Any]) -> None:
    n_envs = 300
    ours = np.asarray(make(env_id, n_envs, **kwargs).reset())
    env = gym.make(env_id, **kwargs)
    theirs = np.array([env.reset(seed=seed)[0] for seed in range(n_envs)])
    p_values = [scipy.stats.ks_2samp(one, other).pvalue for one, other in zip(ours.T, theirs.T, strict=True)]
    assert min(p_values) > 1e-3


def test_a_fall_in_the_last_step_is_no_time_out() -> None:
    def end(limit: int) -> dict[str, Any]:
        env = make(HOPPER, 1, max_episode_steps=limit)
        env.reset()
        while True:
            _, _, (done,), (info,) = env.step(np.ones((1, 3)))
            if done:
                return info

    falls = end(1000)["episode"]["l"]
    assert 5 < falls < 100
    for limit, length, truncated in ((falls + 1, falls, False), (falls, falls, False), (falls - 1, falls - 1, True)):
        info = end(limit)
        assert (info["episode"]["l"], info["TimeLimit.truncated"]) == (length, truncated)


def test_without_wrappers() -> None:
    """No limit of time; EnvPool's own, of 1000 steps, is out of the way."""
    env = EnvPoolVecEnv([lambda: HalfCheetahVelocityEnv(n_agents=1)] * 2)
    env.reset()
    assert not any(env.step(np.zeros((2, 6)))[2].any() for _ in range(1100))
