"""Test an environment against the contract of represented MDPs."""

import copy
import math
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import data_equivalence

from sb3_rmdp.envs.contract import REWARD_VECTOR

#: Steps of which the reward vectors are kept alive, to see whether one of them is written to again.
KEPT_STEPS = 256

#: Length of the two episodes with different seeds whose rewards are compared.
PROBE_STEPS = 16


def check_represented_env(env: gym.Env[Any, Any], n_steps: int = 2000, warn: bool = True) -> None:
    """
    Check that an environment keeps the contract of :mod:`sb3_rmdp.envs.contract`, as SB3's ``check_env`` does for its own.

    Plays random actions. Looks at the agents only; run ``stable_baselines3.common.env_checker.check_env`` for the rest.

    Example::

        >>> import gymnasium as gym
        >>> import sb3_rmdp.envs
        >>> sb3_rmdp.envs.check_represented_env(gym.make("rmdp/ResourceGathering-v0"))

    :param env: the environment, with all the wrappers that it is trained with
    :param n_steps: steps to play, at least 1; enough for one episode to end, whose last step has rewards like any other
    :param warn: whether to warn of what is missing or suspicious, but allowed
    :raises AssertionError: with what is wrong and how to mend it
    """
    assert isinstance(env, gym.Env), f"{type(env).__name__} is not a gymnasium environment; derive it from gymnasium.Env"
    assert n_steps >= 1, f"n_steps={n_steps} checks nothing; give at least 1"
    n_agents = _check_n_agents(env)
    _check_population_id(env, warn)
    _check_welfare_bound(env)
    _check_steps(env, n_agents, n_steps, warn)
    _check_same_agents(env, n_agents, warn)
    _check_copy(env, n_agents, warn)


def _attribute(env: gym.Env[Any, Any], name: str) -> Any:
    """
    An attribute of the environment or of one of its wrappers.

    :param env: the environment
    :param name: of the attribute
    :return: its value, ``None`` where there is none
    """
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None


def _check_n_agents(env: gym.Env[Any, Any]) -> int:
    """
    ``n_agents`` is there and a positive ``int``.

    :param env: the environment
    :return: number of agents
    """
    n_agents = _attribute(env, "n_agents")
    assert n_agents is not None, "The environment has no attribute n_agents; set self.n_agents to the number of agents"
    assert isinstance(n_agents, int) and not isinstance(
        n_agents, bool
    ), f"n_agents={n_agents!r} is of type {type(n_agents).__name__}; make it an int"
    assert n_agents >= 1, f"n_agents={n_agents} is no population; there must be at least 1 agent"
    return n_agents


def _check_population_id(env: gym.Env[Any, Any], warn: bool) -> None:
    """
    ``population_id`` is a text, or absent.

    :param env: the environment
    :param warn: whether to warn if it is absent
    """
    population_id = _attribute(env, "population_id")
    if population_id is None:
        if warn:
            warnings.warn(
                "The environment has no population_id, so nothing notices if a model is evaluated on other agents than it was "
                "trained for; set it to a str that changes with the agents, e.g. by sb3_rmdp.envs.fingerprint",
                stacklevel=3,
            )
        return
    assert (
        isinstance(population_id, str) and population_id
    ), f"population_id={population_id!r} must be a str that is not empty; use e.g. sb3_rmdp.envs.fingerprint"


def _check_welfare_bound(env: gym.Env[Any, Any]) -> None:
    """
    ``welfare_bound`` can be called, or is absent. It is not called, since solving it may take long.

    :param env: the environment
    """
    welfare_bound = _attribute(env, "welfare_bound")
    assert welfare_bound is None or callable(
        welfare_bound
    ), f"welfare_bound={welfare_bound!r} cannot be called; make it a method welfare_bound(k) -> float, or leave it out"


def _check_steps(env: gym.Env[Any, Any], n_agents: int, n_steps: int, warn: bool) -> None:
    """
    Every step has a reward vector of its own, of which the scalar reward is the mean.

    :param env: the environment
    :param n_agents: number of agents
    :param n_steps: steps to play
    :param warn: whether to warn if no episode ended
    """
    env.action_space.seed(0)
    env.reset(seed=0)
    kept: dict[int, np.ndarray] = {}  # by address: arrays that are alive never share one, unless a buffer is used again
    ended = False
    for step in range(n_steps):
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
        over = bool(terminated or truncated)
        where = f"at step {step}" + (", the last one of its episode" if over else "")
        vector = _check_vector(info, n_agents, where)
        _check_scalar(reward, vector, where)
        if step < KEPT_STEPS:
            address = vector.__array_interface__["data"][0]
            assert address not in kept, (
                f'info["{REWARD_VECTOR}"] {where} is the buffer of an earlier step; vec envs keep references, so make a new '
                "array at every step, e.g. by .copy()"
            )
            kept[address] = vector
        if over:
            ended = True
            env.reset()
    if warn and not ended:
        warnings.warn(
            f"No episode ended within {n_steps} steps, so the rewards of a last step were not seen; give a larger n_steps",
            stacklevel=3,
        )


