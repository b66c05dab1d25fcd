"""Under which other conditions a model is evaluated: noisy observations, other start states, other physics, the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.mujoco import MujocoEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_rmdp.approval.episodes import ObservationSpread
from sb3_rmdp.vec_env.watch import innermost

#: Standard deviation of the noise, as a share of that of the observation
NOISE = (0.01, 0.05, 0.10)
#: What is changed in MuJoCo's model, and by which factors
PHYSICS = {"gravity": (0.9, 1.1), "friction": (0.8, 1.2), "masses": (0.8, 1.2)}
#: Other start states are those of this seed and the next ones, far from seeds that one would give
OTHER_SEED = 1_000_003

Wrapper = Callable[[gym.Env], gym.Env]


@dataclass(frozen=True)
class StressCase:
    """
    One condition.

    :param name: what is changed
    :param apply: gives the changed environment for as long as its context lasts; ``None`` if it cannot be had here
    :param why_not: the reason for that
    :param seed_shift: added to the seed of the evaluation
    """

    name: str
    apply: Callable[[VecEnv], AbstractContextManager[VecEnv]] | None
    why_not: str = ""
    seed_shift: int = 0


def stress_cases(env: VecEnv, spread: ObservationSpread | None, own: Mapping[str, Wrapper]) -> list[StressCase]:
    """
    :param env: the environment
    :param spread: of its observations; ``None`` if these are no boxes. May still be empty: it is looked at when a case begins
    :param own: the user's cases, each a function that wraps an environment
    :return: all cases, those included that cannot be had here
    :raises ValueError: if a wrapper of the user's cannot be applied
    """
    cases = [_noise(env, spread, share) for share in NOISE]
    cases.append(StressCase("start states of other seeds", nullcontext, seed_shift=OTHER_SEED))
    why_not = _why_no_physics(env)
    for quantity, factors in PHYSICS.items():
        for factor in factors:
            name = f"{quantity} {100 * (factor - 1):+.0f} %"
            apply = None if why_not else partial(_other_physics, quantity=quantity, factor=factor)
            cases.append(StressCase(name, apply, why_not))
    in_process = isinstance(innermost(env), DummyVecEnv)
    for name, wrapper in own.items():
        if in_process:
            _wrapped(env, name, wrapper)  # complains before any time is spent
        apply = partial(_other_envs, name=name, wrapper=wrapper) if in_process else None
        cases.append(StressCase(name, apply, "" if in_process else ELSEWHERE))
    return cases


ELSEWHERE = "the environments are not in this process; evaluate in a DummyVecEnv"


def _noise(env: VecEnv, spread: ObservationSpread | None, share: float) -> StressCase:
    name = f"observation noise, {100 * share:.0f} %"
    if spread is None:
        return StressCase(name, None, f"observations are {type(env.observation_space).__name__}, not Box")

    def apply(env: VecEnv) -> AbstractContextManager[VecEnv]:
        return nullcontext(NoisyObservations(env, share * spread.std()))

    return StressCase(name, apply)


class NoisyObservations(VecEnvWrapper):
    """
    Adds Gaussian noise to the observations, independent in every dimension and step.

    Observations of an integer type, such as pictures, are rounded and kept within their bounds; others may leave them.

    :param venv: an environment with observations in a box
    :param std: standard deviation of the noise in every dimension, of the shape of an observation
    :param seed: of the noise
    """

    def __init__(self, venv: VecEnv, std: np.ndarray, seed: int = 0):
        super().__init__(venv)
        assert isinstance(venv.observation_space, spaces.Box)
        self._space, self._std = venv.observation_space, std
        self._rng = np.random.default_rng(seed)

    def reset(self) -> VecEnvObs:
        return self._noisy(self.venv.reset())

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, dones, infos = self.venv.step_wait()
        return self._noisy(obs), rewards, dones, infos

    def _noisy(self, obs: Any) -> np.ndarray:
        noisy = obs + self._rng.normal(size=obs.shape) * self._std
        if np.issubdtype(obs.dtype, np.integer):
            noisy = noisy.round().clip(self._space.low, self._space.high)
        return noisy.astype(obs.dtype)


def _why_no_physics(env: VecEnv) -> str:
    """What keeps the physics from being changed; empty if nothing does."""
    base = innermost(env)
    if not isinstance(base, DummyVecEnv):
        return ELSEWHERE
    # EnvPool simulates copies that Python cannot reach; its vec env is no DummyVecEnv
    return "" if all(isinstance(one.unwrapped, MujocoEnv) for one in base.envs) else "the environment is not one of MuJoCo"


@contextmanager
def _other_physics(env: VecEnv, quantity: str, factor: float) -> Iterator[VecEnv]:
    """
    Change MuJoCo's models in place, which vec envs that step copies together do as well, and change them back.

    :param env: of MuJoCo environments in this process
    :param quantity: a key of :data:`PHYSICS`
    :param factor: what it is multiplied by
    """
    import mujoco

    base = innermost(env)
    assert isinstance(base, DummyVecEnv)
    robots: list[Any] = [one.unwrapped for one in base.envs]
    arrays = [array for robot in robots for array in _arrays(robot.model, quantity)]
    before = [array.copy() for array in arrays]
    try:
        for array in arrays:
            array *= factor
        _derive(mujoco, robots, quantity)
        yield env
    finally:
        for array, saved in zip(arrays, before, strict=True):
            array[...] = saved
        _derive(mujoco, robots, quantity)


def _arrays(model: Any, quantity: str) -> list[np.ndarray]:
    """Parts of MuJoCo's model that stand for a quantity: views of its memory."""
    return {
        "gravity": [model.opt.gravity],
        "friction": [model.geom_friction, model.pair_friction],
        # Of bodies of the same shape, so that inertia grows with the mass
        "masses": [model.body_mass, model.body_inertia],
    }[quantity]


