"""Callbacks for represented algorithms, to be used like SB3's."""

from __future__ import annotations

import copy
import inspect
import io
import math
import warnings
from collections import deque
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, EventCallback, ProgressBarCallback
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import sync_envs_normalization

from sb3_rmdp.common.arguments import Count, Flag, Text
from sb3_rmdp.common.evaluation import WelfareEvaluation, as_vec_env, evaluate_welfare
from sb3_rmdp.common.full_disk import warned_of_the_disk
from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm
from sb3_rmdp.common.random_numbers import same_random_numbers_after
from sb3_rmdp.common.whole_files import check_target, make_folder, save_whole
from sb3_rmdp.vec_env.episodes import EndlessEpisodeError, EpisodeLengths
from sb3_rmdp.vec_env.watch import check_apart

#: What the model was given under one name and reads under others while it learns
READ_AS = {"learning_rate": ("lr_schedule",), "gamma": ("rollout_buffer.gamma",), "gae_lambda": ("rollout_buffer.gae_lambda",)}
#: What PPO logs by itself if it is a schedule, as used by the last update
LOGGED_SCHEDULES = ("learning_rate", "clip_range", "clip_range_vf", "ent_coef")
#: Files of evaluations
EVALUATIONS, BEST_MODEL = "evaluations.npz", "best_model.zip"
#: Networks and buffers are made for these numbers
SIZES = ("k", "n_agents", "n_envs", "n_steps")


class AnnealCallback(BaseCallback):
    """
    Moves a number of the model linearly from one value to another while it learns.

    Any number will do: a plain one, such as the entropy coefficient; a schedule, such as the learning rate or the clip range,
    which is replaced by the present value; and one of a part of the model, such as ``assignment.mixing``. Arguments that are
    annotated as ``int``, such as ``n_epochs``, are rounded.

    A rollout, and the update after it, see the value that belongs to the share of the training that is done when the rollout
    begins. Nothing but this share is remembered: a training that goes on with ``reset_num_timesteps=False`` goes on with the
    values as well. The value is logged as ``train/<attribute>``, unless the model logs it by itself.

    :param attribute: name of a number or schedule among the model's attributes, e.g. "ent_coef", or a path with dots
    :param start: value at the beginning of the training, finite; a string such as "3e-4", which is no number in yaml, is read
    :param end: value at its end
    :param verbose: as in SB3
    :raises ValueError: if start or end is no number; when ``learn`` is called, if the attribute is none
    """

    def __init__(self, attribute: str, start: float, end: float, verbose: int = 0):
        super().__init__(verbose)
        self.attribute = Text().check("attribute", attribute)
        self.start = _finite_number("start", start)
        self.end = _finite_number("end", end)

    def _init_callback(self) -> None:
        if self.attribute in SIZES:
            raise ValueError(f"attribute={self.attribute!r} is a size that the model is made with: it cannot be annealed")
        owner, name = self._find(self.attribute)
        value = getattr(owner, name, None)
        if not (_is_number(value) or _is_schedule(value, owner)):
            what = f"is a {type(value).__name__}" if hasattr(owner, name) else "does not exist"
            raise ValueError(
                f"attribute={self.attribute!r} of the model {what}: only a number or a schedule can be annealed, such as "
                "'ent_coef', 'learning_rate' or 'assignment.mixing'"
            )

    def _on_rollout_start(self) -> None:
        done = min(1.0, self.model.num_timesteps / self.model._total_timesteps)
        value = self.start + done * (self.end - self.start)
        is_schedule = False
        for attribute in (self.attribute, *READ_AS.get(self.attribute, ())):
            is_schedule = self._set(attribute, value)
        if not (is_schedule and self.attribute in LOGGED_SCHEDULES):
            self.logger.record(f"train/{self.attribute}", value)

    def _on_step(self) -> bool:
        return True

    def _find(self, attribute: str) -> tuple[Any, str]:
        """The object that a path leads to, and the name of its attribute."""
        *path, name = attribute.split(".")
        owner: Any = self.model
        for part in path:
            owner = getattr(owner, part, None)
        return owner, name

    def _set(self, attribute: str, value: float) -> bool:
        """Give an attribute its value, and tell whether it is a schedule."""
        owner, name = self._find(attribute)
        if callable(getattr(owner, name)):
            setattr(owner, name, FloatSchedule(value))
            return True
        parameter = inspect.signature(type(owner)).parameters.get(name)
        counts = parameter is not None and parameter.annotation in (int, "int")
        setattr(owner, name, round(value) if counts else value)
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_schedule(value: Any, owner: Any) -> bool:
    """A function of the remaining progress: no network, no class, no method of the model."""
    if not callable(value) or isinstance(value, (type, th.nn.Module)) or getattr(value, "__self__", None) is owner:
        return False
    try:
        return _is_number(value(1.0))
    except Exception:  # whatever it is, it takes no progress
        return False


