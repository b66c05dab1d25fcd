"""
Choosing k of many candidates so that agents, each served by the best of the chosen, have most together.

Known as facility location, or the k-median problem with utilities: maximise over sets S of k candidates the sum over agents of
the maximum over S of their utility. Hard in general; swaps of one candidate at a time, until none helps, come close
(Arya et al., "Local search heuristics for k-median and facility location problems", 2001).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def swap_gains(utilities: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    What every swap would change.

    :param utilities: of agents under candidates, (n_candidates, n_agents)
    :param chosen: k different candidates, (k,)
    :return: change of the sum over agents' utilities if a candidate takes the place of a chosen one, (n_candidates, k); and
        what is lost if a chosen one goes and nobody comes, (k,), infinite for k = 1
    """
    own = utilities[chosen]
    owner = own.argmax(axis=0)
    best = own[owner, np.arange(own.shape[1])]
    if len(chosen) > 1:
        others = own.copy()
        others[owner, np.arange(own.shape[1])] = -np.inf
        second = others.max(axis=0)
    else:
        second = np.full_like(best, -np.inf)
    groups = (owner[:, None] == np.arange(len(chosen))).astype(utilities.dtype)
    # Who has lost their best has the better of the newcomer and the second best; all others at least what they had
    added = np.maximum(utilities - best, 0.0).sum(axis=1)
    lost = np.maximum(np.minimum(utilities, best), second) - best
    with np.errstate(invalid="ignore"):
        removal = np.where(np.isfinite(second), best - second, np.inf)
    losses = np.array([removal[owner == j].sum() for j in range(len(chosen))])
    return added[:, None] + lost @ groups, losses


def total(utilities: np.ndarray, chosen: np.ndarray) -> float:
    """
    :param utilities: of agents under candidates, (n_candidates, n_agents)
    :param chosen: some of them, (k,)
    :return: the sum over agents of their best utility
    """
    return float(utilities[chosen].max(axis=0).sum())


def greedy_choice(utilities: np.ndarray, k: int) -> np.ndarray:
    """
    One candidate after the other, each the one that adds most: at least 1 - 1/e of the best sum if utilities are not negative.

    :param utilities: of agents under candidates, (n_candidates, n_agents)
    :param k: how many to choose, at most n_candidates
    :return: the chosen, (k,)
    """
    chosen = [int(utilities.sum(axis=1).argmax())]
    best = utilities[chosen[0]].copy()
    while len(chosen) < k:
        gains = np.maximum(utilities - best, 0.0).sum(axis=1)
        gains[chosen] = -np.inf
        chosen.append(int(gains.argmax()))
        np.maximum(best, utilities[chosen[-1]], out=best)
    return np.array(chosen)


def exchange(
    utilities: np.ndarray, chosen: np.ndarray, costs: np.ndarray | None = None, least: float = 0.0, max_swaps: int = 1000
) -> np.ndarray:
    """
    Swap candidates, the best swap first, until none is worth it. The sum over agents of their best utility never falls.

    :param utilities: of agents under candidates, (n_candidates, n_agents)
    :param chosen: k different candidates to begin with, (k,)
    :param costs: what a swap has to gain at least for a candidate to take the place of one of the first chosen,
        (n_candidates, k), infinite where it must not; nothing by default. Who came by a swap goes without any
    :param least: what every swap has to gain beyond it
    :param max_swaps: at most so many
    :return: the chosen, (k,)
    """
    chosen = chosen.copy()
    costs = np.zeros((len(utilities), len(chosen))) if costs is None else costs.copy()
    # What rounding alone may gain
    least = max(least, 1e-9 * float(np.abs(utilities[chosen].max(axis=0)).sum()))
    for _ in range(max_swaps):
        gains, _ = swap_gains(utilities, chosen)
        gains -= costs
        gains[chosen] = -np.inf
        candidate, place = np.unravel_index(gains.argmax(), gains.shape)
        if gains[candidate, place] <= least:
            break
        chosen[place] = candidate
        costs[:, place] = 0.0
    return chosen


def searches(utilities: np.ndarray, costs: np.ndarray, restarts: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """
    Good choices: by swaps from the first candidates, and from elsewhere, since swaps of one at a time get stuck.

    :param utilities: of agents under candidates, (n_candidates, n_agents)
    :param costs: of swaps from the first k, as in :func:`exchange`, (n_candidates, k); from elsewhere there are none
    :param restarts: random sets to begin with, beside a greedy choice; 0: from the first k only
    :param random: where they come from
    :return: k candidates each, (k,)
    """
    k: int = costs.shape[1]
    yield exchange(utilities, np.arange(k), costs)
    if restarts and 1 < k < len(utilities):
        yield exchange(utilities, greedy_choice(utilities, k))
        for _ in range(restarts):
            yield exchange(utilities, random.choice(len(utilities), k, replace=False))
