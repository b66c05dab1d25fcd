"""Running RL Zoo's scripts in tests: small budgets, and what they leave behind."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_rmdp.zoo import run

GRID = "rmdp/ResourceGathering-v0"
#: A game whose welfare is known; registered for all tests of this folder
WAITING = "probe/Waiting-v0"
SMALL: dict[str, Any] = dict(n_steps=64, batch_size=32, n_epochs=1)


def train(
    folder: Path, *words: str, env: str = GRID, params: dict[str, Any] | None = None, card: bool = False, **options: Any
) -> Path:
    """
    A training of some 400 steps, with logs in ``folder/logs``.

    :param folder: a temporary folder
    :param words: more of the command line
    :param env: environment
    :param params: hyperparameters beside :data:`SMALL`
    :param card: write a model card, which takes longer than the training
    :param options: more of the command line, by name
    :return: the run folder
    """
    settings = {
        "algo": "rppo",
        "log_folder": folder / "logs",
        "device": "cpu",
        "n_timesteps": 384,
        "eval_freq": -1,
        **options,
        "hyperparams": {**SMALL, **(params or {})},
    }
    with pytest.MonkeyPatch.context() as patch:
        if not card:
            patch.setattr("sb3_rmdp.zoo.experiment.write_model_card", lambda run_folder, **_: run_folder / "model_card.md")
        path = run("train", words, env=env, **settings)
    assert path is not None and path.is_dir()
    return path


def enjoy(folder: Path, *words: str, env: str = GRID, **options: Any) -> None:
    """
    See :func:`train`; nothing is drawn.

    :param folder: the folder of the training
    :param words: more of the command line
    :param env: environment
    :param options: more of the command line, by name
    """
    settings = {"algo": "rppo", "device": "cpu", "n_timesteps": 10, **options}
    run("enjoy", ["--no-render", *words], env=env, folder=folder / "logs", **settings)


def fork_workers(patch: pytest.MonkeyPatch) -> None:
    """Let workers of SubprocVecEnv be forked; others import everything anew, which takes seconds."""
    for module in ("exp_manager", "utils"):
        patch.setattr(f"rl_zoo3.{module}.SubprocVecEnv", functools.partial(SubprocVecEnv, start_method="fork"))


def name_of(env: str) -> str:
    """
    :param env: id of an environment
    :return: its name in file names
    """
    return env.replace("/", "-")


def tensorboard(folder: Path, tag: str) -> list[float]:
    """
    :param folder: folder with logs of TensorBoard somewhere within
    :param tag: name of a scalar
    :return: its values
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (path,) = folder.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(path))
    events.Reload()
    return [event.value for event in events.Scalars(tag)]
