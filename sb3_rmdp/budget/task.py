"""What models of a budget curve are trained and evaluated in, and with which hyperparameters."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import gymnasium as gym
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp import RepresentedPPO, WelfareEvaluation, evaluate_welfare

# "as": earlier versions had `described` here
from sb3_rmdp.budget.describing import described as described
from sb3_rmdp.budget.describing import name_of
from sb3_rmdp.common.population import check_budget
from sb3_rmdp.common.seeds import EVALUATION_SEED
from sb3_rmdp.envs.registered import check_registered
from sb3_rmdp.vec_env import make_represented_vec_env
from sb3_rmdp.vec_env.factory import fastest_vec_env
from sb3_rmdp.zoo.hyperparams import as_arguments, default_config, training_kwargs

#: What stands for an environment of which any number of copies can be made
EnvSource: TypeAlias = str | gym.Env | Callable[..., gym.Env]

#: Arguments of the model that a curve sets itself
OWN_KEYS = ("self", "env", "k", "seed", "_init_setup_model")

#: Arguments that do not change what is learned
NO_SETTINGS = ("device", "verbose", "tensorboard_log")


@dataclass(frozen=True)
class Task:
    """
    An environment of which any number of copies can be made.

    :param env: a gymnasium id, an environment that ``gymnasium.make`` made, or a function that makes one
    :param env_kwargs: arguments of the environment
    :param max_episode_steps: time limit of trainings alone, see :data:`~sb3_rmdp.zoo.hyperparams.MAX_EPISODE_STEPS`
    """

    env: EnvSource
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    max_episode_steps: Any = None

    def __post_init__(self) -> None:
        if isinstance(self.env, str):
            check_registered(self.env)

    @property
    def id(self) -> str | None:
        """Id in gymnasium's registry, without a module in front; ``None`` if a function makes the environment."""
        if isinstance(self.env, str):
            return self.env.rpartition(":")[2]
        return self.env.spec.id if isinstance(self.env, gym.Env) and self.env.spec else None

    @property
    def name(self) -> str:
        """For people and for records."""
        return self.id or name_of(self.env)

    def make(self, n_envs: int, seed: int | None = None) -> VecEnv:
        """
        :param n_envs: number of copies
        :param seed: of the first reset
        :return: a vec env of monitored copies, to evaluate in
        :raises ValueError: if it cannot be made
        """
        return self._make(n_envs, seed, self.env_kwargs)

    def make_to_train(self, n_envs: int) -> VecEnv:
        """
        :param n_envs: number of copies
        :return: a vec env of monitored copies, to train in
        """
        return self._make(n_envs, None, training_kwargs(self.env_kwargs, self.max_episode_steps))

    def _make(self, n_envs: int, seed: int | None, env_kwargs: dict[str, Any]) -> VecEnv:
        if isinstance(self.env, (str, gym.Env)):
            return make_represented_vec_env(self.env, n_envs, seed=seed, env_kwargs=env_kwargs)
        maker: Any = fastest_vec_env
        return make_vec_env(self.env, n_envs, seed=seed, env_kwargs=env_kwargs, vec_env_cls=maker)

    def evaluate(self, model: RepresentedPPO, n_eval_episodes: int, deterministic: bool) -> WelfareEvaluation:
        """
        :param model: a model
        :param n_eval_episodes: episodes per representative
        :param deterministic: take the modes of the policies instead of samples
        :return: its evaluation, in fresh copies: the same numbers every time
        """
        env = self.make(model.k)
        try:
            return evaluate_anew(model, env, n_eval_episodes, deterministic)
        finally:
            env.close()


def evaluate_anew(model: RepresentedPPO, env: VecEnv, n_eval_episodes: int, deterministic: bool) -> WelfareEvaluation:
    """
    :param model: a model
    :param env: for its evaluation; begins with seeds of evaluations
    :param n_eval_episodes: episodes per representative
    :param deterministic: take the modes of the policies instead of samples
    :return: its evaluation
    """
    set_random_seed(EVALUATION_SEED)
    env.seed(EVALUATION_SEED)
    return evaluate_welfare(model, env, n_eval_episodes, deterministic)


@dataclass(frozen=True)
class Tuned:
    """
    Entry of the tuned hyperparameters for an environment.

    :param arguments: of the model, as they are written, and :data:`~sb3_rmdp.zoo.hyperparams.MAX_EPISODE_STEPS`
    :param transitions_per_policy: how long to train
    :param env_kwargs: arguments of the environment
    """

    arguments: dict[str, Any]
    transitions_per_policy: int
    env_kwargs: dict[str, Any]


def tuned(env_id: str | None) -> Tuned:
    """
    :param env_id: id of an environment, without its module; ``None`` if it has none
    :return: its entry in ``hyperparams/rppo.yml``, or the default one
    """
    import yaml  # late: --help should not wait

    entries = yaml.safe_load(default_config("rppo").read_text(encoding="utf-8"))
    entry = dict(entries.get(env_id, entries["default"]))
    transitions = int(float(entry.pop("n_timesteps"))) // int(entry.pop("k"))
    return Tuned(entry, transitions, dict(entry.pop("env_kwargs", None) or {}))


def check_arguments(hyperparams: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param hyperparams: arguments of the model, as files of hyperparameters write them or as they are
    :return: the same as the model takes them
    :raises ValueError: if one is unknown, set by the curve itself, or cannot be read
    """
    known = [name for name in inspect.signature(RepresentedPPO).parameters if name not in OWN_KEYS]
    for name in hyperparams:
        if name in OWN_KEYS:
            raise ValueError(f"model_kwargs has {name!r}, which a budget curve sets itself: leave it out")
        if name not in known:
            raise ValueError(f"model_kwargs has {name!r}, which RepresentedPPO does not know: choose among {sorted(known)}")
    return as_arguments(dict(hyperparams))


def check_numbers_of_policies(k: int | Iterable[int], n_agents: int | None = None) -> tuple[int, ...]:
    """
    :param k: one or more numbers of representatives
    :param n_agents: number of agents, if it is known
    :return: the numbers
    :raises ValueError: if there are none, they do not rise, or one is out of range
    """
    numbers = tuple(k) if isinstance(k, Iterable) else (k,)
    if not numbers:
        raise ValueError("k is empty: give at least one number of policies, e.g. k=(1, 2, 3)")
    for number in numbers:
        check_budget(number, n_agents)
    if any(b <= a for a, b in itertools.pairwise(numbers)):
        raise ValueError(f"k={numbers} does not rise: give each number of policies once, the smallest first")
    return tuple(map(int, numbers))
