"""Gradients of an update by autograd: for all policies and arguments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch as th
from gymnasium import spaces

from sb3_rmdp.common.buffers import RepresentedRolloutSamples
from sb3_rmdp.common.losses import block_means, clipped_objective, normalize

if TYPE_CHECKING:
    from sb3_rmdp.represented_ppo.represented_ppo import RepresentedPPO


class AutogradGradients:
    """
    Losses of :class:`RepresentedPPO` and their gradients, as they are defined; see ``ManualGradients`` for the fast ones.

    :param model: the model, with a rollout in its buffer
    :param clip_range: PPO's epsilon
    :param ent_coef: weight of the entropy
    """

    def __init__(self, model: RepresentedPPO, clip_range: float, ent_coef: float):
        self.model, self.clip_range, self.ent_coef = model, clip_range, ent_coef
        self._optimizers = [model.policy.optimizer]
        if model.assignment.optimizer is not None:
            self._optimizers.append(model.assignment.optimizer)
        self._actors, self._critic = model.policy.actor_parameters(), model.policy.critic_parameters()
        self._mean_square = model.value_weights.mean_square()
        self._approx_kl = th.zeros(model.k)
        self._logs: list[th.Tensor] = []
        self._norms: list[th.Tensor] = []

    def epoch(self) -> Iterator[None]:
        """Set the gradients of one minibatch after the other, all of them one epoch."""
        model = self.model
        with_values = model.clip_range_vf is not None or model.assignment.needs_agent_advantages
        for batch in model.rollout_buffer.get(model.batch_size, with_values):
            loss, self._approx_kl, log = self.loss(batch)
            self._logs.append(log)
            for optimizer in self._optimizers:
                optimizer.zero_grad()
            if loss.requires_grad:  # else all parameters are frozen
                loss.backward()
            yield

    def approx_kl(self) -> th.Tensor:
        """Approximate divergence of each representative in the last minibatch, (k,)."""
        return self._approx_kl

    def step(self, max_norm: float) -> None:
        """
        Take a step of the policy's optimizer.

        :param max_norm: bound of the norm of the actors' gradients, and of the critic's
        """
        self._norms += [th.nn.utils.clip_grad_norm_(parameters, max_norm) for parameters in (self._actors, self._critic)]
        self.model.policy.optimizer.step()

    def finish(self) -> None:
        """The update is over; there is nothing to tidy up."""

    def logs(self) -> th.Tensor:
        """What there is to log of each minibatch, (minibatches, 6): see ``RepresentedPPO.train``."""
        return th.stack(self._logs).detach() if self._logs else th.zeros(0, 6)

    def norms(self) -> th.Tensor:
        """Norms of the gradients of actors and critic in each step, before they were clipped, (steps, 2)."""
        return th.stack(self._norms).view(-1, 2) if self._norms else th.zeros(0, 2)

    def loss(self, batch: RepresentedRolloutSamples) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        :param batch: a minibatch
        :return: the loss, approximate divergence of each representative (k,), and what there is to log, (6,)
        """
        model, policy, k = self.model, self.model.policy, self.model.k
        actions = batch.actions.long().flatten() if isinstance(model.action_space, spaces.Discrete) else batch.actions
        values, log_prob, entropy = policy.evaluate_actions(batch.observations, actions)
        log_ratio = (log_prob - batch.old_log_prob).view(k, -1)
        ratio = log_ratio.exp()
        weights = batch.weights
        advantages = batch.advantages.view(k, -1)
        if model.normalizes_minibatches:
            advantages = normalize(advantages, weights)
        policy_loss = -block_means(clipped_objective(ratio, advantages, self.clip_range), weights).sum()

        if model.clip_range_vf is not None:
            assert batch.old_values is not None
            clip_range_vf = model.clip_range_vf(model._current_progress_remaining)  # type: ignore[operator]
            values = batch.old_values + (values - batch.old_values).clamp(-clip_range_vf, clip_range_vf)
        value_loss = block_means(self._squared_errors(batch.returns - values).view(k, -1), weights).sum()
        # Without an analytical form the entropy is estimated by the sampled log probabilities
        entropies = -log_prob if entropy is None else entropy
        entropy_loss = -block_means(entropies.view(k, -1), weights).sum()
        loss = policy_loss + self.ent_coef * entropy_loss + model.vf_coef * value_loss
        if model.assignment.needs_agent_advantages:
            assert batch.old_values is not None
            agent_advantages = (batch.returns - batch.old_values).view(k, -1, batch.returns.shape[1])
            assignment_loss = model.assignment.loss(ratio.detach(), agent_advantages, self.clip_range, weights)
            loss = loss if assignment_loss is None else loss + assignment_loss
        with th.no_grad():
            approx_kl = block_means(log_ratio.exp() - 1.0 - log_ratio, weights)
            clip_fraction = block_means(((ratio - 1.0).abs() > self.clip_range).float(), weights).mean()
            mean_losses = [x / k for x in (policy_loss, value_loss, entropy_loss)]
            log = th.stack([*mean_losses, approx_kl.max(), clip_fraction, loss / k])
        return loss, approx_kl, log

    def _squared_errors(self, errors: th.Tensor) -> th.Tensor:
        """Mean over agents of squared errors of their values, (batch,), given those of the critic's (batch, n_values)."""
        if self._mean_square is None:
            return errors.square().mean(dim=1)
        return (errors @ self._mean_square * errors).sum(dim=1)
