"""
Gradients of an update written out, for the policies that most trainings have: shared perceptrons, Gaussian or categorical
actions.

Networks are small and minibatches many, so that most of the time of an update by autograd goes into single operations and
their bookkeeping. Here is a third of them, with the same result up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution
from torch import nn
from torch.nn import functional as F

from sb3_rmdp.common.flat_adam import FlatAdam
from sb3_rmdp.common.losses import normalize
from sb3_rmdp.common.policies import RepresentedLinear
from sb3_rmdp.represented_ppo.policies import MlpPolicy, MultiInputPolicy

if TYPE_CHECKING:
    from sb3_rmdp.represented_ppo.represented_ppo import RepresentedPPO

ACTIVATIONS = (nn.Tanh, nn.ReLU)
POLICIES = (MlpPolicy, MultiInputPolicy)


class Perceptron:
    """
    Hidden layers, their activations of the last forward pass, and the gradients of their parameters.

    :param layers: linear layers and activations in turn
    """

    def __init__(self, layers: nn.Sequential):
        self.linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
        self.is_tanh = any(isinstance(layer, nn.Tanh) for layer in layers)
        self._inputs: list[th.Tensor] = []

    def forward(self, x: th.Tensor, shift: th.Tensor | None = None) -> th.Tensor:
        """
        :param x: inputs (k * batch, in)
        :param shift: added to the first layer's output, block by block, (k, 1, hidden)
        :return: outputs (k * batch, out)
        """
        self._inputs = [x]
        for number, linear in enumerate(self.linears):
            x = th.addmm(linear.bias, x, linear.weight.t())
            if number == 0 and shift is not None:
                x.view(len(shift), -1, x.shape[1]).add_(shift)
            x = _tanh(x) if self.is_tanh else x.relu_()
            self._inputs.append(x)
        return x

    def backward(self, gradient: th.Tensor) -> th.Tensor | None:
        """
        :param gradient: of the loss with respect to the outputs, (k * batch, out); overwritten
        :return: gradient with respect to the output of the first layer before its activation; ``None`` if there is no layer
        """
        first = None
        for number in reversed(range(len(self.linears))):
            linear, x, y = self.linears[number], self._inputs[number], self._inputs[number + 1]
            if self.is_tanh:
                th.addcmul(gradient, gradient * y, y, value=-1.0, out=gradient)
            else:
                gradient.mul_(y > 0)
            th.mm(gradient.t(), x, out=linear.weight.grad)
            th.sum(gradient, 0, out=linear.bias.grad)
            first = gradient
            if number > 0:
                gradient = gradient @ linear.weight
        return first


class ManualGradients:
    """
    Losses of :class:`RepresentedPPO` and their gradients, for minibatches of k full blocks.

    One object serves one update, until :meth:`finish`. Whatever can be done for all minibatches of an epoch at once is done
    so: taking rows, normalising advantages, and what is logged.

    :param model: a model for which :meth:`fits` is true, with a rollout in its buffer
    :param clip_range: PPO's epsilon
    :param ent_coef: weight of the entropy
    """

    def __init__(self, model: RepresentedPPO, clip_range: float, ent_coef: float):
        policy, buffer = model.policy, model.rollout_buffer
        self.model, self.policy, self.k = model, policy, model.k
        self.clip_range, self.ent_coef = clip_range, ent_coef
        assert isinstance(policy.action_net, RepresentedLinear) and isinstance(policy.value_net, nn.Linear)
        self.head, self.value_net, self.shift = policy.action_net, policy.value_net, policy.mlp_extractor.shift
        self.log_std: nn.Parameter | None = getattr(policy, "log_std", None)
        self.actor = Perceptron(policy.mlp_extractor.policy_net)
        self.critic = Perceptron(policy.mlp_extractor.value_net)
        actors, critic = policy.actor_parameters(), policy.critic_parameters()
        self._adam = FlatAdam(policy.optimizer, [*actors, *critic])
        n_actor = sum(parameter.numel() for parameter in actors)
        self._gradients = self._adam.gradient[:n_actor], self._adam.gradient[n_actor:]
        # What all minibatches take their rows from; observations have passed normalisation and preprocessing once for all
        with th.no_grad():
            self._features = th.cat([policy._features(chunk.observations)[0] for chunk in buffer.chunks()])
        actions = buffer.to_torch(buffer.actions.reshape(-1, buffer.action_dim), copy=False)
        self._actions = actions.float() if self.log_std is not None else actions.long()
        self._old_log_probs, self._advantages = (
            buffer.to_torch(array.reshape(-1), copy=False) for array in (buffer.log_probs, buffer.advantages)
        )
        self._returns, self._values = (
            buffer.to_torch(array.reshape(-1, model.n_agents), copy=False) for array in (buffer.returns, buffer.values)
        )
        self._errors = self._targets = th.empty(0, device=model.device)

        self._logs: list[th.Tensor] = []
        self._sizes: list[int] = []

    @staticmethod
    def fits(model: RepresentedPPO) -> bool:
        """
        :param model: a model with a rollout in its buffer
        :return: whether its losses are among those that are written out here, and all representatives have as many transitions
        """
        policy = model.policy
        extractor = policy.mlp_extractor
        return (
            # Not a class of the user's, whose methods may compute something else
            type(policy) in POLICIES
            and type(policy.action_dist) in (DiagGaussianDistribution, CategoricalDistribution)
            and policy.share_features_extractor
            and not any(True for _ in policy.features_extractor.parameters())
            and model.clip_range_vf is None
            and all(_is_plain(net) for net in (extractor.policy_net, extractor.value_net))
            and type(policy.value_net) is nn.Linear
            and FlatAdam.fits(policy.optimizer)
            and len(set(np.bincount(model.rollout_buffer.representatives.reshape(-1), minlength=model.k))) == 1
        )

    @th.no_grad()
    def epoch(self) -> Iterator[None]:
        """Set the gradients of one minibatch after the other, all of them one epoch."""
        self._log_epoch()
        batches = [rows for rows, _ in self.model.rollout_buffer.minibatches(self.model.batch_size)]
        self._sizes = [len(rows) for rows in batches]
        self._index = th.as_tensor(np.concatenate(batches), device=self.policy.device)
        self._epoch_features, self._epoch_actions = self._features[self._index], self._actions[self._index]
        self._epoch_old, self._epoch_advantages = self._old_log_probs[self._index], self._advantages[self._index]
        if self.model.normalize_advantage:
            for blocks in self._blocks(self._epoch_advantages):
                blocks.copy_(normalize(blocks.view(-1, blocks.shape[2]), None).view_as(blocks))
        # To log: filled minibatch by minibatch
        self._log_ratios, self._surrogates = th.empty_like(self._epoch_old), th.empty_like(self._epoch_old)
        self._losses: list[tuple[th.Tensor, th.Tensor, th.Tensor]] = []
        begin = 0
        for size in self._sizes:
            self._rows = slice(begin, begin + size)
            entropy, value_loss = self._actor_gradients(self._rows), self._critic_gradients(self._rows)
            assignment_loss = th.zeros_like(entropy)
            if self.model.assignment.needs_agent_advantages:
                assignment_loss = assignment_loss + self._assignment_gradients(self._rows)
            self._losses.append((value_loss, entropy, assignment_loss))
            yield
            begin += size

    def _blocks(self, flat: th.Tensor) -> Iterator[th.Tensor]:
        """Minibatches as views (minibatches, k, batch): those that are equally long, then the last if it is shorter."""
        n_equal = sum(size == self._sizes[0] for size in self._sizes)
        split = n_equal * self._sizes[0]
        yield flat[:split].view(n_equal, self.k, -1)
        if n_equal < len(self._sizes):
            yield flat[split:].view(1, self.k, -1)

    @th.no_grad()
    def approx_kl(self) -> th.Tensor:
        """Approximate divergence of each representative in the last minibatch, (k,)."""
        log_ratio = self._log_ratios[self._rows].view(self.k, -1)
        return (log_ratio.exp() - 1.0 - log_ratio).mean(dim=1)

    @th.no_grad()
    def step(self, max_norm: float) -> None:
        """
        Take a step of the policy's optimizer.

        :param max_norm: bound of the norm of the actors' gradients, and of the critic's, as in ``clip_grad_norm_``
        """
        for gradient in self._gradients:
            gradient.mul_((max_norm / (th.linalg.vector_norm(gradient) + 1e-6)).clamp_(max=1.0))
        self._adam.step()

    def finish(self) -> None:
        """Leave policy and optimizer as PyTorch's own would have left them."""
        self._adam.finish()

    def logs(self) -> th.Tensor:
        """What there is to log of each minibatch, (minibatches, 6): see ``RepresentedPPO.train``."""
        self._log_epoch()
        return th.cat(self._logs)

    @th.no_grad()
    def _log_epoch(self) -> None:
        """Add what there is to log of the minibatches since the last call; an epoch may have broken off."""
        if not self._sizes:
            return
        columns = []
        for log_ratios, surrogates in zip(self._blocks(self._log_ratios), self._blocks(self._surrogates), strict=True):
            ratios = log_ratios.exp()
            kl = (ratios - 1.0 - log_ratios).mean(dim=2).amax(dim=1)
            clipped = ((ratios - 1.0).abs() > self.clip_range).float().mean(dim=(1, 2))
            columns.append(th.stack([-surrogates.mean(dim=2).sum(dim=1), kl, clipped]))
        policy_loss, kl, clipped = th.cat(columns, dim=1)[:, : len(self._losses)]
        value_loss, entropy, assignment_loss = (th.stack(column) for column in zip(*self._losses, strict=True))
        loss = policy_loss - self.ent_coef * entropy + self.model.vf_coef * value_loss + assignment_loss
        k = self.k
        self._logs.append(th.stack([policy_loss / k, value_loss / k, -entropy / k, kl, clipped, loss / k], dim=1))
        self._sizes = []

    def _actor_gradients(self, rows: slice) -> th.Tensor:
        """Returns the sum over representatives of the mean entropy."""
        k, head, clip_range, ent_coef = self.k, self.head, self.clip_range, self.ent_coef
        latent = self.actor.forward(self._epoch_features[rows])
        blocks = latent.view(k, -1, latent.shape[1])
        outputs = th.baddbmm(head.bias[:, None], blocks, head.weight.transpose(1, 2))  # means or logits, (k, batch, actions)
        batch = outputs.shape[1]
        actions = self._epoch_actions[rows].view(k, batch, -1)
        if self.log_std is None:
            log_probs = F.log_softmax(outputs, dim=2)
            log_prob = log_probs.gather(2, actions).squeeze(2)
        else:
            log_std = self.log_std[:, None]
            inverse = log_std.neg().exp_()
            noise = (actions - outputs).mul_(inverse)
            squares = noise.square()
            constant = log_std.sum(dim=2).add_(0.5 * math.log(2.0 * math.pi) * actions.shape[2])
            log_prob = squares.sum(dim=2).mul_(-0.5).sub_(constant)

        log_ratio = th.sub(log_prob, self._epoch_old[rows].view(k, -1), out=self._log_ratios[rows].view(k, -1))
        ratio, advantages = log_ratio.exp(), self._epoch_advantages[rows].view(k, -1)
        unclipped = ratio * advantages
        clipped = ratio.clamp_(1.0 - clip_range, 1.0 + clip_range).mul_(advantages)
        # Where the clipped term is the smaller one, it is constant
        by_log_prob = th.where(unclipped <= clipped, unclipped, 0.0).mul_(-1.0 / batch).unsqueeze_(2)
        th.minimum(unclipped, clipped, out=self._surrogates[rows].view(k, -1))

        if self.log_std is None:
            probs = log_probs.exp()
            entropies = (probs * log_probs).sum(dim=2, keepdim=True).neg_()
            entropy = entropies.mean() * k
            gradient = log_probs.add_(entropies).mul_(ent_coef / batch).sub_(by_log_prob).mul_(probs)
            gradient.scatter_add_(2, actions, by_log_prob)
        else:
            entropy = constant.sum() + 0.5 * k * actions.shape[2]
            assert self.log_std.grad is not None
            th.sum(squares.sub_(1.0).mul_(by_log_prob), 1, out=self.log_std.grad).sub_(ent_coef)
            gradient = noise.mul_(inverse).mul_(by_log_prob)
        th.bmm(gradient.transpose(1, 2), blocks, out=head.weight.grad)
        th.sum(gradient, 1, out=head.bias.grad)
        self.actor.backward(th.bmm(gradient, head.weight).view_as(latent))
        return entropy

    def _critic_gradients(self, rows: slice) -> th.Tensor:
        """Returns the sum over representatives of the mean squared error."""
        shift, head = self.shift, self.value_net
        features = self._epoch_features[rows]
        latent = self.critic.forward(features, None if shift is None else shift[:, None])
        if len(self._errors) != len(features):
            self._errors = th.empty(len(features), self.model.n_agents, device=self.policy.device)
            self._targets = th.empty_like(self._errors)
        # The two large arrays of the minibatch: written in place, since asking for memory costs more than filling it
        th.index_select(self._returns, 0, self._index[rows], out=self._targets)
        errors = th.addmm(head.bias, latent, head.weight.t(), out=self._errors).sub_(self._targets)
        weight = self.k / errors.numel()  # a mean over agents and over a block
        flat = errors.view(-1)
        value_loss = th.dot(flat, flat).mul_(weight)
        errors.mul_(2.0 * self.model.vf_coef * weight)
        th.mm(errors.t(), latent, out=head.weight.grad)
        th.sum(errors, 0, out=head.bias.grad)
        first = self.critic.backward(errors @ head.weight)
        if shift is not None and first is not None:
            th.sum(first.view(self.k, -1, first.shape[1]), 1, out=shift.grad)
        return value_loss

    def _assignment_gradients(self, rows: slice) -> th.Tensor | float:
        """Returns the assignment's loss; its few parameters are left to autograd."""
        assignment, index = self.model.assignment, self._index[rows]
        agent_advantages = (self._returns[index] - self._values[index]).view(self.k, -1, self.model.n_agents)
        ratio = self._log_ratios[rows].view(self.k, -1).exp()
        with th.enable_grad():
            loss = assignment.loss(ratio, agent_advantages, self.clip_range, None)
            if loss is None:
                return 0.0
            assert assignment.optimizer is not None
            assignment.optimizer.zero_grad()
            loss.backward()
        return loss.detach()


def _tanh(x: th.Tensor) -> th.Tensor:
    """In place. On a CPU numpy takes less than half of the time, and nothing else in an update costs more than this."""
    if x.device.type != "cpu":
        return x.tanh_()
    np.tanh(x.numpy(), out=x.numpy())
    return x


def _is_plain(net: Any) -> bool:
    """Whether a network is made of linear layers, each with a bias, and of one kind of activation in between."""
    layers = list(net)
    linears, activations = layers[::2], layers[1::2]
    kinds = {type(layer) for layer in activations}
    return (
        len(linears) == len(activations)
        and len(kinds) <= 1
        and all(kind in ACTIVATIONS for kind in kinds)
        and all(type(layer) is nn.Linear and layer.bias is not None for layer in linears)
    )
