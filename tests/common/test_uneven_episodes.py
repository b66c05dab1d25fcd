"""Moving averages where representatives finish many short episodes in some rollouts and few long ones in others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.agent_weights import AgentWeights
from sb3_rmdp.common.assignment import EMAssignment, FixedAssignment
from sb3_rmdp.common.callbacks import KeepBestCallback
from sb3_rmdp.common.reassignment import reassign
from sb3_rmdp.common.returns import ReturnTracker, rollout_weights
from sb3_rmdp.common.welfare import make_welfare
from tests.probes import KnownAssignment, vectorized

N_STEPS = 2048


def coin(rng: np.random.Generator) -> tuple[int, float]:
    """100 after 1000 steps, or nothing after one: 50 in the mean."""
    return (1000, 100.0) if rng.random() < 0.5 else (1, 0.0)


def falls(rng: np.random.Generator) -> tuple[int, float]:
    """100 after 1000 steps; half of all episodes end after 50 to 299 steps, with a tenth of a unit per step: 58.7."""
    length = int(rng.integers(50, 300)) if rng.random() < 0.5 else 1000
    return length, length / 10


def rollouts(episode: Callable[[np.random.Generator], tuple[int, float]], n: int, seed: int = 1) -> list[list[float]]:
    """Returns of the episodes that end in each of some rollouts."""
    rng, ends, end = np.random.default_rng(seed), [[] for _ in range(n)], 0
    while True:
        length, paid = episode(rng)
        end += length
        if end > n * N_STEPS:
            return ends
        ends[(end - 1) // N_STEPS].append(paid)


@pytest.mark.parametrize(("episode", "mean"), [(coin, 50.0), (falls, 58.7)])
@pytest.mark.parametrize("mixing", [0.05, 0.3])
def test_who_fails_early_is_not_overrated_by_em(episode: Any, mean: float, mixing: float) -> None:
    em, found = EMAssignment(1, 1, mixing=mixing), []
    for paid in rollouts(episode, 1500):
        em.record_episodes(np.zeros(len(paid), dtype=np.int64), np.array(paid)[:, None])
        em.update(0.0)
        found.append(float(em.q[0, 0]))
    # The mean over rollouts of the means of their episodes is 61, or 66. A ratio of sums leans a little towards it, by as
    # much as few rollouts are in them
    assert np.mean(found[100:]) == pytest.approx(mean, rel=0.015 if mixing < 0.1 else 0.04)


def test_the_better_one_serves_where_the_other_fails_early() -> None:
    em, chosen = EMAssignment(3, 2), []
    for paid in rollouts(coin, 600):  # A pays 56; B 50
        em.record_episodes(np.zeros(2, dtype=np.int64), np.full((2, 3), 56.0))
        em.record_episodes(np.ones(len(paid), dtype=np.int64), np.repeat(np.array(paid)[:, None], 3, axis=1))
        em.update(0.0)
        chosen.append(np.bincount(em.representatives, minlength=2)[0])
    assert np.mean(chosen[100:]) > 1.5


def test_policies_that_have_learned_not_to_fail_are_not_judged_by_their_failures_for_long() -> None:
    em, found = EMAssignment(1, 1, mixing=0.05), []
    for rollout in range(130):
        n, paid = (100, 2.0) if rollout < 50 else (2, 100.0)
        em.record_episodes(np.zeros(n, dtype=np.int64), np.full((n, 1), paid))
        em.update(0.0)
        found.append(float(em.q[0, 0]))
    # With weights of 100 and 2 it would be 75 rollouts until half of the way
    assert found[75] > 51.0 and found[100] > 90.0


def test_equal_numbers_of_episodes_give_the_numbers_of_equation_10_bit_for_bit() -> None:
    rng, em, table, weight = np.random.default_rng(0), EMAssignment(4, 2, mixing=0.3), np.zeros((4, 2)), 0.0
    for _ in range(20):
        paid = rng.normal(size=(6, 4))
        em.record_episodes(np.arange(6) % 2, paid)
        em.update(0.0)
        means = np.stack([paid[j::2].cumsum(axis=0)[-1] / 3 for j in range(2)], axis=1)
        table += 0.3 * (means - table)
        weight += 0.3 * (1.0 - weight)
        assert em.q_table.tolist() == table.tolist() and em.q_weight.tolist() == [weight] * 2


def test_a_rollout_without_episodes_changes_nothing_and_the_first_one_is_the_usual_one() -> None:
    usual = th.zeros(3, dtype=th.float64)
    assert rollout_weights(th.tensor([4, 0, 1]), usual).tolist() == [1.0, 0.0, 1.0]
    assert rollout_weights(th.tensor([2, 0, 0]), usual).tolist() == [0.5, 0.0, 0.0]
    assert usual.tolist() == pytest.approx([4 + 0.3 * (2 - 4), 0.0, 1.0])
    for mixing in (0.05, 1.0):
        em = EMAssignment(2, 2, mixing=mixing)
        em.record_episodes(np.array([0, 1]), np.array([[1.0, 2.0], [3.0, 4.0]]))
        em.update(0.0)
        before = em.q.clone()
        for _ in range(3):
            em.update(0.0)
        assert th.equal(em.q, before)
        np.testing.assert_allclose(before.numpy(), [[1.0, 3.0], [2.0, 4.0]])


def test_files_without_usual_numbers_go_on_with_what_they_know() -> None:
    em = EMAssignment(2, 2, mixing=0.5)
    em.record_episodes(np.array([0, 1, 1]), np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    em.update(0.0)
    old = {name: value for name, value in em.state_dict().items() if name != "usual_episodes"}
    loaded = EMAssignment(2, 2, mixing=0.5)
    loaded.load_state_dict(old)
    assert th.equal(loaded.q, em.q) and loaded.usual_episodes.tolist() == [0.0, 0.0]
    loaded.record_episodes(np.array([0, 0, 1]), np.zeros((3, 2)))
    loaded.update(0.0)
    assert loaded.usual_episodes.tolist() == [2.0, 1.0]


@pytest.mark.parametrize("soft", [False, True])
def test_averages_of_welfare_do_not_overrate_who_fails_early(soft: bool) -> None:
    """Of two representatives, the second fails early. Nash welfare averages utilities over rollouts."""
    shares = np.array([[0.5, 0.5], [0.0, 1.0]]) if soft else np.eye(2)

    class Shared(FixedAssignment):
        alpha = property(lambda self: th.as_tensor(shares, dtype=th.float32))

    assignment = Shared(2, 2, representatives=[0, 1])
    assignment.connect(AgentWeights(2), AgentWeights(2))
    welfare, tracker, found = make_welfare("nash", 2), ReturnTracker(1, 2, 2), []
    for paid in rollouts(coin, 1500):
        for j, returns in ((0, [56.0]), (1, paid)):
            for value in returns:
                tracker.add(np.full((1, 2), value))
                tracker.finish(np.ones(1, dtype=bool), np.array([j]))
        logs = reassign(assignment, tracker, 0.0, welfare)
        found.append(welfare.averages)
        if not soft and paid:
            assert logs["rollout/social_welfare"] == pytest.approx((56.0 + np.mean(paid)) / 2, rel=1e-6)
    expected = shares @ [56.0, 50.0]
    np.testing.assert_allclose(np.mean(found[100:], axis=0), expected, rtol=0.04)


class Uneven(BaseCallback):
    """Says how many episodes each rollout had and what they paid, in the place of the environment."""

    def __init__(self, told: list[list[float]]):
        super().__init__()
        self.told, self.n = told, 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        tracker, paid = self.model._return_tracker, self.told[self.n]  # type: ignore[attr-defined]
        self.n += 1
        tracker.counts = np.array([len(paid)])
        tracker.shares = np.array([np.mean(paid)])
        self.logger.record("rollout/social_welfare", float(np.mean(paid)))


def test_keep_best_counts_episodes() -> None:
    env = vectorized(KnownAssignment, 1)
    model = RepresentedPPO("MlpPolicy", env, k=1, assignment="em", n_steps=16, batch_size=8, seed=0, device="cpu")
    # Of two rollouts each, means are 50, 22.5 and 45, but 25, 11.25 and 45 per episode
    told = [[100.0], [0.0, 0.0, 0.0], [45.0], [45.0, 45.0]]
    keep = KeepBestCallback(window=2)
    model.learn(len(told) * 16, callback=[Uneven(told), keep])
    assert keep.best_mean_welfare == pytest.approx(45.0) and keep.best_timesteps == 4 * 16


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_keep_best_passes_over_welfare_that_is_no_number(bad: float) -> None:
    env = vectorized(KnownAssignment, 1)
    model = RepresentedPPO("MlpPolicy", env, k=1, assignment="em", n_steps=16, batch_size=8, seed=0, device="cpu")
    told, keep = [[bad], [1.0], [5.0], [3.0]], KeepBestCallback(window=1)
    model.learn(len(told) * 16, callback=[Uneven(told), keep])
    assert keep.best_mean_welfare == 5.0 and keep.best_timesteps == 3 * 16
