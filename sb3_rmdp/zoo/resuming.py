"""``train --resume CHECKPOINT``: a training of RL Zoo goes on as if it had never been broken off."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_rmdp.zoo.run_folder import find_run_folder, read_run_folder

#: What RL Zoo's command line cannot be given again, or belongs to the training that was broken off
NOT_AGAIN = ("saved_hyperparams", "trained_agent", "truncate_last_trajectory", "command")


def resumed_words(words: Sequence[str], as_words: Any) -> tuple[list[str], bool]:
    """
    :param words: command line of ``train``
    :param as_words: makes words of options by name
    :return: the same with the options of the training that ``--resume`` names a checkpoint of, if it does; what else is on the
        command line comes after them, and holds. And whether it does
    :raises ValueError: if the file does not lie in the folder of a training
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume")
    known, rest = parser.parse_known_args(words)
    if known.resume is None:
        return rest, False
    checkpoint = Path(known.resume)
    if not (checkpoint.suffix == ".zip" and checkpoint.is_file()):
        raise ValueError(f"--resume {checkpoint}: there is no such checkpoint; give a .zip file of a training's folder")
    folder = find_run_folder(checkpoint)
    arguments = {} if folder is None else read_run_folder(folder).arguments
    if not arguments:
        raise ValueError(
            f"--resume {checkpoint}: the file lies in no folder of a training that tells its command line (args.yml); to "
            "begin with its policies, repeat the command line with -i"
        )
    again = {name: value for name, value in arguments.items() if name not in NOT_AGAIN and value not in ("", [], None)}
    return [*as_words(again), *rest, "--trained-agent", str(checkpoint)], True


def check_left(model: BaseAlgorithm, n_timesteps: int) -> None:
    """
    :param model: a model that was loaded
    :param n_timesteps: of the whole training
    :raises ValueError: if nothing is left of it
    """
    if model.num_timesteps >= n_timesteps:
        raise ValueError(
            f"nothing is left to resume: {model.num_timesteps} of {n_timesteps} timesteps are done; for more of them pass -n"
        )


class GoingOn:
    """
    A model that learns what is left of its timesteps, for who would begin anew with it.

    :param model: a model that was loaded
    :param n_timesteps: of the whole training
    """

    def __init__(self, model: BaseAlgorithm, n_timesteps: int):
        self._model, self._n_timesteps = model, n_timesteps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def learn(self, _: int, **kwargs: Any) -> BaseAlgorithm:
        """
        See SB3.

        :param _: is not asked for
        :param kwargs: as in SB3
        :return: the model
        """
        left = self._n_timesteps - self._model.num_timesteps
        print(f"Going on after {self._model.num_timesteps} timesteps: {left} are left")
        return self._model.learn(left, reset_num_timesteps=False, **kwargs)
