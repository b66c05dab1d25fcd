"""Fast paths are taken in the plain case only; what is unusual holds while transitions are collected and while is learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.actor import numpy_actor
from sb3_rmdp.common.buffers import VectorRewardRolloutBuffer
from sb3_rmdp.common.normalization import ObservationNormalizer
from sb3_rmdp.common.plain_case import acts_plainly, learns_plainly
from sb3_rmdp.common.policies import ConditionedMlpExtractor
from sb3_rmdp.represented_ppo import MlpPolicy
from tests.probes import Spaces, vectorized

BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
SMALL: dict[str, Any] = dict(k=2, n_steps=16, batch_size=8, n_epochs=2, seed=0, device="cpu", assignment="em")
CALLS: Counter[str] = Counter()


def make(policy: Any = "MlpPolicy", actions: spaces.Space = BOX, **kwargs: Any) -> RepresentedPPO:
    CALLS.clear()
    return RepresentedPPO(policy, vectorized(lambda: Spaces(BOX, actions, 3), 2), **(SMALL | kwargs))


def count(name: str) -> Callable[..., None]:
    def hook(*args: Any) -> None:
        CALLS[name] += 1

    return hook


def counted(instance: Any, method: str) -> None:
    """Replace a method on the object itself by one that does the same and counts."""
    original = getattr(instance, method)

    def replaced(*args: Any, **kwargs: Any) -> Any:
        CALLS["called"] += 1
        return original(*args, **kwargs)

    setattr(instance, method, replaced)


class Scaled(nn.Linear):
    """Twice what a linear layer gives."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        CALLS["called"] += 1
        return 2.0 * super().forward(x)


class Noisy(DiagGaussianDistribution):
    """Counts its samples."""

    def sample(self) -> th.Tensor:
        CALLS["called"] += 1
        return super().sample()


class Doubled(ConditionedMlpExtractor):
    """More than its policy_net."""

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        CALLS["called"] += 1
        return 2.0 * self.policy_net(features)


class Flat(FlattenExtractor):
    def forward(self, observations: th.Tensor) -> th.Tensor:
        CALLS["called"] += 1
        return super().forward(observations)


class Normalizer(ObservationNormalizer):
    def forward(self, obs: Any) -> Any:
        CALLS["called"] += 1
        return super().forward(obs)


def with_scaled_layer(policy: MlpPolicy) -> None:
    policy.mlp_extractor.policy_net[0] = Scaled(3, 64)


def with_other_class(path: str, cls: type) -> Callable[[MlpPolicy], None]:
    def change(policy: MlpPolicy) -> None:
        policy.get_submodule(path).__class__ = cls

    return change


def with_dropout(policy: MlpPolicy) -> None:
    policy.mlp_extractor.policy_net.append(nn.Dropout(0.5))
    policy.mlp_extractor.policy_net[-1].register_forward_hook(count("called"))


def with_noisy_distribution(policy: MlpPolicy) -> None:
    policy.action_dist = Noisy(3)


#: What may be changed of a policy's acting; each counts its calls
ACTING: dict[str, Callable[[MlpPolicy], Any]] = {
    "act of the object": lambda policy: counted(policy, "act"),
    "forward of the object": lambda policy: counted(policy, "forward"),
    "get_distribution of the object": lambda policy: counted(policy, "get_distribution"),
    "extract_features of the object": lambda policy: counted(policy, "extract_features"),
    "forward_actor of the object": lambda policy: counted(policy.mlp_extractor, "forward_actor"),
    "forward of a layer's object": lambda policy: counted(policy.mlp_extractor.policy_net[0], "forward"),
    "forward of the head's object": lambda policy: counted(policy.action_net, "forward"),
    "sample of the distribution's object": lambda policy: counted(policy.action_dist, "sample"),
    "hook on the policy": lambda policy: policy.register_forward_hook(count("called")),
    "hook on a layer": lambda policy: policy.mlp_extractor.policy_net[2].register_forward_hook(count("called")),
    "hook before a layer": lambda policy: policy.mlp_extractor.policy_net[1].register_forward_pre_hook(count("called")),
    "hook on the features": lambda policy: policy.features_extractor.register_forward_hook(count("called")),
    "hook on the normalizer": lambda policy: policy.normalizer.register_forward_hook(count("called")),
    "subclass of a layer": with_scaled_layer,
    "subclass of the distribution": with_noisy_distribution,
    "subclass of the networks": with_other_class("mlp_extractor", Doubled),
    "subclass of the features": with_other_class("features_extractor", Flat),
    "subclass of the normalizer": with_other_class("normalizer", Normalizer),
    "dropout": with_dropout,
}


