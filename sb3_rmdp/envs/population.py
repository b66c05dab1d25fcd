"""Drawing the agents of a task, identically on every machine."""

import math

import numpy as np

from sb3_rmdp.envs.contract import integer


def uniform_population(n_agents: int, high: float, seed: int) -> np.ndarray:
    """
    Agents spread uniformly over an interval, ``U[0, high)``.

    Training, evaluation and a model loaded years later must see the same agents. Numpy promises stable streams only for its
    bit generators, not for ``Generator.random`` (NEP 19), so the doubles are built here from raw 64-bit draws: the upper 53
    bits over ``2**53``. Today this equals ``high * np.random.default_rng(seed).random(n_agents)``. The first ``m`` agents
    are the same for every ``n_agents >= m``.

    :param n_agents: number of agents, at least 1
    :param high: upper end of the interval, positive and finite
    :param seed: seed of the population, at least 0; not the seed of an environment
    :return: (n_agents,) float64 in [0, high)
    :raises ValueError: if an argument is out of its range
    """
    n_agents = integer("n_agents", n_agents, minimum=1)
    seed = integer("seed", seed, minimum=0)
    if not (math.isfinite(high) and high > 0):
        raise ValueError(f"high={high!r} does not do; give a positive finite number")
    raw = np.random.PCG64(seed).random_raw(n_agents)
    return (raw >> np.uint64(11)) * 2.0**-53 * high
