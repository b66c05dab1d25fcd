"""Social welfare in the place of the mean reward, in evaluations that SB3's callbacks run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EventCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp.common.random_numbers import other_random_numbers
from sb3_rmdp.vec_env import WelfareVecEnv, insert_welfare
from sb3_rmdp.vec_env.watch import check_apart


def check_evaluations_apart(callback: MaybeCallback, training_env: VecEnv) -> None:
    """
    :param callback: callbacks, as passed to ``learn``
    :param training_env: the environment of the training
    :raises ValueError: if an EvalCallback among them evaluates in that environment
    """
    for found in _eval_callbacks(callback):
        check_apart(found.eval_env, training_env, type(found).__name__)


def score_as_usual(callback: MaybeCallback, training_env: VecEnv) -> None:
    """
    Undo what :func:`score_by_welfare` did in an earlier training where SB3 would see it, since at the start of the next it
    compares the types of training and evaluation environments.

    :param callback: callbacks, as passed to ``learn``
    :param training_env: the environment of the training; if it pays welfare itself, so may those of evaluations
    """
    if isinstance(training_env, WelfareVecEnv):
        return
    for found in _eval_callbacks(callback):
        if isinstance(found.eval_env, WelfareVecEnv):
            found.eval_env = found.eval_env.venv


def score_by_welfare(callback: MaybeCallback, k: int, verbose: int = 0) -> None:
    """
    Let every EvalCallback within a callback evaluate social welfare: in whole cycles of the representatives, k episodes each,
    and in an environment that pays what an episode adds to welfare.

    The same goes for callbacks derived from it, such as that of RL Zoo's trials.

    :param callback: callbacks, as passed to ``learn``
    :param k: number of representatives
    :param verbose: 1 to tell of a number of episodes that is rounded up
    """
    for found in _eval_callbacks(callback):
        n_eval_episodes = -(-found.n_eval_episodes // k) * k
        if n_eval_episodes != found.n_eval_episodes and verbose >= 1:
            print(
                f"{type(found).__name__}: {n_eval_episodes} episodes per evaluation in the place of {found.n_eval_episodes}, "
                f"so that each of the {k} representatives has as many"
            )
        found.n_eval_episodes = n_eval_episodes
        found.eval_env = insert_welfare(found.eval_env)
        _leave_random_numbers_alone(found)


def _leave_random_numbers_alone(callback: EvalCallback) -> None:
    """Let a callback evaluate with random numbers of its own, so that the training is the same as without it."""
    on_step = callback._on_step
    if getattr(on_step, "is_apart", False):
        return

    def apart() -> bool:
        evaluates = callback.eval_freq > 0 and callback.n_calls % callback.eval_freq == 0
        with other_random_numbers() if evaluates else contextlib.nullcontext():
            return on_step()

    apart.is_apart = True  # type: ignore[attr-defined]
    callback._on_step = apart  # type: ignore[method-assign]


def _eval_callbacks(callback: MaybeCallback) -> Iterator[EvalCallback]:
    """Those among some callbacks, and among all that these call."""
    if isinstance(callback, EvalCallback):
        yield callback
    children: list[BaseCallback | None] = []
    if isinstance(callback, list):
        children += callback
    if isinstance(callback, CallbackList):
        children += callback.callbacks
    if isinstance(callback, EventCallback):
        children.append(callback.callback)
    for child in children:
        yield from _eval_callbacks(child)
