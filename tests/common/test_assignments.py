"""Assignments: who is served by whom, and why."""

from __future__ import annotations

import numpy as np
import pytest
import torch as th

from benchmarks.ablations import WithoutCopies
from sb3_rmdp.common.assignment import (
    ASSIGNMENTS,
    ClusteringAssignment,
    EMAssignment,
    EndToEndAssignment,
    HardAssignment,
    assignment_class,
    make_assignment,
)
from sb3_rmdp.common.assignment.em import fill_empty_groups, greedy_representatives
from sb3_rmdp.common.assignment.end_to_end import spreads


def tell(assignment: EMAssignment, returns: np.ndarray) -> None:
    """One finished episode of every representative: returns (n_agents, k)."""
    assignment.record_episodes(np.arange(returns.shape[1]), returns.T)
    assignment.update(0.0)


@pytest.mark.parametrize("name", sorted(set(ASSIGNMENTS) - {"fixed"}))
@pytest.mark.parametrize(("n_agents", "k"), [(5, 1), (4, 4), (7, 3)])
def test_every_assignment_starts_with_agents_for_everybody(name: str, n_agents: int, k: int) -> None:
    assignment = make_assignment(name, n_agents, k, seed=0)
    assert assignment.probabilities.shape == (n_agents, k)
    assert assignment.probabilities.dtype == np.float32
    np.testing.assert_allclose(assignment.probabilities.sum(axis=1), 1.0, rtol=1e-6)
    assert assignment.representatives.shape == (n_agents,)
    assert (assignment.probabilities.sum(axis=0) > 0).all()


def test_em_averages_as_equation_10_without_its_bias() -> None:
    em = EMAssignment(2, 2, mixing=0.25, warm_start=100)
    samples = np.random.default_rng(0).normal(size=(6, 2, 2))
    for sample in samples:
        tell(em, sample)
    # Equation 10 from Q = 0 weighs sample t by 0.25 * 0.75^(5 - t); unbiased: divided by the sum of these weights
    weights = 0.25 * 0.75 ** np.arange(5, -1, -1)
    np.testing.assert_allclose(em.q_table.numpy(), np.tensordot(weights, samples, 1), rtol=1e-12)
    np.testing.assert_allclose(em.q.numpy(), np.tensordot(weights / weights.sum(), samples, 1), rtol=1e-12)


def test_em_takes_the_mean_of_a_rollouts_episodes_and_nothing_from_who_finished_none() -> None:
    em = EMAssignment(2, 2, mixing=0.5, warm_start=0)
    em.record_episodes(np.array([0, 0]), np.array([[1.0, 2.0], [3.0, 6.0]]))
    em.update(0.0)
    np.testing.assert_allclose(em.q.numpy(), [[2.0, 0.0], [4.0, 0.0]])
    # Representative 1 is unknown: nobody moves yet, although agent 1 sits with it
    assert em.representatives.tolist() == [0, 1]
    em.record_episodes(np.array([1]), np.array([[-1.0, -1.0]]))
    em.update(0.0)
    np.testing.assert_allclose(em.q.numpy(), [[2.0, -1.0], [4.0, -1.0]])


def test_em_assigns_greedily_after_its_warm_start() -> None:
    returns = np.array([[1.0, 2.0, 0.0], [3.0, 0.0, 1.0], [0.0, 0.0, 5.0], [0.0, 4.0, 1.0]])
    em = EMAssignment(4, 3, warm_start=2)
    for update in range(3):
        assert em.representatives.tolist() == [0, 1, 2, 0], update
        tell(em, returns)
    assert em.representatives.tolist() == [1, 0, 2, 1]


def test_ties_and_rows_of_zeros_keep_their_representative() -> None:
    q = th.tensor([[0.0, 0.0, 0.0], [2.0, 2.0, 1.0], [1.0, 2.0, 2.0], [-1.0, -1.0, -1.0]])
    assert greedy_representatives(q, th.tensor([2, 1, 0, 1])).tolist() == [2, 1, 1, 1]


