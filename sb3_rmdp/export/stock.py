"""Representatives as SB3's own PPO: its networks filled with theirs."""

from __future__ import annotations

import inspect
import io
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
    StateDependentNoiseDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm
from sb3_rmdp.common.plain_case import is_untouched
from sb3_rmdp.common.policies import (
    ConditionedMlpExtractor,
    RepresentedActorCriticCnnPolicy,
    RepresentedActorCriticPolicy,
    RepresentedLinear,
    RepresentedMultiInputActorCriticPolicy,
)
from sb3_rmdp.export import folded
from sb3_rmdp.export.normalization import Stage

#: Policies that act like one of SB3's, and which
STOCK_POLICIES: dict[type, str] = {
    RepresentedActorCriticPolicy: "MlpPolicy",
    RepresentedActorCriticCnnPolicy: "CnnPolicy",
    RepresentedMultiInputActorCriticPolicy: "MultiInputPolicy",
}

STOCK_DISTRIBUTIONS = (
    *(DiagGaussianDistribution, CategoricalDistribution, MultiCategoricalDistribution),
    *(BernoulliDistribution, StateDependentNoiseDistribution),
)


def check_exportable(policy: nn.Module) -> None:
    """
    :param policy: of a model
    :raises ValueError: if it, or a part of it, is of a class of the user's own or has hooks or methods of its own, so that it
        may act in other ways than its networks tell, or holds numbers that are none
    """
    if type(policy) not in STOCK_POLICIES:
        raise ValueError(
            f"policies of the class {type(policy).__module__}.{type(policy).__qualname__} cannot be exported: what it does is "
            f"its own; only {', '.join(STOCK_POLICIES.values())} of sb3_rmdp are known to act like SB3's"
        )
    assert isinstance(policy, RepresentedActorCriticPolicy)
    for name, module in policy.named_modules():
        if not is_untouched(module):
            raise ValueError(
                f"{name or 'the policy'} has a hook or a method of its own and cannot be exported: only what networks do is "
                "in an export"
            )
    own = {"mlp_extractor": ConditionedMlpExtractor, "action_net": RepresentedLinear, "value_net": nn.Linear}
    changed = [name for name, cls in own.items() if type(getattr(policy, name)) is not cls]
    changed += [] if type(policy.action_dist) in STOCK_DISTRIBUTIONS else ["action_dist"]
    if changed:
        raise ValueError(
            f"{changed[0]} is a {type(getattr(policy, changed[0])).__name__}: what it does is its own and cannot be exported"
        )
    for name, values in policy.state_dict().items():
        if not bool(values.isfinite().all()):
            raise ValueError(f"{name} of the model is not finite, so that it cannot act: take an earlier checkpoint")


class FromSource:
    """
    Stands for a class of :mod:`sb3_rmdp.export.folded` while a model is pickled: the class is made from that module's text
    where the model is loaded. Pickled by its name it would need sb3_rmdp there, and by value the very version of Python that
    has compiled it.

    :param cls: the class
    """

    def __init__(self, cls: type):
        self.cls = cls

    def __repr__(self) -> str:
        return f"{self.cls.__name__}, made from its source"

    def __reduce__(self) -> tuple[Any, ...]:
        scope = {"__name__": "exported_by_sb3_rmdp"}
        names = {"source": inspect.getsource(folded), "scope": scope, "name": self.cls.__name__}
        return eval, ("exec(source, scope) or scope[name]", names)


