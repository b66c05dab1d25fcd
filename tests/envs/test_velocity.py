import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

import sb3_rmdp.envs
from sb3_rmdp.envs import (
    REWARD_VECTOR,
    AntVelocityEnv,
    HalfCheetahVelocityEnv,
    HopperVelocityEnv,
    Walker2dVelocityEnv,
    velocity_rewards,
)

ENVS = {
    "HalfCheetah": (HalfCheetahVelocityEnv, 4.0, 17),
    "Ant": (AntVelocityEnv, 3.0, 27),
    "Hopper": (HopperVelocityEnv, 2.5, 11),
    "Walker2d": (Walker2dVelocityEnv, 2.5, 17),
}
CLASSES = [env_class for env_class, _, _ in ENVS.values()]


@pytest.mark.parametrize("name", ENVS)
def test_defaults(name):
    env_class, max_velocity, n_observations = ENVS[name]
    env = env_class()
    assert env.n_agents == 100
    assert type(env.n_agents) is int
    assert env.max_velocity == max_velocity
    assert env.targets.shape == (100,)
    assert env.targets.dtype == np.float64
    assert 0 <= env.targets.min() < env.targets.max() < max_velocity
    np.testing.assert_array_equal(env.targets, max_velocity * np.random.RandomState(0).random_sample(100))
    assert env.observation_space.shape == (n_observations,)
    assert env.reset(seed=0)[0].shape == (n_observations,)


@pytest.mark.parametrize("name", ENVS)
def test_reward_vector_against_the_formula(name):
    env_class, max_velocity, _ = ENVS[name]
    env = env_class(n_agents=300)
    env.reset(seed=0)
    env.action_space.seed(0)
    paid = 0
    for _ in range(50):
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
        for agent, target in enumerate(env.targets):
            expected = 0.1 * (1 - min(1.0, 20 * abs(target - info["x_velocity"]) / max_velocity))
            assert info[REWARD_VECTOR][agent] == pytest.approx(expected, abs=1e-7)
            paid += expected > 0
        assert info[REWARD_VECTOR].dtype == np.float32
        assert type(reward) is float
        assert reward == pytest.approx(info[REWARD_VECTOR].mean(dtype=np.float64), abs=1e-8)
        assert type(terminated) is type(truncated) is bool
        if terminated:
            env.reset()
    assert paid > 100, "random actions should have served some agents"


@pytest.mark.parametrize("name", ENVS)
def test_dynamics_and_info_are_those_of_the_base(name):
    env_class, _, _ = ENVS[name]
    env = env_class()
    base_kwargs = {"healthy_z_range": (0.4, 1.0), "include_cfrc_ext_in_observation": False} if name == "Ant" else {}
    base = gym.make(f"{name}-v5", **base_kwargs).unwrapped
    observation, info = env.reset(seed=1)
    base_observation, base_info = base.reset(seed=1)
    np.testing.assert_array_equal(observation, base_observation)
    assert info == base_info
    env.action_space.seed(1)
    for _ in range(20):
        action = env.action_space.sample()
        observation, _, terminated, truncated, info = env.step(action)
        base_observation, _, base_terminated, base_truncated, base_info = base.step(action)
        np.testing.assert_array_equal(observation, base_observation)
        assert (terminated, truncated) == (base_terminated, base_truncated)
        del info[REWARD_VECTOR]
        assert info == base_info
        if terminated:
            break


def test_costs_do_not_enter():
    """The same motion is paid the same, whatever the base env charges for it."""
    rewards = []
    for kwargs in (
        {},
        {"ctrl_cost_weight": 9.0, "contact_cost_weight": 9.0, "healthy_reward": 9.0, "forward_reward_weight": 9.0},
    ):
        env = AntVelocityEnv(**kwargs)
        env.reset(seed=0)
        _, reward, _, _, info = env.step(np.ones(8, dtype=np.float32))
        rewards.append((reward, info["reward_ctrl"]))
    assert rewards[0][0] == rewards[1][0]
    assert rewards[0][1] != rewards[1][1]