def _derive(mujoco: Any, robots: list[Any], quantity: str) -> None:
    """Constants that MuJoCo has derived from the masses, anew. What it uses of the state is reset at the next episode."""
    if quantity == "masses":
        for robot in robots:
            mujoco.mj_setConst(robot.model, robot.data)


@contextmanager
def _other_envs(env: VecEnv, name: str, wrapper: Wrapper) -> Iterator[VecEnv]:
    """
    Put wrapped environments in the place of those that are there, below all wrappers of the vec env, and put these back.

    :param env: of environments in this process
    :param name: of the case
    :param wrapper: wraps one of them
    """
    base = _wrapped(env, name, wrapper)
    if not isinstance(env, VecEnvWrapper):
        yield base
        return
    lowest = env
    while isinstance(lowest.venv, VecEnvWrapper):
        lowest = lowest.venv
    before, lowest.venv = lowest.venv, base
    try:
        yield env
    finally:
        lowest.venv = before


def _wrapped(env: VecEnv, name: str, wrapper: Wrapper) -> DummyVecEnv:
    """
    :param env: of environments in this process
    :param name: of the case
    :param wrapper: wraps one of them
    :return: a vec env of wrapped ones
    :raises ValueError: if that is not possible
    """
    base = innermost(env)
    assert isinstance(base, DummyVecEnv)
    try:
        wrapped = [wrapper(one) for one in base.envs]
    except Exception as error:  # the user's code may raise anything
        raise ValueError(f"stress case {name!r} cannot wrap the environment: {error}") from error
    for one in wrapped:
        if not isinstance(one, gym.Env):
            raise ValueError(f"stress case {name!r} gave {type(one).__name__}: its function must return an environment")
        if one.observation_space != base.observation_space or one.action_space != base.action_space:
            raise ValueError(f"stress case {name!r} changes the observation or action space: the model would not fit")
    # Bound now, since the loop moves on
    return DummyVecEnv([lambda one=one: one for one in wrapped])  # type: ignore[misc]
