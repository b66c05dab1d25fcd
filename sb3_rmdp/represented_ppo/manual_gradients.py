"""
Gradients of an update written out, for the policies that most trainings have: shared perceptrons, Gaussian or categorical
actions.

Networks are small and minibatches many, so that most of the time of an update by autograd goes into single operations and
their bookkeeping. Here is a third of them, with the same result up to rounding. Large minibatches are cut into ranges of
representatives, which stay in a core's cache and which threads share among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from torch import nn

from sb3_rmdp.common.flat_adam import FlatAdam
from sb3_rmdp.common.losses import normalize
from sb3_rmdp.common.plain_case import learns_plainly
from sb3_rmdp.common.team import Team
from sb3_rmdp.represented_ppo.block_gradients import BlockGradients, Coefficients, Epoch

if TYPE_CHECKING:
    from sb3_rmdp.represented_ppo.represented_ppo import RepresentedPPO

#: Numbers that the layers of a range of representatives put out, above which a minibatch is cut into more ranges
RANGE_ENTRIES = 2**20

#: The same for an undivided minibatch, below which handing over tasks takes longer than threads save
SHARED_ENTRIES = 2**16


class ManualGradients:
    """
    Losses of :class:`RepresentedPPO` and their gradients, for minibatches of k full blocks.

    One object serves one update, until :meth:`finish`. Whatever can be done for all minibatches of an epoch at once is done
    so: taking rows, normalising advantages, and what is logged. How a minibatch is cut depends on its size alone, so that
    results are the same with any number of threads.

    :param model: a model for which :meth:`fits` is true, with a rollout in its buffer
    :param clip_range: PPO's epsilon
    :param ent_coef: weight of the entropy
    """

    def __init__(self, model: RepresentedPPO, clip_range: float, ent_coef: float):
        policy, buffer = model.policy, model.rollout_buffer
        self.model, self.policy, self.k = model, policy, model.k
        actors, critic = policy.actor_parameters(), policy.critic_parameters()
        self._adam = FlatAdam(policy.optimizer, [*actors, *critic])
        n_actor = sum(parameter.numel() for parameter in actors)
        self._gradients = self._adam.gradient[:n_actor], self._adam.gradient[n_actor:]
        # What all minibatches take their rows from; observations have passed normalisation and preprocessing once for all
        with th.no_grad():
            self._features = th.cat([policy._features(chunk.observations)[0] for chunk in buffer.chunks()])
        actions = buffer.to_torch(buffer.actions.reshape(-1, buffer.action_dim), copy=False)
        self._actions = actions.float() if hasattr(policy, "log_std") else actions.long()
        self._old_log_probs, self._advantages = (
            buffer.to_torch(array.reshape(-1), copy=False) for array in (buffer.log_probs, buffer.advantages)
        )
        self._returns, values = (
            buffer.to_torch(array.reshape(-1, buffer.n_values), copy=False) for array in (buffer.returns, buffer.values)
        )
        self._agent_advantages = self._returns - values if model.assignment.needs_agent_advantages else None
        self.coefficients = Coefficients(clip_range, ent_coef, model.vf_coef, model.value_weights.mean_square())
        self._cut()
        self._logs: list[th.Tensor] = []
        self._norms: list[th.Tensor] = []
        self._sizes: list[int] = []

    def _cut(self) -> None:
        """Make the ranges of representatives that minibatches are cut into, and the threads that take them."""
        extractor = self.policy.mlp_extractor
        linears = [layer for layer in extractor.modules() if isinstance(layer, nn.Linear)]
        width = sum(layer.out_features for layer in linears) + self._returns.shape[1]
        entries = self.k * self.model.batch_size * width
        n_ranges = 1 if self.policy.device.type != "cpu" else min(self.k, -(-entries // RANGE_ENTRIES))
        n_ranges += n_ranges > 1 and n_ranges % 2  # an even share for two threads
        n_ranges = min(n_ranges, self.k)
        edges = np.linspace(0, self.k, n_ranges + 1).astype(int)
        # Ranges that share parameters write to places of their own, which are added up
        size = len(self._adam.gradient)
        self._apart = th.zeros(n_ranges, size, device=self.policy.device) if n_ranges > 1 else self._adam.gradient[None]
        self._ranges = [
            BlockGradients(self.policy, (int(first), int(last)), self._adam.pieces(flat), self.coefficients)
            for first, last, flat in zip(edges[:-1], edges[1:], self._apart, strict=True)
        ]
        # Threads are better spent on tasks than within one, since tasks are small
        self._n_threads = th.get_num_threads()
        th.set_num_threads(1)
        share = entries >= SHARED_ENTRIES and self.policy.device.type == "cpu"
        self._team: Team[Any] = Team(self._n_threads if share else 1, partial(th.set_num_threads, 1))

    @staticmethod
    def fits(model: RepresentedPPO) -> bool:
        """
        :param model: a model with a rollout in its buffer
        :return: whether its losses are among those that are written out here, see :mod:`sb3_rmdp.common.plain_case`
        """
        return learns_plainly(model)

    @th.no_grad()
    def epoch(self) -> Iterator[None]:
        """Set the gradients of one minibatch after the other, all of them one epoch."""
        self._log_epoch()
        batches = [rows for rows, _ in self.model.rollout_buffer.minibatches(self.model.batch_size)]
        self._sizes = [len(rows) for rows in batches]
        index = th.as_tensor(np.concatenate(batches), device=self.policy.device)
        advantages = self._advantages[index]
        if self.model.normalizes_minibatches:
            for blocks in self._blocks(advantages):
                blocks.copy_(normalize(blocks.view(-1, blocks.shape[2]), None).view_as(blocks))
        self._epoch = Epoch(
            features=self._features[index],
            actions=self._actions[index],
            old_log_probs=self._old_log_probs[index],
            advantages=advantages,
            positions=index,
            returns=self._returns,
            log_ratios=th.empty_like(advantages),
            surrogates=th.empty_like(advantages),
        )
        self._losses: list[tuple[th.Tensor, th.Tensor, th.Tensor]] = []
        begin, nothing = 0, th.zeros((), device=self.policy.device)
        for size in self._sizes:
            self._rows = slice(begin, begin + size)
            entropy, value_loss = self._minibatch(begin, size // self.k)
            assignment_loss = nothing
            if self._agent_advantages is not None:
                assignment_loss = nothing + self._assignment_gradients(self._agent_advantages)
            self._losses.append((value_loss, entropy, assignment_loss))
            yield
            begin += size

    def _minibatch(self, begin: int, batch: int) -> tuple[th.Tensor, th.Tensor]:
        """Set the gradients of a minibatch; see :meth:`BlockGradients.run`."""
        first, *others = self._ranges
        if not others:
            actor, critic = (
                partial(method, self._epoch, begin, batch) for method in (first.actor_gradients, first.critic_gradients)
            )
            entropy, value_loss = self._team.run([actor, critic])
            return entropy, value_loss
        parts = self._team.run([partial(blocks.gradients, self._epoch, begin, batch) for blocks in self._ranges])
        th.sum(self._apart, 0, out=self._adam.gradient)
        entropy, value_loss = th.stack([th.stack(part) for part in parts]).sum(dim=0)
        return entropy, value_loss

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
        log_ratio = self._epoch.log_ratios[self._rows].view(self.k, -1)
        return (log_ratio.exp() - 1.0 - log_ratio).mean(dim=1)

    @th.no_grad()
    def step(self, max_norm: float) -> None:
        """
        Take a step of the policy's optimizer.

        :param max_norm: bound of the norm of the actors' gradients, and of the critic's, as in ``clip_grad_norm_``
        """
        for gradient in self._gradients:
            norm = th.linalg.vector_norm(gradient)
            self._norms.append(norm)
            gradient.mul_((max_norm / (norm + 1e-6)).clamp_(max=1.0))
        self._adam.step()

    def finish(self) -> None:
        """Leave policy and optimizer as PyTorch's own would have left them, and its threads as they were."""
        self._adam.finish()
        self._team.close()
        th.set_num_threads(self._n_threads)

    def logs(self) -> th.Tensor:
        """What there is to log of each minibatch, (minibatches, 6): see ``RepresentedPPO.train``."""
        self._log_epoch()
        return th.cat(self._logs) if self._logs else th.zeros(0, 6)

    def norms(self) -> th.Tensor:
        """Norms of the gradients of actors and critic in each step, before they were clipped, (steps, 2)."""
        return th.stack(self._norms).view(-1, 2) if self._norms else th.zeros(0, 2)

    @th.no_grad()
    def _log_epoch(self) -> None:
        """Add what there is to log of the minibatches since the last call; an epoch may have broken off."""
        if not self._sizes:
            return
        columns = []
        for log_ratios, surrogates in zip(
            self._blocks(self._epoch.log_ratios), self._blocks(self._epoch.surrogates), strict=True
        ):
            ratios = log_ratios.exp()
            kl = (ratios - 1.0 - log_ratios).mean(dim=2).amax(dim=1)
            clipped = ((ratios - 1.0).abs() > self.coefficients.clip_range).float().mean(dim=(1, 2))
            columns.append(th.stack([-surrogates.mean(dim=2).sum(dim=1), kl, clipped]))
        policy_loss, kl, clipped = th.cat(columns, dim=1)[:, : len(self._losses)]
        value_loss, entropy, assignment_loss = (th.stack(column) for column in zip(*self._losses, strict=True))
        loss = policy_loss - self.coefficients.ent_coef * entropy + self.model.vf_coef * value_loss + assignment_loss
        k = self.k
        self._logs.append(th.stack([policy_loss / k, value_loss / k, -entropy / k, kl, clipped, loss / k], dim=1))
        self._sizes = []

    def _assignment_gradients(self, of_rollout: th.Tensor) -> th.Tensor | float:
        """Returns the assignment's loss, given advantages for all agents; its few parameters are left to autograd."""
        assignment, index = self.model.assignment, self._epoch.positions[self._rows]
        agent_advantages = of_rollout.index_select(0, index).view(self.k, -1, of_rollout.shape[1])
        ratio = self._epoch.log_ratios[self._rows].view(self.k, -1).exp()
        with th.enable_grad():
            loss = assignment.loss(ratio, agent_advantages, self.coefficients.clip_range, None)
            if assignment.optimizer is not None:
                assignment.optimizer.zero_grad()
            if loss is None:
                return 0.0
            if loss.requires_grad:
                loss.backward()
        return loss.detach()
