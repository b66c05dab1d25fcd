"""Copies of a task in a vec env, and the same in another one."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_rmdp.vec_env import BatchInfos, ResourceGatheringVecEnv, VelocityVecEnv

GRID = "rmdp/ResourceGathering-v0"
HOPPER = "rmdp/HopperVelocity-v0"
#: Arguments with which random actions end some episodes by a fall and some by the time limit, and steps until then.
ROBOTS: dict[str, tuple[dict[str, Any], int]] = {
    "rmdp/HalfCheetahVelocity-v0": (dict(max_episode_steps=25), 60),
    "rmdp/AntVelocity-v0": (dict(max_episode_steps=60, healthy_z_range=(0.45, 0.9)), 130),
    HOPPER: (dict(max_episode_steps=15), 90),
    "rmdp/Walker2dVelocity-v0": (dict(max_episode_steps=15), 90),
}


def make(env_id: str, n_envs: int, vec_env_cls: Any, monitor: bool = True, n_threads: int = 1, **kwargs: Any) -> VecEnv:
    """Copies with the seeds 3, 4, ..."""
    vec_env_kwargs = dict(n_threads=n_threads) if n_threads > 1 else {}
    if monitor:
        return make_vec_env(env_id, n_envs, seed=3, env_kwargs=kwargs, vec_env_cls=vec_env_cls, vec_env_kwargs=vec_env_kwargs)
    env = vec_env_cls([lambda: gym.make(env_id, render_mode="rgb_array", **kwargs)] * n_envs, **vec_env_kwargs)
    env.seed(3)
    return env


def batched_class(env_id: str) -> type[DummyVecEnv]:
    return ResourceGatheringVecEnv if env_id == GRID else VelocityVecEnv


def random_actions(env: VecEnv, n_steps: int) -> list[np.ndarray]:
    env.action_space.seed(11)
    return [np.array([env.action_space.sample() for _ in range(env.num_envs)]) for _ in range(n_steps)]


def assert_same_info(info: dict[str, Any], expected: dict[str, Any]) -> None:
    assert set(info) == set(expected)
    for key, value in expected.items():
        if key == "episode":
            info["episode"].pop("t"), value.pop("t")
        assert type(info[key]) is type(value), key
        np.testing.assert_array_equal(info[key], value, err_msg=key, strict=isinstance(value, np.ndarray))


def assert_same(ours: VecEnv, dummy: VecEnv, actions: list[np.ndarray]) -> list[dict[str, Any]]:
    """Both do the same from a reset on, which is looked at when all is over. Returns infos of the ends of episodes."""
    np.testing.assert_array_equal(ours.reset(), dummy.reset())  # type: ignore[arg-type]
    steps: list[tuple[Any, Any]] = []
    for action in actions:
        given = action.copy()
        steps.append((ours.step(given), dummy.step(action)))
        given[:] = 0  # the array is the caller's
    ends = []
    for (*values, infos), (*others, other_infos) in steps:
        for value, other in zip(values, others, strict=True):
            np.testing.assert_array_equal(value, other, strict=True)
        assert len(infos) == len(other_infos) == ours.num_envs
        if isinstance(infos, BatchInfos):
            vectors = np.stack([info[infos.key] for info in other_infos])
            np.testing.assert_array_equal(infos.reward_vectors, vectors, strict=True)
        for info, other, done in zip(infos, other_infos, values[2], strict=True):
            assert_same_info(info, other)
            ends += [other] if done else []
    return ends
