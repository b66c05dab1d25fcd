"""Test an environment against the contract of represented MDPs."""

import copy
import math
import warnings
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import data_equivalence

from sb3_rmdp.envs.contract import REWARD_FEATURES, REWARD_VECTOR

#: Steps of which the reward vectors or features are kept alive, to see whether one of them is written to again.
KEPT_STEPS = 256

#: Length of the two episodes with different seeds whose rewards are compared.
PROBE_STEPS = 16


class _Pay(NamedTuple):
    """
    What an environment promises to tell of every step.

    :param key: of the info: reward vectors, or the features of factored rewards
    :param size: length of the array there
    :param weights: (n_agents, size) of an environment with factored rewards, else ``None``
    :param mean: (size,) float64, mean over the agents of what an entry is worth
    """

    key: str
    size: int
    weights: np.ndarray | None
    mean: np.ndarray


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
    pay = _check_weights(env, n_agents)
    _check_steps(env, pay, n_steps, warn)
    _check_same_agents(env, n_agents, pay, warn)
    _check_copy(env, n_agents, pay, warn)


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


def _check_weights(env: gym.Env[Any, Any], n_agents: int) -> _Pay:
    """
    ``reward_weights`` is a matrix of finite weights that nobody changes, or absent.

    :param env: the environment
    :param n_agents: number of agents
    :return: what every step has to tell
    """
    weights = _attribute(env, "reward_weights")
    if weights is None:
        return _Pay(REWARD_VECTOR, n_agents, None, np.full(n_agents, 1 / n_agents))
    mend = "make it float32 of shape (n_agents, m), e.g. the array of sb3_rmdp.envs.RewardWeights"
    assert isinstance(weights, np.ndarray), f"reward_weights is of type {type(weights).__name__}; {mend}"
    assert (
        weights.ndim == 2 and weights.size and len(weights) == n_agents
    ), f"reward_weights has shape {weights.shape} for n_agents={n_agents}; {mend}"
    assert weights.dtype == np.float32, f"reward_weights is of dtype {weights.dtype}; {mend}"
    finite = np.isfinite(weights).all(axis=1)
    assert finite.all(), f"reward_weights is not finite for agents {np.flatnonzero(~finite)[:10].tolist()}; mend their weights"
    assert not weights.flags.writeable, "reward_weights can be written to; call reward_weights.setflags(write=False)"
    return _Pay(REWARD_FEATURES, weights.shape[1], weights, weights.mean(axis=0, dtype=np.float64))


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


