"""Turn any gymnasium environment into a represented MDP of very many agents."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from sb3_rmdp.envs.agents_wrapper import AgentsWrapper, TransitionFunction
from sb3_rmdp.envs.contract import REWARD_FEATURES
from sb3_rmdp.envs.reward_weights import RewardWeights


class FactoredReward(AgentsWrapper):
    """
    Give an environment agents who weigh the same few reward features differently: agent ``i`` earns ``w_i . phi``.

    A step then costs what ``m`` features cost, however many agents there are; a million are no trouble. Apart from that this
    is :class:`VectorReward`: the scalar reward becomes the mean over the agents, the rest of the environment stays as it is,
    and ``population_id`` and ``welfare_bound`` hide those of the wrapped environment.

    Example::

        >>> import gymnasium as gym
        >>> import numpy as np
        >>> def speed_and_calm(obs, action, next_obs, info):
        ...     return abs(next_obs[1]), 1.0 - abs(next_obs[3])
        >>> share = np.linspace(0.0, 1.0, 1000)  # how much each of a thousand agents cares for speed
        >>> env = FactoredReward(gym.make("CartPole-v1"), speed_and_calm, np.stack([share, 1.0 - share], axis=1))
        >>> env.n_agents
        1000
        >>> _ = env.reset(seed=0)
        >>> _, reward, _, _, info = env.step(0)
        >>> info["reward_features"].shape
        (2,)

    :param env: any gymnasium environment
    :param feature_fn: ``feature_fn(obs, action, next_obs, info) -> (m,)`` finite reward features ``phi`` of one transition;
        ``info`` is that of the step. Must be a function of its arguments alone, as the agents are the same in every copy
    :param reward_weights: (n_agents, m) finite weights, one row per agent. All copies of the environment in a process share
        one ``float32`` array, see :class:`RewardWeights`
    :param population_id: one short line that says who the agents are, which has to change with the weights *and* with
        ``feature_fn``; by default one that changes with the weights only
    :param welfare_bound: ``welfare_bound(k)`` returns the best social welfare with ``k`` representatives, or an upper bound
    :raises ValueError: if ``reward_weights`` are not finite numbers of two dimensions, or empty
    :raises TypeError: if ``feature_fn`` cannot be called
    """

    key = REWARD_FEATURES
    function_name = "feature_fn"

    def __init__(
        self,
        env: gym.Env[Any, Any],
        feature_fn: TransitionFunction,
        reward_weights: np.ndarray | Sequence[Sequence[float]] | RewardWeights,
        population_id: str | None = None,
        welfare_bound: Callable[[int], float] | None = None,
    ):
        weights = RewardWeights(reward_weights)
        RecordConstructorArgs.__init__(
            self, feature_fn=feature_fn, reward_weights=weights, population_id=population_id, welfare_bound=welfare_bound
        )
        if population_id is None:
            population_id = weights.population_id
        super().__init__(env, feature_fn, len(weights.array), population_id, welfare_bound)
        self.feature_fn = feature_fn
        self._weights = weights

    @property
    def reward_weights(self) -> np.ndarray:
        """(n_agents, m) float32, read-only."""
        return self._weights.array

    def _mean_reward(self, values: np.ndarray) -> float:
        """See the base class; features that are not finite are refused here, where it is known which."""
        shape = self.reward_weights.shape
        if values.shape != shape[1:]:
            raise ValueError(
                f"feature_fn returned shape {values.shape} for reward_weights of shape {shape}; "
                f"return one number per column of the weights, shape ({shape[1]},)"
            )
        if not np.isfinite(values).all():
            feature = int(np.argmin(np.isfinite(values)))
            raise ValueError(f"feature_fn returned {values[feature]} as feature {feature}; return finite features")
        return float(self._weights.mean_reward(values))
