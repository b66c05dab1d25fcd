"""Whose turn it is: which representative acts in which environment."""

from __future__ import annotations

import numpy as np


def first_representatives(n_envs: int, k: int) -> np.ndarray:
    """
    Representatives of the first episodes: e mod k in env e.

    :param n_envs: number of environments
    :param k: number of representatives
    :return: int64 array (n_envs,)
    """
    return np.arange(n_envs) % k


def next_representatives(representatives: np.ndarray, n_envs: int, k: int) -> np.ndarray:
    """
    Representatives of the following episodes: episode c of env e belongs to (e + c * n_envs) mod k.

    Where n_envs is a multiple of k that is the same one for ever; elsewhere every representative gets its turn. Counting per
    env, rather than handing out turns as episodes end, keeps short episodes from getting more of them.

    :param representatives: of the present episodes
    :param n_envs: number of environments
    :param k: number of representatives
    :return: representatives, of the same shape
    """
    return (representatives + n_envs) % k
