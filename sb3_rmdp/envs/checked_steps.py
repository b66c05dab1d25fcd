"""What an environment returns, step by step, against the contract of represented MDPs."""

import math
import warnings
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

#: Steps of which the reward vectors or features are kept alive, to see whether one of them is written to again.
KEPT_STEPS = 256


class Pay(NamedTuple):
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


def attribute_of(env: gym.Env[Any, Any], name: str) -> Any:
    """
    An attribute of the environment or of one of its wrappers.

    :param env: the environment
    :param name: of the attribute
    :return: its value, ``None`` where there is none
    """
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None


def reset(env: gym.Env[Any, Any], seed: int | None = None) -> Any:
    """
    Reset an environment, and look at what it returns.

    :param env: the environment
    :param seed: of the reset
    :return: the first observation
    :raises AssertionError: with what is wrong and how to fix it
    """
    call = "reset()" if seed is None else f"reset(seed={seed})"
    try:
        returned = env.reset() if seed is None else env.reset(seed=seed)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise AssertionError(f"{call} fails ({error}); write it as def reset(self, *, seed=None, options=None)") from error
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise AssertionError(f"{call} returned {_kind(returned)}; return two values, the observation and a dict, the info")
    observation, info = returned
    if not isinstance(info, dict):
        raise AssertionError(
            f"{call} returned an info of type {type(info).__name__}; return a dict, empty if there is nothing to tell"
        )
    _check_observation(env, observation, f"of {call}")
    return observation


def step(env: gym.Env[Any, Any], action: Any, where: str) -> tuple[Any, Any, bool, dict[str, Any]]:
    """
    Take a step, and look at what it returns.

    :param env: the environment
    :param action: in its space
    :param where: which step it is, for the error
    :return: observation, reward, whether the episode is over, and info
    :raises AssertionError: with what is wrong and how to fix it
    """
    returned = env.step(action)
    if not isinstance(returned, tuple) or len(returned) != 5:
        raise AssertionError(
            f"step() {where} returned {_kind(returned)}; return five values: observation, reward, terminated, truncated, info"
        )
    observation, reward, terminated, truncated, info = returned
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, bool | np.bool_):
            raise AssertionError(f"{name} {where} is {flag!r} of type {type(flag).__name__}; make it True or False")
    if not isinstance(info, dict):
        raise AssertionError(f"The info {where} is of type {type(info).__name__}; make it a dict")
    _check_observation(env, observation, where)
    return observation, reward, bool(terminated or truncated), info


def _kind(returned: Any) -> str:
    if isinstance(returned, tuple):
        return f"{len(returned)} values"
    return "None" if returned is None else f"one value of type {type(returned).__name__}"


def _check_observation(env: gym.Env[Any, Any], observation: Any, where: str) -> None:
    space = env.observation_space
    arrays = isinstance(space, gym.spaces.Box)
    # Of anything but an array, gymnasium would make one, with a warning
    if not (arrays and not isinstance(observation, np.ndarray)) and space.contains(observation):
        return
    why = f"it is not in {_short(space)}"
    if isinstance(space, gym.spaces.Dict) and isinstance(observation, dict):
        wrong = [key for key, part in space.spaces.items() if key not in observation or not part.contains(observation[key])]
        extra = sorted(set(observation) - set(space.spaces))
        why = f"keys {wrong + extra} are missing, not in the space, or unknown to it"
    elif arrays and not isinstance(observation, np.ndarray):
        why = f"it is of type {type(observation).__name__}, make it a numpy array"
    elif isinstance(space, gym.spaces.Box) and observation.shape != space.shape:
        why = f"it has shape {observation.shape}, make it {space.shape}, or change observation_space"
    elif isinstance(space, gym.spaces.Box) and not np.can_cast(observation.dtype, space.dtype):
        why = f"it is of dtype {observation.dtype}, make it {space.dtype}, e.g. by .astype, or change observation_space"
    elif isinstance(space, gym.spaces.Box):
        outside = np.argwhere(~((observation >= space.low) & (observation <= space.high)))[0]
        entry = tuple(outside.tolist())
        low, high = space.low[entry], space.high[entry]
        why = f"entry {list(entry)} is {observation[entry]}, outside of [{low}, {high}], fix it, or widen observation_space"
    raise AssertionError(f"The observation {where} does not fit the observation space: {why}")


