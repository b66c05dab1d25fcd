"""Terms of losses over minibatches of k blocks, one per representative."""

from __future__ import annotations

import torch as th


def clipped_objective(ratio: th.Tensor, advantages: th.Tensor, clip_range: float) -> th.Tensor:
    """
    PPO's surrogate per transition, eq. 15 without the sign.

    :param ratio: probability ratios
    :param advantages: of the same shape
    :param clip_range: epsilon
    """
    return th.min(ratio * advantages, ratio.clamp(1.0 - clip_range, 1.0 + clip_range) * advantages)


def clipped_slope(ratio: th.Tensor, advantages: th.Tensor, clip_range: float) -> th.Tensor:
    """
    What :func:`clipped_objective` multiplies advantages with.

    :param ratio: probability ratios
    :param advantages: of the same shape
    :param clip_range: epsilon
    """
    return th.where(advantages < 0.0, ratio.clamp(min=1.0 - clip_range), ratio.clamp(max=1.0 + clip_range))


def block_means(x: th.Tensor, weights: th.Tensor | None) -> th.Tensor:
    """
    :param x: (k, batch)
    :param weights: 1 for a transition, 0 for padding, (k, batch); ``None`` if nothing is padded
    :return: mean of each block (k,); 0 for a block of nothing but padding
    """
    if weights is None:
        return x.mean(dim=1)
    return (x * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


def normalize(advantages: th.Tensor, weights: th.Tensor | None) -> th.Tensor:
    """
    Zero mean and unit standard deviation per representative. SB3's small epsilon is safe here: a representative without
    agents has advantages that are exactly 0, and stay so.

    :param advantages: (k, batch)
    :param weights: 1 for a transition, 0 for padding, (k, batch); ``None`` if nothing is padded
    :return: (k, batch); blocks of a single transition are left as they are
    """
    if weights is None:
        if advantages.shape[1] == 1:
            return advantages
        return (advantages - advantages.mean(dim=1, keepdim=True)) / (advantages.std(dim=1, keepdim=True) + 1e-8)
    counts = weights.sum(dim=1, keepdim=True)
    centred = advantages - block_means(advantages, weights)[:, None]
    std = ((centred**2 * weights).sum(dim=1, keepdim=True) / (counts - 1.0).clamp(min=1.0)).sqrt()
    return th.where(counts > 1.0, centred / (std + 1e-8), advantages)
