"""With one agent and one representative, RepresentedPPO is PPO."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import set_random_seed

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.buffers import RepresentedRolloutSamples
from sb3_rmdp.envs import VectorReward
from sb3_rmdp.represented_ppo.autograd_gradients import AutogradGradients
from tests.probes import Drift, Spaces, time_limited

ACTION_SPACES = {
    "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
    "discrete": spaces.Discrete(3),
    "multi_discrete": spaces.MultiDiscrete([3, 2]),
    "multi_binary": spaces.MultiBinary(3),
}


class Lonely(Drift):
    """One agent."""

    n_agents = 1


def pair(make_env: Any, n_envs: int = 1, **kwargs: Any) -> tuple[PPO, RepresentedPPO]:
    """Stock PPO and ours, with the same weights."""
    arguments = {"n_steps": 32, "batch_size": 16, "n_epochs": 3, "seed": 0, "device": "cpu", "max_grad_norm": 1e9, **kwargs}
    stock = PPO("MlpPolicy", make_vec_env(make_env, n_envs, seed=0), **arguments)
    ours = RepresentedPPO("MlpPolicy", make_vec_env(make_env, n_envs, seed=0), k=1, normalize_observations=False, **arguments)
    copy_weights(stock, ours)
    return stock, ours


def copy_weights(stock: PPO, ours: RepresentedPPO) -> None:
    source, target = stock.policy.state_dict(), ours.policy.state_dict()
    assert source.keys() == target.keys()
    # Ours have an axis of representatives, of length 1, in front
    ours.policy.load_state_dict({name: source[name].reshape(target[name].shape) for name in target})


def assert_same_weights(stock: PPO, ours: RepresentedPPO) -> None:
    target = ours.policy.state_dict()
    for name, value in stock.policy.state_dict().items():
        th.testing.assert_close(target[name].reshape(value.shape), value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("action_space", ACTION_SPACES.values(), ids=ACTION_SPACES.keys())
def test_same_actions_values_losses_and_gradients(action_space: spaces.Space) -> None:
    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
    stock, ours = pair(lambda: Spaces(observation_space, action_space, n_agents=1), ent_coef=0.01)
    obs = np.random.default_rng(0).uniform(-1, 1, (8, 3)).astype(np.float32)
    for deterministic in (True, False):
        set_random_seed(1)
        expected = stock.predict(obs, deterministic=deterministic)[0]
        set_random_seed(1)
        np.testing.assert_allclose(ours.predict(obs, deterministic=deterministic)[0], expected, atol=1e-6)
    obs_tensor = th.as_tensor(obs)
    th.testing.assert_close(ours.policy.predict_values(obs_tensor), stock.policy.predict_values(obs_tensor))

    # One batch, its loss written out as in SB3's PPO.train
    set_random_seed(2)
    actions, _, old_log_prob = ours.policy(obs_tensor)
    actions, old_log_prob = actions.detach(), old_log_prob.detach() + 0.1
    if isinstance(action_space, spaces.Discrete):
        actions = actions.flatten()
    advantages, returns = th.randn(8), th.randn(8)
    values, log_prob, entropy = stock.policy.evaluate_actions(obs_tensor, actions)
    normalized = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    ratio = th.exp(log_prob - old_log_prob)
    policy_loss = -th.min(normalized * ratio, normalized * ratio.clamp(0.8, 1.2)).mean()
    value_loss = th.nn.functional.mse_loss(returns, values.flatten())
    expected_loss = policy_loss - 0.01 * entropy.mean() + 0.5 * value_loss
    expected_loss.backward()

    batch = RepresentedRolloutSamples(obs_tensor, actions.float(), old_log_prob, advantages, returns[:, None], None, None)
    loss, _, log = AutogradGradients(ours, clip_range=0.2, ent_coef=0.01).loss(batch)
    loss.backward()
    th.testing.assert_close(loss, expected_loss)
    th.testing.assert_close(log[:2], th.stack([policy_loss, value_loss]).detach())
    expected_gradients = {name: parameter.grad for name, parameter in stock.policy.named_parameters()}
    for name, parameter in ours.policy.named_parameters():
        expected_gradient = expected_gradients[name]
        assert parameter.grad is not None and expected_gradient is not None
        th.testing.assert_close(parameter.grad.reshape(expected_gradient.shape), expected_gradient)


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size:UserWarning")
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"clip_range_vf": 0.2, "ent_coef": 0.01},
        {"target_kl": 0.001},
        {"use_sde": True, "sde_sample_freq": 4},
        {"batch_size": 20},
        {"policy_kwargs": {"share_features_extractor": False, "activation_fn": th.nn.ReLU}},
    ],
    ids=["default", "clip_range_vf", "target_kl", "sde", "truncated", "unshared"],
)
def test_a_whole_training_is_the_same(kwargs: dict[str, Any], n_envs: int) -> None:
    """Time limits, several rollouts, the random numbers of sampling and shuffling: everything ends in the same weights."""
    stock, ours = pair(lambda: time_limited(Lonely()), n_envs, **kwargs)
    for model in (stock, ours):
        set_random_seed(3)
        model.env.seed(3)
        if model.use_sde:
            model.policy.reset_noise(n_envs)
        model.learn(3 * 32 * n_envs)
    assert ours.num_timesteps == stock.num_timesteps and ours._n_updates == stock._n_updates
    assert_same_weights(stock, ours)
    for name in ("train/value_loss", "train/explained_variance", "train/policy_gradient_loss", "rollout/ep_rew_mean"):
        expected = stock.logger.name_to_value.get(name)
        if expected is not None and name in ours.logger.name_to_value:
            assert ours.logger.name_to_value[name] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_pendulum_with_one_agent_is_pendulum() -> None:
    def make() -> gym.Env:
        return VectorReward(gym.make("Pendulum-v1"), lambda obs, action, next_obs, info: [-float(next_obs[1] ** 2)], 1)

    stock, ours = pair(make)
    for model in (stock, ours):
        set_random_seed(3)
        model.env.seed(3)
        model.learn(512)
    assert_same_weights(stock, ours)
