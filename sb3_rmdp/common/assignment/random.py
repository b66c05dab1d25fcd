"""The paper's weak baseline: an even assignment drawn at random."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch as th

from sb3_rmdp.common.assignment.base import HardAssignment


class RandomAssignment(HardAssignment):
    """Groups of equal size (give or take one agent), drawn once from the seed; never changed."""

    takes_features: ClassVar[bool] = True  # it does not listen

    def __init__(self, n_agents: int, k: int, seed: int | None = None):
        super().__init__(n_agents, k, seed)
        permutation = np.random.default_rng(seed).permutation(n_agents)
        self.served_by.copy_(self.served_by[th.as_tensor(permutation)])
