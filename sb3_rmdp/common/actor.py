"""
The actor in plain numpy, for collecting transitions.

A handful of observations per step is too little work for torch: modules, autograd's bookkeeping and distribution objects cost
several times what the arithmetic does. Where a policy is a plain multilayer perceptron, its weights are read without copying
and its actions are sampled here. Log probabilities are not needed before the rollout is complete.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.distributions import DiagGaussianDistribution
from torch import nn

from sb3_rmdp.common.finite import is_finite, policy_error
from sb3_rmdp.common.normalization import ObservationNormalizer
from sb3_rmdp.common.plain_case import acts_plainly
from sb3_rmdp.common.policies import RepresentedActorCriticPolicy, RepresentedLinear

#: Samples actions (n_envs, *action shape) for observations and the representatives (n_envs,) that act
Actor = Callable[[np.ndarray, np.ndarray], np.ndarray]

ACTIVATIONS: dict[type[nn.Module], Callable[[np.ndarray], np.ndarray]] = {
    # In place: they get what a layer has just made
    nn.Tanh: lambda x: np.tanh(x, out=x),
    nn.ReLU: lambda x: np.maximum(x, 0.0, out=x),
}


def numpy_actor(policy: RepresentedActorCriticPolicy) -> Actor | None:
    """
    :param policy: a policy; numbers of its parameters and moments may change while the actor is used, objects may not
    :return: its actor; ``None`` if it is not the plain case, see :func:`sb3_rmdp.common.plain_case.acts_plainly`
    """
    return _NumpyActor(policy) if acts_plainly(policy) else None


class _NumpyActor:
    """See :func:`numpy_actor`."""

    def __init__(self, policy: RepresentedActorCriticPolicy):
        assert isinstance(policy.action_net, RepresentedLinear)
        self._policy = policy
        self._steps = [_step(layer) for layer in policy.mlp_extractor.policy_net]
        self._normalize = None if policy.normalizer is None else _Normalize(policy.normalizer, policy.observation_space.dtype)
        self._weight = policy.action_net.weight.detach().numpy()
        self._bias = policy.action_net.bias.detach().numpy()
        self._gaussian = isinstance(policy.action_dist, DiagGaussianDistribution)
        self._log_std = policy.log_std.detach().numpy() if self._gaussian else np.empty(0)
        self._action_shape = policy.action_space.shape or ()

    def __call__(self, obs: np.ndarray, representatives: np.ndarray) -> np.ndarray:
        x = obs.reshape(len(obs), -1)
        if self._normalize is not None:
            x = self._normalize(x)
        x = x.astype(np.float32, copy=False)
        for step in self._steps:
            x = step(x)
        output = np.matmul(self._weight[representatives], x[:, :, None])[:, :, 0]
        output += self._bias[representatives]
        # Random numbers are torch's, drawn as SB3's distributions draw them
        if self._gaussian:
            noise = th.randn(output.shape).numpy()
            noise *= np.exp(self._log_std[representatives])
            noise += output
            return noise.reshape(len(obs), *self._action_shape)
        if not is_finite(output):
            raise policy_error(self._policy, output, representatives)
        probabilities = th.from_numpy(output).softmax(dim=1)
        # What th.multinomial does to draw one of each row, without its checks of what softmax makes sure of
        return probabilities.div_(th.empty_like(probabilities).exponential_()).argmax(dim=1).numpy()


class _Normalize:
    """
    A policy's own normalizer, for flat observations.

    :param normalizer: of continuous observations that are no ``Dict``
    :param dtype: of observations
    """

    def __init__(self, normalizer: ObservationNormalizer, dtype: Any):
        moments = normalizer.moments()
        assert moments is not None
        self._normalizer, self._moments, self._dtype = normalizer, moments, th.from_numpy(np.empty(0, dtype)).dtype
        self._read()

    def _read(self) -> None:
        self._version = self._moments.count._version
        self._mean = self._moments.centre(self._dtype).numpy().ravel()
        self._scale = self._moments.scale(self._normalizer.epsilon).numpy().ravel()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if self._moments.count._version != self._version:
            self._read()  # somebody has loaded others
        x = x - self._mean
        x *= self._scale
        return x.clip(-self._normalizer.clip, self._normalizer.clip, out=x)


def _step(layer: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    if isinstance(layer, nn.Linear):
        weight, bias = layer.weight.detach().numpy().T, layer.bias.detach().numpy()

        def linear(x: np.ndarray) -> np.ndarray:
            x = x @ weight
            x += bias
            return x

        return linear
    return ACTIVATIONS[type(layer)]
