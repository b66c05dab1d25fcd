"""Whether copies of an environment, made from its spec, are like the object itself."""

from __future__ import annotations

import random
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import gymnasium as gym
import mujoco
import numpy as np
import torch as th
from gymnasium.wrappers import (
    NormalizeObservation,
    NormalizeReward,
    OrderEnforcing,
    PassiveEnvChecker,
    RecordEpisodeStatistics,
    RecordVideo,
)

from sb3_rmdp.common.random_numbers import same_random_numbers_after
from sb3_rmdp.vec_env.watch import Counted

Path: TypeAlias = tuple[str, ...]
#: Pairs of objects by their addresses, which stay theirs as long as somebody refers to them
Seen: TypeAlias = dict[tuple[int, int], tuple[Any, Any]]

#: Wrappers of which every copy would have its own, and what of
MEMORIES: dict[type[gym.Wrapper], str] = {
    NormalizeObservation: "statistics",
    NormalizeReward: "statistics",
    RecordVideo: "files, all in one folder",
}
#: Wrappers whose memory changes nothing
HARMLESS = (OrderEnforcing, PassiveEnvChecker, RecordEpisodeStatistics)
#: Packages whose other wrappers are known to have none but that of the running episode
KNOWN = ("gymnasium.", "sb3_rmdp.")
#: Attributes that copies have of their own, or that they are made from
NOT_COMPARED = {"env", "spec", "np_random", "_np_random", "_np_random_seed", "_cached_spec", "_saved_kwargs"}
#: Steps in which it is found out what changes while episodes run; it is looked at after these, and after the first ends
PROBED = 64
LOOKS, ENDS = (0, 1, 2, 4, 8, 16, 32, PROBED - 1), 3


class CopiesDifferError(ValueError):
    """Copies of an environment would lack what the object has."""


def check_copies(env: gym.Env, make: Callable[[], gym.Env]) -> None:
    """
    See whether copies of an environment would be like it, but for the episode that it is in.

    A copy is made and compared, attribute by attribute, wrappers included. Where it differs, two more copies tell which
    attributes are set anew by every episode: these do not count. Environments that nobody has touched cost one copy.

    :param env: the environment
    :param make: makes a copy of it
    :raises CopiesDifferError: if copies would lack something
    """
    found = [
        f"{type(one).__name__} keeps {MEMORIES[kind]}" for one in _layers(env) for kind in MEMORIES if isinstance(one, kind)
    ]
    if not found:
        with same_random_numbers_after():
            found = _differences(env, make)
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise CopiesDifferError(
            f"copies of {env}, which are made from its spec, would not be like it ({', '.join(found[:3])}{more}): pass a "
            "function that makes the whole environment to make_represented_vec_env(function, k), and its vec env to the model"
        )


def _differences(env: gym.Env, make: Callable[[], gym.Env]) -> list[str]:
    fresh = make()
    strangers = [type(one).__name__ for one in _layers(env) if isinstance(one, gym.Wrapper) and _is_strange(type(one))]
    try:
        if [type(one) for one in _layers(env)] != [type(one) for one in _layers(fresh)]:
            return ["other wrappers"]
        differing = _compare(env, fresh)
        if not differing and not strangers:
            return []
        moved, kept = _moved_and_kept(fresh, make)
    finally:
        fresh.close()
    of_episodes = {path for path in moved if not any(_within(path, other) or _within(other, path) for other in kept)}
    lacking = {path for path in differing if not any(_within(path, other) for other in of_episodes)}
    # Copies of such a wrapper would each remember their own episodes
    lacking |= {path for path in kept if path[0] in strangers}
    return [".".join(path) for path in sorted(lacking)]


def _is_strange(kind: type) -> bool:
    return not kind.__module__.startswith(KNOWN)


def _within(path: Path, other: Path) -> bool:
    return path[: len(other)] == other


def _layers(env: gym.Env) -> Iterator[gym.Env]:
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env


def _moved_and_kept(fresh: gym.Env, make: Callable[[], gym.Env]) -> tuple[set[Path], set[Path]]:
    """
    :param fresh: a copy that nobody has touched
    :param make: makes another one
    :return: what resets and steps change, and what of it is still there after a reset from the same seed
    """
    moved: set[Path] = set()
    reset, stepped = make(), make()
    # Environments may refuse random actions, or not go on: then less is excused
    with suppress(Exception):
        reset.reset(seed=0)
        stepped.reset(seed=0)
        stepped.action_space.seed(0)
        ends = 0
        for step in range(PROBED):
            _, _, terminated, truncated, _ = stepped.step(stepped.action_space.sample())
            ends += terminated or truncated
            if step in LOOKS or ((terminated or truncated) and ends <= ENDS):
                moved |= _compare(fresh, stepped)
            if terminated or truncated:
                stepped.reset()
        stepped.reset(seed=0)
    kept = _compare(reset, stepped)
    moved |= _compare(fresh, reset) | _compare(fresh, stepped)
    for one in (reset, stepped):
        one.close()
    return moved, kept