def test_no_representative_is_left_without_agents_and_who_moves_loses_least() -> None:
    q = th.tensor([[5.0, 1.0, 4.5], [5.0, 3.0, 0.0], [5.0, 0.0, 0.0]])
    assert fill_empty_groups(q, th.zeros(3, dtype=th.int64)).tolist() == [2, 1, 0]
    # k == n: whoever is alone stays alone
    assert sorted(fill_empty_groups(th.rand(5, 5), th.full((5,), 3)).tolist()) == [0, 1, 2, 3, 4]


def test_em_never_leaves_a_representative_alone_over_many_random_updates() -> None:
    em = EMAssignment(6, 4, mixing=0.5, warm_start=0)
    rng = np.random.default_rng(0)
    for _ in range(50):
        tell(em, rng.normal(size=(6, 4)) * [10.0, 1.0, 0.1, 0.01])
        assert set(em.representatives) == {0, 1, 2, 3}


def test_em_never_decreases_welfare_under_true_returns() -> None:
    """The E-step of theorem 1, where every representative serves somebody anyway."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        returns = rng.normal(size=(30, 3))
        em = EMAssignment(30, 3, warm_start=0)
        before = returns[np.arange(30), em.representatives].mean()
        tell(em, returns)
        after = returns[np.arange(30), em.representatives].mean()
        assert after >= before
        assert after == pytest.approx(returns.max(axis=1).mean())


@pytest.mark.parametrize("clip", [0.2, 0.05])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_end_to_end_gradient_is_that_of_equation_12(clip: float, padded: bool, centred: bool) -> None:
    """Finite differences of eq. 12, written out in float64; the scale of a representative's advantages is a constant."""
    generator = th.Generator().manual_seed(0)
    assignment = EndToEndAssignment(3, 2, seed=0, centred=centred).double()
    ratio = (0.3 * th.randn(2, 4, generator=generator)).exp().double()
    advantages = th.randn(2, 4, 3, generator=generator).double() + 0.5
    weights = th.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]]).double() if padded else None
    share = th.full((2, 4), 0.25).double() if weights is None else weights / weights.sum(dim=1, keepdim=True)

    def marginal(logits: th.Tensor) -> th.Tensor:
        alpha = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
        return th.stack([advantages[j] @ alpha[:, j] for j in range(2)])

    base = marginal(assignment.logits.detach())
    means = (share * base).sum(dim=1, keepdim=True)
    scale = (share * (base - means) ** 2).sum(dim=1, keepdim=True).sqrt()

    def equation_12(logits: th.Tensor) -> float:
        a = marginal(logits)
        a = (a - centred * (share * a).sum(dim=1, keepdim=True)) / scale
        return -float((share * th.minimum(ratio * a, ratio.clamp(1 - clip, 1 + clip) * a)).sum())

    loss = assignment.loss(ratio, advantages, clip, weights)
    assert loss is not None
    assert float(loss.detach()) == pytest.approx(equation_12(assignment.logits.detach()), rel=1e-6)
    loss.backward()
    assert assignment.logits.grad is not None
    step = 1e-6
    for index in np.ndindex(3, 2):
        shifted = assignment.logits.detach().clone()
        shifted[index] += step
        up = equation_12(shifted)
        shifted[index] -= 2 * step
        finite_difference = (up - equation_12(shifted)) / (2 * step)
        assert float(assignment.logits.grad[index]) == pytest.approx(finite_difference, rel=1e-4, abs=1e-7)


