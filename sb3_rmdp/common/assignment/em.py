"""Hard assignment by expectation-maximisation (section 3.3 of the paper)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch as th

from sb3_rmdp.common.agent_weights import AgentWeights
from sb3_rmdp.common.arguments import Count, Number
from sb3_rmdp.common.assignment.base import HardAssignment
from sb3_rmdp.common.returns import rollout_weights

#: Weight of the newest rollout in a moving average
MIXING = Number(0, 1, above=True)


class EMAssignment(HardAssignment):
    """
    Each agent goes to the representative under which it has been best off, eq. 10 and 11.

    ``Q[i, j]`` is a moving average of the return of agent i under representative j. One step of the average is taken per
    rollout in which j finished an episode, with the mean over these episodes: a less noisy sample of eq. 10's return. A
    rollout counts in proportion to its episodes (:func:`~sb3_rmdp.common.returns.rollout_weights`), and the average is divided
    by the weight it has gathered, so that early ones do not lean towards zero. A rollout without episodes changes nothing.

    Ties, among them agents who get nothing from anybody, keep their representative. A representative that would be left
    without agents gets the agent that loses least by moving: the note under eq. 14 with the choice made well.

    Returns are linear in reward features, and so is their average: with factored rewards it is kept per feature, and the
    agents' own is made of it in blocks, when they choose.

    :param mixing: weight lambda of the newest rollout in (0, 1], eq. 10
    :param warm_start: rollouts before the first reassignment; there is none either before every representative has
        finished an episode
    :raises ValueError: if an argument is wrong
    """

    takes_features: ClassVar[bool] = True

    q_table: th.Tensor
    q_weight: th.Tensor
    usual_episodes: th.Tensor
    n_updates: th.Tensor

    def __init__(self, n_agents: int, k: int, seed: int | None = None, mixing: float = 0.05, warm_start: int = 5):
        super().__init__(n_agents, k, seed)
        self.mixing = MIXING.check("mixing", mixing)
        self.warm_start = Count(0).check("warm_start", warm_start)
        self.register_buffer("q_table", th.zeros(n_agents, k, dtype=th.float64))
        self.register_buffer("q_weight", th.zeros(k, dtype=th.float64))
        self.register_buffer("usual_episodes", th.zeros(k, dtype=th.float64))
        self.register_buffer("n_updates", th.zeros((), dtype=th.int64))
        self._reset_rollout()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Files of earlier versions do not have it: the next rollout is the usual one
        state_dict.setdefault(f"{prefix}usual_episodes", th.zeros_like(self.usual_episodes))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def connect(self, reward_weights: AgentWeights, value_weights: AgentWeights) -> None:
        super().connect(reward_weights, value_weights)
        if len(self.q_table) != reward_weights.size:
            self.q_table = th.zeros(reward_weights.size, self.k, dtype=th.float64, device=self.q_table.device)
            self._reset_rollout()

    def _reset_rollout(self) -> None:
        """Forget the returns of the current rollout; they need not be saved: who goes on plays it from its beginning."""
        self._return_sum = np.zeros((self.k, len(self.q_table)))
        self._n_episodes = np.zeros(self.k, dtype=np.int64)

    def record_episodes(self, representatives: np.ndarray, returns: np.ndarray) -> None:
        np.add.at(self._return_sum, representatives, returns)
        np.add.at(self._n_episodes, representatives, 1)

    @property
    def q_rewards(self) -> th.Tensor:
        """The same of every reward that it is told of, be it an agent's or a feature's, (size, k)."""
        return self.q_table / self.q_weight.clamp(min=th.finfo(th.float64).tiny)

    @property
    def q(self) -> th.Tensor:
        """Estimate of E[return of agent i under representative j], (n_agents, k); 0 where nothing is known."""
        return self.reward_weights.of_agents(self.q_rewards)

    def _update_q(self) -> None:
        """One step of eq. 10."""
        finished = np.flatnonzero(self._n_episodes)
        weights = rollout_weights(th.from_numpy(self._n_episodes), self.usual_episodes)
        for j in finished.tolist():
            mean = th.from_numpy(self._return_sum[j] / self._n_episodes[j]).to(self.q_table)
            self.q_table[:, j] += self.mixing * (weights[j] * mean - self.q_table[:, j])
            self.q_weight[j] += self.mixing * (weights[j] - self.q_weight[j])
        self._reset_rollout()
        self.n_updates += 1

    def update(self, progress: float) -> None:
        self._update_q()
        if self.n_updates > self.warm_start and bool((self.q_weight > 0).all()):
            q = self.q_rewards
            for agents in self.reward_weights.blocks():
                block = self.reward_weights.of_agents(q, agents)
                self.served_by[agents] = greedy_representatives(block, self.served_by[agents])
            if bool((th.bincount(self.served_by, minlength=self.k) == 0).any()):
                self.served_by.copy_(fill_empty_groups(self.q, self.served_by))


def greedy_representatives(q: th.Tensor, served_by: th.Tensor) -> th.Tensor:
    """
    The best representative of each agent, eq. 11, where ties stay as they are.

    :param q: returns (n_agents, k)
    :param served_by: present representative of each agent, (n_agents,)
    :return: new representatives (n_agents,)
    """
    best, representatives = q.max(dim=1)
    present = q.gather(1, served_by[:, None])[:, 0]
    return th.where(best > present, representatives, served_by)


def fill_empty_groups(q: th.Tensor, served_by: th.Tensor) -> th.Tensor:
    """
    Give every representative without agents the agent that loses least by moving to it.

    :param q: returns (n_agents, k)
    :param served_by: representatives (n_agents,); n_agents >= k
    :return: representatives (n_agents,), each of the k at least once
    """
    served_by = served_by.clone()
    sizes = th.bincount(served_by, minlength=q.shape[1])
    for empty in th.nonzero(sizes == 0)[:, 0]:
        loss = q.gather(1, served_by[:, None])[:, 0] - q[:, empty]
        loss[sizes[served_by] == 1] = th.inf
        agent = int(loss.argmin())
        sizes[served_by[agent]] -= 1
        sizes[empty] += 1
        served_by[agent] = empty
    return served_by