def _finite_number(name: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name}={value!r} is no finite number: pass one, e.g. 0.001")
    return number


class KeepBestCallback(BaseCallback):
    """
    Leaves the model as it was when its rollouts paid most: policies and assignment go back there when the training is over.

    Welfare goes up and down where something fails seldom, and a training may end in the midst of failures. Nothing is
    evaluated for it: what counts is the mean over the last rollouts of what agents had in them, while policies explore, so
    that a single lucky rollout is not kept; or of ``welfare/value``, where the model has another welfare than the mean. The
    episodes of a representative in these rollouts count alike: a rollout in which it fails three times counts three times as
    much as one in which it finishes a single long episode.

    The largest of many such means is biased upwards: evaluate what was kept.

    Optimizers, schedules and running statistics of a ``VecNormalize`` stay as they are at the end. A training that goes on
    begins with what was kept.

    :param window: rollouts over which welfare is averaged; a training of fewer ends as it would without this callback
    :param verbose: 1 to print where the model went back to
    :raises ValueError: if window is below 1
    """

    model: RepresentedOnPolicyAlgorithm

    def __init__(self, window: int = 20, verbose: int = 0):
        super().__init__(verbose)
        self.window = Count().check("window", window)
        self._reset()

    def _reset(self) -> None:
        #: Welfare of the last rollouts, what each representative adds to it, and its episodes, (k,) each
        self._last: deque[tuple[float, np.ndarray, np.ndarray]] = deque(maxlen=self.window)
        self._kept: tuple[dict[str, Any], dict[str, Any]] | None = None
        #: The largest mean, which is too high (the maximum of noisy ones), and the timesteps after which it was reached
        self.best_mean_welfare, self.best_timesteps = -math.inf, 0

    def _on_training_start(self) -> None:
        self._reset()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        logged = self.logger.name_to_value
        welfare = logged.get("welfare/value", logged.get("rollout/social_welfare"))
        if welfare is None or not math.isfinite(welfare):
            return
        tracker = self.model._return_tracker
        assert tracker is not None
        # Welfare that is no mean has its own averages, which count episodes already
        counts = np.zeros_like(tracker.counts) if "welfare/value" in logged else tracker.counts
        self._last.append((float(welfare), tracker.shares, counts))
        mean = _mean_welfare(list(self._last))
        if len(self._last) == self.window and mean > self.best_mean_welfare:
            self.best_mean_welfare, self.best_timesteps = mean, self.num_timesteps
            # The policies that this rollout is of: the update comes later
            self._kept = copy.deepcopy((self.model.policy.state_dict(), self.model.assignment.state_dict()))

    def get_state(self) -> dict[str, Any]:
        """
        :return: what is kept, and the last rollouts
        """
        return {"last": list(self._last), "kept": self._kept, "best": (self.best_mean_welfare, self.best_timesteps)}

    def set_state(self, state: dict[str, Any]) -> None:
        """
        :param state: from :meth:`get_state`, of a training that goes on
        """
        self._last.extend(state["last"])
        self._kept = state["kept"]
        self.best_mean_welfare, self.best_timesteps = state["best"]

    def best_model(self) -> RepresentedOnPolicyAlgorithm:
        """
        :return: a copy of the model as it would be left if the training ended now, without an environment
        """
        file = io.BytesIO()
        self.model.save(file, exclude=["run_state"])
        file.seek(0)
        # Loading seeds the model
        with same_random_numbers_after():
            model = type(self.model).load(file, device=self.model.device)
        self._go_back(model)
        return model

    def _go_back(self, model: RepresentedOnPolicyAlgorithm) -> None:
        if self._kept is not None:
            policy, assignment = self._kept
            model.policy.load_state_dict(policy)
            model.assignment.load_state_dict(assignment)
            model.forget_rollout()

    def _on_training_end(self) -> None:
        if self._kept is None:
            return
        self._go_back(self.model)
        if self.verbose >= 1:
            print(
                f"Back to what was best, a welfare of {self.best_mean_welfare:.2f} after {self.best_timesteps} timesteps "
                f"(biased upwards: the largest of many means over {self.window} rollouts)"
            )


