"""The subspace of a critic with few values: found, followed, and kept where nothing is seen."""

from typing import Any

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_rmdp.common.critic_basis import CriticBasis, turn_outputs

N, RANK = 40, 4


def rewards_in(columns: np.ndarray, seed: int = 0, scales: float | np.ndarray = 1.0) -> np.ndarray:
    """Reward vectors (500, N) in the span of some columns (N, m)."""
    mixtures = np.random.default_rng(seed).normal(size=(500, columns.shape[1])) * scales
    return (mixtures @ columns.T).astype(np.float32)


def columns(seed: int, width: int = RANK) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(N, width)))[0]


def back(basis: CriticBasis, rewards: np.ndarray) -> np.ndarray:
    """Reward vectors as the subspace sees them."""
    return (basis.project(th.as_tensor(rewards)) @ basis.weights.t()).numpy()


def test_rewards_in_a_subspace_of_the_rank_are_kept_exactly() -> None:
    basis, rewards = CriticBasis(N, RANK), rewards_in(columns(1))
    basis.update(rewards)
    np.testing.assert_allclose(back(basis, rewards), rewards, atol=1e-5)


def test_as_much_is_kept_as_any_subspace_can_keep() -> None:
    rewards = rewards_in(columns(1, N), scales=np.geomspace(1.0, 0.01, N))
    np.random.seed(0)
    basis = CriticBasis(N, RANK)
    for _ in range(20):  # each looks at samples only
        basis.update(rewards)
    lost = np.square(rewards - back(basis, rewards)).sum()
    best = np.square(np.linalg.svd(rewards, compute_uv=False)[RANK:]).sum()
    assert best <= lost < 1.02 * best


def test_squared_errors_are_means_over_agents() -> None:
    basis = CriticBasis(N, RANK)
    basis.update(rewards_in(columns(1)))
    np.testing.assert_allclose((basis.weights.t() @ basis.weights / N).numpy(), np.eye(RANK), atol=1e-5)
    z = th.randn(RANK)
    assert z.square().sum().item() == pytest.approx((basis.weights @ z).square().mean().item(), rel=1e-4)


def test_weights_of_coordinates_and_of_rewards_say_the_same() -> None:
    basis = CriticBasis(N, RANK)
    basis.update(rewards_in(columns(1)))
    rewards, weights = th.randn(7, N), th.randn(RANK, 3)
    np.testing.assert_allclose(rewards @ basis.project_back(weights), basis.project(rewards) @ weights, rtol=1e-3, atol=1e-4)


def test_agents_values_survive_a_move_of_the_subspace() -> None:
    """Of what is seen less, two directions give way to two new ones: values along what stays are the same as before."""
    before, after = np.split(columns(1, RANK + 2), [RANK], axis=1)
    th.manual_seed(0)
    np.random.seed(0)
    basis, layer = CriticBasis(N, RANK), nn.Linear(3, RANK)
    optimizer = th.optim.Adam(layer.parameters())
    layer(th.randn(8, 3)).square().mean().backward()
    optimizer.step()
    turn_outputs(layer, optimizer, basis.update(rewards_in(before, 0, np.array([5.0, 5.0, 1.0, 1.0]))))
    inputs = th.randn(6, 3)
    values = (layer(inputs) @ basis.weights.t()).detach().numpy()
    moments = (basis.weights @ optimizer.state[layer.weight]["exp_avg"]).numpy()
    for seed in range(60):
        turn = basis.update(rewards_in(np.concatenate([before[:, :2], after], axis=1), seed, np.array([5.0, 5.0, 2.0, 2.0])))
        turn_outputs(layer, optimizer, turn)
    kept = before[:, :2] @ before[:, :2].T
    now = (layer(inputs) @ basis.weights.t()).detach().numpy()
    assert np.linalg.norm((now - values) @ kept) < 0.05 * np.linalg.norm(values @ kept)
    moments_now = (basis.weights @ optimizer.state[layer.weight]["exp_avg"]).numpy()
    assert np.linalg.norm(kept @ (moments_now - moments)) < 0.05 * np.linalg.norm(kept @ moments)
    new = rewards_in(after)
    np.testing.assert_allclose(back(basis, new), new, atol=0.05)


def test_nothing_moves_while_the_same_is_seen_or_nothing_is_paid() -> None:
    basis, rewards = CriticBasis(N, RANK), rewards_in(columns(1))
    basis.update(rewards)
    weights = basis.weights.clone()
    assert basis.update(np.zeros_like(rewards)).equal(th.eye(RANK))
    assert basis.weights.equal(weights)
    np.testing.assert_allclose(basis.update(rewards).numpy(), np.eye(RANK), atol=1e-3)
    np.testing.assert_allclose(basis.weights, weights, atol=1e-2)


def test_a_rank_as_large_as_the_number_of_agents_loses_nothing() -> None:
    basis, rewards = CriticBasis(6, 6), np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    basis.update(rewards)
    np.testing.assert_allclose(back(basis, rewards), rewards, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 41, -1, 2.0, True, "8"])
def test_ranks_that_do_not_do(rank: object) -> None:
    with pytest.raises(ValueError, match=r"critic_rank=.*choose an integer from 1 to 40"):
        CriticBasis(N, rank)  # type: ignore[arg-type]


@pytest.mark.parametrize("optimizer_class", [th.optim.Adam, th.optim.SGD, th.optim.RMSprop])
def test_what_an_optimizer_remembers_turns_with_the_outputs(optimizer_class: Any) -> None:
    layer = nn.Linear(3, 2)
    kwargs = {"amsgrad": True} if optimizer_class is th.optim.Adam else {"momentum": 0.9}
    optimizer = optimizer_class(layer.parameters(), lr=0.0, **kwargs)
    layer(th.ones(1, 3)).mul(th.tensor([1.0, 2.0])).sum().backward()
    optimizer.step()
    swap = th.tensor([[0.0, 1.0], [-1.0, 0.0]])
    before = {
        name: value.clone() for name, value in optimizer.state[layer.weight].items() if value.shape == layer.weight.shape
    }
    turn_outputs(layer, optimizer, swap)
    assert before
    for name, value in before.items():
        squared = name in ("exp_avg_sq", "max_exp_avg_sq", "square_avg")
        th.testing.assert_close(optimizer.state[layer.weight][name], (swap.square() if squared else swap) @ value)
