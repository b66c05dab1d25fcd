"""What vec envs share that step all copies of one task together, where DummyVecEnv steps one after the other."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from sb3_rmdp.envs.contract import REWARD_VECTOR
from sb3_rmdp.vec_env.infos import BatchInfos
from sb3_rmdp.vec_env.watch import Counted

#: gymnasium's checker looks at the first two steps, and the wrapper that enforces the order at the first.
LONG_WAY = 2

#: RL Zoo puts a time limit of its own in the place of gymnasium's. Both end episodes alike, and differ in what they write into
#: infos, which a vec env writes over. By name, since this depends on who is imported first.
TIME_LIMITS = ("gymnasium.wrappers.common.TimeLimit", "rl_zoo3.gym_patches.PatchedTimeLimit")


class Layers(NamedTuple):
    """
    An environment and what is around it.

    :param base: the environment itself
    :param limit: its time limit, if it has one
    :param monitor: SB3's Monitor, if it has one
    """

    base: Any
    limit: Any
    monitor: Monitor | None


class Moves(NamedTuple):
    """
    What came of the actions of one step, before time limits and resets.

    :param observations: (n_envs, *observation shape), nobody else's
    :param rewards: n_envs mean rewards over the agents
    :param reward_vectors: (n_envs, n_agents) float32, or (n_envs, m) reward features; nobody else's
    :param terminated: indices of environments that terminated, ascending
    :param info: what the environment of an index puts into its info, but for its row of those; see :class:`BatchInfos`
    """

    observations: np.ndarray
    rewards: list[float]
    reward_vectors: np.ndarray
    terminated: list[int]
    info: Callable[[int], dict[str, Any]]


def layers(env: gym.Env) -> Layers:
    """
    Take an environment apart that has only those wrappers which ``gymnasium.make`` and SB3's ``make_vec_env`` put there.

    :param env: any environment
    :return: its parts
    :raises ValueError: if there is another wrapper, whose ``step`` would be passed over
    """
    monitor = env if type(env) is Monitor else None
    inner = env if monitor is None else monitor.env
    limit: Any = None
    while isinstance(inner, gym.Wrapper):
        kind = type(inner)
        if limit is None and f"{kind.__module__}.{kind.__qualname__}" in TIME_LIMITS:
            limit = inner
        elif kind not in (OrderEnforcing, PassiveEnvChecker):
            raise ValueError(f"the wrapper {kind.__name__} wants to see every step")
        inner = inner.env
    return Layers(inner, limit, monitor)


class Structure:
    """
    What environments are made of: which wrappers are around them, and which methods somebody has set on the objects.

    :param envs: of a vec env
    """

    def __init__(self, envs: Sequence[gym.Env]):
        self._envs = list(envs)
        self._above: list[Any] = []
        self._below: list[Any] = []
        inner: list[Any] = []
        for env in envs:
            one = env
            while isinstance(one, gym.Wrapper):
                self._above.append(one)
                self._below.append(one.env)
                one = one.env
            inner.append(one)
        self._objects = [*self._above, *inner]
        self._attributes = [vars(one) for one in self._objects]
        # Whoever sets a method adds an attribute; step may be there already, since trainings count its calls
        self._sizes = [len(known) for known in self._attributes]
        self._steps = [known.get("step") for known in self._attributes]

    def is_of(self, envs: Sequence[gym.Env]) -> bool:
        """
        :param envs: of the same vec env, at any later time
        :return: whether everything is as it was
        """
        return (
            envs == self._envs
            and [wrapper.env for wrapper in self._above] == self._below
            and [len(known) for known in self._attributes] == self._sizes
            and [known.get("step") for known in self._attributes] == self._steps
        )

    def check_methods(self) -> None:
        """
        :raises ValueError: if a method was set on an object in the place of that of its class, which would be passed over
        """
        for one in self._objects:
            for name, value in vars(one).items():
                counted = isinstance(value, Counted) and value.plain
                if name != "reset" and not counted and callable(getattr(type(one), name, None)):
                    raise ValueError(f"{type(one).__name__} has a method {name} of its own")


class BatchedVecEnv(DummyVecEnv):
    """
    A DummyVecEnv that does per batch what needs not be done per environment, with the same results bit for bit.

    The environments are those that DummyVecEnv has, and they alone hold the state: seeding, resets, rendering and all that
    goes through ``get_attr``, ``set_attr`` and ``env_method`` are DummyVecEnv's. Only ``step`` is another one: it passes
    over the ``step`` methods of environments and wrappers, does their work for the batch, and gives :class:`BatchInfos`.
    ``buf_obs``, ``buf_rews``, ``buf_dones`` and ``buf_infos`` are not kept up to date.

    The first two steps, and those for which something is not as it should be, go the long way through the environments,
    which know what to check and to complain about. So do steps of environments that are no longer alike: attributes that are
    set later, on all of them or on some, wrappers and methods that are put around or upon them, count from the next step on.

    :param env_fns: functions that make one environment each
    :raises ValueError: if an environment is not one of :attr:`env_classes`, has wrappers of its own, or differs from the rest
    """

    #: Classes of environments that can be stepped together; not their subclasses, whose ``step`` may be another.
    env_classes: ClassVar[tuple[type[gym.Env], ...]]
    #: Key of infos under which the reward vectors stand, or the features of environments with factored rewards.
    reward_key = REWARD_VECTOR

    def __init__(self, env_fns: list[Callable[[], gym.Env]]):
        super().__init__(env_fns)
        reason = self.why_not(self.envs)
        if reason is not None:
            raise ValueError(f"{type(self).__name__} cannot step these environments: {reason}; use SB3's DummyVecEnv")
        self._to_check = LONG_WAY
        self._look()

    @classmethod
    def why_not(cls, envs: Sequence[gym.Env]) -> str | None:
        """
        :param envs: environments, at least one
        :return: what keeps them from being stepped together; None if nothing does
        """
        try:
            bases = [layers(env).base for env in envs]
            for base in bases:
                if type(base) not in cls.env_classes:
                    names = ", ".join(env_class.__name__ for env_class in cls.env_classes)
                    raise ValueError(f"{type(base).__name__} is none of {names}")
                if base.render_mode == "human":
                    raise ValueError('render_mode="human" draws within every step of an environment')
            cls._check_alike(bases)
            Structure(envs).check_methods()
        except ValueError as error:
            return str(error)
        return None

    @classmethod
    @abstractmethod
    def _check_alike(cls, bases: list[Any]) -> None:
        """
        :param bases: environments of :attr:`env_classes`
        :raises ValueError: if they differ in what must be the same for all
        """

    def _look(self) -> None:
        """See what the environments are made of: at construction, in a copy, and whenever that has changed."""
        self._structure = Structure(self.envs)
        self._together = self.why_not(self.envs) is None
        if self._together:
            self._bind()

    @abstractmethod
    def _bind(self) -> None:
        """Take hold of environments that can be stepped together."""
        self._layers = [layers(env) for env in self.envs]
        self._limits = [(i, part.limit) for i, part in enumerate(self._layers) if part.limit is not None]
        self._monitors = [(i, part.monitor) for i, part in enumerate(self._layers) if part.monitor is not None]

    @abstractmethod
    def _fits(self, actions: np.ndarray) -> bool:
        """
        :param actions: of all environments
        :return: whether these are actions that :meth:`_advance` can take, and environments still have the same settings
        """

    @abstractmethod
    def _advance(self, actions: np.ndarray) -> Moves:
        """
        One step of all environments without their wrappers.

        :param actions: one per environment
        :return: what came of it
        """

    def step_wait(self) -> VecEnvStepReturn:
        """See SB3; the infos are a :class:`BatchInfos`."""
        actions = np.asarray(self.actions)
        if not self._structure.is_of(self.envs):
            self._look()
        if (
            self._to_check
            or not self._together
            or any(monitor.needs_reset for _, monitor in self._monitors)
            or not self._fits(actions)
        ):
            return self._long_way()
        observations, rewards, vectors, terminated, build = self._advance(actions)
        truncated: list[int] = []
        for i, limit in self._limits:
            limit._elapsed_steps += 1
            if limit._elapsed_steps >= limit._max_episode_steps:
                truncated.append(i)
        for i, monitor in self._monitors:
            monitor.rewards.append(rewards[i])
            monitor.total_steps += 1

        def info_of(i: int) -> dict[str, Any]:
            return {**build(i), "TimeLimit.truncated": False}

        infos = BatchInfos(vectors, info_of, self.reward_key)
        dones = np.zeros(self.num_envs, dtype=bool)
        for i in sorted({*terminated, *truncated}) if truncated else terminated:
            dones[i] = True
            info = infos[i]
            watching = self._layers[i].monitor
            if watching is not None:
                info["episode"] = _end_episode(watching, info)
            info["TimeLimit.truncated"] = i not in terminated
            info["terminal_observation"] = observations[i].copy()
            observations[i], self.reset_infos[i] = self.envs[i].reset()
        # SB3 declares a list; what it and its wrappers do with it, BatchInfos can do
        return observations, np.array(rewards, dtype=np.float32), dones, infos  # type: ignore[return-value]

    def _long_way(self) -> VecEnvStepReturn:
        """A step of DummyVecEnv, with infos of the same kind as in any other step."""
        observations, rewards, dones, infos = super().step_wait()
        self._to_check = max(self._to_check - 1, 0)
        vectors = [vector for info in infos if isinstance(vector := info.get(self.reward_key), np.ndarray)]
        if len(vectors) < len(infos) or len({vector.shape for vector in vectors}) > 1:
            return observations, rewards, dones, infos  # of environments that are no longer alike
        batch = BatchInfos(np.stack(vectors), infos.__getitem__, self.reward_key)
        return observations, rewards, dones, batch  # type: ignore[return-value]

    def __getstate__(self) -> dict[str, Any]:
        # What _bind takes hold of belongs to these environments, and not to copies of them
        bound = ("_structure", "_together", "_layers", "_limits", "_monitors", *self._bound)
        return {name: value for name, value in self.__dict__.items() if name not in bound}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._look()

    #: Names of further attributes that _bind sets.
    _bound: ClassVar[tuple[str, ...]] = ()


def _end_episode(monitor: Monitor, info: dict[str, Any]) -> dict[str, Any]:
    """
    What SB3's Monitor does at the last step of an episode.

    :param monitor: of the environment, with all rewards of the episode
    :param info: of the last step
    :return: the episode's return, length, seconds since the start, and keywords
    """
    total, length, seconds = sum(monitor.rewards), len(monitor.rewards), time.time() - monitor.t_start
    monitor.needs_reset = True
    monitor.episode_returns.append(total)
    monitor.episode_lengths.append(length)
    monitor.episode_times.append(seconds)
    episode: dict[str, Any] = {"r": round(total, 6), "l": length, "t": round(seconds, 6)}
    episode.update((key, info[key]) for key in monitor.info_keywords)
    episode.update(monitor.current_reset_info)
    if monitor.results_writer is not None:
        monitor.results_writer.write_row(episode)
    return episode
