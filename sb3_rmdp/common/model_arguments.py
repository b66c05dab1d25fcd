"""Arguments of represented models: what each may be, in one table, and how they depend on each other."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.utils import FloatSchedule, get_device
from torch import nn

from sb3_rmdp.common.arguments import (
    LARGEST_COEFFICIENT,
    Count,
    Flag,
    Keywords,
    Number,
    Read,
    Rule,
    Scheduled,
    Text,
    check_all,
    check_keywords,
    check_name,
    keyword_names,
    most_alike,
    plain,
    refusal,
    shown,
)
from sb3_rmdp.common.assignment import check_assignment_keywords
from sb3_rmdp.common.buffers import VectorRewardRolloutBuffer
from sb3_rmdp.common.policies import RepresentedActorCriticPolicy
from sb3_rmdp.common.population import check_budget
from sb3_rmdp.common.welfare import check_welfare_keywords

#: ``normalize_advantage`` for all transitions of a rollout together
OVER_ROLLOUT = "rollout"

#: Units of a layer at most: two such layers have as many weights as memory has room for
LARGEST_LAYER = 2**20

#: Largest learning rate: with one beyond it, weights of an update are no weights any more
LARGEST_RATE = 100

#: Largest seed that numpy takes
LARGEST_SEED = 2**32 - 1


def _normalize_advantage(value: Any) -> bool | str:
    if isinstance(value, str):
        if value == OVER_ROLLOUT:
            return value
    else:
        try:
            return Flag().read(value)
        except ValueError:
            pass
    raise ValueError(f"choose True, False or {OVER_ROLLOUT!r}")


def _folder(value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)) or "\0" in str(value):
        raise ValueError
    return str(value)


def _device(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, th.device)):
        raise ValueError
    if str(value).startswith("meta"):
        raise ValueError("it computes nothing, choose auto, cpu or cuda")
    try:
        # As soon as something is computed, a device that is not there, or computes nothing, says so
        th.zeros(1, device=get_device(value)).add(1).item()  # type: ignore[arg-type]
    except Exception as error:  # devices fail in their own ways
        raise ValueError(f"it cannot be used ({str(error).splitlines()[0][:80]}), choose auto, cpu or cuda") from None
    return value


def _buffer_class(value: Any) -> Any:
    if not isinstance(value, type) or not issubclass(value, VectorRewardRolloutBuffer):
        raise ValueError
    return value


#: What the arguments of a model may be; ``policy`` and the names of methods are looked at by :func:`check_arguments`
ARGUMENTS: dict[str, Rule] = {
    "learning_rate": Scheduled(number=Number(0, LARGEST_RATE)),
    "n_steps": Count(),
    "batch_size": Count(),
    "n_epochs": Count(),
    "gamma": Number(0, 1),
    "gae_lambda": Number(0, 1),
    "clip_range": Scheduled(number=Number(0, LARGEST_COEFFICIENT)),
    "clip_range_vf": Scheduled(
        optional=True, number=Number(0, LARGEST_COEFFICIENT, above=True), numbers=Number(0, LARGEST_COEFFICIENT)
    ),
    "normalize_advantage": Read(function=_normalize_advantage),
    "ent_coef": Scheduled(number=Number(-LARGEST_COEFFICIENT, LARGEST_COEFFICIENT)),
    "vf_coef": Number(0, LARGEST_COEFFICIENT),
    "max_grad_norm": Number(0, above=True, infinite=True),
    "use_sde": Flag(),
    "sde_sample_freq": Count(-1),
    "rollout_buffer_class": Read(optional=True, function=_buffer_class, text="a subclass of VectorRewardRolloutBuffer"),
    "rollout_buffer_kwargs": Keywords(optional=True),
    "target_kl": Number(0, optional=True),
    "stats_window_size": Count(),
    "tensorboard_log": Read(optional=True, function=_folder, text="the name of a folder"),
    "policy_kwargs": Keywords(optional=True),
    "verbose": Count(0, flags=True),
    "seed": Count(0, LARGEST_SEED, optional=True),
    "device": Read(function=_device, text="auto, cpu, cuda, or a torch.device"),
    "assignment_kwargs": Keywords(optional=True),
    "welfare_kwargs": Keywords(optional=True),
    "normalize_observations": Flag(),
    "critic_rank": Count(optional=True),
}

#: What the arguments of ``learn`` may be
LEARN_ARGUMENTS: dict[str, Rule] = {
    "total_timesteps": Number(0, 2**63 - 1),
    "log_interval": Count(optional=True),
    "tb_log_name": Text(),
    "reset_num_timesteps": Flag(),
    "progress_bar": Flag(),
}

#: Names under which a model keeps arguments, where it keeps them under another
KEPT_AS = {
    "policy": "policy_class",
    "assignment": "assignment_method",
    "welfare": "welfare_method",
    "stats_window_size": "_stats_window_size",
}

#: Arguments of a policy that are arguments of the model, or facts of the environment
NOT_OF_POLICIES = (
    *("observation_space", "action_space", "lr_schedule", "use_sde"),
    *("k", "n_rewards", "critic_rank", "normalize_observations"),
)

#: Arguments of a buffer of the same kind
NOT_OF_BUFFERS = (
    *("buffer_size", "observation_space", "action_space", "device", "gae_lambda", "gamma", "n_envs"),
    *("k", "n_rewards", "n_values"),
)


def check_arguments(values: Mapping[str, Any], aliases: Mapping[str, type[BasePolicy]]) -> dict[str, Any]:
    """
    :param values: arguments of the model, by name; others are left as they are
    :param aliases: names of policies
    :return: the arguments as they are used
    :raises ValueError: if one is not allowed, with its name, its value and what is allowed
    """
    checked = check_all(ARGUMENTS, values)
    if "k" in checked:
        checked["k"] = plain(checked["k"])
        check_budget(checked["k"])
    if "assignment" in checked:
        check_assignment_keywords(checked["assignment"], checked.get("assignment_kwargs"))
    if "welfare" in checked:
        check_welfare_keywords(checked["welfare"], checked.get("welfare_kwargs"))
    if "policy" in checked:
        check_policy_kwargs(policy_class(checked["policy"], aliases), checked.get("policy_kwargs") or {})
    buffer = checked.get("rollout_buffer_class") or VectorRewardRolloutBuffer
    names = keyword_names(buffer, NOT_OF_BUFFERS)
    check_keywords("rollout_buffer_kwargs", checked.get("rollout_buffer_kwargs"), names, f"{buffer.__name__} in a model")
    if checked.get("normalize_advantage") not in (None, False) and checked.get("batch_size") == 1:
        raise refusal(
            "batch_size",
            1,
            "advantages of one transition cannot be normalised: choose 2 or more, or normalize_advantage=False",
        )
    return checked


def recheck(model: Any) -> None:
    """
    Look at a model's arguments once more, since ``load`` may have been told to change them.

    :param model: before its parts are made
    :raises ValueError: if one is not allowed
    """
    names = [name for name in (*ARGUMENTS, "k", "assignment", "welfare", "policy") if name != "device"]
    kept = {name: KEPT_AS.get(name, name) for name in names}
    values = {name: getattr(model, attribute) for name, attribute in kept.items() if hasattr(model, attribute)}
    for name, value in check_arguments(values, model.policy_aliases).items():
        setattr(model, kept[name], value)
    check_policy_fits(model.policy_class, model.policy_kwargs, model.observation_space, policy_name(model))


def policy_name(model: Any) -> str:
    """
    :param model: a model
    :return: what its policy is called, by an alias if there is one
    """
    names = [alias for alias, known in model.policy_aliases.items() if known is model.policy_class]
    return names[0] if names else model.policy_class.__name__


def kept_as(kwargs: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param kwargs: arguments that ``load`` is told to change
    :param data: attributes of a model in its file
    :return: the same, under the names under which a model keeps them
    :raises ValueError: if there is no such argument, or it cannot be changed
    """
    known = sorted({*ARGUMENTS, "welfare"} - {"device"})
    for name in kwargs:
        if name not in data:
            check_name(name, known, "no argument of a model that load can change")
    return {KEPT_AS.get(name, name): value for name, value in kwargs.items()}


