"""What comes in at the doors of a policy: observations, and who is to act on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_rmdp.common.arguments import shown

#: Kinds of numpy's dtypes that are numbers
NUMBERS = "biuf"


def read_observation(observation: Any, space: spaces.Space) -> Any:
    """
    :param observation: what ``predict`` was given: one observation or a batch of them
    :param space: of observations
    :return: the same, where flags are numbers if the space has numbers
    :raises ValueError: if it is of another kind; what shapes are allowed is left to SB3, which says it well
    """
    if isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict):
        raise ValueError(
            "You have passed a tuple to the predict() function, such as gymnasium's reset() returns: "
            "write `obs, info = env.reset()` and pass obs; reset() of a vec env returns obs alone"
        )
    if not isinstance(space, spaces.Dict):
        if isinstance(observation, dict):
            raise ValueError(
                f"observation={shown(observation)} is a dict, but the observation space is {shown(space)}: pass an array"
            )
        return _read_array("observation", observation, space)
    if not isinstance(observation, dict):
        raise ValueError(f"observation={shown(observation)} is no dict: pass one with the keys {sorted(space.spaces)}")
    if observation.keys() != space.spaces.keys():
        given = sorted(map(str, observation))
        raise ValueError(f"observation has the keys {given}: pass those of the observation space, {sorted(space.spaces)}")
    return {key: _read_array(f"observation[{key!r}]", observation[key], part) for key, part in space.spaces.items()}


def _read_array(name: str, value: Any, space: spaces.Space) -> Any:
    try:
        array = value.detach().cpu().numpy() if isinstance(value, th.Tensor) else np.asarray(value)
    except ValueError:
        array = np.empty((), dtype=object)
    if array.dtype.kind not in NUMBERS:
        raise ValueError(f"{name}={shown(value)} is no array of numbers: pass one of shape {space.shape}, or a batch of them")
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        most = space.n if isinstance(space, spaces.Discrete) else space.nvec
        fits = isinstance(space, spaces.Discrete) or array.shape[-1:] == most.shape
        if fits and array.size and not ((array >= 0) & (array < most) & (array == np.floor(array))).all():
            raise ValueError(
                f"{name}={shown(value)} is not in {space}: pass integers from 0 to {np.asarray(most - 1).tolist()}"
            )
    return array.astype(space.dtype) if array.dtype.kind == "b" and space.dtype is not None else value


def batch_size(obs: PyTorchObs) -> int:
    """
    :param obs: a batch of observations
    :return: how many there are
    :raises ValueError: if parts of the observations are not equally many
    """
    if not isinstance(obs, dict):
        return len(obs)
    sizes = {key: len(part) for key, part in obs.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"observation has batches of different sizes, {sizes}: pass equally many of every key")
    return next(iter(sizes.values()))


def acting_representatives(representative: Any, n_envs: int, k: int) -> np.ndarray:
    """
    :param representative: who is to act, an integer, or an array (n_envs,)
    :param n_envs: number of observations
    :param k: number of representatives
    :return: who acts on each, (n_envs,)
    :raises ValueError: if it is something else, or out of range
    """
    try:
        array = np.asarray(representative)
        acting = np.broadcast_to(array, (n_envs,))
    except (ValueError, TypeError):
        raise ValueError(
            f"representative={shown(representative)}: pass one integer, or one for each of {n_envs} observations"
        ) from None
    if not np.issubdtype(acting.dtype, np.integer) or (array.size and (array.min() < 0 or array.max() >= k)):
        raise ValueError(f"representative={shown(representative)}: with k={k} choose from 0 to {k - 1}")
    return acting


def turns_of(state: Any, episode_start: Any, n_envs: int, k: int) -> tuple[np.ndarray, np.ndarray | None]:
    """
    :param state: as returned by the last call of ``predict``
    :param episode_start: True where an episode begins
    :param n_envs: number of observations
    :param k: number of representatives
    :return: whose turn it was, (n_envs,), and where episodes begin, (n_envs,)
    :raises ValueError: if they are something else, or not for as many observations
    """
    if not isinstance(state, (tuple, list)) or len(state) != 1 or np.shape(state[0]) != (n_envs,):
        raise ValueError(f"state={shown(state)} is not of {n_envs} observations: pass what the last call returned, or None")
    try:
        acting = acting_representatives(state[0], n_envs, k)
    except ValueError:
        raise ValueError(f"state={shown(state)}: pass what the last call returned, or None") from None
    if episode_start is None:
        return acting, None
    starts = np.asarray(episode_start)
    if starts.dtype.kind not in NUMBERS or starts.shape not in ((), (n_envs,)):
        raise ValueError(f"episode_start={shown(episode_start)}: pass True or False for each of {n_envs} observations")
    return acting, starts.astype(bool)


def check_batch(obs: Any, space: spaces.Space, representatives: Any, k: int) -> None:
    """
    :param obs: what a method that takes tensors was given
    :param space: of observations
    :param representatives: who acts in each row, or ``None`` for k blocks of equal length
    :param k: number of representatives
    :raises ValueError: if these are no tensors of the right shapes, or rows without a representative
    """
    if isinstance(space, spaces.Dict):
        if not isinstance(obs, dict) or obs.keys() != space.spaces.keys():
            raise ValueError(
                f"obs={_kind(obs)}: pass a dict of tensors with the keys {sorted(space.spaces)}, see obs_to_tensor"
            )
        for key, part in space.spaces.items():
            _check_tensor(f"obs[{key!r}]", obs[key], part)
    else:
        _check_tensor("obs", obs, space)
    size = batch_size(obs)
    if representatives is None:
        if size % k:
            raise ValueError(
                f"obs has {size} rows, which are not k={k} blocks of equal length: pass representatives, a tensor of int64 "
                "with who acts in each row, e.g. th.zeros(len(obs), dtype=th.int64) for representative 0"
            )
        return
    if not isinstance(representatives, (th.Tensor, np.ndarray)) or tuple(representatives.shape) != (size,):
        raise ValueError(
            f"representatives={_kind(representatives)}: pass a tensor of int64 with who acts in each of {size} rows"
        )
    # Tensors of bytes would be taken for masks
    if representatives.dtype not in (th.int64, th.int32, np.int64, np.int32) or (
        size and (int(representatives.min()) < 0 or int(representatives.max()) >= k)
    ):
        raise ValueError(f"representatives={shown(representatives)}: with k={k} choose integers from 0 to {k - 1}")


def check_actions(actions: Any, space: spaces.Space, size: int) -> th.Tensor:
    """
    :param actions: actions that were taken
    :param space: of actions
    :param size: number of observations that they belong to
    :return: the actions as distributions take them, (batch,) or (batch, numbers of an action)
    :raises ValueError: if they are no tensor of as many actions
    """
    shape = tuple(space.shape or ())
    flat = () if not shape and not isinstance(space, spaces.Box) else (int(np.prod(shape)),)
    if not isinstance(actions, th.Tensor) or tuple(actions.shape) not in ((size, *shape), (size, *flat)):
        raise ValueError(
            f"actions={_kind(actions)}: pass a tensor {(size, *shape)}, one action for each of {size} observations"
        )
    return actions.reshape(size, *flat)


def _check_tensor(name: str, value: Any, space: spaces.Space) -> None:
    shape = tuple(space.shape or ())
    # Buffers hold a column where observations are single numbers
    allowed = (shape, (1,)) if isinstance(space, spaces.Discrete) else (shape,)
    if not isinstance(value, th.Tensor) or not value.ndim or tuple(value.shape[1:]) not in allowed:
        raise ValueError(
            f"{name}={_kind(value)}: pass a tensor (batch, {', '.join(map(str, shape))}), such as policy.obs_to_tensor makes"
        )


def _kind(value: Any) -> str:
    if isinstance(value, (th.Tensor, np.ndarray)):
        return f"{'tensor' if isinstance(value, th.Tensor) else 'array'} of shape {tuple(value.shape)} and {value.dtype}"
    return shown(value)
