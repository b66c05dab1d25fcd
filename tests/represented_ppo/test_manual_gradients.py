"""Gradients that are written out are those of autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import set_random_seed

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.represented_ppo import MlpPolicy
from sb3_rmdp.represented_ppo.autograd_gradients import AutogradGradients
from sb3_rmdp.represented_ppo.manual_gradients import ManualGradients
from tests.probes import Spaces, vectorized

BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
SMALL: dict[str, Any] = dict(n_steps=32, batch_size=8, n_epochs=3, seed=0, device="cpu")

CASES: dict[str, tuple[spaces.Space, spaces.Space, dict[str, Any]]] = {
    "gaussian": (BOX, spaces.Box(-1.0, 1.0, (2,), np.float32), {}),
    "categorical": (BOX, spaces.Discrete(4), {}),
    "relu, deep": (BOX, BOX, dict(policy_kwargs=dict(net_arch=dict(pi=[16, 8, 8], vf=[8]), activation_fn=th.nn.ReLU))),
    "no trunk of the actor": (BOX, spaces.Discrete(3), dict(policy_kwargs=dict(net_arch=dict(pi=[], vf=[8])))),
    "one of everything": (BOX, BOX, dict(k=1, n_agents=1)),
    "as many representatives as agents": (BOX, BOX, dict(k=3, n_agents=3)),
    "end to end": (BOX, spaces.Discrete(2), dict(assignment="end_to_end")),
    "raw observations, not normalised": (BOX, BOX, dict(normalize_observations=False, normalize_advantage=False)),
    "advantages normalised over the rollout": (BOX, BOX, dict(normalize_advantage="rollout")),
    "discrete observations": (spaces.Discrete(5), spaces.Discrete(2), {}),
    "dictionary of vectors": (spaces.Dict(a=BOX, b=spaces.Discrete(2)), BOX, dict(policy="MultiInputPolicy")),
}


def filled_model(case: str, **more: Any) -> RepresentedPPO:
    """A model whose policy has moved away from the one that collected its rollout."""
    observations, actions, given = CASES[case]
    observations.seed(0)  # the probe samples from it
    kwargs = {"k": 2, "n_agents": 5, "policy": "MlpPolicy", "ent_coef": 0.01, **SMALL, **given, **more}
    n_agents, policy = kwargs.pop("n_agents"), kwargs.pop("policy")
    env = vectorized(lambda: Spaces(observations, actions, n_agents), kwargs["k"] * 2)
    model = RepresentedPPO(policy, env, **kwargs)
    model.learn(kwargs["n_steps"] * 2 * kwargs["k"])
    model.rollout_buffer.compute_marginal_advantages(model.assignment.probabilities)
    set_random_seed(1)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.05 * th.randn_like(parameter))
    return model


def gradients_of(model: RepresentedPPO) -> dict[str, th.Tensor]:
    parameters = [*model.policy.named_parameters(), *model.assignment.named_parameters()]
    return {name: parameter.grad.clone() for name, parameter in parameters if parameter.grad is not None}


@pytest.mark.parametrize("case", CASES)
def test_same_gradients_and_logs(case: str) -> None:
    model = filled_model(case)
    model.batch_size = 12  # the last minibatch is shorter
    assert ManualGradients.fits(model)
    by_autograd = AutogradGradients(model, 0.1, 0.01)
    set_random_seed(3)
    expected = [(gradients_of(model), by_autograd.approx_kl()) for _ in by_autograd.epoch()]
    by_hand = ManualGradients(model, 0.1, 0.01)
    set_random_seed(3)
    found = [(gradients_of(model), by_hand.approx_kl()) for _ in by_hand.epoch()]
    assert len(found) == len(expected) == 6
    for (gradients, approx_kl), (expected_gradients, expected_kl) in zip(found, expected, strict=True):
        assert gradients.keys() == expected_gradients.keys()
        for name, gradient in expected_gradients.items():
            difference = (gradients[name] - gradient).abs().max()
            assert difference <= 1e-6 + 1e-4 * gradient.abs().max(), name
        th.testing.assert_close(approx_kl, expected_kl, rtol=1e-4, atol=1e-6)
    th.testing.assert_close(by_hand.logs(), by_autograd.logs().detach(), rtol=1e-4, atol=1e-5)
    assert by_hand.logs()[:, 4].max() > 0.0  # or clipping would not be tested


@pytest.mark.parametrize("case", ["gaussian", "categorical", "end to end"])
def test_whole_trainings_end_alike(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, logs = [], []
    for fits in (ManualGradients.fits, lambda model: False):
        monkeypatch.setattr(ManualGradients, "fits", staticmethod(fits))
        model = filled_model(case, n_epochs=2)
        model.set_logger(configure(None, []))
        set_random_seed(2)
        model.train()
        ours.append(model.get_parameters())
        logs.append({key: value for key, value in model.logger.name_to_value.items() if key.startswith("train/")})
    for name, value in ours[0]["policy"].items():
        th.testing.assert_close(value, ours[1]["policy"][name], rtol=1e-3, atol=1e-5)
    th.testing.assert_close(ours[0]["assignment"], ours[1]["assignment"], rtol=1e-3, atol=1e-5)
    assert logs[0] == pytest.approx(logs[1], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    "kwargs",
    [
        dict(clip_range_vf=0.2),
        dict(use_sde=True),
        dict(policy_kwargs=dict(activation_fn=th.nn.ELU)),
        dict(policy_kwargs=dict(share_features_extractor=False)),
    ],
    ids=lambda kwargs: next(iter(kwargs)),
)
def test_all_else_is_left_to_autograd(kwargs: dict[str, Any]) -> None:
    assert ManualGradients.fits(filled_model("gaussian"))
    env = vectorized(lambda: Spaces(BOX, BOX, 3), 2)
    model = RepresentedPPO("MlpPolicy", env, k=2, **SMALL, **kwargs).learn(64)
    assert not ManualGradients.fits(model)


def test_a_policy_of_ones_own_is_left_to_autograd() -> None:
    class Own(MlpPolicy):
        """May compute anything."""

    env = vectorized(lambda: Spaces(BOX, BOX, 3), 2)
    assert not ManualGradients.fits(RepresentedPPO(Own, env, k=2, **SMALL).learn(64))


def test_representatives_with_unequal_transitions_are_left_to_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three environments and two representatives: one has more transitions than the other."""
    padded: list[bool] = []
    loss = AutogradGradients.loss

    def watched(self: AutogradGradients, batch: Any) -> Any:
        padded.append(batch.weights is not None)
        return loss(self, batch)

    monkeypatch.setattr(AutogradGradients, "loss", watched)
    env = vectorized(lambda: Spaces(BOX, BOX, 3), 3)
    # 15 episodes of 4 steps: 32 and 28 transitions, in four minibatches of 10 of which two are full
    RepresentedPPO("MlpPolicy", env, k=2, **(SMALL | dict(n_steps=20, batch_size=10, n_epochs=3))).learn(60)
    assert padded == [False, False, True, True] * 3


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("case", ["gaussian", "categorical", "as many representatives as agents", "end to end"])
def test_same_gradients_in_ranges_and_threads(case: str, n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_rmdp.represented_ppo.manual_gradients.RANGE_ENTRIES", 64)
    monkeypatch.setattr("sb3_rmdp.represented_ppo.manual_gradients.SHARED_ENTRIES", 0)
    before = th.get_num_threads()
    th.set_num_threads(n_threads)
    try:
        test_same_gradients_and_logs(case)
    finally:
        th.set_num_threads(before)
