"""Representatives that learn from an episode: the head of whoever acts most alike, and its actions step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.utils import obs_as_tensor
from torch import nn

from sb3_rmdp.common.policies import RepresentedActorCriticPolicy
from sb3_rmdp.common.trajectories import Lesson, Trajectory

Tensors: TypeAlias = th.Tensor | dict[str, th.Tensor]

#: A representative, what it is to see, and what to do there
_Steps: TypeAlias = tuple[int, Tensors, th.Tensor]

#: Minibatches of an update between two of an imitation
EVERY = 8

#: Where actions are countable, log probability from which on one is taken often enough: the rest is left to exploration
LEARNED = float(np.log(0.9))

#: Steps of detours that are practised for one of the lesson: there are many more of them
DETOURS = 2

#: Steps to win back what an update has undone, at most
MENDING_STEPS = 100

#: Standard deviation that a representative explores with at least when it begins as a copy of another
LEAST_STD = 0.2

#: Bound of the norm of a lesson's gradient
MAX_GRAD_NORM = 0.5


class Imitation:
    """
    The lessons of one update, beside which they are taken.

    Gradients of imitation change only what means or logits depend on, with an Adam of its own: how much representatives
    explore is none of an episode's business, and the update's moments know nothing of it. With no lessons nothing happens.

    :param policy: policy of all representatives
    :param lessons: at most one per representative; those who begin anew in other places do so at the end
    :param batch_size: transitions per representative and step
    :raises ValueError: if a representative does not exist or has two lessons, or an episode or detours have no steps
    """

    def __init__(self, policy: RepresentedActorCriticPolicy, lessons: Sequence[Lesson], batch_size: int):
        _check(lessons, policy.k)
        self.policy, self.batch_size = policy, batch_size
        self._new = [lesson for lesson in lessons if lesson.new]
        old = [lesson for lesson in lessons if not lesson.new]
        self._lessons = [(lesson.representative, *_tensors(policy, lesson.trajectory)) for lesson in old]
        detours = [(lesson.representative, *_tensors(policy, lesson.detours)) for lesson in old if lesson.detours is not None]
        if old:
            self._pool(self._lessons, detours)
        # Densities say nothing by themselves: what is near enough to an action there depends on how much one explores
        self._countable = not isinstance(policy.action_space, spaces.Box)
        log_std = getattr(policy, "log_std", None)
        self._parameters = [parameter for parameter in policy.actor_parameters() if parameter is not log_std]
        self._parameters = [parameter for parameter in self._parameters if parameter.requires_grad]
        # A training that goes on beyond its end has a schedule below 0
        rate = max(0.0, policy.optimizer.param_groups[0]["lr"])
        if not self._parameters:
            self._lessons = []  # nothing that a lesson could change
        else:
            self._optimizer = th.optim.Adam(self._parameters, lr=rate, eps=1e-5, fused=True)
        self._n_minibatches = 0

    def _pool(self, lessons: list[_Steps], detours: list[_Steps]) -> None:
        """One after the other, so that a step takes all its rows at once: with 25 representatives they are of 75 episodes."""
        both = lessons + detours
        lengths = [len(actions) for _, _, actions in both]
        begins = np.cumsum([0, *lengths[:-1]]).tolist()
        practised = [*range(len(lessons)), *DETOURS * list(range(len(lessons), len(both)))]
        self._observations = _joined([observations for _, observations, _ in both])
        self._actions = th.cat([actions for _, _, actions in both])
        #: Where the steps of each are, and how many
        self._practised = [(begins[i], lengths[i]) for i in practised]
        who = th.tensor([both[i][0] for i in practised], device=self.policy.device)
        self._who = who.repeat_interleave(self.batch_size)

    def after_minibatch(self) -> None:
        """The update has taken one more step."""
        if self._lessons and self._n_minibatches % EVERY == 0:
            self._step()
        self._n_minibatches += 1

    def finish(self) -> None:
        """The update is over: win back what it has undone, and give those who begin anew the policy to begin with."""
        if self._lessons and self._countable:
            for _ in range(MENDING_STEPS):
                if self._agrees():
                    break
                self._step()
        for lesson in self._new:
            source = most_alike(self.policy, lesson.trajectory)
            copy_representative(self.policy, source, lesson.representative)
            # With gSDE these are weights, and noise depends on what is seen
            if hasattr(self.policy, "log_std") and self.policy.log_std.requires_grad and not self.policy.use_sde:
                with th.no_grad():
                    own = self.policy.log_std.view(self.policy.k, -1)[lesson.representative]
                    own.clamp_(min=float(np.log(LEAST_STD)))

    def _step(self) -> None:
        """One step along the mean log probability of actions, of all lessons and detours at once."""
        rows = [begin + np.random.randint(length, size=self.batch_size) for begin, length in self._practised]
        index = th.as_tensor(np.concatenate(rows), device=self.policy.device)
        with th.enable_grad():
            distribution = self.policy.get_distribution(_rows(self._observations, index), self._who)
            log_probs = distribution.log_prob(self._actions[index])
            if self._countable:
                log_probs = th.where(log_probs >= LEARNED, 0.0, log_probs)
            loss = -log_probs.mean() * len(self._practised)
            gradients = th.autograd.grad(loss, self._parameters, allow_unused=True)
        # The update keeps its own gradients there
        kept = [parameter.grad for parameter in self._parameters]
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(self._parameters, MAX_GRAD_NORM * len(self._practised) ** 0.5)
        self._optimizer.step()
        for parameter, old in zip(self._parameters, kept, strict=True):
            parameter.grad = old

    @th.no_grad()
    def _agrees(self) -> bool:
        """Whether every action of every lesson is its representative's mode."""
        for representative, observations, actions in self._lessons:
            who = th.full((len(actions),), representative, device=self.policy.device)
            modes = self.policy.get_distribution(observations, who).get_actions(deterministic=True)
            if not bool((modes.reshape(actions.shape) == actions).all()):
                return False
        return True