def _short(space: Any) -> str:
    text = " ".join(repr(space).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def check_steps(env: gym.Env[Any, Any], n_agents: int, pay: Pay, n_steps: int, warn: bool) -> None:
    """
    Every step has a reward vector or features of its own, to which the scalar reward belongs as the mean over the agents.

    :param env: the environment
    :param n_agents: number of its agents
    :param pay: what every step has to tell
    :param n_steps: steps to play
    :param warn: whether to warn if no episode ended
    """
    env.action_space.seed(0)
    reset(env, seed=0)
    check_same_weights(env, pay, "after reset(seed=0)")
    kept: dict[int, np.ndarray] = {}  # by address: arrays that are alive never share one, unless a buffer is used again
    ended = False
    for number in range(n_steps):
        _, reward, over, info = step(env, env.action_space.sample(), f"at step {number}")
        where = f"at step {number}" + (", the last one of its episode" if over else "")
        vector = check_vector(info, pay, where)
        _check_scalar(reward, vector, pay, where)
        if number < KEPT_STEPS:
            address = vector.__array_interface__["data"][0]
            if address in kept:
                raise AssertionError(
                    f'info["{pay.key}"] {where} is the buffer of an earlier step; vec envs keep references, so make a new '
                    "array at every step, e.g. by .copy()"
                )
            kept[address] = vector
        if over:
            ended = True
            reset(env)
            _check_same_number(env, n_agents, f"after the episode that ended at step {number}")
    _check_same_number(env, n_agents, f"after {n_steps} steps")
    if warn and not ended:
        warnings.warn(
            f"No episode ended within {n_steps} steps, so the rewards of a last step were not seen; give a larger n_steps",
            stacklevel=3,
        )


def check_vector(info: dict[str, Any], pay: Pay, where: str) -> np.ndarray:
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
    if pay.key not in info:
        raise AssertionError(f"{key} is missing {where}; put the {what} into the info of every step")
    vector = info[pay.key]
    if not isinstance(vector, np.ndarray):
        raise AssertionError(f"{key} {where} is of type {type(vector).__name__}; make it a numpy array")
    if vector.shape != (pay.size,):
        raise AssertionError(f"{key} {where} has shape {vector.shape}; make it {one}, shape ({pay.size},)")
    if vector.dtype != np.float32:
        raise AssertionError(f"{key} {where} is of dtype {vector.dtype}; make it float32, e.g. by .astype(np.float32)")
    finite = np.isfinite(vector)
    if not finite.all():
        raise AssertionError(f"{key} {where} is not finite for {entries} {np.flatnonzero(~finite)[:10].tolist()}; fix them")
    return vector


def _check_scalar(reward: Any, vector: np.ndarray, pay: Pay, where: str) -> None:
    """
    The scalar reward of one step.

    :param reward: of the step
    :param vector: (size,) float32
    :param pay: what every step has to tell
    :param where: of which step, for the error
    """
    if not isinstance(reward, int | float | np.integer | np.floating):
        raise AssertionError(
            f"The scalar reward {where} is of type {type(reward).__name__}; return a float, the mean over the agents"
        )
    terms = pay.mean * vector
    mean = float(terms.sum())
    mend = "sb3_rmdp.envs.scalar_reward" if pay.weights is None else "mean_reward of sb3_rmdp.envs.RewardWeights"
    # The mean may have been formed before or after rounding to float32.
    if not math.isclose(reward, mean, rel_tol=1e-5, abs_tol=1e-6 * float(np.abs(terms).max()) * pay.size):
        raise AssertionError(
            f"The scalar reward {where} is {reward}, the mean over the agents is {mean}; return the mean, e.g. by {mend}"
        )


def _check_same_number(env: gym.Env[Any, Any], n_agents: int, when: str) -> None:
    now = attribute_of(env, "n_agents")
    if now != n_agents:
        raise AssertionError(
            f"n_agents was {n_agents} and is {now!r} {when}; agents are fixed for the life of the environment"
        )


def check_same_weights(env: gym.Env[Any, Any], pay: Pay, when: str) -> None:
    """
    Reward weights are what they were.

    :param env: the environment, or a copy
    :param pay: what every step had to tell before
    :param when: is now, for the error
    """
    weights = attribute_of(env, "reward_weights")
    same = weights is pay.weights or (pay.weights is not None and np.array_equal(weights, pay.weights))
    if not same:
        raise AssertionError(
            f"reward_weights are others {when}; draw them once, at construction, from a population_seed of their own and "
            "never from the seed of reset"
        )
