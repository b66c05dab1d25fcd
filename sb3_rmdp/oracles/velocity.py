"""Upper bound on welfare in the velocity tasks (section 4.2 of the r-MDP paper), exact for constant speeds."""

from __future__ import annotations

from operator import index as as_int

import numpy as np
from numpy.typing import ArrayLike, NDArray

FULL_EPISODE = 100.0  # worth of an episode that is at the target velocity throughout
WINDOW_FRACTION = 1 / 20  # the reward vanishes at this share of the maximal velocity away from the target


def velocity_welfare_bound(targets: ArrayLike, max_velocity: float, k: int, speeds: ArrayLike | None = None) -> float:
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

    If rewards are linear between the speeds of a grid and zero at its ends, as in a task with ``n_features``, and as above on
    the grid itself, then the same holds with ``speeds``, the grid, in the place of the targets: welfare bends there only.

    Choosing k of m sorted speeds is a longest path: an agent between two neighbouring choices gets the better of the two, so
    the welfare is a sum over neighbouring choices. Time is O(k m log m log n), and memory O(n + m).

    Example:

    >>> velocity_welfare_bound([1.0, 1.1, 3.0], max_velocity=4.0, k=1)
    50.0
    >>> velocity_welfare_bound([1.0, 1.1, 3.0], max_velocity=4.0, k=3)
    100.0
    >>> velocity_welfare_bound([1.0, 1.1, 3.0], max_velocity=4.0, k=3, speeds=[1.0, 3.1])
    66.66666666666667

    :param targets: target velocities v^i, shape (n,), finite
    :param max_velocity: b, the upper end of the targets' range, > 0, in units of ``targets``
    :param k: number of representatives, 1 <= k <= n
    :param speeds: the speeds to choose from, shape (m,), finite, in units of ``targets``; by default any speed at all
    :return: the bound, in [0, 100], where 100 is a perfect episode for everyone
    :raises ValueError: if an argument is outside of its range
    """
    velocities = _sorted("targets", targets, "one velocity per agent, shape (n,) with n >= 1")
    n, k = velocities.size, as_int(k)
    if not (np.isfinite(max_velocity) and max_velocity > 0):
        raise ValueError(f"max_velocity={max_velocity}: pass a finite number above 0")
    if not 1 <= k <= n:
        raise ValueError(f"k={k} representatives for {n} agents: pass a k in [1, {n}]")
    choices = velocities if speeds is None else _sorted("speeds", speeds, "speeds to choose from, shape (m,) with m >= 1")

    window = max_velocity * WINDOW_FRACTION
    segments = _Segments(velocities / window, np.unique(choices) / window)
    best = segments.first()  # best[b]: value of the agents up to choice b, b being the last choice so far
    for _ in range(k - 1):
        best = _extended(best, segments)
    # Choosing one speed twice adds nothing, so that paths of fewer distinct choices are covered.
    return float((best + segments.last()).max() * FULL_EPISODE / n)


def _sorted(name: str, values: ArrayLike, wanted: str) -> NDArray[np.float64]:
    """
    :param name: of the argument, for the error
    :param values: the argument
    :param wanted: what it should be, for the error
    :return: its values in ascending order
    :raises ValueError: if they are not finite numbers in one dimension
    """
    array = np.sort(np.asarray(values, dtype=np.float64), axis=None)
    if np.ndim(values) != 1 or not array.size:
        raise ValueError(f"{name} has shape {np.shape(values)}: pass {wanted}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(array))} entries that are not finite: drop them")
    return array


class _Segments:
    """
    Sums of rewards max(0, 1 - distance) over the stretches of sorted agents that neighbouring choices cut out.

    :param positions: (n,) sorted targets, in units of the reward's window
    :param choices: (m,) sorted speeds to choose from, in the same units
    """

    def __init__(self, positions: NDArray[np.float64], choices: NDArray[np.float64]):
        self.positions, self.choices = positions, choices
        self.prefix = np.concatenate([[0.0], np.cumsum(positions)])  # prefix[j] - prefix[i] sums the positions i..j - 1
        # Agents start..edge - 1 are within the window to the left of a choice or at it, and edge..stop - 1 to its right
        self.start = np.searchsorted(positions, choices - 1.0)
        self.edge = np.searchsorted(positions, choices, side="right")
        self.stop = np.searchsorted(positions, choices + 1.0)

    def first(self) -> NDArray[np.float64]:
        """(m,) sums over all agents to the left of each choice or at it, if it is the first one."""
        b = np.arange(len(self.choices))
        return self._leftwards(b, np.zeros_like(b))

    def last(self) -> NDArray[np.float64]:
        """(m,) sums over all agents to the right of each choice, if it is the last one."""
        a = np.arange(len(self.choices))
        return self._rightwards(a, np.full_like(a, len(self.positions)))

    def between(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
        """
        :param a: (...) choices
        :param b: (...) the next choices, none to the left of ``a``
        :return: (...) sums over the agents between the two or at ``b``, each with the nearer one
        """
        middle = np.searchsorted(self.positions, (self.choices[a] + self.choices[b]) / 2)  # first agent nearer to b
        middle = np.clip(middle, self.edge[a], self.edge[b])  # rounding and ties must not move it past the choices
        return self._rightwards(a, middle) + self._leftwards(b, middle)

    def _rightwards(self, a: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.float64]:
        """Agents to the right of the choice a, up to stop - 1."""
        edge, stop = self.edge[a], np.minimum(stop, self.stop[a])
        total: NDArray[np.float64] = (stop - edge) * (1.0 + self.choices[a]) - (self.prefix[stop] - self.prefix[edge])
        return total

    def _leftwards(self, b: NDArray[np.int64], start: NDArray[np.int64]) -> NDArray[np.float64]:
        """Agents from start on, to the left of the choice b or at it."""
        start, edge = np.maximum(start, self.start[b]), self.edge[b]
        total: NDArray[np.float64] = (edge - start) * (1.0 - self.choices[b]) + (self.prefix[edge] - self.prefix[start])
        return total


def _extended(best: NDArray[np.float64], segments: _Segments) -> NDArray[np.float64]:
    """
    Paths with one more choice: ``max over a <= b of best[a] + between(a, b)`` for every b.

    The best a never moves to the left as b moves to the right: agents whom b leaves behind fall back on a, and those whom it
    has passed are new in between, and both would rather have an a further right. So the best a of every other b fences in
    those of the b's between, and all b's of one round together have hardly more than m candidates.

    :param best: (m,) values of the paths that end at a choice
    :param segments: what the agents between two choices add
    :return: (m,) the same with one more choice
    """
    m = len(best)
    extended = np.empty(m)
    choice = np.zeros(m + 2, dtype=np.int64)  # the best a of every b, at b + 1; before the first and behind the last one
    choice[-1] = m - 1
    stride = 1 << (m.bit_length() - 1)
    while stride:
        b = np.arange(stride, m + 1, 2 * stride)  # counted from 1
        low = choice[b - stride]
        high = np.minimum(choice[np.minimum(b + stride, m + 1)], b - 1)
        counts = high - low + 1
        begin = np.cumsum(counts) - counts
        a = np.arange(counts.sum()) - np.repeat(begin - low, counts)
        values = best[a] + segments.between(a, np.repeat(b - 1, counts))
        top = np.maximum.reduceat(values, begin)
        hits = np.flatnonzero(values == np.repeat(top, counts))
        choice[b] = a[hits[np.searchsorted(hits, begin)]]
        extended[b - 1] = top
        stride //= 2
    return extended
