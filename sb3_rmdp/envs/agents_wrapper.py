"""What the wrappers share that give agents to an environment which has none."""

import copy
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from sb3_rmdp.envs.contract import REWARD_FEATURES, REWARD_VECTOR

#: ``f(obs, action, next_obs, info)`` of one transition.
TransitionFunction = Callable[[Any, Any, Any, dict[str, Any]], Any]


class AgentsWrapper(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """
    An environment whose agents are paid by a function of the transition.

    What the wrapped environment says of agents of its own is hidden, since there are others now.

    :param env: any gymnasium environment
    :param function: what the agents are paid by
    :param n_agents: number of agents, at least 1
    :param population_id: who the agents are
    :param welfare_bound: ``welfare_bound(k)``, or nothing
    :raises TypeError: if ``function`` cannot be called
    """

    #: Key of the info dict under which every step has the answer of the function.
    key: ClassVar[str]
    #: Name of the argument that holds the function, for errors.
    function_name: ClassVar[str]
    #: Hides that of the wrapped environment: the bound is another one
    welfare_bound_steps: ClassVar[None] = None

    def __init__(
        self,
        env: gym.Env[Any, Any],
        function: TransitionFunction,
        n_agents: int,
        population_id: str | None,
        welfare_bound: Callable[[int], float] | None,
    ):
        if not callable(function):
            name = self.function_name
            raise TypeError(f"{name}={function!r} cannot be called; give a function of (obs, action, next_obs, info)")
        gym.Wrapper.__init__(self, env)
        self._function = function
        self.n_agents = n_agents
        self.population_id = population_id
        self._welfare_bound = welfare_bound
        self._observation: Any = None

    def welfare_bound(self, k: int) -> float | None:
        """
        :param k: number of representatives, at least 1
        :return: best social welfare with them, or an upper bound of it; ``None`` if the wrapper was not told
        """
        return None if self._welfare_bound is None else self._welfare_bound(k)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """
        Reset the wrapped environment.

        :param seed: handed on; never reaches the agents
        :param options: handed on
        :return: observation and info of the wrapped environment
        """
        observation, info = self.env.reset(seed=seed, options=options)
        self._observation = _frozen(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """
        One step of the wrapped environment, paid by the agents.

        :param action: action of the wrapped environment
        :return: observation, mean reward over the agents, terminated, truncated, info with ``reward_vector`` or, of a
            factored environment, ``reward_features``
        :raises ValueError: if the function does not answer with as many numbers as it should
        """
        observation, _, terminated, truncated, info = self.env.step(action)
        # A copy in float32: what the function returns may be a buffer of its own.
        values = np.array(self._function(self._observation, action, observation, info), dtype=np.float32)
        reward = self._mean_reward(values)
        self._observation = _frozen(observation)
        others = {key: value for key, value in info.items() if key not in (REWARD_VECTOR, REWARD_FEATURES)}
        return observation, reward, terminated, truncated, {**others, self.key: values}

    def get_state(self) -> dict[str, Any]:
        """
        :return: what the wrapper remembers: the last observation
        """
        return {"observation": self._observation}

    def set_state(self, state: dict[str, Any]) -> None:
        """
        :param state: from :meth:`get_state`
        """
        self._observation = state["observation"]

    @abstractmethod
    def _mean_reward(self, values: np.ndarray) -> float:
        """
        :param values: float32 answer of the function
        :return: mean reward over the agents
        :raises ValueError: if the answer has another shape than it should
        """


def _frozen(observation: Any) -> Any:
    """
    A copy that the environment cannot overwrite, since some environments write every observation into the same buffer.

    :param observation: of any space
    :return: an equal observation
    """
    return observation.copy() if isinstance(observation, np.ndarray) else copy.deepcopy(observation)
