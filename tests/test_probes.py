"""Represented MDPs with known answers are solved to 1 %, whatever the number of environments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from tests.probes import KnownAssignment, NowOrLater, Probe, TwoGroups, vectorized

LEARNING: dict[str, Any] = dict(n_epochs=5, batch_size=32, learning_rate=3e-3, device="cpu", seed=0)
METHODS = {
    "em": dict(assignment="em", assignment_kwargs=dict(mixing=0.3, warm_start=1)),
    "end_to_end": dict(assignment="end_to_end", assignment_kwargs=dict(learning_rate=2e-2)),
}


def trained(probe: type[Probe], k: int, n_envs: int, method: str, n_rollouts: int, **kwargs: Any) -> RepresentedPPO:
    """128 transitions per representative and rollout, however many environments there are."""
    n_steps = 128 * k // n_envs
    model = RepresentedPPO(
        "MlpPolicy", vectorized(probe, n_envs), k=k, n_steps=n_steps, **(LEARNING | METHODS[method] | kwargs)
    )
    return model.learn(n_rollouts * n_steps * n_envs)


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size:UserWarning")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_envs", [1, 2, 5])
def test_two_groups_who_want_different_actions(n_envs: int, method: str) -> None:
    model = trained(TwoGroups, 2, n_envs, method, n_rollouts=60, gamma=0.9, policy_kwargs=dict(log_std_init=-1.0))
    result = evaluate_welfare(model, TwoGroups(), n_eval_episodes=1)
    assert result.social_welfare == pytest.approx(1.0, rel=0.01)
    groups = [set(np.flatnonzero(result.assignment == j)) for j in range(2)]
    assert {0, 1, 4} in groups and {2, 3, 5} in groups


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_envs", [1, 2])
def test_one_policy_for_two_groups_takes_the_middle(n_envs: int, method: str) -> None:
    model = trained(TwoGroups, 1, n_envs, method, n_rollouts=60, policy_kwargs=dict(log_std_init=-1.0))
    result = evaluate_welfare(model, TwoGroups(), n_eval_episodes=1)
    assert result.social_welfare == pytest.approx(0.75, rel=0.01)


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size:UserWarning")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_envs", [1, 2, 5])
@pytest.mark.parametrize(("gamma", "optimum"), [(0.5, 2.5), (0.99, 2.75)])
def test_discounting_decides_whether_to_wait(gamma: float, optimum: float, n_envs: int, method: str) -> None:
    # The assignment is given where it is not the question: under gamma = 0.5 the first two agents should stop
    given = dict(assignment="fixed", assignment_kwargs=dict(representatives=[0, 0, 1, 1])) if gamma == 0.5 else {}
    model = trained(NowOrLater, 2, n_envs, method, n_rollouts=40, gamma=gamma, **given)
    result = evaluate_welfare(model, NowOrLater(), n_eval_episodes=1)
    assert result.social_welfare == pytest.approx(optimum, rel=0.01)


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size:UserWarning")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_envs", [1, 3, 7])
def test_the_assignment_is_found(n_envs: int, method: str) -> None:
    model = trained(KnownAssignment, 3, n_envs, method, n_rollouts=60)
    result = evaluate_welfare(model, KnownAssignment(), n_eval_episodes=1)
    assert result.social_welfare == pytest.approx(KnownAssignment.optimum, rel=0.01)
    for group in KnownAssignment.partition:
        assert len({int(result.assignment[agent]) for agent in group}) == 1
