"""Policies: shared trunks, heads, the critic of all agents, and turns."""

from __future__ import annotations

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.utils import ConstantSchedule
from torch import nn

from sb3_rmdp.common.actor import numpy_actor
from sb3_rmdp.represented_ppo import CnnPolicy, MlpPolicy

OBS = spaces.Box(-1.0, 1.0, (3,), np.float32)
ACTION_SPACES = [
    spaces.Box(-1.0, 1.0, (2,), np.float32),
    spaces.Discrete(4),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(3),
]


def make_policy(action_space: spaces.Space = ACTION_SPACES[0], k: int = 3, n_agents: int = 5, **kwargs) -> MlpPolicy:
    th.manual_seed(0)
    policy = MlpPolicy(OBS, action_space, ConstantSchedule(1e-3), k=k, n_rewards=n_agents, **kwargs)
    # Weights that differ enough to tell representatives apart
    with th.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * th.randn(parameter.shape))
    if policy.use_sde:
        policy.reset_noise()
    return policy


@pytest.mark.parametrize("kwargs", [{}, {"normalize_observations": True}, {"share_features_extractor": False}])
@pytest.mark.parametrize("action_space", ACTION_SPACES, ids=str)
def test_blocks_and_indices_are_two_ways_of_saying_who_acts(action_space: spaces.Space, kwargs: dict) -> None:
    policy = make_policy(action_space, **kwargs)
    obs = th.randn(12, 3)
    actions = th.as_tensor(np.stack([action_space.sample() for _ in range(12)])).float()
    blocks = policy.evaluate_actions(obs, actions)
    representatives = th.arange(3).repeat_interleave(4)
    shuffle = th.randperm(12)
    indices = policy.evaluate_actions(obs[shuffle], actions[shuffle], representatives[shuffle])
    for by_block, by_index in zip(blocks, indices, strict=True):
        assert by_block is not None and by_index is not None
        th.testing.assert_close(by_block[shuffle], by_index)
    assert blocks[0].shape == (12, 5)


@pytest.mark.parametrize("use_sde", [False, True])
def test_representatives_differ_in_actions_noise_and_values(use_sde: bool) -> None:
    policy = make_policy(use_sde=use_sde)
    obs = th.randn(1, 3).expand(3, 3)
    distribution = policy.get_distribution(obs, th.arange(3)).distribution
    for quantity in (distribution.mean, distribution.stddev, policy.predict_values(obs, th.arange(3))):
        assert (quantity[0] - quantity[1]).abs().min() > 1e-4
        assert (quantity[1] - quantity[2]).abs().min() > 1e-4


@pytest.mark.parametrize("full_std", [True, False])
def test_gsde_of_a_representative_is_that_of_stock_sb3(full_std: bool) -> None:
    policy = make_policy(use_sde=True, full_std=full_std)
    stock = make_policy(k=1, use_sde=True, full_std=full_std)
    stock.load_state_dict(
        {
            name: value[1:2] if name.startswith("action_net") else value
            for name, value in policy.state_dict().items()
            if name != "mlp_extractor.shift"
        }
        | {"log_std": policy.log_std.detach().view(3, -1, policy.log_std.shape[1])[1]}
    )
    obs, actions = th.randn(6, 3), th.randn(6, 2)
    _, expected, expected_entropy = stock.evaluate_actions(obs, actions)
    _, log_prob, entropy = policy.evaluate_actions(obs, actions, th.ones(6, dtype=th.int64))
    th.testing.assert_close(log_prob, expected)
    th.testing.assert_close(entropy, expected_entropy)


def test_only_the_own_head_of_a_representative_learns_from_its_transitions() -> None:
    policy = make_policy()
    _, log_prob, _ = policy.evaluate_actions(th.randn(4, 3), th.randn(4, 2), th.ones(4, dtype=th.int64))
    log_prob.sum().backward()
    for parameter in (policy.action_net.weight, policy.action_net.bias, policy.log_std):
        assert parameter.grad is not None
        assert (parameter.grad[[0, 2]] == 0).all() and (parameter.grad[1] != 0).any()


def test_critic_parameters_are_those_which_only_values_depend_on() -> None:
    for policy in (make_policy(), make_policy(share_features_extractor=False)):
        critic = {id(parameter) for parameter in policy.critic_parameters()}
        policy.predict_values(th.randn(3, 3)).sum().backward()
        for name, parameter in policy.named_parameters():
            assert (parameter.grad is not None) == (id(parameter) in critic), name


