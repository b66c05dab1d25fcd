"""Upper bound on welfare in the velocity tasks (section 4.2 of the r-MDP paper), exact for constant speeds."""

from __future__ import annotations

from operator import index as as_int

import numpy as np
from numpy.typing import ArrayLike, NDArray

FULL_EPISODE = 100.0  # worth of an episode that is at the target velocity throughout
WINDOW_FRACTION = 1 / 20  # the reward vanishes at this share of the maximal velocity away from the target


def velocity_welfare_bound(targets: ArrayLike, max_velocity: float, k: int) -> float:
    """
    Welfare of the best k constant speeds, which no k policies can exceed in a velocity task.

    The value is ``max over v_1..v_k of mean_i max_j max(0, 1 - 20 |v^i - v_j| / b) * 100``. For a fixed assignment, welfare is
    a sum over time steps of a function of the representatives' current speeds, so holding the best speed throughout is
    at least as good as any other profile of speeds.

    Speeds may be restricted to the targets. With the other speeds fixed, the welfare as a function of v_j is a sum over
    agents of max(c_i, tent_i(v_j)), c_i being what the others give agent i. It is continuous, piecewise linear and bounded,
    and bends downwards at targets only. Behind the last point where it is maximal it falls, so it bends downwards there:
    that point is a target (or the function is constant, and any target will do). Moving one speed after the other gives an
    optimum on targets.

    Choosing k of n sorted targets is a longest path: an agent between two neighbouring choices gets the better of the two,
    so the welfare is a sum over neighbouring choices, O(n^2) for all pairs and O(k n^2) for the path.

    Example:

    >>> velocity_welfare_bound([1.0, 1.1, 3.0], max_velocity=4.0, k=1)
    50.0
    >>> velocity_welfare_bound([1.0, 1.1, 3.0], max_velocity=4.0, k=3)
    100.0

    :param targets: target velocities v^i, shape (n,), finite
    :param max_velocity: b, the upper end of the targets' range, > 0, in units of ``targets``
    :param k: number of representatives, 1 <= k <= n
    :return: the bound, in [0, 100], where 100 is a perfect episode for everyone
    :raises ValueError: if an argument is outside of its range
    """
    velocities = np.sort(np.asarray(targets, dtype=np.float64), axis=None)
    n, k = velocities.size, as_int(k)
    if np.ndim(targets) != 1 or n == 0:
        raise ValueError(f"targets has shape {np.shape(targets)}: pass one velocity per agent, shape (n,) with n >= 1")
    if not np.isfinite(velocities).all():
        raise ValueError(f"targets has {np.count_nonzero(~np.isfinite(velocities))} entries that are not finite: drop them")
    if not (np.isfinite(max_velocity) and max_velocity > 0):
        raise ValueError(f"max_velocity={max_velocity}: pass a finite number above 0")
    if not 1 <= k <= n:
        raise ValueError(f"k={k} representatives for {n} agents: pass a k in [1, {n}]")

    positions = velocities / (max_velocity * WINDOW_FRACTION)  # from here on the reward is max(0, 1 - distance)
    before, between, after = _segment_values(positions)
    best = before  # best[b]: value of the agents up to b, b being the last choice so far
    for _ in range(k - 1):
        best = (best[:, None] + between).max(axis=0)
    # Choosing one target twice adds nothing, so that paths of fewer distinct choices are covered.
    return float((best + after).max() * FULL_EPISODE / n)


def _segment_values(
    positions: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """
    Sums of rewards max(0, 1 - distance) over the stretches of sorted agents that neighbouring choices cut out.

    :param positions: sorted targets in units of the reward's window, shape (n,)
    :return: for a first choice b, the sum over agents 0..b (n,); for neighbouring choices a <= b, the sum over agents
        a + 1..b, each with the nearer one (n, n), -inf below the diagonal; for a last choice a, over agents a + 1..n - 1 (n,)
    """
    n = len(positions)
    prefix = np.concatenate([[0.0], np.cumsum(positions)])  # prefix[j] - prefix[i] sums the positions i..j - 1
    agents = np.arange(n)
    first = np.searchsorted(positions, positions - 1.0)  # agents first..last - 1 lie within the window
    last = np.searchsorted(positions, positions + 1.0, side="right")

    def rightwards(a: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.float64]:
        """Agents a + 1..stop - 1 with the choice a."""
        stop = np.minimum(stop, last[a])
        total: NDArray[np.float64] = (stop - a - 1) * (1.0 + positions[a]) - (prefix[stop] - prefix[a + 1])
        return total

    def leftwards(b: NDArray[np.int64], start: NDArray[np.int64]) -> NDArray[np.float64]:
        """Agents start..b with the choice b."""
        start = np.maximum(start, first[b])
        total: NDArray[np.float64] = (b + 1 - start) * (1.0 - positions[b]) + (prefix[b + 1] - prefix[start])
        return total

    a, b = np.triu_indices(n, k=1)
    middle = np.searchsorted(positions, (positions[a] + positions[b]) / 2)  # first agent nearer to b
    middle = np.clip(middle, a + 1, b)  # rounding and ties must not move it past the choices
    between = np.full((n, n), -np.inf)
    between[a, b] = rightwards(a, middle) + leftwards(b, middle)
    np.fill_diagonal(between, 0.0)
    return leftwards(agents, np.zeros(n, dtype=np.int64)), between, rightwards(agents, np.full(n, n))
