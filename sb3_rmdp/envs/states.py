"""
Where an environment is within its episode, as plain data, so that a training that goes on in another process goes on there.

An environment tells it by ``get_state`` and is put there by ``set_state``, see :mod:`sb3_rmdp.envs.contract`. Environments of
gymnasium do not have these methods: what those with MuJoCo and those of classic control remember is known here, and what the
wrappers do that gymnasium and SB3 put around environments.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

from sb3_rmdp.common.packing import is_plain

#: What of MuJoCo's state the next step depends on
PHYSICS = mujoco.mjtState.mjSTATE_INTEGRATION
#: What environments read before the next step, and MuJoCo computes within it only
COMPUTED = ("xpos", "xipos", "cfrc_ext")

#: What wrappers remember of an episode, by class; of all else they know nothing, or what the next reset or step writes anew
REMEMBERED: dict[str, tuple[str, ...]] = {
    "stable_baselines3.common.monitor.Monitor": ("rewards", "needs_reset", "total_steps", "current_reset_info"),
    "rl_zoo3.gym_patches.PatchedTimeLimit": ("_elapsed_steps",),
    "gymnasium.wrappers.common.Autoreset": ("autoreset",),
    "gymnasium.wrappers.common.OrderEnforcing": (),
    "gymnasium.wrappers.common.PassiveEnvChecker": (),
    "gymnasium.wrappers.common.RecordEpisodeStatistics": ("episode_count", "episode_returns", "episode_lengths"),
    "gymnasium.wrappers.common.TimeLimit": ("_elapsed_steps",),
    "gymnasium.wrappers.stateful_action.RepeatAction": (),
    "gymnasium.wrappers.stateful_action.StickyAction": ("last_action", "is_sticky_actions", "num_repeats", "repeats_taken"),
    "gymnasium.wrappers.stateful_observation.DelayObservation": ("observation_queue",),
    "gymnasium.wrappers.stateful_observation.FrameStackObservation": ("obs_queue", "padding_value"),
    "gymnasium.wrappers.stateful_observation.NormalizeObservation": ("obs_rms.mean", "obs_rms.var", "obs_rms.count"),
    "gymnasium.wrappers.stateful_observation.TimeAwareObservation": ("timesteps",),
}
#: What gymnasium's environments of classic control remember
CLASSIC = ("state", "steps_beyond_terminated", "last_u")
#: Modules of gymnasium whose wrappers remember nothing
FORGETFUL = tuple(f"gymnasium.wrappers.{name}" for name in ("transform_action", "transform_observation", "transform_reward"))


class NoStateError(Exception):
    """Something does not tell its state; says what, and how it could."""


def env_state(env: gym.Env) -> list[tuple[str, Any]]:
    """
    :param env: an environment within an episode, with its wrappers
    :return: the class and the state of each layer, the outermost first; nothing in it changes any more
    :raises NoStateError: if a layer does not tell
    """
    return [(_name(layer), _layer_state(layer)) for layer in _layers(env)]


def set_env_state(env: gym.Env, states: list[tuple[str, Any]]) -> None:
    """
    :param env: an environment that was reset
    :param states: from :func:`env_state` of one that is made alike
    :raises NoStateError: if it has other layers
    """
    layers = list(_layers(env))
    names, saved = [_name(layer) for layer in layers], [name for name, _ in states]
    if names != saved:
        raise NoStateError(f"the environment is {' of '.join(names)}, and was {' of '.join(saved)}: make it as it was made")
    for layer, (_, state) in zip(layers, states, strict=True):
        _set_layer_state(layer, state)


def tells_state(layer: Any) -> bool:
    """
    :param layer: an environment, a wrapper or a vec env
    :return: whether its class has both methods
    """
    return all(callable(getattr(type(layer), name, None)) for name in ("get_state", "set_state"))


def told_state(layer: Any) -> dict[str, Any]:
    """
    :param layer: something that has both methods
    :return: what it tells, apart from what it goes on writing to
    :raises NoStateError: if that is no dict of plain data
    """
    name = type(layer).__name__
    try:
        state = layer.get_state()
    except TypeError as error:  # a method of that name that is another one
        raise NoStateError(f"get_state() of {name} failed ({error}): it takes no arguments and returns a dict") from error
    if not isinstance(state, dict) or not is_plain(state):
        raise NoStateError(f"get_state() of {name} returned no dict of numbers, strings, lists and arrays")
    return copy.deepcopy(state)


def attributes(owner: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """
    :param owner: any object
    :param names: of attributes, or paths with dots; those that it does not have are left out
    :return: copies of their values by name; queues become lists, and lists of numbers arrays
    """
    values = {name: value for name in names if (value := _find(owner, name)) is not missing}
    return {name: _apart(value) for name, value in values.items()}


def set_attributes(owner: Any, names: tuple[str, ...], values: dict[str, Any]) -> None:
    """
    :param owner: as in :func:`attributes`
    :param names: that may be set
    :param values: from :func:`attributes`
    """
    for name in names:
        path, _, last = name.rpartition(".")
        holder = _find(owner, path) if path else owner
        if name not in values or holder is missing:
            continue
        present, value = getattr(holder, last, None), values[name]
        if isinstance(present, list) and isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(present, deque):
            present.clear()
            present.extend(value)
        else:
            setattr(holder, last, value)


def physics_state(env: Any) -> dict[str, Any]:
    """
    :param env: a MuJoCo environment of gymnasium
    :return: everything that its next step depends on
    """
    state = np.empty(mujoco.mj_stateSize(env.model, PHYSICS))
    mujoco.mj_getState(env.model, env.data, state, PHYSICS)
    return {"physics": state, **{name: getattr(env.data, name).copy() for name in COMPUTED}}


def set_physics_state(env: Any, state: dict[str, Any]) -> None:
    """
    :param env: a MuJoCo environment of gymnasium
    :param state: from :func:`physics_state` of one with the same model
    """
    mujoco.mj_setState(env.model, env.data, state["physics"], PHYSICS)
    for name in COMPUTED:
        getattr(env.data, name)[:] = state[name]


#: Stands for an attribute that is not there
missing = object()


def _find(owner: Any, path: str) -> Any:
    for name in path.split("."):
        owner = getattr(owner, name, missing)
    return owner


def _apart(value: Any) -> Any:
    if isinstance(value, deque):
        value = list(value)
    if isinstance(value, list) and value and all(type(number) is float for number in value):
        return np.array(value)  # rewards of an episode, of which there are many
    return copy.deepcopy(value)


def _layers(env: gym.Env) -> Iterator[gym.Env]:
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env


def _name(layer: gym.Env) -> str:
    # RL Zoo's time limit takes the place of gymnasium's in every program that imports it
    return type(layer).__qualname__.removeprefix("Patched")


def _is_gymnasiums(env: Any, family: str) -> bool:
    """Whether an environment is one of gymnasium's own classes; of those derived from them nothing is known."""
    return type(env).__module__.startswith(f"gymnasium.envs.{family}.")