@pytest.mark.parametrize("change", ACTING)
def test_what_acts_otherwise_acts_so_while_transitions_are_collected(change: str) -> None:
    model = make()
    assert acts_plainly(model.policy)
    ACTING[change](model.policy)
    assert numpy_actor(model.policy) is None
    in_training: list[int] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            in_training.append(CALLS["called"])
            return True

    model.learn(32, Watch())
    assert in_training == sorted(in_training) and len(set(in_training)) == 16  # at least once in every step
    assert not learns_plainly(model)


def test_a_hook_on_all_modules_holds_while_transitions_are_collected() -> None:
    model = make()
    handle = register_module_forward_hook(lambda *args: count("called")())
    try:
        assert numpy_actor(model.policy) is None
        model.learn(32)
        assert not learns_plainly(model)
    finally:
        handle.remove()
    assert CALLS["called"] >= 16
    assert acts_plainly(model.policy) and learns_plainly(model)


class Masked(MlpPolicy):
    """Actions 2 and 3 are forbidden."""

    def _get_action_dist_from_latent(self, latent: th.Tensor, representatives: Any = None) -> Any:
        logits = self.action_net(latent, representatives).clone()
        logits[:, 2:] = -1e8
        return self.action_dist.proba_distribution(action_logits=logits)


class MaskedForward(MlpPolicy):
    """The same, where SB3 asks for it."""

    def forward(self, obs: Any, deterministic: bool = False, representatives: Any = None) -> Any:
        actions, values, log_prob = super().forward(obs, deterministic, representatives)
        return actions % 2, values, log_prob


@pytest.mark.parametrize("policy", [Masked, MaskedForward])
def test_forbidden_actions_are_not_taken_in_training(policy: type) -> None:
    model = make(policy, spaces.Discrete(4)).learn(64)
    taken = np.bincount(model.rollout_buffer.actions.astype(int).ravel(), minlength=4)
    assert taken[:2].all() and not taken[2:].any()


def test_a_layer_without_bias_and_spectral_norm_are_left_to_torch() -> None:
    policy = make().policy
    policy.mlp_extractor.policy_net[0] = nn.Linear(3, 64, bias=False)
    assert numpy_actor(policy) is None
    model = make()
    layer = model.policy.mlp_extractor.policy_net[0]
    parametrizations.spectral_norm(layer)
    assert numpy_actor(model.policy) is None
    model.policy.optimizer = th.optim.Adam(model.policy.parameters(), lr=3e-4, fused=True)
    model.learn(32)
    assert not learns_plainly(model)
    assert float(th.linalg.matrix_norm(layer.weight.detach(), 2)) == pytest.approx(1.0, abs=0.2)


def test_what_a_callback_writes_into_parameters_holds_from_the_next_step_on() -> None:
    class Quiet(BaseCallback):
        """No exploration and a mean of 0.5 from step 8 on, in the ways that are common: of numbers, and of a dict of them."""

        def _on_step(self) -> bool:
            policy = self.model.policy
            if self.n_calls == 8:
                policy.log_std.data.fill_(-20.0)
                policy.action_net.weight.data.zero_()
                policy.action_net.bias.data.fill_(0.5)
            if self.n_calls == 12:
                policy.load_state_dict({**policy.state_dict(), "action_net.bias": th.full((2, 3), -0.25)})
            return self.n_calls < 16

    model = make()
    assert acts_plainly(model.policy)
    model.learn(32, Quiet())
    actions = model.rollout_buffer.actions
    assert not (actions[:8] == 0.5).any()
    assert (actions[8:12] == 0.5).all() and (actions[12:15] == -0.25).all()


def test_what_a_callback_writes_at_the_start_of_a_rollout_holds_in_it() -> None:
    class Quiet(BaseCallback):
        def _on_rollout_start(self) -> None:
            counted(self.model.policy, "act")

        def _on_step(self) -> bool:
            return True

    make().learn(32, Quiet())
    assert CALLS["called"] == 16


def test_float64_observations_are_normalised_before_they_lose_digits() -> None:
    """Seconds since 1970 that differ by one: float32 knows them to two minutes."""
    space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    env = vectorized(lambda: Spaces(space, BOX, 3), 2)
    policy = RepresentedPPO("MlpPolicy", env, **SMALL).policy
    seconds = 1.7e9 + np.arange(10.0)[:, None]
    policy.normalizer.update(seconds)
    expected = (np.arange(10.0) - 4.5)[:, None] / np.arange(10.0).std()
    np.testing.assert_allclose(policy.normalizer(th.as_tensor(seconds)), expected, atol=1e-5)
    actor = numpy_actor(policy)
    assert actor is not None
    policy.log_std.data.fill_(-20.0)
    with th.no_grad():
        policy.action_net.weight.mul_(100.0)
        modes = policy.act(th.as_tensor(seconds), th.zeros(10, dtype=th.int64), deterministic=True).numpy()
    np.testing.assert_allclose(actor(seconds, np.zeros(10, dtype=int)), modes, atol=1e-5)
    assert np.ptp(modes) > 0.01


