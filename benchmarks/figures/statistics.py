"""Means, errors and tests over seeds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import sqrt
from typing import NamedTuple, TypeVar

import numpy as np
from scipy import stats

#: What trainings are paired by
K = TypeVar("K", bound=Hashable)

#: Difference up to which two values of welfare, means of the same numbers in another order perhaps, are equal
ROUNDING = 1e-9


class Paired(NamedTuple):
    """
    Two algorithms over the trainings that both have.

    :param pairs: number of those trainings
    :param ahead: in how many of them the first has more. Of a single failure among many pairs, which widens the spread as much
        as it raises the mean, a t-test makes little; this tells the two apart
    :param difference: mean of first minus second; without pairs ``None``
    :param p: of a two-sided paired t-test; ``None`` with fewer than two pairs, or if all differ by the same (but
        for nothing)
    """

    pairs: int
    ahead: int
    difference: float | None
    p: float | None


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """
    :param values: one per seed, at least one
    :return: their mean and its standard error, which a single one does not have
    """
    error = float(np.std(values, ddof=1)) / sqrt(len(values)) if len(values) > 1 else None
    return float(np.mean(values)), error


def paired(first: Mapping[K, float], second: Mapping[K, float]) -> Paired:
    """
    :param first: welfare by seed, or by environment and seed
    :param second: of the other algorithm
    :return: how they compare
    """
    differences = np.array([first[key] - second[key] for key in first if key in second], dtype=np.float64)
    if not len(differences):
        return Paired(0, 0, None, None)
    mean, ahead = float(differences.mean()), int((differences > ROUNDING).sum())
    if len(differences) < 2:
        return Paired(1, ahead, mean, None)
    # The statistic divides by the spread. Equal results are no evidence; one difference again and again has no error to
    # be judged by
    if np.ptp(differences) <= 1e-12 * np.abs(differences).max():
        return Paired(len(differences), ahead, mean, 1.0 if not differences.any() else None)
    return Paired(len(differences), ahead, mean, float(stats.ttest_1samp(differences, 0.0).pvalue))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """
    Adjusted by Holm's method, as there are several rivals: what is below 0.05 then, all of it together errs with at most 5 %.

    :param p_values: of the tests that belong together; ``None`` where there was no test
    :return: adjusted, in the same order
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[index] = largest
    return adjusted
