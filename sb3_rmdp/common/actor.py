"""
The actor in plain numpy, for collecting transitions.

A handful of observations per step is too little work for torch: modules, autograd's bookkeeping and distribution objects cost
several times what the arithmetic does. Where a policy is a plain multilayer perceptron, its weights are read without copying
and its actions are sampled here. Log probabilities are not needed before the rollout is complete.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch as th
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_rmdp.common.policies import RepresentedActorCriticPolicy, RepresentedLinear

#: Samples actions (n_envs, *action shape) for observations and the representatives (n_envs,) that act, an array that nobody
#: writes to
Actor = Callable[[np.ndarray, np.ndarray], np.ndarray]

ACTIVATIONS: dict[type[nn.Module], Callable[[np.ndarray], np.ndarray]] = {
    # In place: they get what a layer has just made
    nn.Tanh: lambda x: np.tanh(x, out=x),
    nn.ReLU: lambda x: np.maximum(x, 0.0, out=x),
}


def numpy_actor(policy: RepresentedActorCriticPolicy) -> Actor | None:
    """
    :param policy: a policy; the actor is good until its weights change
    :return: its actor; ``None`` if the policy is more than linear layers with tanh or ReLU and a Gaussian or categorical
        distribution on continuous observations, or not on the CPU
    """
    layers = list(policy.mlp_extractor.policy_net)
    plain = (
        type(policy.features_extractor) is FlattenExtractor
        and all(isinstance(layer, nn.Linear) or type(layer) in ACTIVATIONS for layer in layers)
        and isinstance(policy.action_net, RepresentedLinear)
        and isinstance(policy.action_dist, (DiagGaussianDistribution, CategoricalDistribution))
        and policy.device.type == "cpu"
        and np.issubdtype(policy.observation_space.dtype, np.floating)
    )
    return _NumpyActor(policy, layers) if plain else None


class _NumpyActor:
    """See :func:`numpy_actor`."""

    def __init__(self, policy: RepresentedActorCriticPolicy, layers: list[nn.Module]):
        assert isinstance(policy.action_net, RepresentedLinear)
        self._steps = [_step(layer) for layer in layers]
        if policy.normalizer is not None:
            moments = policy.normalizer.moments()
            assert moments is not None
            mean = moments.mean.float().numpy().ravel()
            scale = moments.scale(policy.normalizer.epsilon).numpy().ravel()
            clip = policy.normalizer.clip

            def normalize(x: np.ndarray) -> np.ndarray:
                x = x - mean
                x *= scale
                return x.clip(-clip, clip, out=x)

            self._steps.insert(0, normalize)
        self._acting: np.ndarray | None = None
        self._weight = policy.action_net.weight.detach().numpy()
        self._bias = policy.action_net.bias.detach().numpy()
        self._gaussian = isinstance(policy.action_dist, DiagGaussianDistribution)
        self._std = np.exp(policy.log_std.detach().numpy()) if self._gaussian else np.empty(0)
        self._action_shape = policy.action_space.shape or ()

    def __call__(self, obs: np.ndarray, representatives: np.ndarray) -> np.ndarray:
        x = obs.reshape(len(obs), -1).astype(np.float32, copy=False)
        for step in self._steps:
            x = step(x)
        if representatives is not self._acting:
            # Seldom: when episodes have ended
            self._acting = representatives
            self._weights, self._biases = self._weight[representatives], self._bias[representatives]
            self._stds = self._std[representatives] if self._gaussian else self._std
        output = np.matmul(self._weights, x[:, :, None])[:, :, 0]
        output += self._biases
        # Random numbers are torch's, drawn as SB3's distributions draw them
        if self._gaussian:
            noise = th.randn(output.shape).numpy()
            noise *= self._stds
            noise += output
            return noise.reshape(len(obs), *self._action_shape)
        probabilities = th.from_numpy(output).softmax(dim=1)
        # What th.multinomial does to draw one of each row, without its checks of what softmax makes sure of
        return probabilities.div_(th.empty_like(probabilities).exponential_()).argmax(dim=1).numpy()


def _step(layer: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    if isinstance(layer, nn.Linear):
        weight, bias = layer.weight.detach().numpy().T, layer.bias.detach().numpy()

        def linear(x: np.ndarray) -> np.ndarray:
            x = x @ weight
            x += bias
            return x

        return linear
    return ACTIVATIONS[type(layer)]
