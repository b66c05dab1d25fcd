"""Test an environment against the contract of represented MDPs."""

import copy
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import data_equivalence

from sb3_rmdp.envs.checked_steps import Pay, attribute_of, check_same_weights, check_steps, check_vector, reset, step
from sb3_rmdp.envs.contract import REWARD_FEATURES, REWARD_VECTOR
from sb3_rmdp.envs.spaces import check_spaces

#: Length of the two episodes with different seeds whose rewards are compared.
PROBE_STEPS = 16


def check_represented_env(env: gym.Env[Any, Any], n_steps: int = 2000, warn: bool = True) -> None:
    """
    Check that an environment keeps the contract of :mod:`sb3_rmdp.envs.contract`, as SB3's ``check_env`` does for its own.

    Plays random actions, and looks at agents, spaces and what ``reset`` and ``step`` return. For the rest, such as rendering,
    there is ``stable_baselines3.common.env_checker.check_env``. Errors are raised under ``python -O`` as well.

    Example::

        >>> import gymnasium as gym
        >>> import sb3_rmdp.envs
        >>> sb3_rmdp.envs.check_represented_env(gym.make("rmdp/ResourceGathering-v0"))

    :param env: the environment, with all the wrappers that it is trained with
    :param n_steps: steps to play, at least 1; enough for one episode to end, whose last step has rewards like any other
    :param warn: whether to warn of what is missing or suspicious, but allowed
    :raises AssertionError: with what is wrong and how to fix it
    """
    if not isinstance(env, gym.Env):
        raise AssertionError(f"{type(env).__name__} is not a gymnasium environment; derive it from gymnasium.Env")
    if isinstance(n_steps, bool) or not isinstance(n_steps, int | np.integer) or n_steps < 1:
        raise AssertionError(f"n_steps={n_steps!r} checks nothing; give at least 1")
    n_agents = _check_n_agents(env)
    _check_population_id(env, warn)
    _check_welfare_bound(env)
    pay = _check_weights(env, n_agents)
    _check_spaces(env)
    check_steps(env, n_agents, pay, n_steps, warn)
    _check_same_agents(env, n_agents, pay, warn)
    _check_copy(env, n_agents, pay, warn)


def _check_n_agents(env: gym.Env[Any, Any]) -> int:
    """
    ``n_agents`` is there and a positive ``int``.

    :param env: the environment
    :return: number of agents
    """
    n_agents = attribute_of(env, "n_agents")
    if n_agents is None:
        raise AssertionError("The environment has no attribute n_agents; set self.n_agents to the number of agents")
    if not isinstance(n_agents, int) or isinstance(n_agents, bool):
        raise AssertionError(f"n_agents={n_agents!r} is of type {type(n_agents).__name__}; make it an int")
    if n_agents < 1:
        raise AssertionError(f"n_agents={n_agents} is no population; there must be at least 1 agent")
    return n_agents


def _check_weights(env: gym.Env[Any, Any], n_agents: int) -> Pay:
    """
    ``reward_weights`` is a matrix of finite weights that nobody changes, or absent.

    :param env: the environment
    :param n_agents: number of agents
    :return: what every step has to tell
    """
    weights = attribute_of(env, "reward_weights")
    if weights is None:
        return Pay(REWARD_VECTOR, n_agents, None, np.full(n_agents, 1 / n_agents))
    mend = "make it float32 of shape (n_agents, m), e.g. the array of sb3_rmdp.envs.RewardWeights"
    if not isinstance(weights, np.ndarray):
        raise AssertionError(f"reward_weights is of type {type(weights).__name__}; {mend}")
    if weights.ndim != 2 or not weights.size or len(weights) != n_agents:
        raise AssertionError(f"reward_weights has shape {weights.shape} for n_agents={n_agents}; {mend}")
    if weights.dtype != np.float32:
        raise AssertionError(f"reward_weights is of dtype {weights.dtype}; {mend}")
    finite = np.isfinite(weights).all(axis=1)
    if not finite.all():
        raise AssertionError(
            f"reward_weights is not finite for agents {np.flatnonzero(~finite)[:10].tolist()}; fix their weights"
        )
    if weights.flags.writeable:
        raise AssertionError("reward_weights can be written to; call reward_weights.setflags(write=False)")
    return Pay(REWARD_FEATURES, weights.shape[1], weights, weights.mean(axis=0, dtype=np.float64))