def _check_steps(env: gym.Env[Any, Any], pay: _Pay, n_steps: int, warn: bool) -> None:
    """
    Every step has a reward vector or features of its own, to which the scalar reward belongs as the mean over the agents.

    :param env: the environment
    :param pay: what every step has to tell
    :param n_steps: steps to play
    :param warn: whether to warn if no episode ended
    """
    env.action_space.seed(0)
    env.reset(seed=0)
    _check_same_weights(env, pay, "after reset(seed=0)")
    kept: dict[int, np.ndarray] = {}  # by address: arrays that are alive never share one, unless a buffer is used again
    ended = False
    for step in range(n_steps):
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
        over = bool(terminated or truncated)
        where = f"at step {step}" + (", the last one of its episode" if over else "")
        vector = _check_vector(info, pay, where)
        _check_scalar(reward, vector, pay, where)
        if step < KEPT_STEPS:
            address = vector.__array_interface__["data"][0]
            assert address not in kept, (
                f'info["{pay.key}"] {where} is the buffer of an earlier step; vec envs keep references, so make a new '
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


def _check_vector(info: dict[str, Any], pay: _Pay, where: str) -> np.ndarray:
    """
    The reward vector of one step, or its reward features.

    :param info: of the step
    :param pay: what it has to tell
    :param where: of which step, for the error
    :return: (size,) float32
    """
    key = f'info["{pay.key}"]'
    what, one, entries = ("rewards of all agents", "one reward per agent", "agents")
    if pay.weights is not None:
        what, one, entries = ("reward features", "one number per column of reward_weights", "features")
    assert pay.key in info, f"{key} is missing {where}; put the {what} into the info of every step"
    vector = info[pay.key]
    assert isinstance(vector, np.ndarray), f"{key} {where} is of type {type(vector).__name__}; make it a numpy array"
    assert vector.shape == (pay.size,), f"{key} {where} has shape {vector.shape}; make it {one}, shape ({pay.size},)"
    assert (
        vector.dtype == np.float32
    ), f"{key} {where} is of dtype {vector.dtype}; make it float32, e.g. by .astype(np.float32)"
    finite = np.isfinite(vector)
    assert finite.all(), f"{key} {where} is not finite for {entries} {np.flatnonzero(~finite)[:10].tolist()}; mend them"
    return vector


def _check_scalar(reward: Any, vector: np.ndarray, pay: _Pay, where: str) -> None:
    """
    The scalar reward of one step.

    :param reward: of the step
    :param vector: (size,) float32
    :param pay: what every step has to tell
    :param where: of which step, for the error
    """
    assert isinstance(
        reward, int | float | np.integer | np.floating
    ), f"The scalar reward {where} is of type {type(reward).__name__}; return a float, the mean over the agents"
    terms = pay.mean * vector
    mean = float(terms.sum())
    mend = "sb3_rmdp.envs.scalar_reward" if pay.weights is None else "mean_reward of sb3_rmdp.envs.RewardWeights"
    # The mean may have been formed before or after rounding to float32.
    assert math.isclose(
        reward, mean, rel_tol=1e-5, abs_tol=1e-6 * float(np.abs(terms).max()) * pay.size
    ), f"The scalar reward {where} is {reward}, the mean over the agents is {mean}; return the mean, e.g. by {mend}"


def _check_same_agents(env: gym.Env[Any, Any], n_agents: int, pay: _Pay, warn: bool) -> None:
    """
    The agents do not depend on the seed of a reset, as far as this shows.

    :param env: the environment
    :param n_agents: number of agents before any reset with another seed
    :param pay: what every step has to tell
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
        _check_same_weights(env, pay, f"after reset(seed={seed})")
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
    env.reset()


def _check_same_weights(env: gym.Env[Any, Any], pay: _Pay, when: str) -> None:
    """
    Reward weights are what they were.

    :param env: the environment, or a copy
    :param pay: what every step had to tell before
    :param when: is now, for the error
    """
    weights = _attribute(env, "reward_weights")
    same = weights is pay.weights or (pay.weights is not None and np.array_equal(weights, pay.weights))
    assert same, (
        f"reward_weights are others {when}; draw them once, at construction, from a population_seed of their own and never "
        "from the seed of reset"
    )


def _play(env: gym.Env[Any, Any], pay: _Pay, actions: list[Any]) -> list[tuple[Any, np.ndarray]]:
    """
    Play from a reset on, until the actions or the episode end.

    :param env: the environment
    :param pay: what every step has to tell
    :param actions: one per step
    :return: observation and (size,) reward vector or features per step
    """
    transitions = []
    for step, action in enumerate(actions):
        observation, _, terminated, truncated, info = env.step(action)
        vector = _check_vector(info, pay, f"at step {step} after a reset with another seed")
        # A copy, because some environments write every observation into the same buffer.
        transitions.append((copy.deepcopy(observation), vector))
        if terminated or truncated:
            break
    return transitions


def _check_copy(env: gym.Env[Any, Any], n_agents: int, pay: _Pay, warn: bool) -> None:
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
        for name, value in (("n_agents", n_agents), ("population_id", _attribute(env, "population_id"))):
            assert _attribute(copied, name) == value, (
                f"{name} is {value!r}, but {_attribute(copied, name)!r} in a copy made by gym.make(env.spec); draw the agents "
                "from an explicit population_seed, which is an argument of the constructor"
            )
        _check_same_weights(copied, pay, "in a copy made by gym.make(env.spec)")
    finally:
        copied.close()
