"""What every assignment of agents to representatives has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch as th
from torch import nn

from sb3_rmdp.common.agent_weights import AgentWeights
from sb3_rmdp.common.trajectories import Lesson, Trajectory


class Assignment(nn.Module, ABC):
    """
    Who serves whom: the matrix ``alpha`` (n_agents, k) of eq. 2, rows summing to 1.

    An assignment is told what happened (returns of finished episodes, reward vectors), may change its mind once per rollout
    (:meth:`update`) and, if it learns by gradient, adds a loss to the actors' (:meth:`loss`). It never sees an environment,
    a policy or a buffer. It is an ``nn.Module`` so that everything it has learned, being buffers and parameters, travels
    in the model's zip file.

    With factored rewards, returns and rewards can be told per feature, from which :attr:`reward_weights` makes those of the
    agents; methods that do so cost little with a million agents (:attr:`takes_features`).

    :param n_agents: number of agents n
    :param k: number of representatives
    :param seed: seed of whatever the method draws at random; ``None`` draws afresh
    """

    #: True if :meth:`loss` wants the advantages of every agent: they are gathered per minibatch only on demand.
    needs_agent_advantages: ClassVar[bool] = False
    #: True if the method wants to know what was seen and done in episodes, beside what they paid
    needs_trajectories: ClassVar[bool] = False
    #: False if rewards in trajectories are only looked at while they are told: they are then views of a rollout, which change
    copies_rewards: ClassVar[bool] = True
    #: True if factored rewards are to be told as they are, one number per feature; else they are told agent by agent.
    takes_features: ClassVar[bool] = False
    #: Optimizer of the parameters, if there are any; stepped with the policy's, saved in the zip.
    optimizer: th.optim.Optimizer | None = None
    #: What each agent counts in social welfare, (n_agents,), set by the model before an update; ``None`` if all count alike
    importance: th.Tensor | None = None

    def __init__(self, n_agents: int, k: int, seed: int | None = None):
        super().__init__()
        self.n_agents = n_agents
        self.k = k
        self.seed = seed
        #: How agents' rewards and returns come from those that the method is told of, if it takes features
        self.reward_weights = AgentWeights(n_agents)
        #: How agents' advantages come from those that :meth:`loss` is given
        self.value_weights = AgentWeights(n_agents)

    def connect(self, reward_weights: AgentWeights, value_weights: AgentWeights) -> None:
        """
        Learn about an environment's rewards; called by the model when it is made or gets another environment.

        :param reward_weights: of the agents on what the environment pays
        :param value_weights: of the agents on the critic's values
        """
        self.reward_weights, self.value_weights = reward_weights, value_weights

    @property
    @abstractmethod
    def alpha(self) -> th.Tensor:
        """Assignment probabilities (n_agents, k), float32, differentiable where they are learned by gradient."""

    @property
    def weighted_alpha(self) -> th.Tensor:
        """What each agent counts for each representative: ``alpha``, in proportion to ``importance``, (n_agents, k)."""
        return self.alpha if self.importance is None else self.alpha * self.importance[:, None]

    @property
    def probabilities(self) -> np.ndarray:
        """Assignment probabilities (n_agents, k) as float32 numpy array; rows sum to 1."""
        return self.alpha.detach().cpu().numpy()

    @property
    def representatives(self) -> np.ndarray:
        """The most probable representative of each agent, int64 of shape (n_agents,)."""
        return self.alpha.detach().argmax(dim=1).cpu().numpy()

    def record_episodes(self, representatives: np.ndarray, returns: np.ndarray) -> None:
        """
        Take note of finished episodes, as they finish.

        :param representatives: who acted in each episode, (n_episodes,)
        :param returns: undiscounted returns of all agents in each episode, (n_episodes, n_agents); or of all features
        """

    def record_trajectories(self, trajectories: list[Trajectory], returns: list[np.ndarray]) -> None:
        """
        Take note of what was seen and done in the episodes that finished in a rollout; called if :attr:`needs_trajectories`.
        Those of more than 64 MiB are left out.

        :param trajectories: of the episodes; rewards in them are as the environment tells them, be it of agents or of features
        :param returns: undiscounted returns of all agents in each, (n_agents,); or of all features
        """

    def record_rewards(self, representatives: np.ndarray, reward_vectors: np.ndarray) -> None:
        """
        Take note of a whole rollout, before its rewards are turned into returns (copy what is to be kept).

        :param representatives: who acted, (n_steps, n_envs)
        :param reward_vectors: rewards of all agents, (n_steps, n_envs, n_agents); or of all features
        """

    def update(self, progress: float) -> None:
        """
        Reassign agents; called once after every rollout, before the policies are updated.

        :param progress: share of the training that is done, from 0 to 1
        """

    def get_run_state(self) -> dict[str, Any]:
        """
        What a training that goes on needs beside the buffers and parameters that the model's file holds: generators of random
        numbers, what is remembered of earlier rollouts. Asked for at the beginning of every rollout.

        :return: numbers, strings, arrays, and lists, tuples and dicts of them; nothing in it changes any more
        """
        return {}

    def set_run_state(self, state: dict[str, Any]) -> None:
        """
        Go on with a training. Buffers and parameters are set already.

        :param state: from :meth:`get_run_state`
        """

    def lessons(self) -> list[Lesson]:
        """
        What representatives are to learn from episodes in the update that follows; at most one lesson for each. Asked for
        the log and for the update, so nothing is to change by it.
        """
        return []

    def loss(
        self, ratio: th.Tensor, agent_advantages: th.Tensor, clip_range: float, weights: th.Tensor | None
    ) -> th.Tensor | None:
        """
        The assignment's own loss on one minibatch, added to the actors' before the backward pass.

        :param ratio: probability ratios of the taken actions, (k, batch), without gradient
        :param agent_advantages: advantages of every agent, (k, batch, n_agents), without gradient; or of each of the critic's
            values, of which :attr:`value_weights` makes the agents'
        :param clip_range: PPO's epsilon
        :param weights: 1 for a transition, 0 for padding, (k, batch); ``None`` if nothing is padded
        :return: a scalar, or ``None`` if the method does not learn by gradient
        """
        return None


class HardAssignment(Assignment):
    """
    An assignment that gives each agent exactly one representative; starts round robin (agent i to i mod k), so that every
    representative has agents from the first update on.
    """

    served_by: th.Tensor

    def __init__(self, n_agents: int, k: int, seed: int | None = None):
        super().__init__(n_agents, k, seed)
        self.register_buffer("served_by", th.arange(n_agents) % k)

    @property
    def alpha(self) -> th.Tensor:
        zeros = th.zeros(self.n_agents, self.k, device=self.served_by.device)
        return zeros.scatter_(1, self.served_by[:, None], 1.0)