def test_perfect_episode_is_worth_100():
    targets = np.array([0.0, 1.0, 2.0])
    np.testing.assert_allclose(1000 * velocity_rewards(1.0, targets, 4.0), [0, 100, 0])
    # Half of the tolerance of 4 / 20 away: half of the pay.
    np.testing.assert_allclose(1000 * velocity_rewards(1.1, targets, 4.0), [0, 50, 0])
    np.testing.assert_allclose(1000 * velocity_rewards(-1.0, targets, 4.0), [0, 0, 0])
    batch = velocity_rewards(np.array([[0.0], [1.0]]), targets, 4.0)
    np.testing.assert_allclose(1000 * batch, [[100, 0, 0], [0, 100, 0]])


def test_ant_falls_at_its_own_height():
    env = AntVelocityEnv()
    env.reset(seed=0)
    qpos, qvel = env.data.qpos.copy(), np.zeros_like(env.data.qvel)
    qpos[2] = 0.3  # gymnasium's own Ant is healthy from 0.2 m on
    env.set_state(qpos, qvel)
    assert not env.is_healthy


def test_targets_override_the_draw():
    env = HopperVelocityEnv(targets=[0.5, 1, 2.5], population_seed=7)
    assert env.n_agents == 3
    assert env.targets.tolist() == [0.5, 1.0, 2.5]
    assert HopperVelocityEnv(targets=np.float32([0.5, 1, 2.5]), n_agents=3).population_id == env.population_id


def test_targets_are_a_copy_that_nobody_changes():
    given = np.array([0.5, 1.0])
    env = HopperVelocityEnv(targets=given)
    given[0] = 2.0
    assert env.targets[0] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        env.targets[0] = 2.0


def test_population_does_not_depend_on_env_seeds():
    env = HopperVelocityEnv()
    targets, population_id = env.targets.copy(), env.population_id
    for seed in (0, 1, 2):
        env.reset(seed=seed)
        np.testing.assert_array_equal(env.targets, targets)
        assert env.population_id == population_id
    np.random.seed(99)
    np.testing.assert_array_equal(HopperVelocityEnv().targets, targets)


def test_population_ids_tell_populations_apart():
    variants = [
        {},
        {"population_seed": 1},
        {"n_agents": 99},
        {"targets": [0.5, 1.0]},
        {"targets": [1.0, 0.5]},
        {"targets": [0.5, 1.0], "max_velocity": 2.0},
        {"n_features": 23},
        {"n_features": 24},
    ]
    ids = [HopperVelocityEnv(**kwargs).population_id for kwargs in variants]
    assert len(set(ids)) == len(ids)
    assert all(population_id.startswith("velocity-") for population_id in ids)
    assert HopperVelocityEnv(reset_noise_scale=0.1).population_id == ids[0]


@pytest.mark.parametrize("env_class", CLASSES)
@pytest.mark.parametrize("clone", [lambda e: pickle.loads(pickle.dumps(e)), lambda e: cloudpickle.loads(cloudpickle.dumps(e))])
def test_pickling(env_class, clone):
    for kwargs in (
        {"n_agents": 7, "population_seed": 3, "max_velocity": 1.5},
        {"targets": np.array([0.25, 0.75])},
        {"n_features": 31},
    ):
        env = env_class(reset_noise_scale=0.0, **kwargs)
        again = clone(env)
        np.testing.assert_array_equal(again.targets, env.targets)
        assert again.population_id == env.population_id
        assert again.max_velocity == env.max_velocity
        assert not again.targets.flags.writeable
        assert again.reward_weights is env.reward_weights
        # The arguments of the base are kept as well: without noise two seeds start alike.
        np.testing.assert_array_equal(again.reset(seed=1)[0], env.reset(seed=2)[0])


def test_deepcopy():
    env = HalfCheetahVelocityEnv(targets=[1.0, 2.0])
    assert copy.deepcopy(env).population_id == env.population_id