def test_end_to_end_gradient_at_ratio_1_vanishes_only_with_the_centring_of_the_reference() -> None:
    advantages = th.randn(2, 64, 5, generator=th.Generator().manual_seed(0)) + th.linspace(-1, 1, 5)
    norms = {}
    for centred in (False, True):
        assignment = EndToEndAssignment(5, 2, seed=0, centred=centred)
        loss = assignment.loss(th.ones(2, 64), advantages, 0.2, None)
        assert loss is not None
        loss.backward()
        assert assignment.logits.grad is not None
        norms[centred] = float(assignment.logits.grad.norm())
    assert norms[True] < 1e-5
    assert norms[False] > 1e-2


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(
    "block", ["one", "two_equal", "two_nearly_equal", "eight_equal", "nothing", "only_padding", "no_agents"]
)
def test_a_block_without_a_spread_takes_steps_as_long_as_those_of_others(block: str, unit: float) -> None:
    """Adam's second moments would remember a gradient of 1e8 for tens of thousands of minibatches."""
    generator = th.Generator().manual_seed(3)
    advantages = th.randn(2, 16, 5, generator=generator) + 0.5
    n_transitions = {"one": 1, "two_equal": 2, "two_nearly_equal": 2, "eight_equal": 8, "only_padding": 0}.get(block, 16)
    weights = th.stack([th.ones(16), (th.arange(16) < n_transitions).float()])
    if block in ("two_equal", "two_nearly_equal", "eight_equal"):
        advantages[1] = advantages[1, 0]
    if block == "two_nearly_equal":
        advantages[1, 1] += 1e-6
    if block == "nothing":
        advantages[1] = 0.0
    assignment = EndToEndAssignment(5, 2, seed=0)
    if block == "no_agents":
        with th.no_grad():
            assignment.logits[:, 1] = -1e4
    loss = assignment.loss(th.ones(2, 16), unit * advantages, 0.2, None if weights.all() else weights)
    assert loss is not None
    gradient = th.autograd.grad(loss, assignment.logits)[0]
    # Others have slopes of about one over the spread, and five agents' advantages of about the spread
    assert gradient.isfinite().all() and gradient.abs().max() < 2.0
    if block in ("one", "two_equal", "eight_equal"):
        assert gradient.abs().max() > 1e-2


def test_where_no_block_has_a_spread_they_share_their_size() -> None:
    np.testing.assert_allclose(spreads(th.tensor([[2.0], [-2.0]]), None), [2.0, 2.0])
    np.testing.assert_allclose(spreads(th.zeros(2, 3), None), [1.0, 1.0])
    told = th.tensor([[1.0, -1.0, 3.0], [5.0, 5.0, 5.0], [0.0, 0.0, 0.0]])
    expected = float(told[0].std(unbiased=False))
    np.testing.assert_allclose(spreads(told, None), [expected] * 3, rtol=1e-6)


def test_end_to_end_moves_an_agent_to_who_gains_for_it() -> None:
    assignment = EndToEndAssignment(2, 2, seed=0, init_std=0.0)
    # Agent 0 gains with representative 0 and loses with 1; agent 1 the reverse
    advantages = th.tensor([[[1.0, -1.0]], [[-1.0, 1.0]]]).expand(2, 8, 2) + 0.01 * th.randn(2, 8, 2)
    assert assignment.optimizer is not None
    for _ in range(200):
        assignment.optimizer.zero_grad()
        loss = assignment.loss(th.ones(2, 8), advantages, 0.2, None)
        assert loss is not None
        loss.backward()
        assignment.optimizer.step()
    assert assignment.representatives.tolist() == [0, 1]
    assert (assignment.probabilities.max(axis=1) > 0.6).all()