def test_a_critic_without_hidden_layer_cannot_tell_representatives_apart() -> None:
    with pytest.raises(ValueError, match=r"without a hidden layer.*vf=\[64\]"):
        make_policy(net_arch=[])
    make_policy(net_arch=[], k=1)
    images = spaces.Box(0, 255, (3, 36, 36), np.uint8)
    policy = CnnPolicy(images, spaces.Discrete(2), ConstantSchedule(1e-3), k=2, n_rewards=3)
    obs = th.as_tensor(np.stack([images.sample()] * 2))
    with th.no_grad():
        policy.mlp_extractor.shift.copy_(th.randn(2, 64))
        values = policy.predict_values(obs, th.arange(2))
    assert ((values[0] - values[1]) - (values[0] - values[1]).mean()).abs().max() > 1e-3  # more than a shift


@pytest.mark.parametrize("kwargs", [{}, {"normalize_observations": True}, {"activation_fn": nn.ReLU}, {"net_arch": [8]}])
@pytest.mark.parametrize("action_space", ACTION_SPACES[:2], ids=str)
def test_numpy_actor_draws_what_the_policy_draws(action_space: spaces.Space, kwargs: dict) -> None:
    policy = make_policy(action_space, **kwargs)
    if policy.normalizer is not None:
        policy.normalizer.update(np.random.default_rng(0).normal(2.0, 3.0, (100, 3)))
    actor = numpy_actor(policy)
    assert actor is not None
    obs = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    representatives = np.array([2, 0, 1, 2])
    th.manual_seed(5)
    expected = policy.act(th.as_tensor(obs), th.as_tensor(representatives)).detach().numpy()
    th.manual_seed(5)
    np.testing.assert_allclose(actor(obs, representatives), expected, atol=1e-5)


def test_numpy_actor_declines_what_it_does_not_know() -> None:
    assert numpy_actor(make_policy(use_sde=True)) is None
    assert numpy_actor(make_policy(spaces.MultiBinary(2))) is None
    assert numpy_actor(make_policy(activation_fn=nn.GELU)) is None


@pytest.mark.parametrize(("n_envs", "k", "n_episodes"), [(1, 3, 6), (2, 3, 7), (3, 4, 4), (5, 2, 8), (4, 4, 8)])
def test_turns_give_n_episodes_to_representatives_0_to_n_minus_1_mod_k(n_envs: int, k: int, n_episodes: int) -> None:
    """Episodes of random lengths, counted as SB3's ``evaluate_policy`` counts them."""
    policy = make_policy(k=k)
    rng = np.random.default_rng(n_envs)
    targets = np.array([(n_episodes + i) // n_envs for i in range(n_envs)])
    counts, seen, state = np.zeros(n_envs, dtype=int), [], None
    starts = np.ones(n_envs, dtype=bool)
    while (counts < targets).any():
        _, state = policy.predict(np.zeros((n_envs, 3), dtype=np.float32), state=state, episode_start=starts)
        dones = rng.random(n_envs) < 0.4
        for i in np.flatnonzero(counts < targets):
            starts[i] = dones[i]
            if dones[i]:
                seen.append(int(state[0][i]))
                counts[i] += 1
    assert sorted(seen) == sorted(m % k for m in range(n_episodes))


def test_the_representative_stays_for_a_whole_episode() -> None:
    policy = make_policy(k=3)
    obs = np.zeros(3, dtype=np.float32)
    _, state = policy.predict(obs, episode_start=np.array([True]))
    acted = []
    for start in (False, False, True, False, True):
        _, state = policy.predict(obs, state=state, episode_start=np.array([start]))
        acted.append(int(state[0][0]))
    assert acted == [0, 0, 1, 1, 2]


def test_representatives_can_be_chosen_one_for_all_or_env_by_env() -> None:
    policy = make_policy()
    obs = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    by_env, _ = policy.predict(obs, deterministic=True, representative=np.array([1, 0, 2]))
    for env, j in enumerate([1, 0, 2]):
        alone, _ = policy.predict(obs[env], deterministic=True, representative=j)
        np.testing.assert_allclose(by_env[env], alone, atol=1e-6)


@pytest.mark.parametrize("representative", [3, -1, 0.5, np.array([0, 3])])
def test_wrong_representatives(representative) -> None:
    with pytest.raises(ValueError, match="choose from 0 to 2"):
        make_policy().predict(np.zeros((2, 3), dtype=np.float32), representative=representative)