def _check_spaces(env: gym.Env[Any, Any]) -> None:
    """
    Spaces are such that a represented algorithm can work with them.

    :param env: the environment
    """
    try:
        check_spaces(getattr(env, "observation_space", None), getattr(env, "action_space", None))
    except ValueError as error:
        raise AssertionError(str(error)) from None


def _check_population_id(env: gym.Env[Any, Any], warn: bool) -> None:
    """
    ``population_id`` is a text, or absent.

    :param env: the environment
    :param warn: whether to warn if it is absent
    """
    population_id = attribute_of(env, "population_id")
    if population_id is None:
        if warn:
            warnings.warn(
                "The environment has no population_id, so nothing notices if a model is evaluated on other agents than it was "
                "trained for; set it to a str that changes with the agents, e.g. by sb3_rmdp.envs.fingerprint",
                stacklevel=3,
            )
        return
    if not isinstance(population_id, str) or not population_id:
        raise AssertionError(
            f"population_id={population_id!r} must be a str that is not empty; use e.g. sb3_rmdp.envs.fingerprint"
        )


def _check_welfare_bound(env: gym.Env[Any, Any]) -> None:
    """
    ``welfare_bound`` can be called, or is absent. It is not called, since solving it may take long.

    :param env: the environment
    """
    welfare_bound = attribute_of(env, "welfare_bound")
    if not (welfare_bound is None or callable(welfare_bound)):
        raise AssertionError(
            f"welfare_bound={welfare_bound!r} cannot be called; make it a method welfare_bound(k) -> float, or leave it out"
        )


def _check_same_agents(env: gym.Env[Any, Any], n_agents: int, pay: Pay, warn: bool) -> None:
    """
    The agents do not depend on the seed of a reset, as far as this shows.

    :param env: the environment
    :param n_agents: number of agents before any reset with another seed
    :param pay: what every step has to tell
    :param warn: whether to warn if the same observations were paid differently
    """
    population_id = attribute_of(env, "population_id")
    env.action_space.seed(1)
    actions = [env.action_space.sample() for _ in range(PROBE_STEPS)]
    episodes = []
    for seed in (1, 2):
        start = reset(env, seed=seed)
        for name, value in (("n_agents", n_agents), ("population_id", population_id)):
            if attribute_of(env, name) != value:
                raise AssertionError(
                    f"{name} was {value!r} and is {attribute_of(env, name)!r} after reset(seed={seed}); draw the agents once, "
                    "at construction, from a population_seed of their own and never from the seed of reset"
                )
        check_same_weights(env, pay, f"after reset(seed={seed})")
        episodes.append((copy.deepcopy(start), _play(env, pay, actions)))
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
    reset(env)


def _play(env: gym.Env[Any, Any], pay: Pay, actions: list[Any]) -> list[tuple[Any, np.ndarray]]:
    """
    Play from a reset on, until the actions or the episode end.

    :param env: the environment
    :param pay: what every step has to tell
    :param actions: one per step
    :return: observation and (size,) reward vector or features per step
    """
    transitions = []
    for number, action in enumerate(actions):
        where = f"at step {number} after a reset with another seed"
        observation, _, over, info = step(env, action, where)
        vector = check_vector(info, pay, where)
        # A copy, because some environments write every observation into the same buffer.
        transitions.append((copy.deepcopy(observation), vector))
        if over:
            break
    return transitions


def _check_copy(env: gym.Env[Any, Any], n_agents: int, pay: Pay, warn: bool) -> None:
    """
    A second environment made from the same spec has the same agents. Environments without such a spec are not checked.

    :param env: the environment
    :param n_agents: number of agents
    :param pay: what every step has to tell
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
        for name, value in (("n_agents", n_agents), ("population_id", attribute_of(env, "population_id"))):
            if attribute_of(copied, name) != value:
                raise AssertionError(
                    f"{name} is {value!r}, but {attribute_of(copied, name)!r} in a copy made by gym.make(env.spec); draw "
                    "the agents from an explicit population_seed, which is an argument of the constructor"
                )
        check_same_weights(copied, pay, "in a copy made by gym.make(env.spec)")
    finally:
        copied.close()