def test_random_is_even_and_follows_the_seed() -> None:
    first, again, other = (make_assignment("random", 25, 3, seed=s).representatives for s in (0, 0, 1))
    assert sorted(np.bincount(first)) == [8, 8, 9]
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_fixed_is_what_was_given_even_with_a_representative_without_agents() -> None:
    assignment = make_assignment("fixed", 4, 3, kwargs={"representatives": [2, 0, 0, 2]})
    assignment.update(1.0)
    assert assignment.representatives.tolist() == [2, 0, 0, 2]
    np.testing.assert_array_equal(assignment.probabilities, [[0, 0, 1], [1, 0, 0], [1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("representatives", "message"),
    [
        (None, "who serves whom"),
        ([0, 1, 2], r"shape \(3,\).*shape \(4,\)"),
        ([[0, 1, 2, 0]], r"shape \(1, 4\)"),
        ([0, 1, 2, 3], "contains 3.*0 to 2"),
        ([0, -1, 2, 1], "contains -1"),
        ([0.5, 1.0, 2.0, 0.0], "dtype float64"),
    ],
)
def test_fixed_refuses_wrong_arrays(representatives: list | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_assignment("fixed", 4, 3, kwargs={"representatives": representatives})


def test_clustering_serves_all_alike_then_finds_the_groups() -> None:
    assignment = ClusteringAssignment(6, 2, seed=0, universal_fraction=0.5, n_samples=50)
    groups = np.array([0, 1, 0, 1, 1, 0])
    rng = np.random.default_rng(0)
    representatives = np.broadcast_to(np.arange(2), (40, 2))
    rewards = rng.normal(size=(40, 2, 2)).astype(np.float32)[..., groups] + 0.01 * rng.normal(size=(40, 2, 6)).astype(
        np.float32
    )
    rewards[:, 1] = 0.0  # what representative 1 saw tells nothing: the universal policy is representative 0
    assignment.record_rewards(representatives, rewards)
    assignment.update(0.4)
    np.testing.assert_allclose(assignment.probabilities, 0.5)
    assignment.record_rewards(representatives, rewards)
    assignment.update(0.5)
    found = assignment.representatives
    assert len({*zip(groups, found, strict=True)}) == 2
    np.testing.assert_array_equal(assignment.probabilities.max(axis=1), 1.0)
    assignment.record_rewards(representatives, np.roll(rewards, 1, axis=2))
    assignment.update(0.9)
    np.testing.assert_array_equal(assignment.representatives, found)


def test_a_class_of_ones_own() -> None:
    class Everybody(HardAssignment):
        def __init__(self, n_agents: int, k: int, seed: int | None = None, to: int = 0):
            super().__init__(n_agents, k, seed)
            self.served_by.fill_(to)

    assert make_assignment(Everybody, 3, 2, kwargs={"to": 1}).representatives.tolist() == [1, 1, 1]


def test_a_class_that_can_be_imported() -> None:
    assert assignment_class("benchmarks.ablations:WithoutCopies") is WithoutCopies
    assignment = make_assignment("benchmarks.ablations:WithoutCopies", 3, 2, kwargs={"patience": 7})
    assert isinstance(assignment, WithoutCopies) and assignment.patience == 7


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("kmeans", {}, "'kmeans' is unknown: choose one of .*clustering.*em"),
        (int, {}, "is unknown"),
        ("no_such_module:Own", {}, "'no_such_module:Own' cannot be imported: ModuleNotFoundError: No module named"),
        ("benchmarks.ablations:Own", {}, "cannot be imported: .*has no attribute 'Own'"),
        ("benchmarks.ablations:Lesson", {}, "'benchmarks.ablations:Lesson' is unknown"),
        (":", {}, "cannot be imported"),
        ("em", {"lambda_": 0.1}, r"\['lambda_'\].*takes \['mixing', 'warm_start'\]"),
        ("em", {"mixing": 0.0}, "mixing=0.0"),
        ("em", {"mixing": 1.5}, "mixing=1.5"),
        ("em", {"warm_start": -1}, "warm_start=-1"),
        ("end_to_end", {"learning_rate": 0.0}, "learning_rate=0.0"),
        ("end_to_end", {"init_std": -1.0}, "init_std=-1.0"),
        ("clustering", {"universal_fraction": 1.0}, "universal_fraction=1.0"),
        ("clustering", {"n_samples": 0}, "n_samples=0"),
    ],
)
def test_bad_arguments(name: str, kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_assignment(name, 4, 2, kwargs=kwargs)