class _Spaces(gym.Env):
    """Tells PPO the spaces of a model, and is never stepped."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space):
        self.observation_space = deepcopy(observation_space)
        self.action_space = deepcopy(action_space)


class StockPPO:
    """
    A PPO of SB3 that becomes one representative after the other.

    Hyperparameters are SB3's but for ``gamma`` and ``gae_lambda``, which the values are about. The critic gives the mean value
    of the agents that the representative serves; of all agents if it serves none.

    :param model: a represented model
    :param stages: normalisation to fold in
    :raises ValueError: if the policy is of a class that is not known
    """

    def __init__(self, model: RepresentedOnPolicyAlgorithm, stages: Sequence[Stage]):
        check_exportable(model.policy)
        self.source = source = model.policy
        self.value_weights = group_value_weights(model)
        kwargs: dict[str, Any] = {
            name: getattr(source, name)
            for name in (
                "net_arch",
                "activation_fn",
                "ortho_init",
                "log_std_init",
                "squash_output",
                "features_extractor_class",
                "share_features_extractor",
                "normalize_images",
            )
        }
        # A copy, since SB3 changes it
        kwargs["features_extractor_kwargs"] = dict(source.features_extractor_kwargs)
        kwargs.update({name: source.dist_kwargs[name] for name in ("full_std", "use_expln")} if source.dist_kwargs else {})
        policy: str | type[ActorCriticPolicy] = STOCK_POLICIES[type(source)]
        if stages:
            policy = folded.NormalizingActorCriticPolicy
            kwargs["normalizations"] = [
                (stage.key, dict(shape=stage.mean.shape, double=stage.mean.dtype == "float64", limit=stage.limit))
                for stage in stages
            ]
        sde = dict(use_sde=model.use_sde, sde_sample_freq=model.sde_sample_freq)
        returns = dict(gamma=model.gamma, gae_lambda=model.gae_lambda)
        env = DummyVecEnv([lambda: _Spaces(model.observation_space, model.action_space)])
        # Random numbers of a training that goes on are not touched
        with th.random.fork_rng(devices=[]):
            self.ppo = PPO(policy, env, device="cpu", policy_kwargs=kwargs, **sde, **returns)  # type: ignore[arg-type]
        self.ppo.num_timesteps = model.num_timesteps
        target = self.policy
        _copy(source.pi_features_extractor, target.pi_features_extractor)
        _copy(source.vf_features_extractor, target.vf_features_extractor)
        _copy(source.mlp_extractor.policy_net, target.mlp_extractor.policy_net)
        if isinstance(target, folded.NormalizingActorCriticPolicy):
            for stage, normalizer in zip(stages, target.normalizers, strict=True):
                normalizer.load_state_dict({"mean": th.tensor(stage.mean), "factor": th.tensor(stage.factor)})
        target.set_training_mode(False)

    @property
    def policy(self) -> ActorCriticPolicy:
        """The policy of the representative that it is now."""
        return self.ppo.policy

    @th.no_grad()
    def become(self, index: int) -> None:
        """
        :param index: of a representative
        """
        source, target = self.source, self.policy
        head, values = source.action_net, target.value_net
        assert isinstance(head, RepresentedLinear) and isinstance(target.action_net, nn.Linear)
        target.action_net.weight.copy_(head.weight[index])
        target.action_net.bias.copy_(head.bias[index])
        if hasattr(source, "log_std"):
            # With gSDE blocks of one row per latent feature, else one row each
            target.log_std.copy_(source.log_std.view(source.k, *target.log_std.shape)[index])
        _copy(source.mlp_extractor.value_net, target.mlp_extractor.value_net)
        if source.mlp_extractor.shift is not None:
            first = target.mlp_extractor.value_net[0]
            assert isinstance(first, nn.Linear)
            first.bias.add_(source.mlp_extractor.shift[index].to(first.bias.device))
        assert isinstance(values, nn.Linear) and isinstance(source.value_net, nn.Linear)
        if self.value_weights is None:
            values.weight.zero_()
            values.bias.zero_()
        else:
            weights = self.value_weights[:, index]
            values.weight.copy_((weights @ source.value_net.weight)[None])
            values.bias.copy_((weights @ source.value_net.bias)[None])

    def to_bytes(self) -> bytes:
        """The zip file that ``PPO.load`` opens."""
        policy_class = self.ppo.policy_class
        file = io.BytesIO()
        try:
            if policy_class is folded.NormalizingActorCriticPolicy:
                self.ppo.policy_class = FromSource(policy_class)  # type: ignore[assignment]
            self.ppo.save(file)
        finally:
            self.ppo.policy_class = policy_class
        return file.getvalue()


def group_value_weights(model: RepresentedOnPolicyAlgorithm) -> th.Tensor | None:
    """
    :param model: a model
    :return: weights of the critic's outputs in the mean value of the agents that a representative serves, (n_values, k), all
        agents for one that serves none; ``None`` if rewards are factored and the agents' weights not at hand
    """
    if model.n_features is not None:
        try:
            model.reward_weights.weights  # noqa: B018 (it raises)
        except ValueError:
            return None
    serves = th.as_tensor(model.assignment.representatives, device=model.device)[:, None] == th.arange(
        model.k, device=model.device
    )
    serves = serves | ~serves.any(dim=0)
    with th.no_grad():
        return model.value_weights.of_groups((serves / serves.sum(dim=0)).float())


def _copy(source: nn.Module, target: nn.Module) -> None:
    target.load_state_dict(source.state_dict())
