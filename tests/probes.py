"""Small represented MDPs with known answers, each of which can fail for one reason only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_rmdp.envs import REWARD_VECTOR


class Probe(gym.Env):
    """An environment that has its reward vectors as a method; subclasses fill in the rest."""

    n_agents: int
    observation_space: spaces.Space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    horizon = 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def observe(self) -> Any:
        return np.array([self.time, 0.0], dtype=np.float32)

    def rewards(self, action: Any) -> Sequence[float]:
        raise AssertionError("a probe says what its rewards are")

    def over(self, action: Any) -> bool:
        return self.time >= self.horizon

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        vector = np.asarray(self.rewards(action), dtype=np.float32)
        self.time += 1
        return self.observe(), float(vector.mean()), self.over(action), False, {REWARD_VECTOR: vector}


class TwoGroups(Probe):
    """One step, one continuous action: of six agents half want -0.5, half 0.5. Welfare with k = 2: 1; with k = 1: 0.75."""

    n_agents = 6
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    wishes = np.array([-0.5, -0.5, 0.5, 0.5, -0.5, 0.5])

    def rewards(self, action: np.ndarray) -> np.ndarray:
        return 1.0 - (action[0] - self.wishes) ** 2


class NowOrLater(Probe):
    """
    Two steps: action 0 ends the game with 1 for everybody; action 1 goes on to a step that gives everybody 1.5. With
    gamma = 0.5 it is best to stop (1 > 0.75), without discounting to go on. Whatever the assignment, welfare is 1 or 1.5.
    """

    n_agents = 4
    action_space = spaces.Discrete(2)
    horizon = 2
    way = 0
    later: tuple[list[float], ...] = ([1.5] * 4,)

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        self.way = 0
        return super().reset(**kwargs)

    def observe(self) -> np.ndarray:
        return np.array([self.time, self.way - 1], dtype=np.float32)

    def rewards(self, action: int) -> list[float]:
        if self.time == 1:
            return self.later[self.way - 1]
        self.way = int(action)
        return [1.0] * 4 if self.way == 0 else [0.0] * 4

    def over(self, action: int) -> bool:
        return self.way == 0 or self.time >= self.horizon


class NowOrLaterForSome(NowOrLater):
    """
    As before, but actions 1 and 2 go on to a step that gives 1.5 to agents 0 and 1, or 4 to agents 2 and 3. With gamma = 0.5
    the first two should have a policy that stops (1 > 0.75), the last two one that goes on (2 > 1): undiscounted welfare
    (1 + 1 + 4 + 4) / 4 = 2.5. Without discounting nobody should stop: 2.75.
    """

    action_space = spaces.Discrete(3)
    later = ([1.5, 1.5, 0.0, 0.0], [0.0, 0.0, 4.0, 4.0])


class KnownAssignment(Probe):
    """One step, three actions: agents (0, 3) like action 0, (1, 4) action 1, (2, 5) action 2, by different amounts."""

    n_agents = 6
    action_space = spaces.Discrete(3)
    table = np.array([[3, 0, 0], [0, 2, 0], [0, 0, 4], [1, 0, 0], [0, 3, 0], [0, 0, 1]], dtype=np.float32)
    partition: tuple[set[int], ...] = ({0, 3}, {1, 4}, {2, 5})
    optimum = 14 / 6

    def rewards(self, action: int) -> np.ndarray:
        return self.table[:, action]


class KnownPair(KnownAssignment):
    """The same with two actions: agents (0, 3, 4) like action 0, (1, 2, 5) action 1."""

    action_space = spaces.Discrete(2)
    table = np.array([[3, 0], [0, 2], [0, 4], [1, 0], [3, 0], [0, 1]], dtype=np.float32)
    partition = ({0, 3, 4}, {1, 2, 5})


class Drift(Probe):
    """Never ends by itself; five steps, then a time limit (see ``time_limited``). Agent i gets i + 1 per step."""

    n_agents = 3
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    observation_space = spaces.Box(-10.0, 10.0, (2,), np.float32)
    horizon = 10**9

    def observe(self) -> np.ndarray:
        return np.array([self.time % 7, -self.time % 3], dtype=np.float32)

    def rewards(self, action: np.ndarray) -> np.ndarray:
        return np.arange(1, self.n_agents + 1) - 0.1 * float(np.square(action).sum())


class Spaces(Probe):
    """Any observation and action space; rewards are random, episodes of 4 steps."""

    horizon = 4

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, n_agents: int = 3):
        self.observation_space = observation_space
        self.action_space = action_space
        self.n_agents = n_agents

    def observe(self) -> Any:
        return self.observation_space.sample()

    def rewards(self, action: Any) -> np.ndarray:
        return self.np_random.uniform(-1.0, 1.0, self.n_agents)


class Waiting(Probe):
    """
    Action a at the beginning makes an episode of a + 1 steps, which pays at each step what ``table`` says.

    With representative j taking action j and the agents served by 0, 0, 0, 1, 1, 2, welfare is
    (1 + 2 + 3 + 2 * (4 + 5) + 3 * 6) / 6 = 7. The mean of the scalar rewards over representatives is
    (16 + 2 * 13 + 3 * 9) / 6 / 3 = 23 / 6, that of representative 0 16 / 6, and what it adds to welfare 1.
    """

    n_agents = 6
    action_space = spaces.Discrete(3)
    table = np.array([[1, 2, 3, 5, 5, 0], [1, 1, 1, 4, 5, 1], [1, 1, 0, 0, 1, 6]], dtype=np.float32)
    representatives = (0, 0, 0, 1, 1, 2)
    welfare = 7.0

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        self.chosen = 0
        return super().reset(**kwargs)

    def rewards(self, action: int) -> np.ndarray:
        if self.time == 0:
            self.chosen = int(action)
        return self.table[self.chosen]

    def over(self, action: int) -> bool:
        return self.time > self.chosen


def time_limited(env: gym.Env, max_episode_steps: int = 5) -> gym.Env:
    """
    :param env: an environment
    :param max_episode_steps: steps after which episodes are truncated
    """
    return gym.wrappers.TimeLimit(env, max_episode_steps)


def vectorized(make: Any, n_envs: int) -> VecEnv:
    """
    :param make: makes one environment
    :param n_envs: number of environments
    """
    return DummyVecEnv([make] * n_envs)
