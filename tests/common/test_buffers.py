"""Returns of every agent, marginal advantages, and minibatches."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from sb3_rmdp.common.buffers import VectorRewardDictRolloutBuffer, VectorRewardRolloutBuffer

GAMMA, LAMBDA = 0.9, 0.8
OBS = spaces.Box(-1.0, 1.0, (2,), np.float32)
ACT = spaces.Box(-1.0, 1.0, (1,), np.float32)


def filled(n_steps: int, n_envs: int, n_agents: int, k: int, representatives: np.ndarray | None = None, seed: int = 0):
    """A buffer with random contents; observation (step, env) so that a transition can be recognised."""
    rng = np.random.default_rng(seed)
    buffer = VectorRewardRolloutBuffer(n_steps, OBS, ACT, "cpu", LAMBDA, GAMMA, n_envs, n_rewards=n_agents, k=k)
    rewards = rng.normal(size=(n_steps, n_envs, n_agents)).astype(np.float32)
    starts = rng.random((n_steps, n_envs)) < 0.3
    if representatives is None:
        representatives = rng.integers(0, k, (n_steps, n_envs))
    for step in range(n_steps):
        obs = np.stack([np.full(n_envs, step), np.arange(n_envs)], axis=1)
        buffer.add(obs, rng.normal(size=(n_envs, 1)), rewards[step], starts[step], representatives[step])
    buffer.values[:] = rng.normal(size=buffer.values.shape)
    last_values = th.as_tensor(rng.normal(size=(n_envs, n_agents)).astype(np.float32))
    dones = rng.random(n_envs) < 0.5
    return buffer, rewards, starts, last_values, dones


# n_envs == n_agents broadcasts silently where the agent axis is lost, hence (3, 3)
@pytest.mark.parametrize(("n_envs", "n_agents"), [(1, 1), (3, 3), (2, 5), (4, 1)])
def test_returns_of_each_agent_are_those_of_sb3(n_envs: int, n_agents: int) -> None:
    buffer, rewards, starts, last_values, dones = filled(17, n_envs, n_agents, k=2)
    values = buffer.values.copy()
    buffer.compute_returns_and_advantage(last_values, dones)
    for agent in range(n_agents):
        stock = RolloutBuffer(17, OBS, ACT, "cpu", LAMBDA, GAMMA, n_envs)
        for step in range(17):
            stock.add(
                np.zeros((n_envs, 2)),
                np.zeros((n_envs, 1)),
                rewards[step, :, agent],
                starts[step],
                th.as_tensor(values[step, :, agent]),
                th.zeros(n_envs),
            )
        stock.compute_returns_and_advantage(last_values[:, agent], dones)
        np.testing.assert_allclose(buffer.returns[..., agent], stock.returns, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n_envs", "n_agents", "k"), [(3, 3, 3), (4, 6, 2), (1, 5, 5)])
def test_marginal_advantage_is_the_gae_of_the_weighted_reward(n_envs: int, n_agents: int, k: int) -> None:
    """Equation 9 both ways: GAE is linear, so it is the same to sum over agents before or after."""
    representatives = np.broadcast_to(np.arange(n_envs) % k, (11, n_envs))
    buffer, rewards, starts, last_values, dones = filled(11, n_envs, n_agents, k, representatives)
    values = buffer.values.copy()
    alpha = np.random.default_rng(1).dirichlet(np.ones(k), n_agents).astype(np.float32)
    buffer.compute_returns_and_advantage(last_values, dones)
    buffer.compute_marginal_advantages(alpha)
    weights = alpha.T[np.arange(n_envs) % k]  # (n_envs, n_agents)
    stock = RolloutBuffer(11, OBS, ACT, "cpu", LAMBDA, GAMMA, n_envs)
    for step in range(11):
        marginal_reward = (rewards[step] * weights).sum(axis=1)
        marginal_value = th.as_tensor((values[step] * weights).sum(axis=1))
        stock.add(
            np.zeros((n_envs, 2)), np.zeros((n_envs, 1)), marginal_reward, starts[step], marginal_value, th.zeros(n_envs)
        )
    stock.compute_returns_and_advantage((last_values * th.as_tensor(weights)).sum(dim=1), dones)
    np.testing.assert_allclose(buffer.advantages, stock.advantages, rtol=1e-5, atol=1e-5)


def test_representative_without_agents_has_no_advantage() -> None:
    buffer, _, _, last_values, dones = filled(8, 2, 4, 2, np.broadcast_to(np.arange(2), (8, 2)))
    buffer.compute_returns_and_advantage(last_values, dones)
    buffer.compute_marginal_advantages(np.array([[1.0, 0.0]] * 4))
    assert (buffer.advantages[:, 1] == 0.0).all()
    assert (buffer.advantages[:, 0] != 0.0).all()


def test_advantages_normalised_over_the_rollout() -> None:
    """Of representative 0 many transitions, of 1 one, of 2 none that somebody cares for, of 3 none at all."""
    representatives = np.zeros((7, 3), dtype=np.int64)
    representatives[2, 1], representatives[:, 2] = 1, 2
    buffer, _, _, last_values, dones = filled(7, 3, 4, 4, representatives)
    buffer.compute_returns_and_advantage(last_values, dones)
    buffer.compute_marginal_advantages(np.array([[1.0, 1.0, 0.0, 0.0]] * 4))
    before = buffer.advantages.copy()
    before[0, 0] = buffer.advantages[0, 0] = -1000.0  # what happens once keeps its weight
    buffer.normalize_advantages()
    own = before[representatives == 0]
    expected = (own - own.mean()) / np.sqrt(((own - own.mean()) ** 2).sum() / (len(own) - 1))
    np.testing.assert_allclose(buffer.advantages[representatives == 0], expected, rtol=1e-4)
    assert buffer.advantages[0, 0] == pytest.approx(-((13 - 1) / 13**0.5), rel=1e-2)  # an outlier of 13 numbers
    assert buffer.advantages[2, 1] == before[2, 1] != 0.0
    assert (buffer.advantages[:, 2] == 0.0).all()


def test_explained_variance() -> None:
    buffer, _, _, last_values, dones = filled(50, 2, 3, 1)
    buffer.compute_returns_and_advantage(last_values, dones)
    noise = buffer.compute_marginal_advantages(np.ones((3, 1)))
    buffer.values[:] = buffer.returns
    assert buffer.compute_marginal_advantages(np.ones((3, 1))) == pytest.approx(1.0)
    assert noise < 0.9


def test_bootstrap_adds_the_discounted_value_to_the_last_reward() -> None:
    buffer, rewards, *_ = filled(6, 2, 2, 2)
    buffer.bootstrap([1, 4], [0, 1], np.array([[1.0, 2.0], [3.0, 4.0]]))
    expected = rewards.copy()
    expected[1, 0] += GAMMA * np.array([1.0, 2.0])
    expected[4, 1] += GAMMA * np.array([3.0, 4.0])
    np.testing.assert_allclose(buffer.reward_vectors, expected, rtol=1e-6)


def test_chunks_cover_the_rollout_and_write_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_rmdp.common.buffers.CHUNK_ENTRIES", 2 * 3 * 64)  # two steps of three envs
    buffer, *_ = filled(9, 3, 4, 3)
    n_chunks = 0
    for chunk in buffer.chunks():
        assert isinstance(chunk.observations, th.Tensor)
        steps, envs = chunk.observations[:, 0].long().numpy(), chunk.observations[:, 1].long().numpy()
        np.testing.assert_array_equal(chunk.representatives.numpy(), buffer.representatives[steps, envs])
        np.testing.assert_array_equal(chunk.actions.numpy(), buffer.actions[steps, envs])
        chunk.values[:] = steps[:, None] * 100 + envs[:, None] * 10 + np.arange(4)
        chunk.log_probs[:] = steps * 100 + envs * 10
        n_chunks += 1
    steps, envs, agents = np.indices(buffer.values.shape)
    np.testing.assert_array_equal(buffer.values, steps * 100 + envs * 10 + agents)
    np.testing.assert_array_equal(buffer.log_probs, (steps * 100 + envs * 10)[..., 0])
    assert n_chunks == 5


@pytest.mark.parametrize("batch_size", [4, 7, None])
@pytest.mark.parametrize(("n_envs", "k"), [(3, 3), (1, 1), (5, 2), (6, 3), (1, 3)])
def test_an_epoch_uses_every_transition_once_and_for_its_own_representative(
    n_envs: int, k: int, batch_size: int | None
) -> None:
    buffer, _, _, last_values, dones = filled(10, n_envs, 2, k)
    buffer.compute_returns_and_advantage(last_values, dones)
    buffer.compute_marginal_advantages(np.ones((2, k)))
    seen = np.zeros((10, n_envs), dtype=int)
    for batch in buffer.get(batch_size, with_values=True):
        assert isinstance(batch.observations, th.Tensor) and batch.old_values is not None
        rows = batch.observations.long().numpy().reshape(k, -1, 2)
        assert batch_size is None or rows.shape[1] <= batch_size
        weights = np.ones(rows.shape[:2]) if batch.weights is None else batch.weights.numpy()
        assert set(np.unique(weights)) <= {0.0, 1.0}
        for j in range(k):
            steps, envs = rows[j][weights[j] == 1].T
            np.add.at(seen, (steps, envs), 1)
            assert (buffer.representatives[steps, envs] == j).all()
            np.testing.assert_array_equal(
                batch.returns.numpy().reshape(k, -1, 2)[j][weights[j] == 1], buffer.returns[steps, envs]
            )
            np.testing.assert_array_equal(
                batch.old_values.numpy().reshape(k, -1, 2)[j][weights[j] == 1], buffer.values[steps, envs]
            )
            np.testing.assert_array_equal(
                batch.advantages.numpy().reshape(k, -1)[j][weights[j] == 1], buffer.advantages[steps, envs]
            )
    assert (seen == 1).all()


def test_nothing_is_padded_where_every_representative_has_its_env() -> None:
    buffer, _, _, last_values, dones = filled(10, 4, 2, 2, np.broadcast_to(np.arange(4) % 2, (10, 4)))
    buffer.compute_returns_and_advantage(last_values, dones)
    assert all(batch.weights is None for batch in buffer.get(8))


def test_a_representative_that_did_not_act_has_weight_zero() -> None:
    buffer, _, _, last_values, dones = filled(10, 1, 2, 3, np.zeros((10, 1), dtype=int))
    buffer.compute_returns_and_advantage(last_values, dones)
    (batch,) = buffer.get()
    assert batch.weights is not None
    np.testing.assert_array_equal(batch.weights.sum(dim=1).numpy(), [10, 0, 0])


def test_dict_observations() -> None:
    space = spaces.Dict({"a": OBS, "b": spaces.Discrete(5)})
    buffer = VectorRewardDictRolloutBuffer(4, space, ACT, "cpu", n_envs=2, n_rewards=2, k=2)
    for step in range(4):
        obs = {"a": np.full((2, 2), step), "b": np.array([step, 4])}
        buffer.add(obs, np.zeros((2, 1)), np.zeros((2, 2)), np.zeros(2), np.arange(2))
    buffer.compute_returns_and_advantage(th.zeros(2, 2), np.zeros(2))
    (batch,) = buffer.get()
    assert isinstance(batch.observations, dict)
    assert batch.observations["a"].shape == (8, 2)
    np.testing.assert_array_equal(batch.observations["b"].numpy().reshape(2, 4)[1], [4, 4, 4, 4])
    assert sorted(batch.observations["b"].numpy().reshape(2, 4)[0]) == [0, 1, 2, 3]


def test_two_large_arrays_and_no_third() -> None:
    buffer, *_ = filled(4, 2, 6, 2)
    large = {id(a if a.base is None else a.base) for a in vars(buffer).values() if isinstance(a, np.ndarray) and a.size == 48}
    assert buffer.returns is buffer.reward_vectors
    assert len(large) == 2
    before = buffer.values.ctypes.data
    buffer.reset()
    assert buffer.values.ctypes.data == before
