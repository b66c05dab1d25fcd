"""
What an update cannot do without: the steps of the simulation and the products of matrices, nothing around them.

A floor is no target: activations, losses, optimizer, returns and the rewards of n agents have to be computed as well.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from itertools import pairwise
from typing import Any, NamedTuple

import mujoco
import numpy as np
import torch
from torch import nn

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.vec_env import ResourceGatheringVecEnv, VelocityVecEnv

#: Steps of the simulation that are timed; the floor of a longer rollout is extrapolated
STEPS = 256
#: A product is repeated for at least so long, in seconds, after one to warm up
SECONDS = 0.03


class Product(NamedTuple):
    """``batch`` products of matrices (rows, inner) and (inner, columns), as one operation."""

    rows: int
    inner: int
    columns: int
    batch: int = 1

    @property
    def flops(self) -> int:
        """Additions and multiplications."""
        return 2 * self.batch * self.rows * self.inner * self.columns

    def seconds(self, device: str = "cpu") -> float:
        """
        :param device: where to multiply
        :return: mean time of one operation, results written to memory that is there
        """
        left, right, out = (
            torch.randn(self.batch, *shape, device=device)
            for shape in ((self.rows, self.inner), (self.inner, self.columns), (self.rows, self.columns))
        )
        multiply: Callable[[], Any] = lambda: torch.bmm(left, right, out=out)  # noqa: E731
        if self.batch == 1:
            flat = left[0], right[0], out[0]
            multiply = lambda: torch.mm(flat[0], flat[1], out=flat[2])  # noqa: E731
        multiply()
        count, elapsed = 0, 0.0
        start = time.perf_counter()
        while elapsed < SECONDS or count < 2:
            multiply()
            if device != "cpu":
                torch.cuda.synchronize()
            count += 1
            elapsed = time.perf_counter() - start
        return elapsed / count


def products(
    k: int, actor: Sequence[int], critic: Sequence[int], n_steps: int, batch_size: int, n_epochs: int
) -> Counter[Product]:
    """
    Products of an update: actors at every step, all networks over the rollout, forward and backward in every epoch.

    :param k: number of representatives, each with a last layer of the actor of its own
    :param actor: widths of the actor: observations, hidden layers, actions
    :param critic: widths of the critic: observations, hidden layers, outputs
    :param n_steps: transitions per policy
    :param batch_size: transitions per policy and minibatch
    :param n_epochs: passes over the rollout
    :return: how often each product is needed
    """
    counts: Counter[Product] = Counter()
    trunk = list(pairwise(actor[:-1]))
    head = actor[-2], actor[-1]
    dense = trunk + list(pairwise(critic))

    for inner, columns in trunk:
        counts[Product(k, inner, columns)] += n_steps
    counts[Product(1, *head, batch=k)] += n_steps

    rows, passes, minibatches = k * batch_size, n_steps // batch_size, n_epochs * n_steps // batch_size
    for inner, columns in dense:
        counts[Product(rows, inner, columns)] += passes + minibatches  # forward
        counts[Product(columns, rows, inner)] += minibatches  # gradients of weights
    for inner, columns in [*trunk[1:], *dense[len(trunk) + 1 :]]:
        counts[Product(rows, columns, inner)] += minibatches  # gradients of inputs, but for those of the first layers
    inner, columns = head
    counts[Product(batch_size, inner, columns, batch=k)] += passes + minibatches
    counts[Product(columns, batch_size, inner, batch=k)] += minibatches
    counts[Product(batch_size, columns, inner, batch=k)] += minibatches
    return counts


def products_of(model: RepresentedPPO) -> Counter[Product]:
    """
    :param model: a model with plain perceptrons
    :return: see :func:`products`
    """
    policy: Any = model.policy
    hidden = [
        [layer.out_features for layer in net if isinstance(layer, nn.Linear)]
        for net in (policy.mlp_extractor.policy_net, policy.mlp_extractor.value_net)
    ]
    inputs, outputs = policy.features_dim, (policy.action_net.bias.shape[1], policy.value_net.out_features)
    actor, critic = ([inputs, *widths, last] for widths, last in zip(hidden, outputs, strict=True))
    return products(model.k, actor, critic, model.n_steps, model.batch_size, model.n_epochs)


def simulation_seconds(model: RepresentedPPO) -> float:
    """
    The simulation alone, in as many threads as the vec env has: the last rollout's actions, from where the environments are.

    :param model: a model that has been warmed up
    :return: time of a rollout
    """
    env: Any = model.env
    n_steps = min(STEPS, model.n_steps)
    buffer_actions = model.rollout_buffer.actions[:n_steps]
    if isinstance(env, ResourceGatheringVecEnv):
        return _walk(env.envs[0].unwrapped, buffer_actions) * model.n_steps / n_steps
    assert isinstance(env, VelocityVecEnv)
    actions = np.clip(buffer_actions, model.action_space.low, model.action_space.high)  # type: ignore[attr-defined]
    bases: list[Any] = [part.unwrapped for part in env.envs]
    copies = [copy(base.data) for base in bases]

    def simulate(chunk: np.ndarray) -> None:
        for step in range(n_steps):
            for i in chunk:
                data, base = copies[i], bases[i]
                data.ctrl[:] = actions[step, i]
                mujoco.mj_step(base.model, data, nstep=base.frame_skip)

    with ThreadPoolExecutor(env.n_threads) as pool:
        chunks = np.array_split(np.arange(len(bases)), env.n_threads)
        start = time.perf_counter()
        list(pool.map(simulate, chunks))
        return (time.perf_counter() - start) * model.n_steps / n_steps


def _walk(base: Any, actions: np.ndarray) -> float:
    """A bare loop over the table of moves of Resource Gathering, with the given actions (n_steps, n_envs, 1)."""
    table, tile = base._next, base._home
    moves = actions.ravel().tolist()
    start = time.perf_counter()
    for move in moves:
        tile = table[tile][move]
    return time.perf_counter() - start


def floor(model: RepresentedPPO) -> dict[str, float]:
    """
    :param model: a model that has been warmed up
    :return: seconds of an update's simulation and products, and GFLOP of the products
    """
    counts = products_of(model)
    device = model.device.type
    return {
        "simulation": simulation_seconds(model),
        "products": sum(count * product.seconds(device) for product, count in counts.items()),
        "gflop": sum(count * product.flops for product, count in counts.items()) / 1e9,
    }
