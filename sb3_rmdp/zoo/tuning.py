"""Search space of represented PPO for Optuna, in the two parts that RL Zoo wants: a sampler and a converter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
from stable_baselines3.common.utils import LinearSchedule
from torch import nn

NET_ARCHS = {"tiny": [64], "small": [64, 64], "medium": [256, 256]}
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


def _sample_em(trial: optuna.Trial) -> None:
    trial.suggest_float("mixing", 0.01, 0.5, log=True)
    trial.suggest_int("warm_start", 0, 20)


def _sample_episodes(trial: optuna.Trial) -> None:
    _sample_em(trial)
    trial.suggest_int("patience", 10, 100, log=True)
    trial.suggest_float("exploration", 0.0, 0.5)
    trial.suggest_int("stagnation", 0, 30)


def _sample_end_to_end(trial: optuna.Trial) -> None:
    trial.suggest_float("assignment_learning_rate", 3e-4, 3e-2, log=True)
    trial.suggest_float("init_std", 1e-2, 1.0, log=True)


#: What there is to tune in each assignment; one that is not here has nothing
ASSIGNMENT_SAMPLERS: dict[str, Callable[[optuna.Trial], None]] = {
    "episodes": _sample_episodes,
    "em": _sample_em,
    "end_to_end": _sample_end_to_end,
}

#: Constructor arguments of assignments under the names of their samples, which must not be those of PPO's
ASSIGNMENT_KWARGS = {
    "mixing": "mixing",
    "warm_start": "warm_start",
    "patience": "patience",
    "exploration": "exploration",
    "stagnation": "stagnation",
    "assignment_learning_rate": "learning_rate",
    "init_std": "init_std",
}


def sample_represented_params(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any], assignment: str | None = None
) -> dict[str, Any]:
    """
    Draw the hyperparameters of a trial: those of PPO, and those of the assignment.

    k is not among them: it is what the budget allows, and welfare only grows with it.

    :param trial: Optuna's trial
    :param n_actions: length of continuous actions, 0 for discrete ones
    :param n_envs: number of training environments
    :param additional_args: what RL Zoo passes for other algorithms
    :param assignment: assignment to tune; by default the best of those in :data:`ASSIGNMENT_SAMPLERS`
    :return: arguments of the constructor
    """
    trial.suggest_int("n_steps_pow", 8, 12)
    trial.suggest_int("batch_size_pow", 5, 9)
    trial.suggest_categorical("gamma", [0.95, 0.98, 0.99, 0.995, 0.999, 1.0])
    trial.suggest_float("one_minus_gae_lambda", 1e-3, 0.2, log=True)
    # What is annealed: the value at the beginning, and the share of it that is left at the end
    trial.suggest_float("learning_rate_start", 1e-4, 3e-3, log=True)
    trial.suggest_categorical("learning_rate_left", [1.0, 0.3, 0.1])
    trial.suggest_float("ent_coef_start", 1e-5, 0.1, log=True)
    trial.suggest_categorical("ent_coef_left", [1.0, 0.1, 0.01])
    trial.suggest_categorical("clip_range", [0.1, 0.2, 0.3])
    trial.suggest_categorical("n_epochs", [5, 10, 20])
    trial.suggest_float("max_grad_norm", 0.3, 2.0)
    trial.suggest_categorical("normalize_observations", [True, False])
    trial.suggest_categorical("net_arch", list(NET_ARCHS))
    trial.suggest_categorical("activation_fn", list(ACTIVATIONS))
    if n_actions > 0:
        trial.suggest_float("log_std_init", -2.0, 0.5)
    if assignment is None:
        assignment = trial.suggest_categorical("assignment", list(ASSIGNMENT_SAMPLERS))
    if assignment in ASSIGNMENT_SAMPLERS:
        ASSIGNMENT_SAMPLERS[assignment](trial)
    hyperparams = convert_represented_params(trial.params)
    # Shown with the best trial
    for name in ("n_steps", "batch_size", "gae_lambda"):
        trial.set_user_attr(name, hyperparams[name])
    return hyperparams


def convert_represented_params(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """
    :param sampled_params: parameters of a trial, as Optuna stores them
    :return: arguments of the constructor
    """
    params = dict(sampled_params)
    n_steps, batch_size = (2 ** params.pop(f"{name}_pow") for name in ("n_steps", "batch_size"))
    policy_kwargs: dict[str, Any] = {
        "net_arch": dict.fromkeys(("pi", "vf"), NET_ARCHS[params.pop("net_arch")]),
        "activation_fn": ACTIVATIONS[params.pop("activation_fn")],
    }
    if "log_std_init" in params:
        policy_kwargs["log_std_init"] = params.pop("log_std_init")
    assignment_kwargs = {kwarg: params.pop(name) for name, kwarg in ASSIGNMENT_KWARGS.items() if name in params}
    for name in ("learning_rate", "ent_coef"):
        start, left = params.pop(f"{name}_start"), params.pop(f"{name}_left")
        params[name] = LinearSchedule(start, start * left, 1.0)
    gae_lambda = 1.0 - params.pop("one_minus_gae_lambda")
    return {
        **params,
        "n_steps": n_steps,
        # A minibatch takes so much of every representative, which has n_steps of an environment of its own
        "batch_size": min(batch_size, n_steps),
        "gae_lambda": gae_lambda,
        "policy_kwargs": policy_kwargs,
        "assignment_kwargs": assignment_kwargs,
    }