# What is learned


def moved(before: dict[str, th.Tensor], policy: MlpPolicy) -> set[str]:
    return {name for name, parameter in policy.named_parameters() if not th.equal(parameter, before[name])}


def parameters_of(policy: MlpPolicy) -> dict[str, th.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}


NAMES = list(make().policy.state_dict().keys() - {f"normalizer._moments.0.{name}" for name in ("mean", "var", "count")})


@pytest.mark.parametrize("frozen", [*sorted(NAMES), "mlp_extractor", "critic", "actors", "all"])
def test_frozen_parameters_stay_and_all_others_learn(frozen: str) -> None:
    model = make(assignment="episodes", assignment_kwargs=dict(warm_start=0))
    policy = model.policy
    critic = {id(parameter) for parameter in policy.critic_parameters()}
    chosen = {
        name
        for name, parameter in policy.named_parameters()
        if name.startswith(frozen)
        or frozen == "all"
        or (frozen == "critic" and id(parameter) in critic)
        or (frozen == "actors" and id(parameter) not in critic)
    }
    assert chosen
    for name in chosen:
        policy.get_parameter(name).requires_grad_(False)
    before = parameters_of(policy)
    model.learn(96)
    assert moved(before, policy) == set(NAMES) - chosen


def test_frozen_parameters_stay_where_they_had_moments() -> None:
    """Adam goes on by itself where the gradient is 0."""
    model = make().learn(32)
    model.policy.action_net.requires_grad_(False)
    before = parameters_of(model.policy)
    model.learn(64, reset_num_timesteps=False)
    assert {"action_net.weight", "action_net.bias"} == set(NAMES) - moved(before, model.policy)


def test_a_frozen_last_layer_of_a_critic_of_few_values_stays_with_its_basis() -> None:
    model = make(critic_rank=2).learn(32)
    basis = model.policy.critic_basis.weights.clone()
    model.policy.value_net.bias.requires_grad_(False)
    frozen = model.policy.value_net.bias.detach().clone()
    model.learn(64, reset_num_timesteps=False)
    assert th.equal(model.policy.value_net.bias, frozen)
    assert th.equal(model.policy.critic_basis.weights, basis)


def test_a_critic_of_few_values_needs_a_linear_last_layer() -> None:
    model = make(critic_rank=2)
    parametrizations.spectral_norm(model.policy.value_net)
    with pytest.raises(ValueError, match=r"critic_rank=2 turns the outputs of policy.value_net.*leave critic_rank out"):
        model.learn(32)


def adam(policy: MlpPolicy, **kwargs: Any) -> th.optim.Adam:
    return th.optim.Adam(policy.parameters(), **{"lr": 3e-4, "eps": 1e-5, "fused": True, **kwargs})


class Watched(th.optim.Adam):
    def step(self, closure: Any = None) -> Any:
        CALLS["called"] += 1
        return super().step(closure)


def two_groups(policy: MlpPolicy) -> th.optim.Optimizer:
    return th.optim.Adam([{"params": [parameter]} for parameter in policy.parameters()], lr=3e-4, fused=True)


def hooked(policy: MlpPolicy) -> th.optim.Optimizer:
    optimizer = adam(policy)
    optimizer.register_step_post_hook(count("called"))
    return optimizer


def scheduled(policy: MlpPolicy) -> th.optim.Optimizer:
    optimizer = adam(policy)
    th.optim.lr_scheduler.ConstantLR(optimizer, 1.0)  # replaces step on the object
    return optimizer


