"""Drawing the agents of a task, identically on every machine."""

import math

import numpy as np

from sb3_rmdp.envs.contract import integer


def uniform_population(n_agents: int, high: float, seed: int) -> np.ndarray:
    """
    Agents spread uniformly over an interval, ``U[0, high)``.

    Training, evaluation and a model loaded years later must see the same agents. Numpy promises that ``RandomState`` draws
    the same numbers in every version (NEP 19), which it does not promise of its newer generators. The first ``m`` agents are
    the same for every ``n_agents >= m``.

    :param n_agents: number of agents, at least 1
    :param high: upper end of the interval, positive and finite
    :param seed: seed of the population, from 0 to 2**32 - 1; not the seed of an environment
    :return: (n_agents,) float64 in [0, high)
    :raises ValueError: if an argument is out of its range
    """
    n_agents = integer("n_agents", n_agents, minimum=1)
    seed = integer("seed", seed, minimum=0)
    if not (math.isfinite(high) and high > 0):
        raise ValueError(f"high={high!r} does not do; give a positive finite number")
    if seed >= 2**32:
        raise ValueError(f"seed={seed} does not do; give an integer below 2**32")
    return np.random.RandomState(seed).random_sample(n_agents) * high
