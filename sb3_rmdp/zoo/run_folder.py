"""
Folders in which RL Zoo keeps a training, and the environment to evaluate its model in.

A run folder, say ``logs/rppo/rmdp-ResourceGathering-v0_1``, holds models (``rmdp-ResourceGathering-v0.zip``, often
``best_model.zip``), logs, and a folder named like the environment with ``config.yml`` (hyperparameters), ``args.yml`` (command
line), ``command.txt`` and, where observations were normalised, ``vecnormalize.pkl``. RL Zoo itself is needed to read it, and
imported only then: it patches gymnasium's time limits.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize


@dataclass(frozen=True)
class RunFolder:
    """
    A training of RL Zoo; made by :func:`read_run_folder`.

    :param path: the folder
    :param name: name of the environment in file names: its id with "-" for "/"
    :param env_id: gymnasium id of the environment
    :param hyperparams: hyperparameters as RL Zoo hands them to ``create_test_env``, without ``env_kwargs``
    :param env_kwargs: arguments of the environment
    :param arguments: command line of the training by name; empty if it was not saved
    """

    path: Path
    name: str
    env_id: str
    hyperparams: dict[str, Any]
    env_kwargs: dict[str, Any]
    arguments: dict[str, Any]

    @property
    def settings(self) -> Path:
        """The folder of ``config.yml``."""
        return self.path / self.name

    @property
    def model_path(self) -> Path:
        """
        The best model, or the last one if none was kept as the best.

        :raises FileNotFoundError: if there is neither
        """
        candidates = [self.path / "best_model.zip", self.path / f"{self.name}.zip"]
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        names = " nor ".join(candidate.name for candidate in candidates)
        raise FileNotFoundError(f"{self.path} holds neither {names}: let the training finish, or give another folder")

    def make_env(
        self, env_kwargs: dict[str, Any] | None = None, n_envs: int = 1, seed: int = 0, statistics: Path | None = None
    ) -> VecEnv:
        """
        The environment of the training as RL Zoo's ``enjoy`` makes it: with its arguments, wrappers, statistics of
        VecNormalize and stacked frames; without rendering, and all copies in this process.

        There is one file of statistics per run, that of the last model if the training came to its end.

        :param env_kwargs: arguments that are to differ from those of the training
        :param n_envs: number of copies
        :param seed: seed of the environments
        :param statistics: file of a VecNormalize to use instead of the run's own
        :return: the vec env; statistics are not updated in it
        :raises ValueError: if there should be statistics and are none, or they do not fit
        """
        # create_test_env takes out what it has used, and says on stdout what it does: results go there, talk does not
        hyperparams = deepcopy(self.hyperparams)
        with contextlib.redirect_stdout(sys.stderr):
            env = _import_zoo("rl_zoo3").create_test_env(
                self.env_id,
                n_envs=n_envs,
                stats_path=str(self.settings) if statistics is None else None,
                seed=seed,
                should_render=False,
                hyperparams=hyperparams,
                env_kwargs={**self.env_kwargs, **(env_kwargs or {})},
                vec_env_cls=DummyVecEnv,
            )
        if statistics is not None:
            env = with_statistics(env, statistics)
            n_stack = self.hyperparams.get("frame_stack", 0)
            env = VecFrameStack(env, n_stack) if n_stack else env
        return env


def find_run_folder(model: str | Path) -> Path | None:
    """
    :param model: file of a model
    :return: the run folder that it lies in; ``None`` if it lies elsewhere
    """
    folder = Path(model).parent
    return folder if _settings(folder) else None


def read_run_folder(path: str | Path) -> RunFolder:
    """
    Read a run folder in the order of RL Zoo's ``enjoy``: arguments of the environment on the command line of the training
    replace those of the hyperparameters.

    :param path: the folder
    :return: what it tells about the training
    :raises FileNotFoundError: if there is no such folder
    :raises ValueError: if it is no run folder, or of several environments
    :raises ImportError: if RL Zoo is not installed
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    found = _settings(path)
    if len(found) != 1:
        held = f"{len(found)} folders" if found else "no folder"
        raise ValueError(
            f"{path} is no run folder of RL Zoo, since it holds {held} with a config.yml: give the folder of one training, "
            "e.g. logs/rppo/rmdp-ResourceGathering-v0_1"
        )
    (settings,) = found
    hyperparams, _ = _import_zoo("rl_zoo3").get_saved_hyperparams(str(settings), norm_reward=False, test_mode=True)
    hyperparams = dict(hyperparams)
    env_kwargs = dict(hyperparams.pop("env_kwargs", None) or {})
    arguments = _read_arguments(settings / "args.yml")
    if arguments.get("env_kwargs") is not None:
        env_kwargs = dict(arguments["env_kwargs"])
    for package in arguments.get("gym_packages") or []:
        importlib.import_module(package)
    return RunFolder(path, settings.name, _env_id(settings, arguments), hyperparams, env_kwargs, arguments)


def with_statistics(env: VecEnv, path: Path) -> VecNormalize:
    """
    :param env: a vec env
    :param path: file written by ``VecNormalize.save``
    :return: the same with the statistics, which are not updated, and with rewards as they are
    :raises ValueError: if the file holds something else, or statistics of other observations
    """
    try:
        normalized = VecNormalize.load(str(path), env)
    except Exception as error:  # unpickling a file of any other kind may raise anything
        raise ValueError(f"{path} holds no statistics of VecNormalize for this environment ({error}): give another") from error
    normalized.training = False
    normalized.norm_reward = False
    return normalized


def _settings(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/config.yml"))


def _read_arguments(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    yaml = _import_zoo("yaml")
    # RL Zoo writes objects of Python and reads them like this; unpickling the model beside it asks for the same trust
    with path.open(encoding="utf-8") as file:
        return dict(yaml.load(file, Loader=yaml.UnsafeLoader))


def _env_id(settings: Path, arguments: dict[str, Any]) -> str:
    if "env" in arguments:
        return str(arguments["env"])
    for env_id in gym.registry:
        if env_id.replace("/", "-") == settings.name:
            return env_id
    raise ValueError(f"{settings} has no args.yml that names the environment, and none is registered under a name like this")


def _import_zoo(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(f"run folders of RL Zoo cannot be read without {error.name}: pip install 'sb3_rmdp[zoo]'") from error