def check_schedule(name: str, value: Any, progress_remaining: float) -> float:
    """
    :param name: of an argument that may be a schedule
    :param value: a number or a schedule
    :param progress_remaining: share of the training that is left
    :return: the number that counts now
    :raises ValueError: if the schedule returns something that is not allowed
    """
    rule = ARGUMENTS[name]
    assert isinstance(rule, Scheduled)
    if isinstance(value, FloatSchedule):
        value = value.value_schedule  # which says more, if something is wrong, than the number that SB3 makes of it
    if not callable(value):
        return value
    try:
        return rule.value_at(value, progress_remaining)
    except ValueError as error:
        raise refusal(name, value, str(error)) from error.__cause__


def check_learn_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param values: arguments of ``learn``, by name
    :return: the arguments as they are used
    :raises ValueError: if one is not allowed
    """
    callback = values["callback"]
    for one in callback if isinstance(callback, (list, tuple)) else [callback]:
        if not (one is None or isinstance(one, BaseCallback) or (callable(one) and not isinstance(one, type))):
            raise refusal("callback", one, "pass a callback, a list of them, a function, or None")
    return check_all(LEARN_ARGUMENTS, values)


def policy_class(policy: Any, aliases: Mapping[str, type[BasePolicy]]) -> type[RepresentedActorCriticPolicy]:
    """
    :param policy: name or class of a policy
    :param aliases: names of policies
    :return: its class
    :raises ValueError: if it is no policy of representatives
    """
    known = aliases.get(policy) if isinstance(policy, str) else policy
    if isinstance(known, type) and issubclass(known, RepresentedActorCriticPolicy):
        return known
    alike = most_alike(policy, aliases) if isinstance(policy, str) else None
    raise refusal(
        "policy",
        policy,
        (
            f"did you mean {alike!r}?"
            if alike
            else f"choose one of {sorted(aliases)}, or a subclass of RepresentedActorCriticPolicy "
            "such as sb3_rmdp.represented_ppo.MlpPolicy"
        ),
    )


def _layers(value: Any) -> Any:
    parts = [value]
    if isinstance(value, Sequence) and len(value) == 1 and isinstance(value[0], Mapping):
        parts = [value[0]]  # as older versions of SB3 had it
    if isinstance(parts[0], Mapping):
        for key in parts[0]:
            check_name(key, ("pi", "vf"), "no part of net_arch")
        parts = list(parts[0].values())
    for sizes in parts:
        if isinstance(sizes, str) or not isinstance(sizes, Sequence):
            raise ValueError
        for size in sizes:
            try:
                Count(most=LARGEST_LAYER).read(size)
            except ValueError:
                raise ValueError(f"{shown(size)} is no number of units: give integers from 1 to {LARGEST_LAYER}") from None
    return value


def _module_class(value: Any) -> Any:
    if not callable(value) or isinstance(value, nn.Module) or (isinstance(value, type) and not issubclass(value, nn.Module)):
        raise ValueError
    return value


def _optimizer_class(value: Any) -> Any:
    if not callable(value) or (isinstance(value, type) and not issubclass(value, th.optim.Optimizer)):
        raise ValueError
    return value


#: What the arguments of a policy may be
POLICY_ARGUMENTS: dict[str, Rule] = {
    "net_arch": Read(
        optional=True, function=_layers, text="a list of numbers of units, or dict(pi=..., vf=...) with a list each"
    ),
    "activation_fn": Read(function=_module_class, text="a class of torch.nn, such as torch.nn.Tanh, not an object"),
    "ortho_init": Flag(),
    "log_std_init": Number(-20, 20),
    "full_std": Flag(),
    "use_expln": Flag(),
    "squash_output": Flag(),
    "features_extractor_class": Read(function=_module_class, text="a subclass of BaseFeaturesExtractor, not an object"),
    "features_extractor_kwargs": Keywords(optional=True),
    "share_features_extractor": Flag(),
    "normalize_images": Flag(),
    "optimizer_class": Read(function=_optimizer_class, text="a class of torch.optim"),
    "optimizer_kwargs": Keywords(optional=True),
}


def check_policy_kwargs(policy: type[RepresentedActorCriticPolicy], kwargs: Mapping[str, Any]) -> None:
    """
    :param policy: class of a policy
    :param kwargs: ``policy_kwargs`` of a model
    :raises ValueError: if one is no argument of the policy, is not allowed, or is an argument of the model
    """
    clash = sorted(set(NOT_OF_POLICIES) & set(kwargs))
    if clash:
        raise ValueError(f"policy_kwargs has {clash}: these are arguments of the model or facts of the environment")
    check_keywords("policy_kwargs", kwargs, keyword_names(policy, NOT_OF_POLICIES), policy.__name__)
    try:
        check_all(POLICY_ARGUMENTS, kwargs)
    except ValueError as error:
        raise ValueError(f"policy_kwargs has {error}") from None
    for name, without in (("features_extractor", ("observation_space",)), ("optimizer", ("params", "lr"))):
        cls, own = kwargs.get(f"{name}_class"), kwargs.get(f"{name}_kwargs")
        if cls is None and name == "optimizer":
            cls = th.optim.Adam
        if own and isinstance(cls, type):
            check_keywords(f"{name}_kwargs", own, keyword_names(cls, without), cls.__name__)


def check_exploration(use_sde: bool, action_space: Any) -> None:
    """
    :param use_sde: argument of a model
    :param action_space: of its environment
    :raises ValueError: if actions are not continuous, and exploration is to depend on states
    """
    if use_sde and not isinstance(action_space, spaces.Box):
        raise refusal(
            "use_sde", use_sde, "generalized State-Dependent Exploration (gSDE) can only be used with continuous actions"
        )


def check_policy_fits(
    policy: type[RepresentedActorCriticPolicy], kwargs: Mapping[str, Any], observation_space: spaces.Space, name: str
) -> None:
    """
    :param policy: class of a policy
    :param kwargs: ``policy_kwargs`` of a model
    :param observation_space: of the environment
    :param name: of the policy, for the error
    :raises ValueError: if the policy is for other observations
    """
    parameters = (inspect.signature(base.__init__).parameters for base in policy.__mro__ if "__init__" in vars(base))  # type: ignore[misc]
    defaults = [known["features_extractor_class"].default for known in parameters if "features_extractor_class" in known]
    extractor = kwargs.get("features_extractor_class", next(iter(defaults), None))
    is_dict = isinstance(observation_space, spaces.Dict)
    if is_dict and extractor in (FlattenExtractor, NatureCNN):
        raise refusal("policy", name, "observations are a Dict, choose MultiInputPolicy")
    if not is_dict and extractor is CombinedExtractor:
        raise refusal("policy", name, "observations are no Dict, choose MlpPolicy, or CnnPolicy for images")
