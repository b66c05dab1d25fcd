"""
Folders in which RL Zoo keeps a training, and the environment to evaluate its model in.

A run folder, say ``logs/rppo/rmdp-ResourceGathering-v0_1``, holds models (``rmdp-ResourceGathering-v0.zip``, often
``best_model.zip``), logs, and a folder named like the environment with ``config.yml`` (hyperparameters), ``args.yml`` (command
line), ``command.txt`` and, where observations were normalised, ``vecnormalize.pkl``. RL Zoo itself is needed to make its
environment, and imported only then: it patches gymnasium's time limits.

Such folders come from others as models do. Reading one runs no code from it, and imports no module that it names beside those
of :data:`~sb3_rmdp.zoo.settings.KNOWN_PACKAGES`, unless it is trusted.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize

from sb3_rmdp.common.vec_normalize_file import read_vec_normalize

#: Name of the file of statistics
STATISTICS = "vecnormalize.pkl"


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
    :param trusted: whether statistics may make objects of any class
    """

    path: Path
    name: str
    env_id: str
    hyperparams: dict[str, Any]
    env_kwargs: dict[str, Any]
    arguments: dict[str, Any]
    trusted: bool = False

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
        :raises ValueError: if there should be statistics and are none, they do not fit, or the folder is not trusted
        """
        if statistics is None and self.hyperparams["normalize"]:
            statistics = self.settings / STATISTICS
            if not statistics.is_file():
                raise ValueError(f"the training normalised observations, and its statistics, {statistics}, are not there")
        # create_test_env takes out what it has used, and says on stdout what it does: results go there, talk does not
        hyperparams = deepcopy(self.hyperparams)
        with contextlib.redirect_stdout(sys.stderr):
            env = _import_zoo("rl_zoo3").create_test_env(
                self.env_id,
                n_envs=n_envs,
                stats_path=None,  # it would unpickle statistics of any origin
                seed=seed,
                should_render=False,
                hyperparams=hyperparams,
                env_kwargs={**self.env_kwargs, **(env_kwargs or {})},
                vec_env_cls=DummyVecEnv,
            )
        if statistics is not None:
            env = with_statistics(env, statistics, self.trusted)
        n_stack = self.hyperparams.get("frame_stack", 0)
        return VecFrameStack(env, n_stack) if n_stack else env


def find_run_folder(model: str | Path) -> Path | None:
    """
    :param model: file of a model
    :return: the run folder that it lies in; ``None`` if it lies elsewhere
    """
    folder = Path(model).parent
    return folder if _settings(folder) else None


def statistics_beside(model: str | Path) -> list[Path]:
    """
    :param model: file of a model
    :return: files of statistics in its run folder, if it lies in one
    """
    return [path / STATISTICS for path in _settings(Path(model).parent) if (path / STATISTICS).is_file()]


def read_run_folder(path: str | Path, trusted: bool = False) -> RunFolder:
    """
    Read a run folder in the order of RL Zoo's ``enjoy``: arguments of the environment on the command line of the training
    replace those of the hyperparameters.

    :param path: the folder
    :param trusted: whether code may run that the folder holds or names: objects of Python in its settings, modules that are
        imported for wrappers and environments, what statistics of VecNormalize name
    :return: what it tells about the training
    :raises FileNotFoundError: if there is no such folder
    :raises ValueError: if it is no run folder, or of several environments, or would run code and is not trusted
    :raises ImportError: if RL Zoo is not installed, or a module that a trusted folder names
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    found = _settings(path)
    if len(found) != 1:
        held = f"{len(found)} folders" if found else "no folder"
        raise ValueError(
            f"{path} is no run folder of RL Zoo, since it holds {held} with a config.yml of its own: give the folder of one "
            "training, e.g. logs/rppo/rmdp-ResourceGathering-v0_1"
        )
    (settings,) = found
    from sb3_rmdp.zoo.settings import check_modules, read_settings  # not at the top: yaml costs time

    hyperparams = read_settings(settings / "config.yml", trusted)
    # As RL Zoo hands it on, which evaluates a text as Python and then but prints it
    hyperparams["normalize"] = hyperparams.get("normalize", False)
    if hyperparams["normalize"]:
        hyperparams["normalize_kwargs"] = hyperparams["normalize"]
    env_kwargs = _dict_of(settings, "env_kwargs", hyperparams.pop("env_kwargs", None))
    arguments = _read_arguments(settings / "args.yml", trusted)
    if arguments.get("env_kwargs") is not None:
        env_kwargs = _dict_of(settings, "env_kwargs", arguments["env_kwargs"])
    _import_zoo("rl_zoo3")  # before the environment is looked for: it registers some
    if not trusted:
        check_modules(path, hyperparams, arguments, str(arguments.get("env", "")))
    for package in arguments.get("gym_packages") or []:
        importlib.import_module(package)
    return RunFolder(path, settings.name, _env_id(settings, arguments), hyperparams, env_kwargs, arguments, trusted)


def with_statistics(env: VecEnv, path: Path, trusted: bool = False) -> VecNormalize:
    """
    :param env: a vec env
    :param path: file written by ``VecNormalize.save``
    :param trusted: whether it may make objects of any class, see :func:`read_vec_normalize`
    :return: the same with the statistics, which are not updated, and with rewards as they are
    :raises ValueError: if the file holds something else, or statistics of other observations, or would run code and is not
        trusted
    """
    normalized = read_vec_normalize(path, trusted)
    try:
        normalized.set_venv(env)
    except Exception as error:  # of other spaces: AssertionError, ValueError; of a file that was changed, anything
        raise ValueError(f"{path} holds no statistics of VecNormalize for this environment ({error}): give another") from error
    normalized.training = False
    normalized.norm_reward = False
    return normalized


def _settings(folder: Path) -> list[Path]:
    """Folders that hold what RL Zoo has written; those of others are left alone."""
    from sb3_rmdp.zoo.settings import is_of_the_zoo

    found = [path.parent for path in sorted(folder.glob("*/config.yml")) if path.is_file()]
    written = [path for path in found if is_of_the_zoo(path / "config.yml")]
    # Somebody may have written them anew, as plain mappings
    return written or [path for path in found if (path / "args.yml").is_file()]


def _read_arguments(path: Path, trusted: bool) -> dict[str, Any]:
    from sb3_rmdp.zoo.settings import read_settings

    return read_settings(path, trusted) if path.is_file() else {}


def _dict_of(settings: Path, name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, (Mapping, type(None))):
        raise ValueError(f"{settings} has {name} that are {type(value).__name__}, not names and values: it is damaged")
    return dict(value or {})


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
