"""
Whether a model is the plain case that the fast paths are written for.

The numpy actor, the written-out gradients and the flat Adam compute what policies of this library and PyTorch's Adam compute
as they come. A subclass, a method set on an object, a hook, a frozen or shared parameter changes that, and then the general
path must be taken. What counts is what an object is now, not the arguments it was made from: types must be exactly the known
ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor
from torch import nn
from torch.nn.modules import module as torch_module
from torch.optim import optimizer as torch_optimizer

from sb3_rmdp.common.buffers import VectorRewardDictRolloutBuffer, VectorRewardRolloutBuffer
from sb3_rmdp.common.critic_basis import CriticBasis
from sb3_rmdp.common.normalization import ObservationNormalizer, RunningMoments
from sb3_rmdp.common.policies import (
    ConditionedMlpExtractor,
    RepresentedActorCriticCnnPolicy,
    RepresentedActorCriticPolicy,
    RepresentedLinear,
    RepresentedMultiInputActorCriticPolicy,
)

if TYPE_CHECKING:
    from sb3_rmdp.represented_ppo.represented_ppo import RepresentedPPO

POLICIES = (RepresentedActorCriticPolicy, RepresentedActorCriticCnnPolicy, RepresentedMultiInputActorCriticPolicy)
BUFFERS = (VectorRewardRolloutBuffer, VectorRewardDictRolloutBuffer)
DISTRIBUTIONS = (DiagGaussianDistribution, CategoricalDistribution)
ACTIVATIONS = (nn.Tanh, nn.ReLU)

#: All that a plain policy is made of
MODULES = {
    *POLICIES,
    *ACTIVATIONS,
    *(FlattenExtractor, CombinedExtractor, nn.Flatten, nn.ModuleDict, nn.ModuleList, nn.Sequential, nn.Linear),
    *(ConditionedMlpExtractor, RepresentedLinear, ObservationNormalizer, RunningMoments, CriticBasis),
}

# PyTorch has no public way to ask for hooks
MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PARAMETER_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
OPTIMIZER_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
GLOBAL_HOOKS = [(torch_module, f"_global{name}") for name in MODULE_HOOKS] + [
    (torch_optimizer, "_global_optimizer_pre_hooks"),
    (torch_optimizer, "_global_optimizer_post_hooks"),
]

#: Options of Adam that change its steps
ADAM_OPTIONS = ("amsgrad", "maximize", "weight_decay", "capturable", "differentiable", "foreach")


def acts_plainly(policy: RepresentedActorCriticPolicy) -> bool:
    """
    :param policy: a policy
    :return: whether :func:`sb3_rmdp.common.actor.numpy_actor` acts like it: linear layers with tanh or ReLU, a Gaussian or
        categorical distribution, continuous observations, on the CPU
    """
    extractor = policy.features_extractor if policy.share_features_extractor else policy.pi_features_extractor
    return (
        is_plain(policy)
        and type(extractor) is FlattenExtractor
        and policy.device.type == "cpu"
        and np.issubdtype(policy.observation_space.dtype, np.floating)
    )


def learns_plainly(model: RepresentedPPO) -> bool:
    """
    :param model: a model with a rollout in its buffer
    :return: whether ``ManualGradients`` computes its losses and their gradients, and all representatives have as many
        transitions
    """
    policy, buffer = model.policy, model.rollout_buffer
    return (
        is_plain(policy)
        and policy.share_features_extractor
        and all(parameter.requires_grad and not _has(parameter, PARAMETER_HOOKS) for parameter in policy.parameters())
        and is_plain_adam(policy.optimizer, list(policy.parameters()))
        and type(buffer) in BUFFERS
        and _is_as_its_class(buffer)
        and model.clip_range_vf is None
        and len(set(np.bincount(buffer.representatives.reshape(-1), minlength=model.k))) == 1
    )


def is_plain(policy: RepresentedActorCriticPolicy) -> bool:
    """
    :param policy: a policy
    :return: whether it consists of modules and parameters as this library makes them, and nothing else, with perceptrons
        between features without parameters and a Gaussian or categorical distribution
    """
    return (
        type(policy) in POLICIES
        and all(type(module) in MODULES and is_untouched(module) for module in policy.modules())
        and not any(getattr(where, name, None) for where, name in GLOBAL_HOOKS)
        and type(policy.mlp_extractor) is ConditionedMlpExtractor
        and type(policy.action_net) is RepresentedLinear
        and type(policy.value_net) is nn.Linear
        and all(is_plain_trunk(net) for net in (policy.mlp_extractor.policy_net, policy.mlp_extractor.value_net))
        and type(policy.action_dist) in DISTRIBUTIONS
        and _is_as_its_class(policy.action_dist)
        and _has_plain_parameters(policy)
    )


def is_untouched(module: nn.Module) -> bool:
    """
    :param module: any module
    :return: whether no hook was registered on it and none of its methods was replaced on the object itself
    """
    return not has_hooks(module) and _is_as_its_class(module)


def has_hooks(module: nn.Module) -> bool:
    """
    :param module: any module
    :return: whether somebody registered a hook on it
    """
    return _has(module, MODULE_HOOKS)


def is_plain_trunk(net: Any) -> bool:
    """
    :param net: a network
    :return: whether it is made of linear layers, each with a bias, and of one kind of activation in between
    """
    if type(net) is not nn.Sequential:
        return False
    layers = list(net)
    linears, activations = layers[::2], layers[1::2]
    kinds = {type(layer) for layer in activations}
    return (
        len(linears) == len(activations)
        and len(kinds) <= 1
        and all(kind in ACTIVATIONS for kind in kinds)
        and all(type(layer) is nn.Linear and layer.bias is not None for layer in linears)
    )


def is_plain_adam(optimizer: th.optim.Optimizer, parameters: Sequence[th.Tensor]) -> bool:
    """
    :param optimizer: any optimizer
    :param parameters: those that are to learn
    :return: whether ``FlatAdam`` takes its steps: a fused Adam that treats just these parameters, all of them alike
    """
    if type(optimizer) is not th.optim.Adam or len(optimizer.param_groups) != 1:
        return False
    (group,) = optimizer.param_groups
    states = [optimizer.state[parameter] for parameter in group["params"] if optimizer.state.get(parameter)]
    return (
        _same(group["params"], parameters)
        and bool(group["fused"])
        and not any(group[option] for option in ADAM_OPTIONS)
        and not any(isinstance(number, th.Tensor) for number in (group["lr"], group["eps"], *group["betas"]))
        and len(states) in (0, len(parameters))
        and len({float(state["step"]) for state in states}) <= 1
        and not _has(optimizer, OPTIMIZER_HOOKS)
        and not any(getattr(where, name, None) for where, name in GLOBAL_HOOKS)
        and _is_as_its_class(optimizer)
    )


def overrides(instance: Any, base: type, method: str) -> bool:
    """
    :param instance: any object of the class, or of a subclass
    :param base: the class
    :param method: name of one of its methods
    :return: whether a subclass, or the object itself, has another one
    """
    return method in vars(instance) or getattr(type(instance), method) is not getattr(base, method)


def _has_plain_parameters(policy: RepresentedActorCriticPolicy) -> bool:
    """Whether parameters are those that layers need, float32 on one device, each of them with numbers of its own."""
    extractor, owners = policy.mlp_extractor, [policy.action_net, policy.value_net]
    needed = [extractor.shift, getattr(policy, "log_std", None)]
    needed += [
        parameter for module in (extractor.policy_net, extractor.value_net, *owners) for parameter in module.parameters()
    ]
    parameters = [parameter for _, parameter in policy.named_parameters(remove_duplicate=False)]
    return (
        _same([parameter for parameter in needed if parameter is not None], parameters)
        and hasattr(policy, "log_std") == (type(policy.action_dist) is DiagGaussianDistribution)
        and all(type(parameter) is nn.Parameter and parameter.dtype is th.float32 for parameter in parameters)
        and len({parameter.device for parameter in parameters}) == 1
        and len({parameter.untyped_storage().data_ptr() for parameter in parameters}) == len(parameters)
    )


def _same(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether two sequences hold the same objects, each of them once."""
    identities = set(map(id, some))
    return len(some) == len(others) == len(identities) and identities == set(map(id, others))


def _has(instance: Any, hooks: Iterable[str]) -> bool:
    return any(getattr(instance, name, None) for name in hooks)


def _is_as_its_class(instance: Any) -> bool:
    """Whether no method was replaced on the object itself."""
    cls = type(instance)
    return not any(callable(getattr(cls, name, None)) for name in vars(instance))
