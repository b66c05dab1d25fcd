"""Seeds of evaluations: apart from each other, and apart from those of trainings."""

from __future__ import annotations

import numpy as np
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

#: Seed of all evaluations of sweeps and budget curves
EVALUATION_SEED = 10_000

#: Environments of other evaluations have seeds from here on, below 2**31, which every simulator takes
FIRST = 2**30

#: Copies of an environment that have seeds of their own
COPIES = 2**12


def seed_evaluation(env: VecEnv, seed: int) -> None:
    """
    Seed an evaluation: the environments, and the global random numbers that actions are drawn with.

    A vec env gives copy i the seed of the first copy plus i, so that evaluations with seeds 0 and 1 would share all copies but
    one, and an evaluation would see the start states of a training with the same seed. So the first copy gets
    :func:`environment_seed`.

    :param env: the environment; seeds count from its next reset on
    :param seed: of the evaluation, from 0 to 2**32 - 1
    """
    set_random_seed(seed)
    env.seed(environment_seed(seed))


def environment_seed(seed: int) -> int:
    """
    :param seed: of an evaluation, from 0 to 2**32 - 1
    :return: seed of its first environment, from 2**30 to 2**31 - 2**12. Trainings with seeds below 2**30 have others, and so
        have evaluations of up to 2**12 copies with other seeds: always if these are below 2**18, else but for a chance of one
        in 2**18
    """
    blocks = FIRST // COPIES
    high, low = divmod(seed, blocks)
    shift = int(np.random.SeedSequence(high).generate_state(1)[0]) if high else 0
    return FIRST + (low + shift) % blocks * COPIES


def check_training_seed(seed: int, n_envs: int, n_eval_envs: int = 1) -> None:
    """
    :param seed: of a training that will be evaluated with :data:`EVALUATION_SEED`
    :param n_envs: environments of the training, of which copy i has the seed plus i
    :param n_eval_envs: environments of the evaluation
    :raises ValueError: if both share one of these seeds, so that start states of the evaluation would be those of the training
    """
    if seed < EVALUATION_SEED + n_eval_envs and EVALUATION_SEED < seed + n_envs:
        raise ValueError(
            f"seed {seed} gives {n_envs} environments of a training the seeds from {seed} on, and evaluations have those from "
            f"{EVALUATION_SEED} on: choose another seed"
        )