def _remembered(layer: Any) -> tuple[str, ...] | None:
    """Attributes that a layer without methods of its own remembers an episode by; ``None`` if they are not known."""
    cls = type(layer)
    if _is_gymnasiums(layer, "classic_control"):
        return CLASSIC
    if not isinstance(layer, gym.Wrapper):
        return None
    return () if cls.__module__ in FORGETFUL else REMEMBERED.get(f"{cls.__module__}.{cls.__qualname__}")


def _layer_state(layer: Any) -> Any:
    if tells_state(layer):
        return told_state(layer)
    if _is_gymnasiums(layer, "mujoco"):
        return physics_state(layer)
    name, remembered = type(layer).__name__, _remembered(layer)
    if remembered is None:
        what = "wrapper" if isinstance(layer, gym.Wrapper) else "environment"
        raise NoStateError(f"the {what} {name} has no get_state() and set_state(state): give it both")
    state = attributes(layer, remembered)
    if not is_plain(state):
        raise NoStateError(f"what the wrapper {name} remembers is more than numbers, strings, lists and arrays")
    return state


def _set_layer_state(layer: Any, state: Any) -> None:
    if tells_state(layer):
        layer.set_state(state)
    elif _is_gymnasiums(layer, "mujoco"):
        set_physics_state(layer, state)
    else:
        set_attributes(layer, _remembered(layer) or (), state)
