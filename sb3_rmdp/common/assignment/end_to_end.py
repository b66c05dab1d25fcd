"""Soft assignment learned with the actors (section 3.4 of the paper)."""

from __future__ import annotations

from typing import ClassVar

import torch as th
from torch import nn

from sb3_rmdp.common.arguments import LARGEST_COEFFICIENT, Flag, Number
from sb3_rmdp.common.assignment.base import Assignment
from sb3_rmdp.common.losses import block_means, clipped_slope

#: Transitions of a block that are equal by chance too seldom to matter
MANY = 16


class EndToEndAssignment(Assignment):
    """
    ``alpha`` is the softmax of logits ``psi`` (n_agents, k), which descend eq. 12 in the same backward pass as the actors,
    with an Adam of their own (the policy's learning-rate schedule must not overwrite theirs).

    The actors' advantages are centred per representative. Centred advantages have a zero mean, and with them the gradient
    of ``psi`` at ratio 1, where every update begins, is zero as well. Here they are scaled, but not centred.

    :param learning_rate: Adam's, for the logits (appendix B: 2e-3)
    :param centred: centre the advantages as the code that accompanies the paper does
    :param init_std: standard deviation of the initial logits. Equal logits are a saddle point: all representatives would
        have the same objective.
    :raises ValueError: if an argument is wrong
    """

    needs_agent_advantages: ClassVar[bool] = True
    takes_features: ClassVar[bool] = True

    def __init__(
        self,
        n_agents: int,
        k: int,
        seed: int | None = None,
        learning_rate: float = 2e-3,
        centred: bool = False,
        init_std: float = 0.1,
    ):
        super().__init__(n_agents, k, seed)
        learning_rate = Number(0, 100, above=True).check("learning_rate", learning_rate)
        init_std = Number(0, LARGEST_COEFFICIENT).check("init_std", init_std)
        self.centred = Flag().check("centred", centred)
        generator = th.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        self.logits = nn.Parameter(init_std * th.randn(n_agents, k, generator=generator))
        self.optimizer = th.optim.Adam([self.logits], lr=learning_rate)

    @property
    def alpha(self) -> th.Tensor:
        return self.logits.softmax(dim=1)

    def loss(
        self, ratio: th.Tensor, agent_advantages: th.Tensor, clip_range: float, weights: th.Tensor | None
    ) -> th.Tensor | None:
        alpha = self.value_weights.of_groups(self.weighted_alpha)
        # But for where the clip sets in, the objective is linear in alpha. Its slope is worked out without autograd, whose
        # bookkeeping takes longer. The scale makes representatives comparable and is a constant for the gradient
        with th.no_grad():
            advantages = th.bmm(agent_advantages, alpha.t()[:, :, None])[:, :, 0]
            means = block_means(advantages, weights)[:, None]
            scale = spreads(advantages, weights)[:, None]
            if self.centred:
                advantages = advantages - means
            slopes = clipped_slope(ratio, advantages, clip_range) / scale
            if self.centred:
                slopes = slopes - block_means(slopes, weights)[:, None]
            share = 1.0 / ratio.shape[1] if weights is None else weights / weights.sum(dim=1, keepdim=True).clamp(min=1.0)
            gains = th.bmm((slopes * share)[:, None], agent_advantages)[:, 0]
        return -(gains.t() * alpha).sum()


def spreads(advantages: th.Tensor, weights: th.Tensor | None) -> th.Tensor:
    """
    What the advantages of each representative are divided by: their standard deviation.

    A single transition has none, nor have a few in which the same was done by chance, and a gradient divided by (almost)
    nothing would fill Adam's second moments for tens of thousands of minibatches. Such blocks take the mean of the others
    instead. A spread is told from none by the root mean square, the more easily the more transitions there are: of two that
    are almost equal by chance, it says as little as of one. Of :data:`MANY` it is always told: a representative that does the
    same in all of them has settled, and agents that it does not suit must still be able to leave it.

    :param advantages: (k, batch)
    :param weights: 1 for a transition, 0 for padding, (k, batch); ``None`` if nothing is padded
    :return: (k,), above 0; where no block has a spread the root mean square of all, and 1 if that is 0
    """
    means = block_means(advantages, weights)[:, None]
    own = block_means((advantages - means) ** 2, weights).sqrt()
    squares = block_means(advantages**2, weights)
    counts = th.full_like(own, advantages.shape[1]) if weights is None else weights.sum(dim=1)
    known = (own * counts**2 > squares.sqrt()) | (counts >= MANY)
    own = own + 1e-8
    of_others = th.where(known, own, 0.0).sum() / known.sum().clamp(min=1)
    usual = th.where(known.any(), of_others, squares.mean().sqrt())
    return th.where(known, own, th.where(usual > 0.0, usual, 1.0))
