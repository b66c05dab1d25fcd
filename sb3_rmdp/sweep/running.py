"""One run of a sweep: a training, with evaluations on the way."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import platform
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.callbacks import KeepBestCallback
from sb3_rmdp.common.evaluation import as_vec_env
from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm
from sb3_rmdp.common.population import check_budget, population_of
from sb3_rmdp.common.random_numbers import outside_of_training, same_random_numbers_after
from sb3_rmdp.common.seeds import EVALUATION_SEED
from sb3_rmdp.envs.contract import integer
from sb3_rmdp.sweep.config import Run
from sb3_rmdp.sweep.progress import Tell
from sb3_rmdp.vec_env import make_represented_vec_env
from sb3_rmdp.zoo.hyperparams import as_arguments

#: What a result may depend on
PACKAGES = ("sb3_rmdp", "stable_baselines3", "gymnasium", "mujoco", "numpy", "torch")


@dataclass(frozen=True)
class Outcome:
    """
    What is kept of a run.

    :param rows: by column of the results, one per checkpoint
    :param model: the zip file of the final model, if it was wanted
    """

    rows: list[dict[str, object]]
    model: bytes | None


def new_model(run: Run) -> RepresentedPPO:
    """
    :param run: what is to be trained
    :return: its model, untrained, in the environments of its training
    """
    env = make_represented_vec_env(run.env_id, run.k, n_envs=run.n_envs, env_kwargs=run.training_kwargs)
    return RepresentedPPO(env=env, k=run.k, seed=run.seed, device="cpu", **as_arguments(run.arguments))


def close(model: RepresentedPPO) -> None:
    """
    :param model: from :func:`new_model`, whose environments are not needed any more
    """
    env = model.get_env()
    assert env is not None
    env.close()


def train_and_evaluate(run: Run, with_model: bool = False, tell: Tell | None = None) -> Outcome:
    """
    :param run: what to train
    :param with_model: return the final model as well
    :param tell: is told how far the training is, before every rollout
    :return: its evaluations
    """
    model = new_model(run)
    keep = KeepBestCallback(run.keep_best) if run.keep_best else None
    checkpoints = Checkpoints(run, keep, tell)
    model.learn(run.planned_transitions * run.k, callback=[checkpoints] if keep is None else [keep, checkpoints])
    checkpoints.finish()
    close(model)
    file = io.BytesIO()
    if with_model:
        model.save(file)
    return Outcome(checkpoints.rows, file.getvalue() if with_model else None)


class Checkpoints(BaseCallback):
    """
    Measures welfare when the policies have been updated with as many transitions as a checkpoint asks for.

    The training is the same with other checkpoints, or none: random numbers go on as if there had been no evaluation.

    :param run: the run
    :param keep: knows the best model so far, which is measured in the place of the current one
    :param tell: is told how far the training is
    """

    model: RepresentedPPO

    def __init__(self, run: Run, keep: KeepBestCallback | None = None, tell: Tell | None = None):
        super().__init__()
        self.run, self.keep, self.tell = run, keep, tell
        self.rows: list[dict[str, object]] = []
        self._start = self._paused = 0.0

    def _on_training_start(self) -> None:
        self._start = time.perf_counter()

    def _on_rollout_start(self) -> None:
        # No rollout begins when all transitions that are planned are there: what is left is for the end
        while not self._complete and self.model.num_timesteps >= self._next * self.run.k:
            self._evaluate()
        if self.tell is not None:
            self.tell(min(1.0, self.model.num_timesteps / (self.run.transitions * self.run.k)))

    def _on_step(self) -> bool:
        # Before the end of what is planned if that is longer than the run
        return not self._complete

    def finish(self) -> None:
        """Evaluate what is left when the training is over."""
        while not self._complete:
            self._evaluate()

    @property
    def _complete(self) -> bool:
        return len(self.rows) == len(self.run.checkpoints)

    @property
    def _next(self) -> int:
        return self.run.checkpoints[len(self.rows)]

    def _evaluate(self) -> None:
        now = time.perf_counter()
        with same_random_numbers_after(), outside_of_training():
            model = self.model if self.keep is None else self.keep.best_model()
            self.rows.append(evaluated_row(model, self.run, self._next, now - self._start - self._paused))
        self._paused += time.perf_counter() - now


def evaluated_row(model: RepresentedOnPolicyAlgorithm, run: Run, transitions: int, seconds: float) -> dict[str, object]:
    """
    :param model: the model as it is now
    :param run: its run
    :param transitions: per policy, of the checkpoint
    :param seconds: that the training has taken so far
    :return: a row of the results, but for ``sweep``
    """
    row: dict[str, object] = {
        "run": run.id,
        "env": run.env_id,
        "env_kwargs": as_json(run.env_kwargs),
        "k": run.k,
        "n_agents": model.n_agents,
        "algorithm": run.algorithm,
        "model": as_json(run.hyperparams),
        "seed": run.seed,
        "transitions_per_policy": transitions,
        "n_eval_episodes": run.n_eval_episodes,
    }
    for name, deterministic in (("stochastic", False), ("deterministic", True)):
        env = gym.make(run.env_id, **run.env_kwargs)
        env.reset(seed=EVALUATION_SEED)
        result = evaluate_welfare(model, env, run.n_eval_episodes, deterministic)
        env.close()
        row[name] = result.social_welfare
        row[f"{name}_error"] = result.standard_error
        row[f"{name}_greedy"] = result.greedy_social_welfare
        row["bound"] = result.optimum
    representatives = " ".join(map(str, model.assignment.representatives.tolist()))
    return {**row, "representatives": representatives, "seconds": round(seconds, 3), "versions": as_json(versions())}


def versions() -> dict[str, str]:
    """Versions of what a result may depend on, and is installed here."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def as_json(value: Any) -> str:
    """
    :param value: plain data
    :return: the same on one line, equal for equal data
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def check_runs(runs: Iterable[Run]) -> None:
    """
    Make every environment and every kind of model once, with next to no memory, before anything is trained.

    :param runs: of a sweep
    :raises ValueError: if one cannot be made, in one line that says which and why
    """
    by_env: dict[str, dict[str, Run]] = {}
    for run in runs:
        kinds = by_env.setdefault(as_json([run.env_id, run.env_kwargs]), {})
        kinds.setdefault(as_json([run.k, run.hyperparams]), run)
    for kinds in by_env.values():
        first, *_ = kinds.values()
        try:
            env = as_vec_env(gym.make(first.env_id, **first.env_kwargs))
        except Exception as error:  # environments of others may raise anything
            raise _bad(f"{first.label} with {as_json(first.env_kwargs)} cannot be made", error) from error
        try:
            for run in kinds.values():
                _check_model(run, env)
        finally:
            env.close()


def _check_model(run: Run, env: Any) -> None:
    arguments = as_arguments(run.arguments)
    try:
        check_budget(run.k, population_of(env).n_agents)
        # Buffers are made for the steps, and one environment is enough for representatives that take turns
        arguments["n_steps"] = min(2, run.k * integer("n_steps", arguments.get("n_steps", 2), minimum=1))
        with same_random_numbers_after(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of batches that are larger than that
            RepresentedPPO(env=env, k=run.k, seed=run.seed, device="cpu", **arguments)
    except Exception as error:  # so may what arguments name
        raise _bad(str(run), error) from error


def _bad(what: str, error: Exception) -> ValueError:
    return ValueError(f"{what}: {' '.join(str(error).split()) or type(error).__name__}")
