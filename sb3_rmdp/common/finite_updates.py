"""What an update is made of and what comes of it: numbers that are not finite stop it, and are named."""

from __future__ import annotations

import numpy as np
import torch as th
from torch import nn

from sb3_rmdp.common.buffers import VectorRewardRolloutBuffer
from sb3_rmdp.common.finite import is_finite, not_finite

#: Columns of what an update logs
LOGGED = ("policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction", "loss")

#: Losses that must be finite, and of what they are; divergences may be infinite where a policy has left all that it did
LOSSES = {
    "policy_gradient_loss": "of the representatives' policies",
    "value_loss": "of the critic of all representatives",
    "entropy_loss": "of the representatives' policies",
    "loss": "with that of the assignment",
}

#: Columns of norms of gradients
OF_GRADIENTS = ("the representatives' policies", "the critic of all representatives")

#: Size of returns from which on their squares may be too large for float32, summed over minibatches and agents
LARGE = 1e15

#: Advice where an update went wrong
UNCHANGED = "lower learning_rate, or look for extreme observations and rewards; the policy is as it was before this update"


def check_rollout(buffer: VectorRewardRolloutBuffer, policy: nn.Module) -> None:
    """
    :param buffer: a rollout with its advantages
    :param policy: whose values and log probabilities it holds
    :raises ValueError: if it holds a number that is not finite, or advantages whose squares are not; names it
    """
    # Advantages are sums over agents of returns and values, none of which can hide in them
    if np.isfinite(np.vdot(buffer.advantages, buffer.advantages)) and is_finite(buffer.log_probs):
        return
    for name, array in (("the critic's values", buffer.values), ("log probabilities of actions", buffer.log_probs)):
        if not is_finite(array):
            step, env, *_ = np.argwhere(~np.isfinite(array))[0]
            who = f"representative {buffer.representatives[step, env]} in step {step} of env {env}"
            broken = not_finite(policy)
            why = (
                f"parameter {broken} of the policy is not finite"
                if broken
                else "the policy gives them for finite observations"
            )
            raise ValueError(
                f"{name} of {who} are {array[step, env].tolist()} in this rollout: {why}; take an earlier checkpoint"
            )
    raise ValueError(f"advantages are not finite, or too large for their squares: {_advice(buffer)}")


def check_update(logs: th.Tensor, norms: th.Tensor, buffer: VectorRewardRolloutBuffer) -> dict[str, float]:
    """
    :param logs: of each minibatch, (minibatches, 6), in the order of :data:`LOGGED`
    :param norms: of the gradients of actors and critic in each step, (steps, 2)
    :param buffer: the rollout
    :return: means of the logs, by name
    :raises ValueError: if a loss or a gradient is not finite; names it
    """
    means = dict(zip(LOGGED, logs.mean(dim=0).tolist(), strict=True))
    largest = norms.amax(dim=0).tolist() if len(norms) else [0.0, 0.0]
    for name, of_what in LOSSES.items() if len(logs) else ():
        if not np.isfinite(means[name]):
            column = logs[:, LOGGED.index(name)]
            number = int((~column.isfinite()).nonzero()[0]) if not bool(column.isfinite().all()) else 0
            raise ValueError(
                f"{name} {of_what} is {float(column[number])} in minibatch {number} of the update: {_advice(buffer)}"
            )
    for norm, of_what in zip(largest, OF_GRADIENTS, strict=True):
        if not np.isfinite(norm):
            raise ValueError(f"the gradient of {of_what} has the norm {norm}: {_advice(buffer)}")
    return means


def _advice(buffer: VectorRewardRolloutBuffer) -> str:
    largest = float(np.abs(buffer.returns).max())
    if not largest < LARGE:
        return f"returns are as large as {largest:.2g}, whose squares are none in float32; divide rewards by a constant"
    return UNCHANGED
