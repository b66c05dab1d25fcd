"""How long episodes are: their time limit, episodes that do not end, and ends that a Monitor has not seen."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp.envs.contract import integer
from sb3_rmdp.vec_env.watch import innermost

#: Steps of an episode after which an evaluation warns
LONG = 2_500
#: Steps of an episode after which an evaluation gives up, unless the environment has a longer time limit
ENDLESS = 10_000
#: Under which time limits keep their number: gymnasium's, RL Zoo's, and Resource Gathering
LIMIT = "_max_episode_steps"


class EndlessEpisodeError(ValueError):
    """An episode did not end within as many steps as it may take."""


def time_limit(env: VecEnv) -> int | None:
    """
    :param env: any vec env
    :return: steps after which every episode has ended: the shortest limit of an environment, and the longest of these;
        ``None`` if an environment has none
    """
    inside = getattr(innermost(env), "envs", None)
    if inside is None or not all(isinstance(one, gym.Env) for one in inside):
        limits = env.get_attr(LIMIT) if env.has_attr(LIMIT) else [None]
    else:
        limits = [_limit_of(one) for one in inside]
    known = [int(limit) for limit in limits if isinstance(limit, (int, np.integer))]
    return max(known) if len(known) == len(limits) else None


def _limit_of(env: gym.Env) -> int | None:
    """The shortest of the limits within an environment."""
    found, one = [], env
    while True:
        limit = vars(one).get(LIMIT)
        if isinstance(limit, (int, np.integer)):
            found.append(int(limit))
        if not isinstance(one, gym.Wrapper):
            return min(found, default=None)
        one = one.env


class EpisodeLengths:
    """
    Counts the steps of running episodes, and does not wait for ever until they end.

    :param env: the vec env that they run in
    :param max_episode_steps: steps that an episode may take, at least 1; by default :data:`ENDLESS`, or the time limit of the
        environment, if that is longer
    :raises ValueError: if max_episode_steps is out of its range
    """

    def __init__(self, env: VecEnv, max_episode_steps: int | None = None):
        if max_episode_steps is None:
            limit = time_limit(env) or 0
            self._most, self._long = max(ENDLESS, limit), max(LONG, limit)
        else:
            # Whoever gives a number knows how long episodes are
            self._most = self._long = integer("max_episode_steps", max_episode_steps, minimum=1)
        #: (n_envs,) int64, of the running episodes
        self.steps = np.zeros(env.num_envs, dtype=np.int64)
        self._warned = False

    def add(self, dones: np.ndarray) -> np.ndarray:
        """
        One more step.

        :param dones: True where an episode has ended, (n_envs,)
        :return: lengths of the episodes that were running, those that have ended included, (n_envs,)
        :raises EndlessEpisodeError: if an episode goes on although it has taken as many steps as it may
        """
        lengths = self.steps + 1
        self.steps = np.where(dones, 0, lengths)
        longest = int(self.steps.max())
        if longest >= self._most:
            raise EndlessEpisodeError(
                f"an episode has not ended after {longest} steps: give the environment a time limit, "
                "gymnasium.make(id, max_episode_steps=...) or gymnasium.wrappers.TimeLimit, or pass a larger max_episode_steps"
            )
        if longest >= self._long and not self._warned:
            self._warned = True
            warnings.warn(
                f"an episode has not ended after {longest} steps, and is given up after {self._most}: give the environment a "
                "time limit, gymnasium.make(id, max_episode_steps=...) or gymnasium.wrappers.TimeLimit",
                stacklevel=3,
            )
        return lengths


class UnseenEnds:
    """
    Writes ``info["episode"]`` where the Monitor of an environment has not seen that an episode ended, since a wrapper above it
    did that: a time limit, as a rule, which is how RL Zoo's ``env_wrapper`` puts them. SB3's evaluations wait for this entry.

    A wrapper that only pretends, as those do that take the loss of a life for an end, goes on with the episode of the Monitor,
    and nothing is written.

    :param env: the vec env that episodes run in
    """

    def __init__(self, env: VecEnv):
        inside = getattr(innermost(env), "envs", [None])
        outermost = all(isinstance(one, Monitor) for one in inside)
        self._env, self._needed = env, not outermost and any(env.env_is_wrapped(Monitor))
        self._returns, self._lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=np.int64)
        self._begin = time.time()

    def add(self, rewards: np.ndarray, dones: np.ndarray, infos: Sequence[dict[str, Any]]) -> None:
        """
        One more step.

        :param rewards: (n_envs,)
        :param dones: True where an episode has ended, (n_envs,)
        :param infos: of the step, which may be written into
        """
        if not self._needed:
            return
        self._returns += rewards
        self._lengths += 1
        for i in np.flatnonzero(dones).tolist():
            if "episode" not in infos[i] and self._is_over(i, infos[i]):
                seconds = round(time.time() - self._begin, 6)
                infos[i]["episode"] = {"r": round(float(self._returns[i]), 6), "l": int(self._lengths[i]), "t": seconds}
            if "episode" in infos[i]:
                self._returns[i], self._lengths[i] = 0.0, 0

    def get_state(self) -> dict[str, np.ndarray]:
        """
        :return: what is known of running episodes
        """
        return {"returns": self._returns.copy(), "lengths": self._lengths.copy()}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """
        :param state: from :meth:`get_state`, of as many environments
        """
        self._returns[:], self._lengths[:] = state["returns"], state["lengths"]

    def _is_over(self, i: int, info: dict[str, Any]) -> bool:
        if info.get("TimeLimit.truncated", False):
            return True
        # The vec env has called reset by now; a Monitor that was reset as well has no rewards yet
        return bool(self._env.has_attr("rewards") and self._env.get_attr("rewards", indices=[i])[0] == [])
