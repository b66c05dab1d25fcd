"""
SB3's actor-critic policy with normalisation of observations in front.

The text of this file travels in exported models and is run where they are loaded, so that neither sb3_rmdp nor a certain
version of Python is needed there: it must import nothing but torch and SB3, and define all it uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from torch import nn


class Normalization(nn.Module):
    """
    ``clip((x - mean) * factor, -limit, limit)`` in the precision of what is larger, x or mean.

    :param shape: shape of one observation
    :param double: whether mean and factor have 64 bits instead of 32
    :param limit: largest absolute value of a normalised observation
    """

    mean: th.Tensor
    factor: th.Tensor

    def __init__(self, shape: tuple[int, ...], double: bool, limit: float):
        super().__init__()
        dtype = th.float64 if double else th.float32
        self.limit = limit
        self.register_buffer("mean", th.zeros(shape, dtype=dtype))
        self.register_buffer("factor", th.ones(shape, dtype=dtype))

    def forward(self, obs: th.Tensor) -> th.Tensor:
        """
        :param obs: (batch, *shape)
        :return: the same normalised, float32
        """
        return ((obs - self.mean) * self.factor).clamp(-self.limit, self.limit).float()


class NormalizingPolicy(BasePolicy):
    """
    Normalises observations where all policies of SB3 take features of them.

    :param normalizations: what is done to observations, in this order: key in a ``Dict`` of them, or ``""`` for observations
        that are none, and arguments of :class:`Normalization`
    """

    normalizations: Sequence[tuple[str, dict[str, Any]]]
    normalizers: nn.ModuleList

    def extract_features(self, obs: Any, features_extractor: Any) -> Any:
        """
        :param obs: raw observations (batch, ...), or a dict of them
        :param features_extractor: see SB3
        :return: features of normalised observations
        """
        for (key, _), normalizer in zip(self.normalizations, self.normalizers):  # noqa: B905 (equal in length)
            obs = {**obs, key: normalizer(obs[key])} if isinstance(obs, dict) else normalizer(obs)
        return super().extract_features(obs, features_extractor)


class NormalizingActorCriticPolicy(ActorCriticPolicy, NormalizingPolicy):
    """
    SB3's policy of actor and critic, which takes raw observations.

    :param args: see SB3
    :param normalizations: see :class:`NormalizingPolicy`, which comes after SB3's policy in the order of base classes, where
        this looks for how to take features
    :param kwargs: see SB3
    """

    def __init__(self, *args: Any, normalizations: Sequence[tuple[str, dict[str, Any]]], **kwargs: Any):
        self.normalizations = normalizations
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Any) -> None:
        # A list, since names of modules must not hold what keys of observations may hold
        self.normalizers = nn.ModuleList(Normalization(**arguments) for _, arguments in self.normalizations)
        super()._build(lr_schedule)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "normalizations": self.normalizations}
