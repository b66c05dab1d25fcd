"""Turn any gymnasium environment into a represented MDP."""

import copy
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from sb3_rmdp.envs.contract import REWARD_VECTOR, integer, scalar_reward

RewardFunction = Callable[[Any, Any, Any, dict[str, Any]], Any]


class VectorReward(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """
    Give an environment agents with a reward function each.

    The scalar reward of the wrapped environment is replaced by the mean over the agents. Observations, actions and the end of
    an episode stay as they are. Wrap below ``Monitor`` and any reward normalisation, best inside a registered id. The wrapper
    is recorded in ``env.spec``, so ``gym.make(env.spec)`` builds it again.

    ``population_id`` and ``welfare_bound`` hide those of the wrapped environment even when they are left out, because they
    would speak of other agents.

    Example::

        >>> import gymnasium as gym
        >>> import numpy as np
        >>> wanted = np.linspace(-1.0, 1.0, 5)
        >>> def closeness(obs, action, next_obs, info):
        ...     return -np.abs(next_obs[0] - wanted)
        >>> env = VectorReward(gym.make("CartPole-v1"), closeness, n_agents=5, population_id="cart-at-5-places")
        >>> _ = env.reset(seed=0)
        >>> _, reward, _, _, info = env.step(0)
        >>> info["reward_vector"].shape
        (5,)

    :param env: any gymnasium environment
    :param reward_fn: ``reward_fn(obs, action, next_obs, info) -> (n_agents,)`` rewards of one transition; ``info`` is that of
        the step. Must be a function of its arguments alone: the agents are the same in every copy of the environment
    :param n_agents: number of agents, at least 1
    :param population_id: one short line that says who the agents are; change it when ``reward_fn`` changes
    :param welfare_bound: ``welfare_bound(k)`` returns the best social welfare with ``k`` representatives, or an upper bound
    :raises ValueError: if ``n_agents`` is not a positive integer
    :raises TypeError: if ``reward_fn`` cannot be called
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        reward_fn: RewardFunction,
        n_agents: int,
        population_id: str | None = None,
        welfare_bound: Callable[[int], float] | None = None,
    ):
        if not callable(reward_fn):
            raise TypeError(f"reward_fn={reward_fn!r} cannot be called; give a function of (obs, action, next_obs, info)")
        n_agents = integer("n_agents", n_agents, minimum=1)
        RecordConstructorArgs.__init__(
            self, reward_fn=reward_fn, n_agents=n_agents, population_id=population_id, welfare_bound=welfare_bound
        )
        gym.Wrapper.__init__(self, env)
        self.reward_fn = reward_fn
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
        :return: observation, mean reward over the agents, terminated, truncated, info with ``reward_vector``
        :raises ValueError: if ``reward_fn`` does not answer with one number per agent
        """
        observation, _, terminated, truncated, info = self.env.step(action)
        # A copy in float32: what reward_fn returns may be a buffer of its own.
        rewards = np.array(self.reward_fn(self._observation, action, observation, info), dtype=np.float32)
        if rewards.shape != (self.n_agents,):
            raise ValueError(
                f"reward_fn returned shape {rewards.shape} for n_agents={self.n_agents}; "
                f"return one reward per agent, shape ({self.n_agents},)"
            )
        self._observation = _frozen(observation)
        return observation, scalar_reward(rewards), terminated, truncated, {**info, REWARD_VECTOR: rewards}


def _frozen(observation: Any) -> Any:
    """
    A copy that the environment cannot overwrite, since some environments write every observation into the same buffer.

    :param observation: of any space
    :return: an equal observation
    """
    return observation.copy() if isinstance(observation, np.ndarray) else copy.deepcopy(observation)