@pytest.mark.parametrize(
    "kwargs",
    [
        {"n_agents": 7, "population_seed": 3},
        {"targets": np.array([0.25, 0.75]), "max_velocity": 1.0},
        {"targets": np.array([0.25, 0.75]), "n_features": 30},
    ],
)
def test_made_again_from_its_spec(kwargs):
    env = gym.make("rmdp/HopperVelocity-v0", **kwargs)
    again = gym.make(env.spec)
    assert again.spec.max_episode_steps == 1000
    np.testing.assert_array_equal(again.unwrapped.targets, env.unwrapped.targets)
    assert again.unwrapped.population_id == env.unwrapped.population_id


def test_same_population_in_another_process():
    root = str(Path(sb3_rmdp.envs.__file__).parents[2])
    printed = subprocess.run(
        [sys.executable, "-c", "from sb3_rmdp.envs import HopperVelocityEnv as E; print(E().population_id)"],
        env={**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.split()[-1] == HopperVelocityEnv().population_id


def test_same_population_in_every_copy_of_a_vec_env():
    # A child process that was not forked has not imported us: the id names the module that registers it.
    venv = make_vec_env("sb3_rmdp.envs:rmdp/HopperVelocity-v0", n_envs=2, seed=3, vec_env_cls=SubprocVecEnv)
    try:
        assert venv.get_attr("population_id") == [HopperVelocityEnv().population_id] * 2
        venv.reset()
        _, rewards, _, infos = venv.step(np.zeros((2, 3), dtype=np.float32))
        for reward, info in zip(rewards, infos, strict=True):
            np.testing.assert_allclose(
                info[REWARD_VECTOR], velocity_rewards(info["x_velocity"], HopperVelocityEnv().targets, 2.5), rtol=1e-6
            )
            assert reward == pytest.approx(info[REWARD_VECTOR].mean())
    finally:
        venv.close()


def test_time_limit_truncates():
    env = gym.make("rmdp/HalfCheetahVelocity-v0")
    env.reset(seed=0)
    action = np.zeros(6, dtype=np.float32)
    flags = [env.step(action)[2:4] for _ in range(1000)]
    assert flags == [(False, False)] * 999 + [(False, True)]


def test_welfare_bound():
    # The tolerance is 2 / 20 = 0.1 m/s: speeds 2 apart cannot be shared, speeds 0.05 apart lose half a reward between them.
    env = HopperVelocityEnv(targets=[0.0, 2.0], max_velocity=2.0)
    assert env.welfare_bound(1) == pytest.approx(50.0)
    assert env.welfare_bound(2) == pytest.approx(100.0)
    assert HopperVelocityEnv(targets=[1.0, 1.05], max_velocity=2.0).welfare_bound(1) == pytest.approx(75.0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_agents": 0}, "n_agents=0 does not do"),
        ({"population_seed": -1}, "population_seed=-1 does not do"),
        ({"max_velocity": 0.0}, "max_velocity=0.0 does not do; give a positive finite speed"),
        ({"max_velocity": float("nan")}, "max_velocity=nan does not do"),
        ({"targets": []}, r"targets have shape \(0,\)"),
        ({"targets": [[1.0], [2.0]]}, r"targets have shape \(2, 1\)"),
        ({"targets": [1.0, float("nan")]}, "hold a speed that is not finite"),
        ({"targets": ["fast"]}, "are no numbers"),
        ({"targets": [1.0, 2.0], "n_agents": 3}, "n_agents=3 contradicts the 2 targets"),
        ({"n_features": 22}, "n_features=22 are too few .* want 0 to 2.5 m/s .* within 0.125 m/s .* at least 23, better 111"),
        ({"n_features": 30, "targets": [-1.0, 4.0], "max_velocity": 2.0}, "want -1 to 4 m/s .* at least 53, better 261"),
        ({"n_features": 0}, "n_features=0 does not do"),
        ({"n_features": 50.5}, "n_features=50.5 does not do"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        HopperVelocityEnv(**kwargs)


def test_unknown_argument_is_refused():
    with pytest.raises(TypeError, match="n_agent"):
        HopperVelocityEnv(n_agent=3)