def _compare(env: gym.Env, other: gym.Env) -> set[Path]:
    """Where two environments of the same layers differ."""
    found: set[Path] = set()
    pairs = list(zip(_layers(env), _layers(other), strict=True))
    # Environments may refer to themselves
    seen: Seen = {(id(one), id(its)): (one, its) for one, its in pairs}
    for one, its in pairs:
        if not isinstance(one, HARMLESS):
            attributes, others = _attributes(one), _attributes(its)
            # What was set on one of them alone is compared with what the class has
            for name in attributes.keys() ^ others.keys():
                less = others if name in attributes else attributes
                less[name] = getattr(type(one), name, None)
            _compare_mappings(attributes, others, (type(one).__name__,), found, seen)
    return found


def _attributes(env: gym.Env) -> dict[str, Any]:
    attributes = vars(env).items()
    return {name: value for name, value in attributes if name not in NOT_COMPARED and not isinstance(value, Counted)}


def _compare_mappings(a: Mapping, b: Mapping, path: Path, found: set[Path], seen: Seen) -> None:
    for key in [*a, *(key for key in b if key not in a)]:
        # What is not there yet is like None: renderers and the like are made when they are needed
        _compare_values(a.get(key), b.get(key), (*path, str(key)), found, seen)


def _compare_values(a: Any, b: Any, path: Path, found: set[Path], seen: Seen) -> None:
    """
    :param a: any value
    :param b: another one
    :param path: where they are
    :param found: paths of differences, which are added
    :param seen: pairs that are compared already, or are about to be
    """
    if a is b or (id(a), id(b)) in seen or _is_opaque(a) or _is_opaque(b):
        return
    seen[id(a), id(b)] = a, b
    if isinstance(a, types.MethodType) and isinstance(b, types.MethodType):
        a, b = a.__func__, b.__func__
    if isinstance(a, types.FunctionType) and isinstance(b, types.FunctionType):
        same = a.__code__ is b.__code__
        a, b = ({"own": _cells(one), "defaults": one.__defaults__} for one in (a, b)) if same else (a, b)
    if type(a) is not type(b):
        if not _equal(a, b):
            found.add(path)
    elif isinstance(a, Mapping):
        _compare_mappings(a, b, path, found, seen)
    elif isinstance(a, (list, tuple, deque)):
        if len(a) != len(b):
            found.add(path)
            return
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            _compare_values(one, other, (*path, str(i)), found, seen)
    elif _has_state(a):
        _compare_mappings(vars(a), vars(b), path, found, seen)
    elif not _equal(a, b):
        found.add(path)


def _cells(function: types.FunctionType) -> list[Any]:
    return [cell.cell_contents for cell in function.__closure__ or ()]


#: Classes whose objects tell by themselves whether they are equal
COMPARABLE = (np.ndarray, np.generic, th.Tensor, gym.spaces.Space, mujoco.MjModel, type)


def _has_state(value: Any) -> bool:
    """Whether an object is what its attributes are."""
    return hasattr(value, "__dict__") and not isinstance(value, (*COMPARABLE, types.FunctionType))


def _is_opaque(value: Any) -> bool:
    """Whether nothing can be said of a value: state of a simulation, of a renderer, of a generator of random numbers."""
    if isinstance(value, (mujoco.MjData, np.random.Generator, np.random.RandomState, random.Random, types.ModuleType)):
        return True
    if type(value).__module__.startswith("gymnasium.envs.mujoco.mujoco_rendering"):
        return True
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(_is_opaque(one) for one in value)
    # Of C, without attributes, and equal to itself alone
    plain = isinstance(value, (*COMPARABLE, types.FunctionType)) or type(value).__eq__ is not object.__eq__
    return not (value is None or plain or hasattr(value, "__dict__"))


def _equal(a: Any, b: Any) -> bool:
    """Whether two values are equal that have no parts to be compared one by one."""
    if isinstance(a, mujoco.MjModel) and isinstance(b, mujoco.MjModel):
        return _saved(a) == _saved(b)
    if isinstance(a, th.Tensor) and isinstance(b, th.Tensor):
        a, b = a.detach().cpu().numpy(), b.detach().cpu().numpy()
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        numbers = all(array.dtype.kind in "fc" for array in (a, b))
        return a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=numbers))
    try:
        return bool(a == b) or bool(a != a and b != b)
    except Exception:  # whatever it is, it does not say
        return False


def _saved(model: mujoco.MjModel) -> bytes:
    buffer = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer.tobytes()
