"""From what a user passes as ``env`` to a vec env in which every representative can act."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_rmdp.envs.contract import integer
from sb3_rmdp.vec_env.batched import BatchedVecEnv
from sb3_rmdp.vec_env.fidelity import CopiesDifferError, check_copies
from sb3_rmdp.vec_env.resource_gathering import ResourceGatheringVecEnv
from sb3_rmdp.vec_env.velocity import VelocityVecEnv

#: Environments of one vec env at most: more are a mistake, and would take minutes and gigabytes to be made
MOST_ENVS = 2**16

#: Vec envs that step copies of one task together.
BATCHED: tuple[type[BatchedVecEnv], ...] = (ResourceGatheringVecEnv, VelocityVecEnv)


def fastest_vec_env(env_fns: Sequence[Callable[[], gym.Env]], verbose: int = 0) -> DummyVecEnv:
    """
    The fastest vec env of one process for some environments; all give the same results. Does as ``vec_env_cls`` of SB3's
    ``make_vec_env``.

    :param env_fns: functions that make one environment each, at least one
    :param verbose: 1 to say which it is, and why
    :return: :class:`VelocityVecEnv` or :class:`ResourceGatheringVecEnv` for copies of these tasks without wrappers of the
        user's, else SB3's DummyVecEnv
    """
    envs = [make() for make in env_fns]
    again: list[Callable[[], gym.Env]] = [partial(_itself, env) for env in envs]
    reason = None
    for vec_env_class in BATCHED:
        reasons = vec_env_class.why_not(envs)
        if reasons is None:
            if verbose >= 1:
                print(f"{vec_env_class.__name__}: {len(envs)} environments, stepped together.")
            return vec_env_class(again)
        if type(envs[0].unwrapped) in vec_env_class.env_classes:
            reason = reasons
    if verbose >= 1:
        why = "" if reason is None else f", since {reason}"
        print(f"DummyVecEnv: {len(envs)} environments, stepped one after the other{why}.")
    return DummyVecEnv(again)


def _itself(env: gym.Env) -> gym.Env:
    return env


def make_represented_vec_env(
    env_id_or_env: str | gym.Env | Callable[..., gym.Env],
    k: int,
    *,
    n_envs: int | None = None,
    seed: int | None = None,
    env_kwargs: dict[str, Any] | None = None,
    monitor_dir: str | None = None,
    vec_env_cls: type[DummyVecEnv] | type[VecEnv] | None = None,
    verbose: int = 0,
) -> VecEnv:
    """
    Make monitored copies of an environment in the fastest vec env there is for it.

    Example::

        >>> from sb3_rmdp.vec_env import make_represented_vec_env
        >>> env = make_represented_vec_env("rmdp/HopperVelocity-v0", k=5, seed=0, env_kwargs={"n_agents": 20}, verbose=1)
        VelocityVecEnv: 5 environments, stepped together.

    :param env_id_or_env: a gymnasium id; a function that makes an environment, given ``env_kwargs``; or an environment that
        ``gymnasium.make`` made, wrappers included, which is not used itself
    :param k: number of representatives, at least 1
    :param n_envs: number of copies, at least 1; k by default, so that every representative acts in one
    :param seed: of the first reset; copy i gets ``seed + i``
    :param env_kwargs: arguments of the environment
    :param monitor_dir: folder for SB3's monitor files; none are written by default
    :param vec_env_cls: class of the vec env, e.g. SB3's ``SubprocVecEnv`` or, for velocity tasks, :class:`EnvPoolVecEnv`; by
        default :func:`fastest_vec_env` chooses
    :param verbose: 1 to say what was chosen, and why
    :return: a vec env, not yet reset
    :raises ValueError: if the environment cannot be made again, or copies would lack what it has (attributes that were set on
        it, statistics, files: :class:`CopiesDifferError`), or a number is out of its range
    """
    name, count = ("k", k) if n_envs is None else ("n_envs", n_envs)
    count = integer(name, count, minimum=1, maximum=MOST_ENVS)
    maker: str | Callable[..., gym.Env]
    if isinstance(env_id_or_env, str) or not isinstance(env_id_or_env, (gym.Env, VecEnv)):
        maker = env_id_or_env
    else:
        # A vec env has no spec either
        spec = getattr(env_id_or_env, "spec", None)
        if spec is None:
            raise ValueError(f"{env_id_or_env} was not made by gymnasium.make and cannot be made again: give a gymnasium id")

        def maker(**kwargs: Any) -> gym.Env:
            return gym.make(spec, **kwargs)

        check_copies(env_id_or_env, maker)

    def fastest(env_fns: list[Callable[[], gym.Env]]) -> DummyVecEnv:
        return fastest_vec_env(env_fns, verbose)

    chosen: Any = fastest if vec_env_cls is None else vec_env_cls
    return make_vec_env(maker, count, seed=seed, env_kwargs=env_kwargs, monitor_dir=monitor_dir, vec_env_cls=chosen)


def represented_vec_env(env: GymEnv | str, k: int, verbose: int = 0) -> GymEnv:
    """
    Make k copies, one per representative, of an environment that can be made again.

    :param env: a gymnasium id; an environment; or a vec env, which is returned as it is
    :param k: number of representatives
    :param verbose: 1 to say what was made
    :return: a vec env of k monitored copies, wrappers included, see :func:`make_represented_vec_env`. An environment that was
        not made by ``gymnasium.make``, or that has wrappers which do not record their arguments, cannot be made again: it is
        returned as it is, and representatives take turns in it. The same goes, with a warning, for one that copies would not
        be like: attributes were set on it, or a wrapper keeps statistics over episodes or writes files.
    """
    if isinstance(env, VecEnv):
        return env
    if isinstance(env, str):
        return make_represented_vec_env(env, k, verbose=verbose)
    try:
        copies = make_represented_vec_env(env, k, verbose=verbose)
    except CopiesDifferError as error:
        warnings.warn(f"the {k} representatives take turns in the environment itself: {error}", stacklevel=3)
        return env
    except (ValueError, TypeError, AttributeError, gym.error.Error):
        if verbose >= 1:
            print(f"{env} cannot be made again: the {k} representatives take turns in it. Pass a VecEnv for more copies.")
        return env
    if verbose >= 1:
        print(f"Made {k} copies of {env.spec.id if env.spec else env}, one per representative.")
    return copies
