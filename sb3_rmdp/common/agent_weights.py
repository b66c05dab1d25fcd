"""From a few numbers per transition to those of all agents, and to sums over groups of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch as th

#: Agents per product with a matrix of weights: neither a block of it nor the result gets large
BLOCK = 2**16


class AgentWeights:
    """
    Agents whose rewards, returns and values are linear in ``size`` numbers: those of agent i are ``weights[i] @ x``.

    In a plain r-MDP the numbers are the agents' own, one each, and there are no weights. With factored rewards they are
    features, and whatever is linear (rewards, returns, values, advantages, their sums over a group) need not be known for
    every agent: a million agents cost what the features do, but where each is looked at on its own.

    :param n_agents: number of agents n
    :param weights: (n_agents, size), float32; ``None`` if the numbers are the agents' own
    :param size: number of features, where weights are not at hand: in a model that was loaded without its environment;
        ``None`` if the numbers are the agents' own
    :param units: (size,) what the numbers are told in multiples of one over, if not in ones; see :meth:`balanced`
    """

    def __init__(
        self,
        n_agents: int,
        weights: th.Tensor | None = None,
        size: int | None = None,
        units: th.Tensor | None = None,
    ):
        self.n_agents = n_agents
        self.size = weights.shape[1] if weights is not None else size or n_agents
        # There may be as many features as agents
        self.factored = weights is not None or size is not None
        self._weights = weights
        self.units = units
        self._mean_square: th.Tensor | None = None

    @property
    def weights(self) -> th.Tensor:
        """
        (n_agents, size).

        :raises ValueError: if they are not at hand
        """
        if self._weights is None:
            raise ValueError(
                f"weights of {self.n_agents} agents on {self.size} reward features come with the environment and are not in a "
                "model's file: pass env to load, or call set_env"
            )
        return self._weights

    def blocks(self) -> Iterator[slice]:
        """Agents in ranges of at most :data:`BLOCK`, for what need not be known of all of them at once."""
        for start in range(0, self.n_agents, BLOCK):
            yield slice(start, min(start + BLOCK, self.n_agents))

    def of_agents(self, x: th.Tensor, agents: slice = slice(None)) -> th.Tensor:
        """
        :param x: numbers, (size, columns)
        :param agents: a range of agents, all by default
        :return: what they are for the agents, (agents, columns), in the precision of ``x``
        """
        if not self.factored:
            return x[agents]
        if self.units is not None:
            x = x / self.units.to(x)[:, None]
        # Block by block, since weights are stored in single precision
        chosen = self.weights[agents].split(BLOCK)
        return th.cat([block.to(x) @ x for block in chosen])

    def of_groups(self, alpha: th.Tensor) -> th.Tensor:
        """
        :param alpha: what each agent counts in a group, (n_agents, k), float32
        :return: what each number counts in it, (size, k): the group's sum over its agents is ``result[:, j] @ x``
        """
        if not self.factored:
            return alpha
        # In this order, since the other is several times slower for a million agents
        sums = (alpha.t() @ self.weights).t()
        return sums if self.units is None else sums / self.units[:, None]

    def mean_square(self) -> th.Tensor | None:
        """
        The matrix M for which ``x @ M @ x`` is the mean over agents of the squares of what ``x`` is for them.

        :return: (size, size); ``None`` where it is the identity divided by n_agents
        """
        if self.factored and self._mean_square is None:
            self._mean_square = self.weights.t() @ self.weights / self.n_agents
            if self.units is not None:
                self._mean_square /= self.units[:, None] * self.units
        return self._mean_square

    def balanced(self) -> AgentWeights:
        """
        The same agents, and numbers that are multiplied by ``units``: by the root mean square of their weights, so that each
        is worth about as much to the agents as any other. What learns numbers should learn these: features may be told in
        any units, and Adam takes steps of one size.

        :return: weights on such numbers; without features these very weights
        """
        mean_square = self.mean_square()
        if mean_square is None:
            return self
        units = mean_square.diagonal().sqrt()
        # A feature that nobody cares for is as good in any units
        return AgentWeights(self.n_agents, self._weights, units=th.where(units > 0, units, 1.0))
