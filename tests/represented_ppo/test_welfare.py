"""Trainings under every welfare, on tasks whose optimum is known and is not the utilitarian one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.utils import LinearSchedule

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.assignment import EndToEndAssignment
from sb3_rmdp.common.losses import block_means, clipped_objective
from sb3_rmdp.common.welfare import Nash, Utilitarian
from tests.probes import KnownAssignment, Probe, vectorized

SMALL: dict[str, Any] = dict(n_steps=16, batch_size=8, n_epochs=2, seed=0, device="cpu")


class Shares(Probe):
    """
    One step: two agents get a, the third 1 - a, for an action a in [0, 1].

    Utilitarian: 1. Nash: the maximum of a^2 (1 - a), 2/3. Alpha-fair with 2: that of -2/a - 1/(1 - a), 2 - sqrt(2).
    Egalitarian and Gini, whose weights are 5, 3 and 1: 1/2, since above it the two count 4 together and the third 5.
    """

    n_agents = 3
    action_space = spaces.Box(0.0, 1.0, (1,), np.float32)

    def rewards(self, action: np.ndarray) -> list[float]:
        return [float(action[0]), float(action[0]), 1.0 - float(action[0])]


def learned(**kwargs: Any) -> float:
    """The action at which a training ends, one policy for all."""
    model = RepresentedPPO(
        "MlpPolicy",
        vectorized(Shares, 8),
        k=1,
        n_steps=32,
        batch_size=64,
        n_epochs=2,
        learning_rate=LinearSchedule(1e-2, 0.0, 1.0),
        normalize_observations=False,
        policy_kwargs=dict(net_arch=[], log_std_init=-2.0),
        seed=0,
        device="cpu",
        **kwargs,
    )
    with th.no_grad():
        # Half of the way, from where both ends are to be had
        model.policy.action_net.bias.fill_(0.5)
    model.learn(160 * 256)
    action, _ = model.predict(Shares().reset()[0], deterministic=True)
    return float(action[0])


@pytest.mark.parametrize(
    ("welfare", "kwargs", "optimum"),
    [
        ("utilitarian", {}, 1.0),
        ("nash", {}, 2 / 3),
        ("alpha_fair", {"alpha": 2.0}, 2 - 2**0.5),
        ("egalitarian", {}, 0.5),
        ("gini", {}, 0.5),
        # Two agents have 0.9 elsewhere: 0.9 + 0.9 + 1 is more than 1 + 1 + 0
        ("utilitarian", {"outside_options": [0.9, 0.9, 0.0]}, 0.0),
        # The third is to have a quarter
        ("utilitarian", {"minimum": [0.0, 0.0, 0.25]}, 0.75),
    ],
)
def test_the_optimum_of_every_welfare_is_found(welfare: str, kwargs: dict[str, Any], optimum: float) -> None:
    assert learned(welfare=welfare, welfare_kwargs=kwargs) == pytest.approx(optimum, abs=0.03)


def small(**kwargs: Any) -> RepresentedPPO:
    return RepresentedPPO("MlpPolicy", vectorized(KnownAssignment, 3), k=3, **(SMALL | kwargs))


def test_the_utilitarian_one_changes_nothing() -> None:
    """No arithmetic at all: what policies ascend is alpha itself."""
    model = small().learn(3 * 48)
    assert isinstance(model.welfare, Utilitarian) and model.welfare.is_plain and model.welfare.state.shape == (0, 6)
    assert model.assignment.importance is None
    assert th.equal(model.assignment.weighted_alpha, model.assignment.alpha)
    assert not any(name.startswith("welfare/") for name in model.logger.name_to_value)


def test_what_agents_count_reaches_their_representatives() -> None:
    model = small(welfare="nash").learn(4 * 48, log_interval=100)
    importance, alpha = model.assignment.importance, model.assignment.alpha
    assert importance is not None and importance.mean() == pytest.approx(1.0)
    averages = model.welfare.averages
    assert (np.diff(importance.numpy()[np.argsort(averages)]) <= 1e-6).all() and importance.max() > 1.2 * importance.min()
    weights, left_out = model._group_weights()
    np.testing.assert_allclose(weights, (alpha * importance[:, None]).numpy())
    assert left_out is None
    logs = model.logger.name_to_value
    assert logs["welfare/value"] == pytest.approx(model.welfare.value(averages))
    assert logs["welfare/largest_weight"] == pytest.approx(float(importance.max()))


def test_logits_learn_what_agents_count() -> None:
    rng = np.random.default_rng(0)
    assignment = EndToEndAssignment(4, 2, seed=0)
    assignment.importance = th.tensor([2.0, 0.5, 1.0, 0.5])
    ratio, advantages = th.ones(2, 5), th.as_tensor(rng.normal(size=(2, 5, 4)).astype(np.float32))
    loss = assignment.loss(ratio, advantages, 0.2, None)
    marginal = th.einsum("jbi,ij,i->jb", advantages, assignment.alpha, assignment.importance)
    scale = marginal.std(dim=1, unbiased=False, keepdim=True).detach() + 1e-8
    expected = -block_means(clipped_objective(ratio, marginal / scale, 0.2), None).sum()
    assert loss is not None and loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_saved_and_loaded(tmp_path: Path) -> None:
    settings = dict(welfare="nash", welfare_kwargs=dict(minimum=2.0, mixing=0.5))
    model = small(**settings).learn(4 * 48)
    model.save(tmp_path / "model")
    loaded = RepresentedPPO.load(tmp_path / "model", env=vectorized(KnownAssignment, 3), device="cpu")
    assert isinstance(loaded.welfare, Nash) and loaded.welfare.mixing == 0.5 and loaded.welfare.minimum is not None
    assert th.equal(loaded.welfare.state, model.welfare.state) and (loaded.welfare.state[2] > 0).any()
    loaded.learn(2 * 48, reset_num_timesteps=False)
    assert not th.equal(loaded.welfare.state, model.welfare.state)
    # Another welfare begins to get to know its agents anew
    other = RepresentedPPO.load(tmp_path / "model", welfare="utilitarian", welfare_kwargs=None, device="cpu")
    assert isinstance(other.welfare, Utilitarian) and other.welfare.state.shape == (0, 6)
    other.save(tmp_path / "plain")
    again = RepresentedPPO.load(tmp_path / "plain", welfare="nash", device="cpu")
    assert isinstance(again.welfare, Nash) and again.welfare.state.shape == (3, 6) and not again.welfare.state.any()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(welfare="kind"), "welfare='kind' is unknown"),
        (dict(welfare="nash", welfare_kwargs=dict(outside_options=[1.0, 2.0])), "give one number, or 6 of them"),
        (dict(welfare="gini", welfare_kwargs=dict(alpha=1.0)), r"\['alpha'\], which 'gini' does not know"),
    ],
)
def test_bad_arguments_are_told_at_once(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**kwargs)


class Costs(KnownAssignment):
    table = KnownAssignment.table - 3.5


def test_negative_utilities_end_the_training_and_say_how_to_mend_it(tmp_path: Path) -> None:
    env = vectorized(Costs, 3)
    with pytest.raises(ValueError, match=r"has -3\.\d+: choose welfare_kwargs=dict\(shift=...\) of 3\.\d+ or more"):
        RepresentedPPO("MlpPolicy", env, k=3, welfare="nash", **SMALL).learn(4 * 48)
    RepresentedPPO("MlpPolicy", env, k=3, welfare="nash", welfare_kwargs=dict(shift=4.0), **SMALL).learn(4 * 48)
