"""RL Zoo's experiment manager, with what it must know of represented MDPs."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import optuna
import yaml
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS
from sqlalchemy.exc import OperationalError
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_rmdp.commands import check_device
from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm
from sb3_rmdp.common.population import check_budget, population_of
from sb3_rmdp.common.whole_files import remove_abandoned
from sb3_rmdp.vec_env import WelfareVecEnv, fastest_vec_env
from sb3_rmdp.zoo.hyperparams import (
    MAX_EPISODE_STEPS,
    NOT_KEYS,
    SCHEDULES,
    default_config,
    linear_schedule,
    training_kwargs,
)
from sb3_rmdp.zoo.interrupts import StopOnInterrupt, sigint_ignored
from sb3_rmdp.zoo.model_card import write_model_card
from sb3_rmdp.zoo.resuming import GoingOn, check_left
from sb3_rmdp.zoo.tuning import sample_represented_params

#: Keys of a configuration that are not arguments of the algorithm, but RL Zoo's own, and the time limit of the training
ZOO_KEYS = (
    "callback",
    "env_kwargs",
    "env_wrapper",
    "frame_stack",
    MAX_EPISODE_STEPS,
    "monitor_kwargs",
    "n_envs",
    "n_timesteps",
    "normalize",
    "policy",
    "vec_env_wrapper",
)

#: So many environments are made without a look at a single one
MANY_ENVS = 256

WELFARE_WRAPPER = f"{WelfareVecEnv.__module__.rpartition('.')[0]}.{WelfareVecEnv.__name__}"


class RepresentedExperimentManager(ExperimentManager):
    """
    RL Zoo's manager; other algorithms than ours are left to it.

    It takes our hyperparameters where no file is named, checks them, makes k environments where none are asked for, evaluates
    welfare, saves the model of a training that breaks off, and writes a card of the model.
    """

    #: The last one that was made, for who runs a script from Python
    latest: ClassVar[RepresentedExperimentManager | None] = None
    #: Whether a training goes on that was broken off, see :mod:`sb3_rmdp.zoo.resuming`
    resuming: ClassVar[bool] = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        type(self).latest = self
        self.algorithm = ALGOS[self.algo]
        self.represented = issubclass(self.algorithm, RepresentedOnPolicyAlgorithm)
        if self.represented and kwargs.get("config") is None:
            self.config = str(default_config(self.algo))
        if self.represented and self.vec_env_class is DummyVecEnv:
            self.vec_env_class = fastest_vec_env  # type: ignore[assignment]  # with the same results
        self.budget: int | None = None
        self.max_episode_steps: Any = None
        self.same_env_kwargs = self.eval_env_kwargs is self.env_kwargs
        self.learning = False
        self.opened: list[VecEnv] | None = None  # while setting up
        self.interrupt = StopOnInterrupt()

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """See RL Zoo; adds ``n_envs`` and the wrapper that makes evaluations welfare."""
        if not self.represented:
            return super().read_hyperparameters()
        if self.trial_id == 0 and self.storage and self.study_name:
            # The first trial, which RL Zoo takes for none
            self.custom_hyperparams = {**self.load_trial(self.storage, self.study_name, 0), **(self.custom_hyperparams or {})}
        try:
            hyperparams, saved = super().read_hyperparameters()
        except (AttributeError, KeyError, TypeError, yaml.YAMLError) as error:
            said = " ".join(str(error).split())
            raise ValueError(f"{self.config} holds no hyperparameters under names of environments: {said}") from error
        check_keys(hyperparams, self.algorithm, self.config)
        self.budget = hyperparams["k"]
        check_budget(self.budget)
        wrappers = hyperparams.get("vec_env_wrapper") or []
        wrappers = wrappers if isinstance(wrappers, list) else [wrappers]
        if WELFARE_WRAPPER not in wrappers:
            wrappers = [*wrappers, WELFARE_WRAPPER]
        added = {"n_envs": hyperparams.get("n_envs", self.budget), "vec_env_wrapper": wrappers}
        hyperparams.update(added)
        saved.update(added)
        return hyperparams, saved

    def load_trial(self, storage: str, study_name: str, trial_id: int | None = None, convert: bool = True) -> dict[str, Any]:
        """See RL Zoo; a trial that is not there is told in one line."""
        try:
            return super().load_trial(storage, study_name, trial_id, convert)
        except (KeyError, IndexError) as error:
            raise StudyError(f"there is no trial {trial_id} of a study {study_name!r} in {storage}") from error

    @staticmethod
    def _preprocess_schedules(hyperparams: dict[str, Any]) -> dict[str, Any]:
        """As RL Zoo's, which knows ``lin_3e-4``, with an end beside the beginning: ``lin_3e-4_1e-4``; schedules may stay."""
        ours = {}
        for name in SCHEDULES:
            value = hyperparams.get(name)
            if callable(value):
                ours[name] = value
            elif isinstance(value, str):
                ours[name] = linear_schedule(name, value)
        rest = ExperimentManager._preprocess_schedules({key: value for key, value in hyperparams.items() if key not in ours})
        return {**rest, **ours}

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> tuple[dict[str, Any], Any, list[Any], Any]:
        """See RL Zoo; takes out the time limit of the training."""
        if self.represented:
            self.max_episode_steps = hyperparams.pop(MAX_EPISODE_STEPS, None)
        return super()._preprocess_hyperparams(hyperparams)

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        """See RL Zoo; says before any training if the environment does not fit the budget."""
        if not self.represented:
            return super().create_envs(n_envs, eval_env, no_log)
        if self.normalize and self.normalize_kwargs.get("norm_reward", True):
            raise ValueError(
                "the configuration normalises rewards, but agents are scored by the reward vector, which VecNormalize does "
                "not see: write normalize: {norm_obs: true, norm_reward: false}, or leave normalize out, since "
                "normalize_observations does the same within the policy"
            )
        evaluated = self.env_kwargs
        if self.same_env_kwargs:
            # RL Zoo does so with those of the command line; with those of a file it would evaluate another population
            self.eval_env_kwargs = evaluated
        if not eval_env:
            # One tells how many agents there are, unless a wrapper does, before there is one for each representative
            with contextlib.closing(gym.make(self.env_name.gym_id, **evaluated)) as one:
                if one.has_wrapper_attr("n_agents"):
                    check_budget(self.budget, one.get_wrapper_attr("n_agents"))
        self.env_kwargs = training_kwargs(evaluated, self.max_episode_steps)
        try:
            if n_envs > MANY_ENVS and not eval_env:
                # One tells whether the budget fits, which may be a slip of the keyboard: all of them may not fit into memory
                first = super().create_envs(1, eval_env, no_log=True)
                try:
                    check_budget(self.budget, population_of(first).n_agents)
                finally:
                    first.close()
            with sigint_ignored():
                env = super().create_envs(n_envs, eval_env, no_log)
        finally:
            self.env_kwargs = evaluated
        if self.opened is not None:
            self.opened.append(env)
        check_budget(self.budget, population_of(env).n_agents)
        return env

    def setup_experiment(self) -> tuple[BaseAlgorithm, dict[str, Any]] | None:
        """See RL Zoo; if something turns out to be wrong, what it began to write is removed, and environments are closed."""
        if self.represented:
            check_device(str(self.device))
            if self.eval_freq > 0 and self.n_eval_episodes < 1:
                raise ValueError(f"--eval-episodes {self.n_eval_episodes}: evaluations take at least 1 episode")
        existed = Path(self.save_path).exists()
        for folder in Path(self.save_path).parent.glob("*/"):
            remove_abandoned(folder)  # of runs that were killed while they saved
        opened: list[VecEnv] = []
        self.opened = opened
        try:
            made = super().setup_experiment()
            if self.resuming and made is not None:
                check_left(made[0], self.n_timesteps)
            return made
        except BaseException:
            for env in opened:
                env.close()
            if not existed:
                shutil.rmtree(self.save_path, ignore_errors=True)
            raise
        finally:
            self.opened = None

    def create_callbacks(self) -> None:
        """See RL Zoo; with one that hears of Ctrl-C."""
        super().create_callbacks()
        self.callbacks.append(self.interrupt)

    def learn(self, model: BaseAlgorithm) -> None:
        """See RL Zoo; whatever ends the training, the model so far is saved. One that is resumed learns what is left."""
        learner: Any = GoingOn(model, self.n_timesteps) if self.resuming else model
        self.learning = True
        try:
            with self.interrupt.listening():
                super().learn(learner)
        except BaseException:
            self._save_model(model)
            raise

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        """See RL Zoo; writes ``model_card.md`` as well."""
        self._save_model(model)
        if not self.represented:
            return
        print("Evaluating the model for its card (Ctrl-C leaves it out)")
        try:
            # Of one's own training: what it names was run already
            card = write_model_card(Path(self.save_path), n_eval_episodes=self.n_eval_episodes, trusted=True)
            print(f"Wrote {card}")
        except KeyboardInterrupt:
            print(f"No card was written; later: sb3-rmdp card {self.save_path}")

    def _save_model(self, model: BaseAlgorithm) -> None:
        try:
            super().save_trained_model(model)
        except OSError as error:
            folder = Path(tempfile.mkdtemp(prefix="sb3_rmdp-"))
            path = folder / f"{Path(self.params_path).name}.zip"
            model.save(path)
            statistics = model.get_vec_normalize_env()
            if statistics is not None:
                statistics.save(str(folder / "vecnormalize.pkl"))
            raise OSError(f"{error}. The model is in {path} now: move it to where it can stay") from error
        print(f"Saved {self.params_path}.zip after {model.num_timesteps} timesteps")

    def hyperparameters_optimization(self) -> None:
        """See RL Zoo; a study that cannot be opened, or in which no trial came to its end, is told in one line."""
        if self.represented:
            HYPERPARAMS_SAMPLER[self.algo] = functools.partial(
                sample_represented_params, assignment=self._hyperparams.get("assignment")
            )
        _make_folder_of(self.storage)
        try:
            super().hyperparameters_optimization()
        except (OperationalError, optuna.exceptions.StorageInternalError) as error:
            raise StudyError(
                f"the study database {self.storage} cannot be written ({_first_line(error)}): another process may hold it "
                "locked. Trials that ended are kept; run the same command again, or use a journal file, --storage "
                "runs/study.log, which many processes can share"
            ) from error
        except ValueError as error:
            # In memory, and in databases and journals
            if not any(text in str(error) for text in ("completed", "Record does not exist")):
                raise
            raise StudyError("no trial came to its end: all were pruned, failed or interrupted") from error


class StudyError(Exception):
    """What is wrong with a study, in one line."""


def check_keys(hyperparams: dict[str, Any], algorithm: type[BaseAlgorithm], config: str) -> None:
    """
    :param hyperparams: hyperparameters of an environment, as read
    :param algorithm: class that gets them
    :param config: where they are from
    :raises ValueError: if one is unknown, or one that must be there is missing
    """
    known = {*ZOO_KEYS, *inspect.signature(algorithm).parameters} - {*NOT_KEYS}
    for key in hyperparams:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose among {sorted(known)}"
            raise ValueError(f"{key!r} is no hyperparameter of {algorithm.__name__}: {hint} (read from {config} and -params)")
    for key, example in (("policy", "'MlpPolicy'"), ("n_timesteps", "1e6"), ("k", "5")):
        if key not in hyperparams:
            raise ValueError(f"{key!r} is missing in {config}: add it there, or pass -params {key}:{example}")


def _make_folder_of(storage: str | None) -> None:
    """SQLite creates a file that is missing, but not its folder."""
    if storage is not None and storage.startswith("sqlite:///"):
        Path(storage.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return str(cause).partition("\n")[0]
