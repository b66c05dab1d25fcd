"""What episodes would have paid a user who comes with a reward function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from sb3_rmdp.service.episodes import EvaluationEpisodes, Transitions

#: ``r(obs, action, next_obs)`` or ``r(obs, action, next_obs, info)`` of one transition, or of all of an episode
RewardFunction = Callable[..., Any]


def returns_of_function(function: RewardFunction, episodes: EvaluationEpisodes, vectorized: bool = False) -> np.ndarray:
    """
    Score recorded episodes by a reward function.

    :param function: ``function(obs, action, next_obs)`` or ``function(obs, action, next_obs, info)``, as for
        :class:`VectorReward`, but with one reward as its answer. ``info`` has the numbers that the infos of all steps had. It
        is passed if the function takes four arguments
    :param episodes: with trajectories
    :param vectorized: call it once per episode of T steps, with arrays (T, ...); its answer is (T,)
    :return: undiscounted returns of the user, (k, n_episodes) float64
    :raises TypeError: if the function cannot be called so
    :raises ValueError: if it fails, or an answer is not one finite number per transition; says for which
    """
    with_info = takes_info(function)
    name = _name(function)
    returns = np.empty((episodes.k, episodes.n_episodes))
    for j in range(episodes.k):
        for e in range(episodes.n_episodes):
            one = episodes.transitions(j, e)
            where = f"{name}, called on episode {e} of representative {j}"
            score = _score_episode if vectorized else _score_steps
            returns[j, e] = score(function, one, with_info, where)
    return returns


def takes_info(function: RewardFunction) -> bool:
    """
    :param function: a reward function
    :return: whether it is to be given infos
    :raises TypeError: if it takes neither three nor four arguments
    """
    if not callable(function):
        raise TypeError(f"{function!r} cannot be called: give a function of (obs, action, next_obs) or, with info, of four")
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some that are written in C do not tell
        return True
    kinds = inspect.Parameter
    parameters = signature.parameters.values()
    named = [one for one in parameters if one.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    # A fourth argument that may be left out is a setting, unless it is called info
    with_info = any(one.kind is kinds.VAR_POSITIONAL for one in parameters) or (
        len(named) > 3 and (named[3].default is kinds.empty or named[3].name == "info")
    )
    try:
        signature.bind(*range(3 + with_info))
    except TypeError:
        raise TypeError(
            f"{_name(function)}{signature} takes neither (obs, action, next_obs) nor (obs, action, next_obs, info)"
        ) from None
    return with_info


def _score_steps(function: RewardFunction, one: Transitions, with_info: bool, where: str) -> float:
    total = 0.0
    for t in range(len(one.actions)):
        info = ({key: array[t].item() for key, array in one.infos.items()},) if with_info else ()
        arguments = (_row(one.observations, t), one.actions[t], _row(one.next_observations, t), *info)
        reward = _numbers(function, arguments, f"{where} at step {t},")
        if reward.shape != ():
            raise ValueError(f"{where} at step {t}, returned shape {reward.shape}: return one number, the reward of the user")
        if not np.isfinite(reward):
            raise ValueError(f"{where} at step {t}, returned {reward}: rewards must be finite")
        total += float(reward)
    return total


def _score_episode(function: RewardFunction, one: Transitions, with_info: bool, where: str) -> float:
    info = (dict(one.infos),) if with_info else ()
    rewards = _numbers(function, (one.observations, one.actions, one.next_observations, *info), f"{where},")
    length = len(one.actions)
    if rewards.shape != (length,):
        raise ValueError(
            f"{where}, returned shape {rewards.shape} for {length} steps: return one reward per step, shape ({length},), or "
            "let it be called step by step, without vectorized"
        )
    if not np.isfinite(rewards).all():
        t = int(np.argmin(np.isfinite(rewards)))
        raise ValueError(f"{where}, returned {rewards[t]} for step {t}: rewards must be finite")
    return float(rewards.sum())


def _numbers(function: RewardFunction, arguments: tuple[Any, ...], where: str) -> np.ndarray:
    """Its answer as float64; whatever goes wrong within is told with the transition that it went wrong with."""
    try:
        answer = function(*arguments)
    except Exception as error:
        raise ValueError(f"{where} failed: {type(error).__name__}: {error}") from error
    try:
        return np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{where} returned {answer!r}: return a number") from None


def _name(function: RewardFunction) -> str:
    return str(getattr(function, "__name__", repr(function)))


def _row(observations: np.ndarray | dict[str, np.ndarray], t: int) -> Any:
    return {key: array[t] for key, array in observations.items()} if isinstance(observations, dict) else observations[t]
