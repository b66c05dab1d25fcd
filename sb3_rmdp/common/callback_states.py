"""What callbacks count and remember, so that a training that goes on in another process goes on with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    EvalCallback,
    EventCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
)
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp.envs.states import NoStateError, attributes, set_attributes, tells_state, told_state
from sb3_rmdp.vec_env.states import random_states, set_random_states

#: Attributes of SB3's callbacks, by the class that they belong to
REMEMBERED: dict[type, tuple[str, ...]] = {
    BaseCallback: ("n_calls", "num_timesteps"),
    EvalCallback: (
        *("best_mean_reward", "last_mean_reward"),
        *("evaluations_timesteps", "evaluations_results", "evaluations_length", "evaluations_successes"),
    ),
    EveryNTimesteps: ("last_time_trigger",),
    StopTrainingOnMaxEpisodes: ("n_episodes",),
    StopTrainingOnNoModelImprovement: ("last_best_mean_reward", "no_improvement_evals"),
}


def callback_states(callback: BaseCallback) -> list[tuple[str, dict[str, Any]]]:
    """
    :param callback: of a training, with all that it calls
    :return: class and state of each, as plain data that nobody changes any more: what SB3's classes count; what it tells, if
        it has ``get_state()`` and ``set_state(state)``; and random numbers of its ``eval_env``
    """
    states = []
    for found in _all(callback):
        state: dict[str, Any] = {"counts": attributes(found, _names(found))}
        if tells_state(found):
            try:
                state["told"] = told_state(found)
            except NoStateError:
                pass  # a method of the same name that means something else
        if isinstance(getattr(found, "eval_env", None), VecEnv):
            state["random"] = random_states(found.eval_env)  # type: ignore[attr-defined]
        states.append((type(found).__qualname__, state))
    return states


def set_callback_states(callback: BaseCallback, states: list[tuple[str, dict[str, Any]]]) -> None:
    """
    Give each callback the state of the one of its class, the first of a class that of the first. Others begin anew.

    :param callback: of a training that has just begun, with all that it calls
    :param states: from :func:`callback_states`
    """
    left = list(states)
    for found in _all(callback):
        place = next((i for i, (name, _) in enumerate(left) if name == type(found).__qualname__), None)
        if place is None:
            continue
        _, state = left.pop(place)
        set_attributes(found, _names(found), state["counts"])
        if "told" in state and tells_state(found):
            found.set_state(state["told"])  # type: ignore[attr-defined]
        if state.get("random") is not None and isinstance(getattr(found, "eval_env", None), VecEnv):
            eval_env = found.eval_env  # type: ignore[attr-defined]
            eval_env.reset()  # seeds are for the first reset, which was before
            set_random_states(eval_env, state["random"])


def _names(callback: BaseCallback) -> tuple[str, ...]:
    return tuple(name for cls, own in REMEMBERED.items() if isinstance(callback, cls) for name in own)


def _all(callback: BaseCallback) -> Iterator[BaseCallback]:
    """A callback, and all that it calls."""
    yield callback
    children: list[BaseCallback | None] = list(callback.callbacks) if isinstance(callback, CallbackList) else []
    if isinstance(callback, EventCallback):
        children += [getattr(callback, "callback_on_new_best", None), callback.callback]
    for child in children:
        if isinstance(child, BaseCallback):
            yield from _all(child)