def _mean_welfare(rollouts: list[tuple[float, np.ndarray, np.ndarray]]) -> float:
    """
    :param rollouts: welfare of each, what representatives add to it, and the episodes that they finished, (k,) each
    :return: the mean of welfare, in which all episodes of a representative count alike
    """
    welfare, shares, counts = (np.array(part) for part in zip(*rollouts, strict=True))
    totals = counts.sum(axis=0)
    weights = np.divide(counts, totals, out=np.full(counts.shape, 1.0 / len(rollouts)), where=totals > 0)
    # Where all rollouts have as many episodes nothing is added, and nothing is rounded
    moved = (weights - 1.0 / len(rollouts)) * np.where(weights == 1.0 / len(rollouts), 0.0, shares)
    return float(sum(welfare.tolist()) / len(rollouts) + moved.sum())


class WelfareProgressBarCallback(ProgressBarCallback):
    """
    SB3's progress bar with the social welfare of the last rollout beside it.

    :param n_lines: how often a line with the welfare is also printed, for logs
    """

    def __init__(self, n_lines: int = 10):
        super().__init__()
        self.n_lines = n_lines
        self._n_printed = 0

    def _on_rollout_end(self) -> None:
        welfare = self.logger.name_to_value.get("rollout/social_welfare")
        if welfare is None:
            return
        self.pbar.set_description(f"social welfare {welfare:.2f}")
        total = self.locals["total_timesteps"]
        if self.num_timesteps * self.n_lines >= total * (self._n_printed + 1):
            self._n_printed = int(self.num_timesteps * self.n_lines / total)
            print(f"{self.num_timesteps:>10} of {total} timesteps: social welfare {welfare:.2f}", flush=True)


