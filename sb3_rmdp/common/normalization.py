"""Running normalisation of observations inside the policy (appendix B of the paper)."""

from __future__ import annotations

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

#: Key of an observation that is no ``Dict``
WHOLE = ""


class ObservationNormalizer(nn.Module):
    """
    Subtracts a running mean from continuous observations, divides by the running standard deviation, and clips.

    The moments are buffers: they are saved with the policy, so that a loaded model acts on raw observations. They change
    only in :meth:`update`, hence between rollouts: all ratios of an update are taken under the same moments. Images and
    discrete observations pass unchanged, in a ``Dict`` key by key.

    :param observation_space: space of the raw observations
    :param clip: normalised observations lie in [-clip, clip]
    :param epsilon: added to the variance
    """

    def __init__(self, observation_space: spaces.Space, clip: float = 10.0, epsilon: float = 1e-8):
        super().__init__()
        self.clip = clip
        self.epsilon = epsilon
        parts = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {WHOLE: observation_space}
        self._keys = [key for key, part in parts.items() if _is_continuous(part)]
        # A list, since names of modules must not hold what keys of observations may hold
        self._moments = nn.ModuleList(RunningMoments(parts[key].shape or ()) for key in self._keys)

    def moments(self, key: str = WHOLE) -> RunningMoments | None:
        """
        :param key: of a ``Dict`` observation
        :return: its moments; ``None`` if it is not normalised
        """
        if key not in self._keys:
            return None
        moments = self._moments[self._keys.index(key)]
        assert isinstance(moments, RunningMoments)
        return moments

    def forward(self, obs: PyTorchObs) -> PyTorchObs:
        """
        :param obs: raw observations, (batch, ...), or a dict of them
        :return: the same with continuous parts normalised
        """
        if isinstance(obs, dict):
            return {key: self._normalize(key, value) for key, value in obs.items()}
        return self._normalize(WHOLE, obs)

    def _normalize(self, key: str, obs: th.Tensor) -> th.Tensor:
        moments = self.moments(key)
        if moments is None:
            return obs
        return ((obs - moments.centre(obs.dtype)) * moments.scale(self.epsilon)).clamp(-self.clip, self.clip)

    def update(self, obs: np.ndarray | dict[str, np.ndarray]) -> None:
        """
        :param obs: raw observations of a rollout, (..., *observation shape), or a dict of them
        :raises ValueError: if one is not finite; no moments have changed then
        """
        parts = obs if isinstance(obs, dict) else {WHOLE: obs}
        known = [(moments, value) for key, value in parts.items() if (moments := self.moments(key)) is not None]
        for (moments, _), together in zip(known, [moments.together_with(value) for moments, value in known], strict=True):
            moments.take(*together)


class RunningMoments(nn.Module):
    """
    Mean and variance of all samples so far, in float64 (the parallel algorithm of Chan et al.).

    :param shape: shape of one sample
    """

    mean: th.Tensor
    var: th.Tensor
    count: th.Tensor

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.register_buffer("mean", th.zeros(shape, dtype=th.float64))
        self.register_buffer("var", th.ones(shape, dtype=th.float64))
        self.register_buffer("count", th.zeros((), dtype=th.float64))

    def centre(self, dtype: th.dtype) -> th.Tensor:
        """
        :param dtype: of observations
        :return: the mean, float64 if these are, so that none of their digits are lost, else float32, (*shape)
        """
        return self.mean if dtype == th.float64 else self.mean.float()

    def scale(self, epsilon: float) -> th.Tensor:
        """
        :param epsilon: added to the variance
        :return: one over the standard deviation, float32, (*shape)
        """
        return (self.var + epsilon).rsqrt().float()

    def update(self, samples: np.ndarray) -> None:
        """
        :param samples: (..., *shape)
        :raises ValueError: if one is not finite, or too large for its square; nothing has changed then
        """
        self.take(*self.together_with(samples))

    def together_with(self, samples: np.ndarray) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        :param samples: (..., *shape)
        :return: mean, variance and count of what was seen and of these
        :raises ValueError: if a sample is not finite, or its square is not
        """
        flat = samples.reshape(-1, *self.mean.shape)
        with np.errstate(invalid="ignore", over="ignore"):
            mean = th.as_tensor(flat.mean(axis=0, dtype=np.float64), device=self.mean.device)
            var = th.as_tensor(flat.var(axis=0, dtype=np.float64), device=self.mean.device)
        share = len(flat) / (self.count + len(flat))
        delta = mean - self.mean
        # The unit variance before the first sample has weight 0
        together = self.var * (1.0 - share) + var * share + delta**2 * share * (1.0 - share)
        if not bool(together.isfinite().all()):
            raise ValueError(
                f"observations have a mean square of {float(together.max())}: their running moments must be finite; fix the "
                "environment, or clip what it shows"
            )
        return self.mean + delta * share, together, self.count + len(flat)

    def take(self, mean: th.Tensor, var: th.Tensor, count: th.Tensor) -> None:
        """
        :param mean: of all samples so far, (*shape)
        :param var: of all samples so far, (*shape)
        :param count: of all samples so far
        """
        self.mean.copy_(mean)
        self.var.copy_(var)
        self.count.copy_(count)


def _is_continuous(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating) and not is_image_space(space)
