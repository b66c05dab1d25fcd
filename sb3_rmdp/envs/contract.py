"""
The contract between environments and represented-MDP algorithms.

A represented MDP (r-MDP) has one dynamics and ``n_agents`` agents (users), each with a reward function of its own. An
environment that takes part is an ordinary :class:`gymnasium.Env` which keeps three promises:

1. ``n_agents`` is an attribute of the environment or of one of its wrappers, found by ``env.get_wrapper_attr("n_agents")``: an
   ``int`` of at least 1, fixed for the life of the environment.
2. ``info["reward_vector"]`` of *every* step, the last one of an episode included, is a fresh ``float32`` array of shape
   ``(n_agents,)`` with what each agent earns by this transition. One transition serves all agents. Fresh means: not a
   buffer that the next step overwrites, since vectorised environments keep references.
3. The scalar reward is the mean of that vector over the agents, as a ``float``. A vector as the reward itself would break
   Stable-Baselines3's ``Monitor``, ``VecNormalize`` and ``check_env``.

Where ``n_agents`` numbers per step are too many, and all agents weigh the same ``m`` features differently, an environment is
*factored* and makes another second promise:

2. ``reward_weights`` is an attribute found in the same way: a finite ``float32`` array ``w`` of shape ``(n_agents, m)``,
   read-only and fixed for the life of the environment. ``info["reward_features"]`` of every step is a fresh, finite
   ``float32`` array ``phi`` of shape ``(m,)``, and agent ``i`` earns ``w_i . phi`` by this transition. There need be no
   ``reward_vector``. The scalar reward is still the mean over the agents, ``w.mean(axis=0) . phi``.

Copies of a factored environment in one process share the array, as they do if each holds a
:class:`sb3_rmdp.envs.RewardWeights`. ``reward_weights`` of ``None`` counts as absent.

Optional attributes, found in the same way and used where present (``None`` counts as absent):

- ``population_id: str`` says who the agents are, in one short line. It is equal in every copy of the same task (training,
  evaluation, after loading) and different as soon as one agent differs; limits of an episode and rendering do not enter.
  Agents are never drawn from the seed given to ``reset``.
- ``welfare_bound(k) -> float`` is the best social welfare (mean return over agents) that ``k`` representatives can reach,
  or an upper bound of it.
- ``welfare_bound_steps: int`` says that the bound grows with the length of episodes, and of which length it is: evaluations
  multiply it by the time limit that is there over this number.

Optional methods, of the environment and of wrappers of one's own:

- ``get_state() -> dict`` says where the environment is within its episode, and ``set_state(state)`` puts it there after a
  ``reset``: numbers, strings, numpy arrays, and lists, tuples and dicts of them. What is drawn from ``np_random`` need not be
  in it. With these methods a training that goes on from a file goes on within its episodes, see
  :mod:`sb3_rmdp.common.run_state`; without them new episodes begin there. A wrapper that remembers nothing returns ``{}``.

:func:`sb3_rmdp.envs.check_represented_env` tests an environment against this contract.
"""

import hashlib
import operator
from typing import Any, Protocol, runtime_checkable

import numpy as np

#: Key of the info dict under which every step reports the rewards of all agents.
REWARD_VECTOR = "reward_vector"

#: Key of the info dict under which every step of a factored environment reports its reward features, instead.
REWARD_FEATURES = "reward_features"

#: Numbers that a fingerprint holds in double precision at a time; of a million agents there are too many for all at once.
HASHED_AT_ONCE = 2**16


@runtime_checkable
class WelfareBounded(Protocol):
    """An environment that knows how much welfare ``k`` representatives can reach at best."""

    def welfare_bound(self, k: int) -> float:
        """
        Best possible social welfare, or an upper bound of it.

        :param k: number of representatives, at least 1
        :return: mean return over agents
        """


def scalar_reward(reward_vector: np.ndarray) -> float:
    """
    Mean reward over the agents: the scalar reward that belongs to a reward vector.

    Summed in double precision, so that a thousand small ``float32`` rewards lose nothing.

    :param reward_vector: (n_agents,) rewards of one transition
    :return: their mean
    """
    # The bare ufunc: ndarray.mean costs more than the whole step of a grid world.
    return float(np.add.reduce(reward_vector, dtype=np.float64)) / len(reward_vector)


def fingerprint(prefix: str, *values: np.ndarray | float) -> str:
    """
    A short readable name for a population, equal exactly if the numbers that describe it are equal.

    :param prefix: readable part, e.g. ``"velocity"``
    :param values: what describes the agents; every value is taken as C-ordered little-endian ``float64``, together with its
        shape, so that the name does not depend on the machine
    :return: ``"<prefix>-<first twelve hexadecimal digits of a SHA-256>"``
    """
    digest = hashlib.sha256()
    for value in values:
        digest.update(repr(np.shape(value)).encode())
        flat = np.ravel(value)
        for start in range(0, flat.size, HASHED_AT_ONCE):
            # Adding zero turns -0.0 into 0.0: the same number, but other bytes.
            digest.update((flat[start : start + HASHED_AT_ONCE] + 0.0).astype("<f8").tobytes())
    return f"{prefix}-{digest.hexdigest()[:12]}"


def integer(name: str, value: Any, minimum: int, maximum: int | None = None) -> int:
    """
    An integer argument from any integer type; yaml and command lines bring numpy's and Python's.

    :param name: of the argument, for the error
    :param value: the argument
    :param minimum: smallest value allowed
    :param maximum: largest value allowed, if there is one
    :return: the integer
    :raises ValueError: if it is none, or out of range
    """
    try:
        number = minimum - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = minimum - 1
    if number < minimum or (maximum is not None and number > maximum):
        most = "" if maximum is None else f" and at most {maximum}"
        raise ValueError(f"{name}={value!r} does not do; give an integer of at least {minimum}{most}")
    return number
