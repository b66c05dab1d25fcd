"""
Losses and gradients of some of the blocks of a minibatch, written out.

A minibatch has a block of transitions for every representative. Blocks share trunks and the critic's last layer, so that
gradients of several ranges of blocks add up, and each range can be taken by a thread of its own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_rmdp.common.policies import RepresentedActorCriticPolicy, RepresentedLinear


class Epoch(NamedTuple):
    """
    All transitions in the order of an epoch's minibatches, T of them, to read; the last two to write, for what is logged.

    :param features: what trunks take, (T, features)
    :param actions: (T, actions) float32, or int64 if there are finitely many
    :param old_log_probs: (T,)
    :param advantages: (T,)
    :param positions: in the rollout, (T,)
    :param returns: of the rollout, in its own order, (transitions, n_values)
    :param log_ratios: of probabilities, (T,)
    :param surrogates: what actors ascend, (T,)
    """

    features: th.Tensor
    actions: th.Tensor
    old_log_probs: th.Tensor
    advantages: th.Tensor
    positions: th.Tensor
    returns: th.Tensor
    log_ratios: th.Tensor
    surrogates: th.Tensor


class Coefficients(NamedTuple):
    """
    Numbers of an update.

    :param clip_range: PPO's epsilon
    :param ent_coef: weight of the entropy
    :param vf_coef: weight of the critic's loss
    :param mean_square: see :meth:`AgentWeights.mean_square`
    """

    clip_range: float
    ent_coef: float
    vf_coef: float
    mean_square: th.Tensor | None


class Perceptron:
    """
    Hidden layers, their activations of the last forward pass, and the gradients of their parameters.

    :param layers: linear layers and activations in turn
    :param gradients: where the gradient of a parameter goes
    """

    def __init__(self, layers: nn.Sequential, gradients: dict[th.Tensor, th.Tensor]):
        self.layers = [
            (layer.weight, layer.bias, gradients[layer.weight], gradients[layer.bias])
            for layer in layers
            if isinstance(layer, nn.Linear)
        ]
        self.is_tanh = any(isinstance(layer, nn.Tanh) for layer in layers)
        self._inputs: list[th.Tensor] = []

    def forward(self, x: th.Tensor, shift: th.Tensor | None = None) -> th.Tensor:
        """
        :param x: inputs (blocks * batch, in)
        :param shift: added to the first layer's output, block by block, (blocks, 1, hidden)
        :return: outputs (blocks * batch, out)
        """
        self._inputs = [x]
        for number, (weight, bias, _, _) in enumerate(self.layers):
            x = th.addmm(bias, x, weight.t())
            if number == 0 and shift is not None:
                x.view(len(shift), -1, x.shape[1]).add_(shift)
            x = _tanh(x) if self.is_tanh else x.relu_()
            self._inputs.append(x)
        return x

    def backward(self, gradient: th.Tensor) -> th.Tensor | None:
        """
        :param gradient: of the loss with respect to the outputs, (blocks * batch, out); overwritten
        :return: gradient with respect to the output of the first layer before its activation; ``None`` if there is no layer
        """
        first = None
        for number in reversed(range(len(self.layers))):
            weight, _, weight_gradient, bias_gradient = self.layers[number]
            x, y = self._inputs[number], self._inputs[number + 1]
            if self.is_tanh:
                th.addcmul(gradient, gradient * y, y, value=-1.0, out=gradient)
            else:
                gradient.mul_(y > 0)
            th.mm(gradient.t(), x, out=weight_gradient)
            th.sum(gradient, 0, out=bias_gradient)
            first = gradient
            if number > 0:
                gradient = gradient @ weight
        return first


class BlockGradients:
    """
    Gradients of a range of blocks.

    :param policy: a policy whose gradients are written out here, see ``ManualGradients.fits``
    :param blocks: the range, (first, behind the last)
    :param gradients: where the gradient of a parameter goes; of parameters with a row per representative only those of the
        blocks are written
    :param coefficients: of the update
    """

    def __init__(
        self,
        policy: RepresentedActorCriticPolicy,
        blocks: tuple[int, int],
        gradients: dict[th.Tensor, th.Tensor],
        coefficients: Coefficients,
    ):
        head, value_net, extractor = policy.action_net, policy.value_net, policy.mlp_extractor
        assert isinstance(head, RepresentedLinear) and isinstance(value_net, nn.Linear)
        self.blocks, own = blocks, slice(*blocks)
        self.n_blocks = blocks[1] - blocks[0]
        self.coefficients = coefficients
        self.actor = Perceptron(extractor.policy_net, gradients)
        self.critic = Perceptron(extractor.value_net, gradients)
        self._head = [x.detach()[own] for x in (head.weight, head.bias, gradients[head.weight], gradients[head.bias])]
        self._values = value_net.weight, value_net.bias, gradients[value_net.weight], gradients[value_net.bias]
        log_std: nn.Parameter | None = getattr(policy, "log_std", None)
        shift = extractor.shift
        self._log_std = None if log_std is None else (log_std.detach()[own], gradients[log_std][own])
        self._shift = None if shift is None else (shift.detach()[own], gradients[shift][own])
        self._errors = th.empty(0, device=policy.device)

    def gradients(self, epoch: Epoch, begin: int, batch: int) -> tuple[th.Tensor, th.Tensor]:
        """
        Set the gradients of a minibatch.

        :param epoch: its epoch
        :param begin: where it begins there
        :param batch: its transitions per representative
        :return: sums over the blocks of the mean entropy and of the mean squared error
        """
        return self.actor_gradients(epoch, begin, batch), self.critic_gradients(epoch, begin, batch)

    @th.no_grad()
    def actor_gradients(self, epoch: Epoch, begin: int, batch: int) -> th.Tensor:
        """See :meth:`gradients`; returns the sum over blocks of the mean entropy."""
        rows = slice(begin + self.blocks[0] * batch, begin + self.blocks[1] * batch)
        clip_range, ent_coef, blocks = self.coefficients.clip_range, self.coefficients.ent_coef, self.n_blocks
        weight, bias, weight_gradient, bias_gradient = self._head
        latent = self.actor.forward(epoch.features[rows])
        latent_blocks = latent.view(blocks, -1, latent.shape[1])
        # Means or logits, (blocks, batch, actions)
        outputs = th.baddbmm(bias[:, None], latent_blocks, weight.transpose(1, 2))
        actions = epoch.actions[rows].view(blocks, batch, -1)
        if self._log_std is None:
            log_probs = F.log_softmax(outputs, dim=2)
            log_prob = log_probs.gather(2, actions).squeeze(2)
        else:
            log_std = self._log_std[0][:, None]
            inverse = log_std.neg().exp_()
            noise = (actions - outputs).mul_(inverse)
            squares = noise.square()
            constant = log_std.sum(dim=2).add_(0.5 * math.log(2.0 * math.pi) * actions.shape[2])
            log_prob = squares.sum(dim=2).mul_(-0.5).sub_(constant)

        log_ratio = th.sub(log_prob, epoch.old_log_probs[rows].view(blocks, -1), out=epoch.log_ratios[rows].view(blocks, -1))
        ratio, advantages = log_ratio.exp(), epoch.advantages[rows].view(blocks, -1)
        unclipped = ratio * advantages
        clipped = ratio.clamp_(1.0 - clip_range, 1.0 + clip_range).mul_(advantages)
        # Where the clipped term is the smaller one, it is constant. What is not a number is neither, and must not become 0
        by_log_prob = th.where(unclipped > clipped, 0.0, unclipped).mul_(-1.0 / batch).unsqueeze_(2)
        th.minimum(unclipped, clipped, out=epoch.surrogates[rows].view(blocks, -1))

        if self._log_std is None:
            probs = log_probs.exp()
            entropies = (probs * log_probs).sum(dim=2, keepdim=True).neg_()
            entropy = entropies.mean() * blocks
            gradient = log_probs.add_(entropies).mul_(ent_coef / batch).sub_(by_log_prob).mul_(probs)
            gradient.scatter_add_(2, actions, by_log_prob)
        else:
            entropy = constant.sum() + 0.5 * blocks * actions.shape[2]
            th.sum(squares.sub_(1.0).mul_(by_log_prob), 1, out=self._log_std[1]).sub_(ent_coef)
            gradient = noise.mul_(inverse).mul_(by_log_prob)
        th.bmm(gradient.transpose(1, 2), latent_blocks, out=weight_gradient)
        th.sum(gradient, 1, out=bias_gradient)
        self.actor.backward(th.bmm(gradient, weight).view_as(latent))
        return entropy

    @th.no_grad()
    def critic_gradients(self, epoch: Epoch, begin: int, batch: int) -> th.Tensor:
        """See :meth:`gradients`; returns the sum over blocks of the mean squared error, a mean over agents as well."""
        rows = slice(begin + self.blocks[0] * batch, begin + self.blocks[1] * batch)
        blocks, mean_square = self.n_blocks, self.coefficients.mean_square
        weight, bias, weight_gradient, bias_gradient = self._values
        features = epoch.features[rows]
        latent = self.critic.forward(features, None if self._shift is None else self._shift[0][:, None])
        if len(self._errors) != len(features):
            self._errors = th.empty(len(features), epoch.returns.shape[1], device=features.device)
        # The one large array of the minibatch: asking for memory, or going through it once more, costs as much as the products
        errors = th.index_select(epoch.returns, 0, epoch.positions[rows], out=self._errors)
        errors.addmm_(latent, weight.t(), beta=-1.0).add_(bias)
        if mean_square is None:
            scale, weighted = blocks / errors.numel(), errors
        else:
            scale, weighted = blocks / len(errors), errors @ mean_square
        value_loss = th.dot(errors.view(-1), weighted.view(-1)).mul_(scale)
        scale *= 2.0 * self.coefficients.vf_coef
        th.addmm(weight_gradient, weighted.t(), latent, beta=0.0, alpha=scale, out=weight_gradient)
        th.sum(weighted, 0, out=bias_gradient).mul_(scale)
        first = self.critic.backward(th.addmm(latent, weighted, weight, beta=0.0, alpha=scale))
        if self._shift is not None and first is not None:
            th.sum(first.view(blocks, -1, first.shape[1]), 1, out=self._shift[1])
        return value_loss


def _tanh(x: th.Tensor) -> th.Tensor:
    """In place. On a CPU numpy takes less than half of the time, and nothing else in an update costs more than this."""
    if x.device.type != "cpu":
        return x.tanh_()
    np.tanh(x.numpy(), out=x.numpy())
    return x
