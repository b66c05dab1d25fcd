"""Linear agents: products in blocks, sums over groups, mean squares."""

import numpy as np
import pytest
import torch as th

from sb3_rmdp.common import agent_weights
from sb3_rmdp.common.agent_weights import AgentWeights


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    monkeypatch.setattr(agent_weights, "BLOCK", 3)  # eight agents: two whole blocks and a rest
    return np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


def test_agents_numbers_are_products_whatever_the_blocks(weights: np.ndarray) -> None:
    agents = AgentWeights(8, th.as_tensor(weights))
    x = np.random.default_rng(1).normal(size=(4, 5))
    assert agents.factored and agents.size == 4
    np.testing.assert_allclose(agents.of_agents(th.as_tensor(x)), weights @ x, rtol=1e-12)
    np.testing.assert_allclose(agents.of_agents(th.as_tensor(x), slice(2, 7)), (weights @ x)[2:7], rtol=1e-12)
    assert [(block.start, block.stop) for block in agents.blocks()] == [(0, 3), (3, 6), (6, 8)]


def test_groups_have_the_sums_of_their_agents(weights: np.ndarray) -> None:
    agents = AgentWeights(8, th.as_tensor(weights))
    alpha, x = np.random.default_rng(2).dirichlet(np.ones(3), 8), np.random.default_rng(3).normal(size=4)
    sums = agents.of_groups(th.as_tensor(alpha, dtype=th.float32)).numpy().T @ x
    np.testing.assert_allclose(sums, alpha.T @ (weights @ x), rtol=1e-5)


def test_mean_square_is_that_of_the_agents(weights: np.ndarray) -> None:
    matrix = AgentWeights(8, th.as_tensor(weights)).mean_square()
    assert matrix is not None
    x = np.random.default_rng(4).normal(size=4)
    assert x @ matrix.numpy() @ x == pytest.approx(np.square(weights @ x).mean(), rel=1e-5)


def test_balanced_numbers_are_the_same_in_other_units(weights: np.ndarray) -> None:
    weights = weights * np.array([0.01, 1.0, 5.0, 0.0], dtype=np.float32)
    agents = AgentWeights(8, th.as_tensor(weights))
    balanced = agents.balanced()
    assert balanced.units is not None
    np.testing.assert_allclose(balanced.units, [*np.sqrt(np.square(weights[:, :3]).mean(axis=0)), 1.0], rtol=1e-5)
    x = np.random.default_rng(5).normal(size=(4, 2))
    told = x * balanced.units.numpy()[:, None]
    np.testing.assert_allclose(balanced.of_agents(th.as_tensor(told)), weights @ x, rtol=1e-5)
    alpha = np.random.default_rng(6).dirichlet(np.ones(3), 8)
    sums = balanced.of_groups(th.as_tensor(alpha, dtype=th.float32)).numpy().T @ told
    np.testing.assert_allclose(sums, alpha.T @ (weights @ x), rtol=1e-4)
    matrix = balanced.mean_square()
    assert matrix is not None
    np.testing.assert_allclose(matrix.diagonal(), [1.0, 1.0, 1.0, 0.0], rtol=1e-5)
    assert told[:, 0] @ matrix.numpy() @ told[:, 0] == pytest.approx(np.square(weights @ x[:, 0]).mean(), rel=1e-4)


def test_agents_without_features_have_their_own_numbers() -> None:
    agents, x = AgentWeights(8), th.arange(16.0).view(8, 2)
    assert not agents.factored and agents.size == 8 and agents.mean_square() is None
    assert agents.of_agents(x).equal(x) and agents.of_agents(x, slice(2, 4)).equal(x[2:4])
    assert agents.of_groups(x) is x and agents.balanced() is agents


def test_weights_that_are_not_at_hand_are_asked_for() -> None:
    agents = AgentWeights(8, size=4)
    assert agents.factored
    with pytest.raises(ValueError, match=r"8 agents on 4 reward features.*pass env to load"):
        agents.of_agents(th.zeros(4, 1))


def test_as_many_features_as_agents_are_features_all_the_same() -> None:
    agents = AgentWeights(4, size=4)
    assert agents.factored and not AgentWeights(4).factored
    with pytest.raises(ValueError, match="weights of 4 agents on 4 reward features come with the environment"):
        agents.of_agents(th.ones(4, 2))
