"""What is done to observations before a model's networks see them: by its policy, and by a VecNormalize in front."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_rmdp.common.normalization import WHOLE
from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm
from sb3_rmdp.common.policies import RepresentedActorCriticPolicy
from sb3_rmdp.common.vec_normalize_file import read_vec_normalize
from sb3_rmdp.zoo.run_folder import statistics_beside


@dataclass(frozen=True)
class Stage:
    """
    ``clip((x - mean) * factor, -limit, limit)``, applied to one key of observations.

    :param by: who does it, "VecNormalize" or "policy"
    :param key: key in a ``Dict`` of observations; :data:`WHOLE` if they are none
    :param mean: float64 or float32, (*shape of the observation)
    :param factor: the same
    :param limit: largest absolute value that comes out
    """

    by: str
    key: str
    mean: np.ndarray
    factor: np.ndarray
    limit: float


def parts(space: spaces.Space) -> dict[str, spaces.Space]:
    """
    :param space: of observations
    :return: spaces by key, one under :data:`WHOLE` if observations are no ``Dict``
    """
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {WHOLE: space}


def stages_of(policy: RepresentedActorCriticPolicy, statistics: VecNormalize | None) -> list[Stage]:
    """
    :param policy: of a represented model
    :param statistics: the VecNormalize that it was trained under
    :return: from raw observations to what the networks see, in this order
    :raises ValueError: if the statistics are of other observations than the model's
    """
    stages: list[Stage] = []
    space = policy.observation_space
    if statistics is not None and statistics.norm_obs:
        known = statistics.obs_rms if isinstance(statistics.obs_rms, dict) else {WHOLE: statistics.obs_rms}
        for key, moments in known.items():
            part = parts(space).get(key)
            if part is None or part.shape != moments.mean.shape:
                where = f" under the key {key!r}" if key else ""
                raise ValueError(
                    f"the statistics of VecNormalize are of observations of shape {moments.mean.shape}{where}, the model "
                    f"takes {'none' if part is None else part.shape}: give those of its training. They cannot be folded in "
                    "where observations were stacked after they had been normalised"
                )
            factor = 1.0 / np.sqrt(moments.var + statistics.epsilon)
            stages.append(Stage("VecNormalize", key, np.asarray(moments.mean), np.asarray(factor), float(statistics.clip_obs)))
    if policy.normalizer is not None:
        for key, part in parts(space).items():
            running = policy.normalizer.moments(key)
            if running is not None:
                # Both in the precision in which the policy normalises
                mean = running.centre(th.float64 if part.dtype == np.float64 else th.float32).cpu().numpy()
                factor = running.scale(policy.normalizer.epsilon).cpu().numpy().astype(mean.dtype)
                stages.append(Stage("policy", key, mean, factor, policy.normalizer.clip))
    return stages


def find_statistics(
    model: RepresentedOnPolicyAlgorithm, given: VecEnv | str | Path | None, file: Path | None = None, trusted: bool = False
) -> VecNormalize | None:
    """
    :param model: a model
    :param given: a VecNormalize, a vec env that holds one, a file that one has written, or ``None`` to look for it in the
        model's environment, and in the run folder of RL Zoo that the model lies in
    :param file: that the model was read from
    :param trusted: whether a file of statistics may make objects of any class, see :func:`read_vec_normalize`
    :return: the statistics that the model was trained under; ``None`` if it was trained under none
    :raises ValueError: if there should be statistics and are none, or the reverse, or the file holds something else, or is not
        trusted
    :raises FileNotFoundError: if there is no such file
    """
    if given is None:
        if model.trained_under_vec_normalize is False:
            return None
        found = model.get_vec_normalize_env()
        if found is None and file is not None and model.trained_under_vec_normalize:
            saved = statistics_beside(file)
            found = read_vec_normalize(saved[0], trusted) if len(saved) == 1 else None
        if model.trained_under_vec_normalize and (found is None or not found.norm_obs):
            raise ValueError(
                "the model was trained on observations normalised by VecNormalize, and its statistics are not at hand: name "
                "the file that VecNormalize.save has written, with vec_normalize=..., or --vec-normalize FILE"
            )
        return found
    statistics = unwrap_vec_normalize(given) if isinstance(given, VecEnv) else read_vec_normalize(Path(given), trusted)
    if statistics is None or not statistics.norm_obs:
        raise ValueError(f"vec_normalize={given!r} normalises no observations: give that of the training, or leave it out")
    if model.trained_under_vec_normalize is False:
        raise ValueError(
            "the model was trained without VecNormalize, and would not understand observations that one has normalised: leave "
            "vec_normalize, --vec-normalize, out"
        )
    return statistics
