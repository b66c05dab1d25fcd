"""From what a user passes as ``env`` to a vec env in which every representative can act."""

from __future__ import annotations

import gymnasium as gym
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv


def represented_vec_env(env: GymEnv | str, k: int, verbose: int = 0) -> GymEnv:
    """
    Make k copies, one per representative, of an environment that can be made again.

    :param env: a gymnasium id; an environment; or a vec env, which is returned as it is
    :param k: number of representatives
    :param verbose: 1 to say what was made
    :return: a vec env of k monitored copies, wrappers included. An environment that was not made by ``gymnasium.make``, or
        that has wrappers which do not record their arguments, cannot be made again: it is returned as it is, and
        representatives take turns in it.
    """
    if isinstance(env, VecEnv):
        return env
    if isinstance(env, str):
        return make_vec_env(env, n_envs=k)
    try:
        spec = env.spec
        copies = None if spec is None else make_vec_env(lambda: gym.make(spec), n_envs=k)
    except (ValueError, TypeError, AttributeError, gym.error.Error):
        copies = None
    if copies is None:
        if verbose >= 1:
            print(f"{env} cannot be made again: the {k} representatives take turns in it. Pass a VecEnv for more copies.")
        return env
    if verbose >= 1:
        print(f"Made {k} copies of {spec.id if spec else env}, one per representative.")
    return copies