OPTIMIZERS: dict[str, Callable[[MlpPolicy], th.optim.Optimizer]] = {
    "amsgrad": lambda policy: adam(policy, amsgrad=True),
    "foreach": lambda policy: adam(policy, fused=False, foreach=True),
    "not fused": lambda policy: adam(policy, fused=False),
    "weight decay": lambda policy: adam(policy, weight_decay=0.1),
    "subclass": lambda policy: Watched(policy.parameters(), lr=3e-4, fused=True),
    "several groups": two_groups,
    "hook": hooked,
    "scheduler": scheduled,
    "sgd": lambda policy: th.optim.SGD(policy.parameters(), lr=1e-3, momentum=0.9),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_other_optimizers_take_their_own_steps(name: str) -> None:
    model = make()
    model.policy.optimizer = OPTIMIZERS[name](model.policy)
    before = parameters_of(model.policy)
    model.learn(32)
    assert not learns_plainly(model)
    assert moved(before, model.policy) == set(NAMES)
    assert name not in ("subclass", "hook") or CALLS["called"] == 2 * 2


def test_an_optimizer_of_some_parameters_leaves_the_others_alone() -> None:
    model = make()
    model.policy.optimizer = th.optim.Adam(model.policy.critic_parameters(), lr=3e-4, fused=True)
    before = parameters_of(model.policy)
    model.learn(32)
    critic = {id(parameter) for parameter in model.policy.critic_parameters()}
    names = {name for name, parameter in model.policy.named_parameters() if id(parameter) in critic}
    assert moved(before, model.policy) == names


@pytest.mark.parametrize(
    "options", [dict(foreach=True), dict(differentiable=True), dict(fused=False), dict(foreach=False), {}]
)
def test_adam_is_fused_unless_another_way_is_asked_for(options: dict[str, Any]) -> None:
    model = make(policy_kwargs=dict(optimizer_kwargs=options))
    (group,) = model.policy.optimizer.param_groups
    assert {name: group[name] for name in options} == options
    assert bool(group["fused"]) == (options in ({}, dict(foreach=False)))
    if not options.get("differentiable"):  # PyTorch takes such steps outside of trainings only
        model.learn(64)


def hook_gradient(policy: MlpPolicy) -> None:
    policy.action_net.weight.register_hook(th.zeros_like)


def hook_after_gradient(policy: MlpPolicy) -> None:
    def clear(parameter: th.Tensor) -> None:
        parameter.grad = th.zeros_like(parameter)

    policy.action_net.weight.register_post_accumulate_grad_hook(clear)


@pytest.mark.parametrize("change", [hook_gradient, hook_after_gradient])
def test_hooks_on_gradients_hold(change: Callable[[MlpPolicy], None]) -> None:
    model = make()
    change(model.policy)
    before = parameters_of(model.policy)
    model.learn(32)
    assert moved(before, model.policy) == set(NAMES) - {"action_net.weight"}


@pytest.mark.parametrize("gradient", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_hooks_on_the_way_back_hold(gradient: str) -> None:
    model = make()
    getattr(model.policy.mlp_extractor.policy_net[2], gradient)(count("called"))
    model.learn(32)
    assert CALLS["called"] == 2 * 2


def test_shared_parameters_stay_shared_and_get_both_gradients() -> None:
    model = make()
    policy = model.policy
    policy.mlp_extractor.value_net[2].weight = policy.mlp_extractor.policy_net[2].weight
    assert len(policy.critic_parameters()) + len(policy.actor_parameters()) == len(list(policy.parameters()))
    assert any(parameter is policy.mlp_extractor.policy_net[2].weight for parameter in policy.actor_parameters())
    policy.optimizer = adam(policy)
    before = parameters_of(policy)
    model.learn(32)
    assert not learns_plainly(model)
    assert moved(before, policy) == set(NAMES) - {"mlp_extractor.value_net.2.weight"}
    assert policy.mlp_extractor.value_net[2].weight is policy.mlp_extractor.policy_net[2].weight


def test_parameters_with_the_same_memory_are_left_to_torch() -> None:
    model = make().learn(32)
    assert learns_plainly(model)
    extractor = model.policy.mlp_extractor
    extractor.value_net[2].weight.data = extractor.policy_net[2].weight.data
    assert not learns_plainly(model)


def test_a_buffer_of_ones_own_hands_out_the_minibatches() -> None:
    class Recent(VectorRewardRolloutBuffer):
        def get(self, *args: Any, **kwargs: Any) -> Any:
            CALLS["called"] += 1
            return super().get(*args, **kwargs)

    model = make(rollout_buffer_class=Recent)
    model.learn(32)
    assert CALLS["called"] == 2
    model = make().learn(32)
    assert learns_plainly(model)
    counted(model.rollout_buffer, "get")
    assert not learns_plainly(model)


def test_distributions_of_the_object_are_left_to_autograd() -> None:
    model = make(actions=spaces.Discrete(3)).learn(32)
    assert learns_plainly(model)

    class Soft(CategoricalDistribution):
        """May compute anything."""

    model.policy.action_dist = Soft(3)
    assert not learns_plainly(model)
