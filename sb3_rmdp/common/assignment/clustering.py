"""The paper's baseline: cluster agents by the rewards they see under one universal policy."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch as th

from sb3_rmdp.common.arguments import Count, Number
from sb3_rmdp.common.assignment.base import HardAssignment

#: Agents up to which K-means looks at all of them at every step
FEW = 100_000


class ClusteringAssignment(HardAssignment):
    """
    A pipeline of three steps (section 4, "Algorithms"): train a universal policy for the mean agent, run K-means on sampled
    reward trajectories, then train one policy per cluster.

    While the universal policy is trained, every representative serves all agents alike (``alpha = 1/k``). An agent is then
    described by its rewards at sampled steps of representative 0, and the clusters of scikit-learn's K-means stay fixed
    from there on. The representatives start into the second phase from the universal policies they have learned.

    With factored rewards, clusters are found among points of as many coordinates as there are features, which lie as far
    from each other as the agents' sampled rewards do. Of more than :data:`FEW` agents, K-means takes small batches.

    :param universal_fraction: share of the training spent on the universal policy, in (0, 1)
    :param n_samples: number of steps at which rewards are sampled, at most
    :raises ValueError: if an argument is wrong
    """

    takes_features: ClassVar[bool] = True

    clustered: th.Tensor

    def __init__(self, n_agents: int, k: int, seed: int | None = None, universal_fraction: float = 0.5, n_samples: int = 2048):
        super().__init__(n_agents, k, seed)
        self.universal_fraction = Number(0, 1, above=True, below=True).check("universal_fraction", universal_fraction)
        self.n_samples = Count().check("n_samples", n_samples)
        self.register_buffer("clustered", th.zeros((), dtype=th.bool))
        self._samples = np.zeros((0, 0), dtype=np.float32)

    @property
    def alpha(self) -> th.Tensor:
        return (
            super().alpha if self.clustered else th.full((self.n_agents, self.k), 1.0 / self.k, device=self.served_by.device)
        )

    def record_rewards(self, representatives: np.ndarray, reward_vectors: np.ndarray) -> None:
        if not self.clustered:
            steps, envs = np.nonzero(representatives == 0)
            chosen = np.linspace(0, len(steps) - 1, num=min(self.n_samples, len(steps)), dtype=np.int64)
            if len(steps):
                self._samples = reward_vectors[steps[chosen], envs[chosen]].copy()

    def update(self, progress: float) -> None:
        if not self.clustered and progress >= self.universal_fraction and len(self._samples):
            # Slow to import, and this is the only method in need of it
            from sklearn.cluster import KMeans, MiniBatchKMeans

            # scikit-learn warns where agents are less distinct than k asks for; then clusters stay empty, as in the paper
            method = KMeans if self.n_agents <= FEW else MiniBatchKMeans
            labels = method(n_clusters=self.k, n_init=10, random_state=self.seed).fit(self._points()).labels_
            self.served_by.copy_(th.as_tensor(labels.astype(np.int64)))
            self.clustered.fill_(True)

    def get_run_state(self) -> dict[str, Any]:
        return {"samples": self._samples}

    def set_run_state(self, state: dict[str, Any]) -> None:
        self._samples = state["samples"]

    def _points(self) -> np.ndarray:
        """What is clustered, one row per agent: its sampled rewards, or coordinates with the same distances."""
        if not self.reward_weights.factored:
            return self._samples.T
        # Distances depend on S^T S alone, S being the sampled features: R of its QR decomposition does as well
        upper = th.linalg.qr(th.as_tensor(self._samples, device=self.served_by.device), mode="r").R
        return self.reward_weights.of_agents(upper.t()).cpu().numpy()
