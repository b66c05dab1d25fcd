"""Who resets and steps the environments of a training: nobody else may, while an episode of it is running."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

#: Methods that move an environment on, of an environment and of a vec env
MOVES_OF_ENV = ("reset", "step")
MOVES_OF_VEC_ENV = ("reset", "step_wait", "env_method")


def innermost(env: VecEnv) -> VecEnv:
    """
    :param env: any vec env
    :return: the one that all others wrap
    """
    while isinstance(env, VecEnvWrapper):
        env = env.venv
    return env


def environments_of(env: GymEnv) -> list[Any]:
    """
    The objects that hold the state of an environment, whatever is wrapped around them.

    :param env: an environment or a vec env
    :return: the innermost environment; of a vec env, the innermost vec env and the environments that it has in this process
    """
    if not isinstance(env, VecEnv):
        return [env.unwrapped]
    base = innermost(env)
    inside = getattr(base, "envs", ())
    return [base, *(one.unwrapped for one in inside if isinstance(one, gym.Env))]


def share_environments(first: GymEnv, second: GymEnv) -> bool:
    """
    :param first: an environment or a vec env
    :param second: another one
    :return: whether a step in one of them moves the other
    """
    return not {id(one) for one in environments_of(first)}.isdisjoint(id(one) for one in environments_of(second))


def check_apart(env: GymEnv, training_env: GymEnv, name: str) -> None:
    """
    :param env: the environment of a callback
    :param training_env: the environment of the training
    :param name: of the callback, for the error
    :raises ValueError: if both share an environment
    """
    if share_environments(env, training_env):
        raise ValueError(
            f"{name} evaluates in the environment of the training, whose episodes it would cut off: give it an environment of "
            "its own, e.g. another gymnasium.make(...) or make_represented_vec_env(...)"
        )


class Counter:
    """How often an environment was moved."""

    def __init__(self) -> None:
        self.n = 0


class Counted:
    """
    A method that counts its calls; copies and pickles with the object that it belongs to.

    :param method: the method, bound
    :param counter: what counts
    :param plain: whether the method is that of the class, and not one that somebody has set on the object
    """

    def __init__(self, method: Callable[..., Any], counter: Counter, plain: bool):
        functools.update_wrapper(self, method)
        self.method, self.counter, self.plain = method, counter, plain

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.counter.n += 1
        return self.method(*args, **kwargs)


class CountedCall(Counted):
    """``env_method`` of a vec env, which counts the calls that move environments."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.counter.n += (args[0] if args else kwargs.get("method_name")) in MOVES_OF_ENV
        return self.method(*args, **kwargs)


def _counter(one: Any) -> Counter:
    """
    :param one: an environment or a vec env
    :return: counts how often it is moved, from the first call of this function on
    """
    known = getattr(one, "__dict__", {})
    for name in MOVES_OF_VEC_ENV if isinstance(one, VecEnv) else MOVES_OF_ENV:
        if isinstance(known.get(name), Counted):
            return known[name].counter
    counter = Counter()
    for name in MOVES_OF_VEC_ENV if isinstance(one, VecEnv) else MOVES_OF_ENV:
        counted = CountedCall if name == "env_method" else Counted
        try:
            setattr(one, name, counted(getattr(one, name), counter, name not in known))
        except (AttributeError, TypeError):
            continue  # the object takes no attributes
    return counter


def has_own(one: Any, names: tuple[str, ...]) -> bool:
    """
    :param one: an environment or a wrapper
    :param names: of methods
    :return: whether somebody has set one of them on the object, in the place of that of its class
    """
    known = vars(one)
    return any(name in known and not (isinstance(known[name], Counted) and known[name].plain) for name in names)


class EnvWatch:
    """
    Notices that somebody else has reset or stepped the environments of a training, whatever the calls went through: another
    vec env or wrapper around the same environment, ``evaluate_policy``, a loop of the user's.

    The environments that a training runs in have their ``reset`` and ``step`` count their calls from then on. Whoever trains
    takes down the counts after each of its own steps (:meth:`counts`, :meth:`note`), and finds others before the next.

    :param env: the environment of the training
    """

    def __init__(self, env: VecEnv):
        self._counters = [_counter(one) for one in environments_of(env)]
        self._noted = self.counts()

    def counts(self) -> list[int]:
        """How often each environment was moved so far."""
        return [counter.n for counter in self._counters]

    def note(self, counts: list[int] | None = None) -> None:
        """
        :param counts: what is known to be the training's own; all of it by default
        """
        self._noted = self.counts() if counts is None else counts

    def touched(self) -> bool:
        """Whether an environment was moved since the last note."""
        return self.counts() != self._noted

    def is_of(self, env: VecEnv) -> bool:
        """
        :param env: a vec env
        :return: whether it has the environments that are watched
        """
        return self._counters == [_counter(one) for one in environments_of(env)]

    def check(self) -> None:
        """
        :raises ValueError: if somebody else has moved an environment since the last note
        """
        if self.touched():
            raise ValueError(
                "somebody has reset or stepped the environment of the training while it ran (a callback, as a rule), so that "
                "two episodes would become one: evaluate in another environment, made like this one"
            )
