"""Where the time of an update goes. Methods are timed from outside, in updates of their own that enter into no ratio."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common import collection
from sb3_rmdp.common.agent_weights import AgentWeights
from sb3_rmdp.represented_ppo.block_gradients import BlockGradients
from sb3_rmdp.represented_ppo.manual_gradients import ManualGradients

#: What collects and looks after transitions, what learns from them, and all that belongs to none of it
PARTS = (
    "env",
    "actor",
    "critic evaluation",
    "returns",
    "E-step",
    "minibatches",
    "actor update",
    "critic update",
    "optimiser",
    "rest",
)


class Stopwatch:
    """Adds up time per part; whoever calls somebody else is not charged for that time."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._part = "rest"
        self._since = time.perf_counter()

    def switch(self, part: str) -> str:
        """
        :param part: what happens from now on
        :return: what happened up to now
        """
        now = time.perf_counter()
        self.seconds[self._part] += now - self._since
        before, self._part, self._since = self._part, part, now
        return before

    def timed(self, part: str, function: Callable) -> Callable:
        """
        :param part: to charge
        :param function: any function or method
        :return: the same with its time taken
        """

        def call(*args: Any, **kwargs: Any) -> Any:
            before = self.switch(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.switch(before)

        return call

    def timed_steps(self, part: str, function: Callable) -> Callable:
        """
        :param part: to charge
        :param function: a generator function, whose own work is timed and not that of who iterates
        :return: the same with its time taken
        """

        def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
            step = self.timed(part, function(*args, **kwargs).__next__)
            while True:
                try:
                    item = step()
                except StopIteration:
                    return
                yield item

        return call


@contextmanager
def watched(model: RepresentedPPO, watch: Stopwatch) -> Iterator[None]:
    """
    Time the methods of a model, of its parts and of its gradients.

    :param model: a model that has been set up, with gradients by hand
    :param watch: what takes the time
    """
    buffer, tracker = model.rollout_buffer, model._return_tracker
    methods: list[tuple[str, Any, str]] = [
        ("env", model.env, "step"),
        ("critic evaluation", model, "_evaluate"),
        ("critic evaluation", model, "_values"),
        ("returns", type(buffer), "compute_returns_and_advantage"),
        ("returns", type(buffer), "compute_marginal_advantages"),
        ("E-step", collection, "reassign"),
        ("E-step", model, "_told"),
        ("E-step", model, "_group_weights"),
        ("E-step", model.assignment, "record_episodes"),
        ("E-step", model.assignment, "record_rewards"),
        ("E-step", tracker, "add"),
        ("E-step", tracker, "finish"),
        ("minibatches", ManualGradients, "__init__"),
        ("actor update", BlockGradients, "actor_gradients"),
        ("critic update", BlockGradients, "critic_gradients"),
        ("critic update", AgentWeights, "mean_square"),
        ("optimiser", ManualGradients, "step"),
    ]
    with ExitStack() as stack:
        for part, owner, name in methods:
            stack.enter_context(patch.object(owner, name, watch.timed(part, getattr(owner, name))))
        stack.enter_context(patch.object(ManualGradients, "epoch", watch.timed_steps("minibatches", ManualGradients.epoch)))
        make = collection.numpy_actor

        def timed_actor(policy: Any) -> Any:
            actor = make(policy)
            return None if actor is None else watch.timed("actor", actor)

        stack.enter_context(patch.object(collection, "numpy_actor", timed_actor))
        stack.enter_context(patch.object(model, "_torch_actor", watch.timed("actor", model._torch_actor)))
        yield


def shares(model: RepresentedPPO, transitions: int) -> dict[str, float]:
    """
    :param model: a model that has been warmed up
    :param transitions: of one rollout
    :return: share of each of :data:`PARTS` in the time of an update
    """
    # Networks in one thread, since the clock is one
    torch.set_num_threads(1)
    watch = Stopwatch()
    with watched(model, watch):
        watch.switch("rest")
        watch.seconds.clear()
        model.learn(transitions, reset_num_timesteps=False)
        watch.switch("rest")
    total = sum(watch.seconds.values())
    return {part: watch.seconds[part] / total for part in PARTS}