class WelfareEvalCallback(EventCallback):
    """
    SB3's ``EvalCallback`` with social welfare in the place of the mean reward, which says nothing of who is served by whom.

    Writes ``evaluations.npz`` with one entry per evaluation: ``timesteps``, ``results`` (welfare, of shape (m, 1), as plots of
    SB3's evaluations expect it), ``standard_errors`` (m,), ``utilities`` (m, n_agents, k) and ``assignments`` (m, n_agents).

    Where a file cannot be written in the midst of the training, as on a full disk, there is a warning, and the training goes
    on; the best model so far is saved as soon as it can be.

    :param eval_env: an environment, or a vec env of any size, apart from that of the training
    :param callback_on_new_best: called when welfare is higher than ever, e.g. ``StopTrainingOnRewardThreshold``, which reads
        ``best_mean_reward``
    :param callback_after_eval: called after every evaluation, e.g. ``StopTrainingOnNoModelImprovement``
    :param n_eval_episodes: episodes per representative
    :param eval_freq: steps of each training environment between two evaluations, at least 1
    :param log_path: folder of ``evaluations.npz``
    :param best_model_save_path: folder of ``best_model.zip``
    :param deterministic: take the modes of the policies instead of samples
    :param verbose: 1 to print each evaluation
    :param max_episode_steps: steps that an episode may take, as for :func:`evaluate_welfare`. An evaluation in which one takes
        more is left out, with a warning, and the training goes on
    :raises ValueError: if an argument is wrong; when ``learn`` is called, if the environment is that of the training
    :raises OSError: when ``learn`` is called, if a file cannot be written to its folder
    """

    model: RepresentedOnPolicyAlgorithm

    def __init__(
        self,
        eval_env: GymEnv,
        callback_on_new_best: BaseCallback | None = None,
        callback_after_eval: BaseCallback | None = None,
        n_eval_episodes: int = 5,
        eval_freq: int = 10_000,
        log_path: str | Path | None = None,
        best_model_save_path: str | Path | None = None,
        deterministic: bool = True,
        verbose: int = 1,
        max_episode_steps: int | None = None,
    ):
        super().__init__(callback_after_eval, verbose=verbose)
        self.callback_on_new_best = callback_on_new_best
        if callback_on_new_best is not None:
            callback_on_new_best.parent = self
        self.eval_env = as_vec_env(eval_env)
        EpisodeLengths(self.eval_env, max_episode_steps)  # complains of a number that is none
        self.max_episode_steps = max_episode_steps
        self.n_eval_episodes = Count().check("n_eval_episodes", n_eval_episodes)
        self.eval_freq = Count().check("eval_freq", eval_freq)
        self.log_path = None if log_path is None else Path(log_path)
        self.best_model_save_path = None if best_model_save_path is None else Path(best_model_save_path)
        self.deterministic = Flag().check("deterministic", deterministic)
        #: The welfare of the last evaluation and the best so far (too high: a maximum of noisy ones), named as SB3's callbacks
        #: read them
        self.last_mean_reward = -np.inf
        self.best_mean_reward = self._best_saved = -np.inf
        self.evaluations: list[tuple[int, WelfareEvaluation]] = []

    def _init_callback(self) -> None:
        check_apart(self.eval_env, self.training_env, type(self).__name__)
        for folder, name in ((self.log_path, EVALUATIONS), (self.best_model_save_path, BEST_MODEL)):
            if folder is not None:
                make_folder(check_target(folder / name).parent)
        if self.callback_on_new_best is not None:
            self.callback_on_new_best.init_callback(self.model)

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq != 0:
            return True
        if self.model.get_vec_normalize_env() is not None:
            sync_envs_normalization(self.training_env, self.eval_env)
        given = (self.n_eval_episodes, self.deterministic, self.max_episode_steps)
        try:
            result = evaluate_welfare(self.model, self.eval_env, *given)
        except EndlessEpisodeError as error:  # the training is worth more than one of its evaluations
            warnings.warn(f"no evaluation after {self.num_timesteps} timesteps: {error}", stacklevel=2)
            return True
        self.evaluations.append((self.num_timesteps, result))
        self.last_mean_reward = result.social_welfare
        self._write()
        self.logger.record("eval/social_welfare", result.social_welfare)
        self.logger.record("eval/standard_error", result.standard_error)
        self.logger.record("eval/welfare_min", result.worst_utility)
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)
        if self.verbose >= 1:
            print(f"Evaluation after {self.num_timesteps} timesteps: {result}")

        go_on = True
        self._save_best(result.social_welfare)
        if result.social_welfare > self.best_mean_reward:
            self.best_mean_reward = result.social_welfare
            if self.callback_on_new_best is not None:
                go_on = self.callback_on_new_best.on_step()
        return go_on and self._on_event()

    def _save_best(self, welfare: float) -> None:
        if self.best_model_save_path is None or welfare <= self._best_saved:
            return
        with warned_of_the_disk("the best model"):
            self.model.save(self.best_model_save_path / BEST_MODEL)
            self._best_saved = welfare

    def get_state(self) -> dict[str, Any]:
        """
        :return: all evaluations
        """
        evaluations = [(timesteps, vars(result)) for timesteps, result in self.evaluations]
        return {"evaluations": evaluations, "rewards": (self.last_mean_reward, self.best_mean_reward, self._best_saved)}

    def set_state(self, state: dict[str, Any]) -> None:
        """
        :param state: from :meth:`get_state`, of a training that goes on
        """
        self.evaluations = [(timesteps, WelfareEvaluation(**result)) for timesteps, result in state["evaluations"]]
        self.last_mean_reward, self.best_mean_reward, self._best_saved = state["rewards"]

    def _write(self) -> None:
        if self.log_path is None:
            return
        with warned_of_the_disk("the evaluation"):
            self._write_evaluations(self.log_path / EVALUATIONS)

    def _write_evaluations(self, path: Path) -> None:
        timesteps, results = zip(*self.evaluations, strict=True)
        save_whole(
            path,
            lambda file: np.savez(
                file,
                timesteps=np.array(timesteps),
                results=np.array([[result.social_welfare] for result in results]),
                standard_errors=np.array([result.standard_error for result in results]),
                utilities=np.array([result.utilities for result in results]),
                assignments=np.array([result.assignment for result in results]),
            ),
        )
