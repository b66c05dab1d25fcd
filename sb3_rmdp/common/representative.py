"""One representative of a model, as an object that acts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sb3_rmdp.common.arguments import Count, shown

if TYPE_CHECKING:
    from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm


class Representative:
    """
    Acts as one representative of a model; takes the place of a model in SB3's ``evaluate_policy``.

    :param model: the model
    :param index: which of its representatives
    :param k: number of its representatives
    :raises ValueError: if index is not in [0, k)
    """

    def __init__(self, model: RepresentedOnPolicyAlgorithm, index: int, k: int):
        try:
            self.index = Count(0, k - 1).read(index)
        except ValueError:
            raise ValueError(f"representative {shown(index)}: with k={k} representatives are numbered 0 to {k - 1}") from None
        self.model = model

    @property
    def agents(self) -> np.ndarray:
        """Indices of the agents it serves, int64."""
        return np.flatnonzero(self.model.assignment.representatives == self.index)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        :param observation: one observation or a batch of them
        :param state: not needed, as the next
        :param episode_start:
        :param deterministic: take the mode instead of a sample
        :return: actions, and a state that need not be kept
        """
        return self.model.predict(observation, state, episode_start, deterministic, representative=self.index)
