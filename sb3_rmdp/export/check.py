"""Whether what was exported acts like the model: on random observations, ordinary and extreme ones."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rmdp.common.normalization import WHOLE
from sb3_rmdp.common.policies import RepresentedActorCriticPolicy
from sb3_rmdp.export.normalization import Stage, parts

#: By how much actions may differ, see :meth:`Reference.difference`
TOLERANCE = 1e-5

#: Bounds beyond this are none: no observation is drawn evenly between them
BOUNDLESS = 1e6


def random_observations(space: spaces.Space, n: int, stages: Sequence[Stage] = (), seed: int = 0) -> Any:
    """
    Observations within bounds where there are any, else around the mean, from a tenth of a standard deviation to thirty of
    them away, so that normalised observations are clipped as well.

    :param space: of observations
    :param n: how many
    :param stages: normalisation that tells where observations lie
    :param seed: of the random numbers
    :return: an array (n, *shape), or a dict of such
    """
    rng = np.random.RandomState(seed)
    drawn: dict[str, np.ndarray] = {}
    for key, part in parts(space).items():
        stage = next((stage for stage in stages if stage.key == key), None)
        if isinstance(part, spaces.Box):
            drawn[key] = _in_box(part, n, rng, stage)
        elif isinstance(part, spaces.Discrete):
            drawn[key] = rng.randint(part.n, size=n)
        elif isinstance(part, spaces.MultiDiscrete):
            drawn[key] = rng.randint(part.nvec, size=(n, *part.shape))
        else:
            drawn[key] = rng.randint(2, size=(n, *(part.shape or ()))).astype(part.dtype)
    return drawn.get(WHOLE, drawn) if not isinstance(space, spaces.Dict) else drawn


def _in_box(space: spaces.Box, n: int, rng: np.random.RandomState, stage: Stage | None) -> np.ndarray:
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    if np.issubdtype(space.dtype, np.integer):
        return np.floor(rng.uniform(low, high + 1.0, (n, *space.shape))).clip(low, high).astype(space.dtype)
    bounded = (np.abs(low) < BOUNDLESS) & (np.abs(high) < BOUNDLESS)
    evenly = rng.uniform(np.where(bounded, low, 0.0), np.where(bounded, high, 1.0), (n, *space.shape))
    centre, spread = (0.0, 1.0) if stage is None else (stage.mean, 1.0 / stage.factor)
    distance = 10.0 ** rng.uniform(-1.0, 1.5, (n, *[1] * len(space.shape)))
    around = centre + spread * distance * rng.standard_normal((n, *space.shape))
    # Where there are moments half of the observations follow them, bounds or not: environments may leave these
    by_bounds = bounded if stage is None else bounded & (np.arange(n) % 2 == 0).reshape(-1, *[1] * len(space.shape))
    return np.where(by_bounds, evenly, around).astype(space.dtype)


def on_cpu(policy: RepresentedActorCriticPolicy) -> RepresentedActorCriticPolicy:
    """
    :param policy: of a model
    :return: a copy of it that acts on the CPU
    """
    copy = io.BytesIO()
    policy.save(copy)  # type: ignore[arg-type]
    copy.seek(0)
    with th.random.fork_rng(devices=[]):
        return type(policy).load(copy, device="cpu")  # type: ignore[arg-type]


class Reference:
    """
    What a model does on some observations.

    :param policy: of the model
    :param statistics: the VecNormalize in front of it
    :param obs: a batch of raw observations
    """

    def __init__(self, policy: RepresentedActorCriticPolicy, statistics: VecNormalize | None, obs: Any):
        # GPUs round differently, and more where they convolve
        self.policy = policy if policy.device.type == "cpu" else on_cpu(policy)
        self.raw = obs
        self.obs = obs if statistics is None else statistics.normalize_obs(obs)

    def actions(self, index: int) -> np.ndarray:
        """
        :param index: of a representative
        :return: its likeliest actions, (batch, *action shape)
        """
        return self.policy.predict(self.obs, deterministic=True, representative=index)[0]

    def difference(self, index: int, found: np.ndarray) -> float:
        """
        How far actions are from the model's. Continuous ones differ in multiples of the largest of 1, their size and, where
        they are squashed, half the width of their range: rounding errors are proportional to these. Others differ by how much
        likelier, in log probability, the model thinks its own are: two equally likely ones may differ by the last digit.

        :param index: of a representative
        :param found: actions that were taken in its place, (batch, *action shape)
        :return: the largest difference; nan if an action is nan
        :raises ValueError: if they are of another shape or type
        """
        expected = self.actions(index)
        if found.shape != expected.shape or found.dtype != expected.dtype:
            raise ValueError(
                f"exported actions are {found.dtype} {found.shape}, those of the model {expected.dtype} {expected.shape}"
            )
        space = self.policy.action_space
        if isinstance(space, spaces.Box):
            # Squashed actions are scaled to their range
            half = (space.high.astype(np.float64) - space.low) / 2.0 if self.policy.squash_output else 1.0
            unit = np.maximum(np.maximum(1.0, half), np.abs(expected))
            return float((np.abs(expected - found.astype(np.float64)) / unit).max())
        if (expected == found).all():
            return 0.0
        batch = len(expected)
        with th.no_grad():
            tensors = obs_as_tensor(self.obs, self.policy.device)
            distribution = self.policy.get_distribution(tensors, th.full((batch,), index))
            own, other = (distribution.log_prob(th.as_tensor(actions)) for actions in (expected, found))
        return float((own - other).max())