@th.no_grad()
def most_alike(policy: RepresentedActorCriticPolicy, trajectory: Trajectory) -> int:
    """
    :param policy: policy of all representatives
    :param trajectory: an episode
    :return: the representative that acts most like it: whose means are nearest to its actions, or who finds them most probable
        where they are countable
    """
    observations, actions = _tensors(policy, trajectory)
    likeness = []
    for j in range(policy.k):
        distribution = policy.get_distribution(observations, th.full((len(actions),), j, device=policy.device))
        if isinstance(policy.action_space, spaces.Box):
            # Densities would favour whoever explores more
            modes = distribution.get_actions(deterministic=True)
            likeness.append(-(modes - actions).square().mean())
        else:
            likeness.append(distribution.log_prob(actions).mean())
    return int(th.stack(likeness).argmax())


@th.no_grad()
def copy_representative(policy: RepresentedActorCriticPolicy, source: int, target: int) -> None:
    """
    Make one representative act, explore and be valued like another; the optimizer's moments go with it. What is frozen stays.

    :param policy: policy of all representatives
    :param source: whom to copy
    :param target: who is overwritten
    """
    own = [*policy.action_net.parameters(), policy.mlp_extractor.shift, getattr(policy, "log_std", None)]
    for parameter in own:
        if parameter is not None and parameter.requires_grad:
            state = policy.optimizer.state.get(parameter, {}).values()
            moments = [tensor for tensor in state if isinstance(tensor, th.Tensor) and tensor.shape == parameter.shape]
            for tensor in (parameter, *moments):
                rows = tensor.view(policy.k, -1)
                rows[target] = rows[source]


def _check(lessons: Sequence[Lesson], k: int) -> None:
    """Lessons may come from a method that is not ours."""
    taught: set[int] = set()
    for representative, trajectory, _, detours in lessons:
        if not 0 <= representative < k:
            raise ValueError(f"lesson for representative {representative}: they are 0 to {k - 1}")
        if representative in taught:
            raise ValueError(f"two lessons for representative {representative} in one update: choose one of them")
        taught.add(representative)
        if not len(trajectory.actions):
            raise ValueError(f"lesson for representative {representative} has an episode without steps: leave the lesson out")
        if detours is not None and not len(detours.actions):
            raise ValueError(f"lesson for representative {representative} has detours without steps: give None")


def _tensors(policy: RepresentedActorCriticPolicy, trajectory: Trajectory) -> tuple[Tensors, th.Tensor]:
    """Observations and actions as the policy takes them."""
    actions = th.as_tensor(trajectory.actions, device=policy.device)
    actions = actions.long().flatten() if isinstance(policy.action_space, spaces.Discrete) else actions.float()
    return obs_as_tensor(trajectory.observations, policy.device), actions


def _rows(observations: Tensors, index: th.Tensor) -> Tensors:
    if isinstance(observations, dict):
        return {key: tensor[index] for key, tensor in observations.items()}
    return observations[index]


def _joined(observations: Sequence[Tensors]) -> Tensors:
    first = observations[0]
    if isinstance(first, dict):
        return {key: th.cat([obs[key] for obs in observations if isinstance(obs, dict)]) for key in first}
    return th.cat([obs for obs in observations if isinstance(obs, th.Tensor)])
