"""A critic of fewer values than agents: the subspace in which their rewards lie, learned from what was observed."""

from __future__ import annotations

import numpy as np
import torch as th
from torch import nn

#: Reward vectors of a rollout that are looked at, drawn at random, at least; and at least so many times the rank
SAMPLES, SAMPLES_PER_VALUE = 256, 4

#: Weight of the newest rollout in the second moments that the subspace is fitted to
MIXING = 0.1

#: Weight of the present subspace where nothing is seen, as a share of the mean square of rewards
INERTIA = 1e-6

#: What PyTorch's optimizers remember of gradients, and of their squares
MEANS, SQUARES = ("exp_avg", "momentum_buffer", "grad_avg"), ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")


class CriticBasis(nn.Module):
    """
    Agents' values as mixtures of ``rank`` numbers: ``V^i = weights[i] @ z``.

    Values are sums of rewards, so they lie in every subspace in which reward vectors lie. The one that is taken holds most of
    the second moments of reward vectors in a moving average over rollouts: a truncated singular value decomposition of
    samples of the newest one and of what is remembered of earlier ones. As policies come to reach what they could not before,
    other agents are paid, and the subspace moves. Its coordinates then turn no more than they must (the orthogonal factor
    of a polar decomposition is undone), and the critic is turned with them, so that agents' values stay what they were as
    far as the new subspace has room for them.

    ``weights`` has orthogonal columns of squared length n_agents: the squared error of z is the mean over agents of the
    squared errors of their values.

    :param n_agents: number of agents n
    :param rank: number of values, from 1 to n_agents
    :raises ValueError: if rank is out of range
    """

    weights: th.Tensor
    memory: th.Tensor

    def __init__(self, n_agents: int, rank: int):
        super().__init__()
        if isinstance(rank, bool) or not isinstance(rank, (int, np.integer)) or not 1 <= rank <= n_agents:
            raise ValueError(f"critic_rank={rank!r} for n_agents={n_agents}: choose an integer from 1 to {n_agents}, or None")
        # Any basis does for a start; this one needs no random numbers of the model
        start = np.random.RandomState(0).standard_normal((n_agents, rank))
        columns = th.as_tensor(np.linalg.qr(start)[0] * np.sqrt(n_agents), dtype=th.float32)
        self.register_buffer("weights", columns)
        # Second moments are memory^T memory. Of more directions than are used: one that comes up would otherwise drag those
        # along that are to stay, before it has replaced one that is to go
        self.register_buffer("memory", th.zeros(min(2 * rank, n_agents), n_agents))

    def project(self, reward_vectors: th.Tensor) -> th.Tensor:
        """
        :param reward_vectors: rewards of all agents, (batch, n_agents)
        :return: their coordinates, (batch, rank)
        """
        return reward_vectors @ self.weights / len(self.weights)

    def project_back(self, weights: th.Tensor) -> th.Tensor:
        """
        :param weights: of coordinates, (rank, columns)
        :return: weights of agents' rewards, (n_agents, columns), which give the same sum for any rewards
        """
        return self.weights @ weights / len(self.weights)

    @th.no_grad()
    def update(self, reward_vectors: np.ndarray) -> th.Tensor:
        """
        Follow the subspace.

        :param reward_vectors: rewards of all agents in a rollout, (transitions, n_agents), from which samples are drawn
        :return: the matrix (rank, rank) that turns old coordinates into new ones
        """
        n_agents, rank = self.weights.shape
        chosen = np.random.randint(len(reward_vectors), size=max(SAMPLES, SAMPLES_PER_VALUE * rank))
        # Inner products of what is seen with what is hardly seen need the digits
        samples = th.as_tensor(reward_vectors[chosen], device=self.weights.device).double() / len(chosen) ** 0.5
        if not bool(samples.any()):
            return th.eye(rank, device=self.weights.device)
        old, memory = self.weights.double() / n_agents**0.5, self.memory.double()
        share = MIXING if bool(memory.any()) else 1.0
        inertia = (INERTIA * samples.square().sum() / n_agents).sqrt() * old.t()
        rows = th.cat([share**0.5 * samples, (1.0 - share) ** 0.5 * memory, inertia])
        # Right singular vectors of the largest singular values, by way of the smaller Gram matrix
        largest = th.linalg.eigh(rows @ rows.t())[1].flip(1)[:, : len(memory)]
        directions = th.linalg.qr(rows.t() @ largest)[0]
        self.memory.copy_(largest.t() @ rows)
        q = directions[:, :rank]
        left, _, right = th.linalg.svd(q.t() @ old)
        q = q @ (left @ right)
        self.weights.copy_(q * n_agents**0.5)
        return (q.t() @ old).float()


@th.no_grad()
def turn_outputs(layer: nn.Linear, optimizer: th.optim.Optimizer, turn: th.Tensor) -> None:
    """
    Turn the outputs of a layer, and what the optimizer remembers of them.

    :param layer: outputs become ``turn @ outputs``
    :param optimizer: of the layer's parameters
    :param turn: (outputs, outputs)
    """
    for parameter in (layer.weight, layer.bias):
        parameter.copy_(turn @ parameter)
        for name, moment in optimizer.state.get(parameter, {}).items():
            if name in MEANS:
                moment.copy_(turn @ moment)
            elif name in SQUARES:
                # As if the squares of outputs were uncorrelated
                moment.copy_(turn.square() @ moment)
