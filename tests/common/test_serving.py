"""Predictions of several threads at once, and while another one trains."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.utils import ConstantSchedule
from torch import nn

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.serving import evaluating, own_distribution
from sb3_rmdp.represented_ppo import MlpPolicy, MultiInputPolicy
from tests.probes import Spaces, vectorized

BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
ONE = spaces.Box(-1.0, 1.0, (1,), np.float32)


def policy_of(observation_space: spaces.Space, action_space: spaces.Space, **kwargs: Any) -> MlpPolicy:
    """Representative 0 and 1 act differently, whatever they see, also when actions are sampled."""
    cls = MultiInputPolicy if isinstance(observation_space, spaces.Dict) else MlpPolicy
    policy = cls(observation_space, action_space, ConstantSchedule(1e-3), k=2, n_rewards=3, **kwargs)
    with th.no_grad():
        policy.action_net.weight.zero_()
        size = 1.0 if isinstance(action_space, spaces.Box) else 50.0
        policy.action_net.bias.copy_(
            size * th.tensor([[-1.0], [1.0]]) * th.linspace(1.0, 0.5, policy.action_net.bias.shape[1])
        )
        if hasattr(policy, "log_std"):
            policy.log_std.fill_(-20.0)
            if policy.use_sde:
                policy.reset_noise()
    return policy


def in_lockstep(monkeypatch: pytest.MonkeyPatch, owner: Any, names: tuple[str, ...]) -> None:
    """Two threads wait for each other where they begin to run methods of these names."""
    barrier = threading.Barrier(2)

    def meeting(method: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            barrier.wait(timeout=10)
            return method(*args, **kwargs)

        return wrapped

    for name in names:
        monkeypatch.setattr(owner, name, meeting(getattr(owner, name)))


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What calls return that run in a thread each."""
    found: list[Any] = [None] * len(calls)

    def run(place: int) -> None:
        found[place] = calls[place]()

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(
    ("observation_space", "action_space", "kwargs"),
    [
        (BOX, ONE, {}),
        (BOX, ONE, {"use_sde": True}),
        (BOX, ONE, {"use_sde": True, "squash_output": True}),
        (BOX, spaces.Discrete(3), {}),
        (BOX, spaces.MultiDiscrete([2, 3]), {}),
        (BOX, spaces.MultiBinary(2), {}),
        (spaces.Dict({"a": BOX, "b": ONE}), spaces.Discrete(3), {}),
    ],
    ids=["box", "gsde", "squashed", "discrete", "multi_discrete", "multi_binary", "dict"],
)
def test_threads_get_the_actions_of_the_representative_that_they_ask_for(
    observation_space: spaces.Space, action_space: spaces.Space, kwargs: Any, deterministic: bool, monkeypatch: Any
) -> None:
    policy = policy_of(observation_space, action_space, **kwargs)
    obs = observation_space.sample()
    alone = [policy.predict(obs, deterministic=deterministic, representative=j)[0] for j in range(2)]
    assert not np.allclose(*alone)
    in_lockstep(monkeypatch, policy, ("obs_to_tensor",))
    in_lockstep(monkeypatch, type(policy.action_dist), ("mode" if deterministic else "sample",))
    both = at_once(*(partial(policy.predict, obs, deterministic=deterministic, representative=j) for j in range(2)))
    for (found, _), expected in zip(both, alone, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_threads_get_the_actions_for_what_they_observe(monkeypatch: pytest.MonkeyPatch) -> None:
    """One representative for both, and batches of different lengths."""
    model = RepresentedPPO(
        "MlpPolicy", vectorized(lambda: Spaces(BOX, ONE), 2), k=2, n_steps=8, batch_size=8, device="cpu", seed=0
    )
    with th.no_grad():
        model.policy.action_net.weight.mul_(100.0)
    one = model.representative(1)
    seen = [np.full((rows, 3), value, np.float32) for rows, value in ((2, -0.9), (5, 0.9))]
    alone = [one.predict(obs, deterministic=True)[0] for obs in seen]
    assert not np.allclose(alone[0][0], alone[1][0])
    in_lockstep(monkeypatch, DiagGaussianDistribution, ("mode",))
    both = at_once(*(partial(one.predict, obs, deterministic=True) for obs in seen))
    for (found, _), expected in zip(both, alone, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_distribution_that_remembers_what_it_drew_is_not_copied() -> None:
    class Counting(DiagGaussianDistribution):
        n_samples = 0

        def sample(self) -> th.Tensor:
            self.n_samples += 1
            return super().sample()

    policy = policy_of(BOX, ONE)
    shared = policy.action_dist
    assert own_distribution(shared) is not shared and type(own_distribution(shared)) is type(shared)
    policy.action_dist = Counting(1)
    for _ in range(3):
        policy.predict(BOX.sample(), representative=0)
    assert policy.action_dist.n_samples == 3


class WithDropout(FlattenExtractor):
    def __init__(self, observation_space: spaces.Box):
        super().__init__(observation_space)
        self.dropout = nn.Dropout(0.5)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.dropout(super().forward(observations))


def test_predictions_are_without_dropout_and_do_not_switch_it_off_in_an_update() -> None:
    class Asked(MlpPolicy):
        """Somebody predicts in the midst of an update."""

        asking, modes = False, set()

        def evaluate_actions(self, obs: Any, actions: th.Tensor, representatives: th.Tensor | None = None) -> Any:
            if self.asking and representatives is None:
                first, again = (self.predict(seen, deterministic=True, representative=0)[0] for _ in range(2))
                np.testing.assert_array_equal(first, again)
                self.modes.add((self.training, self.features_extractor.dropout.training))
            return super().evaluate_actions(obs, actions, representatives)

    seen = np.ones((4, 3), np.float32)
    kwargs = dict(features_extractor_class=WithDropout)
    trained = []
    for Asked.asking in (False, True):
        env = vectorized(lambda: Spaces(BOX, spaces.Discrete(3)), 2)
        env.seed(0)
        model = RepresentedPPO(Asked, env, k=2, n_steps=8, batch_size=4, policy_kwargs=kwargs, device="cpu", seed=0)
        for space in (BOX, spaces.Discrete(3)):
            space.seed(0)
        trained.append(th.nn.utils.parameters_to_vector(model.learn(32).policy.parameters()))
        assert not any(part.training for part in model.policy.modules())
    assert Asked.modes == {(True, True)}
    assert th.equal(*trained)


def test_the_twin_in_evaluation_mode_has_the_parameters_of_the_module() -> None:
    policy = policy_of(BOX, ONE, features_extractor_class=WithDropout)
    policy.set_training_mode(False)
    assert evaluating(policy) is policy
    policy.features_extractor.dropout.train()
    twin = evaluating(policy)
    assert type(twin) is type(policy) and not any(part.training for part in twin.modules())
    assert policy.features_extractor.dropout.training
    assert all(a is b for a, b in zip(twin.parameters(), policy.parameters(), strict=True))
