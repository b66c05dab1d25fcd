"""Models of all kinds that SB3's PPO knows, with random parameters: nothing of theirs is small, and no two are alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from torch import nn

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.policies import RepresentedActorCriticPolicy
from sb3_rmdp.export.check import random_observations
from tests.probes import Spaces

FLOATS = spaces.Box(-np.inf, np.inf, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (36, 36, 1), np.uint8)
SMALL: dict[str, Any] = dict(n_steps=8, batch_size=8, n_epochs=1, device="cpu", seed=0)
ARM = spaces.Box(np.array([-2.0, -3.0], np.float32), np.array([0.5, 4.0], np.float32))
MANY = spaces.Dict(
    {
        "action": spaces.Box(-1.0, 1.0, (2, 2), np.float32),
        "linear": spaces.Box(-50.0, 50.0, (2,), np.float64),
        "camera": IMAGE,
        "gear": spaces.Discrete(4),
        "dials": spaces.MultiDiscrete([2, 3]),
        "switches": spaces.MultiBinary(3),
    }
)


def untrained(
    policy: str | type[RepresentedActorCriticPolicy],
    observation_space: spaces.Space,
    action_space: spaces.Space,
    k: int = 2,
    n_agents: int = 4,
    **kwargs: Any,
) -> RepresentedPPO:
    """
    :param policy: name or class of a policy
    :param observation_space: of the environment
    :param action_space: of the environment
    :param k: number of representatives
    :param n_agents: number of agents, the first of whom is served by representative 1 and the others by 0
    :param kwargs: arguments of the model
    :return: a model with random parameters
    """
    env: VecEnv = DummyVecEnv([lambda: Spaces(observation_space, action_space, n_agents)])
    if kwargs.pop("under_vec_normalize", False):
        keys = ["linear"] if isinstance(observation_space, spaces.Dict) else None
        env = VecNormalize(env, norm_reward=False, clip_obs=2.0, norm_obs_keys=keys)
    fixed: dict[str, Any] = dict(representatives=[k - 1] + [0] * (n_agents - 1))
    model = RepresentedPPO(policy, env, k=k, **{**SMALL, "assignment": "fixed", "assignment_kwargs": fixed, **kwargs})
    randomize(model)
    return model


@th.no_grad()
def randomize(model: RepresentedPPO) -> None:
    """
    :param model: gets random parameters, and statistics of observations that are far from 0 and 1
    """
    generator = th.Generator().manual_seed(7)
    for name, parameter in model.policy.named_parameters():
        scale = 0.3 if parameter.ndim < 2 or "bias" in name else parameter[0].numel() ** -0.5 if parameter.ndim != 3 else 0.25
        parameter.copy_(scale * th.randn(parameter.shape, generator=generator))
        if "log_std" in name:
            parameter.mul_(0.3)
    rng = np.random.RandomState(1)
    if model.policy.normalizer is not None:
        model.policy.normalizer.update(_elsewhere(random_observations(model.observation_space, 64), rng))
    normalize = model.get_vec_normalize_env()
    if normalize is not None:
        moments = normalize.obs_rms.values() if isinstance(normalize.obs_rms, dict) else [normalize.obs_rms]
        for each in moments:
            each.update(rng.normal(5.0, 3.0, size=(64, *each.mean.shape)))
        model.trained_under_vec_normalize = True


def _elsewhere(obs: Any, rng: np.random.RandomState) -> Any:
    if isinstance(obs, dict):
        return {key: _elsewhere(value, rng) for key, value in obs.items()}
    return obs * rng.uniform(0.2, 3.0) - 1.0


#: Every action space and policy of SB3's PPO, and what changes how a policy acts
CASES: dict[str, Callable[[], RepresentedPPO]] = {
    "box": lambda: untrained("MlpPolicy", FLOATS, ARM, k=3),
    "discrete": lambda: untrained("MlpPolicy", FLOATS, spaces.Discrete(5)),
    "multi_discrete": lambda: untrained("MlpPolicy", FLOATS, spaces.MultiDiscrete([3, 2, 4])),
    "multi_binary": lambda: untrained("MlpPolicy", FLOATS, spaces.MultiBinary(4)),
    "k_is_n": lambda: untrained("MlpPolicy", FLOATS, ARM, k=4),
    "k_is_1_without_layers": lambda: untrained("MlpPolicy", FLOATS, ARM, k=1, policy_kwargs=dict(net_arch=[])),
    "raw": lambda: untrained("MlpPolicy", FLOATS, ARM, normalize_observations=False),
    "of_64_bits": lambda: untrained(
        "MlpPolicy", spaces.Box(-5.0, 5.0, (2, 2), np.float64), spaces.Box(-2.1, 0.3, (2, 1), np.float64)
    ),
    "of_discrete_observations": lambda: untrained("MlpPolicy", spaces.MultiDiscrete([3, 4]), spaces.Discrete(3)),
    "networks": lambda: untrained(
        "MlpPolicy",
        FLOATS,
        ARM,
        policy_kwargs=dict(net_arch=dict(pi=[7], vf=[5, 4]), activation_fn=nn.ELU, share_features_extractor=False),
    ),
    "gsde": lambda: untrained("MlpPolicy", FLOATS, ARM, use_sde=True, policy_kwargs=dict(full_std=False)),
    "gsde_squashed": lambda: untrained(
        "MlpPolicy", FLOATS, ARM, use_sde=True, policy_kwargs=dict(squash_output=True, use_expln=True)
    ),
    "vec_normalize": lambda: untrained("MlpPolicy", FLOATS, ARM, under_vec_normalize=True, normalize_observations=False),
    "cnn": lambda: untrained("CnnPolicy", IMAGE, ARM),
    "cnn_of_floats": lambda: untrained(
        "CnnPolicy",
        spaces.Box(-3.0, 3.0, (1, 36, 36), np.float32),
        ARM,
        policy_kwargs=dict(
            features_extractor_class=NatureCNN,
            features_extractor_kwargs=dict(features_dim=16),
            share_features_extractor=False,
            normalize_images=False,
        ),
    ),
    "multi_input": lambda: untrained("MultiInputPolicy", MANY, ARM),
    "multi_input_twice_normalized": lambda: untrained("MultiInputPolicy", MANY, ARM, under_vec_normalize=True),
}

#: Tracing a graph takes seconds: those that differ in what the graph has to do
ONNX_CASES = (
    "box",
    "discrete",
    "multi_discrete",
    "multi_binary",
    "of_64_bits",
    "gsde_squashed",
    "cnn",
    "multi_input_twice_normalized",
)