def _check_vector(info: dict[str, Any], n_agents: int, where: str) -> np.ndarray:
    """
    The reward vector of one step.

    :param info: of the step
    :param n_agents: number of agents
    :param where: of which step, for the error
    :return: (n_agents,) float32
    """
    key = f'info["{REWARD_VECTOR}"]'
    assert REWARD_VECTOR in info, f"{key} is missing {where}; put the rewards of all agents into the info of every step"
    vector = info[REWARD_VECTOR]
    assert isinstance(vector, np.ndarray), f"{key} {where} is of type {type(vector).__name__}; make it a numpy array"
    assert vector.shape == (
        n_agents,
    ), f"{key} {where} has shape {vector.shape}; make it one reward per agent, shape ({n_agents},)"
    assert (
        vector.dtype == np.float32
    ), f"{key} {where} is of dtype {vector.dtype}; make it float32, e.g. by .astype(np.float32)"
    assert np.isfinite(
        vector
    ).all(), f"{key} {where} is not finite for agents {np.flatnonzero(~np.isfinite(vector))[:10].tolist()}; mend their rewards"
    return vector


def _check_scalar(reward: Any, vector: np.ndarray, where: str) -> None:
    """
    The scalar reward of one step.

    :param reward: of the step
    :param vector: (n_agents,) float32
    :param where: of which step, for the error
    """
    assert isinstance(
        reward, int | float | np.integer | np.floating
    ), f"The scalar reward {where} is of type {type(reward).__name__}; return a float, the mean of the reward vector"
    mean = float(vector.mean(dtype=np.float64))
    # The mean may have been formed before or after rounding to float32.
    assert math.isclose(reward, mean, rel_tol=1e-5, abs_tol=1e-6 * float(np.abs(vector).max())), (
        f"The scalar reward {where} is {reward}, the mean over the agents is {mean}; return the mean, e.g. by "
        "sb3_rmdp.envs.scalar_reward"
    )


def _check_same_agents(env: gym.Env[Any, Any], n_agents: int, warn: bool) -> None:
    """
    The agents do not depend on the seed of a reset, as far as this shows.

    :param env: the environment
    :param n_agents: number of agents before any reset with another seed
    :param warn: whether to warn if the same observations were paid differently
    """
    population_id = _attribute(env, "population_id")
    env.action_space.seed(1)
    actions = [env.action_space.sample() for _ in range(PROBE_STEPS)]
    episodes = []
    for seed in (1, 2):
        start, _ = env.reset(seed=seed)
        for name, value in (("n_agents", n_agents), ("population_id", population_id)):
            assert _attribute(env, name) == value, (
                f"{name} was {value!r} and is {_attribute(env, name)!r} after reset(seed={seed}); draw the agents once, at "
                "construction, from a population_seed of their own and never from the seed of reset"
            )
        episodes.append((copy.deepcopy(start), _play(env, n_agents, actions)))
    (start, first), (other_start, second) = episodes
    alike = data_equivalence(start, other_start)
    for (observation, vector), (other_observation, other_vector) in zip(first, second, strict=False):
        alike = alike and data_equivalence(observation, other_observation)
        if alike and not np.array_equal(vector, other_vector):
            # No more than a suspicion: the rewards of fixed agents may be random, or depend on what is not observed.
            if warn:
                warnings.warn(
                    "Two episodes with different seeds, but the same actions and observations, were paid differently; if the "
                    "agents are drawn at reset, draw them at construction from a population_seed of their own",
                    stacklevel=3,
                )
            break
    env.reset()


def _play(env: gym.Env[Any, Any], n_agents: int, actions: list[Any]) -> list[tuple[Any, np.ndarray]]:
    """
    Play from a reset on, until the actions or the episode end.

    :param env: the environment
    :param n_agents: number of agents
    :param actions: one per step
    :return: observation and (n_agents,) reward vector per step
    """
    transitions = []
    for step, action in enumerate(actions):
        observation, _, terminated, truncated, info = env.step(action)
        vector = _check_vector(info, n_agents, f"at step {step} after a reset with another seed")
        # A copy, because some environments write every observation into the same buffer.
        transitions.append((copy.deepcopy(observation), vector))
        if terminated or truncated:
            break
    return transitions


def _check_copy(env: gym.Env[Any, Any], n_agents: int, warn: bool) -> None:
    """
    A second environment made from the same spec has the same agents. Environments without such a spec are not checked.

    :param env: the environment
    :param n_agents: number of agents
    :param warn: whether to warn if the spec does not work
    """
    spec = env.spec
    if spec is None or spec.entry_point is None or any(wrapper.kwargs is None for wrapper in spec.additional_wrappers):
        return
    try:
        copied = gym.make(spec)
    except (gym.error.Error, TypeError, ValueError) as error:
        if warn:
            warnings.warn(f"gym.make(env.spec) failed, so copies were not compared with the original: {error!r}", stacklevel=3)
        return
    try:
        for name, value in (("n_agents", n_agents), ("population_id", _attribute(env, "population_id"))):
            assert _attribute(copied, name) == value, (
                f"{name} is {value!r}, but {_attribute(copied, name)!r} in a copy made by gym.make(env.spec); draw the agents "
                "from an explicit population_seed, which is an argument of the constructor"
            )
    finally:
        copied.close()
