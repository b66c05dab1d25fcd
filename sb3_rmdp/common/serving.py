"""Acting from several threads at once: what one call works with must not be seen by another."""

from __future__ import annotations

import copy
from typing import TypeVar

from stable_baselines3.common import distributions
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

SomeModule = TypeVar("SomeModule", bound=nn.Module)
SomeDistribution = TypeVar("SomeDistribution", bound=Distribution)


def own_distribution(shared: SomeDistribution) -> SomeDistribution:
    """
    A distribution for one call. SB3 gives the parameters of every batch to the same object, from which threads would read
    each other's.

    :param shared: the policy's
    :return: a copy; exploration matrices of gSDE are shared. The object itself if its class is not one of SB3's, or a
        method was set on it, since it may remember what it drew, as noise that is correlated in time does
    """
    known = type(shared).__module__ == distributions.__name__
    replaced = any(callable(getattr(type(shared), name, None)) for name in vars(shared))
    return copy.copy(shared) if known and not replaced else shared


def of_one_call(policy: ActorCriticPolicy) -> ActorCriticPolicy:
    """
    :param policy: one of SB3's own
    :return: the same for one call of ``predict``, with a distribution of its own
    """
    own = copy.copy(policy)
    own.action_dist = own_distribution(policy.action_dist)
    return own


def evaluating(module: SomeModule) -> SomeModule:
    """
    A module in evaluation mode. Switching the module itself would switch off dropout in an update that runs in another thread.

    :param module: any
    :return: the module itself if it is in evaluation mode; else a twin with the same parameters and buffers that is
    """
    return _twin(module) if any(part.training for part in module.modules()) else module


def _twin(module: SomeModule) -> SomeModule:
    twin = copy.copy(module)
    twin.__dict__["_modules"] = {name: None if part is None else _twin(part) for name, part in module._modules.items()}
    twin.training = False
    return twin
