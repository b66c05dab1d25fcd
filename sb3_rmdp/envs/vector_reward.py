"""Turn any gymnasium environment into a represented MDP."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from sb3_rmdp.envs.agents_wrapper import AgentsWrapper, TransitionFunction
from sb3_rmdp.envs.contract import REWARD_VECTOR, integer, scalar_reward


class VectorReward(AgentsWrapper):
    """
    Give an environment agents with a reward function each.

    The scalar reward of the wrapped environment is replaced by the mean over the agents. Observations, actions and the end of
    an episode stay as they are. Wrap below ``Monitor`` and any reward normalisation, best inside a registered id. The wrapper
    is recorded in ``env.spec``, so ``gym.make(env.spec)`` builds it again.

    ``population_id`` and ``welfare_bound`` hide those of the wrapped environment even when they are left out, because they
    would speak of other agents. For very many agents whose rewards are sums of the same few terms see
    :class:`FactoredReward`.

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

    key = REWARD_VECTOR
    function_name = "reward_fn"
    #: Hides that of a factored environment inside.
    reward_weights: np.ndarray | None = None

    def __init__(
        self,
        env: gym.Env[Any, Any],
        reward_fn: TransitionFunction,
        n_agents: int,
        population_id: str | None = None,
        welfare_bound: Callable[[int], float] | None = None,
    ):
        n_agents = integer("n_agents", n_agents, minimum=1)
        RecordConstructorArgs.__init__(
            self, reward_fn=reward_fn, n_agents=n_agents, population_id=population_id, welfare_bound=welfare_bound
        )
        super().__init__(env, reward_fn, n_agents, population_id, welfare_bound)
        self.reward_fn = reward_fn

    def _mean_reward(self, values: np.ndarray) -> float:
        """See the base class."""
        if values.shape != (self.n_agents,):
            raise ValueError(
                f"reward_fn returned shape {values.shape} for n_agents={self.n_agents}; "
                f"return one reward per agent, shape ({self.n_agents},)"
            )
        return scalar_reward(values)
