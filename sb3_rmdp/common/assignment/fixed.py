"""An assignment that is given and stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch as th

from sb3_rmdp.common.arguments import refusal, shown
from sb3_rmdp.common.assignment.base import HardAssignment


class FixedAssignment(HardAssignment):
    """
    Agents stay with the representatives they were given. A representative may be left without agents.

    :param representatives: representative of each agent, integers in [0, k), (n_agents,)
    :raises ValueError: if the shape, type or range is wrong
    """

    takes_features: ClassVar[bool] = True  # it does not listen

    def __init__(
        self, n_agents: int, k: int, seed: int | None = None, representatives: Sequence[int] | np.ndarray | None = None
    ):
        super().__init__(n_agents, k, seed)
        if representatives is None:
            raise ValueError(
                "assignment='fixed' needs to know who serves whom: "
                f"pass assignment_kwargs=dict(representatives=...), {n_agents} integers in [0, {k})"
            )
        self.served_by.copy_(th.as_tensor(check_representatives(representatives, n_agents, k)))


def check_representatives(representatives: Sequence[int] | np.ndarray, n_agents: int, k: int) -> np.ndarray:
    """
    :param representatives: representative of each agent
    :param n_agents: the length they must have
    :param k: the integers must lie in [0, k)
    :return: int64 array (n_agents,)
    :raises ValueError: naming what is wrong
    """
    try:
        array = np.asarray(representatives)
    except (ValueError, TypeError):
        raise refusal("representatives", representatives, f"give {n_agents} integers in [0, {k})") from None
    if array.shape != (n_agents,):
        why = f"give one representative per agent, shape ({n_agents},)"
        raise ValueError(f"representatives={shown(representatives)} has shape {array.shape}: {why}")
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"representatives={shown(representatives)} has dtype {array.dtype}: give integers in [0, {k})")
    wrong = array[(array < 0) | (array >= k)]
    if wrong.size:
        why = f"with k={k} representatives are numbered 0 to {k - 1}"
        raise ValueError(f"representatives={shown(representatives)} contains {wrong[0]}: {why}")
    return array.astype(np.int64)
