"""Which spaces represented algorithms can work with, and what to do about the others."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

#: Standard deviations of the first actions within which some must lie between the bounds of the action space
REACH = 3.0

#: Wrappers that make a space one that can be used
FLATTEN = "wrap the environment in gymnasium.wrappers.FlattenObservation"


def check_spaces(observation_space: Any, action_space: Any) -> None:
    """
    :param observation_space: of an environment
    :param action_space: of the environment
    :raises ValueError: if a represented algorithm cannot work with one of them, with the space and what to do
    """
    check_observation_space(observation_space)
    check_action_space(action_space)


def check_observation_space(space: Any) -> None:
    """
    :param space: of observations
    :raises ValueError: unless it is a Box, Discrete, MultiDiscrete or MultiBinary, or a Dict of these
    """
    if isinstance(space, spaces.Dict):
        if not space.spaces:
            raise _refused("observation", space, "an empty Dict tells nothing: give it a key")
        for key, part in space.spaces.items():
            if isinstance(part, spaces.Dict | spaces.Tuple):
                raise _refused("observation", space, f"key {key!r} is a {type(part).__name__}: {FLATTEN}")
            _check_part("observation", part, key)
        return
    _check_part("observation", space)


def _check_part(kind: str, space: Any, key: str | None = None) -> None:
    where = kind if key is None else f"{kind} (key {key!r})"
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        fix = FLATTEN if isinstance(space, spaces.Tuple) else "encode it as a Box, Discrete, MultiDiscrete or MultiBinary"
        raise _refused(where, space, f"a {type(space).__name__} cannot be used: {fix}")
    _check_start(where, space)
    if isinstance(space, spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete) and 0 in space.shape:
        raise _refused(where, space, f"its shape {space.shape} holds no number: leave it out, or give it one")
    if isinstance(space, spaces.Box) and not space.shape:
        raise _refused(where, space, "its shape is (): give it shape (1,)")
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) != 1:
        raise _refused(where, space, "it has more than one dimension: flatten nvec, e.g. MultiDiscrete(nvec.ravel())")
    if isinstance(space, spaces.Box):
        if np.isnan(space.low).any() or np.isnan(space.high).any():
            raise _refused(where, space, "a bound is nan: give numbers, or inf where there is none")


def _check_start(where: str, space: Any) -> None:
    start = getattr(space, "start", None)
    if start is not None and np.any(np.asarray(start) != 0):
        raise _refused(
            where,
            space,
            f"it starts at {np.asarray(start).tolist()}, but numbers from 0 on are used: let the space start at 0, and "
            + ("add the start in a TransformAction" if where == "action" else "subtract the start in a TransformObservation")
            + " of gymnasium.wrappers",
        )


def check_action_space(space: Any) -> None:
    """
    :param space: of actions
    :raises ValueError: unless it is a bounded Box of floats, Discrete, MultiDiscrete or MultiBinary
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        raise _refused(
            "action", space, f"a {type(space).__name__} cannot be used: take one Box or MultiDiscrete of all its parts"
        )
    _check_part("action", space)
    if isinstance(space, spaces.MultiBinary) and len(space.shape) != 1:
        raise _refused("action", space, f"it has more than one dimension: take MultiBinary({int(np.prod(space.shape))})")
    if isinstance(space, spaces.Box):
        _check_box_of_actions(space)


def _check_box_of_actions(space: spaces.Box) -> None:
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise _refused("action", space, "it has no finite lower and upper bound: give it bounds, at best -1 and 1")
    if not np.can_cast(np.float32, space.dtype):
        raise _refused("action", space, f"its dtype is {space.dtype}, but actions are float32: take that, or MultiDiscrete")
    if (space.low > space.high).any():
        raise _refused("action", space, "a lower bound is above the upper one: exchange them")
    if ((space.low < space.high) & ((space.low > REACH) | (space.high < -REACH))).any():
        raise _refused(
            "action",
            space,
            "first actions lie around 0, and none of them would be between the bounds: wrap the environment in "
            "gymnasium.wrappers.RescaleAction(env, -1.0, 1.0)",
        )


def _refused(where: str, space: Any, why: str) -> ValueError:
    text = " ".join(repr(space).split())
    text = text if len(text) <= 160 else f"{text[:120]} ... {text[-30:]}"
    return ValueError(f"the {where} space is {text}, {why}")
