"""Noise of generalised state-dependent exploration (gSDE) while policies are evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch as th
from stable_baselines3.common.distributions import StateDependentNoiseDistribution

from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm


@contextmanager
def new_noise_per_episode(
    model: RepresentedOnPolicyAlgorithm, n_envs: int, deterministic: bool
) -> Iterator[Callable[[np.ndarray], None]]:
    """
    Draw the noise of sampled actions anew for every episode, and every ``sde_sample_freq`` steps of it.

    The noise of gSDE is a function of the state that stays the same until it is drawn anew. With one function for a whole
    evaluation, all of its episodes would be samples of one policy, and their spread would say nothing of the others. The noise
    of the model is as before afterwards, so that a training goes on with its own. Nothing is drawn for other policies.

    :param model: the model
    :param n_envs: environments in which it acts at the same time
    :param deterministic: whether modes are taken, which have no noise
    :return: function to call after every step with whether episodes are over, (n_envs,) bool
    """
    distribution = model.policy.action_dist
    if deterministic or not isinstance(distribution, StateDependentNoiseDistribution):
        yield lambda dones: None
        return
    names = ("weights_dist", "exploration_mat", "exploration_matrices")
    before = {name: getattr(distribution, name) for name in names}
    frequency, steps = model.sde_sample_freq, np.zeros(n_envs, dtype=np.int64)

    def draw(dones: np.ndarray) -> None:
        steps[:] = np.where(dones, 0, steps + 1)
        due = np.flatnonzero(dones if frequency <= 0 else steps % frequency == 0)
        if len(due):
            matrices = distribution.exploration_matrices.clone()
            matrices[due] = distribution.weights_dist.sample((len(due),))
            # SB3 takes the first where there is a single environment
            distribution.exploration_mat, distribution.exploration_matrices = matrices[0], matrices

    try:
        with th.no_grad():
            distribution.sample_weights(model.policy.log_std, n_envs)
            draw(np.ones(n_envs, dtype=bool))
        yield draw
    finally:
        for name, value in before.items():
            setattr(distribution, name, value)
